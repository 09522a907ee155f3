//! Members compared over real gRPC, and one that is wrong mended; or refused.

use std::sync::Mutex;

use super::*;
use crate::meta::replicas::{Differences, Mending, ReplicaError, Step, Verdict};
use crate::state::in_words;
use crate::types::Fence;

/// Enough for several leaves.
const OBJECTS: u32 = 400;

async fn filled(dir: &Path, size: u64) -> Vec<Member> {
    let members = cluster(dir, size, &Tuning::default()).await;
    for n in 0..OBJECTS {
        members[0].meta.propose(put(&format!("k{n:04}"), u128::from(n) + 1)).await.unwrap();
    }
    members
}

/// Where an object's record lies.
fn place(key: &str) -> Vec<u8> {
    let mut place = vec![3];
    place.extend_from_slice(format!("b\0{key}").as_bytes());
    place
}

/// A member that does not lead, by its place.
fn follower(members: &[Member]) -> usize {
    members.iter().position(|member| member.meta.status().role != Role::Leader).unwrap()
}

fn leader(members: &[Member]) -> usize {
    members.iter().position(|member| member.meta.status().role == Role::Leader).unwrap()
}

/// Makes a member wrong in three records, behind its own back; which.
async fn corrupt(member: &Member) -> Vec<String> {
    let state = &member.meta.inner.state;
    let lost = state.tamper(place("k0007"), None).await.unwrap();
    state.tamper(place("k0300"), Some(lost.clone())).await.unwrap();
    state.tamper(place("zzz"), Some(lost)).await;
    ["k0007", "k0300", "zzz"].map(|key| in_words(&place(key))).to_vec()
}

fn verdicts(comparison: &crate::meta::replicas::Comparison) -> Vec<Verdict> {
    comparison.standings.iter().map(|standing| standing.verdict).collect()
}

