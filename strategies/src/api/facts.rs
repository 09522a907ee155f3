//! What sensors tell: timestamped facts about a process, a disk, a node, a peer.
//!
//! Owns: shapes only. Must never: interpret (a detector does).

mod host;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::host::{
    CanaryFact, HostFact, LockFact, LogMatchFact, ProcessStateFact, ReplicaFact, ReplicasFact, VolumeFact,
};
use crate::cascade::Place;

/// How a process ended, classified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitClass {
    /// A signal from outside (or a fault); its number.
    Signal(i32),
    /// SIGKILL by the kernel for want of memory.
    OutOfMemory,
    /// It said there was no room.
    NoSpace,
    /// It returned this code.
    Code(i32),
    /// Nobody saw how.
    Unknown,
}

impl fmt::Display for ExitClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitClass::Signal(number) => write!(f, "signal {number}"),
            ExitClass::OutOfMemory => f.write_str("killed by the kernel: out of memory"),
            ExitClass::NoSpace => f.write_str("no space left"),
            ExitClass::Code(code) => write!(f, "exit code {code}"),
            ExitClass::Unknown => f.write_str("nobody saw how"),
        }
    }
}

/// The node's process, seen by its pidfd or by its keeper's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessFact {
    /// It runs.
    Running {
        /// Process id.
        pid: u32,
        /// Start time in clock ticks: with the pid, beyond doubt.
        start_ticks: u64,
    },
    /// It ended.
    Exited {
        /// Process id it had.
        pid: u32,
        /// Start time it had.
        start_ticks: u64,
        /// How.
        exit: ExitClass,
        /// The last error it printed, for the crash signature; empty when none.
        last_error: String,
        /// An operator stopped it on purpose, or it returned success.
        deliberate: bool,
    },
    /// It was never started, or left no trace.
    Absent,
}

/// A disk as the node's own canary and the cluster map see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFact {
    /// Identity.
    pub disk: String,
    /// Folder.
    pub path: String,
    /// up | read_only | down | out.
    pub state: String,
    /// ok | suspect | gone | error | foreign.
    pub health: String,
    /// Why, for people.
    pub reason: String,
    /// Age of the canary's last answer.
    pub canary_age_ms: u64,
    /// Room left, as the node reports it.
    #[serde(default)]
    pub available_bytes: u64,
    /// Size of its file system; 0: the node does not say, and no room left means nothing then.
    #[serde(default)]
    pub total_bytes: u64,
    /// Operations that failed since the node's process began.
    #[serde(default)]
    pub errors: u64,
    /// Those of them that were reads; `None`: the engine does not tell them apart.
    #[serde(default)]
    pub read_errors: Option<u64>,
}

/// What a disk's own counters (SMART) come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmartVerdict {
    /// Nothing that could tell was read.
    #[default]
    Unknown,
    /// What was read is well.
    Ok,
    /// It has begun to lose data, or to wear out.
    Degrading,
    /// It says itself that it fails, or has lost more than a disk loses before it does.
    Failing,
}

impl SmartVerdict {
    /// The name in tables, documents and evidence.
    pub fn as_str(self) -> &'static str {
        match self {
            SmartVerdict::Unknown => "unknown",
            SmartVerdict::Ok => "ok",
            SmartVerdict::Degrading => "degrading",
            SmartVerdict::Failing => "failing",
        }
    }

    /// Whether it says that the disk is ill.
    pub fn is_ill(self) -> bool {
        matches!(self, SmartVerdict::Degrading | SmartVerdict::Failing)
    }
}

impl fmt::Display for SmartVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One look at a disk's own counters. The sensor bounds what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SmartFact {
    /// Which disk.
    pub disk: String,
    /// What the counters come to.
    pub verdict: SmartVerdict,
    /// Why, the weightiest first.
    pub reasons: Vec<String>,
    /// What was counted, by name.
    pub counters: BTreeMap<String, u64>,
    /// When the counters were read, wall time: only compared, to tell one sample from the next. `None`: none was read.
    pub sampled_ms: Option<u64>,
    /// Where it was read, for people.
    pub source: String,
    /// For how long it may be believed when no other word comes.
    pub good_for_ms: u64,
}

/// Something the node itself found wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingFact {
    /// Rises within one node process.
    pub sequence: u64,
    /// corrupt_shard | missing_shard | disk.
    pub kind: String,
    /// Disk it was found on.
    pub disk: String,
    /// Bucket of the object.
    pub bucket: String,
    /// Key of the object.
    pub key: String,
    /// scrub | read | canary | verify.
    pub found_by: String,
    /// For people.
    pub detail: String,
    /// The node has repaired it already.
    pub repaired: bool,
}

/// What a member promised last, as it has it on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoteFact {
    /// In which term.
    pub term: u64,
    /// The node of the member that it voted for; empty: not known, or a member of the past.
    pub node: String,
    /// A quorum voted the same.
    pub committed: bool,
}

