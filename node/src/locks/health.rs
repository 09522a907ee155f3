//! How asking for a lock has gone lately, path by path: what a caller should expect of the next attempt.
//!
//! Owns: the rules of lock health, and what the retry policy makes of them. Pure: the time comes in. Must never: act by
//! itself. It is asked, and answers.
//!
//! Invariants: a path of which nothing was heard for [`FORGOTTEN_AFTER`] is as good as new; while a path is unhealthy one
//! attempt in [`PROBE_EVERY`] goes through, so that it is noticed when it is well again; what is remembered is bounded,
//! whatever paths are asked for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::LockPath;

/// A timeout this young makes a path degraded.
pub const RECENT: Duration = Duration::from_secs(30);
/// So many timeouts without an answer in between make it unhealthy.
pub const CONSECUTIVE_TIMEOUTS: u32 = 3;
/// So many attempts say something about a rate.
pub const RATED_ATTEMPTS: usize = 10;
/// Attempts that the rate is taken over. More than are needed for one, and few enough that an outage of yesterday's
/// thousand timeouts does not outweigh an hour of answers.
pub const REMEMBERED_ATTEMPTS: usize = 20;
/// Statistics nobody touched for so long are dropped.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// While a path is unhealthy, how often an attempt goes through all the same.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Paths that statistics are kept of: as many as there may be locks. Beyond, those untouched the longest are dropped.
pub const MAX_PATHS: usize = crate::model::MAX_LOCKS;
/// Paths that have series of their own; all others are summed up as [`OTHER`].
pub const SHOWN_PATHS: usize = 64;
/// The label of what has no series of its own.
pub const OTHER: &str = "other";

/// Pauses before the second, third and fourth attempt at a healthy path.
const HEALTHY_PAUSES: &[Duration] =
    &[Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];
/// Of a degraded path: what fails is asked less, and later.
const DEGRADED_PAUSES: &[Duration] = &[Duration::from_millis(800)];
/// Of an unhealthy path: a probe is one attempt.
const PROBE_PAUSES: &[Duration] = &[];

/// How a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// No recent timeout.
    Healthy,
    /// A timeout within [`RECENT`].
    Degraded,
    /// [`CONSECUTIVE_TIMEOUTS`] in a row, or at least half of [`RATED_ATTEMPTS`] or more attempts.
    Unhealthy,
}

impl Health {
    /// The name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Its number in metrics.
    pub fn value(self) -> f64 {
        match self {
            Self::Healthy => 1.0,
            Self::Degraded => 0.5,
            Self::Unhealthy => 0.0,
        }
    }
}

/// How one attempt went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// There was an answer: the lock, or a reason why not.
    Answered,
    /// There was none in time.
    TimedOut,
}

/// Why a path is not even asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unhealthy {
    /// Nothing came back lately.
    #[error("the last {timeouts} attempts at it timed out; the next one is let through in {} ms", .next.as_millis())]
    InARow {
        /// How many.
        timeouts: u32,
        /// Until the next probe.
        next: Duration,
    },
    /// Too little comes back.
    #[error("{timeouts} of the last {attempts} attempts at it timed out; the next one is let through in {} ms", .next.as_millis())]
    TooMany {
        /// How many.
        timeouts: usize,
        /// Of how many.
        attempts: usize,
        /// Until the next probe.
        next: Duration,
    },
}

/// What is known of a path, for metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The path, or [`OTHER`].
    pub path: String,
    /// How it is; of several, the worst.
    pub health: Health,
    /// Timeouts since its statistics began.
    pub timeouts: u64,
}

#[derive(Clone, Debug)]
struct Stats {
    /// The last attempts, the oldest first: whether it timed out.
    attempts: VecDeque<bool>,
    in_a_row: u32,
    last_timeout: Option<Instant>,
    touched: Instant,
    /// When the last attempt was let through while it was unhealthy.
    probed: Option<Instant>,
    attempts_total: u64,
    timeouts_total: u64,
}

impl Stats {
    fn new(now: Instant) -> Self {
        Self {
            attempts: VecDeque::with_capacity(REMEMBERED_ATTEMPTS),
            in_a_row: 0,
            last_timeout: None,
            touched: now,
            probed: None,
            attempts_total: 0,
            timeouts_total: 0,
        }
    }

    fn timeouts(&self) -> usize {
        self.attempts.iter().filter(|timed_out| **timed_out).count()
    }

    fn too_many(&self) -> bool {
        self.attempts.len() >= RATED_ATTEMPTS && self.timeouts() * 2 >= self.attempts.len()
    }

