//! Why a lock was not had, or was lost.

use std::time::Duration;

use super::health::Unhealthy;
use crate::meta::MetaError;
use crate::model::{LockPath, Outcome, Refusal};

/// A lock that was not had, or was lost.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Others had it all the while.
    #[error(
        "lock {path} was not had within {} ms ({why}): nothing was changed; repeat in a moment, and see `resilver lock \
         list` if it stays so",
        .waited.as_millis()
    )]
    TimedOut {
        /// Which.
        path: LockPath,
        /// How long all attempts took together.
        waited: Duration,
        /// Who has it now, as far as is known here.
        why: String,
    },
    /// The metadata did not answer: whether the lock is free is not known.
    #[error(
        "nobody answered for lock {path} within {} ms: nothing was changed; see `resilver meta status` for whether there is \
         a leader",
        .waited.as_millis()
    )]
    Silent {
        /// Which.
        path: LockPath,
        /// How long all attempts took together.
        waited: Duration,
    },
    /// It was not even asked for.
    #[error(
        "lock {path} is not asked for now: {why}; nothing was changed; see `resilver lock list` and `resilver meta status`"
    )]
    Unhealthy {
        /// Which.
        path: LockPath,
        /// Why.
        why: Unhealthy,
    },
    /// The metadata refuses.
    #[error(transparent)]
    Refused(Refusal),
    /// The metadata fails.
    #[error(transparent)]
    Meta(MetaError),
    /// A bug or a member of another version.
    #[error("the metadata answered a question about lock {path} with {outcome:?}")]
    Unexpected {
        /// Which.
        path: LockPath,
        /// Its words.
        outcome: Box<Outcome>,
    },
}

impl LockError {
    /// Of a wait that came to nothing: in a queue behind `others`, or for an answer.
    pub(super) fn late(path: &LockPath, waited: Duration, queued: bool, others: String) -> Self {
        let path = path.clone();
        if queued { Self::TimedOut { path, waited, why: others } } else { Self::Silent { path, waited } }
    }

    pub(super) fn unexpected(path: &LockPath, outcome: Outcome) -> Self {
        Self::Unexpected { path: path.clone(), outcome: Box::new(outcome) }
    }
}

impl From<Refusal> for LockError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
