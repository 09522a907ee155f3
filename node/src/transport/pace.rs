//! How fast homes are: what a wait is compared with before somebody else is asked.
//!
//! Owns: the last waits of this node's reads and writes, all together (when to ask somebody else as well: which home is
//! slow the waiting itself shows) and by peer (when to give that one up), the places for hedged reads, and the counts of
//! detours. Must never: let a limit leave its floor and ceiling; the ceilings are the configured deadlines.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::deadlines::Deadlines;
use crate::types::NodeName;

/// Waits remembered, of each kind: some seconds of a busy node, and few enough that an outage shows at once.
const KEPT: usize = 256;
/// Waits before the percentile says anything.
const ENOUGH: usize = 32;
/// So many new waits before it is computed again.
const RENEW_EVERY: usize = 16;
/// The percentile.
const PERCENT: usize = 95;

/// Reads that may be hedged at a time, on this node. A dead host's share of the reads of 64 clients fits; when everything
/// is slow, because the node is overloaded, hedges must not double the load.
const HEDGES_AT_A_TIME: usize = 64;

/// A hedge is paid for with so many reads of a shard that went the straight way. By the percentile alone one wait in twenty is
/// hedged on a machine that is busy and well: of the 64 stripes of an extent three, and each hedge throws away what the home it
/// replaces had on its way. That made 7% of a busy cluster's downloads; two in a hundred may.
const READS_PER_HEDGE: u64 = 50;
/// Hedges that may be saved up, for the seconds in which a host has died and nobody knows yet: as many as may be under way.
const SAVED_HEDGES: u64 = HEDGES_AT_A_TIME as u64;

/// So many times what 95 of 100 take, a peer is given up: ten times is no queue any more.
const GIVE_UP_TIMES: u32 = 10;
/// A peer's answer is waited for at least this long: a busy machine's scheduling.
const ANSWER_FLOOR: Duration = Duration::from_millis(500);
/// As long as this at least for a shard to become durable: a disk's longest sync behind other writers.
const DURABLE_FLOOR: Duration = Duration::from_secs(2);

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
        let floor = floor.min(ceiling);
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

/// One peer's.
struct PeerPace {
    /// From a call to the first word of its answer.
    answers: Measure,
    /// From the last byte sent to a durable shard.
    durable: Measure,
}

/// See the module.
pub(crate) struct Pace {
    reads: Measure,
    writes: Measure,
    peers: Mutex<BTreeMap<NodeName, Arc<PeerPace>>>,
    deadlines: Deadlines,
    hedges: Arc<Semaphore>,
    /// Reads that went the straight way and have paid for no hedge yet.
    saved: AtomicU64,
    detours: Detours,
}

impl Pace {
    /// Nothing was measured yet: the deadlines hold as they are.
    pub(crate) fn new(deadlines: &Deadlines) -> Self {
        Self {
            // Floor: below it a second read costs more than the wait. Ceiling: with the time to read elsewhere, under
            // the second that a client may notice; it is also what holds before anything was measured.
            reads: Measure::new(Duration::from_millis(20), Duration::from_millis(400), 1),
            // Three times: to give a home up costs the rebuild of a shard. Floor: a disk's hiccup. Ceiling: as above.
            writes: Measure::new(Duration::from_millis(150), Duration::from_millis(700), 3),
            peers: Mutex::default(),
            deadlines: deadlines.clone(),
            hedges: Arc::new(Semaphore::new(HEDGES_AT_A_TIME)),
            saved: AtomicU64::new(SAVED_HEDGES * READS_PER_HEDGE),
            detours: Detours::default(),
        }
    }

    /// A reader waited so long for a home's block.
    pub(crate) fn read(&self, wait: Duration) {
        self.reads.note(wait);
    }

    /// A home took so long to make a shard durable once it had been sent all of it.
    pub(crate) fn wrote(&self, wait: Duration) {
        self.writes.note(wait);
    }

    /// A peer took so long to begin an answer, or was given up after that time: whoever is slow is given more time, up to
    /// the deadline.
    pub(crate) fn answered(&self, peer: &NodeName, wait: Duration) {
        self.peer(peer).answers.note(wait);
    }

    /// As [`Pace::answered`], of a shard that was to become durable there.
    pub(crate) fn durable(&self, peer: &NodeName, wait: Duration) {
        self.peer(peer).durable.note(wait);
    }

    /// How long this peer may take to begin an answer.
    pub(crate) fn answer_deadline(&self, peer: &NodeName) -> Duration {
        self.peer(peer).answers.limit()
    }

