//! `bench modes`: how soon each failure is detected and mended, on a cluster of its own for each.

use std::path::Path;

use bytes::Bytes;
use clap::Args;
use resilver_chaos::bench::modes::{self, Case, Report};
use resilver_host::disk::{read_file, replace_file};

use super::{Shape, harness, in_a_prepared_cluster};
use crate::cli::context::Context;
use crate::exit::{Code, Failure};
use crate::local::{DEFAULT_DISKS, DEFAULT_NODES, LocalCluster, Upkeep};

/// A configuration file is some kilobytes.
const MAX_CONFIG_BYTES: u64 = 64 * 1024;

/// The line of an agent's section behind which more is written.
const BEHIND: &str = "  dir: agent\n";

/// How often members are compared here. Every 10 minutes by default: a benchmark would wait for that and measure nothing else.
const COMPARED: &str = "  sensors: { replicas_every: 1s }\n";

/// `bench modes`.
#[derive(Debug, Args)]
pub(super) struct ModesArgs {
    /// Runs of each. A node bears five disruptive steps a day (24 minutes by the profile), and there are five followers
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=20))]
    runs: u64,
    /// Only this failure mode, or this case of one; may be given several times
    #[arg(long, value_name = "MODE")]
    only: Vec<modes::Cases>,
}

/// `bench modes`.
pub(super) async fn bench(cx: &Context, args: &ModesArgs, keep: bool) -> Result<Code, Failure> {
    let wanted = |case: &Case| args.only.is_empty() || args.only.iter().any(|cases| cases.0.contains(case));
    let mut report = Report { profile: "fast (policy times / 60)".to_owned(), cases: Vec::new() };
    let runs = usize::try_from(args.runs).unwrap_or(usize::MAX);
    for case in Case::ALL.into_iter().filter(wanted) {
        cx.out.say(format!("{case} ({})", case.mode()));
        let prepare = async |cluster: &LocalCluster| {
            for node in cluster.nodes() {
                compare_often(cx, &node.config).await?;
            }
            Ok(())
        };
        let shape = Shape { nodes: DEFAULT_NODES, disks: DEFAULT_DISKS, upkeep: Upkeep::Playful };
        let row = in_a_prepared_cluster(cx, "bench", shape, keep, prepare, async |cluster, target| {
            let revive = async |name: &str| revive(cluster, name).await;
            let say = |text: &str| cx.out.say(text);
            modes::run(&cx.host, target, case, runs, revive, &say).await.map_err(|error| harness(&error))
        })
        .await?;
        report.cases.push(row);
    }
    cx.out.show(&report, Report::table)?;
    Ok(if report.passed() { Code::Ok } else { Code::Failed })
}

async fn compare_often(cx: &Context, path: &Path) -> Result<(), Failure> {
    let broken = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let text = read_file(cx.host.disk.as_ref(), path, MAX_CONFIG_BYTES).await.map_err(broken)?;
    let text = String::from_utf8_lossy(&text).replacen(BEHIND, &format!("{BEHIND}{COMPARED}"), 1);
    replace_file(cx.host.disk.as_ref(), path, Bytes::from(text)).await.map_err(broken)
}

/// The place of systemd: an agent that ended is started again.
async fn revive(cluster: &LocalCluster, name: &str) -> anyhow::Result<()> {
    let node = cluster.node(name).ok_or_else(|| anyhow::anyhow!("no node {name}"))?;
    cluster.start_agent(node).await.map(drop).map_err(|failure| anyhow::anyhow!(failure.message))
}
