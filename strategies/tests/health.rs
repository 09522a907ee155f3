//! What a score must say: of a node and of a cluster that are well, ill, dead or unknown, and whatever happens.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use resilver_strategies::health::{
    Announced, ClusterInput, ClusterWeights, Component, Condition, DiskInput, Latency, MemberInput, NodeInput,
    NodeWeights, Presence, RaftInput, Rate, Rebuild, Score, Service, Standing, Usage, cluster, node,
};

const GIB: u64 = 1 << 30;

fn disk(name: &str) -> DiskInput {
    DiskInput {
        name: name.to_owned(),
        condition: Some(Condition::Well),
        service: Some(Service::Full),
        used_bytes: 20 * GIB,
        available_bytes: 80 * GIB,
        total_bytes: 100 * GIB,
        recent_errors: Some(0),
        announced: Some(Announced::Well),
    }
}

fn well() -> NodeInput {
    let answer = Latency {
        what: "heartbeat",
        now: Duration::from_millis(2),
        baseline: Some(Duration::from_millis(2)),
        fine: Duration::from_millis(20),
    };
    NodeInput {
        presence: Presence::Serving,
        rebuild: Some(Rebuild { waiting: 0, held: 1_000 }),
        disks: Some(vec![disk("d1"), disk("d2"), disk("d3"), disk("d4")]),
        questions: Some(Rate { asked: 60, failed: 0 }),
        latencies: vec![answer],
        memory: Some(Usage { used: GIB, limit: 8 * GIB }),
        descriptors: None,
        raft: Some(RaftInput { role: "follower".into(), leader_known: true, behind: 0, quorum_ack_age: None }),
    }
}

fn scored(input: &NodeInput) -> Score {
    node(input, &NodeWeights::default())
}

/// What one component lost, with all of its words.
fn lost(score: &Score, component: Component) -> (f64, String) {
    let reason = score.reasons.iter().find(|reason| reason.component == component).unwrap();
    (reason.points_lost, reason.evidence.join("; "))
}

#[test]
fn a_node_that_is_well_has_all_points_and_says_what_was_not_measured() {
    let score = scored(&well());
    assert_eq!((score.score, score.ceilings.len()), (100, 0));
    assert!(score.reasons.iter().all(|reason| reason.judged && !reason.evidence.is_empty()));
    assert!(lost(&score, Component::Headroom).1.contains("descriptors: not measured"));
}

#[test]
fn a_dead_node_is_zero_whatever_else_is_known_of_it() {
    let score = scored(&NodeInput { presence: Presence::Dead, ..well() });
    assert_eq!((score.score, score.ceilings[0].why.as_str()), (0, "its process does not run"));
}

#[test]
fn a_node_that_does_not_answer_or_serve_is_held_down() {
    let recovering = scored(&NodeInput { presence: Presence::NotServing("recovering".into()), ..well() });
    let silent = scored(&NodeInput { presence: Presence::Silent(5), ..well() });
    assert_eq!((recovering.score, silent.score), (40, 20));
    assert!(silent.ceilings[0].why.contains("5 questions"), "{:?}", silent.ceilings);
}

#[test]
fn a_node_of_which_nothing_is_known_is_not_taken_for_a_good_one() {
    let score = scored(&NodeInput::default());
    assert_eq!(score.score, 40);
    for reason in &score.reasons {
        assert!(!reason.judged, "{reason:?}");
        assert_eq!(reason.points_lost * 2.0, reason.points, "{reason:?}");
        assert!(reason.evidence.iter().any(|words| words.contains("not known")), "{reason:?}");
    }
    let without_raft = scored(&NodeInput { raft: None, ..well() });
    assert_eq!(without_raft.score, 95, "half of raft's ten");
}

