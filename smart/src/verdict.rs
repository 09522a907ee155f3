//! What a report means: ok, degrading, failing, or that nobody knows.
//!
//! Owns: the thresholds ([`Policy`]) and their reasons. Pure.
//!
//! Must never: take the word PASSED for a sign of health. A disk says so until an attribute has used up all that its
//! vendor allowed, and many die before.
//!
//! Invariants: every verdict has reasons, [`Verdict::Unknown`] says what was missing; nothing read is never
//! [`Verdict::Ok`]; a cable's errors are told and never decide.

mod gaps;

use std::fmt;

use serde::Serialize;

use super::{ExitStatus, Kind, Report, WhenFailed};

/// How a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing that could tell was read.
    Unknown,
    /// What was read is well.
    Ok,
    /// It works, and has begun to lose data or wear out: watch it, plan its replacement.
    Degrading,
    /// It says itself that it fails, or has lost more than a disk loses before it does.
    Failing,
}

impl Verdict {
    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Ok => "ok",
            Self::Degrading => "degrading",
            Self::Failing => "failing",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A verdict with what it rests on, the weightiest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// How the disk is.
    pub verdict: Verdict,
    /// Why, one sentence each.
    pub reasons: Vec<String>,
}

/// Where the limits are. One sector that is lost is reason enough to watch a disk, so most limits are "any at all"; these
/// are the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// More reallocated sectors than this, and it fails.
    pub reallocated_failing: u64,
    /// More grown defects than this, and it fails.
    pub grown_defects_failing: u64,
    /// As much of its rated life used, in per cent, and it degrades.
    pub percentage_used_degrading: u64,
    /// No more life left than this, in per cent, and it degrades.
    pub wear_left_degrading: u64,
}

impl Policy {
    /// A disk with one reallocated sector is some fourteen times as likely to die within two months as one with none
    /// (Pinheiro and others, "Failure trends in a large disk drive population", FAST 2007), hence degrading from one on.
    /// No study draws a second line. A hundred is beyond one scratch or one bad flash block, and far below the thousands
    /// of spares after which a vendor's own threshold speaks.
    pub const REALLOCATED_FAILING: u64 = 100;

    /// SAS disks count the same thing; lists of a few are shipped and live long.
    pub const GROWN_DEFECTS_FAILING: u64 = 100;

    /// The vendor's promise ends there; flash often goes on, on nobody's word.
    pub const PERCENTAGE_USED_DEGRADING: u64 = 100;

    /// Normalised values stop at 1 and never reach 0.
    pub const WEAR_LEFT_DEGRADING: u64 = 1;
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            reallocated_failing: Self::REALLOCATED_FAILING,
            grown_defects_failing: Self::GROWN_DEFECTS_FAILING,
            percentage_used_degrading: Self::PERCENTAGE_USED_DEGRADING,
            wear_left_degrading: Self::WEAR_LEFT_DEGRADING,
        }
    }
}

/// Judges by the usual limits.
pub fn judge(report: &Report) -> Judgement {
    Policy::default().judge(report)
}

/// What each bit of an NVMe critical warning means, and how much.
const WARNINGS: [(Verdict, &str); 8] = [
    (Verdict::Failing, "it warns that its spare blocks run out"),
    // Heat is the room's, as a rule, and passes.
    (Verdict::Degrading, "it warns of its temperature"),
    (Verdict::Failing, "it warns that it is no longer reliable"),
    (Verdict::Failing, "its medium is read-only"),
    // What it acknowledged out of this memory is gone with the power.
    (Verdict::Failing, "the backup of its volatile memory has failed"),
    // Nothing here uses that region.
    (Verdict::Degrading, "its persistent memory region is unreliable"),
    (Verdict::Degrading, "it warns with a bit that has no meaning yet (6)"),
    (Verdict::Degrading, "it warns with a bit that has no meaning yet (7)"),
];

impl Policy {
    /// Judges by these limits.
    pub fn judge(&self, report: &Report) -> Judgement {
        let mut found = Findings::default();
        own_word(report, &mut found);
        attributes(report, &mut found);
        self.medium(report, &mut found);
        self.wear(report, &mut found);
        exit_status(report, &mut found);
        let worst = found.0.iter().map(|(verdict, _)| *verdict).max();
        match worst {
            Some(verdict) if verdict > Verdict::Ok => found.into_judgement(verdict),
            _ if report.counters.tell_of_the_medium() => {
                found.0.extend(report.not_understood.iter().map(|raw| (Verdict::Ok, format!("not understood: {raw}"))));
                found.0.insert(0, (Verdict::Ok, "no counter of the medium shows a loss".to_owned()));
                found.into_judgement(Verdict::Ok)
            }
            _ => {
                let mut reasons = gaps::of(report);
                reasons.extend(found.into_judgement(Verdict::Unknown).reasons);
                Judgement { verdict: Verdict::Unknown, reasons }
            }
        }
    }

