//! Why: for one incident, the evidence, the rule, the guards with their numbers, what was done, and what comes next.

use std::fmt;

use serde::Serialize;

use crate::api::{IncidentId, ProcessFact};
use crate::chain::rfc3339;
use crate::engine::Engine;
use crate::engine::incidents::{Event, IncidentState, IncidentView};
use crate::engine::ladder::ladder;
use crate::engine::plan::in_one_line;
use crate::record::GuardResult;
use crate::types::Now;

/// One incident, explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The incident itself.
    pub incident: IncidentView,
    /// The rule that applies, in words: the mode's ladder and its proof.
    pub rule: Vec<String>,
    /// The guards as last judged.
    pub guards: Vec<GuardResult>,
    /// What happened, oldest first, bounded.
    pub timeline: Vec<Event>,
    /// What comes next.
    pub next: String,
}

impl Engine {
    /// Explains an incident, open or recent; `None`: no such one is known.
    pub fn explain(&self, now: Now, id: &IncidentId) -> Option<Explanation> {
        let incident = self.incidents.find(id)?;
        let mut rule: Vec<String> = ladder(incident.mode, &self.policy)
            .iter()
            .enumerate()
            .map(|(at, rung)| format!("{}. {}", at + 1, in_one_line(rung)))
            .collect();
        rule.push(format!("proof: {}", self.proof_of(incident)));
        let (next, guards) = match incident.state {
            IncidentState::Resolved => ("nothing: it is resolved".to_owned(), incident.guards.clone()),
            _ => {
                let entry = self.entry(now.mono, incident);
                (entry.next, entry.guards)
            }
        };
        Some(Explanation { incident: incident.view(), rule, guards, timeline: incident.timeline.clone(), next })
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IncidentView { id, mode, subject, state, detected_by, evidence, opened_ms, resolution, .. } =
            &self.incident;
        let IncidentView { severity, folded_under, .. } = &self.incident;
        writeln!(f, "{id}: {mode} of {subject}, {}", state_name(*state))?;
        writeln!(f, "opened {} by {detected_by}", rfc3339(*opened_ms))?;
        if let Some(severity) = severity {
            writeln!(f, "severity: {severity}")?;
        }
        if let Some(cascade) = folded_under {
            writeln!(f, "folded under: {cascade}")?;
        }
        writeln!(f, "evidence: {evidence}")?;
        if let Some(approval) = &self.incident.approval {
            writeln!(f, "approval: {approval}")?;
        }
        if let Some(resolution) = resolution {
            writeln!(f, "outcome: {resolution}")?;
        }
        writeln!(f, "rule:")?;
        self.rule.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
        if !self.guards.is_empty() {
            writeln!(f, "guards, as last judged:")?;
        }
        for GuardResult { guard, passed, evidence } in &self.guards {
            writeln!(f, "  {} {guard}: {evidence}", if *passed { "pass" } else { "HELD" })?;
        }
        writeln!(f, "timeline:")?;
        self.timeline.iter().try_for_each(|event| writeln!(f, "  {} {}", rfc3339(event.at_ms), event.what))?;
        writeln!(f, "next: {}", self.next)
    }
}

fn state_name(state: IncidentState) -> &'static str {
    match state {
        IncidentState::Open => "open",
        IncidentState::Recovering => "recovering",
        IncidentState::Verifying => "verifying",
        IncidentState::Resolved => "resolved",
        IncidentState::Escalated => "escalated: a person is needed",
    }
}

/// The process, in words.
pub(crate) fn process(fact: &ProcessFact) -> String {
    match fact {
        ProcessFact::Running { pid, .. } => format!("running, pid {pid}"),
        ProcessFact::Exited { pid, exit, deliberate: true, .. } => format!("stopped on purpose, pid {pid}: {exit}"),
        ProcessFact::Exited { pid, exit, .. } => format!("ended, pid {pid}: {exit}"),
        ProcessFact::Absent => "not running".to_owned(),
    }
}
