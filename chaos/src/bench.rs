//! Benchmarks: they print, and assert nothing. Each runs on a cluster that is up and that may be broken.

pub mod clients;
pub mod crash;
pub mod idle;
pub mod modes;
pub mod power_loss;
mod procfs;
pub mod rebuild;
pub mod s3;
pub mod scrub;

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// How long the calling thread has had a processor: other work on the machine does not lengthen it.
pub fn thread_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    // Of a thread's own time neither part is ever negative.
    Duration::new(spent.tv_sec.try_into().unwrap_or(0), spent.tv_nsec.try_into().unwrap_or(0))
}

/// A row of figures over several runs.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// What was measured.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// Every run, in order.
    pub runs: Vec<f64>,
    /// Smallest.
    pub min: f64,
    /// Median.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

impl Figures {
    /// Over at least one run; `None` without.
    pub fn over(name: &str, unit: &'static str, runs: Vec<f64>) -> Option<Self> {
        let mut sorted = runs.clone();
        sorted.sort_by(f64::total_cmp);
        let median = *sorted.get(sorted.len() / 2)?;
        Some(Self { name: name.to_owned(), unit, min: sorted[0], median, max: sorted[sorted.len() - 1], runs })
    }

    /// As a line of a table.
    pub fn line(&self) -> String {
        format!(
            "{:<44} min {:>10.2}  median {:>10.2}  max {:>10.2}  {} ({} runs)",
            self.name,
            self.min,
            self.median,
            self.max,
            self.unit,
            self.runs.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_ordered_and_need_a_run() {
        assert!(Figures::over("nothing", "ms", vec![]).is_none());
        let figures = Figures::over("three", "ms", vec![3.0, 1.0, 2.0]).unwrap();
        assert!((figures.min, figures.median, figures.max) == (1.0, 2.0, 3.0));
    }
}
