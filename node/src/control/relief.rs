//! What relieves a node without taking anything from it for good: its mode, operations ended, room and channels given back,
//! background work that rests.
//!
//! Owns: the words of the contract for it. Must never: touch what is stored; end what it was not told to end.

use std::sync::Arc;

use resilver_proto::contract::{
    CancelOperationRequest, CancelOperationResponse, ListOperationsResponse, OperationState, ReclaimRequest,
    ReclaimResponse, SetModeRequest, SetModeResponse, ThrottleRequest, ThrottleResponse,
};
use tonic::Status;

use super::node_control::admit;
use super::observe::millis;
use super::{Shared, meta_status};
use crate::gateway::Running;
use crate::mode::{Kept, Said, Word};
use crate::repair::THROTTLE_LASTS;

/// Operations that one answer names. More than this at once is saturation, which the count shows.
const OPERATIONS_PER_ANSWER: usize = 256;

/// Sets the mode, in every phase: a node is fenced before it serves, too.
pub(super) async fn set_mode(shared: &Shared, request: SetModeRequest) -> Result<SetModeResponse, Status> {
    let SetModeRequest { fence, mode, reason, automatic } = request;
    let word = Word::parse(&mode).ok_or_else(|| {
        Status::invalid_argument(format!("{mode:?} is no mode: read_write, read_only, isolated, quiet or standing"))
    })?;
    if let Some(core) = shared.core.get() {
        admit(core.meta.map().fence.clone(), fence)?;
    }
    let said = Said { automatic, reason };
    let set = shared.phase.mode().set(&shared.host, &shared.options.data_dir, word, said).await;
    match set {
        Ok(before) => Ok(SetModeResponse { before: before.to_owned() }),
        Err(kept @ Kept::Persons { .. }) => Err(Status::failed_precondition(kept.to_string())),
        Err(kept @ Kept::Io { .. }) => Err(Status::unavailable(kept.to_string())),
    }
}

/// What clients have under way.
pub(super) fn operations(shared: &Shared) -> Result<ListOperationsResponse, Status> {
    let operations = shared.core()?.gateway.operations();
    let named = operations.oldest(OPERATIONS_PER_ANSWER);
    let more = operations.in_flight().saturating_sub(named.len()) as u64;
    Ok(ListOperationsResponse { operations: named.into_iter().map(state_of).collect(), more })
}

/// Ends one.
pub(super) fn cancel(shared: &Shared, request: &CancelOperationRequest) -> Result<CancelOperationResponse, Status> {
    let CancelOperationRequest { operation, reason } = request;
    let reason = if reason.is_empty() { "no reason was given" } else { reason };
    let cancelled = shared.core()?.gateway.operations().cancel(operation, reason);
    let cancelled = cancelled.ok_or_else(|| {
        Status::not_found(format!("no operation {operation:?} is under way on this node: it has ended, or never was"))
    })?;
    tracing::warn!(
        id = cancelled.id,
        what = cancelled.what,
        subject = cancelled.subject,
        age_ms = millis(cancelled.age),
        reason,
        operation = "cancel",
        "an operation of a client was cancelled"
    );
    Ok(CancelOperationResponse { operation: Some(state_of(cancelled)) })
}

fn state_of(running: Running) -> OperationState {
    let Running { id, what, subject, age } = running;
    OperationState { id, what: what.to_owned(), subject, age_ms: millis(age) }
}

/// Gives back what is held and not needed.
pub(super) async fn reclaim(shared: &Arc<Shared>, request: ReclaimRequest) -> Result<ReclaimResponse, Status> {
    match request.what.as_str() {
        "connections" => {
            let dropped = shared.peers.redial();
            let detail = format!("{dropped} control channels will be dialled afresh");
            tracing::info!(dropped, operation = "reclaim", "control channels were dropped");
            Ok(ReclaimResponse { freed_bytes: 0, detail })
        }
        "space" => {
            let core = shared.core()?;
            admit(core.meta.map().fence.clone(), request.fence)?;
            // One at a time: two would measure each other's.
            let Ok(_one) = shared.reclaiming.try_lock() else {
                return Err(Status::aborted("room is being reclaimed on this node already"));
            };
            core.repair.collect_now();
            let (removed, mut told) = core.repair.purge_replaced().await;
            let made = core.meta.reclaim().await.map_err(|error| meta_status(&error))?;
            told.extend(made.told);
            told.push(format!("{removed} shards that were given up are gone from the disks"));
            let (freed_bytes, detail) = (made.bytes, told.join("; "));
            tracing::info!(freed_bytes, detail, operation = "reclaim", "room was reclaimed");
            Ok(ReclaimResponse { freed_bytes, detail })
        }
        other => Err(Status::invalid_argument(format!("{other:?} cannot be reclaimed: space or connections"))),
    }
}

/// Has background work rest, or go on.
pub(super) fn throttle(shared: &Shared, request: &ThrottleRequest) -> Result<ThrottleResponse, Status> {
    let ThrottleRequest { on, reason } = request;
    let reason = if reason.is_empty() { "no reason was given" } else { reason };
    let before = shared.core()?.repair.throttle(on.then_some(reason));
    if before != *on {
        tracing::info!(on, reason, operation = "throttle", "scrub and repair of this node");
    }
    let ends_ms = if *on { millis(THROTTLE_LASTS) } else { 0 };
    Ok(ThrottleResponse { before, ends_ms })
}
