//! Lines of logs: which mode they speak for, and for how long.
//!
//! Owns: what is remembered of them. Must never: open an incident for a line, or let one by itself be grounds for a step. A line
//! is a source beside another (`deadlock`), and for every other mode evidence that stands in the incident and beside its guard.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{LogMatchFact, Subject};
use crate::engine::Engine;
use crate::record::RecordKind;
use crate::types::{Action, Mode, Moment, Now};

/// How often lines of one pattern are written down.
const LINES_EVERY: Duration = Duration::from_secs(300);

/// Patterns that are remembered; a configuration has a few.
const MAX_PATTERNS: usize = 64;

/// A line stands beside what is seen otherwise for so long: as long as the oldest operation that is no deadlock. Detection: no
/// factor scales it.
const COUNTS_FOR: Duration = Duration::from_secs(600);

/// The newest line that spoke for each mode, of which there are a few.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Heard(BTreeMap<Mode, Line>);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    at: Moment,
    pattern: String,
    line: String,
}

impl Heard {
    fn line(&mut self, now: Moment, mode: Mode, fact: &LogMatchFact) {
        self.0.insert(mode, Line { at: now, pattern: fact.pattern.clone(), line: fact.line.clone() });
    }

    /// What a line said for this mode lately, for people.
    pub(crate) fn told(&self, now: Moment, mode: Mode) -> Option<String> {
        let Line { at, pattern, line } = self.0.get(&mode)?;
        let age = now.since(*at);
        (age <= COUNTS_FOR)
            .then(|| format!("a line of the log speaks for it as well, {} s ago ({pattern}): {line}", age.as_secs()))
    }
}

impl Engine {
    /// A line is evidence beside another source; it opens nothing by itself.
    pub(crate) fn sense_line(&mut self, now: Now, fact: &LogMatchFact) {
        let LogMatchFact { pattern, mode, line, count } = fact;
        if *mode == Some(Mode::Deadlock) {
            self.watches.deadlock.line(now.mono);
        }
        let speaks_for = mode.filter(|mode| mode.is_told_by_logs());
        if let Some(mode) = speaks_for {
            self.heard.line(now.mono, mode, fact);
        }
        let told = self.lines.get(pattern).is_some_and(|at| now.mono.since(*at) < LINES_EVERY);
        if told || (self.lines.len() >= MAX_PATTERNS && !self.lines.contains_key(pattern)) {
            return;
        }
        self.lines.insert(pattern.clone(), now.mono);
        let evidence = format!("{count} lines match {pattern}, the last: {line}");
        // It names no subject: it is told to all that it may be about.
        for incident in self.incidents.open.values_mut().filter(|incident| Some(incident.mode) == speaks_for) {
            incident.event(now, evidence.clone());
        }
        let mut draft = self.draft(RecordKind::Note, Action::Skip).about(&Subject::Node(self.node.clone()));
        draft = draft.with("evidence", evidence).with("reason", mode.map_or("log", Mode::as_str));
        draft.mode = *mode;
        self.record(draft, false);
    }
}
