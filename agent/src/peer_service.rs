//! What other agents ask of this one (gRPC `AgentPeer`).
//!
//! Owns: the translation between the wire and the lease, the coordinator and the present view.
//!
//! Must never: answer about the lease before the lease's task has stored what it promised.

use std::sync::Arc;
use std::time::Duration;

use resilver_proto::agent as wire;
use resilver_proto::agent::agent_peer_server::AgentPeer;
use resilver_strategies::api::{RaftFact, SilenceFact};
use resilver_strategies::coordinator::SlotAsk;
use resilver_strategies::lease::ReleaseRequest;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::coordinator::{Coordinator, HELD_BY, Outcome, action_named};
use crate::health::HealthDesk;
use crate::lease::{
    LeaseError, LeaseHandle, accept_from_wire, ballot_from_wire, ballot_to_wire, fence_from_wire, fence_to_wire,
    prepare_from_wire, prepare_reply_to_wire, slot_from_wire, slot_request,
};
use crate::state::{PeerViews, View};
use crate::timebase::Timebase;

/// The oldest view from which others are told whom this agent does not hear. The main loop turns every second.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// The service.
pub(crate) struct PeerService {
    /// This agent's name.
    pub(crate) own: String,
    /// This host's failure domain.
    pub(crate) domain: String,
    pub(crate) time: Timebase,
    pub(crate) lease: LeaseHandle,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) health: Arc<HealthDesk>,
    /// How the others answered this agent.
    pub(crate) peers: Arc<PeerViews>,
}

#[tonic::async_trait]
impl AgentPeer for PeerService {
    async fn ping(&self, request: Request<wire::PingRequest>) -> Result<Response<wire::PingResponse>, Status> {
        let holder = self.lease.holder().unwrap_or_default();
        let wall_ms = self.time.wall_ms();
        let view = self.view.borrow();
        let fact = view.node.fact.as_ref();
        let raft = fact.and_then(|fact| fact.raft.as_ref());
        Ok(Response::new(wire::PingResponse {
            node: self.own.clone(),
            node_alive: view.node.alive(),
            node_phase: view.node.phase().to_owned(),
            node_heartbeat_age_ms: view.node.heartbeat_age_ms().unwrap_or(u64::MAX),
            leader: raft.map(|raft| raft.leader.clone()).unwrap_or_default(),
            term: raft.map_or(0, |raft| raft.term),
            open_incidents: view.open as u64,
            lease_holder: holder,
            wall_ms,
            failure_domain: self.domain.clone(),
            // What an agent that was busy or stood still last saw, it does not tell as the present.
            tells_silent: view.silent.is_some() && view.beat.elapsed() <= TOLD_WITHIN,
            silent: view.silent.iter().flatten().map(silence_to_wire).collect(),
            health_score: self.health.score().map(u32::from),
            raft: raft.map(raft_to_wire),
            cluster_id: fact.map(|fact| fact.cluster.clone()).unwrap_or_default(),
            epoch: fact.map_or(0, |fact| fact.epoch),
            hears_you: self.peers.node_answers(&request.into_inner().from),
            canary_ms: view.node.canary_ms(),
            partial: view.heard.is_some(),
            heard: view.heard.clone().unwrap_or_default(),
            disrupted_ms: view.disrupted.clone(),
        }))
    }

    async fn prepare(&self, request: Request<wire::PrepareRequest>) -> Result<Response<wire::PrepareResponse>, Status> {
        let request = prepare_from_wire(request.into_inner())?;
        let reply = self.lease.prepare(request).await.map_err(refused)?;
        Ok(Response::new(prepare_reply_to_wire(reply)))
    }

    async fn accept(&self, request: Request<wire::AcceptRequest>) -> Result<Response<wire::AcceptResponse>, Status> {
        let request = accept_from_wire(request.into_inner())?;
        let ballot = request.ballot.clone();
        let reply = self.lease.accept(request).await.map_err(refused)?;
        if reply.accepted {
            // As near to the sending of the answer as this side can come.
            self.lease.answered(ballot).await;
        }
        let highest = Some(ballot_to_wire(&reply.highest));
        Ok(Response::new(wire::AcceptResponse { accepted: reply.accepted, highest, refusal: reply.refusal }))
    }

    async fn release(&self, request: Request<wire::ReleaseRequest>) -> Result<Response<wire::ReleaseResponse>, Status> {
        let ballot = ballot_from_wire(request.into_inner().ballot)?;
        self.lease.release(ReleaseRequest { ballot }).await;
        Ok(Response::new(wire::ReleaseResponse {}))
    }

    async fn open_slot(&self, request: Request<wire::SlotRequest>) -> Result<Response<wire::SlotResponse>, Status> {
        let reply = self.lease.open_slot(slot_request(request.into_inner())?).await.map_err(refused)?;
        Ok(Response::new(wire::SlotResponse { done: reply.done, refusal: reply.refusal }))
    }

