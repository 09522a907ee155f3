//! The shards that wait to be rebuilt, by their disk, and which of them is next. Pure.
//!
//! Invariant: a shard waits once. Must never: grow beyond [`MAX_QUEUE`]; leave out a shard for one that is less urgent; give out
//! a shard that gives way to clients ([`super::pressure`]).

use std::collections::BTreeMap;

use super::Only;
use super::pressure::{Pressure, holds};
use crate::types::{BucketName, DiskId, ShardKey};

/// Shards waiting at most, over all disks of the node: some 10 MiB of memory. When it is full the least urgent gives its place to
/// one that is more urgent; what has none is told ([`Pushed::left_out`]) and tried again later.
const MAX_QUEUE: usize = 65_536;

/// A shard to be rebuilt on one of our disks.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) bucket: BucketName,
    pub(super) key: String,
    pub(super) shard: ShardKey,
    pub(super) disk: DiskId,
    /// How many more shards of its extent may be lost: fewest first.
    pub(super) spare: u8,
    /// Its bucket's: among jobs of equal need, lower first.
    pub(super) priority: u8,
    pub(super) bytes: u64,
}

impl Job {
    /// What it takes while it is rebuilt.
    pub(super) fn parts(&self) -> u32 {
        let parts = self.bytes.div_ceil(SLOT_BYTES / u64::from(PARTS)).max(1);
        u32::try_from(parts).unwrap_or(PARTS).min(PARTS)
    }
}

/// What is rebuilt side by side is counted in parts of a slot, because a small shard is mostly waiting (its peers, two syncs, a log
/// entry), shares what it waits for with those beside it (`company.rs`), and a large one is mostly work. A slot is a shard of
/// [`SLOT_BYTES`] or more, and a part one of 64 KiB.
pub(super) const PARTS: u32 = 16;

/// From this size on a shard has a slot of its own: a quarter of the largest.
const SLOT_BYTES: u64 = 1024 * 1024;

/// A place in the queue: spare shards, the bucket's priority, then who came first.
type Ticket = (u8, u8, u64);

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    disks: BTreeMap<DiskId, BTreeMap<Ticket, Job>>,
    places: BTreeMap<ShardKey, (DiskId, Ticket)>,
    bytes: u64,
    next_ticket: u64,
    pressures: BTreeMap<DiskId, Pressure>,
    /// Turns of a pause that were taken.
    turns: BTreeMap<DiskId, u64>,
}

/// What came of a push.
#[derive(Debug, Default)]
pub(super) struct Pushed {
    /// It waits, and did not before, or less urgently.
    pub(super) new: bool,
    /// Who has no place in a full queue: it, or another that gave its own.
    pub(super) left_out: Option<Job>,
}

impl Queue {
    /// Takes a job unless it waits already, no less urgently, or all that wait in a full queue are no less urgent.
    pub(super) fn push(&mut self, job: Job) -> Pushed {
        if let Some((_, ticket)) = self.places.get(&job.shard).copied() {
            // It may have become more urgent: another home of its extent failed.
            if (ticket.0, ticket.1) <= (job.spare, job.priority) {
                return Pushed::default();
            }
            self.remove(job.shard);
        }
        let mut left_out = None;
        if self.len() >= MAX_QUEUE {
            let Some(shard) = self.less_urgent_than(&job) else {
                return Pushed { new: false, left_out: Some(job) };
            };
            left_out = self.remove(shard);
        }
        let ticket = (job.spare, job.priority, self.next_ticket);
        self.next_ticket += 1;
        self.bytes += job.bytes;
        self.places.insert(job.shard, (job.disk, ticket));
        self.disks.entry(job.disk).or_default().insert(ticket, job);
        Pushed { new: true, left_out }
    }

    /// The least urgent of all that wait, if it is less urgent than this job.
    fn less_urgent_than(&self, job: &Job) -> Option<ShardKey> {
        let lasts = self.disks.values().filter_map(BTreeMap::last_key_value);
        let (ticket, last) = lasts.max_by_key(|(ticket, _)| **ticket)?;
        ((ticket.0, ticket.1) > (job.spare, job.priority)).then_some(last.shard)
    }

    /// Takes out the most urgent job that need not wait for clients, if so many parts are enough for it: smaller ones do not go
    /// before it.
    pub(super) fn pop(&mut self, room: u32) -> Option<Job> {
        self.pop_of(u8::MAX, room)
    }

    /// The same of those that could not be rebuilt after one more loss.
    pub(super) fn pop_without_spare(&mut self, room: u32) -> Option<Job> {
        self.pop_of(0, room)
    }

