//! What this node knows to be wrong, and what is being done about it: the one place that readers, scrub, check and control
//! share.
//!
//! Owns: the queue, the findings, the totals. Must never: touch a disk; grow without bound.

mod throttled;
mod unmended;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilver_host::Host;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

pub(crate) use self::throttled::THROTTLE_LASTS;
use self::throttled::Throttled;
use self::unmended::Waiting;
pub(super) use self::unmended::{Again, Why};
use super::pressure::Pressure;
use super::queue::{Job, PARTS, Queue};
use super::{Finding, FoundBy, RebuildReport, RebuildState, RepairStatus, Suspect, Timings, holder_of};
use crate::meta::Meta;
use crate::model::{ClusterMap, DEFAULT_REPAIR_PRIORITY, ObjectRecord, accounted_bucket};
use crate::types::{BucketName, DiskId, ShardKey};

/// Findings kept: the contract's figure. The newest stay.
const MAX_FINDINGS: usize = 256;

/// Moved shards remembered for proofs, over all disks.
const MAX_MOVED: usize = 262_144;

/// The window over which the rate is measured.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// A part of the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Only {
    /// All of them.
    Any,
    /// Those for one of our disks.
    Disk(DiskId),
    /// Those of a bucket.
    Bucket(BucketName),
}

impl Only {
    /// Whether a shard of this bucket for this disk is meant.
    pub(super) fn means(&self, on: DiskId, of: &BucketName) -> bool {
        match self {
            Self::Any => true,
            Self::Disk(disk) => *disk == on,
            Self::Bucket(bucket) => bucket == of,
        }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Board {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    state: Mutex<State>,
    work: Notify,
    check: Notify,
    collect: Notify,
    throttled: watch::Sender<Option<Throttled>>,
    changes: watch::Sender<u64>,
    pressures: watch::Sender<BTreeMap<DiskId, Pressure>>,
    watching: tokio::sync::Mutex<()>,
    timings: Timings,
}

#[derive(Default)]
struct State {
    queue: Queue,
    running: BTreeMap<ShardKey, (DiskId, BucketName)>,
    /// Parts of slots that jobs of the queue have.
    taken: u32,
    findings: VecDeque<Finding>,
    next_finding: u64,
    completed: u64,
    failed: u64,
    failed_on: BTreeMap<DiskId, u64>,
    failed_of: BTreeMap<BucketName, u64>,
    recent: VecDeque<(Instant, u64)>,
    scrubbed_bytes: u64,
    passes: BTreeMap<DiskId, u64>,
    moved: BTreeMap<DiskId, BTreeSet<ShardKey>>,
    moved_total: usize,
    /// Shards whose rebuild failed since the last check, or that had no place in the queue.
    unmended: Waiting,
    doubts: BTreeSet<(DiskId, u8)>,
    anti_entropy: AntiEntropy,
}

/// What anti-entropy has done since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AntiEntropy {
    /// Looks at all disks.
    pub passes: u64,
    /// Folders whose names were read.
    pub folders_read: u64,
    /// Ranges in which disk and metadata differed, and that were looked into.
    pub ranges_examined: u64,
    /// Shards that were not where the metadata has them.
    pub missing: u64,
    /// Disks of which each shard was asked for by itself.
    pub full_passes: u64,
}

/// A disk that is busy with clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What they take of its time, in percent.
    pub percent: u32,
    /// Shards that wait for that.
    pub shards: u64,
}

/// A shard being rebuilt: nobody else touches it until this is dropped.
pub(super) struct Claim {
    board: Board,
    shard: ShardKey,
    /// Of a slot, if it came from the queue.
    parts: u32,
    /// Until the job is put back.
    held: bool,
}

impl Board {
    /// Empty.
    pub fn new(host: &Host) -> Self {
        Self {
            inner: Arc::new(Inner {
                host: host.clone(),
                state: Mutex::default(),
                work: Notify::new(),
                check: Notify::new(),
                collect: Notify::new(),
                throttled: watch::Sender::new(None),
                changes: watch::channel(0).0,
                pressures: watch::Sender::default(),
                watching: tokio::sync::Mutex::default(),
                timings: Timings::default(),
            }),
        }
    }

