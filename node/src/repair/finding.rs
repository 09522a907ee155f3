//! The words in which repair speaks of what it finds and how far it is.
//!
//! Owns: shapes and their names on the wire. Must never: decide what is done about them.

use std::time::Duration;

use resilver_proto::contract;

use crate::types::{BucketName, DiskId, ShardKey};

/// What is said to be wrong with a shard. Whoever rebuilds it looks for himself first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspectKind {
    /// Its home does not have it.
    Missing,
    /// Its bytes are not what was written.
    Corrupt,
}

impl SuspectKind {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Corrupt => "corrupt",
        }
    }

    /// The name of a finding of this kind.
    pub fn finding(self) -> &'static str {
        match self {
            Self::Missing => "missing_shard",
            Self::Corrupt => "corrupt_shard",
        }
    }

    pub(crate) fn parse(name: &str) -> Self {
        if name == "missing" { Self::Missing } else { Self::Corrupt }
    }
}

/// Who noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// The scrub.
    Scrub,
    /// The check pass.
    Check,
    /// A client's read, or a rebuild's.
    Read,
    /// An upload whose home failed.
    Write,
    /// An operator's or agent's verification.
    Verify,
}

impl FoundBy {
    /// The name in findings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scrub => "scrub",
            Self::Check => "check",
            Self::Read => "read",
            Self::Write => "write",
            Self::Verify => "verify",
        }
    }

    pub(crate) fn parse(name: &str) -> Self {
        [Self::Scrub, Self::Check, Self::Write, Self::Verify]
            .into_iter()
            .find(|found_by| found_by.as_str() == name)
            .unwrap_or(Self::Read)
    }
}

/// A shard that is said to be bad.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// The object's bucket.
    pub bucket: BucketName,
    /// The object's key.
    pub key: String,
    /// The shard.
    pub shard: ShardKey,
    /// Its home.
    pub disk: DiskId,
    /// What is wrong.
    pub kind: SuspectKind,
    /// Who says so.
    pub found_by: FoundBy,
    /// For people.
    pub detail: String,
}

/// Something wrong that this node found, or was told of, on its own disks.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Rises within one process.
    pub sequence: u64,
    /// Wall time, for people.
    pub at_ms: u64,
    /// The shard and what is wrong with it.
    pub suspect: Suspect,
    /// Whether it has been brought in order since.
    pub repaired: bool,
}

impl From<Finding> for contract::Finding {
    fn from(finding: Finding) -> Self {
        let Suspect { bucket, key, shard, disk, kind, found_by, detail } = finding.suspect;
        Self {
            sequence: finding.sequence,
            at_ms: finding.at_ms,
            kind: kind.finding().to_owned(),
            disk_id: disk.to_string(),
            bucket: bucket.0,
            key,
            extent: shard.extent.0,
            shard: u32::from(shard.shard.0),
            found_by: found_by.as_str().to_owned(),
            detail,
            repaired: finding.repaired,
        }
    }
}

/// Repair at a glance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairStatus {
    /// Shards waiting.
    pub queue: u64,
    /// Shards being rebuilt.
    pub in_flight: u64,
    /// Shards brought in order since the start.
    pub completed: u64,
    /// Attempts that failed since the start. The check pass tries again.
    pub failed: u64,
    /// Bytes rebuilt per second, lately.
    pub rate_bytes_per_second: u64,
    /// When the queue will be empty at that rate; zero: it is; `None`: unknown.
    pub eta: Option<Duration>,
    /// Bytes the scrub has read since the start.
    pub scrubbed_bytes: u64,
    /// Scrub passes finished on every disk since the start.
    pub scrub_pass: u64,
}

impl RepairStatus {
    /// As the contract has it. `missing_shards` is metadata's count for the whole cluster.
    pub fn to_wire(self, missing_shards: u64) -> contract::RepairState {
        contract::RepairState {
            queue: self.queue,
            in_flight: self.in_flight,
            completed: self.completed,
            failed: self.failed,
            rate_bytes_per_second: self.rate_bytes_per_second,
            eta_ms: self.eta.map_or(0, |eta| u64::try_from(eta.as_millis()).unwrap_or(u64::MAX)),
            eta_known: self.eta.is_some(),
            scrubbed_bytes: self.scrubbed_bytes,
            missing_shards,
            scrub_pass: self.scrub_pass,
            // Metadata's to count; 0 on the wire is not known.
            shards: 0,
            throttled: String::new(),
            held: Vec::new(),
        }
    }
}
