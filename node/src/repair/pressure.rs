//! Background work gives way: while clients take more than [`PAUSE_ABOVE`] of a disk's time, no shard that has a spare is
//! rebuilt on it, and it is not scrubbed.
//!
//! Owns: that decision, and the looks at the disks it is made from. What counts is the time in which a client's step was under
//! way at the disk ([`crate::disk::Purpose`]), over the last [`WINDOW`]. Uploads and requests at work are no measure of it: a
//! client that is slow has a place for hours, and takes nothing.
//!
//! Must never: hold a shard whose extent could not lose one more: that redundancy is at its last spare. Hold what a person
//! asks for by name (`object repair`), which does not go through the queue.
//!
//! The way back is easier than the way in ([`RESUME_AT`]): a rebuild makes clients' steps longer, so that it would pause
//! itself and begin again with each look. And it has an end: a disk that does many things at a time can be at work for clients at
//! each moment, for ever, and have room all the same. After [`PAUSE_LASTS`] a trickle goes through ([`Pressure::turns`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{RepairParts, THROTTLE_LASTS};
use crate::types::DiskId;

/// Foreground use above which background work pauses, in percent of the disk's time. At 80% a step of a client waits four
/// times as long as it takes (one queue); whatever is added from there on multiplies that.
pub const PAUSE_ABOVE: u32 = 80;

/// Foreground use at which it goes on.
const RESUME_AT: u32 = 70;

/// Over how long the use is measured: longer than a burst of one upload, shorter than anybody waits for repair to give way.
const WINDOW: Duration = Duration::from_secs(5);

/// How often the disks are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long background work waits for clients before a trickle goes through: as long as an agent may have it rest. That figure is
/// how long redundancy may stay away for anything but a person's word.
const PAUSE_LASTS: Duration = THROTTLE_LASTS;

/// From then on one shard is rebuilt on the disk, and one is scrubbed, each so often. A shard has 16 MiB at most, which is a
/// fraction of a second of a disk to read, write and read back: clients lose a tenth of its time at most.
const TRICKLE_EVERY: Duration = Duration::from_secs(10);

/// What clients take of one disk, and whether background work gives way to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Foreground use over the last window, in percent of the disk's time.
    pub percent: u32,
    /// Background work on this disk pauses.
    pub pauses: bool,
    /// How many shards have been let through this pause, for each kind of work: none until it has lasted too long.
    pub turns: u64,
}

impl Pressure {
    /// What it is after a measurement.
    fn next(self, percent: u32) -> Self {
        let limit = if self.pauses { RESUME_AT } else { PAUSE_ABOVE };
        Self { percent, pauses: percent > limit, ..self }
    }

    /// Whether work on this disk may go on that has used up turns until `used`; using up those there are, if it needs one.
    pub(super) fn lets_through(self, used: &mut u64) -> bool {
        if !self.pauses {
            *used = 0;
            return true;
        }
        // Turns that nobody took are not saved up. Fewer than were used: another pause.
        let may = if self.turns < *used { self.turns > 0 } else { self.turns > *used };
        *used = self.turns;
        may
    }
}

/// How many turns there are in a pause of this length.
fn turns(pause: Duration) -> u64 {
    let beyond = pause.checked_sub(PAUSE_LASTS);
    beyond.map_or(0, |beyond| beyond.as_secs() / TRICKLE_EVERY.as_secs() + 1)
}

/// Whether a shard waits, of whose extent so many more could be lost.
pub(super) fn holds(pressure: Pressure, spare: u8) -> bool {
    pressure.pauses && spare > 0
}

/// Looks at one disk: when, and how much of its time clients had taken by then.
#[derive(Debug, Default)]
struct Looks {
    seen: VecDeque<(Instant, Duration)>,
    pressure: Pressure,
    /// Since when it pauses.
    paused: Option<Instant>,
}

impl Looks {
    /// Takes a look into account.
    fn add(&mut self, now: Instant, busy: Duration) -> Pressure {
        self.seen.push_back((now, busy));
        // The last look before the window is what the oldest difference is taken from.
        while self.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.seen.pop_front();
        }
        // A window that has not passed yet proves nothing.
        if let Some((since, before)) = self.seen.front().filter(|(at, _)| now.duration_since(*at) >= WINDOW) {
            let share = busy.saturating_sub(*before).as_secs_f64() / now.duration_since(*since).as_secs_f64();
            self.pressure = self.pressure.next((share * 100.0).round().min(100.0) as u32);
        }
        self.paused = self.pressure.pauses.then(|| self.paused.unwrap_or(now));
        self.pressure.turns = self.paused.map_or(0, |since| turns(now.duration_since(since)));
        self.pressure
    }
}

