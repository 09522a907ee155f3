//! A node that leaves: `NodeControl.SetHostState` to `draining`, and `RemoveNode`.
//!
//! Owns: what has to hold before a node is emptied or taken out, as far as the map alone does not know it: who votes, who is
//! well, how full the disks are. Must never: take a node out that has a vote.

use std::sync::Arc;
use std::time::Duration;

use resilver_proto::contract::{RemoveNodeRequest, RemoveNodeResponse, SetHostStateRequest, SetHostStateResponse};
use tonic::Status;

use super::hosts::{DRAINING, MAX_REASON_CHARS};
use super::voters::{Answers, JUDGE_TRIES, ask, demand_fence, is_well, may_go};
use super::{Shared, meta_status};
use crate::model::{ClusterMap, Command, DiskState, HostState, MarkedBy, NodeRecord, Outcome, Refusal};
use crate::types::{DiskId, Fence, NodeName};

/// Of each disk that takes over, a twentieth stays free: file systems slow down long before they are full, and a disk that is
/// filled to the brim by this is the next one's emergency.
const ROOM_KEPT_PART: u64 = 20;

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
            fits(&map, &answers, &name).map_err(Status::failed_precondition)?;
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

/// Refuses to empty a node that cannot be read, and one whose shards the others have no room for, by what the nodes say of
/// their disks just now.
fn fits(map: &ClusterMap, answers: &Answers, leaving: &NodeName) -> Result<(), String> {
    if !is_well(answers, leaving) {
        return Err(format!(
            "node {leaving} does not say that it is well: what cannot be read there cannot be moved; if it does not come back, \
             give it up (`resilver node out {leaving}`), and its shards are rebuilt. Nothing was changed"
        ));
    }
    let disks = |own: bool| {
        let said = answers.iter().filter(move |(node, _)| (*node == leaving) == own);
        said.flat_map(|(_, answer)| &answer.disks)
    };
    let need_bytes: u64 = disks(true).map(|disk| disk.used_bytes).sum();
    let room_bytes = room(map, disks(false));
    if need_bytes > room_bytes {
        return Err(format!(
            "the {need_bytes} bytes on node {leaving} do not fit elsewhere: the other disks that take shards have {room_bytes} \
             bytes of room, a twentieth of each kept free; add disks or nodes first. Nothing was changed"
        ));
    }
    Ok(())
}

/// Has a disk's emptying by an agent refused where what is on it does not fit on the others: it would fill them instead. A person
/// may know what comes next.
pub(super) async fn disk_fits(shared: &Arc<Shared>, map: &ClusterMap, disk: DiskId) -> Result<(), Status> {
    // Asked once more it goes on.
    if map.disk_state(disk) == Some(DiskState::Draining) {
        return Ok(());
    }
    fits_elsewhere(map, &ask(shared, map).await, disk).map_err(Status::failed_precondition)
}

fn fits_elsewhere(map: &ClusterMap, answers: &Answers, leaving: DiskId) -> Result<(), String> {
    let id = leaving.to_string();
    let all = || answers.values().flat_map(|answer| &answer.disks);
    let Some(need_bytes) = all().find(|disk| disk.disk_id == id).map(|disk| disk.used_bytes) else {
        return Err(format!("nobody says how much is on disk {id}. Nothing was changed"));
    };
    let room_bytes = room(map, all().filter(|disk| disk.disk_id != id));
    if need_bytes > room_bytes {
        return Err(format!(
            "the {need_bytes} bytes on disk {id} do not fit elsewhere: the other disks that take shards have {room_bytes} bytes of \
             room, a twentieth of each kept free; add disks or nodes first. Nothing was changed"
        ));
    }
    Ok(())
}

