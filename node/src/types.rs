//! Kinds and units. Two numbers that mean different things have different types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl $name {
            /// Draws a fresh one: 128 random bits never meet again.
            pub fn draw(rng: &mut resilver_host::Rng) -> Self {
                use rand::RngCore;
                Self((u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64()))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                if text.len() != 32 {
                    return Err(BadId);
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| BadId)
            }
        }
    };
}

/// A text that is no id: ids are 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: 32 hexadecimal digits expected")]
pub struct BadId;

text_id!(
    /// A node's name, chosen by its operator; unique in a cluster.
    NodeName
);
text_id!(
    /// A bucket's name.
    BucketName
);

hex_id!(
    /// A cluster, drawn at `cluster init`.
    ClusterId
);
hex_id!(
    /// A disk, drawn when its superblock was written.
    DiskId
);
hex_id!(
    /// One data folder of a node, drawn when it was first made: two folders of one name differ in it.
    InstanceId
);
hex_id!(
    /// One version of one object's content, or one upload of content. Names its shards.
    Version
);
hex_id!(
    /// An upload in parts, drawn when it is begun.
    UploadId
);
hex_id!(
    /// One run of a process, drawn when it starts: a process that was started again is not who it was.
    LifeId
);

/// A member's id in Raft: from a counter in the state machine, never reused, and not the node's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RaftId(pub u64);

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The epoch of a cluster: raised when a quorum is forced, so that old members and old fences cannot come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// Which shard of an extent: `0..k` hold data, `k..k+m` parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardIndex(pub u8);

impl ShardIndex {
    /// As an index into a list of shards.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

/// Which extent of one upload, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExtentIndex(pub u32);

/// Names one extent for ever: the version it was uploaded under, and its number there. An object completed from parts has
/// extents of many versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExtentId {
    /// The version of its upload.
    pub version: Version,
    /// Its number there, from 0.
    pub index: ExtentIndex,
}

impl ExtentId {
    /// The name of one of its shards.
    pub fn shard(self, shard: ShardIndex) -> ShardKey {
        ShardKey { version: self.version, extent: self.index, shard }
    }
}

impl fmt::Display for ExtentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.version, self.index.0)
    }
}

/// One shard of one extent of one version: what a shard file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardKey {
    /// The version of its upload.
    pub version: Version,
    /// The extent of that upload.
    pub extent: ExtentIndex,
    /// The shard of that extent.
    pub shard: ShardIndex,
}

impl ShardKey {
    /// The extent it is of.
    pub fn extent_id(self) -> ExtentId {
        ExtentId { version: self.version, index: self.extent }
    }
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.version, self.extent.0, self.shard.0)
    }
}

/// A fencing token as steps carry it: ordered by epoch, then round, then holder.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The cluster's epoch.
    pub epoch: u64,
    /// The ballot's round.
    pub round: u64,
    /// The node beside the agent that holds the lease.
    pub holder: String,
}

impl From<resilver_proto::common::Fence> for Fence {
    fn from(wire: resilver_proto::common::Fence) -> Self {
        Self { epoch: wire.epoch, round: wire.round, holder: wire.holder }
    }
}

impl From<Fence> for resilver_proto::common::Fence {
    fn from(fence: Fence) -> Self {
        Self { epoch: fence.epoch, round: fence.round, holder: fence.holder }
    }
}

/// What a lock's holder shows with everything it does under it. It rises with every grant of any lock and is never used
/// again, so whoever was overtaken is known by a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LockToken(pub u64);

impl fmt::Display for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
