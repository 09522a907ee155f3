//! `meta recover-quorum --undo`: a forced epoch taken back.
//!
//! Owns: showing what would be set aside before anything is, asking, and the last word. Must never: choose among several that
//! were forced.

use resilver_proto::contract::{SurveyResponse, UndoRecoverQuorumRequest, UndoRecoverQuorumResponse};
use serde::Serialize;

use super::confirm::Confirm;
use super::context::Context;
use super::meta_recovery::{LOOK_EVERY, REBIRTH_DEADLINE, moved_on, survey};
use super::rejoin::was_cut;
use crate::client::{Node, within};
use crate::exit::{Code, Failure};

#[derive(Serialize)]
struct Undone {
    node: String,
    epoch: u64,
    undone_epoch: u64,
    raft_id: Option<u64>,
    entries: u64,
    aside: Option<String>,
    /// It had been undone before.
    already: bool,
}

pub(super) async fn undo(cx: &Context, confirm: &Confirm, reason: String) -> Result<Code, Failure> {
    let doing = "undo the recovery of the quorum";
    let (found, nodes) = (cx.found().await?, cx.nodes().await?);
    let seen = survey(&nodes).await;
    let Some(forced) = latest_forced(&seen) else {
        return match seen.iter().max_by_key(|seen| seen.undone_epoch).filter(|seen| seen.undone_epoch > seen.epoch) {
            // Asked again, perhaps after an answer that was lost.
            Some(seen) => {
                cx.out.show(&Undone::already(seen), Undone::text)?;
                Ok(Code::Ok)
            }
            None => Err(Failure::new(
                Code::Refused,
                "no node that answers was forced into its epoch: there is nothing to undo",
            )),
        };
    };
    if !forced.no_undo.is_empty() {
        return Err(Failure::new(Code::Refused, format!("{}; nothing was done", forced.no_undo)));
    }
    let name = forced.cluster_name.clone();
    confirm.check(cx, "meta recover-quorum --undo", &name, async || Ok(would_undo(forced))).await?;
    let Some(node) = nodes.named(&forced.node) else {
        return Err(Failure::usage(format!("no node `{}`", forced.node)));
    };
    let others = found.members.iter().filter(|member| member.name != forced.node);
    let request = UndoRecoverQuorumRequest {
        confirm: name,
        members: others.map(|member| member.address.clone()).collect(),
        reason,
    };
    let answer = within(REBIRTH_DEADLINE, async { node.meta_recovery().undo_recover_quorum(request).await });
    let answer = match answer.await {
        // Where it is kept is not known then; how much it is was told before.
        Err(status) if was_cut::<()>(&Err(status.clone())) => moved_on(node, forced.epoch).await.map(|seen| {
            let (epoch, undone_epoch, raft_id) = (seen.epoch, forced.epoch, seen.raft_id);
            let (entries, aside) = (forced.entries_since, String::new());
            UndoRecoverQuorumResponse { epoch, undone_epoch, raft_id, entries, aside }
        }),
        answer => answer,
    };
    let answer = answer.map_err(|status| {
        Failure::from_status(doing, &forced.node, &status)
            .next("see what became of it: `resilver meta recover-quorum` shows every node's epoch")
    })?;
    cx.out.say(format!("{} is of epoch {} again; it starts anew", forced.node, answer.epoch));
    is_in(node, answer.epoch).await?;
    let undone = Undone {
        node: forced.node.clone(),
        epoch: answer.epoch,
        undone_epoch: answer.undone_epoch,
        raft_id: Some(answer.raft_id),
        entries: answer.entries,
        aside: Some(answer.aside).filter(|aside| !aside.is_empty()),
        already: false,
    };
    cx.out.show(&undone, Undone::text)?;
    Ok(Code::Ok)
}

/// The one that was forced into the latest epoch that anybody is in.
fn latest_forced(seen: &[SurveyResponse]) -> Option<&SurveyResponse> {
    let latest = seen.iter().filter(|seen| !seen.cluster_id.is_empty()).map(|seen| seen.epoch).max()?;
    seen.iter().find(|seen| seen.epoch == latest && !seen.forced_from.is_empty())
}

fn would_undo(forced: &SurveyResponse) -> String {
    format!(
        "{} would be again what it was before it was forced into epoch {}; what was written in that epoch ({} entries of the \
         log) would be set aside: it is then in nobody's metadata",
        forced.node, forced.epoch, forced.entries_since
    )
}

/// Waits until the node has started again as what it was. It need not serve: its quorum may be as lost as before.
async fn is_in(node: &Node, epoch: u64) -> Result<(), Failure> {
    let waiting = async {
        while !node.look().await.is_ok_and(|seen| seen.epoch == epoch && seen.raft.is_some()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(REBIRTH_DEADLINE, waiting).await.map_err(|_| {
        Failure::new(Code::Degraded, format!("{} has not started again yet", node.name))
            .next(format!("`resilver node status {}` says what it waits for", node.name))
    })
}

impl Undone {
    fn already(seen: &SurveyResponse) -> Self {
        Self {
            node: seen.node.clone(),
            epoch: seen.epoch,
            undone_epoch: seen.undone_epoch,
            raft_id: None,
            entries: 0,
            aside: None,
            already: true,
        }
    }

    fn text(&self) -> String {
        if self.already {
            return format!(
                "epoch {} was undone already: {} is in epoch {}\n",
                self.undone_epoch, self.node, self.epoch
            );
        }
        let mut out = format!(
            "epoch {} is undone: {} is what it was before, in epoch {}\n",
            self.undone_epoch, self.node, self.epoch
        );
        let aside = match &self.aside {
            Some(aside) => aside.clone(),
            None => format!("`aside` in the data folder of {}", self.node),
        };
        out.push_str(&format!("what was written since ({} entries) is kept in {aside}\n", self.entries));
        out.push_str("next: start the voters that are back, or `resilver meta recover-quorum` again\n");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_is_the_latest_epoch_and_no_earlier_one() {
        let at = |node: &str, epoch, forced: &str| SurveyResponse {
            node: node.to_owned(),
            cluster_id: "c".to_owned(),
            epoch,
            forced_from: forced.to_owned(),
            ..SurveyResponse::default()
        };
        let found = |seen: &[SurveyResponse]| latest_forced(seen).map(|seen| seen.node.clone());
        assert_eq!(found(&[at("n1", 2, "was"), at("n2", 1, "")]).as_deref(), Some("n1"));
        assert_eq!(
            found(&[at("n1", 2, "was"), at("n2", 3, "")]),
            None,
            "the latest was not forced: restored, or joined"
        );
        assert_eq!(found(&[SurveyResponse::default()]), None);
    }
}
