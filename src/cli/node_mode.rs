//! `node mode`: what a node serves, and whether it stands for election.

use clap::Args;
use resilver_proto::contract::SetModeRequest;
use serde::Serialize;

use super::context::Context;
use crate::client::{CHANGE_DEADLINE, within};
use crate::exit::{Code, Failure};

/// `node mode`.
#[derive(Debug, Args)]
pub(crate) struct ModeArgs {
    /// The node's name
    node: String,
    /// What clients are served (read_write, read_only, isolated), or whether it stands for election (standing, quiet)
    #[arg(value_parser = ["read_write", "read_only", "isolated", "standing", "quiet"])]
    mode: String,
    /// Why: clients that are refused are told, and so is whoever looks at the node
    #[arg(long, default_value = "an operator says so")]
    reason: String,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Set {
    node: String,
    before: String,
    after: String,
}

impl Set {
    fn line(&self) -> String {
        let Self { node, before, after } = self;
        let lasts = match after.as_str() {
            "read_only" | "isolated" => ", also after a restart, until you say `read_write`",
            "quiet" => " until it is restarted, or you say `standing`",
            _ => "",
        };
        match before == after {
            true => format!("{node} is {after}{lasts}: now by an operator's word\n"),
            false => format!("{node}: {before} → {after}{lasts}\n"),
        }
    }
}

/// Goes to the node itself: whether a quorum is there does not matter.
pub(crate) async fn run(cx: &Context, args: ModeArgs) -> Result<Code, Failure> {
    let ModeArgs { node: name, mode, reason } = args;
    cx.found().await?.member(&name)?;
    let nodes = cx.nodes().await?;
    let Some(node) = nodes.named(&name) else { return Err(Failure::usage(format!("no node `{name}`"))) };
    let request = SetModeRequest { fence: None, mode: mode.clone(), reason, automatic: false };
    let set = within(CHANGE_DEADLINE, async { node.control().set_mode(request).await }).await;
    let before = set.map_err(|status| Failure::from_status("set the node's mode", &name, &status))?.before;
    cx.out.show(&Set { node: name, before, after: mode }, Set::line)?;
    Ok(Code::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_for_how_long_a_mode_lasts() {
        let line =
            |before: &str, after: &str| Set { node: "n2".into(), before: before.into(), after: after.into() }.line();
        assert_eq!(line("read_only", "read_write"), "n2: read_only → read_write\n");
        assert!(line("read_write", "read_only").contains("also after a restart"));
        assert!(line("standing", "quiet").contains("until it is restarted"));
        assert!(line("read_only", "read_only").contains("by an operator's word"));
    }
}
