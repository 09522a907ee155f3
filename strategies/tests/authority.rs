//! What a person allows: shadow, approvals, and a cluster's first day.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use resilver_strategies::api::{Command, ExitClass, IncidentId, Input, OperatorCommand};
use resilver_strategies::config::{GradeTable, PolicyConfig, Profile};
use resilver_strategies::engine::{APPROVAL_LASTS, IncidentState, MAX_WRONG, OFFER_LASTS};
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, Authority, GuardName, Mode};

fn policy(grades: GradeTable) -> PolicyConfig {
    let mut policy = PolicyConfig::of(Profile::Production);
    policy.authority.grades = grades;
    policy
}

fn asks_for_starts() -> PolicyConfig {
    policy(GradeTable { relieve: Some(Authority::Approve), ..GradeTable::default() })
}

/// A bench with a dead process whose start waits for a person, and the offer's incident.
fn waiting() -> (Bench, IncidentId) {
    let mut bench = Bench::calm_with(asks_for_starts());
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.wait(1000);
    let incident = bench.only().id;
    (bench, incident)
}

fn offers(bench: &Bench) -> usize {
    bench.commands.iter().filter(|command| matches!(command, Command::OfferApproval { .. })).count()
}

/// The agent drew a token with this hash.
fn draw(bench: &mut Bench, incident: &IncidentId, hash: &str) {
    bench.give(Input::Offered { incident: incident.clone(), token_sha256: hash.into() });
}

fn approve(bench: &mut Bench, incident: &IncidentId, hash: &str) -> Result<String, String> {
    let commands = bench.give(Input::Operator(OperatorCommand::Approve {
        owner: "ada".into(),
        incident: incident.clone(),
        token_sha256: hash.into(),
    }));
    let answer = commands.into_iter().find_map(|command| match command {
        Command::Answer { incident: of, result } if of == *incident => Some(result),
        _ => None,
    });
    answer.expect("an answer").map_err(|(guard, why)| {
        assert_eq!(guard, GuardName::Authority);
        why
    })
}

#[test]
fn a_step_in_shadow_is_told_once_and_again_only_when_it_changes() {
    let mut bench = Bench::calm_with(policy(GradeTable { all: Some(Authority::Shadow), ..GradeTable::default() }));
    bench.disk("d1", "up", "gone");
    bench.beat(600);
    let told = bench.records(RecordKind::Refused);
    assert_eq!(told.len(), 1, "ten minutes, one line: {told:#?}");
    assert_eq!(told[0].action, Action::Throttle);
    assert_eq!(told[0].text("resolution"), Some("would have"));
    assert!(told[0].text("evidence").unwrap().contains("would have: stop new writes to the disk"));
    // A person did that step: what would be done now is another.
    bench.disk("d1", "read_only", "gone");
    bench.beat(600);
    let told = bench.records(RecordKind::Refused);
    let shadowed: Vec<Action> =
        told.iter().filter(|draft| draft.text("resolution") == Some("would have")).map(|draft| draft.action).collect();
    assert_eq!(shadowed, [Action::Throttle, Action::DetachDisk]);
    assert!(bench.actions().is_empty(), "nothing was done");
    assert_eq!(offers(&bench), 0, "shadow is nothing to approve");
}

#[test]
fn an_approved_step_is_done_once_and_its_token_is_worth_nothing_afterwards() {
    let (mut bench, incident) = waiting();
    assert_eq!(offers(&bench), 1, "offered once, not with each tick");
    draw(&mut bench, &incident, "h1");
    bench.wait(60_000);
    assert_eq!(offers(&bench), 1);
    let offered = bench.records(RecordKind::Note).pop().unwrap().clone();
    assert_eq!((offered.action, offered.text("token_sha256")), (Action::Approve, Some("h1")));
    assert!(bench.only().approval.unwrap().expires_ms.is_some());
    assert!(bench.actions().is_empty());

    let said = approve(&mut bench, &incident, "h1").expect("the right token");
    assert!(said.contains("approved start_node of node n1"), "{said}");
    assert_eq!(bench.actions(), [Action::StartNode], "at once");
    let intent = bench.records(RecordKind::Intent).pop().unwrap().clone();
    assert!(intent.guards.iter().any(|guard| guard.evidence.contains("approved by ada")), "{intent:#?}");

    let step = bench.last_step();
    bench.failed(step.id);
    // Longer than the wait before the second attempt.
    bench.wait(4000);
    let why = approve(&mut bench, &incident, "h1").expect_err("used");
    assert!(why.contains("it was used"), "{why}");
    assert_eq!(bench.actions().len(), 1, "the second attempt needs a word of its own");
    assert_eq!(offers(&bench), 2, "and is offered");
    draw(&mut bench, &incident, "h2");
    approve(&mut bench, &incident, "h2").expect("the second");
    assert_eq!(bench.actions().len(), 2);
}

#[test]
fn a_token_that_is_wrong_expired_or_of_another_incident_is_refused_and_recorded() {
    let (mut bench, incident) = waiting();
    let nobody = IncidentId::new(NODE, 99);
    assert!(approve(&mut bench, &nobody, "h1").unwrap_err().contains("no incident n1-99 is open"));
    assert!(approve(&mut bench, &incident, "h1").unwrap_err().contains("nothing of it waits"));
    draw(&mut bench, &incident, "h1");
    assert!(approve(&mut bench, &incident, "h0").unwrap_err().contains("not the token"));
    let refused = bench.records(RecordKind::Refused).pop().unwrap().clone();
    assert_eq!((refused.action, refused.text("guard")), (Action::Approve, Some("authority")));
    assert_eq!((refused.text("owner"), refused.text("token_sha256")), (Some("ada"), Some("h0")));

    bench.ms += u64::try_from(OFFER_LASTS.as_millis()).unwrap();
    let why = approve(&mut bench, &incident, "h1").unwrap_err();
    assert!(why.contains("expired"), "{why}");
    assert!(bench.actions().is_empty());
    bench.wait(1000);
    assert_eq!(offers(&bench), 2, "offered anew");
}

