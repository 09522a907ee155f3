//! Stories of the metadata's modes: damage, two leaders, terms, replicas that differ, followers that lag, a quorum that is gone.

mod common;

use common::*;
use resilver_strategies::api::{
    Command, ExitClass, IncidentId, Observation, Proof, ReplicaFact, ReplicasFact, Step, Subject,
};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::engine::{IncidentState, ladder};
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::{Action, Grade, GuardName, Mode};

fn everybody() -> Vec<String> {
    FIVE.iter().map(|name| (*name).to_owned()).collect()
}

fn one_leader() -> Proof {
    Proof::OneLeader { hosts: everybody() }
}

fn one_history() -> Proof {
    Proof::OneHistory { hosts: everybody() }
}

fn lose_vote(bench: &mut Bench, damage: &str) {
    (bench.fact.phase, bench.fact.damage) = ("lost_voter".into(), damage.into());
    bench.fact.phase_detail = "a record that was synced cannot be read".into();
    bench.fact.raft = None;
    // Found by agents beside real nodes: such a node has opened nothing that would tell who votes, so that the guard of the quorum
    // held every rejoining back for ever.
    bench.fact.members.clear();
}

/// The node says that it is well, and a voter.
fn have_vote_back(bench: &mut Bench) {
    (bench.fact.phase, bench.fact.damage) = ("healthy".into(), String::new());
    (bench.fact.raft, bench.fact.members) = (healthy().raft, healthy().members);
}

/// Of one that had lost its metadata a person restored it before its agent did anything.
fn restored_by_hand() -> (Bench, IncidentId) {
    let mut bench = Bench::of_five(auto());
    lose_vote(&mut bench, "absent");
    bench.pass(2);
    let incident = bench.only().id;
    have_vote_back(&mut bench);
    (bench, incident)
}

#[test]
fn a_lost_voter_names_no_voters_and_comes_back_all_the_same_but_is_not_restarted_or_mended_blindly() {
    let mut bench = Bench::of_five(auto());
    lose_vote(&mut bench, "log");
    bench.pass(2);
    let step = bench.through(Action::RejoinLearner);
    let intent = *bench.records(RecordKind::Intent).last().expect("an intent");
    let judged = intent.guards.iter().find(|result| result.guard == GuardName::QuorumKept).expect("it was asked");
    assert!(judged.passed && judged.evidence.contains("its vote is gone"), "{judged:?}");
    assert!(step.fence.is_some());
    // A node that takes part and does not know the voters is not touched.
    let mut bench = Bench::of_five(auto());
    bench.fact.members.clear();
    for index in [100, 200] {
        bench.observe(compared(index, &["n1"], 5));
        bench.pass(2);
    }
    assert_eq!(bench.only().mode, Mode::StateDivergence);
    bench.pass(10);
    assert!(bench.asked_slot().is_none() && bench.refusals().contains(&GuardName::QuorumKept));
}

/// Found by agents beside real nodes: for each log that rotted a person was called to a crash, and had nothing to do there.
#[test]
fn a_crash_that_leaves_a_lost_voter_behind_calls_nobody_while_its_agent_brings_it_back() {
    let mut bench = Bench::of_five(auto());
    bench.process(exited(100, ExitClass::Signal(9)));
    let step = bench.last_step();
    assert_eq!(step.action, Action::StartNode);
    bench.done(step.id);
    bench.process(running(101));
    bench.fact.pid = 101;
    lose_vote(&mut bench, "log");
    bench.pass(3);
    let modes: Vec<Mode> = bench.open().iter().map(|incident| incident.mode).collect();
    assert!(modes.len() == 2 && modes.contains(&Mode::LogCorruption), "{modes:?}");
    assert!(bench.records(RecordKind::Escalated).is_empty(), "its agent brings it back");
    // It could not, for longer than a start may take to serve: then somebody has to know.
    bench.pass(200);
    let told = bench.records(RecordKind::Escalated);
    assert!(told.iter().any(|record| record.mode == Some(Mode::ProcessCrash)), "{told:?}");
}

