//! Stories of `data_corruption`: one incident per object, repaired, proven, and told when it is too much for rot.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use resilver_strategies::api::{Proof, Step, Subject};
use resilver_strategies::config::Profile;
use resilver_strategies::engine::{IncidentState, MAX_OPEN};
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, Grade, GuardName, Mode};

#[test]
fn a_corrupt_shard_is_reconstructed_and_the_object_proven() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.findings = vec![finding(1, "d1", "k")];
    bench.beat(1);
    let step = bench.last_step();
    assert_eq!((step.action, step.grade, step.disruptive), (Action::RepairShards, Grade::REPAIR, false));
    assert_eq!(step.subject, Subject::Object { bucket: "b".into(), key: "k".into() });
    bench.done(step.id);
    let (incident, proof) = bench.last_proof();
    assert_eq!(proof, Proof::ObjectIntact { bucket: "b".into(), key: "k".into() });
    bench.proved(&incident);
    assert!(bench.open().is_empty());
    assert_eq!(bench.engine.incidents()[0].detected_by, "scrub");
    bench.beat(60);
    assert_eq!(bench.actions().len(), 1, "the same finding is not read twice");
}

#[test]
fn many_findings_of_one_object_are_one_incident() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.findings = vec![finding(1, "d1", "k"), finding(2, "d2", "k"), finding(3, "d1", "k")];
    bench.beat(1);
    assert_eq!(bench.only().subject, Subject::Object { bucket: "b".into(), key: "k".into() });
    assert_eq!(bench.actions().len(), 1);
}

#[test]
fn what_the_node_says_it_repaired_is_proven_all_the_same() {
    let mut bench = Bench::calm(Profile::Production);
    let mut mended = finding(1, "d1", "k");
    mended.repaired = true;
    bench.fact.findings = vec![mended];
    bench.beat(1);
    assert!(bench.actions().is_empty());
    let (incident, _) = bench.last_proof();
    for _ in 0..5 {
        bench.not_proved(&incident);
        bench.beat(6);
    }
    assert_eq!(bench.actions(), [Action::RepairShards], "it was not");
}

#[test]
fn an_object_that_cannot_be_repaired_goes_to_a_person_and_is_left_alone() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.findings = vec![finding(1, "d1", "k")];
    bench.beat(1);
    for _ in 0..3 {
        let step = bench.last_step();
        bench.failed(step.id);
        bench.beat(12);
    }
    assert_eq!(bench.actions().len(), 3);
    assert_eq!(bench.state(), IncidentState::Escalated);
    bench.beat(3600);
    assert_eq!(bench.actions().len(), 3, "fewer than k good shards: nothing is overwritten by trying on");
    // A person put it again: the next look shows it.
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}

#[test]
fn more_than_ten_in_a_day_on_one_disk_are_told_once() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.findings = (1..=30).map(|number| finding(number, "d1", &format!("k{number}"))).collect();
    bench.beat(1);
    let told = bench.records(RecordKind::Escalated);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].text("disk_id"), Some("d1"));
    assert!(told[0].text("evidence").expect("evidence").starts_with("11 corrupt shards in a day"));
}

#[test]
fn many_in_a_day_are_a_deep_scan_and_as_many_again_are_a_failed_disk() {
    let mut bench = Bench::calm(Profile::Production);
    let mut found = 0;
    let mut find = |bench: &mut Bench, count: u64, again: bool| {
        for _ in 0..count {
            found += 1;
            let key = if again { format!("k{}", found % 11) } else { format!("k{found}") };
            bench.fact.findings = vec![finding(found, "d1", &key)];
            bench.beat(1);
            settle(bench);
        }
    };
    find(&mut bench, 11, false);
    let scans = |bench: &Bench| {
        let of_disk = |step: &Step| matches!(&step.subject, Subject::Disk { disk, .. } if disk == "d1");
        bench.executed().into_iter().filter(|step| step.action == Action::RepairShards && of_disk(step)).count()
    };
    assert_eq!(scans(&bench), 1, "the whole disk is read");
    find(&mut bench, 30, true);
    assert!(!bench.actions().contains(&Action::Throttle), "the same objects again are no new damage");
    find(&mut bench, 11, false);
    assert!(bench.open().iter().any(|incident| incident.mode == Mode::DiskFailure), "{:?}", bench.open());
    assert!(bench.actions().contains(&Action::Throttle), "it answers, and is failed all the same");
    assert_eq!(scans(&bench), 1, "and is not scanned again");
}

/// Whatever is under way ends well; so does what is asked for a proof. Stopping writes is not shown.
fn settle(bench: &mut Bench) {
    for step in bench.engine.status(bench.now()).steps {
        if step.action == Action::RepairShards {
            bench.done(step.id);
        }
    }
    for incident in bench.open() {
        bench.proved(&incident.id);
    }
}

#[test]
fn thousands_of_findings_neither_flood_the_engine_nor_get_lost() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.findings = (1..=400).map(|number| finding(number, "d1", &format!("k{number}"))).collect();
    bench.beat(1);
    assert_eq!(bench.open().len(), MAX_OPEN - 1, "the last place is kept: a finding may open two");
    assert_eq!(bench.actions().len(), 4, "four at a time");
    // And one for the disk that all of them are on.
    for number in 0..401 {
        // The executed steps end in the order in which they began.
        let step = bench.executed()[number].clone();
        bench.done(step.id);
        let incident = step.incident.expect("an incident's");
        bench.proved(&incident);
        let fact = bench.fact.clone();
        bench.observe(resilver_strategies::api::Observation::Heartbeat(Box::new(fact)));
    }
    assert!(bench.open().is_empty());
    assert_eq!(bench.actions().len(), 401);
}

#[test]
fn a_busy_node_is_left_to_its_clients_unless_redundancy_is_thin() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.operations_in_flight = 5_000;
    bench.fact.findings = vec![finding(1, "d1", "k")];
    bench.beat(1);
    assert!(bench.actions().is_empty());
    assert_eq!(bench.refusals(), [GuardName::Pressure]);
    bench.fact.missing_shards = 1;
    bench.beat(1);
    assert_eq!(bench.actions().len(), 1);
}

#[test]
fn a_node_whose_disk_is_busy_with_clients_is_left_to_them_until_it_is_not() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.foreground_percent = 81;
    bench.fact.findings = vec![finding(1, "d1", "k")];
    bench.beat(1);
    assert!(bench.actions().is_empty());
    assert_eq!(bench.refusals(), [GuardName::Pressure]);
    bench.fact.foreground_percent = 80;
    bench.beat(1);
    assert_eq!(bench.actions().len(), 1, "above, not at");
}

#[test]
fn nothing_is_moved_aside_where_there_is_no_room_for_the_copy() {
    // Found on review: disks that were full to the last byte passed as disks that do not say.
    for room in [4096, 0] {
        let mut bench = Bench::calm(Profile::Production);
        bench.fact.disks.iter_mut().for_each(|disk| disk.available_bytes = room);
        bench.fact.findings = vec![finding(1, "d1", "k")];
        bench.beat(1);
        assert!(bench.actions().is_empty());
        assert_eq!(bench.refusals(), [GuardName::MoveAside], "{room}");
    }
}

#[test]
fn an_agent_that_dies_while_it_repairs_asks_the_proof_first() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.findings = vec![finding(1, "d1", "k")];
    bench.beat(1);
    bench.fact.findings.clear();
    bench.restart_agent();
    bench.process(running(100));
    bench.beat(1);
    assert_eq!(bench.actions().len(), 1);
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    assert!(bench.open().is_empty());
    assert_eq!(bench.actions().len(), 1, "it was done: not repeated");
}
