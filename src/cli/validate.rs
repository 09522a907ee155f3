//! `meta validate`: whether the metadata contradicts itself, and what it says is missing.

use std::time::Duration;

use resilver_proto::contract::{ValidateClusterStateRequest, ValidateClusterStateResponse};
use serde::Serialize;

use super::context::Context;
use crate::client::Node;
use crate::exit::{Code, Failure};

/// How long it may take: every record is read once.
const DEADLINE: Duration = Duration::from_secs(600);

#[derive(Serialize)]
struct View {
    valid: bool,
    consistent: bool,
    applied: u64,
    objects: u64,
    shards: u64,
    findings: Vec<Row>,
    more: u64,
}

#[derive(Serialize)]
struct Row {
    kind: String,
    subject: String,
    detail: String,
    next: String,
    contradiction: bool,
}

pub(crate) async fn run(cx: &Context) -> Result<Code, Failure> {
    let nodes = cx.nodes().await?;
    let answer = nodes
        .ask_within(DEADLINE, "validate the metadata", async |node: Node| {
            node.meta_recovery().validate_cluster_state(ValidateClusterStateRequest {}).await
        })
        .await?;
    let view = View::of(answer);
    cx.out.show(&view, View::text)?;
    Ok(match (view.valid, view.consistent) {
        (true, _) => Code::Ok,
        (false, true) => Code::Degraded,
        (false, false) => Code::Failed,
    })
}

impl View {
    fn of(answer: ValidateClusterStateResponse) -> Self {
        let row = |finding: resilver_proto::contract::StateFinding| Row {
            kind: finding.kind,
            subject: finding.subject,
            detail: finding.detail,
            next: finding.next,
            contradiction: finding.contradiction,
        };
        Self {
            valid: answer.valid,
            consistent: answer.consistent,
            applied: answer.applied,
            objects: answer.objects,
            shards: answer.shards,
            findings: answer.report.into_iter().map(row).collect(),
            more: answer.more,
        }
    }

    fn text(&self) -> String {
        let mut out: String = self
            .findings
            .iter()
            .map(|row| format!("{}: {}: {}\n next: {}\n", row.kind, row.subject, row.detail, row.next))
            .collect();
        if self.more > 0 {
            out.push_str(&format!("and {} more\n", self.more));
        }
        let verdict = match (self.valid, self.consistent) {
            (true, _) => "nothing is wrong",
            (false, true) => "nothing contradicts itself, and something is missing",
            (false, false) => "it contradicts itself",
        };
        out.push_str(&format!(
            "{} objects with {} shards, as of entry {}: {verdict}\n",
            self.objects, self.shards, self.applied
        ));
        out
    }
}
