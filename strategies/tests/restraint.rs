//! Grace and budget, as the engine of the step's own host judges them. What the lease's holder judges is in
//! `coordinator.rs`.

mod common;

use common::*;
use resilver_strategies::api::{Observation, Proof, ReplicaFact, ReplicasFact};
use resilver_strategies::config::{FAST_FACTOR, PolicyConfig};
use resilver_strategies::engine::IncidentState;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, GuardName, Mode};

/// The own replica differs from the majority's, twice: as of this entry and of a later one.
fn differs(bench: &mut Bench, index: u64) {
    for index in [index, index + 10] {
        let members = FIVE.iter().map(|name| {
            let (verdict, digest) = if *name == NODE { ("wrong", "41aa") } else { ("right", "7d0c") };
            ReplicaFact { node: (*name).into(), verdict: verdict.into(), digest: digest.into() }
        });
        bench.observe(Observation::Replicas(ReplicasFact { index, members: members.collect() }));
    }
}

/// Everybody follows this one from now on.
fn leads(bench: &mut Bench, leader: &str) {
    for name in FIVE.iter().skip(1) {
        let raft = bench.raft_of(name);
        (raft.role, raft.quorum_ack_ms) = ("follower".into(), None);
        if *name == leader {
            (raft.role, raft.quorum_ack_ms) = ("leader".into(), Some(50));
        }
        leader.clone_into(&mut raft.leader);
        leader.clone_into(&mut bench.peer(name).leader);
    }
    let raft = bench.raft();
    (raft.role, raft.quorum_ack_ms) = ("follower".into(), None);
    if leader == NODE {
        (raft.role, raft.quorum_ack_ms) = ("leader".into(), Some(50));
    }
    leader.clone_into(&mut raft.leader);
}

#[test]
fn for_a_minute_after_a_leader_change_nothing_disruptive_is_done_and_after_it_it_is() {
    let mut bench = Bench::of_five(auto());
    leads(&mut bench, "n3");
    // The heartbeat that shows it is a second from here.
    bench.pass(1);
    differs(&mut bench, 100);
    bench.pass(59);
    assert_eq!(bench.only().mode, Mode::StateDivergence);
    assert_eq!((bench.asked_slot(), bench.refusals()), (None, vec![GuardName::Grace]));
    let refused = bench.records(RecordKind::Refused)[0].text("evidence").expect("evidence").to_owned();
    assert!(refused.contains("of 60000 ms after start or leader change"), "{refused}");
    bench.pass(1);
    assert_eq!(bench.asked_slot().expect("the minute is over").action, Action::Resync);
    assert_eq!(bench.refusals(), [GuardName::Grace], "nothing else held it");
}

/// Each change begins the minute anew; a leader that is not known for a moment and is the same afterwards is no change.
#[test]
fn a_second_change_begins_the_minute_anew_and_an_unknown_leader_is_none() {
    let mut bench = Bench::of_five(auto());
    leads(&mut bench, "n3");
    bench.pass(40);
    leads(&mut bench, "n4");
    differs(&mut bench, 100);
    bench.pass(60);
    assert_eq!(bench.asked_slot(), None);
    bench.pass(2);
    assert!(bench.asked_slot().is_some());

    let mut bench = Bench::of_five(auto());
    bench.raft().leader = String::new();
    bench.pass(2);
    leads(&mut bench, "n2");
    differs(&mut bench, 100);
    bench.pass(2);
    assert!(bench.asked_slot().is_some() && bench.refusals().is_empty(), "{:?}", bench.refusals());
}

/// The grace is a policy time.
#[test]
fn the_factor_divides_the_grace() {
    let mut bench = Bench::of_five(PolicyConfig { factor: FAST_FACTOR, ..auto() });
    leads(&mut bench, "n3");
    bench.pass(1);
    differs(&mut bench, 100);
    bench.pass(1);
    assert!(bench.asked_slot().is_some());
}

#[test]
fn no_grace_after_a_leader_change_that_the_plan_made_itself() {
    let mut bench = Bench::of_five(auto());
    leads(&mut bench, NODE);
    bench.pass(70);
    differs(&mut bench, 100);
    let step = bench.through(Action::StepDown);
    leads(&mut bench, "n2");
    bench.pass(3);
    let asked = bench.asked_slot().expect("a slot");
    assert!(asked.id > step.id && asked.action == Action::Resync, "held by {:?}", bench.refusals());
    assert!(!bench.refusals().contains(&GuardName::Grace));
}

/// The replica differs again and again, and each time it is mended and proven. Far enough apart for the half hour's
/// three attempts.
#[test]
fn a_sixth_disruptive_step_on_one_node_within_a_day_is_refused_by_the_budget_and_told() {
    let mut bench = Bench::of_five(auto());
    for round in 1..=5 {
        differs(&mut bench, round * 100);
        bench.pass(1);
        bench.through(Action::Resync);
        prove(&mut bench, &Proof::ReadsEqual);
        bench.pass(1000);
    }
    assert_eq!(bench.actions(), [Action::Resync; 5]);
    assert!(bench.refusals().is_empty(), "{:?}", bench.refusals());
    let asked = bench.asked_slot();
    differs(&mut bench, 1000);
    bench.pass(60);
    assert_eq!(bench.state(), IncidentState::Escalated, "a person is needed");
    let told = bench.records(RecordKind::Escalated);
    assert_eq!((told.len(), told[0].text("guard")), (1, Some(GuardName::Budget.as_str())));
    let why = told[0].text("evidence").expect("evidence");
    assert!(why.contains("5 of 5 disruptive steps on this node in a day"), "{why}");
    let attempts = why.contains(" of 3 attempts used in 1800 s") && !why.contains("3 of 3 attempts");
    assert!(attempts, "only the day's budget is used up: {why}");
    assert_eq!((bench.asked_slot(), bench.actions().len()), (asked, 5));
}

/// What the day's budget counts is disruptive: starting what is dead is not.
#[test]
fn starts_of_a_dead_process_use_up_no_budget_of_disruptive_steps() {
    let mut bench = Bench::of_five(auto());
    for pid in 100..105 {
        bench.process(exited(pid, resilver_strategies::api::ExitClass::Signal(9)));
        let step = bench.last_step();
        assert_eq!((step.action, step.disruptive), (Action::StartNode, false));
        bench.done(step.id);
        bench.process(running(pid + 1));
        bench.fact.pid = pid + 1;
        bench.pass(1);
        let (incident, _) = bench.last_proof();
        bench.proved(&incident);
        bench.pass(400);
    }
    differs(&mut bench, 100);
    bench.pass(2);
    assert_eq!(bench.asked_slot().expect("a slot").action, Action::Resync);
    assert!(bench.refusals().is_empty(), "{:?}", bench.refusals());
}
