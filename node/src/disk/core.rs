//! What everybody who works on one disk shares: its door to the system, its counters, its health.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use resilver_host::{FileKind, Host, Space};
use tokio::sync::watch;
use tokio::time::Instant;

use super::doubts::Doubts;
use super::error::DiskError;
use super::foreground::Foreground;
use super::io::{Io, Patience};
use super::shard_file::{fan_out, file_name, parse_name};
use super::superblock::{self, Superblock};
use super::walks::Walks;
use super::{Health, HealthReport};
use crate::failures::Failures;
use crate::types::{ClusterId, Epoch, ShardKey};

pub(super) const SHARDS: &str = "shards";
pub(super) const TEMPORARY: &str = "tmp";
pub(super) const ASIDE: &str = "aside";

/// Folders under `shards/`: two hexadecimal digits.
pub(super) const FAN_OUT: u16 = 256;

/// Room kept back from shards: for what is moved aside (a rename, but folders grow), the superblock's replacement, the
/// canary, and the file system, which slows down long before it is full.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// On a small file system (a test's, a demonstration's) the reserve is this part of it instead: a hundredth.
const RESERVE_PART: u64 = 100;

/// File lengths asked for side by side when a disk is counted. Enough to hide the trips to the blocking pool.
const STATS_AT_ONCE: usize = 16;

/// What everybody who works on one disk shares.
pub(super) struct Core {
    pub(super) io: Io,
    /// What clients take of its time.
    pub(super) foreground: Foreground,
    pub(super) health: watch::Sender<HealthReport>,
    /// Who the disk must say it is.
    identity: Mutex<Superblock>,
    /// The node has let go of it.
    pub(super) retired: watch::Sender<bool>,
    /// Whether the folders are known to be there.
    prepared: AtomicBool,
    /// Whether temporary files of an earlier process are gone. Never again after that: later ones are somebody's.
    swept: AtomicBool,
    pub(super) used_bytes: AtomicU64,
    pub(super) shards: AtomicU64,
    pub(super) available_bytes: AtomicU64,
    pub(super) total_bytes: AtomicU64,
    pub(super) last_canary: Mutex<Instant>,
    pub(super) check_micros: AtomicU64,
    pub(super) late_checks: AtomicU64,
    /// Where it is told that a check is late.
    failures: OnceLock<Failures>,
    /// Folders of shards that this process changed since somebody asked.
    pub(super) touched: Mutex<[bool; FAN_OUT as usize]>,
    /// How far the slow walks over it are.
    pub(super) walks: tokio::sync::Mutex<Walks>,
    /// Shards that could not be read a moment ago.
    pub(super) doubts: Doubts,
    /// Shards being written.
    claims: Mutex<BTreeSet<ShardKey>>,
    /// Temporary files whose writers were dropped.
    leftovers: Mutex<Vec<PathBuf>>,
    /// When each file under `aside/` was first seen.
    pub(super) aside_since: Mutex<BTreeMap<String, Instant>>,
    /// Numbers temporary files and what is moved aside.
    serial: AtomicU64,
}

