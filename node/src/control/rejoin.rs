//! `NodeRecovery.Rejoin`: brings a lost voter back, and tells how far it is. Or a member that serves, whose agent found that its term or
//! its copy cannot be mended: it gives its membership up first.
//!
//! Owns: the order that is handed to [`crate::service`], and the telling. Must never: do any of it: only the service's own
//! loop moves a node between phases.

use std::sync::Arc;

use resilver_proto::contract::{Progress, RejoinRequest};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Shared;
use super::meta_recovery::others;
use super::node_control::admit;
use crate::meta::Role;
use crate::phase::Phase;
use crate::types::{Fence, RaftId};

/// Messages waiting for a caller that is slow to read.
const MESSAGES_IN_FLIGHT: usize = 16;

/// What somebody wants of a lost voter, with whom to tell.
pub(crate) struct RejoinOrder {
    /// An agent's; of a person there is none.
    pub(crate) fence: Option<Fence>,
    /// Members to ask, besides those that are configured.
    pub(crate) members: Vec<String>,
    /// The node is a member that serves, of an epoch that is over.
    pub(crate) left_behind: bool,
    /// The node is a member that serves, and its agent, under a fence, has it give its membership up.
    pub(crate) gives_up: bool,
    /// Why, for the log.
    pub(crate) reason: String,
    /// Who it is from now on, or why it stays what it was.
    pub(crate) answer: oneshot::Sender<Result<Rejoined, Status>>,
}

/// A lost voter that is a member again.
#[derive(Clone, Debug)]
pub(crate) struct Rejoined {
    /// The member of Raft that it was.
    pub(crate) was: RaftId,
    /// The one that it is.
    pub(crate) is: RaftId,
    /// Where what was left of the former is kept.
    pub(crate) aside: String,
}

/// Orders it, and follows the node until it serves.
pub(super) async fn rejoin(
    shared: Arc<Shared>,
    request: RejoinRequest,
) -> Result<ReceiverStream<Result<Progress, Status>>, Status> {
    let now = shared.phase.get();
    let left_behind = now.phase != Phase::LostVoter && is_left_behind(&shared, &request.members).await;
    let gives_up = now.phase == Phase::Healthy && !left_behind && request.fence.is_some();
    if now.phase != Phase::LostVoter && !left_behind && !gives_up {
        return Err(Status::failed_precondition(format!(
            "this node is {}: only a lost voter, or a member of an epoch that is over, is brought back this way; nothing \
             was changed",
            now.phase.as_str()
        )));
    }
    if let Some(core) = shared.core.get().filter(|_| gives_up) {
        // Judged for good where the id is taken away, by the metadata itself. This saves one that is overtaken already its restart.
        admit(core.meta.map().fence.clone(), request.fence.clone())?;
        if core.meta.status().role == Role::Leader {
            return Err(Status::failed_precondition(
                "this node leads, and a leader gives no membership up: have it step down first; nothing was changed",
            ));
        }
    }
    let (answer, answered) = oneshot::channel();
    let (fence, members, reason) = (request.fence.map(Fence::from), request.members, request.reason);
    let order = RejoinOrder { fence, members, left_behind, gives_up, reason, answer };
    shared.rejoin.try_send(order).map_err(|_| Status::aborted("this node is being brought back already"))?;
    let (tell, told) = mpsc::channel(MESSAGES_IN_FLIGHT);
    tokio::spawn(async move {
        // A caller that went away is told nothing more; what it ordered goes on.
        let outcome = tokio::select! {
            outcome = follow(&shared, answered, &tell) => outcome,
            () = tell.closed() => return,
        };
        if let Err(status) = outcome {
            let _ = tell.send(Err(status)).await;
        }
    });
    Ok(ReceiverStream::new(told))
}

/// Whether another member of this cluster is in a later epoch: one was forced without this node.
async fn is_left_behind(shared: &Shared, members: &[String]) -> bool {
    let Some(core) = shared.core.get() else { return false };
    let (cluster, _, epoch) = core.meta.cluster();
    let cluster = cluster.to_string();
    let mut seen = others(shared, members).await;
    seen.extend(others(shared, &shared.options.join).await);
    seen.iter().any(|(_, seen)| seen.cluster_id == cluster && seen.epoch > epoch.0)
}

async fn follow(
    shared: &Shared,
    answered: oneshot::Receiver<Result<Rejoined, Status>>,
    tell: &mpsc::Sender<Result<Progress, Status>>,
) -> Result<(), Status> {
    let say = async |phase: &str, message: String, finished: bool| {
        let progress = Progress { phase: phase.to_owned(), message, finished, ..Progress::default() };
        // Whoever does not listen any more ends this from outside.
        let _ = tell.send(Ok(progress)).await;
    };
    say(Phase::LostVoter.as_str(), "asking the members to take this node back as a learner".to_owned(), false).await;
    let mut changes = shared.phase.changes();
    let Rejoined { was, is, aside } = answered
        .await
        .map_err(|_| Status::aborted("another call brought this node back meanwhile: look at `node status`"))??;
    let message = format!("it was member {was} and is member {is}; what was left is kept in {aside}");
    let phase = "rejoined".to_owned();
    // As in `say`.
    let _ = tell.send(Ok(Progress { phase, message, backup_path: aside, ..Progress::default() })).await;
    loop {
        let now = changes.borrow_and_update().clone();
        match now.phase {
            Phase::Healthy => {
                say(now.phase.as_str(), "caught up, and serving".to_owned(), true).await;
                return Ok(());
            }
            Phase::LostVoter => return Err(Status::aborted(now.detail)),
            Phase::Stopping => return Err(Status::unavailable("the node is ending: start it, it goes on by itself")),
            _ => say(now.phase.as_str(), now.detail, false).await,
        }
        changes.changed().await.map_err(|_| Status::unavailable("the node is ending"))?;
    }
}
