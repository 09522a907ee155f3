//! A node that leaves: `NodeControl.SetHostState` to `draining`, and `RemoveNode`.
//!
//! Owns: what has to hold before a node is emptied or taken out, as far as the map alone does not know it: who votes, who is
//! well; whether what is on it fits elsewhere says [`room`]. Must never: take a node out that has a vote.

use std::sync::Arc;
use std::time::Duration;

use resilver_proto::contract::{RemoveNodeRequest, RemoveNodeResponse, SetHostStateRequest, SetHostStateResponse};
use tonic::Status;

use super::hosts::{DRAINING, MAX_REASON_CHARS};
use super::voters::{Answers, JUDGE_TRIES, ask, demand_fence, is_well, may_go};
use super::{Shared, meta_status, room};
use crate::model::{Command, HostState, MarkedBy, NodeRecord, Outcome, Refusal};
use crate::types::{Fence, NodeName};

/// How long Raft may take to drop a member. The leader looks as soon as the map changes.
const DROP_DEADLINE: Duration = Duration::from_secs(5);

/// Has a node emptied, if the others can take what is on it.
pub(super) async fn drain(shared: &Arc<Shared>, request: SetHostStateRequest) -> Result<SetHostStateResponse, Status> {
    let SetHostStateRequest { fence, node, automatic, reason, .. } = request;
    demand_fence("has a node emptied", automatic, fence.is_some())?;
    let name = NodeName::from(node.as_str());
    let by = if automatic { MarkedBy::Automatic } else { MarkedBy::Operator };
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    let core = shared.core()?;
    for _ in 0..JUDGE_TRIES {
        core.meta.barrier().await.map_err(|error| meta_status(&error))?;
        let map = core.meta.map();
        let record =
            map.nodes.get(&name).ok_or_else(|| Status::not_found(Refusal::NoNode(name.clone()).to_string()))?;
        if record.draining.is_none() && record.state == HostState::Out {
            return Err(Status::failed_precondition(format!(
                "node {name} is out: what was on it is rebuilt on the others, and then `resilver node remove {name}` takes it out \
                 of the cluster. Nothing was changed"
            )));
        }
        // Asked once more it goes on: what speaks against it was looked at when it began.
        if record.draining.is_none() {
            let answers = ask(shared, &map).await;
            can_be_read(&answers, &name)?;
            room::of_node(&map, &answers, &name)?;
            may_go(shared, core, &map, record).await?;
        }
        let before = if record.draining.is_some() { DRAINING } else { record.state.as_str() }.to_owned();
        let (node, reason, fence) = (name.clone(), reason.clone(), fence.clone().map(Fence::from));
        let command = Command::DrainHost { node, by, reason, judged: Some(map.revision), fence };
        match core.meta.propose(command).await.map_err(|error| meta_status(&error))? {
            Outcome::HostWas(_) => {
                tracing::info!(node = %name, automatic, before, "a node is being emptied");
                return Ok(SetHostStateResponse { before, after: DRAINING.to_owned() });
            }
            Outcome::Refused(Refusal::MapMoved) => {}
            Outcome::Refused(refusal @ Refusal::NoNode(_)) => return Err(Status::not_found(refusal.to_string())),
            Outcome::Refused(refusal) => {
                return Err(Status::failed_precondition(format!("{refusal}. Nothing was changed")));
            }
            other => return Err(Status::internal(format!("an unexpected outcome of emptying a node: {other:?}"))),
        }
    }
    Err(Status::unavailable(Refusal::MapMoved.to_string()))
}

/// Refuses to empty a node that cannot be read.
fn can_be_read(answers: &Answers, leaving: &NodeName) -> Result<(), Status> {
    match is_well(answers, leaving) {
        true => Ok(()),
        false => Err(Status::failed_precondition(format!(
            "node {leaving} does not say that it is well: what cannot be read there cannot be moved; if it does not come back, \
             give it up (`resilver node out {leaving}`), and its shards are rebuilt. Nothing was changed"
        ))),
    }
}

/// Takes a node out of the cluster, and waits until Raft has dropped it, too.
pub(super) async fn remove(shared: &Arc<Shared>, request: RemoveNodeRequest) -> Result<RemoveNodeResponse, Status> {
    let name = NodeName::from(request.node.as_str());
    let core = shared.core()?;
    for _ in 0..JUDGE_TRIES {
        core.meta.barrier().await.map_err(|error| meta_status(&error))?;
        let map = core.meta.map();
        let Some(record) = map.nodes.get(&name) else {
            return match map.removed.values().any(|removed| removed.name == name) {
                // Asked for before.
                true => Ok(RemoveNodeResponse { dropped: true }),
                false => Err(Status::not_found(Refusal::NoNode(name).to_string())),
            };
        };
        has_left(shared, record, &core.meta.voter_sets().concat()).map_err(Status::failed_precondition)?;
        let raft_id = record.raft_id;
        let command = Command::ForgetNode { node: name.clone(), judged: map.revision };
        match core.meta.propose(command).await.map_err(|error| meta_status(&error))? {
            Outcome::HostWas(_) => {
                let dropped = tokio::time::timeout(DROP_DEADLINE, core.meta.dropped(raft_id)).await.is_ok();
                tracing::info!(node = %name, %raft_id, reason = request.reason, dropped, "a node was removed");
                return Ok(RemoveNodeResponse { dropped });
            }
            Outcome::Refused(Refusal::MapMoved) => {}
            Outcome::Refused(refusal @ Refusal::NoNode(_)) => return Err(Status::not_found(refusal.to_string())),
            Outcome::Refused(refusal) => {
                return Err(Status::failed_precondition(format!("{refusal}. Nothing was changed")));
            }
            other => return Err(Status::internal(format!("an unexpected outcome of a removal: {other:?}"))),
        }
    }
    Err(Status::unavailable(Refusal::MapMoved.to_string()))
}

fn has_left(shared: &Shared, record: &NodeRecord, voters: &[crate::types::RaftId]) -> Result<(), String> {
    let name = &record.name;
    if *name == shared.name {
        return Err(format!("node {name} cannot see itself out: ask another node. Nothing was changed"));
    }
    if voters.contains(&record.raft_id) {
        return Err(format!(
            "node {name} has a vote still: once it is emptied (`resilver node drain {name}`) or given up, that goes to a learner \
             that has caught up (`resilver meta status`). Nothing was changed"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use resilver_proto::contract::ObserveResponse;

    use super::*;

    #[test]
    fn a_node_that_cannot_be_read_is_not_emptied() {
        let well = |phase: &str| ObserveResponse { phase: phase.into(), ..ObserveResponse::default() };
        let mut answers = Answers::from([("n1".into(), well("healthy"))]);
        assert!(can_be_read(&answers, &"n1".into()).is_ok());
        answers.insert("n1".into(), well("recovering"));
        assert!(can_be_read(&answers, &"n1".into()).unwrap_err().message().contains("node out n1"));
        answers.clear();
        assert!(can_be_read(&answers, &"n1".into()).unwrap_err().message().contains("node out n1"));
    }
}
