//! The cluster of the benchmark and what is done to it and seen of it in one outage.

mod disk;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use resilver_host::Host;
use resilver_proto::store::StatusRequest;
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::transport::{self, Profile};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

use super::traffic;
use crate::hosts::{HostCluster, Link, Shape};
use crate::s3::{Access, Condition, Content, Store};

/// The bucket of the traffic.
const BUCKET: &str = "power";
/// Load before the power goes: circuits, connections and latencies are those of a cluster at work.
pub(super) const WARM_UP: Duration = Duration::from_secs(2);
/// How much of an upload is stored when the power goes, in percent.
pub(super) const UPLOAD_SHARE: u64 = 45;
/// Parts of the upload: what the AWS command line makes of a large file.
const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Between two looks at metrics, and two questions about the state.
const LOOK: Duration = Duration::from_millis(50);
/// One question, at most. Far above its target: a late answer is measured, not cut off.
const ASK: Duration = Duration::from_secs(10);
/// How long the cluster may take to be whole again.
const WHOLE: Duration = Duration::from_secs(180);
/// How long circuits may take to close; beyond it none is reported.
const CLOSING: Duration = Duration::from_secs(60);
/// One request of the upload.
const PART_DEADLINE: Duration = Duration::from_secs(120);
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
    pub(super) status_ms: Vec<f64>,
}

/// An upload under way.
pub(super) struct UploadTask {
    begun: Instant,
    bytes: u64,
    sent: Arc<AtomicU64>,
    task: JoinHandle<anyhow::Result<Duration>>,
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
        let hosts = self.cluster.hosts().len();
        if leader {
            return Ok(leads);
        }
        let others: Vec<usize> = (0..hosts).filter(|at| *at != leads).collect();
        Ok(others[turn % others.len()])
    }

    /// The bucket through the doors of everybody else.
    pub(super) async fn doors_without(&self, victim: usize) -> anyhow::Result<Vec<Store>> {
        let mut doors = self.access.stores(&self.host, BUCKET)?;
        doors.remove(victim);
        Ok(doors)
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
            let mut took = Vec::new();
            let asked = self.others(victim).find_map(|at| self.channel(at).ok());
            let Some(channel) = asked else { return took };
            while Instant::now() < until {
                let begun = Instant::now();
                let mut cluster = ClusterClient::new(channel.clone());
                let _ = timeout(ASK, cluster.status(StatusRequest { local: false })).await;
                took.push(begun.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(LOOK).await;
            }
            took
        };
        let over = tokio::time::sleep_until(until);
        let (breaker_open_ms, status_ms, ()) = tokio::join!(breakers, asking, over);
        Seen { breaker_open_ms, status_ms }
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

    /// Begins to store a large object in parts through one door.
    pub(super) fn upload(&self, store: &Store, bytes: u64) -> UploadTask {
        let sent = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(upload(store.clone(), bytes, sent.clone()));
        UploadTask { begun: Instant::now(), bytes, sent, task }
    }

    fn others(&self, victim: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.cluster.hosts().len()).filter(move |at| *at != victim)
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

async fn upload(store: Store, bytes: u64, sent: Arc<AtomicU64>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let upload = store.create_upload(LARGE, PART_DEADLINE).await?;
    let piece = piece();
    let mut etags = Vec::new();
    let mut left = bytes;
    for number in 1u16.. {
        let part = left.min(PART_BYTES);
        if part == 0 {
            break;
        }
        let content = Content::Repeated { piece: piece.clone(), len_bytes: part };
        etags.push(
            store.put_part(&upload, number, content, PART_DEADLINE).await.with_context(|| format!("part {number}"))?,
        );
        left -= part;
        sent.fetch_add(part, Ordering::Relaxed);
    }
    store.complete(&upload, &etags, &Condition::Always, PART_DEADLINE).await.context("completing")?;
    Ok(begun.elapsed())
}

/// Where the upload goes.
const LARGE: &str = "large";

/// What a part repeats. Its length shares no factor with a block's or a stripe's: a block in the wrong place shows.
fn piece() -> Bytes {
    (0u32..).flat_map(|number| number.wrapping_mul(0x9E37_79B9).to_le_bytes()).take(65_521).collect()
}

impl UploadTask {
    /// Waits until so many percent of it are stored, or it ended.
    pub(super) async fn await_share(&self, percent: u64) {
        while self.sent.load(Ordering::Relaxed) * 100 < self.bytes * percent && !self.task.is_finished() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for its end and reads it back through another door. What it took.
    pub(super) async fn finish(self, other: &Store) -> anyhow::Result<Duration> {
        self.task.await.context("its task ended")??;
        let took = self.begun.elapsed();
        let piece = piece();
        let mut expected = 0;
        let mut left = self.bytes;
        while left > 0 {
            let part = left.min(PART_BYTES);
            let whole = part / piece.len() as u64;
            for _ in 0..whole {
                expected = crc32c::crc32c_append(expected, &piece);
            }
            let rest = usize::try_from(part % piece.len() as u64).unwrap_or_default();
            expected = crc32c::crc32c_append(expected, &piece[..rest]);
            left -= part;
        }
        let mut reply = other.get(LARGE, None, PART_DEADLINE * 10).await?;
        let (mut crc, mut len) = (0, 0u64);
        while let Some(data) = reply.piece().await? {
            crc = crc32c::crc32c_append(crc, &data);
            len += data.len() as u64;
        }
        anyhow::ensure!((len, crc) == (self.bytes, expected), "{len} bytes came back, and not those that were stored");
        Ok(took)
    }
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
}
