//! Reading the state: each answer comes from one read transaction, so it is the state at one applied index.
//!
//! Must never: hold a read transaction across an await: it would pin old pages of the database.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction};

use super::tables::{
    BUCKETS, FORBIDDEN, GARBAGE, KEYS, LEFTOVERS, OBJECTS, UPLOADS, USAGE, VERSIONS, behind, get, object_key,
    split_leftover_key, split_object_key, split_version_key, unseal, upload_key, version_key,
};
use super::{State, StateError};
use crate::model::{
    BucketRecord, GarbageRecord, KeyRecord, ObjectRecord, UPLOADS_BUCKET, UploadRecord, Usage, part_prefix,
};
use crate::types::{BucketName, UploadId, Version};

/// Bytes of records after which an answer of many ends early, however few they are: the record of a large object has some
/// megabytes, and a thousand of those would be all the memory there is.
pub(super) const MAX_READ_BYTES: usize = 4 * 1024 * 1024;

pub(super) type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// One step through all objects of all buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Bucket, key and record, in order.
    pub objects: Vec<(BucketName, String, ObjectRecord)>,
    /// Whether this was the last step.
    pub end: bool,
}

impl State {
    /// The bucket of this name.
    pub async fn bucket(&self, bucket: &BucketName) -> Result<Option<BucketRecord>, StateError> {
        let name = bucket.as_str().as_bytes().to_vec();
        self.read(move |txn| get(&txn.open_table(BUCKETS)?, "buckets", &name)).await
    }

    /// All buckets, by name.
    pub async fn buckets(&self) -> Result<Vec<BucketRecord>, StateError> {
        self.read(|txn| records(&txn.open_table(BUCKETS)?, "buckets", usize::MAX)).await
    }

    /// The object under this key.
    pub async fn object(&self, bucket: &BucketName, key: &str) -> Result<Option<ObjectRecord>, StateError> {
        let key = object_key(bucket.as_str(), key);
        self.read(move |txn| get(&txn.open_table(OBJECTS)?, "objects", &key)).await
    }

    /// What there is in a bucket.
    pub async fn usage(&self, bucket: &BucketName) -> Result<Usage, StateError> {
        let name = bucket.as_str().as_bytes().to_vec();
        self.read(move |txn| Ok(get(&txn.open_table(USAGE)?, "usage", &name)?.unwrap_or_default())).await
    }

    /// The access key of this id.
    pub async fn key(&self, id: &str) -> Result<Option<KeyRecord>, StateError> {
        let id = id.as_bytes().to_vec();
        self.read(move |txn| get(&txn.open_table(KEYS)?, "keys", &id)).await
    }

    /// All access keys, by id.
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, StateError> {
        self.read(|txn| records(&txn.open_table(KEYS)?, "keys", usize::MAX)).await
    }

    /// An upload, also one that was completed a while ago.
    pub async fn upload(
        &self,
        bucket: &BucketName,
        key: &str,
        id: UploadId,
    ) -> Result<Option<UploadRecord>, StateError> {
        let key = upload_key(bucket.as_str(), key, id);
        self.read(move |txn| get(&txn.open_table(UPLOADS)?, "uploads", &key)).await
    }

    /// Up to `limit` objects of any bucket after the one named.
    pub async fn scan(&self, after: Option<(BucketName, String)>, limit: usize) -> Result<Scan, StateError> {
        let from = after.map(|(bucket, key)| object_key(bucket.as_str(), &key));
        self.read(move |txn| scan(txn, from.as_deref(), limit)).await
    }

    /// Up to `limit` versions that wait to be collected, in order.
    pub async fn garbage_versions(&self, limit: usize) -> Result<Vec<Version>, StateError> {
        self.read(move |txn| {
            let mut versions = Vec::new();
            for entry in txn.open_table(GARBAGE)?.range::<&[u8]>(..)?.take(limit) {
                versions.push(split_version_key(entry?.0.value())?);
            }
            Ok(versions)
        })
        .await
    }

