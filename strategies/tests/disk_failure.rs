//! Stories of `disk_failure`: suspect, stop writes, detach under lease, slot and fence, rebuild, prove.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use resilver_strategies::api::{Command, ExitClass, Input, OperatorCommand, Proof, StepResult, Subject};
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::engine::{IncidentState, IncidentView};
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, Grade, GuardName, Mode};

/// The disk fails; the story goes on until the engine asks for the slot to detach it.
fn until_slot(bench: &mut Bench, health: &str) {
    bench.disk("d1", "up", health);
    bench.beat(3);
    assert_eq!(bench.actions(), [Action::Throttle]);
    let step = bench.last_step();
    bench.done(step.id);
    bench.disk("d1", "read_only", health);
    bench.beat(8);
}

/// Goes on until the disk is detached.
fn until_detached(bench: &mut Bench, health: &str) {
    until_slot(bench, health);
    let asked = bench.asked_slot().expect("a slot was asked for");
    bench.grant(asked.id, 7);
    bench.beat(1);
    assert_eq!(bench.actions(), [Action::Throttle, Action::DetachDisk]);
    bench.done(asked.id);
    bench.disk("d1", "down", health);
    bench.beat(1);
}

#[test]
fn a_wiped_disk_is_taken_out_and_rebuilt_elsewhere() {
    let mut bench = Bench::calm(Profile::Production);
    until_detached(&mut bench, "gone");
    let detach = bench.last_step();
    assert!(detach.disruptive);
    assert_eq!(detach.fence, Some(fence(7)));
    assert_eq!(bench.slots_closed(), [(detach.id, true)], "closed when the node shows it");
    assert_eq!(bench.records(RecordKind::Intent)[1].text("fence"), Some("1.7.n2"));

    bench.beat(28);
    assert_eq!(bench.actions().len(), 2, "rebuilding waits 30 s");
    bench.beat(3);
    let rebuild = bench.last_step();
    assert_eq!((rebuild.action, rebuild.grade, rebuild.disruptive), (Action::RepairShards, Grade::REPAIR, false));
    assert_eq!(rebuild.subject, Subject::Disk { disk: "d1".into(), node: NODE.into() });
    bench.disk("d1", "out", "gone");
    bench.done(rebuild.id);
    let (incident, proof) = bench.last_proof();
    assert_eq!(proof, Proof::DiskRebuilt { disk: "d1".into() });
    bench.not_proved(&incident);
    bench.beat(6);
    assert_eq!(bench.state(), IncidentState::Verifying);
    bench.proved(&incident);
    assert!(bench.open().is_empty());
    bench.beat(60);
    assert_eq!(bench.actions().len(), 3, "a disk that is out is nobody's incident");
}

#[test]
fn one_bad_reading_and_a_suspect_disk_convict_nobody() {
    let mut bench = Bench::calm(Profile::Production);
    for _ in 0..5 {
        bench.disk("d1", "up", "error");
        bench.beat(1);
        bench.disk("d1", "up", "ok");
        bench.beat(1);
    }
    bench.disk("d1", "up", "suspect");
    bench.beat(60);
    assert!(bench.open().is_empty());
}

#[test]
fn the_node_is_never_taken_down_for_one_disk() {
    let mut bench = Bench::calm(Profile::Production);
    until_detached(&mut bench, "error");
    bench.beat(3600);
    for action in bench.actions() {
        assert!(matches!(action, Action::Throttle | Action::DetachDisk | Action::RepairShards), "{action}");
    }
}

#[test]
fn a_disk_that_comes_back_before_it_is_detached_gets_its_throttle_taken_back() {
    let mut bench = Bench::calm(Profile::Production);
    bench.disk("d1", "up", "gone");
    bench.beat(3);
    let throttle = bench.last_step();
    bench.done(throttle.id);
    bench.disk("d1", "read_only", "ok");
    bench.beat(3);
    let undo = bench.last_step();
    assert_eq!((undo.action, undo.grade, undo.disruptive), (Action::SetMode, Grade::RELIEVE, false));
    bench.done(undo.id);
    bench.disk("d1", "up", "ok");
    bench.beat(2);
    serves(&mut bench);
    assert_eq!(bench.asked_slot(), None);
}

/// What the disk's canary found is not over by the canary's word: the node shows that it serves.
fn serves(bench: &mut Bench) {
    prove(bench, &Proof::Serves);
}

