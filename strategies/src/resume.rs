//! What the journal says about where the agent stood when it ended.
//!
//! Owns: reading back what [`crate::engine`] drafted: open incidents, steps with an intent but no outcome, the pause,
//! and the steps that budgets and crash signatures count. Must never: decide what to do about it; trust a line that
//! was not verified (the caller verifies).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::api::{IncidentId, Input, OpenIncident, PastCascade, PastStep, Step, StepId, Subject};
use crate::chain::Line;
use crate::engine::{is_undo, leaves};
use crate::record::{Draft, RecordKind};
use crate::types::{Action, Grade, Mode};
use crate::when::When;

/// Steps remembered: more than any budget counts in a day.
pub const MAX_HISTORY: usize = 256;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Cascades remembered: three make an emergency, and there are not many patterns.
const MAX_CASCADES: usize = 64;
const HOUR_MS: u64 = 3600 * 1000;

/// Rebuilds the engine's first input from the journal's lines, oldest first. `now` is the present: how long ago things were, and
/// what is left of a pause. The lines may begin in the middle of a journal whose older segments are gone.
pub fn from_lines<'a>(lines: impl IntoIterator<Item = &'a Line>, now: impl Into<When>) -> Input {
    let mut reader = Reader::at(now.into());
    for line in lines {
        reader.read(line);
    }
    reader.finish()
}

struct Reader {
    now: When,
    next: u64,
    open: BTreeMap<IncidentId, OpenIncident>,
    unfinished: BTreeMap<u64, Step>,
    history: VecDeque<PastStep>,
    cascades: VecDeque<PastCascade>,
    /// Owner, reason, for how long, and how long ago that was said.
    paused: Option<(String, String, u64, u64)>,
    high_term: u64,
    /// The epoch that the terms are of.
    epoch: Option<u64>,
    observed: Option<(String, u64)>,
}

impl Reader {
    fn at(now: When) -> Self {
        Self {
            now,
            next: 0,
            open: BTreeMap::new(),
            unfinished: BTreeMap::new(),
            history: VecDeque::new(),
            cascades: VecDeque::new(),
            paused: None,
            high_term: 0,
            epoch: None,
            observed: None,
        }
    }

    fn age_ms(&self, line: &Line) -> u64 {
        line.when().before(&self.now)
    }

    fn read(&mut self, line: &Line) {
        let draft = &line.draft;
        let incident = draft.incident.as_ref().and_then(IncidentId::number).unwrap_or(0);
        self.next = self.next.max(line.sequence + 1).max(incident + 1).max(draft.step.unwrap_or(0) + 1);
        if let Some(pattern) = draft.text("pattern").filter(|_| draft.mode == Some(Mode::CascadingFailure)) {
            if self.cascades.len() >= MAX_CASCADES {
                self.cascades.pop_front();
            }
            self.cascades.push_back(PastCascade { pattern: pattern.to_owned(), age_ms: self.age_ms(line) });
        }
        self.term(draft);
        match draft.kind {
            RecordKind::Opened => self.opened(line),
            RecordKind::Intent => self.intent(line),
            RecordKind::Outcome | RecordKind::Reconciled => self.ended(draft),
            RecordKind::Resolved => {
                if let Some(id) = &draft.incident {
                    self.open.remove(id);
                }
            }
            RecordKind::Escalated => {
                if let Some(open) = draft.incident.as_ref().and_then(|id| self.open.get_mut(id)) {
                    open.escalated = true;
                }
            }
            RecordKind::Note => self.note(line),
            RecordKind::Refused => {}
        }
    }

    /// A cluster that goes on from a backup, or alone, is in another epoch, whose terms may be lower than those before.
    fn term(&mut self, draft: &Draft) {
        if draft.epoch.is_some() && self.epoch != draft.epoch {
            self.epoch = draft.epoch;
            self.high_term = 0;
        }
        self.high_term = self.high_term.max(draft.raft_term.unwrap_or(0));
    }

    fn opened(&mut self, line: &Line) {
        let draft = &line.draft;
        let (Some(id), Some(mode), Some(subject)) = (draft.incident.clone(), draft.mode, draft.subject()) else {
            return;
        };
        let open = OpenIncident {
            id: id.clone(),
            mode,
            subject,
            opened_ms: line.wall_ms(),
            age_ms: self.age_ms(line),
            unfinished: None,
            ended: None,
            steps_done: Vec::new(),
            escalated: false,
            initial: flag(draft, "initial"),
            pattern: draft.text("pattern").map(str::to_owned),
            applied: Vec::new(),
        };
        self.open.insert(id, open);
    }

    fn intent(&mut self, line: &Line) {
        let draft = &line.draft;
        let (Some(id), Some(subject)) = (draft.step, draft.subject()) else { return };
        let step = step_of(draft, StepId(id), subject.clone());
        if let Some(open) = step.incident.as_ref().and_then(|id| self.open.get_mut(id)) {
            open.ended = None;
        }
        let age_ms = self.age_ms(line);
        // The first start of a node is no answer to a crash, and counts in no budget; nor does what is done again.
        if !flag(draft, "initial") && !step.again {
            let signature = draft.text("signature").map(str::to_owned);
            let disruptive = step.disruptive;
            self.history.push_back(PastStep { action: draft.action, subject, disruptive, age_ms, signature });
        }
        if self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
        self.unfinished.insert(id, step);
    }

