//! A member's log replayed beside it, compared with what it has.

use super::*;
use crate::meta::replicas::{Replaying, ReplicaError, difference_in_words};
use crate::state::in_words;

async fn lone(dir: &Path) -> Member {
    let mut members = cluster(dir, 1, &Tuning::default()).await;
    for version in 1..=600_u32 {
        members[0].meta.propose(put(&format!("k{version:04}"), u128::from(version))).await.unwrap();
    }
    members.remove(0)
}

/// Where an object's record lies.
fn place(key: &str) -> Vec<u8> {
    let mut place = vec![3];
    place.extend_from_slice(format!("b\0{key}").as_bytes());
    place
}

async fn snapshot(member: &Member) -> u64 {
    member.meta.inner.raft.trigger().snapshot().await.unwrap();
    member.until("a snapshot", |status| status.snapshot.is_some()).await;
    member.meta.status().snapshot.unwrap()
}

fn nothing_is_left(member: &Member) {
    assert!(!member.dir.join("replay").exists(), "the copy is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_comes_to_what_was_stored_from_its_begin_from_a_snapshot_and_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let member = lone(dir.path()).await;
    let told = Mutex::new(Vec::new());
    let say = |at: Replaying| {
        told.lock().unwrap().push(at);
        true
    };
    let whole = member.meta.replay_journal(0, &say).await.unwrap();
    assert!(whole.equal() && whole.from.is_none(), "{whole:?}");
    assert!(whole.entries == whole.index + 1 && whole.entries > 600, "{whole:?}");
    let told = told.into_inner().unwrap();
    assert_eq!(told.first().map(|at| (at.done, at.total)), Some((0, whole.entries)));
    assert_eq!(told.last().map(|at| at.done), Some(whole.entries));
    nothing_is_left(&member);

    let last = snapshot(&member).await;
    let meta = member.meta.clone();
    let writing = tokio::spawn(async move {
        for version in 1000..1200_u128 {
            meta.propose(put(&format!("w{version}"), version)).await.unwrap();
        }
    });
    let mut behind = member.meta.replay_journal(0, &|_| true).await.unwrap();
    assert_eq!(behind.from, Some(last));
    writing.await.unwrap();
    for _ in 0..2 {
        assert!(behind.equal(), "{behind:?}");
        behind = member.meta.replay_journal(0, &|_| true).await.unwrap();
    }
    assert_eq!(behind.entries, behind.index - last);
    // The log still has its first entry: an entry before the snapshot can be asked for.
    let all = member.meta.replay_journal(5, &|_| true).await.unwrap();
    assert!(all.from.is_none() && all.digest == behind.digest, "{all:?}");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_entry_of_the_log_wrote_is_named_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let member = lone(dir.path()).await;
    let state = &member.meta.inner.state;
    let lost = state.tamper(place("k0007"), None).await.unwrap();
    state.tamper(place("zzz"), Some(lost)).await;
    for _ in 0..2 {
        let differs = member.meta.replay_journal(0, &|_| true).await.unwrap();
        let named: Vec<String> = differs.differences.found.iter().map(difference_in_words).collect();
        assert!(named.len() == 2 && !differs.equal() && differs.kept_differs, "{differs:?}");
        assert!(named[0].starts_with(&in_words(&place("k0007"))) && named[0].ends_with("not there as stored"));
        assert!(named[1].starts_with(&in_words(&place("zzz"))) && named[1].contains("not there as replayed"));
    }
    nothing_is_left(&member);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_ends_with_whoever_asked_and_there_is_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let member = lone(dir.path()).await;
    let given_up = member.meta.replay_journal(0, &|at| at.done == 0).await;
    assert!(matches!(&given_up, Err(ReplicaError::Refused(why)) if why.contains("given up")), "{given_up:?}");
    nothing_is_left(&member);
    // The second is asked for while the first stands at its first message.
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
    let meta = member.meta.clone();
    let may_go_on = Mutex::new(may_go_on);
    let first = tokio::spawn(async move {
        let wait = |at: Replaying| {
            if at.done == 0 {
                begun.send(()).unwrap();
                tokio::task::block_in_place(|| may_go_on.lock().unwrap().recv().unwrap());
            }
            true
        };
        meta.replay_journal(0, &wait).await
    });
    tokio::task::block_in_place(|| has_begun.recv().unwrap());
    let second = member.meta.replay_journal(0, &|_| true).await;
    assert!(matches!(&second, Err(ReplicaError::Refused(why)) if why.contains("already")), "{second:?}");
    go_on.send(()).unwrap();
    assert!(first.await.unwrap().unwrap().equal());
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_rotted_is_told_and_what_was_purged_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning { keep_entries: 10, ..Tuning::default() };
    let mut members = cluster(dir.path(), 1, &tuning).await;
    let member = members.remove(0);
    for version in 1..=300_u128 {
        member.meta.propose(put(&format!("k{version}"), version)).await.unwrap();
    }
    snapshot(&member).await;
    let purged = async {
        while member.meta.inner.elections.log.first() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, purged).await.unwrap();
    let gone = member.meta.replay_journal(1, &|_| true).await;
    assert!(
        matches!(&gone, Err(ReplicaError::Refused(why)) if why.contains("no checkpoint before entry 1")),
        "{gone:?}"
    );
    // The snapshot rots.
    let file = member.meta.inner.snapshots.current().unwrap().1.path;
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let rotten = member.meta.replay_journal(0, &|_| true).await;
    assert!(matches!(&rotten, Err(ReplicaError::Damaged(_))), "{rotten:?}");
    nothing_is_left(&member);
    member.stop().await;
}
