//! What a case gave over its runs, for programs and for people.

use std::fmt::Write;

use serde::Serialize;

use super::evidence::Evidence;
use super::times::{Times, percentile};
use super::traffic::Request;

/// One case over all its runs.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Which.
    pub case: &'static str,
    /// Who the clients were.
    pub client: &'static str,
    /// Requests of clients that failed or read something else than was stored, over all runs.
    pub errors: usize,
    /// What the first of them said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// Those whose answer began well and ended short or wrong.
    pub truncated: usize,
    /// Requests in all.
    pub requests: usize,
    /// The longest request of each run, of those under way during the outage; of downloads, the longest time in which
    /// nothing of one came.
    pub stall_ms: Option<Times>,
    /// When the last of the other nodes had opened its circuit.
    pub breaker_open_ms: Option<Times>,
    /// When the first of the others had counted it in `resilver_cascading_failure_events_total`.
    pub counted_ms: Option<Times>,
    /// When, after the power was back, all circuits were closed again.
    pub breaker_closed_ms: Option<Times>,
    /// When, after the power was back, the node served and nothing was missing.
    pub back_ms: Option<Times>,
    /// What 99 of 100 answers about the cluster's state took during the outage.
    pub status_p99_ms: Option<Times>,
    /// The upload of that case: what it took.
    pub upload_ms: Option<Times>,
    /// When the disk of that case was out of service: its node asks it nothing any more. `None` in an outage that is
    /// shorter than the 10 s that take.
    pub disk_out_ms: Option<Times>,
    /// What the longest download took.
    pub download_ms: Option<Times>,
    /// Shards that were rebuilt or fetched, over all runs.
    pub rebuilt_shards: u64,
    /// Objects and parts stored between the outage's begin and the cluster's being whole: each left the victim a shard.
    pub stored_meanwhile: u64,
    /// What the agents made of it, over all runs.
    pub evidence: Evidence,
    /// What else is to be known of how it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What one run gave.
#[derive(Default)]
pub(super) struct Run {
    pub(super) requests: Vec<Request>,
    pub(super) breaker_open_ms: Option<f64>,
    pub(super) counted_ms: Option<f64>,
    pub(super) breaker_closed_ms: Option<f64>,
    pub(super) back_ms: Option<f64>,
    pub(super) status_ms: Vec<f64>,
    pub(super) upload_ms: Option<f64>,
    pub(super) upload_error: Option<String>,
    pub(super) disk_out_ms: Option<f64>,
    pub(super) download_ms: Option<f64>,
    pub(super) rebuilt_shards: u64,
    pub(super) stored_meanwhile: u64,
    pub(super) evidence: Evidence,
    pub(super) note: Option<String>,
}

impl Run {
    /// Another outage of the same run: of what is timed the worst counts.
    pub(super) fn add(&mut self, other: Self) {
        let worst = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).max_by(f64::total_cmp);
        self.requests.extend(other.requests);
        self.breaker_open_ms = worst(self.breaker_open_ms, other.breaker_open_ms);
        self.counted_ms = worst(self.counted_ms, other.counted_ms);
        self.breaker_closed_ms = worst(self.breaker_closed_ms, other.breaker_closed_ms);
        self.back_ms = worst(self.back_ms, other.back_ms);
        self.status_ms.extend(other.status_ms);
        self.upload_ms = worst(self.upload_ms, other.upload_ms);
        self.upload_error = self.upload_error.take().or(other.upload_error);
        self.disk_out_ms = worst(self.disk_out_ms, other.disk_out_ms);
        self.download_ms = worst(self.download_ms, other.download_ms);
        self.rebuilt_shards += other.rebuilt_shards;
        self.stored_meanwhile += other.stored_meanwhile;
        self.evidence.add(other.evidence);
        self.note = self.note.take().or(other.note);
    }

    pub(super) fn errors(&self) -> impl Iterator<Item = &String> {
        self.requests.iter().filter_map(|request| request.error.as_ref()).chain(&self.upload_error)
    }

    pub(super) fn stall_ms(&self) -> Option<f64> {
        self.requests.iter().map(|request| super::times::ms(request.stall)).max_by(f64::total_cmp)
    }

    /// As it is told while the benchmark runs.
    pub(super) fn told(&self, case: &str, number: usize) -> String {
        let figure = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.0} ms"));
        format!(
            "{case}, run {}: {} of {} requests failed, longest {}, circuits open after {}, back after {}",
            number + 1,
            self.errors().count(),
            self.requests.len(),
            figure(self.stall_ms()),
            figure(self.breaker_open_ms),
            figure(self.back_ms),
        )
    }
}

