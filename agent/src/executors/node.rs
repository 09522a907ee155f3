//! Steps that the node itself does, through its contract.

use std::time::Duration;

use resilver_proto::common;
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{
    DiskRequest, DiskVerb, ObjectRef, Progress, Scope, SetHostStateRequest, StepDownRequest, SyncMissingEntriesRequest,
    TriggerElectionRequest,
};
use resilver_strategies::api::{Step, StepResult, Subject};
use resilver_strategies::types::{Action, Fence, GuardName, Mode};
use tonic::{Status, Streaming};

use super::proof::verify;
use super::{Tools, own};
use crate::links::{node_control, replica_repair};

/// The longest silence of a repairing or verifying stream. It reports every few shards; a silent one has lost its node.
const STREAM_SILENCE: Duration = Duration::from_secs(30);

/// How long one verb of the node may take: a commit in the cluster's metadata.
pub(super) const VERB_DEADLINE: Duration = Duration::from_secs(10);

/// Does one step.
pub(super) async fn run(tools: &Tools, step: &Step, reason: &str) -> StepResult {
    if let (Action::RejoinLearner, Subject::Node(_)) = (step.action, &step.subject) {
        return own::rejoin(tools, step, reason).await;
    }
    let result = match (step.action, &step.subject) {
        (Action::Throttle, Subject::Disk { disk, .. }) => verb(tools, step, disk, DiskVerb::StopWrites, reason).await,
        (Action::DetachDisk, Subject::Disk { disk, .. }) => verb(tools, step, disk, DiskVerb::Detach, reason).await,
        (Action::SetMode, Subject::Disk { disk, .. }) => verb(tools, step, disk, DiskVerb::Attach, reason).await,
        (Action::EvacuateDisk, Subject::Disk { disk, .. }) => verb(tools, step, disk, DiskVerb::Drain, reason).await,
        (Action::RepairShards, Subject::Disk { disk, .. }) if step.mode == Some(Mode::DiskDegrading) => {
            empty_disk(tools, step, disk, reason).await
        }
        (Action::RepairShards, Subject::Disk { disk, .. }) if step.mode == Some(Mode::DataCorruption) => {
            deep_scan(tools, step, disk).await
        }
        (Action::RepairShards, Subject::Disk { disk, .. }) => rebuild_disk(tools, step, disk, reason).await,
        (Action::RepairShards, Subject::Object { bucket, key }) => sync(tools, step, object(bucket, key)).await,
        (Action::MarkDown, Subject::Hosts(hosts)) => mark(tools, step, hosts, "down", reason).await,
        (Action::EvacuateHost, Subject::Hosts(hosts)) => mark(tools, step, hosts, "out", reason).await,
        (Action::MarkUp, Subject::Hosts(hosts)) => mark(tools, step, hosts, "up", reason).await,
        (Action::SetMode, Subject::Node(_)) => own::set_mode(tools, step, reason).await,
        (Action::Throttle, Subject::Node(_)) => own::throttle(tools, step, reason).await,
        (Action::Reclaim | Action::Compact, Subject::Node(_)) => own::reclaim(tools, step).await,
        (Action::CancelOperation, Subject::Node(_)) => own::cancel_operation(tools, step, reason).await,
        (Action::BreakLock, Subject::Node(_)) => own::break_lock(tools, step, reason).await,
        (Action::Resync, Subject::Node(_)) => own::resync(tools, step).await,
        (Action::InstallSnapshot, Subject::Node(_)) => own::install_snapshot(tools, step).await,
        (Action::Demote, Subject::Node(node)) => own::set_voting(tools, step, node, false, reason).await,
        (Action::Promote, Subject::Node(node)) => own::set_voting(tools, step, node, true, reason).await,
        (Action::AlignTerm, Subject::Node(_)) => own::align_term(tools, step).await,
        (Action::StepDown, Subject::Node(_)) => step_down(tools, step).await,
        (Action::TriggerElection, Subject::Node(_)) => trigger_election(tools, step).await,
        (action, subject) => Err(Status::unimplemented(format!("no executor does {action} to {subject}"))),
    };
    match result {
        Ok(detail) => StepResult::done(detail),
        Err(status) if finds_no_room(step.action, &status) => {
            StepResult::Refused { guard: GuardName::MoveAside, evidence: status.message().to_owned() }
        }
        Err(status) => StepResult::Failed { error: said(&status) },
    }
}

/// What would have to be rebuilt has no room: refused by the node before anything was done. No attempt failed, and it may go once
/// there is room.
fn finds_no_room(action: Action, status: &Status) -> bool {
    let rebuilds = matches!(action, Action::EvacuateDisk | Action::EvacuateHost | Action::RepairShards);
    rebuilds && status.code() == tonic::Code::ResourceExhausted
}

/// A status in words; a bare code says little at three in the morning.
pub(super) fn said(status: &Status) -> String {
    format!("{} ({})", status.message(), status.code())
}

pub(super) fn wire(fence: Option<&Fence>) -> Option<common::Fence> {
    fence.map(|fence| common::Fence { epoch: fence.epoch, round: fence.round, holder: fence.holder.clone() })
}

