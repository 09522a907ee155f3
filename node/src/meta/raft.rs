//! The types openraft is instantiated with, and its configuration.
//!
//! No openraft type leaves this module's parent.

use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, Config, LogId, SnapshotPolicy, StoredMembership};
use serde::{Deserialize, Serialize};

use super::MetaError;
use super::snapshot::SnapshotFile;
use crate::model::Outcome;
use crate::options::MetadataScrubOptions;
use crate::state::Proposal;

/// A member's id, as openraft has it. [`crate::types::RaftId`] everywhere else.
pub(crate) type Node = u64;
/// What Raft's membership keeps of a member: its address.
pub(crate) type RaftNode = BasicNode;

openraft::declare_raft_types!(
    /// Our instance of openraft.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = Node,
        Node = RaftNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotFile,
);

pub(crate) type Raft = openraft::Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type StorageError = openraft::StorageError<Node>;
pub(crate) type Stored = StoredMembership<Node, RaftNode>;

/// What the state machine's record of the last entry says to Raft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The entry.
    pub(crate) log_id: Option<LogId<Node>>,
    /// The membership as of it.
    pub(crate) membership: Stored,
}

/// Raft's times and sizes.
///
/// A leader that dies is missed after `election_max` (its lease), and stood against after another draw between
/// `election_min` and `election_max`: 1.1 to 1.4 s by default, and two round trips (pre-vote and vote). Clients lose under 2 s, and a
/// leader that merely stutters has a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How often a leader speaks, and the deadline of one append.
    pub heartbeat: Duration,
    /// The shortest time after the leader's lease before a voter stands for election.
    pub election_min: Duration,
    /// The longest; also the leader's lease.
    pub election_max: Duration,
    /// Entries between two snapshots, at least.
    pub snapshot_after: u64,
    /// Entries kept below a snapshot, so that a member a little behind needs no snapshot.
    pub keep_entries: u64,
    /// How often what was applied is made durable: bounds what a restart applies again.
    pub flush_interval: Duration,
    /// How long a member that was slow keeps up before it may vote again.
    pub kept_up: Duration,
    /// How often what is stored is read back: see [`super::scrub`].
    pub scrub_period: Duration,
    /// The most that is read back, bytes per second.
    pub scrub_bytes_per_second: u64,
}

/// How long a member that was slow keeps up before it may vote again: `slow_follower`'s proof of recovery. Shorter, and a disk
/// that stalls every half a minute would have the vote go to and fro.
const KEPT_UP: Duration = Duration::from_secs(60);

impl Default for Tuning {
    fn default() -> Self {
        let scrub = MetadataScrubOptions::default();
        Self {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(700),
            snapshot_after: 5000,
            keep_entries: 1000,
            flush_interval: Duration::from_secs(1),
            kept_up: KEPT_UP,
            scrub_period: scrub.period,
            scrub_bytes_per_second: scrub.rate_bytes_per_second,
        }
    }
}

/// The most entries of one append: with [`super::log_store::READ_BYTES`] it bounds a message.
const MAX_PAYLOAD_ENTRIES: u64 = 512;

impl Tuning {
    pub(super) fn config(&self) -> Result<Arc<Config>, MetaError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = Config {
            cluster_name: "resilver".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            max_payload_entries: MAX_PAYLOAD_ENTRIES,
            replication_lag_threshold: self.snapshot_after,
            // Decided by `election`, which asks first.
            enable_elect: false,
            // Decided by `upkeep`, which knows how large the state is.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.keep_entries,
            ..Config::default()
        };
        let config = config.validate().map_err(|error| MetaError::BadTuning { detail: error.to_string() })?;
        Ok(Arc::new(config))
    }
}
