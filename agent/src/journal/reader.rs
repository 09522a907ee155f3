//! Reading the journal while it is being written, and checking it from outside.
//!
//! Invariants: the index holds one mark per 64 lines, so that a page is found without reading a whole segment and the
//! agent's memory does not grow with its journal. A mark names the incidents of its lines, four bytes each: an incident's
//! number says nothing of where its lines are (numbers are shared with what is never written down, an incident lasts, and one
//! of another host comes with the number that its first agent gave it).

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
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

/// Records of one incident that are given at once, at some 600 bytes each. One that a person leaves open for weeks has more.
pub const MAX_OF_INCIDENT: usize = 2000;

/// How many of them are those with which it began; the others are the newest.
const FIRST_OF_INCIDENT: usize = 500;

/// Where lines lie.
#[derive(Default)]
pub(super) struct Index(Mutex<Vec<Entry>>);

struct Entry {
    path: PathBuf,
    /// Rising.
    marks: Vec<Mark>,
    /// Where the indexed lines end.
    len_bytes: u64,
    last: u64,
}

/// A line, and what the lines from it to the next mark are about.
struct Mark {
    sequence: u64,
    offset: u64,
    /// Which incidents: their hashes, each once.
    incidents: Vec<u32>,
}

impl Entry {
    /// The bytes of the lines that may be about an incident with this hash: what lies side by side, in one piece.
    fn about(&self, incident: u32) -> Vec<Range<u64>> {
        let ends = self.marks.iter().skip(1).map(|mark| mark.offset).chain([self.len_bytes]);
        let mut about: Vec<Range<u64>> = Vec::new();
        for (mark, end) in self.marks.iter().zip(ends).filter(|(mark, _)| mark.incidents.contains(&incident)) {
            match about.last_mut() {
                Some(last) if last.end == mark.offset => last.end = end,
                _ => about.push(mark.offset..end),
            }
        }
        about
    }
}

/// An incident in the index. Two that share a hash cost a look at lines in vain, no more.
fn short(incident: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    incident.hash(&mut hasher);
    // The lower half is as good a hash as the whole.
    hasher.finish() as u32
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

    /// One line: its number, where it lies, and which incident it is about.
    pub(super) fn add(&self, path: &Path, sequence: u64, bytes: Range<u64>, incident: Option<&str>) {
        let mut entries = self.entries();
        let Some(entry) = entries.last_mut().filter(|entry| entry.path == path) else { return };
        if entry.marks.last().is_none_or(|mark| sequence >= mark.sequence + LINES_PER_MARK) {
            entry.marks.push(Mark { sequence, offset: bytes.start, incidents: Vec::new() });
        }
        entry.len_bytes = bytes.end;
        entry.last = sequence;
        if let (Some(incident), Some(mark)) = (incident.map(short), entry.marks.last_mut())
            && !mark.incidents.contains(&incident)
        {
            mark.incidents.push(incident);
        }
    }

    /// Several whole lines that were written at `offset`, the first of them numbered `sequence`.
    pub(super) fn extend(&self, path: &Path, mut sequence: u64, mut offset: u64, text: &[u8]) {
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let end = offset + line.len() as u64;
            self.add(path, sequence, offset..end, incident_of(line).as_deref());
            sequence += 1;
            offset = end;
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
        let mark =
            |entry: &Entry| entry.marks.iter().rev().find(|mark| mark.sequence <= after + 1).map(|mark| mark.offset);
        wanted.map(|entry| (entry.path.clone(), mark(entry).unwrap_or(0), entry.len_bytes)).collect()
    }

    /// Where lines about an incident may lie, oldest first.
    fn about(&self, incident: &str) -> Vec<(PathBuf, Vec<Range<u64>>)> {
        let hash = short(incident);
        let entries = self.entries();
        entries
            .iter()
            .map(|entry| (entry.path.clone(), entry.about(hash)))
            .filter(|(_, found)| !found.is_empty())
            .collect()
    }
}

/// The records of one incident.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OfIncident {
    /// As they are stored, oldest first: all of them, or the first and the newest.
    pub records: Vec<String>,
    /// Those between the first and the newest that are not among them.
    pub left_out: Option<LeftOut>,
}

/// Records that are not shown, because there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// They come after this sequence.
    pub after: u64,
}

/// Collects an incident's records within the limits.
#[derive(Default)]
struct Collected {
    first: Vec<String>,
    newest: VecDeque<String>,
    left_out: u64,
}

impl Collected {
    fn push(&mut self, text: String) {
        if self.first.len() < FIRST_OF_INCIDENT {
            return self.first.push(text);
        }
        if self.newest.len() >= MAX_OF_INCIDENT - FIRST_OF_INCIDENT {
            self.newest.pop_front();
            self.left_out += 1;
        }
        self.newest.push_back(text);
    }

    fn finish(self) -> OfIncident {
        let after = self.first.last().and_then(|text| sequence_of(text)).unwrap_or(0);
        let left_out = (self.left_out > 0).then_some(LeftOut { count: self.left_out, after });
        OfIncident { records: self.first.into_iter().chain(self.newest).collect(), left_out }
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

    /// The records of an incident. Only the parts of the journal are read in which it is named.
    ///
    /// # Errors
    /// Of the file system.
    pub async fn of_incident(&self, incident: &str) -> Result<OfIncident, JournalError> {
        let mut found = Collected::default();
        for (path, parts) in self.index.about(incident) {
            let file = match self.host.disk.open(&path, OpenMode::Read).await {
                Ok(file) => file,
                // The oldest segment went while its turn came.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io_error("open the journal's segment", &path)(error)),
            };
            for part in parts {
                let mut lines = Lines::from(file.clone(), part.start);
                loop {
                    let next = lines.next().await.map_err(io_error("read the journal's segment", &path))?;
                    let Some((_, text)) = next.filter(|(at, _)| *at < part.end) else { break };
                    if incident_of(&text).as_deref() == Some(incident)
                        && let Ok(text) = String::from_utf8(text)
                    {
                        found.push(text);
                    }
                }
            }
        }
        Ok(found.finish())
    }
}

/// The incident that a stored line is about, without checking the line.
fn incident_of(line: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        incident: Option<String>,
    }
    // Most lines name none, and looking for the word is far cheaper than reading the line.
    const NAME: &[u8] = b"\"incident\":";
    line.windows(NAME.len()).any(|window| window == NAME).then(|| serde_json::from_slice::<Named>(line).ok())??.incident
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
