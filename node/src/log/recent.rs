//! The payloads of the last records, in memory, so that replication does not read the disk. No IO.

use std::collections::VecDeque;

use bytes::Bytes;

/// What a read may still take.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    /// Whether the next record comes along whatever its size.
    pub(super) at_least_one: bool,
}

impl Budget {
    /// Takes a record of `len` bytes out of the budget, if it fits.
    pub(super) fn take(&mut self, len: u64) -> bool {
        let fits = self.at_least_one || len <= self.bytes;
        if fits {
            self.at_least_one = false;
            self.bytes = self.bytes.saturating_sub(len);
        }
        fits
    }
}

/// The payloads of the last records, as many as the limit allows; they reach to the end of the log.
///
/// They are slices of what was written, so one write's buffer may stay until its last record is forgotten.
pub(super) struct Recent {
    /// Index of the first one kept.
    first: u64,
    payloads: VecDeque<Bytes>,
    bytes: u64,
    limit_bytes: u64,
}

impl Recent {
    /// None yet, of a log that goes on at `next`.
    pub(super) fn new(next: u64, limit_bytes: u64) -> Self {
        Self { first: next, payloads: VecDeque::new(), bytes: 0, limit_bytes }
    }

    /// Index from which on records are here.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Takes in what was appended; forgets the oldest while there is too much.
    pub(super) fn push(&mut self, payloads: Vec<Bytes>) {
        for payload in payloads {
            self.bytes += cost(&payload);
            self.payloads.push_back(payload);
        }
        while self.bytes > self.limit_bytes {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(payload) = self.payloads.pop_front() {
            self.bytes -= cost(&payload);
            self.first += 1;
        }
    }

    /// Keeps what lies within `[first, next)`.
    pub(super) fn keep(&mut self, first: u64, next: u64) {
        while !self.payloads.is_empty() && self.first + self.payloads.len() as u64 > next {
            if let Some(payload) = self.payloads.pop_back() {
                self.bytes -= cost(&payload);
            }
        }
        while !self.payloads.is_empty() && self.first < first {
            self.pop_front();
        }
        if self.payloads.is_empty() {
            self.first = next;
        }
    }

    /// Records from `index` on, up to `end` and within the budget; `None` when `index` is not here.
    pub(super) fn take(&self, index: u64, end: u64, budget: &mut Budget) -> Option<Vec<Bytes>> {
        let from = usize::try_from(index.checked_sub(self.first)?).ok()?;
        let count = usize::try_from(end - index).unwrap_or(usize::MAX);
        let payloads = self.payloads.range(from..).take(count);
        Some(payloads.take_while(|payload| budget.take(payload.len() as u64)).cloned().collect())
    }
}

/// What keeping a payload costs: also an empty one is not free.
fn cost(payload: &Bytes) -> u64 {
    (payload.len() + size_of::<Bytes>()) as u64
}
