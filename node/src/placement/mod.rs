//! Which disks hold an extent's shards.
//!
//! Owns: the rule, as pure functions of the cluster map. Must never: look at a disk, a clock or a random number; every
//! node that holds the same map must name the same disks.
//!
//! Invariants: never two shards of an extent on one disk; never two on one host while there are k+m hosts with a writable
//! disk, and otherwise as even over the hosts as their disks allow; at each level above the host at most as many in one
//! domain as an even spread needs. A host that is down keeps its place: shards go on belonging there ([`place`]), and what
//! cannot wait is written elsewhere ([`stand_in`], [`replacement`]). What comes or goes moves little: taking a disk away
//! replaces only that disk in the sets it was in, and a new disk only ever takes one place in a set (as long as the
//! evenness of the spread, see [`Caps`], stays the same). Which of the set holds which shard is settled at the put and
//! recorded: one lost shard is re-placed by [`replacement`], which touches no other.

mod choice;
#[cfg(test)]
mod host_tests;
mod moves;
mod rank;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::choice::{check_room, crowding, default_coding};
pub use self::moves::{replacement, settled, stand_in};
use crate::model::{ClusterMap, Coding, DiskRecord, DiskState, NodeRecord};
use crate::types::{DiskId, ExtentIndex, NodeName, Version};

/// What fails as one. Ordered from the widest to the narrowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainLevel {
    /// A datacenter.
    Datacenter,
    /// A rack.
    Rack,
    /// A host.
    Host,
    /// A disk.
    Disk,
}

impl DomainLevel {
    /// From the widest to the narrowest.
    pub const ALL: [Self; 4] = [Self::Datacenter, Self::Rack, Self::Host, Self::Disk];

    /// The name in tables and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Datacenter => "datacenter",
            Self::Rack => "rack",
            Self::Host => "host",
            Self::Disk => "disk",
        }
    }
}

/// Where an extent's shards go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// One disk per shard index.
    pub homes: Vec<DiskId>,
    /// The widest level at which no two of them stand together.
    pub domain: DomainLevel,
}

/// Why shards could not be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Every shard needs a disk of its own.
    #[error(
        "{need} shards need as many writable disks, and there are {have}: add disks, bring failed ones back \
         (`resilver disk list`, `resilver node list`), or use a bucket with fewer shards"
    )]
    TooFewDisks {
        /// k+m.
        need: usize,
        /// Disks in state `up`.
        have: usize,
    },
}

/// A domain's name at one level, unique across the cluster: two datacenters may both have a rack `r1`.
type Domain<'a> = (&'a str, &'a str, &'a str, Option<DiskId>);

/// The domain at `level` that a disk stands in.
fn domain<'a>(level: DomainLevel, node: &'a NodeRecord, disk: DiskId) -> Domain<'a> {
    let (datacenter, rack) = (node.location.datacenter.as_str(), node.location.rack.as_str());
    match level {
        DomainLevel::Datacenter => (datacenter, "", "", None),
        DomainLevel::Rack => (datacenter, rack, "", None),
        DomainLevel::Host => (datacenter, rack, node.name.as_str(), None),
        DomainLevel::Disk => (datacenter, rack, node.name.as_str(), Some(disk)),
    }
}

/// Which disks are meant. Their own state and their host's count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Not given up: what is there counts.
    Kept,
    /// Shards may belong there: writable, but for a host that is away for a while.
    Homes,
    /// Writable now.
    Writable,
}

impl Which {
    fn are(self, disk: &DiskRecord, node: &NodeRecord) -> bool {
        match self {
            Self::Kept => !disk.state_in(node).is_left(),
            Self::Homes => disk.state == DiskState::Up && node.keeps_its_place(),
            Self::Writable => disk.state_in(node) == DiskState::Up,
        }
    }
}

/// Such disks, with the member each is in.
fn disks(map: &ClusterMap, which: Which) -> impl Iterator<Item = (&DiskRecord, &NodeRecord)> {
    let with_node = map.disks.values().filter_map(|disk| Some((disk, map.nodes.get(&disk.node)?)));
    with_node.filter(move |(disk, node)| which.are(disk, node))
}

