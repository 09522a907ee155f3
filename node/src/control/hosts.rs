//! `NodeControl.SetHostState`: what the cluster is to know of a host.
//!
//! Owns: the translation and what is demanded of who asks. Must never: judge the mark itself: that is done where it is
//! applied ([`crate::state`]), the same by every member.

use std::sync::Arc;

use resilver_proto::contract::{SetHostStateRequest, SetHostStateResponse};
use tonic::Status;

use super::{Shared, meta_status};
use crate::model::{Command, HostState, MarkedBy, Outcome, Refusal};
use crate::types::{Fence, NodeName};

/// The most of a reason that is kept: a line for a person. It lies in the cluster map, which every node holds in memory and
/// every change of it copies.
pub(super) const MAX_REASON_CHARS: usize = 500;

/// The name of the mark under which a host that is up is emptied.
pub(super) const DRAINING: &str = "draining";

/// Proposes the mark and says what came of it.
pub(super) async fn set_host_state(
    shared: &Arc<Shared>,
    request: SetHostStateRequest,
) -> Result<SetHostStateResponse, Status> {
    if request.state == DRAINING {
        return super::leaving::drain(shared, request).await;
    }
    let (node, reason, automatic) = (request.node.clone(), request.reason.clone(), request.automatic);
    let by = if request.automatic { "an agent" } else { "an operator" };
    let (state, command) = command(request)?;
    let core = shared.core()?;
    let name = NodeName::from(node.as_str());
    // Asked once more it goes on. A person may know what comes next.
    let is_out = || core.meta.map().nodes.get(&name).is_some_and(|record| record.state == HostState::Out);
    if automatic && state == HostState::Out && !is_out() {
        super::room::of_lost_node(shared, &name).await?;
    }
    let drained = core.meta.map().nodes.get(&name).is_some_and(|record| record.draining.is_some());
    match core.meta.propose(command).await.map_err(|error| meta_status(&error))? {
        Outcome::HostWas(before) => {
            tracing::info!(node, by, before = before.as_str(), after = state.as_str(), reason, "a host was marked");
            let before = if drained && before == HostState::Up { DRAINING } else { before.as_str() };
            Ok(SetHostStateResponse { before: before.to_owned(), after: state.as_str().to_owned() })
        }
        Outcome::Refused(refusal @ Refusal::NoNode(_)) => Err(Status::not_found(refusal.to_string())),
        Outcome::Refused(refusal) => Err(Status::failed_precondition(refusal.to_string())),
        other => Err(Status::internal(format!("an unexpected outcome of a host's mark: {other:?}"))),
    }
}

fn command(request: SetHostStateRequest) -> Result<(HostState, Command), Status> {
    let state = HostState::parse(&request.state).ok_or_else(|| {
        Status::invalid_argument(format!("a host is up, draining, down or out, not {:?}", request.state))
    })?;
    // Of two agents that both believe they coordinate, only the later one's word may count against a host.
    if request.automatic && state != HostState::Up && request.fence.is_none() {
        let why =
            format!("an agent that says a host is {} needs a fence: it speaks for the lease's holder", state.as_str());
        return Err(Status::failed_precondition(why));
    }
    let command = Command::SetHostState {
        node: request.node.as_str().into(),
        state,
        by: if request.automatic { MarkedBy::Automatic } else { MarkedBy::Operator },
        reason: request.reason.chars().take(MAX_REASON_CHARS).collect(),
        fence: request.fence.map(Fence::from),
    };
    Ok((state, command))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn request(state: &str, automatic: bool, fence: bool) -> SetHostStateRequest {
        let fence = fence.then(|| resilver_proto::common::Fence { epoch: 1, round: 7, holder: "n1".into() });
        SetHostStateRequest { fence, node: "n2".into(), state: state.into(), automatic, reason: "silent".into() }
    }

    #[test]
    fn an_agent_needs_a_fence_to_speak_against_a_host_and_none_to_speak_for_it() {
        for state in ["down", "out"] {
            assert_eq!(command(request(state, true, false)).unwrap_err().code(), Code::FailedPrecondition);
            assert!(command(request(state, true, true)).is_ok());
            assert!(command(request(state, false, false)).is_ok(), "a person speaks for himself");
        }
        assert!(command(request("up", true, false)).is_ok());
    }

    #[test]
    fn what_is_said_arrives_and_what_is_no_state_is_refused() {
        let (state, command_) = command(request("down", true, true)).unwrap();
        assert_eq!(state, HostState::Down);
        let fence = Fence { epoch: 1, round: 7, holder: "n1".into() };
        let (by, reason) = (MarkedBy::Automatic, "silent".to_owned());
        let expected = Command::SetHostState { node: "n2".into(), state, by, reason, fence: Some(fence) };
        assert_eq!(command_, expected);
        assert_eq!(command(request("member", false, false)).unwrap_err().code(), Code::InvalidArgument);
        let long = SetHostStateRequest { reason: "ü".repeat(MAX_REASON_CHARS + 1), ..request("out", false, false) };
        let Command::SetHostState { reason, .. } = command(long).unwrap().1 else { unreachable!("it is that command") };
        assert_eq!(reason.chars().count(), MAX_REASON_CHARS);
    }
}
