//! Stories of log lines: evidence beside what is seen otherwise, and by themselves nothing.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use resilver_strategies::api::{LogMatchFact, Observation, SmartVerdict};
use resilver_strategies::config::Profile;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, GuardName, Mode};

fn line(mode: Mode) -> Observation {
    let (pattern, line) = ("ext4".into(), "EXT4-fs error (device sdb1)".into());
    Observation::LogMatch(LogMatchFact { pattern, mode: Some(mode), line, count: 1 })
}

fn timeline(bench: &Bench) -> String {
    let told = bench.engine.explain(bench.now(), &bench.only().id).expect("an incident that is open");
    told.timeline.iter().map(|event| format!("{}\n", event.what)).collect()
}

#[test]
fn a_line_opens_nothing_and_does_nothing_whatever_mode_it_names() {
    for mode in Mode::ALL {
        let mut bench = Bench::calm(Profile::Fast);
        for _ in 0..100 {
            bench.observe(line(*mode));
            bench.beat(10);
        }
        assert!(bench.open().is_empty() && bench.actions().is_empty(), "{mode}");
        assert_eq!(bench.asked_slot(), None, "{mode}");
        let notes = bench.records(RecordKind::Note);
        assert!(notes.iter().any(|note| note.mode == Some(*mode)), "{mode}: but people are told");
    }
}

#[test]
fn a_line_from_before_the_incident_stands_in_it_and_beside_its_guard() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.observe(line(Mode::DiskFailure));
    bench.beat(30);
    bench.disk("d1", "up", "error");
    bench.beat(3);
    let told = timeline(&bench);
    assert!(
        told.contains("a line of the log speaks for it as well, 3") && told.contains("(ext4): EXT4-fs error"),
        "{told}"
    );
    let stops = bench.last_step();
    bench.done(stops.id);
    bench.disk("d1", "read_only", "error");
    bench.beat(10);
    assert_eq!(bench.asked_slot().expect("a slot to detach it").action, Action::DetachDisk);
    let judged = bench.engine.plan(bench.now()).to_string();
    assert!(judged.contains("called bad by") && judged.contains("speaks for it as well"), "{judged}");
}

#[test]
fn a_line_from_after_it_was_opened_stands_in_every_incident_of_its_mode_and_in_no_other() {
    let mut bench = Bench::calm(Profile::Production);
    bench.smart(1, SmartVerdict::Degrading, 8);
    bench.observe(line(Mode::DiskFailure));
    assert!(!timeline(&bench).contains("match ext4"));
    bench.beat(301);
    bench.observe(line(Mode::DiskDegrading));
    assert!(timeline(&bench).contains("1 lines match ext4, the last: EXT4-fs error"), "{}", timeline(&bench));
}

#[test]
fn a_line_counts_for_ten_minutes() {
    for (ago, stands) in [(590, true), (610, false)] {
        let mut bench = Bench::calm(Profile::Production);
        bench.observe(line(Mode::DiskDegrading));
        bench.beat(ago);
        bench.smart(1, SmartVerdict::Degrading, 8);
        assert_eq!(timeline(&bench).contains("speaks for it as well"), stands, "{ago} s");
    }
}

/// Two samples of a disk's counters and a line of the kernel's log are no read that failed on that disk.
#[test]
fn a_line_takes_no_other_sources_place() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.smart(1, SmartVerdict::Degrading, 8);
    bench.smart(2, SmartVerdict::Degrading, 9);
    for _ in 0..20 {
        bench.observe(line(Mode::DiskDegrading));
        bench.beat(60);
    }
    assert_eq!(bench.asked_slot(), None);
    assert!(!bench.refusals().contains(&GuardName::Authority));
}
