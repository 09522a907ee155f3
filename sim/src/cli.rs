//! The command line.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use resilver_host::planted::Bug;

use crate::scenario::{self, Scenario};

/// The whole cluster in one deterministic process, seed after seed.
#[derive(Debug, Parser)]
#[command(name = "resilver-sim", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run many seeds. Ends with 0 when all passed, 1 when one failed, 70 when the simulator itself did not work
    Run(RunArgs),
    /// Run one seed again
    Replay(ReplayArgs),
    /// Drop faults of a failing seed while it breaks the same rule
    Shrink(ShrinkArgs),
    /// Show scenarios, rules and planted bugs
    List,
    /// Show the fault plan of a seed without running it
    Plan(PlanArgs),
    /// Check that every planted bug is caught
    Selftest(SelftestArgs),
    /// Run one seed in this very process
    #[command(hide = true)]
    One(OneArgs),
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Which seeds: `A..B`, without B
    #[arg(long, value_name = "A..B")]
    pub(crate) seeds: Seeds,
    /// Which scenario
    #[arg(long, default_value = "mixed", value_parser = scenario_named)]
    pub(crate) scenario: &'static Scenario,
    /// How many seeds at a time, each in a process of its own
    #[arg(long, default_value_t = 2)]
    pub(crate) jobs: usize,
    /// Run every so manieth seed twice and compare the traces; 0: none
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub(crate) twice_every: u64,
    /// Keep what was done in this file and go on from there
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// Begin no seed after this many seconds: a slice of a long run
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) slice: Option<Duration>,
    /// Stop at the first failed seed
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Plant this bug
    #[arg(long, value_name = "BUG")]
    pub(crate) plant: Option<Bug>,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Which seed
    #[arg(long)]
    pub(crate) seed: u64,
    /// Which scenario
    #[arg(long, default_value = "mixed", value_parser = scenario_named)]
    pub(crate) scenario: &'static Scenario,
    /// Keep only these faults of its plan: `3,7,9`, or `none`
    #[arg(long, value_name = "LIST")]
    pub(crate) only: Option<Only>,
    /// Plant this bug
    #[arg(long, value_name = "BUG")]
    pub(crate) plant: Option<Bug>,
    /// Print the whole trace
    #[arg(long)]
    pub(crate) trace: bool,
    /// Show what node and agent log, too, on standard error: a filter such as `warn` or `resilver_node=debug`
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

/// Arguments of `shrink`.
#[derive(Debug, Args)]
pub(crate) struct ShrinkArgs {
    /// Which seed
    #[arg(long)]
    pub(crate) seed: u64,
    /// Which scenario
    #[arg(long, default_value = "mixed", value_parser = scenario_named)]
    pub(crate) scenario: &'static Scenario,
    /// Plant this bug
    #[arg(long, value_name = "BUG")]
    pub(crate) plant: Option<Bug>,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Which seed
    #[arg(long)]
    pub(crate) seed: u64,
    /// Which scenario
    #[arg(long, default_value = "mixed", value_parser = scenario_named)]
    pub(crate) scenario: &'static Scenario,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `selftest`.
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// Hunt these only
    #[arg(value_name = "BUG")]
    pub(crate) bugs: Vec<Bug>,
    /// How many seeds at a time
    #[arg(long, default_value_t = 2)]
    pub(crate) jobs: usize,
    /// The most seeds per bug
    #[arg(long, default_value_t = crate::harness::SELFTEST_BUDGET, value_parser = clap::value_parser!(u64).range(1..=crate::harness::SELFTEST_BUDGET))]
    pub(crate) budget: u64,
}

/// Arguments of the hidden verb.
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    #[arg(long)]
    pub(crate) seed: u64,
    #[arg(long, value_parser = scenario_named)]
    pub(crate) scenario: &'static Scenario,
    #[arg(long)]
    pub(crate) only: Option<Only>,
    #[arg(long)]
    pub(crate) plant: Option<Bug>,
    /// Write the trace to this file
    #[arg(long)]
    pub(crate) trace: Option<PathBuf>,
    /// Say the trace's hash and nothing else
    #[arg(long)]
    pub(crate) hash: bool,
    /// Show what the programs log on standard error
    #[arg(long)]
    pub(crate) log: Option<String>,
}

/// A range of seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seeds(pub(crate) Range<u64>);

impl FromStr for Seeds {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no range of seeds: A..B expected, with A below B");
        let (from, to) = text.split_once("..").ok_or_else(bad)?;
        let (from, to) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
        if from < to { Ok(Seeds(from..to)) } else { Err(bad()) }
    }
}

/// Numbers of kept events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Only(pub(crate) BTreeSet<u32>);

impl FromStr for Only {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Only(BTreeSet::new()));
        }
        let number = |part: &str| part.trim().parse().map_err(|_| format!("{part:?} is no number of a fault"));
        text.split(',').map(number).collect::<Result<_, _>>().map(Only)
    }
}

fn scenario_named(name: &str) -> Result<&'static Scenario, String> {
    scenario::find(name).ok_or_else(|| {
        let names: Vec<&str> = scenario::all().map(|scenario| scenario.name).collect();
        format!("one of {} expected", names.join(", "))
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).map_err(|_| "a number of seconds expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lists_are_read_as_written() {
        assert_eq!("3..9".parse(), Ok(Seeds(3..9)));
        for bad in ["9..3", "3", "3..3", "a..b", ""] {
            assert!(bad.parse::<Seeds>().is_err(), "{bad}");
        }
        assert_eq!("7,3".parse(), Ok(Only(BTreeSet::from([3, 7]))));
        assert_eq!("none".parse(), Ok(Only(BTreeSet::new())));
        assert!("".parse::<Only>().is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        assert!(Cli::try_parse_from(["sim", "run", "--seeds", "0..3", "--scenario", "calm"]).is_ok());
        let wrong = Cli::try_parse_from(["sim", "run", "--seeds", "0..3", "--scenario", "clam"]);
        assert!(wrong.is_err_and(|error| error.exit_code() == 2 && error.to_string().contains("calm")));
    }
}
