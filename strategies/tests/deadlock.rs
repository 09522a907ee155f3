//! Stories of `deadlock`: a node that answers and gets nowhere, and one that runs and does not answer.

mod common;

use common::*;
use resilver_strategies::api::{
    CanaryFact, Command, HostFact, Input, LockFact, LogMatchFact, Observation, OperatorCommand, ProcessStateFact,
    Proof, SilenceFact,
};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, GuardName, Mode};

struct Story {
    bench: Bench,
    canary: Option<u64>,
    host: HostFact,
}

impl Story {
    fn with(policy: PolicyConfig) -> Story {
        let mut bench = Bench::calm_with(policy);
        bench.voters(&["n1", "n2", "n3", "n4", "n5"]);
        let host = HostFact { cpu_per_mille: Some(200), cpu_pressure_per_mille: Some(10), ..HostFact::default() };
        let mut story = Story { bench, canary: Some(10), host };
        story.pass(40);
        story
    }

    fn new() -> Story {
        Story::with(auto())
    }

    /// So many seconds, with a canary and a look at the host in each.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.bench.pass(1);
            let error = if self.canary.is_none() { "deadline".into() } else { String::new() };
            self.bench.observe(Observation::Canary(CanaryFact { millis: self.canary, error }));
            self.bench.observe(Observation::Host(Box::new(self.host.clone())));
        }
    }

    fn old_operation(&mut self) {
        (self.bench.fact.oldest_operation, self.bench.fact.oldest_operation_ms) = ("put-7".into(), 700_000);
    }

    /// Until a step of this kind runs; ends it.
    fn relieved(&mut self, action: Action) -> resilver_strategies::api::Step {
        for _ in 0..200 {
            if self.bench.running().is_some_and(|step| step.action == action) {
                break;
            }
            self.pass(1);
        }
        self.bench.relieved(action)
    }

    fn through(&mut self, action: Action) -> resilver_strategies::api::Step {
        for _ in 0..300 {
            if self.bench.asked_slot().is_some_and(|step| step.action == action) {
                break;
            }
            self.pass(1);
        }
        self.bench.through(action)
    }
}

#[test]
fn a_stuck_node_has_its_operation_cancelled_then_its_leadership_moved_then_is_restarted() {
    let mut story = Story::new();
    story.canary = None;
    story.pass(28);
    assert!(story.bench.open().is_empty(), "slowness for half a minute is no deadlock");
    story.old_operation();
    story.pass(6);
    assert_eq!(story.bench.only().mode, Mode::Deadlock);
    let opened =
        story.bench.records(RecordKind::Opened)[0].text("hangs").expect("what hangs is written down").to_owned();
    assert!(opened.contains("the oldest, put-7, for 700000 ms") && opened.contains("the canary met"), "{opened}");
    for _ in 0..3 {
        let step = story.relieved(Action::CancelOperation);
        assert_eq!((step.with.as_str(), step.disruptive), ("put-7", false), "which one is said");
        story.pass(14);
    }
    // It does not lead, so that there is no leadership to move; no lock is bad.
    let step = story.through(Action::RestartNode);
    assert!(step.disruptive && step.fence.is_some());
    let intent = story.bench.records(RecordKind::Intent).pop().expect("the restart's");
    assert_eq!(intent.details.get("pid"), Some(&story.bench.fact.pid.into()), "which process it was: {intent:?}");
    let skipped: Vec<&str> =
        story.bench.records(RecordKind::Note).iter().filter_map(|note| note.text("evidence")).collect();
    for why in ["no lock is held too long", "the own node does not lead", "3 attempts did not help"] {
        assert!(skipped.iter().any(|told| told.contains(why)), "{why}: {skipped:?}");
    }
    // Its end is meant: nobody starts it a second time beside the restart.
    story.bench.process(exited(100, resilver_strategies::api::ExitClass::Signal(15)));
    story.bench.process(running(101));
    (story.bench.fact.pid, story.canary) = (101, Some(12));
    (story.bench.fact.oldest_operation, story.bench.fact.oldest_operation_ms) = (String::new(), 0);
    story.pass(50);
    assert_eq!(story.bench.only().closed_ms, None, "a minute of canaries is the proof");
    story.pass(20);
    let (incident, proof) = story.bench.last_proof();
    assert_eq!(proof, Proof::Serves);
    story.bench.proved(&incident);
    assert!(story.bench.open().is_empty());
    assert!(!story.bench.actions().contains(&Action::StartNode));
    assert!(story.bench.slots_closed().iter().all(|(_, verified)| *verified));
}

