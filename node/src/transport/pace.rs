//! How fast homes are: what a wait is compared with before somebody else is asked.
//!
//! Owns: the last waits of this node's own reads and writes, and the counts of detours. Must never: tell one home from another (which of them is slow
//! the waiting itself shows), or let a limit leave its floor and ceiling.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Waits remembered, of each kind: some seconds of a busy node, and few enough that an outage shows at once.
const KEPT: usize = 256;
/// Waits before the percentile says anything.
const ENOUGH: usize = 32;
/// So many new waits before it is computed again.
const RENEW_EVERY: usize = 16;
/// The percentile.
const PERCENT: usize = 95;

/// A limit that follows what was measured.
struct Measure {
    floor: Duration,
    ceiling: Duration,
    /// How often the percentile.
    times: u32,
    waits: Mutex<Waits>,
    limit_micros: AtomicU64,
}

#[derive(Default)]
struct Waits {
    last: Vec<Duration>,
    next: usize,
    new: usize,
}

impl Measure {
    fn new(floor: Duration, ceiling: Duration, times: u32) -> Self {
        Self { floor, ceiling, times, waits: Mutex::default(), limit_micros: AtomicU64::new(micros(ceiling)) }
    }

    fn note(&self, wait: Duration) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.last.len() < KEPT {
            waits.last.push(wait);
        } else {
            let at = waits.next;
            waits.last[at] = wait;
            waits.next = (at + 1) % KEPT;
        }
        waits.new += 1;
        if waits.last.len() >= ENOUGH && waits.new >= RENEW_EVERY {
            waits.new = 0;
            let mut sorted = waits.last.clone();
            sorted.sort_unstable();
            let percentile = sorted[sorted.len() * PERCENT / 100];
            let limit = (percentile * self.times).clamp(self.floor, self.ceiling);
            self.limit_micros.store(micros(limit), Ordering::Relaxed);
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_micros(self.limit_micros.load(Ordering::Relaxed))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// How often somebody else had to do.
#[derive(Default)]
pub(crate) struct Detours {
    /// Reads for which one shard more was read.
    pub(crate) hedged_reads: AtomicU64,
    /// Homes that held an upload up and that it went on without.
    pub(crate) homes_given_up: AtomicU64,
    /// Shards that were put on a stand-in.
    pub(crate) stand_ins: AtomicU64,
}

/// See the module.
pub(crate) struct Pace {
    reads: Measure,
    writes: Measure,
    detours: Detours,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            // Floor: below it a second read costs more than the wait. Ceiling: with the time to read elsewhere, under
            // the second that a client may notice; it is also what holds before anything was measured.
            reads: Measure::new(Duration::from_millis(20), Duration::from_millis(400), 1),
            // Three times: to give a home up costs the rebuild of a shard. Floor: a disk's hiccup. Ceiling: as above.
            writes: Measure::new(Duration::from_millis(150), Duration::from_millis(700), 3),
            detours: Detours::default(),
        }
    }
}

impl Pace {
    /// A reader waited so long for a home's block.
    pub(crate) fn read(&self, wait: Duration) {
        self.reads.note(wait);
    }

    /// A home took so long to make a shard durable once it had been sent all of it.
    pub(crate) fn wrote(&self, wait: Duration) {
        self.writes.note(wait);
    }

    /// How long a reader waits for a block before it reads elsewhere as well: 95 of 100 come sooner.
    pub(crate) fn hedge_after(&self) -> Duration {
        self.reads.limit()
    }

    /// What did not go the straight way, since the start.
    pub(crate) fn detours(&self) -> &Detours {
        &self.detours
    }

    /// How long the others are waited for once enough homes have what they were sent.
    pub(crate) fn straggler_grace(&self) -> Duration {
        self.writes.limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn limits_follow_the_percentile_within_floor_and_ceiling() {
        let pace = Pace::default();
        assert_eq!(pace.hedge_after(), 400 * MS, "nothing was measured yet");
        (0..100).for_each(|_| pace.read(2 * MS));
        assert_eq!(pace.hedge_after(), 20 * MS, "the floor");
        (0..KEPT).for_each(|at| pace.read(if at % 10 == 0 { 90 * MS } else { 30 * MS }));
        assert_eq!(pace.hedge_after(), 90 * MS);
        (0..KEPT).for_each(|_| pace.read(5000 * MS));
        assert_eq!(pace.hedge_after(), 400 * MS, "the ceiling");
        (0..KEPT).for_each(|_| pace.wrote(100 * MS));
        assert_eq!(pace.straggler_grace(), 300 * MS);
    }
}
