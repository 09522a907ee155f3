//! `bench power-loss`: its arguments, and its hosts' folder.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use resilver_chaos::bench::power_loss::cost::{self, CostOptions};
use resilver_chaos::bench::power_loss::{self, Client, PowerLossOptions};
use resilver_chaos::hosts::{Defences, Shape};

use super::{harness, new_folder, tidy};
use crate::cli::context::Context;
use crate::daemon::shutdown_signal;
use crate::exit::{Code, Failure};

/// Names the Python that has boto3.
const PYTHON: &str = "RESILVER_S3_PYTHON";

/// `bench power-loss`.
#[derive(Debug, Args)]
pub(super) struct PowerLossArgs {
    /// Times that a host loses its power, in each case
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
    /// Hosts
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(3..=16))]
    nodes: u64,
    /// Disks of each
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=8))]
    disks: u64,
    /// How long a host is without power
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration, value_name = "TIME")]
    outage: Duration,
    /// Length of the upload that power is lost in; 0: none
    #[arg(long, default_value_t = 3100, value_name = "MB")]
    upload: u64,
    /// How long a host's processor is taken
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "TIME")]
    saturation: Duration,
    /// Downloads of 10 MiB at a time meanwhile
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=256))]
    downloads: u64,
    /// Make this case only (repeatable)
    #[arg(long, value_name = "CASE", value_parser = PossibleValuesParser::new(power_loss::case_keys()))]
    only: Vec<String>,
    /// Leave this case out (repeatable)
    #[arg(long, value_name = "CASE", value_parser = PossibleValuesParser::new(power_loss::case_keys()))]
    skip: Vec<String>,
    /// Whose requests are measured. boto3: in the Python that $RESILVER_S3_PYTHON names, on a host of its own
    #[arg(long, value_enum, default_value_t = ClientName::BuiltIn)]
    client: ClientName,
    /// What the layers cost while nothing is wrong, instead of the cases
    #[arg(long)]
    cost: bool,
    /// Of --cost: times that on, off, off, on is gone through
    #[arg(long, default_value_t = 3, requires = "cost", value_parser = clap::value_parser!(u64).range(1..=50))]
    rounds: u64,
    /// Of --cost: how long each workload is
    #[arg(long, default_value_t = 5, requires = "cost", value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Of --cost: the other side; `on` shows what the machine itself varies by
    #[arg(long, value_enum, default_value_t = Against::Off, requires = "cost")]
    against: Against,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum ClientName {
    BuiltIn,
    Boto3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Against {
    Off,
    On,
}

/// Makes hosts of its own, and ends them.
pub(super) async fn bench(cx: &Context, args: &PowerLossArgs, keep: bool) -> Result<Code, Failure> {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let shape = Shape::new(count(args.nodes), count(args.disks));
    let dir = new_folder(cx, "power-loss");
    let binary = cx.binary()?;
    let say = |text: &str| cx.out.say(text);
    if args.cost {
        let against = if args.against == Against::On { Defences::On } else { Defences::Off };
        let options =
            CostOptions { shape, rounds: count(args.rounds), span: Duration::from_secs(args.seconds), against };
        let outcome = tokio::select! {
            report = cost::run(&cx.host, &dir, &binary, &options, &say) => report.map_err(|error| harness(&error)),
            () = shutdown_signal() => Err(Failure::new(Code::Internal, "interrupted")),
        };
        tidy(cx, &dir, keep || outcome.is_err()).await;
        cx.out.show(&outcome?, cost::Report::table)?;
        return Ok(Code::Ok);
    }
    let options = PowerLossOptions {
        runs: count(args.runs),
        shape,
        outage: args.outage,
        upload_bytes: args.upload * 1_000_000,
        saturation: args.saturation,
        downloads: count(args.downloads),
        only: args.only.clone(),
        skip: args.skip.clone(),
        client: client(args.client)?,
    };
    let outcome = tokio::select! {
        cases = power_loss::run(&cx.host, &dir, &binary, &options, &say) => cases.map_err(|error| harness(&error)),
        () = shutdown_signal() => Err(Failure::new(Code::Internal, "interrupted")),
    };
    tidy(cx, &dir, keep || outcome.is_err()).await;
    cx.out.show(&outcome?, |cases| power_loss::table(cases))?;
    Ok(Code::Ok)
}

fn client(name: ClientName) -> Result<Client, Failure> {
    match name {
        ClientName::BuiltIn => Ok(Client::BuiltIn),
        ClientName::Boto3 => match std::env::var_os(PYTHON).filter(|python| !python.is_empty()) {
            Some(python) => Ok(Client::Boto3(PathBuf::from(python))),
            None => {
                Err(Failure::usage(format!("--client boto3 needs a Python that has boto3, and ${PYTHON} names none"))
                    .next("python3 -m venv DIR && DIR/bin/pip install -r tests/s3/requirements.txt")
                    .next(format!("{PYTHON}=DIR/bin/python resilver bench power-loss --client boto3")))
            }
        },
    }
}
