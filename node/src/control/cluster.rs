//! The service `Cluster`: birth, admission, and the status that operators read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use resilver_proto::contract::ObserveResponse;
use resilver_proto::store::cluster_server::Cluster;
use resilver_proto::store::{
    DiskStatus, InitRequest, InitResponse, JoinRequest, JoinResponse, LostMember, NodeStatus, PauseRepairRequest,
    PauseRepairResponse, ReleaseCollectionRequest, ReleaseCollectionResponse, RemovedNode, RepairHeld, RepairPause,
    ResumeRepairRequest, ResumeRepairResponse, StatusRequest, StatusResponse, StoredVote,
};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::hosts::MAX_REASON_CHARS;
use super::join::FoundRequest;
use super::observe::{millis, missing_shards, no_vote_automatic, observe, role_of, why_no_vote};
use super::views::View;
use super::{Core, Shared, meta_status};
use crate::meta::{Counts, Role};
use crate::model::{ClusterMap, Command, HostState, JoiningDisk, Location, NodeRecord, Outcome};
use crate::phase::Phase;
use crate::types::{Fence, RaftId};

/// The longest pause of repair. Whoever needs more has another problem, and shards without a spare meanwhile.
const MAX_REPAIR_PAUSE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The service.
#[derive(Clone)]
pub(crate) struct ClusterService {
    pub(crate) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitResponse>, Status> {
        let name = request.into_inner().name;
        if let Some(core) = self.shared.core.get() {
            let cluster = core.meta.map().cluster.map(|id| id.to_string()).unwrap_or_default();
            return Err(Status::already_exists(format!("this node is in cluster {cluster} already")));
        }
        let (answer, answered) = oneshot::channel();
        self.shared
            .found
            .send(FoundRequest { name, answer })
            .await
            .map_err(|_| Status::unavailable("the node is ending"))?;
        let cluster = answered.await.map_err(|_| Status::unavailable("the node is ending"))?;
        cluster
            .map(|id| Response::new(InitResponse { cluster_id: id.to_string() }))
            .map_err(Status::failed_precondition)
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let core = self.shared.core()?;
        let mut request = request.into_inner();
        let lost = request.lost.take();
        let command = join_command(request)?;
        if let Some(lost) = lost {
            replace(core, &command, lost).await?;
        }
        match core.meta.propose(command).await.map_err(|error| meta_status(&error))? {
            Outcome::Joined { raft_id } => {
                let map = core.meta.map();
                let cluster = map.cluster.ok_or_else(|| Status::unavailable("the cluster is being born"))?;
                Ok(Response::new(JoinResponse {
                    cluster_id: cluster.to_string(),
                    epoch: map.epoch.0,
                    raft_id: raft_id.0,
                    cluster_name: map.name.clone(),
                }))
            }
            Outcome::Refused(refusal) => Err(Status::failed_precondition(refusal.to_string())),
            other => Err(Status::internal(format!("an unexpected outcome of a join: {other:?}"))),
        }
    }

    async fn pause_repair(
        &self,
        request: Request<PauseRepairRequest>,
    ) -> Result<Response<PauseRepairResponse>, Status> {
        let pause = request.into_inner().pause.unwrap_or_default();
        let length = Duration::from_millis(pause.length_ms);
        if length.is_zero() || length > MAX_REPAIR_PAUSE {
            return Err(Status::invalid_argument(format!(
                "a pause of repair lasts from 1 ms to {} days: longer ones are forgotten, and shards with them",
                MAX_REPAIR_PAUSE.as_secs() / 86_400
            )));
        }
        let short = |text: String| text.chars().take(MAX_REASON_CHARS).collect();
        let command = Command::PauseRepair { owner: short(pause.owner), reason: short(pause.reason), length };
        self.shared.core()?.meta.propose(command).await.map_err(|error| meta_status(&error))?;
        Ok(Response::new(PauseRepairResponse {}))
    }

