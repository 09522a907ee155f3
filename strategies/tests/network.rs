//! Stories of `network_partition` and `clock_skew`: what connects hosts, and what they count by.

mod common;

use common::*;
use resilver_strategies::api::{Input, Observation, Proof, SilenceFact, Subject};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::engine::IncidentState;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, GuardName, Mode};

const FIVE: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

fn bench() -> Bench {
    let mut bench = Bench::calm_with(auto());
    bench.voters(&FIVE);
    bench
}

/// This host does not hear these any more; the others may.
fn cut(bench: &mut Bench, names: &[&str]) {
    for name in names {
        let peer = bench.peer(name);
        (peer.agent_answers, peer.node_alive, peer.node_answers) = (false, None, Some(false));
        (peer.raft, peer.silent, peer.clock_offset_ms) = (None, None, None);
    }
}

fn heal(bench: &mut Bench) {
    bench.peers = FIVE.iter().skip(1).map(|name| peer(name)).collect();
    (bench.raft().role, bench.raft().leader) = ("follower".into(), "n2".into());
}

#[test]
fn on_the_majority_side_connections_are_dialled_anew_and_nothing_else_is_done() {
    let mut bench = bench();
    cut(&mut bench, &["n4", "n5"]);
    bench.pass(12);
    assert!(bench.open().is_empty(), "three lost answers are no partition");
    bench.pass(3);
    let incident = bench.only();
    assert_eq!(
        (incident.mode, incident.subject),
        (Mode::NetworkPartition, Subject::Hosts(vec!["n4".into(), "n5".into()]))
    );
    assert!(bench.engine.may_hold_lease(), "the majority side goes on");
    for _ in 0..3 {
        let step = bench.relieved(Action::Reclaim);
        assert_eq!(
            (step.with.as_str(), step.subject, step.disruptive),
            ("connections", Subject::Node(NODE.into()), false)
        );
        bench.pass(25);
    }
    bench.pass(3600);
    assert_eq!(bench.actions(), [Action::Reclaim; 3], "it waits for the network");
    assert_ne!(bench.state(), IncidentState::Escalated);
    heal(&mut bench);
    bench.pass(12);
    let (incident, proof) = bench.last_proof();
    assert_eq!(proof, Proof::OneLeader { hosts: vec!["n4".into(), "n5".into()] });
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}

fn cut_off(bench: &mut Bench) {
    cut(bench, &["n2", "n3", "n4"]);
    (bench.raft().role, bench.raft().leader) = ("candidate".into(), String::new());
    bench.peer("n5").leader = String::new();
    let silent =
        |name: &&str| SilenceFact { node: (*name).into(), agent_ms: 9000, node_ms: 9000, domain: String::new() };
    bench.peer("n5").silent = Some(["n2", "n3", "n4"].iter().map(silent).collect());
}

#[test]
fn the_minority_side_takes_no_writes_until_it_is_healed() {
    let mut bench = bench();
    cut_off(&mut bench);
    bench.pass(14);
    assert!(bench.actions().is_empty());
    bench.pass(8);
    assert!(!bench.engine.may_hold_lease(), "a minority orders nothing");
    for _ in 0..3 {
        bench.relieved(Action::Reclaim);
        bench.pass(25);
    }
    let step = bench.relieved(Action::SetMode);
    assert_eq!((step.with.as_str(), step.grade.0), ("read_only", 1));
    bench.fact.mode = "read_only".into();
    bench.pass(60);
    heal(&mut bench);
    bench.pass(8);
    assert_eq!(bench.last_step().with, "read_only", "healed for ten seconds first");
    let back = bench.relieved(Action::SetMode);
    assert_eq!(back.with, "read_write");
    assert!(bench.open().iter().any(|incident| incident.mode == Mode::NetworkPartition), "not proven yet");
    bench.fact.mode = "read_write".into();
    bench.pass(3);
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    assert!(!bench.open().iter().any(|incident| incident.mode == Mode::NetworkPartition));
}

