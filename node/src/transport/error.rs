//! What can go wrong between a reader or writer and a home.

use std::time::Duration;

use tonic::{Code, Status};

use crate::disk::DiskError;
use crate::types::{DiskId, NodeName, ShardKey};

/// A shard operation that failed at one home. Another home may still do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// The home does not have the shard.
    #[error("shard {key} is missing on disk {disk}")]
    Missing {
        /// The shard.
        key: ShardKey,
        /// Where it should be.
        disk: DiskId,
    },
    /// The home has the shard, and its bytes are not what was written.
    #[error("shard {key} is corrupt on disk {disk}: {detail}")]
    Corrupt {
        /// The shard.
        key: ShardKey,
        /// Where it is.
        disk: DiskId,
        /// Which block, what was expected and what was found.
        detail: String,
    },
    /// The cluster map has no such disk, or it may not be used now.
    #[error("disk {disk} cannot be used: {why}")]
    NoHome {
        /// The disk.
        disk: DiskId,
        /// Why not.
        why: &'static str,
    },
    /// The peer failed a moment ago and is not asked now.
    #[error("node {node} failed repeatedly; next attempt in {} ms", .retry_in.as_millis())]
    Circuit {
        /// The peer.
        node: NodeName,
        /// When it is asked again.
        retry_in: Duration,
    },
    /// The home did not go on in time.
    #[error("disk {disk} stalled for {} ms", .after.as_millis())]
    Stalled {
        /// The disk.
        disk: DiskId,
        /// How long it was waited for.
        after: Duration,
    },
    /// The disk is full.
    #[error("disk {disk} is full: {detail}")]
    Full {
        /// The disk.
        disk: DiskId,
        /// What it said.
        detail: String,
    },
    /// The disk failed.
    #[error("disk {disk} failed: {detail}")]
    Disk {
        /// The disk.
        disk: DiskId,
        /// What it said.
        detail: String,
    },
    /// The peer refused: another cluster, epoch or member, or a step that is not allowed.
    #[error("node {node} refused: {detail}")]
    Refused {
        /// The peer.
        node: NodeName,
        /// Why.
        detail: String,
    },
    /// The peer could not be reached, or the call broke.
    #[error("node {node} cannot be reached: {detail}")]
    Unreachable {
        /// The peer.
        node: NodeName,
        /// What happened.
        detail: String,
    },
    /// The writer of this shard gave up.
    #[error("the upload was given up")]
    GivenUp,
}

impl TransportError {
    /// Whether the shard itself is bad at its home, so that repair must be told.
    pub fn is_shard_lost(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Corrupt { .. })
    }

    pub(super) fn from_disk(error: &DiskError, disk: DiskId, key: ShardKey) -> Self {
        let detail = error.to_string();
        match error {
            DiskError::Missing { .. } => Self::Missing { key, disk },
            DiskError::Corrupt { .. } => Self::Corrupt { key, disk, detail },
            DiskError::Full { .. } => Self::Full { disk, detail },
            _ => Self::Disk { disk, detail },
        }
    }

    pub(super) fn from_status(status: &Status, node: &NodeName, disk: DiskId, key: ShardKey) -> Self {
        let detail = status.message().to_owned();
        match status.code() {
            Code::NotFound => Self::Missing { key, disk },
            Code::DataLoss => Self::Corrupt { key, disk, detail },
            Code::ResourceExhausted => Self::Full { disk, detail },
            Code::Internal => Self::Disk { disk, detail },
            Code::FailedPrecondition | Code::InvalidArgument | Code::Unimplemented | Code::Aborted => {
                Self::Refused { node: node.clone(), detail }
            }
            _ => Self::Unreachable { node: node.clone(), detail: format!("{:?}: {detail}", status.code()) },
        }
    }
}

/// Whether a status tells of the peer (or the way to it) rather than of what was asked.
pub(super) fn is_peer_failure(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::DeadlineExceeded | Code::Cancelled)
}

/// How a disk's error is told to a peer. `Internal` is the disk's failure, so that it is never taken for the peer's.
pub(super) fn disk_status(error: &DiskError) -> Status {
    let message = error.to_string();
    match error {
        DiskError::Missing { .. } => Status::not_found(message),
        DiskError::Corrupt { .. } => Status::data_loss(message),
        DiskError::Full { .. } => Status::resource_exhausted(message),
        DiskError::BadBlock { .. } | DiskError::Invalid { .. } => Status::invalid_argument(message),
        DiskError::Busy { .. } => Status::aborted(message),
        _ => Status::internal(message),
    }
}