/// Locks a mutex that only ever guards plain values: a panic elsewhere leaves them whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub(super) fn new(
        host: Host,
        root: PathBuf,
        patience: Patience,
        identity: Superblock,
        report: HealthReport,
    ) -> Self {
        Self {
            io: Io::new(host, identity.disk, root, patience),
            foreground: Foreground::default(),
            health: watch::Sender::new(report),
            identity: Mutex::new(identity),
            retired: watch::Sender::new(false),
            prepared: AtomicBool::new(false),
            swept: AtomicBool::new(false),
            used_bytes: AtomicU64::new(0),
            shards: AtomicU64::new(0),
            available_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            last_canary: Mutex::new(Instant::now()),
            check_micros: AtomicU64::new(0),
            late_checks: AtomicU64::new(0),
            failures: OnceLock::new(),
            touched: Mutex::new([true; FAN_OUT as usize]),
            walks: tokio::sync::Mutex::default(),
            doubts: Doubts::default(),
            claims: Mutex::default(),
            leftovers: Mutex::default(),
            aside_since: Mutex::default(),
            serial: AtomicU64::new(0),
        }
    }

    pub(super) fn report(&self) -> HealthReport {
        self.health.borrow().clone()
    }

    /// Publishes a verdict, and says so when it is another than before.
    pub(super) fn set_health(&self, next: HealthReport) {
        self.health.send_if_modified(|current| {
            if *current == next {
                return false;
            }
            let (disk, path) = (self.io.disk, self.io.root.display());
            if next.health == Health::Ok {
                tracing::info!(%disk, %path, was = current.health.as_str(), "disk is healthy");
            } else {
                tracing::warn!(%disk, %path, was = current.health.as_str(), health = next.health.as_str(),
                    reason = next.reason, "disk is not healthy");
            }
            *current = next;
            true
        });
    }

    /// From now on nobody watches it, and it is not written to.
    pub(super) fn retire(&self) {
        self.retired.send_replace(true);
        self.set_health(HealthReport { health: Health::Gone, reason: "it was removed".to_owned(), hanging: false });
    }

    /// Resolves once it is.
    pub(super) async fn retired(&self) {
        // The sender is in this very core.
        let _ = self.retired.subscribe().wait_for(|retired| *retired).await;
    }

    pub(super) fn identity(&self) -> Superblock {
        lock(&self.identity).clone()
    }

    pub(super) fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn canary_succeeded(&self) {
        *lock(&self.last_canary) = Instant::now();
    }

    /// A probe ended, however it ended.
    pub(super) fn checked(&self, took: Duration) {
        self.check_micros.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A probe takes longer than one may.
    pub(super) fn check_is_late(&self) {
        self.late_checks.fetch_add(1, Ordering::Relaxed);
        if let Some(failures) = self.failures.get() {
            failures.disk_state_check_timeout(self.io.disk);
        }
    }

    /// Where late checks are told from now on. The first one stays: a disk is in one node.
    pub(super) fn report_to(&self, failures: &Failures) {
        let _ = self.failures.set(failures.clone());
    }

    pub(super) fn set_space(&self, space: Space) {
        self.available_bytes.store(space.available_bytes, Ordering::Relaxed);
        self.total_bytes.store(space.total_bytes, Ordering::Relaxed);
    }

    /// The folders are gone although the superblock may be there: the next canary looks, and makes them again only if
    /// the superblock is.
    pub(super) fn lost_folder(&self) -> DiskError {
        self.prepared.store(false, Ordering::Relaxed);
        self.io.doubt.notify_one();
        self.gone()
    }

    pub(super) fn forget_folders(&self) {
        self.prepared.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_prepared(&self) -> bool {
        self.prepared.load(Ordering::Relaxed)
    }

    pub(super) fn gone(&self) -> DiskError {
        DiskError::Gone { disk: self.io.disk, path: self.io.root.clone() }
    }

    /// Refuses what a disk in this health cannot do. Reads are still tried on a failed disk, because the copy on it may
    /// be the last: only not while it hangs, when every try would cost its whole deadline.
    pub(super) fn admit(&self, write: bool) -> Result<(), DiskError> {
        let (disk, path) = (self.io.disk, self.io.root.clone());
        let report = self.health.borrow();
        match report.health {
            Health::Ok | Health::Suspect => Ok(()),
            Health::Gone => Err(DiskError::Gone { disk, path }),
            Health::Foreign => Err(DiskError::Foreign { disk, path, reason: report.reason.clone() }),
            Health::Error if write || report.hanging => {
                Err(DiskError::Failed { disk, path, reason: report.reason.clone() })
            }
            Health::Error => Ok(()),
        }
    }

    /// Refuses a shard that would eat into the reserve; else counts its room as taken until the next canary measures.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), DiskError> {
        let reserve = RESERVE_BYTES.min(self.total_bytes.load(Ordering::Relaxed) / RESERVE_PART);
        let needed_bytes = bytes.saturating_add(reserve);
        self.available_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |available| {
                (available >= needed_bytes).then(|| available - bytes)
            })
            .map(drop)
            .map_err(|available_bytes| self.full(available_bytes, needed_bytes))
    }

    pub(super) fn full(&self, available_bytes: u64, needed_bytes: u64) -> DiskError {
        DiskError::Full { disk: self.io.disk, path: self.io.root.clone(), available_bytes, needed_bytes }
    }

    pub(super) fn added(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shards.fetch_add(1, Ordering::Relaxed);
    }

    /// A name in this shard's folder came or went.
    pub(super) fn touch(&self, key: ShardKey) {
        lock(&self.touched)[(key.version.0 >> 120) as usize] = true;
    }

    pub(super) fn removed(&self, bytes: u64) {
        let less = |counter: &AtomicU64, by: u64| {
            counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| Some(value.saturating_sub(by)))
        };
        // Neither can fail: the closures always give a value.
        let _ = (less(&self.used_bytes, bytes), less(&self.shards, 1));
    }

    /// Takes the sole right to write a shard; given back by [`Core::release`].
    pub(super) fn claim(&self, key: ShardKey) -> bool {
        lock(&self.claims).insert(key)
    }

    pub(super) fn release(&self, key: ShardKey) {
        lock(&self.claims).remove(&key);
    }

    /// Notes a temporary file to be removed by the next canary: a dropped writer cannot wait for a disk.
    pub(super) fn leave(&self, temporary: PathBuf) {
        lock(&self.leftovers).push(temporary);
    }

    pub(super) async fn remove_leftovers(&self) {
        let leftovers = std::mem::take(&mut *lock(&self.leftovers));
        for path in leftovers {
            match self.io.remove_file(&path).await {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    // It is out of sight of every reader, and goes when the disk is opened next.
                    tracing::warn!(disk = %self.io.disk, path = %path.display(), %error, "temporary file stays");
                }
            }
        }
    }

    pub(super) fn shard_folder(&self, key: ShardKey) -> PathBuf {
        self.io.root.join(SHARDS).join(fan_out(key))
    }

    pub(super) fn shard_path(&self, key: ShardKey) -> PathBuf {
        self.shard_folder(key).join(file_name(key))
    }

    /// Makes a disk whose superblock was just recognised ready for use: folders, no temporary files of an earlier
    /// process, counters. Never called otherwise: without the superblock this would build a tree under a mount point.
    pub(super) async fn prepare(&self) -> Result<(), DiskError> {
        self.make_folders().await?;
        if !self.swept.load(Ordering::Relaxed) {
            let folder = self.io.root.join(TEMPORARY);
            for entry in self.io.list(&folder).await?.into_iter().filter(|entry| entry.kind == FileKind::File) {
                self.io.remove_file(&folder.join(entry.name)).await?;
            }
            self.swept.store(true, Ordering::Relaxed);
        }
        self.count().await?;
        self.set_space(self.io.space().await?);
        self.prepared.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn make_folders(&self) -> Result<(), DiskError> {
        let root = &self.io.root;
        let shards = root.join(SHARDS);
        for folder in [&root.join(TEMPORARY), &root.join(ASIDE), &shards] {
            self.io.create_dir(folder).await?;
        }
        let present: BTreeSet<String> = self.io.list(&shards).await?.into_iter().map(|entry| entry.name).collect();
        if present.len() < usize::from(FAN_OUT) {
            for name in (0..FAN_OUT).map(|n| format!("{n:02x}")).filter(|name| !present.contains(name)) {
                self.io.create_dir(&shards.join(name)).await?;
            }
            self.io.sync_dir(&shards).await?;
            self.io.sync_dir(root).await?;
        }
        Ok(())
    }

    /// Counts shards and their bytes afresh.
    async fn count(&self) -> Result<(), DiskError> {
        let (mut shards, mut bytes) = (0, 0);
        for n in 0..FAN_OUT {
            let folder = self.io.root.join(SHARDS).join(format!("{n:02x}"));
            let names = self.list_folder(n).await?;
            let lengths = stream::iter(names.into_iter().map(|key| self.length(folder.join(file_name(key)))));
            let found: Vec<Option<u64>> = lengths.buffer_unordered(STATS_AT_ONCE).try_collect().await?;
            shards += found.iter().flatten().count() as u64;
            bytes += found.iter().flatten().sum::<u64>();
        }
        self.shards.store(shards, Ordering::Relaxed);
        self.used_bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// A file's length; `None` when there is no such file.
    async fn length(&self, path: PathBuf) -> Result<Option<u64>, DiskError> {
        match self.io.metadata(&path).await {
            Ok(metadata) => Ok(Some(metadata.len_bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn shard_length(&self, key: ShardKey) -> Result<Option<u64>, DiskError> {
        self.length(self.shard_path(key)).await
    }

    pub(super) async fn list_folder(&self, n: u16) -> Result<Vec<ShardKey>, DiskError> {
        let name = format!("{n:02x}");
        let folder = self.io.root.join(SHARDS).join(&name);
        let entries = match self.io.list(&folder).await {
            Err(error) if error.is_not_found() => return Err(self.lost_folder()),
            result => result?,
        };
        let known = |name: &str| parse_name(name);
        Ok(entries.into_iter().filter(|e| e.kind == FileKind::File).filter_map(|e| known(&e.name)).collect())
    }

    /// From now on the superblock must name this cluster.
    pub(super) fn join_cluster(&self, cluster: ClusterId, epoch: Epoch) -> Result<(), DiskError> {
        let mut wanted = self.identity();
        if let Some(found) = wanted.cluster.filter(|found| *found != cluster) {
            return Err(DiskError::ForeignCluster {
                path: self.io.root.clone(),
                disk: self.io.disk,
                found,
                ours: cluster,
            });
        }
        wanted.cluster = Some(cluster);
        wanted.epoch = wanted.epoch.max(epoch);
        *lock(&self.identity) = wanted;
        Ok(())
    }

    /// An epoch that was undone is taken for the one that is: whether this disk had seen it.
    pub(super) fn forget_epoch(&self, undone: Epoch, epoch: Epoch) -> bool {
        let mut identity = lock(&self.identity);
        let had = identity.epoch == undone;
        if had {
            identity.epoch = epoch;
        }
        had
    }

    /// Writes the superblock if the one on disk (`found`) says less than we know.
    pub(super) async fn refresh(&self, found: &Superblock) -> std::io::Result<()> {
        let mut wanted = self.identity();
        wanted.created_ms = found.created_ms;
        wanted.epoch = wanted.epoch.max(found.epoch);
        wanted.cluster = wanted.cluster.or(found.cluster);
        if wanted == *found {
            return Ok(());
        }
        superblock::write(&self.io.host, &self.io.root, &wanted).await
    }
}
