//! ATA: the table of attributes in its layouts, error log, self-test logs, device statistics.

use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::character::complete::{char, space0, space1};
use nom::combinator::{map, map_res, opt, rest, verify};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

use super::Reader;
use super::common::{Field, column, hexadecimal, number, word};
use crate::attribute::{Attribute, WhenFailed};
use crate::counters::fill;
use crate::{Kind, Report, cleaned};

/// The status of a self-test is in the upper four bits; these say that it found something.
pub(crate) const SELF_TEST_FAILED: std::ops::RangeInclusive<u64> = 3..=8;

/// Results of a self-test that found something, ATA and SCSI.
const FAILED: [&str; 7] = [
    "Completed: read failure",
    "Completed: electrical failure",
    "Completed: servo/seek failure",
    "Completed: unknown failure",
    "Completed: handling damage",
    "Fatal or unknown error",
    "Failed in ",
];

/// A row of a table or a log.
pub(super) fn row(reader: &mut Reader, line: &str) -> bool {
    if let Ok((_, attribute)) = attribute(line) {
        attribute.apply(&mut reader.report);
        return true;
    }
    if let Ok((_, (name, value))) = statistic(line) {
        return count_statistic(&mut reader.report, name, value);
    }
    self_test_log(reader, line) || error_log(&mut reader.report, line)
}

/// A field of identity or state.
pub(super) fn told(report: &mut Report, field: &Field<'_>) -> bool {
    match field.key.as_str() {
        "device model" => report.model = report.model.take().or_else(|| cleaned(field.value)),
        "ata version is" | "sata version is" => {}
        "self-test execution status" => {
            let open = (char::<_, nom::error::Error<&str>>('('), space0);
            let status = delimited(open, number, (space0, char(')'))).parse(field.value);
            let failed = status.is_ok_and(|(_, status)| SELF_TEST_FAILED.contains(&(status >> 4)));
            fill(&mut report.counters.self_test_failures, failed.then_some(1));
        }
        _ => return false,
    }
    report.is_of(Kind::Ata);
    true
}

/// One row, in any of the layouts:
/// `  5 Reallocated_Sector_Ct   0x0033   100   100   010    Pre-fail  Always       -       0`;
/// the same without `Always` (early version 5); brief: `  5 Reallocated_Sector_Ct   PO--CK   100   100   010    -    0`.
fn attribute(line: &str) -> IResult<&str, Attribute<'_>> {
    let id = map_res(alt((terminated(hexadecimal, space1), column)), u8::try_from);
    // A name is never a number: rows of other tables have one there.
    let name = verify(word, |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic()));
    let (input, (id, name, flags)) = (id, name, flags).parse(line)?;
    let (input, (value, _worst, _threshold)) = (level, level, level).parse(input)?;
    let (input, prefail) = match flags {
        Flags::Brief { prefail } => (input, prefail),
        Flags::Numeric => terminated(prefail, opt(updated)).parse(input)?,
    };
    let (raw, failed) = word(input)?;
    Ok(("", Attribute { id, name, value, prefail, when_failed: WhenFailed::named(failed), raw: raw.trim() }))
}

/// The column of flags, which tells the layout.
enum Flags {
    Numeric,
    Brief { prefail: bool },
}

fn flags(input: &str) -> IResult<&str, Flags> {
    let numeric = map(terminated(hexadecimal, space1), |_| Flags::Numeric);
    let letters = verify(word, |word: &str| word.len() >= 6 && word.chars().all(|c| "POSRCK-+".contains(c)));
    alt((numeric, map(letters, |word: &str| Flags::Brief { prefail: word.starts_with('P') }))).parse(input)
}

/// A normalised value; `---` where there is none.
fn level(input: &str) -> IResult<&str, Option<u64>> {
    alt((map(column, Some), map(terminated(tag("---"), space1), |_| None))).parse(input)
}

fn prefail(input: &str) -> IResult<&str, bool> {
    alt((map(tag("Pre-fail"), |_| true), map(tag("Old_age"), |_| false))).parse(input).and_then(|(input, prefail)| {
        let (input, _) = space1(input)?;
        Ok((input, prefail))
    })
}

