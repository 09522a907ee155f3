//! `meta backup|restore|recover-quorum`: the metadata in a file, and what is done when its quorum is lost for good.
//!
//! Owns: showing what would be lost before anything is, asking, and the last word. Must never: choose for the person which
//! nodes are gone; call a backup one that was not read back to its end.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt, stream};
use resilver_host::{File, OpenMode};
use resilver_node::state::{Description, describe};
use resilver_proto::contract::restore_request::Of;
use resilver_proto::contract::{
    BackupRequest, RecoverQuorumRequest, RecoverQuorumResponse, RestoreBegin, RestoreRequest, SurveyRequest,
    SurveyResponse,
};
use serde::Serialize;

use super::confirm::Confirm;
use super::context::Context;
use super::rejoin::was_cut;
use crate::client::{CALL_DEADLINE, Node, Nodes, within};
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN};

/// Bytes of a file in one message.
const CHUNK_BYTES: usize = 256 * 1024;
/// How long a node may take until it is the new epoch's, or serves again: it may have a million records to write.
pub(super) const REBIRTH_DEADLINE: Duration = Duration::from_secs(900);
/// Between two looks at a node that is starting.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(300);

/// `meta backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Where the backup is written
    file: PathBuf,
    /// What this node has, without asking a quorum: for when there is none
    #[arg(long, value_name = "NODE")]
    local: Option<String>,
}

/// `meta restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// The node that goes on from it: one that the backup knows, in no cluster or a lost voter
    #[arg(long, value_name = "NODE")]
    node: String,
    /// A node of the backup that is gone for good (repeatable): all others have to answer, or one of them may have been restored, too
    #[arg(long, value_name = "NODE")]
    gone: Vec<String>,
    /// Why, for the node's log
    #[arg(long, default_value = "an operator says so")]
    reason: String,
    #[command(flatten)]
    confirm: Confirm,
}

/// `meta recover-quorum`.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// A voter that is gone for good (repeatable): it will never come back as it was
    #[arg(long, value_name = "NODE")]
    gone: Vec<String>,
    /// Take a forced epoch back, while no other node has joined it
    #[arg(long, conflicts_with = "gone")]
    undo: bool,
    /// Why, for the nodes' logs
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Serialize)]
struct BackedUp {
    file: String,
    cluster_id: String,
    cluster_name: String,
    epoch: u64,
    applied: u64,
    nodes: usize,
    objects: u64,
    records: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Reborn {
    node: String,
    epoch: u64,
    raft_id: u64,
    reaches: u64,
    aside: Option<String>,
    next: Vec<String>,
}

pub(crate) async fn backup(cx: &Context, args: BackupArgs) -> Result<Code, Failure> {
    let doing = "back the metadata up";
    let nodes = cx.nodes().await?;
    let door = match &args.local {
        Some(name) => {
            cx.found().await?.member(name)?;
            nodes.named(name).cloned().ok_or_else(|| Failure::usage(format!("no node `{name}`")))?
        }
        None => nodes.serving(doing).await?,
    };
    if cx.host.disk.metadata(&args.file).await.is_ok() {
        return Err(Failure::new(
            Code::Refused,
            format!("{} is there already: nothing was written", args.file.display()),
        )
        .next("name another file: an older backup may be the one that is needed"));
    }
    let passing = args.file.with_extension("part");
    let kept = keep(cx, &door, args.local.is_some(), &passing).await;
    let described = match kept {
        Ok(bytes) => describe(&cx.host, &passing).await.map(|found| (found, bytes)).map_err(|error| {
            Failure::failed(format!("what was written does not read back as a whole backup: {error}"))
        }),
        Err(failure) => Err(failure),
    };
    let (found, bytes) = match described {
        Ok(described) => described,
        Err(failure) => {
            // Half a backup is none: it must not be taken for one.
            let _ = cx.host.disk.remove_file(&passing).await;
            return Err(failure);
        }
    };
    let seated = async {
        cx.host.disk.rename(&passing, &args.file).await?;
        let folder = args.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        cx.host.disk.sync_dir(folder.unwrap_or(Path::new("."))).await
    };
    seated.await.map_err(|error| unwritten(&args.file, &error))?;
    cx.out.show(&BackedUp::of(&args.file, &found, bytes), BackedUp::line)?;
    Ok(Code::Ok)
}

/// Writes what the node sends, and syncs it.
async fn keep(cx: &Context, door: &Node, local: bool, path: &Path) -> Result<u64, Failure> {
    let doing = "back the metadata up";
    let refused = |status: tonic::Status| Failure::from_status(doing, &door.name, &status);
    let mut chunks = door.meta_recovery().backup(BackupRequest { local }).await.map_err(refused)?.into_inner();
    let _ = cx.host.disk.remove_file(path).await;
    let file = cx.host.disk.open(path, OpenMode::Create).await.map_err(|error| unwritten(path, &error))?;
    let mut written = 0;
    while let Some(chunk) = chunks.message().await.map_err(refused)? {
        let len = chunk.data.len() as u64;
        file.write_at(written, chunk.data).await.map_err(|error| unwritten(path, &error))?;
        written += len;
    }
    file.sync().await.map_err(|error| unwritten(path, &error))?;
    Ok(written)
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("the backup could not be written to {}: {error}", path.display()))
}

