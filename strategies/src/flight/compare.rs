//! What was decided, incident by incident, and where two policies part.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::api::{Command, Subject};
use crate::chain::rfc3339;
use crate::record::{Draft, RecordKind};
use crate::types::{Action, Grade, Mode};

/// Decisions kept of one incident: what comes after the first difference is told only as far as this.
const MAX_DECISIONS: usize = 256;

/// What an incident is told apart by, in two runs: ids are the runs' own.
pub(super) type Key = (Mode, String);

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// When.
    pub at: String,
    /// opened | step | refused | escalated | resolved | ended | reconciled | note.
    pub what: &'static str,
    /// Of a step or a refusal: which.
    pub action: Action,
    /// How invasive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grade: Option<Grade>,
    /// Of a refusal: by which guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// Why.
    pub evidence: String,
}

impl Decision {
    fn of(at_ms: u64, draft: &Draft) -> Decision {
        let what = match draft.kind {
            RecordKind::Intent => "step",
            RecordKind::Outcome => "ended",
            RecordKind::Reconciled => "reconciled",
            RecordKind::Refused => "refused",
            RecordKind::Opened => "opened",
            RecordKind::Resolved => "resolved",
            RecordKind::Escalated => "escalated",
            RecordKind::Note => "note",
        };
        let evidence = draft.text("evidence").or(draft.text("resolution")).unwrap_or_default().to_owned();
        let guard = draft.text("guard").map(str::to_owned).filter(|_| what == "refused");
        Decision { at: rfc3339(at_ms), what, action: draft.action, grade: draft.grade, guard, evidence }
    }

    /// Whether both decide the same; when, and by which numbers, is no matter.
    fn is_same(&self, other: &Decision) -> bool {
        (self.what, self.action, self.grade, &self.guard) == (other.what, other.action, other.grade, &other.guard)
    }
}

/// Where two policies part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What was decided then; `None`: nothing any more.
    pub recorded: Option<Decision>,
    /// What is decided now; `None`: nothing.
    pub replayed: Option<Decision>,
}

/// Whether two runs decided alike about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All decisions are the same.
    Same,
    /// They part.
    Differs,
    /// Only the recording has it.
    NotOpened,
    /// Only the replay has it.
    New,
}

/// One incident in both runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IncidentReport {
    /// Its mode.
    pub mode: Mode,
    /// What it is about.
    pub subject: String,
    /// Whether both decided alike.
    pub verdict: Verdict,
    /// Decisions that are the same, from the first on.
    pub alike: usize,
    /// Where they part: the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Difference>,
    /// What was decided then.
    pub recorded: Vec<Decision>,
    /// What is decided now.
    pub replayed: Vec<Decision>,
}

/// What one run decided.
#[derive(Debug, Default)]
pub(super) struct Track(BTreeMap<Key, Vec<Decision>>);

impl Track {
    pub(super) fn add(&mut self, at_ms: u64, commands: &[Command]) {
        for command in commands {
            let Command::Record { draft, .. } = command else { continue };
            let (Some(mode), Some(subject)) = (draft.mode, draft.subject()) else { continue };
            let decisions = self.0.entry(key(mode, &subject)).or_default();
            let decision = Decision::of(at_ms, draft);
            // The same refusal again is no other decision.
            let again = decision.what == "refused" && decisions.last().is_some_and(|last| last.is_same(&decision));
            if !again && decisions.len() < MAX_DECISIONS {
                decisions.push(decision);
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

pub(super) fn key(mode: Mode, subject: &Subject) -> Key {
    (mode, subject.to_string())
}

/// Incident by incident.
pub(super) fn compare(recorded: Track, mut replayed: Track) -> Vec<IncidentReport> {
    let mut reports: Vec<IncidentReport> =
        recorded.0.into_iter().map(|(key, then)| report(key.clone(), then, replayed.0.remove(&key))).collect();
    let new = replayed.0.into_iter().map(|((mode, subject), now)| IncidentReport {
        mode,
        subject,
        verdict: Verdict::New,
        alike: 0,
        first: Some(Difference { recorded: None, replayed: now.first().cloned() }),
        recorded: Vec::new(),
        replayed: now,
    });
    reports.extend(new);
    let begun =
        |report: &IncidentReport| report.recorded.first().or(report.replayed.first()).map(|first| first.at.clone());
    reports.sort_by_key(begun);
    reports
}

fn report((mode, subject): Key, then: Vec<Decision>, now: Option<Vec<Decision>>) -> IncidentReport {
    let gone = now.is_none();
    let now = now.unwrap_or_default();
    let alike = then.iter().zip(&now).take_while(|(then, now)| then.is_same(now)).count();
    let same = alike == then.len() && alike == now.len();
    let first = (!same).then(|| Difference { recorded: then.get(alike).cloned(), replayed: now.get(alike).cloned() });
    let verdict = match (same, gone) {
        (true, _) => Verdict::Same,
        (false, true) => Verdict::NotOpened,
        (false, false) => Verdict::Differs,
    };
    IncidentReport { mode, subject, verdict, alike, first, recorded: then, replayed: now }
}
