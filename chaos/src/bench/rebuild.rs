//! How fast a lost disk is rebuilt, where the time goes, and what clients notice of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use resilver_host::Host;
use resilver_proto::store::DiskStatus;
use resilver_proto::web;
use serde::Serialize;
use tokio::time::Instant;

use super::clients::{Busy, Seen};
use crate::client::{Client, Written};
use crate::faults;
use crate::target::{HostInfo, Target};

/// The bucket that is filled.
const BUCKET: &str = "bench-rebuild";

/// Size of a small object: its shards are one block each.
const SMALL_BYTES: usize = 256 * 1024;

/// Size of a large object: an extent, so that shards have their usual length.
const LARGE_BYTES: usize = 16 * 1024 * 1024;

/// Small objects written side by side; of large ones a quarter.
const SIDE_BY_SIDE: usize = 16;

/// How long one object may take to be written.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// How long the whole rebuild may take before the benchmark gives up.
const LIMIT: Duration = Duration::from_secs(1800);

/// How often progress is asked: seldom enough to be no load, and often enough for what takes seconds.
const POLL: Duration = Duration::from_millis(200);

/// Busy clients: what keeps two cores full.
const CLIENTS: u64 = 8;

/// How long clients are watched before the disk is lost, to compare with.
const BASELINE: Duration = Duration::from_secs(20);

/// What is stored, and how the rebuild is watched.
#[derive(Clone, Copy, Debug)]
pub struct RebuildOptions {
    /// Objects of 256 KiB.
    pub small: u64,
    /// Objects of 16 MiB.
    pub large: u64,
    /// How long a second rebuild is watched while clients are busy, from its first shard on; zero: there is none.
    pub busy_for: Duration,
}

/// How a rebuild went.
#[derive(Clone, Debug, Serialize)]
pub struct Rebuild {
    /// Bytes of shards on the disk when it was pulled.
    pub lost_bytes: u64,
    /// Shards on it.
    pub lost_shards: u64,
    /// From the loss to the first rebuilt shard: detection, detaching, the waiting time of the profile.
    pub until_start_ms: u64,
    /// From the first rebuilt shard to the last.
    pub rebuild_ms: u64,
    /// Rebuilt bytes per second of `rebuild_ms`, in MB/s.
    pub megabytes_per_second: f64,
    /// Shards per second of `rebuild_ms`.
    pub shards_per_second: f64,
    /// Where the rebuilding tasks spent their time, in percent of their sum: read, wire, crc, decode, write.
    pub time_goes: BTreeMap<String, f64>,
    /// The same with clients busy.
    pub busy: Option<BusyRebuild>,
}

/// A rebuild beside busy clients.
#[derive(Clone, Debug, Serialize)]
pub struct BusyRebuild {
    /// What clients saw before the disk was lost.
    pub before: Seen,
    /// And while its shards were rebuilt.
    pub during: Seen,
    /// Puts' 99 of 100: how many times as long.
    pub put_p99_times: f64,
    /// Gets'.
    pub get_p99_times: f64,
    /// Shards on the lost disk.
    pub lost_shards: u64,
    /// How much of them was rebuilt meanwhile, in percent.
    pub rebuilt_percent: f64,
    /// Rebuilt bytes per second, in MB/s.
    pub megabytes_per_second: f64,
    /// In how much of that time some disk gave way to clients, in percent.
    pub gave_way_percent: f64,
}

