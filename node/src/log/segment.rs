//! One segment: a file of fixed size, written full of zeros before its first record, then overwritten from the front.
//!
//! Owns: the file's name, its head, its making and its end.
//!
//! Must never: be referenced by the header before file and folder entry are durable.
//!
//! Invariants: real zeros are written, not room reserved: a first write into reserved room changes the file's extents
//! and costs a journal commit with each sync (20 ms at p99 here; overwriting 0.26 ms). The head fills a block of its
//! own, so that writing the first record cannot tear it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use resilver_host::{Disk, File, OpenMode};

use super::error::{Damage, LogError};
use super::prefix::{Kind, PREFIX_BYTES, Prefix, u32_at, u64_at};
use super::record::{Chain, Entry, Judge};

/// Where the first record of a segment begins.
pub(super) const SEGMENT_HEAD_BYTES: u64 = 4096;
/// Largest segment: positions within one fit 32 bits, and one is read whole at open.
pub(super) const MAX_SEGMENT_BYTES: u64 = 1 << 30;
/// What the file is.
pub(super) static SEGMENT_KIND: Kind = Kind { magic: *b"RSLVLOGS", format: 1 };

/// What the head's own checksum covers.
const COVERED_BYTES: usize = PREFIX_BYTES + 28;
const PREFIX_OF_NAME: &str = "segment-";
/// Zeros are written in pieces of this size: large enough for full speed, small enough to share a blocking pool.
const ZEROS_BYTES: usize = 1 << 20;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its number, also in its name: counted up, without gaps.
    pub(super) id: u64,
    /// Index of its first record.
    pub(super) first: u64,
    /// Length of the file.
    pub(super) size_bytes: u64,
    /// The last checksum of the segment before it.
    pub(super) chain_before: u32,
}

impl Head {
    fn encode(&self) -> BytesMut {
        let mut bytes = BytesMut::with_capacity(SEGMENT_HEAD_BYTES as usize);
        bytes.put_slice(&SEGMENT_KIND.encode());
        bytes.put_u64_le(self.id);
        bytes.put_u64_le(self.first);
        bytes.put_u64_le(self.size_bytes);
        bytes.put_u32_le(self.chain_before);
        let crc = crc32c::crc32c(&bytes);
        bytes.put_u32_le(crc);
        bytes
    }

    /// The seed of its first record's checksum: the checksum of the head.
    pub(super) fn seed(&self) -> u32 {
        u32_at(&self.encode(), COVERED_BYTES)
    }

    pub(super) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, LogError> {
        let damage = |what: &str, expected: String, got: String| Damage::new(path, 0, what, expected, got);
        match SEGMENT_KIND.judge(bytes) {
            Prefix::Ours => {}
            Prefix::Newer(found) => {
                return Err(LogError::TooNew { path: path.to_owned(), found, known: SEGMENT_KIND.format });
            }
            Prefix::Bad => {
                let expected = format!("{:02x?}", SEGMENT_KIND.encode());
                let got = format!("{:02x?}", &bytes[..bytes.len().min(PREFIX_BYTES)]);
                return Err(damage("prefix of the segment", expected, got).into());
            }
        }
        if bytes.len() < COVERED_BYTES + 4 {
            let got = format!("{} bytes", bytes.len());
            return Err(damage("head of the segment", format!("{} bytes", COVERED_BYTES + 4), got).into());
        }
        let (expected, got) = (crc32c::crc32c(&bytes[..COVERED_BYTES]), u32_at(bytes, COVERED_BYTES));
        if expected != got {
            let (expected, got) = (format!("{expected:#010x}"), format!("{got:#010x}"));
            return Err(damage("checksum of the segment's head", expected, got).into());
        }
        let head = Self {
            id: u64_at(bytes, 16),
            first: u64_at(bytes, 24),
            size_bytes: u64_at(bytes, 32),
            chain_before: u32_at(bytes, 40),
        };
        if !(SEGMENT_HEAD_BYTES..=MAX_SEGMENT_BYTES).contains(&head.size_bytes) {
            let expected = format!("{SEGMENT_HEAD_BYTES} to {MAX_SEGMENT_BYTES} bytes");
            return Err(damage("size of the segment", expected, head.size_bytes.to_string()).into());
        }
        Ok(head)
    }
}

