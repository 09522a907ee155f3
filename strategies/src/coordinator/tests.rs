//! What the lease's holder admits, and what it refuses by which guard.

use super::*;
use crate::api::RaftFact;
use crate::types::Fence;

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn fence() -> Fence {
    Fence { epoch: 1, round: 3, holder: "n1".into() }
}

fn fact() -> NodeFact {
    let member = |number: usize| MemberFact {
        node: format!("n{number}"),
        state: "up".into(),
        role: if number <= 3 { "voter" } else { "learner" }.into(),
        ..MemberFact::default()
    };
    let raft = Some(RaftFact { leader: "n2".into(), ..RaftFact::default() });
    NodeFact { phase: "healthy".into(), members: (1..=6).map(member).collect(), raft, ..NodeFact::default() }
}

fn peer(node: &str, alive: bool) -> PeerFact {
    PeerFact {
        node: node.into(),
        agent_answers: true,
        node_alive: Some(alive),
        node_phase: if alive { "healthy" } else { "" }.into(),
        ..PeerFact::default()
    }
}

fn calm(now: Moment) -> Coordinator {
    let mut coordinator = Coordinator::new(at(0), "n1", PolicyConfig::default());
    coordinator.heartbeat(now, &fact());
    (2..=6).for_each(|number| coordinator.peer(now, &peer(&format!("n{number}"), true)));
    coordinator
}

fn restart(target: &str) -> SlotAsk {
    SlotAsk { target: target.into(), action: Action::RestartNode, operator: true, disk_unreadable: false }
}

fn refused(result: Result<Vec<GuardResult>, GuardResult>) -> (GuardName, String) {
    let refusal = result.expect_err("a refusal");
    (refusal.guard, refusal.evidence)
}

#[test]
fn that_a_node_is_dead_is_the_word_of_its_own_agent_while_it_is_fresh() {
    let now = at(3600);
    let mut coordinator = calm(now);
    coordinator.peer(now, &peer("n3", false));
    assert!(coordinator.is_dead(now, "n3") && !coordinator.is_dead(now, "n2"));
    assert!(!coordinator.is_dead(at(3700), "n3"), "what it said long ago says nothing");
}

/// Found by the simulator (`deadlock`, seed 72128001): the shard without a home waited for the hung node, and the hung node
/// for the shard.
#[test]
fn a_hung_node_is_restarted_while_a_shard_waits_for_it() {
    let book = SlotBook::inherit(fence(), vec![]);
    let own = |seconds: u64, answers: Option<bool>, target: &str, action| {
        let mut coordinator = calm(at(3600));
        let now = at(3600 + seconds);
        for second in 3600..=3600 + seconds {
            let said = PeerFact { node_phase: "healthy".into(), node_answers: answers, ..peer("n3", true) };
            coordinator.peer(at(second), &said);
        }
        for number in [2, 4, 5, 6] {
            coordinator.peer(now, &peer(&format!("n{number}"), true));
        }
        coordinator.heartbeat(now, &NodeFact { missing_shards: 1, ..fact() });
        let ask = SlotAsk { action, operator: false, ..restart(target) };
        coordinator.request(now, &book, &ask).map(drop).map_err(|held| held.guard)
    };
    let held = Err(GuardName::QuorumKept);
    assert_eq!(own(30, Some(false), "n3", Action::RestartNode), Ok(()));
    assert_eq!(own(29, Some(false), "n3", Action::RestartNode), held, "it may be slow");
    assert_eq!(own(30, None, "n3", Action::RestartNode), held, "its own agent hears it");
    assert_eq!(own(30, Some(true), "n3", Action::RestartNode), held, "it answers us");
    assert_eq!(own(30, Some(false), "n2", Action::RestartNode), held, "another one");
    assert_eq!(own(30, Some(false), "n3", Action::EvacuateDisk), held, "its disks may hold the last copy");
}

/// Found on review: a node's phase is its last word, so that one that hung while it was healthy counted as well for ever.
#[test]
fn a_voter_that_hangs_is_no_healthy_voter() {
    let mut coordinator = calm(at(100));
    coordinator.peer(at(100), &PeerFact { node_answers: Some(false), ..peer("n3", true) });
    let book = SlotBook::inherit(fence(), vec![]);
    assert_eq!(refused(coordinator.request(at(100), &book, &restart("n2"))).0, GuardName::QuorumKept);
}

