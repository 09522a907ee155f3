//! Applying what concerns buckets, and what there is in them.
//!
//! Owns: the tables of buckets and of their usage. Invariant: a bucket's usage is the sum over its objects and the parts
//! of its uploads, changed in the transaction that changes them; a deleted bucket has none.

use redb::ReadableTable;

use super::StateError;
use super::apply::{Stop, Work};
use super::tables::{bucket_end, get, leftover_key, object_key, put, unseal};
use crate::model::{
    BucketRecord, Coding, MAX_UPLOADS_FORGOTTEN, Outcome, Refusal, UPLOADS_BUCKET, UploadRecord, Usage,
};
use crate::types::BucketName;

/// What is to be changed of a bucket.
pub(super) struct Change {
    pub(super) coding: Option<Coding>,
    pub(super) quota_bytes: Option<Option<u64>>,
    pub(super) repair_priority: Option<u8>,
}

pub(super) fn create(work: &mut Work<'_>, bucket: &BucketRecord, if_absent: bool) -> Result<Outcome, Stop> {
    let name = bucket.name.as_str();
    // A zero byte ends the bucket's name within an object's key, a slash within a part's.
    if name.is_empty() || name.contains(['\0', '/']) || name == UPLOADS_BUCKET {
        return Err(Refusal::NoBucket(bucket.name.clone()).into());
    }
    match known(work, &bucket.name)? {
        Some(known) if if_absent => Ok(Outcome::Bucket(known)),
        Some(_) => Err(Refusal::BucketExists(bucket.name.clone()).into()),
        None => {
            put(&mut work.tables.buckets, name.as_bytes(), bucket)?;
            Ok(Outcome::Bucket(bucket.clone()))
        }
    }
}

pub(super) fn delete(work: &mut Work<'_>, bucket: &BucketName) -> Result<Outcome, Stop> {
    demand(work, bucket)?;
    let name = bucket.as_str();
    let (begin, end) = (object_key(name, ""), bucket_end(name));
    let not_empty = || Refusal::BucketNotEmpty(bucket.clone());
    if work.tables.objects.range(begin.as_slice()..end.as_slice())?.next().is_some() {
        return Err(not_empty().into());
    }
    let mut uploads = Vec::new();
    for entry in work.tables.uploads.range(begin.as_slice()..end.as_slice())? {
        if uploads.len() == MAX_UPLOADS_FORGOTTEN {
            return Err(not_empty().into());
        }
        let (key, value) = entry?;
        let record: UploadRecord = unseal("uploads", value.value())?;
        uploads.push((key.value().to_vec(), record));
    }
    for (key, record) in uploads {
        work.tables.uploads.remove(key.as_slice())?;
        if record.completed.is_none() {
            work.tables.leftovers.insert(leftover_key(name, record.id).as_slice(), [].as_slice())?;
        }
    }
    // Who was let into this bucket was not let into the next of its name.
    super::keys::forget_bucket(work, bucket)?;
    work.tables.usage.remove(name.as_bytes())?;
    work.tables.buckets.remove(name.as_bytes())?;
    Ok(Outcome::Done)
}

pub(super) fn set(work: &mut Work<'_>, bucket: &BucketName, change: &Change) -> Result<Outcome, Stop> {
    let mut record = demand(work, bucket)?;
    record.coding = change.coding.unwrap_or(record.coding);
    record.quota_bytes = change.quota_bytes.unwrap_or(record.quota_bytes);
    record.repair_priority = change.repair_priority.unwrap_or(record.repair_priority);
    put(&mut work.tables.buckets, bucket.as_str().as_bytes(), &record)?;
    Ok(Outcome::Bucket(record))
}

pub(super) fn known(work: &Work<'_>, bucket: &BucketName) -> Result<Option<BucketRecord>, StateError> {
    get(&*work.tables.buckets, "buckets", bucket.as_str().as_bytes())
}

pub(super) fn demand(work: &Work<'_>, bucket: &BucketName) -> Result<BucketRecord, Stop> {
    known(work, bucket)?.ok_or_else(|| Refusal::NoBucket(bucket.clone()).into())
}

/// Refuses what would make a bucket larger than its quota. What takes no more room than it replaces is always let in: it
/// is how a bucket over a lowered quota gets below it.
pub(super) fn demand_room(work: &Work<'_>, bucket: &BucketRecord, comes: u64, goes: u64) -> Result<(), Stop> {
    let Some(quota_bytes) = bucket.quota_bytes else { return Ok(()) };
    let used_bytes = usage(work, &bucket.name)?.bytes;
    if comes > goes && used_bytes.saturating_sub(goes).saturating_add(comes) > quota_bytes {
        return Err(Refusal::Quota { bucket: bucket.name.clone(), quota_bytes, used_bytes }.into());
    }
    Ok(())
}

/// Whether there is anything in a bucket.
pub(super) fn is_used(work: &Work<'_>, bucket: &BucketName) -> Result<bool, StateError> {
    Ok(usage(work, bucket)? != Usage::default())
}

fn usage(work: &Work<'_>, bucket: &BucketName) -> Result<Usage, StateError> {
    Ok(get(&*work.tables.usage, "usage", bucket.as_str().as_bytes())?.unwrap_or_default())
}

/// Something came into a bucket, or left it.
pub(super) fn change_usage(
    work: &mut Work<'_>,
    bucket: &BucketName,
    change: impl FnOnce(&mut Usage),
) -> Result<(), StateError> {
    let mut usage = usage(work, bucket)?;
    change(&mut usage);
    put(&mut work.tables.usage, bucket.as_str().as_bytes(), &usage)
}
