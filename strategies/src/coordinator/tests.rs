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

/// Found by the simulator (`metadata`, seed 3): its own missing shards kept a dead node from being started by hand.
#[test]
fn a_dead_node_may_be_started_while_its_shards_are_missing() {
    let now = at(3600);
    let mut coordinator = calm(now);
    coordinator.heartbeat(now, &NodeFact { missing_shards: 20, ..fact() });
    coordinator.peer(now, &peer("n3", false));
    assert!(coordinator.is_dead(now, "n3") && !coordinator.is_dead(now, "n2"));
    assert!(!coordinator.is_dead(at(3700), "n3"), "what it said long ago says nothing");
    let ask = |action| SlotAsk { target: "n3".into(), action, operator: true, disk_unreadable: false };
    let view = coordinator.view(now, &SlotBook::inherit(fence(), vec![]), "n3");
    assert!(admit(&view, &ask(Action::StartNode)).is_ok());
    assert_eq!(admit(&view, &ask(Action::RestartNode)).unwrap_err().guard, GuardName::QuorumKept);
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
    let mut taken = SlotBook::inherit(fence(), vec![]);
    taken.open("n2", "s", "", 0).expect("free");
    assert_eq!(refused(coordinator.request(at(165), &taken, &own("n3"))).0, GuardName::OneAtATime, "one at a time");
    let other = SlotAsk { action: Action::StepDown, ..own("n2") };
    assert_eq!(refused(coordinator.request(at(165), &book, &other)).0, GuardName::StormBrake, "no other step");
}

#[test]
fn a_leader_that_is_named_and_that_nobody_hears_leads_nobody() {
    let book = SlotBook::inherit(fence(), vec![]);
    let own = SlotAsk { operator: false, ..restart("n2") };
    for heard in [false, true] {
        let mut coordinator = calm(at(100));
        let named = RaftFact { role: "follower".into(), leader: "n3".into(), ..RaftFact::default() };
        for now in 101..=170 {
            coordinator.heartbeat(at(now), &NodeFact { raft: Some(named.clone()), ..fact() });
            (2..=4).for_each(|number| coordinator.peer(at(now), &peer(&format!("n{number}"), heard && number == 3)));
            for number in 5..=6 {
                let word = PeerFact { leader: "n3".into(), ..peer(&format!("n{number}"), number == 5) };
                coordinator.peer(at(now), &word);
            }
        }
        assert_eq!(coordinator.request(at(170), &book, &own).is_ok(), !heard, "heard: {heard}");
    }
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
