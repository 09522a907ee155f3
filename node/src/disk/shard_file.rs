//! The format of a shard file.
//!
//! A header of 64 bytes, then per block its data and a seal of four bytes. All numbers are little-endian.
//! ```text
//!  0  8  magic "RSLVSHRD"     16  4  extent           48  8  epoch
//!  8  2  format               20  4  block bytes      56  4  zero
//! 10  2  codec                24  8  extent bytes     60  4  CRC32C of bytes 0..60
//! 12  1  k                    32 16  version
//! 13  1  m
//! 14  1  shard
//! 15  1  zero
//! ```
//! A block's seal is the CRC32C of (header CRC, block number, CRC32C of the data). It is as strong as the data's own
//! CRC, which it maps one to one, and it also fails for a whole and valid block that was swapped in from another shard or
//! another place of this one. The data's own CRC, which blocks carry between nodes, is computed once on either side.
//!
//! The length of the file follows from the header: a file of any other length is corrupt.

use crate::codec::{self, Layout};
use crate::model::{Coding, EXTENT_BYTES};
use crate::types::{Epoch, ExtentIndex, ShardIndex, ShardKey, Version};

/// The first bytes of every shard file.
const MAGIC: [u8; 8] = *b"RSLVSHRD";

/// The format of shard files this version writes.
pub(super) const FORMAT: u16 = 1;

/// Length of the header.
pub(super) const HEADER_BYTES: usize = 64;

/// Length of a block's seal.
pub(super) const SEAL_BYTES: usize = 4;

/// The largest block: it must fit a gRPC message (4 MiB by default) with room to spare, and is what a reader holds.
pub const MAX_BLOCK_BYTES: u32 = 1024 * 1024;

/// What a shard file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardHead {
    /// Which shard it is.
    pub key: ShardKey,
    /// Parameters of the code.
    pub coding: Coding,
    /// Which code: [`codec::REED_SOLOMON`].
    pub codec: u16,
    /// Bytes of a full block.
    pub block_bytes: u32,
    /// Bytes of content in the extent this is a shard of.
    pub extent_bytes: u64,
    /// The cluster's epoch when it was written.
    pub epoch: Epoch,
}

/// Length of the file of any shard of an extent.
pub fn shard_file_bytes(coding: Coding, block_bytes: u32, extent_bytes: u64) -> u64 {
    let layout = Layout { extent_bytes, coding, block_bytes };
    HEADER_BYTES as u64 + layout.shard_bytes() + u64::from(layout.stripes()) * SEAL_BYTES as u64
}

/// Why 64 bytes are no header of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    TooNew(u16),
    Corrupt { expected: u32, got: u32, detail: String },
}

impl ShardHead {
    /// The layout of its extent.
    pub fn layout(&self) -> Layout {
        Layout { extent_bytes: self.extent_bytes, coding: self.coding, block_bytes: self.block_bytes }
    }

    /// Length of the whole file: checked whenever a shard is opened.
    pub fn file_bytes(&self) -> u64 {
        shard_file_bytes(self.coding, self.block_bytes, self.extent_bytes)
    }