    /// Takes a suspicion about a shard of this node: noted as a finding and put into the queue, unless the object has
    /// changed meanwhile.
    pub async fn suspect(&self, meta: &Meta, suspect: Suspect) {
        let record = match holder_of(meta, &suspect.bucket, &suspect.key, suspect.shard.extent_id()).await {
            Ok(Some((_, _, record))) => record,
            // Replaced or deleted: nobody misses it.
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(shard = %suspect.shard, %error, "a report could not be looked at; the next check finds it");
                return;
            }
        };
        let priority = match meta.bucket(&accounted_bucket(&suspect.bucket, &suspect.key)).await {
            Ok(bucket) => bucket.map_or(DEFAULT_REPAIR_PRIORITY, |bucket| bucket.repair_priority),
            Err(_) => DEFAULT_REPAIR_PRIORITY,
        };
        let Some(job) = job_of(&meta.map(), &record, &suspect, priority) else { return };
        // A home that was away during an upload is no discovery.
        if suspect.found_by != FoundBy::Write {
            self.note(suspect);
        }
        self.push(job);
    }

    /// Puts a job back that was taken and not begun. At no moment is it neither waiting nor at work: who waits until nothing is
    /// would think it done.
    pub(super) fn put_back(&self, job: Job, mut claim: Claim) {
        let mut state = self.lock();
        state.release(&claim);
        claim.held = false;
        if let Some(Job { bucket, key, shard, disk, .. }) = state.queue.push(job).left_out {
            state.remember(Why::LeftOut, (bucket, key, shard, disk));
        }
        drop(state);
        drop(claim);
    }

    /// Queues a job unless it is there or at work; answers whether it was new. Who has no place is tried again by the next check.
    pub(super) fn push(&self, job: Job) -> bool {
        let mut state = self.lock();
        if state.running.contains_key(&job.shard) {
            return false;
        }
        let pushed = state.queue.push(job);
        if let Some(Job { bucket, key, shard, disk, .. }) = pushed.left_out {
            state.remember(Why::LeftOut, (bucket, key, shard, disk));
        }
        if !pushed.new {
            return false;
        }
        drop(state);
        self.inner.work.notify_one();
        true
    }

    /// How busy each of our disks is with clients: what gives way to them, and what need not any more.
    pub(super) fn set_pressures(&self, pressures: BTreeMap<DiskId, Pressure>) {
        self.lock().queue.set_pressures(pressures.clone());
        let changed = self.inner.pressures.send_if_modified(|known| {
            let changed = *known != pressures;
            *known = pressures;
            changed
        });
        if changed {
            // Whatever waited for a pause to end.
            self.inner.work.notify_waiters();
        }
    }

    /// How busy each of our disks is with clients, as it changes.
    pub(super) fn pressures(&self) -> watch::Receiver<BTreeMap<DiskId, Pressure>> {
        self.inner.pressures.subscribe()
    }

    /// The disks on which background work gives way to clients, and how many shards wait for that.
    pub fn held(&self) -> BTreeMap<DiskId, Held> {
        let pressures = self.inner.pressures.borrow().clone();
        let state = self.lock();
        let pressed = pressures.into_iter().filter(|(_, pressure)| pressure.pauses);
        pressed
            .map(|(disk, pressure)| (disk, Held { percent: pressure.percent, shards: state.queue.held(disk) }))
            .collect()
    }

    /// What clients take of a disk's time, in percent.
    pub fn foreground_percent(&self, disk: DiskId) -> u32 {
        self.inner.pressures.borrow().get(&disk).map_or(0, |pressure| pressure.percent)
    }

    /// The most urgent job, once there is one, and the claim to its shard.
    pub(super) async fn next(&self, slots: u32) -> (Job, Claim) {
        let mut throttled = self.inner.throttled.subscribe();
        loop {
            let woken = self.inner.work.notified();
            let until = throttled.borrow_and_update().as_ref().map(|throttled| throttled.until);
            if let Some(found) = self.try_next(slots) {
                return found;
            }
            tokio::select! {
                () = woken => {}
                // The sender lives in this board.
                _ = throttled.changed() => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some_and(|until| until > Instant::now()) => {}
            }
        }
    }

    fn try_next(&self, slots: u32) -> Option<(Job, Claim)> {
        let mut state = self.lock();
        let room = slots.saturating_mul(PARTS).saturating_sub(state.taken);
        let job = match self.throttled() {
            // One more loss, and it could not be rebuilt any more.
            Some(_) => state.queue.pop_without_spare(room)?,
            None => state.queue.pop(room)?,
        };
        state.taken += job.parts();
        state.running.insert(job.shard, (job.disk, job.bucket.clone()));
        if !state.queue.is_empty() {
            // One notification may stand for several jobs.
            self.inner.work.notify_one();
        }
        let claim = Claim { board: self.clone(), shard: job.shard, parts: job.parts(), held: true };
        Some((job, claim))
    }

    /// The claim to a shard outside the queue's order, once nobody else has it.
    pub(super) async fn claim(&self, shard: ShardKey, disk: DiskId, bucket: &BucketName) -> Claim {
        let mut changes = self.inner.changes.subscribe();
        loop {
            changes.borrow_and_update();
            {
                let mut state = self.lock();
                if let std::collections::btree_map::Entry::Vacant(entry) = state.running.entry(shard) {
                    entry.insert((disk, bucket.clone()));
                    state.queue.remove(shard);
                    return Claim { board: self.clone(), shard, parts: 0, held: true };
                }
            }
            // The sender lives in this board.
            let _ = changes.changed().await;
        }
    }

    /// How a rebuild ended.
    pub(super) fn ended(&self, job: (&BucketName, &str), shard: ShardKey, disk: DiskId, report: &RebuildReport) {
        let (bucket, key) = job;
        let now = Instant::now();
        let mut state = self.lock();
        match report.state {
            RebuildState::Failed => {
                state.failed += 1;
                *state.failed_on.entry(disk).or_default() += 1;
                *state.failed_of.entry(bucket.clone()).or_default() += 1;
                state.remember(Why::Failed, (bucket.clone(), key.to_owned(), shard, disk));
            }
            RebuildState::Rebuilt | RebuildState::Intact | RebuildState::Obsolete => {
                state.completed += u64::from(report.state == RebuildState::Rebuilt);
                for finding in state.findings.iter_mut().filter(|finding| finding.suspect.shard == shard) {
                    finding.repaired = true;
                }
            }
        }
        if report.bytes > 0 {
            state.recent.push_back((now, report.bytes));
        }
        state.forget_old(now);
    }

    /// Notes a finding, once per shard and kind while it stands.
    pub(super) fn note(&self, suspect: Suspect) {
        let at_ms = self.inner.host.clock.now().as_millis();
        let mut state = self.lock();
        let known = |finding: &Finding| {
            !finding.repaired && finding.suspect.shard == suspect.shard && finding.suspect.kind == suspect.kind
        };
        if state.findings.iter().any(known) {
            return;
        }
        tracing::warn!(
            bucket = %suspect.bucket, key = suspect.key, shard = %suspect.shard, disk = %suspect.disk,
            kind = suspect.kind.finding(), found_by = suspect.found_by.as_str(), detail = suspect.detail,
            "a bad shard was found"
        );
        state.next_finding += 1;
        let sequence = state.next_finding;
        state.findings.push_back(Finding { sequence, at_ms, suspect, repaired: false });
        if state.findings.len() > MAX_FINDINGS {
            state.findings.pop_front();
        }
    }

    /// A folder is to be looked at anew, whatever is believed of it.
    pub(super) fn doubt(&self, disk: DiskId, folder: u8) {
        self.lock().doubts.insert((disk, folder));
    }

    pub(super) fn take_doubts(&self) -> BTreeSet<(DiskId, u8)> {
        std::mem::take(&mut self.lock().doubts)
    }

    /// The right to have the metadata count what is placed on our disks.
    pub(super) async fn watching(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.watching.lock().await
    }

    /// Counts what anti-entropy did.
    pub(super) fn compared(&self, count: impl FnOnce(&mut AntiEntropy)) {
        count(&mut self.lock().anti_entropy);
    }

    /// What anti-entropy has done.
    pub fn anti_entropy(&self) -> AntiEntropy {
        self.lock().anti_entropy
    }

    /// Remembers that a shard leaves a disk that was given up.
    pub(super) fn moves_from(&self, disk: DiskId, shard: ShardKey) {
        let mut state = self.lock();
        if state.moved_total < MAX_MOVED && state.moved.entry(disk).or_default().insert(shard) {
            state.moved_total += 1;
        }
    }

    /// The disk is in use again: what left it is no longer asked about.
    pub(super) fn forget_moves(&self, back: impl Fn(DiskId) -> bool) {
        let mut state = self.lock();
        state.moved.retain(|disk, _| !back(*disk));
        state.moved_total = state.moved.values().map(BTreeSet::len).sum();
    }

    /// Whether a shard left this disk, as far as this node saw.
    pub(super) fn moved_from(&self, disk: DiskId, shard: ShardKey) -> bool {
        self.lock().moved.get(&disk).is_some_and(|moved| moved.contains(&shard))
    }

    pub(super) fn scrubbed(&self, bytes: u64) {
        self.lock().scrubbed_bytes += bytes;
    }

    pub(super) fn pass_finished(&self, disk: DiskId) {
        *self.lock().passes.entry(disk).or_default() += 1;
    }

    pub(super) fn scrubs(&self, disk: DiskId) {
        self.lock().passes.entry(disk).or_default();
    }

    /// Jobs waiting or at work, of the part that is meant.
    pub(super) fn pending(&self, only: &Only) -> u64 {
        let state = self.lock();
        let running = state.running.values().filter(|(disk, bucket)| only.means(*disk, bucket)).count();
        state.queue.waiting(only) + running as u64
    }

    /// Attempts that failed since the start, of the part that is meant.
    pub(super) fn failed(&self, only: &Only) -> u64 {
        let state = self.lock();
        match only {
            Only::Any => state.failed,
            Only::Disk(disk) => state.failed_on.get(disk).copied().unwrap_or(0),
            Only::Bucket(bucket) => state.failed_of.get(bucket).copied().unwrap_or(0),
        }
    }

    /// Has the check pass run soon.
    pub fn request_check(&self) {
        self.inner.check.notify_one();
    }

    pub(super) async fn check_requested(&self) {
        self.inner.check.notified().await;
    }

    /// Has replaced versions collected soon.
    pub(super) fn request_collection(&self) {
        self.inner.collect.notify_one();
    }

    pub(super) async fn collection_requested(&self) {
        self.inner.collect.notified().await;
    }

    /// Changes whenever a rebuild ended.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// The time totals, for counting into.
    pub fn timings(&self) -> &Timings {
        &self.inner.timings
    }

    /// What was found wrong lately, oldest first.
    pub fn findings(&self) -> Vec<Finding> {
        self.lock().findings.iter().cloned().collect()
    }

    /// Queue, rates and totals.
    pub fn status(&self) -> RepairStatus {
        let now = Instant::now();
        let mut state = self.lock();
        state.forget_old(now);
        let recent: u64 = state.recent.iter().map(|(_, bytes)| bytes).sum();
        let since = state.recent.front().map_or(RATE_WINDOW, |(at, _)| now - *at).max(Duration::from_secs(1));
        let rate = (recent as f64 / since.as_secs_f64()) as u64;
        let idle = state.queue.is_empty() && state.running.is_empty();
        let eta = match rate {
            _ if idle => Some(Duration::ZERO),
            0 => None,
            rate => Some(Duration::from_secs(state.queue.bytes().div_ceil(rate).max(1))),
        };
        RepairStatus {
            queue: state.queue.len() as u64,
            in_flight: state.running.len() as u64,
            completed: state.completed,
            failed: state.failed,
            rate_bytes_per_second: rate,
            eta,
            scrubbed_bytes: state.scrubbed_bytes,
            scrub_pass: state.passes.values().copied().min().unwrap_or(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_old(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, _)| now - *at > RATE_WINDOW) {
            self.recent.pop_front();
        }
    }
}

