//! One golden plan per mode, as `plan -o json` shows it: incident, ladder, guards with their numbers, proof. `UPDATE_GOLDEN=1`
//! writes them anew; look at the difference.
#![allow(clippy::disallowed_methods, reason = "a test reads its own golden files")]

mod common;

use std::path::PathBuf;

use common::*;
use resilver_strategies::api::{
    CanaryFact, ExitClass, FailureFact, HostFact, Input, Observation, ReplicaFact, ReplicasFact, SilenceFact,
    SmartVerdict, VolumeFact,
};
use resilver_strategies::cascade::Place;
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::types::{Authority, Mode};

const FIVE: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

/// An agent that may only look: nothing is done, so the plan shows all that would be.
fn watching() -> Bench {
    let mut policy = PolicyConfig::default();
    policy.authority.grades.all = Some(Authority::Shadow);
    let mut bench = Bench::calm_with(policy);
    bench.voters(&FIVE);
    bench
}

fn gone(bench: &mut Bench, names: &[&str], heard: bool) {
    for name in names {
        let peer = bench.peer(name);
        (peer.agent_answers, peer.node_alive, peer.node_answers) = (false, None, Some(false));
        (peer.raft, peer.silent, peer.clock_offset_ms) = (None, None, None);
    }
    if heard {
        return;
    }
    for second in 0..20u64 {
        for name in FIVE.iter().skip(1).filter(|name| !names.contains(name)) {
            let ms = second * 1000;
            let silence =
                |name: &&str| SilenceFact { node: (*name).into(), agent_ms: ms, node_ms: ms, domain: String::new() };
            bench.peer(name).silent = Some(names.iter().map(silence).collect());
        }
        bench.pass(1);
    }
}

fn compared(bench: &mut Bench, index: u64) {
    let members = FIVE.iter().map(|name| {
        let (verdict, digest) = if *name == NODE { ("wrong", "41aa") } else { ("right", "7d0c") };
        ReplicaFact { node: (*name).into(), verdict: verdict.into(), digest: digest.into() }
    });
    bench.observe(Observation::Replicas(ReplicasFact { index, members: members.collect() }));
}

fn provoke(mode: Mode, bench: &mut Bench) {
    match mode {
        Mode::ProcessCrash => drop(bench.process(exited(100, ExitClass::Signal(9)))),
        Mode::HostDown => {
            bench.give(Input::Lease { fence: Some(fence(7)) });
            gone(bench, &["n5"], false);
        }
        Mode::NetworkPartition => {
            gone(bench, &["n4", "n5"], true);
            bench.pass(15);
        }
        Mode::DatabaseCorruption | Mode::LogCorruption => {
            let damage = if mode == Mode::LogCorruption { "log" } else { "database" };
            (bench.fact.phase, bench.fact.damage) = ("lost_voter".into(), damage.into());
            bench.fact.phase_detail = "a record that was synced cannot be read".into();
            bench.fact.raft = None;
            bench.pass(3);
        }
        Mode::SplitBrain => {
            FIVE.iter().skip(1).for_each(|name| bench.raft_of(name).term = 4);
            let raft = bench.raft();
            (raft.role, raft.leader, raft.quorum_ack_ms) = ("leader".into(), NODE.into(), Some(50));
            bench.pass(5);
        }
        Mode::TermDivergence => {
            for _ in 0..15 {
                let raft = bench.raft();
                (raft.role, raft.leader, raft.term) = ("candidate".into(), String::new(), raft.term + 1);
                bench.pass(1);
            }
        }
        Mode::StateDivergence => {
            compared(bench, 100);
            compared(bench, 200);
            bench.pass(2);
        }
        Mode::Deadlock => {
            (bench.fact.oldest_operation, bench.fact.oldest_operation_ms) = ("put-7".into(), 700_000);
            bench.observe(Observation::Canary(CanaryFact { millis: None, error: "deadline".into() }));
            bench.pass(3);
        }
        Mode::ResourceExhaustion => {
            let volume = VolumeFact {
                name: "d1".into(),
                path: "/data/d1".into(),
                total_bytes: 1000,
                available_bytes: 40,
                ..VolumeFact::default()
            };
            let host = HostFact { volumes: vec![volume], ..HostFact::default() };
            for _ in 0..5 {
                bench.observe(Observation::Host(Box::new(host.clone())));
                bench.pass(10);
            }
        }
        Mode::SlowFollower => {
            for _ in 0..60 {
                for name in FIVE.iter().skip(1) {
                    let raft = bench.raft_of(name);
                    (raft.committed, raft.applied) = (raft.committed + 50, raft.applied + 50);
                }
                bench.pass(1);
            }
        }
        Mode::DiskFailure => {
            bench.disk("d1", "up", "gone");
            bench.pass(3);
        }
        Mode::DiskDegrading => {
            bench.smart(1, SmartVerdict::Degrading, 8);
            bench.smart(2, SmartVerdict::Degrading, 9);
            bench.read_fails();
        }
        Mode::DataCorruption => {
            bench.fact.findings = vec![finding(1, "d1", "k")];
            bench.pass(1);
        }
        Mode::ClockSkew => {
            bench.peers.iter_mut().for_each(|peer| peer.clock_offset_ms = Some(80));
            bench.pass(40);
        }
        Mode::QuorumLoss => {
            for name in ["n3", "n4", "n5"] {
                let peer = bench.peer(name);
                (peer.node_alive, peer.node_answers, peer.raft) = (Some(false), Some(false), None);
            }
            FIVE.iter().skip(1).for_each(|name| bench.peer(name).leader = String::new());
            bench.raft_of("n2").role = "candidate".into();
            (bench.raft().role, bench.raft().leader) = ("candidate".into(), String::new());
            bench.pass(70);
        }
        Mode::CascadingFailure => {
            let event = |kind: &str, place: Place| FailureFact {
                kind: kind.into(),
                subject: "photos".into(),
                places: vec![place],
                ..FailureFact::default()
            };
            bench.observe(Observation::Failures { events: vec![event("lock_timeout", Place::host(NODE))] });
            bench.pass(2);
            let disk = || Place::disk(NODE, "d1");
            let events = vec![event("disk_state_check_timeout", disk()), event("upload_failure", disk())];
            bench.observe(Observation::Failures { events });
        }
    }
}

#[test]
fn every_mode_has_the_plan_that_was_looked_at() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans");
    let mut differ = Vec::new();
    for mode in Mode::ALL {
        let mut bench = watching();
        provoke(*mode, &mut bench);
        let plan = bench.engine.plan(bench.now());
        let entry = plan.entries.iter().find(|entry| entry.mode == *mode);
        let Some(entry) = entry else { panic!("{mode} was not found:\n{plan}") };
        let found = serde_json::to_string_pretty(entry).expect("serializes") + "\n";
        let path = folder.join(format!("{mode}.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &found).expect("the golden file can be written");
        } else if std::fs::read_to_string(&path).unwrap_or_default() != found {
            differ.push(format!("{}; found:\n{found}", path.display()));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}
