//! Doing what a step says, and nothing else.
//!
//! Owns: the translation of an action into calls of the service manager and of the node's contract, each under the
//! step's deadline; the fence gate where a disruptive step takes effect.
//!
//! Must never: choose a step, repeat one, or report success without the other side's word.
//!
//! Invariants: a step with a fence passes the gate (persisted) before its first effect; every step ends in exactly one
//! [`Input::Finished`], every proof in exactly one [`Input::Proved`], unless the agent itself ends first.

mod history;
mod node;
mod own;
mod probes;
mod proof;

pub(crate) use proof::CANARY_DEADLINE;

use std::sync::Arc;
use std::time::Duration;

use resilver_host::Clock;
use resilver_host::audit::{self, Fact};
use resilver_host::planted::{Bug, bug};
use resilver_strategies::api::{IncidentId, Input, Proof, Step, StepResult};
use resilver_strategies::types::{Action, GuardName};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::facts;
use crate::lease::LeaseHandle;
use crate::links::Links;
use crate::service::{ServiceManager, ServiceState};

/// What steps are done with.
#[derive(Clone)]
pub(crate) struct Tools {
    /// The ways to the own node.
    pub(crate) links: Arc<Links>,
    /// Starts and restarts it.
    pub(crate) service: Arc<dyn ServiceManager>,
    /// Tells the process sensor that another process runs now.
    pub(crate) changed: Arc<Notify>,
    /// The fence gate.
    pub(crate) lease: LeaseHandle,
    /// How long the node may take for one small answer.
    pub(crate) deadline: Duration,
    /// The own node's name.
    pub(crate) own: String,
    /// The wall clock, for comparing it with others' and for nothing else.
    pub(crate) clock: Arc<dyn Clock>,
}

/// Runs steps and proofs as tasks. Dropping it drops what is under way: the journal's intent is then reconciled at the
/// next start.
pub(crate) struct Executors {
    tools: Tools,
    out: mpsc::Sender<Input>,
    tasks: JoinSet<()>,
}

impl Executors {
    /// Executors that report into `out`.
    pub(crate) fn new(tools: Tools, out: mpsc::Sender<Input>) -> Executors {
        Executors { tools, out, tasks: JoinSet::new() }
    }

    /// Whether a step or proof is under way.
    pub(crate) fn busy(&mut self) -> bool {
        while self.tasks.try_join_next().is_some() {}
        !self.tasks.is_empty()
    }

    /// Begins a step. Its intent is in the journal.
    pub(crate) fn execute(&mut self, step: Step) {
        let (tools, out) = (self.tools.clone(), self.out.clone());
        self.tasks.spawn(async move {
            let result = within(step.deadline, run(&tools, &step)).await;
            audit::state(|| Fact::StepEnded { step: step.id.0, result: facts::result(&result) });
            tracing::info!(step = step.id.0, action = %step.action, subject = %step.subject, ?result, "step ended");
            // Only a stopping agent has dropped the receiver.
            let _ = out.send(Input::Finished { step: step.id, result }).await;
        });
    }

    /// Begins a proof.
    pub(crate) fn prove(&mut self, incident: IncidentId, proof: Proof, deadline: Duration) {
        let (tools, out) = (self.tools.clone(), self.out.clone());
        self.tasks.spawn(async move {
            let result = proof::prove(&tools, &proof, deadline).await;
            tracing::info!(incident = %incident, ?proof, ?result, "proof ended");
            // Only a stopping agent has dropped the receiver.
            let _ = out.send(Input::Proved { incident, result }).await;
        });
    }
}

async fn within(deadline: Duration, work: impl Future<Output = StepResult>) -> StepResult {
    match timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => StepResult::Failed { error: format!("not done within {} s", deadline.as_secs_f64()) },
    }
}

async fn run(tools: &Tools, step: &Step) -> StepResult {
    if let Some(refused) = pass_gate(tools, step).await {
        return refused;
    }
    if let Some(refused) = runs_by_now(tools, step).await {
        return refused;
    }
    audit::state(|| Fact::StepBegan(facts::step(step)));
    let reason = if step.reason.is_empty() { step.action.as_str() } else { &step.reason };
    match step.action {
        Action::StartNode => started(tools, tools.service.start().await),
        Action::RestartNode => {
            let owner = step.incident.as_ref().map_or("operator", |incident| incident.0.as_str());
            started(tools, tools.service.restart(owner, reason).await)
        }
        _ => node::run(tools, step, reason).await,
    }
}

/// The gate at the place of effect: whatever was true when the step was ordered, a fence overtaken since holds it back.
async fn pass_gate(tools: &Tools, step: &Step) -> Option<StepResult> {
    let refused = |evidence| Some(StepResult::Refused { guard: GuardName::OneAtATime, evidence });
    match (&step.fence, step.disruptive) {
        (None, true) => refused("a disruptive step without a fence".to_owned()),
        (None, false) => None,
        (Some(_), true) if bug(Bug::SkipLease) => None,
        (Some(fence), _) => match tools.lease.admit(fence.clone()).await {
            Ok(()) => None,
            Err(error) => refused(error.to_string()),
        },
    }
}

/// An operator asked for a restart, and it was admitted as the start of a node that does not run. One that was started
/// meanwhile (the holder's view is seconds old) would be called done, and was not restarted.
async fn runs_by_now(tools: &Tools, step: &Step) -> Option<StepResult> {
    let operators_start = step.action == Action::StartNode && step.incident.is_none();
    if !operators_start {
        return None;
    }
    match tools.service.state().await {
        Ok(ServiceState::Running(node)) => {
            tools.changed.notify_one();
            let evidence = format!("process {} runs by now: ask again", node.pid);
            Some(StepResult::Refused { guard: GuardName::Fresh, evidence })
        }
        // What cannot be asked is told by the start itself.
        _ => None,
    }
}

fn started(tools: &Tools, result: Result<resilver_host::ProcId, crate::service::ServiceError>) -> StepResult {
    tools.changed.notify_one();
    match result {
        Ok(node) => StepResult::done(format!("pid {}", node.pid)),
        Err(error) => StepResult::Failed { error: chain(&error) },
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
