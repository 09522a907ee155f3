//! What goes into the engine and what comes out: the vocabulary between decision and execution.
//!
//! Owns: shapes only. Must never: decide.

use std::fmt;
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

impl Subject {
    /// The node it is on, when it names one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Subject::Node(node) | Subject::Disk { node, .. } => Some(node),
            Subject::Object { .. } => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(node) => write!(f, "node {node}"),
            Subject::Disk { disk, node } => write!(f, "disk {disk} of {node}"),
            Subject::Object { bucket, key } => write!(f, "object {bucket}/{key}"),
        }
    }
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
    /// Room left, as the node reports it; 0 when it is unknown.
    #[serde(default)]
    pub available_bytes: u64,
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

/// A member of the cluster, from the cluster map as the node has applied it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberFact {
    /// Its node name.
    pub node: String,
    /// up | down | out, as in the map.
    pub state: String,
    /// voter | learner (a leader is a voter).
    pub role: String,
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
    /// The cluster's members, this node among them.
    #[serde(default)]
    pub members: Vec<MemberFact>,
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

impl IncidentId {
    /// Names the incident with this number on a node.
    pub fn new(node: &str, number: u64) -> Self {
        Self(format!("{node}-{number}"))
    }

    /// Names the proof of an operator's own step: it belongs to no incident, but its end must be told apart.
    pub fn of_operator(node: &str, step: StepId) -> Self {
        Self(format!("{node}-operator-{}", step.0))
    }

    /// The number at the end of the name.
    pub fn number(&self) -> Option<u64> {
        self.0.rsplit('-').next().and_then(|digits| digits.parse().ok())
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

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
    /// Which attempt this is, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// Why, for people: goes to the node with the request.
    #[serde(default)]
    pub reason: String,
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
    /// A restart of this agent's node, already admitted by the holder of the lease. Its end, whichever, is told by one
    /// [`Command::CloseSlot`] whose step has this fence and no incident.
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
    /// It waits for a person.
    #[serde(default)]
    pub escalated: bool,
    /// The node's first start by this agent, not a crash.
    #[serde(default)]
    pub initial: bool,
}

/// A step that an earlier life of this agent began: budgets and crash signatures outlive a restart of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastStep {
    /// What was done.
    pub action: Action,
    /// To what.
    pub subject: Subject,
    /// Whether it was disruptive.
    pub disruptive: bool,
    /// When it was begun, wall time.
    pub at_ms: u64,
    /// The signature of the crash it answered, if any.
    pub signature: Option<String>,
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
        /// An operator's steps that have an intent but no outcome.
        #[serde(default)]
        unfinished: Vec<Step>,
        /// Steps of the last day, oldest first, bounded by [`crate::resume::MAX_HISTORY`].
        #[serde(default)]
        history: Vec<PastStep>,
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
    /// Ask the holder of the lease for a slot. Answered by [`Input::Slot`].
    TakeSlot(Step),
    /// Do this step. Its intent came before as a durable record. What the actions mean, by subject:
    /// `start_node`: start the dead process. `restart_node`: stop and start it, through the fence gate.
    /// `throttle` of a disk: `DISK_VERB_STOP_WRITES`. `detach_disk`: `DISK_VERB_DETACH`, through the fence gate.
    /// `set_mode` of a disk: `DISK_VERB_ATTACH`, automatic: takes the agent's own throttle back.
    /// `repair_shards` of a disk: `DISK_VERB_OUT`, then sync the disk's scope; of an object: sync the object's scope.
    Execute(Step),
    /// Find out whether the incident is over.
    Prove {
        /// Which incident; of an operator's step: [`IncidentId::of_operator`].
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
        /// How it went, for the one who asked.
        detail: String,
    },
}

/// One engine call.
pub trait Decide {
    /// Takes one input and says what follows. Pure: the same state, time and input give the same commands.
    fn handle(&mut self, now: Now, input: Input) -> Vec<Command>;
}