#[test]
fn each_ill_costs_its_own_component_and_says_so_in_numbers() {
    let mut ill = well();
    ill.disks.as_mut().unwrap()[1].condition = Some(Condition::Failed);
    let score = scored(&ill);
    // Half by the worst, half by the mean: 20 × (1/2 + 1/8).
    assert_eq!(lost(&score, Component::DiskHealth), (12.5, "3 of 4 disks well; d2 has failed".to_owned()));
    assert_eq!(score.score, 87);

    let slow = Latency { now: Duration::from_millis(300), ..well().latencies[0].clone() };
    let score = scored(&NodeInput { latencies: vec![slow.clone()], ..well() });
    assert_eq!(lost(&score, Component::Latency).0, 15.0, "fifteen times what is fine");
    let score = scored(&NodeInput { latencies: vec![Latency { baseline: None, ..slow }], ..well() });
    assert_eq!(lost(&score, Component::Latency).0, 7.5, "long, and nobody knows whether it always was");

    let score = scored(&NodeInput { questions: Some(Rate { asked: 60, failed: 6 }), ..well() });
    assert_eq!(lost(&score, Component::Errors).0, 7.5);
    assert!(lost(&score, Component::Errors).1.starts_with("6 of the last 60 questions unanswered"));

    let score = scored(&NodeInput { rebuild: Some(Rebuild { waiting: 1, held: 1_000_000 }), ..well() });
    assert!(lost(&score, Component::Redundancy).0 >= 5.0, "one shard is one shard");
}

#[test]
fn one_full_disk_among_empty_ones_is_no_full_node() {
    let mut input = well();
    let full = |disk: &mut DiskInput| (disk.used_bytes, disk.available_bytes) = (97 * GIB, 3 * GIB);
    full(&mut input.disks.as_mut().unwrap()[0]);
    assert_eq!(lost(&scored(&input), Component::Headroom).0, 7.5);
    input.disks.as_mut().unwrap().iter_mut().for_each(full);
    let all_full = scored(&input);
    assert_eq!(lost(&all_full, Component::Headroom).0, 15.0);
    assert!(lost(&all_full, Component::Redundancy).1.contains("find no room"), "{all_full:?}");
}

#[test]
fn weights_decide_what_counts() {
    let mut ill = well();
    ill.disks.as_mut().unwrap().iter_mut().for_each(|disk| disk.condition = Some(Condition::Failed));
    let weights = NodeWeights { disk_health: 0, ..NodeWeights::default() };
    let reasons = node(&ill, &weights).reasons;
    assert_eq!(reasons.iter().find(|reason| reason.component == Component::DiskHealth).unwrap().points_lost, 0.0);
    let only = NodeWeights { redundancy: 0, disk_health: 7, errors: 0, latency: 0, headroom: 0, raft: 0 };
    assert_eq!(node(&ill, &only).score, 0);
}

fn member(node: &str, standing: Standing) -> MemberInput {
    MemberInput { node: node.to_owned(), votes: true, standing, pings: Some(Rate { asked: 60, failed: 0 }) }
}

fn six() -> ClusterInput {
    ClusterInput {
        members: (1..=6).map(|number| member(&format!("n{number}"), Standing::Scored(100))).collect(),
        parity: Some(2),
        missing_shards: Some(0),
        shards: Some(60_000),
        leader_known: Some(true),
    }
}

fn of(input: &ClusterInput) -> Score {
    cluster(input, &ClusterWeights::default())
}

fn with_dead(input: ClusterInput, dead: usize) -> ClusterInput {
    let mut input = input;
    input.members.iter_mut().take(dead).for_each(|member| member.standing = Standing::Dead);
    input
}

#[test]
fn a_whole_cluster_has_all_points() {
    assert_eq!(of(&six()).score, 100);
}

#[test]
fn the_dead_count_and_the_last_spare_is_a_ceiling() {
    let one = of(&with_dead(six(), 1));
    // Half of the data's spare (20), half of the quorum's (15), a sixth of the members (5).
    assert_eq!((one.score, one.ceilings.len()), (60, 0), "{one:?}");
    let two = of(&with_dead(six(), 2));
    assert!(two.score <= 20, "the mean of the living is 100: {two:?}");
    assert!(two.ceilings.iter().all(|ceiling| ceiling.at_most == 50));
}

