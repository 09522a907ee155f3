//! The comparison, for programs and for people. Pure.

use std::fmt::Write;

use serde::Serialize;

use super::CostOptions;
use crate::hosts::Defences;

/// How two sides of a measure are compared. A cost is positive when the layers make it worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    /// By their ratio, in percent: throughput.
    LessIsWorse,
    /// By their ratio, in percent: latency.
    MoreIsWorse,
    /// By their difference, in the measure's own unit.
    Difference,
}

/// One figure of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Measure {
    name: String,
    unit: &'static str,
    compare: Compare,
    /// What the cost should stay under.
    bound: Option<f64>,
}

/// One measure of both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// With the layers: each cluster's figure, in order.
    pub on: Vec<f64>,
    /// Their median.
    pub on_median: f64,
    /// The other side's.
    pub other: Vec<f64>,
    /// Their median.
    pub other_median: f64,
    /// What the layers cost, of each pair of neighbours: percent, or the measure's unit where that is one already.
    pub cost: Vec<f64>,
    /// Its unit.
    pub cost_unit: &'static str,
    /// The median of the pairs.
    pub cost_median: f64,
    /// What it should stay under.
    pub target: Option<f64>,
    /// Whether it does.
    pub met: Option<bool>,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Nodes of each cluster.
    pub nodes: usize,
    /// Cores of the machine that nodes, agents and the client share.
    pub cores: usize,
    /// Seconds of each workload.
    pub seconds: f64,
    /// What the other side is.
    pub against: &'static str,
    /// Whether this is a build without optimisation: then only ratios mean something.
    pub debug_build: bool,
    /// The measures.
    pub rows: Vec<Row>,
}

impl Measure {
    pub(super) fn new(name: String, unit: &'static str, compare: Compare, bound: Option<f64>) -> Self {
        Self { name, unit, compare, bound }
    }

    fn cost(&self, on: f64, other: f64) -> f64 {
        match self.compare {
            Compare::LessIsWorse => 100.0 * (other / on - 1.0),
            Compare::MoreIsWorse => 100.0 * (on / other - 1.0),
            Compare::Difference => on - other,
        }
    }

    fn row(&self, at: usize, blocks: &[(bool, Vec<f64>)]) -> Row {
        let side = |with: bool| {
            let own = blocks.iter().filter(|(of, _)| *of == with);
            own.map(|(_, figures)| figures[at]).collect::<Vec<f64>>()
        };
        let pair = |pair: &[(bool, Vec<f64>)]| match pair {
            [(true, on), (false, other)] | [(false, other), (true, on)] => Some(self.cost(on[at], other[at])),
            _ => None,
        };
        let cost: Vec<f64> = blocks.chunks(2).filter_map(pair).collect();
        let (on, other, cost_median) = (side(true), side(false), median(&cost));
        Row {
            name: self.name.clone(),
            unit: self.unit,
            on_median: median(&on),
            other_median: median(&other),
            on,
            other,
            cost,
            cost_unit: if self.compare == Compare::Difference { self.unit } else { "%" },
            cost_median,
            target: self.bound,
            met: self.bound.map(|bound| cost_median < bound),
        }
    }
}

/// On, off, off, on, over and over: `true` is with the layers.
pub(super) fn order(rounds: usize) -> impl Iterator<Item = bool> {
    (0..rounds).flat_map(|_| [true, false, false, true])
}

/// What the other side is called.
pub(super) fn other(against: Defences) -> &'static str {
    match against {
        Defences::On => "on again",
        Defences::Off => "off",
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        // Pairs come in twos: the middle of an even number lies between two of them.
        len if len % 2 == 0 => (sorted[half - 1] + sorted[half]) / 2.0,
        _ => sorted[half],
    }
}

impl Report {
    pub(super) fn over(measures: &[Measure], blocks: &[(bool, Vec<f64>)], options: &CostOptions) -> Self {
        Self {
            nodes: options.shape.nodes,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            seconds: options.span.as_secs_f64(),
            against: other(options.against),
            debug_build: cfg!(debug_assertions),
            rows: measures.iter().enumerate().map(|(at, measure)| measure.row(at, blocks)).collect(),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} nodes, agents and client on {} cores; {:.0} s per workload; medians; the cost is that of neighbours{}\n",
            self.nodes,
            self.cores,
            self.seconds,
            if self.debug_build { "; a debug build: only ratios mean something" } else { "" }
        );
        let _ = writeln!(
            text,
            "{:<36}{:>10}{:>10}  {:<12}{:>8}",
            "MEASURE",
            "ON",
            self.against.to_uppercase(),
            "UNIT",
            "COST"
        );
        for row in &self.rows {
            let verdict = match (row.target, row.met) {
                (Some(target), Some(met)) => {
                    format!(" (target under {target}: {})", if met { "met" } else { "MISSED" })
                }
                _ => String::new(),
            };
            let spread = spread(&row.cost);
            let _ = writeln!(
                text,
                "{:<36}{:>10.1}{:>10.1}  {:<12}{:>8.2} {}{verdict}{spread}",
                row.name, row.on_median, row.other_median, row.unit, row.cost_median, row.cost_unit
            );
        }
        text
    }
}

/// How far apart the pairs are: a median of figures that differ by more than it says little.
fn spread(cost: &[f64]) -> String {
    let least = cost.iter().copied().min_by(f64::total_cmp);
    let most = cost.iter().copied().max_by(f64::total_cmp);
    match (least, most) {
        (Some(least), Some(most)) => format!(", pairs {least:.2} to {most:.2}"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::hosts::Shape;

    fn options() -> CostOptions {
        CostOptions { shape: Shape::new(6, 4), rounds: 1, span: Duration::from_secs(5), against: Defences::Off }
    }

    #[test]
    fn a_drift_of_the_machine_is_no_cost() {
        // It loses a tenth of its speed from one block to the next, whichever side is measured.
        let blocks: Vec<(bool, Vec<f64>)> = order(2)
            .scan(1000.0, |speed, with| {
                *speed *= 0.9;
                Some((with, vec![*speed]))
            })
            .collect();
        let requests = Measure::new("requests".to_owned(), "/s", Compare::LessIsWorse, Some(3.0));
        let row = &Report::over(&[requests], &blocks, &options()).rows[0];
        assert_eq!(row.cost.len(), 4, "two pairs a round");
        assert!(row.cost_median.abs() < 1.0 && row.met == Some(true), "{row:?}");
        assert!(row.cost[0] < -9.0 && row.cost[1] > 9.0, "each pair alone would have said otherwise: {row:?}");
    }

    #[test]
    fn a_cost_is_positive_when_the_layers_make_it_worse() {
        let cost = |compare, on, other| Measure::new(String::new(), "", compare, None).cost(on, other).round();
        assert_eq!(cost(Compare::LessIsWorse, 80.0, 100.0), 25.0);
        assert_eq!(cost(Compare::MoreIsWorse, 110.0, 100.0), 10.0);
        assert_eq!(cost(Compare::Difference, 45.0, 30.0), 15.0);
    }

    #[test]
    fn the_order_is_on_off_off_on_and_the_table_says_what_was_missed() {
        assert_eq!(order(1).collect::<Vec<_>>(), [true, false, false, true]);
        let blocks = [(true, vec![60.0]), (false, vec![30.0]), (false, vec![31.0]), (true, vec![59.0])];
        let memory = Measure::new("memory".to_owned(), "MiB", Compare::Difference, Some(20.0));
        let text = Report::over(&[memory], &blocks, &options()).table();
        assert!(text.contains("29.00 MiB (target under 20: MISSED), pairs 28.00 to 30.00"), "{text}");
    }
}
