//! One file of the journal: its name, its reserved room, its lines.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use resilver_host::{File, FileKind, Host, OpenMode};
use resilver_strategies::chain::{Broken, Line, Tip};

use super::reader::Index;
use super::{JournalError, io_error};

/// Room of one segment. Large enough that rotating is rare, small enough to reserve two on any disk.
pub(super) const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// How much of a segment is held in memory while it is read.
const CHUNK_BYTES: usize = 64 * 1024;

/// The longest line that is believed to be one: records are bounded well below.
pub(super) const MAX_LINE_BYTES: usize = 256 * 1024;

/// The segment that comes next, with its room reserved already.
const SPARE: &str = "spare";

/// What a segment held when it was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Length after the torn tail was cut.
    pub(super) len_bytes: u64,
    /// How much was cut.
    pub(super) torn_bytes: u64,
    /// The first line that does not hold.
    pub(super) broken: Option<Broken>,
    /// How many lines do not hold.
    pub(super) unreadable: u64,
}

/// A segment is named by the sequence of its first line, so that names sort as lines do.
pub(super) fn name(first_sequence: u64) -> String {
    format!("{first_sequence:020}.jsonl")
}

/// The segments of a journal, oldest first.
pub(super) async fn list(host: &Host, dir: &Path) -> Result<Vec<PathBuf>, JournalError> {
    let entries = host.disk.list(dir).await.map_err(io_error("list the journal's folder", dir))?;
    let is_segment = |name: &str| name.strip_suffix(".jsonl").is_some_and(|stem| stem.parse::<u64>().is_ok());
    let segments = entries.into_iter().filter(|entry| entry.kind == FileKind::File && is_segment(&entry.name));
    Ok(segments.map(|entry| dir.join(entry.name)).collect())
}

/// Makes the segment `path`, from the spare when there is one, and then tries to reserve the next spare.
pub(super) async fn create(host: &Host, dir: &Path, path: &Path) -> Result<Arc<dyn File>, JournalError> {
    let spare = dir.join(SPARE);
    match host.disk.rename(&spare, path).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error("take the spare segment as", path)(error)),
    }
    let file = host.disk.open(path, OpenMode::Create).await.map_err(io_error("make the journal's segment", path))?;
    reserve(&file, path).await;
    host.disk.sync_dir(dir).await.map_err(io_error("sync the journal's folder", dir))?;
    match host.disk.open(&spare, OpenMode::Create).await {
        Ok(file) => reserve(&file, &spare).await,
        Err(error) => tracing::warn!(%error, "the journal's next segment could not be reserved"),
    }
    Ok(file)
}

/// Opens the last segment for writing on.
pub(super) async fn reopen(host: &Host, path: &Path) -> Result<Arc<dyn File>, JournalError> {
    let file = host.disk.open(path, OpenMode::Write).await.map_err(io_error("open the journal's segment", path))?;
    // A cut tail gave its room back.
    reserve(&file, path).await;
    Ok(file)
}

/// The last bytes of a segment that is `len_bytes` long: at most so many.
pub(super) async fn end(file: &Arc<dyn File>, len_bytes: u64, at_most: usize) -> io::Result<Vec<u8>> {
    let from = len_bytes.saturating_sub(at_most as u64);
    let mut end = Vec::new();
    while from + (end.len() as u64) < len_bytes {
        let left = usize::try_from(len_bytes - from).unwrap_or(at_most) - end.len();
        let more = file.read_at(from + end.len() as u64, left).await?;
        if more.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        end.extend_from_slice(&more);
    }
    Ok(end)
}

async fn reserve(file: &Arc<dyn File>, path: &Path) {
    // Without the room the journal still works until the disk is full; that is worth a word, no more.
    if let Err(error) = file.allocate(SEGMENT_BYTES, false).await {
        tracing::warn!(%error, segment = %path.display(), "no room could be reserved for the journal");
    }
}

