//! One cheap, complete look at the node: what its agent reads once a second.

use std::time::Duration;

use resilver_proto::contract::{
    DiskState, HeldDisk, LockState, NodeState, ObserveResponse, RaftState, RepairState, ReplicationState, StartStep,
    Vote,
};

use super::{Shared, volumes};
use crate::disk::VolumeStatus;
use crate::locks::LockTold;
use crate::meta::{Meta, MetaStatus, Role};
use crate::model::{ClusterMap, MarkedBy, NodeRecord};
use crate::phase::Damage;
use crate::repair::{PAUSE_ABOVE, RepairHandle};
use crate::steps::{Step, StepState};
use crate::types::RaftId;

/// The most findings one answer carries: the repair queue is the full list, this is the news.
const FINDINGS_PER_ANSWER: usize = 256;

/// The most locks one answer carries: the worst, of which one is looked at first.
const LOCKS_PER_ANSWER: usize = 16;

/// Looks.
pub(crate) fn observe(shared: &Shared) -> ObserveResponse {
    let state = shared.phase.get();
    let mode = shared.phase.mode().get();
    let said = mode.why.as_ref().or(mode.quiet.as_ref());
    let descriptors = shared.host.proc.descriptors(shared.host.proc.own());
    let mut answer = ObserveResponse {
        node: shared.name.to_string(),
        phase: state.phase.as_str().to_owned(),
        phase_detail: match underway(shared) {
            Some(step) => format!("{}: {}", state.detail, step.words()),
            None => state.detail,
        },
        start_steps: steps(shared).iter().map(step_message).collect(),
        mode: mode.mode.as_str().to_owned(),
        stands: Some(mode.stands),
        volumes: volumes::look(shared),
        descriptors: descriptors.map(|(open, _)| open),
        descriptors_limit: descriptors.map(|(_, limit)| limit),
        mode_reason: said.map(|said| said.reason.clone()).unwrap_or_default(),
        mode_automatic: said.is_some_and(|said| said.automatic),
        damage: shared.phase.damage().map_or("", Damage::as_str).to_owned(),
        pid: shared.host.proc.own().pid,
        started_ms: shared.started.as_millis(),
        ..ObserveResponse::default()
    };
    let map = shared.core.get().map(|core| core.meta.map());
    if let Some(disks) = shared.disks.get() {
        answer.disks =
            disks.volumes().iter().map(|volume| disk_state(&volume.status(), shared, map.as_deref())).collect();
        answer.objects = answer.disks.iter().map(|disk| disk.objects).sum();
    }
    let is_own = |disk| shared.disks.get().is_some_and(|disks| disks.volume(disk).is_some());
    answer.failures = shared.peers.failures().told(map.as_deref(), &shared.name, is_own);
    if let Some(rot) = shared.core.get().and_then(|core| core.meta.rot().borrow().clone()) {
        answer.phase_detail = format!("{}; what it has stored of the metadata rots: {rot}", answer.phase_detail);
    }
    if let (Some(core), Some(map)) = (shared.core.get(), map) {
        answer.cluster_id = map.cluster.map(|id| id.to_string()).unwrap_or_default();
        answer.epoch = map.epoch.0;
        let status = core.meta.status();
        #[cfg(feature = "planted-bugs")]
        let status = as_it_takes_itself(status);
        answer.raft = Some(raft_state(&status, &map));
        answer.nodes = map.nodes.values().map(|node| node_state(node, &status)).collect();
        answer.repair =
            Some(RepairState { held: held(&core.repair, shared), ..repair_state(&core.repair, &core.meta) });
        let findings = core.repair.findings();
        let older = findings.len().saturating_sub(FINDINGS_PER_ANSWER);
        answer.findings = findings.into_iter().skip(older).map(Into::into).collect();
        let operations = core.gateway.operations();
        answer.operations_in_flight = operations.in_flight() as u64;
        if let Some(oldest) = operations.oldest(1).pop() {
            (answer.oldest_operation, answer.oldest_operation_ms) = (oldest.id, millis(oldest.age));
        }
        answer.locks = core.locks.told(LOCKS_PER_ANSWER).into_iter().map(lock_state).collect();
    }
    answer
}

