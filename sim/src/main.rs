//! The simulator's command: the real node and agent on simulated machines, seed after seed.
//!
//! Owns: the verbs and their exit codes (0 passed, 1 a failed seed, 2 usage, 70 the simulator itself). See
//! docs/simulation.md.

mod cli;
mod cluster;
mod harness;
mod outcome;
mod plan;
mod run;
mod scenario;
mod smartctl;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Verb};
use crate::harness::Exit;

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run(args) => harness::many(&args),
        Verb::Replay(args) => harness::replay(&args),
        Verb::Shrink(args) => harness::shrink(&args),
        Verb::Selftest(args) => harness::selftest(&args),
        Verb::Plan(args) => harness::show_plan(&args),
        Verb::List => Ok(harness::list()),
        Verb::One(args) => Ok(harness::one(args)),
    };
    let exit = done.unwrap_or_else(|error| {
        eprintln!("resilver-sim: {error:#}");
        Exit::Harness
    });
    ExitCode::from(exit as u8)
}