/// Found by the simulator (`network-partition`): who is cut off names the leader that it knew last.
#[test]
fn the_minority_side_is_one_although_it_names_the_leader_that_it_knew() {
    let mut bench = bench();
    cut_off(&mut bench);
    (bench.raft().role, bench.raft().leader) = ("follower".into(), "n2".into());
    bench.peer("n5").leader = "n2".into();
    bench.pass(22);
    assert!(!bench.engine.may_hold_lease(), "a minority orders nothing");
    for _ in 0..3 {
        bench.relieved(Action::Reclaim);
        bench.pass(25);
    }
    assert_eq!(bench.relieved(Action::SetMode).with, "read_only");
}

/// What the journal says was seen when the newest incident was opened.
fn evidence(bench: &Bench) -> String {
    let opened = bench.journal.iter().rev().find(|line| line.draft.kind == RecordKind::Opened).expect("opened");
    opened.draft.details["evidence"].as_str().expect("text").to_owned()
}

/// The node hears its leader last so many seconds ago.
fn unheard(bench: &mut Bench, seconds: u64) {
    bench.raft().unheard_ms = Some(seconds * 1000);
}

/// Between nodes nothing gets through, and agents hear each other: for so many more seconds the own node hears no leader.
fn pass_unheard(bench: &mut Bench, seconds: u64) {
    for _ in 0..seconds {
        *bench.raft().unheard_ms.get_or_insert(0) += 1000;
        bench.pass(1);
    }
}

/// Only what nodes say to each other is cut: to the agents everybody is there.
#[test]
fn a_node_that_no_leader_reaches_is_cut_off_although_all_agents_hear_each_other() {
    let mut bench = bench();
    unheard(&mut bench, 0);
    bench.pass(10);
    pass_unheard(&mut bench, 19);
    assert!(bench.open().is_empty(), "5 s until it counts as unheard, and 15 s more");
    pass_unheard(&mut bench, 3);
    let incident = bench.only();
    assert_eq!((incident.mode, incident.subject), (Mode::NetworkPartition, Subject::Hosts(vec!["n2".into()])));
    assert!(evidence(&bench).contains("hears no leader"), "{}", evidence(&bench));
    assert!(evidence(&bench).contains("n2 leads by a quorum's word"), "{}", evidence(&bench));
    assert!(!bench.engine.may_hold_lease(), "it could order nothing: what it orders goes through the leader");
    for _ in 0..3 {
        assert_eq!(bench.relieved(Action::Reclaim).with, "connections");
        pass_unheard(&mut bench, 25);
    }
    let step = bench.relieved(Action::SetMode);
    assert_eq!(step.with, "read_only");
    bench.fact.mode = "read_only".into();
    pass_unheard(&mut bench, 60);
    assert_eq!(bench.last_step().with, "read_only", "nothing more is done: {:?}", bench.actions());
    unheard(&mut bench, 0);
    bench.pass(12);
    assert_eq!(bench.relieved(Action::SetMode).with, "read_write");
    bench.fact.mode = "read_write".into();
    bench.pass(3);
    let (incident, proof) = bench.last_proof();
    assert_eq!(proof, Proof::OneLeader { hosts: vec!["n2".into()] });
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}