/// The steps of this start. How far entries are applied, Raft says.
fn steps(shared: &Shared) -> Vec<StepState> {
    let mut steps = shared.steps.now();
    if let (Some(core), Some(last)) = (shared.core.get(), steps.last_mut())
        && last.step == Step::CatchUp
        && !last.finished
    {
        let status = core.meta.status();
        (last.done, last.total) = (status.applied, status.last_log.max(status.committed));
    }
    steps
}

/// The one that the node is at, until it serves.
fn underway(shared: &Shared) -> Option<StepState> {
    steps(shared).into_iter().find(|step| !step.finished)
}

fn step_message(state: &StepState) -> StartStep {
    StartStep {
        name: state.step.as_str().to_owned(),
        done: state.done,
        total: state.total,
        unit: state.step.unit().to_owned(),
        millis: millis(state.took),
        finished: state.finished,
    }
}

fn disk_state(status: &VolumeStatus, shared: &Shared, map: Option<&ClusterMap>) -> DiskState {
    let record = map.and_then(|map| map.disks.get(&status.id));
    DiskState {
        disk_id: status.id.to_string(),
        path: status.path.display().to_string(),
        node: shared.name.to_string(),
        state: record.map_or("-", |record| record.state.as_str()).to_owned(),
        health: status.health.as_str().to_owned(),
        reason: status.reason.clone(),
        used_bytes: status.used_bytes,
        available_bytes: status.available_bytes,
        objects: status.shards,
        errors: status.errors,
        read_errors: Some(status.read_errors),
        canary_age_ms: millis(status.canary_age),
        check_micros: u64::try_from(status.check_took.as_micros()).unwrap_or(u64::MAX),
        total_bytes: status.total_bytes,
        foreground_percent: shared.core.get().map_or(0, |core| core.repair.foreground_percent(status.id)),
    }
}

fn raft_state(status: &MetaStatus, map: &ClusterMap) -> RaftState {
    let name_of = |id: RaftId| map.node_by_raft(id).map(|node| node.name.to_string()).unwrap_or_default();
    RaftState {
        id: status.raft_id.0,
        role: status.role.as_str().to_owned(),
        term: status.term,
        leader_id: status.leader.map_or(0, |id| id.0),
        leader: status.leader.map(name_of).unwrap_or_default(),
        last_log: status.last_log,
        committed: status.committed,
        applied: status.applied,
        snapshot: status.snapshot.unwrap_or_default(),
        millis_since_quorum_ack: status.quorum_ack_age.map(millis).unwrap_or_default(),
        replication: status
            .replication
            .iter()
            .map(|peer| ReplicationState {
                id: peer.member.0,
                node: name_of(peer.member),
                matched: peer.matched,
                voter: peer.voter,
            })
            .collect(),
        // Whoever answers the agent reads the one from the log, and asks Raft for the other.
        last_log_term: 0,
        millis_since_leader: None,
        vote: status.vote.map(|vote| Vote {
            term: vote.term,
            member_id: vote.member.0,
            node: name_of(vote.member),
            committed: vote.committed,
        }),
    }
}

/// A node that the simulator makes take itself for the leader says so to whoever asks; it decides nothing by that.
#[cfg(feature = "planted-bugs")]
fn as_it_takes_itself(status: MetaStatus) -> MetaStatus {
    match resilver_host::planted::damage::deluded(status.raft_id.0) {
        Some(term) => MetaStatus {
            role: Role::Leader,
            term,
            leader: Some(status.raft_id),
            quorum_ack_age: Some(Duration::ZERO),
            ..status
        },
        None => status,
    }
}

