//! The text for people, line by line.
//!
//! Owns: which line goes to whom. Each command set has its parser; they share one [`Reader`].
//!
//! Must never: need a section to be complete, a column to be where it was, or a line to be there at all. Text comes cut,
//! with its blanks collapsed, with a prompt above it.
//!
//! Invariant: a line that nobody knows changes nothing.

mod ata;
mod common;
mod nvme;
mod scsi;

use nom::Parser;
use nom::bytes::complete::{tag, take_till};
use nom::sequence::preceded;

pub(super) use self::ata::{SELF_TEST_FAILED, count_statistic, is_of_the_medium};
use self::common::{Field, field};
pub(super) use self::common::{hexadecimal, number};
use super::{Kind, Report, Source, cleaned};

/// What is said when `smartctl` could not do what it was asked. Parts of lines, in lower case.
const COMPLAINTS: [&str; 20] = [
    "command failed",
    "device does not support smart",
    "device identity failed",
    "device open failed",
    "exit(2)",
    "inquiry failed",
    "invalid argument",
    "no such device",
    "no such file",
    "not supported by device",
    "open device:",
    "open failed",
    "operation not permitted",
    "permission denied",
    "please specify device type",
    "smart disabled",
    "terminate command early",
    "unable to detect device type",
    "unknown usb bridge",
    "command not found",
];

/// What is carried from line to line.
#[derive(Debug, Default)]
struct Reader {
    report: Report,
    /// Something was the word of `smartctl`.
    known: bool,
    /// A line of `--scan`.
    devices: bool,
    /// An extended self-test without error was seen; older failures in that log do not count any more.
    outdated: bool,
}

/// Reads text; there is always a report.
pub(super) fn parse(text: &str) -> Report {
    let mut reader = Reader::default();
    for line in text.lines() {
        reader.line(line);
    }
    reader.report.source = match (reader.known, reader.devices) {
        (true, _) => Source::Text,
        (false, true) => Source::DeviceList,
        (false, false) => Source::Foreign,
    };
    reader.report
}

impl Reader {
    fn line(&mut self, line: &str) {
        let line = line.trim();
        if line.is_empty() || self.version(line) || self.device(line) {
            return;
        }
        let complains = {
            let lower = line.to_ascii_lowercase();
            COMPLAINTS.iter().any(|words| lower.contains(words))
        };
        if complains {
            self.report.complain(line);
        }
        let rows = ata::row(self, line) || nvme::row(self, line) || scsi::row(self, line);
        let told = rows
            || field(line).is_some_and(|field| {
                identity(&mut self.report, &field)
                    || ata::told(&mut self.report, &field)
                    || nvme::told(&mut self.report, &field)
                    || scsi::told(&mut self.report, &field)
            });
        self.known |= told;
    }

    /// `smartctl 7.3 2022-02-28 r5338 […`, `smartctl version 5.38 […`; also a prompt with the command. And the headings.
    fn version(&mut self, line: &str) -> bool {
        let version = line.starts_with("smartctl ") || line.starts_with("=== START OF");
        self.known |= version;
        version
    }

    /// `/dev/sda -d sat # /dev/sda [SAT], ATA device` of `--scan`; `/dev/sda: Device of type 'sat' [SAT] opened` of `-d test`.
    fn device(&mut self, line: &str) -> bool {
        self.devices |= line.starts_with("/dev/") && line.contains(" -d ") && line.contains(" # ");
        let Some((_, said)) = line.split_once("Device of type ") else { return false };
        let named = preceded(tag::<_, _, nom::error::Error<&str>>("'"), take_till(|c| c == '\'')).parse(said);
        let Ok((_, name)) = named else { return false };
        self.known = true;
        // The last word counts: a SATA disk is opened as SCSI first.
        self.report.kind = Kind::named(name);
        true
    }
}

/// What every command set says under the same name.
fn identity(report: &mut Report, field: &Field<'_>) -> bool {
    match field.key.as_str() {
        "serial number" => report.serial = report.serial.take().or_else(|| cleaned(field.value)),
        "firmware version" => report.firmware = report.firmware.take().or_else(|| cleaned(field.value)),
        "smart support is" => match field.first_word() {
            "Available" => report.smart_available = Some(true),
            "Unavailable" => report.smart_available = Some(false),
            "Enabled" => report.smart_enabled = Some(true),
            "Disabled" => report.smart_enabled = Some(false),
            _ => {}
        },
        "smart overall-health self-assessment test result" => match field.first_word().trim_end_matches('!') {
            "PASSED" => report.passed = Some(true),
            "FAILED" => {
                report.passed = Some(false);
                report.health = cleaned(field.value);
            }
            _ => {}
        },
        _ => return false,
    }
    true
}
