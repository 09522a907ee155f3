//! What goes into the engine and what comes out: the vocabulary between decision and execution.
//!
//! Owns: shapes only. Must never: decide.

mod facts;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::facts::{
    CanaryFact, DiskFact, ExitClass, FailureFact, FindingFact, HostFact, LockFact, LogMatchFact, MemberFact, NodeFact,
    Observation, PeerFact, ProcessFact, ProcessStateFact, RaftFact, ReplicaFact, ReplicasFact, SilenceFact, SmartFact,
    SmartVerdict, SwimState, VolumeFact, VoteFact, WatchFact, WayFact,
};
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
    /// Hosts that went silent together, by their nodes' names, sorted.
    Hosts(Vec<String>),
}

impl Subject {
    /// The node it is on, when it names one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Subject::Node(node) | Subject::Disk { node, .. } => Some(node),
            Subject::Object { .. } | Subject::Hosts(_) => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Node(node) => write!(f, "node {node}"),
            Subject::Disk { disk, node } => write!(f, "disk {disk} of {node}"),
            Subject::Object { bucket, key } => write!(f, "object {bucket}/{key}"),
            Subject::Hosts(hosts) if hosts.len() == 1 => write!(f, "host {}", hosts[0]),
            Subject::Hosts(hosts) => write!(f, "hosts {}", hosts.join(", ")),
        }
    }
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
    /// What the action needs beside its subject; empty for most. Of `set_mode` of a node: the mode; of `cancel_operation`: the
    /// operation; of `break_lock`: `PATH#TOKEN`; of `reclaim`: what; of `align_term`: the term to come above.
    #[serde(default)]
    pub with: String,
    /// Who approved it; empty: nobody had to.
    #[serde(default)]
    pub approved_by: String,
    /// It was done before, and is done anew beside the ladder because the node shows it no more.
    #[serde(default)]
    pub again: bool,
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
    /// Each host is up in the cluster map and its node serves, or it is out; no shard is without a home; and a canary through the own
    /// node takes no longer than it may.
    HostsSettled {
        /// Which.
        hosts: Vec<String>,
        /// How long a canary may take, milliseconds; `None`: there is nothing to compare it with yet.
        #[serde(default)]
        canary_ms: Option<u64>,
    },
    /// The own node's metadata, digested anew from stored bytes, is what a majority of at least three has at one entry of the
    /// log; and so again at a later entry.
    ReplicaEqual,
    /// As [`Proof::ReplicaEqual`]; and a sample of what the own node answers to readers is what another member answers.
    ReadsEqual,
    /// As [`Proof::ReplicaEqual`]; and the own log, replayed on a copy of the state, comes to what is stored.
    LogReplays,
    /// Every one of these hosts answers directly, agent and node, and does not call this one silent; all nodes that answer, three
    /// observers at least where there are as many voters, name one leader for one term; and none of these hosts has more left to
    /// apply than was committed since.
    OneLeader {
        /// The hosts that are asked.
        hosts: Vec<String>,
    },
    /// As [`Proof::OneLeader`]; all who answer are in one epoch, and refuse what is of an older one; and the digests of all of them, from
    /// stored bytes, are equal at one entry.
    OneHistory {
        /// The hosts that are asked.
        hosts: Vec<String>,
    },
    /// Asked anew, more than half of the peers find this host's clock no further off than this, beyond the error of the question.
    ClockAgrees {
        /// Limit.
        within_ms: u64,
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
        /// Where what was there before is kept, if something was moved aside: `details.backup_path` of the outcome.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backup: Option<String>,
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

impl StepResult {
    /// Done, and nothing was moved aside.
    pub fn done(detail: impl Into<String>) -> Self {
        Self::Done { detail: detail.into(), backup: None }
    }

    /// How it ended in the journal's words, and what is said of it.
    pub(crate) fn said(&self) -> (&'static str, String) {
        match self {
            Self::Done { detail, .. } => ("done", detail.clone()),
            Self::Failed { error } => ("failed", error.clone()),
            Self::Refused { guard, evidence } => ("refused", format!("{guard}: {evidence}")),
        }
    }

    /// Where what was there before is kept, if something was moved aside.
    pub(crate) fn backup(&self) -> Option<&str> {
        match self {
            Self::Done { backup, .. } => backup.as_deref(),
            Self::Failed { .. } | Self::Refused { .. } => None,
        }
    }
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
        /// The slot's fence; of a start, which has no slot, the lease's.
        fence: Fence,
        /// Admitted because no process runs: it is started, and nothing is taken away. One that runs by now is left be.
        dead: bool,
    },
    /// One step of one incident, under the evidence that was shown with the token. Answered by [`Command::Answer`].
    Approve {
        /// Who.
        owner: String,
        /// Of which incident.
        incident: IncidentId,
        /// The SHA-256 of the token, in hexadecimal: the token itself is in no input.
        token_sha256: String,
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
    /// How long ago that was, milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// A step that has an intent but no outcome.
    pub unfinished: Option<Step>,
    /// The newest step, when it was disruptive and has an outcome, and whether that was "done": its slot may still be open.
    #[serde(default)]
    pub ended: Option<(Step, bool)>,
    /// Steps done so far.
    pub steps_done: Vec<Action>,
    /// It waits for a person.
    #[serde(default)]
    pub escalated: bool,
    /// The node's first start by this agent, not a crash.
    #[serde(default)]
    pub initial: bool,
    /// The pattern of a cascade.
    #[serde(default)]
    pub pattern: Option<String>,
    /// What was done to the node and not taken back, with what went beside it; the newest last.
    #[serde(default)]
    pub applied: Vec<(Action, String)>,
}

/// A cascade that an earlier life of this agent found: the sliding hour outlives a restart of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastCascade {
    /// By which pattern.
    pub pattern: String,
    /// How long ago, milliseconds.
    pub age_ms: u64,
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
    /// How long ago it was begun, milliseconds.
    pub age_ms: u64,
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
        /// Cascades of the last hour, oldest first.
        #[serde(default)]
        cascades: Vec<PastCascade>,
        /// The highest term that the journal knows of the own node, since its last rejoin.
        #[serde(default)]
        high_term: u64,
        /// For how long which cluster is known.
        #[serde(default)]
        observed: Option<(String, Duration)>,
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
    /// The agent drew a token, as [`Command::OfferApproval`] asked.
    Offered {
        /// For which incident.
        incident: IncidentId,
        /// The token's SHA-256, in hexadecimal.
        token_sha256: String,
    },
    /// The lease was gained under this fence, or (`None`) is not held any more.
    Lease {
        /// The fence.
        fence: Option<Fence>,
    },
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
    /// `evacuate_disk`: `DISK_VERB_DRAIN`, through the fence gate.
    /// `mark_down`, `mark_up`, `evacuate_host` of hosts: each is marked down, up or out in the cluster map, automatic, under
    /// the lease's fence.
    /// `repair_shards` of a disk: `DISK_VERB_OUT`, then sync the disk's scope; for `disk_degrading` the other way round,
    /// with a verification in between: sync, verify, `DISK_VERB_OUT`; for `data_corruption` a deep scan: verify the disk's scope,
    /// then sync it, and the disk stays what it is. Of an object: sync the object's scope.
    /// Of the own node, what is needed beside the subject being in [`Step::with`]:
    /// `set_mode` with `read_write`, `read_only`, `isolated`, or `quiet` and `standing` (elections); `throttle` with `on` or `off`:
    /// background work; `reclaim` with `space` or `connections`; `cancel_operation` with the operation; `break_lock` with
    /// `PATH#TOKEN`, refused by the node when the token is not the holder's any more; `step_down`, `resync`, `install_snapshot`,
    /// `rejoin_learner`, `demote`, `restart_node` and `align_term` (with the term to elect above) through the fence gate;
    /// `promote`: asks for the vote that `demote` gave up.
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
    /// Draw a token with which a person may approve this step. Answered by [`Input::Offered`].
    OfferApproval {
        /// Of which incident.
        incident: IncidentId,
        /// What would be done.
        action: Action,
        /// How invasive that is.
        grade: Grade,
        /// In words.
        does: String,
        /// For how long.
        lasts: Duration,
    },
    /// The answer to [`OperatorCommand::Approve`]: what was approved, or why it was refused.
    Answer {
        /// Of which incident.
        incident: IncidentId,
        /// How.
        result: Result<String, (GuardName, String)>,
    },
}

/// One engine call.
pub trait Decide {
    /// Takes one input and says what follows. Pure: the same state, time and input give the same commands.
    fn handle(&mut self, now: Now, input: Input) -> Vec<Command>;
}
