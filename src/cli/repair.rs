//! `repair status|start|pause|resume`: what waits, what runs, and a person's word on it.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use futures_util::future::join_all;
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{KeyRange, ObserveRequest, Progress, Scope, SyncMissingEntriesRequest};
use resilver_proto::store::{
    ListBucketsRequest, PauseRepairRequest, ReleaseCollectionRequest, RepairHeld, RepairPause, ResumeRepairRequest,
};
use serde::Serialize;

use super::confirm::Confirm;
use super::context::{Context, owner};
use super::object::{ObjectPath, repair_object};
use crate::client::{CALL_DEADLINE, CHANGE_DEADLINE, Node, Nodes, within};
use crate::exit::{Code, Failure};
use crate::output::{Table, UNKNOWN, bytes};

/// Verbs of repair.
#[derive(Debug, Subcommand)]
pub(crate) enum RepairVerb {
    /// The repair queue of the whole cluster
    Status,
    /// Look for what is missing now, without waiting for the next check, and stay until it is rebuilt
    Start(StartArgs),
    /// Keep all nodes from taking shards from their queues, for a reason and for a time; `object repair` is done all the same
    Pause(PauseArgs),
    /// Let all nodes rebuild again
    Resume,
    /// After a restore or a forced quorum: let go of what nobody owns any more, once you have looked
    Collect(Confirm),
}

/// `repair start`.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct StartArgs {
    /// Only this bucket
    #[arg(long)]
    bucket: Option<String>,
    /// Only what is to be on this disk; of one that is given up or emptied: until nothing is there
    #[arg(long)]
    disk: Option<String>,
    /// Only this object
    #[arg(long, value_name = "BUCKET/KEY")]
    object: Option<ObjectPath>,
}

/// `repair pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Why, for whoever wonders: it is shown with the queue
    #[arg(long)]
    reason: String,
    /// How long: `30m`, `2h`. A pause always ends
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1h")]
    length: Duration,
    /// Who; your user name by default
    #[arg(long)]
    owner: Option<String>,
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
    paused: Option<Paused>,
    /// Disks that are so busy with clients that what has a spare shard waits.
    gives_way: Vec<GivesWay>,
    unanswered: Vec<String>,
}

#[derive(Serialize)]
struct GivesWay {
    node: String,
    disk: String,
    path: String,
    foreground_percent: u32,
    limit_percent: u32,
    shards: u64,
}

#[derive(Serialize)]
struct Paused {
    owner: String,
    reason: String,
    for_seconds: u64,
}

/// What a start came to on each node.
#[derive(Serialize)]
struct Started {
    rebuilt: u64,
    failed: u64,
    skipped: u64,
    /// Nodes that could not be asked, or stopped telling, and why.
    unanswered: BTreeMap<String, String>,
    /// What nodes said of failures.
    messages: Vec<String>,
}

impl RepairVerb {
    pub(crate) async fn run(self, cx: &Context) -> Result<Code, Failure> {
        match self {
            RepairVerb::Status => status(cx).await,
            RepairVerb::Start(args) => start(cx, args).await,
            RepairVerb::Pause(args) => pause(cx, args).await,
            RepairVerb::Resume => resume(cx).await,
            RepairVerb::Collect(confirm) => collect(cx, &confirm).await,
        }
    }
}

