//! Ladders about the node's process.

use std::time::Duration;

use super::{Effect, Otherwise, Rung};
use crate::config::PolicyConfig;
use crate::types::GuardName::{Authority, Budget, CrashSignature, DeliberateStop, IntentFirst, Pause};
use crate::types::{Action, Grade, GuardName};

/// How long the service manager may take to start a process.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Starting what is dead is held by nothing else.
const START: &[GuardName] = &[Pause, DeliberateStop, CrashSignature, Budget, Authority, IntentFirst];
pub(super) fn process_crash(policy: &PolicyConfig) -> Vec<Rung> {
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