/// No node hears another one: nobody is elected, and nobody is gone. `quorum_loss` it is not, as all voters are there.
#[test]
fn nobody_leads_although_every_node_runs_and_the_network_between_them_is_named() {
    let mut bench = bench();
    unheard(&mut bench, 0);
    bench.pass(10);
    let cut = |bench: &mut Bench, second: u64| {
        unheard(bench, second);
        for name in ["n3", "n4", "n5"] {
            bench.raft_of(name).unheard_ms = Some(second * 1000);
        }
        bench.raft_of("n2").quorum_ack_ms = Some(second * 1000);
    };
    for second in 1..=60 {
        cut(&mut bench, second);
        bench.pass(1);
        assert!(bench.open().is_empty() || second > 20, "after {second} s");
    }
    let incident = bench.only();
    let others = ["n2", "n3", "n4", "n5"].map(str::to_owned).to_vec();
    assert_eq!((incident.mode, incident.subject), (Mode::NetworkPartition, Subject::Hosts(others)));
    assert!(evidence(&bench).contains("no node hears a leader"), "{}", evidence(&bench));
    assert!(bench.engine.may_hold_lease(), "all see the same: somebody has to keep it");
    for second in 61..=600 {
        cut(&mut bench, second);
        if let Some(step) = bench.running() {
            bench.done(step.id);
        }
        bench.pass(1);
    }
    assert_eq!(bench.actions(), [Action::Reclaim; 3], "nothing is fenced, nothing restarted");
    bench.peers = FIVE.iter().skip(1).map(|name| peer(name)).collect();
    unheard(&mut bench, 0);
    bench.pass(15);
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    assert!(bench.open().is_empty());
}

/// A voter that raises its term alone hears no leader either, because it takes no word of one.
#[test]
fn a_term_above_the_leaders_is_no_cut() {
    let mut bench = bench();
    bench.raft().term = 4;
    pass_unheard(&mut bench, 120);
    assert!(!bench.open().iter().any(|incident| incident.mode == Mode::NetworkPartition));
}

/// A node that takes no part has no leader to hear, and one that does not say so is not judged by it.
#[test]
fn who_takes_no_part_misses_no_leader() {
    for phase in ["starting", "stopping"] {
        let mut bench = bench();
        bench.fact.phase = phase.into();
        pass_unheard(&mut bench, 60);
        assert!(!bench.open().iter().any(|incident| incident.mode == Mode::NetworkPartition), "{phase}");
    }
    let mut bench = bench();
    bench.pass(60);
    assert!(bench.open().is_empty(), "an engine of another make that tells no such time");
}

#[test]
fn what_was_read_only_by_somebody_elses_will_stays_so() {
    let mut bench = bench();
    bench.fact.mode = "read_only".into();
    cut_off(&mut bench);
    bench.pass(200);
    for _ in 0..3 {
        if let Some(step) = bench.running() {
            bench.done(step.id);
        }
        bench.pass(40);
    }
    heal(&mut bench);
    bench.pass(60);
    assert!(!bench.actions().contains(&Action::SetMode), "{:?}", bench.actions());
}

/// A person makes it read-only for another reason, while the agent's own fence is on it.
#[test]
fn a_mode_that_a_person_set_meanwhile_is_the_persons() {
    let mut bench = bench();
    cut_off(&mut bench);
    bench.pass(22);
    for _ in 0..3 {
        bench.relieved(Action::Reclaim);
        bench.pass(25);
    }
    bench.relieved(Action::SetMode);
    (bench.fact.mode, bench.fact.mode_is_persons) = ("read_only".into(), true);
    bench.pass(5);
    heal(&mut bench);
    bench.pass(60);
    assert_eq!(bench.last_step().with, "read_only", "it is not taken back");
}

#[test]
fn from_the_minority_side_nothing_is_repaired() {
    let mut bench = bench();
    cut_off(&mut bench);
    bench.pass(30);
    bench.fact.findings = vec![finding(1, "d1", "k")];
    bench.pass(300);
    assert!(!bench.actions().contains(&Action::RepairShards), "{:?}", bench.actions());
    assert!(bench.refusals().contains(&GuardName::QuorumKept));
    heal(&mut bench);
    bench.pass(20);
    assert!(bench.actions().contains(&Action::RepairShards), "and then it is");
}

/// Whatever the mode: a disk that was detached before the cut is not rebuilt from there either.
#[test]
fn from_the_minority_side_no_disk_is_rebuilt() {
    let mut bench = bench();
    bench.disk("d1", "up", "gone");
    bench.relieved(Action::Throttle);
    bench.disk("d1", "read_only", "gone");
    bench.through(Action::DetachDisk);
    bench.disk("d1", "down", "gone");
    cut_off(&mut bench);
    // Half a minute after the detaching it would be rebuilt; 18 s after the cut this is the minority side.
    bench.pass(300);
    assert!(!bench.actions().contains(&Action::RepairShards), "{:?}", bench.actions());
    assert!(bench.refusals().contains(&GuardName::QuorumKept), "{:?}", bench.refusals());
    heal(&mut bench);
    bench.pass(20);
    assert!(bench.actions().contains(&Action::RepairShards), "and then it is");
}

