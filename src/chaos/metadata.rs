//! `bench merkle`: what a million objects in the metadata cost, in a cluster of three nodes whose files were filled while they did
//! not run ([`resilver_node::meta::quantity`]); and what `bench restart` and `bench restore` share with it.

use std::time::Duration;

use clap::Args;
use resilver_chaos::client::Client;
use resilver_chaos::target::Target;
use resilver_node::meta::quantity;
use resilver_proto::contract::meta_recovery_client::MetaRecoveryClient;
use resilver_proto::contract::node_recovery_client::NodeRecoveryClient;
use resilver_proto::contract::replica_repair_client::ReplicaRepairClient;
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{
    BackupRequest, CompareChecksumsRequest, RestoreSnapshotRequest, Scope, SyncMissingEntriesRequest,
};
use resilver_proto::transport::{self, MAX_MESSAGE_BYTES};
use serde::Serialize;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::{START_TIME, harness, in_a_cluster_of};
use crate::cli::context::Context;
use crate::exit::{Code, Failure};
use crate::local::{LocalCluster, LocalNode};

/// Nodes: the fewest of which a majority can say that one is wrong.
pub(super) const NODES: u32 = 3;
pub(super) const BUCKET: &str = "bench-metadata";
/// How long a node with a million entries may take to serve before the benchmark gives up.
pub(super) const LIMIT: Duration = Duration::from_secs(600);
/// How often a node is asked whether it serves.
pub(super) const POLL: Duration = Duration::from_millis(20);

/// `bench merkle`.
#[derive(Debug, Args)]
pub(super) struct MerkleArgs {
    /// Objects in the metadata
    #[arg(long, default_value_t = 1_000_000)]
    objects: u64,
    /// In how many of them one member differs
    #[arg(long, default_value_t = 10)]
    differences: u64,
    /// Comparisons; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    runs: u64,
}

#[derive(Debug, Serialize)]
struct Merkle {
    objects: u64,
    differences: u64,
    /// Records that were told to differ: an object has several.
    records_told: u64,
    compare_ms: u64,
    wire_bytes: u64,
    compare_stored_ms: u64,
    resync_ms: u64,
    resync_whole_ms: u64,
    backup_ms: u64,
    backup_bytes: u64,
    /// Applying one put, the leaves' share included.
    apply_micros: f64,
}

pub(super) fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Internal, format!("the experiment itself broke down: {error}"))
}

/// Stops the cluster, fills every member's files, and starts it again; the seconds that applying took on one of them.
async fn filled_and_started(cx: &Context, cluster: &LocalCluster, entries: u64, wrong: u64) -> Result<f64, Failure> {
    let seconds = filled(cx, cluster, BUCKET, entries, true, wrong).await?;
    cluster.start().await?;
    Ok(seconds)
}

/// Stops the cluster, and fills every member's files; the seconds that applying took on one of them.
pub(super) async fn filled(
    cx: &Context,
    cluster: &LocalCluster,
    bucket: &str,
    entries: u64,
    apply: bool,
    wrong: u64,
) -> Result<f64, Failure> {
    cluster.stop().await?;
    let mut seconds = 0.0;
    let mut firsts = Vec::new();
    let members: Vec<&std::path::Path> = cluster.nodes().iter().map(|node| node.meta.as_path()).collect();
    quantity::level(&cx.host, &members).await.map_err(|error| failed(&error))?;
    for node in cluster.nodes() {
        cx.out.say(format!("writing {entries} entries into {}", node.name));
        let filled =
            quantity::fill(&cx.host, &node.meta, bucket, entries, apply).await.map_err(|error| failed(&error))?;
        seconds = filled.apply_seconds;
        firsts.push(filled.first);
    }
    if firsts.iter().any(|first| Some(first) != firsts.first()) {
        return Err(failed(&format!("the members' logs did not end at one entry: {firsts:?}; run it again")));
    }
    if let Some(last) = cluster.nodes().last().filter(|_| wrong > 0) {
        quantity::misapply(&cx.host, &last.meta, bucket, wrong, entries).await.map_err(|error| failed(&error))?;
    }
    Ok(seconds)
}

pub(super) async fn ready(cx: &Context, target: &Target) -> Result<Client, Failure> {
    let client = Client::new(&cx.host, target).map_err(|error| harness(&error))?;
    client.ensure_bucket(BUCKET, None).await.map_err(|status| failed(&status.message()))?;
    Ok(client)
}

pub(super) async fn channel(cx: &Context, node: &LocalNode) -> Result<Channel, Failure> {
    transport::channel(&cx.host.net, &node.address, transport::Profile::Bulk).map_err(|error| failed(&error))
}

pub(super) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn metadata() -> Option<Scope> {
    Some(Scope { of: Some(Of::Metadata(true)) })
}

