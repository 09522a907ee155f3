//! `node run|list|status|health|restart|rejoin|mode|down|out|up|drain|remove`.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Subcommand;
use resilver_proto::contract::{ObserveRequest, ObserveResponse, StartStep};
use resilver_proto::store::NodeStatus;
use serde::Serialize;
use serde_json::{Value, json};

use super::context::{Context, owner};
use super::{mark, node_leave, node_mode, rejoin};
use crate::agents::STEP_DEADLINE;
use crate::client::{CALL_DEADLINE, within};
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN, age, bytes, cell, known, rfc3339};

/// Verbs of nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Run this host's storage node (its agent does this; so does systemd)
    Run,
    /// All nodes
    List,
    /// One node in full, as it sees itself
    Status {
        /// The node's name
        node: String,
    },
    /// Its score with the reasons, and what is expected to run out; without a node: the cluster's
    Health {
        /// The node's name
        node: Option<String>,
    },
    /// Restart a live node: one at a time in the cluster, only while the others carry the quorum
    Restart {
        /// The node's name
        node: String,
        /// Why, for the journal
        #[arg(long)]
        reason: String,
        /// Who, for the journal; your user name by default
        #[arg(long)]
        owner: Option<String>,
    },
    /// Bring back a node whose metadata is damaged or gone (`lost_voter`): what is left is kept aside, and it comes back as
    /// a learner
    Rejoin(rejoin::RejoinArgs),
    /// Say what a node serves its clients, and whether it stands for election
    Mode(node_mode::ModeArgs),
    /// Say that a host is away for a while: nothing is written to it, and it keeps its place
    Down(mark::DownArgs),
    /// Give a host up: its shards are rebuilt on other nodes
    Out(mark::OutArgs),
    /// Say that a host is back, or is not to be emptied any more
    Up(mark::UpArgs),
    /// Empty a node: its shards move to other nodes and are read back there, and its vote goes to another
    Drain(node_leave::DrainArgs),
    /// Take a node out of the cluster that is drained, or out and empty
    Remove(node_leave::RemoveArgs),
}

/// A line of `node list`.
#[derive(Debug, Serialize)]
pub(crate) struct NodeRow {
    node: String,
    address: String,
    state: String,
    role: Option<String>,
    disks: u32,
    objects: Option<u64>,
    /// As the agents say; none when they do not.
    score: Option<u8>,
    last_seen: Option<String>,
    #[serde(skip)]
    last_seen_ms: Option<u64>,
    detail: Option<String>,
}

impl NodeRow {
    /// From what a node gathered; `now` is wall time, for the moment it was last seen.
    pub(crate) fn of(node: &NodeStatus, now: u64) -> Self {
        let seen = node.seen.then_some(node.last_seen_ms);
        Self {
            node: node.node.clone(),
            address: node.address.clone(),
            state: state_of(node).to_owned(),
            role: known(&node.role),
            disks: node.disks,
            // A node that does not answer now has not told how many it holds.
            objects: has_answered(node).then_some(node.objects),
            score: None,
            last_seen: seen.and_then(|ago| rfc3339(now.saturating_sub(ago))),
            last_seen_ms: seen,
            detail: detail_of(node),
        }
    }
}

/// Whether a node said how it is, just now or a moment ago.
pub(crate) fn has_answered(node: &NodeStatus) -> bool {
    !matches!(node.state.as_str(), "unreachable" | "unknown")
}

/// How a node is by its own account, or what the cluster map says of its host when that is more: a node that is healthy and
/// was given up is `out`.
pub(crate) fn state_of(node: &NodeStatus) -> &str {
    match node.mark.as_str() {
        "" | "up" => &node.state,
        mark => mark,
    }
}

/// Why it is so, as far as anybody said.
pub(crate) fn detail_of(node: &NodeStatus) -> Option<String> {
    if state_of(node) == node.state {
        return known(&node.detail);
    }
    let why = if node.mark_reason.is_empty() { "no reason was given" } else { &node.mark_reason };
    Some(format!("{why}; the node itself is {}", node.state))
}

/// Fills in what the agents say; a node of which they say nothing keeps none.
pub(crate) fn add_scores(rows: &mut [NodeRow], scores: &BTreeMap<String, u8>) {
    for row in rows {
        row.score = scores.get(&row.node).copied();
    }
}

/// What the agents say of all nodes; nothing where no agent is named or none answers in time.
pub(crate) async fn scores(cx: &Context) -> BTreeMap<String, u8> {
    match cx.agents().await {
        Ok(agents) => agents.scores().await,
        Err(_) => BTreeMap::new(),
    }
}

/// The columns of `node list`.
pub(crate) fn table(rows: &[NodeRow]) -> String {
    let mut table = Table::new(["NODE", "ADDRESS", "STATE", "ROLE", "DISKS", "OBJECTS", "SCORE", "LAST_SEEN"]);
    for row in rows {
        table.row([
            row.node.clone(),
            row.address.clone(),
            row.state.clone(),
            cell(row.role.clone()),
            row.disks.to_string(),
            cell(row.objects),
            cell(row.score),
            cell(row.last_seen_ms.map(age)),
        ]);
    }
    table.render()
}

