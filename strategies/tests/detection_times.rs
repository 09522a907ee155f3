//! Detection times never scale: shortened suspicion convicts healthy nodes on a busy machine. Every cause is played at
//! the policy's own pace and at a sixtieth of it, and is found at the same second; the waits between steps are a
//! sixtieth, for contrast.

mod common;

use std::time::Duration;

use common::*;
use resilver_strategies::api::{
    CanaryFact, FailureFact, HostFact, Input, LockFact, LogMatchFact, Observation, SilenceFact, VolumeFact,
};
use resilver_strategies::cascade::Place;
use resilver_strategies::config::{FAST_FACTOR, PolicyConfig};
use resilver_strategies::engine::ladder;
use resilver_strategies::liveness::Verdict;
use resilver_strategies::types::{Action, FailureKind, Mode};

/// How much later than its time a cause may be found: the first look, the one that confirms, and a peer's word of a
/// second ago.
const LOOKS: u64 = 3;

/// What makes a second of a story: the cause, as it is in its `second` (the first is 1).
type Second = fn(&mut Bench, u64);

/// One detection time.
struct Row {
    /// As the configuration names it.
    name: &'static str,
    time: fn(&PolicyConfig) -> Duration,
    play: Second,
    found: fn(&Bench) -> bool,
}

fn policy(factor: f64) -> PolicyConfig {
    PolicyConfig { factor, ..auto() }
}

fn is_open(bench: &Bench, mode: Mode) -> bool {
    bench.open().iter().any(|incident| incident.mode == mode)
}

fn verdict(bench: &Bench, host: &str) -> Option<Verdict> {
    bench.engine.status(bench.now()).silent.get(host).map(|judged| judged.verdict)
}

/// After how many seconds of the cause it is found.
fn seconds_to_find(row: &Row, factor: f64) -> u64 {
    let mut bench = Bench::of_five(policy(factor));
    let limit = (row.time)(&bench.policy).as_secs() + 10 * LOOKS;
    for second in 1..=limit {
        (row.play)(&mut bench, second);
        if (row.found)(&bench) {
            return second;
        }
    }
    panic!("{} with factor {factor}: not found in {limit} s: {:#?}", row.name, bench.open())
}

fn leads_nobody(bench: &mut Bench) {
    let raft = bench.raft();
    (raft.role, raft.leader) = ("candidate".into(), String::new());
}

fn hangs(bench: &mut Bench, _: u64) {
    bench.pass_missing(1);
}

/// Three of five are ill, so that the brake is on, and nobody leads; the own node hangs as all four others say.
fn hangs_and_nobody_leads(bench: &mut Bench, _: u64) {
    for name in ["n2", "n3", "n4", "n5"] {
        let peer = bench.peer(name);
        (peer.leader, peer.hears_us) = (String::new(), Some(false));
        if name != "n5" {
            (peer.node_alive, peer.node_answers, peer.raft) = (Some(false), Some(false), None);
        }
    }
    bench.pass_missing(1);
}

fn does_not_flow(bench: &mut Bench, _: u64) {
    bench.pass(1);
    bench.observe(Observation::Canary(CanaryFact { millis: None, error: "deadline".into() }));
}

/// A line of the log is the second sign of it, from the first second on.
fn has_an_operation_that_ages(bench: &mut Bench, second: u64) {
    (bench.fact.oldest_operation, bench.fact.oldest_operation_ms) = ("put-7".into(), second * 1000);
    let line =
        LogMatchFact { pattern: "stuck".into(), mode: Some(Mode::Deadlock), line: "task stuck".into(), count: 1 };
    bench.observe(Observation::LogMatch(line));
    bench.pass(1);
}

fn has_a_lock_that_is_held(bench: &mut Bench, second: u64) {
    bench.fact.locks = vec![LockFact {
        path: "photos/a".into(),
        health: "unhealthy".into(),
        owner: "session-9".into(),
        owner_node: "n3".into(),
        token: 44,
        held_ms: second * 1000,
        waiting: 3,
    }];
    bench.pass(1);
}

fn hears_not(bench: &mut Bench, names: &[&str]) {
    for name in names {
        let peer = bench.peer(name);
        (peer.agent_answers, peer.node_alive, peer.node_answers) = (false, None, Some(false));
        (peer.raft, peer.silent, peer.clock_offset_ms) = (None, None, None);
    }
}