/// How many disks take new shards now.
pub fn writable_disks(map: &ClusterMap) -> usize {
    disks(map, Which::Writable).count()
}

/// The failure domain of a cluster for a coding: the widest level with at least k+m domains, so that each shard can have
/// one of its own; the disk when there are fewer hosts than shards.
///
/// Counts what is not given up (`out`): a host that is down for a while does not make the cluster promise less.
pub fn failure_domain(map: &ClusterMap, coding: Coding) -> DomainLevel {
    let enough = |level: &DomainLevel| {
        let names: BTreeSet<Domain<'_>> =
            disks(map, Which::Kept).map(|(disk, node)| domain(*level, node, disk.id)).collect();
        names.len() >= coding.total()
    };
    DomainLevel::ALL.into_iter().find(enough).unwrap_or(DomainLevel::Disk)
}

/// Whether losing any one failure domain would leave at least k of the shards on `durable`: what a write must reach
/// before it is acknowledged (together with k+1 durable shards).
pub fn survives_any_domain(map: &ClusterMap, durable: &[DiskId], coding: Coding) -> bool {
    let level = failure_domain(map, coding);
    let distinct: BTreeSet<DiskId> = durable.iter().copied().collect();
    let mut in_domain: BTreeMap<Domain<'_>, usize> = BTreeMap::new();
    let mut counted = 0;
    for disk in distinct {
        // A disk the map does not know is nobody's promise.
        let Some(node) = map.node_of_disk(disk) else { continue };
        *in_domain.entry(domain(level, node, disk)).or_default() += 1;
        counted += 1;
    }
    let worst = in_domain.values().copied().max().unwrap_or(0);
    counted - worst >= usize::from(coding.k)
}

/// The most shards one domain of each level may take.
#[derive(Debug, PartialEq, Eq)]
struct Caps {
    datacenter: usize,
    rack: usize,
    host: usize,
}

impl Caps {
    /// The smallest caps that still leave room for `shards`, settled from the host upwards: what a host can take bounds
    /// what its rack can, and so on. A greedy choice under them therefore never gets stuck.
    fn of(candidates: &[Candidate<'_>], shards: usize) -> Self {
        let mut caps = [usize::MAX; 3];
        // Room in each domain of the level below, keyed by that domain.
        let mut room: BTreeMap<Domain<'_>, usize> = BTreeMap::new();
        for candidate in candidates {
            room.insert(domain(DomainLevel::Disk, candidate.node, candidate.disk), 1);
        }
        for (cap, level) in caps.iter_mut().zip([DomainLevel::Host, DomainLevel::Rack, DomainLevel::Datacenter]) {
            let mut wider: BTreeMap<Domain<'_>, usize> = BTreeMap::new();
            for ((datacenter, rack, host, _), shards) in &room {
                let key = match level {
                    DomainLevel::Datacenter => (*datacenter, "", "", None),
                    DomainLevel::Rack => (*datacenter, *rack, "", None),
                    DomainLevel::Host | DomainLevel::Disk => (*datacenter, *rack, *host, None),
                };
                *wider.entry(key).or_default() += shards;
            }
            *cap = (1..=shards)
                .find(|cap| wider.values().map(|room| room.min(cap)).sum::<usize>() >= shards)
                .unwrap_or(shards);
            wider.values_mut().for_each(|room| *room = (*room).min(*cap));
            room = wider;
        }
        let [host, rack, datacenter] = caps;
        Self { datacenter, rack, host }
    }
}

/// A disk that may take a shard.
struct Candidate<'a> {
    disk: DiskId,
    node: &'a NodeRecord,
    cost: u128,
}

/// Such disks, cheapest first.
fn candidates(map: &ClusterMap, version: Version, extent: ExtentIndex, which: Which) -> Vec<Candidate<'_>> {
    let mut candidates: Vec<Candidate<'_>> = disks(map, which)
        .map(|(disk, node)| Candidate {
            disk: disk.id,
            node,
            cost: rank::cost(version, extent, disk.id, disk.capacity_bytes),
        })
        .collect();
    candidates.sort_by_key(|candidate| (candidate.cost, candidate.disk));
    candidates
}