impl NodeVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            NodeVerb::Run => crate::daemon::node(cx).await,
            NodeVerb::List => list(cx).await,
            NodeVerb::Status { node } => status(cx, &node).await,
            NodeVerb::Health { node } => super::health::health(cx, node.as_deref()).await,
            NodeVerb::Restart { node, reason, owner: by } => restart(cx, &node, &reason, owner(by)).await,
            NodeVerb::Rejoin(args) => rejoin::run(cx, args).await,
            NodeVerb::Mode(args) => node_mode::run(cx, args).await,
            NodeVerb::Down(args) => mark::down(cx, args).await,
            NodeVerb::Out(args) => mark::out(cx, args).await,
            NodeVerb::Up(args) => mark::up(cx, args).await,
            NodeVerb::Drain(args) => node_leave::drain(cx, args).await,
            NodeVerb::Remove(args) => node_leave::remove(cx, args).await,
        }
    }
}

async fn list(cx: &Context) -> Result<Code, Failure> {
    // Side by side: an agent that is silent takes no time from a list that its node does not need.
    let (status, scores) = tokio::join!(async { cx.nodes().await?.status().await }, scores(cx));
    let status = status?;
    let now = cx.host.clock.now().as_millis();
    let mut rows: Vec<NodeRow> = status.nodes.iter().map(|node| NodeRow::of(node, now)).collect();
    add_scores(&mut rows, &scores);
    cx.out.show(&rows, |rows| table(rows))?;
    Ok(Code::Ok)
}

/// `node status` in JSON.
#[derive(Serialize)]
struct NodeView {
    node: String,
    cluster_id: Option<String>,
    epoch: u64,
    phase: String,
    phase_detail: Option<String>,
    mode: Option<String>,
    /// Why it is not read_write, or does not stand.
    mode_reason: Option<String>,
    /// Null: it does not say.
    stands: Option<bool>,
    pid: u32,
    started: Option<String>,
    role: Option<String>,
    /// Why it is to have no vote.
    no_vote: Option<String>,
    draining: bool,
    term: Option<u64>,
    leader: Option<String>,
    committed: Option<u64>,
    applied: Option<u64>,
    objects: u64,
    repair_queue: Option<u64>,
    missing_shards: Option<u64>,
    /// What this process's start did, in order.
    start_steps: Vec<StepRow>,
    disks: Vec<super::disk::DiskRow>,
}

/// A step of the node's start.
#[derive(Serialize)]
struct StepRow {
    step: String,
    done: Option<u64>,
    total: Option<u64>,
    unit: Option<String>,
    millis: u64,
    finished: bool,
}

impl StepRow {
    fn of(step: &StartStep) -> Self {
        let counted = step.total > 0;
        Self {
            step: step.name.clone(),
            done: counted.then_some(step.done),
            total: counted.then_some(step.total),
            unit: known(&step.unit),
            millis: step.millis,
            finished: step.finished,
        }
    }

    /// `log 350000 of 1000000 entries, 1.20 s so far`.
    fn words(&self) -> String {
        let unit = self.unit.as_deref().unwrap_or_default();
        let counted = match (self.done, self.total) {
            (_, Some(total)) if self.finished => format!(" {total} {unit}"),
            (Some(done), Some(total)) => format!(" {done} of {total} {unit}"),
            _ => String::new(),
        };
        let so_far = if self.finished { "" } else { " so far" };
        format!("{}{counted} {:.2} s{so_far}", self.step, self.millis as f64 / 1000.0)
    }
}

async fn status(cx: &Context, name: &str) -> Result<Code, Failure> {
    cx.found().await?.member(name)?;
    let nodes = cx.nodes().await?;
    let Some(node) = nodes.named(name) else { return Err(Failure::usage(format!("no node `{name}`"))) };
    let look = within(CALL_DEADLINE, async { node.control().observe(ObserveRequest {}).await });
    let (seen, words) = tokio::join!(look, super::disk::smart_words(cx));
    let seen = seen.map_err(|status| Failure::from_status("observe the node", name, &status))?;
    let healthy = seen.phase == "healthy" && seen.disks.iter().all(|disk| disk.health == "ok");
    let mut view = NodeView::of(seen);
    super::disk::add_smart(&mut view.disks, &words);
    cx.out.show(&view, NodeView::text)?;
    Ok(if healthy { Code::Ok } else { Code::Degraded })
}

