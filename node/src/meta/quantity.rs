//! Metadata in quantity, for benchmarks: entries and objects written into a member's own files while it does not run, as it
//! would have written them itself. A million puts through the doors take a quarter of an hour on a small machine, and the
//! benchmark is not about them.
//!
//! Must never: be called for a member that runs (its database is locked then), or for one that anybody needs: nothing of the
//! objects is on any disk.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, LogId};
use resilver_host::Host;
use tokio::sync::watch;
use tokio::time::Instant;

use super::identity::Identity;
use super::log_store::{LogAdapter, PurgeGate, READ_BYTES};
use super::machine::Machine;
use super::raft::Entry;
use super::snapshot::Snapshots;
use super::storage::{self, Layout};
use super::{MetaError, wire};
use crate::log::Record;
use crate::model::{Attributes, Coding, Command, Condition, ETag, ObjectRecord};
use crate::state::{Applied, Change, Proposal};
use crate::types::{BucketName, Version};

/// Entries written, and applied, at a time.
const BATCH: u64 = 512;
/// The session that the entries are of: none that a node draws at random.
const SESSION: u128 = 1;
/// Bytes of user metadata of an object, which has no extents: so that its record is as long as that of one with an extent of
/// six shards.
const FILLING_BYTES: usize = 200;
/// The version of the first object; that of another content of the same object is as much higher.
const FIRST_VERSION: u128 = 1 << 64;

/// What was written, and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Filled {
    /// Index of the first entry.
    pub first: u64,
    /// Seconds of appending.
    pub append_seconds: f64,
    /// Seconds of applying; 0: nothing was applied.
    pub apply_seconds: f64,
}

/// What the objects' keys begin with; nine digits follow.
pub const KEY_PREFIX: &str = "object-";

fn put(bucket: &BucketName, number: u64, content: u128) -> Command {
    let version = Version(FIRST_VERSION * (1 + content) + u128::from(number));
    let mut attributes = Attributes::default();
    attributes.user.insert("filling".to_owned(), format!("{number:0width$}", width = FILLING_BYTES));
    let object = ObjectRecord {
        version,
        size_bytes: 0,
        crc32c: 0,
        modified_ms: 0,
        coding: Coding { k: 4, m: 2 },
        block_bytes: 65536,
        extents: Vec::new(),
        etag: ETag::Content([0; 16]),
        attributes,
        parts: Vec::new(),
    };
    let key = format!("{KEY_PREFIX}{number:09}");
    Command::PutObject { bucket: bucket.clone(), key, object, condition: Condition::None, now_ms: 0 }
}

fn proposal(command: Command, sequence: u64) -> Proposal {
    Proposal { session: SESSION, sequence, floor: sequence, command }
}

fn failed(error: &dyn std::fmt::Display) -> MetaError {
    MetaError::Stopped { reason: error.to_string() }
}

/// Members that ended one after the other do not all have the leader's last entry: those that lack it are given it.
///
/// # Errors
/// When a member's files cannot be opened or written.
pub async fn level(host: &Host, dirs: &[&Path]) -> Result<(), MetaError> {
    let mut logs = Vec::new();
    for dir in dirs {
        let identity = Identity::load(host, dir).await?.ok_or(MetaError::NotMember)?;
        let (storage, _) = storage::open(host, dir, &identity).await?;
        storage.state.close().await;
        logs.push(storage.log);
    }
    let Some(longest) = logs.iter().max_by_key(|log| log.next()) else { return Ok(()) };
    for log in logs.iter().filter(|log| log.next() < longest.next()) {
        while log.next() < longest.next() {
            log.append(longest.read(log.next()..longest.next(), READ_BYTES).await?).await?;
        }
    }
    Ok(())
}

/// Appends `entries` puts behind the log of the member in `dir`, and applies them if `apply`. On every member of a cluster that
/// was at rest when it ended, it writes the same.
///
/// # Errors
/// When the member's files cannot be opened or written.
pub async fn fill(host: &Host, dir: &Path, bucket: &str, entries: u64, apply: bool) -> Result<Filled, MetaError> {
    let identity = Identity::load(host, dir).await?.ok_or(MetaError::NotMember)?;
    let (storage, _) = storage::open(host, dir, &identity).await?;
    let (state, bucket) = (storage.state.clone(), BucketName::from(bucket));
    let gate = PurgeGate { durable: state.durable_changes(), failed: watch::channel(None).1 };
    let store = storage.log.clone();
    let log = LogAdapter::new(storage.log, storage.vote_file, storage.vote, gate);
    let snapshots = Snapshots::open(host, &Layout::of(dir).snapshots, "filling".to_owned(), store.first()).await?;
    let mut machine = Machine::new(state.clone(), snapshots, Arc::default(), watch::channel(None).0)?;
    let first = store.next();
    let last = log.entries(first - 1, first).await.map_err(|error| failed(&error))?;
    let last = last.last().ok_or_else(|| failed(&"the log is empty"))?.log_id;
    // What it had not applied yet comes first.
    let mut applied = state.applied().map_or(0, |applied| applied.index + 1);
    while applied < first {
        let rest = log.entries(applied, first).await.map_err(|error| failed(&error))?;
        applied += rest.len() as u64;
        machine.apply(rest).await.map_err(|error| failed(&error))?;
    }
    let (mut append_seconds, mut apply_seconds) = (0.0, 0.0);
    let mut next = first;
    while next < first + entries {
        let end = (first + entries).min(next + BATCH);
        let entry = |index: u64| Entry {
            log_id: LogId::new(last.leader_id, index),
            payload: EntryPayload::Normal(proposal(put(&bucket, index - first, 0), index - first + 1)),
        };
        let batch: Vec<Entry> = (next..end).map(entry).collect();
        let record = |entry: &Entry| Ok(Record { index: entry.log_id.index, payload: wire::encode(entry)? });
        let records: Result<Vec<Record>, wire::WireError> = batch.iter().map(record).collect();
        let begun = Instant::now();
        store.append(records.map_err(|error| failed(&error))?).await?;
        append_seconds += begun.elapsed().as_secs_f64();
        if apply {
            let begun = Instant::now();
            machine.apply(batch).await.map_err(|error| failed(&error))?;
            apply_seconds += begun.elapsed().as_secs_f64();
        }
        next = end;
    }
    state.flush().await?;
    state.close().await;
    Ok(Filled { first, append_seconds, apply_seconds })
}

/// Applies other puts of `count` of the objects on this member alone, spread evenly over `of`: as a bug would have.
///
/// # Errors
/// As [`fill`].
pub async fn misapply(host: &Host, dir: &Path, bucket: &str, count: u64, of: u64) -> Result<(), MetaError> {
    let identity = Identity::load(host, dir).await?.ok_or(MetaError::NotMember)?;
    let (storage, _) = storage::open(host, dir, &identity).await?;
    let state = storage.state;
    let Applied { index, note } = state.applied().unwrap_or_default();
    let bucket = BucketName::from(bucket);
    for n in 0..count {
        let proposal = proposal(put(&bucket, n * (of / count.max(1)), 1), of + n + 1);
        state.apply(vec![Change { index, proposal: Some(proposal) }], Applied { index, note: note.clone() }).await?;
    }
    state.flush().await?;
    state.close().await;
    Ok(())
}
