//! A series in bounded memory: as time passes its points become fewer and each stands for more.
//!
//! Invariants: at most [`MAX_POINTS`] points, in the order of time; a point is the mean of what was seen in its span, so
//! that thinning makes no slow wave of a fast one; after [`MAX_SPAN`] the oldest point goes for each that comes.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::Moment;

/// Points of one series. 128: at one a minute two hours, and by thinning days; its 8,128 pairs are fitted in a
/// millisecond.
pub const MAX_POINTS: usize = 128;

/// How far back a series goes at least once it is thinned, before points are dropped. A day: a load that comes each day
/// is no trend.
pub const MAX_SPAN: Duration = Duration::from_secs(24 * 3600);

/// One point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// When, in seconds of the agent's life: the middle of what it stands for.
    #[serde(with = "super::exact")]
    pub at_secs: f64,
    /// How much.
    #[serde(with = "super::exact")]
    pub value: f64,
}

/// What is being gathered into one point.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Gathering {
    since: Moment,
    #[serde(with = "super::exact")]
    samples: f64,
    #[serde(with = "super::exact")]
    at_secs: f64,
    #[serde(with = "super::exact")]
    value: f64,
}

/// A series.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Samples {
    step: Duration,
    points: VecDeque<Point>,
    gathering: Option<Gathering>,
}

impl Samples {
    /// A series whose points are this far apart at first.
    pub fn new(step: Duration) -> Samples {
        Samples { step, points: VecDeque::new(), gathering: None }
    }

    /// Adds a sample. One that is no number is none.
    pub fn push(&mut self, now: Moment, value: f64) {
        if !value.is_finite() {
            return;
        }
        if let Some(gathering) = self.gathering
            && now.since(gathering.since) >= self.step
        {
            self.gathering = None;
            self.keep(Point { at_secs: gathering.at_secs, value: gathering.value });
        }
        let at_secs = now.0.as_secs_f64();
        let into = self.gathering.get_or_insert(Gathering { since: now, samples: 0.0, at_secs, value });
        into.samples += 1.0;
        into.at_secs += (at_secs - into.at_secs) / into.samples;
        into.value += (value - into.value) / into.samples;
    }

    fn keep(&mut self, point: Point) {
        self.points.push_back(point);
        if self.points.len() <= MAX_POINTS {
            return;
        }
        if self.span_secs() >= MAX_SPAN.as_secs_f64() {
            self.points.pop_front();
            return;
        }
        // Two become one from the oldest on; an odd newest one stays as it is.
        self.step *= 2;
        let halved = self.points.make_contiguous().chunks(2).map(|pair| {
            let mean = |of: fn(&Point) -> f64| pair.iter().map(of).sum::<f64>() / pair.len() as f64;
            Point { at_secs: mean(|point| point.at_secs), value: mean(|point| point.value) }
        });
        self.points = halved.collect();
    }

    /// The points, oldest first; what is still being gathered is the last one.
    pub fn points(&self) -> impl Iterator<Item = Point> + '_ {
        let last = self.gathering.map(|gathering| Point { at_secs: gathering.at_secs, value: gathering.value });
        self.points.iter().copied().chain(last)
    }

    /// The middle value; `None` when there is none. What it used to be.
    pub fn median(&self) -> Option<f64> {
        let mut values: Vec<f64> = self.points().map(|point| point.value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.points.len() + usize::from(self.gathering.is_some())
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn span_secs(&self) -> f64 {
        match (self.points.front(), self.points.back()) {
            (Some(first), Some(last)) => last.at_secs - first.at_secs,
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(count: u64) -> Moment {
        Moment(Duration::from_secs(60 * count))
    }

    #[test]
    fn a_week_fits_in_the_points_and_keeps_its_line() {
        let mut samples = Samples::new(Duration::from_secs(60));
        for minute in 0..7 * 24 * 60 {
            samples.push(minutes(minute), minute as f64);
            assert!(samples.len() <= MAX_POINTS + 1);
        }
        let points: Vec<Point> = samples.points().collect();
        assert!(points.windows(2).all(|pair| pair[0].at_secs < pair[1].at_secs));
        assert!(points.iter().all(|point| (point.at_secs / 60.0 - point.value).abs() < 1e-6), "on its line");
        let span = points.last().expect("some").at_secs - points[0].at_secs;
        assert!(span >= MAX_SPAN.as_secs_f64() && span < 3.0 * MAX_SPAN.as_secs_f64(), "{span} s");
    }

    #[test]
    fn a_fast_wave_does_not_become_a_slow_one() {
        let mut samples = Samples::new(Duration::from_secs(60));
        // A tooth of 17 minutes and 16 units, against points of 16 minutes: sampled now and then it would climb for hours.
        for minute in 0..24 * 60 {
            samples.push(minutes(minute), (minute % 17) as f64);
        }
        let thinned: Vec<f64> = samples.points().take(samples.len() - 1).map(|point| point.value).collect();
        assert!(thinned.iter().all(|value| (5.0..10.0).contains(value)), "{thinned:?}");
    }

    #[test]
    fn what_is_no_number_is_no_sample() {
        let mut samples = Samples::new(Duration::from_secs(60));
        samples.push(minutes(0), f64::NAN);
        assert!(samples.is_empty() && samples.median().is_none());
        samples.push(minutes(1), 3.0);
        assert_eq!((samples.len(), samples.median()), (1, Some(3.0)));
    }
}
