//! What a run of the benchmark found, for programs and for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::super::Figures;
use super::cost::Cost;
use super::memory::UnderUploads;

/// What a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// No less.
    AtLeast(f64),
    /// No more.
    Under(f64),
}

impl Target {
    /// Whether it is.
    pub fn met_by(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::Under(bound) => figure < bound,
        }
    }

    fn text(self, figure: f64) -> String {
        let verdict = if self.met_by(figure) { "met" } else { "MISSED" };
        match self {
            Self::AtLeast(least) => format!("target {least} or more: {verdict} ({:.2} of it)", figure / least),
            Self::Under(bound) => format!("target under {bound}: {verdict} ({:.2} of it)", figure / bound),
        }
    }
}

/// One workload.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Each run's figure.
    pub figures: Figures,
    /// What the median should be.
    pub target: Option<Target>,
    /// Whether it is.
    pub met: Option<bool>,
    /// Clients at a time.
    pub clients: usize,
    /// Requests answered well.
    pub operations: u64,
    /// Bytes of content.
    pub content_bytes: u64,
    /// Median latency of a request.
    pub p50_ms: f64,
    /// Latency that one request in a hundred exceeded.
    pub p99_ms: f64,
    /// What went wrong, and how often.
    pub problems: BTreeMap<String, u64>,
    /// Where the time went.
    pub cost: Cost,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Cores of the machine that they, their agents and the client share.
    pub cores: usize,
    /// Seconds per run.
    pub seconds: f64,
    /// What the parts cost alone.
    pub alone: Vec<Figures>,
    /// The workloads.
    pub rows: Vec<Row>,
    /// Keys there were to list.
    pub listing_keys: u64,
    /// How long it took to make them.
    pub listing_fill_seconds: f64,
    /// The node under uploads.
    pub memory: Option<UnderUploads>,
    /// What its peak should be, MiB.
    pub memory_target: Target,
}

impl Report {
    /// Adds a listing of so many keys, and how long they took to make.
    pub fn list(&mut self, row: Row, keys: u64, fill_seconds: f64) {
        self.rows.push(row);
        (self.listing_keys, self.listing_fill_seconds) = (keys, fill_seconds);
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} nodes, agents and client on {} cores; {:.0} s per run; every shard synced; targets are of the median\n\n",
            self.nodes, self.cores, self.seconds
        );
        for figures in &self.alone {
            let _ = writeln!(text, "{}", figures.line());
        }
        for row in &self.rows {
            let _ = write!(text, "\n{}\n", row.figures.line());
            if let Some(target) = row.target {
                let _ = writeln!(text, "  {}", target.text(row.figures.median));
            }
            let _ = writeln!(
                text,
                "  {} requests by {} client(s) at a time: median {:.1} ms, 99 of 100 under {:.1} ms",
                row.operations, row.clients, row.p50_ms, row.p99_ms
            );
            problems(&mut text, &row.problems);
            text += &row.cost.lines(row.operations, row.content_bytes as f64);
        }
        if self.listing_keys > 0 {
            let rate = self.listing_keys as f64 / self.listing_fill_seconds.max(f64::MIN_POSITIVE);
            let _ = writeln!(
                text,
                "\nthe listing was of {} empty objects, made in {:.0} s ({rate:.0} a second)",
                self.listing_keys, self.listing_fill_seconds
            );
        }
        if let Some(memory) = &self.memory {
            let _ = writeln!(
                text,
                "\n{} uploads of {} MiB at a time through one node: {:.0} s, {:.0} MB/s\n  its memory: {:.0} MiB \
                 before, {:.0} MiB at the peak; other nodes {:.0} MiB at the peak\n  {}",
                memory.uploads,
                memory.upload_mib,
                memory.seconds,
                memory.megabytes_per_second,
                memory.before_mib,
                memory.peak_mib,
                memory.others_peak_mib,
                self.memory_target.text(memory.peak_mib),
            );
            problems(&mut text, &memory.problems);
        }
        text + &self.ratios()
    }

    /// Each rate of content against what it passes through.
    fn ratios(&self) -> String {
        let alone = |part: &str| self.alone.iter().find(|figures| figures.name.contains(part));
        let mut text = String::new();
        for row in self.rows.iter().filter(|row| row.figures.unit == "MB/s") {
            for part in ["MD5", "SHA-256", "16 MiB written"] {
                let Some(alone) = alone(part) else { continue };
                let ratio = row.figures.median / alone.median;
                let _ = writeln!(text, "{}: {ratio:.2} times \"{}\"", row.figures.name, alone.name);
            }
        }
        if text.is_empty() { text } else { format!("\n{text}") }
    }
}

fn problems(text: &mut String, problems: &BTreeMap<String, u64>) {
    for (problem, times) in problems {
        let _ = writeln!(text, "  not answered well: {times} times {problem}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_says_whether_it_is_met() {
        assert!(Target::AtLeast(150.0).met_by(150.0) && !Target::AtLeast(150.0).met_by(149.9));
        assert!(Target::Under(20.0).met_by(19.9) && !Target::Under(20.0).met_by(20.0));
        assert_eq!(Target::AtLeast(150.0).text(75.0), "target 150 or more: MISSED (0.50 of it)");
    }
}
