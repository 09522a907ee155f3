//! The ladders, as data: what is tried for each mode, in which order, how often, and what shows that it helped.
//!
//! Owns: the modes' steps. Must never: look at a fact; the rules that walk a ladder are in `decide.rs`.

mod disks;
mod hosts;
mod node;
mod process;
mod raft;

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
    /// What the action needs beside its subject, where it is always the same ([`Step::with`](crate::api::Step::with)).
    #[serde(skip_serializing_if = "str::is_empty")]
    pub with: &'static str,
    /// Never without a person's approval, whatever the authority for its grade.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
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
    /// The node shows this of itself; then the next step.
    NodeState {
        /// What.
        shows: Shows,
        /// How long that may take.
        deadline: Duration,
    },
    /// The symptom goes away within this time; else another attempt, or the next step.
    Relief {
        /// How long it has to help.
        within: Duration,
    },
    /// No more failures for the pattern's window, and what began it gone. Nothing is done: it is waited for.
    Quiet,
}

/// What a node can show of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shows {
    /// Its mode.
    Mode(&'static str),
    /// It takes nothing from clients: isolated, or a lost voter.
    ServesNobody,
    /// Whether it stands for elections.
    Stands(bool),
    /// Whether it votes, by the cluster map.
    Votes(bool),
    /// It does not lead.
    Follows,
    /// It answered after the step, and is healthy.
    Healthy,
}

/// What follows when a step's attempts are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// The next step of the ladder.
    NextRung,
    /// A person.
    Escalate,
    /// Nothing more is done until the symptom goes away.
    Wait,
}

use GuardName::{
    Authority, Backoff, Budget, Corroborated, DeliberateStop, Fresh, Grace, IntentFirst, OneAtATime, Pause, Pressure,
    QuorumKept, StormBrake,
};

/// Grade 1: local, reversible.
pub(super) const RELIEVE: &[GuardName] = &[Pause, Fresh, Authority, Budget, IntentFirst];
/// Taking back what the agents did restores what was: no budget holds it.
const UNDO: &[GuardName] = &[Pause, Fresh, Authority, IntentFirst];
/// One live process, or its leadership.
const RESTART: &[GuardName] = &[
    Pause,
    DeliberateStop,
    Fresh,
    Corroborated,
    Authority,
    Budget,
    Grace,
    StormBrake,
    QuorumKept,
    OneAtATime,
    IntentFirst,
];
/// A replica is mended, or becomes another: it takes the load into account as well.
const REALIGN: &[GuardName] =
    &[Pause, Fresh, Corroborated, Authority, Budget, Grace, StormBrake, QuorumKept, Pressure, OneAtATime, IntentFirst];
pub(super) const DISRUPTIVE: &[GuardName] =
    &[Pause, Fresh, Corroborated, Authority, Budget, Grace, StormBrake, QuorumKept, OneAtATime, IntentFirst];
/// The ladder of a mode.
pub fn ladder(mode: Mode, policy: &PolicyConfig) -> Vec<Rung> {
    match mode {
        Mode::ProcessCrash => process::process_crash(policy),
        Mode::DiskFailure => disks::disk_failure(policy),
        Mode::DiskDegrading => disks::disk_degrading(policy),
        Mode::DataCorruption => disks::data_corruption(policy),
        Mode::HostDown => hosts::host_down(policy),
        Mode::CascadingFailure => hosts::cascading_failure(),
        Mode::NetworkPartition => hosts::network_partition(policy),
        Mode::DatabaseCorruption => raft::database_corruption(policy),
        Mode::LogCorruption => raft::log_corruption(policy),
        Mode::SplitBrain => raft::split_brain(policy),
        Mode::TermDivergence => raft::term_divergence(policy),
        Mode::StateDivergence => raft::state_divergence(policy),
        Mode::SlowFollower => raft::slow_follower(policy),
        Mode::QuorumLoss => raft::quorum_loss(policy),
        Mode::Deadlock => node::deadlock(policy),
        Mode::ResourceExhaustion => node::resource_exhaustion(policy),
        Mode::ClockSkew => node::clock_skew(),
    }
}

/// What takes back what the agents did about an incident that is over by itself: the last of it first. `applied`: the newest
/// of what was done to the node.
pub(crate) fn undo(mode: Mode, applied: Option<&(Action, String)>, policy: &PolicyConfig) -> Rung {
    let seen = |shows| Effect::NodeState { shows, deadline: SEEN_DEADLINE };
    let back = |action, does, with, effect| Rung {
        guards: UNDO,
        effect,
        otherwise: Otherwise::Escalate,
        ..relief(policy, action, does, with, Duration::ZERO)
    };
    let Some((action, with)) = applied else {
        return if mode == Mode::HostDown { hosts::mark_up() } else { disks::undo_throttle(policy) };
    };
    match (action, with.as_str()) {
        (Action::SetMode, "quiet") => {
            back(Action::SetMode, "let it stand for elections again", "standing", seen(Shows::Stands(true)))
        }
        (Action::Throttle, _) => {
            let done = Effect::Relief { within: Duration::ZERO };
            back(Action::Throttle, "let background work go on", "off", done)
        }
        (Action::Demote, _) => Rung {
            grade: Grade::REALIGN,
            // That it may vote again is all that is asked for: its seat may be another's by now.
            ..back(
                Action::Promote,
                "let it vote again, when there is a seat",
                "",
                Effect::Relief { within: Duration::ZERO },
            )
        },
        _ => back(Action::SetMode, "take writes again", "read_write", seen(Shows::Mode("read_write"))),
    }
}

