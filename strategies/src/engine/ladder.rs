//! The ladders, as data: what is tried for each mode, in which order, how often, and what shows that it helped.
//!
//! Owns: the modes' steps. Must never: look at a fact; the rules that walk a ladder are in `decide.rs`.

use std::time::Duration;

use serde::Serialize;

use crate::api::{Proof, Subject};
use crate::config::PolicyConfig;
use crate::types::{Action, Grade, GuardName, Mode};

/// How long the node's answer to a quick verb may take.
const VERB_DEADLINE: Duration = Duration::from_secs(10);
/// How long the service manager may take to start a process.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long a graceful stop and a start may take together.
const RESTART_DEADLINE: Duration = Duration::from_secs(60);
/// How long a heartbeat may take to show what a verb did: the node applies it from the metadata's log.
const SEEN_DEADLINE: Duration = Duration::from_secs(15);

/// One step of a ladder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rung {
    /// What is done.
    pub action: Action,
    /// In words.
    pub does: &'static str,
    /// How invasive.
    pub grade: Grade,
    /// Whether it needs lease, slot and fence.
    pub disruptive: bool,
    /// How long after the step before (or the incident's opening).
    pub wait: Duration,
    /// Attempts before it is given up.
    pub attempts: u32,
    /// Who may hold it back.
    pub guards: &'static [GuardName],
    /// When one attempt counts as failed.
    pub deadline: Duration,
    /// What shows that it helped.
    pub effect: Effect,
    /// What follows when no attempt helped.
    pub otherwise: Otherwise,
}

/// What shows that a step helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The incident's proof of recovery: it is over when that holds.
    Proof {
        /// How long the proof may take to hold.
        deadline: Duration,
    },
    /// The cluster map shows the hosts in one of these states; then the next step.
    HostState {
        /// The states.
        states: &'static [&'static str],
        /// How long that may take.
        deadline: Duration,
    },
    /// The node shows the disk in one of these states; then the next step.
    DiskState {
        /// The states.
        states: &'static [&'static str],
        /// How long that may take.
        deadline: Duration,
    },
    /// No more failures for the pattern's window, and what began it gone. Nothing is done: it is waited for.
    Quiet,
}

/// What follows when a step's attempts are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// The next step of the ladder.
    NextRung,
    /// A person.
    Escalate,
}

use GuardName::{
    Authority, Backoff, Budget, Corroborated, CrashSignature, DeliberateStop, Fresh, Grace, IntentFirst, MoveAside,
    OneAtATime, Pause, Pressure, QuorumKept, StormBrake,
};

/// Starting what is dead is held by nothing else.
const START: &[GuardName] = &[Pause, DeliberateStop, CrashSignature, Budget, Authority, IntentFirst];
/// Grade 1: local, reversible.
const RELIEVE: &[GuardName] = &[Pause, Fresh, Authority, Budget, IntentFirst];
const DISRUPTIVE: &[GuardName] =
    &[Pause, Fresh, Corroborated, Authority, Budget, Grace, StormBrake, QuorumKept, OneAtATime, IntentFirst];
const REBUILD: &[GuardName] = &[Pause, Fresh, Corroborated, Authority, Budget, Pressure, IntentFirst];
/// A live disk is emptied: what holds a disruptive step back, and the load, because all of its shards are moved.
const EVACUATE: &[GuardName] =
    &[Pause, Fresh, Corroborated, Authority, Budget, Grace, StormBrake, QuorumKept, Pressure, OneAtATime, IntentFirst];
const RECONSTRUCT: &[GuardName] = &[Pause, Fresh, Corroborated, Authority, Budget, Pressure, MoveAside, IntentFirst];

/// Saying in the map what the evidence says takes nothing away.
const MARK: &[GuardName] = &[Pause, Fresh, Corroborated, OneAtATime, Authority, IntentFirst];
const UNMARK: &[GuardName] = &[Pause, Fresh, OneAtATime, Authority, IntentFirst];
const GIVE_UP: &[GuardName] = &[Pause, Fresh, Corroborated, OneAtATime, Authority, Budget, StormBrake, IntentFirst];

/// Attempts at a mark: with the waits between them long enough for an election, which the host's end may have caused.
const MARK_ATTEMPTS: u32 = 10;

/// Where [`disk_degrading`] marks the disk.
pub(crate) const EVACUATION: usize = 1;

