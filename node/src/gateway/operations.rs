//! What is in flight: how many client operations, and how old the oldest is. The agent's deadlock detector reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The operations in flight. Cheap to clone.
#[derive(Clone, Default)]
pub struct Operations {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    began: BTreeMap<u64, Instant>,
}

/// An operation in flight, until dropped.
pub(super) struct Operation {
    of: Operations,
    number: u64,
}

impl Operations {
    /// An operation begins.
    pub(super) fn begin(&self) -> Operation {
        let now = Instant::now();
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.began.insert(number, now);
        Operation { of: self.clone(), number }
    }

    /// How many are in flight.
    pub fn in_flight(&self) -> usize {
        self.lock().began.len()
    }

    /// How long the oldest has been in flight.
    pub fn oldest(&self) -> Option<Duration> {
        // Numbers rise with time: the first is the oldest.
        self.lock().began.values().next().map(Instant::elapsed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.of.lock().began.remove(&self.number);
    }
}
