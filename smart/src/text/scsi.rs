//! SCSI and SAS: error counters, defects, self-tests; the layout of version 5 on one line.

use nom::Parser;
use nom::branch::alt;
use nom::bytes::complete::tag;
use nom::character::complete::{char, space0};
use nom::combinator::{all_consuming, opt};
use nom::multi::count;
use nom::sequence::{preceded, separated_pair, terminated};

use super::Reader;
use super::common::{Field, column, number, word};
use crate::counters::fill;
use crate::{Kind, Report, cleaned};

/// Columns of the error counter log before the last one, which has the errors that could not be corrected. The one with
/// bytes processed has a decimal sign of the locale, so that they are words here.
const COLUMNS_BEFORE_LAST: usize = 6;

/// A line that is no field: `number of hours powered up = 30000.30`, `Current temperature = 25`.
pub(super) fn row(reader: &mut Reader, line: &str) -> bool {
    let name = alt((tag::<_, _, nom::error::Error<&str>>("number of hours powered up"), tag("Current temperature")));
    let Ok((_, (name, value))) = separated_pair(name, (space0, char('='), space0), number).parse(line) else {
        return false;
    };
    let counters = &mut reader.report.counters;
    let hours = name.starts_with("number");
    fill(if hours { &mut counters.power_on_hours } else { &mut counters.temperature_celsius }, Some(value));
    true
}

/// A field of identity, health or counters.
pub(super) fn told(report: &mut Report, field: &Field<'_>) -> bool {
    let counters = &mut report.counters;
    let counter = match field.key.as_str() {
        "vendor" => return named(report, field.value),
        "product" => {
            // The vendor's name came before.
            let whole = [report.model.as_deref().unwrap_or_default(), field.value].join(" ");
            report.model = cleaned(&whole);
            report.is_of(Kind::Scsi);
            return true;
        }
        "device" => return old_identity(report, field.value),
        "device type" | "transport protocol" => {
            report.is_of(Kind::Scsi);
            return true;
        }
        "revision" => {
            report.firmware = report.firmware.take().or_else(|| cleaned(field.value));
            return true;
        }
        "smart health status" => {
            report.is_of(Kind::Scsi);
            report.passed = (!field.value.is_empty()).then(|| field.first_word().eq_ignore_ascii_case("ok"));
            report.health = if report.passed == Some(false) { cleaned(field.value) } else { None };
            return true;
        }
        "elements in grown defect list" => &mut counters.grown_defects,
        "pending defect count" => &mut counters.pending_sectors,
        "non-medium error count" => &mut counters.non_medium_errors,
        "percentage used endurance indicator" => &mut counters.percentage_used,
        "current drive temperature" => &mut counters.temperature_celsius,
        "accumulated power on time, hours" => {
            // "…, hours:minutes 16003:18 [8762 minutes]": the first colon ended the name.
            fill(&mut counters.power_on_hours, minutes_hours(field.value));
            return true;
        }
        "read" | "write" | "verify" => return uncorrected(report, field),
        _ => return false,
    };
    fill(counter, field.number());
    report.is_of(Kind::Scsi);
    true
}

fn named(report: &mut Report, vendor: &str) -> bool {
    report.model = report.model.take().or_else(|| cleaned(vendor));
    report.is_of(Kind::Scsi);
    true
}

/// `Device: ServeRA  Drive 1          Version: V1.0`, as version 5 printed it.
fn old_identity(report: &mut Report, value: &str) -> bool {
    let (model, version) = value.split_once("Version:").unwrap_or((value, ""));
    let words: Vec<&str> = model.split_whitespace().collect();
    report.model = report.model.take().or_else(|| cleaned(&words.join(" ")));
    report.firmware = report.firmware.take().or_else(|| cleaned(version));
    report.is_of(Kind::Scsi);
    true
}

/// The last column of the error counter log.
fn uncorrected(report: &mut Report, field: &Field<'_>) -> bool {
    let row = all_consuming(preceded(count(word, COLUMNS_BEFORE_LAST), column)).parse(field.value);
    let Ok((_, errors)) = row else { return false };
    let counter = match field.key.as_str() {
        "read" => &mut report.counters.uncorrected_read_errors,
        "write" => &mut report.counters.uncorrected_write_errors,
        _ => &mut report.counters.uncorrected_verify_errors,
    };
    fill(counter, Some(errors));
    report.is_of(Kind::Scsi);
    true
}

fn minutes_hours(value: &str) -> Option<u64> {
    let prefix = opt(terminated(tag::<_, _, nom::error::Error<&str>>("minutes"), space0));
    preceded(prefix, number).parse(value).ok().map(|(_, hours)| hours)
}
