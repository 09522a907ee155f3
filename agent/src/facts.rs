//! What this agent tells of itself to the simulator's checkers ([`resilver_host::audit`]): the agent's words in theirs.

use resilver_host::audit::{self, Fact, Prepared, StepFact};
use resilver_strategies::api::{Step, StepResult, Subject};
use resilver_strategies::types::Fence;

pub(crate) fn fence(fence: &Fence) -> audit::Fence {
    audit::Fence { epoch: fence.epoch, round: fence.round, holder: fence.holder.clone() }
}

/// This host's gate is about to stand at a fence.
pub(crate) fn gate_at(highest: &Fence) -> Prepared {
    audit::prepare(|| Fact::FencePassed { fence: fence(highest) })
}

pub(crate) fn step(step: &Step) -> StepFact {
    let target = match &step.subject {
        Subject::Node(node) | Subject::Disk { node, .. } => node.clone(),
        Subject::Hosts(hosts) => hosts.join(","),
        Subject::Object { bucket, key } => format!("{bucket}/{key}"),
    };
    StepFact {
        step: step.id.0,
        action: step.action.to_string(),
        target,
        disruptive: step.disruptive,
        fence: step.fence.as_ref().map(fence),
        incident: step.incident.as_ref().map(|incident| incident.0.clone()),
    }
}

pub(crate) fn result(result: &StepResult) -> &'static str {
    match result {
        StepResult::Done { .. } => "done",
        StepResult::Failed { .. } => "failed",
        StepResult::Refused { .. } => "refused",
    }
}
