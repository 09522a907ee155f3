//! `NodeControl.SetVoting`, and whether the quorum can do without a vote.
//!
//! Owns: the judgement of what the map alone does not know (who votes, who is well, who has caught up), made by one revision of
//! the map and refused by any other: two of these at a time must not each count upon the learner that the other one takes.
//! Must never: count upon a node that does not say that it is well.

use std::collections::BTreeMap;
use std::sync::Arc;

use resilver_proto::contract::{ObserveResponse, SetVotingRequest, SetVotingResponse};
use tonic::Status;

use super::hosts::MAX_REASON_CHARS;
use super::{Core, Shared, meta_status, observe_now};
use crate::meta::{CAUGHT_UP_ENTRIES, VOTERS};
use crate::model::{ClusterMap, Command, MarkedBy, NodeRecord, Outcome, Refusal};
use crate::phase::Phase;
use crate::types::{Fence, NodeName};

/// Looks at all nodes before a map that moves on each time is given up on.
pub(super) const JUDGE_TRIES: u32 = 5;

/// What the nodes say of themselves just now. One that does not say anything is not among them.
pub(super) type Answers = BTreeMap<NodeName, ObserveResponse>;

/// Asks all nodes of the map side by side.
pub(super) async fn ask(shared: &Arc<Shared>, map: &ClusterMap) -> Answers {
    let asked = map.nodes.values().map(async |node| {
        let answer = match node.name == shared.name {
            true => Some(observe_now(shared)),
            false => shared.views.of(&shared.peers, node).await.answer,
        };
        Some((node.name.clone(), answer?))
    });
    futures_util::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Whether a node says that it serves.
pub(super) fn is_well(answers: &Answers, node: &NodeName) -> bool {
    answers.get(node).is_some_and(|answer| answer.phase == Phase::Healthy.as_str())
}

/// Says whether a node may vote.
pub(super) async fn set_voting(shared: &Arc<Shared>, request: SetVotingRequest) -> Result<SetVotingResponse, Status> {
    let SetVotingRequest { fence, node, votes, automatic, reason } = request;
    if !votes {
        demand_fence("takes a vote", automatic, fence.is_some())?;
    }
    let name = NodeName::from(node.as_str());
    let by = if automatic { MarkedBy::Automatic } else { MarkedBy::Operator };
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    let core = shared.core()?;
    for _ in 0..JUDGE_TRIES {
        core.meta.barrier().await.map_err(|error| meta_status(&error))?;
        let map = core.meta.map();
        let record =
            map.nodes.get(&name).ok_or_else(|| Status::not_found(Refusal::NoNode(name.clone()).to_string()))?;
        let before = record.no_vote.is_none();
        match (before, votes) {
            (true, false) => may_go(shared, core, &map, record).await?,
            (false, true) => may_come(&ask(shared, &map).await, record, core.meta.status().committed)?,
            (true, true) | (false, false) => {}
        }
        let (node, reason, fence) = (name.clone(), reason.clone(), fence.clone().map(Fence::from));
        let command = Command::SetVoting { node, votes, by, reason, judged: Some(map.revision), fence };
        match core.meta.propose(command).await.map_err(|error| meta_status(&error))? {
            Outcome::Done => {
                tracing::info!(node = %name, votes, automatic, operation = "membership", "it was said who votes");
                return Ok(SetVotingResponse { before, after: votes });
            }
            Outcome::Refused(Refusal::MapMoved) => {}
            Outcome::Refused(refusal @ Refusal::NoNode(_)) => return Err(Status::not_found(refusal.to_string())),
            Outcome::Refused(refusal) => return Err(Status::failed_precondition(refusal.to_string())),
            other => return Err(Status::internal(format!("an unexpected outcome of a word on a vote: {other:?}"))),
        }
    }
    Err(Status::unavailable(Refusal::MapMoved.to_string()))
}

/// Of two agents that both believe they coordinate, only the later one's word may count against a node.
#[allow(clippy::result_large_err)] // tonic's own error type
pub(super) fn demand_fence(doing: &str, automatic: bool, fenced: bool) -> Result<(), Status> {
    match automatic && !fenced {
        true => Err(Status::failed_precondition(format!(
            "an agent that {doing} needs a fence: it speaks for the lease's holder"
        ))),
        false => Ok(()),
    }
}

/// Refuses to do without a node's vote where the quorum would not hold.
pub(super) async fn may_go(
    shared: &Arc<Shared>,
    core: &Core,
    map: &ClusterMap,
    leaving: &NodeRecord,
) -> Result<(), Status> {
    let answers = ask(shared, map).await;
    let sets = core.meta.voter_sets();
    let votes = |node: &NodeRecord| sets.iter().any(|set| set.contains(&node.raft_id));
    let seat = |node: &NodeRecord| Seat {
        node: node.name.clone(),
        votes: votes(node),
        may_vote: node.may_vote(),
        well: is_well(&answers, &node.name),
    };
    let seats: Vec<Seat> = map.nodes.values().map(seat).collect();
    // Members that no node is any more have a vote, too, until it is given away.
    let voters = sets.iter().map(Vec::len).max().unwrap_or(0);
    judge(&seats, voters, &leaving.name).map_err(|kept| Status::failed_precondition(kept.to_string()))
}

/// A node, as far as votes are concerned.
#[derive(Clone, Debug)]
struct Seat {
    node: NodeName,
    votes: bool,
    /// As far as anybody said.
    may_vote: bool,
    well: bool,
}

/// Why a vote stays where it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Kept {
    #[error(
        "{there} of {voters} voters would be there without node {node}, and a majority takes {need}: bring others back first \
         (`resilver meta status`). Nothing was changed"
    )]
    NoQuorum { node: NodeName, there: usize, voters: usize, need: usize },
    #[error(
        "node {node} votes, and nobody could take its vote over: no other node may vote, is well and does not vote already. \
         Without it {left} voters would be left that are there, and with fewer than {VOTERS} the metadata could not lose \
         another: add a node, or let one vote again (`resilver meta add-peer`). Nothing was changed"
    )]
    NobodyElse { node: NodeName, left: usize },
}

