//! The cluster map: members, disks, and what each may do.

use std::collections::BTreeMap;

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
}

/// What the cluster lets a disk do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// Read and written.
    Up,
    /// Read, but takes no new shards.
    ReadOnly,
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
            Self::Down => "down",
            Self::Out => "out",
        }
    }
}

/// Who set a disk's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkedBy {
    /// An agent; an agent may undo it.
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
    /// What it may do.
    pub state: DiskState,
    /// Who said so.
    pub marked_by: MarkedBy,
    /// Why, for people.
    pub reason: String,
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

    /// Whether shards may be read from this disk.
    pub fn readable(&self, disk: DiskId) -> bool {
        self.disks.get(&disk).is_some_and(|record| matches!(record.state, DiskState::Up | DiskState::ReadOnly))
    }
}
