//! Writes one extent: every stripe to k+m homes side by side, and then the rule when that is enough.
//!
//! Owns: one task and one bounded channel per home, and the deadlines that give a home up.
//! Must never: call an extent durable that the loss of one failure domain would make unreadable; give a home up out of
//! impatience that the extent cannot do without.
//!
//! A home that stalls holds the others for a moment only when they are enough without it ([`PRESS_GRACE`], and
//! [`crate::transport::Pace`] at the end), and for the deadline of a block otherwise. What it misses is handed to a stand-in (`handoff.rs`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Duration, Instant, timeout};

use super::GatewayError;
use super::sending::Sending;
use crate::codec::{ErasureCodec, Layout};
use crate::disk::ShardHead;
use crate::model::{BLOCK_BYTES, ClusterMap, ExtentRecord, Home};
use crate::placement::survives_any_domain;
use crate::transport::{ShardClient, TransportError};
use crate::types::{DiskId, Epoch, ExtentId, ExtentIndex, ShardIndex};

/// Blocks on their way to one home: what an upload holds in memory per home (256 KiB).
const HOME_BLOCKS: usize = 4;

/// How long a home with its hands full may hold up the others of an upload, if they are enough without it: several times
/// what a busy disk takes for what waits there (256 KiB), and within the second that a client may notice.
const PRESS_GRACE: Duration = Duration::from_millis(700);

/// What an extent is written as.
pub(super) struct ExtentPlan {
    pub(super) id: ExtentId,
    pub(super) len_bytes: u64,
    pub(super) epoch: Epoch,
    pub(super) homes: Vec<PlannedHome>,
}

/// Where a shard goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlannedHome {
    /// Where it is written: its home, or a stand-in for one that cannot be written to now.
    pub(super) at: DiskId,
    /// Its home.
    pub(super) wanted: DiskId,
}

/// An extent being written. Dropping it gives up what is unfinished.
pub(super) struct ExtentWriter {
    codec: Arc<dyn ErasureCodec>,
    layout: Layout,
    plan: ExtentPlan,
    homes: Vec<HomeWriter>,
    sending: Sending,
    client: ShardClient,
    map: Arc<ClusterMap>,
}

enum Feed {
    Block(Bytes, u32, Option<OwnedSemaphorePermit>),
    End,
}

struct HomeWriter {
    /// `None`: the home failed; its task says why.
    blocks: Option<mpsc::Sender<Feed>>,
    task: tokio::task::JoinHandle<Result<u64, TransportError>>,
}

impl ExtentWriter {
    pub(super) fn begin(
        client: &ShardClient,
        sending: &Sending,
        codec: Arc<dyn ErasureCodec>,
        plan: ExtentPlan,
        map: Arc<ClusterMap>,
    ) -> Self {
        let coding = codec.coding();
        let layout = Layout { extent_bytes: plan.len_bytes, coding, block_bytes: BLOCK_BYTES };
        let homes = (0u8..)
            .map(ShardIndex)
            .zip(&plan.homes)
            .map(|(shard, home)| {
                let head = ShardHead {
                    key: plan.id.shard(shard),
                    coding,
                    codec: codec.id(),
                    block_bytes: BLOCK_BYTES,
                    extent_bytes: plan.len_bytes,
                    epoch: plan.epoch,
                };
                let (blocks, arriving) = mpsc::channel(HOME_BLOCKS);
                let task = tokio::spawn(write_home(client.clone(), sending.clone(), home.at, head, arriving));
                HomeWriter { blocks: Some(blocks), task }
            })
            .collect();
        Self { codec, layout, plan, homes, sending: sending.clone(), client: client.clone(), map }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Codes one stripe's content and sends each home its block.
    pub(super) async fn stripe(&mut self, content: &Bytes) -> Result<(), GatewayError> {
        let mut blocks = self.layout.split(content);
        let parity = self.codec.encode(&blocks).map_err(|error| GatewayError::BadCoding(error.to_string()))?;
        blocks.extend(parity);
        let mut room = self.sending.room(blocks.iter().map(Bytes::len).sum()).await?;
        let mut full = Vec::new();
        for (at, (home, block)) in self.homes.iter_mut().zip(blocks).enumerate() {
            let Some(sender) = &home.blocks else { continue };
            let crc = crc32c::crc32c(&block);
            let its = room.split(block.len());
            match sender.try_send(Feed::Block(block, crc, its)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(feed)) => full.push((at, sender.clone(), feed)),
                Err(mpsc::error::TrySendError::Closed(_)) => home.blocks = None,
            }
        }
        if !full.is_empty() {
            self.press(full).await;
        }
        if self.homes.iter().any(|home| home.blocks.is_some()) { Ok(()) } else { Err(self.failure().await) }
    }

