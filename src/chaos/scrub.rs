//! `bench scrub`: clusters with and without scrub and anti-entropy, under the same load.

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use resilver_chaos::bench::Figures;
use resilver_chaos::bench::scrub::{self, Pair, Run};
use resilver_host::disk::{read_file, replace_file};
use serde::Serialize;

use super::{Shape, harness, in_a_prepared_cluster};
use crate::cli::context::Context;
use crate::exit::{Code, Failure};
use crate::local::{DEFAULT_DISKS, DEFAULT_NODES, LocalCluster, Upkeep};

/// A configuration file is some kilobytes.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;

/// What a node is told not to do within the life of a benchmark.
const NEVER: &str = "10000h";

/// `bench scrub`.
#[derive(Debug, Args)]
pub(super) struct ScrubArgs {
    /// Pairs of clusters, in the order on, off, off, on
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pairs: u64,
    /// How long clients work on each
    #[arg(long = "for", default_value = "20s", value_parser = humantime::parse_duration, value_name = "TIME")]
    span: Duration,
    /// Objects of 256 KiB that are there before
    #[arg(long, default_value_t = 1500, value_name = "COUNT")]
    objects: u64,
    /// How long one pass of the scrub, and of the full comparison, takes. A disk of 4 TB within 14 days is 3.3 MB/s
    #[arg(long, default_value = "16s", value_parser = humantime::parse_duration, value_name = "TIME")]
    period: Duration,
    /// How often disks are compared with the metadata by sums; 10s is the default of nodes
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
    check: Duration,
}

#[derive(Serialize)]
struct Report {
    pairs: Vec<Pair>,
    cost_percent: Option<Figures>,
    processor_percent: Option<Figures>,
    /// Bytes per second and disk that scrubs read, with them.
    scrub_bytes_per_second: f64,
}

/// `bench scrub`.
pub(super) async fn scrub(cx: &Context, args: &ScrubArgs, keep: bool) -> Result<Code, Failure> {
    let mut pairs = Vec::new();
    for pair in 0..args.pairs {
        // What the machine does by itself in the course of time hits both.
        let (first, second) = (one(cx, args, pair % 2 == 0, keep).await?, one(cx, args, pair % 2 != 0, keep).await?);
        let (on, off) = if pair % 2 == 0 { (first, second) } else { (second, first) };
        pairs.push(Pair { on, off });
    }
    let disks = f64::from(DEFAULT_NODES * DEFAULT_DISKS);
    let read: f64 = pairs.iter().map(|pair| pair.on.scrubbed_bytes as f64 / pair.on.seen.seconds / disks).sum();
    let report = Report {
        cost_percent: Figures::over(
            "scrub and anti-entropy: throughput",
            "%",
            pairs.iter().map(Pair::cost_percent).collect(),
        ),
        processor_percent: Figures::over(
            "scrub and anti-entropy: processor per request",
            "%",
            pairs.iter().map(Pair::processor_percent).collect(),
        ),
        scrub_bytes_per_second: read / pairs.len().max(1) as f64,
        pairs,
    };
    cx.out.show(&report, Report::text)?;
    Ok(Code::Ok)
}

async fn one(cx: &Context, args: &ScrubArgs, on: bool, keep: bool) -> Result<Run, Failure> {
    let prepare = async |cluster: &LocalCluster| {
        for node in cluster.nodes() {
            let path = &node.config;
            let broken = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
            let text = read_file(cx.host.disk.as_ref(), path, MAX_CONFIG_BYTES).await.map_err(broken)?;
            let text = tuned(&String::from_utf8_lossy(&text), args, on);
            replace_file(cx.host.disk.as_ref(), path, Bytes::from(text)).await.map_err(broken)?;
        }
        Ok(())
    };
    // The lines that it changes are written for the playful one.
    let shape = Shape { nodes: DEFAULT_NODES, disks: DEFAULT_DISKS, upkeep: Upkeep::Playful };
    let run = in_a_prepared_cluster(cx, "bench", shape, keep, prepare, async |_, target| {
        scrub::run(&cx.host, target, args.objects, args.span).await.map_err(|error| harness(&error))
    })
    .await?;
    cx.out.say(format!("{}: {}", if on { "on" } else { "off" }, run.seen.line()));
    Ok(run)
}

/// A node's configuration with other times for scrub and comparison.
fn tuned(text: &str, args: &ScrubArgs, on: bool) -> String {
    let time = |time: Duration| if on { humantime::format_duration(time).to_string() } else { NEVER.to_owned() };
    let (period, check) = (time(args.period), time(args.check));
    let line = |line: &str| match line.trim_start().split(':').next() {
        Some("scrub") => format!("  scrub: {{ period: {period}, rate_bytes_per_second: 50000000 }}\n"),
        Some("repair") => format!("  repair: {{ check_interval: {check}, full_check_period: {period} }}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

impl Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for (at, pair) in self.pairs.iter().enumerate() {
            text += &format!("pair {}: on {}\n        off {}\n", at + 1, pair.on.seen.line(), pair.off.seen.line());
        }
        for figures in self.cost_percent.iter().chain(&self.processor_percent) {
            text += &(figures.line() + "\n");
        }
        text += &format!("scrubs read {:.1} MB/s of each disk\n", self.scrub_bytes_per_second / 1e6);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_times_of_scrub_and_comparison_are_changed() {
        let text =
            "node:\n  name: n1\n  scrub: { period: 20s }\n  repair: { check_interval: 2s }\nagent:\n  name: n1\n";
        let args = ScrubArgs {
            pairs: 1,
            span: Duration::from_secs(1),
            objects: 1,
            period: Duration::from_secs(60),
            check: Duration::from_secs(10),
        };
        let on = tuned(text, &args, true);
        assert!(
            on.contains("scrub: { period: 1m,")
                && on.contains("repair: { check_interval: 10s, full_check_period: 1m }"),
            "{on}"
        );
        let off = tuned(text, &args, false);
        assert_eq!(off.matches(NEVER).count(), 3, "{off}");
        assert_eq!(on.lines().count(), text.lines().count());
    }
}