impl Case {
    pub(super) fn over(case: &'static str, client: &'static str, runs: Vec<Run>) -> Self {
        let over = |of: &dyn Fn(&Run) -> Option<f64>| Times::over(runs.iter().filter_map(of).collect());
        let mut evidence = Evidence::default();
        for run in &runs {
            evidence.add(run.evidence.clone());
        }
        Self {
            case,
            client,
            errors: runs.iter().map(|run| run.errors().count()).sum(),
            first_error: runs.iter().find_map(|run| run.errors().next().cloned()),
            truncated: runs.iter().flat_map(|run| &run.requests).filter(|request| request.truncated).count(),
            requests: runs.iter().map(|run| run.requests.len()).sum(),
            stall_ms: over(&Run::stall_ms),
            breaker_open_ms: over(&|run| run.breaker_open_ms),
            counted_ms: over(&|run| run.counted_ms),
            breaker_closed_ms: over(&|run| run.breaker_closed_ms),
            back_ms: over(&|run| run.back_ms),
            status_p99_ms: over(&|run| percentile(run.status_ms.clone(), 99)),
            upload_ms: over(&|run| run.upload_ms),
            disk_out_ms: over(&|run| run.disk_out_ms),
            download_ms: over(&|run| run.download_ms),
            rebuilt_shards: runs.iter().map(|run| run.rebuilt_shards).sum(),
            stored_meanwhile: runs.iter().map(|run| run.stored_meanwhile).sum(),
            evidence,
            note: runs.iter().find_map(|run| run.note.clone()),
        }
    }
}

/// All cases for people: a line each, and below it what a line has no room for.
pub fn table(cases: &[Case]) -> String {
    let head = ["CASE", "ERRORS", "STALL", "OPEN", "STATUS", "CLOSED", "BACK"].map(str::to_owned);
    let row = |case: &Case| {
        let cell = |times: &Option<Times>| Times::cell(times.as_ref());
        [
            case.case.to_owned(),
            format!("{} of {}", case.errors, case.requests),
            cell(&case.stall_ms),
            cell(&case.breaker_open_ms),
            cell(&case.status_p99_ms),
            cell(&case.breaker_closed_ms),
            cell(&case.back_ms),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(cases.iter().map(row)).collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let mut text = "milliseconds: the median of the runs (the worst)\n".to_owned();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().enumerate().map(|(at, cell)| format!("{cell:<width$}", width = width(at))).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for case in cases {
        let _ = writeln!(text, "\n{}", case.case);
        let _ = writeln!(text, "  {}", case.evidence.line());
        let _ = writeln!(
            text,
            "  shards rebuilt or fetched: {}, of {} stored meanwhile",
            case.rebuilt_shards, case.stored_meanwhile
        );
        let times = [
            ("the failure counted (cascading_failure_events_total)", &case.counted_ms),
            ("the upload", &case.upload_ms),
            ("the disk out of service", &case.disk_out_ms),
            ("the longest download", &case.download_ms),
        ];
        for (what, times) in times {
            if times.is_some() {
                let _ = writeln!(text, "  {what}: {} ms", Times::cell(times.as_ref()));
            }
        }
        if case.truncated > 0 {
            let _ = writeln!(text, "  answers that ended short or wrong: {}", case.truncated);
        }
        for (what, said) in [("the first error", &case.first_error), ("note", &case.note)] {
            if let Some(said) = said {
                let _ = writeln!(text, "  {what}: {said}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request(stall_ms: u64, error: Option<&str>) -> Request {
        Request {
            stall: Duration::from_millis(stall_ms),
            error: error.map(str::to_owned),
            truncated: false,
            stores: true,
        }
    }

    #[test]
    fn an_upload_that_failed_is_an_error() {
        let run = Run { upload_error: Some("the upload: broken".to_owned()), ..Run::default() };
        let case = Case::over("upload", "built-in", vec![run]);
        assert_eq!((case.errors, case.first_error.as_deref()), (1, Some("the upload: broken")));
    }

    #[test]
    fn of_several_outages_of_a_run_the_worst_is_told_and_counts_add_up() {
        let outage = |stall, back| Run {
            requests: vec![request(stall, None)],
            back_ms: Some(back),
            rebuilt_shards: 4,
            stored_meanwhile: 5,
            ..Run::default()
        };
        let mut run = Run::default();
        for (stall, back) in [(200, 4000.0), (900, 5000.0), (100, 4500.0)] {
            run.add(outage(stall, back));
        }
        let case = Case::over("three", "built-in", vec![run]);
        let times = |times: &Option<Times>| times.as_ref().map(|times| times.worst);
        assert_eq!((times(&case.stall_ms), times(&case.back_ms)), (Some(900.0), Some(5000.0)));
        assert_eq!((case.requests, case.rebuilt_shards, case.stored_meanwhile), (3, 12, 15));
    }

    #[test]
    fn the_table_has_a_line_for_each_case_and_what_it_has_no_room_for_below() {
        let runs = vec![
            Run { requests: vec![request(10, None)], ..Run::default() },
            Run { requests: vec![request(30, Some("get: 503"))], ..Run::default() },
        ];
        let text = table(&[Case::over("power off", "built-in", runs)]);
        assert!(text.contains("\npower off  1 of 2  30 (30)  -     -       -       -\n"), "{text}");
        assert!(text.contains("\n  the first error: get: 503\n"), "{text}");
    }
}
