//! The four faults of the demonstration, and how each is judged.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::store::READ_DEADLINE;
use super::{BUCKET, Stage, millis};
use crate::faults;
use crate::load::Load;
use crate::report::{Scenario, Verdict, span};
use crate::target::HostInfo;
use crate::watch::{Cursor, Line};

/// How long a detection may take before it counts as missed.
const DETECTION_LIMIT: Duration = Duration::from_secs(40);

/// How long recovery with proof may take before it counts as failed. The fast profile heals in seconds.
const RECOVERY_LIMIT: Duration = Duration::from_secs(90);

/// How often the state of the cluster is asked while it is awaited.
const POLL: Duration = Duration::from_millis(25);

/// A shard file worth damaging is at least this long.
const WORTH_DAMAGING_BYTES: u64 = 256 * 1024;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    KillNode,
    KillLeader,
    WipeDisk,
    FlipBytes,
}

/// What came before the judgement.
struct Injected {
    name: String,
    mode: &'static str,
    at: Instant,
    at_ms: u64,
    aim: Aim,
}

/// What the fault was aimed at: by it service and redundancy are judged.
enum Aim {
    Process { host: String },
    Disk { host: String, probe: String },
    Shard { host: String, key: String },
}

impl Fault {
    pub(super) const ALL: &[Fault] = &[Fault::KillNode, Fault::KillLeader, Fault::WipeDisk, Fault::FlipBytes];
}

