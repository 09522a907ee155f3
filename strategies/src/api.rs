//! What goes into the engine and what comes out: the vocabulary between decision and execution.
//!
//! Owns: shapes only. Must never: decide.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::Draft;
use crate::types::{Action, Fence, Grade, GuardName, Mode, Now};

/// What a fact or an incident is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A node's process.
    Node(String),
    /// A disk: its id, and the node it is in.
    Disk {
        /// Which.
        disk: String,
        /// Where.
        node: String,
    },
    /// An object with damaged shards: by key, as its shards are found on this node.
    Object {
        /// Bucket.
        bucket: String,
        /// Key.
        key: String,
    },
}

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Something the node itself found wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Another agent's answer about itself and its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// Names one step of one incident on one agent. Unique over restarts of the agent: from the journal's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub u64);

/// Names an incident: `NODE-SEQUENCE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub String);

/// A step, ready to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Which.
    pub id: StepId,
    /// Of which incident; `None` for an operator's own step.
    pub incident: Option<IncidentId>,
    /// For which mode; `None` for an operator's own step.
    pub mode: Option<Mode>,
    /// What is done.
    pub action: Action,
    /// How invasive.
    pub grade: Grade,
    /// To what.
    pub subject: Subject,
    /// Whether it needs lease, slot and fence.
    pub disruptive: bool,
    /// The fence it runs under, once its slot is open.
    pub fence: Option<Fence>,
    /// When it counts as failed.
    pub deadline: Duration,
}

/// What shows that an incident is over: read by another probe than the one that found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A canary write and read through the node, and caught up to the commit index.
    Serves,
    /// Every shard that was on the disk read back from its new home; failed = skipped = 0.
    DiskRebuilt {
        /// The disk that was lost.
        disk: String,
    },
    /// Every shard of the object read from disk, cache bypassed.
    ObjectIntact {
        /// Bucket.
        bucket: String,
        /// Key.
        key: String,
    },
}

/// How a step or a proof ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepResult {
    /// Done (a proof: it held).
    Done {
        /// For the record.
        detail: String,
    },
    /// Tried and failed (a proof: it did not hold).
    Failed {
        /// For the record.
        error: String,
    },
    /// A guard at the place of effect said no.
    Refused {
        /// Which.
        guard: GuardName,
        /// Why.
        evidence: String,
    },
}

/// What a person asks of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorCommand {
    /// No step until resumed or expired.
    Pause {
        /// Who.
        owner: String,
        /// Why.
        reason: String,
        /// How long.
        expires_in: Duration,
    },
    /// Act again; the present is judged, nothing is replayed.
    Resume {
        /// Who.
        owner: String,
    },
    /// A restart of this agent's node, already admitted by the holder of the lease.
    RestartNode {
        /// Who.
        owner: String,
        /// Why.
        reason: String,
        /// The slot's fence.
        fence: Fence,
    },
}

/// An incident as the journal left it when the agent ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIncident {
    /// Which.
    pub id: IncidentId,
    /// Its mode.
    pub mode: Mode,
    /// What it is about.
    pub subject: Subject,
    /// When it was opened, wall time.
    pub opened_ms: u64,
    /// A step that has an intent but no outcome.
    pub unfinished: Option<Step>,
    /// Steps done so far.
    pub steps_done: Vec<Action>,
}

/// Everything that can happen to the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// First input after the agent's start: what the journal holds.
    Started {
        /// The journal's next sequence: ids count on from it.
        next_sequence: u64,
        /// Incidents that were open.
        open: Vec<OpenIncident>,
        /// A pause that has not expired, with what is left of it.
        paused: Option<(String, String, Duration)>,
    },
    /// A fact.
    Observed(Observation),
    /// Time passed. Comes at least every 100 ms.
    Tick,
    /// A step ended.
    Finished {
        /// Which.
        step: StepId,
        /// How.
        result: StepResult,
    },
    /// A proof ended.
    Proved {
        /// Of which incident.
        incident: IncidentId,
        /// How.
        result: StepResult,
    },
    /// The holder answered a request for a slot.
    Slot {
        /// For which step.
        step: StepId,
        /// The fence, or which guard refused and why.
        reply: Result<Fence, (GuardName, String)>,
    },
    /// A person spoke.
    Operator(OperatorCommand),
}

/// What the agent is to do, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Write this into the journal. `durable`: before the next command is begun.
    Record {
        /// What.
        draft: Box<Draft>,
        /// Whether it must be synced first.
        durable: bool,
    },
    /// Ask the holder of the lease for a slot.
    TakeSlot(Step),
    /// Do this step. Its intent came before as a durable record.
    Execute(Step),
    /// Find out whether the incident is over.
    Prove {
        /// Which incident.
        incident: IncidentId,
        /// What to show.
        proof: Proof,
        /// When it counts as failed.
        deadline: Duration,
    },
    /// The step of this slot is verified, or given up for good.
    CloseSlot {
        /// Which step.
        step: Step,
        /// Whether it was verified.
        verified: bool,
    },
}

/// One engine call.
pub trait Decide {
    /// Takes one input and says what follows. Pure: the same state, time and input give the same commands.
    fn handle(&mut self, now: Now, input: Input) -> Vec<Command>;
}
