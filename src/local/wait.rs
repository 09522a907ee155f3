//! Waiting until a local cluster is whole: the first node founds it, the others join, everybody is healthy, a leader is
//! known, every agent is ready.
//!
//! Owns: the founding of a local cluster. Must never: initialise a cluster where a node says it is in one.

use std::time::Duration;

use resilver_proto::store::{InitRequest, StatusResponse};
use tokio::time::{Instant, sleep};

use super::LocalCluster;
use crate::agents::Agents;
use crate::client::{CHANGE_DEADLINE, Nodes, within};
use crate::discover::{Found, Member};
use crate::exit::{Code, Failure};

/// How often is looked. The processes are not ours to wait on: there is no event to await.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Lines of a log shown when its process ended early.
const LOG_LINES: usize = 12;
/// How much of a log's end is read for that.
const LOG_BYTES: usize = 16 * 1024;

impl LocalCluster {
    /// Waits until all nodes are healthy, a leader is known and the agents are ready; founds the cluster on the way when
    /// it is new.
    ///
    /// # Errors
    /// [`Code::Failed`] when an agent ended meanwhile (with the end of its log); [`Code::Unreachable`] when the deadline
    /// passed, with what is not healthy.
    pub(crate) async fn wait_healthy(&self, deadline: Duration) -> Result<StatusResponse, Failure> {
        let until = Instant::now() + deadline;
        let nodes = Nodes::new(&self.host, &self.found())?;
        let agents = Agents::new(&self.host, &self.found())?;
        let mut missing = "no node has answered".to_owned();
        let mut founded = false;
        while Instant::now() < until {
            self.check_agents().await?;
            if !founded {
                match self.found_once(&nodes).await? {
                    Some(waits_for) => missing = waits_for,
                    None => founded = true,
                }
            }
            if founded {
                match self.look(&nodes, &agents).await {
                    Ok(status) => return Ok(status),
                    Err(waits_for) => missing = waits_for,
                }
            }
            sleep(LOOK_INTERVAL).await;
        }
        let waited = humantime::format_duration(deadline);
        Err(Failure::new(Code::Unreachable, format!("the cluster is not whole after {waited}: {missing}"))
            .next(format!("read the logs: {}/nodes/*/{{node,agent}}.log", self.dir.display())))
    }

    /// This cluster as the verbs' clients know clusters.
    pub(crate) fn found(&self) -> Found {
        let member = |node: &super::LocalNode| Member {
            name: node.name.clone(),
            address: node.address.clone(),
            http: Some(node.http.clone()),
            s3: Some(node.s3.clone()),
            agent: Some(node.agent_address.clone()),
            // Only agents gossip.
            gossip: None,
            api: Some(node.api.clone()),
            agent_dir: Some(node.agent_dir.clone()),
        };
        Found { source: self.dir.clone(), members: self.nodes.iter().map(member).collect(), own: None }
    }

    /// Founds the cluster on its first node unless any node is in one. `Some`: not yet, for this reason.
    async fn found_once(&self, nodes: &Nodes) -> Result<Option<String>, Failure> {
        let mut answered = 0;
        for node in nodes.all() {
            match node.look().await {
                Ok(seen) if !seen.cluster_id.is_empty() => return Ok(None),
                Ok(_) => answered += 1,
                Err(status) => tracing::debug!(node = node.name, %status, "does not answer yet"),
            }
        }
        // All must have answered: one that is slow to start may hold the cluster, and there must not be a second.
        if answered < nodes.all().len() {
            return Ok(Some(format!("{answered} of {} nodes answer", nodes.all().len())));
        }
        let Some(first) = nodes.all().first() else { return Ok(Some("no nodes".to_owned())) };
        let request = InitRequest { name: self.name.clone() };
        match within(CHANGE_DEADLINE, async { first.cluster().init(request).await }).await {
            Ok(_) => Ok(None),
            // The answer got lost, or another `cluster init` was faster: the next look tells.
            Err(status) if matches!(status.code(), tonic::Code::AlreadyExists | tonic::Code::DeadlineExceeded) => {
                Ok(Some(status.message().to_owned()))
            }
            Err(status) if status.code() == tonic::Code::Unavailable => Ok(Some(status.message().to_owned())),
            Err(status) => Err(Failure::from_status("found the cluster", &first.name, &status)),
        }
    }

    /// The cluster's status when it is whole, else what is missing.
    async fn look(&self, nodes: &Nodes, agents: &Agents) -> Result<StatusResponse, String> {
        let status = nodes.status().await.map_err(|failure| failure.message)?;
        // One that was taken out of the cluster is not waited for: it says so itself, and stays what it is.
        let removed = |name: &str| status.removed.iter().any(|removed| removed.node == name);
        let ill: Vec<String> = self
            .nodes
            .iter()
            .filter_map(|own| match status.nodes.iter().find(|node| node.node == own.name) {
                Some(node) if node.state == "healthy" => None,
                Some(node) => Some(format!("{} is {}", own.name, node.state)),
                None if removed(&own.name) => None,
                None => Some(format!("{} has not joined", own.name)),
            })
            .collect();
        if !ill.is_empty() {
            return Err(ill.join(", "));
        }
        if status.leader.is_empty() {
            return Err("no leader is known".to_owned());
        }
        for agent in agents.all() {
            match agent.get("/readyz").await {
                Ok(answer) if answer.is_success() => {}
                Ok(answer) => return Err(format!("the agent of {} is not ready: {}", agent.name, answer.reason())),
                Err(error) => return Err(format!("the agent of {} does not answer: {error}", agent.name)),
            }
        }
        Ok(status)
    }

    /// An agent that ended while it should have started is worth telling at once, not after the deadline.
    async fn check_agents(&self) -> Result<(), Failure> {
        for node in &self.nodes {
            let alive = self.agent(node).await.map_err(|error| Failure::failed(error.to_string()))?;
            if alive.is_none() {
                let tail = self.tail(&node.agent_log).await;
                return Err(Failure::failed(format!("the agent of {} has ended:\n{tail}", node.name))
                    .next(format!("its whole log: {}", node.agent_log.display())));
            }
        }
        Ok(())
    }

    async fn tail(&self, path: &std::path::Path) -> String {
        let read = async {
            let file = self.host.disk.open(path, resilver_host::OpenMode::Read).await?;
            let from = file.len().await?.saturating_sub(LOG_BYTES as u64);
            file.read_at(from, LOG_BYTES).await
        };
        let data = read.await.unwrap_or_default();
        let text = String::from_utf8_lossy(&data);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|line| format!("  {line}\n")).collect()
    }
}
