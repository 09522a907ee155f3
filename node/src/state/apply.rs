//! Applying commands: what the cluster agreed upon becomes state.
//!
//! Owns: the meaning of every [`Command`]. Must never: ask a clock, a random number or anything that differs between
//! members: every member comes to the same state and the same outcome. Invariants: a refusal changes nothing but the
//! highest fence seen; totals change with the records they count, in the same transaction.

use std::sync::Arc;

use super::sessions::{self, Proposal};
use super::tables::{Tables, get, put};
use super::{StateError, Totals, objects};
use crate::model::{
    BucketRecord, ClusterMap, Command, DiskRecord, DiskState, JoiningDisk, Location, MarkedBy, NodeRecord, Outcome,
    Refusal,
};
use crate::types::{ClusterId, DiskId, Epoch, Fence, InstanceId, NodeName, RaftId};

/// The epoch a cluster is born with.
pub const FIRST_EPOCH: Epoch = Epoch(1);

/// One write transaction's view: open tables and the small records that are kept in memory.
pub(super) struct Work<'txn> {
    pub(super) tables: Tables<'txn>,
    pub(super) map: Arc<ClusterMap>,
    pub(super) next_raft_id: u64,
    pub(super) totals: Totals,
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
        return init_cluster(work, *cluster, name);
    }
    if work.map.cluster.is_none() {
        return Err(Refusal::NoCluster.into());
    }
    match command {
        Command::InitCluster { .. } => Err(Refusal::ClusterExists.into()),
        Command::JoinNode { name, instance, address, location, disks, raft_id } => {
            let join = Join { name, instance: *instance, address, location, disks, raft_id: *raft_id };
            join_node(work, &join)
        }
        Command::SetDiskState { disk, state, by, reason, fence } => {
            set_disk_state(work, *disk, *state, *by, reason, fence.as_ref())
        }
        Command::CreateBucket { bucket, if_absent } => create_bucket(work, bucket, *if_absent),
        Command::PutObject { bucket, key, object, condition, now_ms } => {
            objects::put_object(work, &objects::At { bucket, key, condition: *condition, now_ms: *now_ms }, object)
        }
        Command::DeleteObject { bucket, key, condition, now_ms } => {
            objects::delete_object(work, &objects::At { bucket, key, condition: *condition, now_ms: *now_ms })
        }
        Command::SetHome { bucket, key, version, extent, shard, expected, at, wanted } => {
            let shard = objects::Shard { version: *version, extent: *extent, shard: *shard };
            let change = objects::Change { expected: *expected, at: *at, wanted: *wanted };
            objects::set_home(work, bucket, key, &shard, &change)
        }
        Command::ForbidVersion { version } => objects::forbid_version(work, *version),
    }
}

/// The map, to be changed: its revision counts the change.
fn change_map<'a>(work: &'a mut Work<'_>) -> &'a mut ClusterMap {
    let map = Arc::make_mut(&mut work.map);
    map.revision += 1;
    map
}

fn init_cluster(work: &mut Work<'_>, cluster: ClusterId, name: &str) -> Result<Outcome, Stop> {
    match work.map.cluster {
        Some(known) if known == cluster => Ok(Outcome::Done),
        Some(_) => Err(Refusal::ClusterExists.into()),
        None => {
            let map = change_map(work);
            map.cluster = Some(cluster);
            map.name = name.to_owned();
            map.epoch = FIRST_EPOCH;
            Ok(Outcome::Done)
        }
    }
}

struct Join<'a> {
    name: &'a NodeName,
    instance: InstanceId,
    address: &'a str,
    location: &'a Location,
    disks: &'a [JoiningDisk],
    raft_id: Option<RaftId>,
}

