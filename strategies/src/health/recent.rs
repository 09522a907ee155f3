//! What happened lately, bounded: answers and misses, and how counters moved.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::input::Rate;
use crate::types::Moment;

/// Questions that are remembered: a minute at one a second. A miss among them is 1.7%.
pub(super) const QUESTIONS: usize = 60;

/// The last questions to somebody: answered after so long, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    asked: VecDeque<Option<Duration>>,
}

impl Recent {
    /// A question was answered after `Some` time, or it was not.
    pub fn push(&mut self, took: Option<Duration>) {
        if self.asked.len() == QUESTIONS {
            self.asked.pop_front();
        }
        self.asked.push_back(took);
    }

    /// Asked and unanswered; `None` while nothing was asked.
    pub fn rate(&self) -> Option<Rate> {
        let failed = self.asked.iter().filter(|took| took.is_none()).count() as u64;
        (!self.asked.is_empty()).then_some(Rate { asked: self.asked.len() as u64, failed })
    }

    /// The middle one of the answers' times; `None` without an answer. The middle, because one answer that waited for a
    /// sync says nothing.
    pub fn median(&self) -> Option<Duration> {
        let mut times: Vec<Duration> = self.asked.iter().flatten().copied().collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }

    /// Unanswered questions since the last answer.
    pub fn silent_for(&self) -> usize {
        self.asked.iter().rev().take_while(|took| took.is_none()).count()
    }
}

/// How much a counter grew within a window. Counters that begin anew with their process are taken as they are then.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Counted {
    window: Duration,
    last: Option<u64>,
    grown: VecDeque<(Moment, u64)>,
}

/// Growths that are remembered: a burst is one growth, because counters are read once a second.
const GROWTHS: usize = 64;

impl Counted {
    /// Counts over `window`.
    pub fn over(window: Duration) -> Counted {
        Counted { window, last: None, grown: VecDeque::new() }
    }

    /// Counts over another window from now on; what was forgotten stays so.
    pub fn count_for(&mut self, window: Duration) {
        self.window = window;
    }

    /// The counter was read.
    pub fn read(&mut self, now: Moment, value: u64) {
        // The first reading may be years old: it says nothing about now.
        let grown = self.last.map_or(0, |last| if value >= last { value - last } else { value });
        self.last = Some(value);
        while self.grown.front().is_some_and(|(at, _)| now.since(*at) > self.window) {
            self.grown.pop_front();
        }
        if grown == 0 {
            return;
        }
        if self.grown.len() == GROWTHS
            && let Some((_, oldest)) = self.grown.pop_front()
            && let Some((_, next)) = self.grown.front_mut()
        {
            // Nothing is forgotten before its time: it is counted with its neighbour.
            *next += oldest;
        }
        self.grown.push_back((now, grown));
    }

    /// How much it grew within the window; `None` before it was read.
    pub fn grown(&self) -> Option<u64> {
        self.last.map(|_| self.grown.iter().map(|(_, grown)| grown).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment(Duration::from_secs(secs))
    }

    #[test]
    fn a_minute_of_questions_is_remembered_and_no_more() {
        let mut recent = Recent::default();
        assert_eq!((recent.rate(), recent.median()), (None, None), "nothing was asked yet");
        for _ in 0..3 {
            recent.push(None);
        }
        assert_eq!((recent.silent_for(), recent.median()), (3, None));
        for millis in 0..QUESTIONS as u64 - 1 {
            recent.push(Some(Duration::from_millis(millis)));
        }
        assert_eq!(recent.rate(), Some(Rate { asked: 60, failed: 1 }), "two of the misses are out of sight");
        assert_eq!((recent.silent_for(), recent.median()), (0, Some(Duration::from_millis(29))));
    }

    #[test]
    fn a_counter_is_read_by_its_growth_also_over_a_restart() {
        let mut errors = Counted::over(Duration::from_secs(3600));
        assert_eq!(errors.grown(), None);
        errors.read(at(0), 1_000);
        assert_eq!(errors.grown(), Some(0), "what was there before we looked");
        errors.read(at(1), 1_003);
        errors.read(at(2), 2);
        assert_eq!(errors.grown(), Some(5), "a new process counts from nothing");
        errors.read(at(3700), 2);
        assert_eq!(errors.grown(), Some(0), "an hour later it is over");
    }

    #[test]
    fn a_storm_of_growths_stays_bounded_and_is_counted_in_full() {
        let mut errors = Counted::over(Duration::from_secs(3600));
        for second in 0..1_000 {
            errors.read(at(second), second);
        }
        assert_eq!(errors.grown(), Some(999));
        assert!(errors.grown.len() <= GROWTHS);
    }
}
