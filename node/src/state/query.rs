//! Reading the state: each answer comes from one read transaction, so it is the state at one applied index.
//!
//! Must never: hold a read transaction across an await: it would pin old pages of the database.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction};

use super::tables::{
    BUCKETS, CLUSTER, FORBIDDEN, GARBAGE, KEY_APPLIED, OBJECTS, VERSIONS, bucket_end, get, object_key,
    split_object_key, unseal, version_key,
};
use super::{Applied, State, StateError};
use crate::model::{BucketRecord, GarbageRecord, ObjectRecord};
use crate::types::{BucketName, Version};

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// One page of a listing, as of one applied index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Key and record, in byte order of the keys.
    pub objects: Vec<(String, ObjectRecord)>,
    /// Whether there are more: go on after the last key.
    pub truncated: bool,
    /// The applied index it shows.
    pub applied: u64,
}

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

    /// Up to `limit` objects of a bucket whose keys begin with `prefix` and come after `after`.
    pub async fn list(&self, bucket: &BucketName, prefix: &str, after: &str, limit: usize) -> Result<Page, StateError> {
        let bucket = bucket.as_str().to_owned();
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.read(move |txn| list(txn, &bucket, &prefix, &after, limit)).await
    }

    /// Up to `limit` objects of any bucket after the one named.
    pub async fn scan(&self, after: Option<(BucketName, String)>, limit: usize) -> Result<Scan, StateError> {
        let from = after.map(|(bucket, key)| object_key(bucket.as_str(), &key));
        self.read(move |txn| scan(txn, from.as_deref(), limit)).await
    }

    /// Up to `limit` versions that wait to be collected.
    pub async fn garbage(&self, limit: usize) -> Result<Vec<GarbageRecord>, StateError> {
        self.read(move |txn| records(&txn.open_table(GARBAGE)?, "garbage", limit)).await
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

fn list(txn: &ReadTransaction, bucket: &str, prefix: &str, after: &str, limit: usize) -> Result<Page, StateError> {
    let applied: Option<Applied> = get(&txn.open_table(CLUSTER)?, "cluster", KEY_APPLIED)?;
    let table = txn.open_table(OBJECTS)?;
    let begin = object_key(bucket, prefix);
    let passed = object_key(bucket, after);
    let end = bucket_end(bucket);
    let from = if !after.is_empty() && passed >= begin {
        Bound::Excluded(passed.as_slice())
    } else {
        Bound::Included(begin.as_slice())
    };
    let mut page = Page { objects: Vec::new(), truncated: false, applied: applied.map_or(0, |applied| applied.index) };
    // A key past the bucket's last would turn the range around.
    if passed >= end {
        return Ok(page);
    }
    for entry in table.range::<&[u8]>((from, Bound::Excluded(end.as_slice())))? {
        let (key, value) = entry?;
        if !key.value().starts_with(&begin) {
            break;
        }
        if page.objects.len() == limit {
            page.truncated = true;
            break;
        }
        let (_, name) = split_object_key(key.value())?;
        page.objects.push((name.to_owned(), unseal("objects", value.value())?));
    }
    Ok(page)
}

fn scan(txn: &ReadTransaction, from: Option<&[u8]>, limit: usize) -> Result<Scan, StateError> {
    let table = txn.open_table(OBJECTS)?;
    let from = from.map_or(Bound::Unbounded, Bound::Excluded);
    let mut scan = Scan { objects: Vec::new(), end: true };
    for entry in table.range::<&[u8]>((from, Bound::Unbounded))? {
        if scan.objects.len() == limit {
            scan.end = false;
            break;
        }
        let (key, value) = entry?;
        let (bucket, name) = split_object_key(key.value())?;
        scan.objects.push((BucketName::from(bucket), name.to_owned(), unseal("objects", value.value())?));
    }
    Ok(scan)
}
