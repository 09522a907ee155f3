//! `bench restart`, `bench restore`: how soon a node with much metadata serves again, and where the time goes.

use std::path::Path;

use clap::Args;
use futures_util::{StreamExt, stream};
use resilver_chaos::client::Client;
use resilver_chaos::faults;
use resilver_chaos::target::Target;
use resilver_host::{FileKind, OpenMode};
use resilver_proto::contract::meta_recovery_client::MetaRecoveryClient;
use resilver_proto::contract::node_recovery_client::NodeRecoveryClient;
use resilver_proto::contract::restore_request::Of;
use resilver_proto::contract::{BackupRequest, RejoinRequest, RestoreBegin, RestoreRequest, StartStep, SurveyRequest};
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use serde::Serialize;
use tokio::time::Instant;

use super::metadata::{BUCKET, LIMIT, NODES, POLL, channel, failed, filled, median, millis, ready};
use super::{START_TIME, harness, in_a_cluster_of};
use crate::cli::context::Context;
use crate::exit::{Code, Failure};
use crate::local::{LocalCluster, LocalNode};

/// Bytes of a backup in one message.
const CHUNK_BYTES: usize = 256 * 1024;

/// `bench restart`.
#[derive(Debug, Args)]
pub(super) struct RestartArgs {
    /// Entries in the log
    #[arg(long, default_value_t = 1_000_000)]
    entries: u64,
    /// Restarts of each kind; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
}

/// `bench restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Objects in the metadata
    #[arg(long, default_value_t = 1_000_000)]
    objects: u64,
}

/// One start: when it served, and what it did until then.
#[derive(Debug, Serialize)]
struct Start {
    node: String,
    serves_ms: u64,
    steps: Vec<(String, u64)>,
}

#[derive(Debug, Serialize)]
struct Restart {
    entries: u64,
    /// One node, the log's entries all applied before; the others serve and have nothing to do.
    alone: Start,
    /// All three at once.
    together: Vec<Start>,
    /// Until the agents call the cluster whole as well.
    whole_ms: u64,
    /// The same, none of the entries applied.
    unapplied: Vec<Start>,
    /// From the kill to serving, after the log was cut behind a snapshot.
    snapshot_ms: u64,
}

#[derive(Debug, Serialize)]
struct Restored {
    objects: u64,
    backup_ms: u64,
    backup_bytes: u64,
    /// From the first byte sent to a node that has nothing until it serves.
    restore_ms: u64,
    /// Until the others are back as well, one after the other.
    all_ms: u64,
}

