//! The tables of the state machine and how records lie in them.
//!
//! Owns: table names, keys, and the sealing of values. Invariants: every table maps bytes to bytes, with keys written so
//! that their byte order is the order we read in (that is what lets a snapshot copy any table without knowing it); every
//! value ends in a CRC32C of what is before it, checked on every read; `LOCAL` belongs to this node and never travels.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StateError;
use super::merkle::{Kept, Tree};
use crate::types::{UploadId, Version};

/// A table of bytes.
pub(super) type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
/// Such a table, open for writing.
pub(super) type Open<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// What belongs to this node alone: format and owner.
pub(super) const LOCAL: Definition = TableDefinition::new("local");
/// Single records: map, totals, what was applied.
pub(super) const CLUSTER: Definition = TableDefinition::new("cluster");
/// Bucket name to its record.
pub(super) const BUCKETS: Definition = TableDefinition::new("buckets");
/// [`object_key`] to the object's record.
pub(super) const OBJECTS: Definition = TableDefinition::new("objects");
/// Every version that names shards of a live object, and the object's own, to the [`object_key`] of that object.
pub(super) const VERSIONS: Definition = TableDefinition::new("versions");
/// Version to what was replaced or deleted.
pub(super) const GARBAGE: Definition = TableDefinition::new("garbage");
/// Versions that may never be put any more.
pub(super) const FORBIDDEN: Definition = TableDefinition::new("forbidden");
/// (session, sequence) to the outcome.
pub(super) const OUTCOMES: Definition = TableDefinition::new("outcomes");
/// Session to what is known of it.
pub(super) const SESSIONS: Definition = TableDefinition::new("sessions");
/// Log index of a session's last command to the session: the oldest use first.
pub(super) const USES: Definition = TableDefinition::new("uses");

/// [`upload_key`] to the upload's record.
pub(super) const UPLOADS: Definition = TableDefinition::new("uploads");
/// Id of an access key to its record.
pub(super) const KEYS: Definition = TableDefinition::new("keys");
/// Bucket name to what there is in it.
pub(super) const USAGE: Definition = TableDefinition::new("usage");
/// [`leftover_key`] of uploads that went with their bucket: their parts wait to be dropped.
pub(super) const LEFTOVERS: Definition = TableDefinition::new("leftovers");
/// Path of a lock to who holds it and who waits.
pub(super) const LOCKS: Definition = TableDefinition::new("locks");

/// Every table a snapshot carries, with its tag there. A tag is never given to another table.
pub(super) const REPLICATED: [(u8, Definition); 14] = [
    (1, CLUSTER),
    (2, BUCKETS),
    (3, OBJECTS),
    (4, VERSIONS),
    (5, GARBAGE),
    (6, FORBIDDEN),
    (7, OUTCOMES),
    (8, SESSIONS),
    (9, USES),
    (10, UPLOADS),
    (11, KEYS),
    (12, USAGE),
    (13, LEFTOVERS),
    (14, LOCKS),
];

/// In [`LOCAL`]: the format, two bytes.
pub(super) const KEY_FORMAT: &[u8] = b"format";
/// In [`LOCAL`]: whose database this is.
pub(super) const KEY_OWNER: &[u8] = b"owner";
/// In [`CLUSTER`]: the cluster map and the counter of Raft ids.
pub(super) const KEY_MAP: &[u8] = b"map";
/// In [`CLUSTER`]: the totals.
pub(super) const KEY_TOTALS: &[u8] = b"totals";
/// In [`CLUSTER`]: the counters of locks. Absent until the first is granted.
pub(super) const KEY_LOCKS: &[u8] = b"locks";
/// In [`CLUSTER`]: what was applied last.
pub(super) const KEY_APPLIED: &[u8] = b"applied";

/// Ends a bucket's name within a key. No bucket's name contains it.
const SEPARATOR: u8 = 0;
/// Behind the object's key in an upload's: a zero byte and the id.
const UPLOAD_TAIL: usize = 1 + 16;
/// A CRC32C in bytes.
const CRC_BYTES: usize = 4;

