//! Opening the log's folder: what is there, what it means, and which of it counts.
//!
//! | found | verdict |
//! |---|---|
//! | no header, no segment, no vote or one never written | a fresh folder (or one whose making was cut short): made |
//! | no header, but a segment or a vote | lost |
//! | a header without vote | lost |
//! | both copies of the header unreadable; one | lost; the other counts, the bad one is written anew |
//! | a segment that the header names is missing, short, another one, or has a bad record before the end | lost |
//! | a record that is sound and is not what the log's owner has in one (a term below the one before) | lost |
//! | bytes after the end | a torn tail: never acknowledged, zeroed |
//! | segments outside the header's | left by a crash before they were named, or before they were removed: removed |
//! | a newer format | refused, nothing changed |
//!
//! Must never: change anything before the whole log has been read and found good, or make a folder look fresh that was
//! not.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::Path;

use bytes::Bytes;
use resilver_host::disk::create_dir_durably;
use resilver_host::{Disk, FileKind};

use super::error::{Damage, LogError};
use super::header::{HEADER_KIND, HEADER_NAME, Header};
use super::record::{Entry, Judge};
use super::segment::{self, Segment};
use super::slots::{self, Slots};
use super::state::{Indexed, State};
use super::vote::{self, VOTE_NAME};
use super::{LogOptions, Recovered};
use crate::steps::Counter;

/// What a good folder opens to.
pub(super) struct Opened {
    pub(super) slots: Slots,
    pub(super) state: State,
    pub(super) recovered: Recovered,
}

/// Opens the folder, making it first when it is fresh.
pub(super) async fn open(
    disk: &dyn Disk,
    dir: &Path,
    options: &LogOptions,
    counter: &Counter,
    judge: &mut Judge<'_>,
) -> Result<Opened, LogError> {
    let survey = Survey::take(disk, dir).await?;
    let header_path = dir.join(HEADER_NAME);
    let created = !survey.header;
    if created {
        survey.expect_fresh(disk, dir, options.create).await?;
        create(disk, dir, survey.vote).await?;
    } else if !survey.vote {
        return Err(Damage::new(&dir.join(VOTE_NAME), 0, "file", "the vote beside the log", "no such file").into());
    }

    let slots::Opened { mut slots, content, .. } = Slots::open(disk, &header_path, &HEADER_KIND).await?;
    let header = Header::decode(&header_path, &content)?;
    #[cfg(feature = "planted-bugs")]
    let header = super::planted::cut_at_bad_record(disk, dir, header).await?;
    let (segments, strays) = survey.sort_out(dir, &header)?;
    counter.expect(header.next - header.first);
    let segments = replay(disk, dir, &header, &segments, (options.indexed_records, counter), judge).await?;

    // All that was acknowledged is there. From here on the folder is put in order.
    let healed_header = slots.settle(&content).await?;
    let torn_bytes = match segments.back() {
        Some(tail) => clean_tail(&tail.segment, header.end_offset).await?,
        None => 0,
    };
    for stray in &strays {
        let path = dir.join(segment::name(*stray));
        disk.remove_file(&path).await.map_err(LogError::io("remove", &path))?;
    }
    // Also when nothing was removed: entries that we see may be in the page cache only, left by a killed process.
    disk.sync_dir(dir).await.map_err(LogError::io("sync", dir))?;

    let recovered = Recovered {
        created,
        records: header.next - header.first,
        segments: segments.len() as u64,
        torn_bytes,
        strays: strays.len() as u64,
        healed_header,
    };
    let state = State::new(header, segments, options.cache_bytes, options.indexed_records);
    Ok(Opened { slots, state, recovered })
}

/// What lies in the folder.
struct Survey {
    header: bool,
    vote: bool,
    segments: BTreeSet<u64>,
}

impl Survey {
    async fn take(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        let entries = match disk.list(dir).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            entries => entries.map_err(LogError::io("list", dir))?,
        };
        let mut survey = Self { header: false, vote: false, segments: BTreeSet::new() };
        for entry in entries.iter().filter(|entry| entry.kind == FileKind::File) {
            match entry.name.as_str() {
                HEADER_NAME => survey.header = true,
                VOTE_NAME => survey.vote = true,
                name => survey.segments.extend(segment::id_of(name)),
            }
        }
        Ok(survey)
    }

    /// A folder without header is fresh only if nothing in it can have been acknowledged.
    async fn expect_fresh(&self, disk: &dyn Disk, dir: &Path, create: bool) -> Result<(), LogError> {
        let path = dir.join(HEADER_NAME);
        let lost = |expected: &str| Err(Damage::new(&path, 0, "file", expected, "no such file").into());
        if !self.segments.is_empty() {
            return lost("the header of the segments beside it");
        }
        if self.vote && !vote::is_pristine(disk, dir).await? {
            return lost("the header of the log beside the vote");
        }
        if !create {
            return lost("the log of a node that is a member");
        }
        Ok(())
    }

    /// The header's segments, all of which must be there, and those that are no part of the log.
    fn sort_out(&self, dir: &Path, header: &Header) -> Result<(Vec<u64>, Vec<u64>), LogError> {
        let named = header.first_segment..header.next_segment;
        if let Some(missing) = named.clone().find(|id| !self.segments.contains(id)) {
            let path = dir.join(segment::name(missing));
            let expected = format!("segments {} to {}", named.start, named.end - 1);
            return Err(Damage::new(&path, 0, "file", expected, "no such file").into());
        }
        Ok(self.segments.iter().partition(|id| named.contains(*id)))
    }
}

