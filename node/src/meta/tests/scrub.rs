//! What is stored rots while the member runs: it is found, the member ends where the others can do without it, and the next
//! open judges as it always does.

use super::*;
use crate::phase::Damage;

/// A name that is nowhere else in a file.
const NAME: &str = "a-name-that-is-nowhere-else";
/// Segment 0 holds everything that a short story appends.
const SEGMENT: &str = "log/segment-0000000000000000";

fn tuning() -> Tuning {
    Tuning { scrub_period: Duration::from_millis(50), scrub_bytes_per_second: 1_000_000_000, ..Tuning::default() }
}

/// Flips a bit in every copy that a file has of the name; how many it has.
fn rot(path: &Path) -> usize {
    let mut bytes = std::fs::read(path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - NAME.len()).filter(|at| bytes[*at..].starts_with(NAME.as_bytes())).collect();
    for at in &places {
        bytes[*at] ^= 1;
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes[*at..=*at], *at as u64).unwrap();
    }
    places.len()
}

/// What the database has made durable, once that is everything applied so far.
async fn flushed(member: &Member) {
    let applied = member.meta.status().applied;
    let mut durable = member.meta.inner.state.durable_changes();
    durable.wait_for(|durable| *durable >= Some(applied)).await.unwrap();
}

async fn stopped(member: &Member) -> String {
    tokio::time::timeout(PATIENCE, member.meta.stopped()).await.expect("the member ends")
}

async fn reopened(member: Member) -> (String, Damage) {
    let (address, id) = (member.address.clone(), member.meta.raft_id().0);
    let dir = member.stop().await;
    let options = MetaOptions { dir, identity: identity(id), address, tuning: tuning() };
    let host = host();
    match Meta::start(&host, options, Peers::new(host.net.clone())).await {
        Err(MetaError::LostVoter { where_, damage, .. }) => (where_, damage),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it votes again on what rotted"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_rots_under_a_running_leader_is_found_and_it_ends_and_is_a_lost_voter() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = cluster(dir.path(), 3, &tuning()).await;
    members[0].meta.propose(put(NAME, 1)).await.unwrap();
    let leader = members[0].meta.status().leader.unwrap();
    let at = members.iter().position(|member| member.meta.raft_id() == leader).unwrap();
    let leader = members.remove(at);

    assert!(rot(&leader.dir.join(SEGMENT)) > 0);
    let why = stopped(&leader).await;
    assert!(why.contains("what is stored rots") && why.contains("segment-0"), "{why}");
    // The others have a leader already: it was handed over, and not missed.
    assert_ne!(leader.meta.status().role, Role::Leader);
    members[0].meta.propose(put("on", 2)).await.unwrap();
    let (place, damage) = reopened(leader).await;
    assert!(place.contains("segment-0") && damage == Damage::Log, "{place}");
    for member in members {
        assert!(member.meta.rot().borrow().is_none(), "nobody else finds anything");
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_rots_under_a_running_member_is_found_and_it_ends_and_is_a_lost_voter() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = cluster(dir.path(), 3, &tuning()).await;
    members[0].meta.propose(put(NAME, 1)).await.unwrap();
    let index = members[0].meta.status().applied;
    let member = members.pop().unwrap();
    member.until("the put", |status| status.applied >= index).await;
    flushed(&member).await;

    assert!(rot(&member.dir.join("state.redb")) > 0);
    let why = stopped(&member).await;
    assert!(why.contains("state.redb") && why.contains("checksum of a page"), "{why}");
    let (place, damage) = reopened(member).await;
    assert!(place.contains("state.redb") && damage == Damage::Database, "{place}");
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_vote_that_rots_is_mended_and_both_end_the_member() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 3, &tuning()).await;
    let vote = members[2].dir.join("log/vote");
    let whole = std::fs::read(&vote).unwrap();
    // Byte by byte, as rot does: a file that is written whole is empty for a moment.
    let flip = |at: usize| {
        let file = std::fs::OpenOptions::new().write(true).open(&vote).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[whole[at] ^ 1], at as u64).unwrap();
    };
    // In the vote itself: behind it a slot is not looked at.
    flip(33);
    let mended = tokio::time::timeout(PATIENCE, async {
        while std::fs::read(&vote).unwrap() != whole {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(mended.await.is_ok(), "it is written anew from the other copy");
    // Together: one alone would be mended between them.
    let mut bytes = whole.clone();
    bytes[33] ^= 1;
    bytes[4096 + 33] ^= 1;
    let file = std::fs::OpenOptions::new().write(true).open(&vote).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    let why = stopped(&members[2]).await;
    assert!(why.contains("vote"), "{why}");
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_the_others_cannot_do_without_goes_on_and_says_what_rots_until_they_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = cluster(dir.path(), 3, &tuning()).await;
    members[0].meta.propose(put(NAME, 1)).await.unwrap();
    let leader = members[0].meta.status().leader.unwrap();
    let at = members.iter().position(|member| member.meta.raft_id() == leader).unwrap();
    let leader = members.remove(at);
    // One of three is away: the one that rots is needed.
    let away = members.pop().unwrap();
    let (id, address) = (away.meta.raft_id().0, away.address.clone());
    away.stop().await;
    assert!(rot(&leader.dir.join(SEGMENT)) > 0);
    let mut said = leader.meta.rot();
    let said =
        tokio::time::timeout(PATIENCE, said.wait_for(Option::is_some)).await.expect("it says so").unwrap().clone();
    assert!(said.unwrap().contains("segment-0"));
    leader.meta.propose(put("on", 2)).await.unwrap();
    assert_eq!(leader.meta.status().role, Role::Leader);

    // It is back: now the other may end.
    let back = Member::start_at(dir.path(), id, &address, tuning()).await;
    let why = stopped(&leader).await;
    assert!(why.contains("what is stored rots"), "{why}");
    leader.stop().await;
    members[0].meta.propose(put("on", 3)).await.unwrap();
    back.stop().await;
    for member in members {
        member.stop().await;
    }
}

/// Found on review: two that found something in the same moment counted on each other, and both ended.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_members_that_rot_in_the_same_moment_one_ends() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 3, &tuning()).await;
    members[0].meta.propose(put(NAME, 1)).await.unwrap();
    let index = members[0].meta.status().applied;
    for member in &members {
        member.until("the put", |status| status.applied >= index).await;
    }
    for member in &members[..2] {
        assert!(rot(&member.dir.join(SEGMENT)) > 0);
    }
    let (gone, left) = tokio::select! {
        _ = stopped(&members[0]) => (0, 1),
        _ = stopped(&members[1]) => (1, 0),
    };
    let mut rot = members[left].meta.rot();
    let said =
        tokio::time::timeout(PATIENCE, rot.wait_for(Option::is_some)).await.expect("it says so").unwrap().clone();
    assert!(said.unwrap().contains("segment-0"));
    // It has looked again since, for there is a pass every 50 ms: what two of three take, both have.
    for number in 0..20 {
        members[2].meta.propose(put("on", number)).await.unwrap();
    }
    let ended = tokio::time::timeout(Duration::ZERO, members[left].meta.stopped()).await;
    assert!(ended.is_err(), "both ended, member {gone} first");
    for member in members {
        member.stop().await;
    }
}
