//! Who votes, by what the map says of nodes: in real clusters, with a real Raft.

use super::*;
use crate::model::{Mark, MarkedBy};

fn name(id: RaftId) -> crate::types::NodeName {
    format!("n{id}").as_str().into()
}

fn voting(id: RaftId, votes: bool, by: MarkedBy) -> Command {
    Command::SetVoting { node: name(id), votes, by, reason: "a test".into(), judged: None, fence: None }
}

fn member(members: &[Member], id: RaftId) -> &Member {
    members.iter().find(|member| member.meta.raft_id() == id).unwrap()
}

async fn stop(members: Vec<Member>) {
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_leader_hands_over_and_has_no_vote_until_it_kept_up() {
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning { kept_up: Duration::from_millis(1500), ..Tuning::default() };
    let members = cluster(dir.path(), 5, &tuning).await;
    let before = members[0].meta.status();
    let slow = before.leader.unwrap();
    let other = members.iter().find(|member| !before.voters.contains(&member.meta.raft_id())).unwrap();
    assert_eq!(other.meta.propose(voting(slow, false, MarkedBy::Automatic)).await.unwrap(), Outcome::Done);
    other
        .until("a leader and three voters without the slow one", |status| {
            status.voters.len() == 3
                && !status.voters.contains(&slow)
                && status.leader.is_some_and(|leader| leader != slow)
        })
        .await;
    member(&members, slow).until("that it is a learner", |status| status.role == Role::Learner).await;
    // It keeps up, so that the mark is taken back; there is no free vote, so that nothing else changes.
    let mut maps = other.meta.map_changes();
    let back = maps.wait_for(|map| map.nodes[&name(slow)].no_vote.is_none());
    drop(tokio::time::timeout(PATIENCE, back).await.unwrap().unwrap());
    assert!(!other.meta.status().voters.contains(&slow));
    // Another one's vote goes to it, or to the one that never had one: both may.
    let next = other.meta.status().leader.unwrap();
    other.meta.propose(voting(next, false, MarkedBy::Operator)).await.unwrap();
    other
        .until("three voters without that one", |status| {
            status.voters.len() == 3
                && !status.voters.contains(&next)
                && status.leader.is_some_and(|leader| leader != next)
        })
        .await;
    assert_eq!(other.meta.propose(put("k", 1)).await.unwrap(), Outcome::Put { replaced: None });
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_word_on_a_vote_stays_however_well_the_member_is() {
    let dir = tempfile::tempdir().unwrap();
    let tuning = Tuning { kept_up: Duration::ZERO, ..Tuning::default() };
    let members = cluster(dir.path(), 4, &tuning).await;
    let status = members[0].meta.status();
    let taken = *status.voters.iter().find(|id| status.leader != Some(**id)).unwrap();
    members[0].meta.propose(voting(taken, false, MarkedBy::Operator)).await.unwrap();
    members[0]
        .until("three voters without it", |status| status.voters.len() == 3 && !status.voters.contains(&taken))
        .await;
    // It is caught up all the time, and long enough for an agent's mark to be taken back.
    let mark = Some(Mark { by: MarkedBy::Operator, reason: "a test".to_owned() });
    for version in 1..=20 {
        members[0].meta.propose(put(&format!("k{version}"), version)).await.unwrap();
    }
    assert_eq!(members[0].meta.map().nodes[&name(taken)].no_vote, mark);
    assert!(!members[0].meta.status().voters.contains(&taken));
    members[0].meta.propose(voting(taken, true, MarkedBy::Operator)).await.unwrap();
    assert_eq!(members[0].meta.map().nodes[&name(taken)].no_vote, None);
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_is_dropped_and_whatever_it_still_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut members = cluster(dir.path(), 4, &Tuning::default()).await;
    let status = members[0].meta.status();
    let at = members.iter().position(|member| !status.voters.contains(&member.meta.raft_id())).unwrap();
    let leaving = members.remove(at);
    let id = leaving.meta.raft_id();
    let meta = &members[0].meta;
    let drain =
        Command::DrainHost { node: name(id), by: MarkedBy::Operator, reason: String::new(), judged: None, fence: None };
    assert!(matches!(meta.propose(drain).await.unwrap(), Outcome::HostWas(_)));
    meta.barrier().await.unwrap();
    let forget = Command::ForgetNode { node: name(id), judged: meta.map().revision };
    assert!(matches!(meta.propose(forget).await.unwrap(), Outcome::HostWas(_)));
    let dropped = async {
        for member in &members {
            member.meta.dropped(id).await;
            member.meta.barrier().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.unwrap();
    // Its words: for any of them, whoever it takes for the leader.
    for member in &members {
        let envelope = leaving.meta.envelope(member.meta.raft_id());
        let refusal = member.meta.check_envelope(Some(&envelope)).unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::FailedPrecondition);
        assert!(refusal.message().contains(&format!("node n{id}, which was removed")), "{refusal}");
    }
    let asked = tokio::time::timeout(Duration::from_secs(2), leaving.meta.propose(put("k", 1))).await;
    assert!(!matches!(asked, Ok(Ok(_))), "it changes nothing any more: {asked:?}");
    assert!(meta.object(&"b".into(), "k").await.unwrap().is_none());
    leaving.stop().await;
    stop(members).await;
}
