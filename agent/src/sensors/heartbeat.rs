//! The node's own account of itself, asked once per interval.
//!
//! Invariants: at most one miss is reported per interval, however often a starting node is asked: three misses convict.

use std::sync::Arc;
use std::time::Duration;

use resilver_proto::contract::{
    DiskState, Finding, LockState, NodeState, ObserveRequest, ObserveResponse, RaftState, VolumeState,
};
use resilver_strategies::api::{
    DiskFact, FindingFact, Input, LockFact, MemberFact, NodeFact, Observation, RaftFact, VolumeFact, VoteFact,
};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};
use tonic::Status;

use super::failures::Cursor;
use super::stopped;
use crate::health::HealthDesk;
use crate::lease::LeaseHandle;
use crate::links::{Links, node_control};

/// How often a node that has just been started is asked: what it says next decides when it counts as recovered.
const EAGER_LOOK: Duration = Duration::from_millis(50);
/// How long after a start it is asked that often. A node that needs longer has a log to replay; a second more or less
/// does not matter then.
const EAGER_FOR: Duration = Duration::from_secs(20);

/// Asks the node how it is.
pub(crate) struct HeartbeatSensor {
    /// The way to it.
    pub(crate) links: Arc<Links>,
    /// How often.
    pub(crate) interval: Duration,
    /// How long it may take to answer.
    pub(crate) deadline: Duration,
    /// Told when a new process runs.
    pub(crate) begun: Arc<Notify>,
    /// Told which cluster the node is in.
    pub(crate) lease: LeaseHandle,
    /// Told how long it takes, and what its score is made from.
    pub(crate) health: Arc<HealthDesk>,
    /// Where facts go.
    pub(crate) out: mpsc::Sender<Input>,
}

impl HeartbeatSensor {
    /// Asks until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.ask_on() => {}
        }
    }

    async fn ask_on(&self) {
        let mut eager_until = None;
        let mut missed_at: Option<Instant> = None;
        let mut told = None;
        let mut failures = Cursor::default();
        loop {
            let asked = Instant::now();
            match observe(&self.links, self.deadline).await {
                Ok(mut answer) => {
                    if answer.phase == "healthy" {
                        eager_until = None;
                    }
                    missed_at = None;
                    self.health.answered(&answer, asked.elapsed());
                    self.tell_cluster(&answer, &mut told).await;
                    // Before the heartbeat: what that shows may have followed from them.
                    let events = failures.news(&mut answer);
                    if !events.is_empty() {
                        self.send(Observation::Failures { events }).await;
                    }
                    self.send(Observation::Heartbeat(Box::new(node_fact(answer)))).await;
                }
                Err(status) => {
                    if missed_at.is_none_or(|at| asked.duration_since(at) >= self.interval) {
                        missed_at = Some(asked);
                        self.health.missed();
                        self.send(Observation::HeartbeatMissed { error: status.message().to_owned() }).await;
                    }
                }
            }
            let eager = eager_until.is_some_and(|until| asked < until);
            let pause = if eager { EAGER_LOOK } else { self.interval.saturating_sub(asked.elapsed()) };
            if timeout(pause, self.begun.notified()).await.is_ok() {
                eager_until = Some(Instant::now() + EAGER_FOR);
            }
        }
    }

    /// The lease is taken per cluster and epoch; the node is the one who knows them.
    async fn tell_cluster(&self, answer: &ObserveResponse, told: &mut Option<(String, u64)>) {
        let known = (answer.cluster_id.clone(), answer.epoch);
        if told.as_ref() != Some(&known) {
            self.lease.known(&known.0, known.1).await;
            *told = Some(known);
        }
    }

    async fn send(&self, fact: Observation) {
        // Only a stopping agent has dropped the receiver.
        let _ = self.out.send(Input::Observed(fact)).await;
    }
}

/// One answer of the own node.
pub(crate) async fn observe(links: &Links, deadline: Duration) -> Result<ObserveResponse, Status> {
    links
        .node
        .call(deadline, |channel| async { node_control(channel).observe(ObserveRequest {}).await })
        .await
        .map(tonic::Response::into_inner)
}

