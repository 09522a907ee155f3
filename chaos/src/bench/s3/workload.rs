//! A closed loop of clients: each sends its next request when it has the answer to the one before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::time::Instant;

use crate::s3::{Condition, Content, From, S3Error, Store};

/// How long one request may take: these machines are shared.
pub(in crate::bench) const DEADLINE: Duration = Duration::from_secs(120);

/// The pause after a request that failed: a door that says "slow down" is obeyed.
const PAUSE: Duration = Duration::from_millis(20);

/// Keys of a page.
pub(in crate::bench) const PAGE_KEYS: usize = 1000;

/// What is asked, over and over.
#[derive(Clone, Debug)]
pub(in crate::bench) enum Ask {
    /// Store this under one of so many keys.
    Put { content: Bytes, keys: u64 },
    /// Read one of so many keys, and compare.
    Get { len_bytes: u64, crc32c: u32, keys: u64 },
    /// A page of a listing of so many keys, from somewhere in the middle on.
    List { keys: u64 },
}

/// How a loop went.
#[derive(Clone, Debug, Default)]
pub(in crate::bench) struct Ran {
    pub(in crate::bench) seconds: f64,
    pub(in crate::bench) operations: u64,
    pub(in crate::bench) bytes: u64,
    pub(in crate::bench) latencies_ms: Vec<f64>,
    /// What went wrong, and how often.
    pub(in crate::bench) problems: BTreeMap<String, u64>,
}

impl Ran {
    pub(in crate::bench) fn add(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.latencies_ms.extend(other.latencies_ms);
        for (problem, times) in other.problems {
            *self.problems.entry(problem).or_insert(0) += times;
        }
    }

    /// The latency that this share of the operations did not exceed.
    pub(in crate::bench) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// When a loop ends.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Until {
    pub(in crate::bench) span: Duration,
    /// Operations after which it ends earlier.
    pub(in crate::bench) operations: u64,
}

/// The name of a key. Spread so that numbers far apart are far apart in a listing, too.
pub(in crate::bench) fn key(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:09}")
}

/// Runs `workers` loops. `from` counts over all runs of one workload, so that each goes on where the last one ended.
///
/// # Errors
/// When a content read is not what was stored, or nothing succeeded at all.
pub(in crate::bench) async fn run(
    stores: &[Store],
    prefix: &str,
    ask: &Ask,
    workers: usize,
    until: Until,
    from: &Arc<AtomicU64>,
) -> anyhow::Result<Ran> {
    let begun = Instant::now();
    let end = begun + until.span;
    let last = from.load(Ordering::Relaxed).saturating_add(until.operations);
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let (stores, prefix, ask, from) = (stores.to_vec(), prefix.to_owned(), ask.clone(), from.clone());
            tokio::spawn(async move {
                let mut ran = Ran::default();
                while Instant::now() < end {
                    let turn = from.fetch_add(1, Ordering::Relaxed);
                    if turn >= last {
                        break;
                    }
                    let store = &stores[(worker as u64 + turn) as usize % stores.len()];
                    let sent = Instant::now();
                    match once(store, &prefix, &ask, turn).await? {
                        Ok(bytes) => {
                            ran.latencies_ms.push(sent.elapsed().as_secs_f64() * 1e3);
                            ran.operations += 1;
                            ran.bytes += bytes;
                        }
                        Err(error) => {
                            *ran.problems.entry(problem(&error)).or_insert(0) += 1;
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
                anyhow::Ok(ran)
            })
        })
        .collect();
    let mut all = Ran::default();
    for task in tasks {
        all.add(task.await.context("a client of the benchmark ended")??);
    }
    all.seconds = begun.elapsed().as_secs_f64();
    anyhow::ensure!(all.operations > 0, "not one request succeeded: {:?}", all.problems);
    Ok(all)
}

/// The name under which a failure is counted.
pub(in crate::bench) fn problem(error: &S3Error) -> String {
    match error.said() {
        Some(said) => format!("{} {}", said.status, said.code),
        None => error.to_string(),
    }
}

/// One request. The outer error is one that no benchmark may go on after.
async fn once(store: &Store, prefix: &str, ask: &Ask, turn: u64) -> anyhow::Result<Result<u64, S3Error>> {
    match ask {
        Ask::Put { content, keys } => {
            let key = key(prefix, turn % keys);
            let put = store.put(&key, Content::Whole(content.clone()), &Condition::Always, DEADLINE).await;
            Ok(put.map(|_| content.len() as u64))
        }
        Ask::Get { len_bytes, crc32c, keys } => {
            let key = key(prefix, turn % keys);
            let read = read(store, &key).await;
            if let Ok(found) = &read {
                anyhow::ensure!(*found == (*len_bytes, *crc32c), "{key} is not what was stored: {found:?}");
            }
            Ok(read.map(|(bytes, _)| bytes))
        }
        Ask::List { keys } => {
            // A page from the middle: neither first nor always the same. The stride shares no factor with most counts.
            let after = key(prefix, turn.wrapping_mul(7_368_787) % keys.saturating_sub(PAGE_KEYS as u64).max(1));
            let page = store.list_raw(prefix, From::After(&after), PAGE_KEYS, DEADLINE).await;
            Ok(page.map(|page| page.len() as u64))
        }
    }
}

/// Length and CRC32C of an object's content.
async fn read(store: &Store, key: &str) -> Result<(u64, u32), S3Error> {
    let mut reply = store.get(key, None, DEADLINE).await?;
    let (mut len_bytes, mut crc) = (0, 0);
    while let Some(piece) = reply.piece().await? {
        len_bytes += piece.len() as u64;
        crc = crc32c::crc32c_append(crc, &piece);
    }
    Ok((len_bytes, crc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let ran = Ran { latencies_ms: (1..=100).rev().map(f64::from).collect(), ..Ran::default() };
        assert!((ran.percentile_ms(50), ran.percentile_ms(99)) == (51.0, 100.0));
        assert!(Ran::default().percentile_ms(50).is_nan());
    }
}
