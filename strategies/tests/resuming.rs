//! Agents that end in the middle of something: what was under way is looked for, and nothing hangs on an answer that never comes.

mod common;

use common::{Bench, auto, exited, prove, running};
use resilver_strategies::api::{Command, ExitClass, Input, ProcessFact, Proof, StepResult};
use resilver_strategies::config::Profile;
use resilver_strategies::engine::IncidentState;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, GuardName, Mode};

fn hears(bench: &mut Bench, us: Option<bool>) {
    for name in ["n2", "n3", "n4", "n5"] {
        bench.peer(name).hears_us = us;
    }
}

/// A hung node whose restart was begun; the agent ends there.
fn cut_off_in_a_restart() -> Bench {
    let mut bench = Bench::of_five(auto());
    hears(&mut bench, Some(false));
    bench.pass_missing(49);
    let asked = bench.asked_slot().expect("a slot");
    bench.grant(asked.id, 4);
    bench.pass_missing(1);
    assert_eq!(bench.actions(), [Action::RestartNode]);
    bench.restart_agent();
    bench
}

fn reconciled(bench: &Bench) -> Option<String> {
    bench.records(RecordKind::Reconciled).last()?.text("evidence").map(str::to_owned)
}

/// Found by a reviewer: an incident whose step was in doubt waited for the node's word for ever; a hung node has none.
#[test]
fn a_step_in_doubt_at_a_node_that_never_answers_is_given_up_and_its_incident_goes_on() {
    let mut bench = cut_off_in_a_restart();
    bench.process(running(100));
    bench.pass_missing(50);
    assert_eq!(reconciled(&bench), None, "it may still come");
    bench.pass_missing(150);
    let told = reconciled(&bench).expect("it is given up");
    assert!(told.contains("nothing has shown"), "{told}");
    assert!(bench.slots_closed().iter().any(|(_, verified)| !verified), "its slot holds nobody back");
    bench.pass_missing(120);
    // This life of the agent has not heard the node once, and knows no quorum by it: held, and said so, instead of silent.
    let held = bench.engine.status(bench.now()).held_back;
    assert!(held.iter().any(|why| why.contains("restart_node held by quorum_kept: no heartbeat yet")), "{held:?}");
    // A word of the node is enough.
    hears(&mut bench, Some(true));
    bench.pass(2);
    hears(&mut bench, Some(false));
    bench.pass_missing(50);
    let again = bench.asked_slot().expect("asked again");
    assert_eq!((again.action, again.attempt), (Action::RestartNode, 2));
}

/// Found by a reviewer: after a loss of power in the middle of such a step the node was never started, not even by hand.
#[test]
fn a_step_in_doubt_ended_with_its_process_which_is_started() {
    let mut bench = cut_off_in_a_restart();
    bench.process(ProcessFact::Absent);
    bench.pass_missing(5);
    assert_eq!(reconciled(&bench).as_deref(), Some("no process runs"));
    bench.pass_missing(20);
    assert!(bench.actions().contains(&Action::StartNode), "{:?}", bench.actions());
}

/// Found by a reviewer: an agent that was killed between a disruptive step's outcome and the closing of its slot left the slot open, which
/// held every other step of the cluster back for up to three hours.
#[test]
fn a_slot_whose_step_is_over_is_closed_by_the_agents_next_life() {
    for seen in [true, false] {
        let mut bench = Bench::of_five(auto());
        hears(&mut bench, Some(false));
        bench.pass_missing(49);
        let asked = bench.asked_slot().expect("a slot");
        bench.grant(asked.id, 4);
        bench.pass_missing(1);
        bench.give(Input::Finished { step: asked.id, result: StepResult::done("ok") });
        assert!(bench.slots_closed().is_empty(), "it is looked for what it did");
        bench.restart_agent();
        bench.process(running(101));
        bench.fact.pid = 101;
        match seen {
            true => {
                hears(&mut bench, Some(true));
                bench.pass(5);
            }
            false => bench.pass_missing(400),
        }
        let closed: Vec<_> = bench.slots_closed().into_iter().filter(|(step, _)| *step == asked.id).collect();
        assert_eq!(closed, [(asked.id, seen)]);
    }
}

/// Found by a reviewer: the highest term that the journal knows was held against a cluster that went on from a backup, in another epoch.
#[test]
fn terms_of_an_epoch_that_is_over_are_not_held_against_the_next_one() {
    let mut bench = Bench::of_five(auto());
    let term_of = |bench: &mut Bench, epoch, term| {
        bench.fact.epoch = epoch;
        bench.raft().term = term;
        for name in ["n2", "n3", "n4", "n5"] {
            bench.raft_of(name).term = term;
        }
    };
    term_of(&mut bench, 1, 25);
    bench.pass(5);
    bench.process(exited(100, ExitClass::Signal(9)));
    let _ = bench.relieved(Action::StartNode);
    bench.process(running(101));
    bench.fact.pid = 101;
    prove(&mut bench, &Proof::Serves);
    term_of(&mut bench, 2, 21);
    bench.pass(70);
    // Something is written in the new epoch, and the agent begins anew.
    bench.process(exited(101, ExitClass::Signal(9)));
    let _ = bench.relieved(Action::StartNode);
    bench.process(running(102));
    bench.fact.pid = 102;
    prove(&mut bench, &Proof::Serves);
    bench.restart_agent();
    bench.process(running(102));
    bench.pass(30);
    assert!(bench.open().iter().all(|incident| incident.mode != Mode::TermDivergence), "{:?}", bench.open());
}