#[test]
fn a_disk_that_its_canary_calls_well_again_is_ill_until_the_node_has_served() {
    let mut bench = Bench::calm(Profile::Production);
    bench.disk("d1", "read_only", "gone");
    bench.beat(3);
    bench.disk("d1", "read_only", "ok");
    bench.beat(10);
    assert_eq!(bench.state(), IncidentState::Verifying);
    let (incident, _) = bench.last_proof();
    bench.not_proved(&incident);
    bench.beat(1);
    assert_eq!(bench.open().len(), 1, "well by its own word alone");
    bench.beat(120);
    serves(&mut bench);
}

#[test]
fn a_disk_that_is_read_only_by_somebody_elses_will_is_left_so() {
    let mut bench = Bench::calm(Profile::Production);
    bench.disk("d1", "read_only", "gone");
    bench.beat(3);
    bench.disk("d1", "read_only", "ok");
    bench.beat(3);
    serves(&mut bench);
    assert!(bench.actions().is_empty());
}

#[test]
fn a_disk_that_was_detached_is_attached_by_a_person_only() {
    let mut bench = Bench::calm(Profile::Production);
    until_detached(&mut bench, "gone");
    bench.disk("d1", "down", "ok");
    bench.beat(20);
    assert!(!bench.actions().contains(&Action::SetMode));
    bench.disk("d1", "up", "ok");
    bench.beat(3);
    // A person attached it.
    serves(&mut bench);
}

#[test]
fn a_refused_slot_is_recorded_and_asked_for_again() {
    let mut bench = Bench::calm(Profile::Production);
    until_slot(&mut bench, "gone");
    let first = bench.asked_slot().expect("asked");
    let reply = Err((GuardName::OneAtATime, "a step on n3 is not verified yet".to_owned()));
    bench.give(Input::Slot { step: first.id, reply });
    assert_eq!(bench.refusals(), [GuardName::OneAtATime]);
    bench.beat(2);
    let second = bench.asked_slot().expect("asked again");
    assert!(second.id > first.id);
    assert!(!bench.actions().contains(&Action::DetachDisk));
    // Nobody answers: the slot may have been opened, so it is closed.
    bench.beat(17);
    assert!(bench.slots_closed().contains(&(second.id, false)));
}

#[test]
fn evidence_is_read_again_once_the_slot_is_open() {
    let mut bench = Bench::calm(Profile::Production);
    until_slot(&mut bench, "gone");
    let asked = bench.asked_slot().expect("asked");
    bench.grant(asked.id, 7);
    assert!(!bench.actions().contains(&Action::DetachDisk), "not on the evidence from before");
    bench.disk("d1", "read_only", "ok");
    bench.beat(2);
    assert_eq!(bench.slots_closed(), [(asked.id, false)]);
    assert!(!bench.actions().contains(&Action::DetachDisk), "it came back in the meantime");

    let mut bench = Bench::calm(Profile::Production);
    until_slot(&mut bench, "gone");
    let asked = bench.asked_slot().expect("asked");
    bench.grant(asked.id, 7);
    bench.miss(6);
    assert_eq!(bench.slots_closed(), [(asked.id, false)], "no evidence, no step");
}

#[test]
fn a_pause_between_slot_and_step_closes_the_slot() {
    let mut bench = Bench::calm(Profile::Production);
    until_slot(&mut bench, "gone");
    let asked = bench.asked_slot().expect("asked");
    bench.grant(asked.id, 7);
    bench.pause(600);
    bench.beat(3);
    assert_eq!(bench.slots_closed(), [(asked.id, false)]);
    assert_eq!(bench.actions(), [Action::Throttle]);
}

#[test]
fn a_stale_fence_refused_at_the_gate_costs_no_attempt() {
    let mut bench = Bench::calm(Profile::Production);
    until_slot(&mut bench, "gone");
    let asked = bench.asked_slot().expect("asked");
    bench.grant(asked.id, 7);
    bench.beat(1);
    let evidence = "fence 1.7.n2 is stale".to_owned();
    let result = StepResult::Refused { guard: GuardName::OneAtATime, evidence };
    bench.give(Input::Finished { step: asked.id, result });
    assert_eq!(bench.slots_closed(), [(asked.id, false)]);
    bench.beat(5);
    let mut again = bench.asked_slot().expect("asked again");
    assert_ne!(again.id, asked.id);
    assert_eq!(again.attempt, 1);
    // Nor any budget: three of them would be a person's.
    for round in 8..14 {
        bench.grant(again.id, round);
        bench.beat(1);
        let result = StepResult::Refused { guard: GuardName::OneAtATime, evidence: "a stale fence".to_owned() };
        bench.give(Input::Finished { step: again.id, result });
        // Asked for again after ever longer waits: what refuses it may do so for long.
        bench.beat(100);
        let next = bench.asked_slot().expect("asked again");
        assert!(next.id > again.id && next.attempt == 1, "{next:?} after {again:?}");
        again = next;
        // The next life of the agent counts the same.
        if round == 10 {
            bench.restart_agent();
            bench.process(running(100));
            bench.beat(70);
            again = bench.asked_slot().expect("asked again");
        }
    }
    assert_eq!(bench.state(), IncidentState::Recovering);
}