#[test]
fn a_token_is_stale_when_the_plan_has_changed() {
    let grades = GradeTable { all: Some(Authority::Approve), ..GradeTable::default() };
    let mut bench = Bench::calm_with(policy(grades));
    bench.disk("d1", "up", "gone");
    bench.beat(4);
    let incident = bench.only().id;
    draw(&mut bench, &incident, "throttle");
    // Somebody stopped the writes by hand: the token was for that, not for what comes next.
    bench.disk("d1", "read_only", "gone");
    let fact = bench.fact.clone();
    bench.observe(resilver_strategies::api::Observation::Heartbeat(Box::new(fact)));
    let why = approve(&mut bench, &incident, "throttle").unwrap_err();
    assert!(why.contains("stale") || why.contains("plan changed"), "{why}");
    bench.beat(10);
    assert!(bench.actions().is_empty(), "{:?}", bench.actions());
}

#[test]
fn after_some_wrong_tokens_the_offer_is_withdrawn() {
    let (mut bench, incident) = waiting();
    draw(&mut bench, &incident, "h1");
    for wrong in 1..=MAX_WRONG {
        let why = approve(&mut bench, &incident, &format!("w{wrong}")).unwrap_err();
        assert_eq!(why.contains("withdrawn"), wrong == MAX_WRONG, "{why}");
    }
    let why = approve(&mut bench, &incident, "h1").unwrap_err();
    assert!(why.contains("worth nothing"), "{why}");
    bench.wait(1000);
    assert_eq!(offers(&bench), 2);
}

#[test]
fn an_approval_does_not_pass_the_other_guards_and_does_not_wait_for_ever() {
    let (mut bench, incident) = waiting();
    draw(&mut bench, &incident, "h1");
    bench.pause(3600);
    approve(&mut bench, &incident, "h1").expect("approved");
    bench.wait(1000);
    assert!(bench.actions().is_empty(), "paused");
    bench.ms += u64::try_from(APPROVAL_LASTS.as_millis()).unwrap();
    bench.give(Input::Operator(OperatorCommand::Resume { owner: "ada".into() }));
    bench.wait(1000);
    assert!(bench.actions().is_empty(), "what the person saw is ten minutes old");
    assert_eq!(offers(&bench), 2);
}

#[test]
fn an_offer_does_not_outlive_its_agent() {
    let (mut bench, incident) = waiting();
    draw(&mut bench, &incident, "h1");
    bench.restart_agent();
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.beat(1);
    assert!(approve(&mut bench, &incident, "h1").is_err());
    assert!(bench.actions().is_empty());
    assert_eq!(offers(&bench), 2, "the new life offers it anew");
}

#[test]
fn a_clusters_first_day_is_counted_by_what_was_seen_and_survives_the_agent() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.cluster = "c1".into();
    bench.beat(2 * 3600);
    let before = bench.journal.len();
    assert!((1..=4).contains(&before), "hourly: {:#?}", bench.journal);
    // A wall clock that leaps a year makes no cluster old, nor does a day in which nothing is seen.
    bench.ms += 365 * 24 * 3600 * 1000;
    bench.beat(10);
    let shadow = |bench: &Bench| bench.engine.status(bench.now()).held_back.iter().any(|why| why.contains("24 hours"));
    assert!(shadow(&bench), "{:?}", bench.engine.status(bench.now()).held_back);
    bench.restart_agent();
    bench.beat(10);
    let held = bench.engine.status(bench.now()).held_back.join("\n");
    let known =
        |held: &str| held.split("known for ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    assert!(known(&held).unwrap() >= 2 * 3600 - 60, "it goes on where the journal stands: {held}");
    // Another cluster begins anew.
    bench.fact.cluster = "c2".into();
    bench.beat(10);
    let held = bench.engine.status(bench.now()).held_back.join("\n");
    assert!(known(&held).unwrap() < 60, "{held}");
}

#[test]
fn a_degrading_disk_is_emptied_by_itself_once_the_cluster_is_a_day_old() {
    let mut policy = PolicyConfig::of(Profile::Production);
    // A day in 24 minutes.
    policy.factor = 60.0;
    let mut bench = Bench::calm_with(policy);
    bench.fact.cluster = "c1".into();
    bench.beat(60);
    let ill = |bench: &mut Bench, sample: u64| {
        bench.smart(sample, resilver_strategies::api::SmartVerdict::Degrading, sample);
        bench.smart(sample + 1, resilver_strategies::api::SmartVerdict::Degrading, sample + 1);
        bench.read_fails();
    };
    ill(&mut bench, 8);
    bench.beat(5);
    assert!(bench.asked_slot().is_none());
    let would: Vec<_> = bench.records(RecordKind::Refused);
    assert!(
        would
            .iter()
            .any(|draft| draft.mode == Some(Mode::DiskDegrading) && draft.text("resolution") == Some("would have")),
        "{would:#?}"
    );
    bench.beat(24 * 60);
    let step = bench.asked_slot().expect("the holder is asked by itself");
    assert_eq!(step.action, Action::EvacuateDisk);
    assert_eq!(bench.only().state, IncidentState::Open);
}
