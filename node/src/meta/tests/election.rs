//! Who stands for election: only who is missed by a quorum.

use super::*;

/// Slower than in production, as in `node::testing`: a stall of a machine that is shared must not move the term.
fn unhurried() -> Tuning {
    Tuning {
        heartbeat: Duration::from_millis(200),
        election_min: Duration::from_millis(1500),
        election_max: Duration::from_millis(3000),
        ..Tuning::default()
    }
}

fn refused(member: &Member) -> u64 {
    member.meta.asked().refused.load(Ordering::Relaxed)
}

async fn until_refused(member: &Member, times: u64) {
    let already = refused(member);
    let waited = tokio::time::timeout(PATIENCE, async {
        while refused(member) < already + times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "asked only {} times: {:?}", refused(member), member.meta.status());
}

/// Found by the simulator (`lost-peer`, seed 10): a voter that had been cut off came back with a higher term and deposed
/// the leader; clients waited for two elections.
#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_hears_nobody_does_not_depose_its_leader() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 3, &unhurried()).await;
    let before = members[0].meta.status();
    let leader = before.leader.unwrap();
    let at = members.iter().position(|member| member.meta.raft_id() != leader).unwrap();
    let (follower, other) = (&members[at], &members[(at + 1) % 3]);

    follower.deaf.store(true, Ordering::Relaxed);
    until_refused(follower, 3).await;
    other.meta.propose(put("without", 1)).await.unwrap();
    follower.deaf.store(false, Ordering::Relaxed);
    follower.meta.barrier().await.unwrap();
    assert!(follower.meta.object(&"b".into(), "without").await.unwrap().is_some());
    for member in &members {
        let after = member.meta.status();
        assert_eq!((after.term, after.leader), (before.term, Some(leader)));
    }
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_made_to_stand_against_a_leader_that_lives() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 4, &unhurried()).await;
    let before = members[0].meta.status();
    for member in &members {
        let status = member.meta.status();
        let triggered = member.meta.trigger_election().await;
        match status.role {
            Role::Leader => assert!(triggered.is_ok(), "it leads already: {triggered:?}"),
            Role::Learner => {
                let error = triggered.unwrap_err().to_string();
                assert!(error.contains("does not vote"), "{error}");
            }
            _ => {
                let error = triggered.unwrap_err().to_string();
                assert!(error.contains("it heard the leader") && error.contains("ms ago"), "{error}");
            }
        }
    }
    members[0].meta.propose(put("k", 1)).await.unwrap();
    for member in &members {
        assert_eq!(member.meta.status().term, before.term, "nobody's term moved");
    }
    for member in members {
        member.stop().await;
    }
}
