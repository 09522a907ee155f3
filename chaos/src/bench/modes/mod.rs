//! How soon agents detect, and mend, each failure that a user can bring about on one machine: real processes, real files.
//! Every time is read from the agents' journals, which are what an operator has, too.
//!
//! Owns: the runs of one case, and what is read of them. Must never: count a run as recovered without the agent's proof; leave
//! a process stopped behind; go on after a run that did not end, which would answer for the next.

mod case;
mod inject;
mod report;

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use resilver_host::Host;
use resilver_proto::web;
use serde_json::{Value, json};

pub use case::{Case, Cases};
pub use report::{Report, Row, Times};

use self::inject::{Injected, Scene};
use crate::client::{Client, Written};
use crate::target::{HostInfo, Target};
use crate::watch::{Cursor, Line};

/// The bucket that is stored before.
const BUCKET: &str = "bench-modes";
/// Objects in it. Enough that every disk has some, few enough that a rebuild is seconds.
const OBJECTS: usize = 48;
/// Length of each: shards of 64 KiB under 4+2.
const OBJECT_BYTES: usize = 256 * 1024;
/// How long one put may take.
const PUT_DEADLINE: Duration = Duration::from_secs(15);
/// How long one run may take from the fault to its detection: twice the longest detection time (a lock held for a minute).
const DETECTION_LIMIT: Duration = Duration::from_secs(120);
/// And from there to the proof.
const RECOVERY_LIMIT: Duration = Duration::from_secs(120);
/// How long the cluster may take to be whole between two runs: a disk is filled again.
const CALM_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at the cluster's state. Times are the journals', not ours.
const LOOK: Duration = Duration::from_millis(50);
/// One question to an agent.
const ASK: Duration = Duration::from_secs(5);
/// The pause between two runs. Budgets are counted over 30 s in the profile `fast`, and flapping over 10 s: a node that is
/// struck more often is left to a person, and rightly so.
const PAUSE: Duration = Duration::from_secs(7);

/// What was read of one run.
#[derive(Clone, Debug, Default)]
struct Once {
    detected_ms: Option<u64>,
    first_step_ms: Option<u64>,
    resolved_ms: Option<u64>,
    steps: Vec<String>,
    why_not: Option<String>,
}