/// Compares; how long it took, what travelled, and how many records were told.
async fn compare(channel: &Channel, stored: bool) -> Result<(u64, u64, u64), Failure> {
    let begun = Instant::now();
    let request = CompareChecksumsRequest { scope: metadata(), stored, ..CompareChecksumsRequest::default() };
    let mut client = ReplicaRepairClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut told = 0;
    let refused = |status: tonic::Status| failed(&status.message().to_owned());
    let mut stream = client.compare_checksums(request).await.map_err(refused)?.into_inner();
    while let Some(message) = stream.message().await.map_err(refused)? {
        if message.finished {
            return Ok((millis(begun), message.wire_bytes, told));
        }
        told += u64::from(message.member.is_none());
    }
    Err(failed(&"the comparison stopped in the middle"))
}

/// Makes the member like the others; how long it took.
async fn resync(channel: &Channel, whole: bool) -> Result<u64, Failure> {
    let begun = Instant::now();
    let refused = |status: tonic::Status| failed(&status.message().to_owned());
    let mut stream = match whole {
        true => {
            let mut client = NodeRecoveryClient::new(channel.clone());
            client.restore_snapshot(RestoreSnapshotRequest::default()).await.map_err(refused)?.into_inner()
        }
        false => {
            let request = SyncMissingEntriesRequest { scope: metadata(), fence: None };
            let mut client = ReplicaRepairClient::new(channel.clone());
            client.sync_missing_entries(request).await.map_err(refused)?.into_inner()
        }
    };
    while let Some(message) = stream.message().await.map_err(refused)? {
        if message.finished {
            return Ok(millis(begun));
        }
    }
    Err(failed(&"the mending stopped in the middle"))
}

async fn backup(channel: &Channel) -> Result<(u64, u64), Failure> {
    let begun = Instant::now();
    let refused = |status: tonic::Status| failed(&status.message().to_owned());
    let mut client = MetaRecoveryClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut stream = client.backup(BackupRequest { local: false }).await.map_err(refused)?.into_inner();
    let mut bytes = 0;
    while let Some(chunk) = stream.message().await.map_err(refused)? {
        bytes += chunk.data.len() as u64;
    }
    Ok((millis(begun), bytes))
}

/// `bench merkle`.
pub(super) async fn merkle(cx: &Context, args: &MerkleArgs, keep: bool) -> Result<Code, Failure> {
    let found = in_a_cluster_of(cx, "bench-merkle", (NODES, 1), keep, async |cluster, target| {
        ready(cx, target).await?;
        let applying = filled_and_started(cx, cluster, args.objects, args.differences).await?;
        cluster.wait_healthy(START_TIME + LIMIT).await?;
        let client = Client::new(&cx.host, target).map_err(|error| harness(&error))?;
        // The last member is wrong: it must not lead, or it cannot be mended.
        let Some(wrong) = cluster.nodes().last() else { return Err(failed(&"no nodes")) };
        let leads = client.status().await.is_some_and(|status| status.leader == wrong.name);
        if leads {
            return Err(failed(&"the member that differs leads; run it again"));
        }
        let Some(asked) = cluster.nodes().first() else { return Err(failed(&"no nodes")) };
        let (asked, wrong) = (channel(cx, asked).await?, channel(cx, wrong).await?);
        let (mut kept, mut wire_bytes, mut records_told) = (Vec::new(), 0, 0);
        for _ in 0..args.runs {
            let (took, bytes, told) = compare(&asked, false).await?;
            kept.push(took);
            (wire_bytes, records_told) = (bytes, told);
        }
        let (compare_stored_ms, _, _) = compare(&asked, true).await?;
        let resync_ms = resync(&wrong, false).await?;
        let (backup_ms, backup_bytes) = backup(&asked).await?;
        // Wrong once more, to be mended as a whole.
        cluster.stop().await?;
        let Some(last) = cluster.nodes().last() else { return Err(failed(&"no nodes")) };
        let again = quantity::misapply(&cx.host, &last.meta, BUCKET, args.differences, args.objects + args.differences);
        again.await.map_err(|error| failed(&error))?;
        cluster.start().await?;
        cluster.wait_healthy(START_TIME + LIMIT).await?;
        let resync_whole_ms = resync(&wrong, true).await?;
        Ok(Merkle {
            objects: args.objects,
            differences: args.differences,
            records_told,
            compare_ms: median(kept),
            wire_bytes,
            compare_stored_ms,
            resync_ms,
            resync_whole_ms,
            backup_ms,
            backup_bytes,
            apply_micros: applying * 1e6 / args.objects.max(1) as f64,
        })
    })
    .await?;
    cx.out.show(&found, |found| {
        format!(
            "{} objects, {} of them different on one of three members ({} records)\n\
             compared by what is kept:    {} ms, {} bytes on the wire\n\
             compared by what is stored:  {} ms\n\
             mended record by record:     {} ms, the two comparisons of everything stored included\n\
             mended as a whole:           {} ms, the same included\n\
             backup:                      {} ms, {}\n\
             applying a put:              {:.1} µs\n",
            found.objects,
            found.differences,
            found.records_told,
            found.compare_ms,
            found.wire_bytes,
            found.compare_stored_ms,
            found.resync_ms,
            found.resync_whole_ms,
            found.backup_ms,
            crate::output::bytes(found.backup_bytes),
            found.apply_micros,
        )
    })?;
    Ok(Code::Ok)
}