    async fn resume_repair(&self, _: Request<ResumeRepairRequest>) -> Result<Response<ResumeRepairResponse>, Status> {
        let meta = &self.shared.core()?.meta;
        meta.barrier().await.map_err(|error| meta_status(&error))?;
        let paused = meta.map().repair_pause.is_some();
        meta.propose(Command::ResumeRepair { stamp: None }).await.map_err(|error| meta_status(&error))?;
        Ok(Response::new(ResumeRepairResponse { paused }))
    }

    async fn release_collection(
        &self,
        _: Request<ReleaseCollectionRequest>,
    ) -> Result<Response<ReleaseCollectionResponse>, Status> {
        let meta = &self.shared.core()?.meta;
        meta.propose(Command::ReleaseCollection).await.map_err(|error| meta_status(&error))?;
        Ok(Response::new(ReleaseCollectionResponse {}))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let local = request.into_inner().local;
        match self.shared.core.get() {
            // A member that has applied nothing yet knows of no cluster, and must not answer for it.
            Some(core) if core.meta.map().cluster.is_none() => {
                let state = self.shared.phase.get();
                Err(Status::unavailable(format!("the node is {}: {}", state.phase.as_str(), state.detail)))
            }
            // Nor must one that takes no part any more, left behind in an epoch that is over or removed: what it knows is old.
            Some(_) if self.shared.phase.get().phase == Phase::LostVoter => Err(Status::unavailable(format!(
                "this node answers for no cluster: {}",
                self.shared.phase.get().detail
            ))),
            Some(core) => Ok(Response::new(status(&self.shared, core, local).await)),
            None => Ok(Response::new(outside(&self.shared))),
        }
    }
}

/// Gives a node that comes back its fresh id, before anything else is done about it.
async fn replace(core: &Core, join: &Command, lost: LostMember) -> Result<(), Status> {
    let Command::JoinNode { name, instance, .. } = join else {
        return Err(Status::internal("a join is made of another command"));
    };
    if lost.raft_id == 0 {
        return Err(Status::invalid_argument("a lost member without its id in Raft: ask for the status first"));
    }
    let fence = lost.fence.map(Fence::from);
    let attempt = u128::from_str_radix(&lost.attempt, 16)
        .map_err(|_| Status::invalid_argument("a lost member without a valid attempt"))?;
    let was = RaftId(lost.raft_id);
    let command = Command::ReplaceMember { name: name.clone(), instance: *instance, lost: was, attempt, fence };
    match core.meta.propose(command).await.map_err(|error| meta_status(&error))? {
        Outcome::Joined { raft_id } => {
            tracing::info!(node = %name, was = lost.raft_id, is = %raft_id, operation = "rejoin", "a lost member was replaced");
            Ok(())
        }
        Outcome::Refused(refusal) => Err(Status::failed_precondition(refusal.to_string())),
        other => Err(Status::internal(format!("an unexpected outcome of a replacement: {other:?}"))),
    }
}

fn join_command(request: JoinRequest) -> Result<Command, Status> {
    let bad = |what: &str| Status::invalid_argument(format!("a join without a valid {what}"));
    let mut disks = Vec::with_capacity(request.disks.len());
    for disk in request.disks {
        let id = disk.disk_id.parse().map_err(|_| bad("disk id"))?;
        disks.push(JoiningDisk { id, path: disk.path, capacity_bytes: disk.capacity_bytes });
    }
    Ok(Command::JoinNode {
        name: request.node.as_str().into(),
        instance: request.instance.parse().map_err(|_| bad("instance id"))?,
        address: request.address,
        location: Location { datacenter: request.datacenter, rack: request.rack },
        disks,
        raft_id: None,
    })
}

/// What a node in no cluster (yet, or any more) can say: an empty cluster id, and itself.
fn outside(shared: &Shared) -> StatusResponse {
    let own = observe(shared);
    let node = NodeStatus {
        node: own.node,
        address: shared.options.address.clone(),
        state: own.phase,
        role: "-".to_owned(),
        disks: u32::try_from(own.disks.len()).unwrap_or(u32::MAX),
        seen: true,
        detail: own.phase_detail,
        ..NodeStatus::default()
    };
    StatusResponse {
        nodes: vec![node],
        disks: own.disks.into_iter().map(disk_status).collect(),
        ..StatusResponse::default()
    }
}

