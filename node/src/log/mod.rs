//! The append-only log beneath Raft, and its vote. Knows bytes and indexes, nothing of Raft.
//!
//! Owns: one folder: `header`, `vote` and the segments. Format and order of syncs: docs/formats.md.
//!
//! Must never: acknowledge what a crash could take back; take damage for a torn tail (truncating at a bad record in the
//! middle loses committed entries and elects two leaders in one term); sync on drop (a crash runs `Drop`); write again
//! after a failed write or sync.
//!
//! Invariants: the header, in two copies, says where the log ends; it moves only after what it covers is synced. So
//! whatever is unreadable before that end is lost data, and whatever lies after it was never acknowledged. Checksums
//! are chained, so that the one in the header vouches for all records.
//!
//! Assumed of the disk: a write damages no byte outside its own range, and synced bytes stay.
//!
//! Reading order: [`record`], [`segment`], [`header`], [`slots`] are the format; [`recovery`] judges a folder; [`plan`]
//! and [`writer`] change it; [`state`], [`recent`] and [`reader`] answer reads; [`reread`] looks whether the disk still has it.

mod error;
mod header;
mod plan;
#[cfg(feature = "planted-bugs")]
mod planted;
mod prefix;
mod reader;
mod recent;
mod record;
mod recovery;
mod reread;
mod segment;
mod slots;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod vote;
mod writer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::{Disk, Host};
use tokio::sync::Mutex;

use crate::steps::Counter;

pub use self::error::{Damage, LogError};
pub use self::header::MAX_NOTE_BYTES;
pub(crate) use self::record::{Judge, Unfit};
pub(crate) use self::reread::Reread;
pub use self::vote::{MAX_VOTE_BYTES, VoteFile};

use self::error::Fuse;
use self::segment::MAX_SEGMENT_BYTES;
use self::state::Shared;
use self::writer::Writer;

/// Most bytes of payload in one record. A metadata command has a few KiB; 4 MiB is half a segment, so that at most half
/// of one is left unused by a record that did not fit.
pub const MAX_RECORD_BYTES: u64 = 4 << 20;
/// Smallest segment: its head and as much again.
const MIN_SEGMENT_BYTES: u64 = 2 * segment::SEGMENT_HEAD_BYTES;

/// What may be set of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Size of new segments. 8 MiB: filled in a few milliseconds, and a purge gives room back in useful pieces.
    pub segment_bytes: u64,
    /// Payloads kept in memory behind the log's end, so that replication does not read the disk. 4 MiB: some seconds of
    /// a busy cluster.
    pub cache_bytes: u64,
    /// Records whose place is kept in memory, the last segment's aside. 262,144: 3 MiB at 12 bytes each. Older segments
    /// are read again when asked for.
    pub indexed_records: usize,
    /// Whether a folder without a log is made one. No for a node that is a member: an empty folder is then a lost one.
    pub create: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 8 << 20, cache_bytes: 4 << 20, indexed_records: 1 << 18, create: true }
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log.
    pub index: u64,
    /// What is logged.
    pub payload: Bytes,
}

/// What opening the folder came upon. None of it is an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The folder held no log and was made one.
    pub created: bool,
    /// Records in the log.
    pub records: u64,
    /// Segments in the log.
    pub segments: u64,
    /// How far bytes reached behind the end: of an append that was cut short, or of records that had been truncated.
    pub torn_bytes: u64,
    /// Segment files removed because a crash had left them outside the log.
    pub strays: u64,
    /// One copy of the header was old or unreadable and was written anew from the other.
    pub healed_header: bool,
}

/// The log. Cheap to clone; reads do not wait for writes.
#[derive(Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    disk: Arc<dyn Disk>,
}

impl LogStore {
    /// Opens the log in `dir`, reading and checking all of it. A fresh folder becomes an empty log at record 0; folders
    /// above its parent are the caller's to make durable.
    ///
    /// # Errors
    /// [`LogError::Lost`] when something that was synced cannot be read back; [`LogError::TooNew`]; [`LogError::Io`].
    pub async fn open(host: &Host, dir: &Path, options: LogOptions) -> Result<(LogStore, Recovered), LogError> {
        Self::open_on(host.disk.clone(), dir, options, &Counter::default(), &mut record::unjudged).await
    }

    /// The same, counting the records that were checked, and having `judge` look at what they hold.
    pub(crate) async fn open_judged(
        host: &Host,
        dir: &Path,
        options: LogOptions,
        counter: &Counter,
        judge: &mut Judge<'_>,
    ) -> Result<(LogStore, Recovered), LogError> {
        Self::open_on(host.disk.clone(), dir, options, counter, judge).await
    }

