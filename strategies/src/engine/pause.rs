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

/// A pause with all of it: people are not shown the agent's own clock, a checkpoint needs it.
pub(crate) mod whole {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Pause;
    use crate::types::Moment;

    #[derive(Serialize, Deserialize)]
    struct Whole {
        owner: String,
        reason: String,
        expires_ms: u64,
        until: Moment,
    }

    pub(crate) fn serialize<S: Serializer>(pause: &Option<Pause>, to: S) -> Result<S::Ok, S::Error> {
        let whole =
            pause.clone().map(|Pause { owner, reason, expires_ms, until }| Whole { owner, reason, expires_ms, until });
        whole.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Pause>, D::Error> {
        let whole = Option::<Whole>::deserialize(from)?;
        Ok(whole.map(|Whole { owner, reason, expires_ms, until }| Pause { owner, reason, expires_ms, until }))
    }
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
