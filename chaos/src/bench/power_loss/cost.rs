//! What the layers that make the loss of a peer cost nothing cost themselves, while nothing is wrong: throughput and the
//! slowest requests, locks, processor and memory, with them against without.
//!
//! Each side is measured on clusters of its own, new ones of the same shape, one at a time, in the order on, off, off, on:
//! what drifts (a disk that fills, a machine that warms up, a neighbour) then strikes both sides alike. Neighbours make a
//! pair, and the median of the pairs is the figure.
//!
//! Owns: the measures (one line each in [`measures`]), the order, the comparison. Must never: compare two runs that are
//! not neighbours.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use resilver_host::Host;
use tokio::time::Instant;

use super::super::procfs;
use super::super::s3::workload::{self, Ask, DEADLINE, Until};
use crate::hosts::{Defences, HostCluster, Shape};
use crate::s3::Store;
use report::{Compare, Measure};
pub use report::{Report, Row};

mod locks;
mod report;

/// The bucket of the workloads.
const BUCKET: &str = "cost";
/// Before each workload, unmeasured: connections, caches and latencies are those of a cluster at work.
const WARM_UP: Duration = Duration::from_secs(1);
/// After the workloads, before the quiet is measured: what they left behind is done by then.
const SETTLE: Duration = Duration::from_secs(3);
/// How long a cluster that does nothing is looked at, at least: its processor time is counted in hundredths of a second, and
/// is to be told to a tenth of a percent.
const LEAST_QUIET: Duration = Duration::from_secs(10);
/// What must be free before anything is written: every cluster stays until the last has been measured.
const LEAST_FREE_BYTES: u64 = 16 << 30;

/// What is measured.
#[derive(Clone, Debug)]
pub struct CostOptions {
    /// How large each cluster is.
    pub shape: Shape,
    /// Times that on, off, off, on is gone through: two pairs each.
    pub rounds: usize,
    /// How long each workload is.
    pub span: Duration,
    /// The other side: off, or on once more, which shows what the machine itself varies by.
    pub against: Defences,
}

/// Requests of one kind.
struct Workload {
    name: &'static str,
    bytes: usize,
    puts: bool,
    clients: usize,
    /// Objects: enough to lie on every disk.
    keys: u64,
}

const WORKLOADS: [Workload; 3] = [
    Workload { name: "256 KiB PUT", bytes: 256 << 10, puts: true, clients: 16, keys: 256 },
    Workload { name: "256 KiB GET", bytes: 256 << 10, puts: false, clients: 16, keys: 256 },
    Workload { name: "16 MiB GET", bytes: 16 << 20, puts: false, clients: 4, keys: 8 },
];

/// Every figure of one cluster, in the order in which [`block`] gives them.
fn measures() -> Vec<Measure> {
    let of_load = |load: &Workload| {
        [
            Measure::new(format!("{}: requests", load.name), "/s", Compare::LessIsWorse, Some(3.0)),
            Measure::new(format!("{}: 99 of 100", load.name), "ms", Compare::MoreIsWorse, Some(3.0)),
            Measure::new(format!("{}: nodes' processor", load.name), "ms/request", Compare::MoreIsWorse, None),
        ]
    };
    let quiet = [
        Measure::new("a lock, taken and given back".to_owned(), "ms", Compare::Difference, Some(1.0)),
        Measure::new("a node that does nothing: processor".to_owned(), "% of a core", Compare::Difference, Some(1.0)),
        Measure::new("a node: resident memory".to_owned(), "MiB", Compare::Difference, Some(20.0)),
    ];
    WORKLOADS.iter().flat_map(of_load).chain(quiet).collect()
}

