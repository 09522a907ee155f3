//! What the S3 door gives clients: throughput, latency, memory, beside what its parts cost alone and with where the time
//! goes.
//!
//! Owns: two buckets of its own, which it empties and removes. Must never: send a request to an address that the
//! cluster's own files do not name, or go on without end: every loop is bounded in time and count.

mod alone;
mod buckets;
mod cost;
mod memory;
mod report;
mod sizes;
pub(super) mod workload;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use resilver_host::Host;
use tokio::time::Instant;

use super::Figures;
use crate::client::Client;
use crate::s3::{From, Store};
use crate::target::Target as Cluster;
use buckets::Buckets;
pub use buckets::LISTING_BUCKET;
use cost::{Cost, Meter};
pub use memory::UnderUploads;
pub use report::{Report, Row, Target};
use sizes::{SIZES, Size};
use workload::{Ask, Ran, Until};

/// Clients that fill and empty the listing's bucket.
const FILL_CLIENTS: usize = 128;

/// What must be free before anything is written: the workloads leave up to half of it, for as long as replaced versions
/// are kept.
const LEAST_FREE_BYTES: u64 = 16 << 30;

/// How long a request of the benchmark's own housekeeping may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a node may take under uploads, MiB.
const MEMORY_TARGET: Target = Target::Under(400.0);

/// How much is done.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// How long each run of a workload is.
    pub span: Duration,
    /// Runs of each workload.
    pub runs: usize,
    /// Keys to list; 0: no listing.
    pub listing_keys: u64,
    /// How long their making may take: what is there by then is listed.
    pub fill_time: Duration,
    /// Uploads at a time; 0: memory is not measured.
    pub uploads: usize,
    /// Length of each, MiB.
    pub upload_mib: u64,
    /// Whether what was written is removed again: not in a cluster that is removed itself.
    pub tidy: bool,
}

