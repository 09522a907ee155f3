//! `MetaRecovery.ReplayJournal`: this member's own log replayed beside it, in the contract's words.
//!
//! Owns: the telling. Must never: judge; that is done in [`crate::meta::replicas`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_proto::contract::Progress;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Shared;
use super::recovery::ProgressStream;
use super::replicas::status_of;
use crate::meta::replicas::{Replayed, Replaying, difference_in_words};

/// Messages waiting for a caller that is slow to read.
const MESSAGES_IN_FLIGHT: usize = 64;
/// Between two messages of how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Replays this member's own log beside it, and tells what it comes to. It ends with whoever asked.
pub(super) fn replay_journal(shared: &Arc<Shared>, from: u64) -> Result<ProgressStream, Status> {
    let meta = shared.core()?.meta.clone();
    let (tell, told) = mpsc::channel(MESSAGES_IN_FLIGHT);
    tokio::spawn(async move {
        let last_told = Mutex::new(None::<Instant>);
        let say = |at: Replaying| {
            let mut last = last_told.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_none_or(|last| last.elapsed() >= TELL_EVERY) {
                *last = Some(Instant::now());
                // A caller that is slow to read misses some of these.
                let _ = tell.try_send(Ok(replaying(at)));
            }
            !tell.is_closed()
        };
        let messages = match meta.replay_journal(from, &say).await {
            Ok(replayed) => {
                tracing::info!(?replayed, operation = "replay", "this member's log was replayed");
                replayed_messages(&replayed).into_iter().map(Ok).collect()
            }
            Err(error) => {
                let status = status_of(error);
                tracing::warn!(operation = "replay", "not replayed: {}", status.message());
                vec![Err(Status::new(status.code(), format!("{}; nothing was changed", status.message())))]
            }
        };
        for message in messages {
            // Whoever does not listen any more is told nothing.
            let _ = tell.send(message).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(told)))
}

fn replaying(at: Replaying) -> Progress {
    let Replaying { done, total } = at;
    let message = format!("{done} of {total} entries are applied to a copy");
    Progress { phase: "replaying".to_owned(), done, total, message, ..Progress::default() }
}

/// What differs, one by one, and the last word.
fn replayed_messages(replayed: &Replayed) -> Vec<Progress> {
    let mut messages: Vec<String> = replayed.differences.found.iter().map(difference_in_words).collect();
    if replayed.kept_differs {
        messages.push("the digests that are kept in step do not fit what is stored".to_owned());
    }
    if replayed.note_differs {
        messages.push("what the state says of its place in Raft does not fit the log".to_owned());
    }
    if replayed.differences.more {
        messages.push("more records differ than are named".to_owned());
    }
    let failed = messages.len() as u64;
    let differs = |message| Progress { phase: "differs".to_owned(), message, ..Progress::default() };
    let mut all: Vec<Progress> = messages.into_iter().map(differs).collect();
    let from = match replayed.from {
        Some(last) => format!("the snapshot of entry {last}"),
        None => "nothing".to_owned(),
    };
    let verdict = match replayed.equal() {
        true => "it is what this member has stored",
        false => "this member has stored something else: `meta compare --stored` says who is right",
    };
    let message = format!(
        "{} entries replayed on {from}, up to entry {}: {} records of digest {:032x}; {verdict}",
        replayed.entries, replayed.index, replayed.records, replayed.digest
    );
    let (done, total) = (replayed.entries, replayed.entries);
    all.push(Progress {
        phase: "compared".to_owned(),
        done,
        total,
        failed,
        finished: true,
        message,
        ..Progress::default()
    });
    all
}
