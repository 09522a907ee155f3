//! `meta compare`, `meta resync`: whether all members have the same metadata, and mending one that has not.
//!
//! Must never: call members equal that did not say; call a member mended before the last message says so.

use clap::Args;
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{
    CompareChecksumsRequest, ReplayLogsRequest, RestoreSnapshotRequest, Scope, SyncMissingEntriesRequest,
};
use serde::Serialize;

use super::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{Table, cell, known};

/// Bytes of a digest that are shown: enough to tell two apart, few enough to read aloud.
const SHOWN_BYTES: usize = 8;

/// `meta compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Read every record anew, instead of comparing the digests that are kept while records change: finds also what rotted
    /// on a disk
    #[arg(long)]
    stored: bool,
    /// Name the differences from this member, instead of those from the majority
    #[arg(long, value_name = "NODE")]
    with: Option<String>,
}

/// `meta resync`.
#[derive(Debug, Args)]
pub(crate) struct ResyncArgs {
    /// The member that is wrong
    node: String,
    /// Transfer the whole state, instead of the records that differ
    #[arg(long, conflicts_with = "replay")]
    whole: bool,
    /// Make it anew from the node's own snapshot and log, without the others' records
    #[arg(long)]
    replay: bool,
}

#[derive(Serialize)]
struct View {
    index: u64,
    equal: bool,
    members: Vec<Row>,
    differences: Vec<Difference>,
    more: bool,
    wire_bytes: u64,
}

#[derive(Serialize)]
struct Row {
    node: String,
    verdict: String,
    digest: Option<String>,
    records: Option<u64>,
    detail: Option<String>,
}

#[derive(Serialize)]
struct Difference {
    record: String,
    node: String,
    here: Option<String>,
    other: String,
    there: Option<String>,
}

fn hex(bytes: &[u8]) -> Option<String> {
    let hex: String = bytes.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}")).collect();
    (!hex.is_empty()).then_some(hex)
}

fn metadata() -> Option<Scope> {
    Some(Scope { of: Some(Of::Metadata(true)) })
}

pub(crate) async fn compare(cx: &Context, args: CompareArgs) -> Result<Code, Failure> {
    let doing = "compare the members' metadata";
    let nodes = cx.nodes().await?;
    if let Some(with) = &args.with {
        cx.found().await?.member(with)?;
    }
    let node = nodes.serving(doing).await?;
    let refused = |status| Failure::from_status(doing, &node.name, &status);
    let request =
        CompareChecksumsRequest { scope: metadata(), with_node: args.with.unwrap_or_default(), stored: args.stored };
    let mut messages = node.replicas().compare_checksums(request).await.map_err(refused)?.into_inner();
    let mut view =
        View { index: 0, equal: false, members: Vec::new(), differences: Vec::new(), more: false, wire_bytes: 0 };
    let mut finished = false;
    while let Some(message) = messages.message().await.map_err(refused)? {
        if let Some(member) = message.member {
            let heard = !member.digest.is_empty();
            view.members.push(Row {
                digest: hex(&member.digest),
                records: heard.then_some(member.records),
                detail: known(&member.detail),
                node: member.node,
                verdict: member.verdict,
            });
        } else if message.finished {
            finished = true;
            (view.index, view.more, view.wire_bytes) = (message.index, message.more, message.wire_bytes);
        } else {
            view.differences.push(Difference {
                record: message.range,
                here: hex(&message.here),
                there: hex(&message.there),
                node: message.node,
                other: message.other,
            });
        }
    }
    if !finished {
        return Err(Failure::new(Code::Unreachable, format!("{} stopped telling what differs", node.name))
            .next("ask again: nothing was changed"));
    }
    view.equal = view.members.iter().all(|row| row.verdict == "right");
    let differs = view.members.iter().any(|row| matches!(row.verdict.as_str(), "wrong" | "undecided"));
    cx.out.show(&view, View::text)?;
    Ok(match (view.equal, differs) {
        (true, _) => Code::Ok,
        (false, true) => Code::Failed,
        (false, false) => Code::Degraded,
    })
}

impl View {
    fn text(&self) -> String {
        let mut table = Table::new(["NODE", "VERDICT", "DIGEST", "RECORDS", "DETAIL"]);
        for row in &self.members {
            let (digest, records) = (cell(row.digest.clone()), cell(row.records));
            table.row([row.node.clone(), row.verdict.clone(), digest, records, cell(row.detail.clone())]);
        }
        let mut out = table.render();
        let one = |digest: &Option<String>| digest.clone().unwrap_or_else(|| "not there".to_owned());
        for it in &self.differences {
            let (here, there) = (one(&it.here), one(&it.there));
            out.push_str(&format!("{}: {here} at {}, {there} at {}\n", it.record, it.node, it.other));
        }
        if self.more {
            out.push_str("and more\n");
        }
        let wrong: Vec<&str> =
            self.members.iter().filter(|row| row.verdict == "wrong").map(|row| row.node.as_str()).collect();
        let verdict = match (self.equal, wrong.is_empty(), self.differences.is_empty()) {
            (true, _, _) => "all have the same".to_owned(),
            (_, false, _) => format!("wrong: {} (`resilver meta resync NODE` mends one)", wrong.join(", ")),
            (_, _, false) => "they differ, and there is no majority of at least three to say who is wrong".to_owned(),
            (_, _, true) => "those that said have the same; not all did".to_owned(),
        };
        out + &format!("as of entry {}: {verdict}\n", self.index)
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Mended {
    node: String,
    records: u64,
    message: String,
}

pub(crate) async fn resync(cx: &Context, args: ResyncArgs) -> Result<Code, Failure> {
    let doing = "mend the member's metadata";
    cx.found().await?.member(&args.node)?;
    let nodes = cx.nodes().await?;
    let Some(node) = nodes.named(&args.node) else { return Err(Failure::usage(format!("no node `{}`", args.node))) };
    let refused = |status| Failure::from_status(doing, &args.node, &status);
    let answer = match (args.whole, args.replay) {
        (true, _) => node.recovery().restore_snapshot(RestoreSnapshotRequest::default()).await,
        (_, true) => node.recovery().replay_logs(ReplayLogsRequest::default()).await,
        _ => {
            let request = SyncMissingEntriesRequest { scope: metadata(), fence: None };
            node.replicas().sync_missing_entries(request).await
        }
    };
    let mut messages = answer.map_err(refused)?.into_inner();
    // No deadline of our own: the node bounds each of its steps, and says which it is in.
    while let Some(message) = messages.message().await.map_err(refused)? {
        cx.out.say(format!("{}: {}", message.phase, message.message));
        if message.finished {
            let mended = Mended { node: args.node, records: message.done, message: message.message };
            cx.out.show(&mended, |mended| format!("{}: {}\n", mended.node, mended.message))?;
            return Ok(Code::Ok);
        }
    }
    Err(Failure::new(Code::Degraded, format!("{} stopped telling how far it is", args.node))
        .next("it goes on by itself: `resilver meta compare --stored` says what came of it"))
}
