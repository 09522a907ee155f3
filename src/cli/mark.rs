//! `node down|out|up`: a person's word on a host, in the cluster map.
//!
//! Owns: asking and telling. Must never: send a mark twice: it goes once, to a node that serves.

use clap::Args;
use resilver_proto::contract::SetHostStateRequest;
use serde::Serialize;

use super::confirm::Confirm;
use super::context::Context;
use crate::client::{CHANGE_DEADLINE, within};
use crate::exit::{Code, Failure};

/// `node down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    /// The node's name
    node: String,
    /// Why, for whoever wonders: it is shown with the node
    #[arg(long)]
    reason: String,
}

/// `node out`.
#[derive(Debug, Args)]
pub(crate) struct OutArgs {
    /// The node's name
    node: String,
    /// Why, for whoever wonders: it is shown with the node
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    confirm: Confirm,
}

/// `node up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The node's name
    node: String,
    /// Why, for the nodes' logs
    #[arg(long, default_value = "an operator says so")]
    reason: String,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Marked {
    node: String,
    before: String,
    after: String,
}

impl Marked {
    fn line(&self) -> String {
        let Self { node, before, after } = self;
        let so = match (before == after, after.as_str()) {
            (true, "up") => "nothing was to be done",
            (true, _) => "now by an operator's word",
            (_, "up") if before == "draining" => "it is not emptied any more; what has left it does not come back",
            (_, "down") => "nothing is written to it, and it keeps its place",
            (_, "out") => "its shards are rebuilt on other nodes: `resilver repair status`",
            _ => "it is written to and read from again",
        };
        format!("node {node} was {before} and is {after}: {so}\n")
    }
}

pub(crate) async fn down(cx: &Context, args: DownArgs) -> Result<Code, Failure> {
    mark(cx, args.node, "down", args.reason).await
}

pub(crate) async fn up(cx: &Context, args: UpArgs) -> Result<Code, Failure> {
    mark(cx, args.node, "up", args.reason).await
}

pub(crate) async fn out(cx: &Context, args: OutArgs) -> Result<Code, Failure> {
    let name = &args.node;
    cx.found().await?.member(name)?;
    args.confirm
        .check(cx, "node out", name, async || {
            let status = cx.nodes().await?.status().await?;
            let shards: u64 = status.disks.iter().filter(|disk| disk.node == *name).map(|disk| disk.objects).sum();
            Ok(format!("{shards} shards of node {name} would be rebuilt on other nodes, and do not move back"))
        })
        .await?;
    mark(cx, args.node, "out", args.reason).await
}

async fn mark(cx: &Context, node: String, state: &str, reason: String) -> Result<Code, Failure> {
    cx.found().await?.member(&node)?;
    let doing = "mark the node";
    let door = cx.nodes().await?.serving(doing).await?;
    let request =
        SetHostStateRequest { fence: None, node: node.clone(), state: state.to_owned(), automatic: false, reason };
    let answer = within(CHANGE_DEADLINE, async { door.control().set_host_state(request).await })
        .await
        .map_err(|status| Failure::from_status(doing, &door.name, &status))?;
    cx.out.show(&Marked { node, before: answer.before, after: answer.after }, Marked::line)?;
    Ok(Code::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mark_means_is_said_with_it() {
        let line =
            |before: &str, after: &str| Marked { node: "n3".into(), before: before.into(), after: after.into() }.line();
        assert_eq!(
            line("up", "down"),
            "node n3 was up and is down: nothing is written to it, and it keeps its place\n"
        );
        assert!(line("down", "out").contains("rebuilt on other nodes"));
        assert!(line("out", "up").contains("written to and read from again"));
        assert!(line("down", "down").contains("an operator's word"));
        assert!(line("up", "up").contains("nothing was to be done"));
        assert!(line("draining", "up").contains("not emptied any more"));
    }
}
