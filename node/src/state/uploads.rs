//! Applying what concerns uploads in parts, up to their completion ([`super::complete`]).
//!
//! Owns: the tables of uploads and leftovers. A part is an object in [`UPLOADS_BUCKET`], whose versions are its own until
//! the completed object takes them over. Invariants: a live part belongs to an upload, or to a leftover; the parts of an
//! upload count for its bucket, those of a leftover for none.

use redb::ReadableTable;

use super::StateError;
use super::apply::{Stop, Work};
use super::buckets::{change_usage, demand, demand_room};
use super::objects::{At, as_placed, discard, obeyed, own};
use super::tables::{behind, get, leftover_key, object_key, put, split_object_key, upload_key};
use crate::model::{
    MAX_PART_BYTES, MAX_PART_NUMBER, MAX_PARTS_DROPPED, ObjectRecord, Outcome, Refusal, UPLOADS_BUCKET, UploadRecord,
    part_key, part_prefix,
};
use crate::types::{BucketName, UploadId};

pub(super) fn create(work: &mut Work<'_>, upload: &UploadRecord) -> Result<Outcome, Stop> {
    demand(work, &upload.bucket)?;
    let key = upload_key(upload.bucket.as_str(), &upload.key, upload.id);
    if work.tables.uploads.get(key.as_slice())?.is_none() {
        put(&mut work.tables.uploads, &key, &UploadRecord { completed: None, ..upload.clone() })?;
    }
    Ok(Outcome::Done)
}

pub(super) fn put_part(
    work: &mut Work<'_>,
    at: &At<'_>,
    upload: UploadId,
    number: u16,
    object: &ObjectRecord,
) -> Result<Outcome, Stop> {
    let bucket = demand(work, at.bucket)?;
    let key = part(at.bucket, upload, number);
    if obeyed(work, object, &key)? {
        return Ok(Outcome::Put { replaced: None });
    }
    let record = demand_upload(work, at, upload)?;
    if record.completed.is_some() {
        return Err(Refusal::NoUpload.into());
    }
    // An object has one coding: joining lists must need no recoding.
    if number == 0 || number > MAX_PART_NUMBER || object.coding != record.coding {
        return Err(Refusal::InvalidPart { number }.into());
    }
    if object.size_bytes > MAX_PART_BYTES {
        return Err(Refusal::TooLarge { bytes: object.size_bytes, limit: MAX_PART_BYTES }.into());
    }
    let present: Option<ObjectRecord> = get(&*work.tables.objects, "objects", &key)?;
    demand_room(work, &bucket, object.size_bytes, present.as_ref().map_or(0, |old| old.size_bytes))?;
    let object = &as_placed(work, object)?;

    let replaced = present.as_ref().map(|old| old.version);
    if let Some(old) = present {
        discard_part(work, Some(at.bucket), old, at.now_ms)?;
    }
    work.totals.counts.parts += 1;
    work.totals.counts.add_shards(object);
    work.told.live(object);
    change_usage(work, at.bucket, |usage| usage.bytes = usage.bytes.saturating_add(object.size_bytes))?;
    own(work, &key, object)?;
    Ok(Outcome::Put { replaced })
}

pub(super) fn abort(work: &mut Work<'_>, at: &At<'_>, upload: UploadId) -> Result<Outcome, Stop> {
    let record = demand_upload(work, at, upload)?;
    if record.completed.is_some() {
        return Err(Refusal::NoUpload.into());
    }
    for key in part_keys(work, at.bucket, upload, usize::MAX)? {
        drop_part(work, Some(at.bucket), &key, at.now_ms)?;
    }
    work.tables.uploads.remove(upload_key(at.bucket.as_str(), at.key, upload).as_slice())?;
    Ok(Outcome::Done)
}

