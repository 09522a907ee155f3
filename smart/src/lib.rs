//! What a disk says of itself: the output of `smartctl`, read and judged.
//!
//! Owns: [`parse`], which turns whatever `smartctl` printed (text of `-i`, `-H`, `-A`, `-a`, `-x`, or `--json`; ATA, SCSI
//! and SAS, NVMe; layouts from version 5 on) into a [`Report`], and [`judge`], which says what the report means.
//!
//! Must never: run `smartctl` or open a device (that needs rights this process is better without), panic, or guess: what
//! is not understood is `None`, and says so.
//!
//! Invariants: raw counters decide, not the word PASSED; a verdict of [`Verdict::Ok`] rests on at least one counter about
//! the medium that was read; parsing is linear in the input, which is bounded by [`MAX_INPUT_BYTES`].

mod attribute;
mod counters;
mod exit;
mod json;
mod text;
mod verdict;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod holds;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use self::attribute::{FailedAttribute, WhenFailed};
pub use self::counters::Counters;
pub use self::exit::{EXIT_BITS, ExitStatus};
pub use self::verdict::{Judgement, Policy, Verdict, judge};

/// More is not the word of one disk: the longest `smartctl -x --json` seen has 40 KB, a SAS disk with a full
/// background scan log and 128 phys stays below 1 MB.
pub const MAX_INPUT_BYTES: usize = 4 << 20;

/// Names and complaints are cut after this many characters: identities have 40 at most, and what is kept is printed.
const MAX_WORDS_CHARS: usize = 160;

/// Complaints that are kept; the first ones name the cause.
const MAX_COMPLAINTS: usize = 8;

/// Which command set a disk speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// SATA and PATA.
    Ata,
    /// SCSI, SAS, and what a RAID controller shows of itself.
    Scsi,
    /// NVM Express.
    Nvme,
    /// It does not say.
    #[default]
    Unknown,
}

impl Kind {
    /// The name in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ata => "ata",
            Self::Scsi => "scsi",
            Self::Nvme => "nvme",
            Self::Unknown => "unknown",
        }
    }

    /// From the words of `smartctl`: a protocol (`NVMe`) or a device type (`sat+megaraid,0`).
    fn named(word: &str) -> Self {
        match word.to_ascii_lowercase().as_str() {
            "nvme" => Self::Nvme,
            "ata" | "atacam" => Self::Ata,
            "scsi" => Self::Scsi,
            word if word.starts_with("snt") => Self::Nvme,
            word if word.starts_with("sat") => Self::Ata,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the input was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Nothing but blanks.
    #[default]
    Empty,
    /// Longer than [`MAX_INPUT_BYTES`].
    TooLong,
    /// Nothing in it is the word of `smartctl`.
    Foreign,
    /// Begins like JSON and is none, or ends too early.
    BrokenJson,
    /// `smartctl --scan`: devices, not the data of one.
    DeviceList,
    /// Text for people.
    Text,
    /// `smartctl --json`.
    Json,
}

/// What was understood of one disk's output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What the input was.
    pub source: Source,
    /// Which command set it speaks.
    pub kind: Kind,
    /// Vendor and product.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Version of the firmware.
    pub firmware: Option<String>,
    /// The disk's opinion of itself. Never enough for [`Verdict::Ok`].
    pub passed: Option<bool>,
    /// Its words where it did not pass.
    pub health: Option<String>,
    /// Whether it has SMART at all.
    pub smart_available: Option<bool>,
    /// Whether SMART is switched on.
    pub smart_enabled: Option<bool>,
    /// How `smartctl` ended; in JSON only, text does not carry it.
    pub exit_status: Option<ExitStatus>,
    /// What was counted.
    pub counters: Counters,
    /// Attributes at or below their threshold, now or once.
    pub failed_attributes: Vec<FailedAttribute>,
    /// What `smartctl` could not do, in its words.
    pub complaints: Vec<String>,
    /// Counters that are there in a form nobody but the vendor reads.
    pub not_understood: Vec<String>,
}

impl Report {
    /// A report of nothing but where it came from.
    fn of(source: Source) -> Self {
        Self { source, ..Self::default() }
    }

    /// The counters whose growth is worth extrapolating (`strategies::predict`, `Kind::CounterDrift`), each with its name.
    pub fn drifting(&self) -> Vec<(&'static str, u64)> {
        let counters = &self.counters;
        [
            ("reallocated_sectors", counters.reallocated_sectors),
            ("pending_sectors", counters.pending_sectors),
            ("uncorrectable_sectors", counters.uncorrectable_sectors),
            ("reported_uncorrectable", counters.reported_uncorrectable),
            ("media_errors", counters.media_errors),
            ("percentage_used", counters.percentage_used),
            ("grown_defects", counters.grown_defects),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }

    fn complain(&mut self, words: &str) {
        if let (Some(words), true) = (cleaned(words), self.complaints.len() < MAX_COMPLAINTS)
            && !self.complaints.contains(&words)
        {
            self.complaints.push(words);
        }
    }

    /// The first to say what kind of disk this is, is right: later sections quote other command sets.
    fn is_of(&mut self, kind: Kind) {
        if self.kind == Kind::Unknown {
            self.kind = kind;
        }
    }

    /// Forgets a temperature that means "not told": SCSI devices without a sensor say 0, and their limit is 0 as well.
    fn without_zero_of_scsi(mut self) -> Self {
        if self.kind == Kind::Scsi && self.counters.temperature_celsius == Some(0) {
            self.counters.temperature_celsius = None;
        }
        self
    }
}

/// Reads what `smartctl` printed, text or JSON. There is always a report: what could not be read is missing in it.
pub fn parse(input: &[u8]) -> Report {
    if input.len() > MAX_INPUT_BYTES {
        return Report::of(Source::TooLong);
    }
    // Digits are grouped with whatever the locale has, in whatever encoding: what is no UTF-8 is a separator.
    let text = String::from_utf8_lossy(input);
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Report::of(Source::Empty);
    }
    read(text).without_zero_of_scsi()
}

/// JSON or text, by how it begins. A prompt begins like a list (`[root@host ~]# smartctl …`), and a wrapper's warning may
/// stand before a document: there the first that understands something is right.
fn read(text: &str) -> Report {
    if text.starts_with('{') {
        return json::parse(text);
    }
    let document = if text.starts_with('[') { Some(0) } else { text.find("\n{") };
    let document = document.map(|at| json::parse(&text[at..]));
    document.filter(|report| report.source == Source::Json).unwrap_or_else(|| text::parse(text))
}

/// Words as they are kept: trimmed, without control characters, of bounded length. Nothing for nothing.
fn cleaned(words: &str) -> Option<String> {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let words: String = words.trim().chars().take(MAX_WORDS_CHARS).map(printable).collect();
    (!words.is_empty()).then_some(words)
}
