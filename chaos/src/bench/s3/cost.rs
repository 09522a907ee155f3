//! Where the time goes: processor time of client and nodes, what the disk was made to write, what the machine waited for,
//! and the nodes' own timings.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use resilver_host::Host;
use resilver_proto::web;
use serde::Serialize;
use tokio::time::Instant;

use super::super::procfs::{self, Cpu, Machine};
use crate::client::Client;
use crate::target::Target;

/// How long a node may take to give its metrics.
const METRICS_DEADLINE: Duration = Duration::from_secs(5);

/// Timings below this share of all are not worth a line.
const LEAST_SHARE: f64 = 0.01;

/// The processes whose cost is counted.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    pub(super) client: u32,
    /// In the order of the target's hosts.
    pub(super) nodes: Vec<u32>,
    http: Vec<String>,
}

/// Everything counted, at one moment.
pub(super) struct Reading {
    at: Instant,
    client: Cpu,
    nodes: Cpu,
    written_bytes: f64,
    machine: Machine,
    timings: BTreeMap<String, f64>,
}

/// What a stretch of work cost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    /// How long it was.
    pub seconds: f64,
    /// Processor seconds of the client, in its own code.
    pub client_user: f64,
    /// And in the kernel.
    pub client_system: f64,
    /// Processor seconds of all nodes, in their own code.
    pub nodes_user: f64,
    /// And in the kernel.
    pub nodes_system: f64,
    /// Processor seconds of everything else on the machine: agents, and whoever else was there.
    pub others: f64,
    /// Core seconds in which nothing ran and something waited for a disk.
    pub disk_wait: f64,
    /// Core seconds in which nothing ran.
    pub idle: f64,
    /// Core seconds that the host beneath took.
    pub stolen: f64,
    /// Bytes the nodes made the disk write.
    pub written_bytes: f64,
    /// The nodes' own timings, as they name them: seconds.
    pub timings: BTreeMap<String, f64>,
}

impl Meter {
    /// Of all nodes of the target and this process.
    pub(super) async fn new(host: &Host, target: &Target, client: &Client) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for info in &target.hosts {
            let seen = client.observe(&info.name).await.with_context(|| format!("{} does not answer", info.name))?;
            nodes.push(seen.pid);
        }
        let http = target.hosts.iter().map(|info| info.http.clone()).collect();
        Ok(Self { client: host.proc.own().pid, nodes, http })
    }

    pub(super) async fn read(&self, host: &Host) -> anyhow::Result<Reading> {
        let (mut nodes, mut written_bytes) = (Cpu::default(), 0.0);
        for pid in &self.nodes {
            let ended = || format!("the node of process {pid} has ended while it was measured");
            let cpu = procfs::cpu(host, *pid).await.with_context(ended)?;
            nodes.user += cpu.user;
            nodes.system += cpu.system;
            written_bytes += procfs::written_bytes(host, *pid).await.with_context(ended)?;
        }
        Ok(Reading {
            at: Instant::now(),
            client: procfs::cpu(host, self.client).await?,
            nodes,
            written_bytes,
            machine: procfs::machine(host).await?,
            timings: self.timings(host).await?,
        })
    }

    /// What has been spent since.
    pub(super) async fn since(&self, host: &Host, before: &Reading) -> anyhow::Result<Cost> {
        Ok(before.until(&self.read(host).await?))
    }

    /// All counters of seconds that the nodes show, summed over the nodes.
    async fn timings(&self, host: &Host) -> anyhow::Result<BTreeMap<String, f64>> {
        let mut sums = BTreeMap::new();
        for address in &self.http {
            let (status, page) = web::call(&host.net, address, "/metrics", None, METRICS_DEADLINE).await?;
            anyhow::ensure!(status == 200, "{address} answers {status} for its metrics");
            for (name, seconds) in String::from_utf8_lossy(&page).lines().filter_map(timing) {
                *sums.entry(name).or_insert(0.0) += seconds;
            }
        }
        Ok(sums)
    }
}

/// A counter of seconds: `resilver_NAME_seconds_total{labels} 1.5`, or the sum of a histogram of seconds.
fn timing(line: &str) -> Option<(String, f64)> {
    let (series, value) = line.strip_prefix("resilver_")?.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let short = name.strip_suffix("_seconds_total").or_else(|| name.strip_suffix("_seconds_sum"))?;
    let labels: Vec<&str> = labels.split('"').skip(1).step_by(2).collect();
    let name = if labels.is_empty() { short.to_owned() } else { format!("{short} {}", labels.join(" ")) };
    Some((name, value.parse().ok()?))
}

