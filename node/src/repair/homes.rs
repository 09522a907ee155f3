//! Saying in metadata where shards are now. What comes while one entry of the log is agreed upon goes together in the next.
//!
//! Must never: take one shard's refusal for another's.

use std::sync::Arc;
use std::time::Duration;

use crate::company::Company;
use crate::meta::{Meta, MetaError};
use crate::model::{Command, HomeMove, Outcome};
use crate::types::BucketName;

/// Shards of one entry at most: all that are rebuilt side by side. A few KiB of the log.
const HOMES_PER_ENTRY: usize = 64;

/// How long the first waits for others: every entry costs every member a sync and a transaction.
const GATHER: Duration = Duration::from_millis(10);

/// A shard that is somewhere else now.
pub(super) struct Moved {
    pub(super) bucket: BucketName,
    pub(super) key: String,
    pub(super) home: HomeMove,
}

/// An entry that could not be agreed upon is several shards' trouble.
type Answer = Result<Outcome, Arc<MetaError>>;

/// Records homes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Homes {
    company: Company<Moved, Answer>,
}

impl Homes {
    pub(super) fn new(meta: Meta) -> Self {
        let record = move |moved| {
            let meta = meta.clone();
            async move { record(&meta, moved).await }
        };
        Self { company: Company::new(HOMES_PER_ENTRY, GATHER, record) }
    }

    /// Records one; [`Outcome::Done`], or why it was refused. `None`: whoever was recording panicked.
    pub(super) async fn record(&self, moved: Moved) -> Option<Answer> {
        self.company.join(moved, 1).await
    }
}

async fn record(meta: &Meta, mut moved: Vec<Moved>) -> Vec<Answer> {
    let count = moved.len();
    // One alone goes by the name of its object: it is what people look for in a log.
    let command = match moved.pop() {
        Some(Moved { bucket, key, home }) if moved.is_empty() => {
            let HomeMove { shard, expected, at, wanted } = home;
            Command::SetHome { bucket, key, shard, expected, at, wanted }
        }
        last => Command::SetHomes { homes: moved.into_iter().chain(last).map(|moved| moved.home).collect() },
    };
    match meta.propose(command).await {
        Ok(Outcome::HomesSet(refused)) if refused.len() == count => {
            refused.into_iter().map(|refused| Ok(refused.map_or(Outcome::Done, Outcome::Refused))).collect()
        }
        // Of one alone, or of a cluster that takes no commands.
        Ok(outcome) => vec![Ok(outcome); count],
        Err(error) => {
            let error = Arc::new(error);
            (0..count).map(|_| Err(Arc::clone(&error))).collect()
        }
    }
}