/// Measures both sides.
///
/// # Errors
/// When a cluster does not come up, or breaks on the way. A target that is missed is a figure, no error.
pub async fn run(
    host: &Host,
    dir: &Path,
    binary: &Path,
    options: &CostOptions,
    say: &dyn Fn(&str),
) -> anyhow::Result<Report> {
    host.disk.create_dir_all(dir).await?;
    let free = host.disk.space(dir).await?.available_bytes;
    anyhow::ensure!(
        free >= LEAST_FREE_BYTES,
        "{} has {} GiB free, the benchmark wants {} GiB",
        dir.display(),
        free >> 30,
        LEAST_FREE_BYTES >> 30
    );
    let mut blocks = Vec::new();
    for (number, with) in report::order(options.rounds).enumerate() {
        let shape = Shape { defences: if with { Defences::On } else { options.against }, ..options.shape };
        let figures = block(host, &dir.join(format!("block{number}")), binary, shape, options.span).await?;
        let shown: Vec<String> = figures.iter().map(|figure| format!("{figure:.1}")).collect();
        say(&format!("{}: {}", if with { "on" } else { report::other(options.against) }, shown.join(" ")));
        blocks.push((with, figures));
    }
    Ok(Report::over(&measures(), &blocks, options))
}

/// All figures of one new cluster.
async fn block(host: &Host, dir: &Path, binary: &Path, shape: Shape, span: Duration) -> anyhow::Result<Vec<f64>> {
    let cluster = HostCluster::start(host, dir, binary, shape).await?;
    let figures = measured(host, &cluster, shape, span).await;
    let ended = cluster.end().await;
    let figures = figures?;
    ended.map(|()| figures)
}

async fn measured(host: &Host, cluster: &HostCluster, shape: Shape, span: Duration) -> anyhow::Result<Vec<f64>> {
    let all: Vec<usize> = (0..shape.nodes).collect();
    let stores = cluster.access(&all).await?.stores(host, BUCKET)?;
    stores[0].ensure_bucket(DEADLINE).await?;
    let pids = cluster.node_pids().await?;
    let mut figures = Vec::new();
    for load in &WORKLOADS {
        figures.extend(under(host, &stores, &pids, load, span).await.context(load.name)?);
    }
    figures.push(locks::median_ms(host, &cluster.target().hosts[0]).await.context("locks")?);
    tokio::time::sleep(SETTLE).await;
    let (before, begun) = (processor(host, &pids).await?, Instant::now());
    tokio::time::sleep(span.max(LEAST_QUIET)).await;
    let used = processor(host, &pids).await? - before;
    figures.push(100.0 * used / begun.elapsed().as_secs_f64() / pids.len() as f64);
    let mut resident = 0.0;
    for pid in &pids {
        resident += procfs::memory(host, *pid).await?.resident;
    }
    figures.push(resident / pids.len() as f64);
    Ok(figures)
}

/// The figures of one workload.
async fn under(
    host: &Host,
    stores: &[Store],
    pids: &[u32],
    load: &Workload,
    span: Duration,
) -> anyhow::Result<[f64; 3]> {
    let content: Bytes = (0u8..=250).cycle().take(load.bytes).collect();
    let crc32c = crc32c::crc32c(&content);
    let prefix = format!("{}/", load.bytes);
    let from = Arc::default();
    let put = Ask::Put { content, keys: load.keys };
    let get = Ask::Get { len_bytes: load.bytes as u64, crc32c, keys: load.keys };
    if !load.puts {
        // Every key once: what is read must be there.
        let fill = Until { span: DEADLINE, operations: load.keys };
        let filled = workload::run(stores, &prefix, &put, load.clients, fill, &Arc::default()).await?;
        anyhow::ensure!(filled.operations == load.keys, "only {} objects could be put", filled.operations);
    }
    let ask = if load.puts { &put } else { &get };
    let until = |span| Until { span, operations: u64::MAX };
    workload::run(stores, &prefix, ask, load.clients, until(WARM_UP), &from).await?;
    let before = processor(host, pids).await?;
    let ran = workload::run(stores, &prefix, ask, load.clients, until(span), &from).await?;
    let used = processor(host, pids).await? - before;
    anyhow::ensure!(ran.problems.is_empty(), "in a healthy cluster: {:?}", ran.problems);
    let operations = ran.operations as f64;
    Ok([operations / ran.seconds, ran.percentile_ms(99), used * 1e3 / operations])
}

/// Processor seconds of all of them.
async fn processor(host: &Host, pids: &[u32]) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for pid in pids {
        let cpu = procfs::cpu(host, *pid).await.context("a node has ended while it was measured")?;
        seconds += cpu.user + cpu.system;
    }
    Ok(seconds)
}
