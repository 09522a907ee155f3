//! What of the journal is kept in memory while the agent's past is read.
//!
//! Invariants: bounded by what is open and by one day, not by the journal's length: lines of incidents that were
//! resolved more than a day ago count for nothing any more.

use std::collections::BTreeSet;

use resilver_strategies::api::Input;
use resilver_strategies::chain::Line;
use resilver_strategies::record::RecordKind;
use resilver_strategies::resume;
use resilver_strategies::types::Action;
use resilver_strategies::when::When;

/// How many lines are kept before the useless ones are sorted out.
const PRUNE_AT: usize = 4096;

/// Budgets look back one day.
const DAY_MS: u64 = 24 * 3600 * 1000;

/// Collects lines, oldest first.
pub(crate) struct Replay {
    now: When,
    kept: Vec<Line>,
    resolved: BTreeSet<String>,
    /// For how long the cluster is known: only the newest word of it counts.
    observed: Option<Line>,
    /// Whatever it says, its number counts.
    last: Option<Line>,
    prune_at: usize,
}

impl Replay {
    /// Nothing is known yet; `now` is the present.
    pub(crate) fn new(now: When) -> Replay {
        Replay { now, kept: Vec::new(), resolved: BTreeSet::new(), observed: None, last: None, prune_at: PRUNE_AT }
    }

    /// The next line.
    pub(crate) fn push(&mut self, line: Line) {
        match self.last.take() {
            Some(last) if last.draft.details.contains_key("observed_ms") => self.observed = Some(last),
            Some(last) if matters(&last) => self.keep(last),
            _ => {}
        }
        self.last = Some(line);
    }

    fn keep(&mut self, line: Line) {
        if line.draft.kind == RecordKind::Resolved
            && let Some(incident) = &line.draft.incident
        {
            self.resolved.insert(incident.0.clone());
        }
        self.kept.push(line);
        if self.kept.len() >= self.prune_at {
            self.prune();
        }
    }

    fn prune(&mut self) {
        let now = &self.now;
        let resolved = &self.resolved;
        let over = |line: &Line| match &line.draft.incident {
            Some(incident) => resolved.contains(&incident.0),
            None => line.draft.kind != RecordKind::Note,
        };
        self.kept.retain(|line| line.when().before(now) <= DAY_MS || !over(line));
        self.resolved.clear();
        // What is left is needed; do not sort it over and over.
        self.prune_at = self.kept.len() + PRUNE_AT;
    }

    /// The engine's first input.
    pub(crate) fn finish(self, now: When) -> Input {
        resume::from_lines(self.observed.iter().chain(&self.kept).chain(&self.last), now)
    }
}

fn matters(line: &Line) -> bool {
    match line.draft.kind {
        RecordKind::Refused => false,
        RecordKind::Note => {
            // A cascade that was found again counts in its hour; and a number that is taken for a step is not given twice, or the
            // holder of the lease takes an older slot for a newer one.
            let counted = line.draft.text("pattern").is_some() || line.draft.step.is_some();
            matches!(line.draft.action, Action::Pause | Action::Resume) || counted
        }
        _ => true,
    }
}
