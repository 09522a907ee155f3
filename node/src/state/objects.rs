//! Applying what concerns objects: put, delete, moved shards, versions given up.
//!
//! Owns: the tables of objects, versions and garbage. Invariants: a version is live under one key, or garbage, or
//! neither, never both; a forbidden version is neither and never comes back.

use redb::ReadableTable;

use super::StateError;
use super::apply::{Stop, Work};
use super::tables::{get, object_key, put, version_key};
use crate::model::{BucketRecord, Condition, GarbageRecord, Home, ObjectRecord, Outcome, Refusal};
use crate::types::{BucketName, DiskId, ExtentIndex, ShardIndex, Version};

/// Which object, under which condition, and when.
pub(super) struct At<'a> {
    pub(super) bucket: &'a BucketName,
    pub(super) key: &'a str,
    pub(super) condition: Condition,
    pub(super) now_ms: u64,
}

/// One shard of one version.
pub(super) struct Shard {
    pub(super) version: Version,
    pub(super) extent: ExtentIndex,
    pub(super) shard: ShardIndex,
}

/// A shard's move.
pub(super) struct Change {
    pub(super) expected: Option<DiskId>,
    pub(super) at: Option<DiskId>,
    pub(super) wanted: DiskId,
}

pub(super) fn put_object(work: &mut Work<'_>, at: &At<'_>, object: &ObjectRecord) -> Result<Outcome, Stop> {
    demand_bucket(work, at.bucket)?;
    let key = object_key(at.bucket.as_str(), at.key);
    let version = version_key(object.version);
    if work.tables.forbidden.get(version.as_slice())?.is_some() {
        return Err(Refusal::Forbidden.into());
    }
    // A commit that comes again (through another session, after an unknown outcome) was already obeyed.
    if let Some(holder) = live_key(work, &version)? {
        return if holder == key { Ok(Outcome::Put { replaced: None }) } else { Err(Refusal::Forbidden.into()) };
    }
    if work.tables.garbage.get(version.as_slice())?.is_some() {
        return Ok(Outcome::Put { replaced: None });
    }
    let present: Option<ObjectRecord> = get(&work.tables.objects, "objects", &key)?;
    judge(at.condition, present.as_ref())?;

    let replaced = present.as_ref().map(|old| old.version);
    if let Some(old) = present {
        discard(work, old, at.now_ms)?;
    }
    work.totals.counts.add(object);
    put(&mut work.tables.objects, &key, object)?;
    work.tables.versions.insert(version.as_slice(), key.as_slice())?;
    Ok(Outcome::Put { replaced })
}

pub(super) fn delete_object(work: &mut Work<'_>, at: &At<'_>) -> Result<Outcome, Stop> {
    demand_bucket(work, at.bucket)?;
    let key = object_key(at.bucket.as_str(), at.key);
    let present: Option<ObjectRecord> = get(&work.tables.objects, "objects", &key)?;
    judge(at.condition, present.as_ref())?;
    let Some(old) = present else { return Ok(Outcome::Deleted { existed: false }) };
    work.tables.objects.remove(key.as_slice())?;
    discard(work, old, at.now_ms)?;
    Ok(Outcome::Deleted { existed: true })
}

pub(super) fn set_home(
    work: &mut Work<'_>,
    bucket: &BucketName,
    key: &str,
    shard: &Shard,
    change: &Change,
) -> Result<Outcome, Stop> {
    for disk in change.at.iter().chain([&change.wanted]) {
        if !work.map.disks.contains_key(disk) {
            return Err(Refusal::NoDisk(*disk).into());
        }
    }
    let key = object_key(bucket.as_str(), key);
    let present: Option<ObjectRecord> = get(&work.tables.objects, "objects", &key)?;
    let Some(mut object) = present.filter(|object| object.version == shard.version) else {
        return Err(Refusal::NoObject.into());
    };
    let extent = usize::try_from(shard.extent.0).ok().and_then(|index| object.extents.get_mut(index));
    let Some(home) = extent.and_then(|extent| extent.homes.get_mut(shard.shard.as_usize())) else {
        return Err(Refusal::NoObject.into());
    };
    if home.at != change.expected {
        return Err(Refusal::Moved.into());
    }
    let was = std::mem::replace(home, Home { at: change.at, wanted: change.wanted });
    work.totals.counts.moved(was.at, change.at);
    put(&mut work.tables.objects, &key, &object)?;
    Ok(Outcome::Done)
}

pub(super) fn forbid_version(work: &mut Work<'_>, version: Version) -> Result<Outcome, Stop> {
    let key = version_key(version);
    // The upload won the race after all: its shards are an object's now.
    if live_key(work, &key)?.is_some() {
        return Err(Refusal::Condition { at: Some(version) }.into());
    }
    work.tables.garbage.remove(key.as_slice())?;
    work.tables.forbidden.insert(key.as_slice(), [].as_slice())?;
    Ok(Outcome::Done)
}

fn demand_bucket(work: &Work<'_>, bucket: &BucketName) -> Result<(), Stop> {
    let known: Option<BucketRecord> = get(&work.tables.buckets, "buckets", bucket.as_str().as_bytes())?;
    known.map(|_| ()).ok_or_else(|| Refusal::NoBucket(bucket.clone()).into())
}

fn judge(condition: Condition, present: Option<&ObjectRecord>) -> Result<(), Stop> {
    let at = present.map(|object| object.version);
    let holds = match condition {
        Condition::None => true,
        Condition::Absent => at.is_none(),
        Condition::Version(version) => at == Some(version),
    };
    if holds { Ok(()) } else { Err(Refusal::Condition { at }.into()) }
}

/// A live object becomes garbage: its shards stay readable for those who are still reading it.
fn discard(work: &mut Work<'_>, object: ObjectRecord, now_ms: u64) -> Result<(), StateError> {
    let version = version_key(object.version);
    work.totals.counts.remove(&object);
    work.tables.versions.remove(version.as_slice())?;
    put(&mut work.tables.garbage, &version, &GarbageRecord { object, replaced_ms: now_ms })
}

fn live_key(work: &Work<'_>, version: &[u8; 16]) -> Result<Option<Vec<u8>>, StateError> {
    Ok(work.tables.versions.get(version.as_slice())?.map(|guard| guard.value().to_vec()))
}
