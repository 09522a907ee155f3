//! `node drain|remove`: a node is emptied, and then taken out of the cluster.
//!
//! Owns: asking, following what was begun, and the last word. Must never: call a node empty before the cluster says so and
//! what left it was read back; ask the node itself to see itself out.

use std::time::Duration;

use clap::Args;
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{
    RemoveNodeRequest, Scope, SetHostStateRequest, SyncMissingEntriesRequest, VerifyIntegrityRequest,
};
use resilver_proto::store::NodeStatus;
use serde::Serialize;
use tonic::Status;

use super::context::Context;
use super::disk_change::follow;
use super::voters::await_no_vote;
use crate::client::{CHANGE_DEADLINE, Node, within};
use crate::exit::{Code, Failure};

/// How long an emptied node's own disks may take to be counted as such: what is moved is told by metadata at once.
const SETTLE: Duration = Duration::from_secs(30);

/// `node drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The node's name
    node: String,
    /// Why, for whoever wonders: it is shown with the node
    #[arg(long, default_value = "an operator says so")]
    reason: String,
    /// Stay until nothing is left there, and what left it was read back; without it, `node list` shows `drained` then
    #[arg(long)]
    wait: bool,
}

/// `node remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The name of a node that is drained, or out and empty
    node: String,
    /// Why, for the nodes' logs
    #[arg(long, default_value = "an operator says so")]
    reason: String,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Done {
    node: String,
    before: String,
    state: String,
    /// Shards that left it and were read back.
    shards: u64,
    #[serde(skip)]
    text: String,
}

impl Done {
    fn line(&self) -> String {
        self.text.clone()
    }
}

/// Marks, and on demand waits until nothing is left there, has what left it read back, and sees its vote go.
pub(crate) async fn drain(cx: &Context, args: DrainArgs) -> Result<Code, Failure> {
    let doing = "empty the node";
    cx.found().await?.member(&args.node)?;
    let door = another(cx, &args.node, doing).await?;
    let request = SetHostStateRequest {
        fence: None,
        node: args.node.clone(),
        state: "draining".to_owned(),
        automatic: false,
        reason: args.reason,
    };
    let answer = within(CHANGE_DEADLINE, async { door.control().set_host_state(request).await })
        .await
        .map_err(|status| Failure::from_status(doing, &door.name, &status))?;
    let (node, before) = (args.node, answer.before);
    if !args.wait {
        let text = format!(
            "node {node} was {before} and is being emptied: `resilver node list` shows `drained` when nothing is left there; \
             `resilver node up {node}` takes it back\n"
        );
        cx.out.show(&Done { node, before, state: "draining".to_owned(), shards: 0, text }, Done::line)?;
        return Ok(Code::Ok);
    }
    let (mut moved, mut read) = (0, 0);
    for disk in disks_of(cx, &node).await? {
        let (left, proven) = empty(cx, &door, &disk, doing).await?;
        (moved, read) = (moved + left, read + proven);
    }
    await_no_vote(cx, &node).await?;
    // An agent may have given it up meanwhile: then nothing is left there either.
    let seen = await_mark(cx, &node, &["drained", "out"]).await?;
    let text = format!(
        "node {node} is {}: {moved} shards left it, {read} were read back from where they are now, and it has no vote; \
         `resilver node remove {node}` takes it out of the cluster\n",
        seen.mark
    );
    cx.out.show(&Done { node, before, state: seen.mark, shards: read, text }, Done::line)?;
    Ok(Code::Ok)
}

/// Waits until nothing has its home on a disk, and has what left it read back: how many did, and how many were.
async fn empty(cx: &Context, door: &Node, disk: &str, doing: &str) -> Result<(u64, u64), Failure> {
    cx.out.say(format!("emptying disk {disk}"));
    let scope = || Some(Scope { of: Some(Of::DiskId(disk.to_owned())) });
    let refused = |status: Status| Failure::from_status(doing, &door.name, &status);
    let request = SyncMissingEntriesRequest { scope: scope(), fence: None };
    let moved = door.replicas().sync_missing_entries(request).await.map_err(refused)?.into_inner();
    let moved = follow(cx, door, doing, moved).await?;
    let read = door.recovery().verify_integrity(VerifyIntegrityRequest { scope: scope() }).await.map_err(refused)?;
    let read = follow(cx, door, doing, read.into_inner()).await?;
    Ok((moved.done, read.done))
}

async fn disks_of(cx: &Context, node: &str) -> Result<Vec<String>, Failure> {
    let status = cx.nodes().await?.status().await?;
    Ok(status.disks.into_iter().filter(|disk| disk.node == node).map(|disk| disk.disk_id).collect())
}

/// Waits until the map says one of these of a node.
async fn await_mark(cx: &Context, node: &str, marks: &[&str]) -> Result<NodeStatus, Failure> {
    let nodes = cx.nodes().await?;
    let seen = super::voters::poll(SETTLE, async || {
        let status = nodes.status().await?;
        Ok(status.nodes.into_iter().find(|seen| seen.node == node && marks.contains(&seen.mark.as_str())))
    })
    .await?;
    seen.ok_or_else(|| {
        Failure::new(Code::Degraded, format!("node {node} is not {} after {} s", marks.join(" or "), SETTLE.as_secs()))
            .next("it goes on by itself: `resilver node list`")
    })
}

/// Takes a node out of the cluster.
pub(crate) async fn remove(cx: &Context, args: RemoveArgs) -> Result<Code, Failure> {
    let doing = "remove the node";
    cx.found().await?.member(&args.node)?;
    let door = another(cx, &args.node, doing).await?;
    let seen = cx.nodes().await?.status().await?.nodes.into_iter().find(|seen| seen.node == args.node);
    let before = seen.map_or("removed".to_owned(), |seen| seen.mark);
    let request = RemoveNodeRequest { node: args.node.clone(), reason: args.reason };
    let answer = within(CHANGE_DEADLINE, async { door.control().remove_node(request).await })
        .await
        .map_err(|status| Failure::from_status(doing, &door.name, &status))?;
    let raft = if answer.dropped { "" } else { "; Raft still has to drop it, which it does by itself" };
    let node = args.node;
    let text = format!(
        "node {node} is no member any more{raft}: stop its agent, and take it out of the others' configuration; emptied, the \
         machine can join as a new node\n"
    );
    cx.out.show(&Done { node, before, state: "removed".to_owned(), shards: 0, text }, Done::line)?;
    Ok(Code::Ok)
}

/// A node that serves and is another than this one.
async fn another(cx: &Context, node: &str, doing: &str) -> Result<Node, Failure> {
    let nodes = cx.nodes().await?;
    for candidate in nodes.all().iter().filter(|candidate| candidate.name != node) {
        if candidate.look().await.is_ok_and(|seen| seen.phase == "healthy") {
            return Ok(candidate.clone());
        }
    }
    Err(Failure::new(Code::Unreachable, format!("could not {doing}: no node but {node} serves now"))
        .next("see `resilver status`"))
}
