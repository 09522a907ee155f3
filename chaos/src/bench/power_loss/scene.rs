//! The cluster of the benchmark and what is done to it and seen of it in one outage.

mod disk;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use resilver_host::Host;
use resilver_proto::store::StatusRequest;
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::transport::{self, Profile};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

use super::evidence::{Before, Evidence};
use super::{boto3, saturated, traffic};
use crate::hosts::{HostCluster, Link, Saturated, Shape};
use crate::s3::{Access, Store};

/// The bucket of the traffic.
const BUCKET: &str = "power";
/// Load before the power goes: circuits, connections and latencies are those of a cluster at work.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);
/// Between two looks at metrics, and two questions about the state.
const LOOK: Duration = Duration::from_millis(50);
/// One question, at most. Far above its target: a late answer is measured, not cut off.
const ASK: Duration = Duration::from_secs(10);
/// How long the cluster may take to be whole again.
const WHOLE: Duration = Duration::from_secs(180);
/// How long circuits may take to close; beyond it none is reported.
const CLOSING: Duration = Duration::from_secs(60);
/// An answer of /metrics is smaller than this.
const MAX_METRICS_BYTES: usize = 1024 * 1024;

pub(super) struct Scene {
    host: Host,
    cluster: HostCluster,
    access: Access,
}

/// What was seen while the power was off.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) breaker_open_ms: Option<f64>,
    /// When the first of the others had counted a failure, as cascades are made of.
    pub(super) counted_ms: Option<f64>,
    pub(super) status_ms: Vec<f64>,
    /// Nodes that the cluster called down or out.
    pub(super) convicted: BTreeSet<String>,
}

impl Scene {
    /// A whole cluster with the objects that will be read.
    pub(super) async fn open(host: &Host, dir: &Path, binary: &Path, shape: Shape) -> anyhow::Result<Self> {
        let cluster = HostCluster::start(host, dir, binary, shape).await?;
        let all: Vec<usize> = (0..shape.nodes).collect();
        let access = cluster.access(&all).await?;
        let store = access.stores(host, BUCKET)?.swap_remove(0);
        store.ensure_bucket(ASK).await?;
        traffic::prepare(&store).await?;
        saturated::prepare(&store).await?;
        Ok(Self { host: host.clone(), cluster, access })
    }