fn node_fact(answer: ObserveResponse) -> NodeFact {
    let voters = voters(&answer);
    let members = answer.nodes.iter().map(member_fact).collect();
    let restricted = !matches!(answer.mode.as_str(), "" | "read_write") || answer.stands == Some(false);
    let foreground_percent = answer.disks.iter().map(|disk| disk.foreground_percent).max().unwrap_or_default();
    let node = answer.node;
    NodeFact {
        pid: answer.pid,
        phase: answer.phase,
        phase_detail: answer.phase_detail,
        epoch: answer.epoch,
        raft: answer.raft.map(|raft| raft_fact(raft, voters)),
        disks: answer
            .disks
            .into_iter()
            .filter(|disk| disk.node == node || disk.node.is_empty())
            .map(disk_fact)
            .collect(),
        findings: answer.findings.into_iter().map(finding_fact).collect(),
        repair_queue: answer.repair.as_ref().map_or(0, |repair| repair.queue + repair.in_flight),
        missing_shards: answer.repair.as_ref().map_or(0, |repair| repair.missing_shards),
        operations_in_flight: answer.operations_in_flight,
        foreground_percent,
        members,
        cluster: answer.cluster_id,
        mode_is_persons: restricted && !answer.mode_automatic,
        mode: answer.mode,
        stands: answer.stands,
        damage: answer.damage,
        oldest_operation_ms: answer.oldest_operation_ms,
        oldest_operation: answer.oldest_operation,
        locks: answer.locks.into_iter().map(lock_fact).collect(),
        throttled: answer.repair.as_ref().is_some_and(|repair| !repair.throttled.is_empty()),
        volumes: answer.volumes.into_iter().map(volume_fact).collect(),
        descriptors: answer.descriptors.zip(answer.descriptors_limit),
    }
}

/// A leader counts its replication, everybody else the map.
fn voters(answer: &ObserveResponse) -> u64 {
    let replicated = answer.raft.as_ref().map_or(0, |raft| raft.replication.iter().filter(|to| to.voter).count());
    let mapped = answer.nodes.iter().filter(|node| matches!(node.role.as_str(), "voter" | "leader")).count();
    replicated.max(mapped) as u64
}

fn member_fact(member: &NodeState) -> MemberFact {
    // The map calls the leader by that name; in the engine's words it is a voter.
    let role = if member.role == "leader" { "voter" } else { &member.role };
    MemberFact {
        node: member.node.clone(),
        state: member.state.clone(),
        role: role.to_owned(),
        reason: member.reason.clone(),
        automatic: member.automatic,
    }
}

fn raft_fact(raft: RaftState, voters: u64) -> RaftFact {
    let leads = raft.role == "leader";
    RaftFact {
        role: raft.role,
        term: raft.term,
        leader: raft.leader,
        committed: raft.committed,
        applied: raft.applied,
        voters,
        last_log: raft.last_log,
        last_log_term: raft.last_log_term,
        snapshot: raft.snapshot,
        quorum_ack_ms: leads.then_some(raft.millis_since_quorum_ack),
        unheard_ms: raft.millis_since_leader.filter(|_| !leads),
        vote: raft.vote.map(|vote| VoteFact { term: vote.term, node: vote.node, committed: vote.committed }),
    }
}

fn volume_fact(volume: VolumeState) -> VolumeFact {
    VolumeFact {
        name: volume.name,
        path: volume.path,
        total_bytes: volume.total_bytes,
        available_bytes: volume.available_bytes,
        inodes_total: volume.inodes_total,
        inodes_free: volume.inodes_free,
    }
}

fn lock_fact(lock: LockState) -> LockFact {
    LockFact {
        path: lock.path,
        health: lock.health,
        owner: lock.owner,
        owner_node: lock.owner_node,
        token: lock.token,
        held_ms: lock.held_ms,
        waiting: lock.waiting,
    }
}

fn disk_fact(disk: DiskState) -> DiskFact {
    DiskFact {
        disk: disk.disk_id,
        path: disk.path,
        state: disk.state,
        health: disk.health,
        reason: disk.reason,
        canary_age_ms: disk.canary_age_ms,
        available_bytes: disk.available_bytes,
        total_bytes: disk.total_bytes,
        errors: disk.errors,
        read_errors: disk.read_errors,
    }
}

fn finding_fact(finding: Finding) -> FindingFact {
    FindingFact {
        sequence: finding.sequence,
        kind: finding.kind,
        disk: finding.disk_id,
        bucket: finding.bucket,
        key: finding.key,
        found_by: finding.found_by,
        detail: finding.detail,
        repaired: finding.repaired,
    }
}
