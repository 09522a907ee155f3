//! Applying what concerns the cluster map: its birth, members, disks.
//!
//! Invariant: a command that says what is known changes nothing, not even the revision: the map's watchers sleep on.

use std::sync::Arc;

use resilver_host::audit::{self, Fact};

use super::apply::{FIRST_EPOCH, Stop, Work};
use super::hosts::places_in;
use crate::model::{
    ClusterMap, DiskRecord, DiskState, HostState, JoiningDisk, Location, MarkedBy, NodeRecord, Outcome, Refusal,
};
use crate::types::{ClusterId, DiskId, Fence, InstanceId, NodeName, RaftId};

/// The map, to be changed: its revision counts the change.
pub(super) fn change_map<'a>(work: &'a mut Work<'_>) -> &'a mut ClusterMap {
    let map = Arc::make_mut(&mut work.map);
    map.revision += 1;
    map
}

pub(super) fn init_cluster(work: &mut Work<'_>, cluster: ClusterId, name: &str) -> Result<Outcome, Stop> {
    match work.map.cluster {
        Some(known) if known == cluster => Ok(Outcome::Done),
        Some(_) => Err(Refusal::ClusterExists.into()),
        None => {
            let map = change_map(work);
            map.cluster = Some(cluster);
            map.name = name.to_owned();
            map.epoch = FIRST_EPOCH;
            Ok(Outcome::Done)
        }
    }
}

pub(super) struct Join<'a> {
    pub(super) name: &'a NodeName,
    pub(super) instance: InstanceId,
    pub(super) address: &'a str,
    pub(super) location: &'a Location,
    pub(super) disks: &'a [JoiningDisk],
    pub(super) raft_id: Option<RaftId>,
}

pub(super) fn join_node(work: &mut Work<'_>, join: &Join<'_>) -> Result<Outcome, Stop> {
    let known = work.map.nodes.get(join.name);
    if known.is_some_and(|node| node.instance != join.instance) {
        return Err(Refusal::NameTaken(join.name.clone()).into());
    }
    // One data folder under two names would be two members with one log.
    if let Some(other) = work.map.nodes.values().find(|n| n.instance == join.instance && n.name != *join.name) {
        return Err(Refusal::NameTaken(other.name.clone()).into());
    }
    if let Some(removed) = work.map.removed.values().find(|removed| removed.instance == join.instance) {
        return Err(Refusal::NodeRemoved(removed.name.clone()).into());
    }
    for disk in join.disks {
        if let Some(record) = work.map.disks.get(&disk.id).filter(|record| record.node != *join.name) {
            return Err(Refusal::DiskTaken(disk.id, record.node.clone()).into());
        }
    }
    let metadata_low = known.is_some_and(|node| node.metadata_low);
    let (state, marked_by, reason) = known.map(standing).unwrap_or_default();
    let attempt = known.and_then(|node| node.attempt);
    let draining = known.and_then(|node| node.draining.clone());
    let no_vote = known.and_then(|node| node.no_vote.clone());
    let raft_id = match known {
        Some(node) => node.raft_id,
        None => draw_raft_id(work, join.raft_id),
    };
    let mut map = (*work.map).clone();
    map.nodes.insert(
        join.name.clone(),
        NodeRecord {
            name: join.name.clone(),
            raft_id,
            instance: join.instance,
            address: join.address.to_owned(),
            location: join.location.clone(),
            metadata_low,
            state,
            marked_by,
            reason,
            attempt,
            draining,
            no_vote,
        },
    );
    for disk in join.disks {
        add_disk(&mut map, join.name, disk);
    }
    // A node that says again what is known changes nothing: the map's watchers sleep on.
    if map != *work.map {
        map.revision += 1;
        work.map = Arc::new(map);
        tell_given_up(&work.map);
    }
    Ok(Outcome::Joined { raft_id })
}

/// Gives a node a fresh id in Raft, in place of one under which it must not vote again.
pub(super) fn replace_member(
    work: &mut Work<'_>,
    name: &NodeName,
    instance: InstanceId,
    (lost, attempt): (RaftId, u128),
    fence: Option<&Fence>,
) -> Result<Outcome, Stop> {
    admit_fence(work, fence)?;
    if let Some(removed) = work.map.removed.values().find(|removed| removed.instance == instance) {
        return Err(Refusal::NodeRemoved(removed.name.clone()).into());
    }
    let Some(record) = work.map.nodes.get(name) else { return Err(Refusal::NoNode(name.clone()).into()) };
    if record.instance != instance {
        return Err(Refusal::NameTaken(name.clone()).into());
    }
    let known = record.raft_id;
    // It was replaced already, by this very attempt, which did not hear of it.
    if lost < known && record.attempt == Some(attempt) {
        return Ok(Outcome::Joined { raft_id: known });
    }
    // Under any other id it may have voted since: nobody is given that anew, and no late word of an earlier attempt takes it
    // from a member that lives.
    if lost != known {
        return Err(Refusal::NotThatMember { name: name.clone(), lost, known }.into());
    }
    let raft_id = draw_raft_id(work, None);
    if let Some(record) = change_map(work).nodes.get_mut(name) {
        record.raft_id = raft_id;
        record.attempt = Some(attempt);
    }
    Ok(Outcome::Joined { raft_id })
}

