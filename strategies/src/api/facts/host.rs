//! What sensors tell of the host around a node, and of the node seen from outside: room, load, a canary, digests, log lines.
//!
//! Owns: shapes only. Must never: interpret. What could not be read is `None`, never zero.

use serde::{Deserialize, Serialize};

use crate::types::Mode;

/// How much of everything the host has left. Every figure that the kernel does not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFact {
    /// Share of all cores that was busy since the look before, in per mille.
    pub cpu_per_mille: Option<u32>,
    /// PSI: share of the last 10 s in which some task waited for a core, in per mille.
    pub cpu_pressure_per_mille: Option<u32>,
    /// PSI: the same, for memory.
    pub memory_pressure_per_mille: Option<u32>,
    /// PSI: the same, for input and output.
    pub io_pressure_per_mille: Option<u32>,
    /// Memory of the host (or of its control group, when that is less).
    pub memory_total_bytes: Option<u64>,
    /// What is left of it.
    pub memory_available_bytes: Option<u64>,
    /// Resident memory of the node's process.
    pub node_resident_bytes: Option<u64>,
    /// Descriptors that the node's process has open.
    pub node_descriptors: Option<u64>,
    /// How many it may have.
    pub node_descriptors_limit: Option<u64>,
    /// File systems that the node writes to: its metadata's, and each disk's. Bounded by the node's disks.
    pub volumes: Vec<VolumeFact>,
}

/// One file system that the node writes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeFact {
    /// `metadata`, or a disk's id.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Its size.
    pub total_bytes: u64,
    /// Room left for the node.
    pub available_bytes: u64,
    /// Inodes it can have; 0: it has no such limit.
    pub inodes_total: u64,
    /// Inodes left.
    pub inodes_free: u64,
}

/// A small write and read through the node's client side, as its agent did it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryFact {
    /// What it took; `None`: it failed, or did not end within its deadline.
    pub millis: Option<u64>,
    /// Why it failed; empty when it did not.
    pub error: String,
}

/// How the members' metadata compare, as this agent's node found by asking all of them as of one entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicasFact {
    /// The entry.
    pub index: u64,
    /// Every member that was asked.
    pub members: Vec<ReplicaFact>,
}

/// One member's digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaFact {
    /// Its node name.
    pub node: String,
    /// right | wrong | undecided | silent, by the majority of at least three.
    pub verdict: String,
    /// Its digest, in hexadecimal; empty when it was silent.
    pub digest: String,
}

/// A lock that somebody waits for, or whose path does badly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFact {
    /// What is locked.
    pub path: String,
    /// healthy | degraded | unhealthy (failure-modes.md, lock health).
    pub health: String,
    /// Who holds it; empty: nobody.
    pub owner: String,
    /// The owner's node; empty when it is not known.
    pub owner_node: String,
    /// Its fencing token; 0: nobody holds it.
    pub token: u64,
    /// How long it has been held.
    pub held_ms: u64,
    /// How many wait for it.
    pub waiting: u64,
}

/// How the node's process is, as the kernel says: a live one may be stopped, or wait for a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStateFact {
    /// Process id.
    pub pid: u32,
    /// running | sleeping | disk_wait | stopped | zombie.
    pub state: String,
    /// For how long it has been so, at every look.
    pub for_ms: u64,
}

/// A line of a log that matches a pattern of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMatchFact {
    /// The pattern's name.
    pub pattern: String,
    /// The mode it speaks for; `None`: it is evidence for people only.
    pub mode: Option<Mode>,
    /// The line, cut to a bounded length.
    pub line: String,
    /// How many lines matched since the look before.
    pub count: u64,
}