#[test]
fn one_step_at_a_time_and_an_open_target_counts_as_down() {
    let mut coordinator = calm(at(100));
    let mut book = SlotBook::inherit(fence(), vec![]);
    assert!(coordinator.request(at(100), &book, &restart("n2")).is_ok());
    book.open("n2", "s", "", 0).expect("free");
    assert_eq!(refused(coordinator.request(at(100), &book, &restart("n5"))).0, GuardName::OneAtATime);
    book.unreachable("n2");
    let (guard, evidence) = refused(coordinator.request(at(100), &book, &restart("n3")));
    assert_eq!(guard, GuardName::QuorumKept);
    assert_eq!(evidence, "1 of 3 voters healthy during the step, 2 needed");
}

#[test]
fn a_voter_is_not_restarted_while_another_one_is_down() {
    let mut coordinator = calm(at(100));
    coordinator.peer(at(100), &peer("n3", false));
    let book = SlotBook::inherit(fence(), vec![]);
    assert_eq!(refused(coordinator.request(at(100), &book, &restart("n2"))).0, GuardName::QuorumKept);
    let gone = SlotAsk { target: "n4".into(), action: Action::DetachDisk, operator: false, disk_unreadable: true };
    assert!(coordinator.request(at(100), &book, &gone).is_ok(), "an unreadable disk takes nothing away");
    let emptied = SlotAsk { action: Action::EvacuateDisk, ..gone.clone() };
    assert_eq!(refused(coordinator.request(at(100), &book, &emptied)).0, GuardName::QuorumKept, "one that works does");
    let failing = SlotAsk { disk_unreadable: false, ..gone };
    assert_eq!(refused(coordinator.request(at(100), &book, &failing)).0, GuardName::QuorumKept);
}

#[test]
fn old_evidence_and_a_storm_and_grace_hold_it_back() {
    let book = SlotBook::inherit(fence(), vec![]);
    let mut coordinator = calm(at(100));
    assert_eq!(refused(coordinator.request(at(103), &book, &restart("n2"))).0, GuardName::Fresh);
    for node in ["n4", "n5", "n6"] {
        coordinator.peer(at(104), &peer(node, false));
    }
    coordinator.heartbeat(at(104), &fact());
    assert_eq!(refused(coordinator.request(at(104), &book, &restart("n2"))).0, GuardName::StormBrake);
    let own = SlotAsk { operator: false, ..restart("n2") };
    assert_eq!(refused(calm(at(30)).request(at(30), &book, &own)).0, GuardName::Grace);
}

#[test]
fn a_hung_voter_may_be_restarted_despite_the_brake_once_nobody_has_led_for_a_minute() {
    let book = SlotBook::inherit(fence(), vec![]);
    let leaderless = || NodeFact { raft: Some(RaftFact::default()), ..fact() };
    let mut coordinator = calm(at(100));
    let own = |target: &str| SlotAsk { operator: false, ..restart(target) };
    let second = |coordinator: &mut Coordinator, now| {
        coordinator.heartbeat(now, &leaderless());
        (2..=4).for_each(|number| coordinator.peer(now, &peer(&format!("n{number}"), false)));
        (5..=6).for_each(|number| coordinator.peer(now, &peer(&format!("n{number}"), true)));
    };
    (101..150).for_each(|now| second(&mut coordinator, at(now)));
    assert_eq!(refused(coordinator.request(at(150), &book, &own("n2"))).0, GuardName::StormBrake);
    (150..=165).for_each(|now| second(&mut coordinator, at(now)));
    assert_eq!(refused(coordinator.request(at(165), &book, &own("n5"))).0, GuardName::StormBrake, "it is well");
    assert!(coordinator.request(at(165), &book, &own("n2")).is_ok());
    // A learner brings no leader back.
    coordinator.peer(at(165), &peer("n5", false));
    assert_eq!(refused(coordinator.request(at(165), &book, &own("n5"))).0, GuardName::StormBrake, "it has no vote");
    let mut taken = SlotBook::inherit(fence(), vec![]);
    taken.open("n2", "s", "", 0).expect("free");
    assert_eq!(refused(coordinator.request(at(165), &taken, &own("n3"))).0, GuardName::OneAtATime, "one at a time");
    let other = SlotAsk { action: Action::StepDown, ..own("n2") };
    assert_eq!(refused(coordinator.request(at(165), &book, &other)).0, GuardName::StormBrake, "no other step");
}