/// Runs one case so many times, on a cluster of its own that is up and that nobody needs. `revive` starts the agent of a host
/// again, as systemd would.
///
/// # Errors
/// When the cluster is not up, or a fault could not be brought about. That agents do not recover is a result.
pub async fn run(
    host: &Host,
    target: &Target,
    case: Case,
    runs: usize,
    revive: impl AsyncFn(&str) -> anyhow::Result<()>,
    say: &(dyn Fn(&str) + Send + Sync),
) -> anyhow::Result<Row> {
    let client = Client::new(host, target)?;
    client.ensure_bucket(BUCKET, None).await?;
    for at in 0..OBJECTS {
        let content = Bytes::from(vec![at as u8; OBJECT_BYTES]);
        let written = client.put(BUCKET, &format!("{at:03}"), content, PUT_DEADLINE).await;
        anyhow::ensure!(written == Written::Acknowledged, "an object was not stored: {written:?}");
    }
    let scene = Scene { host, target, client: &client, bucket: BUCKET };
    let mut row = Row::new(case);
    for turn in 0..runs {
        let leader = calm(host, target, &client).await?;
        let once = once(&scene, case, turn, &leader).await;
        // Whatever came of it: nothing stays stopped, and nobody dead.
        let once = restored(&scene, case, once, &revive).await?;
        say(&once.line(case, turn + 1));
        let stuck = once.resolved_ms.is_none();
        row.add(once);
        if stuck {
            break;
        }
        if turn + 1 < runs {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(row)
}

async fn once(scene: &Scene<'_>, case: Case, turn: usize, leader: &str) -> anyhow::Result<(Injected, Once)> {
    let (host, target) = (scene.host, scene.target);
    let mut cursor = Cursor::at_end(host, target).await;
    let mut injected = scene.inject(case, turn, leader).await?;
    let (mut seen, mut once) = (Vec::new(), Once::default());
    let about = |line: &Line| line.kind == "opened" && line.mode == case.mode() && injected.is_of(line);
    let Some(opened) = cursor.await_line(host, target, &mut seen, DETECTION_LIMIT, about).await else {
        once.why_not =
            Some(format!("no agent opened an incident {} within {} s", case.mode(), DETECTION_LIMIT.as_secs()));
        return Ok((injected, once));
    };
    let since = |line: &Line| line.at_ms.saturating_sub(injected.at_ms);
    once.detected_ms = Some(since(&opened));
    let of_it = |line: &Line| line.incident == opened.incident && line.host == opened.host;
    match case {
        Case::StoppedNode => {
            let refused =
                |line: &Line| of_it(line) && line.kind == "refused" && line.details["guard"] == "deliberate_stop";
            let held = cursor.await_line(host, target, &mut seen, RECOVERY_LIMIT, refused).await;
            if held.is_none() {
                once.why_not = Some("no agent said that a stopped process is not fought".to_owned());
            }
            // The person who stopped it lets it go on.
            drop(injected.stopped.take());
        }
        Case::ForgottenLock => {
            let agent = target.host(&opened.host).context("an agent of no host")?;
            if let Err(error) = approve(host, agent, &opened.incident).await {
                once.why_not = Some(format!("{error:#}"));
            }
        }
        _ => {}
    }
    let over = |line: &Line| of_it(line) && line.kind == "resolved";
    let resolved = cursor.await_line(host, target, &mut seen, RECOVERY_LIMIT, over).await;
    once.resolved_ms = resolved.as_ref().filter(|_| once.why_not.is_none()).map(since);
    let steps = seen.iter().filter(|line| of_it(line) && line.kind == "intent");
    once.first_step_ms = steps.clone().next().map(since);
    once.steps = steps.map(|line| line.action.clone()).collect();
    if resolved.is_none() {
        let last = seen.iter().rfind(|line| of_it(line)).map_or("nothing", |line| line.action.as_str());
        let why = seen
            .iter()
            .rfind(|line| of_it(line))
            .and_then(|line| line.details["evidence"].as_str())
            .unwrap_or_default();
        once.why_not.get_or_insert(format!("not resolved within {} s: {last}: {why}", RECOVERY_LIMIT.as_secs()));
    } else if let Some(how) = resolved.as_ref().and_then(|line| line.details["resolution"].as_str())
        && !how.starts_with("proven: ")
    {
        once.why_not.get_or_insert(format!("resolved without a proof: {how}"));
        once.resolved_ms = None;
    }
    Ok((injected, once))
}

/// Puts back what a run left: processes go on, hosts live, a wiped disk is a disk again.
async fn restored(
    scene: &Scene<'_>,
    case: Case,
    once: anyhow::Result<(Injected, Once)>,
    revive: &impl AsyncFn(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Once> {
    let (mut injected, once) = once?;
    drop(injected.stopped.take());
    match case {
        Case::DeadHost => {
            revive(&injected.node).await?;
            scene.back_in_service(&injected.node).await?;
        }
        Case::WipedDisk if once.resolved_ms.is_some() => scene.replace(&injected).await?,
        Case::ForgottenLock => scene.let_go(&mut injected).await?,
        _ => {}
    }
    Ok(once)
}

/// A person's word for what an incident waits with, as soon as it is asked for.
async fn approve(host: &Host, agent: &HostInfo, incident: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/incidents/{incident}");
    let asked = async {
        loop {
            let (_, body) = web::call(&host.net, &agent.api, &path, None, ASK).await?;
            let shown: Value = serde_json::from_slice(&body)?;
            if let Some(token) = shown.pointer("/explanation/incident/approval/token").and_then(Value::as_str) {
                return anyhow::Ok(token.to_owned());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let token = tokio::time::timeout(RECOVERY_LIMIT, asked).await.context("no approval was asked for")??;
    let body = json!({ "owner": "bench", "token": token }).to_string();
    let (status, body) =
        web::call(&host.net, &agent.api, &format!("{path}/approve"), Some(Bytes::from(body)), ASK).await?;
    anyhow::ensure!(status == 200, "the approval was refused ({status}): {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// Waits until every node is healthy, nothing is missing, no incident is open, and some agent holds the lease, as it is in a
/// cluster at rest. The leader's name.
async fn calm(host: &Host, target: &Target, client: &Client) -> anyhow::Result<String> {
    let mut why = String::new();
    let waiting = async {
        loop {
            match client.status().await {
                Some(status) if whole(&status) => match open(host, target).await {
                    Ok(open) if open.is_empty() => return status.leader,
                    Ok(open) => why = format!("open: {}", open.join(", ")),
                    Err(error) => why = format!("{error:#}"),
                },
                _ => why = "some node is not healthy, or some shard is missing".to_owned(),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(CALM_LIMIT, waiting).await;
    waited.with_context(|| format!("the cluster did not come to rest within {} s: {why}", CALM_LIMIT.as_secs()))
}

fn whole(status: &resilver_proto::store::StatusResponse) -> bool {
    status.unanswered.is_empty()
        && !status.leader.is_empty()
        && status.nodes.iter().all(|node| node.state == "healthy")
        && status.missing_shards + status.repair_queue + status.repair_in_flight == 0
}

/// What keeps the agents from rest: incidents that are not over, and a lease that nobody holds.
async fn open(host: &Host, target: &Target) -> anyhow::Result<Vec<String>> {
    let mut open = Vec::new();
    for info in &target.hosts {
        let (_, body) = web::call(&host.net, &info.api, "/api/v1/incidents", None, ASK).await?;
        let listed: Value = serde_json::from_slice(&body).with_context(|| format!("{}: no JSON", info.api))?;
        let incidents = listed["incidents"].as_array().context("no list of incidents")?;
        let told = |one: &&Value| one["state"] != "resolved";
        open.extend(incidents.iter().filter(told).map(|one| format!("{} of {}", one["mode"], info.name)));
    }
    if !held(host, target).await? {
        open.push("the lease, which nobody holds".to_owned());
    }
    Ok(open)
}

/// Whether some agent holds the lease.
async fn held(host: &Host, target: &Target) -> anyhow::Result<bool> {
    for info in &target.hosts {
        let (_, body) = web::call(&host.net, &info.api, "/api/v1/status", None, ASK).await?;
        let status: Value = serde_json::from_slice(&body).with_context(|| format!("{}: no JSON", info.api))?;
        if status.pointer("/lease/fence").is_some_and(Value::is_string) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Once {
    fn line(&self, case: Case, run: usize) -> String {
        let time = crate::report::span;
        match &self.why_not {
            Some(why) => format!("{} {run}: NOT recovered: {why}", case.name()),
            None => format!(
                "{} {run}: detected after {}, first step {}, resolved {}: {}",
                case.name(),
                time(self.detected_ms),
                time(self.first_step_ms),
                time(self.resolved_ms),
                report::in_words(&self.steps)
            ),
        }
    }
}