    fn health(&self, now: Instant) -> Health {
        if self.in_a_row >= CONSECUTIVE_TIMEOUTS || self.too_many() {
            Health::Unhealthy
        } else if self.last_timeout.is_some_and(|at| now.saturating_duration_since(at) < RECENT) {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    fn why(&self, next: Duration) -> Unhealthy {
        if self.in_a_row >= CONSECUTIVE_TIMEOUTS {
            return Unhealthy::InARow { timeouts: self.in_a_row, next };
        }
        Unhealthy::TooMany { timeouts: self.timeouts(), attempts: self.attempts.len(), next }
    }
}

/// The statistics of one process.
#[derive(Clone, Debug, Default)]
pub struct Book {
    paths: BTreeMap<LockPath, Stats>,
}

impl Book {
    /// Writes down how an attempt went.
    pub fn note(&mut self, path: &LockPath, attempt: Attempt, now: Instant) {
        self.forget(now);
        if !self.paths.contains_key(path) {
            self.make_room();
        }
        let stats = self.paths.entry(path.clone()).or_insert_with(|| Stats::new(now));
        let was = stats.health(now);
        stats.touched = now;
        stats.attempts_total += 1;
        match attempt {
            Attempt::TimedOut => {
                stats.in_a_row = stats.in_a_row.saturating_add(1);
                stats.last_timeout = Some(now);
                stats.timeouts_total += 1;
            }
            Attempt::Answered => {
                stats.in_a_row = 0;
                // An answer while it was unhealthy is a probe's. What is remembered was of the time before it: with one
                // probe in five seconds, outvoting it would take a minute of a lock that is well. It stays degraded
                // until its last timeout is no longer recent.
                if was == Health::Unhealthy {
                    stats.attempts.clear();
                    stats.probed = None;
                }
            }
        }
        if stats.attempts.len() == REMEMBERED_ATTEMPTS {
            stats.attempts.pop_front();
        }
        stats.attempts.push_back(attempt == Attempt::TimedOut);
    }

    /// How a path is.
    pub fn health(&self, path: &LockPath, now: Instant) -> Health {
        self.known(path, now).map_or(Health::Healthy, |stats| stats.health(now))
    }

    /// Asked before attempts are made at a path: the pauses between them, as many as there may be retries. While the path
    /// is unhealthy every caller is refused but one in [`PROBE_EVERY`], whose single attempt finds out whether it still
    /// is: without it nothing would ever be noted again, and the path would stay refused until it is forgotten.
    ///
    /// # Errors
    /// With the reason, at once, instead of a timeout later.
    pub fn admit(&mut self, path: &LockPath, now: Instant) -> Result<&'static [Duration], Unhealthy> {
        self.forget(now);
        let Some(stats) = self.paths.get_mut(path) else { return Ok(HEALTHY_PAUSES) };
        match stats.health(now) {
            Health::Healthy => Ok(HEALTHY_PAUSES),
            Health::Degraded => Ok(DEGRADED_PAUSES),
            Health::Unhealthy => {
                // The first probe comes as long after the last timeout as any other after the one before.
                let last = stats.probed.max(stats.last_timeout);
                let since = last.map_or(PROBE_EVERY, |last| now.saturating_duration_since(last));
                if since < PROBE_EVERY {
                    return Err(stats.why(PROBE_EVERY - since));
                }
                stats.probed = Some(now);
                Ok(PROBE_PAUSES)
            }
        }
    }

    /// What metrics show: the busiest paths by themselves, busiest first, and the others together.
    pub fn figures(&self, now: Instant) -> Vec<Figure> {
        let fresh = self.paths.iter().filter(|(_, stats)| fresh(stats, now));
        // A lock may be called like the sum of the rest: then it is part of it.
        let (namesake, mut known): (Vec<_>, Vec<_>) = fresh.partition(|(path, _)| path.as_str() == OTHER);
        // The order of names decides between equals: the same paths are shown from one scrape to the next.
        known.sort_by(|a, b| b.1.attempts_total.cmp(&a.1.attempts_total).then(a.0.cmp(b.0)));
        let mut rest = known.split_off(known.len().min(SHOWN_PATHS));
        rest.extend(namesake);
        let figure = |path: &str, stats: &Stats| Figure {
            path: path.to_owned(),
            health: stats.health(now),
            timeouts: stats.timeouts_total,
        };
        let mut figures: Vec<Figure> = known.iter().map(|(path, stats)| figure(path.as_str(), stats)).collect();
        let others = rest.iter().map(|(_, stats)| figure(OTHER, stats));
        figures.extend(others.reduce(|sum, one| Figure {
            path: sum.path,
            health: sum.health.max(one.health),
            timeouts: sum.timeouts + one.timeouts,
        }));
        figures
    }

    /// The paths that are not healthy.
    pub(super) fn ill(&self, now: Instant) -> impl Iterator<Item = (&LockPath, Health)> {
        let known = self.paths.iter().filter(move |(_, stats)| fresh(stats, now));
        known.map(move |(path, stats)| (path, stats.health(now))).filter(|(_, health)| *health != Health::Healthy)
    }

    fn known(&self, path: &LockPath, now: Instant) -> Option<&Stats> {
        self.paths.get(path).filter(|stats| fresh(stats, now))
    }

    fn forget(&mut self, now: Instant) {
        self.paths.retain(|_, stats| fresh(stats, now));
    }

    fn make_room(&mut self) {
        while self.paths.len() >= MAX_PATHS {
            let oldest = self.paths.iter().min_by_key(|(_, stats)| stats.touched).map(|(path, _)| path.clone());
            let Some(oldest) = oldest else { return };
            self.paths.remove(&oldest);
        }
    }
}

fn fresh(stats: &Stats, now: Instant) -> bool {
    now.saturating_duration_since(stats.touched) < FORGOTTEN_AFTER
}

#[cfg(test)]
mod tests;