/// The scope of one disk.
pub(super) fn disk(id: &str) -> Scope {
    Scope { of: Some(Of::DiskId(id.to_owned())) }
}

/// The scope of one object.
pub(super) fn object(bucket: &str, key: &str) -> Scope {
    Scope { of: Some(Of::Object(ObjectRef { bucket: bucket.to_owned(), key: key.to_owned() })) }
}

async fn verb(tools: &Tools, step: &Step, disk: &str, verb: DiskVerb, reason: &str) -> Result<String, Status> {
    let request = DiskRequest {
        fence: wire(step.fence.as_ref()),
        disk_id: disk.to_owned(),
        verb: verb.into(),
        automatic: true,
        reason: reason.to_owned(),
    };
    let call = |channel| async { node_control(channel).disk(request).await };
    let answer = tools.links.node.call(VERB_DEADLINE, call).await?.into_inner();
    Ok(format!("{} → {}", answer.before, answer.after))
}

/// Says in the cluster map how hosts are, through the own node: theirs may be gone.
async fn mark(tools: &Tools, step: &Step, hosts: &[String], state: &str, reason: &str) -> Result<String, Status> {
    let mut told = Vec::new();
    for host in hosts {
        let request = SetHostStateRequest {
            fence: wire(step.fence.as_ref()),
            node: host.clone(),
            state: state.to_owned(),
            automatic: true,
            reason: reason.to_owned(),
        };
        let call = |channel| async { node_control(channel).set_host_state(request).await };
        let answer = tools.links.node.call(VERB_DEADLINE, call).await?.into_inner();
        told.push(format!("{host}: {} → {}", answer.before, answer.after));
    }
    Ok(told.join(", "))
}

/// Placement forgets the disk; then its shards are rebuilt where they belong now.
async fn rebuild_disk(tools: &Tools, step: &Step, id: &str, reason: &str) -> Result<String, Status> {
    let moved = verb(tools, step, id, DiskVerb::Out, reason).await?;
    let synced = sync(tools, step, disk(id)).await?;
    Ok(format!("{moved}; {synced}"))
}

/// Everything on the disk is read; what is bad is made anew from the others. The disk stays in service.
async fn deep_scan(tools: &Tools, step: &Step, id: &str) -> Result<String, Status> {
    let read = match verify(tools, disk(id)).await {
        Ok(read) => read,
        Err(status) if status.code() == tonic::Code::Aborted => format!("damage: {}", status.message()),
        Err(status) => return Err(status),
    };
    let mended = sync(tools, step, disk(id)).await?;
    Ok(format!("read: {read}; mended: {mended}"))
}

/// A disk that is marked draining and works: what is on it is copied, and the copies are read back, before it is given up.
async fn empty_disk(tools: &Tools, step: &Step, id: &str, reason: &str) -> Result<String, Status> {
    let moved = sync(tools, step, disk(id)).await?;
    let read = verify(tools, disk(id)).await?;
    let given_up = verb(tools, step, id, DiskVerb::Out, reason).await?;
    Ok(format!("moved: {moved}; read back: {read}; {given_up}"))
}

pub(super) async fn sync(tools: &Tools, step: &Step, scope: Scope) -> Result<String, Status> {
    let request = SyncMissingEntriesRequest { scope: Some(scope), fence: wire(step.fence.as_ref()) };
    let call = |channel| async { replica_repair(channel).sync_missing_entries(request).await };
    let stream = tools.links.node.call(VERB_DEADLINE, call).await?.into_inner();
    follow(stream).await
}

/// Follows a stream of progress to its end. Only a last message with nothing failed and nothing skipped is success.
pub(super) async fn follow(mut stream: Streaming<Progress>) -> Result<String, Status> {
    loop {
        let next = tokio::time::timeout(STREAM_SILENCE, stream.message()).await;
        let silent = |_| Status::deadline_exceeded(format!("no progress for {} s", STREAM_SILENCE.as_secs()));
        let Some(progress) = next.map_err(silent)?? else {
            return Err(Status::unavailable("the stream ended before it said that it was finished"));
        };
        if !progress.finished {
            continue;
        }
        let Progress { done, total, failed, skipped, bytes, message, .. } = progress;
        let told = format!("{done} of {total} done, {failed} failed, {skipped} skipped, {bytes} bytes");
        let told = if message.is_empty() { told } else { format!("{told}: {message}") };
        return if failed == 0 && skipped == 0 { Ok(told) } else { Err(Status::aborted(told)) };
    }
}

pub(super) async fn step_down(tools: &Tools, step: &Step) -> Result<String, Status> {
    let request = StepDownRequest { fence: wire(step.fence.as_ref()), to: String::new() };
    let call = |channel| async { node_control(channel).step_down(request).await };
    tools.links.node.call(VERB_DEADLINE, call).await?;
    Ok("stepped down".to_owned())
}

pub(super) async fn trigger_election(tools: &Tools, step: &Step) -> Result<String, Status> {
    let request = TriggerElectionRequest { fence: wire(step.fence.as_ref()) };
    let call = |channel| async { node_control(channel).trigger_election(request).await };
    tools.links.node.call(VERB_DEADLINE, call).await?;
    Ok("election triggered".to_owned())
}