async fn status(cx: &Context) -> Result<Code, Failure> {
    let nodes = cx.nodes().await?;
    let status = nodes.status().await?;
    let idle = status.repair_queue == 0 && status.repair_in_flight == 0;
    let paused = status.repair_pause.map(|pause| Paused {
        owner: pause.owner,
        reason: pause.reason,
        for_seconds: pause.length_ms.div_ceil(1000),
    });
    let view = RepairView {
        queue: status.repair_queue,
        in_flight: status.repair_in_flight,
        completed: status.repair_completed,
        failed: status.repair_failed,
        rate_bytes_per_second: status.repair_rate_bytes_per_second,
        eta_seconds: match (idle, &paused) {
            (true, _) => Some(0),
            (false, Some(_)) => None,
            (false, None) => eta(&nodes).await.map(|eta| eta.as_secs()),
        },
        missing_shards: status.missing_shards,
        paused,
        gives_way: status.repair_held.into_iter().map(GivesWay::from).collect(),
        unanswered: status.unanswered,
    };
    cx.out.show(&view, RepairView::text)?;
    for name in &view.unanswered {
        cx.out.say(format!("{name} did not answer: its queue is not counted"));
    }
    Ok(Code::Ok)
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

/// Every node does its own part: it is asked of all of them, but for what one can do for all.
async fn start(cx: &Context, args: StartArgs) -> Result<Code, Failure> {
    if let Some(object) = args.object {
        return repair_object(cx, object, false).await;
    }
    let nodes = cx.nodes().await?;
    let (of, asked): (Of, Vec<Node>) = match (args.bucket, args.disk) {
        (Some(bucket), _) => {
            let list = async |node: Node| node.store().list_buckets(ListBucketsRequest {}).await;
            let known = nodes.ask("list the buckets", list).await?;
            if !known.buckets.iter().any(|known| known.name == bucket) {
                return Err(
                    Failure::usage(format!("there is no bucket {bucket}")).next("`resilver bucket list` shows them")
                );
            }
            (Of::Range(KeyRange { bucket, ..KeyRange::default() }), nodes.all().to_vec())
        }
        (None, Some(disk)) => {
            let status = nodes.status().await?;
            let found = status.disks.into_iter().find(|known| known.disk_id == disk).ok_or_else(|| {
                Failure::usage(format!("there is no disk {disk} in this cluster"))
                    .next("`resilver disk list` shows them")
            })?;
            // What is on a disk is its node's to look after; what leaves one, any node sees.
            let own = nodes.named(&found.node).filter(|_| !matches!(found.state.as_str(), "out" | "draining"));
            let asked = match own {
                Some(node) => node.clone(),
                None => nodes.serving("start the repair").await?,
            };
            (Of::DiskId(disk), vec![asked])
        }
        (None, None) => (Of::Everything(true), nodes.all().to_vec()),
    };
    let scope = Scope { of: Some(of) };
    let ended = join_all(asked.iter().map(async |node| (node.name.clone(), follow(node, scope.clone()).await))).await;
    let mut started = Started { rebuilt: 0, failed: 0, skipped: 0, unanswered: BTreeMap::new(), messages: Vec::new() };
    for (name, outcome) in ended {
        match outcome {
            Ok(last) => {
                // What ended, however it ended, is done.
                started.rebuilt += last.done.saturating_sub(last.failed);
                started.failed += last.failed;
                started.skipped += last.skipped;
                if last.failed + last.skipped > 0 && !last.message.is_empty() {
                    started.messages.push(format!("{name}: {}", last.message));
                }
            }
            Err(why) => {
                started.unanswered.insert(name, why);
            }
        }
    }
    let missing = nodes.status().await?.missing_shards;
    if missing > 0 && started.skipped == 0 {
        started.skipped = missing;
        started.messages.push(format!(
            "{missing} shards are missing in the cluster, and no disk may take them now: `resilver disk list`, `resilver node list`"
        ));
    }
    cx.out.show(&started, Started::text)?;
    let whole = started.failed + started.skipped == 0 && started.unanswered.is_empty();
    Ok(if whole { Code::Ok } else { Code::Degraded })
}

/// Reads one node's progress to its end.
async fn follow(node: &Node, scope: Scope) -> Result<Progress, String> {
    let request = SyncMissingEntriesRequest { scope: Some(scope), fence: None };
    let said = |status: tonic::Status| status.message().to_owned();
    let mut messages = node.replicas().sync_missing_entries(request).await.map_err(said)?.into_inner();
    while let Some(progress) = messages.message().await.map_err(said)? {
        if progress.finished {
            return Ok(progress);
        }
    }
    Err("it stopped telling how far it is; it goes on by itself".to_owned())
}

async fn pause(cx: &Context, args: PauseArgs) -> Result<Code, Failure> {
    let doing = "pause the repair";
    let door = cx.nodes().await?.serving(doing).await?;
    let length_ms = u64::try_from(args.length.as_millis()).unwrap_or(u64::MAX);
    let pause = RepairPause { owner: owner(args.owner), reason: args.reason, length_ms };
    let paused =
        Paused { owner: pause.owner.clone(), reason: pause.reason.clone(), for_seconds: length_ms.div_ceil(1000) };
    within(CHANGE_DEADLINE, async { door.cluster().pause_repair(PauseRepairRequest { pause: Some(pause) }).await })
        .await
        .map_err(|status| Failure::from_status(doing, &door.name, &status))?;
    cx.out.show(&paused, |paused| format!("repair is paused: {}\n", paused.text()))?;
    Ok(Code::Ok)
}

async fn collect(cx: &Context, confirm: &Confirm) -> Result<Code, Failure> {
    let doing = "let collection go on";
    let nodes = cx.nodes().await?;
    let status = nodes.status().await?;
    if !status.collection_held {
        cx.out.say("nothing holds collection");
        return Ok(Code::Ok);
    }
    let what = "shards that no object owns by the present metadata would be moved aside, and removed a day later";
    confirm.check(cx, "repair collect", &status.cluster_name, async || Ok(what.to_owned())).await?;
    let door = nodes.serving(doing).await?;
    within(CHANGE_DEADLINE, async { door.cluster().release_collection(ReleaseCollectionRequest {}).await })
        .await
        .map_err(|status| Failure::from_status(doing, &door.name, &status))?;
    cx.out.say("collection goes on");
    Ok(Code::Ok)
}

async fn resume(cx: &Context) -> Result<Code, Failure> {
    #[derive(Serialize)]
    struct Resumed {
        was_paused: bool,
    }
    let doing = "resume the repair";
    let door = cx.nodes().await?.serving(doing).await?;
    let answer = within(CHANGE_DEADLINE, async { door.cluster().resume_repair(ResumeRepairRequest {}).await })
        .await
        .map_err(|status| Failure::from_status(doing, &door.name, &status))?;
    cx.out.show(&Resumed { was_paused: answer.paused }, |resumed| {
        if resumed.was_paused { "repair goes on\n".to_owned() } else { "repair was not paused\n".to_owned() }
    })?;
    Ok(Code::Ok)
}

impl Paused {
    fn text(&self) -> String {
        let length = humantime::format_duration(Duration::from_secs(self.for_seconds));
        format!("for {length}, by {}: {}", self.owner, self.reason)
    }
}

impl From<RepairHeld> for GivesWay {
    fn from(held: RepairHeld) -> Self {
        let RepairHeld { node, disk_id, path, foreground_percent, limit_percent, shards } = held;
        Self { node, disk: disk_id, path, foreground_percent, limit_percent, shards }
    }
}

impl GivesWay {
    fn text(&self) -> String {
        let Self { node, path, foreground_percent, limit_percent, shards, .. } = self;
        format!(
            "gives way on {node} {path}: clients take {foreground_percent}% of its time, and above {limit_percent}% what has a spare \
             waits; {shards} shards do, and its scrub\n"
        )
    }
}

impl Started {
    fn text(&self) -> String {
        let mut out = format!("{} rebuilt, {} failed, {} skipped\n", self.rebuilt, self.failed, self.skipped);
        self.messages.iter().for_each(|message| out.push_str(&format!("{message}\n")));
        for (name, why) in &self.unanswered {
            out.push_str(&format!("{name} was not asked to the end: {why}\n"));
        }
        out
    }
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
        let paused = self.paused.as_ref().map(|paused| format!("paused {}\n", paused.text())).unwrap_or_default();
        let gives_way: String = self.gives_way.iter().map(GivesWay::text).collect();
        table.render() + &paused + &gives_way
    }
}