async fn mend(member: &Member, mending: Mending) -> (Result<Option<u64>, ReplicaError>, Vec<Step>) {
    let steps = Mutex::new(Vec::new());
    let mended = member.meta.resync(mending, None, &|step| steps.lock().unwrap().push(step)).await;
    (mended.map(|mended| mended.map(|mended| mended.records)), steps.into_inner().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_wrong_is_found_by_what_it_stored_and_mended_record_by_record() {
    let dir = tempfile::tempdir().unwrap();
    let members = filled(dir.path(), 4).await;
    let wrong = follower(&members);
    assert_eq!(verdicts(&members[0].meta.compare(true).await.unwrap()), [Verdict::Right; 4]);

    let changed = corrupt(&members[wrong]).await;
    let kept = members[0].meta.compare(false).await.unwrap();
    assert_eq!(verdicts(&kept), [Verdict::Right; 4], "it came past the digests that are kept");
    let asked = members[(wrong + 1) % 4].meta.compare(true).await.unwrap();
    let mut expected = [Verdict::Right; 4];
    expected[wrong] = Verdict::Wrong;
    assert_eq!(verdicts(&asked), expected);
    let (left, right) = (asked.standings[wrong].node.clone(), asked.standings[(wrong + 1) % 4].node.clone());
    let Differences { found, more, wire_bytes } =
        members[(wrong + 1) % 4].meta.differences(&asked.at, true, &left, &right).await.unwrap();
    let named: Vec<String> = found.iter().map(|difference| in_words(&difference.place)).collect();
    assert_eq!((named, more), (changed, false));
    assert!(wire_bytes > 0);

    let (mended, steps) = mend(&members[wrong], Mending::Differences).await;
    assert_eq!(mended.unwrap(), Some(3));
    assert!(
        matches!(steps[..], [Step::Comparing, Step::Stopped { .. }, Step::Writing { records: 3 }, Step::Proving]),
        "{steps:?}"
    );
    assert_eq!(verdicts(&members[0].meta.compare(true).await.unwrap()), [Verdict::Right; 4]);
    let (again, _) = mend(&members[wrong], Mending::Differences).await;
    assert_eq!(again.unwrap(), None, "there is nothing left to mend");

    // It goes on applying, and restarts from what was mended.
    members[0].meta.propose(put("after", 5000)).await.unwrap();
    members[wrong].meta.barrier().await.unwrap();
    assert!(members[wrong].meta.object(&"b".into(), "after").await.unwrap().is_some());
    assert!(members[wrong].meta.object(&"b".into(), "k0007").await.unwrap().is_some());
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_state_or_the_members_own_log_mend_it_as_well() {
    for mending in [Mending::Whole, Mending::Replay] {
        let dir = tempfile::tempdir().unwrap();
        let members = filled(dir.path(), 3).await;
        let wrong = follower(&members);
        corrupt(&members[wrong]).await;
        let (mended, _) = mend(&members[wrong], mending).await;
        assert_eq!(mended.unwrap(), Some(0), "{mending:?}");
        assert_eq!(verdicts(&members[0].meta.compare(true).await.unwrap()), [Verdict::Right; 3]);
        for member in members {
            member.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_its_own_that_is_as_wrong_does_not_mend_it() {
    let dir = tempfile::tempdir().unwrap();
    let members = filled(dir.path(), 3).await;
    let wrong = follower(&members);
    corrupt(&members[wrong]).await;
    members[wrong].meta.inner.raft.trigger().snapshot().await.unwrap();
    let made = async {
        while members[wrong].meta.inner.snapshots.current().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await
        }
    };
    tokio::time::timeout(PATIENCE, made).await.unwrap();
    let (refused, _) = mend(&members[wrong], Mending::Replay).await;
    assert!(matches!(&refused, Err(ReplicaError::Refused(why)) if why.contains("own snapshot and log")), "{refused:?}");
    let (mended, _) = mend(&members[wrong], Mending::Differences).await;
    assert_eq!(mended.unwrap(), Some(3));
    // What it sends to others from now on is right: the old snapshot is gone.
    let renewed = async {
        loop {
            let (mended, _) = mend(&members[wrong], Mending::Replay).await;
            if matches!(mended, Ok(None)) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, renewed).await.unwrap();
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_mended_without_a_majority_and_never_the_leader() {
    let dir = tempfile::tempdir().unwrap();
    let members = filled(dir.path(), 3).await;
    let leading = leader(&members);
    corrupt(&members[leading]).await;
    let asked = members[0].meta.compare(true).await.unwrap();
    assert_eq!(asked.standings[leading].verdict, Verdict::Wrong, "the majority is believed, not the leader");
    let (refused, steps) = mend(&members[leading], Mending::Differences).await;
    assert!(matches!(&refused, Err(ReplicaError::Refused(why)) if why.contains("leads")), "{refused:?}");
    assert_eq!(steps, []);

    // Of two that are left to say something, either may be wrong.
    let other = follower(&members);
    let silent = (0..3).find(|at| *at != leading && *at != other).unwrap();
    members[silent].deaf.store(true, Ordering::Relaxed);
    let (refused, _) = mend(&members[other], Mending::Differences).await;
    assert!(
        matches!(&refused, Err(ReplicaError::Refused(why)) if why.contains("majority of at least three")),
        "{refused:?}"
    );
    let asked = members[leading].meta.compare(true).await.unwrap();
    assert_eq!(asked.standings[silent].verdict, Verdict::Silent);
    members[silent].deaf.store(false, Ordering::Relaxed);
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_fence_mends_nothing_and_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let members = filled(dir.path(), 3).await;
    let wrong = follower(&members);
    corrupt(&members[wrong]).await;
    let fence = |epoch| Some(Fence { epoch, ..Fence::default() });
    let newest = Command::Checkpoint { id: 1, fence: fence(9) };
    assert_eq!(members[0].meta.propose(newest).await.unwrap(), Outcome::Done);
    let refused = members[wrong].meta.resync(Mending::Differences, fence(8), &|_| ()).await;
    assert!(matches!(refused, Err(ReplicaError::Refused(_))), "{refused:?}");
    assert_eq!(members[0].meta.compare(true).await.unwrap().standings[wrong].verdict, Verdict::Wrong, "it was mended");
    let mended = members[wrong].meta.resync(Mending::Differences, fence(9), &|_| ()).await.unwrap();
    assert_eq!(mended.map(|mended| mended.records), Some(3));
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_compared_at_one_entry_while_others_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 3, &Tuning::default()).await;
    let writers: Vec<_> = (0..8_u128)
        .map(|writer| {
            let meta = members[0].meta.clone();
            tokio::spawn(async move {
                for n in 0..100 {
                    meta.propose(put(&format!("w{writer}-{n}"), writer * 1000 + n + 1)).await.unwrap();
                }
            })
        })
        .collect();
    for _ in 0..5 {
        assert_eq!(verdicts(&members[0].meta.compare(false).await.unwrap()), [Verdict::Right; 3]);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for member in members {
        member.stop().await;
    }
}