    fn pop_of(&mut self, most_spare: u8, room: u32) -> Option<Job> {
        // Where the first of a disk has a spare all of them do.
        let firsts = self.disks.iter().filter_map(|(disk, jobs)| Some((*disk, *jobs.first_key_value()?.0)));
        let meant = firsts.filter(|(_, ticket)| ticket.0 <= most_spare);
        let free = meant.filter(|(disk, ticket)| !holds(self.pressure(*disk), ticket.0) || self.has_turn(*disk));
        let (disk, ticket) = free.min_by_key(|(_, ticket)| *ticket)?;
        let first = self.disks.get(&disk)?.get(&ticket)?;
        let shard = (first.parts() <= room).then_some(first.shard)?;
        let pressure = self.pressure(disk);
        if holds(pressure, ticket.0) {
            // What need not wait takes no turn from what does.
            pressure.lets_through(self.turns.entry(disk).or_default());
        }
        self.remove(shard)
    }

    /// Whether one that waits on this disk may go all the same.
    fn has_turn(&self, disk: DiskId) -> bool {
        let mut used = self.turns.get(&disk).copied().unwrap_or_default();
        self.pressure(disk).lets_through(&mut used)
    }

    /// Takes a job out.
    pub(super) fn remove(&mut self, shard: ShardKey) -> Option<Job> {
        let (disk, ticket) = self.places.remove(&shard)?;
        let jobs = self.disks.get_mut(&disk)?;
        let job = jobs.remove(&ticket)?;
        if jobs.is_empty() {
            self.disks.remove(&disk);
        }
        self.bytes = self.bytes.saturating_sub(job.bytes);
        Some(job)
    }

    /// Whether it takes one more without giving one up.
    pub(super) fn has_room(&self) -> bool {
        self.len() < MAX_QUEUE
    }

    /// How busy each of our disks is with clients.
    pub(super) fn set_pressures(&mut self, pressures: BTreeMap<DiskId, Pressure>) {
        // The next pause has turns of its own.
        self.turns.retain(|disk, _| pressures.get(disk).is_some_and(|pressure| pressure.pauses));
        self.pressures = pressures;
    }

    /// How busy a disk is with clients.
    pub(super) fn pressure(&self, disk: DiskId) -> Pressure {
        self.pressures.get(&disk).copied().unwrap_or_default()
    }

