//! Incidents: one root cause each, from open to resolved or escalated.
//!
//! Owns: their state and what people may see of it. Must never: decide.
//!
//! Bounded: [`MAX_OPEN`] open, [`MAX_RECENT`] closed, `MAX_EVENTS` lines of timeline each.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::api::{IncidentId, Step, StepId, Subject};
use crate::engine::approval::{Approval, ApprovalView, Matter};
use crate::engine::detect::Symptom;
use crate::engine::facts::Life;
use crate::record::GuardResult;
use crate::types::{Action, Grade, GuardName, Mode, Moment, Now, Severity};

/// Open incidents. What does not fit is detected again when there is room.
pub const MAX_OPEN: usize = 256;
/// Closed incidents that are still shown.
pub const MAX_RECENT: usize = 256;
/// Lines of one incident's timeline; the first and the newest are kept.
pub(crate) const MAX_EVENTS: usize = 64;
/// Steps shown of one incident.
pub(crate) const MAX_STEPS: usize = 32;

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentState {
    /// Seen; no step was begun.
    Open,
    /// A step is under way, or the next one waits.
    Recovering,
    /// The proof is being sought.
    Verifying,
    /// The proof held, or there is nothing to recover.
    Resolved,
    /// A person is needed.
    Escalated,
}

/// Something that happened in an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

/// A step of an incident, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// Which.
    pub id: StepId,
    /// What.
    pub action: Action,
    /// How invasive.
    pub grade: Grade,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it was begun.
    pub began_ms: u64,
    /// When it ended; `None`: under way.
    pub ended_ms: Option<u64>,
    /// done | failed | refused | done after all | not done; `None`: under way.
    pub result: Option<String>,
    /// How it went.
    pub detail: String,
}

/// An incident, for people and machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IncidentView {
    /// Which.
    pub id: IncidentId,
    /// Its mode.
    pub mode: Mode,
    /// What it is about.
    pub subject: Subject,
    /// Where it stands.
    pub state: IncidentState,
    /// The node's first start by its agent, not a crash.
    pub initial: bool,
    /// Which sensor showed it.
    pub detected_by: String,
    /// What was seen.
    pub evidence: String,
    /// When it was opened.
    pub opened_ms: u64,
    /// When its first step was begun.
    pub first_step_ms: Option<u64>,
    /// When it was closed.
    pub closed_ms: Option<u64>,
    /// How it ended, or why a person is needed.
    pub resolution: Option<String>,
    /// Steps, oldest first, bounded.
    pub steps: Vec<StepView>,
    /// How urgent, where the mode tells degrees apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// The cascade that it is part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folded_under: Option<IncidentId>,
    /// What a person may approve, or has approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
}

/// What an incident is waiting for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Flight {
    /// Nothing: the next move is decided.
    Idle,
    /// The holder of the lease.
    Asking { step: Step, until: Moment },
    /// Evidence newer than the slot.
    Granted { step: Step, since: Moment, until: Moment },
    /// The step's end.
    Doing { step: Step, since: Moment },
    /// A heartbeat that shows what the step did.
    Seeing { step: Step, until: Moment },
    /// The proof.
    Proving { asked: Option<Moment>, next: Moment, until: Moment, tries: u32 },
    /// Evidence of what became of a step of the agent's earlier life.
    Reconciling { step: Step, since: Moment },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Incident {
    pub(crate) id: IncidentId,
    pub(crate) mode: Mode,
    pub(crate) subject: Subject,
    pub(crate) state: IncidentState,
    pub(crate) initial: bool,
    pub(crate) mended: bool,
    pub(crate) detected_by: String,
    pub(crate) evidence: String,
    pub(crate) life: Option<Life>,
    /// The process that ran when a person was asked for: should it end, that is a death like any other.
    pub(crate) left_running: Option<Life>,
    /// An earlier life of the agent asked for that person, and whether the process runs was not seen since.
    pub(crate) left_before: bool,
    pub(crate) signature: Option<String>,
    pub(crate) severity: Option<Severity>,
    pub(crate) folded_under: Option<IncidentId>,
    /// When it was opened, or taken over from the journal.
    pub(crate) opened: Moment,
    pub(crate) opened_ms: u64,
    pub(crate) closed_ms: Option<u64>,
    pub(crate) resolution: Option<String>,
    /// Which step of the ladder is next or under way.
    pub(crate) rung: usize,
    /// Attempts begun on it.
    pub(crate) attempt: u32,
    /// Attempts begun to take the throttle back.
    pub(crate) undone: u32,
    /// The agent stopped new writes to the disk.
    pub(crate) throttled: bool,
    /// The agent began to empty the disk.
    pub(crate) evacuating: bool,
    /// What was done to the node and is to be taken back, the newest last.
    pub(crate) applied: Vec<(Action, String)>,
    /// The last proof did not hold, and no step was begun since.
    pub(crate) unproven: bool,
    /// How many proofs in a row did not hold, with no step begun between them.
    #[serde(default)]
    pub(crate) in_vain: u32,
    /// Since when a guard has held its next step back, and whether a person was told.
    pub(crate) held: Option<(Moment, bool)>,
    /// By which guard a person was told at once, and when.
    #[serde(default)]
    pub(crate) told_at_once: Option<(GuardName, Moment)>,
    /// How often in a row a step was refused where it was to take effect.
    #[serde(default)]
    pub(crate) denied: u32,
    /// When something was last done to the node that is to be taken back, or done again because it showed it no more.
    pub(crate) said_again: Option<Moment>,
    /// How often in a row it was done again and the node did not show it.
    #[serde(default)]
    pub(crate) unheard: u32,
    /// The process that a mode was last told to. Another one may have lost it; this one shows another because somebody said so.
    #[serde(default)]
    pub(crate) told_to: Option<Life>,
    pub(crate) not_before: Moment,
    pub(crate) flight: Flight,
    pub(crate) guards: Vec<GuardResult>,
    pub(crate) refused: Option<(GuardName, Moment)>,
    /// What the journal was told would have been done.
    pub(crate) told: Option<Matter>,
    /// A person's word for the next step.
    pub(crate) approval: Option<Approval>,
    /// Hashes of tokens that are worth nothing any more, and why.
    pub(crate) spent: Vec<(String, String)>,
    pub(crate) timeline: Vec<Event>,
    pub(crate) steps: Vec<StepView>,
}