/// Whether the vote of a node may go, by what [`crate::meta`] would do then: it goes to a learner, or, without one, to nobody
/// where an odd number of three or more is left.
fn judge(seats: &[Seat], voters: usize, leaving: &NodeName) -> Result<(), Kept> {
    if !seats.iter().any(|seat| seat.node == *leaving && seat.votes) {
        return Ok(());
    }
    let others = || seats.iter().filter(|seat| seat.node != *leaving);
    let there = others().filter(|seat| seat.votes && seat.well).count();
    // Votes that are to go already come first to those who could take one.
    let going = others().filter(|seat| seat.votes && !seat.may_vote).count();
    let takers = others().filter(|seat| !seat.votes && seat.may_vote && seat.well).count();
    if takers > going {
        let (there, need) = (there + 1, voters / 2 + 1);
        if there < need {
            return Err(Kept::NoQuorum { node: leaving.clone(), there, voters, need });
        }
        return Ok(());
    }
    let staying = others().filter(|seat| seat.votes && seat.may_vote).count();
    let odd = staying - usize::from(staying.is_multiple_of(2) && staying > 0);
    let well = others().filter(|seat| seat.votes && seat.may_vote && seat.well).count();
    // One that is not there may be the one that goes along.
    if odd < VOTERS || well < odd {
        return Err(Kept::NobodyElse { node: leaving.clone(), left: well.min(odd) });
    }
    Ok(())
}

