//! Rebuilds one shard on one of our disks: reads k others stripe by stripe, computes the missing one, writes it, reads it
//! back from disk, and only then says in metadata that it is there.
//!
//! Must never: move the bad shard aside before the new one is complete and was read back, or take a shard's word for being bad: it looks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use resilver_host::audit::{self, Fact};
use resilver_host::planted::{Bug, bug};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::board::Board;
use super::homes::{Homes, Moved};
use super::pause;
use super::queue::{Job, PARTS};
use super::target::{delivery_of, target_of};
use super::throttle::{Throttle, rest};
use super::{FoundBy, RebuildReport, RebuildState, RepairParts, Suspect, SuspectKind, Timings, holder_of};
use crate::codec::{CodecError, ErasureCodec, codec};
use crate::disk::{DiskError, DiskSet, Purpose, ShardHead, ShardVerdict, ShardWriter, Volume};
use crate::gateway::{ExtentReader, ExtentSpec, ReadAhead, ReadPlan, Unreadable};
use crate::meta::{Meta, MetaError};
use crate::model::{Home, HomeMove, Outcome, Refusal};
use crate::options::RepairOptions;
use crate::transport::{Preference, ShardClient};
use crate::types::{BucketName, DiskId, Epoch, ShardIndex, ShardKey};

/// Rest after a rebuild, in percent of what it took: gives way to clients as the disk gets busy. Small, because lost
/// redundancy is the greater risk.
const REST_PERCENT: u32 = 5;

/// Blocks asked for at a time when a shard is fetched: all of them are taken (2 MiB) before any is written, because what is
/// not taken holds up everything else from that peer.
const FETCH_BLOCKS: u32 = 32;

/// How long fetching one shard may take: at most 16 MiB from a disk that answers.
const FETCH_DEADLINE: Duration = Duration::from_secs(30);

/// Why a shard could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub(super) enum RebuildError {
    #[error("disk {0} is not in this node, or takes no new shards now")]
    NotHere(DiskId),
    #[error("metadata: {0}")]
    Meta(#[from] MetaError),
    #[error("metadata: {0}")]
    NotRecorded(Arc<MetaError>),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("decoding: {0}")]
    Codec(#[from] CodecError),
    #[error("the new shard did not read back as written: {0}")]
    NotBack(String),
    #[error("the bad shard's file could not be moved aside, so that it and its name stay as they are: {0}")]
    NotAside(DiskError),
    #[error("what was computed has crc32c {got:08x}, and {demanded:08x} is demanded: nothing was changed")]
    NotDemanded { demanded: u32, got: u32 },
    #[error("metadata answered with {0}")]
    Unexpected(String),
}

/// Rebuilds shards on our disks, and has others rebuild theirs. Cheap to clone.
#[derive(Clone)]
pub struct Rebuilder {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) meta: Meta,
    pub(super) disks: Arc<DiskSet>,
    pub(super) shards: ShardClient,
    pub(super) board: Board,
    pub(super) slots: Semaphore,
    pub(super) throttle: Throttle,
    homes: Homes,
}

/// Why a shard is written on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// It belongs there, and is missing or bad, or a stand-in has it.
    Restore,
    /// Its home cannot take it now.
    StandIn,
}

/// A worker of the queue.
pub(super) async fn work(parts: Arc<RepairParts>) {
    loop {
        pause::ended(&parts.meta).await;
        let (job, claim) = parts.board.next(slots_of(&parts.repair)).await;
        if pause::lasts(&parts.meta).is_some() {
            // One that began while this worker waited: the job waits for its end.
            parts.board.put_back(job, claim);
            continue;
        }
        let began = Instant::now();
        let Job { bucket, key, shard, disk, .. } = &job;
        parts.rebuilder.run(bucket, key, *shard, *disk, Task::Restore, job.parts()).await;
        drop(claim);
        rest(began.elapsed(), REST_PERCENT).await;
    }
}

/// Shards of full size that are rebuilt side by side.
fn slots_of(options: &RepairOptions) -> u32 {
    u32::try_from(options.in_flight.max(1)).unwrap_or(u32::MAX)
}

