//! An object's content as metadata knows it: extents, where their shards are, and what the client said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::types::{DiskId, ExtentId, Version};

/// Reed-Solomon parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coding {
    /// Data shards.
    pub k: u8,
    /// Parity shards.
    pub m: u8,
}

impl Coding {
    /// All shards of an extent.
    pub fn total(self) -> usize {
        usize::from(self.k) + usize::from(self.m)
    }
}

/// Where one shard is and should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The disk that holds it; `None`: nowhere, it waits to be rebuilt.
    pub at: Option<DiskId>,
    /// The disk that placement chose.
    pub wanted: DiskId,
}

/// A run of at most [`super::EXTENT_BYTES`] of an object, coded as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentRecord {
    /// Its name, for ever. The extents of an object put whole have the object's version and count from 0; those of one
    /// completed from parts keep the names they were uploaded under.
    pub id: ExtentId,
    /// Bytes of content.
    pub len_bytes: u64,
    /// One home per shard index.
    pub homes: Vec<Home>,
}

/// What names a content to clients: S3's ETag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ETag {
    /// MD5 of the content.
    Content([u8; 16]),
    /// Of an object completed from parts: MD5 of the parts' MD5s, and how many they are.
    Parts {
        /// MD5 of the parts' MD5s, one behind the other.
        md5: [u8; 16],
        /// How many.
        parts: u16,
    },
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Content(md5) | Self::Parts { md5, .. }) = self;
        for byte in md5 {
            write!(f, "{byte:02x}")?;
        }
        match self {
            Self::Content(_) => Ok(()),
            Self::Parts { parts, .. } => write!(f, "-{parts}"),
        }
    }
}

/// A text that is no ETag of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an ETag: 32 hexadecimal digits expected, of an object completed from parts a hyphen and their number behind"
)]
pub struct BadETag;

impl FromStr for ETag {
    type Err = BadETag;

    /// Without quotes.
    fn from_str(text: &str) -> Result<Self, BadETag> {
        let (digits, parts) = match text.split_once('-') {
            Some((digits, parts)) => (digits, Some(parts.parse().map_err(|_| BadETag)?)),
            None => (text, None),
        };
        if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(BadETag);
        }
        let md5 = u128::from_str_radix(digits, 16).map_err(|_| BadETag)?.to_be_bytes();
        Ok(parts.map_or(Self::Content(md5), |parts| Self::Parts { md5, parts }))
    }
}

/// Checksums that a client may bring besides the MD5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// What a checksum is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// The whole content.
    FullObject,
    /// The parts' checksums, one behind the other.
    Composite,
}

/// A checksum as it is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredChecksum {
    /// Computed how.
    pub algorithm: ChecksumAlgorithm,
    /// Over what.
    pub kind: ChecksumKind,
    /// The raw digest.
    pub value: Vec<u8>,
}

/// What the client said of the content; given back as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`.
    pub expires: Option<String>,
    /// `x-amz-meta-*`: names without that, in lower case.
    pub user: BTreeMap<String, String>,
    /// Its checksum, if the client wanted one.
    pub checksum: Option<StoredChecksum>,
}

impl Attributes {
    /// Bytes of the client's own names and values: what [`super::MAX_USER_METADATA_BYTES`] bounds.
    pub fn user_bytes(&self) -> usize {
        self.user.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// One part of an object that was completed from parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Its number, as the client gave it.
    pub number: u16,
    /// Bytes of content.
    pub size_bytes: u64,
    /// Its raw checksum, by the algorithm of the object's.
    pub checksum: Option<Vec<u8>>,
}

/// An object's content as of one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRecord {
    /// Names this content.
    pub version: Version,
    /// Bytes of content.
    pub size_bytes: u64,
    /// CRC32C of the whole content.
    pub crc32c: u32,
    /// When it was put, wall time of the gateway, for people.
    pub modified_ms: u64,
    /// How it is coded; fixed at the put.
    pub coding: Coding,
    /// Block size its shards were written with.
    pub block_bytes: u32,
    /// In order. Empty for an empty object.
    pub extents: Vec<ExtentRecord>,
    /// Names its content to clients.
    pub etag: ETag,
    /// What the client said of it.
    pub attributes: Attributes,
    /// Empty unless it was completed from parts.
    pub parts: Vec<PartRecord>,
}

impl ObjectRecord {
    /// Shards that have no home now.
    pub fn missing_shards(&self) -> usize {
        self.extents.iter().flat_map(|extent| &extent.homes).filter(|home| home.at.is_none()).count()
    }

    /// The extent of this name, if it is one of this object's.
    pub fn extent(&self, id: ExtentId) -> Option<&ExtentRecord> {
        self.position(id).map(|at| &self.extents[at])
    }

    /// Where among the extents the one of this name is.
    pub fn position(&self, id: ExtentId) -> Option<usize> {
        // An object put whole has them in the order of their names.
        let guess = id.index.0 as usize;
        if self.extents.get(guess).is_some_and(|extent| extent.id == id) {
            return Some(guess);
        }
        self.extents.iter().position(|extent| extent.id == id)
    }

    /// Every version its shards are named by, and its own.
    pub fn versions(&self) -> BTreeSet<Version> {
        self.extents.iter().map(|extent| extent.id.version).chain([self.version]).collect()
    }
}

/// A version that was replaced or deleted: its shards stay readable for a while and are then collected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageRecord {
    /// What it was.
    pub object: ObjectRecord,
    /// When, wall time of the proposing node. The collector measures age by its own monotonic clock from when it first
    /// saw the record: this is for people.
    pub replaced_ms: u64,
}

/// What a write demands of the present state, judged when it is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// The key must be absent.
    Absent,
    /// The key must be there.
    Present,
    /// The key must be at this version.
    Version(Version),
    /// The key must be there with this ETag.
    ETag(ETag),
    /// The key must not be there with this ETag.
    NotETag(ETag),
}

impl Condition {
    /// Whether it holds of what is there.
    pub fn holds(self, present: Option<&ObjectRecord>) -> bool {
        match self {
            Self::None => true,
            Self::Absent => present.is_none(),
            Self::Present => present.is_some(),
            Self::Version(version) => present.is_some_and(|object| object.version == version),
            Self::ETag(etag) => present.is_some_and(|object| object.etag == etag),
            Self::NotETag(etag) => present.is_none_or(|object| object.etag != etag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_reads_back_as_it_was_written_and_nothing_else_is_one() {
        let md5 = [0x00, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff];
        for (etag, text) in [
            (ETag::Content(md5), "000102030405060708090a0b0c0d0eff"),
            (ETag::Parts { md5, parts: 10_000 }, "000102030405060708090a0b0c0d0eff-10000"),
        ] {
            assert_eq!(etag.to_string(), text);
            assert_eq!(text.parse(), Ok(etag));
        }
        let bad = ["", "*", "\"000102030405060708090a0b0c0d0eff\"", "000102030405060708090a0b0c0d0ef", "-1"];
        for text in bad.into_iter().chain(["000102030405060708090a0b0c0d0eff-", "+00102030405060708090a0b0c0d0eff"]) {
            assert_eq!(text.parse::<ETag>(), Err(BadETag), "{text}");
        }
    }
}
