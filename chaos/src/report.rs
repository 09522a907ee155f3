//! What came of each scenario: a table for people, one JSON document for machines.
//!
//! Invariant: what was not observed is `-` or null, never 0.

use serde::Serialize;

/// How a scenario ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Detected, recovered, proven, and nothing acknowledged was lost.
    Recovered,
    /// Anything less.
    Failed,
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// What was done.
    pub name: String,
    /// The failure mode, by its name.
    pub mode: String,
    /// Which agent detected it, and by what.
    pub detected_by: Option<String>,
    /// From the fault to its detection.
    pub mttd_ms: Option<u64>,
    /// From the fault until clients were served as before.
    pub mttr_service_ms: Option<u64>,
    /// From the fault until every shard was back and read back.
    pub mttr_redundancy_ms: Option<u64>,
    /// Steps taken, by the journal's names.
    pub steps: Vec<String>,
    /// Acknowledged writes that could not be read back; unknown when the reading itself failed.
    pub lost_writes: Option<u64>,
    /// How it ended.
    pub verdict: Verdict,
    /// What is missing for a better verdict, or worth knowing.
    pub notes: Vec<String>,
}

/// The whole demonstration.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Seed of data and load.
    pub seed: u64,
    /// Profile the cluster ran with.
    pub profile: String,
    /// Nodes.
    pub nodes: usize,
    /// Objects stored before the first fault.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How long storing them took.
    pub stored_ms: u64,
    /// What was done and what came of it.
    pub scenarios: Vec<Scenario>,
    /// Objects read back at the end, and those among them that were lost or changed.
    pub read_back: usize,
    /// Objects lost or changed.
    pub lost_objects: Vec<String>,
    /// Puts of the load that were acknowledged while all this happened.
    pub load_acknowledged: usize,
    /// How long everything took.
    pub total_ms: u64,
}

impl Report {
    /// Whether everything recovered and nothing acknowledged was lost.
    pub fn passed(&self) -> bool {
        self.lost_objects.is_empty()
            && !self.scenarios.is_empty()
            && self.scenarios.iter().all(|scenario| scenario.verdict == Verdict::Recovered)
    }

    /// The table a person reads.
    pub fn table(&self) -> String {
        let header =
            ["SCENARIO", "MODE", "DETECTED BY", "MTTD", "MTTR SERVICE", "MTTR REDUNDANCY", "STEPS", "LOST", "VERDICT"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(self.scenarios.iter().map(row));
        let widths: Vec<usize> = (0..header.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        for scenario in &self.scenarios {
            for note in &scenario.notes {
                text.push_str(&format!("  {}: {note}\n", scenario.name));
            }
        }
        text.push_str(&format!(
            "{} of {} objects read back, {} lost; {} writes of the load acknowledged; {} in all\n",
            self.read_back,
            self.objects,
            self.lost_objects.len(),
            self.load_acknowledged,
            span(Some(self.total_ms)),
        ));
        text
    }
}

fn row(scenario: &Scenario) -> Vec<String> {
    vec![
        scenario.name.clone(),
        scenario.mode.clone(),
        scenario.detected_by.clone().unwrap_or_else(|| "-".to_owned()),
        span(scenario.mttd_ms),
        span(scenario.mttr_service_ms),
        span(scenario.mttr_redundancy_ms),
        steps(scenario),
        scenario.lost_writes.map_or("-".to_owned(), |lost| lost.to_string()),
        match scenario.verdict {
            Verdict::Recovered => "recovered".to_owned(),
            Verdict::Failed => "FAILED".to_owned(),
        },
    ]
}

/// A recovered failure without a step was healed by the node itself (its scrub and its reads repair what they find); the
/// agent then opened the incident, proved the repair and closed it.
fn steps(scenario: &Scenario) -> String {
    match (scenario.steps.is_empty(), scenario.verdict) {
        (false, _) => scenario.steps.join(", "),
        (true, Verdict::Recovered) => "none: repaired by the node".to_owned(),
        (true, Verdict::Failed) => "-".to_owned(),
    }
}

/// A span of time as people read it.
pub fn span(millis: Option<u64>) -> String {
    match millis {
        None => "-".to_owned(),
        Some(millis) if millis < 1000 => format!("{millis} ms"),
        Some(millis) => format!("{}.{:02} s", millis / 1000, millis % 1000 / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        Scenario {
            name: "kill a node".to_owned(),
            mode: "process_crash".to_owned(),
            detected_by: None,
            mttd_ms: None,
            mttr_service_ms: Some(1234),
            mttr_redundancy_ms: None,
            steps: vec![],
            lost_writes: None,
            verdict: Verdict::Failed,
            notes: vec![],
        }
    }

    #[test]
    fn what_was_not_observed_is_null_and_never_zero() {
        let json = serde_json::to_value(scenario()).unwrap();
        assert!(json["mttd_ms"].is_null() && json["lost_writes"].is_null());
        assert_eq!(row(&scenario())[3], "-");
        assert_eq!(row(&scenario())[4], "1.23 s");
    }

    #[test]
    fn a_report_without_scenarios_does_not_pass() {
        let mut report = Report {
            seed: 1,
            profile: "fast".to_owned(),
            nodes: 6,
            objects: 0,
            bytes: 0,
            stored_ms: 0,
            scenarios: vec![],
            read_back: 0,
            lost_objects: vec![],
            load_acknowledged: 0,
            total_ms: 0,
        };
        assert!(!report.passed());
        report.scenarios = vec![Scenario { verdict: Verdict::Recovered, ..scenario() }];
        assert!(report.passed());
        report.lost_objects = vec!["a".to_owned()];
        assert!(!report.passed());
    }
}
