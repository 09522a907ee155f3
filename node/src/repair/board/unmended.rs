//! The shards that are to be tried again: their rebuild failed, or the queue had no place for them.
//!
//! Must never: lose one that was taken up and came to nothing: dropped half way, [`Unmended`] puts the rest back.

use std::collections::VecDeque;

use super::{Board, State};
use crate::types::{BucketName, DiskId, ShardKey};

/// Shards remembered between two checks. More of them have one cause, and are found again by what found them.
const MAX_UNMENDED: usize = 4096;

/// A shard to be tried again: of which object, and for which of our disks.
pub(in crate::repair) type Again = (BucketName, String, ShardKey, DiskId);

impl State {
    /// Remembers one, as far as there is room.
    pub(super) fn remember(&mut self, (bucket, key, shard, disk): Again) {
        if self.unmended.len() < MAX_UNMENDED {
            self.unmended.insert(shard, (bucket, key, disk));
        }
    }
}

/// What failed since the last time it was asked, one by one. What is not settled when this is dropped is put back.
pub(in crate::repair) struct Unmended {
    board: Board,
    left: VecDeque<Again>,
}

impl Board {
    /// What failed since the last time it was asked.
    pub(in crate::repair) fn take_failed(&self) -> Unmended {
        let unmended = std::mem::take(&mut self.lock().unmended);
        let left = unmended.into_iter().map(|(shard, (bucket, key, disk))| (bucket, key, shard, disk)).collect();
        Unmended { board: self.clone(), left }
    }
}

impl Unmended {
    /// The next one; the same until it is settled.
    pub(in crate::repair) fn next(&self) -> Option<Again> {
        self.left.front().cloned()
    }

    /// The next one is queued, or nobody misses it any more.
    pub(in crate::repair) fn settled(&mut self) {
        self.left.pop_front();
    }
}

impl Drop for Unmended {
    fn drop(&mut self) {
        let mut state = self.board.lock();
        self.left.drain(..).for_each(|again| state.remember(again));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repair::queue::Job;
    use crate::types::{ExtentIndex, ShardIndex, Version};

    fn job(number: u128, spare: u8) -> Job {
        let shard = ShardKey { version: Version(number), extent: ExtentIndex(0), shard: ShardIndex(0) };
        let (bucket, key) = (BucketName::from("b"), "k".to_owned());
        Job { bucket, key, shard, disk: DiskId(1), spare, priority: 0, bytes: 1 }
    }

    fn taken(board: &Board) -> Vec<u128> {
        let mut failed = board.take_failed();
        let all = std::iter::from_fn(|| {
            let next = failed.next()?;
            failed.settled();
            Some(next.2.version.0)
        });
        all.collect()
    }

    /// An error while the first was looked up forgot all of them until a scrub found them again.
    #[test]
    fn what_was_taken_up_and_not_settled_is_put_back() {
        let board = Board::new(&resilver_host::real::host());
        for number in 1..=3 {
            let Job { bucket, key, shard, disk, .. } = job(number, 0);
            board.lock().remember((bucket, key, shard, disk));
        }
        let mut failed = board.take_failed();
        assert_eq!(failed.next().map(|again| again.2.version), Some(Version(1)));
        failed.settled();
        drop(failed);
        assert_eq!(taken(&board), [2, 3]);
        assert!(taken(&board).is_empty());
    }

    /// A push that a full queue refused was forgotten, and so was whoever gave its place.
    #[test]
    fn who_has_no_place_in_a_full_queue_is_tried_again() {
        let board = Board::new(&resilver_host::real::host());
        let mut number = 0;
        // Until the first is refused.
        while board.push(job(number, 1)) {
            number += 1;
        }
        assert_eq!(taken(&board), [number]);
        assert!(board.push(job(number + 1, 0)));
        assert_eq!(taken(&board), [number - 1]);
    }
}
