//! Ladders about disks and what lies on them.

use std::time::Duration;

use super::{DISRUPTIVE, Effect, Otherwise, RELIEVE, Rung, SEEN_DEADLINE, VERB_DEADLINE};
use crate::config::PolicyConfig;
use crate::types::GuardName::{
    Authority, Budget, Corroborated, Fresh, Grace, IntentFirst, MoveAside, OneAtATime, Pause, Pressure, QuorumKept,
    StormBrake,
};
use crate::types::{Action, Grade, GuardName};

const REBUILD: &[GuardName] = &[Pause, Fresh, Corroborated, Authority, Budget, Pressure, IntentFirst];
/// A live disk is emptied: what holds a disruptive step back, and the load, because all of its shards are moved.
const EVACUATE: &[GuardName] =
    &[Pause, Fresh, Corroborated, Authority, Budget, Grace, StormBrake, QuorumKept, Pressure, OneAtATime, IntentFirst];
const RECONSTRUCT: &[GuardName] = &[Pause, Fresh, Corroborated, Authority, Budget, Pressure, MoveAside, IntentFirst];

/// Where [`disk_degrading`] marks the disk.
pub(crate) const EVACUATION: usize = 1;

/// The states of a disk that its shards leave for others.
pub(crate) const LEFT: &[&str] = &["draining", "out"];

pub(super) fn disk_failure(policy: &PolicyConfig) -> Vec<Rung> {
    let seen = |states| Effect::DiskState { states, deadline: SEEN_DEADLINE };
    let verb = |action, does, grade, disruptive, wait, guards, effect, otherwise| Rung {
        action,
        does,
        with: "",
        approval: false,
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
pub(super) fn disk_degrading(policy: &PolicyConfig) -> Vec<Rung> {
    let deadline = policy.deadline(policy.disk.rebuild_deadline);
    vec![
        Rung {
            action: Action::Alert,
            does: "tell a person: SMART alone goes no further",
            with: "",
            approval: false,
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
            with: "",
            approval: false,
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
            with: "",
            approval: false,
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

/// The first step is an object's, the second a disk's with more corruption in a day than rot explains. As much again, and
/// `disk_failure` goes on.
pub(super) fn data_corruption(policy: &PolicyConfig) -> Vec<Rung> {
    let deadline = policy.deadline(policy.corruption.repair_deadline);
    let object = Rung {
        action: Action::RepairShards,
        does: "reconstruct from k good shards, write new, verify, then move the bad aside",
        with: "",
        approval: false,
        grade: Grade::REPAIR,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: policy.budget.attempts,
        guards: RECONSTRUCT,
        deadline,
        effect: Effect::Proof { deadline },
        otherwise: Otherwise::Escalate,
    };
    let deadline = policy.deadline(policy.disk.rebuild_deadline);
    let does = "of a disk with many in a day, a deep scan: read all of it, reconstruct what is bad";
    let disk = Rung { does, deadline, effect: Effect::Proof { deadline }, ..object.clone() };
    vec![object, disk]
}

/// Takes the agent's own throttle back when the disk is well again before it was detached. A disk that was detached is
/// attached by a person only.
pub(super) fn undo_throttle(policy: &PolicyConfig) -> Rung {
    Rung {
        action: Action::SetMode,
        does: "take the throttle back: the disk is well again",
        with: "",
        approval: false,
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
