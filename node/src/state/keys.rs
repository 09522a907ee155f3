//! Applying what concerns access keys.
//!
//! Owns: the table of keys. Must never: let a secret into an outcome: outcomes are kept and logged.

use redb::{ReadableTable, ReadableTableMetadata};

use super::apply::{Stop, Work};
use super::tables::{get, put, unseal};
use super::{StateError, buckets};
use crate::model::{Grant, KeyRecord, MAX_KEYS, Outcome, Refusal};
use crate::types::BucketName;

pub(super) fn put_key(work: &mut Work<'_>, key: &KeyRecord) -> Result<Outcome, Stop> {
    let known: Option<KeyRecord> = get(&*work.tables.keys, "keys", key.id.as_bytes())?;
    match known {
        Some(known) if known == *key => return Ok(Outcome::Done),
        Some(_) => return Err(Refusal::KeyExists(key.id.clone()).into()),
        None => {}
    }
    if work.tables.keys.len()? >= MAX_KEYS as u64 {
        return Err(Refusal::TooManyKeys(MAX_KEYS).into());
    }
    put(&mut work.tables.keys, key.id.as_bytes(), key)?;
    Ok(Outcome::Done)
}

pub(super) fn revoke(work: &mut Work<'_>, id: &str) -> Result<Outcome, Stop> {
    match work.tables.keys.remove(id.as_bytes())? {
        true => Ok(Outcome::Done),
        false => Err(Refusal::NoKey(id.to_owned()).into()),
    }
}

pub(super) fn grant(work: &mut Work<'_>, id: &str, bucket: &BucketName, grant: Option<Grant>) -> Result<Outcome, Stop> {
    let known: Option<KeyRecord> = get(&*work.tables.keys, "keys", id.as_bytes())?;
    let Some(mut key) = known else { return Err(Refusal::NoKey(id.to_owned()).into()) };
    buckets::demand(work, bucket)?;
    match grant {
        Some(grant) => drop(key.grants.insert(bucket.clone(), grant)),
        None => drop(key.grants.remove(bucket)),
    }
    put(&mut work.tables.keys, id.as_bytes(), &key)?;
    Ok(Outcome::Done)
}

/// A bucket goes: nobody is granted anything in it any more.
pub(super) fn forget_bucket(work: &mut Work<'_>, bucket: &BucketName) -> Result<(), StateError> {
    let mut changed = Vec::new();
    for entry in work.tables.keys.range::<&[u8]>(..)? {
        let mut key: KeyRecord = unseal("keys", entry?.1.value())?;
        if key.grants.remove(bucket).is_some() {
            changed.push(key);
        }
    }
    for key in changed {
        put(&mut work.tables.keys, key.id.as_bytes(), &key)?;
    }
    Ok(())
}