/// The name of segment `id`: sixteen hexadecimal digits, so that names sort as numbers do.
pub(super) fn name(id: u64) -> String {
    format!("{PREFIX_OF_NAME}{id:016x}")
}

/// The number of the segment of that name, if it is one.
pub(super) fn id_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX_OF_NAME)?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    // Only names we would write: `segment-+1` or `segment-1` are somebody else's.
    (self::name(id) == name).then_some(id)
}

/// An open segment. Shared by the writer and by reads in flight, so that a purge takes no file from under a read.
pub(super) struct Segment {
    pub(super) head: Head,
    pub(super) path: PathBuf,
    file: Arc<dyn File>,
}

impl Segment {
    /// Makes a segment: zeros, head, sync, folder sync. Only then may the header name it.
    pub(super) async fn create(disk: &dyn Disk, dir: &Path, head: Head) -> Result<Self, LogError> {
        let path = dir.join(name(head.id));
        // New, always: numbers below the header's `next_segment` are in use or gone for good, strays above it were
        // removed at open.
        let file = disk.open(&path, OpenMode::CreateNew).await.map_err(LogError::io("create", &path))?;
        let segment = Self { head, path, file };
        segment.zero(0, head.size_bytes).await?;
        segment.write(0, head.encode().freeze()).await?;
        segment.sync().await?;
        disk.sync_dir(dir).await.map_err(LogError::io("sync", dir))?;
        Ok(segment)
    }

    /// Opens segment `id`, checking that it is that one.
    pub(super) async fn open(disk: &dyn Disk, dir: &Path, id: u64) -> Result<Self, LogError> {
        let path = dir.join(name(id));
        let file = disk.open(&path, OpenMode::Write).await.map_err(LogError::io("open", &path))?;
        let bytes = file.read_at(0, COVERED_BYTES + 4).await.map_err(LogError::io("read", &path))?;
        let head = Head::decode(&path, &bytes)?;
        if head.id != id {
            return Err(Damage::new(&path, 0, "number of the segment", id, head.id).into());
        }
        Ok(Self { head, path, file })
    }

    /// Writes zeros over `[from, to)`.
    pub(super) async fn zero(&self, from: u64, to: u64) -> Result<(), LogError> {
        let mut at = from;
        while at < to {
            let len = (to - at).min(ZEROS_BYTES as u64);
            self.write(at, Bytes::from_static(&ZEROS[..len as usize])).await?;
            at += len;
        }
        Ok(())
    }

    pub(super) async fn write(&self, offset: u64, data: Bytes) -> Result<(), LogError> {
        self.file.write_at(offset, data).await.map_err(LogError::io("write", &self.path))
    }

    pub(super) async fn sync(&self) -> Result<(), LogError> {
        self.file.sync().await.map_err(LogError::io("sync", &self.path))
    }

    /// Reads `[from, to)`; fewer bytes only when the file ends before.
    pub(super) async fn read(&self, from: u64, to: u64) -> Result<Bytes, LogError> {
        let len = usize::try_from(to.saturating_sub(from)).expect("segments are limited to 1 GiB");
        self.file.read_at(from, len).await.map_err(LogError::io("read", &self.path))
    }

    pub(super) async fn len(&self) -> Result<u64, LogError> {
        self.file.len().await.map_err(LogError::io("read the length of", &self.path))
    }

    /// Reads and checks the first `count` records, which end at or before `end`, and has `judge` look at each: where they
    /// lie, and the checksum of the last.
    pub(super) async fn scan(
        &self,
        count: u64,
        end: u64,
        judge: &mut Judge<'_>,
    ) -> Result<(Vec<Entry>, u32), LogError> {
        let bytes = self.read(SEGMENT_HEAD_BYTES, end).await?;
        let mut chain = Chain {
            path: &self.path,
            bytes: &bytes,
            base: SEGMENT_HEAD_BYTES,
            offset: SEGMENT_HEAD_BYTES,
            index: self.head.first,
            chain: self.head.seed(),
        };
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(chain.step_judged(judge)?);
        }
        Ok((entries, chain.chain))
    }
}