#[test]
fn an_operation_that_ends_when_it_is_cancelled_ends_the_incident() {
    let mut story = Story::new();
    story.old_operation();
    story.canary = None;
    story.pass(3);
    story.relieved(Action::CancelOperation);
    story.canary = Some(9);
    (story.bench.fact.oldest_operation, story.bench.fact.oldest_operation_ms) = (String::new(), 0);
    story.pass(65);
    let (incident, _) = story.bench.last_proof();
    story.bench.proved(&incident);
    assert!(story.bench.open().is_empty());
    assert_eq!(story.bench.actions(), [Action::CancelOperation]);
}

#[test]
fn saturation_is_not_taken_for_deadlock() {
    let mut story = Story::new();
    story.host.cpu_per_mille = Some(990);
    story.canary = Some(4_000);
    story.pass(600);
    assert!(story.bench.open().is_empty());
    story.old_operation();
    story.pass(600);
    assert!(
        story.bench.open().is_empty() && story.bench.actions().is_empty(),
        "clients are slow on a saturated host, too"
    );
    // Found on review: a lock that does badly was judged before the host was.
    story.bench.fact.locks = vec![lock("n3", 400_000)];
    story.pass(600);
    assert!(story.bench.open().is_empty() && story.bench.actions().is_empty(), "{:?}", story.bench.actions());
    // And what is open when the host becomes saturated goes no further.
    let mut story = Story::new();
    story.canary = None;
    story.pass(40);
    assert_eq!(story.bench.only().mode, Mode::Deadlock);
    story.host.io_pressure_per_mille = Some(700);
    story.old_operation();
    story.pass(600);
    assert!(story.bench.asked_slot().is_none() && story.bench.actions().is_empty(), "{:?}", story.bench.actions());
}

/// A client on a slow line uploads for an hour, and holds the lock of what it writes.
#[test]
fn a_slow_client_is_no_deadlock() {
    let mut story = Story::new();
    (story.bench.fact.oldest_operation, story.bench.fact.oldest_operation_ms) = ("put-7".into(), 3_600_000);
    story.pass(600);
    assert!(story.bench.open().is_empty());
    story.bench.fact.locks = vec![lock("n3", 400_000)];
    story.pass(1200);
    assert_eq!(story.bench.only().mode, Mode::Deadlock, "those who wait are told of");
    assert!(story.bench.engine.may_hold_lease(), "every node sees that lock");
    assert!(story.bench.asked_slot().is_none());
    assert!(!story.bench.actions().contains(&Action::RestartNode));
    assert!(
        !story.bench.actions().contains(&Action::CancelOperation),
        "nor is the slow client made to pay for that lock"
    );
}

#[test]
fn what_is_not_known_of_the_host_restarts_nothing() {
    let mut story = Story::new();
    story.old_operation();
    for _ in 0..900 {
        story.bench.pass(1);
        story.bench.observe(Observation::Canary(CanaryFact { millis: None, error: "deadline".into() }));
    }
    assert!(story.bench.asked_slot().is_none());
}

#[test]
fn the_canary_alone_restarts_nothing_and_a_line_of_the_log_is_a_second_source() {
    let mut story = Story::new();
    story.canary = None;
    story.pass(300);
    assert!(story.bench.asked_slot().is_none(), "one source");
    let told = story.bench.records(RecordKind::Note);
    assert!(!told.iter().any(|note| note.action == Action::Alert), "not yet");
    story.pass(500);
    let told = story.bench.records(RecordKind::Note);
    assert_eq!(told.iter().filter(|note| note.action == Action::Alert).count(), 1, "held for ten minutes: told once");
    let line =
        LogMatchFact { pattern: "stuck".into(), mode: Some(Mode::Deadlock), line: "task stuck".into(), count: 1 };
    story.bench.observe(Observation::LogMatch(line));
    story.through(Action::RestartNode);
}

