//! The journal: one JSON line per decision and per step, chained by hashes, in preallocated segments.
//!
//! Owns: the files of `journal/`: their names, rotation, the torn last line after a crash.
//!
//! Must never: rewrite or drop a line that was once written, or hold a decision.
//!
//! Invariants: a durable line is synced before [`Journal::flush`] returns; a segment's room is reserved before its
//! first line (and the next segment's while there is still room), so that a full disk cannot block the cure; the visible
//! length is what was written, so each file is plain JSON lines. A flush may be dropped half way: the lines stay
//! pending and are written again at the same place. What no sync has answered for is kept in memory, and no segment is
//! left before all of it is durable (`unsynced`).

mod reader;
mod segment;
mod unsynced;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::audit::{self, Fact};
use resilver_host::disk::create_dir_durably;
use resilver_host::{File, Host};
use resilver_strategies::chain::{Line, Tip, seal};
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::Action;
use resilver_strategies::when::When;

pub(crate) use reader::sequence_of;
pub use reader::{JournalReader, LeftOut, MAX_OF_INCIDENT, MAX_PAGE, OfIncident, Verified, verify};

use self::reader::Index;
use self::segment::{Found, MAX_LINE_BYTES, SEGMENT_BYTES};
use self::unsynced::Unsynced;

/// Lines that wait because the disk does not take them. Beyond it new ones are counted and dropped, unsealed, so that
/// the chain stays whole: a thousand records hold hours of an agent that may only relieve.
const MAX_PENDING_BYTES: usize = 1024 * 1024;

/// Lines that are written and not known to be durable. They are kept in memory until a sync has answered for them; before
/// more than this are written, those before them are synced. All that can wait fits, its last line included. An agent that
/// begins knows by it how much of what it reads may lie in the page cache only.
const MAX_UNSYNCED_BYTES: usize = MAX_PENDING_BYTES + MAX_LINE_BYTES;

/// The most that is kept by default: eight segments of 8 MiB and the one in reserve. At some 600 bytes a line they hold the last
/// 100,000 decisions.
pub const DEFAULT_BYTES: u64 = 9 * SEGMENT_BYTES;

/// The least that is asked for: a segment that is written, one that is whole, one in reserve.
pub const MIN_BYTES: u64 = 3 * SEGMENT_BYTES;

/// Why the journal could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system said no.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The chain does not hold.
    #[error("{}: {broken}", path.display())]
    Broken {
        /// In which segment.
        path: PathBuf,
        /// Where and why.
        broken: resilver_strategies::chain::Broken,
    },
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { what, path, source }
}

/// The writing end. There is one, in the main loop.
pub struct Journal {
    host: Host,
    dir: PathBuf,
    current: Option<Current>,
    tip: Tip,
    pending: Vec<u8>,
    /// Sequence of the first pending line.
    pending_first: u64,
    dropped: u64,
    /// Segments kept.
    max_segments: usize,
    index: Arc<Index>,
}

struct Current {
    path: PathBuf,
    file: Arc<dyn File>,
    written_bytes: u64,
    /// The end of what is written.
    unsynced: Unsynced,
}

impl Journal {
    /// Opens the journal in `dir`: cuts a torn last line, checks the chain, hands every line to `replay` in order. What
    /// was found wrong becomes the first new records.
    ///
    /// # Errors
    /// Of the file system. Damaged lines are no error: the agent is needed most on a day when disks fail.
    pub async fn open(host: &Host, dir: &Path, replay: impl FnMut(Line)) -> Result<Journal, JournalError> {
        Journal::open_within(host, dir, DEFAULT_BYTES, replay).await
    }

