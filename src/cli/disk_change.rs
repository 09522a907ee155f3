//! `disk fail|drain|add|replace|remove`: a person's word on a disk.
//!
//! Owns: asking, following what was begun, and the last word. Must never: call a disk empty, or a replacement done, before the
//! cluster says so; send a mark twice.

use std::path::PathBuf;

use clap::Args;
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{
    AddDiskRequest, DiskRequest, DiskVerb as Wire, Progress, RemoveDiskRequest, Scope, SyncMissingEntriesRequest,
    VerifyIntegrityRequest,
};
use resilver_proto::store::DiskStatus;
use serde::Serialize;
use tonic::{Status, Streaming};

use super::confirm::Confirm;
use super::context::Context;
use crate::client::{CHANGE_DEADLINE, Node, within};
use crate::exit::{Code, Failure};

/// `disk fail`.
#[derive(Debug, Args)]
pub(crate) struct FailArgs {
    /// The disk's id
    disk: String,
    /// Why, for whoever wonders: it is shown with the disk
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    confirm: Confirm,
}

/// `disk drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The disk's id
    disk: String,
    /// Why, for whoever wonders: it is shown with the disk
    #[arg(long)]
    reason: String,
    /// Mark it and come back at once: it is emptied all the same, but stays `draining`
    #[arg(long)]
    no_wait: bool,
}

/// `disk add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// The node's name
    node: String,
    /// The folder on that node: empty, or a disk of that node
    path: PathBuf,
    /// Why, for the node's log
    #[arg(long, default_value = "an operator says so")]
    reason: String,
}

/// `disk replace`.
#[derive(Debug, Args)]
pub(crate) struct ReplaceArgs {
    /// The id of the disk that is replaced
    disk: String,
    /// Where the new one is, if it is not mounted in the old one's place
    #[arg(long)]
    path: Option<PathBuf>,
    /// Why, for whoever wonders: it is shown with the old disk
    #[arg(long, default_value = "an operator says so")]
    reason: String,
}

/// `disk remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The id of a disk that is out and empty
    disk: String,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Done {
    disk: String,
    node: String,
    before: Option<String>,
    state: String,
    /// Shards that were moved and read back.
    shards: u64,
    #[serde(skip)]
    text: String,
}

pub(crate) async fn fail(cx: &Context, args: FailArgs) -> Result<Code, Failure> {
    let disk = known(cx, &args.disk).await?;
    args.confirm
        .check(cx, "disk fail", &args.disk, async || {
            Ok(format!(
                "the {} shards on disk {} would be rebuilt elsewhere, without reading it",
                disk.objects, args.disk
            ))
        })
        .await?;
    let before = mark(cx, &disk, Wire::Out, args.reason).await?;
    let text = format!(
        "disk {} was {before} and is out: its shards are rebuilt elsewhere (`resilver repair status`)\n",
        args.disk
    );
    show(cx, &disk, Some(before), "out", 0, text)
}

/// Marks, waits until nothing is left there, has what left it read back, and only then gives the disk up.
pub(crate) async fn drain(cx: &Context, args: DrainArgs) -> Result<Code, Failure> {
    let disk = known(cx, &args.disk).await?;
    let before =
        if disk.state == "out" { "out".to_owned() } else { mark(cx, &disk, Wire::Drain, args.reason.clone()).await? };
    if args.no_wait {
        let text = format!("disk {} was {before} and is being emptied: `resilver disk list`\n", args.disk);
        return show(cx, &disk, Some(before), "draining", 0, text);
    }
    let doing = "empty the disk";
    let door = cx.nodes().await?.serving(doing).await?;
    let scope = || Some(Scope { of: Some(Of::DiskId(args.disk.clone())) });
    let refused = |status: Status| Failure::from_status(doing, &door.name, &status);
    let request = SyncMissingEntriesRequest { scope: scope(), fence: None };
    let moved = door.replicas().sync_missing_entries(request).await.map_err(refused)?.into_inner();
    let moved = follow(cx, &door, doing, moved).await?;
    let read = door.recovery().verify_integrity(VerifyIntegrityRequest { scope: scope() }).await.map_err(refused)?;
    let read = follow(cx, &door, doing, read.into_inner()).await?;
    mark(cx, &disk, Wire::Out, args.reason).await?;
    let text = format!(
        "disk {} is empty and out: {} shards left it, {} were read back from where they are now\n",
        args.disk, moved.done, read.done
    );
    show(cx, &disk, Some(before), "out", read.done, text)
}

pub(crate) async fn add(cx: &Context, args: AddArgs) -> Result<Code, Failure> {
    cx.found().await?.member(&args.node)?;
    let request =
        AddDiskRequest { path: args.path.display().to_string(), replaces: String::new(), reason: args.reason };
    let (disk, made) = take(cx, &args.node, request).await?;
    let what = if made { "a new disk" } else { "a disk of this node already" };
    let text = format!("{} on {} is disk {disk}, {what}, and in service\n", args.path.display(), args.node);
    cx.out.show(&Done { disk, node: args.node, before: None, state: "up".to_owned(), shards: 0, text }, Done::line)?;
    Ok(Code::Ok)
}