#[test]
fn a_damaged_database_comes_back_as_a_learner_and_is_compared() {
    let mut bench = Bench::of_five(auto());
    lose_vote(&mut bench, "database");
    bench.pass(1);
    assert!(bench.open().is_empty(), "one word is no evidence");
    bench.pass(1);
    let incident = bench.only();
    assert_eq!((incident.mode, incident.subject), (Mode::DatabaseCorruption, Subject::Node("n1".into())));
    let step = bench.through(Action::RejoinLearner);
    assert!(step.disruptive && step.fence.is_some() && step.grade == Grade::REALIGN);
    assert_eq!(bench.actions(), [Action::RejoinLearner], "a lost voter serves nobody: it is fenced already");
    (bench.fact.phase, bench.fact.damage) = ("healthy".into(), String::new());
    bench.fact.raft = healthy().raft;
    prove(&mut bench, &Proof::ReplicaEqual);
}

/// Found by the simulator (restore, seed 790978000): a member whose vote came back by a person's hand, in a cluster that had yet to come
/// back, could not be proven well at first. From then on its agent wanted it as a learner once a minute, and was refused for ever.
#[test]
fn who_has_its_vote_again_is_proven_on_and_not_made_a_learner_because_a_proof_did_not_hold() {
    for heals in [true, false] {
        let mut bench = Bench::of_five(auto());
        lose_vote(&mut bench, "absent");
        bench.pass(2);
        let incident = bench.only().id;
        // Its agent asks for the slot, nobody answers, and a person restores the metadata meanwhile: it is a voter again.
        let asked = bench.asked_slot().map(|step| step.id);
        have_vote_back(&mut bench);
        let (mut proofs, mut waited) = (0, 0);
        while bench.state() != IncidentState::Escalated && !(heals && proofs > 8) {
            bench.pass(1);
            if bench.state() == IncidentState::Verifying {
                proofs += 1;
                bench.not_proved(&incident);
            }
            waited += 1;
            assert!(waited < 3600, "it is neither proven nor told: {:#?}", bench.open());
        }
        assert!(bench.actions().is_empty(), "there is nothing to do to it");
        assert_eq!(bench.asked_slot().map(|step| step.id), asked, "and nothing to ask for");
        if !heals {
            let why = bench.only().resolution.expect("why");
            assert!(why.contains("resilver meta compare"), "{why}");
        }
        // Another proof is sought in time, and holds.
        for _ in 0..600 {
            bench.pass(1);
            bench.proved(&incident);
        }
        assert!(bench.open().is_empty(), "{:#?}", bench.open());
    }
}

/// A person was told of a doubt; damage that comes after it is nobody's but its agent's.
#[test]
fn a_member_in_doubt_that_loses_its_vote_again_is_brought_back_as_at_first() {
    let (mut bench, incident) = restored_by_hand();
    for _ in 0..3600 {
        bench.pass(1);
        bench.not_proved(&incident);
        if bench.state() == IncidentState::Escalated {
            break;
        }
    }
    assert_eq!(bench.state(), IncidentState::Escalated);
    lose_vote(&mut bench, "log");
    bench.pass(3);
    assert_eq!((bench.only().id, bench.state()), (incident, IncidentState::Recovering));
    assert!(bench.only().evidence.contains("(log)"), "{}", bench.only().evidence);
    bench.through(Action::RejoinLearner);
}

/// A node that is neither well nor a lost voter: its proof is sought on, and a person told in the end.
#[test]
fn who_does_not_say_how_it_is_after_a_proof_in_vain_is_not_waited_for_for_ever() {
    let (mut bench, incident) = restored_by_hand();
    let mut waited = 0;
    while bench.state() != IncidentState::Escalated {
        bench.pass(1);
        bench.not_proved(&incident);
        waited += 1;
        if waited == 60 {
            bench.fact.phase = "recovering".into();
        }
        assert!(waited < 3600, "{:#?}", bench.open());
    }
    assert!(waited > 60, "it was told before");
}

#[test]
fn a_damaged_log_is_never_truncated_and_goes_to_a_person_when_rejoining_does_not_help() {
    for damage in ["log", "vote", "absent"] {
        let mut bench = Bench::of_five(auto());
        lose_vote(&mut bench, damage);
        for _ in 0..3 {
            bench.through(Action::RejoinLearner);
            bench.pass(140);
        }
        bench.pass(5);
        assert_eq!(bench.state(), IncidentState::Escalated, "{damage}");
        let why = bench.only().resolution.expect("why");
        assert!(why.contains("resilver meta restore"), "{why}");
        bench.pass(3600);
        assert_eq!(bench.actions(), [Action::RejoinLearner; 3], "{damage}: nothing is restored unasked");
    }
}

