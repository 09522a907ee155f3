//! Ladders about the node's process.

use std::time::Duration;

use super::{Effect, Otherwise, Rung, raft};
use crate::config::PolicyConfig;
use crate::types::GuardName::{Authority, Budget, CrashSignature, DeliberateStop, IntentFirst, Pause};
use crate::types::{Action, Grade, GuardName};

/// How long the service manager may take to start a process.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Starting what is dead is held by nothing else.
const START: &[GuardName] = &[Pause, DeliberateStop, CrashSignature, Budget, Authority, IntentFirst];
pub(super) fn process_crash(policy: &PolicyConfig) -> Vec<Rung> {
    let start = Rung {
        action: Action::StartNode,
        does: "start the dead process",
        with: "",
        approval: false,
        grade: Grade::RELIEVE,
        disruptive: false,
        wait: Duration::ZERO,
        attempts: policy.recovery.max_restart_attempts,
        guards: START,
        deadline: START_DEADLINE,
        effect: Effect::Proof { deadline: policy.deadline(policy.recovery.proof_deadline) },
        otherwise: Otherwise::Escalate,
    };
    // A process that runs again and does not come to serve what was committed: its copy is mended, then the member is another.
    vec![start, raft::resync(policy), Rung { otherwise: Otherwise::Escalate, ..raft::rejoin(policy) }]
}
