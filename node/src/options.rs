//! What an operator may set of a node. Every value has a name, a unit, a default and a reason.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::deadlines::{Deadlines, Defences};

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
    /// Where what is left of its metadata is kept when it comes back as a learner: `recovery.dir` of the configuration. `None`:
    /// in `aside/` of `data_dir`.
    #[serde(skip)]
    pub aside: Option<PathBuf>,
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
    /// Reading the metadata back.
    #[serde(default)]
    pub metadata_scrub: MetadataScrubOptions,
    /// Repairing.
    #[serde(default)]
    pub repair: RepairOptions,
    /// How long replaced versions stay readable: the longest time a read may take.
    #[serde(default = "default_read_deadline", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub read_deadline: Duration,
    /// How long an upload in parts may be left alone, without a part being put, before it is aborted and its parts are
    /// collected. 7 days: a client that was to come back after a weekend has, and what nobody completes does not fill the
    /// disks for ever.
    #[serde(default = "default_abandoned_uploads_after", with = "humantime_serde")]
    #[schemars(with = "String")]
    pub abandoned_uploads_after: Duration,
    /// How long the steps of requests may take.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// Whether clients are defended against peers that do not answer. `off` is for measuring what that costs.
    #[serde(default)]
    pub defences: Defences,
    /// The S3 door. Absent: this node has none.
    #[serde(default)]
    pub s3: Option<S3Options>,
}

/// The S3 door of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct S3Options {
    /// Where it listens, `host:port`. Without TLS: a proxy in front ends it.
    pub address: String,
    /// With a domain, a bucket may also be named by the host: `bucket.domain`. Without, by the path alone.
    #[serde(default)]
    pub domain: Option<String>,
    /// The region that clients sign for.
    #[serde(default = "default_region")]
    pub region: String,
    /// Connections at a time. An idle one makes room for a new one. 4096: about 50 MB when all of them do nothing.
    #[serde(default = "default_connections")]
    pub max_connections: usize,
    /// Requests at work at a time, on this node; more are told to slow down. 512: beyond it, all of them get slower and
    /// none is done sooner.
    #[serde(default = "default_requests")]
    pub max_requests: usize,
    /// Requests at work at a time of one access key, on this node. 256: one client leaves room for others.
    #[serde(default = "default_requests_per_key")]
    pub max_requests_per_key: usize,
}

impl S3Options {
    /// A door at this address, everything else as it is by default.
    pub fn at(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            domain: None,
            region: default_region(),
            max_connections: default_connections(),
            max_requests: default_requests(),
            max_requests_per_key: default_requests_per_key(),
        }
    }
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

/// How often the node's own metadata (log, vote, database) is read back while it is in use, whether anyone asks for it or not. At a
/// start all of it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetadataScrubOptions {
    /// One pass begins so long after the end of the one before. 6 hours: a voter that rots is found while the others are sound, and the
    /// metadata of a million objects is read in a few minutes of it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub period: Duration,
    /// The most it reads, bytes per second. 4 MB/s: 2% of what a slow disk gives, and a gigabyte within five minutes.
    pub rate_bytes_per_second: u64,
}

impl Default for MetadataScrubOptions {
    fn default() -> Self {
        Self { period: Duration::from_secs(6 * 3600), rate_bytes_per_second: 4_000_000 }
    }
}

/// How fast redundancy is brought back.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RepairOptions {
    /// Shards of 1 MiB or more rebuilt side by side on one node; of smaller ones as many as are as large together, at most 16 times as
    /// many, because they mostly wait.
    /// Four: while one waits for its peers another computes and two sync; two left disk and network idle half of the time.
    pub in_flight: usize,
    /// The most it writes, bytes per second and node. 400 MB/s: above what one disk takes, so the disk is the limit.
    pub rate_bytes_per_second: u64,
    /// How often the node compares what it should hold with what it holds: names, by sums of ranges, and only what changed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub check_interval: Duration,
    /// Within what time each shard is asked for by name and length, whatever the comparison of sums says of it. 6 hours: a file
    /// that was cut short behind the node's back is found the same day, long before the scrub comes to it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub full_check_period: Duration,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            in_flight: 4,
            rate_bytes_per_second: 400_000_000,
            check_interval: Duration::from_secs(10),
            full_check_period: Duration::from_secs(6 * 3600),
        }
    }
}

fn default_abandoned_uploads_after() -> Duration {
    Duration::from_secs(7 * 86_400)
}

fn default_read_deadline() -> Duration {
    Duration::from_secs(300)
}

fn default_region() -> String {
    "us-east-1".to_owned()
}

fn default_connections() -> usize {
    4096
}

fn default_requests() -> usize {
    512
}

fn default_requests_per_key() -> usize {
    256
}
