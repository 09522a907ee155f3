//! What can go wrong in the state machine's database.

use std::io::ErrorKind;
use std::path::PathBuf;

/// Why the state could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A record or the file contradicts its checksum or its shape.
    #[error("the metadata database is damaged in {table}: {detail}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// What was found.
        detail: String,
    },
    /// There is no database where there was one.
    #[error("there is no metadata database at {path}")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Written by a later release.
    #[error("the metadata has format {found}, this program knows formats up to {known}")]
    TooNew {
        /// Its format.
        found: u16,
        /// The newest this program reads.
        known: u16,
    },
    /// Written by a build from before the first release.
    #[error("the metadata has format {found}, this program reads format {known} only")]
    TooOld {
        /// Its format.
        found: u16,
        /// The one this program reads.
        known: u16,
    },
    /// The database of another member.
    #[error("the metadata database belongs to {found}, not to {expected}")]
    Foreign {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// A snapshot file failed its checks.
    #[error("snapshot {path} is damaged: {detail}")]
    Snapshot {
        /// Which file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The operating system refused.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// The database engine refused.
    #[error("the metadata database: {0}")]
    Database(#[source] Box<redb::Error>),
    /// A value could not be encoded: a bug, not an input.
    #[error("{detail}")]
    Encoding {
        /// Which.
        detail: String,
    },
    /// Somebody uses the database in a way that does not go together with what was asked.
    #[error("the metadata database is in use: {0}; ask again in a moment")]
    Busy(String),
    /// Asked after the end.
    #[error("the metadata database is closed")]
    Closed,
}

impl StateError {
    /// Whether the bytes on disk are to blame: the node must not vote on them any more.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Missing { .. } | Self::Snapshot { .. } | Self::Foreign { .. } => true,
            Self::Database(error) => match &**error {
                // A file that is too short, or does not begin like a database, comes back as an IO error.
                redb::Error::Io(error) => matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData),
                redb::Error::PreviousIo => false,
                _ => true,
            },
            Self::TooNew { .. }
            | Self::TooOld { .. }
            | Self::Io { .. }
            | Self::Encoding { .. }
            | Self::Busy(_)
            | Self::Closed => false,
        }
    }
}

macro_rules! from_redb {
    ($($kind:ident),*) => {$(
        impl From<redb::$kind> for StateError {
            fn from(error: redb::$kind) -> Self {
                Self::Database(Box::new(error.into()))
            }
        }
    )*};
}
from_redb!(StorageError, TableError, TransactionError, CommitError, DatabaseError, SetDurabilityError);
