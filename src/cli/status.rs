//! `status` and `cluster status`: one look at everything, and an exit code that can be scripted against.
//!
//! Invariant: healthy is only what was seen to be healthy. Whoever did not answer makes it degraded.

use std::fmt::Write;

use resilver_proto::store::StatusResponse;
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::{disk, node};
use crate::exit::{Code, Failure};
use crate::output::{UNKNOWN, known};

/// The cluster's state as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterView {
    state: &'static str,
    cluster_id: Option<String>,
    cluster_name: Option<String>,
    epoch: u64,
    leader: Option<String>,
    term: u64,
    committed: u64,
    objects: u64,
    missing_shards: u64,
    repair_queue: u64,
    nodes: Vec<node::NodeRow>,
    disks: Vec<disk::DiskRow>,
    unanswered: Vec<String>,
    warnings: Vec<String>,
    degraded_because: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agents: Option<Vec<AgentView>>,
}

/// An agent's state as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct AgentView {
    agent: String,
    answers: bool,
    open_incidents: Option<u64>,
    lease_holder: Option<String>,
    paused: Option<bool>,
    error: Option<String>,
}

/// `cluster status`.
pub(crate) async fn cluster(cx: &Context) -> Result<Code, Failure> {
    finish(cx, look(cx).await?)
}

/// `status`.
pub(crate) async fn status(cx: &Context) -> Result<Code, Failure> {
    let mut view = look(cx).await?;
    view.add_agents(agents(cx).await);
    finish(cx, view)
}

/// What the nodes say, the scores that the agents give them, and what their disks say of themselves.
async fn look(cx: &Context) -> Result<ClusterView, Failure> {
    let status = async { cx.nodes().await?.status().await };
    let (status, scores, words) = tokio::join!(status, node::scores(cx), disk::smart_words(cx));
    let mut view = ClusterView::of(cx, &status?);
    node::add_scores(&mut view.nodes, &scores);
    disk::add_smart(&mut view.disks, &words);
    Ok(view)
}

fn finish(cx: &Context, view: ClusterView) -> Result<Code, Failure> {
    cx.out.show(&view, ClusterView::text)?;
    Ok(if view.degraded_because.is_empty() { Code::Ok } else { Code::Degraded })
}

/// What every agent says about itself; those that say nothing are told, too.
async fn agents(cx: &Context) -> Vec<AgentView> {
    let Ok(agents) = cx.agents().await else { return Vec::new() };
    let silent = |name: &str, error: String| AgentView {
        agent: name.to_owned(),
        answers: false,
        open_incidents: None,
        lease_holder: None,
        paused: None,
        error: Some(error),
    };
    match agents.get_all("/api/v1/status").await {
        Err(failure) => agents.all().iter().map(|agent| silent(&agent.name, failure.message.clone())).collect(),
        Ok(answers) => answers
            .into_iter()
            .map(|(name, answer)| match answer {
                Ok(body) => AgentView::of(name, &body),
                Err(error) => silent(&name, error),
            })
            .collect(),
    }
}

impl AgentView {
    fn of(agent: String, body: &Value) -> Self {
        let incidents = body.get("incidents_open").and_then(Value::as_u64);
        let paused = body.get("paused").map(|pause| !pause.is_null());
        let holder = body.pointer("/lease/holder").and_then(Value::as_str);
        Self {
            agent,
            answers: true,
            open_incidents: incidents,
            lease_holder: holder.and_then(known),
            paused,
            error: None,
        }
    }
}

/// What nodes warn of, and what a person has set and may have forgotten.
fn warnings(status: &StatusResponse) -> Vec<String> {
    let mut warnings = status.warnings.clone();
    if let Some(pause) = &status.repair_pause {
        warnings.push(format!("repair is paused by {}: {} (`resilver repair resume`)", pause.owner, pause.reason));
    }
    if status.collection_held {
        warnings.push(
            "nothing is collected since the metadata was restored or forced (`resilver repair collect`)".to_owned(),
        );
    }
    warnings
}