impl State {
    /// Nobody works on that shard any more.
    fn release(&mut self, claim: &Claim) {
        self.running.remove(&claim.shard);
        self.taken = self.taken.saturating_sub(claim.parts);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.board.lock();
        if self.held {
            state.release(self);
        }
        if self.parts > 0 && !state.queue.is_empty() {
            // What was too large for the room there was.
            self.board.inner.work.notify_one();
        }
        drop(state);
        self.board.inner.changes.send_modify(|count| *count += 1);
    }
}

/// The job that a suspicion makes; `None` when the object has no such shard.
pub(super) fn job_of(map: &ClusterMap, record: &ObjectRecord, suspect: &Suspect, priority: u8) -> Option<Job> {
    let extent = record.extent(suspect.shard.extent_id())?;
    extent.homes.get(suspect.shard.shard.as_usize())?;
    let others = extent.homes.iter().enumerate().filter(|(index, home)| {
        *index != suspect.shard.shard.as_usize() && home.at.is_some_and(|disk| map.readable(disk))
    });
    let spare = others.count().saturating_sub(usize::from(record.coding.k));
    let layout =
        crate::codec::Layout { extent_bytes: extent.len_bytes, coding: record.coding, block_bytes: record.block_bytes };
    Some(Job {
        bucket: suspect.bucket.clone(),
        key: suspect.key.clone(),
        shard: suspect.shard,
        disk: suspect.disk,
        spare: u8::try_from(spare).unwrap_or(u8::MAX),
        priority,
        bytes: layout.shard_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ExtentIndex, ShardIndex, Version};

    fn job(number: u8, spare: u8) -> Job {
        let shard = ShardKey { version: Version(1), extent: ExtentIndex(0), shard: ShardIndex(number) };
        let (bucket, key) = (BucketName::from("b"), "k".to_owned());
        Job { bucket, key, shard, disk: DiskId(1), spare, priority: 0, bytes: 1 }
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_only_what_could_lose_no_other_shard_is_rebuilt_and_it_ends_by_itself() {
        let board = Board::new(&resilver_host::real::host());
        assert!(!board.throttle(Some("the disks are busy")));
        board.push(job(0, 1));
        assert!(board.try_next(1).is_none());
        board.push(job(1, 0));
        assert_eq!(board.next(1).await.0.shard.shard.0, 1);
        let began = Instant::now();
        assert_eq!(board.next(1).await.0.shard.shard.0, 0);
        assert!(began.elapsed() >= THROTTLE_LASTS, "{:?}", began.elapsed());
        board.unthrottled().await;
        assert!(!board.throttle(Some("again")) && board.throttle(None), "told whether it was");
        board.unthrottled().await;
    }
}