    /// How long this peer may take to make a shard durable.
    pub(crate) fn durable_deadline(&self, peer: &NodeName) -> Duration {
        self.peer(peer).durable.limit()
    }

    /// How long a reader waits for a block before it reads elsewhere as well: 95 of 100 come sooner.
    pub(crate) fn hedge_after(&self) -> Duration {
        self.reads.limit()
    }

    /// A shard is read because it is needed.
    pub(crate) fn straight(&self) {
        let save = |saved: u64| Some((saved + 1).min(SAVED_HEDGES * READS_PER_HEDGE));
        // It never says no.
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, save);
    }

    /// A place for one read more than needed. `None`: too many are hedged already, or were lately.
    pub(crate) fn hedge(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.hedges.clone().try_acquire_owned().ok()?;
        let pay = |saved: u64| saved.checked_sub(READS_PER_HEDGE);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).ok().map(|_| place)
    }

    /// What did not go the straight way, since the start.
    pub(crate) fn detours(&self) -> &Detours {
        &self.detours
    }

    /// How long the others are waited for once enough homes have what they were sent.
    pub(crate) fn straggler_grace(&self) -> Duration {
        self.writes.limit()
    }

    /// Grows with the members that were turned to.
    fn peer(&self, name: &NodeName) -> Arc<PeerPace> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = peers.get(name) {
            return pace.clone();
        }
        let pace = Arc::new(PeerPace {
            answers: Measure::new(ANSWER_FLOOR, self.deadlines.first_block, GIVE_UP_TIMES),
            durable: Measure::new(DURABLE_FLOOR, self.deadlines.shard_durable, GIVE_UP_TIMES),
        });
        peers.insert(name.clone(), pace.clone());
        pace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn limits_follow_the_percentile_within_floor_and_ceiling() {
        let pace = Pace::new(&Deadlines::default());
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

    #[test]
    fn each_peer_is_given_the_time_that_it_takes_and_never_more_than_the_deadline() {
        let deadlines = Deadlines { first_block: 1800 * MS, ..Deadlines::default() };
        let (pace, quick, slow) = (Pace::new(&deadlines), NodeName::from("n1"), NodeName::from("n2"));
        assert_eq!(pace.answer_deadline(&quick), 1800 * MS, "nothing was measured yet");
        (0..KEPT).for_each(|_| pace.answered(&quick, 2 * MS));
        (0..KEPT).for_each(|_| pace.answered(&slow, 90 * MS));
        assert_eq!((pace.answer_deadline(&quick), pace.answer_deadline(&slow)), (500 * MS, 900 * MS));
        // It is saturated: what was given up counts as well, so that it gets the time that it needs.
        (0..KEPT / 10).for_each(|_| pace.answered(&quick, 500 * MS));
        assert_eq!(pace.answer_deadline(&quick), 1800 * MS);
        assert_eq!(pace.durable_deadline(&quick), Duration::from_secs(10));
        (0..KEPT).for_each(|_| pace.durable(&quick, 20 * MS));
        assert_eq!(pace.durable_deadline(&quick), Duration::from_secs(2), "the floor");
    }

    #[test]
    fn a_deadline_under_the_floor_is_the_deadline() {
        let pace = Pace::new(&Deadlines { first_block: 100 * MS, ..Deadlines::default() });
        (0..KEPT).for_each(|_| pace.answered(&NodeName::from("n1"), MS));
        assert_eq!(pace.answer_deadline(&NodeName::from("n1")), 100 * MS);
    }

    #[test]
    fn hedges_have_a_limit_and_give_their_places_back() {
        let pace = Pace::new(&Deadlines::default());
        let held: Vec<_> = (0..HEDGES_AT_A_TIME).map_while(|_| pace.hedge()).collect();
        assert!(held.len() == HEDGES_AT_A_TIME && pace.hedge().is_none());
        drop(held);
        assert!(pace.hedge().is_none(), "nothing is saved");
        (0..READS_PER_HEDGE).for_each(|_| pace.straight());
        assert!(pace.hedge().is_some());
    }

    #[test]
    fn two_reads_in_a_hundred_are_hedged_when_all_is_slow_alike() {
        let pace = Pace::new(&Deadlines::default());
        let asked = |_: &u64| {
            pace.straight();
            pace.hedge().is_some()
        };
        let hedged = (0..20_000).filter(asked).count();
        assert!((463..=464).contains(&hedged), "64 saved, then two in a hundred: {hedged}");
        (0..1_000_000).for_each(|_| pace.straight());
        assert_eq!((0..1000).filter(|_| pace.hedge().is_some()).count(), HEDGES_AT_A_TIME, "a bounded stock");
    }
}
