//! Whether steps can be put into one order that explains every answer.
//!
//! The search of Wing and Gong with Lowe's memory: it tries every change that may come next, and remembers which sets of
//! steps in which state it has tried. What only looks comes as soon as it can: it changes nothing, so an order that has
//! it later stays an order. Pure; bounded by [`MAX_STATES`].

use std::collections::BTreeSet;
use std::time::Duration;

use super::compile::{Effect, Step, Steps};
use super::record::{Condition, Value};

/// States looked at before the search is given up. A sound round of six clients needs some hundreds; a million is half
/// a gigabyte of memory and some seconds.
pub(super) const MAX_STATES: usize = 1_000_000;

/// The search's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linear {
    /// There is an order.
    Yes,
    /// There is none.
    No,
    /// Given up.
    Undecided {
        /// After so many states.
        looked_at: usize,
    },
}

/// What every key holds.
type State = Vec<Option<Value>>;

/// A set of steps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn add(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }
}

/// One place of the search: what has come, what that made of the keys, and which change is tried next.
struct Place {
    taken: Bits,
    state: State,
    /// All before it are taken.
    first_open: usize,
    next: usize,
}

/// Searches for an order.
pub(super) fn run(steps: &Steps) -> Linear {
    run_within(steps, MAX_STATES)
}

/// As [`run`], with a bound of its own.
pub(super) fn run_within(steps: &Steps, max_states: usize) -> Linear {
    let Steps { steps, keys } = steps;
    let root = Place { taken: Bits::new(steps.len()), state: vec![None; *keys], first_open: 0, next: 0 };
    let mut path = vec![settled(steps, root)];
    let mut seen = BTreeSet::new();
    while let Some(place) = path.last_mut() {
        let Some(horizon) = horizon(steps, place) else { return Linear::Yes };
        let Some(at) = next_change(steps, place, horizon) else {
            path.pop();
            continue;
        };
        place.next = at + 1;
        let mut then =
            Place { taken: place.taken.clone(), state: place.state.clone(), first_open: place.first_open, next: 0 };
        take(&mut then, at, &steps[at]);
        let then = settled(steps, then);
        if seen.insert((then.taken.clone(), then.state.clone())) {
            if seen.len() > max_states {
                return Linear::Undecided { looked_at: max_states };
            }
            path.push(then);
        }
    }
    Linear::No
}

/// When the first step that has not come and must come ended: nothing that began later may come before it. `None`: all
/// that must come have come.
fn horizon(steps: &[Step], place: &Place) -> Option<Duration> {
    let mut horizon: Option<Duration> = None;
    for (at, step) in steps.iter().enumerate().skip(place.first_open) {
        // They come by when they began: the rest ended later still.
        if horizon.is_some_and(|end| end < step.begin) {
            break;
        }
        if let Some(end) = step.end.filter(|_| !place.taken.has(at)) {
            horizon = Some(horizon.map_or(end, |other| other.min(end)));
        }
    }
    horizon
}

/// The next change that may come now.
fn next_change(steps: &[Step], place: &Place, horizon: Duration) -> Option<usize> {
    let from = place.next.max(place.first_open);
    (from..steps.len()).take_while(|at| steps[*at].begin <= horizon).find(|at| {
        !place.taken.has(*at)
            && matches!(steps[*at].effect, Effect::Write { .. })
            && fits(&place.state, &steps[*at].effect)
    })
}

/// The place after everything that only looks and can come now has come.
fn settled(steps: &[Step], mut place: Place) -> Place {
    loop {
        while place.first_open < steps.len() && place.taken.has(place.first_open) {
            place.first_open += 1;
        }
        let Some(horizon) = horizon(steps, &place) else { return place };
        let looks: Vec<usize> = (place.first_open..steps.len())
            .take_while(|at| steps[*at].begin <= horizon)
            .filter(|at| !place.taken.has(*at) && !matches!(steps[*at].effect, Effect::Write { .. }))
            .filter(|at| fits(&place.state, &steps[*at].effect))
            .collect();
        if looks.is_empty() {
            return place;
        }
        looks.into_iter().for_each(|at| place.taken.add(at));
    }
}

fn take(place: &mut Place, at: usize, step: &Step) {
    place.taken.add(at);
    if let Effect::Write { key, value, .. } = step.effect {
        place.state[key] = value;
    }
}

/// Whether a step can come in this state.
fn fits(state: &State, effect: &Effect) -> bool {
    let holds = |key: usize, condition: Condition| match condition {
        Condition::Always => true,
        Condition::Absent => state[key].is_none(),
        Condition::Is(value) => state[key] == Some(value),
    };
    match effect {
        Effect::Write { key, condition, .. } => holds(*key, *condition),
        Effect::Refused { key, condition } => !holds(*key, *condition),
        Effect::Sees(seen) => seen.iter().all(|(key, value)| state[*key] == *value),
    }
}
