//! What came of one seed: what the process of that seed tells the one that started it, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// Why a seed failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The rule that was broken, by name.
    pub(crate) invariant: String,
    /// When, milliseconds of the run's time.
    pub(crate) at_ms: u64,
    /// What was seen.
    pub(crate) detail: String,
}

/// How often things happened, by name. `fault.*` took effect, `skipped.*` found no target, `client.*` are operations,
/// the rest is what the cluster did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Coverage(pub(crate) BTreeMap<String, u64>);

impl Coverage {
    /// One more.
    pub(crate) fn count(&mut self, what: &str) {
        self.add(what, 1);
    }

    /// So many more.
    pub(crate) fn add(&mut self, what: &str, count: u64) {
        match self.0.get_mut(what) {
            Some(counted) => *counted += count,
            None => {
                self.0.insert(what.to_owned(), count);
            }
        }
    }

    /// All that another run counted.
    pub(crate) fn merge(&mut self, other: &Coverage) {
        for (what, count) in &other.0 {
            self.add(what, *count);
        }
    }

    /// How often.
    pub(crate) fn get(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// The sum of all whose name begins so.
    pub(crate) fn under(&self, prefix: &str) -> u64 {
        self.0.iter().filter(|(what, _)| what.starts_with(prefix)).map(|(_, count)| count).sum()
    }
}

/// What came of one seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The plan it ran, with dropped events left out.
    pub(crate) plan: Plan,
    /// `None`: it passed.
    pub(crate) failure: Option<Failure>,
    /// Over all lines of the trace.
    pub(crate) trace_hash: u64,
    /// How many those were.
    pub(crate) trace_lines: u64,
    /// The run's time in the end, milliseconds.
    pub(crate) simulated_ms: u64,
    /// What happened how often.
    pub(crate) coverage: Coverage,
    /// The last lines of the trace.
    pub(crate) last: Vec<String>,
}
