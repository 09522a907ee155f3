//! `repair status`: what waits, what runs, what is done, how fast, until when.

use std::time::Duration;

use clap::Subcommand;
use futures_util::future::join_all;
use resilver_proto::contract::ObserveRequest;
use serde::Serialize;

use super::context::Context;
use crate::client::{CALL_DEADLINE, Nodes, within};
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN, bytes};

/// Verbs of repair.
#[derive(Debug, Subcommand)]
pub(crate) enum RepairVerb {
    /// The repair queue of the whole cluster
    Status,
}

#[derive(Serialize)]
struct RepairView {
    queue: u64,
    in_flight: u64,
    completed: u64,
    failed: u64,
    rate_bytes_per_second: u64,
    eta_seconds: Option<u64>,
    missing_shards: u64,
    unanswered: Vec<String>,
}

impl RepairVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        let RepairVerb::Status = self;
        let nodes = cx.nodes().await?;
        let status = nodes.status().await?;
        let idle = status.repair_queue == 0 && status.repair_in_flight == 0;
        let view = RepairView {
            queue: status.repair_queue,
            in_flight: status.repair_in_flight,
            completed: status.repair_completed,
            failed: status.repair_failed,
            rate_bytes_per_second: status.repair_rate_bytes_per_second,
            eta_seconds: if idle { Some(0) } else { eta(&nodes).await.map(|eta| eta.as_secs()) },
            missing_shards: status.missing_shards,
            unanswered: status.unanswered,
        };
        cx.out.show(&view, RepairView::text)?;
        for name in &view.unanswered {
            cx.out.say(format!("{name} did not answer: its queue is not counted"));
        }
        Ok(Code::Ok)
    }
}

/// When the slowest node will be done; unknown when any that repairs does not know.
async fn eta(nodes: &Nodes) -> Option<Duration> {
    let observe = nodes
        .all()
        .iter()
        .map(async |node| within(CALL_DEADLINE, async { node.control().observe(ObserveRequest {}).await }).await);
    let repairs: Vec<_> = join_all(observe).await.into_iter().filter_map(|seen| seen.ok()?.repair).collect();
    let busy = || repairs.iter().filter(|repair| repair.queue + repair.in_flight > 0);
    if busy().any(|repair| !repair.eta_known) {
        return None;
    }
    busy().map(|repair| Duration::from_millis(repair.eta_ms)).max()
}

impl RepairView {
    fn text(&self) -> String {
        let mut table = Table::new(["QUEUE", "IN_FLIGHT", "COMPLETED", "FAILED", "RATE", "ETA"]);
        let eta = self.eta_seconds.map(|eta| humantime::format_duration(Duration::from_secs(eta)).to_string());
        table.row([
            self.queue.to_string(),
            self.in_flight.to_string(),
            self.completed.to_string(),
            self.failed.to_string(),
            format!("{}/s", bytes(self.rate_bytes_per_second)),
            eta.unwrap_or_else(|| UNKNOWN.to_owned()),
        ]);
        table.render()
    }
}