/// The cluster as this node sees it, with what the others say of themselves, or said a moment ago.
async fn status(shared: &Arc<Shared>, core: &Core, local: bool) -> StatusResponse {
    let map = core.meta.map();
    let raft = core.meta.status();
    let counts = core.meta.counts();
    let asked: Vec<&NodeRecord> = map.nodes.values().filter(|node| !local || node.name == shared.name).collect();
    let answers = join_all(asked.iter().map(|node| ask(shared, node))).await;
    let mut out = StatusResponse {
        cluster_id: map.cluster.map(|id| id.to_string()).unwrap_or_default(),
        cluster_name: map.name.clone(),
        epoch: map.epoch.0,
        leader: raft.leader.and_then(|id| map.node_by_raft(id)).map(|node| node.name.to_string()).unwrap_or_default(),
        term: raft.term,
        committed: raft.committed,
        applied: raft.applied,
        objects: counts.objects,
        missing_shards: missing_shards(&core.meta),
        collection_held: map.collection_held,
        removed: map
            .removed
            .iter()
            .map(|(id, removed)| RemovedNode { node: removed.name.to_string(), raft_id: id.0 })
            .collect(),
        repair_pause: map.repair_pause.as_ref().map(|pause| RepairPause {
            owner: pause.owner.clone(),
            reason: pause.reason.clone(),
            length_ms: millis(pause.length),
        }),
        ..StatusResponse::default()
    };
    let matched = matched_by_leader(&answers);
    for (node, View { answer, age }) in asked.into_iter().zip(answers) {
        let matched = matched.get(&node.raft_id.0).copied();
        let role = role_of(node.raft_id, &raft);
        let last_seen_ms = age.map(millis).unwrap_or_default();
        let (mark, mark_reason) = mark_of(&map, &counts, node, role);
        let (no_vote, no_vote_automatic) = (why_no_vote(node), no_vote_automatic(node));
        match answer {
            Some(answer) => {
                let said = node_status(node, role, &answer);
                out.nodes.push(NodeStatus {
                    last_seen_ms,
                    mark,
                    mark_reason,
                    no_vote,
                    no_vote_automatic,
                    matched,
                    ..said
                });
                add_repair(&mut out, &answer);
                out.disks.extend(answer.disks.into_iter().map(disk_status));
            }
            None => {
                // One that is heard is there, and busy: how it is, it has not said.
                let silent = shared.peers.is_silent(&node.address);
                out.unanswered.push(node.name.to_string());
                out.nodes.push(NodeStatus {
                    node: node.name.to_string(),
                    address: node.address.clone(),
                    state: if silent { "unreachable" } else { "unknown" }.to_owned(),
                    role: role.to_owned(),
                    raft_id: node.raft_id.0,
                    last_seen_ms,
                    seen: age.is_some(),
                    mark,
                    mark_reason,
                    no_vote,
                    no_vote_automatic,
                    matched,
                    ..NodeStatus::default()
                });
            }
        }
    }
    // A disk whose node does not answer is still in the map: it must not vanish from the table.
    let shown: Vec<String> = out.disks.iter().map(|disk| disk.disk_id.clone()).collect();
    out.disks.extend(map.disks.values().filter(|disk| !local && !shown.contains(&disk.id.to_string())).map(|disk| {
        DiskStatus {
            disk_id: disk.id.to_string(),
            path: disk.path.clone(),
            node: disk.node.to_string(),
            state: map.disk_state(disk.id).unwrap_or(disk.state).as_str().to_owned(),
            health: "unknown".to_owned(),
            total_bytes: disk.capacity_bytes,
            objects: counts.shards_by_disk.get(&disk.id).copied().unwrap_or_default(),
            reason: disk.reason.clone(),
            ..DiskStatus::default()
        }
    }));
    if let Ok((_, Some(warning))) = crate::placement::default_coding(&map) {
        out.warnings.push(warning);
    }
    out
}

