//! `selftest`: every planted bug must be caught within its budget of seeds. What the rules cannot see they cannot guard.

use resilver_host::planted::Bug;

use super::Exit;
use super::child::{Ended, Job, Pool, Stopwatch};
use crate::cli::SelftestArgs;

/// The most seeds a bug may take to be caught (issue 3).
pub(crate) const BUDGET: u64 = 500;

/// The scenarios in which a bug is hunted, in turn.
pub(crate) fn hunting_ground(bug: Bug) -> &'static [&'static str] {
    match bug {
        Bug::TruncateAtBadRecord => &["metadata"],
        Bug::AckBeforeLogSync | Bug::ForgetVote => &["power", "crashes"],
        Bug::AckBeforeShardSync => &["power"],
        // Operators restart nodes there while a machine stays away.
        Bug::ActOnStaleView | Bug::ReuseOldFence => &["leaders"],
        Bug::SkipLease => &["recovery", "leaders"],
        Bug::TrustBadShard => &["disks"],
        Bug::RestartInLoop => &["metadata"],
        Bug::DeleteNotAside => &["disks", "mixed"],
        // A machine stays away for seconds, and is back while others go on.
        Bug::DropHintEarly => &["power", "mixed"],
        // A voter is cut off, and comes back.
        Bug::StandUnasked => &["lost-peer"],
        Bug::WipeAndVote => &["metadata"],
        Bug::RebuildGarbage => &["disks"],
        // Persons give disks of several machines up at a time.
        Bug::GiveUpLastCopy | Bug::GiveUpTwoAtOnce | Bug::DrainGivesUpEarly => &["disk-verbs"],
        Bug::ResyncSkipsRecord => &["resync"],
        // What was done to a node has to be taken back there.
        Bug::CallItUndone => &["slow-follower"],
        Bug::IllHolder => &["clock-skew"],
        // Two persons ask two survivors at a time.
        Bug::KeepOldEpoch => &["quorum"],
        // Two ask two nodes, one of which dies right after it went on.
        Bug::RestoreBesideSilent => &["restore"],
    }
}

/// Hunts every bug (or those that are named).
pub(crate) fn selftest(args: &SelftestArgs) -> anyhow::Result<Exit> {
    let bugs: Vec<Bug> = if args.bugs.is_empty() { Bug::ALL.to_vec() } else { args.bugs.clone() };
    let mut missed = 0;
    for bug in bugs {
        let watch = Stopwatch::start();
        match hunt(bug, args)? {
            Some((seeds, scenario, caught)) => println!(
                "{:<24} caught by {} in {scenario}, seed {} ({seeds} seeds, {:.0} s): {}",
                bug.as_str(),
                caught.0,
                caught.1,
                watch.elapsed().as_secs_f64(),
                caught.2
            ),
            None => {
                missed += 1;
                println!("{:<24} NOT CAUGHT within {} seeds", bug.as_str(), args.budget);
            }
        }
    }
    Ok(if missed == 0 { Exit::Passed } else { Exit::Failed })
}

/// Rule, seed and what was seen.
type Caught = (String, u64, String);

/// Runs the seed with nothing planted.
fn passes_without(job: &Job) -> anyhow::Result<()> {
    let mut pool = Pool::new(1)?;
    pool.begin(Job { plant: None, ..job.clone() })?;
    match pool.next()? {
        Some((_, Ended::Judged(outcome))) if outcome.failure.is_none() => Ok(()),
        Some((_, Ended::Broken(why))) => anyhow::bail!("{}, seed {}: {why}", job.scenario, job.seed),
        _ => anyhow::bail!("{}, seed {} fails without any planted bug: see to that first", job.scenario, job.seed),
    }
}

/// Seeds so far, the scenario, and what caught the bug.
fn hunt(bug: Bug, args: &SelftestArgs) -> anyhow::Result<Option<(u64, &'static str, Caught)>> {
    let scenarios = hunting_ground(bug);
    let mut pool = Pool::new(args.jobs)?;
    let (mut next, mut done) = (0, 0);
    loop {
        while pool.has_room() && next < args.budget {
            let scenario = scenarios[next as usize % scenarios.len()];
            let (scenario, plant) = (scenario.to_owned(), Some(bug.as_str().to_owned()));
            pool.begin(Job { seed: next, scenario, only: None, plant })?;
            next += 1;
        }
        let Some((job, ended)) = pool.next()? else { return Ok(None) };
        done += 1;
        match ended {
            Ended::Judged(outcome) => {
                if let Some(failure) = outcome.failure {
                    // What fails without the bug, too, was not caught by it: that is a finding of its own.
                    passes_without(&job)?;
                    let scenario = scenarios.iter().find(|name| **name == job.scenario).copied().unwrap_or_default();
                    return Ok(Some((done, scenario, (failure.invariant, job.seed, failure.detail))));
                }
            }
            Ended::Broken(why) => anyhow::bail!("{}, seed {}: {why}", bug.as_str(), job.seed),
        }
    }
}