impl ClusterView {
    fn of(cx: &Context, status: &StatusResponse) -> Self {
        let mut why = Vec::new();
        if status.cluster_id.is_empty() {
            why.push("not initialised: run `resilver cluster init`".to_owned());
        } else if status.leader.is_empty() {
            why.push("no leader is known".to_owned());
        }
        for node in status.nodes.iter().filter(|node| node::state_of(node) != "healthy") {
            let detail = node::detail_of(node).map(|detail| format!(" ({detail})")).unwrap_or_default();
            why.push(format!("node {} is {}{detail}", node.node, node::state_of(node)));
        }
        for name in status.unanswered.iter().filter(|name| status.nodes.iter().all(|node| node.node != **name)) {
            why.push(format!("node {name} did not answer"));
        }
        for disk in status.disks.iter().filter(|disk| !disk::is_well(disk)) {
            let state = disk::state_of(disk);
            let reason = if disk.reason.is_empty() { String::new() } else { format!(" ({})", disk.reason) };
            why.push(format!("disk {} of {} is {state}{reason}", disk.path, disk.node));
        }
        if status.missing_shards > 0 {
            why.push(format!("{} shards wait to be rebuilt", status.missing_shards));
        }
        let now = cx.host.clock.now().as_millis();
        Self {
            state: if why.is_empty() { "healthy" } else { "degraded" },
            cluster_id: known(&status.cluster_id),
            cluster_name: known(&status.cluster_name),
            epoch: status.epoch,
            leader: known(&status.leader),
            term: status.term,
            committed: status.committed,
            objects: status.objects,
            missing_shards: status.missing_shards,
            repair_queue: status.repair_queue,
            nodes: status.nodes.iter().map(|node| node::NodeRow::of(node, now)).collect(),
            disks: status.disks.iter().map(disk::DiskRow::of).collect(),
            unanswered: status.unanswered.clone(),
            warnings: warnings(status),
            degraded_because: why,
            agents: None,
        }
    }

    fn add_agents(&mut self, agents: Vec<AgentView>) {
        for agent in &agents {
            match (&agent.error, agent.open_incidents) {
                (Some(error), _) => {
                    let error = error.lines().next().unwrap_or_default();
                    self.degraded_because.push(format!("the agent of {} does not answer: {error}", agent.agent));
                }
                (None, Some(open)) if open > 0 => {
                    self.degraded_because.push(format!("the agent of {} has {open} open incident(s)", agent.agent));
                }
                _ => {}
            }
        }
        if !self.degraded_because.is_empty() {
            self.state = "degraded";
        }
        self.agents = Some(agents);
    }

    fn text(&self) -> String {
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = writeln!(out, "cluster:  {}  ({})", word(&self.cluster_name), word(&self.cluster_id));
        let _ = writeln!(out, "state:    {}", self.state);
        let _ = writeln!(out, "leader:   {}  term {}", word(&self.leader), self.term);
        let _ = writeln!(
            out,
            "objects:  {}  missing shards {}  repair queue {}",
            self.objects, self.missing_shards, self.repair_queue
        );
        if let Some(agents) = &self.agents {
            let answering = agents.iter().filter(|agent| agent.answers).count();
            let holder = agents.iter().find_map(|agent| agent.lease_holder.clone());
            let _ = write!(out, "agents:   {answering} of {} answer", agents.len());
            let _ = write!(out, "  lease held by {}", word(&holder));
            let paused = agents.iter().filter(|agent| agent.paused == Some(true)).count();
            let _ = writeln!(out, "{}", if paused > 0 { format!("  paused on {paused}") } else { String::new() });
        }
        out.push('\n');
        out.push_str(&node::table(&self.nodes));
        for (heading, lines) in [("degraded because", &self.degraded_because), ("warnings", &self.warnings)] {
            if !lines.is_empty() {
                let _ = writeln!(out, "\n{heading}:");
                for line in lines {
                    let _ = writeln!(out, "  {line}");
                }
            }
        }
        out
    }
}