fn updated(input: &str) -> IResult<&str, &str> {
    terminated(alt((tag("Always"), tag("Offline"))), space1).parse(input)
}

/// `0x04  0x008  4               2  ---  Number of Reported Uncorrectable Errors`, or without flags (version 6).
fn statistic(line: &str) -> IResult<&str, (&str, u64)> {
    let page = alt((terminated(hexadecimal, space1), column));
    let offset = terminated(hexadecimal, space1);
    // A tilde marks a figure as doubtful.
    let value = terminated(number, (opt(char('~')), space1));
    let marks = opt(verify(word, |word: &str| word.chars().all(|c| "VNDC-~".contains(c))));
    map((page, offset, column, value, marks, rest), |(_, _, _, value, _, name): (_, _, _, _, _, &str)| {
        (name.trim(), value)
    })
    .parse(line)
}

/// Takes a figure of the device statistics where no attribute told it: the same facts, in the standard's words.
pub(crate) fn count_statistic(report: &mut Report, name: &str, value: u64) -> bool {
    let counters = &mut report.counters;
    let counter = match name {
        "Number of Reallocated Logical Sectors" => &mut counters.reallocated_sectors,
        "Number of Reported Uncorrectable Errors" => &mut counters.reported_uncorrectable,
        "Percentage Used Endurance Indicator" => &mut counters.percentage_used,
        "Number of Interface CRC Errors" => &mut counters.crc_errors,
        _ => return false,
    };
    fill(counter, Some(value));
    report.is_of(Kind::Ata);
    true
}

/// Rows begin with `# 1`, newest first. What an extended test without error found after a failure outdates the failure.
fn self_test_log(reader: &mut Reader, line: &str) -> bool {
    let counter = &mut reader.report.counters.self_test_failures;
    if line.contains("elf-test log structure revision") || line.contains("elf-test Log Version") {
        // The standard log and the extended one tell of the same tests.
        reader.outdated = false;
        *counter = None;
        return true;
    }
    if line.starts_with("No self-tests have been logged") {
        fill(counter, Some(0));
        return true;
    }
    let numbered = preceded((char::<_, nom::error::Error<&str>>('#'), space0), number).parse(line);
    let Ok((said, _)) = numbered else { return false };
    if FAILED.iter().any(|words| said.contains(words)) {
        self_test_failed(reader);
    } else {
        fill(counter, Some(0));
        reader.outdated |= said.contains("Extended") && said.contains("Completed without error");
    }
    true
}

/// Counts a failure, unless a later test outdated it.
pub(super) fn self_test_failed(reader: &mut Reader) {
    let counter = &mut reader.report.counters.self_test_failures;
    let counts = u64::from(!reader.outdated);
    *counter = Some(counter.unwrap_or(0).saturating_add(counts));
}

/// `40 51 c8 e0 bd 71 00  Error: UNC at LBA = 0x0071bde0 = 7454176`: registers, then the bits that are set.
fn error_log(report: &mut Report, line: &str) -> bool {
    let counter = &mut report.counters.logged_media_errors;
    if report.kind == Kind::Ata && line.starts_with("No Errors Logged") {
        fill(counter, Some(0));
        return true;
    }
    let Some((registers, _)) = line.split_once("Error: ") else { return false };
    let is_entry = !registers.is_empty() && registers.chars().all(|c| c.is_ascii_hexdigit() || c == ' ');
    if is_entry {
        *counter = Some(counter.unwrap_or(0).saturating_add(u64::from(is_of_the_medium(line))));
    }
    is_entry
}

/// Whether an entry of the error log is an uncorrectable read (`UNC`). The other bits are of the cable (`ICRC`), of
/// commands that were refused (`ABRT`), or of addresses (`IDNF`).
pub(crate) fn is_of_the_medium(entry: &str) -> bool {
    let flags = entry.split_once("Error: ").map(|(_, flags)| flags).unwrap_or_default();
    let flags = flags.split_once(" at LBA").map_or(flags, |(flags, _)| flags);
    flags.split([',', ' ']).any(|flag| flag == "UNC")
}