#[test]
fn a_cluster_that_cannot_read_an_object_is_zero() {
    let without_quorum = of(&with_dead(six(), 3));
    assert_eq!(without_quorum.score, 0);
    assert!(without_quorum.ceilings[0].why.contains("no quorum"), "{without_quorum:?}");
    // Of nine, seven live: the quorum is safe, and the data is not.
    let mut nine = six();
    nine.members.extend((7..=9).map(|number| member(&format!("n{number}"), Standing::Scored(100))));
    nine.parity = Some(1);
    let unreadable = of(&with_dead(nine, 2));
    assert_eq!(unreadable.score, 0);
    assert!(unreadable.ceilings[0].why.contains("objects cannot be read"), "{unreadable:?}");
}

#[test]
fn unknown_codings_are_taken_for_what_every_put_is_promised() {
    let score = of(&with_dead(ClusterInput { parity: None, ..six() }, 1));
    assert_eq!(score.ceilings[0].at_most, 50, "{score:?}");
    assert_eq!(of(&with_dead(ClusterInput { parity: None, ..six() }, 2)).score, 0);
}

#[test]
fn nothing_known_of_a_cluster_is_no_good_cluster() {
    assert!(of(&ClusterInput::default()).score <= 30);
    let silent = ClusterInput { missing_shards: None, shards: None, ..six() };
    let score = of(&silent);
    assert_eq!((score.score, lost(&score, Component::Redundancy).0), (80, 20.0));
}

#[test]
fn missing_shards_and_lossy_pings_cost() {
    let missing = of(&ClusterInput { missing_shards: Some(60), ..six() });
    assert!((80..95).contains(&missing.score), "{missing:?}");
    let mut lossy = six();
    lossy.members[3].pings = Some(Rate { asked: 60, failed: 30 });
    let score = of(&lossy);
    assert_eq!(score.score, 97);
    assert!(lost(&score, Component::Members).1.contains("n4: 50.0% of pings unanswered"), "{score:?}");
}

fn latency_of(millis: u64, baseline: Option<u64>) -> Latency {
    Latency {
        what: "heartbeat",
        now: Duration::from_millis(millis),
        baseline: baseline.map(Duration::from_millis),
        fine: Duration::from_millis(20),
    }
}

prop_compose! {
    fn any_disk()(
        condition in 0..3, service in 0..3, used in 0..200u64, available in 0..200u64, errors in 0..30u64,
        announced in 0..3,
    ) -> DiskInput {
        DiskInput {
            name: "d".into(),
            condition: Some([Condition::Well, Condition::Suspect, Condition::Failed][condition as usize]),
            service: Some([Service::Full, Service::ReadOnly, Service::None][service as usize]),
            used_bytes: used,
            available_bytes: available,
            total_bytes: 400,
            recent_errors: Some(errors),
            announced: [Some(Announced::Well), None, Some(Announced::Degrading("one".into()))][announced as usize].clone(),
        }
    }
}

prop_compose! {
    fn any_node()(
        presence in 0..5, waiting in 0..1_000u64, held in 0..1_000u64, disks in proptest::collection::vec(any_disk(), 1..6),
        failed in 0..60u64, millis in 0..1_000u64, baseline in proptest::option::of(1..100u64), memory in 0..120u64,
        role in 0..4, leader_known: bool, behind in 0..200_000u64, ack in 0..5_000u64,
    ) -> NodeInput {
        NodeInput {
            presence: [
                Presence::Serving, Presence::NotServing("recovering".into()), Presence::Unknown, Presence::Silent(3),
                Presence::Dead,
            ][presence as usize].clone(),
            rebuild: Some(Rebuild { waiting, held }),
            disks: Some(disks),
            questions: Some(Rate { asked: 60, failed }),
            latencies: vec![latency_of(millis, baseline)],
            memory: Some(Usage { used: memory, limit: 100 }),
            descriptors: None,
            raft: Some(RaftInput {
                role: ["leader", "learner", "candidate", "shutdown"][role as usize].into(),
                leader_known, behind, quorum_ack_age: Some(Duration::from_millis(ack)),
            }),
        }
    }
}

