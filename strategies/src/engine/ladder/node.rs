//! Ladders about a node that lives: it does not get on, has no room left, or tells another time.

use std::time::Duration;

use super::{Effect, Otherwise, RESTART_DEADLINE, Rung, SEEN_DEADLINE, Shows, disruptive, relief, told};
use crate::config::PolicyConfig;
use crate::types::{Action, Grade};

pub(super) fn deadlock(policy: &PolicyConfig) -> Vec<Rung> {
    let helps = policy.scaled(policy.deadlock.relief_wait);
    let lock = |does| relief(policy, Action::BreakLock, does, "", helps);
    vec![
        told("write down what hangs: operations, locks, the process's state", Grade::OBSERVE, Otherwise::NextRung),
        relief(policy, Action::CancelOperation, "cancel the oldest operation", "", helps),
        lock("break the lock of an owner that is proven dead"),
        Rung { approval: true, ..lock("break the lock of an owner that lives and is stuck") },
        disruptive(policy, Action::StepDown, Grade::RESTART, "move leadership away", Shows::Follows),
        Rung {
            wait: helps,
            deadline: RESTART_DEADLINE,
            effect: Effect::NodeState {
                shows: Shows::Healthy,
                deadline: policy.deadline(policy.recovery.proof_deadline),
            },
            otherwise: Otherwise::Escalate,
            ..disruptive(policy, Action::RestartNode, Grade::RESTART, "restart the process", Shows::Healthy)
        },
    ]
}

/// Nothing is restarted because something is full.
pub(super) fn resource_exhaustion(policy: &PolicyConfig) -> Vec<Rung> {
    let figures = &policy.resources;
    let helps = policy.scaled(figures.relief_wait);
    vec![
        relief(
            policy,
            Action::Reclaim,
            "collect garbage now, compact the metadata, drop the log below the snapshot",
            "space",
            helps,
        ),
        Rung { attempts: 1, ..relief(policy, Action::Throttle, "pause scrub and repair", "on", helps) },
        Rung {
            effect: Effect::NodeState { shows: Shows::Mode("read_only"), deadline: SEEN_DEADLINE },
            ..relief(policy, Action::SetMode, "take no more writes", "read_only", Duration::ZERO)
        },
        disruptive(policy, Action::StepDown, Grade::RESTART, "move leadership away", Shows::Follows),
        Rung {
            wait: policy.scaled(figures.evacuate_after),
            approval: true,
            otherwise: Otherwise::Escalate,
            ..disruptive(
                policy,
                Action::EvacuateDisk,
                Grade::REPAIR,
                "empty the full disk onto others; a person takes it back into service",
                Shows::Healthy,
            )
        },
        told("wait for room: a person has to add some", Grade::OBSERVE, Otherwise::Wait),
    ]
}

/// Giving the lease up is no command: who holds it asks the engine whether it may.
pub(super) fn clock_skew() -> Vec<Rung> {
    vec![
        told("tell a person", Grade::OBSERVE, Otherwise::NextRung),
        told(
            "give the lease up while the clock is far off; nothing is decided by wall time",
            Grade::RELIEVE,
            Otherwise::Wait,
        ),
    ]
}