/// What does again, beside the ladder, what was done to the node and it shows no more.
pub(crate) fn again(action: Action, with: &str, policy: &PolicyConfig) -> Option<Rung> {
    let with = ["on", "read_only", "isolated", "quiet"].into_iter().find(|known| *known == with)?;
    Some(Rung { guards: UNDO, ..relief(policy, action, "do again what the node shows no more", with, Duration::ZERO) })
}

/// Whether a step takes something back.
pub(crate) fn is_undo(action: Action, with: &str) -> bool {
    match action {
        Action::MarkUp | Action::Promote => true,
        Action::SetMode => matches!(with, "" | "read_write" | "standing"),
        Action::Throttle => with == "off",
        _ => false,
    }
}

/// Whether a step leaves something behind on the node that has to be taken back.
pub(crate) fn leaves(action: Action, with: &str) -> bool {
    match action {
        Action::SetMode => matches!(with, "read_only" | "isolated" | "quiet"),
        Action::Throttle => with == "on",
        Action::Demote => true,
        _ => false,
    }
}

/// A step of grade 1 that has some time to help. The ladders say what differs.
fn relief(policy: &PolicyConfig, action: Action, does: &'static str, with: &'static str, within: Duration) -> Rung {
    Rung {
        action,
        does,
        with,
        approval: false,
        grade: Grade::RELIEVE,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: policy.budget.attempts,
        guards: RELIEVE,
        deadline: VERB_DEADLINE,
        effect: Effect::Relief { within },
        otherwise: Otherwise::NextRung,
    }
}

/// A disruptive step of the own node, with what shows that it was done.
fn disruptive(policy: &PolicyConfig, action: Action, grade: Grade, does: &'static str, shows: Shows) -> Rung {
    Rung {
        grade,
        disruptive: true,
        guards: if grade == Grade::RESTART { RESTART } else { REALIGN },
        effect: Effect::NodeState { shows, deadline: SEEN_DEADLINE },
        ..relief(policy, action, does, "", Duration::ZERO)
    }
}

/// What is only told: no attempt is ever made.
fn told(does: &'static str, grade: Grade, otherwise: Otherwise) -> Rung {
    Rung {
        action: Action::Alert,
        does,
        with: "",
        approval: false,
        grade,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: 0,
        guards: &[],
        deadline: Duration::ZERO,
        effect: Effect::Quiet,
        otherwise,
    }
}

/// What only a person does: the agent never does it, and says how it is done.
fn person(action: Action, does: &'static str, wait: Duration) -> Rung {
    Rung { action, wait, ..told(does, Grade::APPROVE, Otherwise::Escalate) }
}

/// How long an operator's restart may take.
pub(crate) fn restart_deadline() -> Duration {
    RESTART_DEADLINE
}

/// What shows that an incident is over. `hosts`: all of the cluster's.
pub(crate) fn proof(mode: Mode, subject: &Subject, policy: &PolicyConfig, hosts: &[String]) -> Proof {
    match (mode, subject.clone()) {
        (Mode::NetworkPartition, Subject::Hosts(hosts)) => Proof::OneLeader { hosts },
        (Mode::SplitBrain, _) => Proof::OneLeader { hosts: hosts.to_vec() },
        (Mode::TermDivergence | Mode::QuorumLoss, _) => Proof::OneHistory { hosts: hosts.to_vec() },
        (Mode::DatabaseCorruption, _) => Proof::ReplicaEqual,
        (Mode::LogCorruption, _) => Proof::LogReplays,
        (Mode::StateDivergence, _) => Proof::ReadsEqual,
        (Mode::ClockSkew, _) => Proof::ClockAgrees { within_ms: u64::from(policy.clock.warn_ms) },
        (_, Subject::Node(_)) => Proof::Serves,
        (_, Subject::Disk { disk, .. }) => Proof::DiskRebuilt { disk },
        (_, Subject::Object { bucket, key }) => Proof::ObjectIntact { bucket, key },
        (_, Subject::Hosts(hosts)) => Proof::HostsSettled { hosts, canary_ms: None },
    }
}

/// Guards that a ladder may name; `Backoff` is the ladder's own clock and is reported by it.
pub(crate) const LADDER_CLOCK: GuardName = Backoff;