    /// The end of it.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        self.cluster.end().await
    }

    /// Who is to lose its power: the leader, or one of the others in turn.
    pub(super) async fn victim(&self, leader: bool, turn: usize) -> anyhow::Result<usize> {
        let status = self.cluster.await_whole(WHOLE).await?;
        let leads = self.cluster.index(&status.leader).context("the leader is no host of ours")?;
        if leader {
            return Ok(leads);
        }
        let others: Vec<usize> = (0..self.cluster.target().hosts.len()).filter(|at| *at != leads).collect();
        Ok(others[turn % others.len()])
    }

    /// The bucket through every door.
    pub(super) fn doors(&self) -> anyhow::Result<Vec<Store>> {
        Ok(self.access.stores(&self.host, BUCKET)?)
    }

    /// The bucket through the doors of everybody else.
    pub(super) fn doors_without(&self, victim: usize) -> anyhow::Result<Vec<Store>> {
        let mut doors = self.doors()?;
        doors.remove(victim);
        Ok(doors)
    }

    /// A load of boto3, on a host that has no node, through the doors of everybody but the victim.
    pub(super) async fn boto3(&self, python: &Path, victim: usize) -> anyhow::Result<boto3::Load> {
        let mut access = self.access.clone();
        access.endpoints.remove(victim);
        let target = self.cluster.target();
        // The hosts without a node come after those with one.
        boto3::Load::start(&self.host, self.cluster.hosts(), target.hosts.len(), &target.dir, python, &access, BUCKET)
            .await
    }

    /// Where the agents' journals end now.
    pub(super) async fn journals(&self) -> Before {
        Before::now(&self.host, self.cluster.target()).await
    }

    /// What the agents made of what happened since.
    pub(super) async fn evidence(&self, before: Before) -> anyhow::Result<Evidence> {
        before.evidence(&self.host, self.cluster.target()).await
    }

    /// Shards that each node rebuilt or fetched since it started.
    pub(super) async fn rebuilt(&self) -> Vec<u64> {
        let mut all = Vec::new();
        for at in 0..self.cluster.target().hosts.len() {
            let text = timeout(ASK, self.metrics(at)).await.ok().and_then(Result::ok).unwrap_or_default();
            all.push(completed(&text));
        }
        all
    }

    /// Takes a host's processor away.
    pub(super) async fn saturate(&self, victim: usize, span: Duration) -> anyhow::Result<Saturated> {
        let log = self.cluster.target().dir.join("saturation.log");
        self.cluster.hosts().saturate(victim, span, &log).await
    }

    pub(super) async fn power_off(&self, victim: usize) -> anyhow::Result<()> {
        self.cluster.hosts().power_off(victim).await
    }

    pub(super) async fn power_on(&self, victim: usize) -> anyhow::Result<()> {
        self.cluster.hosts().power_on(victim).await?;
        self.cluster.start_agent(victim).await
    }

    /// From now on nothing arrives that the host sends to the others.
    pub(super) async fn mute(&self, victim: usize) -> anyhow::Result<()> {
        for other in self.others(victim) {
            self.cluster.hosts().impair(victim, other, Link::Cut).await?;
        }
        Ok(())
    }

    /// From now on packets between the host and the others are lost, both ways.
    pub(super) async fn lose(&self, victim: usize, percent: u8) -> anyhow::Result<()> {
        for other in self.others(victim) {
            self.cluster.hosts().impair(victim, other, Link::Lossy(percent)).await?;
            self.cluster.hosts().impair(other, victim, Link::Lossy(percent)).await?;
        }
        Ok(())
    }

    /// The network is well again.
    pub(super) async fn mend(&self) -> anyhow::Result<()> {
        self.cluster.hosts().mend().await
    }

    /// Looks at the circuits and asks for the state until the outage is over.
    pub(super) async fn watch_outage(&self, victim: usize, off: Instant, outage: Duration) -> Seen {
        let until = off + outage;
        let breakers = async {
            while Instant::now() < until {
                if self.circuits(victim, "open").await {
                    return Some((Instant::now() - off).as_secs_f64() * 1e3);
                }
                tokio::time::sleep(LOOK).await;
            }
            None
        };
        let asking = async {
            let (mut took, mut convicted) = (Vec::new(), BTreeSet::new());
            let asked = self.others(victim).find_map(|at| self.channel(at).ok());
            let Some(channel) = asked else { return (took, convicted) };
            while Instant::now() < until {
                let begun = Instant::now();
                let mut cluster = ClusterClient::new(channel.clone());
                let answer = timeout(ASK, cluster.status(StatusRequest { local: false })).await;
                took.push(begun.elapsed().as_secs_f64() * 1e3);
                if let Ok(Ok(answer)) = answer {
                    let nodes = answer.into_inner().nodes.into_iter();
                    convicted.extend(nodes.filter(|node| Evidence::convicts(&node.state)).map(|node| node.node));
                }
                tokio::time::sleep(LOOK).await;
            }
            (took, convicted)
        };
        let counting = async {
            let before = self.failures(victim).await;
            while Instant::now() < until {
                let now = self.failures(victim).await;
                if now.iter().zip(&before).any(|(now, before)| now > before) {
                    return Some((Instant::now() - off).as_secs_f64() * 1e3);
                }
                tokio::time::sleep(LOOK).await;
            }
            None
        };
        let over = tokio::time::sleep_until(until);
        let (breaker_open_ms, counted_ms, (status_ms, convicted), ()) = tokio::join!(breakers, counting, asking, over);
        Seen { breaker_open_ms, counted_ms, status_ms, convicted }
    }

    /// When all circuits to the host were closed again, in milliseconds since `on`.
    pub(super) async fn await_breakers_closed(&self, victim: usize, on: Instant) -> Option<f64> {
        while on.elapsed() < CLOSING {
            if self.circuits(victim, "closed").await {
                return Some(on.elapsed().as_secs_f64() * 1e3);
            }
            tokio::time::sleep(LOOK).await;
        }
        None
    }

    pub(super) async fn await_whole(&self, on: Instant) -> anyhow::Result<f64> {
        self.cluster.await_whole(WHOLE).await?;
        Ok(on.elapsed().as_secs_f64() * 1e3)
    }

    fn others(&self, victim: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.cluster.target().hosts.len()).filter(move |at| *at != victim)
    }

    fn channel(&self, at: usize) -> anyhow::Result<Channel> {
        Ok(transport::channel(&self.host.net, &self.cluster.target().hosts[at].address, Profile::Bulk)?)
    }

    /// Whether every other node says that its circuits to the host are in this state.
    async fn circuits(&self, victim: usize, state: &str) -> bool {
        let peer = &self.cluster.target().hosts[victim].name;
        for at in self.others(victim) {
            let Ok(Ok(text)) = timeout(ASK, self.metrics(at)).await else { return false };
            if !in_state(&text, peer, state) {
                return false;
            }
        }
        true
    }

    /// Failures that each of the other nodes has counted, as cascades are made of.
    async fn failures(&self, victim: usize) -> Vec<u64> {
        let mut all = Vec::new();
        for at in self.others(victim) {
            let text = timeout(ASK, self.metrics(at)).await.ok().and_then(Result::ok).unwrap_or_default();
            all.push(failures(&text));
        }
        all
    }

    async fn metrics(&self, at: usize) -> anyhow::Result<String> {
        let address = &self.cluster.target().hosts[at].http;
        let mut stream = self.host.net.connect(address).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MAX_METRICS_BYTES as u64).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Whether all circuits to the peer are in this state, by what a node's metrics say.
