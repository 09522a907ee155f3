//! The cluster map: members, disks, and what each may do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{ClusterId, DiskId, Epoch, Fence, InstanceId, NodeName, RaftId};

/// Where a disk stands; shards never share a host (or what stands above it) while there are enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// Datacenter; empty when not configured.
    pub datacenter: String,
    /// Rack; empty when not configured.
    pub rack: String,
}

/// A member node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// Its id in Raft.
    pub raft_id: RaftId,
    /// Its data folder.
    pub instance: InstanceId,
    /// Its gRPC address, `host:port`.
    pub address: String,
    /// Where it stands.
    pub location: Location,
    /// Its metadata disk is nearly full: while too many say so, nothing that makes metadata grow is begun.
    pub metadata_low: bool,
    /// How its host is.
    pub state: HostState,
    /// Who said so.
    pub marked_by: MarkedBy,
    /// Why, for people; empty while it is up.
    pub reason: String,
    /// The attempt to come back that was given `raft_id`; `None`: it has had that since it joined.
    pub attempt: Option<u128>,
    /// It is being emptied: every disk it has, or gets, is draining, and its vote goes to another. Beside how its host is: a
    /// host that dies while it is emptied is looked after like any other, and goes on when it is back.
    pub draining: Option<Mark>,
    /// It is to have no vote. An agent's mark says that it is slow, and is taken back once it keeps up; a person's stays.
    pub no_vote: Option<Mark>,
}

impl NodeRecord {
    /// The best that a disk of this node can be.
    fn of_disks(&self) -> DiskState {
        let drained = if self.draining.is_some() { DiskState::Draining } else { DiskState::Up };
        self.state.of_disks().max(drained)
    }

    /// Whether shards may belong on its disks: also while it is away, but not once it is being emptied or given up.
    pub fn keeps_its_place(&self) -> bool {
        self.state != HostState::Out && self.draining.is_none()
    }

    /// Whether it may have a vote, as far as anybody said. That it is there and has caught up is another question.
    pub fn may_vote(&self) -> bool {
        self.keeps_its_place() && self.no_vote.is_none()
    }
}

/// Something that was said of a node, by whom, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Who said so.
    pub by: MarkedBy,
    /// Why, for people.
    pub reason: String,
}

/// A node that was taken out of the cluster, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedNode {
    /// The name it had. Another node may have that by now.
    pub name: NodeName,
    /// Its data folder: it is not let in again.
    pub instance: InstanceId,
}

/// What the cluster knows of a host: conviction, not suspicion. See `docs/host-states.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It serves.
    #[default]
    Up,
    /// It is away for a while: its disks are not written to, and read from last. It keeps its place.
    Down,
    /// Given up: its shards are rebuilt elsewhere.
    Out,
}

impl HostState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Up, Self::Down, Self::Out];

    /// The name in tables, messages and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Out => "out",
        }
    }

    /// The state of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// The best that a disk of such a host can be.
    fn of_disks(self) -> DiskState {
        match self {
            Self::Up => DiskState::Up,
            Self::Down => DiskState::Down,
            Self::Out => DiskState::Out,
        }
    }
}

/// What the cluster lets a disk do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Read and written.
    Up,
    /// Read, but takes no new shards.
    ReadOnly,
    /// Read until its shards are on other disks, and takes no new ones.
    Draining,
    /// Detached: neither read nor written. Its shards still count as placed there.
    Down,
    /// Given up: its shards are rebuilt elsewhere.
    Out,
}

impl DiskState {
    /// The name in tables, metrics and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::ReadOnly => "read_only",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Out => "out",
        }
    }

    /// Whether shards may be read from such a disk.
    pub fn is_readable(self) -> bool {
        matches!(self, Self::Up | Self::ReadOnly | Self::Draining)
    }

    /// Whether shards leave such a disk for others, and none belongs there any more.
    pub fn is_left(self) -> bool {
        matches!(self, Self::Draining | Self::Out)
    }
}