/// Raft as the node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftFact {
    /// leader | follower | candidate | learner | shutdown.
    pub role: String,
    /// Term.
    pub term: u64,
    /// The leader's node name; empty when none is known.
    pub leader: String,
    /// Committed index.
    pub committed: u64,
    /// Applied index.
    pub applied: u64,
    /// How many voters the membership has, as the leader's replication or the map shows.
    pub voters: u64,
    /// Last entry in its log.
    #[serde(default)]
    pub last_log: u64,
    /// Term of that entry.
    #[serde(default)]
    pub last_log_term: u64,
    /// Last entry its snapshot covers.
    #[serde(default)]
    pub snapshot: u64,
    /// Of a leader: how long ago a quorum acknowledged it. `None`: it is no leader, or does not say.
    #[serde(default)]
    pub quorum_ack_ms: Option<u64>,
    /// Of one that does not lead: how long ago it heard a leader; one that heard none since its start, for how long it runs. `None`: it
    /// leads, or does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheard_ms: Option<u64>,
    /// Its vote. `None`: it has never voted, or does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vote: Option<VoteFact>,
}

/// A member of the cluster, from the cluster map as the node has applied it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberFact {
    /// Its node name.
    pub node: String,
    /// up | down | out, as in the map.
    pub state: String,
    /// voter | learner (a leader is a voter).
    pub role: String,
    /// Why it was marked; empty when it was not.
    #[serde(default)]
    pub reason: String,
    /// An agent marked it; false: an operator did, and no automation undoes that.
    #[serde(default)]
    pub automatic: bool,
}

/// One answer of the node to its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFact {
    /// Process that answered.
    pub pid: u32,
    /// starting | waiting | recovering | verifying | healthy | lost_voter | stopping.
    pub phase: String,
    /// What it waits for.
    pub phase_detail: String,
    /// Cluster epoch.
    pub epoch: u64,
    /// Raft; absent while it is not running.
    pub raft: Option<RaftFact>,
    /// Its disks.
    pub disks: Vec<DiskFact>,
    /// Bounded, newest kept.
    pub findings: Vec<FindingFact>,
    /// Shards queued for repair on this node.
    pub repair_queue: u64,
    /// Shards without a home, cluster-wide.
    pub missing_shards: u64,
    /// Client operations in flight: what the pressure guard looks at.
    #[serde(default)]
    pub operations_in_flight: u64,
    /// What clients take of the time of the busiest of its disks, in percent: the pressure guard looks at it, too.
    #[serde(default)]
    pub foreground_percent: u32,
    /// The cluster's members, this node among them.
    #[serde(default)]
    pub members: Vec<MemberFact>,
    /// The cluster's id; empty before it is in one.
    #[serde(default)]
    pub cluster: String,
    /// read_write | read_only | isolated; empty: it does not say.
    #[serde(default)]
    pub mode: String,
    /// Whether it stands for elections; `None`: it does not say.
    #[serde(default)]
    pub stands: Option<bool>,
    /// What took its vote: log | vote | database | absent | removed; empty: it has it, or does not say.
    #[serde(default)]
    pub damage: String,
    /// Age of the oldest client operation in flight; 0: none.
    #[serde(default)]
    pub oldest_operation_ms: u64,
    /// Names it, for cancelling.
    #[serde(default)]
    pub oldest_operation: String,
    /// Locks that are waited for or do badly, the worst first. Bounded.
    #[serde(default)]
    pub locks: Vec<LockFact>,
    /// A person set its mode, which no agent undoes.
    #[serde(default)]
    pub mode_is_persons: bool,
    /// Its agent (or another) has scrub and repair rest on it.
    #[serde(default)]
    pub throttled: bool,
    /// File systems that it writes to, as it sees them itself; one that hangs is not among them.
    #[serde(default)]
    pub volumes: Vec<VolumeFact>,
    /// Descriptors that it has open, and may have; `None`: it does not say.
    #[serde(default)]
    pub descriptors: Option<(u64, u64)>,
}

/// How another agent is by gossip (SWIM): what the agents know together, each having asked a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SwimState {
    /// Somebody heard it lately.
    Alive,
    /// It did not answer, and has not said yet that it is there.
    Suspect,
    /// It did not say so in time.
    Down,
}

impl SwimState {
    /// All of them.
    pub const ALL: &'static [SwimState] = &[SwimState::Alive, SwimState::Suspect, SwimState::Down];

    /// The name in metrics and evidence.
    pub fn as_str(self) -> &'static str {
        match self {
            SwimState::Alive => "alive",
            SwimState::Suspect => "suspect",
            SwimState::Down => "down",
        }
    }
}