/// The states of a disk that its shards leave for others.
pub(crate) const LEFT: &[&str] = &["draining", "out"];

/// The states of a host that the cluster's work is planned with. `member`: a node that knows no marks yet.
pub(crate) const IN_SERVICE: &[&str] = &["up", "member"];

/// The ladder of a mode; empty for a mode that comes later.
pub fn ladder(mode: Mode, policy: &PolicyConfig) -> Vec<Rung> {
    match mode {
        Mode::ProcessCrash => process_crash(policy),
        Mode::DiskFailure => disk_failure(policy),
        Mode::DiskDegrading => disk_degrading(policy),
        Mode::DataCorruption => data_corruption(policy),
        Mode::HostDown => host_down(policy),
        Mode::CascadingFailure => cascading_failure(),
        _ => Vec::new(),
    }
}

fn process_crash(policy: &PolicyConfig) -> Vec<Rung> {
    vec![Rung {
        action: Action::StartNode,
        does: "start the dead process",
        grade: Grade::RELIEVE,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: policy.recovery.max_restart_attempts,
        guards: START,
        deadline: START_DEADLINE,
        effect: Effect::Proof { deadline: policy.deadline(policy.recovery.proof_deadline) },
        // Start and resync, and replacing the member, are steps that come later.
        otherwise: Otherwise::Escalate,
    }]
}

fn disk_failure(policy: &PolicyConfig) -> Vec<Rung> {
    let seen = |states| Effect::DiskState { states, deadline: SEEN_DEADLINE };
    let verb = |action, does, grade, disruptive, wait, guards, effect, otherwise| Rung {
        action,
        does,
        grade,
        disruptive,
        wait,
        attempts: policy.budget.attempts,
        guards,
        deadline: VERB_DEADLINE,
        effect,
        otherwise,
    };
    let rebuild = policy.deadline(policy.disk.rebuild_deadline);
    vec![
        verb(
            Action::Throttle,
            "stop new writes to the disk",
            Grade::RELIEVE,
            false,
            Duration::ZERO,
            RELIEVE,
            seen(&["read_only", "draining", "down", "out"]),
            Otherwise::NextRung,
        ),
        verb(
            Action::DetachDisk,
            "detach the disk, not the process",
            Grade::RESTART,
            true,
            policy.scaled(policy.disk.detach_after),
            DISRUPTIVE,
            seen(&["down", "out"]),
            Otherwise::Escalate,
        ),
        Rung {
            deadline: rebuild,
            ..verb(
                Action::RepairShards,
                "mark the disk out and rebuild its shards elsewhere",
                Grade::REPAIR,
                false,
                policy.scaled(policy.disk.rebuild_after),
                REBUILD,
                Effect::Proof { deadline: rebuild },
                Otherwise::Escalate,
            )
        },
    ]
}

/// The alert is the incident's own opening: no attempt is ever made at it. The slot is held for the mark alone, which is what
/// takes something away (a place for new shards): moving them may take hours, copies before it drops, and must not hold every
/// other step of the cluster back.
fn disk_degrading(policy: &PolicyConfig) -> Vec<Rung> {
    let deadline = policy.deadline(policy.disk.rebuild_deadline);
    vec![
        Rung {
            action: Action::Alert,
            does: "tell a person: SMART alone goes no further",
            grade: Grade::OBSERVE,
            disruptive: false,
            wait: Duration::ZERO,
            attempts: 0,
            guards: &[],
            deadline: Duration::ZERO,
            effect: Effect::Quiet,
            otherwise: Otherwise::NextRung,
        },
        Rung {
            action: Action::EvacuateDisk,
            does: "mark the disk draining: it is read until its shards are on other disks",
            grade: Grade::REPAIR,
            disruptive: true,
            wait: Duration::ZERO,
            attempts: policy.budget.attempts,
            guards: EVACUATE,
            deadline: VERB_DEADLINE,
            effect: Effect::DiskState { states: LEFT, deadline: SEEN_DEADLINE },
            otherwise: Otherwise::Escalate,
        },
        Rung {
            action: Action::RepairShards,
            does: "move its shards, read them back from where they are then, and only then give the disk up",
            grade: Grade::REPAIR,
            disruptive: false,
            wait: Duration::ZERO,
            attempts: policy.budget.attempts,
            guards: REBUILD,
            deadline,
            effect: Effect::Proof { deadline },
            otherwise: Otherwise::Escalate,
        },
    ]
}

