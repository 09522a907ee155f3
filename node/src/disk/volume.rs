//! One disk: its shards, its counters, its health.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use super::core::{Core, FAN_OUT, SHARDS, lock};
use super::error::DiskError;
use super::foreground::Purpose;
use super::reader::{self, ShardReader};
use super::shard_file::ShardHead;
use super::walks::{self, Walk, WalkKind};
use super::writer::ShardWriter;
use super::{HealthReport, ShardVerdict, VolumeStatus, aside};
use crate::types::{DiskId, ShardKey};

/// A disk of this node. Works on after the disk failed: then every operation says why it cannot be done.
pub struct Volume {
    pub(super) core: Arc<Core>,
}

impl Volume {
    /// The disk's identity.
    pub fn id(&self) -> DiskId {
        self.core.io.disk
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.core.io.root
    }

    /// Its present state.
    pub fn status(&self) -> VolumeStatus {
        let core = &self.core;
        let HealthReport { health, reason, .. } = core.report();
        VolumeStatus {
            id: self.id(),
            path: self.path().to_owned(),
            health,
            reason,
            used_bytes: core.used_bytes.load(Ordering::Relaxed),
            available_bytes: core.available_bytes.load(Ordering::Relaxed),
            total_bytes: core.total_bytes.load(Ordering::Relaxed),
            shards: core.shards.load(Ordering::Relaxed),
            errors: core.io.errors(),
            read_errors: core.io.read_errors(),
            canary_age: lock(&core.last_canary).elapsed(),
            check_took: Duration::from_micros(core.check_micros.load(Ordering::Relaxed)),
            late_checks: core.late_checks.load(Ordering::Relaxed),
        }
    }

    /// Resolves once the node has let go of it.
    pub async fn retired(&self) {
        self.core.retired().await;
    }

    /// Its health as it changes.
    pub fn health_changes(&self) -> watch::Receiver<HealthReport> {
        self.core.health.subscribe()
    }

    /// Begins a new shard. It appears under its name only when [`ShardWriter::finish`] succeeds.
    ///
    /// # Errors
    /// When the disk does not serve, has no room beyond the reserve, the head makes no shard, or the shard is being
    /// written already.
    pub fn create_shard(&self, head: ShardHead) -> Result<ShardWriter, DiskError> {
        ShardWriter::create(&self.core, head)
    }

    /// Makes the name of a shard that is there durable.
    ///
    /// # Errors
    /// When the disk does not serve.
    pub async fn sync_name(&self, key: ShardKey) -> Result<(), DiskError> {
        self.core.admit(true)?;
        self.core.io.sync_dir(&self.core.shard_folder(key)).await
    }

    /// The file that a shard of this disk is in, if it is.
    pub fn shard_file(&self, key: ShardKey) -> PathBuf {
        self.core.shard_path(key)
    }

    /// Opens a shard and checks its length and header.
    ///
    /// # Errors
    /// When the disk does not serve, or the shard is missing or corrupt.
    pub async fn open_shard(&self, key: ShardKey, purpose: Purpose) -> Result<ShardReader, DiskError> {
        ShardReader::open(&self.core, key, purpose).await
    }

    /// The same of several that nobody waits for, as one operation, with a result of its own for each.
    ///
    /// # Errors
    /// When the disk does not serve.
    pub async fn open_shards(&self, keys: &[ShardKey]) -> Result<Vec<Result<ShardReader, DiskError>>, DiskError> {
        ShardReader::open_all(&self.core, keys).await
    }

    /// How much of the disk's time clients have taken since the node started.
    pub fn foreground_busy(&self) -> Duration {
        self.core.foreground.busy()
    }

    /// Reads a whole shard from the device, past the page cache, and judges it. One that cannot be read is read again, and
    /// the disk asked each time whether it serves: that takes a second.
    ///
    /// # Errors
    /// When the disk does not serve, or whether it does cannot be told; what is wrong with the shard is a verdict.
    pub async fn verify_shard(&self, key: ShardKey) -> Result<ShardVerdict, DiskError> {
        reader::verify(&self.core, key).await
    }

