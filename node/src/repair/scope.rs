//! The verbs of an agent: make a scope redundant again, and prove that it is.
//!
//! Must never: call something proven that was not read back. What could not be asked is `skipped`, never `ok`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use resilver_host::planted::{Bug, bug};
use resilver_proto::contract;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::check::{self, PAGE};
use super::{Board, Only, PAUSE_ABOVE, Progress, RebuildState, RepairParts, pause};
use crate::disk::ShardVerdict;
use crate::gateway::{ExtentSpec, Gateway, GatewayError};
use crate::meta::MetaError;
use crate::model::{ClusterMap, DiskState, Home, HostState};
use crate::placement::place;
use crate::types::{BucketName, DiskId, ShardIndex, ShardKey};

/// Shards being read back at a time: keeps several disks busy and leaves clients their share.
const VERIFIES_IN_FLIGHT: usize = 4;

/// How long without a sign of change before the counts are looked at again: the rebuilds of other nodes are seen only in
/// metadata, which tells of changes of the map alone.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Messages of progress ahead of who reads them.
const MESSAGES_AHEAD: usize = 16;

/// The progress of a verb. Dropping it ends the verb; the repair itself goes on by itself.
pub type ProgressStream = ReceiverStream<Progress>;

/// What a verb is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This node: what is to be on its disks.
    Everything,
    /// A disk: what is, or was, on it.
    Disk(DiskId),
    /// An object.
    Object {
        /// Its bucket.
        bucket: BucketName,
        /// Its key.
        key: String,
    },
    /// A bucket: what of it is to be on this node's disks.
    Bucket(BucketName),
}

impl TryFrom<contract::Scope> for Scope {
    type Error = String;

    fn try_from(scope: contract::Scope) -> Result<Self, String> {
        use contract::scope::Of;
        match scope.of {
            Some(Of::Everything(true)) => Ok(Self::Everything),
            Some(Of::DiskId(id)) => id.parse().map(Self::Disk).map_err(|_| format!("{id:?} is no disk id")),
            Some(Of::Object(object)) => Ok(Self::Object { bucket: BucketName(object.bucket), key: object.key }),
            Some(Of::Range(range)) if range.from.is_empty() && range.to.is_empty() => {
                Ok(Self::Bucket(BucketName(range.bucket)))
            }
            Some(Of::Range(_)) => {
                Err("a part of a bucket is no scope of this engine: name the bucket, an object or a disk".to_owned())
            }
            Some(Of::Metadata(_)) => Err("the metadata is no scope of this verb".to_owned()),
            Some(Of::Everything(false)) | None => Err("the scope names nothing".to_owned()),
        }
    }
}

/// Why a verb ended early.
#[derive(Debug, thiserror::Error)]
enum ScopeError {
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("nobody listens any more")]
    Gone,
}

/// The metadata, asked behind a barrier, says that the object is gone: it has no shard that could be bad.
fn nothing_left(phase: &'static str) -> Progress {
    let message = "the object was deleted: nothing of it is left to be repaired".to_owned();
    Progress { phase, message, ..Progress::default() }
}

#[derive(Clone)]
struct Verb {
    parts: Arc<RepairParts>,
    gateway: Gateway,
    messages: mpsc::Sender<Progress>,
}

pub(super) fn sync(parts: Arc<RepairParts>, gateway: Gateway, scope: Scope) -> ProgressStream {
    start("sync", parts, gateway, move |verb| async move {
        match scope {
            Scope::Everything => verb.sync_node(Only::Any).await,
            Scope::Bucket(bucket) => verb.sync_node(Only::Bucket(bucket)).await,
            Scope::Disk(disk) => verb.sync_disk(disk).await,
            Scope::Object { bucket, key } => verb.sync_object(&bucket, &key).await,
        }
    })
}

pub(super) fn verify(parts: Arc<RepairParts>, gateway: Gateway, scope: Scope) -> ProgressStream {
    start("verify", parts, gateway, move |verb| async move {
        match scope {
            Scope::Everything => verb.verify_node(None).await,
            Scope::Bucket(bucket) => verb.verify_node(Some(bucket)).await,
            Scope::Disk(disk) => verb.verify_disk(disk).await,
            Scope::Object { bucket, key } => verb.verify_object(&bucket, &key).await,
        }
    })
}

