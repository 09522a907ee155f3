//! `replay`: one seed again, in a process of its own, with its trace.
#![allow(clippy::disallowed_methods, reason = "the parent lives on the real machine and simulates nothing")]

use std::io::Write;

use super::child::{Ended, Job, Pool, command};
use super::{Exit, numbers, replay_command, show_failure};
use crate::cli::ReplayArgs;

/// Runs it and shows the trace (all of it, byte for byte the same each time) or the verdict.
pub(crate) fn replay(args: &ReplayArgs) -> anyhow::Result<Exit> {
    let only = args.only.as_ref().map(|only| numbers(&only.0));
    let plant = args.plant.map(|plant| plant.as_str().to_owned());
    let job = Job { seed: args.seed, scenario: args.scenario.name.to_owned(), only, plant };
    if args.trace || args.log.is_some() {
        return traced(&job, args);
    }
    let mut pool = Pool::new(1)?;
    pool.begin(job.clone())?;
    Ok(match pool.next()? {
        Some((_, Ended::Judged(outcome))) if outcome.failure.is_some() => {
            let replay = replay_command(&outcome, job.plant.as_deref(), job.only.as_deref());
            print!("{}", show_failure(&outcome, &replay));
            Exit::Failed
        }
        Some((_, Ended::Judged(outcome))) => {
            println!("seed {} passed, trace hash {:016x}", job.seed, outcome.trace_hash);
            Exit::Passed
        }
        Some((_, Ended::Broken(why))) => {
            eprintln!("resilver-sim: seed {}: {why}", job.seed);
            Exit::Harness
        }
        None => Exit::Harness,
    })
}

/// The trace goes through a file and not through a pipe, so that a reader who goes away does not change a run.
fn traced(job: &Job, args: &ReplayArgs) -> anyhow::Result<Exit> {
    let path = std::env::temp_dir().join(format!("resilver-sim-trace-{}", std::process::id()));
    let mut command = command(job)?;
    command.arg("--hash").arg("--trace").arg(&path).stdout(std::process::Stdio::null());
    if let Some(filter) = &args.log {
        command.args(["--log", filter]);
    }
    let status = command.status()?;
    if !args.trace {
        let _ = std::fs::remove_file(&path);
        return Ok(exit(status));
    }
    let copied =
        std::fs::File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut std::io::stdout().lock()));
    // A reader that went away is no error of the run.
    let _ = copied.map(|_| std::io::stdout().flush());
    let _ = std::fs::remove_file(&path);
    Ok(exit(status))
}

fn exit(status: std::process::ExitStatus) -> Exit {
    match status.code() {
        Some(0) => Exit::Passed,
        Some(1) => Exit::Failed,
        _ => Exit::Harness,
    }
}