#[test]
fn a_canary_that_is_only_slower_than_usual_is_fast_enough() {
    let mut story = Story::new();
    story.canary = Some(900);
    story.pass(600);
    assert!(story.bench.open().is_empty(), "five times ten milliseconds is no limit; a second is");
}

#[test]
fn a_node_without_a_leader_is_not_deadlocked() {
    let mut story = Story::new();
    story.bench.raft().leader = String::new();
    story.canary = None;
    story.pass(55);
    assert!(!story.bench.open().iter().any(|incident| incident.mode == Mode::Deadlock));
}

fn lock(owner_node: &str, held_ms: u64) -> LockFact {
    LockFact {
        path: "photos/a".into(),
        health: "unhealthy".into(),
        owner: "session-9".into(),
        owner_node: owner_node.into(),
        token: 44,
        held_ms,
        waiting: 3,
    }
}

#[test]
fn the_lock_of_an_owner_that_is_proven_dead_is_broken_with_its_token() {
    let mut story = Story::new();
    story.bench.fact.locks = vec![lock("n5", 90_000)];
    story.pass(5);
    assert_eq!(story.bench.only().mode, Mode::Deadlock);
    assert!(story.bench.actions().is_empty(), "its owner lives");
    // n5 dies: heard by nobody, for 15 s.
    let mut story = Story::new();
    let gone = |bench: &mut Bench, ms: u64| {
        for name in ["n2", "n3", "n4"] {
            let silence = SilenceFact { node: "n5".into(), agent_ms: ms, node_ms: ms, domain: String::new() };
            bench.peer(name).silent = Some(vec![silence]);
        }
        let dead = bench.peer("n5");
        (dead.agent_answers, dead.node_alive, dead.node_answers, dead.raft) = (false, None, Some(false), None);
    };
    story.bench.fact.locks = vec![lock("n5", 90_000)];
    for second in 0..10 {
        gone(&mut story.bench, second * 1000);
        story.pass(1);
        assert!(story.bench.actions().is_empty(), "suspicion breaks nothing");
    }
    // The incident is past the step by then; a new one looks again.
    let mut story = Story::new();
    for second in 0..20 {
        gone(&mut story.bench, second * 1000);
        story.pass(1);
    }
    story.bench.fact.locks = vec![lock("n5", 90_000)];
    let step = story.relieved(Action::BreakLock);
    assert_eq!(step.with, "photos/a#44");
}

/// Found on review: it was passed over, so that no person was ever asked; and what one approved the node refused.
#[test]
fn the_lock_of_an_owner_that_lives_is_broken_by_nobody_unasked_and_with_a_persons_name() {
    let mut story = Story::new();
    story.bench.fact.locks = vec![lock("n3", 90_000)];
    story.pass(200);
    assert!(story.bench.actions().is_empty());
    let offered = |bench: &Bench| bench.commands.iter().any(|command| matches!(command, Command::OfferApproval { .. }));
    assert!(!offered(&story.bench), "a minute and a half is not stuck");
    story.bench.fact.locks = vec![lock("n3", 400_000)];
    story.pass(200);
    assert!(story.bench.actions().is_empty() && offered(&story.bench));
    let incident = story.bench.only().id;
    story.bench.give(Input::Offered { incident: incident.clone(), token_sha256: "h".into() });
    story.bench.give(Input::Operator(OperatorCommand::Approve {
        owner: "ada".into(),
        incident,
        token_sha256: "h".into(),
    }));
    let step = story.bench.running().expect("at once");
    assert_eq!((step.action, step.approved_by.as_str()), (Action::BreakLock, "ada"));
}

/// Found by agents beside real nodes: the five minutes were not divided with the other policy times, so that in a cluster that runs
/// by the profile `fast` nobody was asked for as long as in production.
#[test]
fn how_long_a_lock_is_the_owners_business_is_a_policy_time_and_scales() {
    for (factor, held_ms, asked) in [(1.0, 299_000, false), (1.0, 300_000, true), (60.0, 90_000, true)] {
        let mut story = Story::with(PolicyConfig { factor, ..auto() });
        story.bench.fact.locks = vec![lock("n3", held_ms)];
        story.pass(30);
        let offered = story.bench.commands.iter().any(|command| matches!(command, Command::OfferApproval { .. }));
        assert_eq!(offered, asked, "factor {factor}, held for {held_ms} ms");
    }
}

