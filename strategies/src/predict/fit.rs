//! A line through points, and how far it can be trusted.
//!
//! The slope is Theil and Sen's: the median of the slopes of all pairs. Least squares would let one outlier (a
//! compaction, a reading taken while the machine stood still) turn the line; this one stands while fewer than three in
//! ten points are wrong, and needs no assumption about the noise.
//!
//! A robust slope alone is no trend: half a sawtooth and a single step have one, too. So the quarters of the series are
//! asked as well: their medians must rise from each to the next, and none of the rises may be much smaller than the
//! others. A step has one rise, a sawtooth falls, noise does both.

use super::samples::Point;

/// Fewer points make no line.
const MIN_POINTS: usize = 12;

/// So many points make all the line that points can make.
const FULL_POINTS: f64 = 24.0;

/// The smallest rise between quarters, as a share of their mean rise. A third: uploads come in bursts, a step has nothing.
const EVEN_RISE: f64 = 0.35;

/// The share of the residuals' spread that counts as noise against the rise: the middle 80%.
const SPREAD: (f64, f64) = (0.1, 0.9);

/// How much the noise weighs: a rise twice its spread is trusted to 0.8.
const NOISE_WEIGHT: f64 = 0.5;

/// A line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Per second.
    pub slope: f64,
    /// On the line, at the last point.
    pub level: f64,
    /// From the first point to the last, in seconds.
    pub span_secs: f64,
    /// How many points.
    pub points: usize,
    /// 0 to 1: from the noise and the number of points. 0: no trend.
    pub quality: f64,
}

/// The line through `points`, oldest first; `None` when there are too few of them.
pub fn fit(points: &[Point]) -> Option<Line> {
    let (first, last) = (points.first()?, points.last()?);
    let span_secs = last.at_secs - first.at_secs;
    if points.len() < MIN_POINTS || span_secs <= 0.0 {
        return None;
    }
    let slope = median(pair_slopes(points))?;
    let intercept = median(points.iter().map(|point| point.value - slope * point.at_secs).collect())?;
    let level = intercept + slope * last.at_secs;
    let quality = if is_even(points, slope) { quality(points, slope, intercept, span_secs) } else { 0.0 };
    Some(Line { slope, level, span_secs, points: points.len(), quality })
}

fn pair_slopes(points: &[Point]) -> Vec<f64> {
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    for (index, from) in points.iter().enumerate() {
        for to in &points[index + 1..] {
            let apart = to.at_secs - from.at_secs;
            if apart > 0.0 {
                slopes.push((to.value - from.value) / apart);
            }
        }
    }
    slopes
}

/// Whether every quarter of the series goes the slope's way, none of them much less than the others.
fn is_even(points: &[Point], slope: f64) -> bool {
    let quarter = |number: usize| &points[points.len() * number / 4..points.len() * (number + 1) / 4];
    let level = |number| median(quarter(number).iter().map(|point| point.value).collect()).unwrap_or_default();
    let time = |number| {
        let of = quarter(number);
        of.iter().map(|point| point.at_secs).sum::<f64>() / of.len() as f64
    };
    // Per second: points may have gaps between them, while the agent was away.
    let rise = |number| (level(number + 1) - level(number)) / (time(number + 1) - time(number));
    let rises = [rise(0), rise(1), rise(2)].map(|rise| rise * slope.signum());
    let mean = rises.iter().sum::<f64>() / rises.len() as f64;
    slope != 0.0 && mean > 0.0 && rises.iter().all(|rise| *rise >= EVEN_RISE * mean)
}

fn quality(points: &[Point], slope: f64, intercept: f64, span_secs: f64) -> f64 {
    let mut off: Vec<f64> = points.iter().map(|point| point.value - slope * point.at_secs - intercept).collect();
    off.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| off[((off.len() - 1) as f64 * share).round() as usize];
    let (rise, noise) = ((slope * span_secs).abs(), at(SPREAD.1) - at(SPREAD.0));
    let clean = rise / (rise + NOISE_WEIGHT * noise);
    clean * (points.len() as f64 / FULL_POINTS).min(1.0)
}

/// The middle one; `None` of nothing.
fn median(mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = values.len() / 2;
    let (_, found, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(count: usize, value: impl Fn(f64) -> f64) -> Vec<Point> {
        (0..count).map(|index| index as f64 * 60.0).map(|at_secs| Point { at_secs, value: value(at_secs) }).collect()
    }

    #[test]
    fn a_clean_line_is_found_exactly_and_trusted() {
        let line = fit(&series(60, |at| 5.0 + at / 600.0)).expect("enough points");
        assert!((line.slope - 1.0 / 600.0).abs() < 1e-12 && (line.level - (5.0 + 59.0 / 10.0)).abs() < 1e-9);
        assert!(line.quality > 0.99, "{line:?}");
    }

    #[test]
    fn outliers_do_not_turn_the_line() {
        let mut points = series(60, |at| at);
        points.iter_mut().step_by(9).for_each(|point| point.value = 1e6);
        let line = fit(&points).expect("enough points");
        assert!((line.slope - 1.0).abs() < 0.05, "{line:?}");
    }

    #[test]
    fn few_points_make_no_line() {
        assert_eq!(fit(&series(MIN_POINTS - 1, |at| at)), None);
        assert_eq!(fit(&[]), None);
        let at_once = vec![Point { at_secs: 1.0, value: 1.0 }; 50];
        assert_eq!(fit(&at_once), None, "nor do points of one moment");
        let line = fit(&series(MIN_POINTS, |at| at)).expect("just enough");
        assert!((0.4..0.6).contains(&line.quality), "and is half trusted: {line:?}");
    }

    #[test]
    fn a_step_wherever_it_is_and_a_flat_line_are_no_trend() {
        for step in 1..59 {
            let line = fit(&series(60, |at| if at < step as f64 * 60.0 { 10.0 } else { 90.0 })).expect("a line");
            assert_eq!(line.quality, 0.0, "a step at {step}: {line:?}");
        }
        assert_eq!(fit(&series(60, |_| 7.0)).expect("a line").quality, 0.0);
    }

    #[test]
    fn a_rise_that_has_ended_is_no_trend_any_more() {
        let line = fit(&series(80, |at| at.min(40.0 * 60.0))).expect("a line");
        assert_eq!(line.quality, 0.0, "{line:?}");
    }
}
