//! Clients of the doors that are left: what they feel while another host is without power.
//!
//! Owns: the loops of puts and gets, and the oracle: what is read must be what was stored. Must never: repeat a request,
//! because a client that has to is a client that noticed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::s3::{Condition, Content, Store};

/// Longer than any stall that is to be measured, and an end to one that would never end.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// Between two requests of one loop: what is measured is the outage and not contention.
pub(super) const PAUSE: Duration = Duration::from_millis(60);
/// Objects to be read. Their shards lie on every disk there is.
pub(super) const KEPT: u64 = 32;
/// Of 2+2 and 4+2, more than one block each: a read that loses a home goes on in the middle.
pub(super) const KEPT_BYTES: usize = 768 * 1024;
pub(super) const PUT_BYTES: usize = 192 * 1024;
/// Keys that are put over and over.
pub(super) const PUTS: u64 = 64;

/// One request and how it went.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// How long its client stood still: as long as the request took; of a download, the longest time between two pieces.
    pub(super) stall: Duration,
    pub(super) error: Option<String>,
    /// Its answer began well, and ended short or wrong.
    pub(super) truncated: bool,
    /// Whether it stores something.
    pub(super) stores: bool,
}

/// Loops at work.
pub(super) struct Traffic {
    /// With the moment at which each ended.
    requests: Arc<Mutex<Vec<(Instant, Request)>>>,
    stop: watch::Sender<bool>,
    loops: Vec<JoinHandle<()>>,
}

/// Stores what the loops will read.
pub(super) async fn prepare(store: &Store) -> anyhow::Result<()> {
    for number in 0..KEPT {
        store.put(&kept(number), Content::Whole(content(number, KEPT_BYTES)), &Condition::Always, DEADLINE).await?;
    }
    Ok(())
}

impl Traffic {
    /// A loop of puts and one of gets through each of the doors.
    pub(super) fn start(stores: &[Store]) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = watch::Sender::new(false);
        let mut loops = Vec::new();
        for (number, store) in (0u64..).zip(stores) {
            for puts in [true, false] {
                let (store, requests, mut stop) = (store.clone(), requests.clone(), stop.subscribe());
                loops.push(tokio::spawn(async move {
                    for turn in 0u64.. {
                        let begun = Instant::now();
                        let result = if puts { put(&store, number, turn).await } else { get(&store, turn).await };
                        let (error, truncated) = match result {
                            Ok(()) => (None, false),
                            Err(Wrong { why, truncated }) => (Some(why), truncated),
                        };
                        let request = Request { stall: begun.elapsed(), error, truncated, stores: puts };
                        requests.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), request));
                        tokio::select! {
                            _ = stop.wait_for(|stop| *stop) => return,
                            () = tokio::time::sleep(PAUSE) => {}
                        }
                    }
                }));
            }
        }
        Self { requests, stop, loops }
    }

    /// Ends the loops, each with the request that it is at. Those that were under way or begun after `since`.
    pub(super) async fn stop(self, since: Instant) -> Vec<Request> {
        self.stop.send_replace(true);
        for task in self.loops {
            // A loop that panicked has told so.
            let _ = task.await;
        }
        let requests = std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner));
        requests.into_iter().filter(|(ended, _)| *ended >= since).map(|(_, request)| request).collect()
    }
}

/// How a request went wrong.
struct Wrong {
    why: String,
    truncated: bool,
}

async fn put(store: &Store, door: u64, turn: u64) -> Result<(), Wrong> {
    let content = content(turn, PUT_BYTES);
    let key = format!("put/{door}/{}", turn % PUTS);
    let put = store.put(&key, Content::Whole(content), &Condition::Always, DEADLINE).await;
    let wrong = |error| Wrong { why: format!("put through {}: {error}", store.address()), truncated: false };
    put.map(drop).map_err(wrong)
}

async fn get(store: &Store, turn: u64) -> Result<(), Wrong> {
    let told = |why: String, truncated| Wrong { why: format!("get through {}: {why}", store.address()), truncated };
    let number = turn % KEPT;
    let reply = store.get(&kept(number), None, DEADLINE).await;
    let mut reply = reply.map_err(|error| told(error.to_string(), false))?;
    let (mut crc, mut len) = (0, 0);
    while let Some(piece) = reply.piece().await.map_err(|error| told(error.to_string(), true))? {
        crc = crc32c::crc32c_append(crc, &piece);
        len += piece.len();
    }
    let stored = content(number, KEPT_BYTES);
    if (len, crc) == (stored.len(), crc32c::crc32c(&stored)) {
        Ok(())
    } else {
        Err(told("not what was stored".to_owned(), true))
    }
}

fn kept(number: u64) -> String {
    format!("kept/{number}")
}

/// Content that no other number has. Its period shares no factor with a block's length: a block in the wrong place shows.
pub(super) fn content(number: u64, len: usize) -> Bytes {
    let seed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    seed.iter().copied().cycle().zip(0u8..=250).map(|(a, b)| a ^ b).cycle().take(len).collect()
}
