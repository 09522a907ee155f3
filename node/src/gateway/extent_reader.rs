//! Reads one extent stripe by stripe from the k best of its homes, and goes on with others when homes fail: what gets
//! and rebuilds both stand on.
//!
//! Owns: the choice of shards, the lanes that read ahead, replacing a lane in the middle.
//! Must never: hand out a stripe with fewer than k blocks, or read ahead without bound ([`ReadAhead`]).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::codec::{CodecError, ErasureCodec, Layout};
use crate::model::{Coding, ExtentRecord, Home, ObjectRecord};
use crate::repair::{FoundBy, Suspect, SuspectKind, Timings};
use crate::transport::{BLOCK_DEADLINE, FIRST_BLOCK_DEADLINE, Preference, ShardClient, TransportError};
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
            let lane = reader.lane(spare);
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
        let asked = Instant::now();
        let expected = self.layout.block_len(self.stripe);
        let mut blocks = vec![None; self.spec.coding.total()];
        let mut at = 0;
        while at < self.lanes.len() {
            let lane = &mut self.lanes[at];
            match lane.block(asked, expected).await {
                Ok(block) => {
                    self.used.insert(lane.shard);
                    blocks[lane.shard.as_usize()] = Some(block);
                    at += 1;
                }
                Err(error) => self.replace(at, &error)?,
            }
        }
        let index = self.stripe;
        self.stripe += 1;
        Ok(Some(Stripe { index, blocks }))
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
        let (shard, disk) = (self.lanes[at].shard, self.lanes[at].disk);
        let key = self.spec.shard(shard);
        tracing::info!(shard = %key, %disk, stripe = self.stripe, %error, "a shard cannot be read: another takes its place");
        self.trouble.push(error.to_string());
        match error {
            TransportError::Missing { .. } => self.report(shard, disk, SuspectKind::Missing, error),
            TransportError::Corrupt { .. } => self.report(shard, disk, SuspectKind::Corrupt, error),
            TransportError::Stalled { .. } => {
                self.stalled.insert(disk);
                self.client.stalled(disk);
            }
            // A peer that just came back is asked again in two seconds at most: better late than not at all.
            TransportError::Circuit { retry_in, .. } if self.retried.insert(shard) => {
                self.spares.push_back(Spare { shard, disk, not_before: Some(Instant::now() + *retry_in) });
            }
            _ => {}
        }
        let Some(spare) = self.spares.pop_front() else { return Err(self.unreadable()) };
        self.lanes[at] = self.lane(spare);
        Ok(())
    }

    fn lane(&self, spare: Spare) -> Lane {
        let (blocks, arriving) = mpsc::channel(2 * self.ahead.run_blocks() as usize);
        let key = self.spec.shard(spare.shard);
        let feed = Feed {
            client: self.client.clone(),
            key,
            disk: spare.disk,
            next: self.stripe,
            end: self.end,
            run: self.ahead.run_blocks(),
            timings: self.timings.clone(),
        };
        let opened = spare.not_before.unwrap_or_else(Instant::now);
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(opened).await;
            feed.run(blocks).await;
        });
        Lane { shard: spare.shard, disk: spare.disk, key, arriving, task, opened, fresh: true }
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

/// One shard being read ahead.
struct Lane {
    shard: ShardIndex,
    disk: DiskId,
    key: ShardKey,
    arriving: mpsc::Receiver<Result<Bytes, TransportError>>,
    task: tokio::task::JoinHandle<()>,
    opened: Instant,
    fresh: bool,
}

impl Lane {
    async fn block(&mut self, asked: Instant, expected: usize) -> Result<Bytes, TransportError> {
        // Only the time that somebody waits counts: a lane that is not drained is not a lane that stalls.
        let (since, patience) =
            if self.fresh { (self.opened.max(asked), FIRST_BLOCK_DEADLINE) } else { (asked, BLOCK_DEADLINE) };
        let block = match timeout_at(since + patience, self.arriving.recv()).await {
            Err(_) => return Err(TransportError::Stalled { disk: self.disk, after: patience }),
            Ok(None) => {
                let detail = "it ends before its last block".to_owned();
                return Err(TransportError::Corrupt { key: self.key, disk: self.disk, detail });
            }
            Ok(Some(block)) => block?,
        };
        if block.len() != expected {
            let detail = format!("a block of {} bytes where {expected} were written", block.len());
            return Err(TransportError::Corrupt { key: self.key, disk: self.disk, detail });
        }
        self.fresh = false;
        Ok(block)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind a lane.
struct Feed {
    client: ShardClient,
    key: ShardKey,
    disk: DiskId,
    next: u32,
    end: u32,
    run: u32,
    timings: Option<Timings>,
}

impl Feed {
    async fn run(mut self, blocks: mpsc::Sender<Result<Bytes, TransportError>>) {
        while self.next < self.end {
            let run = self.run.min(self.end - self.next);
            let Ok(mut room) = blocks.reserve_many(run as usize).await else { return };
            let mut stream = match self.client.get(self.disk, self.key, self.next, run).await {
                Ok(stream) => stream,
                Err(error) => {
                    if let Some(place) = room.next() {
                        place.send(Err(error));
                    }
                    return;
                }
            };
            for place in room {
                match stream.next().await {
                    Ok(Some(block)) => place.send(Ok(block)),
                    // The reader sees the channel end, and knows how many blocks there should have been.
                    Ok(None) => return,
                    Err(error) => return place.send(Err(error)),
                }
                self.next += 1;
            }
            if let Some(timings) = &self.timings {
                timings.add_crc(stream.crc_time());
            }
        }
    }
}