/// The room of those disks that take shards, a part of each kept free.
fn room<'a>(map: &ClusterMap, disks: impl Iterator<Item = &'a resilver_proto::contract::DiskState>) -> u64 {
    let takes = |disk: &&resilver_proto::contract::DiskState| {
        disk.health == "ok" && disk.disk_id.parse().is_ok_and(|id| map.disk_state(id) == Some(DiskState::Up))
    };
    let room = |disk: &resilver_proto::contract::DiskState| {
        disk.available_bytes.saturating_sub(disk.total_bytes / ROOM_KEPT_PART)
    };
    disks.filter(takes).map(room).sum()
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
    use std::collections::BTreeMap;

    use resilver_proto::contract::{DiskState as Disk, ObserveResponse};

    use super::*;
    use crate::model::DiskRecord;

    /// A disk of each node, of 1000 bytes: how many are used, and how many available.
    fn told(disks: &[(u64, u64)]) -> (ClusterMap, Answers) {
        let (mut map, mut answers) = (ClusterMap::default(), BTreeMap::new());
        for (number, (used_bytes, available_bytes)) in (1_u128..).zip(disks) {
            let (id, node) = (DiskId(number), NodeName(format!("n{number}")));
            let record = DiskRecord {
                id,
                node: node.clone(),
                path: String::new(),
                capacity_bytes: 1000,
                state: DiskState::Up,
                marked_by: MarkedBy::Automatic,
                reason: String::new(),
            };
            map.disks.insert(id, record);
            let disk = Disk {
                disk_id: id.to_string(),
                health: "ok".into(),
                used_bytes: *used_bytes,
                available_bytes: *available_bytes,
                total_bytes: 1000,
                ..Disk::default()
            };
            let answer = ObserveResponse { phase: "healthy".into(), disks: vec![disk], ..ObserveResponse::default() };
            answers.insert(node, answer);
        }
        (map, answers)
    }

    #[test]
    fn a_disk_is_emptied_by_an_agent_only_where_what_is_on_it_fits_elsewhere() {
        let (mut map, mut answers) = told(&[(300, 700), (800, 200), (700, 200)]);
        assert_eq!(fits_elsewhere(&map, &answers, DiskId(1)), Ok(()), "300 in 150 and 150, a twentieth of each kept");
        assert_eq!(fits_elsewhere(&map, &answers, DiskId(3)), Ok(()), "700 in 650 and 150");
        map.disks.get_mut(&DiskId(2)).unwrap().state = DiskState::ReadOnly;
        let refused = fits_elsewhere(&map, &answers, DiskId(3)).unwrap_err();
        assert!(refused.contains("the 700 bytes on disk") && refused.contains("have 650 bytes of room"), "{refused}");
        answers.clear();
        assert!(fits_elsewhere(&map, &answers, DiskId(1)).unwrap_err().contains("nobody says how much"));
    }

    #[test]
    fn a_node_is_emptied_only_where_what_is_on_it_fits_elsewhere() {
        let (mut map, mut answers) = told(&[(300, 700), (800, 200), (700, 200)]);
        let verdict = |map: &ClusterMap, answers: &Answers| fits(map, answers, &"n1".into());
        assert_eq!(verdict(&map, &answers), Ok(()), "two times 150");
        map.disks.get_mut(&DiskId(3)).unwrap().state = DiskState::ReadOnly;
        let why = verdict(&map, &answers).unwrap_err();
        assert!(why.contains("the 300 bytes on node n1") && why.contains("150 bytes of room"), "{why}");
        map.disks.get_mut(&DiskId(3)).unwrap().state = DiskState::Up;
        answers.get_mut(&"n2".into()).unwrap().disks[0].health = "gone".into();
        assert!(verdict(&map, &answers).is_err());
        answers.remove(&"n2".into());
        assert!(verdict(&map, &answers).is_err(), "what nobody speaks for is no room");
    }

    #[test]
    fn a_node_that_cannot_be_read_is_not_emptied() {
        let (map, mut answers) = told(&[(0, 700), (0, 700)]);
        answers.get_mut(&"n1".into()).unwrap().phase = "recovering".into();
        assert!(fits(&map, &answers, &"n1".into()).unwrap_err().contains("node out n1"));
        answers.remove(&"n1".into());
        assert!(fits(&map, &answers, &"n1".into()).unwrap_err().contains("node out n1"));
    }
}