/// The specification's never: the voter is not started again on a doubtful database. The process is; the node refuses by itself to be
/// a voter then, and says so.
#[test]
fn a_voter_is_not_started_on_doubtful_data() {
    let mut bench = Bench::of_five(auto());
    lose_vote(&mut bench, "database");
    bench.pass(5);
    bench.process(exited(100, resilver_strategies::api::ExitClass::Signal(9)));
    bench.pass(1);
    let step = bench.relieved(Action::StartNode);
    bench.process(running(101));
    bench.fact.pid = 101;
    bench.pass(600);
    let of = |action| bench.actions().into_iter().filter(|done| *done == action).count();
    assert_eq!(step.attempt, 1);
    for never in [Action::RestartNode, Action::Promote, Action::TriggerElection, Action::Resync, Action::TruncateLog] {
        assert_eq!(of(never), 0, "{never}");
    }
}

#[test]
fn a_member_that_was_removed_is_not_damaged() {
    let mut bench = Bench::of_five(auto());
    lose_vote(&mut bench, "removed");
    bench.pass(600);
    assert!(bench.open().is_empty());
}

#[test]
fn without_authority_a_rejoin_is_only_planned_and_a_person_is_told_once() {
    let mut bench = Bench::of_five(PolicyConfig::default());
    lose_vote(&mut bench, "database");
    bench.pass(1300);
    assert!(bench.actions().is_empty());
    assert!(bench.refusals().contains(&GuardName::Authority));
    let alerts = bench.records(RecordKind::Note).into_iter().filter(|note| note.action == Action::Alert).count();
    assert_eq!(alerts, 1, "held for ten minutes");
}

/// n1 and n2 both lead, each with a quorum behind it.
fn two_leaders(bench: &mut Bench, own_term: u64) {
    let raft = bench.raft();
    (raft.role, raft.leader, raft.term, raft.quorum_ack_ms) = ("leader".into(), "n1".into(), own_term, Some(50));
}

#[test]
fn the_lower_of_two_leaders_fences_itself_without_a_lease_then_steps_down_then_restarts() {
    let mut bench = Bench::of_five(auto());
    FIVE.iter().skip(1).for_each(|name| bench.raft_of(name).term = 4);
    two_leaders(&mut bench, 3);
    bench.pass(1);
    assert!(bench.open().is_empty(), "a claim is none before a quorum has acknowledged it again");
    let step = bench.relieved(Action::SetMode);
    assert_eq!((step.with.as_str(), step.disruptive, step.fence), ("isolated", false, None), "needs no lease");
    assert_eq!(bench.only().mode, Mode::SplitBrain);
    assert!(!bench.engine.may_hold_lease(), "one of the two orders nobody");
    bench.fact.mode = "isolated".into();
    assert!(bench.through(Action::StepDown).fence.is_some());
    bench.pass(20);
    // Once: one that leads on whatever it is told does so until its process ends.
    assert!(bench.through(Action::RestartNode).disruptive, "and it still leads");
    bench.fact.raft = healthy().raft;
    bench.raft().term = 4;
    let back = bench.relieved(Action::SetMode);
    assert_eq!(back.with, "read_write");
    bench.fact.mode = "read_write".into();
    prove(&mut bench, &one_leader());
}

#[test]
fn the_higher_leader_and_the_others_fence_nobody_and_a_person_chooses() {
    let mut higher = Bench::of_five(auto());
    two_leaders(&mut higher, 4);
    higher.pass(300);
    let mut other = Bench::of_five(auto());
    let raft = other.raft_of("n3");
    (raft.role, raft.leader, raft.term, raft.quorum_ack_ms) = ("leader".into(), "n3".into(), 9, Some(50));
    other.pass(300);
    for bench in [&higher, &other] {
        assert!(bench.actions().is_empty() && bench.asked_slot().is_none());
        assert_eq!(bench.state(), IncidentState::Escalated);
        assert!(bench.only().resolution.expect("why").contains("no side is merged or wiped unasked"));
    }
    assert!(other.engine.may_hold_lease(), "somebody has to put one after the other");
}

#[test]
fn the_stale_claim_of_a_leader_that_was_cut_off_is_no_split_brain() {
    let mut bench = Bench::of_five(auto());
    for second in 0..120 {
        two_leaders(&mut bench, 3);
        bench.raft().quorum_ack_ms = Some(second * 1000 + 50);
        bench.pass(1);
    }
    assert!(!bench.open().iter().any(|incident| incident.mode == Mode::SplitBrain));
    assert!(bench.actions().iter().all(|action| *action != Action::SetMode));
}

