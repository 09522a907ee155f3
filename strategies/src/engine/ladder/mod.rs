//! The ladders, as data: what is tried for each mode, in which order, how often, and what shows that it helped.
//!
//! Owns: the modes' steps. Must never: look at a fact; the rules that walk a ladder are in `decide.rs`.

mod disks;
mod hosts;
mod process;

use std::time::Duration;

use serde::Serialize;

use crate::api::{Proof, Subject};
use crate::config::PolicyConfig;
use crate::types::{Action, Grade, GuardName, Mode};

pub(crate) use disks::{EVACUATION, LEFT};
pub(crate) use hosts::IN_SERVICE;

/// How long the node's answer to a quick verb may take.
pub(super) const VERB_DEADLINE: Duration = Duration::from_secs(10);
/// How long a graceful stop and a start may take together.
pub(super) const RESTART_DEADLINE: Duration = Duration::from_secs(60);
/// How long a heartbeat may take to show what a verb did: the node applies it from the metadata's log.
pub(super) const SEEN_DEADLINE: Duration = Duration::from_secs(15);

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
    Authority, Backoff, Budget, Corroborated, Fresh, Grace, IntentFirst, OneAtATime, Pause, QuorumKept, StormBrake,
};

/// Grade 1: local, reversible.
pub(super) const RELIEVE: &[GuardName] = &[Pause, Fresh, Authority, Budget, IntentFirst];
pub(super) const DISRUPTIVE: &[GuardName] =
    &[Pause, Fresh, Corroborated, Authority, Budget, Grace, StormBrake, QuorumKept, OneAtATime, IntentFirst];
/// The ladder of a mode; empty for a mode that comes later.
pub fn ladder(mode: Mode, policy: &PolicyConfig) -> Vec<Rung> {
    match mode {
        Mode::ProcessCrash => process::process_crash(policy),
        Mode::DiskFailure => disks::disk_failure(policy),
        Mode::DiskDegrading => disks::disk_degrading(policy),
        Mode::DataCorruption => disks::data_corruption(policy),
        Mode::HostDown => hosts::host_down(policy),
        Mode::CascadingFailure => hosts::cascading_failure(),
        _ => Vec::new(),
    }
}

/// What takes back what the agents did about an incident that is over by itself.
pub(crate) fn undo(mode: Mode, policy: &PolicyConfig) -> Rung {
    if mode == Mode::HostDown { hosts::mark_up() } else { disks::undo_throttle(policy) }
}

/// Whether an action is such a step back.
pub(crate) fn is_undo(action: Action) -> bool {
    matches!(action, Action::SetMode | Action::MarkUp)
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
