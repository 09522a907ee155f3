//! Reading the journal while it is being written, and checking it from outside.
//!
//! Invariants: the index holds one mark per 64 lines, so that a page is found without reading a whole segment and the
//! agent's memory does not grow with its journal.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use resilver_host::{Host, OpenMode};
use resilver_strategies::chain::{Broken, Tip};

use super::segment::{self, Lines};
use super::{JournalError, io_error};

/// Lines between two marks of the index: a page begins with at most this many lines read in vain.
const LINES_PER_MARK: u64 = 64;

/// The longest page: what a request can make us hold.
pub const MAX_PAGE: usize = 1000;

/// Where lines lie.
#[derive(Default)]
pub(super) struct Index(Mutex<Vec<Entry>>);

struct Entry {
    path: PathBuf,
    /// (sequence, offset), rising.
    marks: Vec<(u64, u64)>,
    /// Where the indexed lines end.
    len_bytes: u64,
    last: u64,
}

impl Index {
    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new segment.
    pub(super) fn begin(&self, path: PathBuf) {
        let mut entries = self.entries();
        if entries.last().is_none_or(|entry| entry.path != path) {
            entries.push(Entry { path, marks: Vec::new(), len_bytes: 0, last: 0 });
        }
    }

    /// One line.
    pub(super) fn add(&self, path: &Path, sequence: u64, offset: u64, len_bytes: u64) {
        let mut entries = self.entries();
        let Some(entry) = entries.last_mut().filter(|entry| entry.path == path) else { return };
        if entry.marks.last().is_none_or(|(marked, _)| sequence >= marked + LINES_PER_MARK) {
            entry.marks.push((sequence, offset));
        }
        entry.len_bytes = offset + len_bytes;
        entry.last = sequence;
    }

    /// Several whole lines that were written at `offset`, the first of them numbered `sequence`.
    pub(super) fn extend(&self, path: &Path, mut sequence: u64, mut offset: u64, text: &[u8]) {
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            self.add(path, sequence, offset, line.len() as u64);
            sequence += 1;
            offset += line.len() as u64;
        }
    }

    /// The oldest segment, when there are more than `keep`.
    pub(super) fn pop_beyond(&self, keep: usize) -> Option<PathBuf> {
        let mut entries = self.entries();
        (entries.len() > keep).then(|| entries.remove(0).path)
    }

    /// Where to begin reading for the line after `after`: segments with the offset of the nearest mark.
    fn from(&self, after: u64) -> Vec<(PathBuf, u64, u64)> {
        let entries = self.entries();
        let wanted = entries.iter().filter(|entry| !entry.marks.is_empty() && entry.last > after);
        let mark = |entry: &Entry| entry.marks.iter().rev().find(|(marked, _)| *marked <= after + 1).map(|mark| mark.1);
        wanted.map(|entry| (entry.path.clone(), mark(entry).unwrap_or(0), entry.len_bytes)).collect()
    }
}

/// Reads pages of the journal. Cheap to clone.
#[derive(Clone)]
pub struct JournalReader {
    host: Host,
    index: Arc<Index>,
}

impl JournalReader {
    pub(super) fn new(host: &Host, index: Arc<Index>) -> JournalReader {
        JournalReader { host: host.clone(), index }
    }

    /// Up to `limit` lines after the sequence `after`, as they are stored, oldest first. Lines that do not hold are left
    /// out: [`verify`] names them.
    ///
    /// # Errors
    /// Of the file system.
    pub async fn page(&self, after: u64, limit: usize) -> Result<Vec<String>, JournalError> {
        let mut page = Vec::new();
        let limit = limit.min(MAX_PAGE);
        for (path, offset, len_bytes) in self.index.from(after) {
            let opened = self.host.disk.open(&path, OpenMode::Read).await;
            let mut lines = Lines::from(opened.map_err(io_error("open the journal's segment", &path))?, offset);
            while page.len() < limit {
                let next = lines.next().await.map_err(io_error("read the journal's segment", &path))?;
                let Some((at, text)) = next.filter(|(at, _)| *at < len_bytes) else { break };
                debug_assert!(at >= offset);
                let Ok(text) = String::from_utf8(text) else { continue };
                if sequence_of(&text).is_some_and(|sequence| sequence > after) {
                    page.push(text);
                }
            }
        }
        Ok(page)
    }
}

/// The sequence of a stored line, without checking it.
pub(crate) fn sequence_of(text: &str) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        sequence: u64,
    }
    serde_json::from_str::<Numbered>(text).ok().map(|numbered| numbered.sequence)
}

/// What a check of a whole journal found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Lines read.
    pub records: u64,
    /// Sequence of the first kept.
    pub first: Option<u64>,
    /// Sequence of the last.
    pub last: Option<u64>,
    /// Bytes of a line without its end, at the very end: being written, or torn by a crash.
    pub torn_bytes: u64,
}

/// Checks the whole journal in `dir`, reading only. Works beside a running agent.
///
/// # Errors
/// [`JournalError::Broken`] at the first line that does not hold.
pub async fn verify(host: &Host, dir: &Path) -> Result<Verified, JournalError> {
    let mut verified = Verified { records: 0, first: None, last: None, torn_bytes: 0 };
    let mut tip = Tip::default();
    for path in segment::list(host, dir).await? {
        if verified.torn_bytes > 0 {
            let why = format!("{} bytes before this segment are no whole line", verified.torn_bytes);
            return Err(JournalError::Broken { path, broken: Broken { line: 1, sequence: None, why } });
        }
        let opened = host.disk.open(&path, OpenMode::Read).await;
        let mut lines = Lines::new(opened.map_err(io_error("open the journal's segment", &path))?);
        let mut number = 0;
        while let Some((_, text)) = lines.next().await.map_err(io_error("read the journal's segment", &path))? {
            number += 1;
            let line = segment::check(number, &text, &tip)
                .map_err(|broken| JournalError::Broken { path: path.clone(), broken })?;
            tip = line.tip();
            verified.records += 1;
            verified.first.get_or_insert(line.sequence);
            verified.last = Some(line.sequence);
        }
        verified.torn_bytes = lines.rest_bytes();
    }
    Ok(verified)
}
