//! Buckets, the uploads that are under way in them, and the keys that open them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Attributes, ChecksumAlgorithm, ChecksumKind, Coding, ETag, StoredChecksum};
use crate::types::{BucketName, UploadId, Version};

/// Where the parts of uploads are kept, as objects like any other: repaired, scrubbed and verified by the same code. No
/// client makes a bucket of this name, and no listing shows it.
pub const UPLOADS_BUCKET: &str = "resilver.uploads";

/// Repair jobs of a bucket that nobody gave a priority: there is as much room before it as behind.
pub const DEFAULT_REPAIR_PRIORITY: u8 = 128;

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRecord {
    /// Its name.
    pub name: BucketName,
    /// How objects put from now on are coded.
    pub coding: Coding,
    /// When it was made, wall time of the proposing node, for people.
    pub created_ms: u64,
    /// The most bytes its objects and parts of uploads may have together.
    pub quota_bytes: Option<u64>,
    /// Of shards whose loss is equally near, those of the lower number are rebuilt first.
    pub repair_priority: u8,
    /// The access key that made it; empty: an operator.
    pub owner: String,
}

/// What there is in a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Objects.
    pub objects: u64,
    /// Their bytes, and those of the parts of uploads.
    pub bytes: u64,
}

/// An upload in parts that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// Names it.
    pub id: UploadId,
    /// Its bucket.
    pub bucket: BucketName,
    /// The key the object will have.
    pub key: String,
    /// When it was begun, wall time of the proposing node.
    pub created_ms: u64,
    /// What the object will carry.
    pub attributes: Attributes,
    /// Which checksum parts and object have.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// How its parts are coded: an object has one coding, so the bucket's as of the beginning holds to the end.
    pub coding: Coding,
    /// The access key that began it.
    pub initiator: String,
    /// What it became. Kept a while, so that a complete that is repeated is answered the same.
    pub completed: Option<CompletedUpload>,
}

/// What a completed upload became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedUpload {
    /// The object's version.
    pub version: Version,
    /// Its ETag.
    pub etag: ETag,
    /// Bytes of content.
    pub size_bytes: u64,
    /// Its checksum.
    pub checksum: Option<StoredChecksum>,
}

/// The key of a part within [`UPLOADS_BUCKET`]: in the order of bucket, upload, number.
pub fn part_key(bucket: &BucketName, upload: UploadId, part: u16) -> String {
    format!("{}{part:05}", part_prefix(bucket, upload))
}

/// What the keys of all parts of an upload begin with.
pub fn part_prefix(bucket: &BucketName, upload: UploadId) -> String {
    format!("{bucket}/{upload}/")
}

/// The bucket that an object counts for: a part counts for that of its upload.
pub fn accounted_bucket(bucket: &BucketName, key: &str) -> BucketName {
    match key.split_once('/') {
        // No bucket's name has a slash.
        Some((of, _)) if bucket.as_str() == UPLOADS_BUCKET => BucketName::from(of),
        _ => bucket.clone(),
    }
}

/// What a key may do in a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Read and list.
    pub read: bool,
    /// Put, delete, upload.
    pub write: bool,
    /// Change and delete the bucket.
    pub admin: bool,
}

/// An access key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Names it: `RS` and 18 characters of base 32.
    pub id: String,
    /// What requests are signed with: 40 characters.
    pub secret: String,
    /// For people.
    pub label: String,
    /// When it was made, wall time of the proposing node.
    pub created_ms: u64,
    /// Makes buckets, and has every grant.
    pub admin: bool,
    /// What it may do where.
    pub grants: BTreeMap<BucketName, Grant>,
}

impl fmt::Debug for KeyRecord {
    /// Without the secret: it would end in a log one day.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, secret: _, label, created_ms, admin, grants } = self;
        f.debug_struct("KeyRecord")
            .field("id", id)
            .field("label", label)
            .field("created_ms", created_ms)
            .field("admin", admin)
            .field("grants", grants)
            .finish_non_exhaustive()
    }
}