/// Workers of the queue: enough for slots full of small shards.
pub(super) fn workers(options: &RepairOptions) -> u32 {
    slots_of(options).saturating_mul(PARTS)
}

impl Rebuilder {
    /// Over our disks and the way to all others, within the limits of `options`.
    pub fn new(meta: Meta, disks: Arc<DiskSet>, shards: ShardClient, board: Board, options: &RepairOptions) -> Self {
        let slots = Semaphore::new(workers(options) as usize);
        let throttle = Throttle::new(options.rate_bytes_per_second);
        let homes = Homes::new(meta.clone());
        Self { inner: Arc::new(Inner { meta, disks, shards, board, slots, throttle, homes }) }
    }

    /// Rebuilds a shard on `disk`, wherever that is, now.
    pub async fn rebuild_at(&self, bucket: &BucketName, key: &str, shard: ShardKey, disk: DiskId) -> RebuildReport {
        if self.inner.shards.is_local(disk) {
            return self.rebuild_here(bucket, key, shard, disk).await;
        }
        match self.inner.shards.rebuild_remote(disk, shard, bucket.as_str(), key, false).await {
            Ok(answer) => answer.into(),
            Err(error) => RebuildReport::failed(error.to_string()),
        }
    }

    /// Has a disk, wherever it is, hold a shard whose home cannot take it now.
    pub async fn stand_in_at(&self, bucket: &BucketName, key: &str, shard: ShardKey, disk: DiskId) -> RebuildReport {
        if self.inner.shards.is_local(disk) {
            return self.now(bucket, key, shard, disk, Task::StandIn).await;
        }
        match self.inner.shards.rebuild_remote(disk, shard, bucket.as_str(), key, true).await {
            Ok(answer) => answer.into(),
            Err(error) => RebuildReport::failed(error.to_string()),
        }
    }

    /// Rebuilds a shard on one of our disks now, ahead of the queue.
    pub async fn rebuild_here(&self, bucket: &BucketName, key: &str, shard: ShardKey, disk: DiskId) -> RebuildReport {
        self.now(bucket, key, shard, disk, Task::Restore).await
    }

    async fn now(&self, bucket: &BucketName, key: &str, shard: ShardKey, disk: DiskId, task: Task) -> RebuildReport {
        // Whoever asks may have seen a commit that is not applied here yet.
        if let Err(error) = self.inner.meta.barrier().await {
            return RebuildReport::failed(error.to_string());
        }
        let claim = self.inner.board.claim(shard, disk, bucket).await;
        let report = self.run(bucket, key, shard, disk, task, PARTS).await;
        drop(claim);
        report
    }

    /// The caller holds the claim. It takes so many parts of a slot.
    async fn run(
        &self,
        bucket: &BucketName,
        key: &str,
        shard: ShardKey,
        disk: DiskId,
        task: Task,
        parts: u32,
    ) -> RebuildReport {
        // Closed is no state of it: nobody closes it.
        let _slot = self.inner.slots.acquire_many(parts).await;
        let report = match self.rebuild(bucket, key, shard, disk, task).await {
            Ok(report) => report,
            Err(error) => {
                tracing::warn!(%bucket, key, %shard, %disk, %error, "a shard could not be rebuilt; the next check tries again");
                RebuildReport::failed(error.to_string())
            }
        };
        if report.state == RebuildState::Rebuilt {
            tracing::info!(%bucket, key, %shard, %disk, bytes = report.bytes, "a shard was rebuilt and read back");
        }
        self.inner.board.ended((bucket, key), shard, disk, &report);
        report
    }