impl Stage<'_> {
    /// Breaks, watches, judges.
    pub(super) async fn play(&self, fault: Fault, load: &Load) -> anyhow::Result<Scenario> {
        self.await_calm().await?;
        let mut cursor = Cursor::at_end(self.host, self.target).await;
        let injected = self.inject(fault).await?;
        (self.say)(&format!("{}: {}", injected.mode, injected.name));
        let mut seen = Vec::new();
        // Service is watched while the journals are: a recovery is short, and what is asked late is measured long.
        let (detected, service) =
            tokio::join!(self.detected(&mut cursor, &mut seen, &injected), self.service_back(&injected, load));
        let mut scenario = Scenario {
            name: injected.name.clone(),
            mode: injected.mode.to_owned(),
            detected_by: detected.as_ref().map(detected_by),
            mttd_ms: detected.as_ref().map(|line| line.at_ms.saturating_sub(injected.at_ms)),
            mttr_service_ms: service.map(millis),
            mttr_redundancy_ms: None,
            steps: vec![],
            lost_writes: None,
            verdict: Verdict::Failed,
            notes: vec![],
        };
        if let Some(detected) = &detected {
            (self.say)(&format!("  detected after {} by {}", span(scenario.mttd_ms), detected_by(detected)));
            self.judge(&mut scenario, &mut cursor, &mut seen, &injected, detected).await?;
        } else {
            scenario.notes.push(format!("no agent opened an incident within {} s", DETECTION_LIMIT.as_secs()));
        }
        let lost = load.lost(self.client, BUCKET, READ_DEADLINE).await;
        scenario.lost_writes = Some(lost.len() as u64);
        scenario.notes.extend(lost.iter().take(3).cloned());
        let measured = scenario.mttr_service_ms.is_some() && scenario.mttr_redundancy_ms.is_some();
        if measured && lost.is_empty() && scenario.notes.is_empty() {
            scenario.verdict = Verdict::Recovered;
        }
        (self.say)(&format!(
            "  service back after {}, redundancy after {}",
            span(scenario.mttr_service_ms),
            span(scenario.mttr_redundancy_ms)
        ));
        Ok(scenario)
    }

    async fn detected(&self, cursor: &mut Cursor, seen: &mut Vec<Line>, injected: &Injected) -> Option<Line> {
        let host = injected.aim.host();
        cursor
            .await_line(self.host, self.target, seen, DETECTION_LIMIT, |line| {
                line.kind == "opened" && line.mode == injected.mode && line.host == host
            })
            .await
    }

    async fn judge(
        &self,
        scenario: &mut Scenario,
        cursor: &mut Cursor,
        seen: &mut Vec<Line>,
        injected: &Injected,
        detected: &Line,
    ) -> anyhow::Result<()> {
        let incident = detected.incident.clone();
        let resolved = cursor
            .await_line(self.host, self.target, seen, RECOVERY_LIMIT, |line| {
                line.incident == incident && line.host == detected.host && line.kind == "resolved"
            })
            .await;
        if resolved.is_none() {
            scenario.notes.push(format!("incident {incident} was not resolved within {} s", RECOVERY_LIMIT.as_secs()));
        }
        match tokio::time::timeout(RECOVERY_LIMIT, self.redundant(injected)).await {
            Ok(Ok(())) => scenario.mttr_redundancy_ms = Some(millis(injected.at.elapsed())),
            Ok(Err(error)) => scenario.notes.push(format!("redundancy could not be proven: {error:#}")),
            Err(_) => scenario.notes.push(format!("not fully redundant after {} s", RECOVERY_LIMIT.as_secs())),
        }
        scenario.steps = seen
            .iter()
            .filter(|line| line.host == detected.host && line.incident == incident)
            .filter(|line| line.kind == "outcome" || line.kind == "reconciled")
            .map(|line| line.action.clone())
            .collect();
        Ok(())
    }

    async fn inject(&self, fault: Fault) -> anyhow::Result<Injected> {
        let status = self.client.status().await.context("no node answers")?;
        let leader = status.leader.clone();
        match fault {
            Fault::KillNode => {
                let node = self.follower(&leader, 0)?;
                self.kill("kill a node", node).await
            }
            Fault::KillLeader => {
                let node = self.target.host(&leader).with_context(|| format!("leader {leader:?} is not known"))?;
                self.kill("kill the leader", node).await
            }
            Fault::WipeDisk => self.wipe(self.follower(&leader, 1)?).await,
            Fault::FlipBytes => self.flip().await,
        }
    }

    fn follower(&self, leader: &str, nth: usize) -> anyhow::Result<&HostInfo> {
        let mut followers = self.target.hosts.iter().filter(|host| host.name != leader);
        followers.nth(nth).context("the cluster has too few nodes for this scenario")
    }

    async fn kill(&self, what: &str, node: &HostInfo) -> anyhow::Result<Injected> {
        let at_ms = self.host.clock.now().as_millis();
        let at = Instant::now();
        let pid = faults::kill_node(self.host, self.client, node).await?;
        Ok(Injected {
            name: format!("{what} ({}, pid {pid}, SIGKILL)", node.name),
            mode: "process_crash",
            at,
            at_ms,
            aim: Aim::Process { host: node.name.clone() },
        })
    }

    async fn wipe(&self, node: &HostInfo) -> anyhow::Result<Injected> {
        let path = node.disks.last().with_context(|| format!("{} has no disk", node.name))?.clone();
        let probe = self.object_with_shard_on(node, &path).await?;
        let at_ms = self.host.clock.now().as_millis();
        let at = Instant::now();
        let files = faults::wipe_disk(self.host, self.target, &path).await?;
        let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Injected {
            name: format!("wipe a disk ({} {folder}, {files} files)", node.name),
            mode: "disk_failure",
            at,
            at_ms,
            aim: Aim::Disk { host: node.name.clone(), probe },
        })
    }

    /// The key of an object that has a shard on this disk: reading it right after the wipe is the client's view.
    async fn object_with_shard_on(&self, node: &HostInfo, disk: &std::path::Path) -> anyhow::Result<String> {
        for item in self.items {
            let verified = self.client.verify(BUCKET, &item.key).await?;
            let version = verified.object.map(|object| object.version).unwrap_or_default();
            let here = verified.shards.iter().any(|shard| shard.node == node.name && shard.shard < 4);
            if here && faults::find_file(self.host, disk, &version).await?.is_some() {
                return Ok(item.key.clone());
            }
        }
        anyhow::bail!("no object has a shard on {}", disk.display())
    }

    async fn flip(&self) -> anyhow::Result<Injected> {
        let item = self
            .items
            .iter()
            .filter(|item| item.size_bytes >= WORTH_DAMAGING_BYTES)
            .min_by_key(|item| item.size_bytes)
            .or_else(|| self.items.iter().max_by_key(|item| item.size_bytes))
            .context("nothing is stored")?;
        let verified = self.client.verify(BUCKET, &item.key).await?;
        let version = verified.object.map(|object| object.version).unwrap_or_default();
        // A parity shard: no client reads it while the data shards are well, so that only the scrub can find the damage.
        let parity = verified.shards.iter().rfind(|shard| shard.state == "ok");
        let shard = parity.context("no shard is ok")?;
        let host = self.target.host(&shard.node).context("a shard on an unknown node")?;
        let name = format!("{version}-{}-{}", shard.extent, shard.shard);
        for disk in &host.disks {
            let Some(path) = faults::find_file(self.host, disk, &name).await? else { continue };
            let at_ms = self.host.clock.now().as_millis();
            let at = Instant::now();
            let offset = faults::flip_bytes(self.host, self.target, &path).await?;
            return Ok(Injected {
                name: format!("flip bytes (shard {} of {} on {}, offset {offset})", shard.shard, item.key, host.name),
                mode: "data_corruption",
                at,
                at_ms,
                aim: Aim::Shard { host: host.name.clone(), key: item.key.clone() },
            });
        }
        anyhow::bail!("the file of shard {name} was not found on {}", host.name)
    }

    /// When clients were served as before: how long after the fault, `None` when not within the limit.
    async fn service_back(&self, injected: &Injected, load: &Load) -> Option<Duration> {
        let waiting = async {
            match &injected.aim {
                // The node serves again itself, and a client's write that began after the fault was acknowledged.
                Aim::Process { host } => {
                    let node = self.serves_again(host, injected.at_ms);
                    let clients = first_acknowledged(load, injected.at);
                    let (node, client) = tokio::join!(node, clients);
                    node.max(client)
                }
                Aim::Disk { probe: key, .. } | Aim::Shard { key, .. } => loop {
                    if self.client.get_crc(BUCKET, key, READ_DEADLINE).await.is_ok() {
                        return Instant::now();
                    }
                    tokio::time::sleep(POLL).await;
                },
            }
        };
        let back = tokio::time::timeout(RECOVERY_LIMIT, waiting).await.ok()?;
        Some(back.duration_since(injected.at))
    }

    async fn serves_again(&self, node: &str, killed_ms: u64) -> Instant {
        loop {
            if let Some(seen) = self.client.observe(node).await
                && seen.started_ms >= killed_ms
                && seen.phase == "healthy"
            {
                return Instant::now();
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Resolves once nothing is missing by metadata, nothing waits for repair, and what the fault touched reads back from
    /// disk whole.
    async fn redundant(&self, injected: &Injected) -> anyhow::Result<()> {
        loop {
            if let Some(status) = self.client.status().await
                && status.unanswered.is_empty()
                && status.missing_shards == 0
                && status.repair_queue + status.repair_in_flight == 0
                && self.touched_is_intact(injected).await?
            {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn touched_is_intact(&self, injected: &Injected) -> anyhow::Result<bool> {
        let keys: BTreeSet<&str> = match &injected.aim {
            // Which objects missed a shard while the node was away is told by metadata; the load's are among them.
            Aim::Process { .. } => BTreeSet::new(),
            Aim::Disk { .. } => self.items.iter().map(|item| item.key.as_str()).collect(),
            Aim::Shard { key, .. } => BTreeSet::from([key.as_str()]),
        };
        for key in keys {
            let verified = self.client.verify(BUCKET, key).await?;
            if !verified.intact {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Waits until the cluster is whole, so that one fault does not answer for another.
    async fn await_calm(&self) -> anyhow::Result<()> {
        let calm = async {
            loop {
                if let Some(status) = self.client.status().await
                    && status.unanswered.is_empty()
                    && !status.leader.is_empty()
                    && status.nodes.iter().all(|node| node.state == "healthy")
                    && status.missing_shards == 0
                    && status.repair_queue + status.repair_in_flight == 0
                {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(RECOVERY_LIMIT, calm).await.context("the cluster was not whole before the next fault")
    }
}

impl Aim {
    fn host(&self) -> &str {
        match self {
            Self::Process { host } | Self::Disk { host, .. } | Self::Shard { host, .. } => host,
        }
    }
}

/// When the first put that began after the fault was acknowledged.
async fn first_acknowledged(load: &Load, since: Instant) -> Instant {
    loop {
        let puts = load.since(since);
        if let Some(put) = puts.iter().find(|put| put.acknowledged && put.begun >= since) {
            return put.ended;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Who and how, short: evidence begins with the sensor's name.
fn detected_by(line: &Line) -> String {
    match line.details.get("evidence").and_then(serde_json::Value::as_str) {
        Some(evidence) => format!("{}: {}", line.host, evidence.split(':').next().unwrap_or(evidence)),
        None => line.host.clone(),
    }
}
