//! Whatever is called the output of `smartctl`: it is read without a panic, into bounded words, and no verdict but `ok` comes without
//! a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use resilver_smart::{Verdict, judge, parse};

/// What may be told of one disk: nothing in a report grows with the input but lists that are cut.
const MOST_CHARS: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let report = parse(input);
    let judgement = judge(&report);
    let told = format!("{report:?} {judgement:?}");
    assert!(told.len() <= MOST_CHARS, "{} characters are told of {} bytes", told.len(), input.len());
    assert!(judgement.verdict == Verdict::Ok || !judgement.reasons.is_empty(), "{judgement:?}: why?");
    // The same words, the same report: nothing is remembered between two disks.
    let again = parse(input);
    assert_eq!(told, format!("{again:?} {:?}", judge(&again)));
});
