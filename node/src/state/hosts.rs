//! Applying what the cluster says of hosts: up, down, out.
//!
//! Owns: the limits of automatic marks, judged here and nowhere else, so that every member comes to the same verdict.
//! Must never: refuse an agent's `down` for what it would lead to. It states what others found out and takes nothing away;
//! a map that denies it would only be wrong. Invariant: a mark that says what is known changes nothing.

use redb::ReadableTable;

use super::apply::{Stop, Work};
use super::buckets::is_used;
use super::members::{admit_fence, change_map};
use super::tables::unseal;
use crate::model::{BucketRecord, ClusterMap, HostState, MarkedBy, Outcome, Refusal};
use crate::placement::writable_disks;
use crate::types::{Fence, NodeName};

/// At most one in so many hosts may be out by automatic marks. More do not die by themselves within the time it takes to
/// replace one: they have a cause in common, rebuilding would be for nothing when it ends, and what is left would carry
/// the load of all of them.
const HOSTS_PER_AUTOMATIC_OUT: usize = 3;

pub(super) fn set_host_state(
    work: &mut Work<'_>,
    name: &NodeName,
    state: HostState,
    by: MarkedBy,
    reason: &str,
    fence: Option<&Fence>,
) -> Result<Outcome, Stop> {
    admit_fence(work, fence)?;
    let Some(record) = work.map.nodes.get(name) else { return Err(Refusal::NoNode(name.clone()).into()) };
    let was = record.state;
    let operators = record.marked_by == MarkedBy::Operator && by == MarkedBy::Automatic;
    if operators && state < was {
        return Err(Refusal::OperatorMarkedHost(name.clone()).into());
    }
    // A person's `up` also ends that it is emptied. An agent's only says that it is there.
    let wanted_again = by == MarkedBy::Operator && state == HostState::Up && record.draining.is_some();
    if was == state && !wanted_again && (record.marked_by == by || operators || state == HostState::Up) {
        return Ok(Outcome::HostWas(was));
    }
    if state == HostState::Out && was != HostState::Out && by == MarkedBy::Automatic {
        few_enough(&work.map, name)?;
        places_left(work, name)?;
    }
    if let Some(record) = change_map(work).nodes.get_mut(name) {
        record.state = state;
        if wanted_again {
            record.draining = None;
        }
        record.reason = if state == HostState::Up { String::new() } else { reason.to_owned() };
        record.marked_by = match (by, state) {
            // An operator's `up` gives the host back to the agents: holding it against its death would serve nobody.
            (_, HostState::Up) => MarkedBy::Automatic,
            // A stricter automatic mark on an operator's keeps it a person's to undo.
            _ if operators => MarkedBy::Operator,
            _ => by,
        };
    }
    Ok(Outcome::HostWas(was))
}

/// Refuses to give one more host up when too many are out by automatic marks.
fn few_enough(map: &ClusterMap, name: &NodeName) -> Result<(), Refusal> {
    let by_hand = |mark: MarkedBy, state| mark == MarkedBy::Operator && state == HostState::Out;
    // What a person gave up is settled: it is neither counted nor counted upon.
    let counted = map.nodes.values().filter(|node| !by_hand(node.marked_by, node.state));
    let (mut hosts, mut out) = (0, 0);
    for node in counted {
        hosts += 1;
        out += usize::from(node.state == HostState::Out || node.name == *name);
    }
    if out * HOSTS_PER_AUTOMATIC_OUT > hosts { Err(Refusal::TooManyOut { out, hosts }) } else { Ok(()) }
}

/// Refuses to give a host up when what is on it could not be rebuilt anywhere: an extent with k+m shards is sure to find a
/// disk for each only while that many are writable. Judged by the codings of buckets that hold anything; what was put under
/// a wider one before is as readable after this as it was.
fn places_left(work: &Work<'_>, name: &NodeName) -> Result<(), Stop> {
    let mut after = (*work.map).clone();
    if let Some(node) = after.nodes.get_mut(name) {
        node.state = HostState::Out;
    }
    places_in(work, &after)
}

/// Refuses a map with fewer writable disks than an extent of some bucket in use has shards.
pub(super) fn places_in(work: &Work<'_>, after: &ClusterMap) -> Result<(), Stop> {
    let left = writable_disks(after);
    for entry in work.tables.buckets.range::<&[u8]>(..)? {
        let bucket: BucketRecord = unseal("buckets", entry?.1.value())?;
        let need = bucket.coding.total();
        if need > left && is_used(work, &bucket.name)? {
            return Err(Refusal::NoPlace { bucket: bucket.name, need, left }.into());
        }
    }
    Ok(())
}
