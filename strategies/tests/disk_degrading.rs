//! Stories of `disk_degrading`: told on the counters' word, emptied only when the node's own read errors say the same.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use resilver_strategies::api::{Observation, Proof, SmartFact, SmartVerdict, Subject};
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::engine::IncidentState;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, Grade, GuardName, Mode};

use SmartVerdict::{Degrading, Failing, Ok as Well, Unknown};

/// The counters and the node agree that d1 loses data.
fn agreed(profile: Profile) -> Bench {
    let mut bench = Bench::calm(profile);
    bench.smart(1, Degrading, 8);
    bench.smart(2, Degrading, 9);
    bench.read_fails();
    bench
}

/// Goes on until d1 is marked draining.
fn until_draining() -> Bench {
    let mut bench = agreed(Profile::Fast);
    let asked = bench.asked_slot().expect("a slot was asked for");
    bench.grant(asked.id, 7);
    bench.beat(1);
    bench.done(asked.id);
    bench.disk("d1", "draining", "ok");
    bench.beat(1);
    bench
}

/// Whatever is still to come in an hour and more, nothing is done.
fn nothing_is_done(mut bench: Bench) {
    bench.beat(4_000);
    assert!(bench.actions().is_empty(), "{:?}", bench.actions());
    assert_eq!(bench.asked_slot(), None);
}

#[test]
fn a_degrading_disk_is_told_once_and_left_alone() {
    let mut bench = Bench::calm(Profile::Fast);
    for sample in 1..20 {
        bench.smart(sample, Degrading, 8 + sample);
        bench.beat(60);
    }
    let incident = bench.only();
    assert_eq!((incident.mode, incident.state), (Mode::DiskDegrading, IncidentState::Open));
    assert_eq!(incident.evidence, "degrading: sectors that cannot be read: 9 (sda.json)");
    let opened = bench.records(RecordKind::Opened);
    assert_eq!((opened.len(), opened[0].action), (1, Action::Alert));
    nothing_is_done(bench);
}

#[test]
fn smart_alone_does_not_empty_a_disk_however_bad_it_is() {
    let mut bench = Bench::calm(Profile::Fast);
    for sample in 1..50 {
        bench.smart(sample, Failing, 100 * sample);
    }
    assert_eq!(bench.open().len(), 1);
    nothing_is_done(bench);
}

#[test]
fn one_sample_is_none_also_when_it_is_read_again_and_again() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.read_fails();
    for _ in 0..20 {
        bench.smart(1, Failing, 900);
        bench.read_fails();
    }
    assert_eq!(bench.open().len(), 1);
    nothing_is_done(bench);
}

#[test]
fn read_errors_without_smart_are_no_degrading_disk() {
    let mut bench = Bench::calm(Profile::Fast);
    for _ in 0..50 {
        bench.read_fails();
    }
    assert!(bench.open().is_empty());
    bench.smart(1, Well, 0);
    bench.smart(2, Well, 0);
    bench.read_fails();
    assert!(bench.open().is_empty());
    nothing_is_done(bench);
}

/// A full disk, a cable, a file system that is read-only: writes fail there, and the medium is what it was.
#[test]
fn writes_that_fail_do_not_agree_with_anything_where_reads_are_told_apart() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.smart(1, Degrading, 8);
    bench.smart(2, Degrading, 9);
    for _ in 0..20 {
        bench.fact.disks[0].errors += 1;
        bench.beat(1);
    }
    assert_eq!(bench.asked_slot(), None);
    bench.read_fails();
    assert_eq!(bench.asked_slot().expect("now a read failed").action, Action::EvacuateDisk);
}

#[test]
fn an_engine_that_does_not_tell_reads_apart_is_judged_by_all_that_failed() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.fact.disks[0].read_errors = None;
    bench.smart(1, Degrading, 8);
    bench.smart(2, Degrading, 9);
    assert_eq!(bench.asked_slot(), None);
    bench.read_fails();
    assert_eq!(bench.asked_slot().expect("they agree").action, Action::EvacuateDisk);
}