fn is_cut_off_from_two_that_others_hear(bench: &mut Bench, _: u64) {
    hears_not(bench, &["n4", "n5"]);
    bench.pass(1);
}

fn silent(names: &[&str], ms: u64) -> Option<Vec<SilenceFact>> {
    let silence = |name: &&str| SilenceFact { node: (*name).into(), agent_ms: ms, node_ms: ms, domain: String::new() };
    Some(names.iter().map(silence).collect())
}

fn hears_no_leader_that_leads(bench: &mut Bench, second: u64) {
    bench.raft().unheard_ms = Some(second * 1000);
    bench.pass(1);
}

fn is_on_the_minority_side(bench: &mut Bench, second: u64) {
    hears_not(bench, &["n2", "n3", "n4"]);
    leads_nobody(bench);
    let other = bench.peer("n5");
    (other.leader, other.silent) = (String::new(), silent(&["n2", "n3", "n4"], second * 1000));
    bench.pass(1);
}

fn loses_a_host(bench: &mut Bench, second: u64) {
    bench.give(Input::Lease { fence: Some(fence(7)) });
    hears_not(bench, &["n5"]);
    for name in ["n2", "n3", "n4"] {
        bench.peer(name).silent = silent(&["n5"], second * 1000);
    }
    bench.pass(1);
}

fn lags(bench: &mut Bench, _: u64) {
    for name in ["n2", "n3", "n4", "n5"] {
        let raft = bench.raft_of(name);
        (raft.committed, raft.applied) = (raft.committed + 50, raft.applied + 50);
    }
    bench.pass(1);
}

fn answers_slowly(bench: &mut Bench, _: u64) {
    bench.peers.iter_mut().for_each(|peer| peer.canary_ms = Some(30));
    bench.pass(1);
    bench.observe(Observation::Host(Box::new(HostFact { cpu_per_mille: Some(100), ..HostFact::default() })));
    bench.observe(Observation::Canary(CanaryFact { millis: Some(900), error: String::new() }));
}

fn loses_its_quorum(bench: &mut Bench, _: u64) {
    for name in ["n3", "n4", "n5"] {
        let peer = bench.peer(name);
        (peer.node_alive, peer.node_answers, peer.raft) = (Some(false), Some(false), None);
    }
    bench.peers.iter_mut().for_each(|peer| peer.leader = String::new());
    let raft = bench.raft_of("n2");
    (raft.role, raft.leader, raft.quorum_ack_ms) = ("candidate".into(), String::new(), None);
    leads_nobody(bench);
    bench.pass(1);
}

fn has_a_clock_that_is_off(bench: &mut Bench, _: u64) {
    bench.peers.iter_mut().for_each(|peer| peer.clock_offset_ms = Some(700));
    bench.pass(1);
}

fn has_no_room(bench: &mut Bench, _: u64) {
    let volume = VolumeFact {
        name: "d1".into(),
        path: "/data/d1".into(),
        total_bytes: 1000,
        available_bytes: 80,
        ..VolumeFact::default()
    };
    bench.observe(Observation::Host(Box::new(HostFact { volumes: vec![volume], ..HostFact::default() })));
    bench.pass(1);
}

fn waits_for_a_core(bench: &mut Bench, _: u64) {
    let host = HostFact { cpu_pressure_per_mille: Some(900), ..HostFact::default() };
    bench.observe(Observation::Host(Box::new(host)));
    bench.pass(1);
}

fn is_six_terms_ahead(bench: &mut Bench, _: u64) {
    leads_nobody(bench);
    bench.raft().term = 9;
    bench.pass(1);
}

/// One term every 25 s: three within a minute, and five ahead long after that.
fn rises_three_times_in_a_minute(bench: &mut Bench, second: u64) {
    leads_nobody(bench);
    bench.raft().term += u64::from(second % 25 == 1);
    bench.pass(1);
}

fn leads_beside_another(bench: &mut Bench, _: u64) {
    bench.peers.iter_mut().for_each(|peer| peer.raft.as_mut().expect("Raft runs").term = 4);
    let raft = bench.raft();
    (raft.role, raft.leader, raft.quorum_ack_ms) = ("leader".into(), NODE.into(), Some(50));
    bench.pass(1);
}

fn has_a_bad_disk(bench: &mut Bench, _: u64) {
    bench.disk("d1", "up", "error");
    bench.pass(1);
}

