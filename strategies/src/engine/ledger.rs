//! What was done lately: budgets and crash signatures count here.
//!
//! Owns: the steps of the last day. Must never: forget one that a limit still counts. Bounded: when full, the oldest
//! goes, which is long past every window (the budgets themselves keep the count small).

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{PastStep, Subject};
use crate::resume::MAX_HISTORY;
use crate::types::{Action, Moment};

/// Disruptive steps of one node that others are told of: more than any limit of an hour lets pass.
const MAX_TOLD: usize = 32;

/// How long a crash signature is remembered. Not scaled below: the same bug is the same bug tomorrow.
pub(crate) const SIGNATURE_MEMORY: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// How long before `at` it was begun: a step of an earlier life of the agent is older than its clock.
    age: Duration,
    at: Moment,
    pub(crate) action: Action,
    pub(crate) subject: Subject,
    disruptive: bool,
    signature: Option<String>,
}

impl Entry {
    pub(crate) fn age(&self, now: Moment) -> Duration {
        now.since(self.at) + self.age
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    entries: VecDeque<Entry>,
}

impl Ledger {
    /// Takes over what the journal tells.
    pub(crate) fn restore(&mut self, now: Moment, history: Vec<PastStep>) {
        for past in history {
            let PastStep { action, subject, disruptive, signature, age_ms } = past;
            let age = Duration::from_millis(age_ms);
            self.push(Entry { age, at: now, action, subject, disruptive, signature });
        }
    }

    pub(crate) fn note(
        &mut self,
        now: Moment,
        action: Action,
        subject: &Subject,
        disruptive: bool,
        signature: Option<String>,
    ) {
        self.push(Entry { age: Duration::ZERO, at: now, action, subject: subject.clone(), disruptive, signature });
    }

    /// The newest of these was refused where it was to take effect: nothing was done, and nothing is used up.
    pub(crate) fn refused(&mut self, action: Action, subject: &Subject) {
        let newest = self.entries.iter().rposition(|entry| entry.action == action && entry.subject == *subject);
        if let Some(at) = newest {
            self.entries.remove(at);
        }
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() >= MAX_HISTORY {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    fn count(&self, now: Moment, within: Duration, counts: impl Fn(&Entry) -> bool) -> u32 {
        let counted = self.entries.iter().filter(|entry| entry.age(now) <= within && counts(entry)).count();
        u32::try_from(counted).unwrap_or(u32::MAX)
    }

    pub(crate) fn attempts(&self, now: Moment, within: Duration, action: Action, subject: &Subject) -> u32 {
        self.count(now, within, |entry| entry.action == action && entry.subject == *subject)
    }

    pub(crate) fn disruptive(&self, now: Moment, within: Duration) -> u32 {
        self.count(now, within, |entry| entry.disruptive)
    }

    /// How long ago each of the newest disruptive ones was begun.
    pub(crate) fn disrupted(&self, now: Moment, within: Duration) -> Vec<Duration> {
        let ages = self.entries.iter().rev().filter(|entry| entry.disruptive).map(|entry| entry.age(now));
        ages.filter(|age| *age <= within).take(MAX_TOLD).collect()
    }

    pub(crate) fn starts_after(&self, now: Moment, signature: &str) -> u32 {
        self.count(now, SIGNATURE_MEMORY, |entry| entry.signature.as_deref() == Some(signature))
    }
}
