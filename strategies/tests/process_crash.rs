//! Stories of `process_crash`: what is started, how often, and what is never done.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use resilver_strategies::api::{Command, ExitClass, Input, Observation, OperatorCommand, ProcessFact, Proof};
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::engine::IncidentState;
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::{Action, Authority, Grade, GuardName, Mode};

/// Kills the node, over and over, each time as soon as it was started. Returns when (in ms) each start came.
fn crash_loop(bench: &mut Bench, exit: &ExitClass, crashes: u32) -> Vec<u64> {
    let mut starts = Vec::new();
    bench.process(exited(100, exit.clone()));
    for crash in 0..crashes {
        let before = crash as usize;
        for _ in 0..1200 {
            if bench.actions().len() > before {
                break;
            }
            bench.wait(100);
        }
        if bench.actions().len() == before {
            break;
        }
        starts.push(bench.ms);
        let step = bench.last_step();
        bench.done(step.id);
        bench.process(running(101 + crash));
        bench.process(exited(101 + crash, exit.clone()));
    }
    starts
}

#[test]
fn a_killed_node_is_started_at_once_and_the_incident_ends_with_its_proof() {
    let mut bench = Bench::calm(Profile::Production);
    let commands = bench.process(exited(100, ExitClass::Signal(9)));
    let order: Vec<&str> = commands
        .iter()
        .map(|command| match command {
            Command::Record { draft, durable: true } if draft.kind == RecordKind::Opened => "opened",
            Command::Record { draft, durable: true } if draft.kind == RecordKind::Intent => "intent",
            Command::Execute(step) if step.action == Action::StartNode => "start",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order, ["opened", "intent", "start"], "in the same turn, the intent durable and first");
    assert!(!bench.engine.may_hold_lease());

    let step = bench.last_step();
    bench.ms += 80;
    bench.done(step.id);
    let (incident, proof) = bench.last_proof();
    assert_eq!(proof, Proof::Serves);
    bench.process(running(101));
    bench.not_proved(&incident);
    bench.wait(100);
    assert_eq!(bench.state(), IncidentState::Verifying);
    bench.proved(&incident);
    assert!(bench.open().is_empty());
    assert!(bench.engine.may_hold_lease());
    let view = &bench.engine.incidents()[0];
    assert_eq!((view.detected_by.as_str(), view.steps.len()), ("process exit", 1));
    assert_eq!(view.closed_ms.expect("closed") - view.opened_ms, 180);
    bench.wait(120_000);
    assert_eq!(bench.actions(), [Action::StartNode], "and it stays at one start");
}

#[test]
fn starts_come_after_0_2_and_8_seconds_then_after_the_cool_down_and_five_are_enough() {
    let mut bench = Bench::calm(Profile::Production);
    let begin = bench.ms;
    let starts = crash_loop(&mut bench, &ExitClass::Signal(9), 9);
    let waits: Vec<u64> = starts.iter().scan(begin, |last, at| Some(at - std::mem::replace(last, *at))).collect();
    assert_eq!(waits.len(), 5, "{waits:?}");
    for (wait, asked) in waits.iter().zip([0, 2_000, 8_000, 60_000, 60_000]) {
        // Spread by at most a quarter; the bench looks every 100 ms.
        let most = if asked == 0 { 0 } else { asked + asked / 4 + 100 };
        assert!((asked..=most).contains(wait), "{waits:?}: {wait} ms where {asked} were asked for");
    }
    bench.wait(76_000);
    assert_eq!(bench.state(), IncidentState::Escalated);
    assert_eq!(bench.records(RecordKind::Escalated).len(), 1, "told once");
    assert!(bench.refusals().contains(&GuardName::Backoff), "and the waits stand in the journal");
}

#[test]
fn the_factor_shortens_the_waits() {
    let mut bench = Bench::calm(Profile::Fast);
    let begin = bench.ms;
    let starts = crash_loop(&mut bench, &ExitClass::Signal(9), 9);
    assert_eq!(starts.len(), 5);
    assert!(starts[4] - begin < 3_000, "{starts:?} from {begin}");
}

/// An agent starts again in the same boot of its host, and meanwhile somebody set the clock forward by days: by the wall all budgets would
/// be as new, and the crash forgotten. The kernel's clock of that boot says how long ago it was. (Over a reboot only the wall is left.)
#[test]
fn a_clock_that_is_set_forward_over_a_restart_of_the_agent_forgets_no_crash() {
    for (boot, forgotten) in [(1, false), (2, true)] {
        let mut bench = Bench::calm(Profile::Production);
        let exit = ExitClass::Code(101);
        assert_eq!(crash_loop(&mut bench, &exit, 3).len(), 3);
        bench.wait(120_000);
        (bench.wall_ahead_ms, bench.boot) = (3 * 24 * 3600 * 1000, boot);
        bench.restart_agent();
        bench.process(exited(103, exit));
        bench.wait(120_000);
        assert_eq!(bench.actions().len() > 3, forgotten, "in boot {boot}");
    }
}

#[test]
fn never_a_fourth_start_for_the_same_crash() {
    let mut bench = Bench::calm(Profile::Production);
    let starts = crash_loop(&mut bench, &ExitClass::Code(70), 9);
    assert_eq!(starts.len(), 3);
    bench.wait(3_600_000);
    assert_eq!(bench.actions().len(), 3);
    let escalated = bench.records(RecordKind::Escalated);
    assert_eq!(escalated[0].text("guard"), Some("crash_signature"));
}

#[test]
fn the_crash_signature_outlives_the_agent_and_the_incident() {
    let mut bench = Bench::calm(Profile::Production);
    for pid in 100..103 {
        bench.process(exited(pid, ExitClass::Code(70)));
        bench.wait(100);
        let step = bench.last_step();
        bench.done(step.id);
        bench.process(running(pid + 1));
        let (incident, _) = bench.last_proof();
        bench.proved(&incident);
        assert!(bench.open().is_empty());
        bench.restart_agent();
        bench.process(running(pid + 1));
        bench.wait(60_000);
    }
    bench.process(exited(103, ExitClass::Code(70)));
    bench.wait(600_000);
    assert_eq!(bench.actions().len(), 3, "the fourth crash of its kind");
    assert_eq!(bench.state(), IncidentState::Escalated);
}

#[test]
fn a_person_who_starts_it_ends_an_escalation() {
    let mut bench = Bench::calm(Profile::Production);
    crash_loop(&mut bench, &ExitClass::Code(70), 9);
    bench.wait(61_000);
    assert_eq!(bench.state(), IncidentState::Escalated);
    bench.process(running(200));
    bench.wait(61_000);
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}

#[test]
fn a_deliberate_stop_is_never_fought() {
    for fact in [stopped(100), exited(100, ExitClass::Code(0))] {
        let mut bench = Bench::calm(Profile::Production);
        bench.process(fact);
        bench.miss(600);
        assert!(bench.actions().is_empty());
        assert!(bench.open().is_empty());
    }
    // Not in the middle of a recovery either.
    let mut bench = Bench::calm(Profile::Production);
    crash_loop(&mut bench, &ExitClass::Signal(9), 1);
    bench.process(running(150));
    bench.process(stopped(150));
    bench.wait(600_000);
    assert_eq!(bench.actions().len(), 1);
    assert!(bench.open().is_empty());
}

#[test]
fn a_hung_process_is_not_a_crash() {
    let mut bench = Bench::calm(Profile::Production);
    bench.miss(29);
    assert!(bench.actions().is_empty() && bench.open().is_empty());
    assert_eq!(bench.refusals(), [GuardName::Corroborated], "noted once");
    // Later it is deadlock's, and never process_crash's: see `deadlock.rs`.
    bench.miss(300);
    assert!(bench.actions().is_empty());
    assert_eq!(bench.only().mode, Mode::Deadlock);
    let mut bench = Bench::calm(Profile::Production);
    bench.miss(20);
    bench.beat(5);
    bench.miss(5);
    assert_eq!(bench.refusals().len(), 2, "and once more when it hangs again");
}

#[test]
fn a_process_without_a_trace_is_dead_only_when_it_is_silent_too() {
    let mut bench = Bench::calm(Profile::Production);
    bench.process(ProcessFact::Absent);
    bench.beat(10);
    assert!(bench.actions().is_empty());
    bench.miss(2);
    assert!(bench.actions().is_empty());
    bench.miss(1);
    assert_eq!(bench.actions(), [Action::StartNode]);
}

#[test]
fn the_agent_starts_its_node_without_calling_it_a_crash() {
    let mut bench = Bench::new(Profile::Production);
    bench.process(ProcessFact::Absent);
    assert_eq!(bench.actions(), [Action::StartNode]);
    let view = bench.only();
    assert!(view.initial);
    let intent = bench.records(RecordKind::Intent)[0];
    assert_eq!(intent.details.get("initial"), Some(&true.into()));
    assert_eq!(intent.text("evidence"), Some("not running when its agent started"));
    let step = bench.last_step();
    bench.done(step.id);
    bench.process(running(100));
    // Before `cluster init` there is nothing to serve, and nobody to blame.
    bench.fact.phase = "waiting".into();
    let (incident, _) = bench.last_proof();
    bench.not_proved(&incident);
    bench.beat(1);
    for _ in 0..2000 {
        if bench.open().is_empty() {
            break;
        }
        let commands = bench.give(Input::Tick);
        if commands.iter().any(|command| matches!(command, Command::Prove { .. })) {
            bench.not_proved(&incident);
        }
        bench.beat(1);
    }
    assert!(bench.open().is_empty(), "{:#?}", bench.open());
    assert!(bench.records(RecordKind::Escalated).is_empty());
}

#[test]
fn nothing_is_started_during_a_pause_and_the_present_is_judged_after_it() {
    let mut bench = Bench::calm(Profile::Production);
    bench.pause(300);
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.wait(299_000);
    assert!(bench.actions().is_empty());
    assert_eq!(bench.refusals(), [GuardName::Pause; 5], "once a minute, not with every tick");
    bench.wait(2_000);
    assert_eq!(bench.actions(), [Action::StartNode], "the pause expired");

    let mut bench = Bench::calm(Profile::Production);
    bench.pause(300);
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.process(running(101));
    bench.give(Input::Operator(OperatorCommand::Resume { owner: "ada".into() }));
    bench.wait(1_000);
    assert!(bench.actions().is_empty(), "somebody started it meanwhile: nothing is replayed");
}

#[test]
fn a_pause_outlives_the_agent() {
    let mut bench = Bench::calm(Profile::Production);
    bench.pause(300);
    bench.wait(100_000);
    bench.restart_agent();
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.wait(199_000);
    assert!(bench.actions().is_empty());
    bench.wait(2_000);
    assert_eq!(bench.actions(), [Action::StartNode]);
}

#[test]
fn an_operator_who_only_wants_to_look_is_obeyed() {
    let mut policy = PolicyConfig::default();
    policy.authority.grades.relieve = Some(Authority::Shadow);
    let mut bench = Bench::calm_with(policy);
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.wait(1_000);
    assert!(bench.actions().is_empty());
    let refused = bench.records(RecordKind::Refused)[0];
    assert_eq!(refused.text("guard"), Some("authority"));
    assert!(refused.text("evidence").expect("evidence").contains("would have: start the dead process"));
}

#[test]
fn auto_restart_false_still_starts_what_is_dead() {
    let mut policy = PolicyConfig::default();
    policy.recovery.auto_restart = false;
    let mut bench = Bench::calm_with(policy);
    bench.process(exited(100, ExitClass::Signal(9)));
    assert_eq!(bench.actions(), [Action::StartNode], "a start is grade 1, a restart grade 2");
}

#[test]
fn an_agent_that_dies_in_the_middle_of_a_start_finishes_the_recovery_once() {
    // The start took effect.
    let mut bench = Bench::calm(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.restart_agent();
    bench.wait(1_000);
    assert_eq!(bench.actions().len(), 1, "observe first");
    bench.process(running(101));
    let reconciled = bench.records(RecordKind::Reconciled)[0];
    assert_eq!(reconciled.text("resolution"), Some("done"));
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    assert!(bench.open().is_empty());
    assert_eq!(bench.actions().len(), 1);

    // It did not.
    let mut bench = Bench::calm(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    let first = bench.last_step();
    bench.restart_agent();
    bench.process(exited(100, ExitClass::Signal(9)));
    assert_eq!(bench.records(RecordKind::Reconciled)[0].text("resolution"), Some("not done"));
    bench.wait(2_600);
    assert_eq!(bench.actions().len(), 2);
    assert!(bench.last_step().id > first.id, "step ids are never used twice");
    assert_eq!(bench.last_step().attempt, 2, "the attempt before counts");
}

#[test]
fn a_node_that_runs_and_never_serves_goes_to_a_person_and_is_not_started_again() {
    let mut bench = Bench::calm(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.done(step.id);
    bench.process(running(101));
    let (incident, _) = bench.last_proof();
    for _ in 0..2_000 {
        bench.not_proved(&incident);
        bench.wait(100);
    }
    assert_eq!(bench.state(), IncidentState::Escalated);
    assert_eq!(bench.actions().len(), 1);
}

/// It answers, and what it has does not come up: its copy is mended, and if that does not help, the member is replaced.
#[test]
fn a_node_that_answers_and_never_serves_has_its_copy_mended_and_then_its_membership_replaced() {
    let mut bench = Bench::calm_with(PolicyConfig { factor: 60.0, ..auto() });
    bench.voters(&["n1", "n2", "n3"]);
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.done(step.id);
    (bench.fact.pid, bench.fact.phase) = (101, "recovering".into());
    bench.process(running(101));
    let (incident, _) = bench.last_proof();
    let not_proven = |bench: &mut Bench| {
        for _ in 0..40 {
            bench.not_proved(&incident);
            bench.pass(1);
        }
    };
    not_proven(&mut bench);
    let resync = bench.through(Action::Resync);
    assert!(resync.disruptive && resync.fence.is_some(), "under a fence");
    bench.fact.phase = "healthy".into();
    bench.pass(3);
    not_proven(&mut bench);
    let rejoin = bench.through(Action::RejoinLearner);
    assert_eq!(rejoin.grade, Grade::REALIGN);
    bench.pass(3);
    bench.proved(&incident);
    assert!(bench.open().is_empty());
    assert_eq!(bench.actions(), [Action::StartNode, Action::Resync, Action::RejoinLearner], "started once");
}

/// Found by the properties: the start was held by a pause, a person started the process, and it did not come to serve. The next
/// step was taken without a word on the one before.
#[test]
fn a_start_that_somebody_else_made_is_passed_over_with_a_record() {
    let mut bench = Bench::calm_with(PolicyConfig { factor: 60.0, ..auto() });
    bench.voters(&["n1", "n2", "n3"]);
    bench.pause(30);
    bench.process(exited(100, ExitClass::Signal(9)));
    (bench.fact.pid, bench.fact.phase) = (101, "recovering".into());
    bench.process(running(101));
    bench.pass(1);
    let (incident, _) = bench.last_proof();
    for _ in 0..40 {
        bench.not_proved(&incident);
        bench.pass(1);
    }
    bench.through(Action::Resync);
    let skipped = |note: &&Draft| note.text("skipped") == Some("start_node");
    assert_eq!(bench.records(RecordKind::Note).into_iter().filter(skipped).count(), 1);
}

#[test]
fn a_late_word_of_a_crash_that_was_recovered_is_no_new_one() {
    let mut bench = Bench::calm(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.done(step.id);
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    bench.observe(Observation::Process(exited(100, ExitClass::Signal(9))));
    bench.wait(5_000);
    assert_eq!(bench.actions().len(), 1);
}

/// The agent of a node that was removed while its process ran had no incident, and kept the lease: it could mark nobody, and
/// nobody else could either.
#[test]
fn the_agent_of_a_node_that_takes_no_part_lets_the_lease_go() {
    let mut bench = Bench::calm(Profile::Production);
    bench.beat(1);
    assert!(bench.engine.may_hold_lease());
    bench.fact.phase = "lost_voter".to_owned();
    bench.beat(1);
    assert!(bench.open().is_empty() && !bench.engine.may_hold_lease());
    bench.fact.phase = "healthy".to_owned();
    bench.beat(1);
    assert!(bench.engine.may_hold_lease());
}

/// Found by `tests/rejoin.rs`: a lost voter that was brought back and killed a moment later, before its incident was over,
/// stayed dead. So did one that was killed while it waited: nobody could order it back.
#[test]
fn a_process_that_was_left_to_a_person_while_it_ran_is_started_when_it_ends() {
    let mut bench = Bench::calm(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.done(step.id);
    bench.process(running(101));
    bench.fact.phase = "lost_voter".to_owned();
    bench.fact.pid = 101;
    bench.beat(2);
    assert_eq!(bench.state(), IncidentState::Escalated);
    bench.wait(600_000);
    assert_eq!(bench.actions(), [Action::StartNode], "it runs: the rest is a person's");

    bench.process(exited(101, ExitClass::Signal(9)));
    bench.wait(1_000);
    assert_eq!(bench.actions(), [Action::StartNode, Action::StartNode]);
    assert_eq!(bench.open().len(), 1, "the same incident");
    let step = bench.last_step();
    bench.done(step.id);
    bench.process(running(102));
    bench.fact.pid = 102;
    bench.beat(2);
    assert_eq!(bench.state(), IncidentState::Escalated, "it is a lost voter still");

    // Ordered back, it serves; the proof ends the incident.
    bench.fact.phase = "healthy".to_owned();
    bench.beat(61);
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}

/// Found by `tests/quorum.rs`: a lost voter whose agent was started anew, with its host, was never started again: nobody could
/// order it back.
#[test]
fn a_process_that_an_earlier_life_left_to_a_person_is_started_when_it_does_not_run() {
    let mut bench = Bench::calm(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.done(step.id);
    bench.process(running(101));
    (bench.fact.phase, bench.fact.pid) = ("lost_voter".to_owned(), 101);
    bench.beat(2);
    assert_eq!(bench.state(), IncidentState::Escalated);
    let starts = bench.actions().len();
    bench.restart_agent();
    bench.process(ProcessFact::Absent);
    bench.wait(5_000);
    assert_eq!(bench.actions().len(), starts + 1, "{:?}", bench.actions());
    assert_eq!(bench.actions().last(), Some(&Action::StartNode));
}

#[test]
fn a_process_that_was_left_to_a_person_and_dies_while_it_is_being_proven_is_started() {
    let mut bench = Bench::calm(Profile::Production);
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.done(step.id);
    bench.process(running(101));
    (bench.fact.phase, bench.fact.pid) = ("lost_voter".to_owned(), 101);
    bench.beat(2);
    assert_eq!(bench.state(), IncidentState::Escalated);
    // It comes back in the same process; the proof is under way when it is killed.
    bench.fact.phase = "healthy".to_owned();
    bench.beat(61);
    let starts = bench.actions().len();
    bench.process(exited(101, ExitClass::Signal(9)));
    bench.wait(5_000);
    assert_eq!(bench.actions().len(), starts + 1, "{:?}", bench.actions());
}