    /// How many wait for clients of their disk.
    pub(super) fn held(&self, disk: DiskId) -> u64 {
        let pressure = self.pressure(disk);
        let Some(jobs) = self.disks.get(&disk).filter(|_| pressure.pauses) else { return 0 };
        jobs.values().filter(|job| holds(pressure, job.spare)).count() as u64
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of all that waits.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many of the part that is meant wait.
    pub(super) fn waiting(&self, only: &Only) -> u64 {
        match only {
            Only::Any => self.len() as u64,
            Only::Disk(disk) => self.disks.get(disk).map_or(0, BTreeMap::len) as u64,
            Only::Bucket(bucket) => {
                self.disks.values().flat_map(BTreeMap::values).filter(|job| job.bucket == *bucket).count() as u64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ExtentIndex, ShardIndex, Version};

    fn job(number: u8, disk: u128, spare: u8, priority: u8) -> Job {
        let shard = ShardKey { version: Version(1), extent: ExtentIndex(0), shard: ShardIndex(number) };
        let (bucket, key) = (BucketName::from("b"), "k".to_owned());
        Job { bucket, key, shard, disk: DiskId(disk), spare, priority, bytes: 1 }
    }

    fn pressure(percent: u32, pauses: bool) -> Pressure {
        Pressure { percent, pauses, turns: 0 }
    }

    fn order(queue: &mut Queue) -> Vec<u8> {
        std::iter::from_fn(|| queue.pop(PARTS)).map(|job| job.shard.shard.0).collect()
    }

    #[test]
    fn the_fewest_spare_shards_come_first_then_the_buckets_priority_then_who_waited_longest() {
        let mut queue = Queue::default();
        for (number, disk, spare, priority) in
            [(0, 1, 1, 0), (1, 2, 0, 200), (2, 1, 0, 128), (3, 2, 0, 128), (4, 1, 1, 255)]
        {
            assert!(queue.push(job(number, disk, spare, priority)).new);
        }
        assert!(!queue.push(job(4, 1, 1, 255)).new, "it is queued already");
        assert!(queue.push(job(4, 1, 0, 5)).new, "it became more urgent");
        assert_eq!((queue.len(), queue.bytes()), (5, 5));
        assert_eq!(order(&mut queue), [4, 2, 3, 1, 0]);
        assert!(queue.is_empty() && queue.bytes() == 0);
    }

    #[test]
    fn a_disk_busy_with_clients_holds_what_has_a_spare_and_nothing_else() {
        let mut queue = Queue::default();
        for (number, disk, spare) in [(0, 1, 0), (1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 2, 0)] {
            queue.push(job(number, disk, spare, 128));
        }
        queue.set_pressures(BTreeMap::from([(DiskId(1), pressure(93, true))]));
        assert_eq!((queue.held(DiskId(1)), queue.held(DiskId(2))), (2, 0));
        assert_eq!(order(&mut queue), [0, 4, 3], "what is at its last spare goes on, and so does another disk");
        assert_eq!(queue.len(), 2);
        queue.set_pressures(BTreeMap::from([(DiskId(1), pressure(60, false))]));
        assert_eq!(order(&mut queue), [1, 2], "where it was");
    }

    #[test]
    fn in_a_pause_without_end_each_disk_has_one_job_in_turn() {
        let mut queue = Queue::default();
        for (number, disk, spare) in [(0, 1, 2), (1, 1, 1), (2, 1, 2), (3, 2, 1), (4, 2, 0)] {
            queue.push(job(number, disk, spare, 128));
        }
        let long = |turns| [1, 2].map(|disk| (DiskId(disk), Pressure { turns, ..pressure(100, true) })).into();
        queue.set_pressures(long(0));
        assert_eq!(order(&mut queue), [4]);
        queue.set_pressures(long(1));
        assert_eq!(order(&mut queue), [1, 3], "the most urgent of each");
        queue.set_pressures(long(5));
        assert!(queue.pop_without_spare(PARTS).is_none(), "an agent's word stands");
        assert_eq!(order(&mut queue), [0], "and not four at once");
        assert_eq!(queue.held(DiskId(1)), 1);
        queue.set_pressures([(DiskId(1), pressure(70, false))].into());
        queue.push(job(5, 1, 1, 128));
        queue.set_pressures(long(0));
        assert!(queue.pop(PARTS).is_none(), "a new pause");
        queue.set_pressures(long(1));
        assert_eq!(order(&mut queue), [5]);
    }

    fn nth(number: u128, disk: u128, spare: u8) -> Job {
        let shard = ShardKey { version: Version(number), extent: ExtentIndex(0), shard: ShardIndex(0) };
        Job { shard, ..job(0, disk, spare, 128) }
    }

    #[test]
    fn the_queue_is_bounded_also_where_one_becomes_more_urgent() {
        let mut queue = Queue::default();
        (0..MAX_QUEUE as u128).for_each(|number| assert!(queue.push(nth(number, 1, 1)).new));
        let refused = queue.push(nth(1 << 100, 1, 1));
        assert!(!refused.new, "nobody is less urgent");
        assert_eq!(refused.left_out.map(|job| job.shard.version), Some(Version(1 << 100)));
        let promoted = queue.push(nth(7, 1, 0));
        assert!(promoted.new && promoted.left_out.is_none(), "it has a place already");
        assert_eq!((queue.len(), queue.waiting(&Only::Any)), (MAX_QUEUE, MAX_QUEUE as u64));
        assert_eq!(queue.pop(PARTS).map(|job| job.shard.version), Some(Version(7)));
    }

    /// A queue full of jobs that wait for clients of their disk left no place for a shard without a spare.
    #[test]
    fn a_full_queue_gives_the_place_of_its_least_urgent_to_one_without_spare() {
        let mut queue = Queue::default();
        for number in 0..MAX_QUEUE as u128 {
            queue.push(nth(number, 1 + number % 2, if number == 9 { 2 } else { 1 }));
        }
        queue.set_pressures([1, 2].map(|disk| (DiskId(disk), pressure(100, true))).into());
        assert!(queue.pop(PARTS).is_none(), "all of them wait");
        let pushed = queue.push(nth(1 << 100, 3, 0));
        assert!(pushed.new);
        assert_eq!(
            pushed.left_out.map(|job| job.shard.version),
            Some(Version(9)),
            "of all disks the one with most spare"
        );
        let bytes = MAX_QUEUE as u64;
        assert_eq!((queue.len(), queue.bytes(), queue.waiting(&Only::Any)), (MAX_QUEUE, bytes, bytes));
        let pushed = queue.push(nth(1 << 101, 1, 0));
        let last = Version(MAX_QUEUE as u128 - 1);
        assert_eq!(pushed.left_out.map(|job| job.shard.version), Some(last), "then who came last");
        let first = std::iter::from_fn(|| queue.pop(PARTS)).map(|job| job.shard.version).collect::<Vec<_>>();
        assert_eq!(first, [Version(1 << 100), Version(1 << 101)]);
    }

    #[test]
    fn small_shards_share_a_slot_and_do_not_overtake_a_large_one() {
        let mut queue = Queue::default();
        let sized = |number: u8, spare, bytes| Job { bytes, ..job(number, 1, spare, 128) };
        let sizes = [(1, 1), (64 << 10, 1), ((64 << 10) + 1, 2), (256 << 10, 4), (1 << 20, 16), (16 << 20, 16)];
        for (bytes, parts) in sizes {
            assert_eq!(sized(0, 0, bytes).parts(), parts, "{bytes}");
        }
        queue.push(sized(0, 0, 64 << 10));
        queue.push(sized(1, 1, 4 << 20));
        queue.push(sized(2, 2, 64 << 10));
        assert!(queue.pop(0).is_none());
        assert_eq!(queue.pop(1).map(|job| job.shard.shard.0), Some(0));
        assert!(queue.pop(PARTS - 1).is_none(), "the large one is next");
        assert_eq!(order(&mut queue), [1, 2]);
    }
}