/// Everybody is well, as seen now.
fn look(coordinator: &mut Coordinator, now: Moment, leader: &str) {
    let raft = Some(RaftFact { leader: leader.into(), ..RaftFact::default() });
    coordinator.heartbeat(now, &NodeFact { raft, ..fact() });
    (2..=6).for_each(|number| coordinator.peer(now, &peer(&format!("n{number}"), true)));
}

/// An agent's own wish, at this second, while everybody is well.
fn wish(coordinator: &mut Coordinator, second: u64, target: &str) -> Result<(), (GuardName, String)> {
    look(coordinator, at(second), "n2");
    let own = SlotAsk { operator: false, ..restart(target) };
    let book = SlotBook::inherit(fence(), vec![]);
    coordinator.request(at(second), &book, &own).map(drop).map_err(|held| (held.guard, held.evidence))
}

#[test]
fn a_sixth_step_on_one_target_within_a_day_is_refused_and_the_day_after_it_is_not() {
    let mut coordinator = calm(at(100));
    // Four hours apart: neither ten in an hour nor six in ten minutes.
    let hour = 3600;
    for round in 0..5 {
        assert_eq!(wish(&mut coordinator, 100 + round * 4 * hour, "n2"), Ok(()), "step {}", round + 1);
    }
    let (guard, evidence) = wish(&mut coordinator, 100 + 20 * hour, "n2").expect_err("the sixth");
    assert_eq!(guard, GuardName::Budget);
    assert_eq!(evidence, "5 of 5 on n2 in a day, 0 of 10 in the cluster in an hour, 0 of 5 in ten minutes");
    assert_eq!(wish(&mut coordinator, 100 + 20 * hour, "n3"), Ok(()), "another target has its own");
    assert_eq!(wish(&mut coordinator, 100 + 24 * hour, "n2").map_err(|held| held.0), Err(GuardName::Budget));
    assert_eq!(wish(&mut coordinator, 101 + 24 * hour, "n2"), Ok(()), "the first is a day old");
}

#[test]
fn an_eleventh_step_in_the_cluster_within_an_hour_is_refused_and_after_the_hour_it_is_not() {
    let mut coordinator = calm(at(100));
    // Two on each of five targets, five minutes apart.
    for round in 0..10 {
        let target = format!("n{}", 2 + round % 5);
        assert_eq!(wish(&mut coordinator, 100 + round * 300, &target), Ok(()), "step {}", round + 1);
    }
    // The holder's own node is a target like any other, and was none yet.
    let (guard, evidence) = wish(&mut coordinator, 3100, "n1").expect_err("the eleventh");
    assert_eq!(guard, GuardName::Budget);
    assert_eq!(evidence, "0 of 5 on n1 in a day, 10 of 10 in the cluster in an hour, 0 of 5 in ten minutes");
    assert_eq!(wish(&mut coordinator, 3700, "n1").map_err(|held| held.0), Err(GuardName::Budget));
    assert_eq!(wish(&mut coordinator, 3701, "n1"), Ok(()), "the first is an hour old");
}