    async fn close_slot(&self, request: Request<wire::SlotRequest>) -> Result<Response<wire::SlotResponse>, Status> {
        let reply = self.lease.close_slot(slot_request(request.into_inner())?).await.map_err(refused)?;
        Ok(Response::new(wire::SlotResponse { done: reply.done, refusal: reply.refusal }))
    }

    async fn request_slot(
        &self,
        request: Request<wire::RequestSlotRequest>,
    ) -> Result<Response<wire::RequestSlotResponse>, Status> {
        let wire::RequestSlotRequest { target, step, incident, operator, action, disk_unreadable, under_way } =
            request.into_inner();
        let under_way = under_way.into_iter().collect();
        let ask = SlotAsk { target, action: action_named(&action), operator, disk_unreadable };
        let answer = match self.coordinator.slot_for(ask, step, incident, under_way).await {
            Ok(fence) => {
                wire::RequestSlotResponse { granted: true, fence: Some(fence_to_wire(&fence)), ..Default::default() }
            }
            Err((guard, why)) => {
                let guard = guard.as_str().to_owned();
                wire::RequestSlotResponse { guard, refusal: why, evidence: self.own.clone(), ..Default::default() }
            }
        };
        Ok(Response::new(answer))
    }

    async fn finish_slot(
        &self,
        request: Request<wire::FinishSlotRequest>,
    ) -> Result<Response<wire::FinishSlotResponse>, Status> {
        let wire::FinishSlotRequest { slot, verified } = request.into_inner();
        let closed = self.coordinator.finish_slot_for(slot_from_wire(slot)?, verified).await;
        Ok(Response::new(wire::FinishSlotResponse { closed }))
    }

    async fn raise_fence(
        &self,
        request: Request<wire::RaiseFenceRequest>,
    ) -> Result<Response<wire::RaiseFenceResponse>, Status> {
        let fence = fence_from_wire(request.into_inner().fence)?;
        let highest = self.lease.raise_fence(fence).await.map_err(refused)?;
        Ok(Response::new(wire::RaiseFenceResponse { highest: Some(fence_to_wire(&highest)) }))
    }

    async fn coordinate(
        &self,
        request: Request<wire::CoordinateRequest>,
    ) -> Result<Response<wire::CoordinateResponse>, Status> {
        let wire::CoordinateRequest { target, step, reason, operator } = request.into_inner();
        Ok(Response::new(match self.coordinator.coordinate(&target, &step, &reason, &operator).await {
            Outcome::Done { detail, fence } => wire::CoordinateResponse {
                done: true,
                detail,
                fence: fence.as_ref().map(fence_to_wire),
                ..Default::default()
            },
            Outcome::Refused { guard, why } => wire::CoordinateResponse { guard, refusal: why, ..Default::default() },
            Outcome::Failed { why } => wire::CoordinateResponse { refusal: why, ..Default::default() },
        }))
    }

    async fn run_step(
        &self,
        request: Request<wire::RunStepRequest>,
    ) -> Result<Response<wire::RunStepResponse>, Status> {
        let wire::RunStepRequest { fence, step, reason, operator, .. } = request.into_inner();
        let fence = fence_from_wire(fence)?;
        let outcome = self.coordinator.run_here(fence, &step, &reason, &operator).await;
        Ok(Response::new(match outcome {
            Outcome::Done { detail, .. } => wire::RunStepResponse { done: true, detail, ..Default::default() },
            Outcome::Refused { guard, why } => {
                wire::RunStepResponse { refusal: format!("{HELD_BY}{guard}: {why}"), ..Default::default() }
            }
            Outcome::Failed { why } => wire::RunStepResponse { detail: why, ..Default::default() },
        }))
    }
}

fn raft_to_wire(raft: &RaftFact) -> wire::PeerRaft {
    wire::PeerRaft {
        role: raft.role.clone(),
        term: raft.term,
        leader: raft.leader.clone(),
        last_log: raft.last_log,
        last_log_term: raft.last_log_term,
        committed: raft.committed,
        applied: raft.applied,
        snapshot: raft.snapshot,
        voters: raft.voters,
        quorum_ack_ms: raft.quorum_ack_ms,
        unheard_ms: raft.unheard_ms,
        vote: raft.vote.as_ref().map(|vote| wire::PeerVote {
            term: vote.term,
            node: vote.node.clone(),
            committed: vote.committed,
        }),
    }
}

fn silence_to_wire(silence: &SilenceFact) -> wire::Silence {
    wire::Silence {
        node: silence.node.clone(),
        agent_silent_ms: silence.agent_ms,
        node_silent_ms: silence.node_ms,
        failure_domain: silence.domain.clone(),
    }
}

fn refused(error: LeaseError) -> Status {
    match error {
        LeaseError::NoCluster | LeaseError::Stopping => Status::unavailable(error.to_string()),
        LeaseError::Stale(_) => Status::failed_precondition(error.to_string()),
        LeaseError::Store { .. } | LeaseError::Unreadable { .. } => Status::internal(error.to_string()),
    }
}