/// Kills a node's process, and waits until its agent has it serve again; how long that took.
async fn killed(cx: &Context, client: &Client, target: &Target, name: &str) -> Result<u64, Failure> {
    let info = target.hosts.iter().find(|host| host.name == name).ok_or_else(|| failed(&"no such host"))?;
    let begun = Instant::now();
    let pid = faults::kill_node(&cx.host, client, info).await.map_err(|error| harness(&error))?;
    let serves = async {
        while !client.observe(name).await.is_some_and(|seen| seen.phase == "healthy" && seen.pid != pid) {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, serves).await.map_err(|_| failed(&"the node did not come back in time"))?;
    Ok(millis(begun))
}

async fn restarts(cx: &Context, cluster: &LocalCluster, target: &Target, runs: u64) -> Result<u64, Failure> {
    let client = Client::new(&cx.host, target).map_err(|error| harness(&error))?;
    let mut took = Vec::new();
    for _ in 0..runs {
        let status = client.status().await.ok_or_else(|| failed(&"no node answers"))?;
        let follower = cluster.nodes().iter().find(|node| node.name != status.leader);
        let follower = follower.ok_or_else(|| failed(&"no node follows"))?;
        took.push(killed(cx, &client, target, &follower.name).await?);
        cluster.wait_healthy(START_TIME + LIMIT).await?;
    }
    Ok(median(took))
}

/// Entries in the log of a node, as it says: from behind its snapshot to the last.
async fn log_length(client: &Client, name: &str) -> u64 {
    let raft = client.observe(name).await.and_then(|seen| seen.raft);
    raft.map_or(0, |raft| raft.last_log.saturating_sub(raft.snapshot))
}

/// Starts nodes, and waits until each serves.
async fn started(
    cx: &Context,
    cluster: &LocalCluster,
    client: &Client,
    nodes: &[LocalNode],
) -> Result<Vec<Start>, Failure> {
    let begun = Instant::now();
    for node in nodes {
        cluster.start_agent(node).await?;
    }
    let serve = nodes.iter().map(async |node| {
        loop {
            match client.observe(&node.name).await {
                Some(seen) if seen.phase == "healthy" => {
                    let step = |step: StartStep| (step.name, step.millis);
                    let steps = seen.start_steps.into_iter().map(step).collect();
                    return Start { node: node.name.clone(), serves_ms: millis(begun), steps };
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    });
    let all = tokio::time::timeout(LIMIT, futures_util::future::join_all(serve)).await;
    let all = all.map_err(|_| failed(&"not all nodes served in time"))?;
    all.iter().for_each(|start| cx.out.say(start.line()));
    Ok(all)
}

/// Waits until the nodes have made a snapshot and cut their logs behind it.
async fn short(client: &Client, nodes: &[LocalNode], entries: u64) -> Result<(), Failure> {
    let short = async {
        for node in nodes {
            while log_length(client, &node.name).await > entries / 10 {
                tokio::time::sleep(POLL).await;
            }
        }
    };
    tokio::time::timeout(LIMIT, short).await.map_err(|_| failed(&"no snapshot was made in time"))
}

/// `bench restart`.
pub(super) async fn restart(cx: &Context, args: &RestartArgs, keep: bool) -> Result<Code, Failure> {
    let alone = in_a_cluster_of(cx, "bench-restart", (NODES, 1), keep, async |cluster, target| {
        let client = ready(cx, target).await?;
        filled(cx, cluster, BUCKET, args.entries, true, 0).await?;
        let (last, others) = cluster.nodes().split_last().ok_or_else(|| failed(&"no nodes"))?;
        started(cx, cluster, &client, others).await?;
        short(&client, others, args.entries).await?;
        started(cx, cluster, &client, std::slice::from_ref(last)).await
    })
    .await?;
    let together = in_a_cluster_of(cx, "bench-restart", (NODES, 1), keep, async |cluster, target| {
        let client = ready(cx, target).await?;
        filled(cx, cluster, BUCKET, args.entries, true, 0).await?;
        let begun = Instant::now();
        let together = started(cx, cluster, &client, cluster.nodes()).await?;
        cluster.wait_healthy(START_TIME + LIMIT).await?;
        let whole_ms = millis(begun);
        short(&client, cluster.nodes(), args.entries).await?;
        Ok((together, whole_ms, restarts(cx, cluster, target, args.runs).await?))
    });
    let (together, whole_ms, snapshot_ms) = together.await?;
    let unapplied = in_a_cluster_of(cx, "bench-restart", (NODES, 1), keep, async |cluster, target| {
        let client = ready(cx, target).await?;
        filled(cx, cluster, BUCKET, args.entries, false, 0).await?;
        let unapplied = started(cx, cluster, &client, cluster.nodes()).await?;
        cluster.wait_healthy(START_TIME + LIMIT).await?;
        Ok(unapplied)
    })
    .await?;
    let alone = alone.into_iter().next().ok_or_else(|| failed(&"no node was started alone"))?;
    let found = Restart { entries: args.entries, alone, together, whole_ms, unapplied, snapshot_ms };
    cx.out.show(&found, |found| {
        let all = |starts: &[Start]| starts.iter().map(|start| format!("  {}\n", start.line())).collect::<String>();
        format!(
            "a log of {} entries, all applied; one node alone:\n{}three nodes at once:\n{}  the cluster is whole after {} \
             ms\nthree at once, none of the entries applied:\n{}behind a snapshot, from a kill to serving: {} ms\n",
            found.entries,
            all(std::slice::from_ref(&found.alone)),
            all(&found.together),
            found.whole_ms,
            all(&found.unapplied),
            found.snapshot_ms
        )
    })?;
    Ok(Code::Ok)
}

impl Start {
    fn line(&self) -> String {
        let steps: Vec<String> = self.steps.iter().map(|(step, ms)| format!("{step} {ms}")).collect();
        format!("{} serves after {} ms ({})", self.node, self.serves_ms, steps.join(", "))
    }
}

/// Writes the backup of a node to a file; how long that took, and its bytes.
async fn backed_up(cx: &Context, node: &LocalNode, path: &Path) -> Result<(u64, u64), Failure> {
    let begun = Instant::now();
    let refused = |status: tonic::Status| failed(&status.message().to_owned());
    let mut client = MetaRecoveryClient::new(channel(cx, node).await?).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut chunks = client.backup(BackupRequest { local: false }).await.map_err(refused)?.into_inner();
    let file = cx.host.disk.open(path, OpenMode::Create).await.map_err(|error| failed(&error))?;
    let mut bytes = 0;
    while let Some(chunk) = chunks.message().await.map_err(refused)? {
        let len = chunk.data.len() as u64;
        file.write_at(bytes, chunk.data).await.map_err(|error| failed(&error))?;
        bytes += len;
    }
    file.sync().await.map_err(|error| failed(&error))?;
    Ok((millis(begun), bytes))
}

/// Takes everything that a node's metadata folder holds.
async fn emptied(cx: &Context, folder: &Path) -> std::io::Result<()> {
    let disk = &cx.host.disk;
    let (mut due, mut folders) = (vec![folder.to_path_buf()], Vec::new());
    while let Some(path) = due.pop() {
        for entry in disk.list(&path).await? {
            let below = path.join(&entry.name);
            match entry.kind {
                FileKind::Dir => due.push(below),
                _ => disk.remove_file(&below).await?,
            }
        }
        folders.push(path);
    }
    for path in folders.iter().skip(1).rev() {
        disk.remove_dir(path).await?;
    }
    Ok(())
}

/// Sends the file to a node that has nothing, and waits until it serves.
async fn restored(
    cx: &Context,
    client: &Client,
    node: &LocalNode,
    others: Vec<String>,
    (path, name): (&Path, &str),
) -> Result<(), Failure> {
    let file = cx.host.disk.open(path, OpenMode::Read).await.map_err(|error| failed(&error))?;
    let begin =
        RestoreBegin { confirm: name.to_owned(), members: others, reason: "a benchmark".to_owned(), gone: Vec::new() };
    let pieces = stream::unfold(Some((file, 0)), |reading| async move {
        let (file, offset) = reading?;
        // What cannot be read ends the stream early, which the node refuses as not whole.
        let data = file.read_at(offset, CHUNK_BYTES).await.ok()?;
        let next = (data.len() == CHUNK_BYTES).then_some((file, offset + CHUNK_BYTES as u64));
        Some((RestoreRequest { of: Some(Of::Data(data)) }, next))
    });
    let messages = stream::once(async { RestoreRequest { of: Some(Of::Begin(begin)) } }).chain(pieces);
    let mut meta = MetaRecoveryClient::new(channel(cx, node).await?);
    meta.restore(messages).await.map_err(|status| failed(&status.message().to_owned()))?;
    in_phase(client, &node.name, "healthy").await
}

async fn in_phase(client: &Client, node: &str, phase: &str) -> Result<(), Failure> {
    let waiting = async {
        while client.observe(node).await.is_none_or(|seen| seen.phase != phase) {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.map_err(|_| failed(&format!("{node} was not {phase} in time")))
}

/// `bench restore`.
pub(super) async fn restore(cx: &Context, args: &RestoreArgs, keep: bool) -> Result<Code, Failure> {
    let found = in_a_cluster_of(cx, "bench-restore", (NODES, 1), keep, async |cluster, target| {
        let client = ready(cx, target).await?;
        filled(cx, cluster, BUCKET, args.objects, true, 0).await?;
        cluster.start().await?;
        cluster.wait_healthy(START_TIME + LIMIT).await?;
        let (first, others) = cluster.nodes().split_first().ok_or_else(|| failed(&"no nodes"))?;
        let path = cluster.dir().join("metadata.backup");
        let (backup_ms, backup_bytes) = backed_up(cx, first, &path).await?;
        let mut meta = MetaRecoveryClient::new(channel(cx, first).await?);
        let seen = meta.survey(SurveyRequest {}).await.map_err(|status| failed(&status.message().to_owned()))?;
        let name = seen.into_inner().cluster_name;
        // All metadata is gone; the disks still say whose they are.
        cluster.stop().await?;
        for node in cluster.nodes() {
            emptied(cx, &node.meta).await.map_err(|error| failed(&error))?;
        }
        for node in cluster.nodes() {
            cluster.start_agent(node).await?;
        }
        for node in cluster.nodes() {
            in_phase(&client, &node.name, "lost_voter").await?;
        }
        let begun = Instant::now();
        let addresses = || others.iter().map(|node| node.address.clone()).collect();
        restored(cx, &client, first, addresses(), (&path, &name)).await?;
        let restore_ms = millis(begun);
        for node in others {
            let request =
                RejoinRequest { fence: None, members: vec![first.address.clone()], reason: "a benchmark".to_owned() };
            let refused = |status: tonic::Status| failed(&status.message().to_owned());
            let mut recovery = NodeRecoveryClient::new(channel(cx, node).await?);
            let mut steps = recovery.rejoin(request).await.map_err(refused)?.into_inner();
            while let Some(step) = steps.message().await.map_err(refused)? {
                if step.finished {
                    break;
                }
            }
            in_phase(&client, &node.name, "healthy").await?;
        }
        let all_ms = millis(begun);
        let counted = client.status().await.map_or(0, |status| status.objects);
        if counted < args.objects {
            return Err(failed(&format!("{counted} objects are there again, of {}", args.objects)));
        }
        Ok(Restored { objects: args.objects, backup_ms, backup_bytes, restore_ms, all_ms })
    })
    .await?;
    cx.out.show(&found, |found| {
        format!(
            "{} objects: backed up in {} ms ({}), restored into a node that had nothing in {} ms, all three back after {} \
             ms\n",
            found.objects,
            found.backup_ms,
            crate::output::bytes(found.backup_bytes),
            found.restore_ms,
            found.all_ms
        )
    })?;
    Ok(Code::Ok)
}