/// Who set the state of a disk or of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkedBy {
    /// An agent; an agent may undo it.
    #[default]
    Automatic,
    /// A person; only a person undoes it.
    Operator,
}

/// A disk of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// Its identity, as in its superblock.
    pub id: DiskId,
    /// The node it is in.
    pub node: NodeName,
    /// Its folder on that node, for people.
    pub path: String,
    /// Its size in bytes when it joined: its weight in placement.
    pub capacity_bytes: u64,
    /// What it may do, as far as it is about this disk alone. What counts is [`ClusterMap::disk_state`].
    pub state: DiskState,
    /// Who said so.
    pub marked_by: MarkedBy,
    /// Why, for people.
    pub reason: String,
}

impl DiskRecord {
    /// What it may do in this node: the worse of its own state and its host's.
    pub fn state_in(&self, node: &NodeRecord) -> DiskState {
        self.state.max(node.of_disks())
    }
}

/// A disk that a joining node brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoiningDisk {
    /// Its identity.
    pub id: DiskId,
    /// Its folder, for people.
    pub path: String,
    /// Its size in bytes.
    pub capacity_bytes: u64,
}

/// The cluster map: who is in it and what may be placed where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// `None` before `cluster init` was applied.
    pub cluster: Option<ClusterId>,
    /// The cluster's name, for people.
    pub name: String,
    /// The cluster's epoch.
    pub epoch: Epoch,
    /// Counts changes of this map.
    pub revision: u64,
    /// Members by name.
    pub nodes: BTreeMap<NodeName, NodeRecord>,
    /// Disks by id.
    pub disks: BTreeMap<DiskId, DiskRecord>,
    /// The highest fence any fenced command carried; lower ones are refused.
    pub fence: Fence,
    /// A person's pause of the repair queue, while there is one.
    pub repair_pause: Option<RepairPause>,
    /// Nothing is collected: this state may not know of everything that lies on disks. So after a restore and a forced
    /// quorum, until a person has looked.
    pub collection_held: bool,
    /// Nodes that were taken out, by the ids they had in Raft: the latest [`super::MAX_REMOVED`]. One of them that still runs
    /// is told so, and takes part in nothing.
    pub removed: BTreeMap<RaftId, RemovedNode>,
}

/// A pause of repair: no shard is taken from the queue while it lasts. An object that a person names is repaired all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairPause {
    /// Whose.
    pub owner: String,
    /// Why, for people.
    pub reason: String,
    /// How long it lasts, counted by whoever leads: a new leader counts anew.
    pub length: Duration,
    /// Which: never used twice.
    pub stamp: u64,
}

impl ClusterMap {
    /// The member with this Raft id.
    pub fn node_by_raft(&self, id: RaftId) -> Option<&NodeRecord> {
        self.nodes.values().find(|node| node.raft_id == id)
    }

    /// The member a disk belongs to.
    pub fn node_of_disk(&self, disk: DiskId) -> Option<&NodeRecord> {
        self.disks.get(&disk).and_then(|record| self.nodes.get(&record.node))
    }

    /// What a disk may do: the worse of its own state and its host's. Whoever asks what may be done with a disk asks this.
    pub fn disk_state(&self, disk: DiskId) -> Option<DiskState> {
        let record = self.disks.get(&disk)?;
        Some(self.nodes.get(&record.node).map_or(record.state, |node| record.state_in(node)))
    }

    /// Whether a shard there counts as one that can be read.
    pub fn readable(&self, disk: DiskId) -> bool {
        self.disk_state(disk).is_some_and(DiskState::is_readable)
    }