/// All replicated tables, open in one write transaction. Written through here, their leaves are kept in step.
pub(super) struct Tables<'txn> {
    pub(super) cluster: Kept<'txn>,
    pub(super) buckets: Kept<'txn>,
    pub(super) objects: Kept<'txn>,
    pub(super) versions: Kept<'txn>,
    pub(super) garbage: Kept<'txn>,
    pub(super) forbidden: Kept<'txn>,
    pub(super) outcomes: Kept<'txn>,
    pub(super) sessions: Kept<'txn>,
    pub(super) uses: Kept<'txn>,
    pub(super) uploads: Kept<'txn>,
    pub(super) keys: Kept<'txn>,
    pub(super) usage: Kept<'txn>,
    pub(super) leftovers: Kept<'txn>,
    pub(super) locks: Kept<'txn>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, StateError> {
        let tree = Tree::open(txn)?;
        let open = |(tag, table): (u8, Definition)| Kept::open(txn, (tag, table), &tree);
        let [
            cluster,
            buckets,
            objects,
            versions,
            garbage,
            forbidden,
            outcomes,
            sessions,
            uses,
            uploads,
            keys,
            usage,
            leftovers,
            locks,
        ] = REPLICATED;
        Ok(Self {
            cluster: open(cluster)?,
            buckets: open(buckets)?,
            objects: open(objects)?,
            versions: open(versions)?,
            garbage: open(garbage)?,
            forbidden: open(forbidden)?,
            outcomes: open(outcomes)?,
            sessions: open(sessions)?,
            uses: open(uses)?,
            uploads: open(uploads)?,
            keys: open(keys)?,
            usage: open(usage)?,
            leftovers: open(leftovers)?,
            locks: open(locks)?,
        })
    }
}

/// A table that records are written into.
pub(super) trait Rows {
    /// Writes a record.
    fn write(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError>;
}

impl Rows for Open<'_> {
    fn write(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateError> {
        self.insert(key, value)?;
        Ok(())
    }
}

/// The key of an object: bucket, a zero byte, key. Within a bucket, objects lie in byte order of their keys.
pub(super) fn object_key(bucket: &str, key: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bucket.len() + 1 + key.len());
    bytes.extend_from_slice(bucket.as_bytes());
    bytes.push(SEPARATOR);
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

/// The key of an upload: that of its object, a zero byte, its id. Uploads lie in byte order of their objects' keys, those
/// of one key by id: a zero byte sorts before anything a key may go on with.
pub(super) fn upload_key(bucket: &str, key: &str, upload: UploadId) -> Vec<u8> {
    let mut bytes = object_key(bucket, key);
    bytes.push(SEPARATOR);
    bytes.extend_from_slice(&upload.0.to_be_bytes());
    bytes
}

/// The name of the object that an upload is to become.
pub(super) fn split_upload_key(bytes: &[u8]) -> Result<&str, StateError> {
    let damaged = || StateError::Corrupt { table: "uploads", detail: "a key that is no upload".to_owned() };
    let at = bytes.len().checked_sub(UPLOAD_TAIL).ok_or_else(damaged)?;
    split_object_key(&bytes[..at]).map(|(_, key)| key).map_err(|_| damaged())
}

/// The key of a leftover: bucket, a zero byte, the upload's id.
pub(super) fn leftover_key(bucket: &str, upload: UploadId) -> Vec<u8> {
    let mut bytes = object_key(bucket, "");
    bytes.extend_from_slice(&upload.0.to_be_bytes());
    bytes
}

/// Bucket and upload of a [`leftover_key`].
pub(super) fn split_leftover_key(bytes: &[u8]) -> Result<(&str, UploadId), StateError> {
    let damaged = || StateError::Corrupt { table: "leftovers", detail: "a key that is no upload".to_owned() };
    let at = bytes.iter().position(|byte| *byte == SEPARATOR).ok_or_else(damaged)?;
    let bucket = std::str::from_utf8(&bytes[..at]).map_err(|_| damaged())?;
    let id = <[u8; 16]>::try_from(&bytes[at + 1..]).map_err(|_| damaged())?;
    Ok((bucket, UploadId(u128::from_be_bytes(id))))
}

/// The first key behind all that begin with `prefix`; `None` when there is none.
pub(super) fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = prefix.to_vec();
    while let Some(last) = bytes.pop() {
        if last < u8::MAX {
            bytes.push(last + 1);
            return Some(bytes);
        }
    }
    None
}