/// The claim is as fresh as can be, and so is the real leader's: what is stale is the quorum's word on it. On the
/// others' hosts, too.
#[test]
fn a_cut_off_leader_that_goes_on_claiming_beside_the_new_one_is_no_split_brain_to_anybody() {
    let mut own = Bench::of_five(auto());
    let mut other = Bench::of_five(auto());
    for second in 0..300 {
        // n1 led term 3, and has heard of nobody since. n2 was elected to term 4.
        two_leaders(&mut own, 3);
        own.raft().quorum_ack_ms = Some(second * 1000 + 50);
        FIVE.iter().skip(1).for_each(|name| own.raft_of(name).term = 4);
        own.pass(1);
        // n3 was cut off, as n1's agent sees it.
        let raft = other.raft_of("n3");
        (raft.role, raft.leader, raft.quorum_ack_ms) = ("leader".into(), "n3".into(), Some(second * 1000 + 50));
        other.pass(1);
    }
    for bench in [&own, &other] {
        assert!(!bench.open().iter().any(|incident| incident.mode == Mode::SplitBrain), "{:#?}", bench.open());
        assert!(bench.asked_slot().is_none(), "nothing disruptive is wanted");
    }
    assert!(other.actions().is_empty(), "{:?}", other.actions());
    // What it is: the network between n1's node and the others', whose agents hear each other.
    assert_eq!(own.only().mode, Mode::NetworkPartition);
    assert!(
        own.actions().iter().all(|action| matches!(action, Action::Reclaim | Action::SetMode)),
        "{:?}",
        own.actions()
    );
}

/// Found by the properties: slots that were asked for in vain left nothing in the journal, and the agent's next life used the
/// numbers of their steps again.
#[test]
fn the_number_of_a_step_that_was_only_asked_for_is_not_used_again() {
    let mut bench = Bench::of_five(auto());
    compared_twice(&mut bench);
    bench.pass(200);
    let before = bench.asked_slot().expect("a slot");
    bench.restart_agent();
    bench.process(running(100));
    bench.pass(70);
    bench.observe(compared(300, &["n1"], 5));
    bench.observe(compared(400, &["n1"], 5));
    bench.pass(20);
    let after = bench.asked_slot().expect("a slot");
    assert!(after.id > before.id, "{after:?} after {before:?}");
    let asked = bench.commands.iter().filter(|command| matches!(command, Command::TakeSlot(_))).count();
    let numbers = |note: &&&Draft| note.text("evidence").is_some_and(|told| told.contains("are taken"));
    let written = bench.records(RecordKind::Note).iter().filter(numbers).count();
    assert!(asked > 8 && written <= 3, "{asked} wishes, {written} records");
}

fn compared_twice(bench: &mut Bench) {
    bench.observe(compared(100, &["n1"], 5));
    bench.observe(compared(200, &["n1"], 5));
}

#[test]
fn two_clusters_under_one_configuration_are_a_persons() {
    let mut bench = Bench::of_five(auto());
    bench.peer("n4").cluster = "another".into();
    bench.pass(60);
    assert_eq!((bench.only().mode, bench.state()), (Mode::SplitBrain, IncidentState::Escalated));
    bench.pass(600);
    assert!(bench.actions().is_empty() && bench.asked_slot().is_none());
}

/// Found with two real clusters: each has a leader, and their terms were compared; the agent of the lower one fenced its node.
#[test]
fn the_leaders_and_terms_of_two_clusters_are_not_compared() {
    for (ours, theirs) in [(3, 40), (40, 3)] {
        let mut bench = Bench::of_five(auto());
        two_leaders(&mut bench, ours);
        let raft = bench.raft_of("n4");
        (raft.role, raft.leader, raft.term, raft.quorum_ack_ms) = ("leader".into(), "n4".into(), theirs, Some(20));
        for name in ["n2", "n3", "n5"] {
            let raft = bench.raft_of(name);
            (raft.role, raft.leader, raft.term, raft.quorum_ack_ms) = ("follower".into(), "n1".into(), ours, None);
        }
        bench.peer("n4").cluster = "another".into();
        bench.pass(300);
        let told = bench.only();
        assert!(told.mode == Mode::SplitBrain && told.evidence.starts_with("two clusters: "), "{told:?}");
        assert!(bench.actions().is_empty() && bench.asked_slot().is_none(), "{:?}", bench.actions());
    }
}

