//! What can go wrong with a disk or a shard, each with its cause and the next step.

use std::io;
use std::path::PathBuf;

use super::io::is_unreadable;
use super::superblock::FORMAT;
use crate::types::{ClusterId, DiskId, InstanceId, NodeName, ShardKey};

/// A disk or a shard that cannot be used as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    // --- Misconfiguration, found at open: the node does not start on it.
    /// The disk belongs to another cluster.
    #[error(
        "disk {disk} at {} belongs to cluster {found}, and this node to cluster {ours}: \
         mount the right disk there, or give this one back to its cluster; nothing on it was touched", path.display()
    )]
    ForeignCluster {
        /// Its folder.
        path: PathBuf,
        /// Its id.
        disk: DiskId,
        /// The cluster in its superblock.
        found: ClusterId,
        /// The cluster of this node.
        ours: ClusterId,
    },
    /// The disk belongs to another node, or to an earlier life of this one.
    #[error(
        "disk {disk} at {} belongs to node {found} (data folder {found_instance}), and this is node {ours} (data folder \
         {our_instance}): mount the right disk there, or bring back the metadata folder this disk belongs to; nothing on \
         it was touched", path.display()
    )]
    ForeignNode {
        /// Its folder.
        path: PathBuf,
        /// Its id.
        disk: DiskId,
        /// The node in its superblock.
        found: NodeName,
        /// That node's data folder.
        found_instance: InstanceId,
        /// This node.
        ours: NodeName,
        /// This node's data folder.
        our_instance: InstanceId,
    },
    /// The superblock is there but not readable as one.
    #[error(
        "the superblock of the disk at {} is damaged: {detail}; take the path out of the configuration (its shards are \
         rebuilt from the others), or restore the file from a copy", path.display()
    )]
    SuperblockDamaged {
        /// The disk's folder.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Written by a newer version.
    #[error("the disk at {} has format {found}, and this version knows up to {FORMAT}: upgrade this node", path.display())]
    TooNew {
        /// The disk's folder.
        path: PathBuf,
        /// The format found.
        found: u16,
    },
    /// A new disk that cannot be written.
    #[error(
        "the folder {} cannot be made a disk: {source}; check its owner, its permissions and that it is not mounted \
         read-only", path.display()
    )]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file where a folder should be.
    #[error("{} is not a folder: a disk is a folder, best the root of a file system of its own", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// Somebody's data.
    #[error(
        "the folder {} has no superblock and is not empty (it holds {first:?}): this may be somebody's data; empty it, or \
         configure another folder", path.display()
    )]
    NotEmpty {
        /// The folder.
        path: PathBuf,
        /// One of its entries.
        first: String,
    },
    /// One disk under two paths.
    #[error(
        "{} and {} are one and the same disk: take one of them out of the configuration, or two shards that must not \
         share a disk would", first.display(), second.display()
    )]
    Duplicate {
        /// One path.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },

    // --- A disk that does not serve.
    /// The superblock is not there any more.
    #[error("disk {disk} at {} is gone (unmounted, unplugged or wiped): mount it again and it is taken back", path.display())]
    Gone {
        /// Its id.
        disk: DiskId,
        /// Its folder.
        path: PathBuf,
    },
    /// Another disk is mounted there now.
    #[error("another disk stands in the place of disk {disk} at {}: {reason}; mount the right one", path.display())]
    Foreign {
        /// The disk that should be there.
        disk: DiskId,
        /// Its folder.
        path: PathBuf,
        /// Whose is there.
        reason: String,
    },
    /// The canary found it broken.
    #[error("disk {disk} at {} has failed: {reason}; check the device (`dmesg`, SMART)", path.display())]
    Failed {
        /// Its id.
        disk: DiskId,
        /// Its folder.
        path: PathBuf,
        /// What the canary says.
        reason: String,
    },
    /// No room, or none beyond the reserve.
    #[error(
        "disk {disk} at {} is full: {needed_bytes} bytes are needed with the reserve, {available_bytes} are available; \
         free space or add a disk", path.display()
    )]
    Full {
        /// Its id.
        disk: DiskId,
        /// Its folder.
        path: PathBuf,
        /// What the file system still takes.
        available_bytes: u64,
        /// What would be needed, the reserve included.
        needed_bytes: u64,
    },
    /// The file system went (or was mounted) read-only.
    #[error("disk {disk} at {} is read-only: check `dmesg` for why the kernel remounted it", path.display())]
    ReadOnly {
        /// Its id.
        disk: DiskId,
        /// Its folder.
        path: PathBuf,
    },
    /// An operation did not come back in time.
    #[error("{operation} on disk {disk} at {} has not come back for {seconds} s", path.display())]
    Hanging {
        /// Its id.
        disk: DiskId,
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// For how long.
        seconds: u64,
    },
    /// Anything else the system says.
    #[error("{operation} on disk {disk} at {} failed: {source}", path.display())]
    Io {
        /// Its id.
        disk: DiskId,
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the system says.
        source: io::Error,
    },

    // --- A shard.
    /// No such shard.
    #[error("shard {key} is not on disk {disk}")]
    Missing {
        /// The disk.
        disk: DiskId,
        /// The shard.
        key: ShardKey,
    },
    /// What was read is not what was written.
    #[error("shard {key} on disk {disk} is corrupt: {detail} (crc32c {got:08x}, expected {expected:08x})")]
    Corrupt {
        /// The disk.
        disk: DiskId,
        /// The shard.
        key: ShardKey,
        /// The block; `None`: the header, or the file's length.
        block: Option<u32>,
        /// The checksum on disk; 0 where it is not about a checksum.
        expected: u32,
        /// The checksum of what was read.
        got: u32,
        /// What and where.
        detail: String,
    },
    /// A shard file of a newer version.
    #[error("shard {key} on disk {disk} has format {found}, newer than this version knows: upgrade this node")]
    ShardTooNew {
        /// The disk.
        disk: DiskId,
        /// The shard.
        key: ShardKey,
        /// The format found.
        found: u16,
    },
    /// Damaged on the way here: nothing was written.
    #[error("block {block} of shard {key} arrived damaged: crc32c {got:08x}, expected {expected:08x}; send it again")]
    BadBlock {
        /// The shard.
        key: ShardKey,
        /// The block.
        block: u32,
        /// The checksum that came with it.
        expected: u32,
        /// The checksum of what came.
        got: u32,
    },
    /// A head or a sequence of blocks that makes no shard.
    #[error("shard {key} was refused: {detail}")]
    Invalid {
        /// The shard.
        key: ShardKey,
        /// What is wrong.
        detail: String,
    },
    /// Somebody else is writing this shard.
    #[error("shard {key} is being written already: wait for that writer, or for its end")]
    Busy {
        /// The shard.
        key: ShardKey,
    },
}

impl DiskError {
    /// The system says that a file or folder does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The configuration or what is mounted is wrong: starting again changes nothing before an operator does.
    pub fn is_mistake(&self) -> bool {
        matches!(
            self,
            Self::ForeignCluster { .. }
                | Self::ForeignNode { .. }
                | Self::NotAFolder { .. }
                | Self::NotEmpty { .. }
                | Self::Duplicate { .. }
        )
    }

    /// The system says that what lies there cannot be read. Whether it is only there, and again, is another question
    /// (`doubts.rs`).
    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_unreadable(source))
    }

    /// The disk as a whole does not serve: try another.
    pub fn disk_is_bad(&self) -> bool {
        matches!(
            self,
            Self::Gone { .. }
                | Self::Foreign { .. }
                | Self::Failed { .. }
                | Self::ReadOnly { .. }
                | Self::Hanging { .. }
        )
    }
}