fn lock_state(lock: LockTold) -> LockState {
    LockState {
        path: lock.path.to_string(),
        health: lock.health.as_str().to_owned(),
        owner: lock.owner,
        owner_node: lock.owner_node,
        token: lock.token,
        held_ms: millis(lock.held),
        waiting: lock.waiting as u64,
    }
}

fn node_state(node: &NodeRecord, status: &MetaStatus) -> NodeState {
    NodeState {
        node: node.name.to_string(),
        address: node.address.clone(),
        raft_id: node.raft_id.0,
        state: node.state.as_str().to_owned(),
        role: role_of(node.raft_id, status).to_owned(),
        reason: node.reason.clone(),
        automatic: node.marked_by == MarkedBy::Automatic,
        draining: node.draining.is_some(),
        no_vote: why_no_vote(node),
        no_vote_automatic: no_vote_automatic(node),
    }
}

/// Why a node is to have no vote, for a person; empty: it may have one.
pub(crate) fn why_no_vote(node: &NodeRecord) -> String {
    match &node.no_vote {
        Some(mark) if mark.reason.is_empty() => "no reason was given".to_owned(),
        Some(mark) => mark.reason.clone(),
        None => String::new(),
    }
}

/// Whether that is an agent's word.
pub(crate) fn no_vote_automatic(node: &NodeRecord) -> bool {
    node.no_vote.as_ref().is_some_and(|mark| mark.by == MarkedBy::Automatic)
}

/// The part a member plays in the metadata: leader, voter or learner.
pub(crate) fn role_of(id: RaftId, status: &MetaStatus) -> &'static str {
    if status.leader == Some(id) || (status.raft_id == id && status.role == Role::Leader) {
        "leader"
    } else if status.voters.contains(&id) {
        "voter"
    } else {
        "learner"
    }
}

fn repair_state(repair: &RepairHandle, meta: &Meta) -> RepairState {
    let status = repair.status();
    RepairState {
        queue: status.queue,
        in_flight: status.in_flight,
        completed: status.completed,
        failed: status.failed,
        rate_bytes_per_second: status.rate_bytes_per_second,
        eta_ms: status.eta.map(millis).unwrap_or_default(),
        eta_known: status.eta.is_some(),
        scrubbed_bytes: status.scrubbed_bytes,
        missing_shards: missing_shards(meta),
        scrub_pass: status.scrub_pass,
        shards: all_shards(meta),
        throttled: repair.throttled().unwrap_or_default(),
        held: Vec::new(),
    }
}

/// The disks on which repair and scrub give way to clients now.
fn held(repair: &RepairHandle, shared: &Shared) -> Vec<HeldDisk> {
    let path = |disk| {
        shared.disks.get().and_then(|disks| disks.volume(disk)).map(|volume| volume.path().display().to_string())
    };
    let disks = repair.held().into_iter().map(|(disk, held)| HeldDisk {
        disk_id: disk.to_string(),
        path: path(disk).unwrap_or_default(),
        foreground_percent: held.percent,
        limit_percent: PAUSE_ABOVE,
        shards: held.shards,
    });
    disks.collect()
}

/// All shards of the whole cluster, those without a home among them.
fn all_shards(meta: &Meta) -> u64 {
    let counts = meta.counts();
    counts.homeless_shards + counts.shards_by_disk.values().sum::<u64>()
}

/// Shards of the whole cluster that cannot be read now, by metadata: without a home, or on a disk that is down or out.
pub(crate) fn missing_shards(meta: &Meta) -> u64 {
    let map = meta.map();
    let counts = meta.counts();
    let unreadable = counts.shards_by_disk.iter().filter(|(disk, _)| !map.readable(**disk)).map(|(_, count)| *count);
    counts.homeless_shards + unreadable.sum::<u64>()
}

/// A duration in whole milliseconds, as messages carry it.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