fn join_node(work: &mut Work<'_>, join: &Join<'_>) -> Result<Outcome, Stop> {
    let known = work.map.nodes.get(join.name);
    if known.is_some_and(|node| node.instance != join.instance) {
        return Err(Refusal::NameTaken(join.name.clone()).into());
    }
    // One data folder under two names would be two members with one log.
    if let Some(other) = work.map.nodes.values().find(|n| n.instance == join.instance && n.name != *join.name) {
        return Err(Refusal::NameTaken(other.name.clone()).into());
    }
    for disk in join.disks {
        if let Some(record) = work.map.disks.get(&disk.id).filter(|record| record.node != *join.name) {
            return Err(Refusal::DiskTaken(disk.id, record.node.clone()).into());
        }
    }
    let raft_id = match known {
        Some(node) => node.raft_id,
        None => draw_raft_id(work, join.raft_id),
    };
    let mut map = (*work.map).clone();
    map.nodes.insert(
        join.name.clone(),
        NodeRecord {
            name: join.name.clone(),
            raft_id,
            instance: join.instance,
            address: join.address.to_owned(),
            location: join.location.clone(),
        },
    );
    for disk in join.disks {
        add_disk(&mut map, join.name, disk);
    }
    // A node that says again what is known changes nothing: the map's watchers sleep on.
    if map != *work.map {
        map.revision += 1;
        work.map = Arc::new(map);
    }
    Ok(Outcome::Joined { raft_id })
}

/// The id asked for if it is the founder's and free, else the next of the counter.
fn draw_raft_id(work: &mut Work<'_>, wanted: Option<RaftId>) -> RaftId {
    let id = match wanted {
        Some(id) if work.map.node_by_raft(id).is_none() => id,
        _ => RaftId(work.next_raft_id),
    };
    work.next_raft_id = work.next_raft_id.max(id.0 + 1);
    id
}

fn add_disk(map: &mut ClusterMap, node: &NodeName, disk: &JoiningDisk) {
    let fresh = || DiskRecord {
        id: disk.id,
        node: node.clone(),
        path: String::new(),
        capacity_bytes: 0,
        state: DiskState::Up,
        marked_by: MarkedBy::Automatic,
        reason: String::new(),
    };
    let record = map.disks.entry(disk.id).or_insert_with(fresh);
    record.path.clone_from(&disk.path);
    record.capacity_bytes = disk.capacity_bytes;
}

fn set_disk_state(
    work: &mut Work<'_>,
    disk: DiskId,
    state: DiskState,
    by: MarkedBy,
    reason: &str,
    fence: Option<&Fence>,
) -> Result<Outcome, Stop> {
    if let Some(offered) = fence {
        if *offered < work.map.fence {
            let highest = work.map.fence.clone();
            return Err(Refusal::StaleFence { offered: offered.clone(), highest }.into());
        }
        // Seen is seen, whatever becomes of this command: its holder is the highest there is.
        if *offered > work.map.fence {
            change_map(work).fence = offered.clone();
        }
    }
    let Some(record) = work.map.disks.get(&disk) else { return Err(Refusal::NoDisk(disk).into()) };
    let was = record.state;
    let operators = record.marked_by == MarkedBy::Operator && by == MarkedBy::Automatic;
    if operators && state < was {
        return Err(Refusal::OperatorMark.into());
    }
    if was == state && (record.marked_by == by || operators) {
        return Ok(Outcome::DiskWas(was));
    }
    if let Some(record) = change_map(work).disks.get_mut(&disk) {
        record.state = state;
        reason.clone_into(&mut record.reason);
        record.marked_by = match (by, state) {
            // An operator's `up` gives the disk back to the machine: holding it against a failure would serve nobody.
            (MarkedBy::Operator, DiskState::Up) => MarkedBy::Automatic,
            // A stricter automatic mark on an operator's keeps it a person's to undo.
            _ if operators => MarkedBy::Operator,
            _ => by,
        };
    }
    Ok(Outcome::DiskWas(was))
}

fn create_bucket(work: &mut Work<'_>, bucket: &BucketRecord, if_absent: bool) -> Result<Outcome, Stop> {
    let name = bucket.name.as_str();
    // A zero byte ends the bucket's name within an object's key.
    if name.is_empty() || name.contains('\0') {
        return Err(Refusal::NoBucket(bucket.name.clone()).into());
    }
    let known: Option<BucketRecord> = get(&work.tables.buckets, "buckets", name.as_bytes())?;
    match known {
        Some(known) if if_absent => Ok(Outcome::Bucket(known)),
        Some(_) => Err(Refusal::BucketExists(bucket.name.clone()).into()),
        None => {
            put(&mut work.tables.buckets, name.as_bytes(), bucket)?;
            Ok(Outcome::Bucket(bucket.clone()))
        }
    }
}
