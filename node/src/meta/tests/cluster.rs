//! Three and more members: founded, joined, written, read, a leader lost, restarted, caught up.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::*;

fn leader_of(members: &[Member]) -> usize {
    let leader = members[0].meta.status().leader.unwrap();
    members.iter().position(|member| member.meta.raft_id() == leader).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_join_are_promoted_and_write_from_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 4, &Tuning::default()).await;
    let leader = leader_of(&members);
    let status = members[leader].meta.status();
    assert_eq!((status.role, status.voters.len()), (Role::Leader, 3));
    for (version, member) in (1..).zip(&members) {
        let outcome = member.meta.propose(put(&format!("k{version}"), version)).await.unwrap();
        assert_eq!(outcome, Outcome::Put { replaced: None });
        // Whoever reads after a barrier sees what was acknowledged before it, wherever it was written.
        for reader in &members {
            reader.meta.barrier().await.unwrap();
            assert!(reader.meta.object(&"b".into(), &format!("k{version}")).await.unwrap().is_some());
        }
    }
    let roles: BTreeSet<&str> = members.iter().map(|member| member.meta.status().role.as_str()).collect();
    assert_eq!(roles, BTreeSet::from(["leader", "follower", "learner"]));
    let refused = members[0].meta.propose(Command::InitCluster { cluster: ClusterId(9), name: "x".into() }).await;
    assert!(matches!(refused, Ok(Outcome::Refused(_))), "a refusal is an outcome");
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_barriers_at_once_share_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 3, &Tuning::default()).await;
    let reader = &members[(leader_of(&members) + 1) % 3];
    let started = Instant::now();
    let asked: Vec<_> = (0..500)
        .map(|_| {
            let meta = reader.meta.clone();
            tokio::spawn(async move { meta.barrier().await })
        })
        .collect();
    for answer in asked {
        answer.await.unwrap().unwrap();
    }
    assert!(started.elapsed() < PATIENCE);
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = cluster(dir.path(), 3, &Tuning::default()).await;
    let writer = members[(leader_of(&members) + 1) % 3].meta.clone();
    for version in 1..=50 {
        writer.propose(put(&format!("k{version:03}"), version)).await.unwrap();
    }
    let leader = members.remove(leader_of(&members));
    let id = leader.meta.raft_id();
    let lost = Instant::now();
    leader.stop().await;
    writer.propose(put("after", 1000)).await.unwrap();
    eprintln!("a lost leader cost {:?}, its own shutdown included", lost.elapsed());
    writer.barrier().await.unwrap();
    let query = ListQuery { prefix: "k".to_owned(), limit: 100, ..ListQuery::default() };
    let page = writer.list(&"b".into(), query).await.unwrap();
    assert_eq!(page.entries.len(), 50);

    // It comes back, at another address, as what it was.
    let back = Member::start(dir.path(), id.0, Tuning::default()).await;
    back.meta.propose(back.join(id.0)).await.unwrap();
    back.meta.barrier().await.unwrap();
    assert!(back.meta.object(&"b".into(), "after").await.unwrap().is_some());
    assert_eq!(back.meta.counts(), writer.counts());
    back.stop().await;
    for member in members {
        member.stop().await;
    }
}