    async fn open_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        counter: &Counter,
        judge: &mut Judge<'_>,
    ) -> Result<(LogStore, Recovered), LogError> {
        let (least, most) = (MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES);
        if !(least..=most).contains(&options.segment_bytes) {
            let value = options.segment_bytes;
            return Err(LogError::BadOption { name: "segment_bytes", value, least, most });
        }
        let recovery::Opened { slots, state, recovered } =
            recovery::open(&*disk, dir, &options, counter, judge).await?;
        tracing::info!(
            dir = %dir.display(), created = recovered.created, records = recovered.records, segments = recovered.segments,
            torn_bytes = recovered.torn_bytes, strays = recovered.strays, healed_header = recovered.healed_header,
            "log opened"
        );
        let shared = Shared::new(state);
        let writer = Writer {
            disk: disk.clone(),
            dir: dir.to_owned(),
            slots,
            shared: shared.clone(),
            segment_bytes: options.segment_bytes,
            fuse: Fuse::Sound,
        };
        Ok((LogStore { shared, writer: Arc::new(Mutex::new(writer)), disk }, recovered))
    }

    /// Index of the first record: the log is `[first, next)`.
    pub fn first(&self) -> u64 {
        self.shared.lock().header.first
    }

    /// Index that the next record gets.
    pub fn next(&self) -> u64 {
        self.shared.lock().header.next
    }

    /// What the last purge or reset left. Empty before the first.
    pub fn note(&self) -> Bytes {
        self.shared.lock().header.note.clone()
    }

    /// Appends records, whose indexes continue the log without a gap. Durable when `Ok`, and in the log from then on;
    /// all of them or none.
    ///
    /// # Errors
    /// [`LogError::Gap`] and [`LogError::TooLarge`] change nothing. After any other error, or when this future is
    /// dropped before it ends, every later change fails with [`LogError::Poisoned`].
    pub async fn append(&self, records: Vec<Record>) -> Result<(), LogError> {
        self.writer.lock().await.append(&records).await
    }

    /// The records of `range` that the log has, from the first of them on, until their payloads exceed `max_bytes`; at
    /// least one if there is any.
    ///
    /// # Errors
    /// [`LogError::Lost`] when one fails its check; [`LogError::Io`].
    pub async fn read(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<Record>, LogError> {
        reader::read(&self.shared, range, max_bytes).await
    }

    /// Reads the first segment numbered `from` or later back from the disk, as far as the header covers it, checks every record,
    /// and has `judge` look at each. `None`: there is no such segment. A log that is cut meanwhile is looked at anew: `judge` may
    /// see records twice.
    ///
    /// # Errors
    /// [`LogError::Lost`] when the disk does not have what was synced; [`LogError::Io`].
    pub(crate) async fn reread(&self, from: u64, judge: &mut Judge<'_>) -> Result<Option<Reread>, LogError> {
        reread::reread(&*self.disk, &self.shared, from, judge).await
    }

    /// Compares both copies of the header on disk with the log; one that is rotten is written anew, as at open. What was
    /// wrong with it.
    ///
    /// # Errors
    /// [`LogError::Lost`] when both are rotten; [`LogError::Io`]; [`LogError::Poisoned`] after a failed write.
    pub(crate) async fn reread_header(&self) -> Result<Option<Damage>, LogError> {
        self.writer.lock().await.reread_header().await
    }

    /// Drops the records from `from` on. Durable when `Ok`. Nothing to do when the log ends before.
    ///
    /// # Errors
    /// [`LogError::Purged`] when `from` lies before the log changes nothing; else as [`LogStore::append`].
    pub async fn truncate(&self, from: u64) -> Result<(), LogError> {
        self.writer.lock().await.truncate(from).await
    }

    /// Drops the records up to and including `through` and keeps `note`. Durable when `Ok`. A log that ends before goes
    /// on, empty, behind `through`. An older purge than the last changes nothing.
    ///
    /// # Errors
    /// [`LogError::TooLarge`] of the note changes nothing; else as [`LogStore::append`].
    pub async fn purge(&self, through: u64, note: Bytes) -> Result<(), LogError> {
        self.writer.lock().await.purge(through, note).await
    }

    /// Drops all records, keeps `note`, and goes on at `next`: after a snapshot took their place. Durable when `Ok`.
    ///
    /// # Errors
    /// As [`LogStore::purge`].
    pub async fn reset(&self, next: u64, note: Bytes) -> Result<(), LogError> {
        self.writer.lock().await.reset(next, note).await
    }
}
