//! An agent's word that background work rests on this node. Beside a person's pause ([`super::super::pause`]), which is the cluster's.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Board;

/// An agent has background work rest.
#[derive(Clone, Debug)]
pub(super) struct Throttled {
    reason: String,
    pub(super) until: Instant,
}

/// How long that lasts without being said again: an agent that is gone must not keep redundancy from coming back.
pub(crate) const THROTTLE_LASTS: Duration = Duration::from_secs(15 * 60);

impl Board {
    /// Has scrub and the rebuilding of shards rest, or go on; whether they rested. What is said ends by itself after
    /// [`THROTTLE_LASTS`].
    pub(crate) fn throttle(&self, reason: Option<&str>) -> bool {
        let before = self.throttled().is_some();
        let until = Instant::now() + THROTTLE_LASTS;
        self.inner.throttled.send_replace(reason.map(|reason| Throttled { reason: reason.to_owned(), until }));
        before
    }

    /// Why they rest now, if they do.
    pub(crate) fn throttled(&self) -> Option<String> {
        let throttled = self.inner.throttled.borrow();
        throttled
            .as_ref()
            .filter(|throttled| Instant::now() < throttled.until)
            .map(|throttled| throttled.reason.clone())
    }

    /// Resolves once they do not rest.
    pub(in crate::repair) async fn unthrottled(&self) {
        let mut throttled = self.inner.throttled.subscribe();
        loop {
            let until = throttled.borrow_and_update().as_ref().map(|throttled| throttled.until);
            let Some(until) = until.filter(|until| Instant::now() < *until) else { return };
            tokio::select! {
                () = sleep_until(until) => {}
                // The sender lives in this board.
                _ = throttled.changed() => {}
            }
        }
    }
}
