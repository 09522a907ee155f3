//! One record on disk, and chains of them. Pure.
//!
//! A record's checksum is seeded with that of the record before it (the first of a segment: with the CRC of the
//! segment's head, which holds the last checksum of the segment before). So the one checksum in the log's header vouches
//! for every record: an older version of a block, a record or a whole segment breaks the chain even though each is
//! sound by itself.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};

use super::error::Damage;
use super::prefix::{u32_at, u64_at};

/// Bytes before the payload: length, checksum, index.
pub(super) const RECORD_HEAD_BYTES: usize = 16;

/// Where a record lies in its segment, and its checksum. 12 bytes: the log keeps one per record in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where its head begins.
    pub(super) offset: u32,
    /// Length of the payload.
    pub(super) len_bytes: u32,
    /// Its checksum: the seed of the next record's.
    pub(super) crc: u32,
}

/// What a record holds is not what it must be, although its checksum is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// What is doubtful.
    pub(crate) what: String,
    /// What was expected there.
    pub(crate) expected: String,
    /// What was found there.
    pub(crate) got: String,
}

/// Judges what records hold, which the log itself does not know: index and payload, one after another.
pub(crate) type Judge<'a> = dyn FnMut(u64, &[u8]) -> Result<(), Unfit> + Send + 'a;

/// Takes everything: for whoever looks for places alone.
pub(super) fn unjudged(_: u64, _: &[u8]) -> Result<(), Unfit> {
    Ok(())
}

impl Entry {
    /// Where the record ends and the next begins.
    pub(super) fn end(self) -> u64 {
        u64::from(self.offset) + RECORD_HEAD_BYTES as u64 + u64::from(self.len_bytes)
    }
}

/// Bytes that a record with a payload of `len_bytes` takes.
pub(super) fn record_bytes(len_bytes: usize) -> u64 {
    RECORD_HEAD_BYTES as u64 + len_bytes as u64
}

/// The checksum of a record after one whose checksum is `chain`.
pub(super) fn checksum(chain: u32, index: u64, payload: &[u8]) -> u32 {
    let len = u32::try_from(payload.len()).expect("payloads are limited to a few MiB");
    let mut head = [0; 12];
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[4..].copy_from_slice(&index.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(chain, &head), payload)
}

/// Appends a record to `buffer`, whose first byte lies at `base` of the segment.
pub(super) fn encode(buffer: &mut BytesMut, base: u64, chain: u32, index: u64, payload: &[u8]) -> Entry {
    let offset = u32::try_from(base + buffer.len() as u64).expect("segments are limited to 1 GiB");
    let len_bytes = u32::try_from(payload.len()).expect("payloads are limited to a few MiB");
    let crc = checksum(chain, index, payload);
    buffer.put_u32_le(len_bytes);
    buffer.put_u32_le(crc);
    buffer.put_u64_le(index);
    buffer.put_slice(payload);
    Entry { offset, len_bytes, crc }
}

/// The payloads of `entries` as slices of `data`, whose first byte lies at `base` of the segment.
pub(super) fn payloads(data: &Bytes, base: u64, entries: &[Entry]) -> Vec<Bytes> {
    let payload = |entry: &Entry| {
        let from = (u64::from(entry.offset) - base) as usize + RECORD_HEAD_BYTES;
        data.slice(from..from + entry.len_bytes as usize)
    };
    entries.iter().map(payload).collect()
}

/// A run of records in a buffer that was read from a segment.
pub(super) struct Chain<'a> {
    /// The segment's path, to name it.
    pub(super) path: &'a Path,
    /// The bytes.
    pub(super) bytes: &'a [u8],
    /// Where in the segment they begin.
    pub(super) base: u64,
    /// Where in the segment the next record begins.
    pub(super) offset: u64,
    /// The index it must have.
    pub(super) index: u64,
    /// The checksum of the record before it.
    pub(super) chain: u32,
}

impl Chain<'_> {
    /// Checks the next record and steps behind it.
    ///
    /// # Errors
    /// Whatever is not as it must be. The chain then stands where it stood.
    pub(super) fn step(&mut self) -> Result<Entry, Damage> {
        let index = self.index;
        let at = usize::try_from(self.offset - self.base).expect("within a buffer");
        let rest = self.bytes.get(at..).unwrap_or_default();
        if rest.len() < RECORD_HEAD_BYTES {
            let got = format!("{} bytes before the end", rest.len());
            return Err(self.damage(format!("head of record {index}"), "16 bytes", got));
        }
        let (len_bytes, crc, found) = (u32_at(rest, 0), u32_at(rest, 4), u64_at(rest, 8));
        if found != index {
            return Err(self.damage("index of a record".to_owned(), index, found));
        }
        let Some(payload) = rest.get(RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + len_bytes as usize) else {
            let most = format!("at most {} bytes", rest.len() - RECORD_HEAD_BYTES);
            return Err(self.damage(format!("length of record {index}"), most, len_bytes));
        };
        let expected = checksum(self.chain, index, payload);
        if crc != expected {
            let (expected, got) = (format!("{expected:#010x}"), format!("{crc:#010x}"));
            return Err(self.damage(format!("checksum of record {index}"), expected, got));
        }
        let offset = u32::try_from(self.offset).expect("segments are limited to 1 GiB");
        let entry = Entry { offset, len_bytes, crc };
        self.offset = entry.end();
        self.index += 1;
        self.chain = crc;
        Ok(entry)
    }

    /// The same, and has `judge` look at what it holds.
    pub(super) fn step_judged(&mut self, judge: &mut Judge<'_>) -> Result<Entry, Damage> {
        let (offset, index) = (self.offset, self.index);
        let entry = self.step()?;
        let from = (offset - self.base) as usize + RECORD_HEAD_BYTES;
        let payload = &self.bytes[from..from + entry.len_bytes as usize];
        judge(index, payload)
            .map_err(|Unfit { what, expected, got }| Damage::new(self.path, offset, what, expected, got))?;
        Ok(entry)
    }

    fn damage(&self, what: String, expected: impl std::fmt::Display, got: impl std::fmt::Display) -> Damage {
        Damage::new(self.path, self.offset, what, expected, got)
    }
}