/// Only flapping is judged: by the default figures the day's budget is used up by the same five steps.
#[test]
fn a_target_that_flaps_is_held_for_an_hour_and_not_longer() {
    let mut policy = PolicyConfig::default();
    (policy.budget.disruptive_per_target_day, policy.budget.disruptive_per_cluster_hour) = (100, 100);
    let mut coordinator = Coordinator::new(at(0), "n1", policy);
    for _ in 0..5 {
        assert_eq!(wish(&mut coordinator, 100, "n2"), Ok(()));
    }
    for second in [100, 101, 700, 701, 1900, 3700] {
        let (guard, evidence) = wish(&mut coordinator, second, "n2").expect_err("it flaps");
        assert_eq!(guard, GuardName::Backoff, "second {second}: {evidence}");
        assert!(evidence.starts_with("flapping, held for an hour"), "{evidence}");
        let other = restart("n2");
        let book = SlotBook::inherit(fence(), vec![]);
        assert!(coordinator.clone().request(at(second), &book, &other).is_ok(), "a person is not held");
    }
    assert_eq!(wish(&mut coordinator, 3700, "n3"), Ok(()), "nor is another target");
    assert_eq!(wish(&mut coordinator, 3701, "n2"), Ok(()));
    // Five that span a little more than ten minutes are no flapping, however often.
    let mut policy = PolicyConfig::default();
    (policy.budget.disruptive_per_target_day, policy.budget.disruptive_per_cluster_hour) = (100, 100);
    let mut coordinator = Coordinator::new(at(0), "n1", policy);
    for round in 0..40 {
        assert_eq!(wish(&mut coordinator, 100 + round * 151, "n2"), Ok(()), "round {round}");
    }
}

/// Five steps that took ten minutes are held as long as five that took none.
#[test]
fn the_hour_of_flapping_begins_when_it_is_known() {
    let mut policy = PolicyConfig::default();
    (policy.budget.disruptive_per_target_day, policy.budget.disruptive_per_cluster_hour) = (100, 100);
    let mut coordinator = Coordinator::new(at(0), "n1", policy);
    for round in 0..5 {
        assert_eq!(wish(&mut coordinator, 100 + round * 150, "n2"), Ok(()));
    }
    // The fifth is at second 700.
    for second in [701, 3701, 4299] {
        let held = wish(&mut coordinator, second, "n2").map_err(|held| held.0);
        assert_eq!(held, Err(GuardName::Backoff), "second {second}");
    }
    assert_eq!(wish(&mut coordinator, 4301, "n2"), Ok(()));
}

/// With the default figures, five at once are held by flapping for an hour, and by the day's budget for the rest of
/// the day.
#[test]
fn after_the_hour_of_flapping_the_days_budget_is_what_holds() {
    let mut coordinator = calm(at(100));
    for _ in 0..5 {
        assert_eq!(wish(&mut coordinator, 100, "n2"), Ok(()));
    }
    let guard = |coordinator: &mut Coordinator, second| wish(coordinator, second, "n2").map_err(|held| held.0);
    assert_eq!(guard(&mut coordinator, 3700), Err(GuardName::Backoff));
    assert_eq!(guard(&mut coordinator, 3701), Err(GuardName::Budget));
}

#[test]
fn for_a_minute_after_a_leader_change_no_agent_gets_a_slot_and_after_it_one_does() {
    let book = SlotBook::inherit(fence(), vec![]);
    let own = SlotAsk { operator: false, ..restart("n5") };
    let mut coordinator = calm(at(100));
    let mut ask = |second, leader: &str, ask: &SlotAsk| {
        look(&mut coordinator, at(second), leader);
        coordinator.clone().request(at(second), &book, ask).map(drop).map_err(|held| held.guard)
    };
    assert_eq!(ask(199, "n2", &own), Ok(()));
    for second in [200, 201, 230, 259] {
        assert_eq!(ask(second, "n3", &own), Err(GuardName::Grace), "second {second}");
    }
    assert_eq!(ask(259, "n3", &restart("n5")), Ok(()), "a person is not held");
    assert_eq!(ask(260, "n3", &own), Ok(()));
    // Not to know one for a moment is no change.
    assert_eq!(ask(300, "", &own), Ok(()));
    assert_eq!(ask(301, "n3", &own), Ok(()));
    assert_eq!(ask(302, "n4", &own), Err(GuardName::Grace), "the next one is");
}

#[test]
fn no_grace_after_a_leader_change_that_an_admitted_step_down_made() {
    let mut book = SlotBook::inherit(fence(), vec![]);
    let mut coordinator = calm(at(100));
    let down = SlotAsk { action: Action::StepDown, operator: false, ..restart("n2") };
    assert!(coordinator.request(at(100), &book, &down).is_ok());
    let slot = book.open("n2", "s", "", 0).expect("free");
    look(&mut coordinator, at(103), "n3");
    assert!(book.closed(&slot));
    let own = SlotAsk { operator: false, ..restart("n2") };
    assert!(coordinator.request(at(104), &book, &own).is_ok(), "the plan moved the leadership itself");
}

