//! Reads one extent stripe by stripe from the k best of its homes, and goes on with others when homes fail: what gets
//! and rebuilds both stand on.
//!
//! Owns: the choice of shards, replacing a lane in the middle, and reading one shard more when that takes longer than it does
//! as a rule. The lanes themselves, and the wait for a stripe, are in `lanes.rs`.
//! Must never: hand out a stripe with fewer than k blocks, or read ahead without bound ([`ReadAhead`]).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::lanes::{Feed, Lane, LaneEvent, Round};
use crate::codec::{CodecError, ErasureCodec, Layout};
use crate::disk::Purpose;
use crate::model::{Coding, ExtentRecord, Home, ObjectRecord};
use crate::repair::{FoundBy, Suspect, SuspectKind, Timings};
use crate::transport::{Preference, ShardClient, TransportError};
use crate::types::{BucketName, DiskId, ExtentId, ShardIndex, ShardKey};

/// How far a reader reads ahead. A run is asked for only when there is room for all of it, so that what a peer sends never
/// waits in the connection; a lane holds two runs, one being used while the next arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAhead {
    /// For clients, who may be many: at most 1 MiB per lane.
    Client,
    /// For rebuilds, which are few and always drain: at most 4 MiB per lane, and two calls for a whole shard of 4+2.
    Rebuild,
}

impl ReadAhead {
    fn run_blocks(self) -> u32 {
        match self {
            Self::Client => 8,
            Self::Rebuild => 32,
        }
    }

    fn purpose(self) -> Purpose {
        match self {
            Self::Client => Purpose::Client,
            Self::Rebuild => Purpose::Background,
        }
    }
}

/// What to read of an extent, and how.
pub struct ReadPlan<'a> {
    /// The first stripe.
    pub first: u32,
    /// The stripe to end before.
    pub end: u32,
    /// A shard that is not to be used: the one being rebuilt.
    pub without: Option<ShardIndex>,
    /// Disks that stalled a moment ago: they come last.
    pub avoid: &'a BTreeSet<DiskId>,
    /// How far ahead.
    pub ahead: ReadAhead,
    /// Where to count the time of CRCs.
    pub timings: Option<Timings>,
}

/// What has to be known of an extent to read it.
#[derive(Clone, Debug)]
pub struct ExtentSpec {
    /// The object's bucket, for reports.
    pub bucket: BucketName,
    /// The object's key, for reports.
    pub key: String,
    /// Which extent.
    pub id: ExtentId,
    /// How it is coded.
    pub coding: Coding,
    /// The block size its shards were written with.
    pub block_bytes: u32,
    /// Bytes of content.
    pub len_bytes: u64,
    /// One per shard.
    pub homes: Vec<Home>,
}

impl ExtentSpec {
    /// Of an extent of an object.
    pub fn of(bucket: &BucketName, key: &str, object: &ObjectRecord, extent: &ExtentRecord) -> Self {
        Self {
            bucket: bucket.clone(),
            key: key.to_owned(),
            id: extent.id,
            coding: object.coding,
            block_bytes: object.block_bytes,
            len_bytes: extent.len_bytes,
            homes: extent.homes.clone(),
        }
    }

    /// Whether one of its shards is on this disk.
    pub fn has(&self, disk: DiskId) -> bool {
        self.homes.iter().any(|home| home.at == Some(disk))
    }

    /// How its stripes lie.
    pub fn layout(&self) -> Layout {
        Layout { extent_bytes: self.len_bytes, coding: self.coding, block_bytes: self.block_bytes }
    }

    /// The name of one of its shards.
    pub fn shard(&self, shard: ShardIndex) -> ShardKey {
        self.id.shard(shard)
    }
}

/// Fewer than k shards of the extent can be read now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("extent {extent} cannot be read now: {detail}")]
pub struct Unreadable {
    /// The extent.
    pub extent: ExtentId,
    /// What happened at each home.
    pub detail: String,
}

/// One stripe: at least k of its k+m blocks, all of one length.
#[derive(Clone, Debug)]
pub struct Stripe {
    /// Which stripe of the extent.
    pub index: u32,
    /// By shard index.
    pub blocks: Vec<Option<Bytes>>,
}

impl Stripe {
    /// Makes sure that the blocks of `wanted` are there, computing those that were not read.
    ///
    /// # Errors
    /// When the codec refuses, which k blocks of one length give it no reason to.
    pub fn complete(&mut self, codec: &dyn ErasureCodec, wanted: &[ShardIndex]) -> Result<(), CodecError> {
        let absent: Vec<ShardIndex> =
            wanted.iter().copied().filter(|shard| self.blocks[shard.as_usize()].is_none()).collect();
        if absent.is_empty() { Ok(()) } else { codec.reconstruct(&mut self.blocks, &absent) }
    }
}

