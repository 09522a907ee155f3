//! `meta remove-peer|add-peer`: a person's word on who votes on the metadata.
//!
//! Owns: asking, and waiting for a vote to be gone. Must never: say that a node has no vote before Raft says so.

use std::time::Duration;

use clap::Args;
use resilver_proto::contract::SetVotingRequest;
use resilver_proto::store::NodeStatus;
use serde::Serialize;
use tokio::time::Instant;

use super::context::Context;
use crate::client::{CHANGE_DEADLINE, within};
use crate::exit::{Code, Failure};
use crate::output::known;

/// How long a vote may take to go: a leader hands over first, and whoever takes the vote has to be caught up.
const VOTE_DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// `meta remove-peer`.
#[derive(Debug, Args)]
pub(crate) struct RemovePeerArgs {
    /// The node's name
    node: String,
    /// Why, for whoever wonders: it is shown with the node
    #[arg(long, default_value = "an operator says so")]
    reason: String,
}

/// `meta add-peer`.
#[derive(Debug, Args)]
pub(crate) struct AddPeerArgs {
    /// The node's name
    node: String,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Peer {
    node: String,
    may_vote_before: bool,
    may_vote: bool,
    role: Option<String>,
    voters: Vec<String>,
}

impl Peer {
    fn line(&self) -> String {
        let Self { node, may_vote_before: before, may_vote, role, voters } = self;
        let voters = format!("those that vote: {}", voters.join(", "));
        match (may_vote, role.as_deref()) {
            (false, _) => format!("node {node} has no vote until `resilver meta add-peer {node}`; {voters}\n"),
            (true, Some("learner")) if *before => format!("node {node} may vote, as before; {voters}\n"),
            (true, Some("learner")) => {
                format!("node {node} may vote again, and stands by as a learner until a vote is free; {voters}\n")
            }
            (true, _) => format!("node {node} may vote; {voters}\n"),
        }
    }
}

pub(crate) async fn remove_peer(cx: &Context, args: RemovePeerArgs) -> Result<Code, Failure> {
    let before = say(cx, &args.node, false, args.reason).await?;
    await_no_vote(cx, &args.node).await?;
    show(cx, args.node, before, false).await
}

pub(crate) async fn add_peer(cx: &Context, args: AddPeerArgs) -> Result<Code, Failure> {
    let before = say(cx, &args.node, true, String::new()).await?;
    show(cx, args.node, before, true).await
}

/// Says whether a node may vote; whether it might.
async fn say(cx: &Context, node: &str, votes: bool, reason: String) -> Result<bool, Failure> {
    let doing = "say who votes";
    cx.found().await?.member(node)?;
    let door = cx.nodes().await?.serving(doing).await?;
    let request = SetVotingRequest { fence: None, node: node.to_owned(), votes, automatic: false, reason };
    let answer = within(CHANGE_DEADLINE, async { door.control().set_voting(request).await })
        .await
        .map_err(|status| Failure::from_status(doing, &door.name, &status))?;
    Ok(answer.before)
}

async fn show(cx: &Context, node: String, may_vote_before: bool, may_vote: bool) -> Result<Code, Failure> {
    let nodes = cx.nodes().await?.status().await?.nodes;
    let role = nodes.iter().find(|seen| seen.node == node).and_then(|seen| known(&seen.role));
    let voters = nodes.iter().filter(|seen| has_vote(seen)).map(|seen| seen.node.clone()).collect();
    cx.out.show(&Peer { node, may_vote_before, may_vote, role, voters }, Peer::line)?;
    Ok(Code::Ok)
}

fn has_vote(node: &NodeStatus) -> bool {
    matches!(node.role.as_str(), "leader" | "voter")
}

/// Waits until a node has no vote, by a cluster that has a leader.
pub(super) async fn await_no_vote(cx: &Context, node: &str) -> Result<(), Failure> {
    let nodes = cx.nodes().await?;
    let gone = poll(VOTE_DEADLINE, async || {
        let status = nodes.status().await?;
        let votes = status.nodes.iter().any(|seen| seen.node == node && has_vote(seen));
        Ok((!status.leader.is_empty() && !votes).then_some(()))
    })
    .await?;
    gone.ok_or_else(|| {
        Failure::new(
            Code::Degraded,
            format!("node {node} has its vote still after {} s: nobody has taken it over yet", VOTE_DEADLINE.as_secs()),
        )
        .next("it is given away as soon as a learner has caught up: `resilver meta status`")
    })
}

/// Looks again and again until there is something to see, or the time is over.
pub(super) async fn poll<T>(
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>, Failure>,
) -> Result<Option<T>, Failure> {
    let end = Instant::now() + deadline;
    loop {
        // While leadership is handed over nobody may answer for a moment.
        match look().await {
            Ok(Some(seen)) => return Ok(Some(seen)),
            Err(failure) if failure.code != Code::Unreachable || Instant::now() >= end => return Err(failure),
            Ok(None) if Instant::now() >= end => return Ok(None),
            Ok(None) | Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_word_on_a_vote_means_is_said_with_it() {
        let line = |before, may_vote, role: &str| {
            let voters = vec!["n1".to_owned(), "n3".to_owned()];
            Peer { node: "n2".into(), may_vote_before: before, may_vote, role: known(role), voters }.line()
        };
        let taken = line(true, false, "learner");
        assert_eq!(taken, "node n2 has no vote until `resilver meta add-peer n2`; those that vote: n1, n3\n");
        assert!(line(false, true, "learner").contains("until a vote is free"));
        assert!(line(true, true, "learner").contains("as before"));
        assert!(line(true, true, "voter").starts_with("node n2 may vote;"));
    }
}
