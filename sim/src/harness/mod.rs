//! The verbs: many seeds, one seed again, a smaller plan, the tables, the planted bugs.
//!
//! Owns: how seeds are spread over processes and what people are shown. One process per seed: a run takes over its
//! process's clock and randomness and never gives them back.

mod child;
mod list;
mod many;
mod one;
mod replay;
mod selftest;
mod shrink;
mod state;

pub(crate) use self::list::{list, show_plan};
pub(crate) use self::many::many;
pub(crate) use self::one::one;
pub(crate) use self::replay::replay;
pub(crate) use self::selftest::{BUDGET as SELFTEST_BUDGET, selftest};
pub(crate) use self::shrink::shrink;

use crate::outcome::Outcome;

/// How the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Every seed passed.
    Passed = 0,
    /// A seed failed (or, in `selftest`, a bug was not caught).
    Failed = 1,
    /// The simulator itself did not work.
    Harness = 70,
}

/// Lines of the trace that a failure shows.
const SHOWN_LINES: usize = 30;

/// A failed seed, as people read it.
fn show_failure(outcome: &Outcome, replay: &str) -> String {
    let Some(failure) = &outcome.failure else { return String::new() };
    let mut text = format!(
        "FAILED seed {} of {}: {} at {}.{:03} s\n  {}\n",
        outcome.plan.seed,
        outcome.plan.scenario,
        failure.invariant,
        failure.at_ms / 1000,
        failure.at_ms % 1000,
        failure.detail
    );
    text.push_str(&format!("{}", outcome.plan));
    text.push_str("the last events:\n");
    let skip = outcome.last.len().saturating_sub(SHOWN_LINES);
    outcome.last.iter().skip(skip).for_each(|line| text.push_str(&format!("  {line}\n")));
    text.push_str(&format!("replay: {replay}\n"));
    text
}

/// The command that runs a seed again.
fn replay_command(outcome: &Outcome, plant: Option<&str>, only: Option<&str>) -> String {
    let mut text = format!(
        "cargo run --release --manifest-path sim/Cargo.toml -- replay --seed {} --scenario {}",
        outcome.plan.seed, outcome.plan.scenario
    );
    if let Some(only) = only {
        text.push_str(&format!(" --only {only}"));
    }
    if let Some(plant) = plant {
        text.push_str(&format!(" --plant {plant}"));
    }
    text + " --trace"
}

/// `3,7,9`.
fn numbers(of: &std::collections::BTreeSet<u32>) -> String {
    // No event at all is a plan, too: an empty list would mean all of them.
    if of.is_empty() {
        return "none".to_owned();
    }
    of.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}
