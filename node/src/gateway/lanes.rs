//! The shards of one extent being read ahead, each in a lane of its own, and the wait for the blocks of a stripe.
//!
//! Owns: a lane's task and channel; how long is waited for a block, and when that is called slow. Must never: choose a shard,
//! or ask for more of one than its lane has room for ([`super::ReadAhead`]).

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::disk::Purpose;
use crate::repair::Timings;
use crate::transport::{ShardClient, TransportError};
use crate::types::{DiskId, ShardIndex, ShardKey};

/// A lane that was opened so shortly before its first block was asked for had no head start.
const FRESH: Duration = Duration::from_millis(5);

/// One shard being read ahead.
pub(super) struct Lane {
    pub(super) shard: ShardIndex,
    pub(super) disk: DiskId,
    key: ShardKey,
    arriving: mpsc::Receiver<Result<Bytes, TransportError>>,
    task: tokio::task::JoinHandle<()>,
    pub(super) opened: Instant,
    /// How long its first block may take, and each one after that.
    patience: (Duration, Duration),
    /// The place of a lane that is one more than needed.
    _hedge: Option<OwnedSemaphorePermit>,
    /// The stripe it last gave a block of.
    pub(super) last: Option<u32>,
}

impl Lane {
    /// Begins to read at `opened`. Its channel holds two runs, one being used while the next arrives.
    pub(super) fn open(shard: ShardIndex, feed: Feed, opened: Instant, hedge: Option<OwnedSemaphorePermit>) -> Self {
        let (blocks, arriving) = mpsc::channel(2 * feed.run as usize);
        let (disk, key) = (feed.disk, feed.key);
        let deadlines = feed.client.deadlines();
        let first = match feed.purpose {
            Purpose::Client => feed.client.answer_deadline(disk),
            // It goes in company, and may have to let another call end first.
            Purpose::Background => 2 * deadlines.first_block,
        };
        let patience = (first, deadlines.block);
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(opened).await;
            feed.run(blocks).await;
        });
        Self { shard, disk, key, arriving, task, opened, patience, _hedge: hedge, last: None }
    }

    pub(super) fn delivered(&mut self, stripe: u32) {
        self.last = Some(stripe);
    }

    /// When it is given up, for whoever waits since `asked`. Only the time that somebody waits counts: a lane that is not
    /// drained is not a lane that stalls.
    fn given_up_at(&self, asked: Instant) -> (Instant, Duration) {
        match self.last {
            None => (self.opened.max(asked) + self.patience.0, self.patience.0),
            Some(_) => (asked + self.patience.1, self.patience.1),
        }
    }

    fn judge(&self, arrived: Option<Result<Bytes, TransportError>>, expected: usize) -> Result<Bytes, TransportError> {
        let corrupt = |detail| TransportError::Corrupt { key: self.key, disk: self.disk, detail };
        let block = arrived.unwrap_or_else(|| Err(corrupt("it ends before its last block".to_owned())))?;
        if block.len() != expected {
            return Err(corrupt(format!("a block of {} bytes where {expected} were written", block.len())));
        }
        Ok(block)
    }
}

/// What happens while a stripe is waited for.
pub(super) enum LaneEvent {
    /// A lane gave its block.
    Block(usize, Bytes),
    /// A lane is of no use any more.
    Failed(usize, TransportError),
    /// It takes longer than such reads do.
    Slow,
}

/// The wait for the blocks of one stripe.
pub(super) struct Round {
    client: ShardClient,
    asked: Instant,
    /// `None`: what is read is not for a client, and nobody minds a wait.
    hedge_at: Option<Instant>,
    /// Which lanes have given theirs.
    given: Vec<ShardIndex>,
}

impl Round {
    /// `hedged`: for a client, who minds a wait.
    pub(super) fn new(client: &ShardClient, hedged: bool) -> Self {
        let asked = Instant::now();
        let hedge_at = (hedged && client.defended()).then(|| asked + client.pace().hedge_after());
        Self { client: client.clone(), asked, hedge_at, given: Vec::new() }
    }

    /// The next that happens. A lane is asked for one block of a stripe.
    pub(super) async fn event(&mut self, lanes: &mut [Lane], spares: bool, expected: usize) -> LaneEvent {
        let waiting = |lane: &Lane| !self.given.contains(&lane.shard);
        let hedge_at = self.hedge_at.filter(|_| spares);
        let first = lanes.iter().filter(|lane| waiting(lane)).map(|lane| lane.given_up_at(self.asked).0).min();
        let wake = first.into_iter().chain(hedge_at).min().unwrap_or(self.asked + self.client.deadlines().block);
        let arrival = std::future::poll_fn(|cx| {
            for (at, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| waiting(lane)) {
                if let Poll::Ready(arrived) = lane.arriving.poll_recv(cx) {
                    return Poll::Ready((at, arrived));
                }
            }
            Poll::Pending
        });
        if let Ok((at, arrived)) = timeout_at(wake, arrival).await {
            return match lanes[at].judge(arrived, expected) {
                Ok(block) => {
                    // Not those that were read ahead: what is there already would make every other one look late.
                    let fresh =
                        lanes[at].last.is_none() && self.asked.saturating_duration_since(lanes[at].opened) < FRESH;
                    if fresh && self.hedge_at.is_some() {
                        self.client.pace().read(self.asked.elapsed());
                    }
                    self.given.push(lanes[at].shard);
                    LaneEvent::Block(at, block)
                }
                Err(error) => LaneEvent::Failed(at, error),
            };
        }
        if hedge_at == Some(wake) {
            self.hedge_at = Some(wake + self.client.pace().hedge_after());
            return LaneEvent::Slow;
        }
        let late = lanes.iter().enumerate().filter(|(_, lane)| waiting(lane));
        match late.map(|(at, lane)| (lane.given_up_at(self.asked), at)).min() {
            Some(((_, after), at)) => LaneEvent::Failed(at, TransportError::Stalled { disk: lanes[at].disk, after }),
            None => LaneEvent::Slow,
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind a lane.
pub(super) struct Feed {
    pub(super) client: ShardClient,
    pub(super) key: ShardKey,
    pub(super) disk: DiskId,
    pub(super) next: u32,
    pub(super) end: u32,
    pub(super) run: u32,
    pub(super) purpose: Purpose,
    pub(super) timings: Option<Timings>,
}

impl Feed {
    async fn run(mut self, blocks: mpsc::Sender<Result<Bytes, TransportError>>) {
        while self.next < self.end {
            let run = self.run.min(self.end - self.next);
            let Ok(mut room) = blocks.reserve_many(run as usize).await else { return };
            let mut stream = match self.client.get(self.disk, self.key, self.next, run, self.purpose).await {
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
