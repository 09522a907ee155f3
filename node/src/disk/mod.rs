//! Disks and the shards on them.
//!
//! Owns: everything below a disk's folder: the superblock that says whose it is, shard files, temporary files, what was
//! moved aside, and the canary that tells whether the disk still works.
//!
//! Must never: delete a shard that was once whole (it is moved aside), write below a folder whose superblock is not
//! there (an unmounted disk leaves an innocent folder behind), take one disk's failure for the node's, or decide where
//! shards belong (that is placement's and repair's).
//!
//! Invariants: a file under `shards/` is complete and durable, because it came there by a rename after a sync; whatever
//! is under `tmp/` at open was never acknowledged to anybody. Memory of a reader or writer is bounded by one window
//! ([`reader`], [`writer`]) and one block, however large the shard. No disk holds more than a bounded number of threads
//! ([`io`]), however long it hangs.
//!
//! Layout of a disk:
//! ```text
//! <disk>/resilver-disk      superblock: one line of JSON, one line with its CRC32C
//!        canary             overwritten once a second
//!        shards/<2 hex>/<version>-<extent>-<shard>
//!        tmp/<version>-<extent>-<shard>.<n>
//!        aside/<why>-<version>-<extent>-<shard>.<n>
//! ```

mod aside;
mod canary;
mod core;
mod doubts;
mod error;
mod foreground;
mod io;
mod reader;
mod set;
mod shard_file;
mod superblock;
#[cfg(test)]
mod tests;
mod together;
mod volume;
mod walks;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::aside::REPLACED;
pub use self::error::DiskError;
pub use self::foreground::Purpose;
pub use self::io::Patience;
pub use self::reader::ShardReader;
pub use self::set::DiskSet;
pub use self::shard_file::{MAX_BLOCK_BYTES, ShardHead, shard_file_bytes};
pub(crate) use self::superblock::owner_on;
pub use self::superblock::{FORMAT as DISK_FORMAT, SUPERBLOCK_FILE};
pub use self::volume::Volume;
pub use self::walks::{Walk, WalkKind};
pub use self::writer::ShardWriter;
use crate::types::{ClusterId, DiskId, InstanceId, NodeName};

/// A disk this node has had: remembered in its identity, so that an empty folder at a known path is recognised as a disk
/// that is gone and not taken for a new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownDisk {
    /// Its folder.
    pub path: PathBuf,
    /// Its identity.
    #[serde(with = "as_text")]
    pub id: DiskId,
    /// It was added while the node ran: it is opened whether the configuration names it or not.
    #[serde(default)]
    pub added: bool,
    /// It was taken out for good: it is not opened, whether the configuration names it or not.
    #[serde(default)]
    pub removed: bool,
}

/// Ids as people see them, also in files.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::types::DiskId;

    pub(super) fn serialize<S: Serializer>(id: &DiskId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DiskId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Whose disks these must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The node's name.
    pub node: NodeName,
    /// Its data folder.
    pub instance: InstanceId,
    /// Its cluster, once it is in one.
    pub cluster: Option<ClusterId>,
}

/// What the canary says of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It writes, syncs and reads back.
    Ok,
    /// It has been slow to answer for some seconds.
    Suspect,
    /// Its superblock is not there: unmounted, unplugged or wiped.
    Gone,
    /// It fails or hangs. It takes no new shards.
    Error,
    /// Another disk stands in its place. Neither read nor written.
    Foreign,
}

impl Health {
    /// The name in tables, metrics and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Suspect => "suspect",
            Self::Gone => "gone",
            Self::Error => "error",
            Self::Foreign => "foreign",
        }
    }
}

/// A disk's health and why it is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// The verdict.
    pub health: Health,
    /// Why, for people; empty while all is well.
    pub reason: String,
    /// Whether an operation has been hanging too long right now: then not even reads are tried.
    pub hanging: bool,
}

/// A disk at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStatus {
    /// Its identity.
    pub id: DiskId,
    /// Its folder.
    pub path: PathBuf,
    /// What the canary says.
    pub health: Health,
    /// Why.
    pub reason: String,
    /// Bytes of shard files.
    pub used_bytes: u64,
    /// Bytes the file system would still take.
    pub available_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
    /// Shard files.
    pub shards: u64,
    /// Operations that failed since the node started.
    pub errors: u64,
    /// Those of them that were reads.
    pub read_errors: u64,
    /// Since the last canary that succeeded.
    pub canary_age: Duration,
    /// What the last check of its state (superblock, folders, a write that was synced and read back) took.
    pub check_took: Duration,
    /// Checks that took more than 3 s, since the start.
    pub late_checks: u64,
}

/// What reading a whole shard from the disk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardVerdict {
    /// All of it is as it was written.
    Ok {
        /// Length of the file.
        bytes: u64,
        /// CRC32C of its content: of all its blocks' data, one behind the other.
        crc: u32,
    },
    /// It is not; or again and again it cannot be read, on a disk that serves otherwise.
    Corrupt {
        /// The checksum on disk; 0 where it is not about a checksum.
        expected: u32,
        /// The checksum of what was read; 0 likewise.
        got: u32,
        /// What and where.
        detail: String,
    },
    /// There is no such file.
    Missing,
}
