//! What an operator may set of an agent. Every value has a name, a unit, a default and a reason.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use resilver_strategies::config::{PolicyConfig, SmartPolicy};
use resilver_strategies::types::Mode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::flight::FlightOptions;

/// Configuration of a recovery agent: the section `agent` of the configuration file.
///
/// What the file says elsewhere (its `nodes:`, its policy) and what only the command knows (how a node is started) is
/// filled in by the command and is no key of this section.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The name of the node it guards; the agent goes by it among agents, too.
    pub name: String,
    /// Where that node answers gRPC, `host:port`.
    pub node_address: String,
    /// Where that node serves /metrics and /health, `host:port`. Only shown, never asked.
    #[serde(default)]
    pub node_http: Option<String>,
    /// Where the agent listens for other agents (gRPC) and how they reach it, `host:port`.
    pub address: String,
    /// Where the agent serves people and programs (HTTP), `host:port`. It has no authentication of its own: keep it on
    /// loopback or a management network.
    pub http: String,
    /// Its state: journal, promises of the lease, records of the node's runs. On a disk that honours fsync, and not on
    /// one of the node's disks.
    pub dir: PathBuf,
    /// How the node runs as a service.
    #[serde(default)]
    pub service: ServiceOptions,
    /// How often the node and the other agents are asked how they are. 1 s: three misses are the 3 s of a suspicion.
    #[serde(default = "default_heartbeat_interval", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub heartbeat_interval: Duration,
    /// When such a question counts as unanswered. 1 s: a node that needs longer to look at itself is not well.
    #[serde(default = "default_heartbeat_deadline", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub heartbeat_deadline: Duration,
    /// Gossip (SWIM) among the agents. Without it hosts are judged by pings alone.
    #[serde(default)]
    pub gossip: Option<Gossip>,
    /// What the disks say of themselves (SMART). Absent: nobody looks, and nothing is known of it.
    #[serde(default)]
    pub smart: Option<SmartSource>,
    /// What is looked at besides the node's answers, and how often.
    #[serde(default)]
    pub sensors: SensorOptions,
    /// The agent's record of decisions.
    #[serde(default)]
    pub journal: JournalOptions,
    /// The flight recorder: what the engine was told, so that incidents can be decided again (`resilver policy replay`).
    #[serde(default)]
    pub flight: FlightOptions,
    /// How often the slow sensors look: from the file's `interval`.
    #[serde(skip, default = "default_interval")]
    pub interval: Duration,
    /// This host's rack, from the file's `node.location`; empty: the host is its own failure domain.
    #[serde(skip)]
    pub rack: String,
    /// All members of the cluster, this one included or not: from the file's `nodes:`.
    #[serde(skip)]
    pub peers: Vec<Peer>,
    /// Thresholds, authorities and the profile: from the file's `profile`, `recovery`, `authority` and `strategies`.
    #[serde(skip)]
    pub policy: PolicyConfig,
    /// How the node is started when the agent is its parent's parent (`service: child`).
    #[serde(skip)]
    pub launch: Launch,
}

/// Gossip among the agents: who of them is heard by anybody at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gossip {
    /// Where the agent listens for datagrams, `address:port`. How the others reach it stands in `nodes:`, key `gossip`.
    pub listen: String,
    /// The key that all datagrams are sealed with: the same file on every host, readable for its owner alone (0600).
    pub key_file: PathBuf,
}

/// What an agent looks at of its host and node, and how often. Detection periods: no profile scales them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SensorOptions {
    /// How often the host is looked at: cores, memory, pressure, descriptors, room. 10 s: what the kernel's pressure is
    /// averaged over.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub host_every: Duration,
    /// How often the node's process is looked at in the process table. 1 s, as heartbeats.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub process_every: Duration,
    /// How often a canary is written and read through the node. 10 s; with more members than that as many seconds as there
    /// are, up to 15, because every canary is three commits of the cluster's metadata.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub canary_every: Duration,
    /// How often the members' metadata is compared; by default the file's `interval`.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub replicas_every: Option<Duration>,
    /// How often logs are looked at. 1 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub logs_every: Duration,
    /// Logs that are followed.
    pub logs: Vec<LogSource>,
}

impl Default for SensorOptions {
    fn default() -> Self {
        Self {
            host_every: Duration::from_secs(10),
            process_every: Duration::from_secs(1),
            canary_every: Duration::from_secs(10),
            replicas_every: None,
            logs_every: Duration::from_secs(1),
            logs: Vec::new(),
        }
    }
}

/// A log that is followed. One of `file` and `unit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogSource {
    /// A file, by absolute path. It may be rotated, by renaming or by copying and cutting, and need not be there yet.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// A unit of systemd, whose journal is read with `journalctl`.
    #[serde(default)]
    pub unit: Option<String>,
    /// What is looked for.
    pub patterns: Vec<LogPattern>,
}

