//! What the cluster agrees upon: the records of the state machine and the commands that change them.
//!
//! Owns: the shapes. Must never: touch a disk or a clock. Changing a shape changes the format of log, snapshot and
//! database: raise [`FORMAT`] and say how the old one is read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{
    BucketName, ClusterId, DiskId, Epoch, ExtentIndex, Fence, InstanceId, NodeName, RaftId, ShardIndex, Version,
};

/// The format of metadata on disk (log records, snapshot, database). A folder with a higher one is refused.
pub const FORMAT: u16 = 1;

/// The largest extent: a home lost in the middle of an upload costs one extent's rewrite.
pub const EXTENT_BYTES: u64 = 16 * 1024 * 1024;

/// The block of a shard: what one CRC covers, and what one message carries.
pub const BLOCK_BYTES: u32 = 64 * 1024;

/// The most shards an extent may have. Wider codes cost more in repair than they save in space.
pub const MAX_SHARDS: u8 = 32;

/// The longest key of an object, in bytes: S3's limit.
pub const MAX_KEY_BYTES: usize = 1024;

/// Reed-Solomon parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coding {
    /// Data shards.
    pub k: u8,
    /// Parity shards.
    pub m: u8,
}

impl Coding {
    /// All shards of an extent.
    pub fn total(self) -> usize {
        usize::from(self.k) + usize::from(self.m)
    }
}

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

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRecord {
    /// Its name.
    pub name: BucketName,
    /// How its objects are coded.
    pub coding: Coding,
    /// When it was made, wall time of the proposing node, for people.
    pub created_ms: u64,
}

/// Where one shard is and should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The disk that holds it; `None`: nowhere, it waits to be rebuilt.
    pub at: Option<DiskId>,
    /// The disk that placement chose.
    pub wanted: DiskId,
}

/// A run of at most [`EXTENT_BYTES`] of an object, coded as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentRecord {
    /// Bytes of content.
    pub len_bytes: u64,
    /// One home per shard index.
    pub homes: Vec<Home>,
}

/// An object's content as of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Names its shards.
    pub version: Version,
    /// Bytes of content.
    pub size_bytes: u64,
    /// CRC32C of the whole content.
    pub crc32c: u32,
    /// When it was put, wall time of the gateway, for people.
    pub modified_ms: u64,
    /// How it is coded; fixed at the put.
    pub coding: Coding,
    /// Block size its shards were written with.
    pub block_bytes: u32,
    /// In order. Empty for an empty object.
    pub extents: Vec<ExtentRecord>,
}

impl ObjectRecord {
    /// Shards that have no home now.
    pub fn missing_shards(&self) -> usize {
        self.extents.iter().flat_map(|extent| &extent.homes).filter(|home| home.at.is_none()).count()
    }
}

/// A version that was replaced or deleted: its shards stay readable for a while and are then collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageRecord {
    /// What it was.
    pub object: ObjectRecord,
    /// When, wall time of the proposing node. The collector measures age by its own monotonic clock from when it first
    /// saw the record: this is for people.
    pub replaced_ms: u64,
}

/// What a write demands of the present state, judged when it is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The key must be absent.
    Absent,
    /// The key must be at this version.
    Version(Version),
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

