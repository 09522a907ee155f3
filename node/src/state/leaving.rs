//! Applying what is said of nodes that leave: emptied, without a vote, taken out.
//!
//! Owns: what the map alone can judge of it. Who votes and who is well is no part of the state: whoever proposes looks at
//! that first, and names the revision of the map that it was judged by. Must never: take a node out on which anything has its
//! home; undo by automation what a person said. Invariant: a word that says what is known changes nothing.

use redb::ReadableTable;

use super::apply::{Stop, Work};
use super::buckets::is_used;
use super::hosts::places_in;
use super::members::{admit_fence, change_map};
use super::tables::unseal;
use crate::model::{
    BucketRecord, ClusterMap, HostState, MAX_REMOVED, Mark, MarkedBy, NodeRecord, Outcome, Refusal, RemovedNode,
};
use crate::placement::crowding;
use crate::types::{Fence, NodeName};

/// A word on a node, and what it rests on.
pub(super) struct Word<'a> {
    pub(super) node: &'a NodeName,
    pub(super) by: MarkedBy,
    pub(super) reason: &'a str,
    pub(super) judged: Option<u64>,
    pub(super) fence: Option<&'a Fence>,
}

impl Word<'_> {
    fn mark(&self) -> Mark {
        Mark { by: self.by, reason: self.reason.to_owned() }
    }

    /// The node as it is known, if the word may be applied at all.
    fn admit(&self, work: &mut Work<'_>) -> Result<NodeRecord, Refusal> {
        // Taking note of a fence counts as a change of the map, but is none that anything was judged by.
        let revision = work.map.revision;
        admit_fence(work, self.fence)?;
        if self.judged.is_some_and(|judged| judged != revision) {
            return Err(Refusal::MapMoved);
        }
        work.map.nodes.get(self.node).cloned().ok_or_else(|| Refusal::NoNode(self.node.clone()))
    }
}

/// Has a node emptied.
pub(super) fn drain_host(work: &mut Work<'_>, word: &Word<'_>) -> Result<Outcome, Stop> {
    let record = word.admit(work)?;
    if record.draining.as_ref().is_some_and(|mark| mark.by == word.by || mark.by == MarkedBy::Operator) {
        return Ok(Outcome::HostWas(record.state));
    }
    if record.draining.is_none() {
        if record.may_vote() {
            another_may_vote(&work.map, word.node)?;
        }
        let mut after = (*work.map).clone();
        if let Some(node) = after.nodes.get_mut(word.node) {
            node.draining = Some(word.mark());
        }
        places_in(work, &after)?;
        apart_in(work, &after)?;
    }
    if let Some(node) = change_map(work).nodes.get_mut(word.node) {
        node.draining = Some(word.mark());
    }
    Ok(Outcome::HostWas(record.state))
}

/// Refuses a map in which an extent of some bucket in use could not lose the host that has most of its shards, where it could
/// until now. What was so before is no reason to keep a host.
fn apart_in(work: &Work<'_>, after: &ClusterMap) -> Result<(), Stop> {
    for entry in work.tables.buckets.range::<&[u8]>(..)? {
        let bucket: BucketRecord = unseal("buckets", entry?.1.value())?;
        let spare = usize::from(bucket.coding.m);
        let ((_, before), (hosts, together)) = (crowding(&work.map, bucket.coding), crowding(after, bucket.coding));
        if together > spare && before <= spare && is_used(work, &bucket.name)? {
            return Err(Refusal::TooFewHosts { bucket: bucket.name, hosts, together, spare }.into());
        }
    }
    Ok(())
}

/// Refuses to do without the only node that may vote.
fn another_may_vote(map: &ClusterMap, name: &NodeName) -> Result<(), Refusal> {
    let other = |node: &NodeRecord| node.name != *name && node.may_vote() && node.state == HostState::Up;
    if map.nodes.values().any(other) { Ok(()) } else { Err(Refusal::LastVote(name.clone())) }
}

/// Says whether a node may vote.
pub(super) fn set_voting(work: &mut Work<'_>, word: &Word<'_>, votes: bool) -> Result<Outcome, Stop> {
    let record = word.admit(work)?;
    let operators = record.no_vote.as_ref().is_some_and(|mark| mark.by == MarkedBy::Operator);
    match &record.no_vote {
        Some(_) if votes && operators && word.by == MarkedBy::Automatic => {
            return Err(Refusal::OperatorTookVote(word.node.clone()).into());
        }
        // What a person said is as strict as can be.
        Some(mark) if !votes && (operators || mark.by == word.by) => return Ok(Outcome::Done),
        None if votes => return Ok(Outcome::Done),
        None => {
            if record.may_vote() {
                another_may_vote(&work.map, word.node)?;
            }
            if word.by == MarkedBy::Automatic {
                few_enough(&work.map)?;
            }
        }
        Some(_) => {}
    }
    if let Some(node) = change_map(work).nodes.get_mut(word.node) {
        node.no_vote = (!votes).then(|| word.mark());
    }
    Ok(Outcome::Done)
}

/// Refuses an automatic mark when it would be the second or later one, and make a third of the nodes slow: they have a cause in
/// common then, and without their votes it would be the same.
fn few_enough(map: &ClusterMap) -> Result<(), Refusal> {
    let is_slow = |node: &&NodeRecord| node.no_vote.as_ref().is_some_and(|mark| mark.by == MarkedBy::Automatic);
    let (slow, nodes) = (map.nodes.values().filter(is_slow).count() + 1, map.nodes.len());
    if slow >= 2 && slow * 3 >= nodes { Err(Refusal::TooManySlow { slow, nodes }) } else { Ok(()) }
}

/// Takes a node out, and its disks with it.
pub(super) fn forget_node(work: &mut Work<'_>, name: &NodeName, judged: u64) -> Result<Outcome, Stop> {
    if judged != work.map.revision {
        return Err(Refusal::MapMoved.into());
    }
    let Some(record) = work.map.nodes.get(name) else { return Err(Refusal::NoNode(name.clone()).into()) };
    let (state, draining) = (record.state, record.draining.is_some());
    let disks = work.map.disks.values().filter(|disk| disk.node == *name);
    let shards = disks.filter_map(|disk| work.totals.counts.shards_by_disk.get(&disk.id)).sum();
    if (state != HostState::Out && !draining) || shards > 0 {
        return Err(Refusal::NodeInUse { node: name.clone(), state, draining, shards }.into());
    }
    let map = change_map(work);
    map.disks.retain(|_, disk| disk.node != *name);
    if let Some(NodeRecord { name, raft_id, instance, .. }) = map.nodes.remove(name) {
        map.removed.insert(raft_id, RemovedNode { name, instance });
    }
    while map.removed.len() > MAX_REMOVED {
        map.removed.pop_first();
    }
    Ok(Outcome::HostWas(state))
}
