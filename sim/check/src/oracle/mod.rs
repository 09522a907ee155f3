//! The clients' oracle: what clients asked, what they were told, and whether one sound store could have told them so.
//!
//! Owns: the [`History`], and its judgement. Every key is a register of its own: the history of a key must be
//! linearizable, where an operation with an unknown outcome may take effect at any time after it began, or never. A
//! listing is judged as a look at each of its keys.
//!
//! Must never: take an unknown outcome for "not done". Assumed: no two puts, of any keys, have the same value.

mod history;
mod linear;
mod verdict;

pub use history::{Answer, Call, Condition, History, Key, Operation, Outcome, Value};
pub use verdict::{Anomaly, Kind, judge};
