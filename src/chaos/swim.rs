//! `bench swim`: what gossip costs a host, and how soon it tells, in clusters of many sizes that are modelled in this process.

use clap::Args;
use resilver_agent::gossip_at_scale::{Scale, ScaleOptions, run};
use resilver_chaos::bench::thread_time;

use crate::cli::context::Context;
use crate::exit::{Code, Failure};

/// More than these would not fit into memory: every member knows every other.
const MOST_MEMBERS: i64 = 20_000;

/// `bench swim`.
#[derive(Debug, Args)]
pub(super) struct SwimArgs {
    /// Sizes of clusters, one after the other. 10,000 take a quarter of an hour and 4 GiB of memory
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000", value_parser = clap::value_parser!(u32).range(2..=MOST_MEMBERS))]
    members: Vec<u32>,
    /// Datagrams lost, of a thousand
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=500))]
    lost: u32,
    /// Hosts that fall, one after the other
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    falls: u32,
}

/// `bench swim`.
pub(super) fn bench(cx: &Context, args: &SwimArgs) -> Result<Code, Failure> {
    let mut found = Vec::new();
    for members in &args.members {
        cx.out.say(format!("gossip of {members} members, {} of a thousand datagrams lost", args.lost));
        let options = ScaleOptions { members: *members, lost_per_mille: args.lost, falls: args.falls.min(members / 2) };
        let scale = run(&cx.host, options, thread_time);
        found.push(scale.map_err(|error| Failure::new(Code::Internal, format!("the model broke down: {error}")))?);
    }
    cx.out.show(&found, |found| table(found))?;
    Ok(Code::Ok)
}

fn table(found: &[Scale]) -> String {
    let mut text =
        "MEMBERS  BYTES/S  DATAGRAMS/S  CPU US/S  BYTES/S AT A FALL  FIRST KNOWS  ALL KNOW  WRONGLY DOWN  MISSED\n"
            .to_owned();
    for scale in found {
        text += &format!(
            "{:>7}  {:>7.0}  {:>11.1}  {:>8.0}  {:>17.0}  {:>9.1} s  {:>6.1} s  {:>12}  {:>6}\n",
            scale.members,
            scale.bytes_per_second,
            scale.datagrams_per_second,
            scale.core_per_mille * 1000.0,
            scale.bytes_per_second_at_a_fall,
            median(&scale.first_ms) / 1000.0,
            median(&scale.all_ms) / 1000.0,
            scale.wrongly_down,
            scale.missed,
        );
    }
    text + "(each host's own; medians of the falls; the network and the clock are modelled, protocol and seal are not)\n"
}

fn median(values: &[u64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map_or(f64::NAN, |value| *value as f64)
}
