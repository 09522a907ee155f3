//! `meta status|remove-peer|add-peer|validate|compare|resync|replay|backup|restore|recover-quorum`: leader, term, committed index, who
//! is how far; and what is done without.

use std::fmt::Write;

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use super::{meta_recovery, replay, replicas, voters};
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN, cell, known};

/// Verbs of the metadata.
#[derive(Debug, Subcommand)]
pub(crate) enum MetaVerb {
    /// Leader, term, committed index, and every member's position; exits 3 without a leader
    Status,
    /// Take a node's vote: it goes to a learner that has caught up, in one change, and does not come back by itself
    RemovePeer(voters::RemovePeerArgs),
    /// Let a node vote again that has caught up: it stands by until a vote is free
    AddPeer(voters::AddPeerArgs),
    /// Look through all of it for what contradicts itself, and for what it says is missing; exits 1 and 3
    Validate,
    /// Compare what all members have stored, at one entry of the log; exits 1 when one differs, 3 when one did not say
    Compare(replicas::CompareArgs),
    /// Make a member's metadata like the majority's, which has found it wrong
    Resync(replicas::ResyncArgs),
    /// Replay a member's own log beside it, and compare what comes out with what it has stored; changes nothing, exits 1 when
    /// they differ
    Replay(replay::ReplayArgs),
    /// Write the whole metadata, as of one moment, into a file that is read back to its end
    Backup(meta_recovery::BackupArgs),
    /// Go on from a backup when nobody has the metadata any more, in a new epoch
    Restore(meta_recovery::RestoreArgs),
    /// When a majority of the voters is gone for good: show what the survivors have and what would be lost; with --confirm
    /// force a new epoch from the one that has most
    RecoverQuorum(meta_recovery::RecoverArgs),
}

#[derive(Serialize)]
struct MetaView {
    leader: Option<String>,
    term: u64,
    committed: u64,
    nodes: Vec<MetaRow>,
}

#[derive(Serialize)]
struct MetaRow {
    node: String,
    role: Option<String>,
    state: String,
    log_index: Option<u64>,
    behind: Option<u64>,
    since: Option<String>,
    /// The last entry that the leader knows to be in its log.
    matched: Option<u64>,
    /// What it promised last, as it has it on disk.
    vote: Option<Vote>,
    /// Why it is to have no vote, and by whose word.
    no_vote: Option<NoVote>,
}

#[derive(Serialize)]
struct Vote {
    term: u64,
    /// Whose member it voted for; none: a member of no node.
    node: Option<String>,
    /// A quorum voted the same.
    committed: bool,
}

#[derive(Serialize)]
struct NoVote {
    reason: String,
    automatic: bool,
}

impl MetaVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            MetaVerb::Status => status(cx).await,
            MetaVerb::RemovePeer(args) => voters::remove_peer(cx, args).await,
            MetaVerb::AddPeer(args) => voters::add_peer(cx, args).await,
            MetaVerb::Validate => super::validate::run(cx).await,
            MetaVerb::Compare(args) => replicas::compare(cx, args).await,
            MetaVerb::Resync(args) => replicas::resync(cx, args).await,
            MetaVerb::Replay(args) => replay::run(cx, args).await,
            MetaVerb::Backup(args) => meta_recovery::backup(cx, args).await,
            MetaVerb::Restore(args) => meta_recovery::restore(cx, args).await,
            MetaVerb::RecoverQuorum(args) => meta_recovery::recover_quorum(cx, args).await,
        }
    }
}

async fn status(cx: &Context) -> Result<Code, Failure> {
    let status = cx.nodes().await?.status().await?;
    let row = |node: &resilver_proto::store::NodeStatus| {
        let log_index = super::node::has_answered(node).then_some(node.log_index);
        MetaRow {
            node: node.node.clone(),
            role: known(&node.role),
            state: node.state.clone(),
            log_index,
            behind: behind(status.committed, node.matched, log_index),
            // Since when it is in that state is not measured yet.
            since: None,
            matched: node.matched,
            vote: node.vote.as_ref().map(|vote| Vote {
                term: vote.term,
                node: known(&vote.node),
                committed: vote.committed,
            }),
            no_vote: known(&node.no_vote).map(|reason| NoVote { reason, automatic: node.no_vote_automatic }),
        }
    };
    let view = MetaView {
        leader: known(&status.leader),
        term: status.term,
        committed: status.committed,
        nodes: status.nodes.iter().map(row).collect(),
    };
    cx.out.show(&view, MetaView::text)?;
    Ok(if view.leader.is_some() { Code::Ok } else { Code::Degraded })
}

/// Committed entries that a member does not have. By the leader's word where there is one: it goes for members that do not answer
/// as well, and what a member has beyond it may not be what the leader has there.
fn behind(committed: u64, matched: Option<u64>, log_index: Option<u64>) -> Option<u64> {
    matched.or(log_index).map(|reached| committed.saturating_sub(reached))
}

impl MetaView {
    fn text(&self) -> String {
        let mut out = String::new();
        let leader = self.leader.as_deref().unwrap_or(UNKNOWN);
        // Writing into a String cannot fail.
        let _ = writeln!(out, "leader: {leader}  term: {}  committed: {}\n", self.term, self.committed);
        let mut table = Table::new(["NODE", "ROLE", "STATE", "LOG_INDEX", "BEHIND", "SINCE"]);
        for row in &self.nodes {
            table.row([
                row.node.clone(),
                cell(row.role.clone()),
                row.state.clone(),
                cell(row.log_index),
                cell(row.behind),
                cell(row.since.clone()),
            ]);
        }
        out.push_str(&table.render());
        for row in &self.nodes {
            if let Some(NoVote { reason, automatic }) = &row.no_vote {
                let by =
                    if *automatic { "an agent: it is slow, and votes again once it keeps up" } else { "an operator" };
                let _ = writeln!(out, "\n{} is to have no vote, by the word of {by} ({reason})", row.node);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_does_not_answer_is_as_far_behind_as_the_leader_knows() {
        assert_eq!(behind(100, Some(90), None), Some(10));
        // A log that goes on, with what nobody agreed upon.
        assert_eq!(behind(100, Some(90), Some(120)), Some(10));
        assert_eq!(behind(100, None, Some(120)), Some(0));
        assert_eq!(behind(100, None, None), None);
    }
}
