//! An operator's pause: a reason, an owner, an expiry.
//!
//! Owns: whether the agent may begin a step. Must never: replay what was not done; on resume the present is judged.

use std::time::Duration;

use serde::Serialize;

use crate::types::{Moment, Now};

/// The longest pause: a forgotten one must end some day.
pub const MAX_PAUSE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A pause in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// Who.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Until when, wall time, for people.
    pub expires_ms: u64,
    #[serde(skip)]
    pub(crate) until: Moment,
}

impl Pause {
    /// A pause from now on.
    pub(crate) fn new(now: Now, owner: String, reason: String, lasts: Duration) -> Self {
        let lasts = lasts.min(MAX_PAUSE);
        let expires_ms = now.wall_ms.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        Self { owner, reason, expires_ms, until: now.mono + lasts }
    }

    /// For the record.
    pub(crate) fn evidence(&self, now: Moment) -> String {
        let left = self.until.since(now).as_secs();
        format!("paused by {} for another {left} s: {}", self.owner, self.reason)
    }
}
