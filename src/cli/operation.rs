//! `operation list|cancel`: what clients have under way on the nodes, and ending it.
//!
//! Must never: end an operation that was not named.

use std::time::Duration;

use clap::Subcommand;
use resilver_proto::contract::{CancelOperationRequest, ListOperationsRequest, OperationState};
use serde::Serialize;

use super::context::Context;
use crate::client::{CALL_DEADLINE, Node, within};
use crate::exit::{Code, Failure};
use crate::output::Table;

/// Verbs of operations.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationVerb {
    /// Every operation of a client that is under way, the oldest of each node first
    List {
        /// Only of this node
        #[arg(long)]
        node: Option<String>,
    },
    /// End one: its client is told. What was being committed may have happened all the same
    Cancel {
        /// The node it is under way on
        #[arg(long)]
        node: String,
        /// Its id, as `operation list` has it
        id: String,
        /// Why: its client is told
        #[arg(long, default_value = "an operator cancelled it")]
        reason: String,
    },
}

/// A line of `operation list`.
#[derive(Debug, Serialize)]
struct OperationRow {
    node: String,
    id: String,
    what: String,
    subject: String,
    age_ms: u64,
}

impl OperationRow {
    fn of(node: &str, operation: OperationState) -> Self {
        let OperationState { id, what, subject, age_ms } = operation;
        Self { node: node.to_owned(), id, what, subject, age_ms }
    }
}

fn table(rows: &[OperationRow]) -> String {
    let mut table = Table::new(["NODE", "ID", "WHAT", "SUBJECT", "AGE"]);
    for row in rows {
        let age = humantime::format_duration(Duration::from_millis(row.age_ms)).to_string();
        table.row([row.node.clone(), row.id.clone(), row.what.clone(), row.subject.clone(), age]);
    }
    table.render()
}

impl OperationVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            OperationVerb::List { node } => list(cx, node.as_deref()).await,
            OperationVerb::Cancel { node, id, reason } => cancel(cx, &node, id, reason).await,
        }
    }
}

async fn list(cx: &Context, only: Option<&str>) -> Result<Code, Failure> {
    if let Some(name) = only {
        cx.found().await?.member(name)?;
    }
    let nodes = cx.nodes().await?;
    let asked: Vec<&Node> = nodes.all().iter().filter(|node| only.is_none_or(|name| node.name == name)).collect();
    let answers = asked.iter().map(async |node| {
        within(CALL_DEADLINE, async { node.control().list_operations(ListOperationsRequest {}).await }).await
    });
    let answers = futures_util::future::join_all(answers).await;
    let (mut rows, mut silent, mut more) = (Vec::new(), Vec::new(), 0);
    for (node, answer) in asked.iter().zip(answers) {
        match answer {
            Ok(answer) => {
                more += answer.more;
                rows.extend(answer.operations.into_iter().map(|operation| OperationRow::of(&node.name, operation)));
            }
            Err(status) => silent.push((node.name.clone(), status)),
        }
    }
    if let (Some((name, status)), true) = (silent.first(), silent.len() == asked.len()) {
        return Err(Failure::from_status("list the operations", name, status));
    }
    cx.out.show(&rows, |rows| table(rows))?;
    for (name, status) in &silent {
        cx.out.say(format!("{name} did not say: {}", status.message()));
    }
    if more > 0 {
        cx.out.say(format!("{more} more are not named: these are the oldest"));
    }
    Ok(if silent.is_empty() { Code::Ok } else { Code::Degraded })
}

async fn cancel(cx: &Context, name: &str, id: String, reason: String) -> Result<Code, Failure> {
    cx.found().await?.member(name)?;
    let nodes = cx.nodes().await?;
    let Some(node) = nodes.named(name) else { return Err(Failure::usage(format!("no node `{name}`"))) };
    let request = CancelOperationRequest { operation: id, reason };
    let ended = within(CALL_DEADLINE, async { node.control().cancel_operation(request).await })
        .await
        .map_err(|status| Failure::from_status("cancel the operation", name, &status))?;
    let row = OperationRow::of(name, ended.operation.unwrap_or_default());
    cx.out.show(&row, |row| format!("{} of {} on {} was cancelled\n", row.what, row.subject, row.node))?;
    Ok(Code::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_listed_with_their_ids() {
        let state = OperationState {
            id: "77.3".to_owned(),
            what: "upload".to_owned(),
            subject: "photos".to_owned(),
            age_ms: 61_000,
        };
        assert_eq!(
            table(&[OperationRow::of("n1", state)]),
            "NODE  ID    WHAT    SUBJECT  AGE\n\
             n1    77.3  upload  photos   1m 1s\n"
        );
    }
}