/// A quorum was forced without members that still are one: the later epoch is the one that stays, whatever the terms.
#[test]
fn of_two_leaders_in_two_epochs_the_one_of_the_earlier_fences_itself() {
    for (ours, fences) in [(1, true), (2, false)] {
        let mut bench = Bench::of_five(auto());
        two_leaders(&mut bench, 5);
        bench.fact.epoch = ours;
        for name in ["n2", "n3", "n4", "n5"] {
            bench.peer(name).epoch = 3 - ours;
        }
        bench.pass(20);
        assert_eq!(bench.only().mode, Mode::SplitBrain);
        assert_eq!(bench.actions() == [Action::SetMode], fences, "epoch {ours}: {:?}", bench.actions());
    }
}

/// The own node has lost touch and elects itself over and over: its term runs away from the leader's.
fn churn(bench: &mut Bench, seconds: u64, every: u64) {
    for second in 0..seconds {
        let raft = bench.raft();
        (raft.role, raft.leader) = ("candidate".into(), String::new());
        raft.term += u64::from(second % every == 0);
        bench.pass(1);
    }
}

fn follow(bench: &mut Bench, term: u64) {
    let raft = bench.raft();
    (raft.role, raft.leader, raft.term) = ("follower".into(), "n2".into(), term);
    for name in ["n2", "n3", "n4", "n5"] {
        bench.raft_of(name).term = term;
    }
}

#[test]
fn a_node_whose_term_runs_away_is_calmed_and_stands_again_once_terms_are_stable() {
    let mut bench = Bench::of_five(auto());
    churn(&mut bench, 24, 7);
    let quiet = bench.running().expect("a step");
    assert_eq!((quiet.action, quiet.with.as_str(), quiet.grade), (Action::SetMode, "quiet", Grade::RELIEVE));
    bench.done(quiet.id);
    bench.fact.stands = Some(false);
    bench.pass(5);
    follow(&mut bench, 9);
    bench.pass(50);
    assert_eq!(
        bench.actions(),
        [Action::SetMode],
        "a minute of one term is the proof: {}",
        bench.engine.plan(bench.now())
    );
    let standing = bench.relieved(Action::SetMode);
    assert_eq!(standing.with, "standing");
    bench.fact.stands = Some(true);
    prove(&mut bench, &one_history());
}

#[test]
fn an_election_or_two_are_no_divergence() {
    let mut bench = Bench::of_five(auto());
    for round in 0..20 {
        churn(&mut bench, 4, 2);
        follow(&mut bench, 5 + round * 2);
        bench.pass(25);
    }
    assert!(bench.open().is_empty() && bench.actions().is_empty());
}

#[test]
fn the_leader_aligns_a_stray_above_the_highest_term_and_nothing_lowers_one() {
    let mut bench = Bench::of_five(auto());
    two_leaders(&mut bench, 3);
    for name in ["n2", "n3", "n4", "n5"] {
        let raft = bench.raft_of(name);
        (raft.role, raft.leader, raft.quorum_ack_ms) = ("follower".into(), "n1".into(), None);
        bench.peer(name).leader = "n1".into();
    }
    bench.raft().last_log = 50;
    bench.pass(5);
    (bench.raft_of("n5").role, bench.raft_of("n5").term) = ("candidate".into(), 11);
    bench.pass(14);
    assert_eq!(bench.only().mode, Mode::TermDivergence);
    bench.pass(40);
    assert!(bench.asked_slot().is_none(), "the stray's own agent calms it first");
    let step = bench.through(Action::AlignTerm);
    assert_eq!((step.with.as_str(), step.grade), ("12", Grade::REALIGN), "above the highest seen");
    bench.raft().term = 12;
    for name in ["n2", "n3", "n4", "n5"] {
        bench.raft_of(name).term = 12;
        bench.raft_of(name).role = "follower".into();
    }
    prove(&mut bench, &one_history());
    assert_eq!(bench.actions(), [Action::AlignTerm]);
}

