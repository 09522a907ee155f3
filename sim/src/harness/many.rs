//! `run`: many seeds, some at a time, and what came of them.

use std::collections::{BTreeMap, VecDeque};

use super::child::{Ended, Job, Pool, Stopwatch};
use super::state::Progress;
use super::{Exit, replay_command, show_failure};
use crate::cli::RunArgs;
use crate::outcome::Outcome;
use crate::scenario::Scenario;

/// How often the progress file is written.
const STORE_EVERY: usize = 20;
/// How often people hear how far it is.
const SAY_EVERY: usize = 50;

/// One run of a seed. Some are done twice and compared.
struct Seeds {
    todo: VecDeque<Job>,
    /// Trace hashes of seeds that are run twice: the first one to end.
    first: BTreeMap<u64, Outcome>,
    twice: u64,
}

/// Runs all seeds that were not judged yet.
pub(crate) fn many(args: &RunArgs) -> anyhow::Result<Exit> {
    let plant = args.plant.map(|plant| plant.as_str().to_owned());
    let what =
        format!("{}{}", args.scenario.name, plant.as_deref().map(|bug| format!(" with {bug}")).unwrap_or_default());
    let mut progress = match &args.state {
        Some(path) => Progress::load(path, &what)?,
        None => Progress::new(&what),
    };
    let mut seeds = Seeds { todo: VecDeque::new(), first: BTreeMap::new(), twice: args.twice_every };
    for seed in args.seeds.0.clone().filter(|seed| !progress.has(*seed)) {
        let job = Job { seed, scenario: args.scenario.name.to_owned(), only: None, plant: plant.clone() };
        seeds.todo.extend(std::iter::repeat_n(job, if seeds.is_twice(seed) { 2 } else { 1 }));
    }
    let (watch, before_ms) = (Stopwatch::start(), progress.wall_ms);
    let mut pool = Pool::new(args.jobs)?;
    let (mut judged, mut broken) = (0, 0);
    loop {
        while pool.has_room() && args.slice.is_none_or(|slice| watch.elapsed() < slice) {
            let Some(job) = seeds.todo.pop_front() else { break };
            pool.begin(job)?;
        }
        let Some((job, ended)) = pool.next()? else { break };
        match ended {
            Ended::Broken(why) => {
                broken += 1;
                eprintln!("resilver-sim: seed {} of {}: {why}", job.seed, job.scenario);
            }
            Ended::Judged(outcome) => {
                let Some(outcome) = seeds.compared(*outcome) else { continue };
                judged += 1;
                judge(&mut progress, &job, &outcome);
            }
        }
        progress.wall_ms = before_ms + watch.elapsed().as_millis() as u64;
        if let Some(path) = args.state.as_ref().filter(|_| judged % STORE_EVERY == 0) {
            progress.store(path)?;
        }
        if judged > 0 && judged % SAY_EVERY == 0 {
            eprintln!(
                "{judged} seeds judged, {} failed, {:.1} s",
                progress.failed.len(),
                watch.elapsed().as_secs_f64()
            );
        }
        if args.fail_fast && !progress.failed.is_empty() {
            break;
        }
    }
    progress.wall_ms = before_ms + watch.elapsed().as_millis() as u64;
    if let Some(path) = &args.state {
        progress.store(path)?;
    }
    println!("{}", summary(&progress, args.scenario, seeds.todo.len()));
    let hollow = hollow(&progress, args.scenario);
    hollow.iter().for_each(|what| println!("  TESTED NOTHING: {what}"));
    Ok(match (progress.failed.is_empty(), broken > 0 || !hollow.is_empty()) {
        (false, _) => Exit::Failed,
        (true, true) => Exit::Harness,
        (true, false) => Exit::Passed,
    })
}

impl Seeds {
    fn is_twice(&self, seed: u64) -> bool {
        self.twice > 0 && seed.is_multiple_of(self.twice)
    }

    /// The outcome to judge: at once, or once both runs of the seed are there; then they must be the same.
    fn compared(&mut self, outcome: Outcome) -> Option<Outcome> {
        let seed = outcome.plan.seed;
        if !self.is_twice(seed) {
            return Some(outcome);
        }
        let Some(first) = self.first.remove(&seed) else {
            self.first.insert(seed, outcome);
            return None;
        };
        let same = (first.trace_hash, first.trace_lines) == (outcome.trace_hash, outcome.trace_lines);
        let mut outcome = outcome;
        if !same {
            outcome.failure = Some(crate::outcome::Failure {
                invariant: "same_trace".to_owned(),
                at_ms: outcome.simulated_ms,
                detail: format!(
                    "two runs of one seed differ: {:016x} ({} lines) and {:016x} ({} lines)",
                    first.trace_hash, first.trace_lines, outcome.trace_hash, outcome.trace_lines
                ),
            });
        }
        outcome.coverage.count("run_twice");
        Some(outcome)
    }
}

fn judge(progress: &mut Progress, job: &Job, outcome: &Outcome) {
    progress.coverage.merge(&outcome.coverage);
    progress.simulated_ms += outcome.simulated_ms;
    if outcome.failure.is_none() {
        progress.passed.insert(job.seed);
        return;
    }
    progress.failed.insert(job.seed);
    println!("{}", show_failure(outcome, &replay_command(outcome, job.plant.as_deref(), None)));
}

fn summary(progress: &Progress, scenario: &Scenario, left: usize) -> String {
    let seeds = progress.passed.len() + progress.failed.len();
    let wall = progress.wall_ms as f64 / 1000.0;
    let mut text = format!(
        "{}: {seeds} seeds, {} passed, {} failed; {wall:.1} s ({:.2} seeds/s), {:.0} s simulated",
        scenario.name,
        progress.passed.len(),
        progress.failed.len(),
        seeds as f64 / wall.max(0.001),
        progress.simulated_ms as f64 / 1000.0
    );
    if left > 0 {
        text.push_str(&format!("; {left} runs left: repeat the command to go on"));
    }
    let counts: Vec<String> = progress.coverage.0.iter().map(|(what, count)| format!("{what}={count}")).collect();
    counts.chunks(8).for_each(|line| text.push_str(&format!("\n  {}", line.join(" "))));
    text
}

/// What should have happened in these runs and did not: a run that tests nothing must not look like one that passed.
fn hollow(progress: &Progress, scenario: &Scenario) -> Vec<&'static str> {
    /// From so many seeds on every scenario has met what it is for.
    const ENOUGH: usize = 5;
    let (seeds, coverage) = (progress.passed.len() + progress.failed.len(), &progress.coverage);
    let mut hollow = Vec::new();
    if seeds >= ENOUGH && progress.failed.is_empty() {
        if coverage.get("client.put_ok") == 0 || coverage.get("client.get_ok") == 0 {
            hollow.push("no client was served");
        }
        if scenario.faults.0 > 0 && coverage.under("fault.") == 0 {
            hollow.push("no fault took effect");
        }
        if scenario.bounds.must_heal() && coverage.get("objects_verified") == 0 {
            hollow.push("no object was verified");
        }
    }
    hollow
}
