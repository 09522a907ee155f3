//! Where the records of an append go. Pure: decided here, done by [`super::writer`].

use std::path::Path;

use bytes::BytesMut;

use super::Record;
use super::header::Header;
use super::record::{self, Chain, Entry, record_bytes};
use super::segment::{Head, SEGMENT_HEAD_BYTES};

/// What one append writes to one segment, in one write.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The segment: the present last one, or one to be made.
    pub(super) head: Head,
    /// Where in it.
    pub(super) offset: u64,
    /// The encoded records.
    pub(super) data: BytesMut,
    /// Where each lies.
    pub(super) entries: Vec<Entry>,
    chain_before: u32,
    first: u64,
}

/// Lays `records`, which continue the log, out over its last segment and as many new ones as they need. Also the header
/// that makes them part of the log.
pub(super) fn plan(
    before: &Header,
    tail: Option<Head>,
    records: &[Record],
    segment_bytes: u64,
) -> (Vec<Chunk>, Header) {
    let mut header = before.clone();
    let mut chunks: Vec<Chunk> = Vec::new();
    chunks.extend(tail.map(|head| Chunk::new(head, before.end_offset, &header)));
    for record in records {
        let bytes = record_bytes(record.payload.len());
        if chunks.last().is_none_or(|chunk| chunk.room_bytes() < bytes) {
            let chain_before = header.chain;
            let head = Head { id: header.next_segment, first: header.next, size_bytes: segment_bytes, chain_before };
            header.next_segment += 1;
            header.chain = head.seed();
            chunks.push(Chunk::new(head, SEGMENT_HEAD_BYTES, &header));
        }
        let chunk = chunks.last_mut().expect("there is one with room");
        let entry = record::encode(&mut chunk.data, chunk.offset, header.chain, record.index, &record.payload);
        chunk.entries.push(entry);
        header.chain = entry.crc;
        header.next += 1;
        header.end_offset = chunk.end();
    }
    // The last segment may have had no room at all.
    chunks.retain(|chunk| !chunk.entries.is_empty());
    (chunks, header)
}

impl Chunk {
    fn new(head: Head, offset: u64, header: &Header) -> Self {
        let (chain_before, first) = (header.chain, header.next);
        Self { head, offset, data: BytesMut::new(), entries: Vec::new(), chain_before, first }
    }

    fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }

    fn room_bytes(&self) -> u64 {
        self.head.size_bytes.saturating_sub(self.end())
    }

    /// Reads the chunk as it will be read back. What is written is checked just before, what is read just after.
    ///
    /// # Panics
    /// When it does not read back: a fault of this program or of the memory, and nothing must be written.
    pub(super) fn check(&self, path: &Path) {
        assert!(self.end() <= self.head.size_bytes, "records would be written past the end of {}", path.display());
        let mut chain = Chain {
            path,
            bytes: &self.data,
            base: self.offset,
            offset: self.offset,
            index: self.first,
            chain: self.chain_before,
        };
        for expected in &self.entries {
            let entry = chain.step();
            assert_eq!(entry.as_ref(), Ok(expected), "records for {} do not read back", path.display());
        }
    }
}
