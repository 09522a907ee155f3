//! `node rejoin`: brings a node back whose metadata is damaged or gone.
//!
//! Owns: asking, telling how far it is, and the last word. Must never: call it done before the node serves.

use clap::Args;
use resilver_proto::contract::{Progress, RejoinRequest};
use serde::Serialize;

use super::context::Context;
use super::meta_recovery::serves;
use crate::exit::{Code, Failure};

/// `node rejoin`.
#[derive(Debug, Args)]
pub(crate) struct RejoinArgs {
    /// The node's name
    node: String,
    /// Why, for the node's log
    #[arg(long, default_value = "an operator says so")]
    reason: String,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Back {
    node: String,
    state: String,
    steps: Vec<Step>,
}

/// One message of the node on its way.
#[derive(Debug, Serialize)]
struct Step {
    phase: String,
    message: String,
}

pub(crate) async fn run(cx: &Context, args: RejoinArgs) -> Result<Code, Failure> {
    let doing = "bring the node back";
    let found = cx.found().await?;
    found.member(&args.node)?;
    let others = found.members.iter().filter(|member| member.name != args.node);
    let request = RejoinRequest {
        fence: None,
        members: others.map(|member| member.address.clone()).collect(),
        reason: args.reason,
    };
    let nodes = cx.nodes().await?;
    let Some(node) = nodes.named(&args.node) else { return Err(Failure::usage(format!("no node `{}`", args.node))) };
    let refused = |status| Failure::from_status(doing, &args.node, &status);
    let mut messages = node.recovery().rejoin(request).await.map_err(refused)?.into_inner();
    let mut steps = Vec::new();
    // No deadline of our own: how long it takes to catch up is the cluster's size. Every message says where it is.
    loop {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            // A member of an epoch that is over can only go on in a new process: the stream ends with the old one, perhaps
            // before its last words arrived.
            told if steps.iter().any(|step: &Step| step.phase == "rejoined") || was_cut(&told) => {
                serves(node).await?;
                let finished = true;
                Progress { phase: "healthy".to_owned(), message: "serving".to_owned(), finished, ..Progress::default() }
            }
            Ok(_) => break,
            Err(status) => return Err(refused(status)),
        };
        let Progress { phase, message, finished, .. } = message;
        cx.out.say(format!("{phase}: {message}"));
        steps.push(Step { phase: phase.clone(), message });
        if finished {
            cx.out.show(&Back { node: args.node, state: phase, steps }, Back::line)?;
            return Ok(Code::Ok);
        }
    }
    Err(Failure::new(Code::Degraded, format!("{} stopped telling how far it is", args.node))
        .next(format!("it goes on by itself: `resilver node status {}`", args.node)))
}

/// Whether a stream ended because the other side was gone, and not by its own word.
pub(super) fn was_cut<T>(told: &Result<T, tonic::Status>) -> bool {
    let Err(status) = told else { return false };
    matches!(status.code(), tonic::Code::Unknown | tonic::Code::Internal)
}

impl Back {
    fn line(&self) -> String {
        let kept = self.steps.iter().find(|step| step.phase == "rejoined").map(|step| step.message.clone());
        let kept = kept.map(|kept| format!(" ({kept})")).unwrap_or_default();
        format!("{} is back and {}{kept}\n", self.node, self.state)
    }
}
