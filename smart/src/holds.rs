//! What holds of whatever is called the output of `smartctl`. The property tests of this crate and the fuzzer (`fuzz/smart.rs`) ask it of
//! every input: both include this file, and bring what it uses.

use super::{Verdict, judge, parse};

/// What may be told of one disk, in characters: nothing in a report grows with the input but lists that are cut.
const MOST_CHARS: usize = 64 * 1024;

/// Reads and judges `input`, and panics where the reader breaks its word.
pub(crate) fn holds(input: &[u8]) {
    let report = parse(input);
    let judgement = judge(&report);
    assert!(!judgement.reasons.is_empty(), "every verdict has reasons: {judgement:?}");
    let read = report.counters.tell_of_the_medium();
    assert!(judgement.verdict != Verdict::Ok || read, "nothing read is never ok: {judgement:?}");
    let told = format!("{report:?} {judgement:?}");
    assert!(told.len() <= MOST_CHARS, "{} characters are told of {} bytes", told.len(), input.len());
    serde_json::to_string(&(report.kind, &report.exit_status, &report.counters, &judgement)).expect("it is a document");
    // The same words, the same report: nothing is remembered between two disks.
    let again = parse(input);
    assert_eq!(told, format!("{again:?} {:?}", judge(&again)));
}
