//! Why a command was not applied.

use serde::{Deserialize, Serialize};

use super::{DiskState, HostState, LockOwner, LockPath};
use crate::types::{BucketName, DiskId, Fence, LockToken, NodeName, RaftId, Version};

/// Why a command was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// `cluster init` came twice.
    #[error("the cluster exists already")]
    ClusterExists,
    /// Anything before `cluster init`.
    #[error("the cluster is not initialised")]
    NoCluster,
    /// The name is held by another data folder.
    #[error(
        "the name {0} belongs to another node (a different data folder) of this cluster: choose another `node.name`, or \
         bring back the data folder that was admitted under it"
    )]
    NameTaken(NodeName),
    /// The disk is registered with another node.
    #[error("disk {0} belongs to node {1}")]
    DiskTaken(DiskId, NodeName),
    /// No such disk.
    #[error("there is no disk {0} in this cluster")]
    NoDisk(DiskId),
    /// A lower fence than the highest seen.
    #[error("fence {}.{} of {} is older than {}.{} of {}, the highest seen", offered.epoch, offered.round, offered.holder, highest.epoch, highest.round, highest.holder)]
    StaleFence {
        /// The one that came.
        offered: Fence,
        /// The one that counts.
        highest: Fence,
    },
    /// An operator's mark stands against it.
    #[error("an operator marked this disk; only an operator undoes it")]
    OperatorMark,
    /// No such bucket.
    #[error("there is no bucket {0}")]
    NoBucket(BucketName),
    /// The bucket exists.
    #[error("bucket {0} exists already")]
    BucketExists(BucketName),
    /// It has objects.
    #[error("bucket {0} is not empty: delete its objects first, and abort its uploads if they are very many")]
    BucketNotEmpty(BucketName),
    /// What is put does not fit.
    #[error("bucket {bucket} may have {quota_bytes} bytes and has {used_bytes}: this does not fit")]
    Quota {
        /// The bucket.
        bucket: BucketName,
        /// What it may have.
        quota_bytes: u64,
        /// What it has.
        used_bytes: u64,
    },
    /// No such upload: aborted, completed long ago, or never begun.
    #[error("there is no such upload: it was completed or aborted, or never begun")]
    NoUpload,
    /// A part that is not there as the client says, out of order, or with a number that is none.
    #[error("part {number} is not there as named: upload it, and name parts in rising order with the ETags they have")]
    InvalidPart {
        /// Its number.
        number: u16,
    },
    /// A part before the last is too small.
    #[error("part {number} is smaller than {} bytes, and only the last may be", super::MIN_PART_BYTES)]
    PartTooSmall {
        /// Its number.
        number: u16,
    },
    /// Larger than anything may be.
    #[error("{bytes} bytes are over the limit of {limit} bytes")]
    TooLarge {
        /// How large it is, or would become.
        bytes: u64,
        /// How large it may be.
        limit: u64,
    },
    /// No such access key.
    #[error("there is no access key {0}")]
    NoKey(String),
    /// An access key of this id exists.
    #[error("an access key {0} exists already")]
    KeyExists(String),
    /// There are as many as there may be.
    #[error("there are {0} access keys, as many as there may be: revoke some")]
    TooManyKeys(usize),
    /// No such member.
    #[error("there is no node {0} in this cluster")]
    NoNode(NodeName),
    /// No such object, or another version by now.
    #[error("there is no such object")]
    NoObject,
    /// The condition did not hold.
    #[error("the condition does not hold: the object is at {}", .at.map_or("no version".to_owned(), |version| version.to_string()))]
    Condition {
        /// The version found.
        at: Option<Version>,
    },
    /// The version was given up before it was committed.
    #[error("this upload was given up and its parts may be gone: put the object again")]
    Forbidden,
    /// The shard is not where it was believed to be.
    #[error("the shard was moved meanwhile")]
    Moved,
    /// The session's answer is no longer kept.
    #[error("this command was superseded by later ones of its session")]
    Expired,
    /// An operator's mark of a host stands against it.
    #[error("an operator marked node {0}; only an operator undoes it (`resilver node up {0}`)")]
    OperatorMarkedHost(NodeName),
    /// Too many hosts would be given up by automatic marks.
    #[error(
        "{out} of {hosts} nodes would be out by automatic marks: that many do not die by themselves, look for what they have \
         in common (a switch, a rack's power, a release); a person may give a node up: `resilver node out`"
    )]
    TooManyOut {
        /// How many would be out.
        out: usize,
        /// Of how many that no person has given up.
        hosts: usize,
    },
    /// Given up, the host would leave shards without a place to be rebuilt.
    #[error(
        "{left} writable disks would be left, and bucket {bucket} has {need} shards of each extent: what is there could not \
         be rebuilt anywhere else; bring disks or nodes back, or add some"
    )]
    NoPlace {
        /// A bucket that needs most.
        bucket: BucketName,
        /// Disks that an extent of it needs.
        need: usize,
        /// Disks that would be left.
        left: usize,
    },
    /// Another holds the lock.
    #[error("lock {path} is held by {owner} (token {token})")]
    LockHeld {
        /// Which.
        path: LockPath,
        /// Who holds it.
        owner: LockOwner,
        /// Under which token.
        token: LockToken,
    },
    /// Too many wait for it.
    #[error("{most} wait for lock {0} already, as many as may: try again in a moment", most = super::MAX_WAITERS)]
    LockQueueFull(LockPath),
    /// Too many locks are held.
    #[error("{} locks are held, as many as may be: see `resilver lock list` for who holds them", super::MAX_LOCKS)]
    TooManyLocks,
    /// Whoever asks does not hold the lock, or not any more.
    #[error("lock {path} is not held under token {token}: its lease ran out, or it was released or broken")]
    LockLost {
        /// Which.
        path: LockPath,
        /// The token that was shown.
        token: LockToken,
    },
    /// What was to expire was renewed, or is gone.
    #[error("the lease was renewed meanwhile, or is over already")]
    LockMoved,
    /// The map is another than the one by which something was judged.
    #[error("the cluster's map changed while this was judged by it: try again")]
    MapMoved,
    /// The disk is in use, or something is on it still.
    #[error("disk {disk} is {} and {shards} shards have their home there: it is forgotten once it is out and empty", state.as_str())]
    DiskInUse {
        /// Which.
        disk: DiskId,
        /// What it may do.
        state: DiskState,
        /// Shards whose home it is.
        shards: u64,
    },
    /// Without the host, too many shards of an extent would stand together.
    #[error(
        "{hosts} nodes with writable disks would be left, and one of them would have {together} shards of an extent of \
         bucket {bucket}, which can do without {spare}: losing that node would lose objects; add nodes first"
    )]
    TooFewHosts {
        /// A bucket that it is so for.
        bucket: BucketName,
        /// Hosts that would be left.
        hosts: usize,
        /// Shards on one of them.
        together: usize,
        /// Shards that an extent can do without.
        spare: usize,
    },
    /// The node is in use, or something is on it still.
    #[error(
        "node {node} is {}{} and {shards} shards have their home there: it is removed once it is emptied \
         (`resilver node drain {node}`) or given up (`resilver node out {node}`), and nothing is left there",
        state.as_str(), if *draining { ", being emptied," } else { "" }
    )]
    NodeInUse {
        /// Which.
        node: NodeName,
        /// How its host is.
        state: HostState,
        /// It is being emptied.
        draining: bool,
        /// Shards whose home is on its disks.
        shards: u64,
    },
    /// A node that was taken out wants in again.
    #[error(
        "this data folder was removed from the cluster, as node {0}, for good: empty it and its disks, and it comes in as a \
         new node"
    )]
    NodeRemoved(NodeName),
    /// An operator's word on a vote stands against it.
    #[error("an operator took the vote of node {0}; only an operator gives it back (`resilver meta add-peer {0}`)")]
    OperatorTookVote(NodeName),
    /// Nobody would be left to vote.
    #[error("no other node that is up may vote: without {0} there would be nobody to lead the metadata")]
    LastVote(NodeName),
    /// Too many would have no vote by automatic marks.
    #[error(
        "{slow} of {nodes} nodes would be without a vote for being slow: that many have a cause in common (a network, a \
         release, the load), look for that; a person may take a vote: `resilver meta remove-peer`"
    )]
    TooManySlow {
        /// How many would be.
        slow: usize,
        /// Of how many.
        nodes: usize,
    },
    /// A node says it was a member that the cluster never knew: its data folder is of another time, or of another cluster.
    #[error(
        "node {name} says that it was member {lost}, and the cluster knows it as member {known}: the data folder is not the \
         one that was admitted last; look for that one first"
    )]
    NotThatMember {
        /// The node.
        name: NodeName,
        /// Who it says it was.
        lost: RaftId,
        /// Who it is.
        known: RaftId,
    },
}