fn data_corruption(policy: &PolicyConfig) -> Vec<Rung> {
    let deadline = policy.deadline(policy.corruption.repair_deadline);
    vec![Rung {
        action: Action::RepairShards,
        does: "reconstruct from k good shards, write new, verify, then move the bad aside",
        grade: Grade::REPAIR,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: policy.budget.attempts,
        guards: RECONSTRUCT,
        deadline,
        effect: Effect::Proof { deadline },
        otherwise: Otherwise::Escalate,
    }]
}

fn host_down(policy: &PolicyConfig) -> Vec<Rung> {
    vec![
        Rung {
            action: Action::MarkDown,
            does: "mark the host down in the cluster map: everybody routes around it",
            grade: Grade::OBSERVE,
            disruptive: false,
            wait: Duration::ZERO,
            attempts: MARK_ATTEMPTS,
            guards: MARK,
            deadline: VERB_DEADLINE,
            effect: Effect::HostState { states: &["down", "out"], deadline: SEEN_DEADLINE },
            otherwise: Otherwise::Escalate,
        },
        Rung {
            action: Action::EvacuateHost,
            does: "mark the host out: its shards are rebuilt on the others",
            grade: Grade::REPAIR,
            disruptive: false,
            wait: policy.scaled(policy.host.out_after),
            attempts: policy.budget.attempts,
            guards: GIVE_UP,
            deadline: VERB_DEADLINE,
            // Then the proof: redundancy. It takes as long as rebuilding takes.
            effect: Effect::HostState { states: &["out"], deadline: SEEN_DEADLINE },
            otherwise: Otherwise::Escalate,
        },
    ]
}

/// Takes the agents' own mark back when the host is there again. An operator's mark is an operator's to take back.
fn mark_up() -> Rung {
    Rung {
        action: Action::MarkUp,
        does: "take the mark back: the host is there again",
        grade: Grade::OBSERVE,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: MARK_ATTEMPTS,
        guards: UNMARK,
        deadline: VERB_DEADLINE,
        effect: Effect::HostState { states: IN_SERVICE, deadline: SEEN_DEADLINE },
        otherwise: Otherwise::Escalate,
    }
}

/// What takes back what the agents did about an incident that is over by itself.
pub(crate) fn undo(mode: Mode, policy: &PolicyConfig) -> Rung {
    if mode == Mode::HostDown { mark_up() } else { undo_throttle(policy) }
}

/// Whether an action is such a step back.
pub(crate) fn is_undo(action: Action) -> bool {
    matches!(action, Action::SetMode | Action::MarkUp)
}

/// Grade 0 alone: what a cascade needs is that nobody treats each symptom with its own ladder. It is told when it is
/// found; no attempt is ever made.
fn cascading_failure() -> Vec<Rung> {
    vec![Rung {
        action: Action::Alert,
        does: "tell a person, fold what follows under it, freeze disruptive steps",
        grade: Grade::OBSERVE,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: 0,
        guards: &[],
        deadline: Duration::ZERO,
        effect: Effect::Quiet,
        otherwise: Otherwise::Escalate,
    }]
}

/// Takes the agent's own throttle back when the disk is well again before it was detached. A disk that was detached is
/// attached by a person only.
fn undo_throttle(policy: &PolicyConfig) -> Rung {
    Rung {
        action: Action::SetMode,
        does: "take the throttle back: the disk is well again",
        grade: Grade::RELIEVE,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: policy.budget.attempts,
        guards: RELIEVE,
        deadline: VERB_DEADLINE,
        effect: Effect::DiskState { states: &["up"], deadline: SEEN_DEADLINE },
        otherwise: Otherwise::Escalate,
    }
}

/// How long an operator's restart may take.
pub(crate) fn restart_deadline() -> Duration {
    RESTART_DEADLINE
}

/// What shows that an incident is over.
pub(crate) fn proof(subject: &Subject) -> Proof {
    match subject.clone() {
        Subject::Node(_) => Proof::Serves,
        Subject::Disk { disk, .. } => Proof::DiskRebuilt { disk },
        Subject::Object { bucket, key } => Proof::ObjectIntact { bucket, key },
        Subject::Hosts(hosts) => Proof::HostsSettled { hosts },
    }
}

/// Guards that a ladder may name; `Backoff` is the ladder's own clock and is reported by it.
pub(crate) const LADDER_CLOCK: GuardName = Backoff;
