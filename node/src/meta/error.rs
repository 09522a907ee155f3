//! What can go wrong with the metadata, told apart by what to do next.

use std::path::PathBuf;
use std::time::Duration;

use crate::log::LogError;
use crate::phase::Damage;
use crate::state::StateError;

/// Why the metadata cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// What this member once promised or stored cannot be read back. Raft was not started and must not be: the member
    /// could vote twice in one term, or forget what a quorum counts on it to have.
    #[error("lost voter: {what} ({where_}); {next}")]
    LostVoter {
        /// What is lost.
        what: String,
        /// Where it was.
        where_: String,
        /// What the operator does now.
        next: String,
        /// Which part of it.
        damage: Damage,
    },
    /// Written by a later release. Nothing was changed.
    #[error(
        "{what} has format {found}, this program knows formats up to {known}; run the release that wrote it, or a later one"
    )]
    TooNew {
        /// What.
        what: String,
        /// Its format.
        found: u32,
        /// The newest this program reads.
        known: u32,
    },
    /// Written by a build from before the first release. Nothing was changed.
    #[error(
        "{what} has format {found}, and this program reads format {known} only: no release wrote it; read its objects with \
         the build that did, then begin with empty folders (metadata and disks) and put them again"
    )]
    TooOld {
        /// What.
        what: String,
        /// Its format.
        found: u32,
        /// The one this program reads.
        known: u32,
    },
    /// The identity file cannot be believed.
    #[error(
        "the identity {path} cannot be read: {detail}; restore it from a copy, or remove the whole data folder and join anew"
    )]
    Identity {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The data folder belongs to another member than the one that was asked for.
    #[error("the data folder {path} belongs to {found}, not to {expected}; start the node with its own folder")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// A node that is in no cluster has no metadata.
    #[error("this node is in no cluster: `resilver cluster init` makes one, `join` enters one")]
    NotMember,
    /// A setting that cannot work.
    #[error("metadata tuning: {detail}")]
    BadTuning {
        /// Which and why.
        detail: String,
    },
    /// Nobody led within the deadline, and the command was never sent: it was not applied.
    #[error("no metadata leader for {} s: {doing} was not done; see `resilver meta status`", .waited.as_secs())]
    NoLeader {
        /// What was wanted.
        doing: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// The command was sent and no answer came: it may have been applied, or may yet be.
    #[error("no answer to {doing} for {} s: it may or may not have been done; read before trying again", .waited.as_secs())]
    Unknown {
        /// What was wanted.
        doing: &'static str,
        /// How long was waited.
        waited: Duration,
    },
    /// A command too large for one entry of the log.
    #[error("a metadata command of {bytes} bytes is over the limit of {limit} bytes: the object has too many extents")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Raft has stopped in this process.
    #[error("metadata is stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// Raft refused.
    #[error("raft refused: {detail}")]
    Refused {
        /// Its words.
        detail: String,
    },
    /// The operating system refused.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// The log or the vote refused.
    #[error(transparent)]
    Log(LogError),
    /// The state machine's database refused.
    #[error(transparent)]
    State(StateError),
}

/// What an operator does about a lost voter.
const REJOIN: &str = "raft was not started and nothing was changed: `resilver node rejoin NODE` keeps what is left aside, and \
                      brings the node back as a learner";

impl MetaError {
    /// A lost voter with the usual next step.
    pub(super) fn lost(damage: Damage, what: impl Into<String>, where_: impl std::fmt::Display) -> Self {
        Self::LostVoter { what: what.into(), where_: where_.to_string(), next: REJOIN.to_owned(), damage }
    }

    pub(super) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { what, path, source }
    }
}

/// Log and vote lie in one folder, and are opened by one module.
fn part(damage: &crate::log::Damage) -> Damage {
    if damage.is_of_vote() { Damage::Vote } else { Damage::Log }
}

impl From<LogError> for MetaError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Lost(damage) => Self::lost(part(&damage), damage.what.clone(), &damage),
            LogError::TooNew { path, found, known } => Self::TooNew { what: path.display().to_string(), found, known },
            error => Self::Log(error),
        }
    }
}

impl From<StateError> for MetaError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::TooNew { found, known } => {
                Self::TooNew { what: "the metadata database".to_owned(), found: found.into(), known: known.into() }
            }
            StateError::TooOld { found, known } => {
                Self::TooOld { what: "the metadata database".to_owned(), found: found.into(), known: known.into() }
            }
            error => Self::State(error),
        }
    }
}