    /// Whether a shard like this can exist, wherever the head comes from.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        codec::validate(self.coding).map_err(|error| error.to_string())?;
        if self.codec != codec::REED_SOLOMON {
            return Err(codec::CodecError::UnknownCodec(self.codec).to_string());
        }
        if self.key.shard.as_usize() >= self.coding.total() {
            return Err(format!("there is no shard {} in {}+{}", self.key.shard.0, self.coding.k, self.coding.m));
        }
        if self.block_bytes == 0 || self.block_bytes > MAX_BLOCK_BYTES {
            return Err(format!("blocks of {} bytes: 1 to {MAX_BLOCK_BYTES} are allowed", self.block_bytes));
        }
        if self.extent_bytes == 0 || self.extent_bytes > EXTENT_BYTES {
            return Err(format!("an extent of {} bytes: 1 to {EXTENT_BYTES} are allowed", self.extent_bytes));
        }
        Ok(())
    }

    /// The header and its CRC.
    pub(super) fn encode(&self) -> ([u8; HEADER_BYTES], u32) {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        out[10..12].copy_from_slice(&self.codec.to_le_bytes());
        out[12] = self.coding.k;
        out[13] = self.coding.m;
        out[14] = self.key.shard.0;
        out[16..20].copy_from_slice(&self.key.extent.0.to_le_bytes());
        out[20..24].copy_from_slice(&self.block_bytes.to_le_bytes());
        out[24..32].copy_from_slice(&self.extent_bytes.to_le_bytes());
        out[32..48].copy_from_slice(&self.key.version.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.epoch.0.to_le_bytes());
        let crc = crc32c::crc32c(&out[..HEADER_BYTES - SEAL_BYTES]);
        out[HEADER_BYTES - SEAL_BYTES..].copy_from_slice(&crc.to_le_bytes());
        (out, crc)
    }

    /// Reads a header that should be `key`'s: itself and its CRC.
    pub(super) fn decode(bytes: &[u8], key: ShardKey) -> Result<(Self, u32), BadHeader> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            let detail = format!("the file ends within its header, after {} bytes", bytes.len());
            return Err(BadHeader::Corrupt { expected: 0, got: 0, detail });
        };
        let expected = u32::from_le_bytes(array(header, HEADER_BYTES - SEAL_BYTES));
        let got = crc32c::crc32c(&header[..HEADER_BYTES - SEAL_BYTES]);
        let corrupt = |detail: String| BadHeader::Corrupt { expected, got, detail };
        if expected != got {
            return Err(corrupt("the header does not match its checksum".to_owned()));
        }
        if header[..8] != MAGIC {
            return Err(corrupt("this is no shard file".to_owned()));
        }
        let format = u16::from_le_bytes(array(header, 8));
        if format > FORMAT {
            return Err(BadHeader::TooNew(format));
        }
        let head = Self {
            key: ShardKey {
                version: Version(u128::from_le_bytes(array(header, 32))),
                extent: ExtentIndex(u32::from_le_bytes(array(header, 16))),
                shard: ShardIndex(header[14]),
            },
            coding: Coding { k: header[12], m: header[13] },
            codec: u16::from_le_bytes(array(header, 10)),
            block_bytes: u32::from_le_bytes(array(header, 20)),
            extent_bytes: u64::from_le_bytes(array(header, 24)),
            epoch: Epoch(u64::from_le_bytes(array(header, 48))),
        };
        if head.key != key {
            return Err(corrupt(format!("the file holds shard {}", head.key)));
        }
        head.check().map_err(corrupt)?;
        Ok((head, expected))
    }
}

/// The `N` bytes at `at`.
fn array<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("all fields lie within the header")
}

/// The seal of a block.
pub(super) fn seal(header_crc: u32, block: u32, data_crc: u32) -> u32 {
    let mut covered = [0; 12];
    covered[0..4].copy_from_slice(&header_crc.to_le_bytes());
    covered[4..8].copy_from_slice(&block.to_le_bytes());
    covered[8..12].copy_from_slice(&data_crc.to_le_bytes());
    crc32c::crc32c(&covered)
}

/// Where a block begins in the file: all blocks before the last are full.
pub(super) fn block_offset(head: &ShardHead, block: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(block) * (u64::from(head.block_bytes) + SEAL_BYTES as u64)
}

/// The file name of a shard.
pub(super) fn file_name(key: ShardKey) -> String {
    key.to_string()
}

/// The folder under `shards/` that holds a shard: the version's first two digits. Versions are random, so the 256
/// folders fill evenly.
pub(super) fn fan_out(key: ShardKey) -> String {
    format!("{:02x}", (key.version.0 >> 120) as u8)
}

/// The shard a file name stands for, if it is one.
pub(super) fn parse_name(name: &str) -> Option<ShardKey> {
    let mut parts = name.split('-');
    let key = ShardKey {
        version: parts.next()?.parse().ok()?,
        extent: ExtentIndex(parts.next()?.parse().ok()?),
        shard: ShardIndex(parts.next()?.parse().ok()?),
    };
    // Exactly the name we would give: no sign, no leading zero, nothing behind.
    (file_name(key) == name).then_some(key)
}