/// Sectors that were replaced years ago are why it is told, and no reason to empty it today.
#[test]
fn what_a_disk_lost_before_it_was_watched_says_nothing_about_now() {
    let mut bench = Bench::calm(Profile::Fast);
    for sample in 1..20 {
        bench.counted(sample, &[("reallocated_sectors", 40), ("media_errors", 3)]);
        bench.read_fails();
    }
    assert_eq!(bench.open().len(), 1);
    nothing_is_done(bench);
}

#[test]
fn a_counter_that_grows_and_stays_grown_is_two_samples() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.counted(1, &[("reallocated_sectors", 40)]);
    bench.counted(2, &[("reallocated_sectors", 41)]);
    bench.read_fails();
    assert_eq!(bench.asked_slot(), None, "one sample shows it");
    bench.counted(3, &[("reallocated_sectors", 41)]);
    assert_eq!(bench.asked_slot().expect("and another says the same").action, Action::EvacuateDisk);
}

#[test]
fn a_counter_that_was_misread_once_has_not_grown() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.counted(1, &[("reallocated_sectors", 40)]);
    bench.counted(2, &[("reallocated_sectors", 900)]);
    bench.counted(3, &[("reallocated_sectors", 40)]);
    bench.counted(4, &[("reallocated_sectors", 40)]);
    bench.read_fails();
    assert_eq!(bench.open().len(), 1);
    nothing_is_done(bench);
}

/// Found on review: what came back after it had been read as nothing was taken for growth.
#[test]
fn a_counter_that_was_read_as_nothing_once_has_not_grown_since() {
    let mut bench = Bench::calm(Profile::Fast);
    for (sample, count) in [(1, 40), (2, 0), (3, 40), (4, 40)] {
        bench.counted(sample, &[("reallocated_sectors", count)]);
    }
    bench.read_fails();
    assert_eq!(bench.open().len(), 1);
    nothing_is_done(bench);
}

#[test]
fn what_grew_and_what_failed_count_for_as_long_as_is_written_and_no_longer() {
    let mut policy = PolicyConfig::of(Profile::Fast);
    policy.smart.errors_within = std::time::Duration::from_secs(3600);
    for (apart, agree) in [(3000, true), (3700, false)] {
        let mut bench = Bench::calm_with(policy.clone());
        bench.counted(1, &[("media_errors", 1)]);
        bench.counted(2, &[("media_errors", 2)]);
        bench.counted(3, &[("media_errors", 2)]);
        bench.beat(apart);
        bench.counted(4, &[("media_errors", 2)]);
        bench.read_fails();
        assert_eq!(bench.asked_slot().is_some(), agree, "{apart} s apart");
    }
}

#[test]
fn a_configuration_may_ask_for_more_samples_and_more_reads() {
    let mut policy = PolicyConfig::of(Profile::Fast);
    (policy.smart.samples, policy.smart.errors) = (3, 2);
    let mut bench = Bench::calm_with(policy);
    bench.smart(1, Degrading, 8);
    bench.smart(2, Degrading, 8);
    bench.read_fails();
    bench.read_fails();
    assert_eq!(bench.asked_slot(), None, "a third sample is wanted");
    bench.smart(3, Degrading, 8);
    assert!(bench.asked_slot().is_some());
    // The text of the guard names what was asked for.
    let told = bench.engine.plan(bench.now()).to_string();
    assert!(told.contains("3 needed") && told.contains("2 needed"), "{told}");
}

#[test]
fn what_is_unknown_opens_nothing_closes_nothing_and_is_no_sample() {
    let mut bench = Bench::calm(Profile::Fast);
    for sample in 1..10 {
        bench.smart(sample, Unknown, 0);
        bench.read_fails();
    }
    assert!(bench.open().is_empty());
    bench.smart(11, Degrading, 8);
    bench.smart(12, Unknown, 0);
    bench.smart(13, Degrading, 8);
    bench.read_fails();
    assert_eq!(bench.asked_slot(), None, "two samples in a row are needed, and these are not");
    for sample in 14..40 {
        bench.smart(sample, Unknown, 0);
        bench.beat(10);
    }
    assert_eq!(bench.only().state, IncidentState::Open, "silence is no health");
    nothing_is_done(bench);
}

