//! Where one shard of an extent goes that has been placed: a new home, a stand-in, or the stand-in's place for good.
//!
//! Must never: name a disk that takes no new shards (but for one that has the shard already), or one that has another shard
//! of the extent.

use std::collections::BTreeSet;

use super::{Candidate, Caps, Load, Which, candidates};
use crate::model::{ClusterMap, Coding, DiskState, Home};
use crate::types::{DiskId, ExtentIndex, ShardIndex, Version};

/// Where one shard of a placed extent should be now: its wanted home while that is `up` and stands well, else the best
/// disk that holds no other shard of the extent, in the domains that hold the fewest. `None` when there is no such disk.
pub fn replacement(
    map: &ClusterMap,
    version: Version,
    extent: ExtentIndex,
    coding: Coding,
    homes: &[Home],
    shard: ShardIndex,
) -> Option<DiskId> {
    let ranked = candidates(map, version, extent, Which::Writable);
    let caps = Caps::of(&ranked, coding.total());
    let mut load = Load::default();
    let mut taken = BTreeSet::new();
    for (_, home) in homes.iter().enumerate().filter(|(index, _)| *index != shard.as_usize()) {
        // Both where the shard is and where it will be rebuilt are out of the question.
        taken.extend(home.at.into_iter().chain([home.wanted]));
        let stays = home.at.unwrap_or(home.wanted);
        if map.disk_state(stays).is_some_and(|state| !state.is_left())
            && let Some(node) = map.node_of_disk(stays)
        {
            load.add(node, stays);
        }
    }
    let wanted = homes.get(shard.as_usize()).map(|home| home.wanted);
    let crowding = |c: &Candidate<'_>| (load.host(c.node), load.excess(&caps, c.node, c.disk));
    ranked
        .iter()
        .filter(|candidate| !taken.contains(&candidate.disk))
        .min_by_key(|candidate| (crowding(candidate), wanted != Some(candidate.disk), candidate.cost, candidate.disk))
        .map(|candidate| candidate.disk)
}

/// Where a shard belongs that a stand-in has, once its home will not take it any more (given up, or another shard of the
/// extent went there): where it is, unless another shard stands in the same domain and there is a better disk. `None` while
/// the home may still take it.
pub fn settled(
    map: &ClusterMap,
    version: Version,
    extent: ExtentIndex,
    coding: Coding,
    homes: &[Home],
    shard: ShardIndex,
) -> Option<DiskId> {
    let home = homes.get(shard.as_usize())?;
    let at = home.at.filter(|at| *at != home.wanted)?;
    let taken = homes.iter().any(|other| other.at == Some(home.wanted));
    if !taken && map.disk_state(home.wanted).is_some_and(|state| !state.is_left()) {
        return None;
    }
    if map.disk_state(at) != Some(DiskState::Up) {
        return Some(at);
    }
    // Asked as if it belonged where it is: that disk is preferred among equals.
    let mut homes = homes.to_vec();
    homes[shard.as_usize()] = Home { at: Some(at), wanted: at };
    Some(replacement(map, version, extent, coding, &homes, shard).unwrap_or(at))
}

/// A disk for a shard whose home cannot take it now: none of those `taken` (on which the extent's other shards are, or
/// belong), none in doubt, in the domains that hold the fewest of them. `None` when there is no such disk.
pub fn stand_in(
    map: &ClusterMap,
    version: Version,
    extent: ExtentIndex,
    coding: Coding,
    taken: &[DiskId],
    in_doubt: impl Fn(DiskId) -> bool,
) -> Option<DiskId> {
    let ranked = candidates(map, version, extent, Which::Writable);
    let caps = Caps::of(&ranked, coding.total());
    let mut load = Load::default();
    for disk in taken.iter().filter(|disk| !in_doubt(**disk)) {
        if let Some(node) = map.node_of_disk(*disk) {
            load.add(node, *disk);
        }
    }
    ranked
        .iter()
        .filter(|candidate| !taken.contains(&candidate.disk) && !in_doubt(candidate.disk))
        .min_by_key(|candidate| {
            let Candidate { disk, node, cost } = **candidate;
            (load.host(node), load.excess(&caps, node, disk), cost, disk)
        })
        .map(|candidate| candidate.disk)
}