    /// As [`Journal::open`], and keeps within so many bytes, [`MIN_BYTES`] at least.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub async fn open_within(
        host: &Host,
        dir: &Path,
        max_bytes: u64,
        mut replay: impl FnMut(Line),
    ) -> Result<Journal, JournalError> {
        create_dir_durably(&*host.disk, dir).await.map_err(io_error("make the folder", dir))?;
        let index = Arc::new(Index::default());
        let mut tip = Tip::default();
        let mut notes = Vec::new();
        let mut last = None;
        let mut broken = false;
        let segments = segment::list(host, dir).await?;
        for (position, path) in segments.iter().enumerate() {
            let may_be_torn = position + 1 == segments.len();
            let found = segment::scan(host, path, may_be_torn, &mut tip, &index, &mut replay).await?;
            notes.extend(notes_of(path, &found));
            broken |= found.broken.is_some();
            last = Some((path.clone(), found.len_bytes));
        }
        let current = match last {
            Some((path, written_bytes)) => {
                let file = segment::reopen(host, &path).await?;
                // A sync may have failed in the agent's life before: the page cache shows what the disk does not have, and
                // no later sync would tell. So its end is written once more with the first sync.
                let end = segment::end(&file, written_bytes, MAX_UNSYNCED_BYTES).await;
                let unsynced = Unsynced::in_doubt(end.map_err(io_error("read the journal's segment", &path))?);
                Some(Current { path, file, written_bytes, unsynced })
            }
            None => None,
        };
        let tip_sequence = tip.next_sequence;
        audit::state(|| Fact::JournalOpened { next_sequence: tip_sequence, hash: tip.hash.clone(), broken });
        let mut journal = Journal {
            host: host.clone(),
            dir: dir.to_owned(),
            current,
            tip,
            pending: Vec::new(),
            pending_first: tip_sequence,
            dropped: 0,
            // One more lies in reserve.
            max_segments: usize::try_from(max_bytes.max(MIN_BYTES) / SEGMENT_BYTES - 1).unwrap_or(usize::MAX),
            index,
        };
        journal.make_room().await?;
        for note in notes {
            journal.append(host.clock.now().as_millis(), note);
        }
        // Durable with the first line that has to be: a disk that does not sync must not keep the agent from starting.
        if let Err(error) = journal.flush(false).await {
            tracing::warn!(%error, operation = "journal", "what was found while the journal was read is written later");
        }
        Ok(journal)
    }

    /// The sequence that the next line gets.
    pub fn next_sequence(&self) -> u64 {
        self.tip.next_sequence
    }

    /// Lines that could not be kept since the last successful flush.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The reading end: any number of them.
    pub fn reader(&self) -> JournalReader {
        JournalReader::new(&self.host, self.index.clone())
    }

    /// Seals a draft as the next line. It is in memory only until [`Journal::flush`]. `None` when there is no more room
    /// for waiting lines.
    pub fn append(&mut self, when: impl Into<When>, draft: Draft) -> Option<Line> {
        if self.pending.len() > MAX_PENDING_BYTES {
            self.dropped += 1;
            return None;
        }
        let line = seal(&self.tip, when, draft);
        self.tip = line.tip();
        audit::state(|| Fact::JournalLine { line: line.to_text() });
        if self.pending.is_empty() {
            self.pending_first = line.sequence;
        }
        self.pending.extend_from_slice(line.to_text().as_bytes());
        self.pending.push(b'\n');
        Some(line)
    }

    /// Writes what is pending; with `durable` it is synced when this returns. May be dropped and called again.
    ///
    /// # Errors
    /// Of the file system; the lines stay pending, or are kept until a sync answers for them.
    pub async fn flush(&mut self, durable: bool) -> Result<(), JournalError> {
        if !self.pending.is_empty() {
            let unsynced = self.current.as_ref().map_or(0, |current| current.unsynced.len());
            if unsynced + self.pending.len() > MAX_UNSYNCED_BYTES {
                self.sync().await?;
            }
            self.make_room().await?;
            let Some(current) = &mut self.current else { unreachable!("make_room leaves a segment or an error") };
            let data = Bytes::copy_from_slice(&self.pending);
            let written = current.file.write_at(current.written_bytes, data).await;
            written.map_err(io_error("write to the journal", &current.path))?;
            self.index.extend(&current.path, self.pending_first, current.written_bytes, &self.pending);
            current.written_bytes += self.pending.len() as u64;
            current.unsynced.wrote(&self.pending);
            self.pending.clear();
            self.note_dropped();
        }
        if durable { self.sync().await } else { Ok(()) }
    }

    /// Makes durable what is written.
    async fn sync(&mut self) -> Result<(), JournalError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let synced = current.unsynced.sync(&current.file, current.written_bytes).await;
        if synced.map_err(io_error("sync the journal", &current.path))? {
            // What waits may have been added since: the gap that is told.
            let next = if self.pending.is_empty() { self.tip.next_sequence } else { self.pending_first };
            audit::state(|| Fact::JournalDurable { through: next - 1 });
        }
        Ok(())
    }

    /// A gap is told as soon as there is room to tell it.
    fn note_dropped(&mut self) {
        if self.dropped == 0 {
            return;
        }
        let evidence = format!("{} records were not kept while the journal could not be written", self.dropped);
        self.dropped = 0;
        let now = self.host.clock.now().as_millis();
        self.append(now, Draft::new(RecordKind::Note, Action::Skip).with("evidence", evidence));
    }

    /// A segment with room for what is pending.
    async fn make_room(&mut self) -> Result<(), JournalError> {
        if let Some(current) = &self.current {
            let fits = current.written_bytes + self.pending.len() as u64 <= SEGMENT_BYTES;
            if fits || current.written_bytes == 0 {
                return Ok(());
            }
            self.sync().await?;
        }
        let path = self.dir.join(segment::name(self.pending_first));
        let file = segment::create(&self.host, &self.dir, &path).await?;
        self.current = Some(Current { path: path.clone(), file, written_bytes: 0, unsynced: Unsynced::default() });
        self.index.begin(path);
        self.forget_oldest().await;
        Ok(())
    }

    async fn forget_oldest(&mut self) {
        while let Some(path) = self.index.pop_beyond(self.max_segments) {
            // It only takes room; the next start tries again.
            if let Err(error) = self.host.disk.remove_file(&path).await {
                tracing::warn!(%error, segment = %path.display(), "an old segment of the journal was not removed");
            }
        }
    }
}

fn notes_of(path: &Path, found: &Found) -> Vec<Draft> {
    let note = |what: String| Draft::new(RecordKind::Note, Action::Skip).with("evidence", what);
    let mut notes = Vec::new();
    if found.torn_bytes > 0 {
        let what = format!("an incomplete last line of {} bytes was cut from {}", found.torn_bytes, path.display());
        tracing::warn!(torn_bytes = found.torn_bytes, segment = %path.display(), "the journal's last line was torn");
        notes.push(note(what));
    }
    if let Some(broken) = &found.broken {
        tracing::error!(%broken, segment = %path.display(), "the journal's chain does not hold");
        notes.push(note(format!("{}: {broken}; {} lines unreadable", path.display(), found.unreadable)));
    }
    notes
}