/// Makes one of a node's inputs worse, and nothing better.
fn worsen(input: &mut NodeInput, which: u8, by: u64, disk: usize) {
    let disks = input.disks.as_mut().unwrap();
    let count = disks.len();
    let disk = &mut disks[disk % count];
    let raft = input.raft.as_mut().unwrap();
    match which {
        0 => input.presence = if by.is_multiple_of(2) { Presence::Dead } else { input.presence.clone().max_worse() },
        1 => input.rebuild.as_mut().unwrap().waiting += by,
        2 => disk.condition = Some(Condition::Failed),
        3 => disk.service = Some(Service::None),
        4 => disk.available_bytes = disk.available_bytes.saturating_sub(by),
        5 => *disk.recent_errors.as_mut().unwrap() += by,
        6 => input.questions.as_mut().unwrap().failed = (input.questions.unwrap().failed + by).min(60),
        7 => input.latencies[0].now += Duration::from_millis(by),
        8 => input.memory.as_mut().unwrap().used += by,
        9 => raft.behind += by,
        10 => raft.leader_known = false,
        12 => disk.announced = Some(Announced::Failing("many".into())),
        11 => *raft.quorum_ack_age.as_mut().unwrap() += Duration::from_millis(by),
        // What is written to a disk takes its room.
        _ => (disk.used_bytes, disk.available_bytes) = (disk.used_bytes + by, disk.available_bytes.saturating_sub(by)),
    }
}

trait Worse {
    fn max_worse(self) -> Self;
}

impl Worse for Presence {
    fn max_worse(self) -> Presence {
        match self {
            Presence::Serving | Presence::NotServing(_) | Presence::Unknown => Presence::Silent(3),
            worst => worst,
        }
    }
}

proptest! {
    #[test]
    fn a_worse_input_never_raises_a_nodes_score(
        input in any_node(), worse in proptest::collection::vec((0u8..14, 1..500u64, 0..6usize), 1..8),
    ) {
        let mut now = input;
        let mut before = scored(&now);
        for (which, by, disk) in worse {
            worsen(&mut now, which, by, disk);
            let after = scored(&now);
            prop_assert!(after.score <= before.score, "input {which} by {by}: {before:?} {after:?}");
            before = after;
        }
    }

    #[test]
    fn the_reasons_and_ceilings_give_the_score(input in any_node()) {
        let score = scored(&input);
        let sum = 100.0 - score.reasons.iter().map(|reason| reason.points_lost).sum::<f64>();
        let ceiling = score.ceilings.iter().map(|ceiling| f64::from(ceiling.at_most)).fold(100.0, f64::min);
        prop_assert!((f64::from(score.score) - sum.min(ceiling)).abs() <= 1.0, "{score:?}");
        prop_assert!((score.reasons.iter().map(|reason| reason.points).sum::<f64>() - 100.0).abs() < 1e-6);
    }

    #[test]
    fn a_worse_member_or_shard_never_raises_the_clusters_score(
        standings in proptest::collection::vec((0..=100u8, any::<bool>(), 0..60u64), 1..10),
        parity in proptest::option::of(0..4u32), missing in 0..1_000u64,
        worse in proptest::collection::vec((0..5u8, 0..10usize, 1..60u64), 1..12),
    ) {
        let members = standings.iter().map(|(score, votes, failed)| MemberInput {
            node: "n".into(), votes: *votes, standing: Standing::Scored(*score),
            pings: Some(Rate { asked: 60, failed: *failed }),
        }).collect();
        let mut now =
            ClusterInput { members, parity, missing_shards: Some(missing), shards: Some(1_000), leader_known: Some(true) };
        let mut before = of(&now);
        for (which, at, by) in worse {
            let count = now.members.len();
            let member = &mut now.members[at % count];
            match (which, member.standing) {
                (0, _) => member.standing = Standing::Dead,
                (1, Standing::Scored(score)) => {
                    member.standing = Standing::Scored(score.saturating_sub(u8::try_from(by).unwrap()));
                }
                (2, _) => member.pings = member.pings.map(|rate| Rate { failed: (rate.failed + by).min(60), ..rate }),
                (3, _) => now.missing_shards = now.missing_shards.map(|missing| missing + by),
                _ => now.leader_known = Some(false),
            }
            let after = of(&now);
            prop_assert!(after.score <= before.score, "{which} at {at} by {by}: {before:?} {after:?}");
            before = after;
        }
    }
}
