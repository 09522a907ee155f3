//! A state made anew from a state file and the entries of a log behind it, beside the one that serves.
//!
//! Owns: the folder it is made in. Must never: write to the log, or to anything else of the member it belongs to; step over
//! entries that are not there.

use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use resilver_host::Host;
use resilver_host::disk::create_dir_durably;
use tokio::sync::watch;

use super::MetaError;
use super::log_store::LogAdapter;
use super::machine::Machine;
use super::rebirth::empty;
use super::snapshot::Snapshots;
use crate::state::{Owner, State};

/// Entries applied at a time.
const BATCH: u64 = 512;
/// Entries after which the copy is made durable. Not for its own sake: until then the database takes no page back that it has
/// replaced, and the file grows with every batch.
const FLUSH_EVERY: u64 = 64 * BATCH;

/// What is replayed.
pub(super) struct Replay<'a> {
    /// The folder to do it in: emptied before and after.
    pub(super) scratch: &'a Path,
    /// Whose state it is.
    pub(super) owner: Owner,
    /// The state to begin with; `None`: nothing.
    pub(super) from: Option<&'a Path>,
    /// The last entry to apply; `None`: the log's last, committed or not.
    pub(super) up_to: Option<u64>,
}

/// Replays, and writes what came out to `to`; the last entry that was applied.
pub(super) async fn replay(
    host: &Host,
    replay: Replay<'_>,
    log: impl FnOnce(&State) -> LogAdapter,
    to: &Path,
) -> Result<u64, MetaError> {
    let apart = Apart::make(host, replay.scratch, replay.owner).await?;
    let outcome = async {
        let log = log(&apart.state);
        let mut machine = apart.begin(replay.from).await?;
        let end = replay.up_to.map_or(u64::MAX, |last| last + 1);
        while machine.step(&log, end).await?.is_some() {}
        apart.state.export(to, "recovery".to_owned()).await?;
        Ok(machine.next.saturating_sub(1))
    };
    let outcome = outcome.await;
    apart.end().await?;
    outcome
}

/// A copy of a state, in a folder of its own. Whoever made it ends it.
pub(super) struct Apart<'a> {
    host: &'a Host,
    scratch: &'a Path,
    pub(super) state: State,
}

/// What applies a log to a copy.
pub(super) struct Applying {
    state: State,
    machine: Machine,
    /// The next entry.
    pub(super) next: u64,
    flushed: u64,
}

impl<'a> Apart<'a> {
    /// An empty one. What is in the folder is removed.
    pub(super) async fn make(host: &'a Host, scratch: &'a Path, owner: Owner) -> Result<Self, MetaError> {
        empty(host, scratch).await?;
        create_dir_durably(&*host.disk, scratch).await.map_err(MetaError::io("creating", scratch))?;
        let state = State::create_apart(host, &scratch.join("state.redb"), owner).await?;
        Ok(Self { host, scratch, state })
    }

    /// Takes over a state file, if there is one, and stands behind its last entry.
    pub(super) async fn begin(&self, from: Option<&Path>) -> Result<Applying, MetaError> {
        if let Some(from) = from {
            self.state.install(from).await?;
        }
        let (failed, _) = watch::channel(None);
        let snapshots = Snapshots::open(self.host, &self.scratch.join("snapshots"), "recovery".to_owned(), 0).await?;
        let machine = Machine::new(self.state.clone(), snapshots, Arc::default(), failed)?;
        let next = self.state.applied().map_or(0, |applied| applied.index + 1);
        Ok(Applying { state: self.state.clone(), machine, next, flushed: next })
    }

    /// Closes it, and removes the folder.
    pub(super) async fn end(self) -> Result<(), MetaError> {
        self.state.close().await;
        empty(self.host, self.scratch).await
    }
}

impl Applying {
    /// Applies the next entries before `end`; how many, `None`: there are none.
    pub(super) async fn step(&mut self, log: &LogAdapter, end: u64) -> Result<Option<u64>, MetaError> {
        if self.next >= end {
            return Ok(None);
        }
        let entries = log.entries_for_replay(self.next, end.min(self.next.saturating_add(BATCH))).await?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(None) };
        let (first, last) = (first.log_id.index, last.log_id.index);
        if first != self.next {
            let detail = format!("the log begins at entry {first}, and entry {} is the next to be applied", self.next);
            return Err(MetaError::Refused { detail });
        }
        let before = self.next;
        self.machine.apply(entries).await.map_err(|error| MetaError::Stopped { reason: error.to_string() })?;
        self.next = last + 1;
        if self.next - self.flushed >= FLUSH_EVERY {
            self.state.flush().await?;
            self.flushed = self.next;
        }
        Ok(Some(self.next - before))
    }
}