#[test]
fn a_stray_that_no_election_brings_back_gives_its_membership_up() {
    let mut bench = Bench::of_five(auto());
    churn(&mut bench, 30, 2);
    let quiet = bench.running().expect("a step");
    bench.done(quiet.id);
    bench.fact.stands = Some(false);
    bench.pass(250);
    assert!(bench.asked_slot().is_none(), "not for five minutes");
    let step = bench.through(Action::RejoinLearner);
    assert!(step.disruptive && step.grade == Grade::REALIGN);
}

#[test]
fn a_term_that_went_back_is_remembered_over_the_agents_restart() {
    let mut bench = Bench::of_five(auto());
    bench.raft().term = 9;
    bench.peer("n2").raft.as_mut().expect("Raft runs").term = 9;
    bench.pass(5);
    bench.process(exited(100, resilver_strategies::api::ExitClass::Signal(9)));
    let start = bench.relieved(Action::StartNode);
    let _ = start;
    bench.process(running(101));
    (bench.fact.pid, bench.raft().term) = (101, 4);
    bench.restart_agent();
    bench.process(running(101));
    bench.pass(4);
    let found = bench.open().into_iter().find(|incident| incident.mode == Mode::TermDivergence).expect("found");
    assert!(found.evidence.contains("term 4 is lower than 9"), "{}", found.evidence);
}

fn compared(index: u64, wrong: &[&str], digests: usize) -> Observation {
    let members = FIVE.iter().take(digests).map(|name| {
        let wrong = wrong.contains(name);
        let (verdict, digest) = if wrong { ("wrong", "41aa") } else { ("right", "7d0c") };
        ReplicaFact { node: (*name).into(), verdict: verdict.into(), digest: digest.into() }
    });
    Observation::Replicas(ReplicasFact { index, members: members.collect() })
}

#[test]
fn a_replica_that_differs_twice_is_mended_by_ranges_then_whole_then_by_rejoining() {
    let mut bench = Bench::of_five(auto());
    bench.observe(compared(100, &["n1"], 5));
    bench.observe(compared(100, &["n1"], 5));
    bench.pass(5);
    assert!(bench.open().is_empty(), "the same comparison twice is one");
    bench.observe(compared(200, &["n1"], 5));
    bench.pass(2);
    assert_eq!(bench.only().mode, Mode::StateDivergence);
    let mut last = Grade::OBSERVE;
    for action in [Action::Resync, Action::InstallSnapshot, Action::RejoinLearner] {
        let step: Step = bench.through(action);
        assert!(step.disruptive && step.fence.is_some() && step.grade >= last);
        last = step.grade;
        bench.pass(3);
        assert_eq!(bench.state(), IncidentState::Verifying);
        for _ in 0..5 {
            let (incident, proof) = bench.last_proof();
            assert_eq!(proof, Proof::ReadsEqual);
            if action == Action::RejoinLearner {
                bench.proved(&incident);
                break;
            }
            bench.not_proved(&incident);
            bench.pass(6);
        }
    }
    assert!(bench.open().is_empty());
}

#[test]
fn with_fewer_than_three_digests_nobody_is_blamed_and_a_majority_counts_more_than_a_word() {
    let mut bench = Bench::of_five(auto());
    for index in 1..20 {
        bench.observe(compared(index * 100, &["n1"], 2));
        bench.pass(1);
    }
    assert!(bench.open().is_empty());
    // A majority has what n1 has: that somebody calls n1 wrong does not make it so.
    for index in 20..40 {
        bench.observe(compared(index * 100, &["n1", "n2", "n3"], 5));
        bench.pass(1);
    }
    assert!(bench.open().is_empty());
    // And the others' agents do nothing about n1.
    for index in 40..60 {
        bench.observe(compared(index * 100, &["n4"], 5));
        bench.pass(1);
    }
    assert!(bench.open().is_empty() && bench.actions().is_empty());
}

/// Nor is who has more, or a later term, right for that: the minority is further, and it is the minority that is mended.
#[test]
fn the_newest_is_not_trusted_instead_of_the_majority() {
    let further = |bench: &mut Bench, own: bool, others: &[&str]| {
        let newest = |raft: &mut resilver_strategies::api::RaftFact| {
            (raft.term, raft.last_log_term, raft.last_log, raft.committed, raft.applied) = (9, 9, 900, 900, 900);
        };
        if own {
            newest(bench.raft());
        }
        others.iter().for_each(|name| newest(bench.raft_of(name)));
    };
    let mut bench = Bench::of_five(auto());
    further(&mut bench, false, &["n4", "n5"]);
    for index in 1..=20 {
        bench.observe(compared(index * 100, &["n4", "n5"], 5));
        bench.pass(1);
    }
    let blamed = |bench: &Bench| bench.open().iter().any(|incident| incident.mode == Mode::StateDivergence);
    assert!(!blamed(&bench), "three of five have what this one has");
    let mut bench = Bench::of_five(auto());
    further(&mut bench, true, &["n2"]);
    for index in [100, 200] {
        bench.observe(compared(index, &["n1", "n2"], 5));
        bench.pass(1);
    }
    assert!(blamed(&bench), "two of five are not right because they are further");
}

