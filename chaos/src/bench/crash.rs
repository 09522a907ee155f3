//! How soon a killed node is noticed and serves again, and what a killed leader costs clients.

use std::time::Duration;

use anyhow::Context;
use resilver_host::Host;
use tokio::time::Instant;

use super::Figures;
use crate::client::Client;
use crate::faults;
use crate::load::Load;
use crate::target::Target;
use crate::watch::Cursor;

/// The bucket of the load.
const BUCKET: &str = "bench";

/// Writers of the load: they measure the gap, they are not to fill the machine.
const WRITERS: u64 = 2;

/// How long one recovery may take before the benchmark gives up.
const LIMIT: Duration = Duration::from_secs(120);

/// The pause between two kills. The agents' budget is five starts in 30 minutes, 30 s in the fast profile: a node that is
/// killed more often is left to a person, and rightly so.
const PAUSE: Duration = Duration::from_secs(7);

/// How often the state is asked.
const POLL: Duration = Duration::from_millis(10);

/// Kills a follower `runs` times, then the leader `runs` times, each after the one before has healed.
///
/// # Errors
/// When the cluster is not up or does not heal.
pub async fn run(host: &Host, target: &Target, runs: usize) -> anyhow::Result<Vec<Figures>> {
    let client = Client::new(host, target)?;
    client.ensure_bucket(BUCKET, None).await?;
    let mut load = Load::start(&client, BUCKET, 1, WRITERS);
    let mut noticed = [Vec::new(), Vec::new()];
    let mut serves = [Vec::new(), Vec::new()];
    let mut gap = [Vec::new(), Vec::new()];
    for turn in 0..runs * 2 {
        let leader_turn = usize::from(turn % 2 == 1);
        let one = once(host, target, &client, &load, leader_turn == 1, turn).await?;
        noticed[leader_turn].push(one.noticed_ms);
        serves[leader_turn].push(one.serves_ms);
        gap[leader_turn].push(one.gap_ms);
        tokio::time::sleep(PAUSE).await;
    }
    load.stop().await;
    let lost = load.lost(&client, BUCKET, Duration::from_secs(10)).await;
    anyhow::ensure!(lost.is_empty(), "acknowledged writes were lost: {lost:?}");
    let [noticed, leader_noticed] = noticed;
    let [serves, leader_serves] = serves;
    let [gap, leader_gap] = gap;
    Ok([
        Figures::over("killed follower: noticed", "ms", noticed),
        Figures::over("killed follower: serves again", "ms", serves),
        Figures::over("killed follower: longest gap in writes", "ms", gap),
        Figures::over("killed leader: noticed", "ms", leader_noticed),
        Figures::over("killed leader: serves again", "ms", leader_serves),
        Figures::over("killed leader: longest gap in writes", "ms", leader_gap),
    ]
    .into_iter()
    .flatten()
    .collect())
}

struct Once {
    noticed_ms: f64,
    serves_ms: f64,
    gap_ms: f64,
}

async fn once(
    host: &Host,
    target: &Target,
    client: &Client,
    load: &Load,
    leader: bool,
    turn: usize,
) -> anyhow::Result<Once> {
    let name = whole(client).await?;
    let node = if leader {
        target.host(&name).context("the leader is not known")?
    } else {
        let mut followers = target.hosts.iter().filter(|host| host.name != name);
        followers.nth((turn / 2) % (target.hosts.len() - 1)).context("no follower")?
    };
    let mut cursor = Cursor::at_end(host, target).await;
    let killed_ms = host.clock.now().as_millis();
    let killed = Instant::now();
    faults::kill_node(host, client, node).await?;
    let serving = async {
        loop {
            if let Some(seen) = client.observe(&node.name).await
                && seen.started_ms >= killed_ms
                && seen.phase == "healthy"
            {
                return Instant::now();
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let served = tokio::time::timeout(LIMIT, serving).await.context("the node did not serve again")?;
    let mut seen = Vec::new();
    let opened = cursor
        .await_line(host, target, &mut seen, LIMIT, |line| {
            line.kind == "opened" && line.mode == "process_crash" && line.host == node.name
        })
        .await
        .context("no incident was opened")?;
    whole(client).await?;
    Ok(Once {
        noticed_ms: opened.at_ms.saturating_sub(killed_ms) as f64,
        serves_ms: served.duration_since(killed).as_secs_f64() * 1e3,
        gap_ms: longest_gap(load, killed).as_secs_f64() * 1e3,
    })
}

/// The longest time after the kill in which no put was acknowledged.
fn longest_gap(load: &Load, since: Instant) -> Duration {
    let mut last = since;
    let mut longest = Duration::ZERO;
    for put in load.since(since).into_iter().filter(|put| put.acknowledged) {
        longest = longest.max(put.ended.saturating_duration_since(last));
        last = last.max(put.ended);
    }
    longest
}

/// Waits until every node is healthy and nothing is missing. The leader's name.
async fn whole(client: &Client) -> anyhow::Result<String> {
    let waiting = async {
        loop {
            if let Some(status) = client.status().await
                && status.nodes.iter().all(|node| node.state == "healthy")
                && !status.leader.is_empty()
                && status.missing_shards + status.repair_queue + status.repair_in_flight == 0
            {
                return status.leader;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.context("the cluster did not become whole")
}
