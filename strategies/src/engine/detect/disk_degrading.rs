//! `disk_degrading`: a disk's own counters (SMART) say that it loses data or wears out.
//!
//! Never: takes what is not known for well or ill; counts one sample twice; takes what a disk lost in years for what it loses
//! now; calls a disk lost by its counters alone, which is why the node's own read errors are counted here, too.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{NodeFact, SmartFact, SmartVerdict, Subject};
use crate::config::SmartPolicy;
use crate::engine::detect::Symptom;
use crate::health::Counted;
use crate::predict::in_words;
use crate::types::{Mode, Moment};

/// Disks watched; a node has fewer.
const MAX_DISKS: usize = 256;

/// Lost data of now: sectors that cannot be read, until they are written. Not a count of all that ever was.
const PRESENT: &[&str] = &["pending_sectors"];

/// Counters of data that the medium lost since it was made: they never fall, and say something of now only by growing. Not
/// among them: wear, age, heat, the cable, and the disk's own opinion. They say that a disk may die, and not that it has
/// begun to.
const LIFETIME: &[&str] = &[
    "reallocated_sectors",
    "uncorrectable_sectors",
    "reported_uncorrectable",
    "logged_media_errors",
    "media_errors",
    "grown_defects",
    "uncorrected_read_errors",
    "uncorrected_write_errors",
    "uncorrected_verify_errors",
];

/// What is known of a disk's counters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Counters {
    verdict: SmartVerdict,
    /// How ill it was called before.
    before: SmartVerdict,
    at: Moment,
    good_for: Duration,
    /// The newest sample there was, whether it is known still or not.
    sample: Option<u64>,
    /// Samples in a row that show a loss of the medium.
    lost: u32,
    /// Samples in a row that are well.
    well: u32,
    /// How the counters of a lifetime grew; only those that were told.
    #[serde(default)]
    lifetime: BTreeMap<String, Growth>,
}

/// How a counter that never falls grew.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Growth {
    /// By the newest sample.
    now: u64,
    /// Before it grew.
    from: u64,
    grew: Option<Moment>,
}

impl Growth {
    /// What a first sample tells may be years old: it says nothing about now.
    fn since(count: u64) -> Self {
        Self { now: count, from: count, grew: None }
    }

    fn read(&mut self, now: Moment, count: u64, window: Duration) {
        if count > self.now.max(self.from) {
            if !self.lately(now, window) {
                self.from = self.from.max(self.now);
            }
            self.grew = Some(now);
        } else if count <= self.from {
            // What was more had been misread, or this is: a counter that never falls has not grown until it is beyond all before.
            self.grew = None;
        }
        self.now = count;
    }

    fn lately(&self, now: Moment, window: Duration) -> bool {
        self.grew.is_some_and(|at| now.since(at) <= window)
    }
}

impl Counters {
    /// Takes a sample; whether it shows that data is lost now, or was within the window.
    fn shows_loss(&mut self, now: Moment, fact: &SmartFact, window: Duration) -> bool {
        for name in LIFETIME {
            let Some(count) = fact.counters.get(*name) else { continue };
            self.lifetime.entry((*name).to_owned()).or_insert(Growth::since(*count)).read(now, *count, window);
        }
        let present = PRESENT.iter().any(|name| fact.counters.get(*name).is_some_and(|count| *count > 0));
        present || self.lifetime.values().any(|growth| growth.lately(now, window))
    }
}

/// What the node failed to read on a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Errors {
    /// Reads that failed; of an engine that does not tell them apart, all operations.
    #[serde(alias = "operations")]
    reads: Counted,
    /// Whether it tells them apart.
    #[serde(default)]
    told_apart: bool,
    /// Corrupt shards found since the disk is watched, and how they grew.
    found: u64,
    corrupt: Counted,
}

/// Watches the disks over samples and heartbeats.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    counters: BTreeMap<String, Counters>,
    errors: BTreeMap<String, Errors>,
    /// The process whose findings are counted, and the last one read.
    read: Option<(u32, u64)>,
}

impl Watch {
    /// Takes one heartbeat: what the node failed to read.
    pub(crate) fn heartbeat(&mut self, now: Moment, fact: &NodeFact, policy: &SmartPolicy) {
        // A node that has just begun lists none: that does not make them other disks.
        if !fact.disks.is_empty() {
            let there = |disk: &String| fact.disks.iter().any(|fact| fact.disk == *disk);
            self.errors.retain(|disk, _| there(disk));
            self.counters.retain(|disk, _| there(disk));
        }
        for disk in fact.disks.iter().take(MAX_DISKS) {
            let errors =
                self.errors.entry(disk.disk.clone()).or_insert_with(|| Errors::since(now, policy.errors_within));
            errors.reads.count_for(policy.errors_within);
            errors.corrupt.count_for(policy.errors_within);
            errors.told_apart = disk.read_errors.is_some();
            errors.reads.read(now, disk.read_errors.unwrap_or(disk.errors));
        }
        let newest = fact.findings.iter().map(|finding| finding.sequence).max().unwrap_or(0);
        let read = match self.read {
            Some((pid, read)) if pid == fact.pid => read,
            Some(_) => 0,
            // What was found before this agent looked may be weeks old: it says nothing about now.
            None => newest,
        };
        for finding in &fact.findings {
            if finding.sequence > read
                && finding.kind == "corrupt_shard"
                && let Some(errors) = self.errors.get_mut(&finding.disk)
            {
                errors.found += 1;
            }
        }
        self.errors.values_mut().for_each(|errors| errors.corrupt.read(now, errors.found));
        self.read = Some((fact.pid, newest.max(read)));
    }

