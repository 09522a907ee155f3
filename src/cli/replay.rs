//! `meta replay`: whether a member has what its own log comes to.
//!
//! Must never: call equal what was not compared to its end.

use clap::Args;
use resilver_proto::contract::ReplayJournalRequest;
use serde::Serialize;

use super::context::Context;
use crate::exit::{Code, Failure};

/// The phase of messages that name what is not the same.
const DIFFERS: &str = "differs";

/// `meta replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The member whose log is replayed
    node: String,
    /// An entry that is to be among those that are replayed, instead of beginning with the node's last snapshot
    #[arg(long, value_name = "ENTRY", default_value_t = 0, hide_default_value = true)]
    from: u64,
}

#[derive(Serialize)]
struct View {
    node: String,
    entries: u64,
    equal: bool,
    differences: Vec<String>,
    message: String,
}

pub(crate) async fn run(cx: &Context, args: ReplayArgs) -> Result<Code, Failure> {
    let doing = "replay the member's log";
    cx.found().await?.member(&args.node)?;
    let nodes = cx.nodes().await?;
    let Some(node) = nodes.named(&args.node) else { return Err(Failure::usage(format!("no node `{}`", args.node))) };
    let refused = |status| Failure::from_status(doing, &args.node, &status);
    let request = ReplayJournalRequest { from_sequence: args.from };
    let mut messages = node.meta_recovery().replay_journal(request).await.map_err(refused)?.into_inner();
    let mut differences = Vec::new();
    // No deadline of our own: it takes as long as the log is long, and the node says how far it is.
    while let Some(message) = messages.message().await.map_err(refused)? {
        if message.finished {
            let equal = message.failed == 0;
            let view = View { node: args.node, entries: message.done, equal, differences, message: message.message };
            cx.out.show(&view, View::text)?;
            return Ok(if equal { Code::Ok } else { Code::Failed });
        }
        match message.phase == DIFFERS {
            true => differences.push(message.message),
            false => cx.out.say(format!("{}: {}", message.phase, message.message)),
        }
    }
    Err(Failure::new(Code::Unreachable, format!("{} stopped telling how far it is", args.node))
        .next("ask again: nothing was changed"))
}

impl View {
    fn text(&self) -> String {
        let mut out: String = self.differences.iter().map(|line| format!("{line}\n")).collect();
        out.push_str(&format!("{}: {}\n", self.node, self.message));
        out
    }
}
