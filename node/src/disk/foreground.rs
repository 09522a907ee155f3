//! How much of a disk's time clients take: the time in which at least one step of theirs (opening, reading, writing, syncing,
//! naming a shard) was under way at it.
//!
//! Owns: that sum. Must never: count what repair, scrub or verification do, or the time in which a client that is slow keeps a
//! shard open without asking the disk for anything.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For whom a shard is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A client waits for it.
    Client,
    /// Repair, scrub, verification: nobody does.
    Background,
}

/// The time clients have taken of one disk since the node started.
#[derive(Debug, Default)]
pub(super) struct Foreground {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Steps under way, and since when there was at least one.
    under_way: u32,
    since: Option<Instant>,
    busy: Duration,
}

/// A client's step under way, until dropped.
pub(super) struct Step<'a>(&'a Foreground);

impl Foreground {
    /// A step begins; `None`: nobody waits for it, and it is not counted.
    pub(super) fn begin(&self, purpose: Purpose) -> Option<Step<'_>> {
        if purpose == Purpose::Background {
            return None;
        }
        let mut inner = self.lock();
        inner.under_way += 1;
        inner.since.get_or_insert_with(Instant::now);
        Some(Step(self))
    }

    /// The whole time so far, what is under way included.
    pub(super) fn busy(&self) -> Duration {
        let inner = self.lock();
        inner.busy + inner.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.under_way -= 1;
        if inner.under_way == 0
            && let Some(since) = inner.since.take()
        {
            inner.busy += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_counts_once_however_many_steps_share_it_and_not_at_all_for_repair() {
        let disk = Foreground::default();
        let pass = async |millis| tokio::time::advance(Duration::from_millis(millis)).await;
        let first = disk.begin(Purpose::Client);
        pass(10).await;
        let second = disk.begin(Purpose::Client);
        pass(10).await;
        drop(first);
        pass(10).await;
        assert_eq!(disk.busy(), Duration::from_millis(30), "the second is under way");
        drop(second);
        pass(100).await;
        let repair = disk.begin(Purpose::Background);
        pass(100).await;
        drop(repair);
        assert_eq!(disk.busy(), Duration::from_millis(30));
    }
}
