//! The liveness phase's question: is everything well again? Asked by a process of its own, through the doors that
//! operators have (gRPC of the nodes, HTTP of the agents), so that "healed" is what a person could see.
//!
//! Owns: what "well" means. Must never: help. It verifies objects, which reports bad shards to their homes as any
//! operator's `verify` does, and changes nothing else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_host::Host;
use resilver_proto::contract::meta_recovery_client::MetaRecoveryClient;
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::{ObserveRequest, ObserveResponse, ValidateClusterStateRequest};
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::store::{ListRequest, StatusRequest, VerifyRequest, VerifyResponse};
use resilver_proto::transport::{self, MAX_MESSAGE_BYTES};
use resilver_proto::web;
use resilver_sim_kernel::Program;
use serde_json::Value;
use tonic::transport::Channel;

use super::errands::{Errands, RIGHT, compare};
use crate::cluster::{BUCKET, agent_http, node_address};
use crate::plan::MACHINES;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long one question may take. Verifying an object reads all its shards.
const ASK_DEADLINE: Duration = Duration::from_secs(5);
/// Objects of one page: more than a run writes.
const PAGE: u32 = 1_000;
/// A good shard, in the answer to a verify.
const OK: &str = "ok";

/// What may stay broken: see the scenario's accounts.
#[derive(Clone, Default)]
pub(crate) struct Spared {
    /// Numbers of nodes of which a disk was struck: an incident about it may need a person.
    pub(crate) struck: Vec<usize>,
    /// What people asked for has to be done, or refused.
    pub(crate) errands: Errands,
}

/// What the last look found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Everything is well.
    pub(crate) well: bool,
    /// What is not, if anything.
    pub(crate) waits_for: String,
    /// Looks so far.
    pub(crate) looks: u64,
    /// Objects that were verified shard by shard in the last look.
    pub(crate) verified: u64,
}

/// Where the survey leaves what it found.
#[derive(Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Report>>);

