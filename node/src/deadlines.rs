//! How long the steps of a request may take: section `node.deadlines` of the configuration file.
//!
//! Owns: the ceilings, each with the reason of its default. What was measured of a peer brings some of them down
//! ([`crate::transport`]), never up. They find failures, so no profile scales them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The least that may be configured: below it a busy machine's scheduling alone would look like a failure.
const SHORTEST: Duration = Duration::from_millis(100);
/// Disks are judged in whole seconds that the process lived through; less than one cannot be told.
const SHORTEST_OF_DISKS: Duration = Duration::from_secs(1);

/// The most that each step may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// A disk that has not answered its canary for so long is suspect. 3 s: far beyond a busy disk's queue, and before a
    /// client gives up.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub disk_state_check: Duration,
    /// A disk operation that hangs so long has failed. 10 s: what a drive may take for its own error recovery.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub disk_operation: Duration,
    /// Reading an access key. 10 s: until then a client is not even known, and an election takes less.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub config_read: Duration,
    /// One question to one node for the cluster's status. 2 s: a node that takes longer is busy with something worse.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub status_of_node: Duration,
    /// After this the status answers with what it has. 300 ms: a status that waits for a dead host is no status.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub status: Duration,
    /// A home begins to answer a read, or another shard is read instead. 2 s: longer than a busy disk's queue.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub first_block: Duration,
    /// A home's pause between two blocks, read or written. 5 s: a peer whose processors are full is no dead peer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub block: Duration,
    /// A home makes a shard durable: the sync of up to 16 MiB, a rename and a folder sync, behind other writers. 10 s, as
    /// long as a disk operation.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub shard_durable: Duration,
    /// A home reads a whole shard back from its disk. 30 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub verify: Duration,
    /// A home moves shards aside: a rename and a folder sync each. 10 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub discard: Duration,
    /// The rebuild of one shard, its wait for a place included. 120 s: four at a time, at a disk's slowest.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub rebuild: Duration,
    /// A message that asks for no work. 2 s.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub note: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            disk_state_check: seconds(3),
            disk_operation: seconds(10),
            config_read: seconds(10),
            status_of_node: seconds(2),
            status: Duration::from_millis(300),
            first_block: seconds(2),
            block: seconds(5),
            shard_durable: seconds(10),
            verify: seconds(30),
            discard: seconds(10),
            rebuild: seconds(120),
            note: seconds(2),
        }
    }
}

/// Deadlines that contradict each other, or that nothing could keep.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDeadlines {
    /// Shorter than can be told from a busy machine.
    #[error("deadlines.{key} is {given:?}: {least:?} at least, or a busy machine would look like a failure")]
    TooShort {
        /// Which.
        key: &'static str,
        /// As given.
        given: Duration,
        /// The least.
        least: Duration,
    },
    /// One that contains the other is shorter.
    #[error("deadlines.{part} is {part_is:?}, longer than deadlines.{whole}, {whole_is:?}, which it is a part of")]
    Contradiction {
        /// The part.
        part: &'static str,
        /// How long it may take.
        part_is: Duration,
        /// What it is a part of.
        whole: &'static str,
        /// How long that may take.
        whole_is: Duration,
    },
}

impl Deadlines {
    /// Whether they can be kept.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), BadDeadlines> {
        let all = [
            ("disk_state_check", self.disk_state_check, SHORTEST_OF_DISKS),
            ("disk_operation", self.disk_operation, SHORTEST_OF_DISKS),
            ("config_read", self.config_read, SHORTEST),
            ("status_of_node", self.status_of_node, SHORTEST),
            ("status", self.status, SHORTEST),
            ("first_block", self.first_block, SHORTEST),
            ("block", self.block, SHORTEST),
            ("shard_durable", self.shard_durable, SHORTEST),
            ("verify", self.verify, SHORTEST),
            ("discard", self.discard, SHORTEST),
            ("rebuild", self.rebuild, SHORTEST),
            ("note", self.note, SHORTEST),
        ];
        if let Some((key, given, least)) = all.into_iter().find(|(_, given, least)| given < least) {
            return Err(BadDeadlines::TooShort { key, given, least });
        }
        let parts = [
            ("disk_state_check", self.disk_state_check, "disk_operation", self.disk_operation),
            ("status", self.status, "status_of_node", self.status_of_node),
            ("first_block", self.first_block, "block", self.block),
            ("shard_durable", self.shard_durable, "rebuild", self.rebuild),
        ];
        match parts.into_iter().find(|(_, part_is, _, whole_is)| part_is > whole_is) {
            Some((part, part_is, whole, whole_is)) => {
                Err(BadDeadlines::Contradiction { part, part_is, whole, whole_is })
            }
            None => Ok(()),
        }
    }
}

/// Whether the node defends its clients against peers that do not answer. Off only to measure what that costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Defences {
    /// Presence, circuits, hedged reads, stand-ins, homes given up.
    #[default]
    On,
    /// None of these: deadlines only.
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_kept_and_what_contradicts_is_named() {
        assert_eq!(Deadlines::default().check(), Ok(()));
        let short = Deadlines { note: Duration::from_millis(5), ..Deadlines::default() };
        assert!(short.check().unwrap_err().to_string().starts_with("deadlines.note is 5ms: 100ms at least"));
        let disk = Deadlines { disk_state_check: Duration::from_millis(500), ..Deadlines::default() };
        assert!(matches!(disk.check(), Err(BadDeadlines::TooShort { key: "disk_state_check", .. })));
        let longer = Deadlines { first_block: Duration::from_secs(9), ..Deadlines::default() };
        let told = longer.check().unwrap_err().to_string();
        assert!(told.contains("deadlines.first_block is 9s, longer than deadlines.block, 5s"), "{told}");
    }
}
