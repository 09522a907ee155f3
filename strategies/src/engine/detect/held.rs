//! How long something has been seen without a break: what tells a state from a moment.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Moment;

/// Something that is so, or not, at every look.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Held {
    since: Option<Moment>,
    last: Moment,
    looks: u32,
}

impl Held {
    /// A look. After a gap longer than `gap` nothing of before counts: nobody looked, or this process stood still.
    pub(crate) fn look(&mut self, now: Moment, is: bool, gap: Duration) {
        if !is || (self.looks > 0 && now.since(self.last) > gap) {
            (self.since, self.looks) = (None, 0);
        }
        if is {
            self.since.get_or_insert(now);
            self.looks = self.looks.saturating_add(1);
            self.last = now;
        }
    }

    /// Nobody looked for longer than `gap`: what was seen before says nothing of now.
    pub(crate) fn fade(&mut self, now: Moment, gap: Duration) {
        if self.looks > 0 && now.since(self.last) > gap {
            (self.since, self.looks) = (None, 0);
        }
    }

    /// From the first look of the streak to its last, with so many looks at least.
    pub(crate) fn lasts(&self, time: Duration, looks: u32) -> bool {
        self.looks >= looks.max(1) && self.time() >= time
    }

    /// How long it has been seen.
    pub(crate) fn time(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| self.last.since(since))
    }

    /// How often in a row.
    pub(crate) fn looks(&self) -> u32 {
        self.looks
    }
}