/// Fills, pulls a disk, and watches; then another, while clients are busy.
///
/// # Errors
/// When the cluster is not up, or does not heal.
pub async fn run(
    host: &Host,
    target: &Target,
    options: RebuildOptions,
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<Rebuild> {
    let client = Client::new(host, target)?;
    client.ensure_bucket(BUCKET, None).await?;
    fill(&client, 0, options.small, (SMALL_BYTES, SIDE_BY_SIDE), say).await?;
    fill(&client, options.small, options.large, (LARGE_BYTES, SIDE_BY_SIDE / 4), say).await?;
    let mut hosts = target.hosts.iter().rev();
    let before = timings(host, target, &client).await?;
    let lost = lose(host, target, hosts.next().context("no hosts")?, &client, say).await?;
    let (first, last) = tokio::time::timeout(LIMIT, rebuilt(&client, &lost.disk.disk_id, lost.completed))
        .await
        .context("the disk was not rebuilt in time")?;
    let rebuild = last.duration_since(first);
    let time_goes = shares(&before, &timings(host, target, &client).await?);
    let busy = match options.busy_for {
        Duration::ZERO => None,
        span => {
            Some(beside_clients(host, target, hosts.next().context("one host")?, &client, (options, span), say).await?)
        }
    };
    faults::remove_pulled(host, target, &lost.pulled).await?;
    let Lost { disk, at, .. } = lost;
    Ok(Rebuild {
        lost_bytes: disk.used_bytes,
        lost_shards: disk.objects,
        until_start_ms: crate::demo::millis(first.duration_since(at)),
        rebuild_ms: crate::demo::millis(rebuild),
        megabytes_per_second: disk.used_bytes as f64 / 1e6 / rebuild.as_secs_f64(),
        shards_per_second: disk.objects as f64 / rebuild.as_secs_f64(),
        time_goes,
        busy,
    })
}

/// A disk that was lost.
struct Lost {
    /// What was on it.
    disk: DiskStatus,
    at: Instant,
    /// How many shards had been repaired by then.
    completed: u64,
    /// Where what was on it is now.
    pulled: PathBuf,
}

/// Takes the last disk of a host away.
async fn lose(
    host: &Host,
    target: &Target,
    node: &HostInfo,
    client: &Client,
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<Lost> {
    let disk = node.disks.last().context("no disks")?;
    let path = disk.display().to_string();
    let status = client.status().await.context("no node answers")?;
    let lost = status.disks.iter().find(|d| d.node == node.name && d.path == path).context("the disk is not known")?;
    say(&format!("pulling {path}: {} shards, {} MiB", lost.objects, lost.used_bytes >> 20));
    let wiped = Instant::now();
    let pulled = faults::pull_disk(host, target, disk).await?;
    Ok(Lost { disk: lost.clone(), at: wiped, completed: status.repair_completed, pulled })
}

async fn beside_clients(
    host: &Host,
    target: &Target,
    node: &HostInfo,
    client: &Client,
    (options, span): (RebuildOptions, Duration),
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<BusyRebuild> {
    let busy = Busy { bucket: BUCKET, objects: options.small, object_bytes: SMALL_BYTES, clients: CLIENTS };
    say(&format!("{CLIENTS} clients are busy"));
    let ((), before) = busy.during(client, 1, tokio::time::sleep(BASELINE)).await;
    say(&before.line());
    let Lost { disk: lost, completed, pulled, .. } = lose(host, target, node, client, say).await?;
    // Clients go on meanwhile, and are not counted: nothing is rebuilt yet.
    let (begun, _) = busy.during(client, 2, begins(client, completed)).await;
    begun?;
    let (watched, during) = busy.during(client, 3, watch(client, &lost.disk_id, span)).await;
    let (left, gave_way) = watched?;
    say(&during.line());
    faults::remove_pulled(host, target, &pulled).await?;
    let part = 1.0 - left as f64 / lost.objects.max(1) as f64;
    Ok(BusyRebuild {
        put_p99_times: during.put_p99_ms / before.put_p99_ms.max(f64::MIN_POSITIVE),
        get_p99_times: during.get_p99_ms / before.get_p99_ms.max(f64::MIN_POSITIVE),
        lost_shards: lost.objects,
        rebuilt_percent: 100.0 * part,
        megabytes_per_second: lost.used_bytes as f64 * part / 1e6 / during.seconds,
        gave_way_percent: 100.0 * gave_way,
        before,
        during,
    })
}

/// Waits for the first rebuilt shard.
async fn begins(client: &Client, completed_before: u64) -> anyhow::Result<()> {
    let waited = tokio::time::timeout(LIMIT, async {
        loop {
            // What gives way from the start has begun, too.
            let begun = client.status().await.is_some_and(|status| {
                status.repair_completed > completed_before || status.repair_in_flight + status.repair_queue > 0
            });
            if begun {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    });
    waited.await.context("nothing was rebuilt in time")
}

/// Watches until nothing is missing or the time is over. How many shards are missing then, and in what part of all looks a disk
/// gave way to clients.
async fn watch(client: &Client, disk: &str, span: Duration) -> anyhow::Result<(u64, f64)> {
    let (began, mut looks, mut gave_way, mut left) = (Instant::now(), 0_u64, 0_u64, None);
    while began.elapsed() < span {
        if let Some(status) = client.status().await {
            looks += 1;
            gave_way += u64::from(!status.repair_held.is_empty());
            left = Some(status.missing_shards);
            let out = status.disks.iter().any(|d| d.disk_id == disk && d.state == "out");
            if out && status.missing_shards + status.repair_queue + status.repair_in_flight == 0 {
                break;
            }
        }
        tokio::time::sleep(POLL).await;
    }
    Ok((left.context("no node answered")?, gave_way as f64 / looks.max(1) as f64))
}

/// Puts objects `from` to `from + count`.
async fn fill(
    client: &Client,
    from: u64,
    count: u64,
    (object_bytes, side_by_side): (usize, usize),
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<()> {
    if count == 0 {
        return Ok(());
    }
    say(&format!("writing {count} objects of {} KiB", object_bytes >> 10));
    let begun = Instant::now();
    let writes = (from..from + count).map(|at| async move {
        let mut content = vec![0; object_bytes];
        StdRng::seed_from_u64(at).fill_bytes(&mut content);
        client.put(BUCKET, &format!("{at:06}"), Bytes::from(content), WRITE_DEADLINE).await
    });
    let mut writes = stream::iter(writes).buffer_unordered(side_by_side.max(1));
    while let Some(written) = writes.next().await {
        anyhow::ensure!(written == Written::Acknowledged, "an object could not be written: {written:?}");
    }
    let took = begun.elapsed().as_secs_f64();
    let rate = (count * object_bytes as u64) as f64 / 1e6 / took;
    say(&format!("written at {rate:.0} MB/s, {:.0} /s", count as f64 / took));
    Ok(())
}

/// When the first shard was rebuilt, and when nothing was missing any more.
async fn rebuilt(client: &Client, disk: &str, completed_before: u64) -> (Instant, Instant) {
    let mut first = None;
    loop {
        if let Some(status) = client.status().await {
            let started = status.repair_completed > completed_before || status.repair_in_flight > 0;
            if started && first.is_none() {
                first = Some(Instant::now());
            }
            let out = status.disks.iter().any(|d| d.disk_id == disk && d.state == "out");
            let whole = status.missing_shards + status.repair_queue + status.repair_in_flight == 0;
            if let Some(first) = first
                && out
                && whole
            {
                return (first, Instant::now());
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Seconds that the repair tasks of all nodes spent, by phase, as their metrics say.
async fn timings(host: &Host, target: &Target, client: &Client) -> anyhow::Result<BTreeMap<String, f64>> {
    const METRIC: &str = "resilver_repair_seconds_total{phase=\"";
    let mut sums = BTreeMap::new();
    for info in &target.hosts {
        // A node that is down has no timings to add.
        if client.observe(&info.name).await.is_none() {
            continue;
        }
        let (status, page) = web::call(&host.net, &info.http, "/metrics", None, Duration::from_secs(5)).await?;
        anyhow::ensure!(status == 200, "{} answers {status} for its metrics", info.http);
        for line in String::from_utf8_lossy(&page).lines() {
            let Some((phase, value)) = line.strip_prefix(METRIC).and_then(|rest| rest.split_once("\"} ")) else {
                continue;
            };
            *sums.entry(phase.to_owned()).or_insert(0.0) += value.parse::<f64>().unwrap_or(0.0);
        }
    }
    Ok(sums)
}

fn shares(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let spent: BTreeMap<String, f64> =
        after.iter().map(|(phase, sum)| (phase.clone(), sum - before.get(phase).unwrap_or(&0.0))).collect();
    let total: f64 = spent.values().sum();
    if total <= 0.0 {
        return BTreeMap::new();
    }
    spent.into_iter().map(|(phase, sum)| (phase, 100.0 * sum / total)).collect()
}
