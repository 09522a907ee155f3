//! What the engine writes into the journal: one place, so that the names cannot drift apart.

use crate::api::{Command, Step, StepResult};
use crate::engine::Engine;
use crate::engine::incidents::Incident;
use crate::record::{Draft, GuardResult, RecordKind};
use crate::types::{Action, Now};

impl Engine {
    /// A draft with what every record carries.
    pub(crate) fn draft(&self, kind: RecordKind, action: Action) -> Draft {
        let mut draft = Draft::new(kind, action);
        if let Some((epoch, term, index)) = self.facts.raft() {
            draft.epoch = Some(epoch);
            draft.raft_term = Some(term);
            draft.raft_index = Some(index);
        }
        draft
    }

    pub(crate) fn draft_about(&self, kind: RecordKind, action: Action, incident: &Incident) -> Draft {
        let mut draft = self.draft(kind, action).about(&incident.subject).with("reason", incident.mode.as_str());
        draft.incident = Some(incident.id.clone());
        draft.mode = Some(incident.mode);
        draft
    }

    pub(crate) fn draft_step(&self, kind: RecordKind, step: &Step) -> Draft {
        let mut draft = self.draft(kind, step.action).about(&step.subject).with("attempt", step.attempt);
        draft.incident.clone_from(&step.incident);
        draft.mode = step.mode;
        draft.grade = Some(step.grade);
        draft.step = Some(step.id.0);
        let reason = step.mode.map_or("operator", crate::types::Mode::as_str);
        draft = draft.with("reason", reason);
        if step.disruptive {
            draft = draft.with("disruptive", true);
        }
        if !step.with.is_empty() {
            draft = draft.with("with", step.with.as_str());
        }
        if matches!(step.action, Action::SetMode | Action::AlignTerm) && !step.with.is_empty() {
            draft = draft.with("to", step.with.as_str());
        }
        if let Some(fence) = &step.fence {
            draft = draft.with("fence", fence.to_string());
        }
        draft
    }

    pub(crate) fn record(&mut self, draft: Draft, durable: bool) {
        self.out.push(Command::Record { draft: Box::new(draft), durable });
    }

    /// The intention, on disk before the step.
    pub(crate) fn record_intent(&mut self, step: &Step, guards: &[GuardResult], incident: Option<&Incident>) {
        let mut draft = self.draft_step(RecordKind::Intent, step).with("evidence", step.reason.as_str());
        draft.guards = guards.to_vec();
        if let Some(incident) = incident {
            if incident.initial {
                draft = draft.with("initial", true);
            }
            if step.again {
                draft = draft.with("again", true);
            }
            if let Some(signature) = incident.signature.as_deref().filter(|_| step.action == Action::StartNode) {
                draft = draft.with("signature", signature);
            }
            let restarted = || self.facts.running().filter(|_| step.action == Action::RestartNode);
            if let Some((pid, _)) = incident.life.or_else(restarted) {
                draft = draft.with("pid", pid);
            }
        }
        self.record(draft, true);
    }

    /// How a step ended, after so many milliseconds. Durable: after a restart of the agent it must not look unfinished.
    pub(crate) fn record_outcome(&mut self, step: &Step, result: &StepResult, took: u64) {
        let (resolution, detail) = result.said();
        let mut draft = self.draft_ended(RecordKind::Outcome, step, resolution, &detail);
        if let Some(path) = result.backup() {
            draft = draft.with("backup_path", path);
        }
        draft.duration_ms = (took > 0).then_some(took);
        self.record(draft, true);
    }

    /// What became of a step that the end of the agent cut off. Durable as an outcome is.
    pub(crate) fn record_reconciled(&mut self, step: &Step, resolution: &str, detail: &str) {
        self.record(self.draft_ended(RecordKind::Reconciled, step, resolution, detail), true);
    }

    fn draft_ended(&self, kind: RecordKind, step: &Step, resolution: &str, detail: &str) -> Draft {
        self.draft_step(kind, step).with("resolution", resolution).with("evidence", detail)
    }

    /// A refusal; the same one is written once a minute, not with every tick.
    pub(crate) fn record_refusal(
        &mut self,
        now: Now,
        incident: &mut Incident,
        action: Action,
        grade: crate::types::Grade,
        guards: &[GuardResult],
        held: &GuardResult,
    ) {
        let known = incident
            .refused
            .is_some_and(|(guard, at)| guard == held.guard && now.mono.since(at) < super::REFUSED_EVERY);
        if known {
            return;
        }
        incident.refused = Some((held.guard, now.mono));
        incident.event(now, format!("{action} held by {}: {}", held.guard, held.evidence));
        let mut draft = self
            .draft_about(RecordKind::Refused, action, incident)
            .with("guard", held.guard.as_str())
            .with("evidence", held.evidence.as_str());
        draft.grade = Some(grade);
        draft.guards = guards.to_vec();
        self.record(draft, false);
    }
}