/// Refuses to let a node vote that could not carry a quorum now.
#[allow(clippy::result_large_err)] // tonic's own error type
fn may_come(answers: &Answers, node: &NodeRecord, committed: u64) -> Result<(), Status> {
    let name = &node.name;
    let refuse = |why: String| Err(Status::failed_precondition(format!("{why}. Nothing was changed")));
    if !node.keeps_its_place() {
        return refuse(format!("node {name} is being emptied, or was given up: `resilver node up {name}` first"));
    }
    let Some(answer) = answers.get(name) else {
        return refuse(format!("node {name} does not answer, and would only be missed as a voter"));
    };
    if answer.phase != Phase::Healthy.as_str() {
        return refuse(format!(
            "node {name} is {} ({}), and would only be missed as a voter",
            answer.phase, answer.phase_detail
        ));
    }
    let reached = answer.raft.as_ref().map_or(0, |raft| raft.last_log);
    let behind = committed.saturating_sub(reached);
    if behind > CAUGHT_UP_ENTRIES {
        return refuse(format!("node {name} has not caught up, it is {behind} entries behind: ask again in a moment"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use resilver_proto::contract::RaftState;

    use super::*;
    use crate::model::{HostState, Location, Mark};
    use crate::types::{InstanceId, RaftId};

    /// Of each node whether it votes, may vote, and is well.
    fn seats(table: &[(bool, bool, bool)]) -> Vec<Seat> {
        let seat = |(at, (votes, may_vote, well)): (usize, &(bool, bool, bool))| Seat {
            node: NodeName(format!("n{}", at + 1)),
            votes: *votes,
            may_vote: *may_vote,
            well: *well,
        };
        table.iter().enumerate().map(seat).collect()
    }

    const VOTER: (bool, bool, bool) = (true, true, true);
    const LEARNER: (bool, bool, bool) = (false, true, true);
    const AWAY: (bool, bool, bool) = (true, true, false);

    fn verdict(table: &[(bool, bool, bool)]) -> Result<(), Kept> {
        let voters = table.iter().filter(|(votes, _, _)| *votes).count();
        judge(&seats(table), voters, &"n1".into())
    }

    fn nobody_else(left: usize) -> Result<(), Kept> {
        Err(Kept::NobodyElse { node: "n1".into(), left })
    }

    #[test]
    fn a_vote_may_go_to_a_learner_that_is_well_and_may_vote() {
        assert_eq!(verdict(&[VOTER, VOTER, VOTER, LEARNER]), Ok(()));
        assert_eq!(verdict(&[AWAY, VOTER, VOTER, LEARNER]), Ok(()), "whether it is there itself does not matter");
        assert_eq!(verdict(&[LEARNER, AWAY, AWAY, VOTER]), Ok(()), "it has none");
        assert_eq!(verdict(&[VOTER, VOTER, VOTER, (false, true, false)]), nobody_else(1));
        assert_eq!(verdict(&[VOTER, VOTER, VOTER, (false, false, true)]), nobody_else(1));
        // The only learner is to take over from another one already.
        assert_eq!(verdict(&[VOTER, (true, false, true), VOTER, LEARNER]), nobody_else(1));
        assert_eq!(verdict(&[VOTER, (true, false, true), VOTER, LEARNER, LEARNER]), Ok(()));
    }

    #[test]
    fn a_vote_stays_where_a_majority_would_be_missing() {
        let kept = Kept::NoQuorum { node: "n1".into(), there: 1, voters: 3, need: 2 };
        assert_eq!(verdict(&[VOTER, AWAY, AWAY, LEARNER]), Err(kept));
        assert_eq!(verdict(&[VOTER, VOTER, AWAY, LEARNER]), Ok(()));
        // Two that no node is any more have a vote as well.
        let kept = Kept::NoQuorum { node: "n1".into(), there: 2, voters: 5, need: 3 };
        assert_eq!(judge(&seats(&[VOTER, VOTER, AWAY, LEARNER]), 5, &"n1".into()), Err(kept));
    }

    #[test]
    fn without_anybody_to_take_it_a_vote_goes_only_where_three_are_left_who_are_well() {
        assert_eq!(verdict(&[VOTER]), nobody_else(0), "the last one");
        assert_eq!(verdict(&[VOTER, VOTER]), nobody_else(1));
        assert_eq!(verdict(&[VOTER, VOTER, VOTER]), nobody_else(1));
        assert_eq!(verdict(&[VOTER, VOTER, VOTER, VOTER]), Ok(()));
        assert_eq!(verdict(&[VOTER; 5]), Ok(()), "that of another goes along");
        assert_eq!(verdict(&[VOTER, VOTER, VOTER, VOTER, AWAY]), Ok(()), "that of the one that is away");
        assert_eq!(verdict(&[VOTER, VOTER, VOTER, AWAY, AWAY]), nobody_else(2));
        let told = verdict(&[VOTER; 3]).unwrap_err().to_string();
        assert!(told.contains("node n1 votes") && told.contains("meta add-peer"), "{told}");
    }

    #[test]
    fn an_agent_needs_a_fence_and_a_person_none() {
        let refused = demand_fence("takes a vote", true, false).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(demand_fence("takes a vote", true, true).is_ok());
        assert!(demand_fence("takes a vote", false, false).is_ok(), "a person speaks for himself");
    }

    fn record(draining: bool) -> NodeRecord {
        let mark = Mark { by: MarkedBy::Operator, reason: String::new() };
        NodeRecord {
            name: "n1".into(),
            raft_id: RaftId(1),
            instance: InstanceId(1),
            address: String::new(),
            location: Location::default(),
            metadata_low: false,
            state: HostState::Up,
            marked_by: MarkedBy::Automatic,
            reason: String::new(),
            attempt: None,
            draining: draining.then(|| mark.clone()),
            no_vote: Some(mark),
        }
    }

    #[test]
    fn a_node_votes_again_once_it_is_there_and_has_caught_up() {
        let answers = |phase: &str, last_log| {
            let raft = Some(RaftState { last_log, ..RaftState::default() });
            Answers::from([("n1".into(), ObserveResponse { phase: phase.into(), raft, ..ObserveResponse::default() })])
        };
        let why =
            |answers: &Answers, draining| may_come(answers, &record(draining), 1000).unwrap_err().message().to_owned();
        assert!(may_come(&answers("healthy", 900), &record(false), 1000).is_ok());
        assert!(why(&answers("healthy", 899), false).contains("101 entries behind"));
        assert!(why(&answers("recovering", 1000), false).contains("is recovering"));
        assert!(why(&Answers::new(), false).contains("does not answer"));
        assert!(why(&answers("healthy", 1000), true).contains("node up n1"));
    }
}
