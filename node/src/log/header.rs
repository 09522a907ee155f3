//! The log's header: where the log begins and ends. Pure; [`super::slots`] keeps it on disk.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};

use super::error::Damage;
use super::prefix::{Kind, u32_at, u64_at};
use super::segment::SEGMENT_HEAD_BYTES;

/// The file's name within the log's folder.
pub(super) const HEADER_NAME: &str = "header";
/// What the file is.
pub(super) static HEADER_KIND: Kind = Kind { magic: *b"RSLVLOGH", format: 1 };
/// Most bytes of the note that a purge or reset leaves: a serialized log id has about 20.
pub const MAX_NOTE_BYTES: usize = 64;
/// Before the note.
const FIXED_BYTES: usize = 48;

/// Where the log begins and ends. Only what lies before the end was acknowledged; bytes after it mean nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The segment that holds record `first`.
    pub(super) first_segment: u64,
    /// One past the last segment: the segments are `first_segment..next_segment`, none when equal.
    pub(super) next_segment: u64,
    /// Where in the last segment the last record ends; 0 when there is no segment.
    pub(super) end_offset: u64,
    /// Index of the first record.
    pub(super) first: u64,
    /// Index that the next record gets: the records are `first..next`.
    pub(super) next: u64,
    /// The last record's checksum; of an empty segment, that of its head; without segments 0.
    pub(super) chain: u32,
    /// What the last purge or reset left: opaque here.
    pub(super) note: Bytes,
}

impl Header {
    /// An empty log that goes on at `next`, in a segment yet to be made.
    pub(super) fn empty(segment: u64, next: u64, note: Bytes) -> Self {
        Self { first_segment: segment, next_segment: segment, end_offset: 0, first: next, next, chain: 0, note }
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(FIXED_BYTES + self.note.len());
        for field in [self.first_segment, self.next_segment, self.end_offset, self.first, self.next] {
            bytes.put_u64_le(field);
        }
        bytes.put_u32_le(self.chain);
        bytes.put_u32_le(u32::try_from(self.note.len()).expect("notes are limited to 64 bytes"));
        bytes.put_slice(&self.note);
        bytes.freeze()
    }

    /// Reads a header back and checks that it can be: its slot's checksum held, but whoever wrote it may have erred.
    pub(super) fn decode(path: &Path, bytes: &Bytes) -> Result<Self, Damage> {
        let damage = |what: &str, expected: String, got: String| Damage::new(path, 0, what, expected, got);
        if bytes.len() < FIXED_BYTES {
            return Err(damage("length of the header", format!("{FIXED_BYTES} bytes"), bytes.len().to_string()));
        }
        let note_bytes = u32_at(bytes, 44) as usize;
        if note_bytes > MAX_NOTE_BYTES || bytes.len() != FIXED_BYTES + note_bytes {
            let expected = format!("{} bytes", bytes.len() - FIXED_BYTES);
            return Err(damage("length of the note", expected, note_bytes.to_string()));
        }
        let header = Self {
            first_segment: u64_at(bytes, 0),
            next_segment: u64_at(bytes, 8),
            end_offset: u64_at(bytes, 16),
            first: u64_at(bytes, 24),
            next: u64_at(bytes, 32),
            chain: u32_at(bytes, 40),
            note: bytes.slice(FIXED_BYTES..),
        };
        if !header.is_possible() {
            return Err(damage("header", "ordered positions".to_owned(), format!("{header:?}")));
        }
        Ok(header)
    }

    fn is_possible(&self) -> bool {
        if self.first_segment == self.next_segment {
            self.end_offset == 0 && self.first == self.next
        } else {
            self.first_segment < self.next_segment
                && self.first <= self.next
                && self.end_offset >= SEGMENT_HEAD_BYTES
                && self.end_offset <= u64::from(u32::MAX)
        }
    }
}
