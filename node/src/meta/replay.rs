//! A state made anew from a state file and the entries of a log behind it, beside the one that serves.
//!
//! Owns: the folder it is made in. Must never: write to the log, or to anything else of the member it belongs to.

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
    let scratch = replay.scratch;
    empty(host, scratch).await?;
    create_dir_durably(&*host.disk, scratch).await.map_err(MetaError::io("creating", scratch))?;
    let state = State::create_apart(host, &scratch.join("state.redb"), replay.owner).await?;
    let outcome = async {
        if let Some(from) = replay.from {
            state.install(from).await?;
        }
        let (failed, _) = watch::channel(None);
        let snapshots = Snapshots::open(host, &scratch.join("snapshots"), "recovery".to_owned(), 0).await?;
        let log = log(&state);
        let mut machine = Machine::new(state.clone(), snapshots, Arc::default(), failed)?;
        let stopped = |error: &dyn std::fmt::Display| MetaError::Stopped { reason: error.to_string() };
        let mut next = state.applied().map_or(0, |applied| applied.index + 1);
        let end = replay.up_to.map_or(u64::MAX, |last| last + 1);
        while next < end {
            let entries = log.entries(next, end.min(next + BATCH)).await.map_err(|error| stopped(&error))?;
            let Some(last) = entries.last().map(|entry| entry.log_id.index) else { break };
            machine.apply(entries).await.map_err(|error| stopped(&error))?;
            next = last + 1;
        }
        state.export(to, "recovery".to_owned()).await?;
        Ok(next.saturating_sub(1))
    };
    let outcome = outcome.await;
    state.close().await;
    empty(host, scratch).await?;
    outcome
}