fn in_state(metrics: &str, peer: &str, state: &str) -> bool {
    let (peer, state) = (format!("peer=\"{peer}\""), format!("state=\"{state}\""));
    let mut found = metrics
        .lines()
        .filter(|line| {
            line.starts_with("resilver_circuit_breaker_state{") && line.contains(&peer) && line.contains(&state)
        })
        .peekable();
    found.peek().is_some() && found.all(|line| line.ends_with(" 1"))
}

/// The failures that a node has counted, of whatever type.
fn failures(metrics: &str) -> u64 {
    let counted = metrics.lines().filter(|line| line.starts_with("resilver_cascading_failure_events_total{"));
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// The shards that a node says it has rebuilt or fetched.
fn completed(metrics: &str) -> u64 {
    let name = "resilver_repair_shards_total{result=\"completed\"} ";
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
}

/// Shards rebuilt between two readings. What a host counted before it lost its power is gone with its process.
pub(super) fn rebuilt_between(before: &[u64], after: &[u64], restarted: Option<usize>) -> u64 {
    let since = |at: usize| if restarted == Some(at) { 0 } else { before.get(at).copied().unwrap_or(0) };
    after.iter().enumerate().map(|(at, count)| count.saturating_sub(since(at))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_of_a_peer_must_be_in_the_state() {
        let line = |peer: &str, profile: &str, state: &str, value: u8| {
            format!(
                "resilver_circuit_breaker_state{{peer=\"{peer}\",profile=\"{profile}\",state=\"{state}\"}} {value}\n"
            )
        };
        let text =
            line("n1", "control", "open", 1) + &line("n1", "bulk", "open", 0) + &line("n2", "control", "open", 1);
        assert!(!in_state(&text, "n1", "open") && in_state(&text, "n2", "open"));
        assert!(!in_state(&text, "n3", "open"), "a peer of which nothing is said");
    }
    #[test]
    fn what_a_restarted_node_counted_before_is_not_taken_off() {
        assert_eq!(rebuilt_between(&[5, 9, 1], &[7, 4, 1], Some(1)), 2 + 4);
        assert_eq!(rebuilt_between(&[5, 9], &[7, 9], None), 2);
        let text = "# TYPE resilver_repair_shards_total counter\nresilver_repair_shards_total{result=\"completed\"} 41\n\
                    resilver_repair_shards_total{result=\"failed\"} 3\n";
        assert_eq!((completed(text), completed("")), (41, 0));
        let text = "resilver_cascading_failure_events_total{type=\"peer_unreachable\",component=\"peers\"} 2\n\
                    resilver_cascading_failure_events_total{type=\"lock_timeout\",component=\"locks\"} 1\n";
        assert_eq!((failures(text), failures("")), (3, 0));
    }
}
