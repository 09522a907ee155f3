//! From operations to the steps the search puts in order.
//!
//! Two facts keep the search small. A put of unknown outcome whose value somebody saw did take effect, and before the
//! first who saw it had his answer: it is an ordinary put that ended then. And a change of unknown outcome that explains
//! nothing of what was seen can be left out: whatever order has it stays an order without it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::record::{Answer, Call, Condition, Key, Operation, Outcome, Value};

/// What a step does to the keys, or shows of them. Keys are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Writes a value (`None`: removes it); cannot come where the condition does not hold.
    Write {
        /// Which.
        key: usize,
        /// What.
        value: Option<Value>,
        /// If what holds.
        condition: Condition,
    },
    /// Cannot come where the condition holds.
    Refused {
        /// Which.
        key: usize,
        /// What did not hold.
        condition: Condition,
    },
    /// Cannot come where any of these is otherwise.
    Sees(Vec<(usize, Option<Value>)>),
}

/// One operation, as far as it must be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) begin: Duration,
    /// `None`: it need not come at all.
    pub(super) end: Option<Duration>,
    pub(super) effect: Effect,
}

/// Steps by when they began, and how many keys they are about.
pub(super) struct Steps {
    pub(super) steps: Vec<Step>,
    pub(super) keys: usize,
}

/// The steps of the operations on `keys`.
pub(super) fn steps(operations: &[Operation], keys: &BTreeSet<Key>) -> Steps {
    let keys: Vec<&Key> = keys.iter().collect();
    let mut steps: Vec<Step> = Vec::new();
    for operation in operations {
        let number = |key: &Key| keys.iter().position(|other| *other == key);
        let (effect, end) = match (&operation.call, &operation.outcome) {
            (_, Outcome::Failed) | (Call::Get { .. } | Call::List { .. }, Outcome::Unknown) => continue,
            (Call::Put { key, value, condition }, outcome) => {
                let Some(number) = number(key) else { continue };
                let write = Effect::Write { key: number, value: Some(*value), condition: *condition };
                match outcome {
                    Outcome::Ok(Answer::Refused) => {
                        (Effect::Refused { key: number, condition: *condition }, Some(operation.end))
                    }
                    Outcome::Ok(_) => (write, Some(operation.end)),
                    _ => match first_seen(operations, key, *value) {
                        Some(seen) => (write, Some(seen)),
                        None if explains_something(operations, operation, key, *value) => (write, None),
                        None => continue,
                    },
                }
            }
            (Call::Delete { key }, outcome) => {
                let Some(number) = number(key) else { continue };
                let write = Effect::Write { key: number, value: None, condition: Condition::Always };
                match outcome {
                    Outcome::Ok(_) => (write, Some(operation.end)),
                    _ if explains_absence(operations, operation, key) => (write, None),
                    _ => continue,
                }
            }
            (Call::Get { key }, Outcome::Ok(answer)) => {
                let (Some(number), Answer::Found(value)) = (number(key), answer) else { continue };
                (Effect::Sees(vec![(number, *value)]), Some(operation.end))
            }
            (Call::List { prefix }, Outcome::Ok(answer)) => {
                let Answer::Listed(found) = answer else { continue };
                let shown = keys.iter().enumerate().filter(|(_, key)| key.starts_with(prefix.as_str()));
                let sees: Vec<_> = shown.map(|(number, key)| (number, found.get(*key).copied())).collect();
                if sees.is_empty() {
                    continue;
                }
                (Effect::Sees(sees), Some(operation.end))
            }
        };
        steps.push(Step { begin: operation.begin, end, effect });
    }
    steps.sort_by_key(|step| (step.begin, step.end.unwrap_or(Duration::MAX)));
    Steps { steps, keys: keys.len() }
}

/// Whether an operation's answer proves that `key` held `value`.
pub(super) fn saw(operation: &Operation, key: &str, value: Value) -> bool {
    match (&operation.call, &operation.outcome) {
        (Call::Get { key: of }, Outcome::Ok(Answer::Found(found))) => of == key && *found == Some(value),
        (Call::List { .. }, Outcome::Ok(Answer::Listed(found))) => found.get(key) == Some(&value),
        (Call::Put { key: of, condition: Condition::Is(seen), .. }, Outcome::Ok(Answer::Done)) => {
            of == key && *seen == value
        }
        _ => false,
    }
}

/// Whether an operation of unknown outcome proves that `key` held `value`, should it have taken effect.
pub(super) fn may_have_seen(operation: &Operation, key: &str, value: Value) -> bool {
    operation.outcome == Outcome::Unknown
        && matches!(&operation.call, Call::Put { key: of, condition: Condition::Is(seen), .. } if of == key && *seen == value)
}

/// Whether an operation's answer may need `key` to have been absent.
pub(super) fn may_need_absence(operation: &Operation, key: &str) -> bool {
    match (&operation.call, &operation.outcome) {
        (Call::Get { key: of }, Outcome::Ok(Answer::Found(None))) => of == key,
        (Call::List { prefix }, Outcome::Ok(Answer::Listed(found))) => {
            key.starts_with(prefix) && !found.contains_key(key)
        }
        (Call::Put { key: of, condition: Condition::Absent, .. }, Outcome::Ok(Answer::Done) | Outcome::Unknown) => {
            of == key
        }
        _ => refused(operation, key),
    }
}

/// Whether an operation was refused by its condition on `key`.
pub(super) fn refused(operation: &Operation, key: &str) -> bool {
    matches!(&operation.call, Call::Put { key: of, .. } if of == key)
        && operation.outcome == Outcome::Ok(Answer::Refused)
}

/// When the first who saw this value under this key had his answer.
fn first_seen(operations: &[Operation], key: &str, value: Value) -> Option<Duration> {
    operations.iter().filter(|other| saw(other, key, value)).map(|other| other.end).min()
}

/// Whether a put of unknown outcome that nobody certainly saw may still be what explains another's answer.
fn explains_something(operations: &[Operation], put: &Operation, key: &str, value: Value) -> bool {
    operations.iter().any(|other| (refused(other, key) && other.end >= put.begin) || may_have_seen(other, key, value))
}

fn explains_absence(operations: &[Operation], delete: &Operation, key: &str) -> bool {
    operations
        .iter()
        .any(|other| may_need_absence(other, key) && (other.end >= delete.begin || other.outcome == Outcome::Unknown))
}