/// How far the leader knows each member's log to reach, by the word of the one that leads the highest term of those who answered.
fn matched_by_leader(answers: &[View]) -> BTreeMap<u64, u64> {
    let rafts = answers.iter().filter_map(|view| view.answer.as_ref()?.raft.as_ref());
    let leader = rafts.filter(|raft| raft.role == Role::Leader.as_str()).max_by_key(|raft| raft.term);
    leader.map(|raft| raft.replication.iter().map(|peer| (peer.id, peer.matched)).collect()).unwrap_or_default()
}

/// What the map says of a node's host, and why, for people. One that is up and being emptied is `draining`, and `drained` once
/// nothing is left there and it has no vote: then it can be removed.
fn mark_of(map: &ClusterMap, counts: &Counts, node: &NodeRecord, role: &str) -> (String, String) {
    let draining = match &node.draining {
        Some(draining) if node.state == HostState::Up => draining,
        _ => return (node.state.as_str().to_owned(), node.reason.clone()),
    };
    let disks = map.disks.values().filter(|disk| disk.node == node.name);
    let shards: u64 = disks.filter_map(|disk| counts.shards_by_disk.get(&disk.id)).sum();
    let mut left = Vec::new();
    if shards > 0 {
        left.push(format!("{shards} shards have their home there still"));
    }
    if role != "learner" {
        left.push(format!("it is {role} still"));
    }
    if left.is_empty() {
        return ("drained".to_owned(), format!("{}; nothing is left there", draining.reason));
    }
    ("draining".to_owned(), format!("{}; {}", draining.reason, left.join(", ")))
}

async fn ask(shared: &Arc<Shared>, node: &NodeRecord) -> View {
    if node.name == shared.name {
        return View { answer: Some(observe(shared)), age: Some(Duration::ZERO) };
    }
    shared.views.of(&shared.peers, node).await
}

fn node_status(node: &NodeRecord, role: &str, answer: &ObserveResponse) -> NodeStatus {
    let raft = answer.raft.clone().unwrap_or_default();
    NodeStatus {
        node: node.name.to_string(),
        address: node.address.clone(),
        state: answer.phase.clone(),
        role: role.to_owned(),
        raft_id: node.raft_id.0,
        disks: u32::try_from(answer.disks.len()).unwrap_or(u32::MAX),
        objects: answer.objects,
        last_seen_ms: 0,
        seen: true,
        log_index: raft.last_log,
        applied: raft.applied,
        detail: answer.phase_detail.clone(),
        vote: raft.vote.map(|vote| StoredVote { term: vote.term, node: vote.node, committed: vote.committed }),
        ..NodeStatus::default()
    }
}

fn disk_status(disk: resilver_proto::contract::DiskState) -> DiskStatus {
    DiskStatus {
        disk_id: disk.disk_id,
        path: disk.path,
        node: disk.node,
        state: disk.state,
        health: disk.health,
        used_bytes: disk.used_bytes,
        total_bytes: disk.used_bytes + disk.available_bytes,
        objects: disk.objects,
        errors: disk.errors,
        reason: disk.reason,
    }
}

fn add_repair(out: &mut StatusResponse, answer: &ObserveResponse) {
    if let Some(repair) = &answer.repair {
        out.repair_queue += repair.queue;
        out.repair_in_flight += repair.in_flight;
        out.repair_completed += repair.completed;
        out.repair_failed += repair.failed;
        out.repair_rate_bytes_per_second += repair.rate_bytes_per_second;
        out.repair_held.extend(repair.held.iter().map(|held| RepairHeld {
            node: answer.node.clone(),
            disk_id: held.disk_id.clone(),
            path: held.path.clone(),
            foreground_percent: held.foreground_percent,
            limit_percent: held.limit_percent,
            shards: held.shards,
        }));
    }
}
