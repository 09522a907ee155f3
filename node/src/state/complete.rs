//! Applying the completion of an upload: the lists of its parts' extents become one object's.
//!
//! Invariants: nothing is changed before everything named was found as named; what the parts owned, the object owns, in
//! one transaction, so that no shard is nobody's in between.

use std::collections::BTreeSet;

use md5::{Digest, Md5};
use redb::ReadableTable;
use resilver_host::audit::{self, Fact};

use super::apply::{Stop, Work};
use super::buckets::{change_usage, demand};
use super::objects::{At, discard_object, is_forbidden, judge, own, owner};
use super::tables::{get, object_key, put, upload_key, version_key};
use super::uploads::{demand_upload, drop_part, part, part_keys};
use crate::model::{
    Attributes, BLOCK_BYTES, CompletedUpload, ETag, ExtentRecord, MAX_OBJECT_BYTES, MIN_PART_BYTES, ObjectRecord,
    Outcome, PartRecord, Refusal, StoredChecksum, UploadRecord,
};
use crate::types::{UploadId, Version};

/// What a completion names.
pub(super) struct Complete<'a> {
    pub(super) upload: UploadId,
    pub(super) parts: &'a [(u16, ETag)],
    pub(super) version: Version,
    pub(super) checksum: Option<&'a StoredChecksum>,
}

pub(super) fn complete(work: &mut Work<'_>, at: &At<'_>, complete: &Complete<'_>) -> Result<Outcome, Stop> {
    demand(work, at.bucket)?;
    let upload = demand_upload(work, at, complete.upload)?;
    let etag = etag_of(complete.parts)?;
    if let Some(done) = upload.completed {
        // The same again is answered the same; another list of parts comes too late.
        return if done.etag == etag { Ok(Outcome::Completed(done)) } else { Err(Refusal::NoUpload.into()) };
    }
    let version = version_key(complete.version);
    let taken = owner(work, &version)?.is_some() || work.tables.garbage.get(version.as_slice())?.is_some();
    if taken || is_forbidden(work, complete.version)? {
        return Err(Refusal::Forbidden.into());
    }
    let joined = join(work, at, complete)?;
    let key = object_key(at.bucket.as_str(), at.key);
    let present: Option<ObjectRecord> = get(&*work.tables.objects, "objects", &key)?;
    judge(at.condition, present.as_ref())?;

    if let Some(old) = present {
        discard_object(work, at.bucket, old, at.now_ms)?;
    }
    take_parts(work, at, complete, &joined)?;
    let object = ObjectRecord {
        version: complete.version,
        size_bytes: joined.size_bytes,
        crc32c: joined.crc32c,
        modified_ms: at.now_ms,
        coding: upload.coding,
        block_bytes: BLOCK_BYTES,
        extents: joined.extents,
        etag,
        attributes: Attributes { checksum: complete.checksum.cloned(), ..upload.attributes.clone() },
        parts: joined.parts,
    };
    // Bytes and shards are counted already, as the parts'.
    work.totals.counts.add_object();
    change_usage(work, at.bucket, |usage| usage.objects += 1)?;
    own(work, &key, &object)?;
    work.told.joined(&object);
    audit::state(|| Fact::ObjectCompleted {
        version: object.version.to_string(),
        extents: object.extents.iter().map(|extent| extent.id.to_string()).collect(),
    });
    let done = CompletedUpload {
        version: object.version,
        etag,
        size_bytes: object.size_bytes,
        checksum: object.attributes.checksum,
    };
    let record = UploadRecord { completed: Some(done.clone()), ..upload };
    put(&mut work.tables.uploads, &upload_key(at.bucket.as_str(), at.key, complete.upload), &record)?;
    Ok(Outcome::Completed(done))
}

/// The ETag of an object of these parts. Refuses a list that is none.
fn etag_of(parts: &[(u16, ETag)]) -> Result<ETag, Stop> {
    let mut md5 = Md5::new();
    let mut last = 0;
    for (number, etag) in parts {
        let ETag::Content(content) = etag else { return Err(Refusal::InvalidPart { number: *number }.into()) };
        if *number <= last {
            return Err(Refusal::InvalidPart { number: *number }.into());
        }
        last = *number;
        md5.update(content);
    }
    match u16::try_from(parts.len()) {
        Ok(count) if count > 0 => Ok(ETag::Parts { md5: md5.finalize().into(), parts: count }),
        _ => Err(Refusal::InvalidPart { number: 0 }.into()),
    }
}

/// The parts as one content.
#[derive(Default)]
struct Joined {
    size_bytes: u64,
    crc32c: u32,
    extents: Vec<ExtentRecord>,
    parts: Vec<PartRecord>,
    /// Versions of parts without content: no extent will name them.
    empty: Vec<Version>,
}

fn join(work: &Work<'_>, at: &At<'_>, complete: &Complete<'_>) -> Result<Joined, Stop> {
    let mut joined = Joined::default();
    let last = complete.parts.last().map(|(number, _)| *number);
    for (number, etag) in complete.parts {
        let number = *number;
        let key = part(at.bucket, complete.upload, number);
        let found: Option<ObjectRecord> = get(&*work.tables.objects, "objects", &key)?;
        let Some(found) = found.filter(|found| found.etag == *etag && found.block_bytes == BLOCK_BYTES) else {
            return Err(Refusal::InvalidPart { number }.into());
        };
        if found.size_bytes < MIN_PART_BYTES && Some(number) != last {
            return Err(Refusal::PartTooSmall { number }.into());
        }
        joined.size_bytes = joined.size_bytes.saturating_add(found.size_bytes);
        if joined.size_bytes > MAX_OBJECT_BYTES {
            return Err(Refusal::TooLarge { bytes: joined.size_bytes, limit: MAX_OBJECT_BYTES }.into());
        }
        let len = usize::try_from(found.size_bytes).unwrap_or(usize::MAX);
        joined.crc32c = crc32c::crc32c_combine(joined.crc32c, found.crc32c, len);
        if found.extents.is_empty() {
            joined.empty.push(found.version);
        }
        joined.extents.extend(found.extents);
        let checksum = found.attributes.checksum.map(|checksum| checksum.value);
        joined.parts.push(PartRecord { number, size_bytes: found.size_bytes, checksum });
    }
    Ok(joined)
}

/// The parts are parts no more: those named give their content away, the others are garbage.
fn take_parts(work: &mut Work<'_>, at: &At<'_>, complete: &Complete<'_>, joined: &Joined) -> Result<(), Stop> {
    let named: BTreeSet<Vec<u8>> =
        complete.parts.iter().map(|(number, _)| part(at.bucket, complete.upload, *number)).collect();
    for key in part_keys(work, at.bucket, complete.upload, usize::MAX)? {
        if named.contains(&key) {
            work.tables.objects.remove(key.as_slice())?;
            work.totals.counts.parts = work.totals.counts.parts.saturating_sub(1);
        } else {
            drop_part(work, Some(at.bucket), &key, at.now_ms)?;
        }
    }
    for version in &joined.empty {
        work.tables.versions.remove(version_key(*version).as_slice())?;
    }
    Ok(())
}
