//! A small client load with an oracle: it remembers what was acknowledged and can say later whether anything of it is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::{ATTEMPT_DEADLINE, Client, Written};

/// The pause of one writer between two puts: a small load, so that what is measured is recovery and not contention.
const PAUSE: Duration = Duration::from_millis(40);

/// The pause after a put that failed: short, because it measures when writing works again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Keys the load writes over and over.
const KEYS: u64 = 64;

/// The longest content of the load.
const MAX_BYTES: u64 = 64 * 1024;

/// What one key may hold: the last acknowledged content, or one of those whose outcome nobody knows.
#[derive(Clone, Debug, Default)]
struct Expected {
    acknowledged: Option<(u64, u32)>,
    unknown: Vec<(u64, u32)>,
}

/// One put of the load, in the order they ended.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// When it began.
    pub begun: Instant,
    /// When it ended.
    pub ended: Instant,
    /// Whether it was acknowledged.
    pub acknowledged: bool,
}

#[derive(Default)]
struct State {
    expected: BTreeMap<String, Expected>,
    operations: Vec<Operation>,
}

/// The load, running until stopped.
pub struct Load {
    state: Arc<Mutex<State>>,
    stop: watch::Sender<bool>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `writers` tasks, each with keys of its own, so that the order of writes to one key is known.
    pub fn start(client: &Client, bucket: &str, seed: u64, writers: u64) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let stop = watch::Sender::new(false);
        let tasks = (0..writers).map(|writer| {
            let client = client.clone();
            let (bucket, state, stop) = (bucket.to_owned(), state.clone(), stop.subscribe());
            tokio::spawn(write(client, bucket, StdRng::seed_from_u64(seed ^ (writer << 32)), writer, state, stop))
        });
        Self { writers: tasks.collect(), state, stop }
    }

    /// The puts so far that ended after `since`.
    pub fn since(&self, since: Instant) -> Vec<Operation> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.operations.iter().filter(|operation| operation.ended >= since).copied().collect()
    }

    /// How many puts were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.operations.iter().filter(|operation| operation.acknowledged).count()
    }

    /// Reads every key back: how many acknowledged writes are lost, and which.
    pub async fn lost(&self, client: &Client, bucket: &str, deadline: Duration) -> Vec<String> {
        let expected = self.state.lock().unwrap_or_else(PoisonError::into_inner).expected.clone();
        let mut lost = Vec::new();
        for (key, _) in expected {
            // Writers may go on meanwhile: a key that moved on while we read is judged by what holds after the read.
            let found = client.get_crc(bucket, &key, deadline).await;
            let now = self.state.lock().unwrap_or_else(PoisonError::into_inner).expected.get(&key).cloned();
            let Some(now) = now else { continue };
            if let Some(problem) = judge(&key, &now, found) {
                let again = client.get_crc(bucket, &key, deadline).await;
                let latest = self.state.lock().unwrap_or_else(PoisonError::into_inner).expected.get(&key).cloned();
                if latest.is_none_or(|latest| judge(&key, &latest, again).is_some()) {
                    lost.push(problem);
                }
            }
        }
        lost
    }

    /// Stops the writers and waits for them.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        for writer in self.writers.drain(..) {
            // A writer that panicked has reported itself; the oracle's memory stays valid.
            let _ = writer.await;
        }
    }
}

fn judge(key: &str, expected: &Expected, found: Result<(u64, u32), tonic::Status>) -> Option<String> {
    let acknowledged = expected.acknowledged?;
    match found {
        Ok(found) if found == acknowledged || expected.unknown.contains(&found) => None,
        Ok((length, crc)) => {
            Some(format!("{key}: {length} bytes, crc {crc:08x}: neither the last acknowledged nor an unknown write"))
        }
        Err(status) => Some(format!("{key}: {}", status.message())),
    }
}

async fn write(
    client: Client,
    bucket: String,
    mut rng: StdRng,
    writer: u64,
    state: Arc<Mutex<State>>,
    mut stop: watch::Receiver<bool>,
) {
    for turn in 0u64.. {
        let key = format!("load/{writer}/{}", turn % KEYS);
        let mut content = vec![0; usize::try_from(1 + rng.next_u64() % MAX_BYTES).unwrap_or(1)];
        rng.fill_bytes(&mut content);
        let content = Bytes::from(content);
        let mark = (content.len() as u64, crc32c::crc32c(&content));
        // Noted as unknown before it is sent: a reader may meet it before its answer is here.
        with(&state, |state| state.expected.entry(key.clone()).or_default().unknown.push(mark));
        let begun = Instant::now();
        let written = client.put(&bucket, &key, content, ATTEMPT_DEADLINE).await;
        let acknowledged = written == Written::Acknowledged;
        with(&state, |state| {
            state.operations.push(Operation { begun, ended: Instant::now(), acknowledged });
            let entry = state.expected.entry(key).or_default();
            match written {
                Written::Acknowledged => {
                    // Earlier unknown writes of this writer may still arrive late: they stay possible.
                    entry.unknown.retain(|other| *other != mark);
                    entry.acknowledged = Some(mark);
                }
                Written::Refused(_) => entry.unknown.retain(|other| *other != mark),
                Written::Unknown(_) => {}
            }
        });
        let pause = if acknowledged { PAUSE } else { RETRY_PAUSE };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn with(state: &Mutex<State>, change: impl FnOnce(&mut State)) {
    change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
}