/// Shards that stand in each domain so far.
#[derive(Default)]
struct Load<'a> {
    hosts: BTreeMap<&'a NodeName, usize>,
    wider: BTreeMap<Domain<'a>, usize>,
}

impl<'a> Load<'a> {
    fn add(&mut self, node: &'a NodeRecord, disk: DiskId) {
        *self.hosts.entry(&node.name).or_default() += 1;
        for level in [DomainLevel::Rack, DomainLevel::Datacenter] {
            // One map serves both levels: the name of a rack without a name is told apart from its datacenter's by level.
            *self.wider.entry(tagged(level, node, disk)).or_default() += 1;
        }
    }

    fn host(&self, node: &NodeRecord) -> usize {
        self.hosts.get(&node.name).copied().unwrap_or(0)
    }

    fn wider(&self, level: DomainLevel, node: &'a NodeRecord, disk: DiskId) -> usize {
        self.wider.get(&tagged(level, node, disk)).copied().unwrap_or(0)
    }

    /// By how much one more shard on this node would exceed the caps above the host.
    fn excess(&self, caps: &Caps, node: &'a NodeRecord, disk: DiskId) -> (usize, usize) {
        let over = |level, cap: usize| (self.wider(level, node, disk) + 1).saturating_sub(cap);
        (over(DomainLevel::Datacenter, caps.datacenter), over(DomainLevel::Rack, caps.rack))
    }
}

fn tagged<'a>(level: DomainLevel, node: &'a NodeRecord, disk: DiskId) -> Domain<'a> {
    let (datacenter, rack, _, _) = domain(level, node, disk);
    (datacenter, rack, level.as_str(), None)
}

/// Where the shards of a new extent belong. Only disks in state `up` are chosen; those of a host that is down for a while
/// are among them, or objects put meanwhile would stand together on the other hosts for good.
///
/// # Errors
/// [`PlacementError::TooFewDisks`].
pub fn place(
    map: &ClusterMap,
    version: Version,
    extent: ExtentIndex,
    coding: Coding,
) -> Result<Placement, PlacementError> {
    let need = coding.total();
    let ranked = candidates(map, version, extent, Which::Homes);
    if ranked.len() < need {
        return Err(PlacementError::TooFewDisks { need, have: ranked.len() });
    }
    let caps = Caps::of(&ranked, need);

    // First the best disk of every host, then the second best, and so on: the spread over hosts is as even as it can be.
    let mut on_host: BTreeMap<&NodeName, usize> = BTreeMap::new();
    let mut ordered: Vec<(usize, &Candidate<'_>)> = Vec::with_capacity(ranked.len());
    for candidate in &ranked {
        let turn = on_host.entry(&candidate.node.name).or_default();
        ordered.push((*turn, candidate));
        *turn += 1;
    }
    ordered.sort_by_key(|(turn, _)| *turn); // stable: within a turn the cheapest stay first

    let mut load = Load::default();
    let mut homes = Vec::with_capacity(need);
    for (_, candidate) in ordered {
        let Candidate { disk, node, .. } = *candidate;
        if homes.len() < need && load.host(node) < caps.host && load.excess(&caps, node, disk) == (0, 0) {
            load.add(node, disk);
            homes.push(disk);
        }
    }
    debug_assert_eq!(homes.len(), need, "the caps leave room for every shard");
    if homes.len() < need {
        return Err(PlacementError::TooFewDisks { need, have: homes.len() });
    }
    let domain = widest_distinct(map, &homes);
    Ok(Placement { homes, domain })
}

/// The widest level at which no two of these disks stand together.
fn widest_distinct(map: &ClusterMap, homes: &[DiskId]) -> DomainLevel {
    let distinct = |level: &DomainLevel| {
        let names: BTreeSet<Domain<'_>> =
            homes.iter().filter_map(|disk| Some(domain(*level, map.node_of_disk(*disk)?, *disk))).collect();
        names.len() == homes.len()
    };
    DomainLevel::ALL.into_iter().find(distinct).unwrap_or(DomainLevel::Disk)
}