/// Both have committed all that they have, and at one index it is not the same.
#[test]
fn two_committed_entries_at_one_index_are_two_histories_and_a_person_chooses() {
    let mut bench = Bench::of_five(auto());
    let end = |raft: &mut resilver_strategies::api::RaftFact, committed, last_log, term| {
        (raft.committed, raft.last_log, raft.last_log_term) = (committed, last_log, term);
    };
    // What is not committed an election may still take back.
    end(bench.raft(), 40, 41, 3);
    end(bench.raft_of("n4"), 40, 41, 2);
    bench.pass(60);
    assert!(bench.open().is_empty(), "{:?}", bench.open());
    end(bench.raft(), 41, 41, 3);
    bench.pass(60);
    assert!(bench.open().is_empty(), "of one of the two it is known");
    end(bench.raft_of("n4"), 41, 41, 2);
    bench.pass(1);
    assert!(bench.open().is_empty(), "once is none");
    bench.pass(4);
    assert_eq!(bench.only().mode, Mode::SplitBrain);
    assert!(
        bench
            .only()
            .evidence
            .contains("at index 41 this member has committed an entry of term 3, and n4 one of term 2")
    );
    bench.pass(600);
    assert_eq!(bench.state(), IncidentState::Escalated);
    assert!(
        bench.actions().is_empty() && bench.asked_slot().is_none(),
        "nothing is merged or wiped: {:?}",
        bench.actions()
    );
    // Of another epoch a log may end as it likes.
    let mut bench = Bench::of_five(auto());
    end(bench.raft_of("n4"), 40, 40, 2);
    bench.peer("n4").epoch = 2;
    bench.pass(60);
    assert!(!bench.open().iter().any(|incident| incident.mode == Mode::SplitBrain), "{:?}", bench.open());
}

/// The own node leads, and the others follow it.
fn lead(bench: &mut Bench) {
    let raft = bench.raft();
    (raft.role, raft.leader, raft.quorum_ack_ms) = ("leader".into(), NODE.into(), Some(50));
    for name in FIVE.iter().skip(1) {
        let raft = bench.raft_of(name);
        (raft.role, raft.leader, raft.quorum_ack_ms) = ("follower".into(), NODE.into(), None);
        bench.peer(name).leader = NODE.into();
    }
}

/// Nor is the leader trusted because it leads: what it alone has is what is wrong, and a leader is not mended.
#[test]
fn a_leader_that_alone_differs_is_the_one_to_blame_and_steps_down_before_it_is_mended() {
    let mut bench = Bench::of_five(auto());
    lead(&mut bench);
    bench.pass(70);
    compared_twice(&mut bench);
    bench.pass(1);
    let incident = bench.only();
    assert_eq!((incident.mode, incident.subject), (Mode::StateDivergence, Subject::Node(NODE.into())));
    assert!(incident.evidence.contains("4 of 5 members have one digest"), "{}", incident.evidence);
    let first = bench.through(Action::StepDown);
    assert!(first.disruptive && first.fence.is_some());
    assert_eq!(bench.actions(), [Action::StepDown], "nothing is mended while it leads");
    (bench.raft().role, bench.raft().leader, bench.raft().quorum_ack_ms) = ("follower".into(), "n2".into(), None);
    bench.peers = FIVE.iter().skip(1).map(|name| peer(name)).collect();
    bench.through(Action::Resync);
    assert_eq!(bench.actions(), [Action::StepDown, Action::Resync]);
}

