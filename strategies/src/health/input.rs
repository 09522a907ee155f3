//! What a node's score is made from. Shapes only: an agent fills them, nothing here judges.

use std::time::Duration;

/// Whether it is there at all. From best to worst.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It answers and serves.
    Serving,
    /// It answers, and is in this phase.
    NotServing(String),
    /// Nothing was seen of it yet.
    #[default]
    Unknown,
    /// Its process runs and does not answer, for so many questions in a row.
    Silent(usize),
    /// Its process does not run.
    Dead,
}

/// What the canary says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It writes, syncs and reads back.
    Well,
    /// It takes long.
    Suspect,
    /// It is gone, another disk, or fails.
    Failed,
}

/// What the cluster map lets it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Reads and writes.
    Full,
    /// Reads.
    ReadOnly,
    /// Nothing.
    None,
}

/// What a disk's own counters (SMART) announce, with the weightiest reason. From best to worst.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Announced {
    /// Nothing.
    Well,
    /// It has begun to lose data, or to wear out.
    Degrading(String),
    /// It fails, or is about to.
    Failing(String),
}

/// A disk. What is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiskInput {
    /// Its name, for people.
    pub name: String,
    /// The canary's word.
    pub condition: Option<Condition>,
    /// The map's word.
    pub service: Option<Service>,
    /// Bytes of shards.
    pub used_bytes: u64,
    /// Bytes that still fit.
    pub available_bytes: u64,
    /// Bytes of the file system; 0: not known, used and available are taken together.
    pub total_bytes: u64,
    /// Operations that failed within the last hour.
    pub recent_errors: Option<u64>,
    /// Its own counters' word; `None`: nobody reads them, or nobody could.
    pub announced: Option<Announced>,
}

/// What a node has to bring back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuild {
    /// Shards that wait on this node, or are being rebuilt.
    pub waiting: u64,
    /// Shards it holds.
    pub held: u64,
}

/// How often something failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// How often it was tried.
    pub asked: u64,
    /// How often it failed.
    pub failed: u64,
}

impl Rate {
    /// Failed of asked; nothing asked is nothing failed.
    pub fn share(self) -> f64 {
        if self.asked == 0 { 0.0 } else { self.failed as f64 / self.asked as f64 }
    }
}

/// How long something takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// What, for people.
    pub what: &'static str,
    /// Lately.
    pub now: Duration,
    /// As it used to be; `None`: not known yet.
    pub baseline: Option<Duration>,
    /// Faster than this is good whatever it was before: the ratio of two tiny times says nothing.
    pub fine: Duration,
}

/// Something of which there is only so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// In use.
    pub used: u64,
    /// All there is; 0: no limit.
    pub limit: u64,
}

/// The node's part in the metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftInput {
    /// leader | follower | candidate | learner | shutdown.
    pub role: String,
    /// Whether it knows a leader.
    pub leader_known: bool,
    /// Committed entries that it has not applied.
    pub behind: u64,
    /// A leader only: since a quorum acknowledged it.
    pub quorum_ack_age: Option<Duration>,
}

/// What is known of a node. `None` is not known, and never counts as good.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInput {
    /// Whether it is there.
    pub presence: Presence,
    /// What waits to be rebuilt.
    pub rebuild: Option<Rebuild>,
    /// Its disks.
    pub disks: Option<Vec<DiskInput>>,
    /// Its agent's questions.
    pub questions: Option<Rate>,
    /// How long it and its disks take; empty: not known.
    pub latencies: Vec<Latency>,
    /// Resident memory and its limit.
    pub memory: Option<Usage>,
    /// Open descriptors and their limit.
    pub descriptors: Option<Usage>,
    /// Its part in the metadata.
    pub raft: Option<RaftInput>,
}
