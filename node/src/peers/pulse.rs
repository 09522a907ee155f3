//! Whether this process itself stood still a moment ago: a deadline that passed meanwhile says nothing of a peer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often it beats.
const BEAT: Duration = Duration::from_millis(250);
/// So much later than due is no matter of a busy machine any more: stopped, asleep, or starved.
const LATE: Duration = Duration::from_millis(500);
/// After standing still, answers that had come meanwhile are still being worked off.
const AFTERMATH: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Beats {
    /// `None` before the first: nobody beats (a node that is not in a cluster yet).
    last: Option<Instant>,
    stood_still: Option<Instant>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Pulse {
    beats: Mutex<Beats>,
}

impl Pulse {
    /// Beats for ever.
    pub(super) async fn beat(&self) {
        loop {
            self.note(Instant::now());
            tokio::time::sleep(BEAT).await;
        }
    }

    fn note(&self, now: Instant) {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        if beats.last.is_some_and(|last| now.saturating_duration_since(last) > BEAT + LATE) {
            beats.stood_still = Some(now);
        }
        beats.last = Some(now);
    }

    /// Whether it stood still lately. Right also before the first beat after it: whoever wakes first may ask.
    pub(super) fn stood_still(&self, now: Instant) -> bool {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.last.is_some_and(|last| now.saturating_duration_since(last) > BEAT + LATE)
            || beats.stood_still.is_some_and(|at| now.saturating_duration_since(at) < AFTERMATH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_stopped_blames_nobody_until_it_has_worked_off_what_came() {
        let (pulse, begun) = (Pulse::default(), Instant::now());
        assert!(!pulse.stood_still(begun), "nobody beats yet");
        for beat in 0..4 {
            pulse.note(begun + BEAT * beat);
        }
        let stopped = begun + BEAT * 3;
        assert!(!pulse.stood_still(stopped + BEAT));
        let woken = stopped + Duration::from_secs(20);
        assert!(pulse.stood_still(woken), "before its first beat");
        pulse.note(woken);
        assert!(pulse.stood_still(woken + Duration::from_secs(1)));
        for beat in 1..12 {
            pulse.note(woken + BEAT * beat);
        }
        assert!(!pulse.stood_still(woken + BEAT * 11));
    }
}