    async fn rebuild(
        &self,
        bucket: &BucketName,
        key: &str,
        shard: ShardKey,
        disk: DiskId,
        task: Task,
    ) -> Result<RebuildReport, RebuildError> {
        let found = holder_of(&self.inner.meta, bucket, key, shard.extent_id()).await?;
        let extent = found.as_ref().and_then(|(_, _, record)| record.extent(shard.extent_id()));
        let home = extent.and_then(|extent| extent.homes.get(shard.shard.as_usize())).copied();
        let (Some((bucket, key, record)), Some(extent), Some(home)) = (&found, extent, home) else {
            return Ok(RebuildReport::without_work(RebuildState::Obsolete, "the object was replaced or deleted"));
        };
        let spec = ExtentSpec::of(bucket, key, record, extent);
        let map = self.inner.meta.map();
        let due = match task {
            Task::Restore => target_of(&map, &spec, shard.shard) == Some(disk) || delivery_of(&map, home) == Some(disk),
            Task::StandIn => home.at.is_none() && home.wanted != disk && !spec.has(disk),
        };
        if !due {
            return match task == Task::Restore && self.is_ours_after_all(bucket, key, shard, disk).await? {
                true => Box::pin(self.rebuild(bucket, key, shard, disk, task)).await,
                false => Ok(RebuildReport::without_work(RebuildState::Obsolete, "the shard belongs elsewhere by now")),
            };
        }
        let volume = self.inner.disks.volume(disk).ok_or(RebuildError::NotHere(disk))?;

        let corrupt = match volume.verify_shard(shard).await? {
            ShardVerdict::Ok { .. } if home.at == Some(disk) => {
                return Ok(RebuildReport::without_work(RebuildState::Intact, "nothing is wrong with it"));
            }
            // An upload that was slow, or a rebuild that was cut off before it could tell: only the record is missing.
            ShardVerdict::Ok { .. } => {
                // Whoever wrote it may not have come to that.
                volume.sync_name(shard).await?;
                return self.record_home(&spec, shard, home, disk, task, RebuildReport::found()).await;
            }
            ShardVerdict::Corrupt { .. } => true,
            ShardVerdict::Missing => false,
        };
        let head = head_of(&spec, shard, map.epoch)?;
        if delivery_of(&map, home) == Some(disk) && bug(Bug::DropHintEarly) {
            self.record_home(&spec, shard, home, disk, task, RebuildReport::found()).await?;
        }
        let report = self.copy(&spec, head, &volume, corrupt, home).await?;
        if home.at == Some(disk) { Ok(report) } else { self.record_home(&spec, shard, home, disk, task, report).await }
    }

    /// Whether a shard that seems to belong elsewhere belongs here, as of what is committed by now. If not, whoever has it to rebuild is
    /// told: of two shards of an extent that are lost at once both belong on one disk, until the first of them is there; then the second
    /// belongs elsewhere, and nobody would look for it before the next walk over all objects.
    async fn is_ours_after_all(
        &self,
        bucket: &BucketName,
        key: &str,
        shard: ShardKey,
        disk: DiskId,
    ) -> Result<bool, RebuildError> {
        // Who is told asks the same: by then it must know no less than this node, or the two hand it to and fro.
        self.inner.meta.barrier().await?;
        let Some((bucket, key, record)) = holder_of(&self.inner.meta, bucket, key, shard.extent_id()).await? else {
            return Ok(false);
        };
        let Some(extent) = record.extent(shard.extent_id()) else { return Ok(false) };
        let spec = ExtentSpec::of(&bucket, &key, &record, extent);
        let at = spec.homes.get(shard.shard.as_usize()).and_then(|home| home.at);
        let target = target_of(&self.inner.meta.map(), &spec, shard.shard);
        if let Some(target) = target.filter(|target| *target != disk && at != Some(*target)) {
            let detail = "another shard of its extent has taken its place".to_owned();
            // As of an upload's: it is known to be lost, and no finding.
            let (kind, found_by) = (SuspectKind::Missing, FoundBy::Write);
            self.inner.shards.report(Suspect { bucket, key, shard, disk: target, kind, found_by, detail });
        }
        Ok(target == Some(disk))
    }

