//! The health of the own node and of the cluster, and what is expected: numbers and records, nothing else.
//!
//! Owns: what the sensors leave for it ([`HealthDesk`]), and the task that makes scores and predictions of it. What they
//! are made by is in `strategies/src/health` and `strategies/src/predict`.
//!
//! Must never: bring about a step. What comes out is shown, counted and recorded (grade 0).
//!
//! Invariants: a sample of the slow figures is kept once in `trends.sample_every`, a minute; the scores are made every
//! [`REVIEW_EVERY`] from what the other sensors see anyway; a low score of the cluster is recorded by one agent.

mod desk;
mod input;
mod peers;
mod smart;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use resilver_host::{Host, ProcId};
use resilver_proto::store::ListBucketsRequest;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use resilver_strategies::api::ProcessFact;
use resilver_strategies::health::Usage;
use resilver_strategies::record::Draft;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

pub(crate) use self::desk::{HealthDesk, HealthView};
use self::desk::{Process, Reviewed};
pub(crate) use self::peers::Pinged;
pub(crate) use self::smart::SmartView;
use crate::lease::LeaseHandle;
use crate::links::Links;
use crate::main_loop::Request;
use crate::sensors::stopped;
use crate::state::View;
use crate::telemetry::{Telemetry, Told};

/// How often scores are made: a person who looks sees one that is no older, and nothing is done because of it.
const REVIEW_EVERY: Duration = Duration::from_secs(5);

/// Makes scores and predictions.
pub(crate) struct HealthTask {
    pub(crate) own: String,
    pub(crate) host: Host,
    pub(crate) desk: Arc<HealthDesk>,
    /// The way to the own node.
    pub(crate) links: Arc<Links>,
    /// How long a question to it may take.
    pub(crate) deadline: Duration,
    /// How often slow figures are sampled.
    pub(crate) sample_every: Duration,
    pub(crate) lease: LeaseHandle,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) requests: mpsc::Sender<Request>,
}

impl HealthTask {
    /// Works until it is told to stop.
    pub(crate) async fn run(self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            () = stopped(&mut shutdown) => {}
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        let mut review = interval(REVIEW_EVERY);
        let mut sample = interval(self.sample_every);
        for turn in [&mut review, &mut sample] {
            // After a time in which this process stood still one look is enough.
            turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                _ = review.tick() => self.review().await,
                _ = sample.tick() => self.sample().await,
            }
        }
    }

    async fn review(&self) {
        let Reviewed { node, cluster, records, of_cluster } = self.desk.review(self.process());
        self.telemetry.health("node", node);
        self.telemetry.health("cluster", cluster);
        // One agent's record is enough: the holder's. Without a holder everybody's, rather than nobody's.
        let speaks = self.lease.holder().is_none_or(|holder| holder == self.own);
        let records = records.into_iter().chain(of_cluster.filter(|_| speaks));
        for draft in records {
            self.record(draft).await;
        }
    }

    async fn sample(&self) {
        let memory = self.memory();
        let parity = self.parity().await;
        self.desk.sample(memory, parity);
        for draft in self.desk.foresee() {
            self.record(draft).await;
        }
    }

    async fn record(&self, draft: Draft) {
        // Only a stopping agent has dropped the receiver.
        let _ = self.requests.send(Request::Tell { told: Told::Foreseen(Box::new(draft)), durable: None }).await;
    }

    fn process(&self) -> Process {
        match self.view.borrow().node.process {
            None => Process::Unknown,
            Some(ProcessFact::Running { .. }) => Process::Runs,
            Some(ProcessFact::Exited { .. } | ProcessFact::Absent) => Process::Dead,
        }
    }

    fn memory(&self) -> Option<(ProcId, Usage)> {
        let Some(ProcessFact::Running { pid, start_ticks }) = self.view.borrow().node.process else { return None };
        let id = ProcId { pid, start_ticks };
        match self.host.proc.memory(id) {
            Ok(memory) => memory.map(|memory| (id, Usage { used: memory.resident_bytes, limit: memory.limit_bytes })),
            Err(error) => {
                tracing::warn!(%error, pid, "the node's memory cannot be read");
                None
            }
        }
    }

    /// The fewest parity shards of a bucket that holds objects, by the buckets' present codings. `None` when the node does
    /// not say, or no bucket holds any.
    async fn parity(&self) -> Option<u32> {
        let ask = |channel| async {
            StoreClient::new(channel)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .list_buckets(ListBucketsRequest {})
                .await
        };
        let answer = self.links.node.call(self.deadline, ask).await.ok()?.into_inner();
        let held = answer.buckets.iter().filter(|bucket| bucket.objects > 0);
        held.filter_map(|bucket| bucket.coding.as_ref().map(|coding| coding.m)).min()
    }
}
