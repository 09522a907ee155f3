//! How background work holds itself back: a rate in bytes per second, and rest in proportion to work.
//!
//! Must never: sleep while holding anything another waits for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

/// The longest rest after one step: a step that hung on a sick disk must not put the service to sleep for as long again.
const MAX_REST: Duration = Duration::from_secs(1);

/// A rate that several workers share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Throttle {
    bytes_per_second: u64,
    free_at: Arc<Mutex<Instant>>,
}

impl Throttle {
    /// At most this many bytes per second; 0: no limit.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, free_at: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Waits until `bytes` more are within the rate. Unused time is not saved up: no bursts.
    pub(super) async fn take(&self, bytes: u64) {
        if self.bytes_per_second == 0 {
            return;
        }
        let start = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let start = (*free_at).max(Instant::now());
            *free_at = start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            start
        };
        sleep_until(start).await;
    }
}

/// Rests a part of what a step took (`parts` of a hundred): when the disk is busy with clients, steps take longer, and so
/// do the rests.
pub(super) async fn rest(step: Duration, percent: u32) {
    let rest = (step * percent / 100).min(MAX_REST);
    if !rest.is_zero() {
        sleep(rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_for_all_who_share_it() {
        let throttle = Throttle::new(1000);
        let began = Instant::now();
        let workers = (0..4).map(|_| {
            let throttle = throttle.clone();
            async move {
                for _ in 0..5 {
                    throttle.take(100).await;
                }
            }
        });
        futures_util::future::join_all(workers).await;
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(1900) && took < Duration::from_millis(2100), "{took:?}");
    }
}
