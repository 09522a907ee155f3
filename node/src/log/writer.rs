//! Everything that changes the log on disk. One writer at a time.
//!
//! Must never: let the header speak of what is not synced, remove a segment that a synced header still names, or write
//! again after a failure.
//!
//! Invariants: each change is one step of the header. Order: records, sync; slot A, sync; slot B, sync; then memory;
//! then files that fell out of the log are removed. A crash between any two leaves either the old log or the new one.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::Disk;
use resilver_host::planted::{Bug, bug};

use super::error::{Damage, Fuse, LogError};
use super::header::{Header, MAX_NOTE_BYTES};
use super::plan::{Chunk, plan};
use super::reader;
use super::record::{RECORD_HEAD_BYTES, payloads};
use super::segment::{SEGMENT_HEAD_BYTES, Segment};
use super::slots::{Doubtful, Slots};
use super::state::{Extension, Shared};
use super::{MAX_RECORD_BYTES, Record};

/// The one writer.
pub(super) struct Writer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) slots: Slots,
    pub(super) shared: Arc<Shared>,
    pub(super) segment_bytes: u64,
    pub(super) fuse: Fuse,
}

impl Writer {
    /// Makes `records` durable behind the log's end.
    pub(super) async fn append(&mut self, records: &[Record]) -> Result<(), LogError> {
        self.fuse.check()?;
        let (header, tail) = {
            let state = self.shared.lock();
            (state.header.clone(), state.tail())
        };
        check(records, header.next, self.segment_bytes)?;
        if records.is_empty() {
            return Ok(());
        }
        self.fuse.begin("an append")?;
        let (chunks, header) = plan(&header, tail.as_ref().map(|tail| tail.head), records, self.segment_bytes);
        let done = self.write(tail, chunks, header).await;
        self.fuse.end(done)
    }

    async fn write(
        &mut self,
        mut tail: Option<Arc<Segment>>,
        chunks: Vec<Chunk>,
        header: Header,
    ) -> Result<(), LogError> {
        let mut extensions = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let segment = match tail.take() {
                Some(tail) if tail.head == chunk.head => tail,
                _ => Arc::new(Segment::create(&*self.disk, &self.dir, chunk.head).await?),
            };
            chunk.check(&segment.path);
            let (offset, data) = (chunk.offset, chunk.data.freeze());
            segment.write(offset, data.clone()).await?;
            if !bug(Bug::AckBeforeLogSync) {
                segment.sync().await?;
            }
            extensions.push(Extension {
                segment,
                payloads: payloads(&data, offset, &chunk.entries),
                entries: chunk.entries,
            });
        }
        self.slots.write(&header.encode()).await?;
        self.shared.lock().extend(header, extensions);
        Ok(())
    }

    /// Drops the records from `from` on.
    pub(super) async fn truncate(&mut self, from: u64) -> Result<(), LogError> {
        self.fuse.check()?;
        let header = self.shared.lock().header.clone();
        if from >= header.next {
            return Ok(());
        }
        if from < header.first {
            return Err(LogError::Purged { from, first: header.first });
        }
        self.fuse.begin("a truncation")?;
        let done = self.cut_end(header, from).await;
        self.fuse.end(done)
    }

    async fn cut_end(&mut self, mut header: Header, from: u64) -> Result<(), LogError> {
        let position = loop {
            let looked_up = self.shared.lock().position(from);
            match looked_up {
                Ok(position) => break position,
                Err(unindexed) => reader::load(&self.shared, unindexed).await?,
            }
        };
        header.next = from;
        header.next_segment = position.segment + 1;
        header.end_offset = position.offset;
        header.chain = position.chain;
        self.shrink(header).await
    }

    /// Drops the records up to and including `through`, and keeps `note`.
    pub(super) async fn purge(&mut self, through: u64, note: Bytes) -> Result<(), LogError> {
        self.fuse.check()?;
        check_note(&note)?;
        let mut header = self.shared.lock().header.clone();
        let first = through.saturating_add(1);
        // Purges may be repeated after a restart; an older one must not bring an older note back.
        if first < header.first || (first == header.first && note == header.note) {
            return Ok(());
        }
        self.fuse.begin("a purge")?;
        if first > header.next {
            header = Header::empty(header.next_segment, first, note);
        } else {
            header.first = first;
            header.first_segment = self.shared.lock().segment_of(first).unwrap_or(header.first_segment);
            header.note = note;
        }
        let done = self.shrink(header).await;
        self.fuse.end(done)
    }

    /// Drops all records; the log goes on at `next`.
    pub(super) async fn reset(&mut self, next: u64, note: Bytes) -> Result<(), LogError> {
        check_note(&note)?;
        self.fuse.begin("a reset")?;
        let header = Header::empty(self.shared.lock().header.next_segment, next, note);
        let done = self.shrink(header).await;
        self.fuse.end(done)
    }

    /// Compares both copies of the header on disk with the log; one that is rotten is written anew, as at open. What was
    /// wrong with it.
    pub(super) async fn reread_header(&mut self) -> Result<Option<Damage>, LogError> {
        self.fuse.check()?;
        let Some(Doubtful { which, damage }) = self.slots.reread(&*self.disk).await? else { return Ok(None) };
        self.fuse.begin("mending the header")?;
        let done = self.slots.mend(which).await;
        self.fuse.end(done)?;
        Ok(Some(damage))
    }

    /// Makes a smaller log durable, then removes the files that are no part of it.
    async fn shrink(&mut self, header: Header) -> Result<(), LogError> {
        self.slots.write(&header.encode()).await?;
        let dropped = self.shared.lock().shrink(header);
        // Not synced: a file that a crash brings back is a stray, and making a segment syncs the folder before anything
        // is put into it, also when it takes the number of a removed one.
        for segment in dropped {
            self.disk.remove_file(&segment.path).await.map_err(LogError::io("remove", &segment.path))?;
        }
        Ok(())
    }
}

/// Most bytes of payload in one record, given the size of segments: a record lies in one segment.
fn record_limit(segment_bytes: u64) -> u64 {
    MAX_RECORD_BYTES.min(segment_bytes - SEGMENT_HEAD_BYTES - RECORD_HEAD_BYTES as u64)
}

fn check(records: &[Record], next: u64, segment_bytes: u64) -> Result<(), LogError> {
    let limit_bytes = record_limit(segment_bytes);
    for (expected, record) in (next..).zip(records) {
        if record.index != expected {
            return Err(LogError::Gap { expected, got: record.index });
        }
        let bytes = record.payload.len() as u64;
        if bytes > limit_bytes {
            return Err(LogError::TooLarge { what: format!("record {expected}"), bytes, limit_bytes });
        }
    }
    Ok(())
}

fn check_note(note: &Bytes) -> Result<(), LogError> {
    if note.len() > MAX_NOTE_BYTES {
        let (bytes, limit_bytes) = (note.len() as u64, MAX_NOTE_BYTES as u64);
        return Err(LogError::TooLarge { what: "the note of a purge".to_owned(), bytes, limit_bytes });
    }
    Ok(())
}