pub(crate) async fn restore(cx: &Context, args: RestoreArgs) -> Result<Code, Failure> {
    let doing = "restore the backup";
    let found = describe(&cx.host, &args.file)
        .await
        .map_err(|error| Failure::usage(format!("{} is no whole backup: {error}", args.file.display())))?;
    let members = cx.found().await?;
    members.member(&args.node)?;
    args.confirm
        .check(cx, "meta restore", &found.name, async || {
            Ok(format!(
                "node {} would become the only voter of cluster `{}` ({} objects, epoch {}), as of entry {}: what was stored \
                 since is not in it",
                args.node,
                found.name,
                found.objects,
                // Above that of whoever is called gone and may have been restored, too.
                found.epoch.0 + 1 + u64::from(!args.gone.is_empty()),
                found.applied
            ))
        })
        .await?;
    let nodes = cx.nodes().await?;
    let Some(node) = nodes.named(&args.node) else { return Err(Failure::usage(format!("no node `{}`", args.node))) };
    let others = members.members.iter().filter(|member| member.name != args.node);
    let begin = RestoreBegin {
        confirm: found.name.clone(),
        members: others.map(|member| member.address.clone()).collect(),
        reason: args.reason,
        gone: args.gone.clone(),
    };
    let file = cx.host.disk.open(&args.file, OpenMode::Read).await;
    let file = file.map_err(|error| Failure::failed(format!("{} cannot be read: {error}", args.file.display())))?;
    let first = RestoreRequest { of: Some(Of::Begin(begin)) };
    let broke = Arc::new(OnceLock::new());
    let messages = stream::once(async { first }).chain(pieces(file, Arc::clone(&broke)));
    let answer =
        within(REBIRTH_DEADLINE, async { node.meta_recovery().restore(messages).await }).await.map_err(|status| {
            match broke.get() {
                // The node saw a backup that ends too early; that is not why.
                Some(error) => Failure::failed(format!("{} cannot be read to its end: {error}", args.file.display()))
                    .next("nothing was restored; try another copy of the backup"),
                None => Failure::from_status(doing, &args.node, &status),
            }
        })?;
    let reborn = Reborn {
        node: args.node.clone(),
        epoch: answer.epoch,
        raft_id: answer.raft_id,
        reaches: answer.applied,
        aside: Some(answer.aside).filter(|aside| !aside.is_empty()),
        next: next_steps(&found.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(), &args.node, &args.gone),
    };
    cx.out.show(&reborn, Reborn::text)?;
    Ok(Code::Ok)
}

/// A backup in messages, read as they are sent. One that cannot be read on ends early, which the other end refuses as not
/// whole; why is left in `broke`.
fn pieces(file: Arc<dyn File>, broke: Arc<OnceLock<String>>) -> impl Stream<Item = RestoreRequest> + Send + 'static {
    stream::unfold(Some((file, 0)), move |reading| {
        let broke = Arc::clone(&broke);
        async move {
            let (file, offset) = reading?;
            let data = match file.read_at(offset, CHUNK_BYTES).await {
                Ok(data) => data,
                Err(error) => {
                    let _ = broke.set(error.to_string());
                    return None;
                }
            };
            let next = (data.len() == CHUNK_BYTES).then_some(offset + CHUNK_BYTES as u64);
            Some((RestoreRequest { of: Some(Of::Data(data)) }, next.map(|offset| (file, offset))))
        }
    })
}

