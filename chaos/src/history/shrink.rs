//! From a history that nothing explains to the few operations that contradict each other.
//!
//! Only what is safe is left out: a look may always go; a put whose value nobody left saw, and a delete that nobody left
//! may need, go without making the rest harder to explain. So whatever contradicts itself afterwards did before.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Window;
use super::compile::{may_have_seen, may_need_absence, refused, saw, steps};
use super::record::{Answer, Call, Key, Operation, Outcome};
use super::search::{Linear, run_within};

/// States per attempt: an attempt that needs more is not worth its operation.
const MAX_STATES_PER_ATTEMPT: usize = 20_000;

/// The window of `operations` on `keys`, which are not linearizable.
pub(super) fn window(operations: &[Operation], keys: &BTreeSet<Key>) -> Window {
    let concerned = |operation: &&Operation| keys.iter().any(|key| operation.call.concerns(key));
    let all: Vec<Operation> = operations.iter().filter(concerned).cloned().collect();
    let wrong = |left: &[Operation]| run_within(&steps(left, keys), MAX_STATES_PER_ATTEMPT) == Linear::No;
    let mut ends: Vec<Duration> = all.iter().map(|operation| operation.end).collect();
    ends.sort_unstable();
    // What continues a history that cannot be explained cannot be explained either.
    let good = ends.partition_point(|end| !wrong(&until(&all, *end)));
    let mut left = ends.get(good).map_or_else(|| all.clone(), |end| until(&all, *end));
    // Each pass may make more of them droppable: a put goes only after those who saw it.
    loop {
        let before = left.len();
        let mut at = 0;
        while at < left.len() {
            let removed = left.remove(at);
            if may_go(&left, &removed) && wrong(&left) {
                continue;
            }
            left.insert(at, removed);
            at += 1;
        }
        if left.len() == before {
            break;
        }
    }
    left.sort_by_key(|operation| (operation.begin, operation.end));
    Window { operations: left }
}

/// What was known at `at`: later operations have not begun, unfinished changes are unknown.
fn until(operations: &[Operation], at: Duration) -> Vec<Operation> {
    let begun = operations.iter().filter(|operation| operation.begin <= at);
    begun
        .filter_map(|operation| match (&operation.call, &operation.outcome) {
            _ if operation.end <= at => Some(operation.clone()),
            (Call::Get { .. } | Call::List { .. }, _) | (_, Outcome::Failed | Outcome::Ok(Answer::Refused)) => None,
            _ => Some(Operation { outcome: Outcome::Unknown, ..operation.clone() }),
        })
        .collect()
}

/// Whether the others can be explained without this one whenever they can be with it.
fn may_go(others: &[Operation], gone: &Operation) -> bool {
    match (&gone.call, &gone.outcome) {
        (Call::Get { .. } | Call::List { .. }, _) | (_, Outcome::Failed | Outcome::Ok(Answer::Refused)) => true,
        (Call::Put { key, value, .. }, _) => !others
            .iter()
            .any(|other| saw(other, key, *value) || may_have_seen(other, key, *value) || refused(other, key)),
        (Call::Delete { key }, _) => !others.iter().any(|other| may_need_absence(other, key)),
    }
}