/// How long a stripe may take while its homes are only slow: a download that works, however slowly, is not cut off because
/// everybody is saturated. As long as an upload waits for its client. Homes that are silent or fail are given up at once.
const SATURATED_PATIENCE: Duration = Duration::from_secs(30);

/// A shard that may be read instead of one that fails.
#[derive(Clone, Copy)]
struct Spare {
    shard: ShardIndex,
    disk: DiskId,
    /// The peer's circuit is open until then.
    not_before: Option<Instant>,
}

/// Reads an extent. Dropping it ends its lanes.
pub struct ExtentReader {
    client: ShardClient,
    spec: Arc<ExtentSpec>,
    layout: Layout,
    stripe: u32,
    /// When it was asked for.
    asked: Instant,
    end: u32,
    lanes: Vec<Lane>,
    spares: VecDeque<Spare>,
    retried: BTreeSet<ShardIndex>,
    used: BTreeSet<ShardIndex>,
    trouble: Vec<String>,
    stalled: BTreeSet<DiskId>,
    ahead: ReadAhead,
    timings: Option<Timings>,
}

impl ExtentReader {
    /// Begins to read.
    pub fn open(client: &ShardClient, spec: ExtentSpec, plan: ReadPlan<'_>) -> Self {
        let ReadPlan { first, end, without, avoid, ahead, timings } = plan;
        let mut trouble = Vec::new();
        let spares = rank(client, &spec, without, avoid, &mut trouble);
        let layout = spec.layout();
        let k = usize::from(spec.coding.k);
        let mut reader = Self {
            client: client.clone(),
            spec: Arc::new(spec),
            layout,
            stripe: first,
            asked: Instant::now(),
            end,
            lanes: Vec::with_capacity(k),
            spares,
            retried: BTreeSet::new(),
            used: BTreeSet::new(),
            trouble,
            stalled: BTreeSet::new(),
            ahead,
            timings,
        };
        while reader.lanes.len() < k
            && let Some(spare) = reader.spares.pop_front()
        {
            let lane = reader.lane(spare, None);
            reader.lanes.push(lane);
        }
        reader
    }

    /// The next stripe; `None` after the last.
    ///
    /// # Errors
    /// When fewer than k shards can be read now.
    pub async fn next(&mut self) -> Result<Option<Stripe>, Unreadable> {
        if self.stripe >= self.end {
            return Ok(None);
        }
        if self.lanes.len() < usize::from(self.spec.coding.k) {
            return Err(self.unreadable());
        }
        let expected = self.layout.block_len(self.stripe);
        let mut blocks = vec![None; self.spec.coding.total()];
        self.asked = Instant::now();
        let mut round = Round::new(&self.client, self.ahead == ReadAhead::Client);
        while blocks.iter().flatten().count() < usize::from(self.spec.coding.k) {
            match round.event(&mut self.lanes, !self.spares.is_empty(), expected).await {
                LaneEvent::Block(at, block) => {
                    let lane = &mut self.lanes[at];
                    lane.delivered(self.stripe);
                    self.used.insert(lane.shard);
                    blocks[lane.shard.as_usize()] = Some(block);
                }
                LaneEvent::Failed(at, error) => self.replace(at, &error)?,
                LaneEvent::Slow => self.hedge(),
            }
        }
        self.drop_behind();
        let index = self.stripe;
        self.stripe += 1;
        Ok(Some(Stripe { index, blocks }))
    }

    /// Reads one more shard beside those that are waited for, if not too many are hedged: whichever come first make the
    /// stripe.
    fn hedge(&mut self) {
        let Some(place) = self.client.pace().hedge() else { return };
        if let Some(spare) = self.spares.pop_front() {
            tracing::debug!(shard = %self.spec.shard(spare.shard), disk = %spare.disk, "a read is hedged");
            self.client.pace().detours().hedged_reads.fetch_add(1, Ordering::Relaxed);
            let lane = self.lane(spare, Some(place));
            self.lanes.push(lane);
        }
    }

    /// Lanes that a stripe was made without are behind, and no use for the next. Their disks are read last from now on.
    fn drop_behind(&mut self) {
        let stripe = self.stripe;
        for lane in self.lanes.extract_if(.., |lane| lane.last != Some(stripe)) {
            self.stalled.insert(lane.disk);
            self.spares.push_back(Spare { shard: lane.shard, disk: lane.disk, not_before: None });
        }
    }