    /// Computes the shard and puts it in its place.
    async fn copy(
        &self,
        spec: &ExtentSpec,
        head: ShardHead,
        volume: &Volume,
        corrupt: bool,
        home: Home,
    ) -> Result<RebuildReport, RebuildError> {
        let timings = self.inner.board.timings();
        let bytes = spec.layout().shard_bytes();
        self.inner.throttle.take(bytes).await;
        let (writer, from) = match home.at.filter(|at| *at != volume.id()) {
            Some(at) if self.inner.shards.preference(at) < Preference::Doubtful => {
                match self.fetch(spec, head, volume, at).await {
                    Some(writer) => (writer, vec![head.key.shard]),
                    None => self.computed(spec, head, volume, timings).await?,
                }
            }
            // A host that is believed to be gone would be waited for; that it has the shard may still be what saves it.
            Some(at) => match self.computed(spec, head, volume, timings).await {
                Ok(computed) => computed,
                Err(error) => match self.fetch(spec, head, volume, at).await {
                    Some(writer) => (writer, vec![head.key.shard]),
                    None => return Err(error),
                },
            },
            None => self.computed(spec, head, volume, timings).await?,
        };
        let began = Instant::now();
        put_in_place(volume, writer, corrupt.then_some("corrupt")).await?;
        timings.add_write(began.elapsed());

        let began = Instant::now();
        let back = volume.verify_shard(head.key).await?;
        timings.add_verify(began.elapsed());
        let ShardVerdict::Ok { .. } = back else { return Err(RebuildError::NotBack(format!("{back:?}"))) };
        timings.add_shard(bytes);
        Ok(RebuildReport { state: RebuildState::Rebuilt, rebuilt_from: from, bytes, detail: String::new() })
    }

    /// Copies the shard from the disk that has it. `None` when that cannot be: there are other ways.
    async fn fetch(&self, spec: &ExtentSpec, head: ShardHead, volume: &Volume, from: DiskId) -> Option<ShardWriter> {
        let blocks = spec.layout().stripes();
        let copying = async {
            let mut writer = volume.create_shard(head).ok()?;
            let mut done = 0;
            while done < blocks {
                let run = FETCH_BLOCKS.min(blocks - done);
                let reading = self.inner.shards.get(from, head.key, done, run, Purpose::Background);
                let mut stream = reading.await.ok()?;
                let mut blocks = Vec::with_capacity(run as usize);
                for _ in 0..run {
                    blocks.push(stream.next().await.ok()??);
                }
                for block in blocks {
                    let crc = crc32c::crc32c(&block);
                    writer.block(block, crc).await.ok()?;
                }
                done += run;
            }
            Some(writer)
        };
        tokio::time::timeout(FETCH_DEADLINE, copying).await.ok()?
    }

    /// Computes the shard from k others, and says from which.
    async fn computed(
        &self,
        spec: &ExtentSpec,
        head: ShardHead,
        volume: &Volume,
        timings: &Timings,
    ) -> Result<(ShardWriter, Vec<ShardIndex>), RebuildError> {
        self.compute(spec, head, volume, timings).await.map(|(writer, from, _)| (writer, from))
    }

    /// The same, with the CRC32C of the shard's content.
    pub(super) async fn compute(
        &self,
        spec: &ExtentSpec,
        head: ShardHead,
        volume: &Volume,
        timings: &Timings,
    ) -> Result<(ShardWriter, Vec<ShardIndex>, u32), RebuildError> {
        let mut writer = volume.create_shard(head)?;
        match self.fill(spec, head.key.shard, &mut writer, timings).await {
            Ok((from, crc)) => Ok((writer, from, crc)),
            Err(error) => {
                writer.abort().await;
                Err(error)
            }
        }
    }

    /// Stripe by stripe; the lanes of the reader fetch ahead while this decodes and writes.
    async fn fill(
        &self,
        spec: &ExtentSpec,
        shard: ShardIndex,
        writer: &mut ShardWriter,
        timings: &Timings,
    ) -> Result<(Vec<ShardIndex>, u32), RebuildError> {
        let codec = codec(spec.coding)?;
        let mut whole = 0;
        let stripes = spec.layout().stripes();
        let avoid = BTreeSet::new();
        let plan = ReadPlan {
            first: 0,
            end: stripes,
            without: Some(shard),
            avoid: &avoid,
            ahead: ReadAhead::Rebuild,
            timings: Some(timings.clone()),
        };
        let mut reader = ExtentReader::open(&self.inner.shards, spec.clone(), plan);
        loop {
            let began = Instant::now();
            let Some(mut stripe) = reader.next().await? else { break };
            let read = Instant::now();
            let mut block = decoded(&mut stripe.blocks, codec.as_ref(), shard)?;
            if bug(Bug::RebuildGarbage) {
                block = Bytes::from(vec![0; block.len()]);
            }
            let decoded = Instant::now();
            let crc = crc32c::crc32c(&block);
            whole = crc32c::crc32c_combine(whole, crc, block.len());
            let sealed = Instant::now();
            writer.block(block, crc).await?;
            timings.add_read(read - began);
            timings.add_decode(decoded - read);
            timings.add_crc(sealed - decoded);
            timings.add_write(sealed.elapsed());
        }
        Ok((reader.used().collect(), whole))
    }

