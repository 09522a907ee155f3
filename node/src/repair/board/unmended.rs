//! The shards that are to be tried again: their rebuild failed, or the queue had no place for them.
//!
//! Must never: lose one that was taken up and came to nothing: dropped half way, [`Unmended`] puts the rest back.

use std::collections::{BTreeMap, VecDeque};

use super::{Board, State};
use crate::types::{BucketName, DiskId, ShardKey};

/// Failures remembered between two checks. More of them have one cause, and are found again by what found them.
const MAX_FAILED: usize = 4096;

/// Shards remembered that a full queue left out: a quarter of what it holds. A lost disk has more, and the check finds those again.
const MAX_LEFT_OUT: usize = 16_384;

/// A shard to be tried again: of which object, and for which of our disks.
pub(in crate::repair) type Again = (BucketName, String, ShardKey, DiskId);

/// Why it is to be tried again. They have places of their own: what failed is nobody's to find again but the scrub's, weeks later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::repair) enum Why {
    /// Its rebuild failed.
    Failed,
    /// The queue had no place for it, or gave its place to a more urgent one.
    LeftOut,
}

/// What waits for the next check.
#[derive(Default)]
pub(super) struct Waiting {
    failed: BTreeMap<ShardKey, (BucketName, String, DiskId)>,
    left_out: BTreeMap<ShardKey, (BucketName, String, DiskId)>,
}

impl State {
    /// Remembers one, as far as there is room.
    pub(super) fn remember(&mut self, why: Why, (bucket, key, shard, disk): Again) {
        let (known, most) = match why {
            Why::Failed => (&mut self.unmended.failed, MAX_FAILED),
            Why::LeftOut => (&mut self.unmended.left_out, MAX_LEFT_OUT),
        };
        if known.len() < most {
            known.insert(shard, (bucket, key, disk));
        }
    }
}

/// What waited, one by one, failures first. What is not settled when this is dropped is put back.
pub(in crate::repair) struct Unmended {
    board: Board,
    left: VecDeque<(Why, Again)>,
    later: Vec<(Why, Again)>,
}

impl Board {
    /// What failed since the last time it was asked, or had no place in the queue.
    pub(in crate::repair) fn take_unmended(&self) -> Unmended {
        let Waiting { failed, left_out } = std::mem::take(&mut self.lock().unmended);
        let again = |why| move |(shard, (bucket, key, disk))| (why, (bucket, key, shard, disk));
        let left = failed.into_iter().map(again(Why::Failed)).chain(left_out.into_iter().map(again(Why::LeftOut)));
        Unmended { board: self.clone(), left: left.collect(), later: Vec::new() }
    }

    /// Whether the queue takes one more, however little urgent.
    pub(in crate::repair) fn has_room(&self) -> bool {
        self.lock().queue.has_room()
    }
}

impl Unmended {
    /// The next one; the same until something is said of it.
    pub(in crate::repair) fn next(&self) -> Option<(Why, Again)> {
        self.left.front().cloned()
    }

    /// The next one is queued, or nobody misses it any more.
    pub(in crate::repair) fn settled(&mut self) {
        self.left.pop_front();
    }

    /// The next one cannot be looked into now; the others can, perhaps.
    pub(in crate::repair) fn put_off(&mut self) {
        self.later.extend(self.left.pop_front());
    }
}

impl Drop for Unmended {
    fn drop(&mut self) {
        let mut state = self.board.lock();
        self.left.drain(..).chain(self.later.drain(..)).for_each(|(why, again)| state.remember(why, again));
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
        let mut waiting = board.take_unmended();
        let all = std::iter::from_fn(|| {
            let (_, next) = waiting.next()?;
            waiting.settled();
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
            board.lock().remember(Why::Failed, (bucket, key, shard, disk));
        }
        let mut waiting = board.take_unmended();
        assert_eq!(waiting.next().map(|(_, again)| again.2.version), Some(Version(1)));
        waiting.settled();
        // One whose record cannot be read does not stand in the others' way.
        waiting.put_off();
        assert_eq!(waiting.next().map(|(_, again)| again.2.version), Some(Version(3)));
        drop(waiting);
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

    /// Found on review: what a lost disk's full queue left out took the places of failures, which only a scrub finds again.
    #[test]
    fn what_was_left_out_takes_no_place_of_a_failure() {
        let board = Board::new(&resilver_host::real::host());
        let again = |number| {
            let Job { bucket, key, shard, disk, .. } = job(number, 0);
            (bucket, key, shard, disk)
        };
        for number in 0..=MAX_LEFT_OUT as u128 {
            board.lock().remember(Why::LeftOut, again(number));
        }
        board.lock().remember(Why::Failed, again(1 << 100));
        let all = taken(&board);
        assert_eq!((all.len(), all[0]), (MAX_LEFT_OUT + 1, 1 << 100), "and it is tried first");
    }
}
