//! Between the core's words and the contract's.

use resilver_proto::{agent, common};
use resilver_strategies::lease::{AcceptRequest, Ballot, PrepareReply, PrepareRequest, Slot, SlotRequest};
use resilver_strategies::types::Fence;
use tonic::Status;

pub(crate) fn fence_to_wire(fence: &Fence) -> common::Fence {
    common::Fence { epoch: fence.epoch, round: fence.round, holder: fence.holder.clone() }
}

pub(crate) fn fence_from_wire(fence: Option<common::Fence>) -> Result<Fence, Status> {
    let common::Fence { epoch, round, holder } = fence.ok_or_else(|| missing("fence"))?;
    Ok(Fence { epoch, round, holder })
}

pub(crate) fn ballot_to_wire(ballot: &Ballot) -> agent::Ballot {
    agent::Ballot { round: ballot.round, agent: ballot.agent.clone() }
}

pub(crate) fn ballot_from_wire(ballot: Option<agent::Ballot>) -> Result<Ballot, Status> {
    let agent::Ballot { round, agent } = ballot.ok_or_else(|| missing("ballot"))?;
    Ok(Ballot { round, agent })
}

pub(crate) fn slot_to_wire(slot: &Slot) -> agent::Slot {
    agent::Slot {
        target: slot.target.clone(),
        step: slot.step.clone(),
        fence: Some(fence_to_wire(&slot.fence)),
        incident: slot.incident.clone(),
        opened_ms: slot.opened_ms,
    }
}

pub(crate) fn slot_from_wire(slot: Option<agent::Slot>) -> Result<Slot, Status> {
    let agent::Slot { target, step, fence, incident, opened_ms } = slot.ok_or_else(|| missing("slot"))?;
    Ok(Slot { target, step, fence: fence_from_wire(fence)?, incident, opened_ms })
}

pub(crate) fn prepare_to_wire(request: &PrepareRequest) -> agent::PrepareRequest {
    agent::PrepareRequest {
        ballot: Some(ballot_to_wire(&request.ballot)),
        cluster_id: request.cluster.clone(),
        epoch: request.epoch,
    }
}

pub(crate) fn prepare_from_wire(request: agent::PrepareRequest) -> Result<PrepareRequest, Status> {
    let ballot = ballot_from_wire(request.ballot)?;
    Ok(PrepareRequest { ballot, cluster: request.cluster_id, epoch: request.epoch })
}

pub(super) fn prepare_reply_from_wire(reply: agent::PrepareResponse) -> Result<PrepareReply, Status> {
    Ok(PrepareReply {
        promised: reply.promised,
        highest: ballot_from_wire(reply.highest)?,
        granted_to: reply.granted_to,
        granted_left_ms: reply.granted_left_ms,
        slots: reply.slots.into_iter().map(|slot| slot_from_wire(Some(slot))).collect::<Result<_, _>>()?,
        refusal: reply.refusal,
    })
}

/// The answer to phase 1.
pub(crate) fn prepare_reply_to_wire(reply: PrepareReply) -> agent::PrepareResponse {
    agent::PrepareResponse {
        promised: reply.promised,
        highest: Some(ballot_to_wire(&reply.highest)),
        granted: None,
        granted_to: reply.granted_to,
        granted_left_ms: reply.granted_left_ms,
        slots: reply.slots.iter().map(slot_to_wire).collect(),
        refusal: reply.refusal,
    }
}

pub(crate) fn accept_to_wire(request: &AcceptRequest, lease_ms: u64) -> agent::AcceptRequest {
    agent::AcceptRequest {
        ballot: Some(ballot_to_wire(&request.ballot)),
        holder: request.ballot.agent.clone(),
        for_ms: lease_ms,
        cluster_id: request.cluster.clone(),
        epoch: request.epoch,
    }
}

pub(crate) fn accept_from_wire(request: agent::AcceptRequest) -> Result<AcceptRequest, Status> {
    let ballot = ballot_from_wire(request.ballot)?;
    Ok(AcceptRequest { ballot, cluster: request.cluster_id, epoch: request.epoch })
}

/// Opening or closing a slot.
pub(crate) fn slot_request(request: agent::SlotRequest) -> Result<SlotRequest, Status> {
    Ok(SlotRequest { ballot: ballot_from_wire(request.ballot)?, slot: slot_from_wire(request.slot)? })
}

fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("the request has no {what}"))
}
