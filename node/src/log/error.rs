//! What can go wrong with the log and the vote, told apart by what may be done next.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// An error of the log or the vote.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused. Nothing was acknowledged.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// What was attempted, as a verb.
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something that was synced cannot be read back: this member must never vote again on this folder. Not a torn
    /// tail: those are cut silently.
    #[error(
        "lost voter: {0}; it was synced once, so votes or entries may be gone: keep the folder, do not start raft on it, \
         and let the node rejoin as a learner"
    )]
    Lost(Damage),
    /// The file was written by a newer version of this program. Nothing was changed.
    #[error("{} has format {found}, this version knows formats up to {known}: start the newer version", .path.display())]
    TooNew {
        /// Which file.
        path: PathBuf,
        /// The format it states.
        found: u32,
        /// The newest format we know.
        known: u32,
    },
    /// Records must continue the log without a gap.
    #[error("record {got} does not continue the log: record {expected} is next")]
    Gap {
        /// The index that is next.
        expected: u64,
        /// The index that was offered.
        got: u64,
    },
    /// More bytes than the format has room for.
    #[error("{what} has {bytes} bytes, at most {limit_bytes} fit")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A truncation that would take away what is purged already.
    #[error("cannot truncate from record {from}: the log begins at {first}, records before it are in the snapshot")]
    Purged {
        /// Where the truncation was to begin.
        from: u64,
        /// The first record of the log.
        first: u64,
    },
    /// An option out of its range.
    #[error("log option {name} is {value}, it must be between {least} and {most}")]
    BadOption {
        /// The option.
        name: &'static str,
        /// Its value.
        value: u64,
        /// Least value.
        least: u64,
        /// Greatest value.
        most: u64,
    },
    /// An earlier write or sync failed. The kernel may have dropped the dirty pages and report the next sync as good,
    /// so nothing may be tried again on the open files: only a restart tells what is on the disk.
    #[error("closed for writing since an earlier failure ({cause}): restart the node, it then reads what the disk has")]
    Poisoned {
        /// The earlier failure.
        cause: String,
    },
}

impl LogError {
    /// Whether what was synced is lost: the phase `lost_voter`, not a failure that a restart may cure.
    pub fn is_lost(&self) -> bool {
        matches!(self, LogError::Lost(_))
    }

    /// For `map_err`: an [`LogError::Io`] of doing something with `path`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        move |source| LogError::Io { doing, path: path.to_owned(), source }
    }
}

/// Where synced bytes are not what they must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}, byte {offset}: {what}: expected {expected}, got {got}", .path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it the doubtful part begins.
    pub offset: u64,
    /// What is doubtful.
    pub what: String,
    /// What was expected there.
    pub expected: String,
    /// What was found there.
    pub got: String,
}

impl Damage {
    pub(super) fn new(
        path: &Path,
        offset: u64,
        what: impl Into<String>,
        expected: impl Display,
        got: impl Display,
    ) -> Self {
        Self { path: path.to_owned(), offset, what: what.into(), expected: expected.to_string(), got: got.to_string() }
    }

    /// Whether it is the vote that is doubtful, and not the log.
    pub fn is_of_vote(&self) -> bool {
        self.path.file_name().is_some_and(|name| name == super::vote::VOTE_NAME)
    }
}

impl From<Damage> for LogError {
    fn from(damage: Damage) -> Self {
        LogError::Lost(damage)
    }
}

/// Lets nothing be written after a failed or abandoned write.
///
/// A future may be dropped at any await. What it had begun may still reach the disk later, under the feet of whatever
/// is written next; so an operation that began and did not end counts as failed.
#[derive(Debug, Default)]
pub(super) enum Fuse {
    /// Nothing has gone wrong.
    #[default]
    Sound,
    /// Between the first write and the last sync of this operation.
    Busy(&'static str),
    /// Something failed, with this message. For good.
    Blown(String),
}

impl Fuse {
    /// Enters an operation that writes.
    pub(super) fn begin(&mut self, doing: &'static str) -> Result<(), LogError> {
        self.check()?;
        *self = Fuse::Busy(doing);
        Ok(())
    }

    /// Whether anything may be written.
    pub(super) fn check(&self) -> Result<(), LogError> {
        match self {
            Fuse::Sound => Ok(()),
            Fuse::Busy(earlier) => Err(LogError::Poisoned { cause: format!("{earlier} was abandoned half way") }),
            Fuse::Blown(cause) => Err(LogError::Poisoned { cause: cause.clone() }),
        }
    }

    /// Leaves it; blows when it failed.
    pub(super) fn end<T>(&mut self, done: Result<T, LogError>) -> Result<T, LogError> {
        *self = match &done {
            Ok(_) => Fuse::Sound,
            Err(error) => Fuse::Blown(describe(error)),
        };
        done
    }
}

/// An error with its sources, in one line.
fn describe(error: &LogError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
