//! Histories drawn from a seed: of a store that is sound, and the same with one answer changed.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::judge;
use super::super::record::{Answer, Call, Condition, History, Key, Operation, Outcome, Value};
use super::brute;

const KEYS: [&str; 3] = ["a", "b", "c"];

/// A sound store: one operation after the other, each at one moment within the time its client waited for it.
fn sound_history(rng: &mut StdRng, operations: usize, waits: u64) -> History {
    let mut state: BTreeMap<Key, Value> = BTreeMap::new();
    let mut history = History::default();
    for at in 0..operations {
        let moment = (at as u64 + 1) * 100;
        let begin = Duration::from_micros(moment.saturating_sub(rng.random_range(0..waits)));
        let end = Duration::from_micros(moment + rng.random_range(0..waits));
        let call = call(rng, at as Value);
        let unknown = rng.random_bool(0.2);
        // A lost answer is of something that happened, or of something that never did.
        let happened = !unknown || rng.random_bool(0.5);
        let answer = happened.then(|| answer(&mut state, &call));
        let outcome = answer.filter(|_| !unknown).map_or(Outcome::Unknown, Outcome::Ok);
        history.operations.push(Operation { client: at, begin, end, call, outcome });
    }
    history
}

fn call(rng: &mut StdRng, value: Value) -> Call {
    let key = KEYS[rng.random_range(0..KEYS.len())].to_owned();
    match rng.random_range(0..10) {
        0..=1 => Call::Put { key, value, condition: Condition::Always },
        2 => Call::Put { key, value, condition: Condition::Absent },
        3..=4 => Call::Put { key, value, condition: Condition::Is(rng.random_range(0..=value)) },
        5 => Call::Delete { key },
        6..=7 => Call::Get { key },
        8 => Call::List { prefix: String::new() },
        _ => Call::List { prefix: key },
    }
}

fn answer(state: &mut BTreeMap<Key, Value>, call: &Call) -> Answer {
    match call {
        Call::Put { key, value, condition } => {
            let held = state.get(key).copied();
            match condition {
                Condition::Absent if held.is_some() => Answer::Refused,
                Condition::Is(seen) if held != Some(*seen) => Answer::Refused,
                _ => {
                    state.insert(key.clone(), *value);
                    Answer::Done
                }
            }
        }
        Call::Delete { key } => {
            state.remove(key);
            Answer::Done
        }
        Call::Get { key } => Answer::Found(state.get(key).copied()),
        Call::List { prefix } => {
            let shown = state.iter().filter(|(key, _)| key.starts_with(prefix.as_str()));
            Answer::Listed(shown.map(|(key, value)| (key.clone(), *value)).collect())
        }
    }
}

/// One answer is another than it was.
fn changed(rng: &mut StdRng, history: &History) -> History {
    let mut history = history.clone();
    let count = history.operations.len();
    let operation = &mut history.operations[rng.random_range(0..count)];
    let other: Value = rng.random_range(0..count as u64);
    operation.outcome = match (&operation.call, &operation.outcome) {
        (Call::Put { condition: Condition::Always, .. } | Call::Delete { .. }, Outcome::Ok(_)) => Outcome::Failed,
        (Call::Put { .. }, Outcome::Ok(Answer::Refused)) => Outcome::Ok(Answer::Done),
        (Call::Put { condition: Condition::Always, .. } | Call::Delete { .. }, _) => Outcome::Ok(Answer::Done),
        (Call::Put { .. }, _) => Outcome::Ok(Answer::Refused),
        (Call::Get { .. }, Outcome::Ok(Answer::Found(None))) => Outcome::Ok(Answer::Found(Some(other))),
        (Call::Get { .. }, _) => Outcome::Ok(Answer::Found(rng.random_bool(0.5).then_some(other))),
        (Call::List { prefix }, outcome) => {
            let mut found = match outcome {
                Outcome::Ok(Answer::Listed(found)) => found.clone(),
                _ => BTreeMap::new(),
            };
            let key = KEYS[rng.random_range(0..KEYS.len())];
            if found.remove(key).is_none() && key.starts_with(prefix.as_str()) {
                found.insert(key.to_owned(), other);
            }
            Outcome::Ok(Answer::Listed(found))
        }
    };
    history
}

#[test]
fn what_a_sound_store_says_is_always_accepted() {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let history = sound_history(&mut rng, 150, 500);
        judge(&history).unwrap_or_else(|unsound| panic!("seed {seed}: {unsound}"));
    }
}

#[test]
fn judged_as_the_simple_judge_does_and_never_by_a_window_that_is_sound() {
    let mut found = 0;
    for seed in 0..3000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let history = sound_history(&mut rng, 8, 400);
        assert!(brute::sound(&history), "seed {seed}: the generator is wrong");
        let history = changed(&mut rng, &history);
        match judge(&history) {
            Ok(()) => assert!(brute::sound(&history), "seed {seed}: accepted, but unsound: {history:#?}"),
            Err(super::Unsound::NotLinearizable(window)) => {
                assert!(!brute::sound(&history), "seed {seed}: refused, but sound: {window}");
                let alone = History { operations: window.operations.clone() };
                assert!(!brute::sound(&alone), "seed {seed}: the window alone is sound: {window}");
                found += 1;
            }
            Err(undecided) => panic!("seed {seed}: {undecided}"),
        }
    }
    assert!(found > 500, "only {found} of the changed histories were unsound: the test tests little");
}
