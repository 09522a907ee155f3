//! What the parts cost alone, on this machine, in this run: digests on one core, and the disk without us. No put can be
//! faster than the slowest of them.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use md5::{Digest, Md5};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use resilver_host::disk::replace_file;
use resilver_host::{Host, OpenMode};
use sha2::Sha256;
use tokio::time::Instant;

use super::super::Figures;

/// What is digested at once: an object of the large workload.
const DIGESTED_BYTES: usize = 16 * 1024 * 1024;

/// How often, to have a median.
const RUNS: usize = 5;

/// A small file.
const SMALL_BYTES: usize = 4096;

/// Small files per run.
const SMALL_FILES: usize = 64;

/// Small files written side by side: about the shards of a put with a few neighbours.
const SIDE_BY_SIDE: usize = 16;

/// Digests on one core, MB/s.
pub(super) async fn digests(host: &Host) -> Vec<Figures> {
    let mut content = vec![0; DIGESTED_BYTES];
    StdRng::seed_from_u64(1).fill_bytes(&mut content);
    let content = Bytes::from(content);
    let each: [(&str, Digests); 3] = [
        ("alone: MD5 on one core", |data| u64::from(Md5::digest(data)[0])),
        ("alone: SHA-256 on one core", |data| u64::from(Sha256::digest(data)[0])),
        ("alone: CRC32C on one core", |data| u64::from(crc32c::crc32c(data))),
    ];
    let mut figures = Vec::new();
    for (name, digest) in each {
        let content = content.clone();
        let runs = host.blocking(move || (0..RUNS).map(|_| rate_of(&content, digest)).collect()).await;
        figures.extend(Figures::over(name, "MB/s", runs));
    }
    figures
}

/// Some of a digest, so that it has to be computed.
type Digests = fn(&[u8]) -> u64;

fn rate_of(content: &[u8], digest: Digests) -> f64 {
    let begun = Instant::now();
    std::hint::black_box(digest(std::hint::black_box(content)));
    content.len() as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

/// The disk below `dir`, with files that are removed again.
pub(super) async fn disk(host: &Host, dir: &Path) -> anyhow::Result<Vec<Figures>> {
    let own = dir.join("bench-alone");
    host.disk.create_dir_all(&own).await.with_context(|| own.display().to_string())?;
    let measured = measure(host, &own).await;
    for entry in host.disk.list(&own).await? {
        host.disk.remove_file(&own.join(entry.name)).await?;
    }
    host.disk.remove_dir(&own).await?;
    measured
}

async fn measure(host: &Host, own: &Path) -> anyhow::Result<Vec<Figures>> {
    let mut large = Vec::new();
    let content = Bytes::from(vec![0x5A; DIGESTED_BYTES]);
    for run in 0..RUNS {
        let path = own.join(format!("large-{run}"));
        let begun = Instant::now();
        let file = host.disk.open(&path, OpenMode::CreateNew).await?;
        file.write_at(0, content.clone()).await?;
        file.sync().await?;
        large.push(DIGESTED_BYTES as f64 / 1e6 / begun.elapsed().as_secs_f64());
        host.disk.remove_file(&path).await?;
    }
    let one = small(host, own, 1).await?;
    let many = small(host, own, SIDE_BY_SIDE).await?;
    Ok([
        Figures::over("alone: a file of 16 MiB written and synced", "MB/s", large),
        Figures::over("alone: files of 4 KiB made durable, one by one", "/s", one),
        Figures::over("alone: the same, 16 side by side", "/s", many),
    ]
    .into_iter()
    .flatten()
    .collect())
}

/// Small files per second, each synced, renamed into place, and its folder synced: what a shard is, too.
async fn small(host: &Host, own: &Path, side_by_side: usize) -> anyhow::Result<Vec<f64>> {
    let mut rates = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        let writers = (0..side_by_side).map(|writer| async move {
            for _ in 0..SMALL_FILES / side_by_side {
                let path = own.join(format!("small-{writer}"));
                replace_file(&*host.disk, &path, Bytes::from_static(&[0x5A; SMALL_BYTES])).await?;
            }
            Ok::<_, std::io::Error>(())
        });
        futures_util::future::try_join_all(writers).await?;
        rates.push(SMALL_FILES as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(rates)
}
