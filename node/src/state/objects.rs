//! Applying what concerns objects: put, delete, moved shards, versions given up.
//!
//! Owns: the tables of objects, versions and garbage. Invariants: a version is owned by one live object, or by garbage, or
//! by nobody, never by two; a forbidden version has no owner and never gets one. An object owns its own version and every
//! version its extents are named by.

use redb::ReadableTable;

use super::StateError;
use super::apply::{Stop, Work};
use super::buckets::{change_usage, demand, demand_room};
use super::tables::{get, object_key, put, version_key};
use crate::model::{
    Condition, DiskState, GarbageRecord, Home, HomeMove, MAX_DELETES, MAX_PUT_BYTES, ObjectRecord, Outcome, Refusal,
};
use crate::types::{BucketName, DiskId, Version};

/// Which object, under which condition, and when.
pub(super) struct At<'a> {
    pub(super) bucket: &'a BucketName,
    pub(super) key: &'a str,
    pub(super) condition: Condition,
    pub(super) now_ms: u64,
}

pub(super) fn put_object(work: &mut Work<'_>, at: &At<'_>, object: &ObjectRecord) -> Result<Outcome, Stop> {
    let bucket = demand(work, at.bucket)?;
    let key = object_key(at.bucket.as_str(), at.key);
    if obeyed(work, object, &key)? {
        return Ok(Outcome::Put { replaced: None });
    }
    if object.size_bytes > MAX_PUT_BYTES {
        return Err(Refusal::TooLarge { bytes: object.size_bytes, limit: MAX_PUT_BYTES }.into());
    }
    let present: Option<ObjectRecord> = get(&*work.tables.objects, "objects", &key)?;
    judge(at.condition, present.as_ref())?;
    demand_room(work, &bucket, object.size_bytes, present.as_ref().map_or(0, |old| old.size_bytes))?;
    let object = &as_placed(work, object)?;

    let replaced = present.as_ref().map(|old| old.version);
    if let Some(old) = present {
        discard_object(work, at.bucket, old, at.now_ms)?;
    }
    work.totals.counts.add_object();
    work.totals.counts.add_shards(object);
    work.told.live(object);
    change_usage(work, at.bucket, |usage| {
        usage.objects += 1;
        usage.bytes = usage.bytes.saturating_add(object.size_bytes);
    })?;
    own(work, &key, object)?;
    Ok(Outcome::Put { replaced })
}

/// The content as it is now: an upload may have taken so long that disks were given up under it, and what is on those counts as
/// missing. Refused when too little is left to read it.
pub(super) fn as_placed(work: &Work<'_>, object: &ObjectRecord) -> Result<ObjectRecord, Refusal> {
    let mut object = object.clone();
    let lost = |at: &DiskId| work.map.disks.get(at).is_none_or(|disk| disk.state == DiskState::Out);
    for extent in &mut object.extents {
        for home in extent.homes.iter_mut().filter(|home| home.at.as_ref().is_some_and(lost)) {
            home.at = None;
        }
        if extent.homes.iter().filter(|home| home.at.is_some()).count() < usize::from(object.coding.k) {
            return Err(Refusal::Forbidden);
        }
    }
    Ok(object)
}

pub(super) fn delete_object(work: &mut Work<'_>, at: &At<'_>) -> Result<Outcome, Stop> {
    demand(work, at.bucket)?;
    Ok(Outcome::Deleted { existed: delete(work, at)? })
}

pub(super) fn delete_many(
    work: &mut Work<'_>,
    bucket: &BucketName,
    keys: &[String],
    now_ms: u64,
) -> Result<Outcome, Stop> {
    demand(work, bucket)?;
    if keys.len() > MAX_DELETES {
        return Err(Refusal::TooLarge { bytes: keys.len() as u64, limit: MAX_DELETES as u64 }.into());
    }
    let mut existed = Vec::with_capacity(keys.len());
    for key in keys {
        existed.push(delete(work, &At { bucket, key, condition: Condition::None, now_ms })?);
    }
    Ok(Outcome::DeletedMany(existed))
}

fn delete(work: &mut Work<'_>, at: &At<'_>) -> Result<bool, Stop> {
    let key = object_key(at.bucket.as_str(), at.key);
    let present: Option<ObjectRecord> = get(&*work.tables.objects, "objects", &key)?;
    judge(at.condition, present.as_ref())?;
    let Some(old) = present else { return Ok(false) };
    work.tables.objects.remove(key.as_slice())?;
    discard_object(work, at.bucket, old, at.now_ms)?;
    Ok(true)
}

