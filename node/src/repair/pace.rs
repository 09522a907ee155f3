//! The pace of a walk over the folders of a disk: spread evenly over its period, and going on where it was after a restart.
//! Pure but for the clock it is given.

use std::time::Duration;

use tokio::time::Instant;

use crate::disk::Walk;

/// Folders of a disk, by the first byte of their shards' versions: one after another, so that memory does not grow with it.
pub(super) const FOLDERS: u16 = 256;

/// One pass of a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    period: Duration,
    walk: Walk,
    resumed: Instant,
}

impl Pace {
    /// Goes on from `walk`, now.
    pub(super) fn resume(period: Duration, walk: Walk, now: Instant) -> Self {
        Self { period, walk, resumed: now }
    }

    /// The folders that are left of this pass, each with its turn.
    pub(super) fn left(&self) -> impl Iterator<Item = (u16, u8)> + use<> {
        let first = u16::from(self.walk.first);
        (self.walk.done.min(FOLDERS)..FOLDERS).map(move |turn| (turn, ((first + turn) % FOLDERS) as u8))
    }

    /// When so much of a turn's folder is to be done, at the earliest.
    pub(super) fn due(&self, turn: u16, part: f64) -> Instant {
        let share = (f64::from(turn) + part) / f64::from(FOLDERS);
        let due = self.period.mul_f64(share.clamp(0.0, 1.0));
        self.resumed + due.saturating_sub(Duration::from_millis(self.walk.elapsed_ms))
    }

    /// Where the walk is once the folder of a turn is done.
    pub(super) fn after(&self, turn: u16, now: Instant) -> Walk {
        if turn + 1 >= FOLDERS {
            return Walk { first: self.walk.first, done: 0, elapsed_ms: 0 };
        }
        let here = u64::try_from(now.duration_since(self.resumed).as_millis()).unwrap_or(u64::MAX);
        Walk { done: turn + 1, elapsed_ms: self.walk.elapsed_ms.saturating_add(here), ..self.walk }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_that_was_cut_off_goes_on_with_the_next_folder_and_keeps_its_pace() {
        let (period, began) = (Duration::from_secs(2560), Instant::now());
        let whole = Pace::resume(period, Walk { first: 200, ..Walk::default() }, began);
        let order: Vec<(u16, u8)> = whole.left().collect();
        assert_eq!((order.len(), order[0], order[56], order[255]), (256, (0, 200), (56, 0), (255, 199)));
        assert_eq!(whole.due(0, 0.5), began + Duration::from_secs(5), "ten seconds a folder");

        // A hundred folders, a restart after the node was away for an hour.
        let walk = whole.after(99, began + Duration::from_secs(1000));
        assert_eq!(walk, Walk { first: 200, done: 100, elapsed_ms: 1_000_000 });
        let back = began + Duration::from_secs(4600);
        let rest = Pace::resume(period, walk, back);
        assert_eq!(rest.left().next(), Some((100, 44)));
        assert_eq!(rest.due(100, 1.0), back + Duration::from_secs(10));
        assert_eq!(rest.due(255, 1.0), back + Duration::from_secs(1560));
        assert_eq!(rest.after(100, back + Duration::from_secs(10)).elapsed_ms, 1_010_000);
        assert_eq!(rest.after(255, back), Walk { first: 200, done: 0, elapsed_ms: 0 });
    }

    #[test]
    fn what_is_late_is_due_at_once_also_under_a_shorter_period() {
        let now = Instant::now();
        let pace = Pace::resume(Duration::from_secs(60), Walk { first: 0, done: 3, elapsed_ms: 900_000 }, now);
        assert_eq!((pace.due(3, 0.0), pace.due(255, 1.0)), (now, now));
        // As a file might say it that is sound and makes no sense.
        let beyond = Pace::resume(Duration::from_secs(60), Walk { first: 9, done: 999, elapsed_ms: u64::MAX }, now);
        assert_eq!(beyond.left().count(), 0);
        assert_eq!(beyond.after(3, now).elapsed_ms, u64::MAX);
    }
}
