//! A host whose processor is taken by others, while many large objects are downloaded: it is slow and silent at times, and
//! it is not dead. No download may end short, nobody may take it for dead, nothing may be done to it.
//!
//! Owns: the downloads, and the comparison of every byte. Must never: repeat one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::PowerLossOptions;
use super::case::Run;
use super::scene::{self, Scene};
use super::times::ms;
use super::traffic::{self, Request};
use crate::s3::{Condition, Content, Store};

/// Each download.
const OBJECT_BYTES: usize = 10 * 1024 * 1024;
/// Different ones: a piece of another object in the wrong place shows, and all of them fit in our memory.
const OBJECTS: u64 = 8;
/// One download, at most. Two cores give 64 of them, six nodes and the load itself a few MB/s each at best; one that never
/// ends is an error all the same.
const DEADLINE: Duration = Duration::from_secs(300);
/// After one that failed: a door that says "slow down" is obeyed.
const PAUSE: Duration = Duration::from_millis(200);

/// Stores what will be downloaded.
pub(super) async fn prepare(store: &Store) -> anyhow::Result<()> {
    for number in 0..OBJECTS {
        store.put(&key(number), Content::Whole(content(number)), &Condition::Always, DEADLINE).await?;
    }
    Ok(())
}

/// One saturation, from a whole cluster to a whole cluster.
pub(super) async fn once(scene: &Scene, number: usize, options: &PowerLossOptions) -> anyhow::Result<Run> {
    let victim = scene.victim(false, number).await?;
    let before = scene.journals().await;
    // The victim's door, too: whoever downloads through it waits, and gets all of it.
    let downloads = Downloads::start(&scene.doors()?, options.downloads);
    tokio::time::sleep(scene::WARM_UP).await;
    let from = Instant::now();
    let load = scene.saturate(victim, options.saturation).await?;
    let seen = scene.watch_outage(victim, from, options.saturation).await;
    let note = load.note();
    load.end().await?;
    let to = Instant::now();
    let (requests, longest) = downloads.stop(from).await;
    let back_ms = scene.await_whole(to).await?;
    let mut evidence = scene.evidence(before).await?;
    evidence.convicted.extend(seen.convicted);
    Ok(Run {
        requests,
        breaker_open_ms: seen.breaker_open_ms,
        counted_ms: seen.counted_ms,
        back_ms: Some(back_ms),
        status_ms: seen.status_ms,
        download_ms: longest.map(ms),
        evidence,
        note: Some(note),
        ..Run::default()
    })
}

/// A download that ended.
struct Download {
    ended: Instant,
    took: Duration,
    request: Request,
}

/// Downloads at work.
struct Downloads {
    done: Arc<Mutex<Vec<Download>>>,
    stop: watch::Sender<bool>,
    loops: Vec<JoinHandle<()>>,
}

impl Downloads {
    /// So many at a time, each loop through one of the doors.
    fn start(doors: &[Store], count: usize) -> Self {
        let done = Arc::new(Mutex::new(Vec::new()));
        let stop = watch::Sender::new(false);
        let contents: Arc<Vec<Bytes>> = Arc::new((0..OBJECTS).map(content).collect());
        let one = |at: usize| {
            let (store, done, mut stop) = (doors[at % doors.len()].clone(), done.clone(), stop.subscribe());
            let contents = contents.clone();
            tokio::spawn(async move {
                for turn in at.. {
                    let begun = Instant::now();
                    let number = turn % contents.len();
                    let request = download(&store, &key(number as u64), &contents[number]).await;
                    let failed = request.error.is_some();
                    let download = Download { ended: Instant::now(), took: begun.elapsed(), request };
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(download);
                    if *stop.borrow_and_update() {
                        return;
                    }
                    if failed {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            })
        };
        let loops = (0..count).map(one).collect();
        Self { done, stop, loops }
    }

    /// Lets each end what it is at. Those that were under way or begun after `since`, and what the longest took.
    async fn stop(self, since: Instant) -> (Vec<Request>, Option<Duration>) {
        self.stop.send_replace(true);
        for task in self.loops {
            // A loop that panicked has told so.
            let _ = task.await;
        }
        let done = std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
        let counted: Vec<Download> = done.into_iter().filter(|download| download.ended >= since).collect();
        let longest = counted.iter().map(|download| download.took).max();
        (counted.into_iter().map(|download| download.request).collect(), longest)
    }
}

/// Downloads one object and compares it as it comes.
async fn download(store: &Store, key: &str, expected: &[u8]) -> Request {
    let mut last = Instant::now();
    let mut stall = Duration::ZERO;
    let mut at = 0;
    let told = |why: String| Some(format!("download of {key} through {}: {why}", store.address()));
    let ended = |stall, error, truncated| Request { stall, error, truncated, stores: false };
    let mut reply = match store.get(key, None, DEADLINE).await {
        Ok(reply) => reply,
        Err(error) => return ended(last.elapsed(), told(error.to_string()), false),
    };
    loop {
        let piece = reply.piece().await;
        stall = stall.max(last.elapsed());
        last = Instant::now();
        match piece {
            Ok(Some(piece)) if expected.get(at..at + piece.len()) == Some(&piece[..]) => at += piece.len(),
            Ok(Some(_)) => return ended(stall, told(format!("other bytes than were stored, from {at} on")), true),
            Ok(None) if at == expected.len() => return ended(stall, None, false),
            Ok(None) => return ended(stall, told(format!("it ended after {at} bytes")), true),
            Err(error) => return ended(stall, told(format!("after {at} bytes: {error}")), true),
        }
    }
}

fn key(number: u64) -> String {
    format!("download/{number}")
}

fn content(number: u64) -> Bytes {
    traffic::content(number, OBJECT_BYTES)
}