/// As far apart as the pattern allows.
fn drags_locks_and_keys_along(bench: &mut Bench, second: u64) {
    let kind = match second {
        1 => Some(FailureKind::PeerUnreachable),
        15 => Some(FailureKind::LockTimeout),
        30 => Some(FailureKind::AuthTimeout),
        _ => None,
    };
    let event = |kind: FailureKind| FailureFact {
        sequence: second,
        kind: kind.as_str().into(),
        subject: "photos".into(),
        places: vec![Place::host("n3")],
        ..FailureFact::default()
    };
    bench.observe(Observation::Failures { events: kind.map(event).into_iter().collect() });
    bench.pass(1);
}

const ROWS: &[Row] = &[
    Row {
        name: "deadlock.hung_after",
        time: |policy| policy.deadlock.hung_after,
        play: hangs,
        found: |bench| is_open(bench, Mode::Deadlock),
    },
    Row {
        name: "deadlock.leaderless_after",
        time: |policy| policy.deadlock.leaderless_after,
        play: hangs_and_nobody_leads,
        found: |bench| bench.asked_slot().is_some_and(|step| step.action == Action::RestartNode),
    },
    Row {
        name: "deadlock.stuck_after",
        time: |policy| policy.deadlock.stuck_after,
        play: does_not_flow,
        found: |bench| is_open(bench, Mode::Deadlock),
    },
    Row {
        name: "deadlock.operation_limit",
        time: |policy| policy.deadlock.operation_limit,
        play: has_an_operation_that_ages,
        found: |bench| is_open(bench, Mode::Deadlock),
    },
    Row {
        name: "deadlock.lock_limit",
        time: |policy| policy.deadlock.lock_limit,
        play: has_a_lock_that_is_held,
        found: |bench| is_open(bench, Mode::Deadlock),
    },
    Row {
        name: "partition.confirm_after, on top of the suspicion",
        time: |policy| policy.detection.suspect_after + policy.partition.confirm_after,
        play: is_cut_off_from_two_that_others_hear,
        found: |bench| is_open(bench, Mode::NetworkPartition),
    },
    Row {
        name: "partition.minority_after, on top of the suspicion",
        time: |policy| policy.detection.suspect_after + policy.partition.minority_after,
        play: is_on_the_minority_side,
        found: |bench| is_open(bench, Mode::NetworkPartition),
    },
    Row {
        name: "partition.unled_after, on top of five seconds without a leader's word",
        time: |policy| Duration::from_secs(5) + policy.partition.unled_after,
        play: hears_no_leader_that_leads,
        found: |bench| is_open(bench, Mode::NetworkPartition),
    },
    Row {
        name: "detection.suspect_after",
        time: |policy| policy.detection.suspect_after,
        play: loses_a_host,
        found: |bench| verdict(bench, "n5") == Some(Verdict::Suspected),
    },
    Row {
        name: "detection.convict_after",
        time: |policy| policy.detection.convict_after,
        play: loses_a_host,
        found: |bench| is_open(bench, Mode::HostDown),
    },
    Row {
        name: "lag.behind and lag.confirm_after",
        time: |policy| policy.lag.behind + policy.lag.confirm_after,
        play: lags,
        found: |bench| is_open(bench, Mode::SlowFollower),
    },
    Row {
        name: "lag.answers_after",
        time: |policy| policy.lag.answers_after,
        play: answers_slowly,
        found: |bench| is_open(bench, Mode::SlowFollower),
    },
    Row {
        name: "quorum.lost_after",
        time: |policy| policy.quorum.lost_after,
        play: loses_its_quorum,
        found: |bench| is_open(bench, Mode::QuorumLoss),
    },
    Row {
        name: "clock.confirm_after",
        time: |policy| policy.clock.confirm_after,
        play: has_a_clock_that_is_off,
        found: |bench| is_open(bench, Mode::ClockSkew),
    },
    Row {
        name: "clock.confirm_after, of what costs the lease",
        time: |policy| policy.clock.confirm_after,
        play: has_a_clock_that_is_off,
        found: |bench| !bench.engine.may_hold_lease(),
    },
    Row {
        name: "resources.confirm_after",
        time: |policy| policy.resources.confirm_after,
        play: has_no_room,
        found: |bench| is_open(bench, Mode::ResourceExhaustion),
    },
    Row {
        name: "resources.cpu_confirm_after",
        time: |policy| policy.resources.cpu_confirm_after,
        play: waits_for_a_core,
        found: |bench| is_open(bench, Mode::ResourceExhaustion),
    },
    Row {
        name: "terms.confirm_after",
        time: |policy| policy.terms.confirm_after,
        play: is_six_terms_ahead,
        found: |bench| is_open(bench, Mode::TermDivergence),
    },
    Row {
        name: "terms.window",
        time: |_| Duration::from_secs(50),
        play: rises_three_times_in_a_minute,
        found: |bench| is_open(bench, Mode::TermDivergence),
    },
    Row {
        name: "split_brain.overlap",
        time: |policy| policy.split_brain.overlap,
        play: leads_beside_another,
        found: |bench| is_open(bench, Mode::SplitBrain),
    },
    Row {
        name: "detection.heartbeat times detection.disk_confirmations",
        time: |policy| policy.detection.heartbeat * policy.detection.disk_confirmations,
        play: has_a_bad_disk,
        found: |bench| is_open(bench, Mode::DiskFailure),
    },
    Row {
        name: "cascades.patterns.window",
        time: |_| Duration::from_secs(29),
        play: drags_locks_and_keys_along,
        found: |bench| is_open(bench, Mode::CascadingFailure),
    },
];