/// A change everybody applies in the same order. Applying must be deterministic: what needs a clock or a random number
/// brings it along.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The birth of the cluster: its first command, once. The first member comes with it.
    InitCluster {
        /// Its id.
        cluster: ClusterId,
        /// Its name.
        name: String,
    },
    /// Lets a node in, or confirms one of the same instance (its address, location and disks are then brought up to
    /// date). A name held by another instance is refused.
    JoinNode {
        /// Name.
        name: NodeName,
        /// Data folder.
        instance: InstanceId,
        /// gRPC address.
        address: String,
        /// Where it stands.
        location: Location,
        /// Its disks; those the map already knows keep their state.
        disks: Vec<JoiningDisk>,
        /// Only for the founder: the id it was initialised under. Others draw the next of the counter.
        raft_id: Option<RaftId>,
    },
    /// Says what a disk may do.
    SetDiskState {
        /// Which disk.
        disk: DiskId,
        /// What it may do from now on.
        state: DiskState,
        /// Who says so. An automatic mark never undoes an operator's.
        by: MarkedBy,
        /// Why.
        reason: String,
        /// Required of agents; refused when lower than the highest seen.
        fence: Option<Fence>,
    },
    /// Makes a bucket.
    CreateBucket {
        /// The bucket.
        bucket: BucketRecord,
        /// An existing one of the same name is then no error.
        if_absent: bool,
    },
    /// Puts an object: the commit of an upload whose shards are durable.
    PutObject {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// Content.
        object: ObjectRecord,
        /// Demand.
        condition: Condition,
        /// Wall time.
        now_ms: u64,
    },
    /// Deletes an object.
    DeleteObject {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// Demand.
        condition: Condition,
        /// Wall time.
        now_ms: u64,
    },
    /// Records where a shard is now (repair), or that it is lost (`at: None`). Refused when the shard is not at
    /// `expected` any more: somebody was faster.
    SetHome {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// The version the shard belongs to; another one by now is refused.
        version: Version,
        /// Extent.
        extent: ExtentIndex,
        /// Shard.
        shard: ShardIndex,
        /// Where it was believed to be.
        expected: Option<DiskId>,
        /// Where it is now.
        at: Option<DiskId>,
        /// Where it should be from now on.
        wanted: DiskId,
    },
    /// From now on a put of this version is refused, and it is forgotten as garbage: its shards may be moved aside.
    ForbidVersion {
        /// The version.
        version: Version,
    },
}

/// What a command came to. The same for everybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, nothing to tell.
    Done,
    /// A node is in.
    Joined {
        /// The id it has in Raft.
        raft_id: RaftId,
    },
    /// A disk's state was set.
    DiskWas(DiskState),
    /// A bucket exists: made, or found with `if_absent`.
    Bucket(BucketRecord),
    /// An object was put.
    Put {
        /// The version it replaced.
        replaced: Option<Version>,
    },
    /// A delete was applied.
    Deleted {
        /// Whether there was anything.
        existed: bool,
    },
    /// Not done, with the reason.
    Refused(Refusal),
}

/// Why a command was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// `cluster init` came twice.
    #[error("the cluster exists already")]
    ClusterExists,
    /// Anything before `cluster init`.
    #[error("the cluster is not initialised")]
    NoCluster,
    /// The name is held by another data folder.
    #[error(
        "the name {0} belongs to another node (a different data folder) of this cluster: choose another `node.name`, or \
         bring back the data folder that was admitted under it"
    )]
    NameTaken(NodeName),
    /// The disk is registered with another node.
    #[error("disk {0} belongs to node {1}")]
    DiskTaken(DiskId, NodeName),
    /// No such disk.
    #[error("there is no disk {0} in this cluster")]
    NoDisk(DiskId),
    /// A lower fence than the highest seen.
    #[error("fence {}.{} of {} is older than {}.{} of {}, the highest seen", offered.epoch, offered.round, offered.holder, highest.epoch, highest.round, highest.holder)]
    StaleFence {
        /// The one that came.
        offered: Fence,
        /// The one that counts.
        highest: Fence,
    },
    /// An operator's mark stands against it.
    #[error("an operator marked this disk; only an operator undoes it")]
    OperatorMark,
    /// No such bucket.
    #[error("there is no bucket {0}")]
    NoBucket(BucketName),
    /// The bucket exists.
    #[error("bucket {0} exists already")]
    BucketExists(BucketName),
    /// No such object, or another version by now.
    #[error("there is no such object")]
    NoObject,
    /// The condition did not hold.
    #[error("the condition does not hold: the object is at {}", .at.map_or("no version".to_owned(), |version| version.to_string()))]
    Condition {
        /// The version found.
        at: Option<Version>,
    },
    /// The version was given up before it was committed.
    #[error("this upload was given up and its parts may be gone: put the object again")]
    Forbidden,
    /// The shard is not where it was believed to be.
    #[error("the shard was moved meanwhile")]
    Moved,
    /// The session's answer is no longer kept.
    #[error("this command was superseded by later ones of its session")]
    Expired,
}
