//! The `resilver` command: parse, wire, print.
//!
//! Owns: the process: its runtime, its log, its exit code. Must never: hold a rule of the product, or touch a file, a
//! process or a socket but through the host seam.

mod agents;
#[cfg(feature = "chaos")]
mod chaos;
mod cli;
mod client;
mod config;
mod daemon;
mod discover;
mod exit;
mod local;
mod output;
mod size;
mod telemetry;
mod up;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;
use crate::cli::context::Context;
use crate::exit::{Code, Failure};
use crate::output::Output;

fn main() -> ExitCode {
    // Usage errors end here, with 2.
    let cli = Cli::parse();
    telemetry::init(cli.global.log, cli.noun.verbosity());
    let outcome = run(cli);
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => {
            // Standard error may be closed; the code says the rest.
            let _ = writeln!(std::io::stderr(), "{failure}");
            failure.code.into()
        }
    }
}

fn run(cli: Cli) -> Result<Code, Failure> {
    let mut builder = match cli.noun.workers() {
        Some(workers) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
        None => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Internal, format!("the runtime cannot be started: {error}")))?;
    let outcome = runtime.block_on(async {
        let cx = Context {
            host: resilver_host::real::host(),
            out: Output::new(cli.global.format()),
            place: cli.global.place.clone(),
        };
        cli.noun.run(&cx).await
    });
    // A blocked read of standard input must not keep a process that has its answer.
    runtime.shutdown_background();
    outcome
}