impl Board {
    /// The last look.
    pub(crate) fn report(&self) -> Report {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The program: looks until all is well, then ends with 0.
pub(crate) fn survey(spared: Spared, board: Board) -> Program {
    Arc::new(move |host, _| {
        let (spared, board) = (spared.clone(), board.clone());
        Box::pin(async move {
            let Ok(surveyor) = Surveyor::new(&host, spared, board.clone()) else { return 1 };
            loop {
                let found = surveyor.look().await;
                board.write(|report| {
                    report.looks += 1;
                    report.well = found.is_ok();
                    report.waits_for = found.as_ref().err().cloned().unwrap_or_default();
                });
                if found.is_ok() {
                    return 0;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    })
}

struct Surveyor {
    host: Host,
    channels: Vec<Channel>,
    spared: Spared,
    board: Board,
}

impl Surveyor {
    fn new(host: &Host, spared: Spared, board: Board) -> Result<Surveyor, tonic::transport::Error> {
        let channels = (1..=MACHINES)
            .map(|node| transport::channel(&host.net, &node_address(&format!("n{node}")), transport::Profile::Bulk));
        let channels = channels.collect::<Result<Vec<_>, _>>()?;
        Ok(Surveyor { host: host.clone(), channels, spared, board })
    }

    /// One look. `Err`: what is not well.
    async fn look(&self) -> Result<(), String> {
        if let Some(open) = self.spared.errands.open() {
            return Err(format!("a person waits: {open}"));
        }
        self.nodes().await?;
        self.disks().await?;
        self.metadata().await?;
        self.objects().await?;
        self.agents().await
    }

    /// All nodes healthy, one leader, nothing left to repair.
    async fn nodes(&self) -> Result<(), String> {
        let mut leaders: Vec<(u64, String)> = Vec::new();
        for (number, channel) in (1..).zip(&self.channels) {
            let seen = observe(channel).await.map_err(|why| format!("n{number}: {why}"))?;
            if seen.phase != "healthy" {
                return Err(format!("n{number} is {}: {}", seen.phase, seen.phase_detail));
            }
            let raft = seen.raft.ok_or_else(|| format!("n{number} has no Raft"))?;
            leaders.push((raft.term, raft.leader));
            let repair = seen.repair.unwrap_or_default();
            if repair.queue + repair.in_flight + repair.missing_shards > 0 {
                return Err(format!(
                    "n{number}: {} in the repair queue, {} in flight, {} shards missing",
                    repair.queue, repair.in_flight, repair.missing_shards
                ));
            }
        }
        leaders.dedup();
        match leaders.as_slice() {
            [(_, leader)] if !leader.is_empty() => Ok(()),
            _ => Err(format!("no one leader: {leaders:?}")),
        }
    }

    /// No disk is half-way: none is still being emptied. (That nothing is left on one that is out, the objects' homes say.)
    async fn disks(&self) -> Result<(), String> {
        let mut cluster = ClusterClient::new(self.channels[0].clone());
        let status =
            ask(cluster.status(StatusRequest { local: false })).await.map_err(|why| format!("a status: {why}"))?;
        match status.disks.iter().find(|disk| disk.state == "draining") {
            Some(disk) => Err(format!("disk {} of {} is draining, and nobody empties it", disk.path, disk.node)),
            None => Ok(()),
        }
    }

    /// The metadata does not contradict itself, and every member has the same, every record read anew.
    async fn metadata(&self) -> Result<(), String> {
        let mut meta = MetaRecoveryClient::new(self.channels[0].clone());
        let answer = ask(meta.validate_cluster_state(ValidateClusterStateRequest {})).await;
        let answer = answer.map_err(|why| format!("validating the metadata: {why}"))?;
        if !answer.consistent {
            return Err(format!("the metadata contradicts itself: {}", answer.findings.join("; ")));
        }
        let verdicts = compare(&self.channels[0], ASK_DEADLINE).await.map_err(|why| format!("comparing: {why}"))?;
        match verdicts.iter().find(|(_, verdict)| *verdict != RIGHT) {
            Some((node, verdict)) => Err(format!("the metadata of {node} is {verdict}: {verdicts:?}")),
            None => Ok(()),
        }
    }

    /// Every object has every shard, read back from its disk.
    async fn objects(&self) -> Result<(), String> {
        let mut store = StoreClient::new(self.channels[0].clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let request =
            ListRequest { bucket: BUCKET.to_owned(), prefix: String::new(), after: String::new(), limit: PAGE };
        let page = ask(store.list(request)).await.map_err(|why| format!("a list: {why}"))?;
        for object in &page.objects {
            let request = VerifyRequest { bucket: BUCKET.to_owned(), key: object.key.clone(), full: true };
            let answer = ask(store.verify(request)).await.map_err(|why| format!("verifying {}: {why}", object.key))?;
            whole(&object.key, &answer)?;
        }
        self.board.write(|report| report.verified = page.objects.len() as u64);
        Ok(())
    }

    /// No open incident but those that a person has to see to.
    async fn agents(&self) -> Result<(), String> {
        for number in 1..=MACHINES {
            let name = format!("n{number}");
            let called = web::call(&self.host.net, &agent_http(&name), "/api/v1/incidents", None, ASK_DEADLINE).await;
            let (status, body) = called.map_err(|error| format!("agent {name}: {error}"))?;
            let answer: Value =
                serde_json::from_slice(&body).map_err(|error| format!("agent {name} answers {status}: {error}"))?;
            let incidents = answer.get("incidents").and_then(Value::as_array).cloned().unwrap_or_default();
            for incident in incidents {
                let text = |key: &str| incident.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let state = text("state");
                let excused = state == "escalated" && self.spared.struck.contains(&number);
                if state != "resolved" && !excused {
                    return Err(format!(
                        "agent {name}: {} {} is {state}: {}",
                        text("mode"),
                        text("id"),
                        text("evidence")
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether an object has all its shards.
fn whole(key: &str, answer: &VerifyResponse) -> Result<(), String> {
    let bad = answer.shards.iter().find(|shard| shard.state != OK);
    match bad {
        Some(shard) => Err(format!(
            "{key}: shard {}.{} on {} is {}: {}",
            shard.extent, shard.shard, shard.node, shard.state, shard.detail
        )),
        None if !answer.recoverable => Err(format!("{key} is not recoverable")),
        None => Ok(()),
    }
}

async fn observe(channel: &Channel) -> Result<ObserveResponse, String> {
    let mut client = NodeControlClient::new(channel.clone());
    ask(client.observe(ObserveRequest {})).await
}

async fn ask<T>(work: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, String> {
    match tokio::time::timeout(ASK_DEADLINE, work).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err(format!("no answer within {} s", ASK_DEADLINE.as_secs())),
    }
}