/// How a member stands that says it is there. That it is away was an agent's belief, and is refuted. That it was given up
/// is a decision: its shards live elsewhere by now and its disks may be old or empty, so somebody looks first. What a
/// person said is a person's to take back.
fn standing(node: &NodeRecord) -> (HostState, MarkedBy, String) {
    match (node.state, node.marked_by) {
        (HostState::Down, MarkedBy::Automatic) => Default::default(),
        (state, by) => (state, by, node.reason.clone()),
    }
}

/// The id asked for if it is the founder's and free, else the next of the counter.
fn draw_raft_id(work: &mut Work<'_>, wanted: Option<RaftId>) -> RaftId {
    let id = match wanted {
        Some(id) if work.map.node_by_raft(id).is_none() => id,
        _ => RaftId(work.next_raft_id),
    };
    work.next_raft_id = work.next_raft_id.max(id.0 + 1);
    id
}

fn add_disk(map: &mut ClusterMap, node: &NodeName, disk: &JoiningDisk) {
    let fresh = || DiskRecord {
        id: disk.id,
        node: node.clone(),
        path: String::new(),
        capacity_bytes: 0,
        state: DiskState::Up,
        marked_by: MarkedBy::Automatic,
        reason: String::new(),
    };
    let record = map.disks.entry(disk.id).or_insert_with(fresh);
    record.path.clone_from(&disk.path);
    record.capacity_bytes = disk.capacity_bytes;
}

/// Refuses a fence lower than the highest seen.
pub(super) fn admit_fence(work: &mut Work<'_>, fence: Option<&Fence>) -> Result<(), Refusal> {
    let Some(offered) = fence else { return Ok(()) };
    if *offered < work.map.fence {
        let highest = work.map.fence.clone();
        return Err(Refusal::StaleFence { offered: offered.clone(), highest });
    }
    // Seen is seen, whatever becomes of this command: its holder is the highest there is.
    if *offered > work.map.fence {
        change_map(work).fence = offered.clone();
    }
    Ok(())
}

pub(super) fn set_disk_state(
    work: &mut Work<'_>,
    disk: DiskId,
    state: DiskState,
    (by, reason): (MarkedBy, &str),
    judged: Option<u64>,
    fence: Option<&Fence>,
) -> Result<Outcome, Stop> {
    admit_fence(work, fence)?;
    if judged.is_some_and(|revision| revision != work.map.revision) {
        return Err(Refusal::MapMoved.into());
    }
    let Some(record) = work.map.disks.get(&disk) else { return Err(Refusal::NoDisk(disk).into()) };
    let was = record.state;
    let operators = record.marked_by == MarkedBy::Operator && by == MarkedBy::Automatic;
    if operators && state < was {
        return Err(Refusal::OperatorMark.into());
    }
    if was == state && (record.marked_by == by || operators) {
        return Ok(Outcome::DiskWas(was));
    }
    if state == DiskState::Draining && !was.is_left() {
        let mut after = (*work.map).clone();
        if let Some(record) = after.disks.get_mut(&disk) {
            record.state = state;
        }
        places_in(work, &after)?;
    }
    if let Some(record) = change_map(work).disks.get_mut(&disk) {
        record.state = state;
        reason.clone_into(&mut record.reason);
        record.marked_by = match (by, state) {
            // An operator's `up` gives the disk back to the machine: holding it against a failure would serve nobody.
            (MarkedBy::Operator, DiskState::Up) => MarkedBy::Automatic,
            // A stricter automatic mark on an operator's keeps it a person's to undo.
            _ if operators => MarkedBy::Operator,
            _ => by,
        };
    }
    tell_given_up(&work.map);
    Ok(Outcome::DiskWas(was))
}

/// For whoever checks: what persons took away.
fn tell_given_up(map: &ClusterMap) {
    let given_up = |disk: &DiskRecord| matches!(disk.state, DiskState::Down | DiskState::Out);
    let successor = |disk: &DiskRecord| {
        map.disks.values().any(|other| (&other.node, &other.path) == (&disk.node, &disk.path) && !given_up(other))
    };
    audit::state(|| {
        let disks = map.disks.values().filter(|disk| disk.marked_by == MarkedBy::Operator && given_up(disk));
        let disks = disks.filter(|disk| !successor(disk));
        let disks = disks.map(|disk| (disk.node.to_string(), disk.path.clone())).collect();
        Fact::DisksGivenUp { revision: map.revision, disks }
    });
}

pub(super) fn forget_disk(work: &mut Work<'_>, disk: DiskId) -> Result<Outcome, Stop> {
    let Some(record) = work.map.disks.get(&disk) else { return Err(Refusal::NoDisk(disk).into()) };
    let (state, shards) = (record.state, work.totals.counts.shards_by_disk.get(&disk).copied().unwrap_or(0));
    if state != DiskState::Out || shards > 0 {
        return Err(Refusal::DiskInUse { disk, state, shards }.into());
    }
    change_map(work).disks.remove(&disk);
    Ok(Outcome::DiskWas(state))
}

pub(super) fn set_metadata_room(work: &mut Work<'_>, name: &NodeName, low: bool) -> Result<Outcome, Stop> {
    let Some(node) = work.map.nodes.get(name) else { return Err(Refusal::NoNode(name.clone()).into()) };
    if node.metadata_low != low
        && let Some(node) = change_map(work).nodes.get_mut(name)
    {
        node.metadata_low = low;
    }
    Ok(Outcome::Done)
}