/// The others' agents see the same comparison: the leader has one digest, and they have another. None of them mends its
/// own node, not even when the word for it is that the leader is right and they are wrong.
#[test]
fn a_majority_is_never_blamed_because_the_leader_has_something_else() {
    for trusts_the_leader in [false, true] {
        let mut bench = Bench::of_five(auto());
        for index in 1..20 {
            let members = FIVE.iter().map(|name| {
                let leads = *name == "n2";
                let digest = if leads { "41aa" } else { "7d0c" };
                let verdict = if leads == trusts_the_leader { "right" } else { "wrong" };
                ReplicaFact { node: (*name).into(), verdict: verdict.into(), digest: digest.into() }
            });
            bench.observe(Observation::Replicas(ReplicasFact { index: index * 100, members: members.collect() }));
            bench.pass(1);
        }
        assert!(bench.open().is_empty() && bench.asked_slot().is_none(), "trusts the leader: {trusts_the_leader}");
    }
}

/// A silent member has no digest, and many that have none do not have the same one.
#[test]
fn members_that_say_nothing_are_no_majority_of_anything() {
    let mut bench = Bench::of_five(auto());
    let silent = |index: u64| {
        let members = FIVE.iter().enumerate().map(|(at, name)| {
            let (verdict, digest) = [("wrong", "41aa"), ("right", "7d0c")].get(at).copied().unwrap_or(("silent", ""));
            ReplicaFact { node: (*name).into(), verdict: verdict.into(), digest: digest.into() }
        });
        Observation::Replicas(ReplicasFact { index, members: members.collect() })
    };
    for index in 1..20 {
        bench.observe(silent(index * 100));
        bench.pass(1);
    }
    assert!(bench.open().is_empty(), "two digests, and three that are none: {:#?}", bench.open());
}

/// Two of five have the same, and nobody else agrees with anybody: the most are no majority.
#[test]
fn where_no_digest_has_a_majority_nobody_is_blamed() {
    let mut bench = Bench::of_five(auto());
    for index in 1..20 {
        let digests = ["41aa", "7d0c", "7d0c", "9b3e", "c2f1"];
        let members = FIVE.iter().zip(digests).map(|(name, digest)| {
            let verdict = if digest == "7d0c" { "right" } else { "wrong" };
            ReplicaFact { node: (*name).into(), verdict: verdict.into(), digest: digest.into() }
        });
        bench.observe(Observation::Replicas(ReplicasFact { index: index * 100, members: members.collect() }));
        bench.pass(1);
    }
    assert!(bench.open().is_empty() && bench.asked_slot().is_none(), "{:#?}", bench.open());
}

/// Two that agree are as little evidence as two that differ: what a majority of five has shown is not over by their
/// word.
#[test]
fn with_fewer_than_three_digests_nobody_is_called_well_either() {
    let mut policy = auto();
    policy.authority.grades.all = Some(resilver_strategies::types::Authority::Shadow);
    let mut bench = Bench::of_five(policy);
    compared_twice(&mut bench);
    bench.pass(2);
    assert_eq!(bench.only().mode, Mode::StateDivergence);
    for index in 3..20 {
        bench.observe(compared(index * 100, &[], 2));
        bench.pass(1);
    }
    let sought = |bench: &Bench| bench.commands.iter().any(|command| matches!(command, Command::Prove { .. }));
    assert!(!sought(&bench) && bench.open().len() == 1, "two digests prove nothing");
    bench.observe(compared(2000, &[], 3));
    bench.pass(1);
    assert!(sought(&bench), "three do");
}

/// What only a person does is never a step: it has no attempts.
#[test]
fn no_ladder_attempts_anything_of_grade_six() {
    for mode in Mode::ALL {
        let rungs = ladder(*mode, &auto());
        assert!(rungs.iter().all(|rung| rung.grade < Grade::APPROVE || rung.attempts == 0), "{mode}");
    }
    let never = |mode, actions: &[Action]| {
        let rungs = ladder(mode, &auto());
        assert!(!rungs.iter().any(|rung| actions.contains(&rung.action)), "{mode}");
    };
    use Action::{EvacuateHost, RepairShards, RestartNode, StartNode, StepDown, TruncateLog};
    never(Mode::NetworkPartition, &[RestartNode, StartNode, StepDown, RepairShards, EvacuateHost]);
    never(Mode::ResourceExhaustion, &[RestartNode, StartNode]);
    never(Mode::LogCorruption, &[TruncateLog, RestartNode, StartNode]);
    never(Mode::DatabaseCorruption, &[RestartNode, StartNode]);
    never(Mode::DiskFailure, &[RestartNode, EvacuateHost]);
    never(Mode::ClockSkew, &[RestartNode, StepDown]);
}
