//! How one component is judged: the worst of its inputs counts, and what is not known is said.

use super::{Component, Reason};

/// What an input that is not known counts as: half lost. Not nothing, because unknown is not good; not all,
/// because a sensor that is away is no failed disk.
pub(super) const UNKNOWN_LOSES: f64 = 0.5;

/// A component on its way to a reason.
#[derive(Default)]
pub(super) struct Verdict {
    lost: f64,
    judged: bool,
    evidence: Vec<String>,
}

impl Verdict {
    /// An input was judged: `lost` from 0 (good) to 1 (all of the component's points).
    pub(super) fn found(&mut self, lost: f64, evidence: impl Into<String>) {
        self.lost = self.lost.max(lost.clamp(0.0, 1.0));
        self.judged = true;
        self.evidence.push(evidence.into());
    }

    /// More words, which cost nothing by themselves.
    pub(super) fn say(&mut self, evidence: Vec<String>) {
        self.evidence.extend(evidence);
    }

    /// An input that should be there is missing: it counts as half lost, whatever the others are.
    pub(super) fn unknown(&mut self, what: &str) {
        self.lost = self.lost.max(UNKNOWN_LOSES);
        self.evidence.push(format!("{what}: not known, counts as half lost"));
    }

    /// An input that not every engine and agent has is not there: the others are judged without it, and it is named.
    pub(super) fn unmeasured(&mut self, what: &str) {
        self.evidence.push(format!("{what}: not measured"));
    }

    /// The reason, for a component that holds so many of the 100 points.
    pub(super) fn reason(self, component: Component, points: f64) -> Reason {
        // A component without any input would be lost in silence otherwise.
        let lost = if self.judged { self.lost } else { self.lost.max(UNKNOWN_LOSES) };
        Reason { component, points, points_lost: points * lost, judged: self.judged, evidence: self.evidence }
    }
}

/// From 0 at `fine` to 1 at `worst`, straight in between; `worst` may lie below `fine`.
pub(super) fn ramp(value: f64, fine: f64, worst: f64) -> f64 {
    ((value - fine) / (worst - fine)).clamp(0.0, 1.0)
}

/// As [`ramp`], on a logarithmic scale: for what is judged by factors.
pub(super) fn log_ramp(value: f64, fine: f64, worst: f64) -> f64 {
    ramp(value.max(f64::MIN_POSITIVE).ln(), fine.ln(), worst.ln())
}

/// One of several that share a fate: half by the worst, half by the mean, so that one bad disk of twelve is seen and
/// twelve bad ones are worse.
pub(super) fn worst_and_mean(each: &[f64]) -> f64 {
    if each.is_empty() {
        return 0.0;
    }
    let worst = each.iter().copied().fold(0.0, f64::max);
    0.5 * worst + 0.5 * each.iter().sum::<f64>() / each.len() as f64
}

/// A share for people: `12.5%`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}