    /// Which shards blocks came from.
    pub fn used(&self) -> impl Iterator<Item = ShardIndex> + '_ {
        self.used.iter().copied()
    }

    /// Disks that stalled: the next extent reads them last.
    pub fn stalled(&self) -> &BTreeSet<DiskId> {
        &self.stalled
    }

    /// Goes on from the present stripe with another shard in the place of a lane that failed.
    fn replace(&mut self, at: usize, error: &TransportError) -> Result<(), Unreadable> {
        let Lane { shard, disk, opened, .. } = self.lanes[at];
        let key = self.spec.shard(shard);
        tracing::info!(shard = %key, %disk, stripe = self.stripe, %error, "a shard cannot be read: another takes its place");
        self.trouble.push(error.to_string());
        match error {
            TransportError::Missing { .. } => self.report(shard, disk, SuspectKind::Missing, error),
            TransportError::Corrupt { .. } => self.report(shard, disk, SuspectKind::Corrupt, error),
            TransportError::Stalled { after, .. } => {
                self.stalled.insert(disk);
                // One that takes longer than it does as a rule is only slow.
                if *after >= self.client.deadlines().first_block {
                    self.client.stalled(disk, opened);
                }
                if self.is_only_slow(disk) {
                    self.spares.push_back(Spare { shard, disk, not_before: None });
                }
            }
            // A peer that just came back is asked again in two seconds at most: better late than not at all.
            TransportError::Circuit { retry_in, .. } if self.retried.insert(shard) || self.is_only_slow(disk) => {
                self.spares.push_back(Spare { shard, disk, not_before: Some(Instant::now() + *retry_in) });
            }
            // What a disk's error means its home finds out, which met it too: it may be the shard, or all of the disk.
            _ => {}
        }
        match self.spares.pop_front() {
            Some(spare) => self.lanes[at] = self.lane(spare, None),
            // A hedge may make up for it.
            None => drop(self.lanes.remove(at)),
        }
        if self.lanes.len() < usize::from(self.spec.coding.k) { Err(self.unreadable()) } else { Ok(()) }
    }

    /// Whether a home that stalls may be asked again: it is there, and the stripe has not taken too long.
    fn is_only_slow(&self, disk: DiskId) -> bool {
        self.asked.elapsed() < SATURATED_PATIENCE && !self.client.is_silent(disk)
    }

    fn lane(&self, spare: Spare, hedge: Option<OwnedSemaphorePermit>) -> Lane {
        if hedge.is_none() {
            self.client.pace().straight();
        }
        let feed = Feed {
            client: self.client.clone(),
            key: self.spec.shard(spare.shard),
            disk: spare.disk,
            next: self.stripe,
            end: self.end,
            run: self.ahead.run_blocks(),
            purpose: self.ahead.purpose(),
            timings: self.timings.clone(),
        };
        Lane::open(spare.shard, feed, spare.not_before.unwrap_or_else(Instant::now), hedge)
    }

    fn report(&self, shard: ShardIndex, disk: DiskId, kind: SuspectKind, error: &TransportError) {
        self.client.report(Suspect {
            bucket: self.spec.bucket.clone(),
            key: self.spec.key.clone(),
            shard: self.spec.shard(shard),
            disk,
            kind,
            found_by: FoundBy::Read,
            detail: error.to_string(),
        });
    }

    fn unreadable(&self) -> Unreadable {
        let detail =
            if self.trouble.is_empty() { "too few shards have a home".to_owned() } else { self.trouble.join("; ") };
        Unreadable { extent: self.spec.id, detail }
    }
}

/// The shards of an extent, best first: those whose homes answer before doubtful ones, data before parity (no decoding),
/// our own disks before others'.
fn rank(
    client: &ShardClient,
    spec: &ExtentSpec,
    without: Option<ShardIndex>,
    avoid: &BTreeSet<DiskId>,
    trouble: &mut Vec<String>,
) -> VecDeque<Spare> {
    let mut ranked = Vec::with_capacity(spec.homes.len());
    for (shard, home) in (0u8..).map(ShardIndex).zip(&spec.homes) {
        if Some(shard) == without {
            continue;
        }
        let Some(disk) = home.at else {
            trouble.push(format!("shard {} has no home", shard.0));
            continue;
        };
        let preference = match client.preference(disk) {
            Preference::Never => {
                trouble.push(format!("shard {}: disk {disk} is not readable", shard.0));
                continue;
            }
            _ if avoid.contains(&disk) => Preference::Doubtful,
            preference => preference,
        };
        let order = (preference == Preference::Doubtful, shard.0 >= spec.coding.k, preference, shard);
        ranked.push((order, Spare { shard, disk, not_before: None }));
    }
    ranked.sort_by_key(|(order, _)| *order);
    ranked.into_iter().map(|(_, spare)| spare).collect()
}
