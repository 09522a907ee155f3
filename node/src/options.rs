//! What an operator may set of a node. Every value has a name, a unit, a default and a reason.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of a storage node: the section `node` of the configuration file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// The node's name, unique in its cluster.
    pub name: String,
    /// Where it listens for gRPC and how others reach it, `host:port`.
    pub address: String,
    /// Where it serves /metrics and /health, `host:port`.
    pub http: String,
    /// Its metadata: log, vote, database, snapshots. On a disk that honours fsync.
    pub data_dir: PathBuf,
    /// One folder per disk, each on a file system of its own in production.
    pub disks: Vec<PathBuf>,
    /// Addresses of members to ask for admission. Not needed once it is in a cluster.
    #[serde(default)]
    pub join: Vec<String>,
    /// Where it stands.
    #[serde(default)]
    pub location: LocationOptions,
    /// Scrubbing.
    #[serde(default)]
    pub scrub: ScrubOptions,
    /// Repairing.
    #[serde(default)]
    pub repair: RepairOptions,
    /// How long replaced versions stay readable: the longest time a read may take.
    #[serde(default = "default_read_deadline", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub read_deadline: Duration,
}

/// Failure domains above the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LocationOptions {
    /// Datacenter.
    pub datacenter: String,
    /// Rack.
    pub rack: String,
}

/// How often every byte is read, whether anyone asks for it or not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubOptions {
    /// One pass over all shards takes at least this long. 14 days: often enough that two disks rarely rot at one place
    /// within one pass.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub period: Duration,
    /// The most it reads, bytes per second and disk. 50 MB/s leaves a spinning disk most of its time.
    pub rate_bytes_per_second: u64,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        Self { period: Duration::from_secs(14 * 86_400), rate_bytes_per_second: 50_000_000 }
    }
}

/// How fast redundancy is brought back.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RepairOptions {
    /// Shards rebuilt side by side on one node. Four: while one waits for its peers another computes and two sync; two
    /// left disk and network idle half of the time.
    pub in_flight: usize,
    /// The most it writes, bytes per second and node. 400 MB/s: above what one disk takes, so the disk is the limit.
    pub rate_bytes_per_second: u64,
    /// How often the node compares what it should hold with what it holds (names and sizes; contents are the scrub's).
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub check_interval: Duration,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self { in_flight: 4, rate_bytes_per_second: 400_000_000, check_interval: Duration::from_secs(10) }
    }
}

fn default_read_deadline() -> Duration {
    Duration::from_secs(300)
}
