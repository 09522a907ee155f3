//! The faults, by name.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A fault that a user can bring about on one machine, without being root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// SIGKILL to a follower's process.
    KilledNode,
    /// SIGKILL to the leader's process.
    KilledLeader,
    /// SIGSTOP to a follower's process, until its agent says that it does not fight that.
    StoppedNode,
    /// SIGKILL to a node and its agent, for good: to the others the host is gone.
    DeadHost,
    /// The folder of a disk is emptied.
    WipedDisk,
    /// Bytes of one shard are flipped: of one that no client reads while the others are well.
    FlippedShard,
    /// A node dies, and a part of its log that was synced is garbage.
    RottenLog,
    /// A node dies, and its metadata database is garbage.
    RottenDatabase,
    /// A node dies, and its metadata has a record more than the others'.
    ChangedReplica,
    /// A client takes a lock and forgets it while others wait; a person approves as soon as the agent asks.
    ForgottenLock,
}

impl Case {
    /// All, in the order they are run in.
    pub const ALL: [Self; 10] = [
        Self::KilledNode,
        Self::KilledLeader,
        Self::StoppedNode,
        Self::DeadHost,
        Self::WipedDisk,
        Self::FlippedShard,
        Self::RottenLog,
        Self::RottenDatabase,
        Self::ChangedReplica,
        Self::ForgottenLock,
    ];

    /// Its name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::KilledNode => "killed_node",
            Self::KilledLeader => "killed_leader",
            Self::StoppedNode => "stopped_node",
            Self::DeadHost => "dead_host",
            Self::WipedDisk => "wiped_disk",
            Self::FlippedShard => "flipped_shard",
            Self::RottenLog => "rotten_log",
            Self::RottenDatabase => "rotten_database",
            Self::ChangedReplica => "changed_replica",
            Self::ForgottenLock => "forgotten_lock",
        }
    }

    /// The failure mode that its agent has to see in it.
    pub fn mode(self) -> &'static str {
        match self {
            Self::KilledNode | Self::KilledLeader => "process_crash",
            Self::StoppedNode | Self::ForgottenLock => "deadlock",
            Self::DeadHost => "host_down",
            Self::WipedDisk => "disk_failure",
            Self::FlippedShard => "data_corruption",
            Self::RottenLog => "log_corruption",
            Self::RottenDatabase => "database_corruption",
            Self::ChangedReplica => "state_divergence",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Some cases, as a person names them: one by its name, or all of a failure mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cases(pub Vec<Case>);

impl FromStr for Cases {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named: Vec<Case> =
            Case::ALL.into_iter().filter(|case| text == case.name() || text == case.mode()).collect();
        if named.is_empty() {
            let names: Vec<&str> = Case::ALL.iter().map(|case| case.name()).collect();
            return Err(format!("there is no `{text}`: name a failure mode, or one of {}", names.join(", ")));
        }
        Ok(Self(named))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_named_one_by_one_or_by_their_mode() {
        for case in Case::ALL {
            assert_eq!(case.name().parse(), Ok(Cases(vec![case])));
            assert!(case.mode().parse::<Cases>().unwrap().0.contains(&case));
            assert_eq!(serde_json::to_value(case).unwrap(), case.name());
        }
        assert_eq!("process_crash".parse(), Ok(Cases(vec![Case::KilledNode, Case::KilledLeader])));
        assert!("split_brain".parse::<Cases>().unwrap_err().contains("killed_node"));
    }
}