/// The extent is looked for in whatever object it belongs to now: a part may have become an object while its shard was
/// rebuilt.
pub(super) fn set_home(work: &mut Work<'_>, change: &HomeMove) -> Result<Outcome, Stop> {
    let shard = change.shard;
    for disk in change.at.iter().chain([&change.wanted]) {
        if !work.map.disks.contains_key(disk) {
            return Err(Refusal::NoDisk(*disk).into());
        }
    }
    let Some(key) = owner(work, &version_key(shard.version))? else { return Err(Refusal::NoObject.into()) };
    let present: Option<ObjectRecord> = get(&*work.tables.objects, "objects", &key)?;
    let Some(mut object) = present else { return Err(Refusal::NoObject.into()) };
    let extent = object.position(shard.extent_id()).and_then(|at| object.extents.get_mut(at));
    // Never two shards of an extent on one disk: another was put there a moment ago.
    let others = extent.iter().flat_map(|extent| extent.homes.iter().enumerate());
    let mut taken = others.filter(|(at, _)| *at != shard.shard.as_usize()).filter_map(|(_, home)| home.at);
    if change.at.is_some_and(|disk| taken.any(|other| other == disk)) {
        return Err(Refusal::Moved.into());
    }
    let Some(home) = extent.and_then(|extent| extent.homes.get_mut(shard.shard.as_usize())) else {
        return Err(Refusal::NoObject.into());
    };
    if home.at != change.expected {
        return Err(Refusal::Moved.into());
    }
    let was = std::mem::replace(home, Home { at: change.at, wanted: change.wanted });
    work.totals.counts.moved(was.at, change.at);
    work.told.moved(&object, shard, was.at, change.at);
    put(&mut work.tables.objects, &key, &object)?;
    Ok(Outcome::Done)
}

/// Each for itself.
pub(super) fn set_homes(work: &mut Work<'_>, changes: &[HomeMove]) -> Result<Outcome, Stop> {
    let mut refused = Vec::with_capacity(changes.len());
    for change in changes {
        refused.push(match set_home(work, change) {
            Ok(_) => None,
            Err(Stop::Refused(refusal)) => Some(refusal),
            Err(stop) => return Err(stop),
        });
    }
    Ok(Outcome::HomesSet(refused))
}

pub(super) fn forbid_version(work: &mut Work<'_>, version: Version) -> Result<Outcome, Stop> {
    let key = version_key(version);
    // The upload won the race after all: its shards are an object's now.
    if owner(work, &key)?.is_some() {
        return Err(Refusal::Condition { at: Some(version) }.into());
    }
    let garbage: Option<GarbageRecord> = get(&*work.tables.garbage, "garbage", &key)?;
    work.tables.garbage.remove(key.as_slice())?;
    if let Some(garbage) = &garbage {
        work.told.forbidden(&garbage.object);
    }
    let versions = garbage.map_or_else(|| [version].into(), |garbage| garbage.object.versions());
    for version in versions {
        work.tables.forbidden.insert(version_key(version).as_slice(), [].as_slice())?;
    }
    Ok(Outcome::Done)
}

pub(super) fn judge(condition: Condition, present: Option<&ObjectRecord>) -> Result<(), Stop> {
    let at = present.map(|object| object.version);
    if condition.holds(present) { Ok(()) } else { Err(Refusal::Condition { at }.into()) }
}

/// Whether the commit of an upload of content was obeyed before (it comes again through another session, after an unknown
/// outcome). One that may not be obeyed is refused.
pub(super) fn obeyed(work: &Work<'_>, object: &ObjectRecord, key: &[u8]) -> Result<bool, Stop> {
    let version = version_key(object.version);
    // Extents of other versions are another upload's: nobody may have them twice.
    let foreign = object.extents.iter().any(|extent| extent.id.version != object.version);
    if foreign || is_forbidden(work, object.version)? {
        return Err(Refusal::Forbidden.into());
    }
    match owner(work, &version)? {
        Some(holder) if holder == key => Ok(true),
        Some(_) => Err(Refusal::Forbidden.into()),
        None => Ok(work.tables.garbage.get(version.as_slice())?.is_some()),
    }
}

pub(super) fn is_forbidden(work: &Work<'_>, version: Version) -> Result<bool, StateError> {
    Ok(work.tables.forbidden.get(version_key(version).as_slice())?.is_some())
}

/// The key of the live object that has this version.
pub(super) fn owner(work: &Work<'_>, version: &[u8; 16]) -> Result<Option<Vec<u8>>, StateError> {
    Ok(work.tables.versions.get(version.as_slice())?.map(|guard| guard.value().to_vec()))
}

/// The object is live under this key.
pub(super) fn own(work: &mut Work<'_>, key: &[u8], object: &ObjectRecord) -> Result<(), StateError> {
    put(&mut work.tables.objects, key, object)?;
    for version in object.versions() {
        work.tables.versions.insert(version_key(version).as_slice(), key)?;
    }
    Ok(())
}

/// A live object of a bucket becomes garbage. Its key is the caller's to take away, or to give to another.
pub(super) fn discard_object(
    work: &mut Work<'_>,
    bucket: &BucketName,
    object: ObjectRecord,
    now_ms: u64,
) -> Result<(), StateError> {
    work.totals.counts.remove_object();
    change_usage(work, bucket, |usage| {
        usage.objects = usage.objects.saturating_sub(1);
        usage.bytes = usage.bytes.saturating_sub(object.size_bytes);
    })?;
    discard(work, object, now_ms)
}

/// Content becomes garbage: its shards stay readable for those who are still reading it.
pub(super) fn discard(work: &mut Work<'_>, object: ObjectRecord, now_ms: u64) -> Result<(), StateError> {
    work.totals.counts.remove_shards(&object);
    work.told.discarded(&object);
    for version in object.versions() {
        work.tables.versions.remove(version_key(version).as_slice())?;
    }
    let version = version_key(object.version);
    put(&mut work.tables.garbage, &version, &GarbageRecord { object, replaced_ms: now_ms })
}