impl Reading {
    fn until(&self, after: &Self) -> Cost {
        let (client, nodes) = (difference(self.client, after.client), difference(self.nodes, after.nodes));
        let ours = client.user + client.system + nodes.user + nodes.system;
        let spent = |name: &String, after: f64| after - self.timings.get(name).unwrap_or(&0.0);
        Cost {
            seconds: after.at.duration_since(self.at).as_secs_f64(),
            client_user: client.user,
            client_system: client.system,
            nodes_user: nodes.user,
            nodes_system: nodes.system,
            others: (after.machine.busy - self.machine.busy - ours).max(0.0),
            disk_wait: after.machine.disk_wait - self.machine.disk_wait,
            idle: after.machine.idle - self.machine.idle,
            stolen: after.machine.stolen - self.machine.stolen,
            written_bytes: after.written_bytes - self.written_bytes,
            timings: after.timings.iter().map(|(name, sum)| (name.clone(), spent(name, *sum))).collect(),
        }
    }
}

fn difference(before: Cpu, after: Cpu) -> Cpu {
    Cpu { user: after.user - before.user, system: after.system - before.system }
}

impl Cost {
    /// Two stretches together.
    pub(super) fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.client_user += other.client_user;
        self.client_system += other.client_system;
        self.nodes_user += other.nodes_user;
        self.nodes_system += other.nodes_system;
        self.others += other.others;
        self.disk_wait += other.disk_wait;
        self.idle += other.idle;
        self.stolen += other.stolen;
        self.written_bytes += other.written_bytes;
        for (name, seconds) in &other.timings {
            *self.timings.entry(name.clone()).or_insert(0.0) += seconds;
        }
    }

    /// In words: shares of the machine's core time, and what one of `operations` of `bytes` in all cost.
    pub(super) fn lines(&self, operations: u64, bytes: f64) -> String {
        let all = self.client_user
            + self.client_system
            + self.nodes_user
            + self.nodes_system
            + self.others
            + self.disk_wait
            + self.idle
            + self.stolen;
        let share = |seconds: f64| 100.0 * seconds / all.max(f64::MIN_POSITIVE);
        let each = |seconds: f64| 1e3 * seconds / operations.max(1) as f64;
        let mut text = format!(
            "  cores: nodes {:.0}% (kernel {:.0}%), client {:.0}%, others {:.0}%, waiting for the disk {:.0}%, idle \
             {:.0}%, stolen {:.0}%\n  each: nodes {:.2} ms ({:.2} ms in the kernel), client {:.2} ms",
            share(self.nodes_user + self.nodes_system),
            share(self.nodes_system),
            share(self.client_user + self.client_system),
            share(self.others),
            share(self.disk_wait),
            share(self.idle),
            share(self.stolen),
            each(self.nodes_user + self.nodes_system),
            each(self.nodes_system),
            each(self.client_user + self.client_system),
        );
        if bytes > 0.0 && self.written_bytes > 0.0 {
            text += &format!("; the nodes wrote {:.1} times the content to files", self.written_bytes / bytes);
        }
        text.push('\n');
        let total: f64 = self.timings.values().sum();
        let mut timings: Vec<_> = self.timings.iter().filter(|(_, spent)| **spent > LEAST_SHARE * total).collect();
        timings.sort_by(|one, other| other.1.total_cmp(one.1));
        if !timings.is_empty() {
            let each: Vec<String> =
                timings.iter().map(|(name, spent)| format!("{name} {:.2} ms", each(**spent))).collect();
            text += &format!("  the nodes' own timings, each: {}\n", each.join(", "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_seconds_are_found_among_the_metrics() {
        let one = timing("resilver_put_seconds_total{stage=\"commit\"} 1.5");
        assert_eq!(one, Some(("put commit".to_owned(), 1.5)));
        assert_eq!(timing("resilver_gc_seconds_sum 2"), Some(("gc".to_owned(), 2.0)));
        assert_eq!(timing("resilver_shards_missing 7"), None);
        assert_eq!(timing("# HELP resilver_put_seconds_total of puts"), None);
    }
}