#[test]
fn no_disruption_in_the_first_minute_nor_in_a_storm() {
    let mut bench = Bench::new(Profile::Production);
    bench.process(running(100));
    until_slot(&mut bench, "gone");
    assert_eq!(bench.asked_slot(), None);
    assert_eq!(bench.refusals(), [GuardName::Grace]);
    bench.beat(60);
    assert!(bench.asked_slot().is_some());

    let mut bench = Bench::calm(Profile::Production);
    for node in ["n2", "n3", "n4"] {
        let peer = resilver_strategies::api::PeerFact {
            node: node.into(),
            agent_answers: true,
            node_alive: Some(false),
            node_phase: String::new(),
            ..resilver_strategies::api::PeerFact::default()
        };
        bench.observe(resilver_strategies::api::Observation::Peer(peer));
    }
    until_slot(&mut bench, "gone");
    assert_eq!(bench.refusals(), [GuardName::StormBrake]);
}

#[test]
fn a_failing_disk_that_can_still_be_read_is_kept_while_others_are_missing() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.missing_shards = 3;
    until_slot(&mut bench, "error");
    assert_eq!(bench.refusals(), [GuardName::QuorumKept]);
    bench.fact.missing_shards = 0;
    bench.beat(2);
    assert!(bench.asked_slot().is_some());
}

#[test]
fn auto_restart_false_keeps_grade_2_in_the_shadow() {
    let mut policy = PolicyConfig::default();
    policy.recovery.auto_restart = false;
    let mut bench = Bench::calm_with(policy);
    until_slot(&mut bench, "gone");
    assert_eq!(bench.asked_slot(), None);
    let refused = bench.records(RecordKind::Refused)[0];
    assert_eq!(refused.text("guard"), Some("authority"));
    assert!(refused.text("evidence").expect("evidence").contains("would have: detach the disk"));
}

#[test]
fn a_throttle_that_fails_does_not_keep_the_disk_in_service() {
    let mut bench = Bench::calm(Profile::Production);
    bench.disk("d1", "up", "gone");
    bench.beat(3);
    for _ in 0..3 {
        let step = bench.last_step();
        bench.failed(step.id);
        bench.beat(10);
    }
    assert_eq!(bench.actions(), [Action::Throttle; 3]);
    bench.beat(8);
    assert_eq!(bench.asked_slot().expect("the next step").action, Action::DetachDisk);
}

#[test]
fn an_agent_that_dies_while_it_detaches_finds_out_what_became_of_it() {
    for (state, resolution, verified) in [("down", "done", true), ("read_only", "not done", false)] {
        let mut bench = Bench::calm(Profile::Production);
        until_slot(&mut bench, "gone");
        let asked = bench.asked_slot().expect("asked");
        bench.grant(asked.id, 7);
        bench.beat(1);
        bench.restart_agent();
        bench.process(running(100));
        bench.disk("d1", state, "gone");
        bench.beat(1);
        assert_eq!(bench.records(RecordKind::Reconciled)[0].text("resolution"), Some(resolution));
        assert_eq!(bench.slots_closed(), [(asked.id, verified)], "its slot does not stay open");
        let detaches = |bench: &Bench| bench.actions().iter().filter(|action| **action == Action::DetachDisk).count();
        assert_eq!(detaches(&bench), 1);
        bench.beat(100);
        if verified {
            assert_eq!(bench.last_step().action, Action::RepairShards);
        } else {
            let again = bench.asked_slot().expect("asked again, after the grace");
            assert_eq!(again.attempt, 2);
        }
    }
}

#[test]
fn an_agent_that_dies_while_it_rebuilds_asks_the_proof_first() {
    let mut bench = Bench::calm(Profile::Production);
    until_detached(&mut bench, "gone");
    bench.beat(32);
    assert_eq!(bench.last_step().action, Action::RepairShards);
    bench.disk("d1", "out", "gone");
    bench.restart_agent();
    bench.process(running(100));
    bench.beat(1);
    let (incident, _) = bench.last_proof();
    assert_eq!(bench.actions().len(), 3);
    bench.not_proved(&incident);
    bench.beat(10);
    assert_eq!(bench.actions().len(), 4, "not whole yet: rebuilding goes on");
    let step = bench.last_step();
    bench.done(step.id);
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}

