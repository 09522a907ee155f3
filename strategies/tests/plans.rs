//! Golden plans: what a person sees before anything is done. `UPDATE_GOLDEN=1` writes them anew; look at the difference.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test reads its own golden files")]

mod common;

use std::path::PathBuf;

use common::*;
use resilver_strategies::api::{ExitClass, FailureFact, Observation, SmartVerdict};
use resilver_strategies::cascade::Place;
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::engine::{mode_status, modes};
use resilver_strategies::types::{Authority, Grade, Mode};

fn golden(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).expect("the golden file can be written");
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == found, "{} differs; found:\n{found}\nwanted:\n{wanted}", path.display());
}

/// Others read journals by it: docs/journal.md.
#[test]
fn the_published_schema_is_the_one_that_records_are_written_by() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/journal.schema.json");
    let found = serde_json::to_string_pretty(&resilver_strategies::chain::journal_schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("the schema can be written");
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(published == found, "docs/journal.schema.json is out of date: UPDATE_GOLDEN=1 writes it anew");
}

/// The plan of an agent that may only look: nothing is done, so the plan shows all that would be.
fn watching(profile: Profile) -> Bench {
    let mut policy = PolicyConfig::of(profile);
    policy.authority.grades.all = Some(Authority::Shadow);
    Bench::calm_with(policy)
}

#[test]
fn the_plan_for_a_crashed_process() {
    let mut bench = watching(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    golden("process_crash", &bench.engine.plan(bench.now()).to_string());
}

#[test]
fn the_plan_for_a_wiped_disk() {
    let mut bench = watching(Profile::Production);
    bench.disk("d1", "up", "gone");
    bench.beat(3);
    golden("disk_failure", &bench.engine.plan(bench.now()).to_string());
    bench.disk("d1", "read_only", "gone");
    bench.beat(10);
    golden("disk_failure_detach", &bench.engine.plan(bench.now()).to_string());
}

#[test]
fn the_plan_for_a_degrading_disk_while_it_is_watched_and_once_the_node_fails_to_read_it() {
    let mut bench = Bench::calm(Profile::Production);
    bench.smart(1, SmartVerdict::Degrading, 8);
    bench.smart(2, SmartVerdict::Degrading, 9);
    golden("disk_degrading", &bench.engine.plan(bench.now()).to_string());
    bench.read_fails();
    golden("disk_degrading_agreed", &bench.engine.plan(bench.now()).to_string());
}

#[test]
fn the_plan_for_a_corrupt_object_with_fast_times() {
    let mut bench = watching(Profile::Fast);
    bench.fact.findings = vec![finding(1, "d1", "k")];
    bench.beat(1);
    golden("data_corruption_fast", &bench.engine.plan(bench.now()).to_string());
}

#[test]
fn the_plan_of_a_well_node_is_empty() {
    let bench = Bench::calm(Profile::Production);
    assert_eq!(bench.engine.plan(bench.now()).to_string(), "nothing to do on n1\n");
}

#[test]
fn an_incident_explains_itself_from_evidence_to_outcome() {
    let mut bench = Bench::calm(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.ms += 80;
    bench.done(step.id);
    bench.process(running(101));
    let (incident, _) = bench.last_proof();
    bench.ms += 200;
    bench.proved(&incident);
    let explained = bench.engine.explain(bench.now(), &incident).expect("known");
    golden("explain_process_crash", &explained.to_string());
    assert!(bench.engine.explain(bench.now(), &resilver_strategies::api::IncidentId::new("n9", 1)).is_none());
}

#[test]
fn an_incident_that_waits_for_a_person_explains_what_may_be_approved() {
    let mut policy = PolicyConfig::of(Profile::Production);
    policy.authority.grades.restart = Some(Authority::Approve);
    let mut bench = Bench::calm_with(policy);
    bench.disk("d1", "up", "gone");
    bench.beat(3);
    let step = bench.last_step();
    bench.done(step.id);
    bench.disk("d1", "read_only", "gone");
    bench.beat(10);
    let incident = bench.only().id;
    bench.give(resilver_strategies::api::Input::Offered { incident: incident.clone(), token_sha256: "0123".into() });
    golden("explain_waits_for_approval", &bench.engine.explain(bench.now(), &incident).expect("known").to_string());
}

#[test]
fn an_incident_in_shadow_explains_what_would_have_been_done() {
    let mut bench = watching(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.beat(120);
    let incident = bench.only().id;
    golden("explain_shadow", &bench.engine.explain(bench.now(), &incident).expect("known").to_string());
}

#[test]
fn an_agent_says_why_it_does_not_act() {
    let mut bench = watching(Profile::Production);
    bench.restart_agent();
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.pause(600);
    let mut text = bench.engine.status(bench.now()).held_back.join("\n");
    text.push('\n');
    golden("held_back", &text);
    let calm = Bench::calm_with(PolicyConfig::of(Profile::Fast));
    assert!(calm.engine.status(calm.now()).held_back.is_empty(), "{:?}", calm.engine.status(calm.now()).held_back);
}

#[test]
fn a_cascade_explains_what_began_it_and_what_is_folded_under_it() {
    let mut bench = Bench::calm(Profile::Production);
    let event = |kind: &str, subject: &str, place: Place| FailureFact {
        kind: kind.into(),
        subject: subject.into(),
        places: vec![place],
        ..FailureFact::default()
    };
    bench.observe(Observation::Failures { events: vec![event("lock_timeout", "photos/a", Place::host("n1"))] });
    bench.beat(2);
    let disk = Place::disk("n1", "d1");
    let late = event("disk_state_check_timeout", "d1", disk.clone());
    bench.observe(Observation::Failures { events: vec![late, event("upload_failure", "photos", disk)] });
    bench.disk("d1", "up", "gone");
    bench.beat(3);
    let cascade = bench.open()[0].id.clone();
    golden("explain_cascading_failure", &bench.engine.explain(bench.now(), &cascade).expect("known").to_string());
    golden("cascading_failure", &bench.engine.plan(bench.now()).to_string());
}

#[test]
fn the_journal_of_a_recovery() {
    let mut bench = Bench::calm(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.ms += 80;
    bench.done(step.id);
    bench.process(running(101));
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    let text: String = bench.journal.iter().map(|line| line.to_text() + "\n").collect();
    golden("journal_process_crash", &text);
}

#[test]
fn every_mode_is_in_the_table_and_is_acted_on() {
    assert_eq!(modes().len(), 17);
    for mode in Mode::ALL {
        let ladder = resilver_strategies::engine::ladder(*mode, &PolicyConfig::default());
        assert!(!ladder.is_empty() && mode_status(*mode).implemented, "{mode}");
        // Each grade may be stayed at; none is gone back to.
        let grades: Vec<_> = ladder.iter().map(|rung| rung.grade).filter(|grade| *grade != Grade::OBSERVE).collect();
        assert!(grades.is_sorted(), "{mode}: {grades:?}");
    }
}
