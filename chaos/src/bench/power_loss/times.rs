//! Times over the runs of a case: what is said of them is always how bad they are, so the largest is the worst.

use std::time::Duration;

use serde::Serialize;

/// Fewer values than this have no 99th percentile of their own: it is their largest.
const LEAST_FOR_P99: usize = 100;

/// What the figure called `p99` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// Of a hundred runs or more: what 99 of 100 did not exceed.
    P99,
    /// Of fewer: the worst of them.
    Worst,
}

/// Milliseconds, one value per run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// Every run, in order.
    pub runs: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// Their 99th percentile, or what stands for it.
    pub p99: f64,
    /// Which of the two.
    pub p99_is: Tail,
    /// The longest.
    pub worst: f64,
}

impl Times {
    /// Over at least one run; `None` without.
    pub(super) fn over(runs: Vec<f64>) -> Option<Self> {
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let worst = *sorted.last()?;
        let p99_is = if sorted.len() < LEAST_FOR_P99 { Tail::Worst } else { Tail::P99 };
        Some(Self {
            median: sorted[sorted.len() / 2],
            p99: percentile(sorted, 99).unwrap_or(worst),
            p99_is,
            worst,
            runs,
        })
    }

    /// The median, and the worst in brackets when there was more than one run.
    pub(super) fn cell(times: Option<&Self>) -> String {
        match times {
            None => "-".to_owned(),
            Some(times) if times.runs.len() == 1 => format!("{:.0}", times.median),
            Some(times) => format!("{:.0} ({:.0})", times.median, times.worst),
        }
    }
}

/// The value that so many percent of them do not exceed (nearest rank); `None` without values.
pub(super) fn percentile(mut values: Vec<f64>, percent: usize) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100);
    values.get(rank.saturating_sub(1)).copied()
}

pub(super) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_of_what_was_measured() {
        assert_eq!(percentile((1..=200).map(f64::from).rev().collect(), 99), Some(198.0));
        assert_eq!(percentile(vec![7.0], 99), Some(7.0));
        assert_eq!(percentile(Vec::new(), 99), None);
    }

    #[test]
    fn ten_runs_have_a_worst_and_a_hundred_a_percentile() {
        let ten = Times::over((1..=10).map(f64::from).collect()).unwrap();
        assert_eq!((ten.median, ten.p99, ten.p99_is, ten.worst), (6.0, 10.0, Tail::Worst, 10.0));
        let hundred = Times::over((1..=100).map(f64::from).collect()).unwrap();
        assert_eq!((hundred.p99, hundred.p99_is, hundred.worst), (99.0, Tail::P99, 100.0));
        assert_eq!(Times::over(Vec::new()), None);
    }

    #[test]
    fn a_cell_says_how_bad_it_was_when_there_were_several() {
        assert_eq!(Times::cell(None), "-");
        assert_eq!(Times::cell(Times::over(vec![2.4]).as_ref()), "2");
        assert_eq!(Times::cell(Times::over(vec![1.0, 9.0, 2.0]).as_ref()), "2 (9)");
    }
}