fn hang(bench: &mut Bench, hears: Option<bool>) {
    for name in ["n2", "n3", "n4", "n5"] {
        bench.peer(name).hears_us = hears;
    }
}

#[test]
fn a_process_that_runs_and_answers_nobody_is_restarted_under_a_fence() {
    let mut story = Story::new();
    hang(&mut story.bench, Some(false));
    story.bench.pass_missing(29);
    assert!(story.bench.open().is_empty());
    story.bench.pass_missing(20);
    let asked = story.bench.asked_slot().expect("a slot");
    assert_eq!(asked.action, Action::RestartNode);
    story.bench.grant(asked.id, 4);
    assert!(story.bench.actions().is_empty(), "the evidence is read again");
    story.bench.pass_missing(1);
    assert_eq!(story.bench.actions(), [Action::RestartNode]);
}

/// Found by the simulator (`deadlock`, seed 72128001): the shard without a home waited for the hung node, and the hung node for
/// the shard.
#[test]
fn a_hung_node_is_restarted_while_a_shard_waits_for_it() {
    let mut story = Story::new();
    story.bench.fact.missing_shards = 1;
    story.pass(2);
    hang(&mut story.bench, Some(false));
    story.bench.pass_missing(49);
    assert_eq!(story.bench.asked_slot().expect("a slot").action, Action::RestartNode);
    assert!(!story.bench.refusals().contains(&GuardName::QuorumKept), "{:?}", story.bench.refusals());
}

#[test]
fn a_process_that_peers_hear_is_not_restarted_because_its_agent_does_not() {
    for hears in [Some(true), None] {
        let mut story = Story::new();
        hang(&mut story.bench, hears);
        story.bench.pass_missing(600);
        assert!(story.bench.asked_slot().is_none() && story.bench.actions().is_empty(), "{hears:?}");
        assert!(story.bench.refusals().contains(&GuardName::Corroborated));
    }
}

#[test]
fn a_process_that_somebody_stopped_or_that_the_kernel_holds_is_not_restarted() {
    for (state, guard) in [("stopped", GuardName::DeliberateStop), ("disk_wait", GuardName::Corroborated)] {
        let mut story = Story::new();
        hang(&mut story.bench, Some(false));
        for second in 0..700 {
            story.bench.pass_missing(1);
            let fact = ProcessStateFact { pid: 100, state: state.into(), for_ms: second * 1000 + 6000 };
            story.bench.observe(Observation::ProcessState(fact));
        }
        assert!(story.bench.asked_slot().is_none() && story.bench.actions().is_empty(), "{state}");
        assert!(story.bench.refusals().contains(&guard), "{state}: {:?}", story.bench.refusals());
        let told = story.bench.records(RecordKind::Note).iter().filter(|note| note.action == Action::Alert).count();
        assert_eq!(told, 1, "{state}: a person is told");
    }
}

/// Three of five are ill: the brake is on. Nobody has led for a minute, and this one, which hangs, could vote.
#[test]
fn a_hung_voter_is_restarted_despite_the_brake_when_nobody_has_led_for_a_minute() {
    let ill = |led: bool| {
        let mut story = Story::new();
        hang(&mut story.bench, Some(false));
        for name in ["n2", "n3", "n4", "n5"] {
            let peer = story.bench.peer(name);
            peer.leader = if led { "n5".into() } else { String::new() };
            if name != "n5" {
                (peer.node_alive, peer.node_answers, peer.raft) = (Some(false), Some(false), None);
            }
        }
        if led {
            let raft = story.bench.raft_of("n5");
            (raft.role, raft.leader, raft.quorum_ack_ms) = ("leader".into(), "n5".into(), Some(40));
        }
        story
    };
    let mut story = ill(true);
    story.bench.pass_missing(200);
    assert!(story.bench.asked_slot().is_none(), "somebody leads: the brake holds");
    let mut story = ill(false);
    story.bench.pass_missing(55);
    assert!(story.bench.asked_slot().is_none(), "not before a minute");
    story.bench.pass_missing(20);
    assert_eq!(story.bench.asked_slot().expect("a slot").action, Action::RestartNode);
}
