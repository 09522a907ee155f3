//! `MetaRecovery.UndoRecoverQuorum`: a forced epoch taken back while nobody else is in it.
//!
//! Owns: the guard before it is ordered, and the order. Must never: stop Raft, or touch a member's files: only the service's own
//! loop does.

use std::collections::BTreeSet;

use resilver_proto::contract::{SurveyResponse, UndoRecoverQuorumRequest, UndoRecoverQuorumResponse};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tonic::Status;

use super::meta_recovery::others;
use super::{Core, Shared, meta_status};
use crate::meta::identity::Identity;
use crate::meta::undo::{Undone, may_be_undone};

/// This member is to be what it was before it went on alone.
pub(crate) struct UndoOrder {
    /// Held until this is done, as while it is forced.
    pub(crate) one: OwnedMutexGuard<()>,
    pub(crate) reason: String,
    pub(crate) answer: oneshot::Sender<Result<Undone, Status>>,
}

pub(super) async fn undo(
    shared: &Shared,
    request: UndoRecoverQuorumRequest,
) -> Result<UndoRecoverQuorumResponse, Status> {
    let UndoRecoverQuorumRequest { confirm, members, reason } = request;
    let core = shared.core()?;
    let (cluster, name, epoch) = core.meta.cluster();
    if confirm != name {
        return Err(Status::failed_precondition(format!(
            "this is cluster `{name}`, and `{confirm}` was confirmed; nothing was changed"
        )));
    }
    let busy = |_| Status::aborted("a recovery is under way at this node");
    let one = shared.forcing.clone().try_lock_owned().map_err(busy)?;
    let identity = identity(shared).await?;
    let refused = |why: String| Status::failed_precondition(format!("{why}; nothing was changed"));
    may_be_undone(&identity, &core.meta.map()).map_err(refused)?;
    let mut asked: BTreeSet<String> = members.into_iter().collect();
    asked.extend(core.meta.map().nodes.values().map(|node| node.address.clone()));
    let seen = others(shared, &asked.into_iter().collect::<Vec<_>>()).await;
    nobody_went_on(&seen, &cluster.to_string(), epoch.0).map_err(refused)?;
    let (answer, answered) = oneshot::channel();
    let order = UndoOrder { one, reason, answer };
    shared.undo.try_send(order).map_err(|_| Status::aborted("a recovery is under way at this node"))?;
    let gone = |_| Status::aborted("the node moved on meanwhile: look at `node status`");
    let Undone { member, epoch, entries, aside } = answered.await.map_err(gone)??;
    Ok(UndoRecoverQuorumResponse {
        epoch: member.epoch.0,
        raft_id: member.raft_id.0,
        undone_epoch: epoch.0,
        entries,
        aside: aside.display().to_string(),
    })
}

async fn identity(shared: &Shared) -> Result<Identity, Status> {
    let dir = &shared.options.data_dir;
    let found = Identity::load(&shared.host, dir).await.map_err(|error| meta_status(&error))?;
    found.ok_or_else(|| Status::unavailable(format!("{} has no identity", dir.display())))
}

/// What others say of themselves: none may be in the epoch that is to be taken back, or in a later one. Pure.
fn nobody_went_on(seen: &[(String, SurveyResponse)], cluster: &str, epoch: u64) -> Result<(), String> {
    match seen.iter().find(|(_, seen)| seen.cluster_id == cluster && seen.epoch >= epoch) {
        Some((node, seen)) if seen.epoch == epoch => Err(format!(
            "node {node} is in epoch {epoch}, too: the epoch stays; bring the others back to it (`resilver node rejoin`)"
        )),
        Some((node, seen)) => Err(format!("node {node} is in epoch {} already", seen.epoch)),
        None => Ok(()),
    }
}

/// What a survey says of it.
pub(super) async fn surveyed(shared: &Shared, core: &Core, answer: &mut SurveyResponse) {
    // Who cannot read its own identity just now has nothing to say of it; its epoch is told in any case.
    let Ok(identity) = identity(shared).await else { return };
    answer.undone_epoch = identity.undone.0;
    let Some(forced) = &identity.forced else { return };
    answer.forced_from = forced.label.clone();
    answer.no_undo = may_be_undone(&identity, &core.meta.map()).err().unwrap_or_default();
    answer.entries_since = answer.last_log_index.saturating_sub(forced.entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_taken_back_only_while_nobody_else_is_in_it_or_beyond() {
        let at = |epoch| SurveyResponse { cluster_id: "c".to_owned(), epoch, ..SurveyResponse::default() };
        let judged = |seen: SurveyResponse| nobody_went_on(&[("n2".to_owned(), seen)], "c", 2);
        assert_eq!(judged(at(1)), Ok(()));
        assert!(judged(at(2)).unwrap_err().contains("n2 is in epoch 2, too"));
        assert!(judged(at(3)).unwrap_err().contains("epoch 3 already"));
        assert_eq!(judged(SurveyResponse { cluster_id: "other".to_owned(), ..at(3) }), Ok(()));
        assert_eq!(judged(SurveyResponse::default()), Ok(()), "a lost voter is in none");
    }
}
