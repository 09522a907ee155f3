//! Reads a recording back and replays it: a folder of segments, an agent's folder, or one segment.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use resilver_host::{FileKind, Host, OpenMode};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::flight::{Player, Replay, ReplayError, Report};

use super::writer::number_of;

/// The largest segment that is read at once: the agent makes them of 4 MiB and a checkpoint.
const MAX_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The longest line that is believed to be one: a checkpoint of an engine that is full to its bounds.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum FlightError {
    /// The file system said no.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no segment.
    #[error("{} holds no recording: a segment (NUMBER.jsonl.gz), or the `flight` folder of an agent is expected", path.display())]
    Nothing {
        /// Where.
        path: PathBuf,
    },
    /// A checkpoint is none of this version's.
    #[error("the recording cannot be replayed by this version")]
    Replay(#[from] ReplayError),
    /// Nothing of it could be read.
    #[error("nothing of the recording could be read: {0}")]
    Unreadable(String),
}

/// Replays a recording, by the policy it was decided by or (`Some`) by another.
///
/// # Errors
/// When there is nothing to replay. Damage within is no error: the report's notes tell it.
pub async fn replay(host: &Host, path: &Path, policy: Option<PolicyConfig>) -> Result<Report, FlightError> {
    let mut replay = Replay::new(policy);
    let mut before = None;
    for segment in segments(host, path).await? {
        let number = segment.file_name().and_then(|name| number_of(&name.to_string_lossy()));
        if let (Some(before), Some(number)) = (before, number)
            && number > before + 1
        {
            replay.gap(format!("segments {} to {} are missing", before + 1, number - 1));
        }
        before = number.or(before);
        let data = read(host, &segment).await?;
        let name = segment.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Err(why) = play(&mut replay, &data)? {
            replay.gap(format!("{name}: {why}"));
        }
    }
    let report = replay.finish();
    match report.inputs {
        0 => Err(FlightError::Unreadable(report.notes.join("; "))),
        _ => Ok(report),
    }
}

/// Plays one segment as far as it can be read; the inner error says where it ends early.
fn play(replay: &mut Replay, data: &[u8]) -> Result<Result<(), String>, FlightError> {
    let mut lines = Lines(BufReader::new(MultiGzDecoder::new(data)));
    let head = match lines.next() {
        Ok(Some(line)) => Player::head(&line).map_err(|error| format!("its head cannot be read: {error}")),
        Ok(None) => return Ok(Ok(())),
        Err(why) => Err(format!("its head cannot be read: {why}")),
    };
    match head {
        Ok(head) => replay.head(head)?,
        Err(why) => return Ok(Err(why)),
    }
    let mut player = Player::default();
    let mut count = 0u64;
    loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(Ok(())),
            Err(why) => return Ok(Err(format!("it ends early, after {count} inputs: {why}"))),
        };
        match player.event(&line) {
            Ok(event) => replay.event(event),
            Err(error) => return Ok(Err(format!("it is damaged after {count} inputs: {error}"))),
        }
        count += 1;
    }
}

struct Lines<R>(BufReader<R>);

impl<R: Read> Lines<R> {
    fn next(&mut self) -> Result<Option<String>, String> {
        let mut line = Vec::new();
        let read = (&mut self.0).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        match read {
            Ok(0) => Ok(None),
            Ok(_) if line.ends_with(b"\n") => {
                line.pop();
                String::from_utf8(line).map(Some).map_err(|_| "no text".to_owned())
            }
            Ok(_) => Err("its last line is not whole".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn segments(host: &Host, path: &Path) -> Result<Vec<PathBuf>, FlightError> {
    let io = |source| FlightError::Io { path: path.to_owned(), source };
    if host.disk.metadata(path).await.map_err(io)?.kind == FileKind::File {
        return Ok(vec![path.to_owned()]);
    }
    let inner = path.join("flight");
    let dir = if host.disk.metadata(&inner).await.is_ok() { inner } else { path.to_owned() };
    let entries = host.disk.list(&dir).await.map_err(io)?;
    // Numbers have leading zeros: names sort as segments do.
    let found = entries.into_iter().filter(|entry| entry.kind == FileKind::File && number_of(&entry.name).is_some());
    let segments: Vec<PathBuf> = found.map(|entry| dir.join(entry.name)).collect();
    if segments.is_empty() { Err(FlightError::Nothing { path: path.to_owned() }) } else { Ok(segments) }
}

async fn read(host: &Host, path: &Path) -> Result<Vec<u8>, FlightError> {
    let io = |source| FlightError::Io { path: path.to_owned(), source };
    let file = host.disk.open(path, OpenMode::Read).await.map_err(io)?;
    let len = file.len().await.map_err(io)?.min(MAX_SEGMENT_BYTES);
    let data = file.read_at(0, usize::try_from(len).unwrap_or(usize::MAX)).await.map_err(io)?;
    Ok(data.to_vec())
}