#[test]
fn wear_heat_and_the_disks_own_word_are_told_and_no_more() {
    let mut bench = Bench::calm(Profile::Fast);
    for sample in 1..5 {
        bench.observe(Observation::Smart(SmartFact {
            disk: "d1".into(),
            verdict: Failing,
            reasons: vec!["the disk says itself that it fails".into()],
            counters: [("percentage_used".to_owned(), 130), ("pending_sectors".to_owned(), 0)].into(),
            sampled_ms: Some(sample),
            source: "nvme0.json".into(),
            good_for_ms: 3_600_000,
        }));
        bench.read_fails();
    }
    assert_eq!(bench.open().len(), 1);
    nothing_is_done(bench);
}

#[test]
fn a_word_that_nobody_repeats_is_not_believed_for_ever() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.smart(1, Degrading, 8);
    bench.smart(2, Degrading, 8);
    bench.beat(3_700);
    bench.read_fails();
    bench.beat(4_000);
    assert_eq!(bench.asked_slot(), None);
    assert_eq!(bench.only().state, IncidentState::Open);
}

#[test]
fn an_old_finding_and_one_of_another_disk_do_not_agree_with_anything() {
    let mut bench = Bench::with(PolicyConfig::of(Profile::Fast));
    // There when the agent begins to look: of when it is, nobody says.
    bench.fact.findings = vec![finding(1, "d1", "k")];
    bench.beat(90);
    bench.fact.findings.push(finding(2, "d2", "k"));
    bench.smart(1, Degrading, 8);
    bench.smart(2, Degrading, 8);
    bench.beat(5);
    assert_eq!(bench.asked_slot(), None);
    bench.fact.findings.push(finding(3, "d1", "k"));
    bench.beat(1);
    assert_eq!(bench.asked_slot().expect("now they agree").action, Action::EvacuateDisk);
}

#[test]
fn a_disk_that_loses_data_by_both_accounts_is_emptied_and_proven_before_it_is_over() {
    let mut bench = agreed(Profile::Fast);
    let asked = bench.asked_slot().expect("a slot was asked for");
    assert_eq!((asked.action, asked.grade, asked.disruptive), (Action::EvacuateDisk, Grade::REPAIR, true));
    assert_eq!(asked.subject, Subject::Disk { disk: "d1".into(), node: NODE.into() });
    assert!(bench.actions().is_empty(), "nothing before the slot");
    bench.grant(asked.id, 7);
    bench.beat(1);
    let drain = bench.last_step();
    assert_eq!((drain.action, drain.fence), (Action::EvacuateDisk, Some(fence(7))));
    bench.done(drain.id);
    bench.disk("d1", "draining", "ok");
    bench.beat(1);
    assert_eq!(bench.slots_closed(), [(drain.id, true)], "the slot is held for the mark alone");

    let moves = bench.last_step();
    assert_eq!((moves.action, moves.disruptive, moves.mode), (Action::RepairShards, false, Some(Mode::DiskDegrading)));
    // What the counters say meanwhile changes nothing: half of the way is no place to stop.
    bench.smart(3, Well, 0);
    bench.smart(4, Well, 0);
    bench.beat(30);
    assert_eq!(bench.only().state, IncidentState::Recovering);
    bench.disk("d1", "out", "ok");
    bench.done(moves.id);
    let (incident, proof) = bench.last_proof();
    assert_eq!(proof, Proof::DiskRebuilt { disk: "d1".into() });
    bench.not_proved(&incident);
    bench.beat(6);
    assert_eq!(bench.state(), IncidentState::Verifying);
    bench.proved(&incident);
    assert!(bench.open().is_empty());
    // Its counters are still bad, and it is nobody's incident any more.
    bench.smart(5, Failing, 500);
    bench.smart(6, Failing, 500);
    bench.read_fails();
    assert!(bench.open().is_empty());
}

#[test]
fn by_default_a_live_disk_is_emptied_in_shadow_only() {
    let mut bench = agreed(Profile::Production);
    bench.beat(120);
    assert_eq!(bench.asked_slot(), None);
    assert!(bench.refusals().contains(&GuardName::Authority));
    let would = bench.records(RecordKind::Refused)[0].text("evidence").unwrap().to_owned();
    assert!(
        would.contains("shadow for grade 5 (the cluster's first 24 hours): would have: mark the disk draining"),
        "{would}"
    );
}

