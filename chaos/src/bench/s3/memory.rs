//! How much memory a node takes while many large uploads go through it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use resilver_host::Host;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::procfs;
use super::workload::{key, problem};
use crate::s3::{Condition, Content, Store};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long one upload may take among the others.
const DEADLINE: Duration = Duration::from_secs(900);

/// The pause before an upload that was refused is tried again, and how often it is.
const PAUSE: Duration = Duration::from_millis(200);
const ATTEMPTS: u32 = 100;

/// The piece an upload repeats.
const PIECE_BYTES: usize = 256 * 1024;

/// What the node took.
#[derive(Clone, Debug, Serialize)]
pub struct UnderUploads {
    /// Uploads at the same time, all through one node.
    pub uploads: usize,
    /// Length of each.
    pub upload_mib: u64,
    /// How long they took together.
    pub seconds: f64,
    /// Content per second.
    pub megabytes_per_second: f64,
    /// Resident memory of that node before, MiB.
    pub before_mib: f64,
    /// At its peak.
    pub peak_mib: f64,
    /// The highest peak among the other nodes, which only stored shards.
    pub others_peak_mib: f64,
    /// What went wrong and was tried again, and how often.
    pub problems: BTreeMap<String, u64>,
}

/// Uploads through the first store's node, whose process is the first of `nodes`.
pub(super) async fn run(
    host: &Host,
    stores: &[Store],
    nodes: &[u32],
    uploads: usize,
    upload_mib: u64,
) -> anyhow::Result<UnderUploads> {
    let store = stores.first().context("no doors")?;
    let mut before = Vec::new();
    for pid in nodes {
        before.push(procfs::memory(host, *pid).await?);
    }
    let mut peaks: Vec<f64> = before.iter().map(|memory| memory.resident).collect();
    let begun = Instant::now();
    let piece = Bytes::from(vec![0xA5; PIECE_BYTES]);
    let mut tasks: JoinSet<anyhow::Result<BTreeMap<String, u64>>> = JoinSet::new();
    for number in 0..uploads {
        let content = Content::Repeated { piece: piece.clone(), len_bytes: upload_mib << 20 };
        tasks.spawn(upload(store.clone(), key("memory/", number as u64), content));
    }
    let mut problems = BTreeMap::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(ended) => {
                    for (problem, times) in ended.context("an upload ended")?? {
                        *problems.entry(problem).or_insert(0) += times;
                    }
                }
            },
            _ = look.tick() => {
                for (peak, pid) in peaks.iter_mut().zip(nodes) {
                    *peak = peak.max(procfs::memory(host, *pid).await?.resident);
                }
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    for ((peak, pid), before) in peaks.iter_mut().zip(nodes).zip(&before) {
        // The kernel's own mark misses nothing between two looks, but counts from the process's start.
        let after = procfs::memory(host, *pid).await?;
        if after.peak > before.peak {
            *peak = peak.max(after.peak);
        }
    }
    Ok(UnderUploads {
        uploads,
        upload_mib,
        seconds,
        megabytes_per_second: (uploads as u64 * (upload_mib << 20)) as f64 / 1e6 / seconds,
        before_mib: before.first().context("no nodes")?.resident,
        peak_mib: peaks[0],
        others_peak_mib: peaks[1..].iter().copied().fold(0.0, f64::max),
        problems,
    })
}

async fn upload(store: Store, key: String, content: Content) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut problems = BTreeMap::new();
    for _ in 0..ATTEMPTS {
        match store.put(&key, content.clone(), &Condition::Always, DEADLINE).await {
            Ok(_) => return Ok(problems),
            Err(error) => *problems.entry(problem(&error)).or_insert(0) += 1,
        }
        tokio::time::sleep(PAUSE).await;
    }
    anyhow::bail!("{key} could not be uploaded in {ATTEMPTS} attempts: {problems:?}")
}
