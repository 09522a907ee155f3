//! Showing that an incident is over, by another probe than the one that found it.
//!
//! Invariants: what cannot be asked is not proven. A verdict of the node ("this is damaged") ends a proof at once; a
//! node that does not answer yet is asked again until the deadline.

use std::time::Duration;

use resilver_proto::contract::{CanaryRequest, ObserveRequest, Scope, VerifyIntegrityRequest};
use resilver_strategies::api::{Proof, StepResult};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

use super::node::{disk, follow, object, said};
use super::{Tools, history, probes};
use crate::links::{node_control, node_recovery};
use crate::sensors::observe;

/// The pause between two looks at a node that is not there yet. Small beside the second in which it must serve again.
const LOOK: Duration = Duration::from_millis(50);

/// How long one canary may take: it is a write and a read of a few bytes through the whole cluster.
pub(crate) const CANARY_DEADLINE: Duration = Duration::from_secs(5);

/// How long a verification may take to begin.
const BEGIN_DEADLINE: Duration = Duration::from_secs(10);

/// Tries until it holds, is refuted, or `deadline` is over.
pub(super) async fn prove(tools: &Tools, proof: &Proof, deadline: Duration) -> StepResult {
    let until = Instant::now() + deadline;
    let mut why = "it was not tried once".to_owned();
    loop {
        match tokio::time::timeout_at(until, attempt(tools, proof)).await {
            Ok(Ok(detail)) => return StepResult::done(detail),
            Ok(Err(status)) if refuted(&status) => return StepResult::Failed { error: said(&status) },
            Ok(Err(status)) => why = said(&status),
            Err(_) => {}
        }
        if Instant::now() + LOOK >= until {
            let error = format!("not shown within {} s: {why}", deadline.as_secs_f64());
            return StepResult::Failed { error };
        }
        sleep(LOOK).await;
    }
}

/// The node's own negative verdict, in contrast to no verdict.
fn refuted(status: &Status) -> bool {
    matches!(status.code(), Code::Aborted | Code::Unimplemented | Code::InvalidArgument | Code::DataLoss)
}

async fn attempt(tools: &Tools, proof: &Proof) -> Result<String, Status> {
    match proof {
        Proof::Serves => serves(tools).await,
        Proof::DiskRebuilt { disk: id } => verify(tools, disk(id)).await,
        Proof::ObjectIntact { bucket, key } => verify(tools, object(bucket, key)).await,
        Proof::HostsSettled { hosts, canary_ms } => settled(tools, hosts, *canary_ms).await,
        Proof::ReplicaEqual => probes::replica_equal(tools).await,
        Proof::ReadsEqual => history::reads_equal(tools).await,
        Proof::LogReplays => history::log_replays(tools).await,
        Proof::OneLeader { hosts } => probes::one_leader(tools, hosts).await,
        Proof::OneHistory { hosts } => history::one_history(tools, hosts).await,
        Proof::ClockAgrees { within_ms } => probes::clock_agrees(tools, *within_ms).await,
    }
}

async fn serves(tools: &Tools) -> Result<String, Status> {
    let answer = observe(&tools.links, tools.deadline).await?;
    if answer.phase != "healthy" {
        return Err(Status::unavailable(format!("the node is {}: {}", answer.phase, answer.phase_detail)));
    }
    let raft = answer.raft.ok_or_else(|| Status::unavailable("Raft is not running"))?;
    if raft.applied < raft.committed {
        return Err(Status::unavailable(format!("applied {} of {} entries", raft.applied, raft.committed)));
    }
    let millis = canary(tools).await?;
    Ok(format!("canary written and read in {millis} ms; applied {} of {}", raft.applied, raft.committed))
}

/// How long a write and a read through the node took, milliseconds.
async fn canary(tools: &Tools) -> Result<u64, Status> {
    let canary = |channel| async { node_control(channel).canary(CanaryRequest {}).await };
    match tools.links.node.call(CANARY_DEADLINE, canary).await {
        Ok(answer) => Ok(answer.into_inner().millis),
        // A canary that loses a race or meets an election is tried again: only silence until the deadline refutes.
        Err(status) => Err(Status::unavailable(format!("the canary failed: {}", said(&status)))),
    }
}

/// One look: the engine asks again, at a pace that fits rebuilding a host.
async fn settled(tools: &Tools, hosts: &[String], canary_ms: Option<u64>) -> Result<String, Status> {
    let seen = observe(&tools.links, tools.deadline).await.map_err(|status| Status::aborted(said(&status)))?;
    let mut told = Vec::new();
    for host in hosts {
        let state = seen.nodes.iter().find(|node| node.node == *host).map(|node| node.state.as_str());
        match state {
            None => told.push(format!("{host} is no member any more")),
            Some("out") => told.push(format!("{host} is out")),
            Some("down") => return Err(Status::aborted(format!("{host} is marked down"))),
            Some(_) => told.push(serves_there(tools, host).await?),
        }
    }
    let missing = seen.repair.map_or(0, |repair| repair.missing_shards);
    if missing > 0 {
        return Err(Status::aborted(format!("{missing} shards are without a home yet")));
    }
    let millis = canary(tools).await.map_err(|status| Status::aborted(status.message()))?;
    match canary_ms.filter(|limit| millis > *limit) {
        Some(limit) => Err(Status::aborted(format!("a canary took {millis} ms, and may take {limit}"))),
        None => Ok(format!("{}; no shard is without a home; a canary took {millis} ms", told.join(", "))),
    }
}

async fn serves_there(tools: &Tools, host: &str) -> Result<String, Status> {
    let not_yet = |why: String| Status::aborted(format!("{host}: {why}"));
    let Some(link) = tools.links.peers.get(host) else {
        return Err(not_yet("not in this agent's configuration, so that its node cannot be asked".to_owned()));
    };
    let look = |channel| async { node_control(channel).observe(ObserveRequest {}).await };
    let answer = link.node.call(tools.deadline, look).await.map_err(|status| not_yet(said(&status)))?.into_inner();
    if answer.phase == "healthy" {
        return Ok(format!("{host} is up and serves"));
    }
    Err(not_yet(format!("its node is {}: {}", answer.phase, answer.phase_detail)))
}

/// Everything of a scope is read back by the node.
pub(super) async fn verify(tools: &Tools, scope: Scope) -> Result<String, Status> {
    let request = VerifyIntegrityRequest { scope: Some(scope) };
    let call = |channel| async { node_recovery(channel).verify_integrity(request).await };
    let stream = tools.links.node.call(BEGIN_DEADLINE, call).await?.into_inner();
    follow(stream).await
}
