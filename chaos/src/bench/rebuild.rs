//! How fast a wiped disk is rebuilt, and where the time goes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use resilver_host::Host;
use resilver_proto::web;
use serde::Serialize;
use tokio::time::Instant;

use crate::client::{Client, Written};
use crate::faults;
use crate::target::Target;

/// The bucket that is filled.
const BUCKET: &str = "bench-rebuild";

/// Size of one object: an extent, so that shards have their usual length.
const OBJECT_BYTES: usize = 16 * 1024 * 1024;

/// Objects written side by side.
const SIDE_BY_SIDE: usize = 4;

/// How long one object may take to be written.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// How long the whole rebuild may take before the benchmark gives up.
const LIMIT: Duration = Duration::from_secs(1800);

/// How often progress is asked.
const POLL: Duration = Duration::from_millis(50);

/// How a rebuild went.
#[derive(Clone, Debug, Serialize)]
pub struct Rebuild {
    /// Bytes of shards on the disk when it was wiped.
    pub lost_bytes: u64,
    /// From the wipe to the first rebuilt shard: detection, detaching, the waiting time of the profile.
    pub until_start_ms: u64,
    /// From the first rebuilt shard to the last.
    pub rebuild_ms: u64,
    /// Rebuilt bytes per second of `rebuild_ms`, in MB/s.
    pub megabytes_per_second: f64,
    /// Where the rebuilding tasks spent their time, in percent of their sum: read, wire, crc, decode, write.
    pub time_goes: BTreeMap<String, f64>,
}

/// Fills until every disk holds about `shard_bytes`, wipes one, and watches.
///
/// # Errors
/// When the cluster is not up, or does not heal.
pub async fn run(
    host: &Host,
    target: &Target,
    shard_bytes: u64,
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<Rebuild> {
    let client = Client::new(host, target)?;
    client.ensure_bucket(BUCKET, None).await?;
    fill(&client, target, shard_bytes, say).await?;
    let node = target.hosts.last().context("no hosts")?;
    let disk = node.disks.last().context("no disks")?;
    let path = disk.display().to_string();
    let status = client.status().await.context("no node answers")?;
    let lost = status.disks.iter().find(|d| d.node == node.name && d.path == path).context("the disk is not known")?;
    let lost_bytes = lost.used_bytes;
    let before = timings(host, target, &client).await?;
    say(&format!("wiping {path}: {} MiB of shards", lost_bytes >> 20));
    let wiped = Instant::now();
    faults::wipe_disk(host, target, disk).await?;
    let (first, last) = tokio::time::timeout(LIMIT, rebuilt(&client, &lost.disk_id, status.repair_completed))
        .await
        .context("the disk was not rebuilt in time")?;
    let rebuild = last.duration_since(first);
    Ok(Rebuild {
        lost_bytes,
        until_start_ms: crate::demo::millis(first.duration_since(wiped)),
        rebuild_ms: crate::demo::millis(rebuild),
        megabytes_per_second: lost_bytes as f64 / 1e6 / rebuild.as_secs_f64(),
        time_goes: shares(&before, &timings(host, target, &client).await?),
    })
}

async fn fill(
    client: &Client,
    target: &Target,
    shard_bytes: u64,
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<()> {
    let disks: usize = target.hosts.iter().map(|host| host.disks.len()).sum();
    // 4+2: six shards of a quarter each.
    let content_bytes = shard_bytes * disks as u64 * 4 / 6;
    let objects = content_bytes.div_ceil(OBJECT_BYTES as u64);
    say(&format!("writing {objects} objects of 16 MiB"));
    let begun = Instant::now();
    let writes = (0..objects).map(|at| async move {
        let mut content = vec![0; OBJECT_BYTES];
        StdRng::seed_from_u64(at).fill_bytes(&mut content);
        client.put(BUCKET, &format!("{at:06}"), Bytes::from(content), WRITE_DEADLINE).await
    });
    let mut writes = stream::iter(writes).buffer_unordered(SIDE_BY_SIDE);
    while let Some(written) = writes.next().await {
        anyhow::ensure!(written == Written::Acknowledged, "an object could not be written: {written:?}");
    }
    let rate = (objects * OBJECT_BYTES as u64) as f64 / 1e6 / begun.elapsed().as_secs_f64();
    say(&format!("written at {rate:.0} MB/s"));
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