    /// Whether a shard may be read from there when no better one is left. Of a host that is down or out it may be tried:
    /// the mark says what is believed of the host, and a belief must not be what makes an object unreadable.
    pub fn readable_at_need(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|record| record.state.is_readable())
    }

    /// Whether what is on a disk moves elsewhere by somebody's will, whether its host is there or not.
    pub fn is_emptied(&self, disk: DiskId) -> bool {
        let own = self.disks.get(&disk).is_some_and(|record| record.state.is_left());
        own || self.node_of_disk(disk).is_some_and(|node| node.draining.is_some())
    }

    /// Whether the host of a disk is up.
    pub fn host_is_up(&self, disk: DiskId) -> bool {
        self.node_of_disk(disk).is_some_and(|node| node.state == HostState::Up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(disk: DiskState, host: HostState) -> ClusterMap {
        let node = NodeRecord {
            name: "n1".into(),
            raft_id: RaftId(1),
            instance: InstanceId(1),
            address: String::new(),
            location: Location::default(),
            metadata_low: false,
            state: host,
            marked_by: MarkedBy::Automatic,
            reason: String::new(),
            attempt: None,
            draining: None,
            no_vote: None,
        };
        let record = DiskRecord {
            id: DiskId(1),
            node: "n1".into(),
            path: String::new(),
            capacity_bytes: 1,
            state: disk,
            marked_by: MarkedBy::Automatic,
            reason: String::new(),
        };
        ClusterMap {
            nodes: [(node.name.clone(), node)].into(),
            disks: [(record.id, record)].into(),
            ..ClusterMap::default()
        }
    }

    #[test]
    fn a_disk_may_do_what_both_it_and_its_host_may() {
        use DiskState as D;
        use HostState as H;
        let table = [
            (D::Up, H::Up, D::Up, true, true),
            (D::Up, H::Down, D::Down, false, true),
            (D::Up, H::Out, D::Out, false, true),
            (D::ReadOnly, H::Up, D::ReadOnly, true, true),
            (D::ReadOnly, H::Down, D::Down, false, true),
            (D::Draining, H::Up, D::Draining, true, true),
            (D::Draining, H::Down, D::Down, false, true),
            (D::Down, H::Up, D::Down, false, false),
            (D::Down, H::Out, D::Out, false, false),
            (D::Out, H::Up, D::Out, false, false),
            (D::Out, H::Down, D::Out, false, false),
        ];
        for (disk, host, state, readable, at_need) in table {
            let map = map(disk, host);
            let found = (map.disk_state(DiskId(1)), map.readable(DiskId(1)), map.readable_at_need(DiskId(1)));
            assert_eq!(found, (Some(state), readable, at_need), "{disk:?} in a host that is {host:?}");
        }
        assert_eq!(map(D::Up, H::Up).disk_state(DiskId(2)), None);
    }

    #[test]
    fn a_host_that_is_emptied_has_every_disk_drain_and_none_that_does_more() {
        let mark = Some(Mark { by: MarkedBy::Operator, reason: "it is sold".to_owned() });
        let emptied = |disk, host| {
            let mut map = map(disk, host);
            map.nodes.get_mut(&"n1".into()).unwrap().draining.clone_from(&mark);
            (map.disk_state(DiskId(1)).unwrap(), map.is_emptied(DiskId(1)))
        };
        assert_eq!(emptied(DiskState::Up, HostState::Up), (DiskState::Draining, true));
        assert_eq!(emptied(DiskState::ReadOnly, HostState::Up), (DiskState::Draining, true));
        assert_eq!(emptied(DiskState::Down, HostState::Up), (DiskState::Down, true));
        assert_eq!(emptied(DiskState::Up, HostState::Down), (DiskState::Down, true), "it is not there to be read");
        assert_eq!(emptied(DiskState::Up, HostState::Out), (DiskState::Out, true));
        assert!(!map(DiskState::Up, HostState::Out).is_emptied(DiskId(1)));
        assert!(map(DiskState::Draining, HostState::Down).is_emptied(DiskId(1)));
    }

    #[test]
    fn states_of_hosts_are_read_as_they_are_written() {
        for state in HostState::ALL {
            assert_eq!(HostState::parse(state.as_str()), Some(state));
        }
        assert_eq!(HostState::parse("Down"), None);
    }
}
