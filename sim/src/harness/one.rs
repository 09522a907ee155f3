//! The hidden verb: runs one seed in this process and writes the verdict.
#![allow(clippy::disallowed_methods, reason = "writes the trace to a real file, before and beside the run")]

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};

use resilver_sim_kernel::{Kernel, interpose};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::Exit;
use crate::cli::OneArgs;
use crate::run::{self, Options};

/// The run's stack: as large as a main thread's.
const STACK_BYTES: usize = 8 << 20;

/// Runs it, in a thread of its own that has asked for nothing random yet: what a log's filter, say, draws for the keys of
/// its maps must not shift what the run draws.
pub(crate) fn one(args: OneArgs) -> Exit {
    let work = move || {
        interpose::begin(args.seed);
        run_here(args)
    };
    let thread = std::thread::Builder::new().name("run".to_owned()).stack_size(STACK_BYTES).spawn(work);
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(exit)) => exit,
        Ok(Err(_)) => harness("the run's thread panicked"),
        Err(error) => harness(&format!("no thread for the run: {error}")),
    }
}

/// The verdict goes to standard output as JSON; or the hash alone, when asked.
fn run_here(args: OneArgs) -> Exit {
    let trace = match args.trace.as_ref().map(File::create).transpose() {
        Ok(file) => file.map(|file| Box::new(BufWriter::new(file)) as Box<dyn Write + Send>),
        Err(error) => return harness(&format!("the trace cannot be written: {error}")),
    };
    if let Some(filter) = &args.log {
        let said =
            tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_timer(Speaker).with_ansi(false);
        said.with_writer(std::io::stderr).init();
    }
    let options = Options {
        seed: args.seed,
        scenario: args.scenario,
        only: args.only.map(|only| only.0),
        plant: args.plant,
        trace,
    };
    let outcome = match run::run(options) {
        Ok(outcome) => outcome,
        Err(error) => return harness(&error.to_string()),
    };
    let said = if args.hash { Ok(format!("{:016x}", outcome.trace_hash)) } else { serde_json::to_string(&outcome) };
    match said {
        Ok(said) => println!("{said}"),
        Err(error) => return harness(&error.to_string()),
    }
    if outcome.failure.is_some() { Exit::Failed } else { Exit::Passed }
}

/// In the place of a time, which the trace has: which process speaks. The trace names its machine and role.
struct Speaker;

impl FormatTime for Speaker {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        match Kernel::current() {
            Some(pid) => write!(w, "{}", pid.0),
            None => w.write_str("harness"),
        }
    }
}

fn harness(what: &str) -> Exit {
    eprintln!("resilver-sim: {what}");
    Exit::Harness
}
