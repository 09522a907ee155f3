//! What clients asked, what they were told, and whether one sound store could have told them so.
//!
//! Owns: the [`History`] of a small set of keys, and its judgement: it must be linearizable, where an operation of
//! unknown outcome may have taken effect at any time after it began, or never. A listing is one read of all its keys at
//! once, so keys that a listing shows together are judged together.
//!
//! Must never: take an unknown outcome for "not done", or a search that was given up for a sound history. Pure but for
//! the clock of the [`Recorder`].
//!
//! Assumed: no two puts of one history have the same value, and every key was absent before the first operation.

mod compile;
mod record;
mod search;
mod shrink;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use record::{Answer, Call, Condition, History, Key, Operation, Outcome, Recorder, Value};
use search::Linear;

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// No order of its operations explains every answer.
    #[error("not linearizable: {0}")]
    NotLinearizable(Window),
    /// The search was given up. Nothing may be concluded, least of all that all is well.
    #[error(
        "gave up on {keys:?} with {operations} operations after {looked_at} states: fewer clients, or fewer operations \
         per round"
    )]
    Undecided {
        /// The keys that had to be judged together.
        keys: Vec<Key>,
        /// How many operations concern them.
        operations: usize,
        /// How many states were looked at.
        looked_at: usize,
    },
}

/// The fewest operations found that contradict each other: leave out any one of them and the rest can be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// By when they began.
    pub operations: Vec<Operation>,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = self.operations.iter().map(|operation| operation.begin).min().unwrap_or_default();
        let end = self.operations.iter().map(|operation| operation.end).max().unwrap_or_default();
        write!(
            f,
            "smallest window: {} operations from {:.4} s to {:.4} s",
            self.operations.len(),
            begin.as_secs_f64(),
            end.as_secs_f64()
        )?;
        self.operations.iter().try_for_each(|operation| write!(f, "\n  {operation}"))
    }
}

/// Judges a whole history.
///
/// # Errors
/// The first set of keys, in their order, whose operations contradict each other or could not be judged.
pub fn judge(history: &History) -> Result<(), Unsound> {
    for keys in together(history) {
        match search::run(&compile::steps(&history.operations, &keys)) {
            Linear::Yes => {}
            Linear::No => return Err(Unsound::NotLinearizable(shrink::window(&history.operations, &keys))),
            Linear::Undecided { looked_at } => {
                let operations =
                    history.operations.iter().filter(|operation| keys.iter().any(|key| operation.call.concerns(key)));
                return Err(Unsound::Undecided {
                    operations: operations.count(),
                    keys: keys.into_iter().collect(),
                    looked_at,
                });
            }
        }
    }
    Ok(())
}

/// The sets of keys that are to be judged together: those that a listing shows at once.
fn together(history: &History) -> Vec<BTreeSet<Key>> {
    let keys: BTreeSet<Key> = history.operations.iter().flat_map(Operation::names).cloned().collect();
    // Each key points to one of its set; the set's least key points to itself.
    let mut least: BTreeMap<&Key, &Key> = keys.iter().map(|key| (key, key)).collect();
    for operation in &history.operations {
        if !matches!((&operation.call, &operation.outcome), (Call::List { .. }, Outcome::Ok(_))) {
            continue;
        }
        let mut sets: Vec<&Key> =
            keys.iter().filter(|key| operation.call.concerns(key)).map(|key| least[key]).collect();
        sets.sort_unstable();
        sets.dedup();
        if let Some((first, rest)) = sets.split_first() {
            for entry in least.values_mut().filter(|entry| rest.contains(*entry)) {
                *entry = first;
            }
        }
    }
    let mut sets: BTreeMap<&Key, BTreeSet<Key>> = BTreeMap::new();
    for (key, set) in least {
        sets.entry(set).or_default().insert(key.clone());
    }
    sets.into_values().collect()
}
