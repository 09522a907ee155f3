//! What a person asks for: pause, resume, and the restart of this node.
//!
//! An operator's restart was admitted by the lease's holder (the start of what does not run needs no slot); here only what
//! this host knows is judged. Grace, backoff and budget restrain automation, not people; a pause restrains both: it says
//! that nobody touches this node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{Command, IncidentId, OperatorCommand, Proof, Step, StepId, StepResult, Subject};
use crate::engine::Engine;
use crate::engine::detect::process_crash::Planned;
use crate::engine::facts::Life;
use crate::engine::ladder;
use crate::engine::pause::Pause;
use crate::record::{GuardResult, RecordKind};
use crate::types::{Action, Fence, Grade, GuardName, Moment, Now};

/// How often service is asked for after a restart.
const PROVE_AGAIN: Duration = Duration::from_millis(200);
/// How much longer than its deadline an answer may take.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// An operator's step under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OperatorStep {
    pub(crate) step: Step,
    pub(crate) owner: String,
    life: Option<Life>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Phase {
    Doing { since: Moment },
    Proving { asked: Option<Moment>, next: Moment, until: Moment },
}

impl Engine {
    pub(crate) fn operate(&mut self, now: Now, command: OperatorCommand) {
        match command {
            OperatorCommand::Pause { owner, reason, expires_in } => {
                let pause = Pause::new(now, owner, reason, expires_in);
                self.record_pause(&pause);
                self.pause = Some(pause);
            }
            OperatorCommand::Resume { owner } => self.resume(&owner, "resumed; the present is judged"),
            OperatorCommand::Approve { owner, incident, token_sha256 } => {
                self.approve(now, &owner, &incident, &token_sha256);
            }
            OperatorCommand::RestartNode { owner, reason, fence, dead } => {
                self.restart(now, owner, reason, fence, dead);
            }
        }
    }

    fn record_pause(&mut self, pause: &Pause) {
        let draft = self
            .draft(RecordKind::Note, Action::Pause)
            .about(&Subject::Node(self.node.clone()))
            .with("owner", pause.owner.as_str())
            .with("reason", pause.reason.as_str())
            .with("expires_ms", pause.expires_ms);
        self.record(draft, true);
    }

    fn resume(&mut self, owner: &str, why: &str) {
        if self.pause.take().is_none() {
            return;
        }
        let draft = self
            .draft(RecordKind::Note, Action::Resume)
            .about(&Subject::Node(self.node.clone()))
            .with("owner", owner)
            .with("resolution", why);
        self.record(draft, true);
    }

    /// Ends a pause that has expired.
    pub(crate) fn expire_pause(&mut self, now: Now) {
        if let Some(pause) = self.pause.as_ref().filter(|pause| now.mono >= pause.until) {
            let owner = pause.owner.clone();
            self.resume(&owner, "expired; the present is judged");
        }
    }

    fn restart(&mut self, now: Now, owner: String, reason: String, fence: Fence, dead: bool) {
        let guards = self.restart_guards(now, &fence, dead);
        let step = Step {
            id: self.next_step(),
            incident: None,
            mode: None,
            action: if dead { Action::StartNode } else { Action::RestartNode },
            grade: if dead { Grade::RELIEVE } else { Grade::RESTART },
            subject: Subject::Node(self.node.clone()),
            disruptive: !dead,
            fence: Some(fence),
            deadline: ladder::restart_deadline(),
            attempt: 1,
            reason: format!("{owner}: {reason}"),
            with: String::new(),
            approved_by: String::new(),
            again: false,
        };
        if let Some(held) = guards.iter().find(|result| !result.passed).cloned() {
            let mut draft = self
                .draft_step(RecordKind::Refused, &step)
                .with("guard", held.guard.as_str())
                .with("evidence", held.evidence.as_str())
                .with("owner", owner);
            draft.guards = guards;
            self.record(draft, true);
            return self.close_slot(&step, false, &format!("held by {}: {}", held.guard, held.evidence));
        }
        let life = self.facts.running();
        self.planned = life.map_or(Planned::No, Planned::Life);
        self.ledger.note(now.mono, step.action, &step.subject, step.disruptive, None);
        self.record_intent(&step, &guards, None);
        self.out.push(Command::Execute(step.clone()));
        self.operator = Some(OperatorStep { step, owner, life, phase: Phase::Doing { since: now.mono } });
    }

