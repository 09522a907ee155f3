//! How far a verb of an agent is.

use resilver_proto::contract;

/// One message of progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: &'static str,
    /// Shards finished.
    pub done: u64,
    /// Shards known so far.
    pub total: u64,
    /// Shards that are not good.
    pub failed: u64,
    /// Shards nobody could ask about.
    pub skipped: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// Only in the last message: `failed` and `skipped` of 0 are then the proof.
    pub finished: bool,
    /// For people.
    pub message: String,
}

impl From<Progress> for contract::Progress {
    fn from(progress: Progress) -> Self {
        Self {
            phase: progress.phase.to_owned(),
            done: progress.done,
            total: progress.total,
            failed: progress.failed,
            skipped: progress.skipped,
            bytes: progress.bytes,
            finished: progress.finished,
            message: progress.message,
            backup_path: String::new(),
        }
    }
}