#[test]
fn a_node_that_dies_meanwhile_is_started_and_its_disk_waits() {
    let mut bench = Bench::calm(Profile::Production);
    bench.disk("d1", "up", "gone");
    bench.beat(3);
    bench.process(exited(100, ExitClass::Signal(9)));
    assert_eq!(bench.actions(), [Action::Throttle, Action::StartNode]);
    assert_eq!(bench.open().len(), 2);
    let commands = bench.give(Input::Tick);
    assert!(!commands.iter().any(|command| matches!(command, Command::Execute(_))));
}

/// Found by the simulator (`mixed`, seed 582020262): the node had died while a disk of it was being detached, and was given up. A
/// person's start of it was to wait for the disk, whose proof waited for the node.
#[test]
fn a_dead_node_is_started_by_hand_while_a_disk_of_it_is_being_detached() {
    // Waits are a 60th there, deadlines are not: it is given up before the detaching is.
    let mut bench = Bench::calm(Profile::Fast);
    until_slot(&mut bench, "gone");
    let asked = bench.asked_slot().expect("asked");
    bench.grant(asked.id, 7);
    bench.beat(1);
    assert_eq!(bench.last_step().action, Action::DetachDisk);
    bench.process(exited(100, ExitClass::Signal(9)));
    let given_up =
        |bench: &Bench| bench.records(RecordKind::Escalated).iter().any(|draft| draft.mode == Some(Mode::ProcessCrash));
    while !given_up(&bench) {
        let step = bench.last_step();
        if step.action == Action::StartNode {
            bench.failed(step.id);
        }
        bench.miss(1);
    }
    let detaching = |incident: &IncidentView| incident.mode == Mode::DiskFailure && incident.closed_ms.is_none();
    assert!(bench.slots_closed().is_empty() && bench.open().iter().any(detaching), "how it ended is not known");
    let before = bench.actions().len();
    let (owner, reason) = ("ada".into(), "the disk is mended".into());
    bench.give(Input::Operator(OperatorCommand::RestartNode { owner, reason, fence: fence(8), dead: true }));
    assert_eq!(bench.actions()[before..], [Action::StartNode]);
}

/// Found by the simulator (`disk-verbs`, seed 38): a person had put another disk in the place of one that failed, and the node
/// started anew before its agent had detached the old one. It was no disk of the node any more, and its incident stayed open.
#[test]
fn a_disk_that_its_node_has_let_go_of_is_nobodys_incident() {
    let mut bench = Bench::calm(Profile::Production);
    bench.disk("d1", "up", "gone");
    bench.beat(3);
    let throttle = bench.last_step();
    bench.failed(throttle.id);
    bench.fact.disks.retain(|disk| disk.disk != "d1");
    bench.fact.phase = "recovering".to_owned();
    bench.beat(3);
    assert_eq!(bench.open().len(), 1, "a node that is starting may not have looked for it yet");
    bench.fact.phase = "healthy".to_owned();
    bench.beat(10);
    assert!(bench.open().is_empty(), "it was replaced or removed");
}

/// Found by the simulator (seed 3591): a disk had failed when its node's log rotted. The node came back as a lost voter,
/// took no verb for its disks, and the incident asked it for ever.
#[test]
fn a_disk_of_a_lost_voter_is_a_persons_until_the_node_is_back() {
    let mut bench = Bench::calm(Profile::Production);
    bench.disk("d1", "up", "gone");
    bench.beat(3);
    let throttle = bench.last_step();
    bench.failed(throttle.id);
    bench.fact.phase = "lost_voter".to_owned();
    for disk in ["d1", "d2"] {
        bench.disk(disk, "-", "ok");
    }
    bench.beat(60);
    assert_eq!(bench.state(), IncidentState::Escalated);
    assert_eq!(bench.actions(), [Action::Throttle], "nothing is asked of a node that can do nothing");

    bench.fact.phase = "healthy".to_owned();
    for disk in ["d1", "d2"] {
        bench.disk(disk, "up", "ok");
    }
    bench.beat(10);
    let (incident, proof) = bench.last_proof();
    assert_eq!(proof, Proof::Serves, "the disk is well, and the node is back");
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}