impl NodeView {
    fn of(seen: ObserveResponse) -> Self {
        let raft = seen.raft.as_ref();
        let repair = seen.repair.as_ref();
        let own = seen.nodes.iter().find(|node| node.node == seen.node);
        Self {
            node: seen.node.clone(),
            cluster_id: known(&seen.cluster_id),
            epoch: seen.epoch,
            phase: seen.phase.clone(),
            phase_detail: known(&seen.phase_detail),
            mode: known(&seen.mode),
            mode_reason: known(&seen.mode_reason),
            stands: seen.stands,
            pid: seen.pid,
            started: rfc3339(seen.started_ms),
            role: raft.and_then(|raft| known(&raft.role)),
            no_vote: own.and_then(|own| known(&own.no_vote)),
            draining: own.is_some_and(|own| own.draining),
            term: raft.map(|raft| raft.term),
            leader: raft.and_then(|raft| known(&raft.leader)),
            committed: raft.map(|raft| raft.committed),
            applied: raft.map(|raft| raft.applied),
            objects: seen.objects,
            repair_queue: repair.map(|repair| repair.queue),
            missing_shards: repair.map(|repair| repair.missing_shards),
            start_steps: seen.start_steps.iter().map(StepRow::of).collect(),
            disks: seen.disks.iter().map(super::disk::DiskRow::of_own).collect(),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |key: &str, value: String| {
            // Writing into a String cannot fail.
            let _ = writeln!(out, "{:<16}{value}", format!("{key}:"));
        };
        let word = |text: &Option<String>| text.clone().unwrap_or_else(|| UNKNOWN.to_owned());
        line("node", self.node.clone());
        let detail = self.phase_detail.as_ref().map(|detail| format!("  ({detail})")).unwrap_or_default();
        line("phase", format!("{}{detail}", self.phase));
        let reason = self.mode_reason.as_ref().map(|why| format!("  ({why})")).unwrap_or_default();
        let quiet = if self.stands == Some(false) { ", stands for no election" } else { "" };
        line("mode", format!("{}{quiet}{reason}", word(&self.mode)));
        line("pid", self.pid.to_string());
        line("started", word(&self.started));
        if !self.start_steps.is_empty() {
            line("start took", self.start_steps.iter().map(StepRow::words).collect::<Vec<_>>().join(", "));
        }
        line("cluster", word(&self.cluster_id));
        let no_vote = self.no_vote.as_ref().map(|why| format!("  (to have no vote: {why})")).unwrap_or_default();
        line("role", format!("{}{no_vote}", word(&self.role)));
        if self.draining {
            line("draining", "its shards move to other nodes, and its vote goes to another".to_owned());
        }
        line("leader", word(&self.leader));
        line("term", cell(self.term));
        line("committed", cell(self.committed));
        line("applied", cell(self.applied));
        line("objects", self.objects.to_string());
        line("repair queue", cell(self.repair_queue));
        line("missing shards", cell(self.missing_shards));
        line("stored", bytes(self.disks.iter().map(|disk| disk.used_bytes).sum()));
        out.push('\n');
        out.push_str(&super::disk::table(&self.disks, true));
        out
    }
}

/// Whichever agent answers passes the wish on to the holder of the lease.
async fn restart(cx: &Context, name: &str, reason: &str, owner: String) -> Result<Code, Failure> {
    cx.found().await?.member(name)?;
    let agents = cx.agents().await?;
    let body = json!({ "reason": reason, "owner": owner });
    let path = format!("/api/v1/nodes/{name}/restart");
    // The target's own agent knows best; another may pass the wish on only when that one never heard it.
    let mut order: Vec<_> = agents.all().iter().collect();
    order.sort_by_key(|agent| agent.name != name);
    let mut silent = String::new();
    for agent in order {
        if let Err(error) = agent.get("/livez").await {
            silent.push_str(&format!("\n  {}: {error}", agent.name));
            continue;
        }
        cx.out.say(format!("asking the agent of {} to restart {name}", agent.name));
        let answer = agent.post(&path, &body, STEP_DEADLINE).await.map_err(|error| {
            Failure::new(Code::Degraded, format!("it is not known whether {name} was restarted: {error}"))
                .next(format!("look first: `resilver node status {name}`, `resilver journal list`"))
        })?;
        return restarted(cx, name, &answer);
    }
    Err(Failure::new(Code::Unreachable, format!("no agent answered, {name} was not restarted{silent}")))
}

fn restarted(cx: &Context, name: &str, answer: &crate::agents::Answer) -> Result<Code, Failure> {
    let done = answer.body.get("done").and_then(Value::as_bool).unwrap_or(answer.is_success());
    if done {
        cx.out.show(&answer.body, |body| {
            let detail = body.get("detail").and_then(Value::as_str).unwrap_or_default();
            format!("{name} restarted{}\n", if detail.is_empty() { String::new() } else { format!(": {detail}") })
        })?;
        return Ok(Code::Ok);
    }
    if cx.out.is_json() {
        cx.out.json(&answer.body)?;
    }
    let refused = (400..500).contains(&answer.status) || answer.body.get("guard").is_some_and(|guard| guard != "");
    let code = if refused { Code::Refused } else { Code::Failed };
    Err(Failure::new(code, format!("{name} was not restarted: {}", answer.reason()))
        .next("the evidence is in the journal: `resilver journal list`"))
}
