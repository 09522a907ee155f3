//! When this member heard a leader last. Raft keeps the last word of anybody: a leader's, a candidate's, its own as a candidate;
//! who stands again and again without being elected has heard no leader for all that.
//!
//! Must never: forget a leader's word because somebody stood since.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The time of a leader's last word.
pub(super) struct Heard(Mutex<Instant>);

impl Heard {
    /// As of a start: nobody was heard yet, and none was missed.
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// The last word that Raft knows of, and whether it was a leader's.
    pub(super) fn note(&self, spoken: Option<Instant>, led: bool) {
        if let Some(spoken) = spoken.filter(|_| led) {
            let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *at = (*at).max(spoken);
        }
    }

    /// How long ago.
    pub(super) fn age(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn standing_for_election_is_no_leaders_word() {
        let heard = Heard::new();
        tokio::time::advance(Duration::from_secs(3)).await;
        heard.note(Some(Instant::now()), true);
        tokio::time::advance(Duration::from_secs(20)).await;
        heard.note(Some(Instant::now()), false);
        heard.note(None, true);
        assert_eq!(heard.age(), Duration::from_secs(20));
        // An older word that is told late.
        heard.note(Instant::now().checked_sub(Duration::from_secs(22)), true);
        assert_eq!(heard.age(), Duration::from_secs(20));
    }
}