/// Runs everything against a cluster that is up.
///
/// # Errors
/// When the cluster is not up, has no S3 doors, or breaks on the way. A target that is missed is a figure, no error.
pub async fn run(
    host: &Host,
    cluster: &Cluster,
    options: &S3Options,
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<Report> {
    let free = host.disk.space(&cluster.dir).await?.available_bytes;
    anyhow::ensure!(
        free >= LEAST_FREE_BYTES,
        "{} has {} GiB free, the benchmark wants {} GiB",
        cluster.dir.display(),
        free >> 30,
        LEAST_FREE_BYTES >> 30
    );
    let Buckets { stores, listing } = &Buckets::open(host, cluster).await?;
    let bench = Bench { host, meter: Meter::new(host, cluster, &Client::new(host, cluster)?).await?, options, say };
    let outcome = bench.measure(cluster, stores, listing).await;
    if !options.tidy {
        return outcome;
    }
    say("removing what was written");
    let tidied = buckets::remove(&[stores, listing]).await;
    // Why nothing was measured matters more than what stays behind.
    match (outcome, tidied) {
        (Ok(report), tidied) => tidied.map(|()| report),
        (broken, Ok(())) => broken,
        (broken, Err(error)) => broken.context(format!("and its buckets stay: {error:#}")),
    }
}

/// Lists the listing's bucket, into which somebody else wrote `keys` keys of `prefix` and nine digits.
///
/// # Errors
/// When the cluster is not up, or a page is not what it should be.
pub async fn list_filled(
    host: &Host,
    cluster: &Cluster,
    options: &S3Options,
    prefix: &str,
    keys: u64,
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<Row> {
    let listing = buckets::filled(host, cluster).await?;
    let bench = Bench { host, meter: Meter::new(host, cluster, &Client::new(host, cluster)?).await?, options, say };
    bench.listing(&listing, prefix, keys).await
}

struct Bench<'a> {
    host: &'a Host,
    meter: Meter,
    options: &'a S3Options,
    say: &'a (dyn Fn(&str) + Send + Sync),
}

impl Bench<'_> {
    async fn measure(&self, cluster: &Cluster, stores: &[Store], listing: &[Store]) -> anyhow::Result<Report> {
        (self.say)("measuring digests and the disk alone");
        let mut alone = alone::digests(self.host).await;
        alone.extend(alone::disk(self.host, &cluster.dir).await?);
        let mut rows = Vec::new();
        for size in &SIZES {
            rows.extend(self.size(stores, size).await?);
        }
        let mut listing_fill_seconds = 0.0;
        let mut listing_keys = 0;
        if self.options.listing_keys > 0 {
            (listing_keys, listing_fill_seconds) = self.fill(listing).await?;
            rows.push(self.listing(listing, "", listing_keys).await?);
        }
        let memory = match self.options.uploads {
            0 => None,
            uploads => {
                let mib = self.options.upload_mib;
                (self.say)(&format!("{uploads} uploads of {mib} MiB at a time through one node"));
                Some(memory::run(self.host, stores, &self.meter.nodes, uploads, mib).await?)
            }
        };
        Ok(Report {
            nodes: cluster.hosts.len(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            seconds: self.options.span.as_secs_f64(),
            alone,
            rows,
            listing_keys,
            listing_fill_seconds,
            memory,
            memory_target: MEMORY_TARGET,
        })
    }

    /// Puts of one size, then gets of what is there.
    async fn size(&self, stores: &[Store], size: &Size) -> anyhow::Result<Vec<Row>> {
        let mut content = vec![0; size.bytes];
        StdRng::seed_from_u64(size.bytes as u64).fill_bytes(&mut content);
        let content = Bytes::from(content);
        let crc32c = crc32c::crc32c(&content);
        let prefix = format!("{}/", size.bytes);
        let until = Until { span: self.options.span, operations: size.puts };
        let put = Ask::Put { content, keys: size.keys };
        let name = format!("{} PUT", size.name);
        let put = self.workload(stores, &prefix, &put, size.clients, until, &name).await?;
        let there = put.operations.min(size.keys);
        let mut rows = vec![put.row(&name, size.by_count, size.put)];
        if size.get.is_some() {
            let until = Until { operations: u64::MAX, ..until };
            let get = Ask::Get { len_bytes: size.bytes as u64, crc32c, keys: there };
            let name = format!("{} GET", size.name);
            let get = self.workload(stores, &prefix, &get, size.clients, until, &name).await?;
            rows.push(get.row(&name, size.by_count, size.get));
        }
        Ok(rows)
    }

    async fn workload(
        &self,
        stores: &[Store],
        prefix: &str,
        ask: &Ask,
        clients: usize,
        until: Until,
        name: &str,
    ) -> anyhow::Result<Measured> {
        let mut measured = Measured { clients, ..Measured::default() };
        let from = Arc::new(AtomicU64::new(0));
        for _ in 0..self.options.runs {
            let before = self.meter.read(self.host).await?;
            let ran = workload::run(stores, prefix, ask, clients, until, &from).await.context(name.to_owned())?;
            measured.cost.add(&self.meter.since(self.host, &before).await?);
            measured.operations += ran.operations;
            measured.rates.push((ran.bytes as f64 / ran.seconds / 1e6, ran.operations as f64 / ran.seconds));
            measured.medians_ms.push(ran.percentile_ms(50));
            measured.all.add(ran);
        }
        let (bytes, count): (Vec<f64>, Vec<f64>) = measured.rates.iter().copied().unzip();
        (self.say)(&format!("{name}: {bytes:.0?} MB/s, {count:.0?} a second"));
        Ok(measured)
    }

    /// Makes the keys to list, as many as fit in the time.
    async fn fill(&self, stores: &[Store]) -> anyhow::Result<(u64, f64)> {
        let wanted = self.options.listing_keys;
        (self.say)(&format!("putting {wanted} empty objects to list"));
        let begun = Instant::now();
        let put = Ask::Put { content: Bytes::new(), keys: wanted };
        let until = Until { span: self.options.fill_time, operations: wanted };
        let ran = workload::run(stores, "", &put, FILL_CLIENTS, until, &Arc::default()).await.context("filling")?;
        let seconds = begun.elapsed().as_secs_f64();
        (self.say)(&format!("{} are there after {seconds:.0} s", ran.operations));
        Ok((ran.operations, seconds))
    }

    async fn listing(&self, stores: &[Store], prefix: &str, keys: u64) -> anyhow::Result<Row> {
        let until = Until { span: self.options.span, operations: u64::MAX };
        let name = format!("a listing of 1,000 of {keys} keys");
        let measured = self.workload(stores, prefix, &Ask::List { keys }, 1, until, &name).await?;
        // A page that is empty is fast, too.
        let page = stores[0].list("", From::Start, workload::PAGE_KEYS, DEADLINE).await?;
        let expected = workload::PAGE_KEYS.min(usize::try_from(keys)?);
        anyhow::ensure!(page.objects.len() == expected, "a page of {} keys instead of {expected}", page.objects.len());
        let mut row = measured.row(&name, true, None);
        row.figures = Figures::over(&name, "ms", measured.medians_ms).context("nothing was listed")?;
        let target = Target::Under(20.0);
        (row.target, row.met) = (Some(target), Some(target.met_by(row.figures.median)));
        Ok(row)
    }
}

/// All runs of one workload.
#[derive(Default)]
struct Measured {
    clients: usize,
    operations: u64,
    /// MB/s and operations per second of each run.
    rates: Vec<(f64, f64)>,
    /// Median latency of each run.
    medians_ms: Vec<f64>,
    all: Ran,
    cost: Cost,
}

impl Measured {
    fn row(&self, name: &str, by_count: bool, target: Option<Target>) -> Row {
        let (unit, rates): (_, Vec<f64>) = match by_count {
            true => ("/s", self.rates.iter().map(|(_, count)| *count).collect()),
            false => ("MB/s", self.rates.iter().map(|(bytes, _)| *bytes).collect()),
        };
        let figures = Figures::over(name, unit, rates).unwrap_or_else(|| Figures {
            name: name.to_owned(),
            unit,
            runs: Vec::new(),
            min: f64::NAN,
            median: f64::NAN,
            max: f64::NAN,
        });
        Row {
            target,
            met: target.map(|target| target.met_by(figures.median)),
            figures,
            clients: self.clients,
            operations: self.operations,
            content_bytes: self.all.bytes,
            p50_ms: self.all.percentile_ms(50),
            p99_ms: self.all.percentile_ms(99),
            problems: self.all.problems.clone(),
            cost: self.cost.clone(),
        }
    }
}