/// The first key after every object of this bucket.
pub(super) fn bucket_end(bucket: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bucket.len() + 1);
    bytes.extend_from_slice(bucket.as_bytes());
    bytes.push(SEPARATOR + 1);
    bytes
}

/// Bucket and key of an [`object_key`].
pub(super) fn split_object_key(bytes: &[u8]) -> Result<(&str, &str), StateError> {
    let damaged = || StateError::Corrupt { table: "objects", detail: "a key that is no bucket and key".to_owned() };
    let at = bytes.iter().position(|byte| *byte == SEPARATOR).ok_or_else(damaged)?;
    let bucket = std::str::from_utf8(&bytes[..at]).map_err(|_| damaged())?;
    let key = std::str::from_utf8(&bytes[at + 1..]).map_err(|_| damaged())?;
    Ok((bucket, key))
}

/// A version as a key.
pub(super) fn version_key(version: Version) -> [u8; 16] {
    version.0.to_be_bytes()
}

/// The version of a [`version_key`].
pub(super) fn split_version_key(bytes: &[u8]) -> Result<Version, StateError> {
    let damaged = |_| StateError::Corrupt { table: "garbage", detail: "a key that is no version".to_owned() };
    Ok(Version(u128::from_be_bytes(<[u8; 16]>::try_from(bytes).map_err(damaged)?)))
}

/// A session's outcome as a key: outcomes of one session lie in order of their sequences.
pub(super) fn outcome_key(session: u128, sequence: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&session.to_be_bytes());
    bytes[16..].copy_from_slice(&sequence.to_be_bytes());
    bytes
}

/// A record as it lies in a table: postcard, then its CRC32C.
pub(super) fn seal<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, StateError> {
    let mut bytes = postcard::to_stdvec(value)
        .map_err(|error| StateError::Encoding { detail: format!("a record could not be written: {error}") })?;
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Reads a sealed record.
pub(super) fn unseal<T: DeserializeOwned>(table: &'static str, bytes: &[u8]) -> Result<T, StateError> {
    let Some(at) = bytes.len().checked_sub(CRC_BYTES) else {
        return Err(StateError::Corrupt { table, detail: format!("a record of {} bytes", bytes.len()) });
    };
    let (body, tail) = bytes.split_at(at);
    let expected = u32::from_le_bytes(tail.try_into().expect("split off four bytes"));
    let got = crc32c::crc32c(body);
    if expected != got {
        return Err(StateError::Corrupt {
            table,
            detail: format!("crc32c {got:08x} where {expected:08x} was written"),
        });
    }
    postcard::from_bytes(body)
        .map_err(|error| StateError::Corrupt { table, detail: format!("a record that cannot be read: {error}") })
}

/// Reads the record under `key`, if there is one.
pub(super) fn get<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    name: &'static str,
    key: &[u8],
) -> Result<Option<T>, StateError> {
    match table.get(key)? {
        Some(guard) => unseal(name, guard.value()).map(Some),
        None => Ok(None),
    }
}

/// Writes the record under `key`.
pub(super) fn put<T: Serialize + ?Sized>(table: &mut impl Rows, key: &[u8], value: &T) -> Result<(), StateError> {
    table.write(key, &seal(value)?)
}