pub(crate) async fn replace(cx: &Context, args: ReplaceArgs) -> Result<Code, Failure> {
    let old = known(cx, &args.disk).await?;
    let path = args.path.map_or_else(|| old.path.clone(), |path| path.display().to_string());
    let request = AddDiskRequest { path: path.clone(), replaces: args.disk.clone(), reason: args.reason };
    let (disk, _) = take(cx, &old.node, request).await?;
    let text = format!(
        "disk {disk} at {path} on {} takes the place of {}, which is out: its shards are rebuilt (`resilver repair status`)\n",
        old.node, args.disk
    );
    let before = Some(old.state.clone());
    cx.out.show(&Done { disk, node: old.node, before, state: "up".to_owned(), shards: 0, text }, Done::line)?;
    Ok(Code::Ok)
}

pub(crate) async fn remove(cx: &Context, args: RemoveArgs) -> Result<Code, Failure> {
    let doing = "forget the disk";
    let disk = known(cx, &args.disk).await?;
    let door = at_its_node(cx, &disk, doing).await?;
    let request = RemoveDiskRequest { disk_id: args.disk.clone() };
    within(CHANGE_DEADLINE, async { door.control().remove_disk(request).await })
        .await
        .map_err(|status| Failure::from_status(doing, &door.name, &status))?;
    let text = format!("disk {} is forgotten\n", args.disk);
    show(cx, &disk, Some(disk.state.clone()), "forgotten", 0, text)
}

/// The disk as the cluster knows it.
async fn known(cx: &Context, id: &str) -> Result<DiskStatus, Failure> {
    let status = cx.nodes().await?.status().await?;
    status.disks.into_iter().find(|disk| disk.disk_id == id).ok_or_else(|| {
        Failure::usage(format!("there is no disk {id} in this cluster")).next("`resilver disk list` shows them")
    })
}

/// The disk's own node where that serves, which knows whether the disk works; else another one.
async fn at_its_node(cx: &Context, disk: &DiskStatus, doing: &str) -> Result<Node, Failure> {
    let nodes = cx.nodes().await?;
    match nodes.named(&disk.node) {
        Some(node) if node.look().await.is_ok_and(|seen| seen.phase == "healthy") => Ok(node.clone()),
        _ => nodes.serving(doing).await,
    }
}

/// Says what a disk may do from now on; what it was.
async fn mark(cx: &Context, disk: &DiskStatus, verb: Wire, reason: String) -> Result<String, Failure> {
    let doing = "mark the disk";
    let door = at_its_node(cx, disk, doing).await?;
    let request =
        DiskRequest { fence: None, disk_id: disk.disk_id.clone(), verb: verb.into(), automatic: false, reason };
    let answer = within(CHANGE_DEADLINE, async { door.control().disk(request).await })
        .await
        .map_err(|status| Failure::from_status(doing, &door.name, &status))?;
    Ok(answer.before)
}

async fn take(cx: &Context, node: &str, request: AddDiskRequest) -> Result<(String, bool), Failure> {
    let doing = "take the disk into service";
    let nodes = cx.nodes().await?;
    let Some(door) = nodes.named(node) else { return Err(Failure::usage(format!("no node `{node}`"))) };
    let answer = within(CHANGE_DEADLINE, async { door.control().add_disk(request).await })
        .await
        .map_err(|status| Failure::from_status(doing, node, &status))?;
    Ok((answer.disk_id, answer.made))
}

/// Reads a verb's progress to its end; what failed or was skipped there is no success.
pub(super) async fn follow(
    cx: &Context,
    door: &Node,
    doing: &str,
    mut messages: Streaming<Progress>,
) -> Result<Progress, Failure> {
    let mut said = 0;
    while let Some(step) =
        messages.message().await.map_err(|status| Failure::from_status(doing, &door.name, &status))?
    {
        if step.finished {
            if step.failed + step.skipped == 0 {
                return Ok(step);
            }
            let (failed, skipped) = (step.failed, step.skipped);
            return Err(Failure::new(
                Code::Degraded,
                format!("could not {doing}: {failed} shards failed, {skipped} were skipped: {}", step.message),
            )
            .next("what was moved stays moved: the same command goes on where this one ended"));
        }
        // A word for every tenth of it.
        let tenth = (step.done * 10).checked_div(step.total).unwrap_or(0);
        if tenth > said {
            said = tenth;
            cx.out.say(format!("{}: {} of {} shards", step.phase, step.done, step.total));
        }
    }
    Err(Failure::new(Code::Degraded, format!("could not {doing}: {} stopped telling how far it is", door.name))
        .next("it goes on by itself; the same command looks again"))
}

fn show(
    cx: &Context,
    disk: &DiskStatus,
    before: Option<String>,
    state: &str,
    shards: u64,
    text: String,
) -> Result<Code, Failure> {
    let done =
        Done { disk: disk.disk_id.clone(), node: disk.node.clone(), before, state: state.to_owned(), shards, text };
    cx.out.show(&done, Done::line)?;
    Ok(Code::Ok)
}

impl Done {
    fn line(&self) -> String {
        self.text.clone()
    }
}