    /// Waits for homes that still have the blocks before to write. Once enough homes have this one, the others get a
    /// moment; then they are given up.
    async fn press(&mut self, full: Vec<(usize, mpsc::Sender<Feed>, Feed)>) {
        let mut behind: Vec<usize> = full.iter().map(|(at, ..)| *at).collect();
        let mut sends: FuturesUnordered<_> =
            full.into_iter().map(|(at, sender, feed)| async move { (at, sender.send(feed).await.is_ok()) }).collect();
        let mut until: Option<Instant> = None;
        while !behind.is_empty() {
            if until.is_none() && self.client.defended() && self.enough_without(&behind) {
                until = Some(Instant::now() + PRESS_GRACE);
            }
            let sent = match until {
                Some(until) => tokio::time::timeout_at(until, sends.next()).await,
                None => Ok(sends.next().await),
            };
            match sent {
                Ok(Some((at, arrived))) => {
                    behind.retain(|other| *other != at);
                    if !arrived {
                        self.homes[at].blocks = None;
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    for at in behind.drain(..) {
                        let disk = self.plan.homes[at].at;
                        tracing::info!(extent = %self.plan.id, %disk, "a home holds up an upload and is given up");
                        // That it was too slow for this upload is no failure of its circuit.
                        self.client.pace().detours().homes_given_up.fetch_add(1, Ordering::Relaxed);
                        self.homes[at].blocks = None;
                    }
                }
            }
        }
    }

    /// Whether the extent would do with the homes that are left without these.
    fn enough_without(&self, behind: &[usize]) -> bool {
        let left: Vec<Option<DiskId>> = (self.homes.iter().zip(&self.plan.homes).enumerate())
            .map(|(at, (home, planned))| (home.blocks.is_some() && !behind.contains(&at)).then_some(planned.at))
            .collect();
        enough(&self.map, &left, self.codec.coding())
    }

    /// Every home has all its blocks: waits until enough of them are durable, and a moment for the rest.
    pub(super) async fn finish(mut self) -> Result<ExtentRecord, GatewayError> {
        let coding = self.codec.coding();
        let mut pending = FuturesUnordered::new();
        let mut failures = Failures::default();
        let ended = Instant::now();
        for (index, home) in self.homes.drain(..).enumerate() {
            match home.blocks {
                Some(blocks) => pending.push(async move {
                    // A home that failed meanwhile says why itself.
                    let _ = blocks.send(Feed::End).await;
                    (index, joined(home.task.await))
                }),
                // Given up: what its task still waits for is nobody's concern.
                None if !home.task.is_finished() => failures.add(self.plan.homes[index].at, TransportError::GivenUp),
                None => {
                    let error = joined(home.task.await).err().unwrap_or(TransportError::GivenUp);
                    failures.add(self.plan.homes[index].at, error);
                }
            }
        }
        let mut durable: Vec<Option<DiskId>> = vec![None; self.plan.homes.len()];
        let mut until: Option<Instant> = None;
        loop {
            let next = match until {
                // A straggler's task goes on without us: should it succeed, repair finds the shard in its place.
                Some(until) => tokio::time::timeout_at(until, pending.next()).await.unwrap_or(None),
                None => pending.next().await,
            };
            let Some((index, result)) = next else { break };
            match result {
                Ok(_) => {
                    durable[index] = Some(self.plan.homes[index].at);
                    self.client.pace().wrote(ended.elapsed());
                }
                Err(error) => failures.add(self.plan.homes[index].at, error),
            }
            if until.is_none() && enough(&self.map, &durable, coding) {
                let (client, defended) = (&self.client, self.client.defended());
                let grace = if defended { client.pace().straggler_grace() } else { client.deadlines().shard_durable };
                until = Some(Instant::now() + grace);
            }
        }
        if until.is_none() {
            let count = durable.iter().flatten().count();
            return Err(failures.into_error(count, coding, self.plan.id.index));
        }
        let planned = durable.iter().zip(&self.plan.homes);
        let homes = planned.map(|(at, planned)| Home { at: *at, wanted: planned.wanted }).collect();
        Ok(ExtentRecord { id: self.plan.id, len_bytes: self.plan.len_bytes, homes })
    }

    /// Why no home is left.
    async fn failure(&mut self) -> GatewayError {
        let mut failures = Failures::default();
        for (home, planned) in self.homes.drain(..).zip(&self.plan.homes) {
            if let Err(error) = joined(home.task.await) {
                failures.add(planned.at, error);
            }
        }
        failures.into_error(0, self.codec.coding(), self.plan.id.index)
    }
}

/// The rule of acknowledgement (design, "Write").
fn enough(map: &ClusterMap, durable: &[Option<DiskId>], coding: crate::model::Coding) -> bool {
    let disks: Vec<DiskId> = durable.iter().copied().flatten().collect();
    disks.len() > usize::from(coding.k) && survives_any_domain(map, &disks, coding)
}

fn joined<T>(result: Result<Result<T, TransportError>, tokio::task::JoinError>) -> Result<T, TransportError> {
    // A task that panicked or was stopped with the runtime wrote nothing that counts.
    result.unwrap_or(Err(TransportError::GivenUp))
}

#[derive(Default)]
struct Failures {
    full: usize,
    details: Vec<String>,
    disks: Vec<DiskId>,
}

impl Failures {
    fn add(&mut self, disk: DiskId, error: TransportError) {
        self.disks.push(disk);
        self.full += usize::from(matches!(error, TransportError::Full { .. }));
        self.details.push(error.to_string());
    }

