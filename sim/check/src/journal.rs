//! What rules need of the agents' journals: the lines, read back, and which steps are a node's first start.

use std::collections::BTreeSet;

use resilver_host::audit::{Fact, StepFact};
use resilver_strategies::chain::Line;
use resilver_strategies::record::RecordKind;

use crate::event::{Event, Stamped};

/// The journal line that an event adds, if it adds one that can be read. One that cannot is `journal_chain`'s business.
pub(crate) fn line_of(event: &Event) -> Option<(&Stamped, Line)> {
    let Event::Fact(stamped) = event else { return None };
    let Fact::JournalLine { line } = &stamped.fact else { return None };
    Some((stamped, Line::parse(line).ok()?))
}

/// A detail of a line that is a yes or no.
pub(crate) fn flag(line: &Line, name: &str) -> bool {
    line.draft.details.get(name).and_then(serde_json::Value::as_bool).unwrap_or(false)
}

/// Steps that bring a node up for the first time: no answer to any failure.
#[derive(Default)]
pub(crate) struct FirstStarts {
    steps: BTreeSet<(String, u64)>,
}

impl FirstStarts {
    /// Takes an event in.
    pub(crate) fn take(&mut self, event: &Event) {
        if let Some((stamped, line)) = line_of(event)
            && line.draft.kind == RecordKind::Intent
            && flag(&line, "initial")
        {
            self.steps.extend(line.draft.step.map(|step| (stamped.machine.clone(), step)));
        }
    }

    /// Whether this step is one.
    pub(crate) fn has(&self, stamped: &Stamped, step: &StepFact) -> bool {
        self.steps.contains(&(stamped.machine.clone(), step.step))
    }
}
