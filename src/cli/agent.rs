//! `agent run|status`.

use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};

use super::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN, with_rfc3339};

/// Verbs of agents.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentVerb {
    /// Run this host's recovery agent
    Run {
        /// Look once, print the plan and exit: 0 nothing to do, 3 something found
        #[arg(long)]
        once: bool,
        /// Over the configuration's `interval`: how often slow sensors look (SMART, the comparison of members)
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        interval: Option<Duration>,
    },
    /// All agents and who holds their lease; exits 3 when one does not answer
    Status {
        /// Only the agent of this node, as it sees itself
        #[arg(long)]
        node: Option<String>,
    },
}

#[derive(Serialize)]
struct View {
    lease: Lease,
    agents: Vec<Row>,
}

#[derive(Serialize)]
struct Lease {
    holder: Option<String>,
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
            AgentVerb::Run { once, interval } => crate::daemon::agent(cx, once, interval).await,
            AgentVerb::Status { node: None } => status(cx).await,
            AgentVerb::Status { node: Some(node) } => one(cx, &node).await,
        }
    }
}

async fn status(cx: &Context) -> Result<Code, Failure> {
    let answers = cx.agents().await?.get_all("/api/v1/status").await?;
    let rows: Vec<Row> = answers
        .into_iter()
        .map(|(agent, answer)| match answer {
            Ok(status) => Row { agent, answers: true, status: Some(with_rfc3339(status)), error: None },
            Err(error) => Row { agent, answers: false, status: None, error: Some(error) },
        })
        .collect();
    // Each agent knows the holder as far as it has heard; the holder itself knows best, then whoever has heard anything.
    let holder = rows
        .iter()
        .find(|row| row.holder() == Some(row.agent.as_str()))
        .or(rows.iter().find(|row| row.holder().is_some()));
    let view = View { lease: Lease { holder: holder.and_then(Row::holder).map(str::to_owned) }, agents: rows };
    cx.out.show(&view, |view| {
        let mut table = Table::new(["AGENT", "STATE", "NODE_STATE", "LEASE", "INCIDENTS", "PAUSED"]);
        view.agents.iter().for_each(|row| table.row(row.cells()));
        let all = |row: &Row| row.held_back() + &row.unread_logs() + &row.partial();
        view.agents.iter().fold(table.render(), |text, row| text + &all(row))
    })?;
    for row in view.agents.iter().filter(|row| !row.answers) {
        cx.out.say(format!("{}: {}", row.agent, row.error.as_deref().unwrap_or_default()));
    }
    Ok(if view.agents.iter().all(|row| row.answers) { Code::Ok } else { Code::Degraded })
}

/// One agent's own words.
async fn one(cx: &Context, node: &str) -> Result<Code, Failure> {
    let agents = cx.agents().await?;
    let agent = agents.beside(node)?;
    let silent = |error: String| Failure::new(Code::Unreachable, format!("the agent of {node}: {error}"));
    let answer = agent.get("/api/v1/status").await.map_err(silent)?;
    if !answer.is_success() {
        return Err(Failure::failed(format!("the agent of {node} says: {}", answer.reason())));
    }
    let mut body = with_rfc3339(answer.body);
    let fence = body.pointer("/lease/highest_fence").and_then(Value::as_str).and_then(fence_of);
    if let (Some(fields), Some(fence)) = (body.as_object_mut(), fence) {
        fields.insert("fence".to_owned(), fence);
    }
    cx.out.show(&body, |body| super::incident::lines(body, 0))?;
    Ok(Code::Ok)
}

/// `EPOCH.ROUND.HOLDER`, taken apart for programs.
fn fence_of(text: &str) -> Option<Value> {
    let mut parts = text.splitn(3, '.');
    let (epoch, round, holder) = (parts.next()?, parts.next()?, parts.next()?);
    Some(json!({ "epoch": epoch.parse::<u64>().ok()?, "round": round.parse::<u64>().ok()?, "holder": holder }))
}

impl Row {
    /// What the answer has at this place, if anything.
    fn at(&self, pointer: &str) -> Option<&Value> {
        self.status.as_ref()?.pointer(pointer).filter(|value| !value.is_null())
    }

    /// Why it would not act, a line each.
    fn held_back(&self) -> String {
        let reasons = self.at("/held_back").and_then(Value::as_array).into_iter().flatten();
        reasons.filter_map(Value::as_str).map(|why| format!("{} is held back: {why}\n", self.agent)).collect()
    }

    /// Which logs it does not read, a line each. One that is not there yet is told by its own status alone.
    fn unread_logs(&self) -> String {
        let unread = self.at("/unread_logs").and_then(Value::as_array).into_iter().flatten();
        let unreadable = unread.filter(|log| log["state"] == "unreadable");
        let word = |log: &Value, key: &str| log[key].as_str().unwrap_or(UNKNOWN).to_owned();
        unreadable
            .map(|log| format!("{} cannot read the log {}: {}\n", self.agent, word(log, "log"), word(log, "reason")))
            .collect()
    }

    /// Whether it knows but some of the others, a line.
    fn partial(&self) -> String {
        self.status.as_ref().map(|status| super::health::partial_text(&self.agent, status)).unwrap_or_default()
    }

    fn holder(&self) -> Option<&str> {
        self.at("/lease/holder").and_then(Value::as_str).filter(|holder| !holder.is_empty())
    }

    fn incidents(&self) -> Option<u64> {
        self.at("/incidents_open")?.as_u64()
    }

    fn cells(&self) -> [String; 6] {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or(UNKNOWN).to_owned();
        let paused = match (self.answers, self.at("/paused")) {
            (false, _) => UNKNOWN,
            (true, Some(_)) => "yes",
            (true, None) => "no",
        };
        [
            self.agent.clone(),
            if self.answers { "running" } else { "unreachable" }.to_owned(),
            text(self.at("/node/fact/phase").or(self.at("/node/state"))),
            self.holder().unwrap_or(UNKNOWN).to_owned(),
            self.incidents().map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string()),
            paused.to_owned(),
        ]
    }
}
