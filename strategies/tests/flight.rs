//! The flight recorder's lines, and what another policy makes of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use resilver_strategies::api::{CanaryFact, ExitClass, HostFact, Observation, PeerFact, VolumeFact};
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::flight::{BadLine, Player, Replay, Verdict};
use resilver_strategies::types::{Action, Authority, Mode};

/// A process that is killed and started again.
fn killed() -> Bench {
    let mut bench = Bench::calm(Profile::Production);
    bench.record(1000);
    bench.beat(2);
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.ms += 80;
    bench.done(step.id);
    bench.process(running(101));
    let (incident, _) = bench.last_proof();
    bench.proved(&incident);
    bench.beat(2);
    bench
}

#[test]
fn equal_facts_are_written_once() {
    let mut bench = Bench::calm(Profile::Production);
    bench.record(10_000);
    bench.beat(20);
    let lines = &bench.segments()[0];
    let written = |what: &str| lines[1..].iter().filter(|line| line.contains(what)).count();
    assert_eq!((written("\"heartbeat\""), written("\"tick\"")), (1, 1), "{:#?}", &lines[1..5]);
    assert_eq!(lines.len(), 1 + 20 * 11, "ten ticks and a heartbeat a second");
    assert!(lines.iter().skip(20).all(|line| line.len() < 64), "{}", lines.last().unwrap());
}

#[test]
fn the_same_policy_decides_the_same_and_one_in_shadow_parts_where_it_would_have_acted() {
    let bench = killed();
    let same = replay(bench.segments(), None);
    assert!(same.same && same.recorded_decisions >= 4, "{same:#?}");
    assert_eq!(same.incidents[0].verdict, Verdict::Same);

    let mut policy = PolicyConfig::of(Profile::Production);
    policy.authority.grades.all = Some(Authority::Shadow);
    let other = replay(bench.segments(), Some(policy));
    assert!(!other.same);
    assert_eq!(other.incidents.len(), 1);
    let report = &other.incidents[0];
    assert_eq!((report.mode, report.verdict, report.alike), (Mode::ProcessCrash, Verdict::Differs, 1), "{report:#?}");
    let first = report.first.as_ref().unwrap();
    let (then, now) = (first.recorded.as_ref().unwrap(), first.replayed.as_ref().unwrap());
    assert_eq!((then.what, then.action), ("step", Action::StartNode));
    assert_eq!((now.what, now.action, now.guard.as_deref()), ("refused", Action::StartNode, Some("authority")));
    assert!(other.answers_left_out >= 1, "the end of a step that was not taken answers nothing");
    assert!(!report.replayed.iter().any(|decision| decision.what == "ended"), "{report:#?}");
}

#[test]
fn a_policy_that_would_have_acted_earlier_shows_the_step_it_would_have_taken() {
    let mut policy = PolicyConfig::of(Profile::Production);
    policy.authority.grades.all = Some(Authority::Shadow);
    let mut bench = Bench::calm_with(policy);
    bench.record(50);
    bench.process(exited(100, ExitClass::Signal(9)));
    bench.beat(30);
    let other = replay(bench.segments(), Some(PolicyConfig::of(Profile::Production)));
    let first = other.incidents[0].first.clone().unwrap();
    assert_eq!(first.replayed.unwrap().what, "step");
    assert_eq!(first.recorded.unwrap().what, "refused");
}

/// Found on review: a replay went on across what it could not read with an engine that had not seen it, and told differences that
/// were none.
#[test]
fn what_cannot_be_read_is_no_other_decision() {
    let mut bench = killed();
    bench.record(5);
    bench.beat(3);
    bench.process(exited(101, ExitClass::Signal(9)));
    let step = bench.last_step();
    bench.done(step.id);
    bench.beat(3);
    let segments = bench.segments();
    assert!(segments.len() > 4, "{}", segments.len());
    let mut replay = Replay::new(None);
    for (number, segment) in segments.iter().enumerate() {
        if number == 1 {
            replay.gap("segment 1 is missing");
            continue;
        }
        replay.head(Player::head(&segment[0]).unwrap()).unwrap();
        let mut player = Player::default();
        for line in &segment[1..] {
            replay.event(player.event(line).unwrap());
        }
    }
    let report = replay.finish();
    assert!(report.same, "{report:#?}");
    assert_eq!((report.restarts, report.notes.len()), (1, 1), "{report:#?}");
}

/// What every watch remembers is in a checkpoint: a host that fills up, peers whose terms rise and whose clocks drift, a canary
/// that gets slower. Segments of few inputs, so that each watch is cut in the middle of what it counts.
#[test]
fn no_watch_forgets_anything_between_two_segments() {
    let mut bench = Bench::calm(Profile::Production);
    bench.fact.cluster = "c1".into();
    bench.record(7);
    for step in 0u64..300 {
        bench.fact.oldest_operation_ms = step * 300;
        if let Some(raft) = &mut bench.fact.raft {
            (raft.term, raft.committed, raft.applied) = (3 + step / 20, 40 + step * 50, 40 + step * 20);
        }
        bench.beat(1);
        let volume = VolumeFact {
            name: "metadata".into(),
            total_bytes: 1_000_003,
            available_bytes: 900_001 - step * 2_999,
            inodes_total: 1000,
            inodes_free: 900,
            ..VolumeFact::default()
        };
        bench.observe(Observation::Host(Box::new(HostFact { volumes: vec![volume], ..HostFact::default() })));
        bench.observe(Observation::Canary(CanaryFact {
            millis: (step % 7 != 0).then_some(3 + step),
            error: String::new(),
        }));
        bench.observe(Observation::Peer(PeerFact {
            node: "n2".into(),
            agent_answers: step % 11 != 0,
            node_alive: Some(true),
            node_answers: Some(step % 5 != 0),
            cluster: if step > 200 { "c9".into() } else { "c1".into() },
            raft: bench.fact.raft.clone(),
            leader: "n2".into(),
            clock_offset_ms: Some(i64::try_from(step).unwrap() * -7),
            ..PeerFact::default()
        }));
    }
    let segments = bench.segments();
    let whole = replay(segments, None);
    assert!(whole.same && whole.inputs > 3000 && whole.checkpoints_off == 0, "{whole:#?}");
    for (from, segment) in segments.iter().enumerate() {
        let alone = replay(std::slice::from_ref(segment), None);
        assert!(alone.same, "segment {from}: {alone:#?}");
    }
}

#[test]
fn a_damaged_line_is_told_and_a_newer_format_is_refused() {
    let bench = killed();
    let lines = &bench.segments()[0];
    let mut player = Player::default();
    assert!(matches!(player.event("{\"ns\":1,\"ms\":1,\"again\":7}"), Err(BadLine::Reference(7))));
    assert!(matches!(player.event("{\"ns\":1,\"ms\":1}"), Err(BadLine::Empty)));
    assert!(matches!(player.event(&lines[1][..10]), Err(BadLine::Json(_))));
    let newer = lines[0].replacen("{\"flight\":1,", "{\"flight\":2,", 1);
    assert!(matches!(Player::head(&newer), Err(BadLine::Newer(2))));
}
