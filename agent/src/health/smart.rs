//! What the disks say of themselves, for people, scores and trends.
//!
//! Must never: believe a word for longer than it is good for.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use resilver_strategies::api::SmartVerdict;
use resilver_strategies::config::SmartPolicy;
use resilver_strategies::health::Announced;
use resilver_strategies::types::Moment;
use serde::Serialize;

/// One disk's word, as it was last read.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SmartView {
    /// Which disk.
    pub(crate) disk: String,
    /// Its folder.
    pub(crate) path: String,
    /// What its counters come to.
    pub(crate) verdict: SmartVerdict,
    /// Why; of `unknown`: what is missing.
    pub(crate) reasons: Vec<String>,
    /// What it counts.
    pub(crate) counters: BTreeMap<&'static str, u64>,
    /// When it was read, wall time; null: it was not.
    pub(crate) sampled_ms: Option<u64>,
    /// Where it was read; empty: not even that is known.
    pub(crate) source: String,
    /// Vendor and product.
    pub(crate) model: Option<String>,
    /// Serial number.
    pub(crate) serial: Option<String>,
    /// The counters that are worth extrapolating.
    #[serde(skip)]
    pub(crate) drifting: Vec<(&'static str, u64)>,
    /// For how long it is believed.
    #[serde(skip)]
    pub(crate) good_for: Duration,
}

impl SmartView {
    /// Of which nothing is known yet.
    pub(crate) fn unknown(disk: &str, path: &Path, good_for: Duration) -> Self {
        Self {
            disk: disk.to_owned(),
            path: path.display().to_string(),
            verdict: SmartVerdict::Unknown,
            reasons: Vec::new(),
            counters: BTreeMap::new(),
            sampled_ms: None,
            source: String::new(),
            model: None,
            serial: None,
            drifting: Vec::new(),
            good_for,
        }
    }

    /// What it is worth now, for a score: nothing where nothing is known.
    fn announced(&self) -> Option<Announced> {
        let why = self.reasons.first().cloned().unwrap_or_default();
        match self.verdict {
            SmartVerdict::Unknown => None,
            SmartVerdict::Ok => Some(Announced::Well),
            SmartVerdict::Degrading => Some(Announced::Degrading(why)),
            SmartVerdict::Failing => Some(Announced::Failing(why)),
        }
    }
}

/// All disks' words, with when they came.
#[derive(Debug, Default)]
pub(super) struct Smart(BTreeMap<String, (Moment, SmartView)>);

impl Smart {
    pub(super) fn set(&mut self, now: Moment, view: SmartView) {
        self.0.insert(view.disk.clone(), (now, view));
    }

    /// Forgets disks that the node does not have.
    pub(super) fn keep(&mut self, known: impl Fn(&str) -> bool) {
        self.0.retain(|disk, _| known(disk));
    }

    fn fresh(&self, now: Moment) -> impl Iterator<Item = &SmartView> {
        self.0.values().filter(move |(at, view)| now.since(*at) <= view.good_for).map(|(_, view)| view)
    }

    pub(super) fn announced(&self, now: Moment, disk: &str) -> Option<Announced> {
        self.fresh(now).find(|view| view.disk == disk).and_then(SmartView::announced)
    }

    /// For people: what nobody has confirmed for too long is unknown.
    pub(super) fn views(&self, now: Moment) -> Vec<SmartView> {
        let worth = |(at, view): &(Moment, SmartView)| match now.since(*at) <= view.good_for {
            true => view.clone(),
            false => {
                let reason = format!("nobody has looked for {} s", now.since(*at).as_secs());
                let path = Path::new(&view.path);
                SmartView { reasons: vec![reason], ..SmartView::unknown(&view.disk, path, view.good_for) }
            }
        };
        self.0.values().map(worth).collect()
    }

    /// Counters that drift: disk, counter, how far it is, and its end.
    pub(super) fn drifts(&self, now: Moment, limits: &SmartPolicy) -> Vec<(String, f64, f64)> {
        let of = |view: &SmartView| -> Vec<(String, f64, f64)> {
            let drift = |(name, count): &(&'static str, u64)| {
                (format!("{}/{name}", view.disk), *count as f64, f64::from(end_of(name, limits)))
            };
            view.drifting.iter().map(drift).collect()
        };
        self.fresh(now).flat_map(of).collect()
    }
}

/// Where a counter's growth ends: at its limit (docs/smart.md). Counters of lost sectors without a limit of their own end where
/// reallocated ones do, which is what pending ones become.
fn end_of(counter: &str, limits: &SmartPolicy) -> u32 {
    match counter {
        "percentage_used" => limits.percentage_used_degrading,
        "grown_defects" => limits.grown_defects_failing,
        _ => limits.reallocated_failing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment(Duration::from_secs(secs))
    }

    #[test]
    fn a_word_is_believed_for_as_long_as_it_is_good_and_no_longer() {
        let mut smart = Smart::default();
        let unknown = SmartView::unknown("d1", Path::new("/d1"), Duration::from_secs(60));
        let drifting = vec![("pending_sectors", 8), ("percentage_used", 3)];
        smart.set(at(0), SmartView { verdict: SmartVerdict::Degrading, drifting, ..unknown });
        assert_eq!(smart.views(at(60))[0].verdict, SmartVerdict::Degrading);
        assert_eq!(
            smart.drifts(at(60), &SmartPolicy::default()),
            [("d1/pending_sectors".to_owned(), 8.0, 100.0), ("d1/percentage_used".to_owned(), 3.0, 100.0)]
        );
        let stale = smart.views(at(61)).remove(0);
        assert_eq!(
            (stale.verdict, stale.reasons.as_slice()),
            (SmartVerdict::Unknown, ["nobody has looked for 61 s".to_owned()].as_slice())
        );
        assert!(smart.drifts(at(61), &SmartPolicy::default()).is_empty() && smart.announced(at(61), "d1").is_none());
        smart.keep(|disk| disk != "d1");
        assert!(smart.views(at(61)).is_empty());
    }
}