impl Incident {
    pub(crate) fn open(id: IncidentId, now: Now, symptom: Symptom) -> Self {
        let Symptom { mode, subject, detected_by, evidence, initial, life, signature, mended } = symptom;
        let mut incident = Self {
            id,
            mode,
            subject,
            state: IncidentState::Open,
            initial,
            mended,
            detected_by,
            evidence,
            life,
            left_running: None,
            left_before: false,
            signature,
            severity: None,
            folded_under: None,
            opened: now.mono,
            opened_ms: now.wall_ms,
            closed_ms: None,
            resolution: None,
            rung: 0,
            attempt: 0,
            undone: 0,
            throttled: false,
            evacuating: false,
            applied: Vec::new(),
            unproven: false,
            in_vain: 0,
            held: None,
            told_at_once: None,
            denied: 0,
            said_again: None,
            unheard: 0,
            told_to: None,
            not_before: now.mono,
            flight: Flight::Idle,
            guards: Vec::new(),
            refused: None,
            told: None,
            approval: None,
            spent: Vec::new(),
            timeline: Vec::new(),
            steps: Vec::new(),
        };
        let line = format!("opened: {} ({})", incident.evidence, incident.detected_by);
        incident.event(now, line);
        incident
    }

    pub(crate) fn event(&mut self, now: Now, what: impl Into<String>) {
        if self.timeline.len() >= MAX_EVENTS {
            self.timeline.remove(1);
        }
        self.timeline.push(Event { at_ms: now.wall_ms, what: what.into() });
    }

    pub(crate) fn begun(&mut self, now: Now, step: &Step) {
        if self.steps.len() >= MAX_STEPS {
            self.steps.remove(0);
        }
        self.steps.push(StepView {
            id: step.id,
            action: step.action,
            grade: step.grade,
            attempt: step.attempt,
            began_ms: now.wall_ms,
            ended_ms: None,
            result: None,
            detail: String::new(),
        });
    }

    pub(crate) fn ended(&mut self, now: Now, step: StepId, result: &str, detail: &str) {
        if let Some(view) = self.steps.iter_mut().find(|view| view.id == step) {
            view.ended_ms = Some(now.wall_ms);
            view.result = Some(result.to_owned());
            detail.clone_into(&mut view.detail);
        }
    }

    /// The step that is under way or asked for.
    pub(crate) fn step(&self) -> Option<&Step> {
        match &self.flight {
            Flight::Idle | Flight::Proving { .. } => None,
            Flight::Asking { step, .. }
            | Flight::Granted { step, .. }
            | Flight::Doing { step, .. }
            | Flight::Seeing { step, .. }
            | Flight::Reconciling { step, .. } => Some(step),
        }
    }

    pub(crate) fn view(&self) -> IncidentView {
        IncidentView {
            id: self.id.clone(),
            mode: self.mode,
            subject: self.subject.clone(),
            state: self.state,
            initial: self.initial,
            detected_by: self.detected_by.clone(),
            evidence: self.evidence.clone(),
            opened_ms: self.opened_ms,
            first_step_ms: self.steps.first().map(|step| step.began_ms),
            closed_ms: self.closed_ms,
            resolution: self.resolution.clone(),
            steps: self.steps.clone(),
            severity: self.severity,
            folded_under: self.folded_under.clone(),
            approval: self.approval_view(),
        }
    }
}

/// All incidents this agent knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) open: BTreeMap<IncidentId, Incident>,
    pub(crate) recent: VecDeque<Incident>,
}

impl Book {
    pub(crate) fn room(&self) -> usize {
        MAX_OPEN.saturating_sub(self.open.len())
    }

    pub(crate) fn about(&mut self, mode: Mode, subject: &Subject) -> Option<&mut Incident> {
        self.open.values_mut().find(|incident| incident.mode == mode && incident.subject == *subject)
    }

    pub(crate) fn find(&self, id: &IncidentId) -> Option<&Incident> {
        self.open.get(id).or_else(|| self.recent.iter().find(|incident| incident.id == *id))
    }

    pub(crate) fn put(&mut self, incident: Incident) {
        if incident.closed_ms.is_none() {
            self.open.insert(incident.id.clone(), incident);
            return;
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(incident);
    }

    /// The ids of the open ones, oldest first.
    pub(crate) fn ids(&self) -> Vec<IncidentId> {
        let mut ids: Vec<(u64, IncidentId)> =
            self.open.keys().map(|id| (id.number().unwrap_or(0), id.clone())).collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }
}