#[test]
fn no_factor_makes_anything_be_found_sooner() {
    for row in ROWS {
        let time = (row.time)(&policy(FAST_FACTOR)).as_secs();
        let found = seconds_to_find(row, FAST_FACTOR);
        assert!(found >= time, "{}: found in second {found}, before its {time} s were over", row.name);
        assert!(found <= time + LOOKS, "{}: found in second {found}, long after {time} s", row.name);
        assert_eq!(found, seconds_to_find(row, 1.0), "{}: the factor makes a difference", row.name);
    }
}

/// The brake's minute is two figures in one: who shares a symptom is detection, and how long it holds is policy.
#[test]
fn no_factor_moves_the_ends_of_three_targets_apart() {
    for factor in [1.0, FAST_FACTOR] {
        let mut bench = Bench::of_five(policy(factor));
        for name in ["n3", "n4", "n5"] {
            bench.pass(2);
            let peer = bench.peer(name);
            (peer.node_alive, peer.node_answers) = (Some(false), Some(false));
        }
        bench.pass(1);
        assert!(bench.engine.status(bench.now()).storm, "factor {factor}");
    }
}

/// For contrast: what is waited for between two steps is policy.
#[test]
fn the_waits_of_every_ladder_are_divided_by_the_factor() {
    let mut waits = 0;
    for mode in Mode::ALL {
        let (slow, fast) = (ladder(*mode, &policy(1.0)), ladder(*mode, &policy(FAST_FACTOR)));
        assert_eq!(slow.len(), fast.len(), "{mode}");
        for (slow, fast) in slow.iter().zip(&fast) {
            assert_eq!(fast.wait, slow.wait.div_f64(FAST_FACTOR), "{mode}: {}", slow.does);
            waits += usize::from(!slow.wait.is_zero());
        }
    }
    assert!(waits >= 8, "there are such waits: {waits}");
}

/// And played: seconds from the first attempt of a step to its second.
#[test]
fn what_is_played_waits_a_sixtieth_between_two_steps() {
    let between = |factor: f64, play: Second, action: Action| {
        let mut bench = Bench::of_five(policy(factor));
        let mut begun = Vec::new();
        for second in 1..200 {
            play(&mut bench, second);
            if let Some(step) = bench.running().filter(|step| step.action == action) {
                begun.push(second);
                bench.done(step.id);
            }
            if begun.len() == 2 {
                return begun[1] - begun[0];
            }
        }
        panic!("factor {factor}: {begun:?}, {:?}", bench.actions())
    };
    // partition.reconnect_wait.
    let play = is_cut_off_from_two_that_others_hear;
    assert!((30..=32).contains(&between(1.0, play, Action::Reclaim)));
    assert!(between(FAST_FACTOR, play, Action::Reclaim) <= 2);
    // resources.relief_wait.
    assert!((120..=122).contains(&between(1.0, has_no_room, Action::Reclaim)));
    assert!((2..=4).contains(&between(FAST_FACTOR, has_no_room, Action::Reclaim)));
}