pub(super) fn forget(work: &mut Work<'_>, bucket: &BucketName, key: &str, upload: UploadId) -> Result<Outcome, Stop> {
    let key = upload_key(bucket.as_str(), key, upload);
    let known: Option<UploadRecord> = get(&*work.tables.uploads, "uploads", &key)?;
    match known {
        // Still at work: its parts are not to be forgotten.
        Some(record) if record.completed.is_none() => Err(Refusal::NoUpload.into()),
        Some(_) => {
            work.tables.uploads.remove(key.as_slice())?;
            Ok(Outcome::Done)
        }
        None => Ok(Outcome::Done),
    }
}

pub(super) fn drop_parts(
    work: &mut Work<'_>,
    bucket: &BucketName,
    upload: UploadId,
    now_ms: u64,
) -> Result<Outcome, Stop> {
    let leftover = leftover_key(bucket.as_str(), upload);
    if work.tables.leftovers.get(leftover.as_slice())?.is_none() {
        return Ok(Outcome::Dropped { more: false });
    }
    let keys = part_keys(work, bucket, upload, MAX_PARTS_DROPPED)?;
    let more = keys.len() == MAX_PARTS_DROPPED;
    for key in keys {
        // The bucket they counted for went with its usage; one of that name by now is another.
        drop_part(work, None, &key, now_ms)?;
    }
    if !more {
        work.tables.leftovers.remove(leftover.as_slice())?;
    }
    Ok(Outcome::Dropped { more })
}

pub(super) fn demand_upload(work: &Work<'_>, at: &At<'_>, upload: UploadId) -> Result<UploadRecord, Stop> {
    let key = upload_key(at.bucket.as_str(), at.key, upload);
    let known: Option<UploadRecord> = get(&*work.tables.uploads, "uploads", &key)?;
    known.ok_or_else(|| Refusal::NoUpload.into())
}

/// The key of a part in the table of objects.
pub(super) fn part(bucket: &BucketName, upload: UploadId, number: u16) -> Vec<u8> {
    object_key(UPLOADS_BUCKET, &part_key(bucket, upload, number))
}

/// The keys of up to `limit` parts of an upload.
pub(super) fn part_keys(
    work: &Work<'_>,
    bucket: &BucketName,
    upload: UploadId,
    limit: usize,
) -> Result<Vec<Vec<u8>>, StateError> {
    let begin = object_key(UPLOADS_BUCKET, &part_prefix(bucket, upload));
    let end = behind(&begin).unwrap_or_default();
    let mut keys = Vec::new();
    for entry in work.tables.objects.range(begin.as_slice()..end.as_slice())?.take(limit) {
        keys.push(entry?.0.value().to_vec());
    }
    Ok(keys)
}

/// Makes garbage of the part under `key`, which counted for `bucket`.
pub(super) fn drop_part(
    work: &mut Work<'_>,
    bucket: Option<&BucketName>,
    key: &[u8],
    now_ms: u64,
) -> Result<(), StateError> {
    let object: Option<ObjectRecord> = get(&*work.tables.objects, "objects", key)?;
    let Some(object) = object else { return Ok(()) };
    work.tables.objects.remove(key)?;
    discard_part(work, bucket, object, now_ms)
}

fn discard_part(
    work: &mut Work<'_>,
    bucket: Option<&BucketName>,
    object: ObjectRecord,
    now_ms: u64,
) -> Result<(), StateError> {
    work.totals.counts.parts = work.totals.counts.parts.saturating_sub(1);
    if let Some(bucket) = bucket {
        change_usage(work, bucket, |usage| usage.bytes = usage.bytes.saturating_sub(object.size_bytes))?;
    }
    discard(work, object, now_ms)
}

/// The number of the part under this key of the table of objects.
pub(super) fn part_number(key: &[u8]) -> Result<u16, StateError> {
    let (_, name) = split_object_key(key)?;
    let number = name.rsplit('/').next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| StateError::Corrupt { table: "objects", detail: format!("a part named {name:?}") })
}
