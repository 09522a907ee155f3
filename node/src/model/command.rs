//! The commands that change the state, and what they come to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    BucketRecord, Coding, CompletedUpload, Condition, DiskState, ETag, Grant, HostState, JoiningDisk, KeyRecord,
    Location, LockOwner, LockPath, MarkedBy, ObjectRecord, Refusal, StoredChecksum, UploadRecord,
};
use crate::types::{
    BucketName, ClusterId, DiskId, Fence, InstanceId, LockToken, NodeName, RaftId, ShardKey, UploadId, Version,
};

/// A change everybody applies in the same order. Applying must be deterministic: what needs a clock or a random number
/// brings it along.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// The birth of the cluster: its first command, once. The first member comes with it.
    InitCluster {
        /// Its id.
        cluster: ClusterId,
        /// Its name.
        name: String,
    },
    /// Lets a node in, or confirms one of the same instance (its address, location and disks are then brought up to
    /// date). A name held by another instance is refused.
    JoinNode {
        /// Name.
        name: NodeName,
        /// Data folder.
        instance: InstanceId,
        /// gRPC address.
        address: String,
        /// Where it stands.
        location: Location,
        /// Its disks; those the map already knows keep their state.
        disks: Vec<JoiningDisk>,
        /// Only for the founder: the id it was initialised under. Others draw the next of the counter.
        raft_id: Option<RaftId>,
    },
    /// Says what a disk may do.
    SetDiskState {
        /// Which disk.
        disk: DiskId,
        /// What it may do from now on.
        state: DiskState,
        /// Who says so. An automatic mark never undoes an operator's.
        by: MarkedBy,
        /// Why.
        reason: String,
        /// The revision of the map by which this was judged to be safe; refused when it is another by now.
        judged: Option<u64>,
        /// Required of agents; refused when lower than the highest seen.
        fence: Option<Fence>,
    },
    /// Makes a bucket.
    CreateBucket {
        /// The bucket.
        bucket: BucketRecord,
        /// An existing one of the same name is then no error.
        if_absent: bool,
    },
    /// Deletes an empty bucket, and forgets its uploads; their parts are dropped later ([`Command::DropParts`]). With more
    /// than [`super::MAX_UPLOADS_FORGOTTEN`] uploads it counts as not empty.
    DeleteBucket {
        /// The bucket.
        bucket: BucketName,
    },
    /// Changes what may be changed of a bucket; `None` stays as it is.
    SetBucket {
        /// The bucket.
        bucket: BucketName,
        /// The coding of what is put from now on.
        coding: Option<Coding>,
        /// The quota; `Some(None)` takes it away.
        quota_bytes: Option<Option<u64>>,
        /// The priority of its repair.
        repair_priority: Option<u8>,
    },
    /// Puts an object: the commit of an upload whose shards are durable.
    PutObject {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// Content.
        object: ObjectRecord,
        /// Demand.
        condition: Condition,
        /// Wall time.
        now_ms: u64,
    },
    /// Deletes an object.
    DeleteObject {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// Demand.
        condition: Condition,
        /// Wall time.
        now_ms: u64,
    },
    /// Deletes several objects of a bucket, whatever they are.
    DeleteObjects {
        /// Bucket.
        bucket: BucketName,
        /// Keys, at most [`super::MAX_DELETES`].
        keys: Vec<String>,
        /// Wall time.
        now_ms: u64,
    },
    /// Begins an upload in parts.
    CreateUpload {
        /// The upload.
        upload: UploadRecord,
    },
    /// Puts a part of an upload, replacing one of the same number.
    PutPart {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// The upload.
        upload: UploadId,
        /// The part's number, from 1.
        part: u16,
        /// Its content.
        object: ObjectRecord,
        /// Wall time.
        now_ms: u64,
    },
    /// Makes an object of an upload's parts: their lists of extents are joined, no byte of content is moved. Parts that are
    /// not named become garbage.
    CompleteUpload {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// The upload.
        upload: UploadId,
        /// Numbers, rising, and the ETags they must have.
        parts: Vec<(u16, ETag)>,
        /// The object's version.
        version: Version,
        /// The object's checksum.
        checksum: Option<StoredChecksum>,
        /// What must hold of the object that is replaced.
        condition: Condition,
        /// Wall time.
        now_ms: u64,
    },
    /// Ends an upload; its parts become garbage.
    AbortUpload {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// The upload.
        upload: UploadId,
        /// Wall time.
        now_ms: u64,
    },
    /// Forgets what a completed upload became.
    ForgetUpload {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// The upload.
        upload: UploadId,
    },
    /// Makes garbage of parts whose upload went with its bucket: some at a time.
    DropParts {
        /// The bucket it was in.
        bucket: BucketName,
        /// The upload.
        upload: UploadId,
        /// Wall time.
        now_ms: u64,
    },
    /// Makes an access key.
    PutKey {
        /// The key.
        key: KeyRecord,
    },
    /// Takes an access key away.
    RevokeKey {
        /// Its id.
        id: String,
    },
    /// Sets what a key may do in a bucket.
    GrantKey {
        /// Its id.
        id: String,
        /// The bucket.
        bucket: BucketName,
        /// What it may do; `None`: nothing any more.
        grant: Option<Grant>,
    },
    /// Says whether a member's metadata disk is nearly full.
    SetMetadataRoom {
        /// The member.
        node: NodeName,
        /// Whether it is.
        low: bool,
    },
    /// Records where a shard is now (repair), or that it is lost (`at: None`). Refused when the shard is not at
    /// `expected` any more: somebody was faster.
    SetHome {
        /// Bucket.
        bucket: BucketName,
        /// Key.
        key: String,
        /// The shard. Its extent may have become another object's meanwhile (a part's, the completed object's).
        shard: ShardKey,
        /// Where it was believed to be.
        expected: Option<DiskId>,
        /// Where it is now.
        at: Option<DiskId>,
        /// Where it should be from now on.
        wanted: DiskId,
    },
    /// From now on a put of this version is refused, and it is forgotten as garbage: its shards may be moved aside. Of
    /// garbage, all versions its extents have are forbidden.
    ForbidVersion {
        /// The version.
        version: Version,
    },
    /// Says how a host is.
    SetHostState {
        /// Which.
        node: NodeName,
        /// How it is from now on.
        state: HostState,
        /// Who says so. An automatic mark never undoes an operator's.
        by: MarkedBy,
        /// Why.
        reason: String,
        /// Required of agents; refused when lower than the highest seen.
        fence: Option<Fence>,
    },
    /// Has a node emptied: all of its disks drain, and its vote goes to another. Taken back by a person's
    /// [`Command::SetHostState`] to `up`.
    DrainHost {
        /// Which.
        node: NodeName,
        /// Who says so.
        by: MarkedBy,
        /// Why.
        reason: String,
        /// The revision of the map by which this was judged to be safe; refused when it is another by now.
        judged: Option<u64>,
        /// Required of agents; refused when lower than the highest seen.
        fence: Option<Fence>,
    },
    /// Says whether a node may vote.
    SetVoting {
        /// Which.
        node: NodeName,
        /// Whether it may.
        votes: bool,
        /// Who says so. An automatic mark never undoes an operator's.
        by: MarkedBy,
        /// Why not.
        reason: String,
        /// The revision of the map by which this was judged to be safe; refused when it is another by now.
        judged: Option<u64>,
        /// Required of agents; refused when lower than the highest seen.
        fence: Option<Fence>,
    },
    /// Takes a node out of the cluster that is emptied or given up, and on whose disks nothing has its home. That it has no
    /// vote is looked at before this is proposed: who votes is no part of the state.
    ForgetNode {
        /// Which.
        node: NodeName,
        /// The revision of the map by which it was found to have no vote; refused when it is another by now.
        judged: u64,
    },
    /// Asks for a lock. Whoever holds it already has its lease from now on; whoever waits already keeps its place.
    AcquireLock {
        /// Which.
        path: LockPath,
        /// For whom.
        owner: LockOwner,
        /// How long it is held without a renewal.
        lease: Duration,
        /// Stand in the queue when another has it; otherwise that is a refusal.
        queue: bool,
    },
    /// Holds a lock for another lease.
    RenewLock {
        /// Which.
        path: LockPath,
        /// Whose.
        owner: LockOwner,
        /// Under which token.
        token: LockToken,
    },
    /// Gives a lock back.
    ReleaseLock {
        /// Which.
        path: LockPath,
        /// Whose.
        owner: LockOwner,
        /// Under which token.
        token: LockToken,
    },
    /// Gives up what an owner asked for: its place in the queue, and the lock if it was granted meanwhile.
    WithdrawLock {
        /// Which.
        path: LockPath,
        /// Whose.
        owner: LockOwner,
    },
    /// A lease or a wait was not renewed in time, by the monotonic clock of whoever says so. Refused when it was renewed
    /// before this is applied.
    ExpireLock {
        /// Which.
        path: LockPath,
        /// The stamp of the grant, renewal or question that is too old.
        stamp: u64,
    },
    /// Takes a lock from its holder before its lease is over. Whether that is allowed is decided before it is proposed.
    BreakLock {
        /// Which.
        path: LockPath,
        /// The token that was looked at: if the lock has moved on since, this is refused.
        token: LockToken,
        /// Why, for people.
        reason: String,
        /// Required of agents; refused when lower than the highest seen.
        fence: Option<Fence>,
    },
    /// Applies a command if the lock is held under this token, and refuses it otherwise: what was sent by a holder that
    /// was overtaken since does nothing, however late it arrives.
    UnderLock {
        /// Which.
        path: LockPath,
        /// Under which token.
        token: LockToken,
        /// What.
        command: Box<Command>,
    },
    /// Pauses the repair queue of the whole cluster. Another pause takes the place of one that lasts.
    PauseRepair {
        /// Whose.
        owner: String,
        /// Why, for people.
        reason: String,
        /// For how long.
        length: Duration,
    },
    /// Ends a pause of repair.
    ResumeRepair {
        /// Only this one; `None`: whichever lasts.
        stamp: Option<u64>,
    },
    /// Lets collection go on after a restore or a forced quorum: a person has looked.
    ReleaseCollection,
    /// Takes a disk out of the map that is out, and on which nothing has its home.
    ForgetDisk {
        /// Which.
        disk: DiskId,
    },
    /// A node whose metadata is damaged or gone stops being the member of Raft that it was, for good, and is given a
    /// fresh id: under the old one it has promised what it does not remember. Repeated, it gives the same id.
    ReplaceMember {
        /// The node.
        name: NodeName,
        /// Its data folder: another one of the same name is refused.
        instance: InstanceId,
        /// The member that it was.
        lost: RaftId,
        /// Of this attempt to come back: what was given to it is given to it again, and to no other.
        attempt: u128,
        /// Required of agents; refused when lower than the highest seen.
        fence: Option<Fence>,
    },
    /// Changes nothing: whoever applies it keeps that moment for a while, so that members can be compared.
    Checkpoint {
        /// Its name.
        id: u128,
        /// Required of agents when something is to be changed by what is found; refused when lower than the highest seen.
        fence: Option<Fence>,
    },
    /// [`Command::SetHome`] of several shards, each for itself: of small shards the entry of the log is a good part of what their
    /// rebuild costs.
    SetHomes {
        /// Which, and where they are now.
        homes: Vec<HomeMove>,
    },
}

