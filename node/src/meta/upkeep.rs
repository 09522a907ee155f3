//! What a member does for its own files: flushes and snapshots.
//!
//! Owns: when. A flush each [`Tuning::flush_interval`], so that a restart has little to apply again. A snapshot once the
//! log since the last one is as long as [`Tuning::snapshot_after`] *and* half as long as the state has objects: writing
//! the whole state then never costs more than twice what the entries themselves cost, however large it grew. Not before the
//! member serves: writing all of the state out takes the processor and the disk that it needs for its start.

use std::time::Duration;

use openraft::LogIdOptionExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::raft::{Raft, Tuning};
use crate::state::State;

/// Entries for each object in the state before it is written out again: one half.
const OBJECTS_PER_ENTRY: u64 = 2;

/// How long a snapshot that is due waits for the member to serve. One that cannot, for want of a quorum, must not let its log
/// grow for ever.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// The upkeep of one member.
pub(super) struct Upkeep {
    pub(super) state: State,
    pub(super) raft: Raft,
    pub(super) tuning: Tuning,
    pub(super) failed: watch::Sender<Option<String>>,
    /// Whether the member serves.
    pub(super) settled: watch::Receiver<bool>,
}

impl Upkeep {
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let began = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.tuning.flush_interval) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.state.release_old();
            if let Err(error) = self.state.flush().await {
                tracing::error!(%error, "the metadata database cannot be made durable");
                self.failed.send_replace(Some(error.to_string()));
                return;
            }
            let settled = *self.settled.borrow() || began.elapsed() >= SETTLE_LIMIT;
            if settled && self.snapshot_is_due() && self.raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
    }

    fn snapshot_is_due(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let since = metrics.last_applied.next_index().saturating_sub(metrics.snapshot.next_index());
        let counts = self.state.counts();
        is_due(since, counts.objects + counts.parts, self.tuning.snapshot_after)
    }
}

fn is_due(entries: u64, objects: u64, least: u64) -> bool {
    entries >= least.max(objects / OBJECTS_PER_ENTRY)
}

#[cfg(test)]
mod tests {
    use super::is_due;

    #[test]
    fn a_large_state_is_written_out_less_often() {
        assert!(!is_due(4999, 0, 5000));
        assert!(is_due(5000, 10_000, 5000));
        assert!(!is_due(5000, 1_000_000, 5000));
        assert!(is_due(500_000, 1_000_000, 5000));
    }
}