    /// The next shard that somebody could not read, once there is one; it is in doubt no more. For one caller at a time.
    pub async fn doubted(&self) -> ShardKey {
        self.core.doubts.next().await
    }

    /// The length of a shard's file, `None` when there is none. Says nothing of its contents.
    ///
    /// # Errors
    /// When the disk does not serve.
    pub async fn stat_shard(&self, key: ShardKey) -> Result<Option<u64>, DiskError> {
        self.core.admit(false)?;
        self.core.doubting(key, self.core.shard_length(key).await)
    }

    /// All shards, in the order of their names. Memory grows with their number: for many, ask folder by folder.
    ///
    /// # Errors
    /// When the disk does not serve.
    pub async fn list_shards(&self) -> Result<Vec<ShardKey>, DiskError> {
        let mut keys = Vec::new();
        for n in 0..=u8::MAX {
            keys.extend(self.list_shards_in(n).await?);
        }
        Ok(keys)
    }

    /// The shards of one of the 256 folders, by the first byte of their versions.
    ///
    /// # Errors
    /// When the disk does not serve.
    pub async fn list_shards_in(&self, first_byte: u8) -> Result<Vec<ShardKey>, DiskError> {
        self.core.admit(false)?;
        self.core.list_folder(u16::from(first_byte)).await
    }

    /// When the names in each of the 256 folders last changed, by the file system's clock; `None`: it does not say. For
    /// comparing with what it said before, and nothing else.
    ///
    /// # Errors
    /// When the disk does not serve.
    pub async fn folder_stamps(&self) -> Result<Vec<Option<u64>>, DiskError> {
        self.core.admit(false)?;
        let shards = self.path().join(SHARDS);
        let folders = (0..FAN_OUT).map(|n| shards.join(format!("{n:02x}"))).collect();
        match self.core.io.modified_ms(folders).await {
            Err(error) if error.is_not_found() => Err(self.core.lost_folder()),
            stamps => stamps,
        }
    }

    /// The folders in which this process gave or took names since the last call; at first all of them.
    pub fn take_touched(&self) -> [bool; 256] {
        std::mem::replace(&mut *lock(&self.core.touched), [false; FAN_OUT as usize])
    }

    /// How far a walk over this disk is; `None`: it has never begun, as far as is known.
    pub async fn walk(&self, kind: WalkKind) -> Option<Walk> {
        walks::load(&self.core, kind).await
    }

    /// Remembers how far a walk is, also over a restart. Best effort: a walk that is lost begins anew.
    pub async fn keep_walk(&self, kind: WalkKind, walk: Walk) {
        walks::keep(&self.core, kind, walk).await;
    }

    /// As if a client's step were under way.
    #[cfg(test)]
    pub(crate) fn client_step(&self) -> impl Drop + use<'_> {
        self.core.foreground.begin(Purpose::Client).expect("a client's counts")
    }

    /// Moves a shard out of sight, keeping it: `aside/<why>-<shard>.<n>`. Whether there was one.
    ///
    /// # Errors
    /// When the disk does not serve or takes no writes.
    pub async fn move_aside(&self, key: ShardKey, why: &str) -> Result<bool, DiskError> {
        Ok(self.move_all_aside(&[key], why).await? == 1)
    }

    /// The same for many shards, with each folder synced once. How many there were.
    ///
    /// # Errors
    /// As [`Volume::move_aside`]; some may then have been moved.
    pub async fn move_all_aside(&self, keys: &[ShardKey], why: &str) -> Result<u64, DiskError> {
        aside::move_all(&self.core, keys, why).await
    }

    /// Removes for good what has been aside for `older_than`, counted from when this process first saw it. How many.
    ///
    /// # Errors
    /// When the disk does not serve or takes no writes.
    pub async fn purge_aside(&self, older_than: Duration) -> Result<u64, DiskError> {
        aside::purge(&self.core, older_than).await
    }

    /// Removes for good what the metadata gave up and is aside, whatever its age: for a disk without room. How many.
    ///
    /// # Errors
    /// When the disk does not serve or takes no writes.
    pub async fn purge_replaced(&self) -> Result<u64, DiskError> {
        aside::purge_replaced(&self.core).await
    }
}