    fn medium(&self, report: &Report, found: &mut Findings) {
        use Verdict::{Degrading, Ok};
        let counters = &report.counters;
        found.many(counters.reallocated_sectors, self.reallocated_failing, "reallocated sectors or blocks");
        found.many(counters.grown_defects, self.grown_defects_failing, "grown defects");
        found.any(Degrading, counters.pending_sectors, "sectors that cannot be read and wait for being written");
        found.any(Degrading, counters.uncorrectable_sectors, "sectors that were unreadable in an offline scan");
        found.any(Degrading, counters.reported_uncorrectable, "reads that ended in an uncorrectable error");
        found.any(Degrading, counters.logged_media_errors, "uncorrectable reads in its error log");
        found.any(Degrading, counters.end_to_end_errors, "end-to-end errors (data it changed inside)");
        found.any(Degrading, counters.media_errors, "errors of medium or data integrity");
        found.any(Degrading, counters.uncorrected_read_errors, "reads that could not be corrected");
        found.any(Degrading, counters.uncorrected_write_errors, "writes that could not be corrected");
        found.any(Degrading, counters.uncorrected_verify_errors, "verifications that could not be corrected");
        found.any(Degrading, counters.self_test_failures, "self-tests that failed");
        found.any(Ok, counters.crc_errors, "checksum errors on the link (cable or contacts, not the medium)");
    }

    fn wear(&self, report: &Report, found: &mut Findings) {
        let counters = &report.counters;
        if let Some(bits) = counters.critical_warning {
            for (bit, (verdict, words)) in WARNINGS.iter().enumerate() {
                found.when((bits >> bit) & 1 == 1, *verdict, || (*words).to_owned());
            }
        }
        if let (Some(spare), Some(least)) = (counters.available_spare, counters.available_spare_threshold) {
            found.when(spare < least, Verdict::Failing, || {
                format!("spare left: {spare} %, below the limit of {least} %")
            });
        }
        if let Some(used) = counters.percentage_used {
            let worn = used >= self.percentage_used_degrading;
            found.when(worn, Verdict::Degrading, || format!("rated life used: {used} %"));
        }
        if let Some(left) = counters.wear_left {
            let worn = left <= self.wear_left_degrading;
            found.when(worn, Verdict::Degrading, || format!("life left by its own attribute: {left} %"));
        }
    }
}

/// What the disk says of itself, where it is bad.
fn own_word(report: &Report, found: &mut Findings) {
    let explained = report.kind == Kind::Nvme && report.counters.critical_warning.is_some_and(|bits| bits != 0);
    let says_so = match (report.passed, report.exit_status) {
        (Some(false), _) => true,
        (_, status) => status.is_some_and(|status| status.has(ExitStatus::FAILING)),
    };
    // An NVMe disk "fails" whenever it warns, be it of heat: the bits say what of.
    if !says_so || explained {
        return;
    }
    let words = report.health.as_deref().unwrap_or("FAILED");
    let hot = words.to_ascii_lowercase().contains("temperature");
    let verdict = if hot { Verdict::Degrading } else { Verdict::Failing };
    found.when(true, verdict, || format!("it says of itself: {words}"));
}

fn attributes(report: &Report, found: &mut Findings) {
    for failed in &report.failed_attributes {
        let (id, name) = (failed.id, &failed.name);
        let verdict = match failed.when {
            // Heat is the room's, as a rule, and passes.
            WhenFailed::Now if failed.is_of_heat() => Verdict::Degrading,
            WhenFailed::Past if failed.is_of_heat() => Verdict::Ok,
            WhenFailed::Now if failed.prefail || failed.is_of_the_medium() => Verdict::Failing,
            WhenFailed::Now => Verdict::Degrading,
            WhenFailed::Past if failed.prefail || failed.is_of_the_medium() => Verdict::Degrading,
            WhenFailed::Past => Verdict::Ok,
        };
        let when = if failed.when == WhenFailed::Now { "is" } else { "was once" };
        found.when(true, verdict, || format!("attribute {id} ({name}) {when} at or below its threshold"));
    }
}

/// What only the exit status tells: where the output has the cause, that has spoken already.
fn exit_status(report: &Report, found: &mut Findings) {
    let Some(status) = report.exit_status else { return };
    let counters = &report.counters;
    let prefail_told = report.failed_attributes.iter().any(|failed| failed.when == WhenFailed::Now);
    let said = [
        (ExitStatus::PREFAIL, Verdict::Failing, prefail_told),
        (ExitStatus::PREFAIL_PAST, Verdict::Ok, !report.failed_attributes.is_empty()),
        // Refused commands and a bad cable fill the log as well.
        (ExitStatus::ERROR_LOG, Verdict::Ok, counters.logged_media_errors.is_some_and(|errors| errors > 0)),
        (ExitStatus::SELF_TEST, Verdict::Degrading, counters.self_test_failures.is_some()),
    ];
    for (bit, verdict, told) in said {
        let meaning = super::EXIT_BITS[usize::from(bit)];
        found.when(status.has(bit) && !told, verdict, || format!("smartctl's exit status: {meaning}"));
    }
}

/// What was found, in the order of looking; [`Verdict::Ok`] is a remark.
#[derive(Default)]
struct Findings(Vec<(Verdict, String)>);

impl Findings {
    fn when(&mut self, found: bool, verdict: Verdict, words: impl FnOnce() -> String) {
        if found {
            self.0.push((verdict, words()));
        }
    }

    fn any(&mut self, verdict: Verdict, count: Option<u64>, words: &str) {
        if let Some(count) = count.filter(|count| *count > 0) {
            self.0.push((verdict, format!("{words}: {count}")));
        }
    }

    fn many(&mut self, count: Option<u64>, limit: u64, words: &str) {
        let verdict = if count.is_some_and(|count| count > limit) { Verdict::Failing } else { Verdict::Degrading };
        self.any(verdict, count, words);
    }

    fn into_judgement(mut self, verdict: Verdict) -> Judgement {
        // Stable: what weighs the same stays in the order of looking.
        self.0.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
        Judgement { verdict, reasons: self.0.into_iter().map(|(_, words)| words).collect() }
    }
}