/// Found by a reviewer: what the holder of the lease refuses was told to nobody, and `agent status` did not say so.
#[test]
fn a_slot_that_is_refused_for_long_is_told_and_said_in_the_status() {
    let mut bench = Bench::calm(Profile::Production);
    bench.disk("d1", "up", "gone");
    bench.beat(3);
    let throttle = bench.last_step();
    bench.done(throttle.id);
    bench.disk("d1", "read_only", "gone");
    bench.beat(8);
    let alerts = |bench: &Bench| {
        let told = bench.records(RecordKind::Note).into_iter().filter(|note| note.action == Action::Alert);
        told.filter(|note| note.text("guard").is_some()).count()
    };
    let refuse = |bench: &mut Bench, guard| {
        let asked = bench.commands.iter().rev().find_map(|command| match command {
            Command::TakeSlot(step) => Some(step.id),
            _ => None,
        });
        bench.give(Input::Slot { step: asked.expect("asked"), reply: Err((guard, "not now".to_owned())) });
    };
    for _ in 0..5 {
        refuse(&mut bench, GuardName::OneAtATime);
        let held = bench.engine.status(bench.now()).held_back;
        assert!(held.iter().any(|why| why.contains("detach_disk held by one_at_a_time: not now")), "{held:?}");
        bench.beat(2);
    }
    assert_eq!(alerts(&bench), 0, "ten seconds are nothing");
    refuse(&mut bench, GuardName::Budget);
    assert_eq!(alerts(&bench), 1, "a budget that is used up is a person's at once");
    assert_eq!(bench.state(), IncidentState::Recovering, "and it is asked for again");
}

/// Found while looking for what would provoke `term_divergence`: the volumes of all nodes were put back to an earlier day. Every agent told
/// its node to stand for no election, and after that nobody could take over from a leader that died.
#[test]
fn terms_that_went_back_everywhere_silence_nobody_and_are_passed_by_an_election() {
    let mut bench = Bench::of_five(auto());
    let as_leader = |bench: &mut Bench, term| {
        let raft = bench.raft();
        (raft.role, raft.leader, raft.term, raft.quorum_ack_ms) = ("leader".into(), "n1".into(), term, Some(20));
        for name in ["n2", "n3", "n4", "n5"] {
            let raft = bench.raft_of(name);
            (raft.role, raft.leader, raft.term) = ("follower".into(), "n1".into(), term);
            bench.peer(name).leader = "n1".into();
        }
    };
    as_leader(&mut bench, 9);
    bench.pass(5);
    bench.process(exited(100, ExitClass::Signal(9)));
    let _ = bench.relieved(Action::StartNode);
    bench.process(running(101));
    bench.fact.pid = 101;
    prove(&mut bench, &Proof::Serves);
    bench.restart_agent();
    bench.process(running(101));
    bench.pass(70);
    as_leader(&mut bench, 4);
    let step = bench.through(Action::AlignTerm);
    assert_eq!(step.with, "10", "above the highest that the journal knows");
    assert!(bench.actions().iter().all(|action| matches!(action, Action::StartNode | Action::AlignTerm)));

    // A follower's agent does nothing to it.
    let mut bench = Bench::of_five(auto());
    bench.raft().term = 9;
    bench.pass(5);
    bench.raft().term = 4;
    bench.pass(40);
    assert_eq!(bench.only().mode, Mode::TermDivergence);
    assert!(bench.actions().is_empty(), "{:?}", bench.actions());
}

/// Found by the simulator (`mixed`, seed 908871031): an agent was paused for eight seconds, ended, and the clock was set back by an hour and
/// a half; so long its next life waited, and started nothing.
#[test]
fn a_clock_that_is_set_back_makes_no_pause_longer_than_it_was_meant() {
    let mut bench = Bench::calm(Profile::Production);
    bench.pause(8);
    let said_ms = bench.now().wall_ms;
    let left = |wall_ms| match resilver_strategies::resume::from_lines(bench.journal.iter(), wall_ms) {
        Input::Started { paused, .. } => paused.map(|(_, _, left)| left.as_secs()),
        _ => None,
    };
    assert_eq!(left(said_ms + 3000), Some(5));
    assert_eq!(left(said_ms - 5_400_000), Some(8));
    assert_eq!(left(said_ms + 9000), None);
}