    fn into_error(self, durable: usize, coding: crate::model::Coding, extent: ExtentIndex) -> GatewayError {
        let detail = if self.details.is_empty() {
            "they stand in too few failure domains".to_owned()
        } else {
            self.details.join("; ")
        };
        if self.full > 0 {
            return GatewayError::Full(detail);
        }
        GatewayError::TooFewHomes { durable, coding, extent, detail, failed: self.disks }
    }
}

/// The task of one home. It ends with an error as soon as the home does: the writer then finds the channel closed.
async fn write_home(
    client: ShardClient,
    sending: Sending,
    disk: DiskId,
    head: ShardHead,
    mut blocks: mpsc::Receiver<Feed>,
) -> Result<u64, TransportError> {
    let stalled = |after| TransportError::Stalled { disk, after };
    let began = Instant::now();
    let patience = client.deadlines().block;
    let opened = timeout(patience, client.put(disk, head)).await;
    let mut sink = opened.unwrap_or_else(|_| Err(stalled(patience)))?;
    loop {
        match blocks.recv().await {
            Some(Feed::Block(data, crc, room)) => {
                let write = async {
                    sink.block(data, crc, room).await?;
                    if blocks.is_empty() && sending.is_scarce() { sink.flush().await } else { Ok(()) }
                };
                let Ok(written) = timeout(patience, write).await else {
                    client.stalled(disk, began);
                    return Err(stalled(patience));
                };
                if let Err(error) = written {
                    sink.abort().await;
                    return Err(error);
                }
            }
            Some(Feed::End) => {
                let (limit, sent) = (client.durable_deadline(disk), Instant::now());
                let finished = timeout(limit, sink.finish()).await;
                if !matches!(finished, Ok(Err(_))) {
                    client.made_durable(disk, sent.elapsed());
                }
                return finished.unwrap_or_else(|_| {
                    // One that takes longer than it does as a rule is only slow: that opens no circuit.
                    if limit >= client.deadlines().shard_durable {
                        client.stalled(disk, began);
                    }
                    Err(stalled(limit))
                });
            }
            None => {
                sink.abort().await;
                return Err(TransportError::GivenUp);
            }
        }
    }
}