/// Shows what there is, says what would be lost, and only with a person's word forces the one that has most.
pub(crate) async fn recover_quorum(cx: &Context, args: RecoverArgs) -> Result<Code, Failure> {
    if args.undo {
        let reason = args.reason.unwrap_or_else(|| "an operator says so".to_owned());
        return super::undo_quorum::undo(cx, &args.confirm, reason).await;
    }
    let doing = "recover the quorum";
    let found = cx.found().await?;
    for name in &args.gone {
        found.member(name)?;
    }
    let nodes = cx.nodes().await?;
    let seen = survey(&nodes).await;
    let best = best(&seen).ok_or_else(|| {
        Failure::new(Code::Unreachable, "no node that answers has the metadata of a cluster")
            .next("from a backup: `resilver meta restore`")
    })?;
    cx.out.say(table(&nodes, &seen, &best.node, &args.gone));
    let name = best.cluster_name.clone();
    let verb = "meta recover-quorum";
    args.confirm.check(cx, verb, &name, async || Ok(would_lose(best, &args.gone))).await?;
    let others = found.members.iter().filter(|member| member.name != best.node);
    let request = RecoverQuorumRequest {
        confirm: name,
        gone: args.gone.clone(),
        members: others.map(|member| member.address.clone()).collect(),
        reason: args.reason.unwrap_or_else(|| "the quorum is lost".to_owned()),
    };
    let Some(node) = nodes.named(&best.node) else { return Err(Failure::usage(format!("no node `{}`", best.node))) };
    let answer = match within(REBIRTH_DEADLINE, async { node.meta_recovery().recover_quorum(request).await }).await {
        Err(status) if was_cut::<()>(&Err(status.clone())) => moved_on(node, best.epoch).await.map(|seen| {
            let (epoch, raft_id, last_log_index) = (seen.epoch, seen.raft_id, seen.last_log_index);
            RecoverQuorumResponse { epoch, raft_id, last_log_index, aside: String::new() }
        }),
        answer => answer,
    };
    let answer = answer.map_err(|status| {
        Failure::from_status(doing, &best.node, &status)
            .next(format!("see what became of it: `resilver node status {}`", best.node))
    })?;
    cx.out.say(format!("{} is the only voter of epoch {}; it starts anew", best.node, answer.epoch));
    serves(node).await?;
    let survivors: Vec<String> = seen.iter().map(|seen| seen.node.clone()).collect();
    let reborn = Reborn {
        node: best.node.clone(),
        epoch: answer.epoch,
        raft_id: answer.raft_id,
        reaches: answer.last_log_index,
        aside: Some(answer.aside).filter(|aside| !aside.is_empty()),
        next: next_steps(&survivors, &best.node, &args.gone),
    };
    cx.out.show(&reborn, Reborn::text)?;
    Ok(Code::Ok)
}