    fn ended(&mut self, draft: &Draft) {
        let Some(step) = draft.step.and_then(|id| self.unfinished.remove(&id)) else { return };
        let resolution = draft.text("resolution");
        let done = resolution == Some("done");
        if resolution == Some("refused") {
            self.refused(&step);
        }
        if let Some(open) = step.incident.as_ref().and_then(|id| self.open.get_mut(id)).filter(|_| step.disruptive) {
            open.ended = Some((step.clone(), done));
        }
        if let Some(open) = step.incident.as_ref().and_then(|id| self.open.get_mut(id)).filter(|_| done) {
            // What was done again is on no other step of the ladder for it, and was applied before.
            if !step.again {
                open.steps_done.push(step.action);
            }
            if leaves(step.action, &step.with) {
                let applied = (step.action, step.with.clone());
                if !open.applied.contains(&applied) {
                    open.applied.push(applied);
                }
            } else if is_undo(step.action, &step.with) {
                open.applied.pop();
            }
        }
        // Another membership begins its own count of terms.
        if done && step.action == Action::RejoinLearner {
            self.high_term = 0;
        }
    }

    /// Refused where it was to take effect: nothing was done, and no budget is used up.
    fn refused(&mut self, step: &Step) {
        let of_it = |past: &PastStep| past.action == step.action && past.subject == step.subject;
        if let Some(at) = self.history.iter().rposition(of_it).filter(|_| !step.again) {
            self.history.remove(at);
        }
    }

    fn note(&mut self, line: &Line) {
        let draft = &line.draft;
        let text = |name: &str| draft.text(name).unwrap_or_default().to_owned();
        match draft.action {
            Action::Pause => {
                let expires = draft.details.get("expires_ms").and_then(serde_json::Value::as_u64).unwrap_or(0);
                let lasts = expires.saturating_sub(line.wall_ms());
                self.paused = Some((text("owner"), text("reason"), lasts, self.age_ms(line)));
            }
            Action::Resume => self.paused = None,
            _ => {
                let seen = draft.details.get("observed_ms").and_then(serde_json::Value::as_u64);
                if let (Some(cluster), Some(seen)) = (draft.text("cluster"), seen) {
                    // So is another cluster.
                    if self.observed.as_ref().is_some_and(|(before, _)| before != cluster) {
                        self.high_term = draft.raft_term.unwrap_or(0);
                    }
                    self.observed = Some((cluster.to_owned(), seen));
                }
            }
        }
    }

    fn finish(self) -> Input {
        let mut open = self.open;
        let mut unfinished = Vec::new();
        for step in self.unfinished.into_values() {
            match step.incident.as_ref().and_then(|id| open.get_mut(id)) {
                Some(incident) => incident.unfinished = Some(step),
                // An operator's step; a step of an incident that was closed since is nobody's any more.
                None if step.incident.is_none() => unfinished.push(step),
                None => {}
            }
        }
        let left = |lasts: u64, ago: u64| Duration::from_millis(lasts.saturating_sub(ago));
        let paused = self.paused.map(|(owner, reason, lasts, ago)| (owner, reason, left(lasts, ago)));
        Input::Started {
            high_term: self.high_term,
            next_sequence: self.next.max(1),
            open: open.into_values().collect(),
            paused: paused.filter(|(_, _, left)| !left.is_zero()),
            unfinished,
            history: self.history.into_iter().filter(|past| past.age_ms <= DAY_MS).collect(),
            observed: self.observed.map(|(cluster, seen)| (cluster, Duration::from_millis(seen))),
            cascades: self.cascades.into_iter().filter(|past| past.age_ms < HOUR_MS).collect(),
        }
    }
}

fn step_of(draft: &Draft, id: StepId, subject: Subject) -> Step {
    Step {
        id,
        incident: draft.incident.clone(),
        mode: draft.mode,
        action: draft.action,
        grade: draft.grade.unwrap_or(Grade::OBSERVE),
        subject,
        disruptive: flag(draft, "disruptive"),
        fence: draft.text("fence").and_then(|text| text.parse().ok()),
        deadline: Duration::ZERO,
        attempt: draft
            .details
            .get("attempt")
            .and_then(serde_json::Value::as_u64)
            .and_then(|attempt| u32::try_from(attempt).ok())
            .unwrap_or(0),
        reason: draft.text("evidence").unwrap_or_default().to_owned(),
        with: draft.text("with").unwrap_or_default().to_owned(),
        approved_by: String::new(),
        again: flag(draft, "again"),
    }
}

fn flag(draft: &Draft, name: &str) -> bool {
    draft.details.get(name).and_then(serde_json::Value::as_bool).unwrap_or(false)
}
