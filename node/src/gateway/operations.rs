//! What clients have under way: what it is, how old, and a way to end it. The agent's deadlock detector reads it.
//!
//! Owns: the list, and who is told to end. Must never: say of an operation that may have taken effect that it failed
//! ([`Gateway::changing`] says that its outcome is unknown).
//!
//! Invariant: an operation is in the list from before its first effect until its last; whoever is cancelled is dropped where
//! it stands, so that what it holds (places, streams, an upload that nobody owns) is given back by what gives it back when a
//! client goes away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Gateway, GatewayError};

/// The longest subject that is kept of an operation, in characters: for people, beside its id.
const MAX_SUBJECT_CHARS: usize = 200;

/// The operations in flight. Cheap to clone.
#[derive(Clone)]
pub struct Operations {
    /// Of this process: an id of an earlier one ends nothing of this.
    pid: u32,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    running: BTreeMap<u64, Entry>,
}

struct Entry {
    what: &'static str,
    subject: String,
    began: Instant,
    /// Why it is to end.
    cancel: watch::Sender<Option<String>>,
}

/// An operation in flight, as others may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Names it, over restarts of the node.
    pub id: String,
    /// upload | commit | get | head | list | delete | complete | configure | verify | repair.
    pub what: &'static str,
    /// Of what: a bucket, an object.
    pub subject: String,
    /// How long it has been in flight.
    pub age: Duration,
}

/// An operation in flight, until dropped.
pub(super) struct Operation {
    of: Operations,
    number: u64,
    cancelled: watch::Receiver<Option<String>>,
}

/// Somebody ended it.
pub(super) struct Cancelled {
    pub(super) reason: String,
}

impl Operations {
    /// Of a process.
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, inner: Arc::default() }
    }

    /// An operation begins.
    pub(super) fn begin(&self, what: &'static str, subject: &str) -> Operation {
        let (cancel, cancelled) = watch::channel(None);
        let subject = subject.chars().take(MAX_SUBJECT_CHARS).collect();
        let entry = Entry { what, subject, began: Instant::now(), cancel };
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.running.insert(number, entry);
        Operation { of: self.clone(), number, cancelled }
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> usize {
        self.lock().running.len()
    }

    /// The oldest, up to so many.
    pub fn oldest(&self, limit: usize) -> Vec<Running> {
        // Numbers rise with time: the first is the oldest.
        self.lock().running.iter().take(limit).map(|(number, entry)| self.shown(*number, entry)).collect()
    }

    /// Has one end; what it was. `None`: there is none of this id.
    pub fn cancel(&self, id: &str, reason: &str) -> Option<Running> {
        let (pid, number) = id.split_once('.')?;
        if pid != self.pid.to_string() {
            return None;
        }
        let number = number.parse().ok()?;
        let inner = self.lock();
        let entry = inner.running.get(&number)?;
        // Whoever is told twice ends for the first reason.
        entry.cancel.send_if_modified(|told| {
            let first = told.is_none();
            if first {
                *told = Some(reason.to_owned());
            }
            first
        });
        Some(self.shown(number, entry))
    }

    fn shown(&self, number: u64, entry: &Entry) -> Running {
        let id = format!("{}.{number}", self.pid);
        Running { id, what: entry.what, subject: entry.subject.clone(), age: entry.began.elapsed() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Operation {
    /// Does `work` to its end, unless somebody ends it before.
    pub(super) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, Cancelled> {
        let mut cancelled = self.cancelled.clone();
        let told = async move {
            let reason = cancelled.wait_for(Option::is_some).await.map(|reason| (*reason).clone());
            match reason {
                Ok(reason) => reason.unwrap_or_default(),
                // The list has it for as long as it runs.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => Ok(done),
            reason = told => Err(Cancelled { reason }),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.of.lock().running.remove(&self.number);
    }
}

impl Gateway {
    /// Does what changes nothing that a client could see: ended, it has failed.
    pub(super) async fn reading<T>(
        &self,
        what: &'static str,
        subject: &str,
        work: impl Future<Output = Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        let operation = self.inner.operations.begin(what, subject);
        operation.unless_cancelled(work).await.unwrap_or_else(|cancelled| Err(cancelled.into()))
    }

    /// Does what proposes a change: ended, it may have happened.
    pub(super) async fn changing<T>(
        &self,
        what: &'static str,
        subject: &str,
        work: impl Future<Output = Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        let operation = self.inner.operations.begin(what, subject);
        operation.unless_cancelled(work).await.unwrap_or_else(|Cancelled { reason }| {
            Err(GatewayError::Unknown(format!("it was cancelled ({reason}) while it may have been under way already")))
        })
    }
}

impl From<Cancelled> for GatewayError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_is_told_and_ended_and_another_processs_is_not() {
        let operations = Operations::new(7);
        let first = operations.begin("upload", "photos");
        let second = operations.begin("get", "photos/readme");
        let [one, two] = &operations.oldest(9)[..] else { panic!("two are in flight") };
        assert_eq!((one.id.as_str(), one.what, two.subject.as_str()), ("7.0", "upload", "photos/readme"));
        assert_eq!(operations.oldest(1).len(), 1);
        assert_eq!(operations.cancel("8.0", "stuck"), None);
        assert_eq!(operations.cancel("7.9", "stuck"), None);
        assert_eq!(operations.cancel("upload", "stuck"), None);
        assert_eq!(operations.cancel("7.0", "stuck").map(|running| running.what), Some("upload"));
        operations.cancel("7.0", "again");
        let ended = first.unless_cancelled(std::future::pending::<()>()).await.err().map(|told| told.reason);
        assert_eq!(ended.as_deref(), Some("stuck"));
        assert!(second.unless_cancelled(async { 5 }).await.is_ok_and(|done| done == 5));
        drop(first);
        assert_eq!(operations.oldest(9).len(), 1);
    }

    #[tokio::test]
    async fn what_is_done_already_is_not_ended() {
        let operations = Operations::new(7);
        let operation = operations.begin("head", "photos/readme");
        operations.cancel("7.0", "stuck");
        assert!(operation.unless_cancelled(async { 5 }).await.is_ok());
    }
}