    /// Says in metadata where the shard is now.
    async fn record_home(
        &self,
        spec: &ExtentSpec,
        shard: ShardKey,
        home: Home,
        disk: DiskId,
        task: Task,
        report: RebuildReport,
    ) -> Result<RebuildReport, RebuildError> {
        if let Some(volume) = self.inner.disks.volume(disk) {
            audit::state(|| Fact::HomeRecorded { path: volume.shard_file(shard).display().to_string() });
        }
        // A stand-in is the hint: where the shard is, beside where it belongs.
        let wanted = if task == Task::Restore { disk } else { home.wanted };
        let moved = Moved {
            bucket: spec.bucket.clone(),
            key: spec.key.clone(),
            home: HomeMove { shard, expected: home.at, at: Some(disk), wanted },
        };
        let lost = || RebuildError::Unexpected("a panic where homes are recorded".to_owned());
        match self.inner.homes.record(moved).await.ok_or_else(lost)?.map_err(RebuildError::NotRecorded)? {
            Outcome::Done => Ok(report),
            // The file stays as a stray and is collected as one.
            Outcome::Refused(refusal) => {
                let ours =
                    task == Task::Restore && self.is_ours_after_all(&spec.bucket, &spec.key, shard, disk).await?;
                if ours && refusal == Refusal::Moved {
                    // Another rebuild was recorded first, on a disk that is given up since. What is here is good all the same.
                    return Box::pin(self.rebuild(&spec.bucket, &spec.key, shard, disk, task)).await;
                }
                Ok(RebuildReport::without_work(RebuildState::Obsolete, &format!("not recorded: {refusal}")))
            }
            other => Err(RebuildError::Unexpected(format!("{other:?}"))),
        }
    }
}

/// Gives a complete shard its name. A bad one that has it is moved aside, kept under that word, once the new one is durable and
/// was read back: whatever fails before that leaves it where it is.
pub(super) async fn put_in_place(
    volume: &Volume,
    mut writer: ShardWriter,
    bad: Option<&str>,
) -> Result<(), RebuildError> {
    if let Some(why) = bad {
        let key = writer.head().key;
        let moved = match writer.prove().await {
            Ok(()) => volume.move_aside(key, why).await.map_err(RebuildError::NotAside),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = moved {
            writer.abort().await;
            return Err(error);
        }
    }
    writer.finish().await?;
    Ok(())
}

pub(super) fn head_of(spec: &ExtentSpec, key: ShardKey, epoch: Epoch) -> Result<ShardHead, CodecError> {
    Ok(ShardHead {
        key,
        coding: spec.coding,
        codec: codec(spec.coding)?.id(),
        block_bytes: spec.block_bytes,
        extent_bytes: spec.len_bytes,
        epoch,
    })
}

fn decoded(blocks: &mut [Option<Bytes>], codec: &dyn ErasureCodec, shard: ShardIndex) -> Result<Bytes, CodecError> {
    codec.reconstruct(blocks, &[shard])?;
    let total = blocks.len();
    blocks[shard.as_usize()].take().ok_or(CodecError::Index { index: shard.as_usize(), total })
}

impl RebuildReport {
    fn found() -> Self {
        Self {
            state: RebuildState::Rebuilt,
            rebuilt_from: Vec::new(),
            bytes: 0,
            detail: "it was there already, whole; only its home was recorded".to_owned(),
        }
    }
}
