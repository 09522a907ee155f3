//! Applying commands: what the cluster agreed upon becomes state.
//!
//! Owns: the meaning of every [`Command`]. Must never: ask a clock, a random number or anything that differs between
//! members: every member comes to the same state and the same outcome. Invariants: a refusal changes nothing but the
//! highest fence seen; totals change with the records they count, in the same transaction.

use std::sync::Arc;

use super::objects::At;
use super::placed::Told;
use super::sessions::{self, Proposal};
use super::tables::Tables;
use super::{StateError, Totals, buckets, complete, hosts, keys, leaving, locks, members, objects, pauses, uploads};
use crate::model::{ClusterMap, Command, Condition, HomeMove, LockTable, Outcome, Refusal};
use crate::types::Epoch;

/// The epoch a cluster is born with.
pub const FIRST_EPOCH: Epoch = Epoch(1);

/// One write transaction's view: open tables and the small records that are kept in memory.
pub(super) struct Work<'txn> {
    pub(super) tables: Tables<'txn>,
    pub(super) map: Arc<ClusterMap>,
    pub(super) next_raft_id: u64,
    pub(super) totals: Totals,
    pub(super) locks: Arc<LockTable>,
    /// What it changes of what is placed on disks.
    pub(super) told: Told,
    pub(super) max_outcomes: u64,
}

/// Why a command ends without being applied.
pub(super) enum Stop {
    /// By the rules: an outcome like any other.
    Refused(Refusal),
    /// By the disk: the state machine stops.
    Failed(StateError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: Into<StateError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Applies one proposal, once: a repeat is answered with the outcome it had.
pub(super) fn apply(work: &mut Work<'_>, index: u64, proposal: &Proposal) -> Result<Outcome, StateError> {
    if let Some(outcome) = sessions::recall(work, proposal)? {
        return Ok(outcome);
    }
    let outcome = match command(work, &proposal.command) {
        Ok(outcome) => outcome,
        Err(Stop::Refused(refusal)) => Outcome::Refused(refusal),
        Err(Stop::Failed(error)) => return Err(error),
    };
    sessions::remember(work, index, proposal, &outcome)?;
    Ok(outcome)
}

fn command(work: &mut Work<'_>, command: &Command) -> Result<Outcome, Stop> {
    if let Command::InitCluster { cluster, name } = command {
        return members::init_cluster(work, *cluster, name);
    }
    if work.map.cluster.is_none() {
        return Err(Refusal::NoCluster.into());
    }
    match command {
        Command::InitCluster { .. } => Err(Refusal::ClusterExists.into()),
        Command::JoinNode { name, instance, address, location, disks, raft_id } => {
            let join = members::Join { name, instance: *instance, address, location, disks, raft_id: *raft_id };
            members::join_node(work, &join)
        }
        Command::PauseRepair { owner, reason, length } => Ok(pauses::pause(work, owner, reason, *length)),
        Command::ResumeRepair { stamp } => Ok(pauses::resume(work, *stamp)),
        Command::ReleaseCollection => Ok(pauses::release_collection(work)),
        Command::ForgetDisk { disk } => members::forget_disk(work, *disk),
        Command::ReplaceMember { name, instance, lost, attempt, fence } => {
            members::replace_member(work, name, *instance, (*lost, *attempt), fence.as_ref())
        }
        Command::Checkpoint { id: _, fence } => {
            members::admit_fence(work, fence.as_ref())?;
            Ok(Outcome::Done)
        }
        Command::SetDiskState { disk, state, by, reason, judged, fence } => {
            members::set_disk_state(work, *disk, *state, (*by, reason), *judged, fence.as_ref())
        }
        Command::SetHostState { node, state, by, reason, fence } => {
            hosts::set_host_state(work, node, *state, *by, reason, fence.as_ref())
        }
        Command::DrainHost { node, by, reason, judged, fence } => {
            let word = leaving::Word { node, by: *by, reason, judged: *judged, fence: fence.as_ref() };
            leaving::drain_host(work, &word)
        }
        Command::SetVoting { node, votes, by, reason, judged, fence } => {
            let word = leaving::Word { node, by: *by, reason, judged: *judged, fence: fence.as_ref() };
            leaving::set_voting(work, &word, *votes)
        }
        Command::ForgetNode { node, judged } => leaving::forget_node(work, node, *judged),
        Command::SetMetadataRoom { node, low } => members::set_metadata_room(work, node, *low),
        Command::CreateBucket { bucket, if_absent } => buckets::create(work, bucket, *if_absent),
        Command::DeleteBucket { bucket } => buckets::delete(work, bucket),
        Command::SetBucket { bucket, coding, quota_bytes, repair_priority } => {
            let change =
                buckets::Change { coding: *coding, quota_bytes: *quota_bytes, repair_priority: *repair_priority };
            buckets::set(work, bucket, &change)
        }
        Command::PutObject { bucket, key, object, condition, now_ms } => {
            objects::put_object(work, &At { bucket, key, condition: *condition, now_ms: *now_ms }, object)
        }
        Command::DeleteObject { bucket, key, condition, now_ms } => {
            objects::delete_object(work, &At { bucket, key, condition: *condition, now_ms: *now_ms })
        }
        Command::DeleteObjects { bucket, keys, now_ms } => objects::delete_many(work, bucket, keys, *now_ms),
        Command::CreateUpload { upload } => uploads::create(work, upload),
        Command::PutPart { bucket, key, upload, part, object, now_ms } => {
            let at = At { bucket, key, condition: Condition::None, now_ms: *now_ms };
            uploads::put_part(work, &at, *upload, *part, object)
        }
        Command::CompleteUpload { bucket, key, upload, parts, version, checksum, condition, now_ms } => {
            let at = At { bucket, key, condition: *condition, now_ms: *now_ms };
            let complete =
                complete::Complete { upload: *upload, parts, version: *version, checksum: checksum.as_ref() };
            complete::complete(work, &at, &complete)
        }
        Command::AbortUpload { bucket, key, upload, now_ms } => {
            uploads::abort(work, &At { bucket, key, condition: Condition::None, now_ms: *now_ms }, *upload)
        }
        Command::ForgetUpload { bucket, key, upload } => uploads::forget(work, bucket, key, *upload),
        Command::DropParts { bucket, upload, now_ms } => uploads::drop_parts(work, bucket, *upload, *now_ms),
        Command::PutKey { key } => keys::put_key(work, key),
        Command::RevokeKey { id } => keys::revoke(work, id),
        Command::GrantKey { id, bucket, grant } => keys::grant(work, id, bucket, *grant),
        Command::SetHome { bucket: _, key: _, shard, expected, at, wanted } => {
            let change = HomeMove { shard: *shard, expected: *expected, at: *at, wanted: *wanted };
            objects::set_home(work, &change)
        }
        Command::SetHomes { homes } => objects::set_homes(work, homes),
        Command::ForbidVersion { version } => objects::forbid_version(work, *version),
        Command::AcquireLock { path, owner, lease, queue } => locks::acquire(work, path, owner, *lease, *queue),
        Command::RenewLock { path, owner, token } => locks::renew(work, path, owner, *token),
        Command::ReleaseLock { path, owner, token } => locks::release(work, path, owner, *token),
        Command::WithdrawLock { path, owner } => locks::withdraw(work, path, owner),
        Command::ExpireLock { path, stamp } => locks::expire(work, path, *stamp),
        Command::BreakLock { path, token, reason: _, fence } => locks::break_lock(work, path, *token, fence.as_ref()),
        Command::UnderLock { path, token, command } => {
            locks::demand(work, path, *token)?;
            self::command(work, command)
        }
    }
}