    /// Takes one look at a disk's counters; a symptom when they call it ill.
    pub(crate) fn smart(&mut self, now: Moment, node: &str, fact: &SmartFact, policy: &SmartPolicy) -> Option<Symptom> {
        if self.counters.len() >= MAX_DISKS && !self.counters.contains_key(&fact.disk) {
            return None;
        }
        let known = self.counters.entry(fact.disk.clone()).or_default();
        if known.verdict.is_ill() || known.verdict == SmartVerdict::Ok {
            known.before = known.verdict;
        }
        let new = fact.sampled_ms.is_some() && fact.sampled_ms != known.sample;
        (known.verdict, known.at) = (fact.verdict, now);
        known.good_for = Duration::from_millis(fact.good_for_ms);
        known.sample = fact.sampled_ms.or(known.sample);
        let again = |streak: u32| streak.saturating_add(u32::from(new));
        let lost = known.shows_loss(now, fact, policy.errors_within);
        (known.lost, known.well) = match fact.verdict {
            SmartVerdict::Unknown => (0, 0),
            SmartVerdict::Ok => (0, again(known.well)),
            SmartVerdict::Degrading | SmartVerdict::Failing if lost => (again(known.lost), 0),
            SmartVerdict::Degrading | SmartVerdict::Failing => (0, 0),
        };
        fact.verdict.is_ill().then(|| symptom(node, fact))
    }

    /// Whether the last word on a disk was worse than the one before.
    pub(crate) fn is_worse(&self, disk: &str) -> bool {
        self.counters.get(disk).is_some_and(|known| known.verdict > known.before && known.before.is_ill())
    }

    /// Whether a disk was well in as many samples as it takes.
    pub(crate) fn well(&self, now: Moment, disk: &str, policy: &SmartPolicy) -> bool {
        self.fresh(now, disk).is_some_and(|known| known.verdict == SmartVerdict::Ok && known.well >= policy.samples)
    }

    /// Whether the counters and the node agree that the disk loses data, with the numbers.
    pub(crate) fn agree(&self, now: Moment, disk: &str, policy: &SmartPolicy) -> (bool, String) {
        let (verdict, lost) =
            self.fresh(now, disk).map_or((SmartVerdict::Unknown, 0), |known| (known.verdict, known.lost));
        let errors = self.errors.get(disk);
        let failed = errors.and_then(|errors| errors.reads.grown()).unwrap_or(0);
        let corrupt = errors.and_then(|errors| errors.corrupt.grown()).unwrap_or(0);
        let SmartPolicy { samples, errors: enough, errors_within, .. } = policy;
        let window = in_words(*errors_within);
        let agree = verdict.is_ill() && lost >= *samples && failed + corrupt >= u64::from(*enough);
        let what = if errors.is_some_and(|errors| errors.told_apart) { "reads" } else { "operations" };
        let evidence = format!(
            "SMART is {verdict}, {lost} samples in a row show data lost now or within {window}, {samples} needed; within {window} {failed} \
             {what} failed there and {corrupt} shards were corrupt, {enough} needed"
        );
        (agree, evidence)
    }

    fn fresh(&self, now: Moment, disk: &str) -> Option<&Counters> {
        self.counters.get(disk).filter(|known| now.since(known.at) <= known.good_for)
    }
}

impl Errors {
    fn since(now: Moment, window: Duration) -> Self {
        let mut corrupt = Counted::over(window);
        corrupt.read(now, 0);
        Self { reads: Counted::over(window), told_apart: false, found: 0, corrupt }
    }
}

fn symptom(node: &str, fact: &SmartFact) -> Symptom {
    let SmartFact { disk, verdict, reasons, source, .. } = fact;
    Symptom {
        mode: Mode::DiskDegrading,
        subject: Subject::Disk { disk: disk.clone(), node: node.to_owned() },
        detected_by: "SMART".to_owned(),
        evidence: format!("{verdict}: {} ({source})", reasons.join("; ")),
        initial: false,
        life: None,
        signature: None,
        mended: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a recorder wrote it before reads were told apart and growth was kept.
    #[test]
    fn a_checkpoint_from_before_is_read() {
        let before = r#"{
            "counters": {"d1": {"verdict": "degrading", "before": "ok", "at": {"secs": 9, "nanos": 0}, "sample": 7, "lost": 2,
                "good_for": {"secs": 3600, "nanos": 0}, "well": 0}},
            "errors": {"d1": {"operations": {"window": {"secs": 86400, "nanos": 0}, "last": 3, "grown": [[{"secs": 8, "nanos": 0}, 2]]},
                "found": 0, "corrupt": {"window": {"secs": 86400, "nanos": 0}, "last": 0, "grown": []}}},
            "read": [100, 4]}"#;
        let watch: Watch = serde_json::from_str(before).expect("it is read");
        let (agree, told) = watch.agree(Moment(Duration::from_secs(10)), "d1", &SmartPolicy::default());
        assert!(agree && told.contains("2 operations failed there"), "{told}");
    }
}