/// Found by `tests/histories.rs`: a leader that was killed and back within its term was restored as leader and answered
/// reads from what its database had of before the crash, without writes that it had acknowledged since.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_back_within_its_term_reads_what_it_acknowledged_before() {
    let dir = tempfile::tempdir().unwrap();
    // So long that nobody else stands for election while it is away.
    let (election_min, election_max) = (PATIENCE, PATIENCE + Duration::from_secs(1));
    let tuning = Tuning { election_min, election_max, ..Tuning::default() };
    let mut members = cluster(dir.path(), 3, &tuning).await;
    let leads = |status: &MetaStatus| status.role == Role::Leader;
    let id = members[0].meta.raft_id().0;
    let again = async |leader: Member, before: &dyn Fn(&Path)| {
        let address = leader.address.clone();
        before(&leader.stop().await);
        let leader = Member::start_at(dir.path(), id, &address, tuning.clone()).await;
        leader.until("itself lead again", leads).await;
        leader
    };
    let old = dir.path().join("state.redb before");
    let leader = members.remove(0);
    let term = leader.meta.status().term;
    let keep = |of: &Path| {
        std::fs::copy(of.join("state.redb"), &old).unwrap();
    };
    let leader = again(leader, &keep).await;
    leader.meta.propose(put("acknowledged", 7)).await.unwrap();
    // What a crash leaves: the log is durable, the database is brought up from it.
    let lose = |of: &Path| {
        std::fs::copy(&old, of.join("state.redb")).unwrap();
    };
    let leader = again(leader, &lose).await;
    leader.meta.barrier().await.unwrap();
    assert!(leader.meta.object(&"b".into(), "acknowledged").await.unwrap().is_some());
    assert_eq!(leader.meta.status().term, term, "it was away for too long to show anything");
    for member in members.into_iter().chain([leader]) {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_cluster_starts_again_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 3, &Tuning::default()).await;
    for version in 1..=20 {
        members[0].meta.propose(put(&format!("k{version}"), version)).await.unwrap();
    }
    let addresses: Vec<String> = members.iter().map(|member| member.address.clone()).collect();
    for member in members {
        member.stop().await;
    }
    let mut members = Vec::new();
    for (id, address) in (1..).zip(&addresses) {
        members.push(Member::start_at(dir.path(), id, address, Tuning::default()).await);
    }
    assert_eq!(members[0].meta.map().cluster, Some(CLUSTER));
    for member in &members {
        member.meta.barrier().await.unwrap();
        assert_eq!(member.meta.counts().objects, 20);
    }
    members[2].meta.propose(put("after", 100)).await.unwrap();
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_member_starts_again_and_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = cluster(dir.path(), 1, &Tuning::default()).await;
    for version in 1..=20 {
        members[0].meta.propose(put(&format!("k{version}"), version)).await.unwrap();
    }
    members.remove(0).stop().await;
    let again = Member::start(dir.path(), 1, Tuning::default()).await;
    again.meta.barrier().await.unwrap();
    assert_eq!(again.meta.counts().objects, 20);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_member_catches_up_through_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning { snapshot_after: 50, keep_entries: 5, ..Tuning::default() };
    let mut members = cluster(dir.path(), 3, &tuning).await;
    for version in 1..=300 {
        members[0].meta.propose(put(&format!("k{version:03}"), version)).await.unwrap();
    }
    let leader = leader_of(&members);
    members[leader].until("a snapshot", |status| status.snapshot.is_some_and(|index| index > 100)).await;
    let late = Member::start(dir.path(), 4, tuning.clone()).await;
    members[0].meta.propose(late.join(4)).await.unwrap();
    late.until("the log", |status| status.applied > 300).await;
    late.meta.barrier().await.unwrap();
    assert!(late.meta.status().snapshot.is_some(), "entries it needed were purged: only a snapshot could bring them");
    assert_eq!(late.meta.counts(), members[0].meta.counts());
    assert_eq!(late.meta.counts().objects, 300);
    assert_eq!(late.meta.map(), members[0].meta.map());

    // And again from its own disk.
    let dir_of_late = late.stop().await;
    let kept = std::fs::read_dir(dir_of_late.join("snapshots")).unwrap().count();
    assert_eq!(kept, 1, "the newest snapshot only");
    let again = Member::start(dir.path(), 4, tuning.clone()).await;
    assert_eq!(again.meta.counts().objects, 300);
    again.stop().await;

    // A snapshot that rotted is no loss: the database has what was in it.
    for file in std::fs::read_dir(dir_of_late.join("snapshots")).unwrap() {
        std::fs::write(file.unwrap().path(), b"rotten").unwrap();
    }
    let again = Member::start(dir.path(), 4, tuning).await;
    assert_eq!(again.meta.counts().objects, 300);
    members.push(again);
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 3, &Tuning::default()).await;
    let leader = leader_of(&members);
    let heir = &members[(leader + 1) % 3];
    members[leader].meta.step_down(Some(heir.meta.raft_id())).await.unwrap();
    heir.until("itself leading", |status| status.role == Role::Leader).await;
    heir.meta.step_down(None).await.unwrap();
    members[leader].meta.propose(put("k", 1)).await.unwrap();
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_somebody_else_is_refused_before_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 1, &Tuning::default()).await;
    let meta = &members[0].meta;
    let right = meta.envelope(meta.raft_id());
    meta.check_envelope(Some(&right)).unwrap();
    let wrong = [
        None,
        Some(Envelope { cluster_id: ClusterId(9).to_string(), ..right.clone() }),
        Some(Envelope { epoch: 9, ..right.clone() }),
        Some(Envelope { target: 9, ..right.clone() }),
    ];
    for envelope in wrong {
        let status = meta.check_envelope(envelope.as_ref()).unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_a_command_is_certainly_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let lonely = Member::start(dir.path(), 1, Tuning::default()).await;
    let asked = tokio::time::timeout(PATIENCE, lonely.meta.propose(bucket("b"))).await.unwrap();
    assert!(matches!(asked, Err(MetaError::NoLeader { .. })), "{asked:?}");
    let stopped = {
        let meta = lonely.meta.clone();
        tokio::spawn(async move { meta.stopped().await })
    };
    lonely.stop().await;
    assert!(!stopped.await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_machine_that_fails_stops_raft_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 1, &Tuning::default()).await;
    let meta = members[0].meta.clone();
    meta.inner.state.close().await;
    let writer = meta.clone();
    let asked = tokio::spawn(async move { writer.propose(put("k", 1)).await });
    let reason = tokio::time::timeout(PATIENCE, meta.stopped()).await.unwrap();
    assert!(reason.contains("closed"), "{reason}");
    assert!(asked.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_reaches_the_log_twice_is_applied_once() {
    let dir = tempfile::tempdir().unwrap();
    let members = cluster(dir.path(), 1, &Tuning::default()).await;
    let inner = &members[0].meta.inner;
    let proposal = crate::state::Proposal { session: 5, sequence: 1, floor: 1, command: put("k", 1) };
    let delete = Command::DeleteObject { bucket: "b".into(), key: "k".into(), condition: Condition::None, now_ms: 0 };
    let answered = |attempt| match attempt {
        propose::Attempt::Answered(outcome) => outcome,
        _ => panic!("not answered"),
    };
    let first = answered(inner.submit(proposal.clone()).await);
    inner.propose(&delete).await.unwrap();
    assert_eq!(answered(inner.submit(proposal).await), first);
    assert_eq!(members[0].meta.counts().objects, 0, "its answer came again, its effect did not");
}