/// Looks for ever, and tells the board.
pub(super) async fn run(parts: Arc<RepairParts>) {
    let mut disks: BTreeMap<DiskId, Looks> = BTreeMap::new();
    loop {
        let now = Instant::now();
        let volumes = parts.disks.volumes();
        disks.retain(|disk, _| volumes.iter().any(|volume| volume.id() == *disk));
        let mut pressures = BTreeMap::new();
        for volume in volumes {
            let looks = disks.entry(volume.id()).or_default();
            let was = looks.pressure.pauses;
            let pressure = looks.add(now, volume.foreground_busy());
            if pressure.pauses != was {
                let (disk, percent) = (volume.id(), pressure.percent);
                let what = if pressure.pauses { "pauses" } else { "goes on" };
                tracing::info!(%disk, percent, limit = PAUSE_ABOVE, operation = "repair", "repair on a busy disk {what}");
            }
            pressures.insert(volume.id(), pressure);
        }
        parts.board.set_pressures(pressures);
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One look a second, at a disk of whose time clients take so many percent from then on.
    fn look(looks: &mut Looks, began: Instant, seconds: &mut u64, busy: &mut Duration, percent: u32, times: u64) {
        for _ in 0..times {
            *seconds += 1;
            *busy += Duration::from_millis(u64::from(percent) * 10);
            looks.add(began + Duration::from_secs(*seconds), *busy);
        }
    }

    fn pressure(percent: u32, pauses: bool) -> Pressure {
        Pressure { percent, pauses, turns: 0 }
    }

    #[test]
    fn work_pauses_above_eighty_percent_of_a_window_and_goes_on_below_seventy() {
        let (mut looks, began, mut seconds, mut busy) = (Looks::default(), Instant::now(), 0, Duration::ZERO);
        looks.add(began, busy);
        let mut now = |percent, times| {
            look(&mut looks, began, &mut seconds, &mut busy, percent, times);
            looks.pressure
        };
        assert_eq!(now(100, 4), Pressure::default(), "less than a window is no measure");
        assert_eq!(now(100, 1), pressure(100, true));
        assert_eq!(now(75, 20), pressure(75, true), "it has to fall further");
        assert_eq!(now(70, 5), pressure(70, false));
        assert_eq!(now(80, 20), pressure(80, false), "above, not at");
        assert_eq!(now(0, 2), pressure(48, false));
        assert_eq!(now(100, 3), pressure(60, false), "a burst is no pressure");
        assert_eq!(now(81, 5), pressure(81, true));
    }

    #[test]
    fn looks_are_bounded_and_a_pause_of_the_process_counts_as_the_time_it_was() {
        let (mut looks, began) = (Looks::default(), Instant::now());
        for millis in 0..10_000 {
            looks.add(began + Duration::from_millis(millis), Duration::ZERO);
        }
        assert!(looks.seen.len() <= 5_002, "{}", looks.seen.len());
        // A minute without a look, in which clients took half of the time.
        let found = looks.add(began + Duration::from_secs(70), Duration::from_secs(30));
        assert_eq!(found, pressure(50, false));
        assert_eq!(looks.seen.len(), 2);
    }

    #[test]
    fn only_what_has_a_spare_waits() {
        let pressed = pressure(95, true);
        assert!(holds(pressed, 1) && holds(pressed, 200));
        assert!(!holds(pressed, 0), "it could not lose one more");
        assert!(!holds(pressure(79, false), 1));
    }

    /// A parallel disk under a steady load has a step of some client under way at each moment: nothing was ever rebuilt on it.
    #[test]
    fn a_pause_without_end_lets_a_trickle_through_after_fifteen_minutes() {
        let (mut looks, began, mut seconds, mut busy) = (Looks::default(), Instant::now(), 0, Duration::ZERO);
        looks.add(began, busy);
        let mut now = |percent, times| {
            look(&mut looks, began, &mut seconds, &mut busy, percent, times);
            looks.pressure
        };
        assert_eq!(now(100, 5), pressure(100, true));
        assert_eq!(now(100, 15 * 60 - 1), pressure(100, true), "as long as an agent may have it rest");
        assert_eq!(now(100, 1).turns, 1);
        assert_eq!((now(100, 9).turns, now(100, 1).turns, now(100, 50).turns), (1, 2, 7));
        assert_eq!(now(0, 2), pressure(60, false), "it goes on as ever");
        assert_eq!(now(100, 60), pressure(100, true), "and the next pause is measured anew");
    }

    #[test]
    fn turns_are_taken_once_and_not_saved_up() {
        let at = |turns| Pressure { percent: 100, pauses: true, turns };
        let mut used = 0;
        assert!(!at(0).lets_through(&mut used));
        assert!(at(1).lets_through(&mut used) && !at(1).lets_through(&mut used));
        assert!(at(9).lets_through(&mut used) && !at(9).lets_through(&mut used), "seven went by");
        assert!(at(2).lets_through(&mut used) && !at(2).lets_through(&mut used), "in the next pause");
        assert!(pressure(60, false).lets_through(&mut used) && !at(0).lets_through(&mut used));
        assert!(at(1).lets_through(&mut used));
    }
}
