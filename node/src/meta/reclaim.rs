//! Room in the metadata folder, given back on demand: a snapshot of now, the log below it purged, the database compacted.
//!
//! Must never: purge what the database does not hold durably (openraft purges behind the gate of the log's adapter), or begin
//! what needs more room than there is: a database that cannot grow stops its member.

use std::path::Path;
use std::time::Duration;

use openraft::LogIdOptionExt;
use resilver_host::{FileKind, Host};
use tokio::time::sleep;

use super::storage::Layout;
use super::{Meta, MetaError};
use crate::state::StateError;

/// How long a snapshot may take: it writes the whole state.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(60);

/// How long purging may take: it removes files.
const PURGE_DEADLINE: Duration = Duration::from_secs(10);

/// Room that compacting needs beside the database, which it moves about within its file: its own bookkeeping.
const COMPACT_BYTES: u64 = 64 * 1024 * 1024;

/// Tries at a moment in which nobody reads or applies, and the pause between them: two seconds, in which a node at work has such
/// moments. A snapshot that is being sent takes longer: then it is not compacted this time.
const COMPACT_TRIES: u32 = 20;
const COMPACT_PAUSE: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reclaimed {
    /// By how much the metadata's files are smaller.
    pub(crate) bytes: u64,
    /// What was done, and what was not and why.
    pub(crate) told: Vec<String>,
}

impl Meta {
    /// Gives back what room it can. What cannot be done now is told, and is no failure.
    ///
    /// # Errors
    /// When the folder cannot be measured, or Raft has stopped.
    pub(crate) async fn reclaim(&self) -> Result<Reclaimed, MetaError> {
        let room = &self.inner.room;
        let layout = Layout::of(&room.dir);
        let before = self.measure(&layout).await?;
        let mut told = Vec::new();
        let space = room.host.disk.space(&room.dir).await.map_err(MetaError::io("measuring", &room.dir))?;
        match space.available_bytes > before.database {
            true => told.push(self.purge_below_a_snapshot().await?),
            false => told.push("no room for a snapshot, so that the log stays".to_owned()),
        }
        let space = room.host.disk.space(&room.dir).await.map_err(MetaError::io("measuring", &room.dir))?;
        told.push(match space.available_bytes < COMPACT_BYTES {
            true => "too little room to compact the database".to_owned(),
            false => match self.compact().await {
                Ok(true) => "the database was compacted".to_owned(),
                Ok(false) => "the database was compact".to_owned(),
                Err(error) => format!("the database was not compacted: {error}"),
            },
        });
        let after = self.measure(&layout).await?;
        Ok(Reclaimed { bytes: before.all().saturating_sub(after.all()), told })
    }

    /// Whoever reads just then has done so in a moment.
    async fn compact(&self) -> Result<bool, StateError> {
        for _ in 1..COMPACT_TRIES {
            match self.inner.state.compact().await {
                Err(StateError::Busy(_)) => sleep(COMPACT_PAUSE).await,
                done => return done,
            }
        }
        self.inner.state.compact().await
    }

    async fn purge_below_a_snapshot(&self) -> Result<String, MetaError> {
        let raft = &self.inner.raft;
        let stopped = |fatal: &dyn std::fmt::Display| MetaError::Stopped { reason: fatal.to_string() };
        let mut metrics = raft.metrics();
        let applied = metrics.borrow().last_applied;
        if metrics.borrow().snapshot.next_index() < applied.next_index() {
            raft.trigger().snapshot().await.map_err(|fatal| stopped(&fatal))?;
        }
        let written = metrics.wait_for(|metrics| metrics.snapshot >= applied || metrics.running_state.is_err());
        let snapshot = match tokio::time::timeout(SNAPSHOT_DEADLINE, written).await {
            Err(_) => return Ok(format!("no snapshot within {} s", SNAPSHOT_DEADLINE.as_secs())),
            Ok(Err(gone)) => return Err(stopped(&gone)),
            Ok(Ok(metrics)) => metrics.snapshot,
        };
        let Some(snapshot) = snapshot else { return Ok("nothing was applied yet".to_owned()) };
        raft.trigger().purge_log(snapshot.index).await.map_err(|fatal| stopped(&fatal))?;
        let purged = metrics.wait_for(|metrics| metrics.purged >= Some(snapshot) || metrics.running_state.is_err());
        match tokio::time::timeout(PURGE_DEADLINE, purged).await {
            Err(_) => Ok(format!("the log is still purged up to entry {}", snapshot.index)),
            Ok(Err(gone)) => Err(stopped(&gone)),
            Ok(Ok(_)) => Ok(format!("the log was purged up to entry {}", snapshot.index)),
        }
    }

    async fn measure(&self, layout: &Layout) -> Result<Sizes, MetaError> {
        let host = &self.inner.room.host;
        let database = host.disk.metadata(&layout.database).await;
        let database = database.map_err(MetaError::io("measuring", &layout.database))?.len_bytes;
        let (log, snapshots) = (files(host, layout.log()).await?, files(host, &layout.snapshots).await?);
        Ok(Sizes { database, log, snapshots })
    }
}

/// Bytes of the metadata's parts.
struct Sizes {
    database: u64,
    log: u64,
    snapshots: u64,
}

impl Sizes {
    fn all(&self) -> u64 {
        self.database + self.log + self.snapshots
    }
}

/// The bytes of a folder's files; they come and go meanwhile.
async fn files(host: &Host, dir: &Path) -> Result<u64, MetaError> {
    let mut bytes = 0;
    for entry in host.disk.list(dir).await.map_err(MetaError::io("listing", dir))? {
        if entry.kind == FileKind::File {
            bytes += host.disk.metadata(&dir.join(&entry.name)).await.map_or(0, |found| found.len_bytes);
        }
    }
    Ok(bytes)
}