/// Shortened, they would restart what is only slow.
#[test]
fn no_factor_makes_a_node_mute_or_a_cluster_leaderless_any_sooner() {
    let fast = PolicyConfig { factor: 60.0, ..PolicyConfig::default() };
    let mut coordinator = Coordinator::new(at(0), "n1", fast);
    look(&mut coordinator, at(100), "n2");
    let leaderless = || NodeFact { raft: Some(RaftFact::default()), ..fact() };
    let said = PeerFact { node_answers: Some(false), ..peer("n3", true) };
    let book = SlotBook::inherit(fence(), vec![]);
    let (mut mute, mut without) = (None, None);
    for second in 101..200 {
        coordinator.heartbeat(at(second), &leaderless());
        [2, 4, 5, 6].iter().for_each(|number| coordinator.peer(at(second), &peer(&format!("n{number}"), true)));
        coordinator.peer(at(second), &said);
        let view = coordinator.view(at(second), &book, "n3");
        if view.nodes.iter().any(|node| node.mute) {
            mute.get_or_insert(second);
        }
        let ask = SlotAsk { operator: false, ..restart("n3") };
        if revives(&view, &ask).is_some() {
            without.get_or_insert(second);
        }
    }
    assert_eq!((mute, without), (Some(131), Some(160)), "30 s mute, 60 s without a leader");
}

#[test]
fn the_budget_restrains_automation_and_not_people() {
    let book = SlotBook::inherit(fence(), vec![]);
    let mut coordinator = calm(at(100));
    let own = SlotAsk { operator: false, ..restart("n2") };
    for _ in 0..5 {
        assert!(coordinator.request(at(100), &book, &own).is_ok());
    }
    assert_eq!(refused(coordinator.request(at(100), &book, &own)).0, GuardName::Backoff);
    assert!(coordinator.request(at(100), &book, &restart("n2")).is_ok());
}

/// The lease moves, and the next holder has granted nothing yet: what was done on each node its own agent's journal knows.
#[test]
fn the_next_holder_counts_on_by_what_each_nodes_agent_tells() {
    let minutes = |ages: &[u64]| ages.iter().map(|age| age * 60_000).collect::<Vec<u64>>();
    let with = |told: &[(&str, &[u64])]| {
        let mut coordinator = calm(at(3600));
        for (node, ages) in told {
            let fact = PeerFact { disrupted_ms: minutes(ages), ..peer(node, true) };
            coordinator.peer(at(3600), &fact);
        }
        coordinator
    };
    let book = SlotBook::inherit(fence(), vec![]);
    let judged = |coordinator: &mut Coordinator, target| {
        coordinator.request(at(3600), &book, &SlotAsk { operator: false, ..restart(target) })
    };
    let nine: &[(&str, &[u64])] = &[("n2", &[50, 40, 30]), ("n4", &[55, 35, 20]), ("n5", &[45, 25, 15])];
    assert!(judged(&mut with(nine), "n6").is_ok(), "nine in the hour");
    let mut ten = with(nine);
    ten.disrupted(at(3600), "n1", &minutes(&[59]));
    let (guard, evidence) = refused(judged(&mut ten, "n6"));
    assert!(guard == GuardName::Budget && evidence.contains("10 of 10"), "{evidence}");
    // An hour is over for them as time passes, and what this holder granted itself is not counted twice.
    let mut mine = with(&[]);
    assert!(judged(&mut mine, "n6").is_ok());
    mine.peer(at(3600), &PeerFact { disrupted_ms: vec![0], ..peer("n6", true) });
    assert_eq!(mine.view(at(3600), &book, "n6").cluster_hour.0, 1);
    // Five within ten minutes flap, whoever let them.
    let mut flapping = with(&[("n6", &[30, 29, 28, 27, 26])]);
    let (guard, evidence) = refused(judged(&mut flapping, "n6"));
    assert!(guard == GuardName::Backoff && evidence.starts_with("flapping"), "{evidence}");
    // Its agent knows of none any more.
    flapping.peer(at(3600), &peer("n6", true));
    assert!(judged(&mut flapping, "n6").is_ok());
}