    fn restart_guards(&self, now: Now, fence: &Fence, dead: bool) -> Vec<GuardResult> {
        let mut guards = Vec::new();
        let mut ask = |guard, passed, evidence: String| guards.push(GuardResult { guard, passed, evidence });
        let paused = self.pause.as_ref().map(|pause| pause.evidence(now.mono));
        ask(GuardName::Pause, paused.is_none(), paused.unwrap_or_else(|| "not paused".to_owned()));
        let running = self.facts.running();
        let alive =
            running.map_or_else(|| "the process does not run".to_owned(), |(pid, _)| format!("process {pid} runs"));
        // What the holder has judged is what is done: the other thing was not admitted.
        ask(GuardName::Fresh, running.is_some() != dead, alive);
        let mut busy = self.operator.as_ref().map(|other| format!("{} for {}", other.step.action, other.owner));
        let node = Subject::Node(self.node.clone());
        for incident in self.incidents.open.values() {
            // Starting what is dead waits for nothing but another step on the process.
            let step = incident.step().filter(|step| (step.disruptive && !dead) || step.subject == node);
            busy = busy.or_else(|| step.map(|step| format!("{} of {}", step.action, step.subject)));
        }
        let evidence =
            busy.as_ref().map_or_else(|| format!("ordered under fence {fence}"), |what| format!("{what} is under way"));
        ask(GuardName::OneAtATime, busy.is_none(), evidence);
        ask(GuardName::IntentFirst, true, "the intention is written and synced before the step".to_owned());
        guards
    }

    /// The operator's step ended. `false`: it was not the operator's.
    pub(crate) fn operator_finished(&mut self, now: Now, step: StepId, result: &StepResult) -> bool {
        let Some(mut operator) = self.operator.take_if(|operator| operator.step.id == step) else { return false };
        let Phase::Doing { since } = operator.phase else {
            self.operator = Some(operator);
            return true;
        };
        let took = u64::try_from(now.mono.since(since).as_millis()).unwrap_or(u64::MAX).max(1);
        let (resolution, detail) = result.said();
        self.record_outcome(&operator.step, result, took);
        if resolution == "done" {
            let until = now.mono + self.policy.deadline(self.policy.recovery.proof_deadline);
            operator.phase = Phase::Proving { asked: None, next: now.mono, until };
            self.operator = Some(operator);
        } else {
            // If it was stopped and not started, it is dead: process_crash goes on from here.
            self.planned = operator.life.map_or(Planned::No, Planned::Failed);
            // A refusal is told as every guard's is: whoever asked may ask again.
            let told =
                if resolution == "refused" { format!("held by {detail}") } else { format!("{resolution}: {detail}") };
            self.close_slot(&operator.step, false, &told);
        }
        true
    }

    /// The proof of the operator's step ended. `false`: it was not the operator's.
    pub(crate) fn operator_proved(&mut self, now: Now, id: &IncidentId, result: &StepResult) -> bool {
        let Some(mut operator) = self.operator.take() else { return false };
        if *id != IncidentId::of_operator(&self.node, operator.step.id) {
            self.operator = Some(operator);
            return false;
        }
        let Phase::Proving { until, .. } = operator.phase else {
            self.operator = Some(operator);
            return true;
        };
        match result {
            StepResult::Done { detail, .. } => self.operator_end(&operator.step, true, detail),
            StepResult::Failed { error: why } | StepResult::Refused { evidence: why, .. } if now.mono >= until => {
                self.operator_end(&operator.step, false, why);
            }
            _ => {
                operator.phase = Phase::Proving { asked: None, next: now.mono + PROVE_AGAIN, until };
                self.operator = Some(operator);
            }
        }
        true
    }

    fn operator_end(&mut self, step: &Step, verified: bool, detail: &str) {
        let resolution = if verified { "proven" } else { "not proven" };
        let draft = self.draft_step(RecordKind::Note, step).with("resolution", resolution).with("evidence", detail);
        self.record(draft, true);
        self.close_slot(step, verified, detail);
    }

    /// Moves the operator's step on as time passes.
    pub(crate) fn advance_operator(&mut self, now: Now) {
        let Some(mut operator) = self.operator.take() else { return };
        match operator.phase {
            Phase::Doing { since } if now.mono.since(since) >= operator.step.deadline + ANSWER_MARGIN => {
                let error = format!("no answer within {} s", operator.step.deadline.as_secs());
                let id = operator.step.id;
                self.operator = Some(operator);
                self.operator_finished(now, id, &StepResult::Failed { error });
                return;
            }
            Phase::Proving { asked: None, next, until } if now.mono >= next => {
                operator.phase = Phase::Proving { asked: Some(now.mono), next, until };
                let incident = IncidentId::of_operator(&self.node, operator.step.id);
                let deadline = until.since(now.mono).max(crate::config::DEADLINE_FLOOR);
                self.out.push(Command::Prove { incident, proof: Proof::Serves, deadline });
            }
            Phase::Proving { asked: Some(asked), until, .. }
                if now.mono >= until + ANSWER_MARGIN
                    && now.mono.since(asked) > crate::config::DEADLINE_FLOOR + ANSWER_MARGIN =>
            {
                self.operator_end(&operator.step, false, "no answer from the proof");
                return;
            }
            _ => {}
        }
        self.operator = Some(operator);
    }
}
