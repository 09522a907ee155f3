//! What was missing where nobody knows how a disk is: the words for the person who reads it, with what helps.

use crate::{ExitStatus, MAX_INPUT_BYTES, Report, Source};

/// Why there is no verdict; never empty.
pub(super) fn of(report: &Report) -> Vec<String> {
    let mut gaps = vec![cause(report)];
    if let Some(status) = report.exit_status {
        for bit in [ExitStatus::USAGE, ExitStatus::NOT_OPENED, ExitStatus::COMMAND_FAILED] {
            if status.has(bit) {
                gaps.push(format!("smartctl's exit status: {}", crate::EXIT_BITS[usize::from(bit)]));
            }
        }
    }
    gaps.extend(report.complaints.iter().map(|words| format!("smartctl says: {words}")));
    gaps.extend(report.not_understood.iter().map(|raw| format!("not understood: {raw}")));
    gaps
}

fn cause(report: &Report) -> String {
    match report.source {
        Source::Empty => "there is nothing in it".to_owned(),
        Source::TooLong => format!("more than {MAX_INPUT_BYTES} bytes are not the word of one disk"),
        Source::Foreign => "this is not what smartctl prints".to_owned(),
        Source::BrokenJson => "the JSON is broken or ends too early".to_owned(),
        Source::DeviceList => "a list of devices, not the data of one: run smartctl -x on each".to_owned(),
        Source::Text | Source::Json => missing(report).to_owned(),
    }
}

fn missing(report: &Report) -> &'static str {
    match (report.smart_available, report.smart_enabled) {
        (Some(false), _) => "the device has no SMART; behind a RAID controller, ask for its disks (smartctl -d)",
        (_, Some(false)) => "SMART is switched off: smartctl -s on",
        _ if report.passed == Some(true) => "only its own word that it passed, and no counter: ask with smartctl -x",
        _ if !report.not_understood.is_empty() => "its counters are in a form that is not known",
        _ if report.model.is_some() => "its identity, and no counter of the medium: ask with smartctl -x",
        _ => "no counter of the medium was read",
    }
}
