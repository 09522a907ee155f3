//! When all objects are walked again.
//!
//! While a lost disk is rebuilt, which may take hours, every look of every node would be such a walk, and most of them would find
//! nothing that is not queued already: on the smallest machines they took more than the rebuilding.
//!
//! Must never: put a walk off that finds something, that the cluster map calls for, or that somebody asks for; or put any off for
//! longer than [`MAX_DOUBLINGS`] allow.

use std::time::Duration;

use tokio::time::Instant;

/// A walk that found nothing new puts the next one off for twice as long as the one before, so often at most: for 8 intervals. What
/// becomes this node's to rebuild meanwhile, it is told (`Rebuilder::is_ours_after_all`).
const MAX_DOUBLINGS: u32 = 3;

/// What a walk came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// Jobs that were not in the queue before.
    pub(super) new: u64,
    /// The queue was full meanwhile: what else there is only another walk finds.
    pub(super) full: bool,
}

/// What is remembered of the walks.
#[derive(Debug, Default)]
pub(super) struct Walks {
    /// When the next is due; `None`: at once.
    due: Option<Instant>,
    in_vain: u32,
    full: bool,
}

impl Walks {
    /// Whether to walk now. `has_room`: of the queue.
    pub(super) fn is_due(&self, now: Instant, has_room: bool) -> bool {
        self.due.is_none_or(|due| now >= due) || (self.full && has_room)
    }

    /// What is to be where has changed.
    pub(super) fn anew(&mut self) {
        *self = Self::default();
    }

    /// A walk ended. `interval`: between two looks.
    pub(super) fn walked(&mut self, now: Instant, interval: Duration, walked: Walked) {
        self.in_vain = if walked.new > 0 { 0 } else { (self.in_vain + 1).min(MAX_DOUBLINGS) };
        self.full = walked.full;
        self.due = Some(now + interval * (1 << self.in_vain));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn walks_that_find_nothing_new_become_rare_and_no_rarer_than_that() {
        let (mut now, mut walks) = (Instant::now(), Walks::default());
        let mut waited = Vec::new();
        for _ in 0..7 {
            assert!(walks.is_due(now, true));
            walks.walked(now, SECOND, Walked::default());
            let began = now;
            while !walks.is_due(now, true) {
                now += SECOND;
            }
            waited.push((now - began).as_secs());
        }
        assert_eq!(waited, [2, 4, 8, 8, 8, 8, 8]);
        // One that finds something does not.
        walks.walked(now, SECOND, Walked { new: 1, full: false });
        assert!(!walks.is_due(now, true) && walks.is_due(now + SECOND, true));
    }

    #[test]
    fn a_change_of_the_map_and_a_full_queue_that_has_room_again_are_not_put_off() {
        let (now, mut walks) = (Instant::now(), Walks::default());
        walks.walked(now, SECOND, Walked { new: 9, full: true });
        assert!(!walks.is_due(now, false), "what is left out has no place yet");
        assert!(walks.is_due(now, true));
        walks.walked(now, SECOND, Walked::default());
        assert!(!walks.is_due(now, true));
        walks.anew();
        assert!(walks.is_due(now, true));
    }
}
