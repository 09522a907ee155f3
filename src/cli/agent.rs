//! `agent run|status`.

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN};

/// Verbs of agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentVerb {
    /// Run this host's recovery agent
    Run {
        /// Look once, print the plan and exit: 0 nothing to do, 3 something found
        #[arg(long)]
        once: bool,
    },
    /// All agents; exits 3 when one does not answer or has an open incident
    Status,
}

#[derive(Serialize)]
struct Row {
    agent: String,
    answers: bool,
    status: Option<Value>,
    error: Option<String>,
}

impl AgentVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            AgentVerb::Run { once } => crate::daemon::agent(cx, once).await,
            AgentVerb::Status => status(cx).await,
        }
    }
}

async fn status(cx: &Context) -> Result<Code, Failure> {
    let answers = cx.agents().await?.get_all("/api/v1/status").await?;
    let rows: Vec<Row> = answers
        .into_iter()
        .map(|(agent, answer)| match answer {
            Ok(status) => Row { agent, answers: true, status: Some(status), error: None },
            Err(error) => Row { agent, answers: false, status: None, error: Some(error) },
        })
        .collect();
    cx.out.show(&rows, |rows| {
        let mut table = Table::new(["AGENT", "STATE", "NODE_STATE", "LEASE", "INCIDENTS", "PAUSED"]);
        for row in rows {
            table.row(row.cells());
        }
        table.render()
    })?;
    for row in rows.iter().filter(|row| !row.answers) {
        cx.out.say(format!("{}: {}", row.agent, row.error.as_deref().unwrap_or_default()));
    }
    let calm = rows.iter().all(|row| row.answers && row.incidents() == Some(0));
    Ok(if calm { Code::Ok } else { Code::Degraded })
}

impl Row {
    /// The first of several places in the answer that has a value.
    fn at(&self, pointers: &[&str]) -> Option<&Value> {
        let status = self.status.as_ref()?;
        pointers.iter().find_map(|pointer| status.pointer(pointer)).filter(|value| !value.is_null())
    }

    fn incidents(&self) -> Option<u64> {
        match self.at(&["/open_incidents"])? {
            Value::Array(list) => Some(list.len() as u64),
            other => other.as_u64(),
        }
    }

    fn cells(&self) -> [String; 6] {
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => UNKNOWN.to_owned(),
        };
        let paused = match self.at(&["/paused"]) {
            Some(Value::Bool(paused)) => if *paused { "yes" } else { "no" }.to_owned(),
            Some(_) => "yes".to_owned(),
            None if self.answers => "no".to_owned(),
            None => UNKNOWN.to_owned(),
        };
        [
            self.agent.clone(),
            if self.answers { "running" } else { "unreachable" }.to_owned(),
            text(self.at(&["/node/phase", "/node_phase", "/phase"])),
            text(self.at(&["/lease/holder", "/lease_holder", "/lease/role"])),
            self.incidents().map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string()),
            paused,
        ]
    }
}