    /// What is to be collected of this version.
    pub async fn garbage(&self, version: Version) -> Result<Option<GarbageRecord>, StateError> {
        self.read(move |txn| get(&txn.open_table(GARBAGE)?, "garbage", &version_key(version))).await
    }

    /// Up to `limit` uploads of any bucket after the one named, completed ones included.
    pub async fn scan_uploads(
        &self,
        after: Option<&UploadRecord>,
        limit: usize,
    ) -> Result<Vec<UploadRecord>, StateError> {
        let from = after.map(|upload| upload_key(upload.bucket.as_str(), &upload.key, upload.id));
        self.read(move |txn| {
            let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let mut found = Vec::new();
            for entry in txn.open_table(UPLOADS)?.range::<&[u8]>((from, Bound::Unbounded))?.take(limit) {
                found.push(unseal("uploads", entry?.1.value())?);
            }
            Ok(found)
        })
        .await
    }

    /// When the newest part of an upload was put, as its gateway's wall clock said.
    pub async fn newest_part_ms(&self, bucket: &BucketName, id: UploadId) -> Result<Option<u64>, StateError> {
        let begin = object_key(UPLOADS_BUCKET, &part_prefix(bucket, id));
        self.read(move |txn| {
            let end = behind(&begin).unwrap_or_default();
            let mut newest = None;
            for entry in txn.open_table(OBJECTS)?.range::<&[u8]>(begin.as_slice()..end.as_slice())? {
                let part: ObjectRecord = unseal("objects", entry?.1.value())?;
                newest = newest.max(Some(part.modified_ms));
            }
            Ok(newest)
        })
        .await
    }

    /// Up to `limit` uploads that went with their bucket and still have parts.
    pub async fn leftovers(&self, limit: usize) -> Result<Vec<(BucketName, UploadId)>, StateError> {
        self.read(move |txn| {
            let mut found = Vec::new();
            for entry in txn.open_table(LEFTOVERS)?.range::<&[u8]>(..)?.take(limit) {
                let entry = entry?;
                let (bucket, id) = split_leftover_key(entry.0.value())?;
                found.push((BucketName::from(bucket), id));
            }
            Ok(found)
        })
        .await
    }

    /// Whether this version was given up.
    pub async fn forbidden(&self, version: Version) -> Result<bool, StateError> {
        self.read(move |txn| Ok(txn.open_table(FORBIDDEN)?.get(version_key(version).as_slice())?.is_some())).await
    }

    /// The live object that has this version.
    pub async fn owner_of(&self, version: Version) -> Result<Option<(BucketName, String)>, StateError> {
        self.read(move |txn| {
            let Some(guard) = txn.open_table(VERSIONS)?.get(version_key(version).as_slice())? else { return Ok(None) };
            let (bucket, key) = split_object_key(guard.value())?;
            Ok(Some((BucketName::from(bucket), key.to_owned())))
        })
        .await
    }
}

fn records<T: serde::de::DeserializeOwned>(
    table: &Table,
    name: &'static str,
    limit: usize,
) -> Result<Vec<T>, StateError> {
    let mut found = Vec::new();
    for entry in table.range::<&[u8]>(..)?.take(limit) {
        found.push(unseal(name, entry?.1.value())?);
    }
    Ok(found)
}

fn scan(txn: &ReadTransaction, from: Option<&[u8]>, limit: usize) -> Result<Scan, StateError> {
    let table = txn.open_table(OBJECTS)?;
    let from = from.map_or(Bound::Unbounded, Bound::Excluded);
    let mut scan = Scan { objects: Vec::new(), end: true };
    let mut bytes = 0;
    for entry in table.range::<&[u8]>((from, Bound::Unbounded))? {
        if scan.objects.len() == limit || bytes >= MAX_READ_BYTES {
            scan.end = false;
            break;
        }
        let (key, value) = entry?;
        bytes += value.value().len();
        let (bucket, name) = split_object_key(key.value())?;
        scan.objects.push((BucketName::from(bucket), name.to_owned(), unseal("objects", value.value())?));
    }
    Ok(scan)
}
