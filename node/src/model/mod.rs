//! What the cluster agrees upon: the records of the state machine and the commands that change them.
//!
//! Owns: the shapes. Must never: touch a disk or a clock. Changing a shape changes the format of log, snapshot and
//! database: raise [`FORMAT`] and say how the old one is read.

mod bucket;
mod cluster;
mod command;
mod lock;
mod object;
mod refusal;

use std::time::Duration;

pub use self::bucket::{
    BucketRecord, CompletedUpload, DEFAULT_REPAIR_PRIORITY, Grant, KeyRecord, UPLOADS_BUCKET, UploadRecord, Usage,
    accounted_bucket, part_key, part_prefix,
};
pub use self::cluster::{
    ClusterMap, DiskRecord, DiskState, HostState, JoiningDisk, Location, Mark, MarkedBy, NodeRecord, RemovedNode,
    RepairPause,
};
pub use self::command::{Command, HomeMove, Outcome};
pub(crate) use self::lock::LockDraw;
pub use self::lock::{BadLockPath, Holder, LockCounters, LockOwner, LockPath, LockRecord, LockTable, Waiter};
pub use self::object::{
    Attributes, BadETag, ChecksumAlgorithm, ChecksumKind, Coding, Condition, ETag, ExtentRecord, GarbageRecord, Home,
    ObjectRecord, PartRecord, StoredChecksum,
};
pub use self::refusal::Refusal;
pub use crate::types::ExtentId;

/// The format of metadata on disk (log records, snapshot, database). A folder with another one is refused: a higher one
/// is a later release's, and with formats 1 (objects put whole, no access keys) to 4 (nodes that could not be emptied) nothing
/// was released.
pub const FORMAT: u16 = 5;

/// The largest extent: a home lost in the middle of an upload costs one extent's rewrite.
pub const EXTENT_BYTES: u64 = 16 * 1024 * 1024;

/// The block of a shard: what one CRC covers, and what one message carries.
pub const BLOCK_BYTES: u32 = 64 * 1024;

/// The most shards an extent may have. Wider codes cost more in repair than they save in space.
pub const MAX_SHARDS: u8 = 32;

/// The longest key of an object, in bytes: S3's limit.
pub const MAX_KEY_BYTES: usize = 1024;

/// The highest number of a part: S3's limit.
pub const MAX_PART_NUMBER: u16 = 10_000;

/// The least that any part but the last may have: S3's limit, and it keeps an object's extents from becoming many and
/// tiny. In the simulator, whose objects are small, a kilobyte.
pub const MIN_PART_BYTES: u64 = if cfg!(feature = "audit") { 1024 } else { 5 * 1024 * 1024 };

/// The largest part: S3's limit.
pub const MAX_PART_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// The largest object put whole: S3's limit.
pub const MAX_PUT_BYTES: u64 = 5 * 1024 * 1024 * 1024;

/// The largest object. Its record names every extent with all its homes and is written anew whenever one of its shards
/// moves: 8192 full extents of six shards are 2 MiB of it.
pub const MAX_OBJECT_BYTES: u64 = 128 * 1024 * 1024 * 1024;

/// The most bytes of a client's own names and values beside an object: S3's limit.
pub const MAX_USER_METADATA_BYTES: usize = 2048;

/// Keys that one command deletes at most: S3's limit. With the longest keys that is a quarter of a log record.
pub const MAX_DELETES: usize = 1000;

/// Uploads that a bucket may still have when it is deleted: forgetting one takes some microseconds, and nothing else is
/// applied meanwhile.
pub const MAX_UPLOADS_FORGOTTEN: usize = 10_000;

/// Parts that one command makes garbage of after their bucket was deleted. Some milliseconds of applying.
pub const MAX_PARTS_DROPPED: usize = 1000;

/// The most access keys. The deletion of a bucket looks at each, and an operator can still read the list.
pub const MAX_KEYS: usize = 10_000;

/// The longest path of a lock, in bytes: the longest name of a bucket fits behind `config/bucket/`, and a table of locks
/// still fits a screen.
pub const MAX_LOCK_PATH_BYTES: usize = 128;

/// The most locks that are held at one time. All of them are in memory on every member, and the leader looks at each when
/// one changes.
pub const MAX_LOCKS: usize = 1024;

/// The most that wait for one lock. With leases of seconds, whoever came later than that would wait for minutes.
pub const MAX_WAITERS: usize = 32;

/// Nodes that were taken out and are remembered. All of them are in memory on every member, and travel with the map; whoever
/// takes out more than that has long switched the first ones off.
pub const MAX_REMOVED: usize = 256;

/// The longest label of an owner, in bytes: it is shown in a table.
pub const MAX_LOCK_LABEL_BYTES: usize = 64;

/// The shortest lease. It is renewed at a third, and an election in between must not cost the lock.
pub const MIN_LEASE: Duration = Duration::from_secs(1);

/// The longest lease: who dies while holding it keeps the others out for as long.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);