/// A host that an agent does not hear, in that agent's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceFact {
    /// The host's node name.
    pub node: String,
    /// How long its agent has been silent.
    pub agent_ms: u64,
    /// How long its node has been silent.
    pub node_ms: u64,
    /// Its failure domain; empty when it was never told.
    pub domain: String,
}

/// A failure on the way of an operation, as the node noticed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureFact {
    /// Rises within one node process.
    pub sequence: u64,
    /// A [`crate::types::FailureKind`] by name; a newer node may know others.
    pub kind: String,
    /// Which part of the node noticed.
    pub component: String,
    /// What suffered, for people: a peer, a disk, a bucket, a lock.
    pub subject: String,
    /// The hosts and disks that the operation waited for: its path.
    pub places: Vec<Place>,
    /// How long ago, monotonic.
    pub age_ms: u64,
}

/// Another agent's answer about itself and its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFact {
    /// The peer's node name.
    pub node: String,
    /// Whether its agent answered.
    pub agent_answers: bool,
    /// Whether its node lives, as its agent says; `None` when the agent did not answer.
    pub node_alive: Option<bool>,
    /// Its node's phase, as its agent says; empty when unknown.
    pub node_phase: String,
    /// Whether its node answered us directly; `None`: not asked.
    pub node_answers: Option<bool>,
    /// How its agent is by gossip; `None`: there is no gossip, or it was never heard of.
    #[serde(default)]
    pub swim: Option<SwimState>,
    /// Its failure domain, as its agent says; empty when the agent did not answer.
    #[serde(default)]
    pub domain: String,
    /// Whom its agent does not hear; it hears everybody else, or those in `heard`. `None`: it does not say.
    #[serde(default)]
    pub silent: Option<Vec<SilenceFact>>,
    /// Whether *our* node answered that agent's direct question: the second source on a node that runs and does not answer us.
    /// `None`: it was not asked, or it does not say.
    #[serde(default)]
    pub hears_us: Option<bool>,
    /// The Raft leader that its node sees; empty when it sees none or is not known.
    #[serde(default)]
    pub leader: String,
    /// Raft as its node said last, by its agent; `None`: its agent did not answer, or its node has none.
    #[serde(default)]
    pub raft: Option<RaftFact>,
    /// How old that word is.
    #[serde(default)]
    pub raft_age_ms: u64,
    /// Its node's cluster; empty: not known.
    #[serde(default)]
    pub cluster: String,
    /// Its node's epoch.
    #[serde(default)]
    pub epoch: u64,
    /// How far its clock is ahead of ours (negative: behind), from one question and its answer. `None`: not asked.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
    /// By how much that may be wrong: half of the time the answer took.
    #[serde(default)]
    pub clock_error_ms: u64,
    /// How long its node's last canary took; `None`: there was none, it failed, or its agent did not answer.
    #[serde(default)]
    pub canary_ms: Option<u64>,
    /// How long ago each disruptive step on its node was begun, milliseconds, of the last hour, as its own agent's journal has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disrupted_ms: Vec<u64>,
    /// Its agent asked over every configured interface, the first one first; empty when there is only one. Beyond 64 hosts only
    /// some are asked each time: the others are as they were.
    #[serde(default)]
    pub ways: Vec<WayFact>,
    /// Whom its agent hears, when it does not ask everybody: of those that are neither here nor in `silent` it says nothing.
    /// `None`: it asks everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Vec<String>>,
}

/// Whom this agent asks from now on. Only told in a cluster that is too large for everybody to ask everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchFact {
    /// How many others it asks.
    pub asked: usize,
    /// How many others there are.
    pub of: usize,
    /// Whom it has asked so far, and asks no more: what is known of them grows old, and is no silence.
    pub dropped: Vec<String>,
}

/// One way to another agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayFact {
    /// Where it was asked.
    pub address: String,
    /// Whether it answered there.
    pub answers: bool,
}

/// A timestamped fact from one sensor about one subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "sensor")]
pub enum Observation {
    /// pidfd or keeper's record.
    Process(ProcessFact),
    /// The node answered.
    Heartbeat(Box<NodeFact>),
    /// The node did not answer within the heartbeat's deadline.
    HeartbeatMissed {
        /// For people.
        error: String,
    },
    /// Another agent.
    Peer(PeerFact),
    /// Which others are asked.
    Watch(WatchFact),
    /// Failures that the node noticed since it was last asked, oldest first.
    Failures {
        /// They.
        events: Vec<FailureFact>,
    },
    /// A disk's own counters.
    Smart(SmartFact),
    /// The host around the node.
    Host(Box<HostFact>),
    /// A write and a read through the node.
    Canary(CanaryFact),
    /// The members' metadata, compared.
    Replicas(ReplicasFact),
    /// The node's process, as the kernel says.
    ProcessState(ProcessStateFact),
    /// A line of a log.
    LogMatch(LogMatchFact),
}