/// Makes a fresh log. The header comes last: once it is there, everything is.
async fn create(disk: &dyn Disk, dir: &Path, vote_exists: bool) -> Result<(), LogError> {
    create_dir_durably(disk, dir).await.map_err(LogError::io("create", dir))?;
    if !vote_exists {
        vote::create(disk, dir).await?;
    }
    // A vote that an earlier attempt left may not be durable as an entry yet, and a header without vote means lost.
    disk.sync_dir(dir).await.map_err(LogError::io("sync", dir))?;
    let header = Header::empty(0, 0, Bytes::new());
    Slots::create(disk, &dir.join(HEADER_NAME), &HEADER_KIND, &header.encode()).await
}

/// Reads all segments and checks every record up to the end.
async fn replay(
    disk: &dyn Disk,
    dir: &Path,
    header: &Header,
    ids: &[u64],
    (indexed_records, counter): (usize, &Counter),
    judge: &mut Judge<'_>,
) -> Result<VecDeque<Indexed>, LogError> {
    let mut segments: Vec<Segment> = Vec::with_capacity(ids.len());
    for id in ids {
        segments.push(Segment::open(disk, dir, *id).await?);
    }
    if let Some(first) = segments.first()
        && first.head.first > header.first
    {
        let what = "first record of the first segment";
        return Err(Damage::new(&first.path, 0, what, format!("{} or before", header.first), first.head.first).into());
    }
    let firsts: Vec<u64> = segments.iter().skip(1).map(|segment| segment.head.first).chain([header.next]).collect();
    let mut indexed = VecDeque::with_capacity(segments.len());
    let mut chain = None;
    let mut kept = 0;
    for (segment, until) in segments.into_iter().zip(firsts) {
        let last = segment.head.id + 1 == header.next_segment;
        let entries = check(&segment, chain, until, last.then_some(header), judge).await?;
        chain = Some(entries.last().map_or_else(|| segment.head.seed(), |entry| entry.crc));
        kept += entries.len();
        counter.add(entries.len() as u64);
        // A log longer than the index may grow is not held in memory even while it is opened.
        let table = (last || kept <= indexed_records).then_some(entries);
        indexed.push_back(Indexed { segment: segment.into(), table });
    }
    Ok(indexed)
}

/// Checks one segment: that it follows the one before, holds the records up to `until`, and, as the last one, ends
/// where the header says.
async fn check(
    segment: &Segment,
    before: Option<u32>,
    until: u64,
    end: Option<&Header>,
    judge: &mut Judge<'_>,
) -> Result<Vec<Entry>, LogError> {
    let head = segment.head;
    let damage = |offset, what: &str, expected: String, got: String| -> LogError {
        Damage::new(&segment.path, offset, what, expected, got).into()
    };
    if let Some(chain) = before
        && chain != head.chain_before
    {
        let (expected, got) = (format!("{chain:#010x}"), format!("{:#010x}", head.chain_before));
        return Err(damage(0, "checksum of the segment before", expected, got));
    }
    let Some(count) = until.checked_sub(head.first) else {
        return Err(damage(0, "first record of the segment", format!("{until} or before"), head.first.to_string()));
    };
    let end_offset = end.map_or(head.size_bytes, |header| header.end_offset);
    if end.is_some() {
        let len = segment.len().await?;
        if len < end_offset {
            return Err(damage(len, "length", format!("at least {end_offset} bytes"), format!("{len} bytes")));
        }
    }
    let (entries, chain) = segment.scan(count, end_offset, judge).await?;
    if let Some(header) = end {
        let found = entries.last().map_or(segment::SEGMENT_HEAD_BYTES, |entry| entry.end());
        if found != header.end_offset {
            return Err(damage(found, "end of the last record", header.end_offset.to_string(), found.to_string()));
        }
        if chain != header.chain {
            let (expected, got) = (format!("{:#010x}", header.chain), format!("{chain:#010x}"));
            return Err(damage(found, "checksum of the last record", expected, got));
        }
    }
    Ok(entries)
}

/// Zeroes what lies after the end, and makes the file whole again if that part was cut. Returns how far the torn tail
/// reached.
async fn clean_tail(tail: &Segment, end: u64) -> Result<u64, LogError> {
    let size = tail.head.size_bytes;
    let rest = tail.read(end, size).await?;
    let torn = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    let whole = end + rest.len() as u64 >= size;
    if torn > 0 || !whole {
        tail.zero(end, if whole { end + torn } else { size }).await?;
        tail.sync().await?;
    }
    Ok(torn)
}
