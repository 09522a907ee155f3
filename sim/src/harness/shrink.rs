//! `shrink`: the smallest part of a seed's plan that still breaks the same rule.
//!
//! Delta debugging (ddmin, Zeller 2002): tries to leave out ever smaller parts. It ends with a plan of which no single
//! event can be left out, which need not be the smallest there is.

use std::collections::BTreeSet;

use super::child::{Ended, Job, Pool};
use super::{Exit, numbers, replay_command, show_failure};
use crate::cli::ShrinkArgs;
use crate::outcome::Outcome;

/// Shrinks.
pub(crate) fn shrink(args: &ShrinkArgs) -> anyhow::Result<Exit> {
    let plant = args.plant.map(|plant| plant.as_str().to_owned());
    let mut trial = Trial { args, plant, runs: 0 };
    let all = crate::plan::draw(args.seed, args.scenario).numbers();
    let Some(whole) = trial.run(&all)? else {
        println!("seed {} of {} passes: nothing to shrink", args.seed, args.scenario.name);
        return Ok(Exit::Passed);
    };
    let rule = whole.failure.as_ref().map(|failure| failure.invariant.clone()).unwrap_or_default();
    println!("seed {} breaks {rule} with {} faults", args.seed, all.len());
    let (kept, outcome) = smallest(&mut trial, all, whole, &rule)?;
    let only = numbers(&kept);
    println!("{} runs; {} faults are left:\n{}", trial.runs, kept.len(), outcome.plan);
    let replay = replay_command(&outcome, trial.plant.as_deref(), Some(&only));
    print!("{}", show_failure(&outcome, &replay));
    Ok(Exit::Failed)
}

fn smallest(
    trial: &mut Trial<'_>,
    mut kept: BTreeSet<u32>,
    mut outcome: Outcome,
    rule: &str,
) -> anyhow::Result<(BTreeSet<u32>, Outcome)> {
    let breaks = |outcome: &Outcome| outcome.failure.as_ref().is_some_and(|failure| failure.invariant == rule);
    let mut parts = 1;
    while !kept.is_empty() && parts <= kept.len() {
        let size = kept.len().div_ceil(parts);
        let chunks: Vec<BTreeSet<u32>> = kept
            .iter()
            .copied()
            .collect::<Vec<_>>()
            .chunks(size)
            .map(|chunk| chunk.iter().copied().collect())
            .collect();
        let mut smaller = None;
        for chunk in chunks {
            let without: BTreeSet<u32> = kept.difference(&chunk).copied().collect();
            if let Some(found) = trial.run(&without)?.filter(breaks) {
                println!("  still without {}: {} left", numbers(&chunk), without.len());
                smaller = Some((without, found));
                break;
            }
        }
        match smaller {
            Some((without, found)) => {
                (kept, outcome) = (without, found);
                parts = (parts - 1).max(1);
            }
            None if parts >= kept.len() => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    Ok((kept, outcome))
}

struct Trial<'a> {
    args: &'a ShrinkArgs,
    plant: Option<String>,
    runs: u32,
}

impl Trial<'_> {
    /// The outcome when it fails.
    fn run(&mut self, kept: &BTreeSet<u32>) -> anyhow::Result<Option<Outcome>> {
        self.runs += 1;
        let mut pool = Pool::new(1)?;
        pool.begin(Job {
            seed: self.args.seed,
            scenario: self.args.scenario.name.to_owned(),
            only: Some(numbers(kept)),
            plant: self.plant.clone(),
        })?;
        match pool.next()? {
            Some((_, Ended::Judged(outcome))) => Ok(outcome.failure.is_some().then_some(*outcome)),
            Some((_, Ended::Broken(why))) => anyhow::bail!("seed {} with {}: {why}", self.args.seed, numbers(kept)),
            None => anyhow::bail!("no process ran"),
        }
    }
}