/// Lines that are looked for: plain text, no expressions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogPattern {
    /// What the pattern is called, in evidence and in `GET /api/v1/sensors`.
    pub name: String,
    /// Texts that must all be in the line.
    pub contains: Vec<String>,
    /// Texts of which none may be.
    #[serde(default)]
    pub without: Vec<String>,
    /// The failure mode that such a line is evidence for; absent: for people only.
    #[serde(default)]
    pub mode: Option<Mode>,
}

/// Where the output of `smartctl` comes from. One of `folder` and `command`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SmartSource {
    /// A folder that something privileged keeps filled with outputs, text or JSON, each by the name of its block device:
    /// `sda.json`, `nvme0n1.txt`.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// A program and its first arguments, by absolute path: `--json -x DEVICE` is added to them. It needs the right to open
    /// the devices, which the agent itself does not have where it runs as the unit that ships.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Which device (`/dev/…`) or which file is a disk's, by the disk's folder. Stands against what is found out about the
    /// folder's file system; needed where that is on no device of its own (RAID, ZFS, containers).
    #[serde(default)]
    pub devices: BTreeMap<PathBuf, PathBuf>,
}

/// The limits of a configuration, as the reader of `smartctl` takes them.
pub fn smart_limits(policy: &SmartPolicy) -> resilver_smart::Policy {
    resilver_smart::Policy {
        reallocated_failing: policy.reallocated_failing.into(),
        grown_defects_failing: policy.grown_defects_failing.into(),
        percentage_used_degrading: policy.percentage_used_degrading.into(),
        wear_left_degrading: policy.wear_left_degrading.into(),
    }
}

/// The agent's record of decisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JournalOptions {
    /// The most that the journal may take, in segments of 8 MiB that are reserved one ahead; the oldest goes. At least 24 MiB:
    /// one that is written, one that is whole, one in reserve.
    pub max_bytes: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self { max_bytes: crate::journal::DEFAULT_BYTES }
    }
}

/// Another member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its node's name.
    pub id: String,
    /// Where its node answers gRPC, `host:port`.
    pub address: String,
    /// Where its agent answers gRPC, `host:port`.
    pub agent: String,
    /// Where else its agent answers gRPC: over other networks, one `host:port` each. Asked beside `agent`, so that it is
    /// known which network fails, and turned to while `agent` does not answer.
    #[serde(default)]
    pub agent_also: Vec<String>,
    /// Where its agent gossips, `address:port` with a number as address. Needed of every member where agents gossip.
    #[serde(default)]
    pub gossip: Option<String>,
    /// Where its agent answers HTTP, `host:port`. For people and commands; agents do not use it.
    #[serde(default)]
    pub api: Option<String>,
    /// Its node's data folder on its host. For people and commands; agents do not use it.
    #[serde(default)]
    pub data_dir: Option<PathBuf>,
}

/// Who starts and stops the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// A keeper process, started by the agent and outliving it.
    #[default]
    Child,
    /// systemd, asked through systemctl.
    Systemd,
}

/// How the node runs as a service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceOptions {
    /// Who starts and stops it.
    pub kind: ServiceKind,
    /// The unit's name. Only for `systemd`.
    pub unit: String,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self { kind: ServiceKind::Child, unit: "resilver-node.service".to_owned() }
    }
}

/// A program and its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments, without its own name.
    pub args: Vec<String>,
}

/// How a node is started as a child: `keeper ... -- node ...`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The keeper: the command's own program with the hidden verb. [`crate::keeper::KeeperOptions::to_args`] is
    /// appended to its arguments.
    pub keeper: Invocation,
    /// The node itself.
    pub node: Invocation,
    /// Where the node's output goes.
    pub log: PathBuf,
}

impl Options {
    /// The folder of the keeper's records.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The folder of the flight recorder.
    pub fn flight_dir(&self) -> PathBuf {
        self.dir.join("flight")
    }

    /// The folder of the journal.
    pub fn journal_dir(&self) -> PathBuf {
        self.dir.join("journal")
    }

    /// The failure domain of this host: its rack, or itself.
    pub fn failure_domain(&self) -> String {
        if self.rack.is_empty() { format!("host {}", self.name) } else { format!("rack {}", self.rack) }
    }

    /// The other members: `peers` without this agent itself.
    pub fn others(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(|peer| peer.id != self.name)
    }
}

fn default_heartbeat_interval() -> Duration {
    Duration::from_secs(1)
}

/// Ten minutes: the counters of a disk that dies move within hours, and reading them wakes one that sleeps.
fn default_interval() -> Duration {
    Duration::from_secs(600)
}

fn default_heartbeat_deadline() -> Duration {
    Duration::from_secs(1)
}