/// Runs a verb in a task of its own until it ends or nobody listens.
fn start<F, W>(phase: &'static str, parts: Arc<RepairParts>, gateway: Gateway, work: W) -> ProgressStream
where
    F: Future<Output = Result<Progress, ScopeError>> + Send + 'static,
    W: FnOnce(Verb) -> F,
{
    let (messages, stream) = mpsc::channel(MESSAGES_AHEAD);
    let work = work(Verb { parts, gateway, messages: messages.clone() });
    tokio::spawn(async move {
        let ended = tokio::select! {
            () = messages.closed() => return,
            ended = work => ended,
        };
        let last = ended.unwrap_or_else(|error| {
            // What was not proven counts as failed, whatever was done until then.
            Progress { phase, failed: 1, message: error.to_string(), ..Progress::default() }
        });
        let _ = messages.send(Progress { finished: true, ..last }).await;
    });
    ReceiverStream::new(stream)
}

impl Verb {
    async fn tell(&self, progress: &Progress) -> Result<(), ScopeError> {
        self.messages.send(progress.clone()).await.map_err(|_| ScopeError::Gone)
    }

    /// A disk that is given up or emptied: until no shard's home is there. Every node does its own part once it sees the map.
    async fn sync_disk(&self, disk: DiskId) -> Result<Progress, ScopeError> {
        self.parts.meta.barrier().await?;
        let map = self.parts.meta.map();
        match map.disk_state(disk) {
            Some(DiskState::Draining | DiskState::Out) | None => self.drain(disk).await,
            Some(_) if self.parts.disks.volume(disk).is_some() => self.sync_node(Only::Disk(disk)).await,
            Some(state) => Ok(Progress {
                phase: "sync",
                skipped: self.shards_on(disk),
                message: format!("the disk is {} and in another node, which repairs what is on it", state.as_str()),
                ..Progress::default()
            }),
        }
    }

    async fn drain(&self, disk: DiskId) -> Result<Progress, ScopeError> {
        self.parts.board.request_check();
        let mut maps = self.parts.meta.map_changes();
        let mut changes = self.parts.board.changes();
        let failed_before = self.parts.board.failed(&Only::Any);
        let total = self.shards_on(disk);
        let mut progress = Progress { phase: "sync", total, ..Progress::default() };
        loop {
            let left = self.shards_on(disk);
            progress.total = progress.total.max(left);
            let done = progress.total - left;
            if done != progress.done {
                progress.done = done;
                self.tell(&progress).await?;
            }
            if left == 0 || (bug(Bug::DrainGivesUpEarly) && done >= left) {
                #[cfg(feature = "audit")]
                self.state_drained(disk).await?;
                progress.message = "no shard has its home on this disk any more".to_owned();
                return Ok(progress);
            }
            if self.map_state(disk).is_some_and(|state| !state.is_left()) {
                progress.skipped = left;
                progress.message = match self.map_state(disk) {
                    Some(DiskState::Down) => {
                        "its host, or the disk, is not there: this goes on when it is back".to_owned()
                    }
                    _ => "the disk is in use again".to_owned(),
                };
                return Ok(progress);
            }
            if let Some(why) = pause::lasts(&self.parts.meta) {
                progress.skipped = left;
                progress.message = why;
                return Ok(progress);
            }
            let attempts = self.parts.board.failed(&Only::Any) - failed_before;
            progress.message =
                format!("{left} shards still to be rebuilt elsewhere; {attempts} attempts of this node failed");
            tokio::select! {
                _ = maps.changed() => {}
                _ = changes.changed() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// Tells checkers what still has its home on a disk that is called empty: by the records, and not by the counts that said so.
    #[cfg(feature = "audit")]
    async fn state_drained(&self, disk: DiskId) -> Result<(), ScopeError> {
        let (mut after, mut left) = (None, 0);
        loop {
            let scan = self.parts.meta.scan(after.take(), PAGE).await?;
            let records = scan.objects.iter().flat_map(|(_, _, record)| &record.extents);
            left += records.flat_map(|extent| &extent.homes).filter(|home| home.at == Some(disk)).count() as u64;
            match scan.end {
                true => break,
                false => after = scan.objects.last().map(|(bucket, key, _)| (bucket.clone(), key.clone())),
            }
        }
        resilver_host::audit::state(|| resilver_host::audit::Fact::DiskDrained { disk: disk.to_string(), left });
        Ok(())
    }

    /// Our own disks, or a part of what is on them: look for what is missing, and wait until it is rebuilt.
    async fn sync_node(&self, only: Only) -> Result<Progress, ScopeError> {
        let board = &self.parts.board;
        let mut changes = board.changes();
        let failed_before = board.failed(&only);
        check::pass(&self.parts, &only).await?;
        let mut progress = Progress { phase: "sync", total: board.pending(&only), ..Progress::default() };
        loop {
            changes.borrow_and_update();
            let left = board.pending(&only);
            progress.total = progress.total.max(left);
            progress.done = progress.total - left;
            progress.failed = board.failed(&only) - failed_before;
            progress.message.clear();
            if left == 0 {
                return Ok(progress);
            }
            if let Some(why) = pause::lasts(&self.parts.meta) {
                progress.skipped = left;
                progress.message = why;
                return Ok(progress);
            }
            progress.message = held_words(board);
            self.tell(&progress).await?;
            // The board outlives this loop, so an error cannot come; a timeout only means nothing ended meanwhile.
            let _ = timeout(LOOK_AGAIN * 4, changes.changed()).await;
        }
    }

    async fn sync_object(&self, bucket: &BucketName, key: &str) -> Result<Progress, ScopeError> {
        let repair = match self.gateway.repair(bucket, key).await {
            Err(GatewayError::NoObject { .. } | GatewayError::NoBucket(_)) => return Ok(nothing_left("sync")),
            repair => repair?,
        };
        let failed = repair.shards.iter().filter(|shard| shard.report.state == RebuildState::Failed);
        let details: Vec<&str> = failed.clone().map(|shard| shard.report.detail.as_str()).collect();
        let failed = failed.count() as u64;
        let total = repair.shards.len() as u64;
        Ok(Progress {
            phase: "sync",
            done: total - failed,
            total,
            failed: failed.max(u64::from(!repair.intact)),
            bytes: repair.shards.iter().map(|shard| shard.report.bytes).sum(),
            message: details.join("; "),
            ..Progress::default()
        })
    }

    async fn verify_object(&self, bucket: &BucketName, key: &str) -> Result<Progress, ScopeError> {
        use crate::gateway::ShardState;
        let verdict = match self.gateway.check_shards(bucket, key).await {
            Err(GatewayError::NoObject { .. } | GatewayError::NoBucket(_)) => return Ok(nothing_left("verify")),
            verdict => verdict?,
        };
        let mut progress = Progress { phase: "verify", total: verdict.shards.len() as u64, ..Progress::default() };
        for check in &verdict.shards {
            match &check.state {
                ShardState::Ok { bytes, .. } => {
                    progress.done += 1;
                    progress.bytes += bytes;
                }
                ShardState::Unreachable(why) => {
                    progress.skipped += 1;
                    progress.message.clone_from(why);
                }
                ShardState::Corrupt { .. } | ShardState::Missing(_) => progress.failed += 1,
            }
        }
        Ok(progress)
    }

    async fn verify_node(&self, bucket: Option<BucketName>) -> Result<Progress, ScopeError> {
        let ours: BTreeSet<DiskId> = self.parts.disks.volumes().iter().map(|volume| volume.id()).collect();
        self.verify_where(move |spec, home, _| match home.at {
            _ if bucket.as_ref().is_some_and(|bucket| *bucket != spec.bucket) => Look::Pass,
            Some(at) if ours.contains(&at) => Look::Read(at),
            None if ours.contains(&home.wanted) => Look::Lost,
            _ => Look::Pass,
        })
        .await
    }

    /// A disk in use: what is on it. A disk given up, or emptied: that nothing is on it any more, and that what was on it reads back
    /// from its new homes. Which shards those are: what this node saw leaving, and what placement would put there if the
    /// disk were in use.
    async fn verify_disk(&self, disk: DiskId) -> Result<Progress, ScopeError> {
        self.parts.meta.barrier().await?;
        let map = self.parts.meta.map();
        let given_up = self.map_state(disk).is_none_or(DiskState::is_left);
        let before = with_disk_up(&map, disk);
        let board = self.parts.board.clone();
        self.verify_where(move |spec, home, shard| match home.at {
            Some(at) if at == disk && given_up => Look::Lost,
            Some(at) if at == disk => Look::Read(at),
            None if home.wanted == disk => Look::Lost,
            _ if !given_up => Look::Pass,
            at => {
                let key = spec.shard(shard);
                let came_from_there = board.moved_from(disk, key)
                    || place(&before, spec.id.version, spec.id.index, spec.coding)
                        .is_ok_and(|placement| placement.homes.get(shard.as_usize()) == Some(&disk));
                match at {
                    _ if !came_from_there => Look::Pass,
                    Some(at) => Look::Read(at),
                    None => Look::Lost,
                }
            }
        })
        .await
    }

    /// Walks all objects and reads back what `choose` says.
    async fn verify_where(
        &self,
        choose: impl Fn(&ExtentSpec, Home, ShardIndex) -> Look + Send + Sync,
    ) -> Result<Progress, ScopeError> {
        self.parts.meta.barrier().await?;
        let mut progress = Progress { phase: "verify", ..Progress::default() };
        let mut after = None;
        loop {
            let scan = self.parts.meta.scan(after.take(), PAGE).await?;
            let mut reads = Vec::new();
            for (bucket, key, record) in &scan.objects {
                for extent in &record.extents {
                    let spec = ExtentSpec::of(bucket, key, record, extent);
                    for (shard, home) in (0u8..).map(ShardIndex).zip(&extent.homes) {
                        match choose(&spec, *home, shard) {
                            Look::Pass => continue,
                            Look::Read(disk) => reads.push((disk, spec.shard(shard))),
                            Look::Lost => {
                                progress.failed += 1;
                                progress.message = format!("shard {} has no good home", spec.shard(shard));
                            }
                        }
                        progress.total += 1;
                    }
                }
            }
            self.read_back(reads, &mut progress).await?;
            if scan.end {
                return Ok(progress);
            }
            after = scan.objects.last().map(|(bucket, key, _)| (bucket.clone(), key.clone()));
        }
    }

    async fn read_back(&self, reads: Vec<(DiskId, ShardKey)>, progress: &mut Progress) -> Result<(), ScopeError> {
        let mut verdicts = stream::iter(reads)
            .map(|(disk, key)| {
                let client = self.parts.shards.clone();
                async move { (disk, key, client.verify(disk, key).await) }
            })
            .buffer_unordered(VERIFIES_IN_FLIGHT);
        while let Some((disk, key, verdict)) = verdicts.next().await {
            match verdict {
                Ok(ShardVerdict::Ok { bytes, .. }) => {
                    progress.done += 1;
                    progress.bytes += bytes;
                }
                // It may have been replaced, deleted or moved since the page was read: then it is no failure.
                Ok(_) if !self.still_there(disk, key).await? => progress.total -= 1,
                Ok(bad) => {
                    progress.failed += 1;
                    progress.message = format!("shard {key} on disk {disk}: {bad:?}");
                }
                Err(error) => {
                    progress.skipped += 1;
                    progress.message = error.to_string();
                }
            }
            self.tell(progress).await?;
        }
        Ok(())
    }

    async fn still_there(&self, disk: DiskId, key: ShardKey) -> Result<bool, ScopeError> {
        self.parts.meta.barrier().await?;
        let Some((bucket, name)) = self.parts.meta.owner_of(key.version).await? else { return Ok(false) };
        let Some(record) = self.parts.meta.object(&bucket, &name).await? else { return Ok(false) };
        let home = record.extent(key.extent_id()).and_then(|extent| extent.homes.get(key.shard.as_usize()));
        Ok(home.and_then(|home| home.at) == Some(disk))
    }

    fn shards_on(&self, disk: DiskId) -> u64 {
        self.parts.meta.counts().shards_by_disk.get(&disk).copied().unwrap_or(0)
    }

    fn map_state(&self, disk: DiskId) -> Option<DiskState> {
        self.parts.meta.map().disk_state(disk)
    }
}

/// What a verification does about one shard.
enum Look {
    /// Not of this scope.
    Pass,
    /// To be read back from there.
    Read(DiskId),
    /// Not where it can be read from.
    Lost,
}

/// Why shards wait although nobody paused repair; empty: none does.
fn held_words(board: &Board) -> String {
    let held = board.held();
    let shards: u64 = held.values().map(|held| held.shards).sum();
    match held.values().map(|held| held.percent).max() {
        Some(percent) if shards > 0 => format!(
            "{shards} shards wait: clients take {percent}% of the time of a disk they are for, and above {PAUSE_ABOVE}% what has \
             a spare gives way"
        ),
        _ => String::new(),
    }
}

/// The map as if the disk, or its host, had never been given up.
fn with_disk_up(map: &ClusterMap, disk: DiskId) -> ClusterMap {
    let mut map = map.clone();
    if let Some(record) = map.disks.get_mut(&disk) {
        record.state = DiskState::Up;
        if let Some(node) = map.nodes.get_mut(&record.node) {
            node.state = HostState::Up;
            node.draining = None;
        }
    }
    map
}
