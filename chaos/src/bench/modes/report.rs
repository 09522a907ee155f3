//! The table. Invariant: what was not observed is `-` or null, never 0.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Case, Once};
use crate::report::span;

/// Milliseconds from the fault, over the runs that have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// Every run, in order.
    pub runs_ms: Vec<u64>,
    /// The middle one; of an even number the later of the two.
    pub median_ms: Option<u64>,
    /// The longest.
    pub worst_ms: Option<u64>,
}

impl Times {
    fn add(&mut self, ms: u64) {
        self.runs_ms.push(ms);
        let mut sorted = self.runs_ms.clone();
        sorted.sort_unstable();
        self.median_ms = sorted.get(sorted.len() / 2).copied();
        self.worst_ms = sorted.last().copied();
    }
}

/// One case.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The fault.
    pub case: Case,
    /// The failure mode.
    pub mode: &'static str,
    /// Runs.
    pub runs: usize,
    /// Those that ended with the agent's proof.
    pub recovered: usize,
    /// Until an agent opened the incident.
    pub detected: Times,
    /// Until its first step began. Runs without one (the node mended it itself, or nothing is fought) are not in it.
    pub first_step: Times,
    /// Until the proof.
    pub resolved: Times,
    /// What was done, in order, and in how many runs.
    pub steps: BTreeMap<String, usize>,
    /// Why runs did not recover.
    pub failures: Vec<String>,
}

impl Row {
    pub(super) fn new(case: Case) -> Self {
        Self {
            case,
            mode: case.mode(),
            runs: 0,
            recovered: 0,
            detected: Times::default(),
            first_step: Times::default(),
            resolved: Times::default(),
            steps: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, once: Once) {
        self.runs += 1;
        self.recovered += usize::from(once.resolved_ms.is_some());
        once.detected_ms.into_iter().for_each(|ms| self.detected.add(ms));
        once.first_step_ms.into_iter().for_each(|ms| self.first_step.add(ms));
        once.resolved_ms.into_iter().for_each(|ms| self.resolved.add(ms));
        *self.steps.entry(in_words(&once.steps)).or_default() += 1;
        self.failures.extend(once.why_not);
    }
}

/// Steps in order; none is said.
pub(super) fn in_words(steps: &[String]) -> String {
    if steps.is_empty() { "none".to_owned() } else { steps.join(", ") }
}

/// All cases.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Profile the clusters ran with.
    pub profile: String,
    /// One per case.
    pub cases: Vec<Row>,
}

impl Report {
    /// Whether every run of every case recovered.
    pub fn passed(&self) -> bool {
        !self.cases.is_empty() && self.cases.iter().all(|row| row.runs > 0 && row.recovered == row.runs)
    }

    /// The table a person reads.
    pub fn table(&self) -> String {
        let header = ["CASE", "MODE", "RECOVERED", "MTTD", "WORST", "FIRST STEP", "MTTR", "WORST", "STEPS"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(self.cases.iter().map(cells));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text += cells.collect::<Vec<_>>().join("  ").trim_end();
            text.push('\n');
        }
        for row in &self.cases {
            row.failures.iter().for_each(|why| text += &format!("  {}: {why}\n", row.case));
        }
        text
    }
}

fn cells(row: &Row) -> Vec<String> {
    let steps = row
        .steps
        .iter()
        .map(|(steps, times)| if row.steps.len() == 1 { steps.clone() } else { format!("{times} x ({steps})") });
    vec![
        row.case.name().to_owned(),
        row.mode.to_owned(),
        format!("{} of {}", row.recovered, row.runs),
        span(row.detected.median_ms),
        span(row.detected.worst_ms),
        span(row.first_step.median_ms),
        span(row.resolved.median_ms),
        span(row.resolved.worst_ms),
        steps.collect::<Vec<_>>().join("; "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(detected_ms: u64, resolved_ms: Option<u64>, steps: &[&str]) -> Once {
        Once {
            detected_ms: Some(detected_ms),
            first_step_ms: None,
            resolved_ms,
            steps: steps.iter().map(|step| (*step).to_owned()).collect(),
            why_not: resolved_ms.is_none().then(|| "a person is needed".to_owned()),
        }
    }

    #[test]
    fn what_was_not_observed_is_null_and_a_run_without_a_proof_is_no_recovery() {
        let mut row = Row::new(Case::RottenLog);
        for run in [
            once(900, Some(4000), &["rejoin_learner"]),
            once(700, Some(9000), &["rejoin_learner"]),
            once(800, None, &[]),
        ] {
            row.add(run);
        }
        assert_eq!((row.runs, row.recovered), (3, 2));
        assert_eq!((row.detected.median_ms, row.detected.worst_ms), (Some(800), Some(900)));
        assert_eq!((row.resolved.median_ms, row.resolved.worst_ms), (Some(9000), Some(9000)));
        let told = cells(&row);
        assert_eq!((told[2].as_str(), told[5].as_str()), ("2 of 3", "-"));
        assert_eq!(told[8], "1 x (none); 2 x (rejoin_learner)");
        let report = Report { profile: "fast".to_owned(), cases: vec![row] };
        assert!(!report.passed() && report.table().contains("rotten_log: a person is needed"), "{}", report.table());
        let json = serde_json::to_value(&report).unwrap();
        assert!(json["cases"][0]["first_step"]["median_ms"].is_null(), "{json}");
        assert!(!Report { profile: "fast".to_owned(), cases: vec![Row::new(Case::KilledNode)] }.passed());
    }
}
