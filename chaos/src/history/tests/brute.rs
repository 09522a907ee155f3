//! The simple judge: tries every order of every choice of unknown operations. For a handful of operations only.

use std::collections::BTreeMap;

use super::super::record::{Answer, Call, Condition, History, Key, Operation, Outcome, Value};

/// Whether some order explains every answer.
pub(super) fn sound(history: &History) -> bool {
    let operations: Vec<&Operation> =
        history.operations.iter().filter(|operation| operation.outcome != Outcome::Failed).collect();
    assert!(operations.len() <= 16, "too many for this judge");
    explains(&operations, &mut vec![false; operations.len()], &BTreeMap::new())
}

fn explains(operations: &[&Operation], taken: &mut [bool], state: &BTreeMap<Key, Value>) -> bool {
    let known = |at: usize| operations[at].outcome != Outcome::Unknown;
    if (0..operations.len()).all(|at| taken[at] || !known(at)) {
        return true;
    }
    for at in 0..operations.len() {
        let waits = |other: usize| !taken[other] && known(other) && operations[other].end < operations[at].begin;
        if taken[at] || (0..operations.len()).any(waits) {
            continue;
        }
        if let Some(after) = after(state, operations[at]) {
            taken[at] = true;
            let explained = explains(operations, taken, &after);
            taken[at] = false;
            if explained {
                return true;
            }
        }
    }
    false
}

/// The contents after an operation that took effect; `None`: it cannot have.
fn after(state: &BTreeMap<Key, Value>, operation: &Operation) -> Option<BTreeMap<Key, Value>> {
    let mut state = state.clone();
    match (&operation.call, &operation.outcome) {
        (Call::Put { key, value, condition }, outcome) => {
            let holds = match condition {
                Condition::Always => true,
                Condition::Absent => !state.contains_key(key),
                Condition::Is(seen) => state.get(key) == Some(seen),
            };
            if holds == (*outcome == Outcome::Ok(Answer::Refused)) {
                return None;
            }
            if holds {
                state.insert(key.clone(), *value);
            }
        }
        (Call::Delete { key }, _) => {
            state.remove(key);
        }
        (Call::Get { key }, Outcome::Ok(Answer::Found(found))) if state.get(key) != found.as_ref() => return None,
        (Call::List { prefix }, Outcome::Ok(Answer::Listed(found)))
            if !state.iter().filter(|(key, _)| key.starts_with(prefix)).eq(found.iter()) =>
        {
            return None;
        }
        _ => {}
    }
    Some(state)
}