/// Reads a segment: every line that holds goes to `replay` and into the index, `tip` follows. In the last segment
/// (`may_be_torn`) bytes behind the last line end, or behind a hole, were being written when the host stopped: they are
/// cut. The caller may hand in a tip of an older segment; the chain is checked across.
pub(super) async fn scan(
    host: &Host,
    path: &Path,
    may_be_torn: bool,
    tip: &mut Tip,
    index: &Index,
    replay: &mut impl FnMut(Line),
) -> Result<Found, JournalError> {
    let mode = if may_be_torn { OpenMode::Write } else { OpenMode::Read };
    let file = host.disk.open(path, mode).await.map_err(io_error("open the journal's segment", path))?;
    index.begin(path.to_owned());
    let mut found = Found::default();
    let mut lines = Lines::new(file.clone());
    let mut number = 0;
    let mut never_written = None;
    while let Some((offset, text)) = lines.next().await.map_err(io_error("read the journal's segment", path))? {
        number += 1;
        let line = match parse(number, &text) {
            Ok(line) => line,
            Err(_) if may_be_torn && has_hole(&text) => {
                never_written = Some(offset);
                break;
            }
            Err(broken) => {
                found.unreadable += 1;
                found.broken.get_or_insert(broken);
                continue;
            }
        };
        // A line whose own hash holds is believed even where the one before it is gone: the agent must know what it
        // was doing. The gap is told.
        if let Err(broken) = follows(number, &line, tip) {
            found.broken.get_or_insert(broken);
        }
        *tip = line.tip();
        let incident = line.draft.incident.as_ref().map(|incident| incident.0.as_str());
        index.add(path, line.sequence, offset..offset + text.len() as u64 + 1, incident);
        replay(line);
    }
    found.len_bytes = never_written.unwrap_or_else(|| lines.complete_bytes());
    let len = file.len().await.map_err(io_error("measure the journal's segment", path))?;
    let torn = if never_written.is_some() { len.saturating_sub(found.len_bytes) } else { lines.rest_bytes() };
    if torn > 0 && may_be_torn {
        file.set_len(found.len_bytes).await.map_err(io_error("cut the torn line of", path))?;
        file.sync().await.map_err(io_error("sync the journal's segment", path))?;
        found.torn_bytes = torn;
    }
    Ok(found)
}

/// Whether part of a line was never written: the room of a segment is reserved as zeros, and text has none. A disk that
/// loses power may keep the end of what was not synced and lose its middle; nothing synced comes after such a hole. Two
/// zeros, because one flipped bit can make one of a space.
fn has_hole(text: &[u8]) -> bool {
    text.windows(2).any(|pair| pair == [0, 0])
}

/// A line by itself.
fn parse(number: u64, text: &[u8]) -> Result<Line, Broken> {
    let broken = |why: String| Broken { line: number, sequence: None, why };
    let text = std::str::from_utf8(text).map_err(|error| broken(format!("no text: {error}")))?;
    Line::parse(text).map_err(broken)
}

/// Whether it is chained to `tip`. The first line that is kept may follow anything: what was before it is gone.
fn follows(number: u64, line: &Line, tip: &Tip) -> Result<(), Broken> {
    if *tip == Tip::default() && line.sequence != 1 || line.sequence == tip.next_sequence && line.prev == tip.hash {
        return Ok(());
    }
    let why = match line.sequence == tip.next_sequence {
        true => format!("it follows {}, but the line before is {}", line.prev, tip.hash),
        false => format!("sequence {} expected, {} found: lines are missing", tip.next_sequence, line.sequence),
    };
    Err(Broken { line: number, sequence: Some(line.sequence), why })
}

/// The line `text`, chained to `tip`.
pub(super) fn check(number: u64, text: &[u8], tip: &Tip) -> Result<Line, Broken> {
    let line = parse(number, text)?;
    follows(number, &line, tip)?;
    Ok(line)
}

/// The lines of a file, read in chunks.
pub(super) struct Lines {
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    /// Offset in the file of the buffer's first byte.
    base: u64,
    /// How much of the buffer was handed out.
    taken: usize,
}

impl Lines {
    pub(super) fn new(file: Arc<dyn File>) -> Lines {
        Lines::from(file, 0)
    }

    pub(super) fn from(file: Arc<dyn File>, offset: u64) -> Lines {
        Lines { file, buffer: Vec::new(), base: offset, taken: 0 }
    }

    /// The next whole line and where it begins; `None` at the end, or where something too long to be a line begins.
    pub(super) async fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        let mut searched = self.taken;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let (begin, end) = (self.taken, searched + at);
                self.taken = end + 1;
                return Ok(Some((self.base + begin as u64, self.buffer[begin..end].to_vec())));
            }
            self.buffer.drain(..self.taken);
            self.base += self.taken as u64;
            self.taken = 0;
            searched = self.buffer.len();
            if searched > MAX_LINE_BYTES {
                return Ok(None);
            }
            let more = self.file.read_at(self.base + searched as u64, CHUNK_BYTES).await?;
            if more.is_empty() {
                return Ok(None);
            }
            self.buffer.extend_from_slice(&more);
        }
    }

    /// Where the last whole line ended.
    fn complete_bytes(&self) -> u64 {
        self.base + self.taken as u64
    }

    /// What follows it, as far as it was read.
    pub(super) fn rest_bytes(&self) -> u64 {
        (self.buffer.len() - self.taken) as u64
    }
}