/// Where a shard is now, as repair says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeMove {
    /// The shard.
    pub shard: ShardKey,
    /// Where it was believed to be.
    pub expected: Option<DiskId>,
    /// Where it is now.
    pub at: Option<DiskId>,
    /// Where it should be from now on.
    pub wanted: DiskId,
}

/// What a command came to. The same for everybody.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, nothing to tell.
    Done,
    /// A node is in, or in again.
    Joined {
        /// The id it has in Raft.
        raft_id: RaftId,
    },
    /// A disk's state was set.
    DiskWas(DiskState),
    /// A bucket exists: made, or found with `if_absent`.
    Bucket(BucketRecord),
    /// An object was put.
    Put {
        /// The version it replaced.
        replaced: Option<Version>,
    },
    /// A delete was applied.
    Deleted {
        /// Whether there was anything.
        existed: bool,
    },
    /// Deletes were applied: for each, whether there was anything.
    DeletedMany(Vec<bool>),
    /// An upload is an object now.
    Completed(CompletedUpload),
    /// Parts were dropped.
    Dropped {
        /// Whether there are more.
        more: bool,
    },
    /// Not done, with the reason.
    Refused(Refusal),
    /// A host's state was set.
    HostWas(HostState),
    /// A lock is held by whoever asked.
    Locked {
        /// Under this token.
        token: LockToken,
    },
    /// Another has the lock; whoever asked waits.
    Queued {
        /// How many are before it in the queue.
        before: u32,
    },
    /// A lock was taken from its holder.
    Broken {
        /// Every token from now on is higher than this.
        token: LockToken,
    },
    /// Of each of several shards whether its home was set, or why not.
    HomesSet(Vec<Option<Refusal>>),
}