#[test]
fn it_is_over_when_two_samples_are_well_and_not_after_one() {
    let mut bench = Bench::calm(Profile::Production);
    bench.smart(1, Degrading, 1);
    bench.smart(2, Well, 0);
    bench.smart(2, Well, 0);
    bench.beat(5);
    assert_eq!(bench.only().state, IncidentState::Open);
    bench.smart(3, Well, 0);
    bench.beat(1);
    let (incident, proof) = bench.last_proof();
    assert_eq!(proof, Proof::Serves, "not by SMART's word alone");
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}

#[test]
fn it_is_over_when_the_disk_is_out_or_not_there_any_more() {
    for gone in [false, true] {
        let mut bench = Bench::calm(Profile::Production);
        bench.smart(1, Degrading, 1);
        match gone {
            true => bench.fact.disks.retain(|disk| disk.disk != "d1"),
            false => bench.disk("d1", "out", "ok"),
        }
        bench.beat(1);
        assert!(bench.open().is_empty(), "gone: {gone}");
        bench.smart(2, Degrading, 1);
        bench.beat(1);
        assert!(bench.open().is_empty(), "gone: {gone}");
    }
}

#[test]
fn a_disk_whose_canary_fails_is_left_to_disk_failure() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.smart(1, Degrading, 8);
    bench.smart(2, Degrading, 8);
    bench.disk("d1", "up", "error");
    bench.read_fails();
    bench.beat(5);
    assert!(!bench.actions().contains(&Action::EvacuateDisk), "{:?}", bench.actions());
    assert_ne!(bench.asked_slot().map(|step| step.action), Some(Action::EvacuateDisk));
    assert!(bench.actions().contains(&Action::Throttle), "it is detached and rebuilt by its own ladder");
}

#[test]
fn a_disk_that_a_person_takes_back_while_it_is_emptied_is_a_persons() {
    let mut bench = until_draining();
    let moves = bench.last_step();
    bench.disk("d1", "up", "ok");
    bench.beat(1);
    bench.failed(moves.id);
    bench.beat(5);
    assert_eq!(bench.state(), IncidentState::Escalated);
    let steps = bench.actions().len();
    bench.read_fails();
    bench.smart(3, Failing, 400);
    bench.beat(600);
    assert_eq!(bench.actions().len(), steps, "it is not marked again");
}

#[test]
fn an_agent_that_dies_while_the_disk_is_emptied_goes_on_with_it() {
    let mut bench = until_draining();
    assert_eq!(bench.actions(), [Action::EvacuateDisk, Action::RepairShards]);
    bench.restart_agent();
    bench.observe(Observation::Process(running(100)));
    bench.beat(5);
    let moves = bench.last_step();
    assert_eq!(bench.actions(), [Action::EvacuateDisk, Action::RepairShards, Action::RepairShards]);
    bench.disk("d1", "out", "ok");
    bench.done(moves.id);
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}

#[test]
fn a_disk_that_grows_worse_is_told_again() {
    let mut bench = Bench::calm(Profile::Production);
    bench.smart(1, Degrading, 8);
    bench.smart(2, Failing, 300);
    bench.smart(3, Failing, 301);
    let notes = bench.records(RecordKind::Note);
    let worse: Vec<_> = notes.iter().filter(|note| note.mode == Some(Mode::DiskDegrading)).collect();
    assert_eq!(worse.len(), 1);
    assert_eq!(worse[0].text("evidence"), Some("failing: sectors that cannot be read: 300 (sda.json)"));
}

/// Otherwise nobody could hold the lease in a cluster whose disks have grown old.
#[test]
fn a_disk_that_is_only_watched_does_not_cost_the_lease_and_one_that_is_emptied_does() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.smart(1, Degrading, 8);
    bench.smart(2, Degrading, 8);
    assert!(bench.engine.may_hold_lease());
    bench.read_fails();
    assert!(!bench.engine.may_hold_lease());
}

#[test]
fn a_pause_holds_it_back() {
    let mut bench = Bench::calm(Profile::Fast);
    bench.smart(1, Degrading, 8);
    bench.smart(2, Degrading, 8);
    bench.pause(600);
    bench.read_fails();
    assert_eq!((bench.asked_slot(), bench.refusals().last()), (None, Some(&GuardName::Pause)));
}
