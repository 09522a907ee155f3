//! How long a client may keep us waiting, in either direction. A client that died without a word, and one that sends a
//! byte a minute on purpose, must not hold memory, homes and slots for ever.
//!
//! Only time spent waiting for the client counts: while our own disks are what is slow, nobody's patience runs out.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The longest single pause: longer than a TCP connection needs to get over a few lost packets in a row.
pub(super) const PAUSE: Duration = Duration::from_secs(30);

/// What may be waited for a client altogether before it has moved a byte.
const GRACE: Duration = Duration::from_secs(60);

/// The slowest pace in the long run: 64 KiB in a minute. A telephone does better.
const MIN_BYTES_PER_SECOND: u64 = 1024;

/// The patience left with one direction of one exchange.
#[derive(Debug)]
pub(super) struct Patience {
    waited: Duration,
    bytes: u64,
    since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { waited: Duration::ZERO, bytes: 0, since: None, alarm: None }
    }

    /// The client moved so many bytes.
    pub(super) fn moved(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.waited += since.elapsed();
        }
        self.bytes += bytes as u64;
    }

    /// The client keeps us waiting: ready when that has gone on for too long. To be asked whenever it does.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = match (self.since, &self.alarm) {
            (Some(_), Some(_)) => None,
            _ => {
                let now = Instant::now();
                self.since = Some(now);
                Some(now + PAUSE.min(self.left()))
            }
        };
        let alarm = match (&mut self.alarm, until) {
            (Some(alarm), Some(until)) => {
                alarm.as_mut().reset(until);
                alarm
            }
            (Some(alarm), None) => alarm,
            (empty, until) => empty.insert(Box::pin(tokio::time::sleep_until(until.unwrap_or_else(Instant::now)))),
        };
        alarm.as_mut().poll(cx)
    }

    fn left(&self) -> Duration {
        (GRACE + Duration::from_secs(self.bytes / MIN_BYTES_PER_SECOND)).saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(patience: &mut Patience, at_most: Duration) -> bool {
        let out = std::future::poll_fn(|cx| patience.poll_out(cx));
        tokio::time::timeout(at_most, out).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn one_long_pause_is_too_long() {
        let mut patience = Patience::new();
        assert!(waits(&mut patience, PAUSE - Duration::from_secs(1)).await);
        assert!(!waits(&mut patience, Duration::from_secs(2)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_byte_now_and_then_does_not_go_on_for_ever() {
        let mut patience = Patience::new();
        let began = Instant::now();
        while waits(&mut patience, PAUSE - Duration::from_secs(1)).await {
            patience.moved(1);
        }
        assert!(began.elapsed() < Duration::from_secs(100), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_but_steady_client_is_served_to_the_end() {
        let mut patience = Patience::new();
        for _ in 0..1000 {
            assert!(waits(&mut patience, Duration::from_secs(10)).await);
            patience.moved(16 * 1024);
        }
    }
}