/// What every node that answers says of itself.
pub(super) async fn survey(nodes: &Nodes) -> Vec<SurveyResponse> {
    let asked = nodes.all().iter().map(async |node| {
        within(CALL_DEADLINE, async { node.meta_recovery().survey(SurveyRequest {}).await }).await.ok()
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The one that has most, of those in the latest epoch.
fn best(seen: &[SurveyResponse]) -> Option<&SurveyResponse> {
    let members = seen.iter().filter(|seen| !seen.cluster_id.is_empty());
    members
        .max_by_key(|seen| (seen.epoch, seen.last_log_term, seen.last_log_index, std::cmp::Reverse(seen.node.clone())))
}

fn table(nodes: &Nodes, seen: &[SurveyResponse], best: &str, gone: &[String]) -> String {
    let mut table = Table::new(["NODE", "STATE", "VOTER", "EPOCH", "LAST_ENTRY", "APPLIED", "LEADER"]);
    let voters: Vec<&String> =
        seen.iter().find(|seen| seen.node == best).iter().flat_map(|seen| &seen.voters).collect();
    for node in nodes.all() {
        let votes = if voters.contains(&&node.name) { "yes" } else { "no" }.to_owned();
        match seen.iter().find(|seen| seen.node == node.name) {
            Some(seen) => table.row([
                if seen.node == best { format!("{} *", node.name) } else { node.name.clone() },
                seen.phase.clone(),
                votes,
                seen.epoch.to_string(),
                format!("{}.{}", seen.last_log_term, seen.last_log_index),
                seen.applied.to_string(),
                if seen.leader.is_empty() { UNKNOWN.to_owned() } else { seen.leader.clone() },
            ]),
            None => {
                let state = if gone.contains(&node.name) { "gone" } else { "no answer" };
                let none = || UNKNOWN.to_owned();
                table.row([node.name.clone(), state.to_owned(), votes, none(), none(), none(), none()]);
            }
        }
    }
    table.render() + "* has the most: the cluster would go on from it\n"
}

fn would_lose(best: &SurveyResponse, gone: &[String]) -> String {
    format!(
        "{} would go on alone in epoch {}, with everything up to entry {}.{}; what only {} had received after that would be \
         lost, and none of them could ever come back as it was",
        best.node,
        best.epoch + 1,
        best.last_log_term,
        best.last_log_index,
        if gone.is_empty() { "the voters that you say are gone (--gone NODE)".to_owned() } else { gone.join(" and ") }
    )
}

/// The node's process ended before its answer arrived: it starts anew, in another epoch if it did as it was told.
///
/// # Errors
/// When it is not in another one in time.
pub(super) async fn moved_on(node: &Node, before: u64) -> Result<SurveyResponse, tonic::Status> {
    let waiting = async {
        loop {
            let seen = within(CALL_DEADLINE, async { node.meta_recovery().survey(SurveyRequest {}).await }).await;
            if let Ok(seen) = seen
                && seen.epoch != before
                && !seen.cluster_id.is_empty()
            {
                return seen;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(REBIRTH_DEADLINE, waiting).await.map_err(|_| {
        tonic::Status::deadline_exceeded("the connection was cut, and the node is in no other epoch since")
    })
}

/// Waits until the node serves again.
pub(crate) async fn serves(node: &Node) -> Result<(), Failure> {
    let waiting = async {
        while !node.look().await.is_ok_and(|seen| seen.phase == "healthy") {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(REBIRTH_DEADLINE, waiting).await.map_err(|_| {
        Failure::new(Code::Degraded, format!("{} does not serve yet", node.name))
            .next(format!("`resilver node status {}` says what it waits for", node.name))
    })
}

fn next_steps(nodes: &[String], own: &str, gone: &[String]) -> Vec<String> {
    let others = nodes.iter().filter(|node| *node != own && !gone.contains(node));
    let mut next: Vec<String> = others.map(|node| format!("resilver node rejoin {node}")).collect();
    next.push("resilver verify --full".to_owned());
    next.push("resilver repair collect: lets go of what nobody owns, once you have looked".to_owned());
    next
}

impl BackedUp {
    fn of(file: &Path, found: &Description, bytes: u64) -> Self {
        Self {
            file: file.display().to_string(),
            cluster_id: found.cluster.to_string(),
            cluster_name: found.name.clone(),
            epoch: found.epoch.0,
            applied: found.applied,
            nodes: found.nodes.len(),
            objects: found.objects,
            records: found.records,
            bytes,
        }
    }

    fn line(&self) -> String {
        format!(
            "{}: cluster `{}` in epoch {} as of entry {}: {} objects, {} records, {}, read back whole\n",
            self.file,
            self.cluster_name,
            self.epoch,
            self.applied,
            self.objects,
            self.records,
            crate::output::bytes(self.bytes)
        )
    }
}

impl Reborn {
    fn text(&self) -> String {
        let mut out = format!(
            "{} is member {} and the only voter of epoch {}, with everything up to entry {}\n",
            self.node, self.raft_id, self.epoch, self.reaches
        );
        // Writing into a String cannot fail.
        if let Some(aside) = &self.aside {
            let _ = writeln!(out, "what was there is kept in {aside}");
        }
        let _ = writeln!(out, "next, one after the other:");
        self.next.iter().for_each(|step| {
            let _ = writeln!(out, "  {step}");
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found in review: a disk that could not read a backup on was told as a backup that is not whole.
    #[tokio::test]
    async fn why_a_backup_cannot_be_read_on_is_kept() {
        // Opens, and fails at the first read.
        let folder = tempfile::tempdir().unwrap();
        let host = resilver_host::real::host();
        let file = host.disk.open(folder.path(), OpenMode::Read).await.unwrap();
        let broke = Arc::new(OnceLock::new());
        assert_eq!(pieces(file, Arc::clone(&broke)).count().await, 0);
        assert!(broke.get().unwrap().contains("directory"), "{broke:?}");
    }
}