#[test]
fn the_agents_restart_forgets_nothing_that_is_to_be_taken_back() {
    let mut bench = bench();
    cut_off(&mut bench);
    bench.pass(18);
    for _ in 0..3 {
        bench.relieved(Action::Reclaim);
        bench.pass(25);
    }
    bench.relieved(Action::SetMode);
    bench.fact.mode = "read_only".into();
    bench.pass(2);
    bench.restart_agent();
    bench.process(running(100));
    heal(&mut bench);
    bench.pass(30);
    assert_eq!(bench.last_step().with, "read_write");
}

#[test]
fn a_clock_that_is_off_is_told_and_far_off_gives_the_lease_up() {
    let mut bench = bench();
    let off = |bench: &mut Bench, ms: i64| bench.peers.iter_mut().for_each(|peer| peer.clock_offset_ms = Some(ms));
    off(&mut bench, 80);
    bench.pass(28);
    assert!(bench.open().is_empty());
    bench.pass(5);
    assert_eq!(bench.only().mode, Mode::ClockSkew);
    assert!(bench.only().evidence.contains("78 ms behind"), "{}", bench.only().evidence);
    assert!(bench.engine.may_hold_lease(), "told, no more");
    off(&mut bench, -700);
    bench.pass(35);
    assert!(!bench.engine.may_hold_lease());
    off(&mut bench, 3);
    bench.pass(20);
    assert!(bench.engine.may_hold_lease(), "back when it is back");
    bench.pass(60);
    let (incident, proof) = bench.last_proof();
    assert_eq!(proof, Proof::ClockAgrees { within_ms: 50 });
    bench.proved(&incident);
    assert!(bench.open().is_empty() && bench.actions().is_empty(), "and nothing was ever done by it");
}

#[test]
fn one_peers_clock_and_slow_answers_are_not_this_clock() {
    let mut bench = bench();
    bench.peer("n2").clock_offset_ms = Some(5_000);
    bench.peer("n3").clock_offset_ms = Some(-5_000);
    bench.pass(300);
    bench.peers.iter_mut().for_each(|peer| (peer.clock_offset_ms, peer.clock_error_ms) = (Some(900), 880));
    bench.pass(300);
    assert!(bench.open().is_empty() && bench.engine.may_hold_lease());
}

/// The specification's never: no decision by wall time. The same story, told with a wall clock that jumps, decides the same.
#[test]
fn a_wall_clock_that_jumps_changes_no_decision() {
    let tell = |jumps: bool| {
        let mut engine = Bench::calm_with(PolicyConfig::default()).engine;
        let mut decided = Vec::new();
        let mut bench = bench();
        for second in 0..200u64 {
            cut(&mut bench, &["n4"]);
            let mut now = bench.now();
            now.mono = resilver_strategies::types::Moment(now.mono.0 + std::time::Duration::from_secs(second + 200));
            now.wall_ms = if jumps { 5 + (second % 7) * 86_400_000 } else { EPOCH_MS + second * 1000 };
            let fact = bench.fact.clone();
            let mut inputs = vec![Input::Observed(Observation::Heartbeat(Box::new(fact)))];
            inputs.extend(bench.peers.iter().cloned().map(|fact| Input::Observed(Observation::Peer(fact))));
            for input in inputs {
                for command in engine.handle(now, input) {
                    if let resilver_strategies::api::Command::Execute(step) = command {
                        decided.push((second, step.action, step.with));
                    }
                }
            }
        }
        decided
    };
    assert_eq!(tell(false), tell(true));
    assert!(!tell(true).is_empty(), "it decided something");
}
