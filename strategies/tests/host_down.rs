//! A host that is gone, as the holder of the lease sees it: marked, waited for, given up or welcomed back.

#![allow(clippy::disallowed_methods, reason = "a test reads its own golden file")]

mod common;

use common::*;
use resilver_strategies::api::{
    Command, Input, MemberFact, Observation, PeerFact, Proof, SilenceFact, StepId, Subject,
};
use resilver_strategies::config::Profile;
use resilver_strategies::engine::IncidentState;
use resilver_strategies::liveness::Verdict;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, GuardName, Mode, Severity};

/// Six hosts in three racks; the bench's agent, n1 in rack a, looks at the others once a second.
struct Town {
    bench: Bench,
    gone: Vec<&'static str>,
    /// Since when each is gone.
    since_ms: u64,
    /// These hear whoever is gone.
    hearing: Vec<&'static str>,
}

const OTHERS: [&str; 5] = ["n2", "n3", "n4", "n5", "n6"];

fn rack(name: &str) -> String {
    let rack = match name {
        "n1" | "n2" => "a",
        "n3" | "n4" => "b",
        _ => "c",
    };
    format!("rack {rack}")
}

impl Town {
    fn new(profile: Profile) -> Town {
        let mut bench = Bench::calm(profile);
        let names = OTHERS.iter().chain(&[NODE]);
        bench.fact.members = names
            .map(|name| MemberFact { node: (*name).into(), state: "up".into(), ..MemberFact::default() })
            .collect();
        let mut town = Town { bench, gone: Vec::new(), since_ms: 0, hearing: Vec::new() };
        town.lease(true);
        town.pass(70);
        town
    }

    fn lease(&mut self, held: bool) {
        self.bench.give(Input::Lease { fence: held.then(|| fence(7)) });
    }

    fn fact(&self, name: &str) -> PeerFact {
        if self.gone.contains(&name) {
            return PeerFact { node: name.into(), node_answers: Some(false), ..PeerFact::default() };
        }
        let ms = self.bench.ms.saturating_sub(self.since_ms);
        let silent = |host: &&str| SilenceFact { node: (*host).into(), agent_ms: ms, node_ms: ms, domain: rack(host) };
        let told = if self.hearing.contains(&name) { Vec::new() } else { self.gone.iter().map(silent).collect() };
        PeerFact {
            node: name.into(),
            agent_answers: true,
            node_alive: Some(true),
            node_phase: "healthy".into(),
            domain: rack(name),
            silent: Some(told),
            ..PeerFact::default()
        }
    }

    /// So many seconds pass, with a heartbeat and a look at everybody in each.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.bench.beat(1);
            for name in OTHERS {
                let fact = self.fact(name);
                self.bench.observe(Observation::Peer(fact));
            }
        }
    }

    fn power_off(&mut self, hosts: &[&'static str]) {
        self.gone.extend(hosts);
        self.since_ms = self.bench.ms;
    }

    fn power_on(&mut self, host: &str) {
        self.gone.retain(|gone| *gone != host);
    }

    /// The cluster map changes.
    fn mark(&mut self, host: &str, state: &str, automatic: bool) {
        let member = self.bench.fact.members.iter_mut().find(|member| member.node == host).expect("a member");
        (member.state, member.automatic, member.reason) = (state.into(), automatic, "silent".into());
    }

    /// The last step is done, and the map shows it.
    fn done(&mut self) {
        let step = self.bench.last_step();
        let state = match step.action {
            Action::MarkDown => "down",
            Action::EvacuateHost => "out",
            _ => "up",
        };
        let Subject::Hosts(hosts) = &step.subject else { panic!("a step for hosts: {step:?}") };
        hosts.iter().for_each(|host| self.mark(host, state, state != "up"));
        self.bench.done(step.id);
        self.pass(1);
    }

    fn actions(&self) -> Vec<Action> {
        self.bench.actions()
    }

    fn resolved(&self) -> usize {
        self.bench.records(RecordKind::Resolved).len()
    }

    fn proofs(&self) -> usize {
        self.bench.commands.iter().filter(|command| matches!(command, Command::Prove { .. })).count()
    }
}

fn hosts(names: &[&str]) -> Subject {
    Subject::Hosts(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn a_host_that_loses_its_power_is_marked_down_waited_for_and_given_up() {
    let mut town = Town::new(Profile::Production);
    town.power_off(&["n6"]);
    town.pass(14);
    assert!(town.bench.open().is_empty(), "suspicion opens nothing");
    let told = town.bench.engine.status(town.bench.now()).silent;
    assert_eq!(told.get("n6").map(|told| told.verdict), Some(Verdict::Suspected), "but it is told: {told:?}");
    town.pass(3);
    let step = town.bench.last_step();
    assert_eq!((step.action, step.subject.clone()), (Action::MarkDown, hosts(&["n6"])));
    assert_eq!((step.disruptive, step.fence), (false, Some(fence(7))), "under the lease's fence");
    assert!(town.bench.engine.may_hold_lease(), "another host's end is the holder's work, and no reason to let go");
    town.done();
    town.pass(598);
    assert_eq!(town.actions(), [Action::MarkDown], "not before 600 s");
    town.pass(4);
    assert_eq!(town.actions(), [Action::MarkDown, Action::EvacuateHost]);
    town.done();
    let (incident, proof) = town.bench.last_proof();
    assert_eq!(proof, Proof::HostsSettled { hosts: vec!["n6".into()], canary_ms: None });
    // Rebuilding takes its time, and a proof that does not hold yet is no failure.
    for _ in 0..20 {
        town.bench.not_proved(&incident);
        town.pass(6);
    }
    assert_eq!(town.bench.state(), IncidentState::Verifying);
    town.bench.proved(&incident);
    assert_eq!(town.resolved(), 1);
    town.pass(60);
    assert!(town.bench.open().is_empty(), "given up and whole again: nothing is left to do");
    // Months later it is back.
    town.power_on("n6");
    town.pass(2);
    assert_eq!(town.bench.last_step().action, Action::MarkUp);
    town.done();
    let (incident, _) = town.bench.last_proof();
    town.bench.proved(&incident);
    assert_eq!(town.resolved(), 2);
}

#[test]
fn the_third_time_in_an_hour_is_an_emergency_and_each_time_is_one_incident() {
    let mut town = Town::new(Profile::Production);
    for time in 1..=3 {
        town.power_off(&["n6"]);
        town.pass(17);
        let open = town.bench.open();
        assert_eq!(open.len(), 1, "time {time}: one incident");
        assert_eq!(open[0].severity, (time == 3).then_some(Severity::Emergency), "time {time}");
        town.done();
        town.power_on("n6");
        town.pass(3);
        town.done();
        let (incident, _) = town.bench.last_proof();
        town.bench.proved(&incident);
        assert_eq!(town.resolved(), time);
        town.pass(300);
    }
}

#[test]
fn the_plan_for_a_host_that_is_gone() {
    let mut town = Town::new(Profile::Production);
    town.bench.pause(3600);
    town.power_off(&["n6"]);
    town.pass(17);
    let plan = town.bench.engine.plan(town.bench.now()).to_string();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/host_down.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &plan).expect("the golden file can be written");
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == plan, "{} differs; found:\n{plan}\nwanted:\n{wanted}", path.display());
    assert!(town.actions().is_empty(), "paused");
}

#[test]
fn a_host_that_comes_back_is_unmarked_and_nothing_is_rebuilt() {
    let mut town = Town::new(Profile::Production);
    town.power_off(&["n6"]);
    town.pass(17);
    town.done();
    town.pass(300);
    town.power_on("n6");
    town.pass(2);
    assert_eq!(town.actions(), [Action::MarkDown, Action::MarkUp]);
    assert_eq!(town.proofs(), 0, "nothing is proven before the mark is gone");
    town.done();
    let (incident, _) = town.bench.last_proof();
    town.bench.proved(&incident);
    assert_eq!(town.resolved(), 1);
    town.pass(700);
    assert_eq!(town.actions(), [Action::MarkDown, Action::MarkUp]);
}

/// Found on reading: the holder looked after all hosts but its own, and after its first half minute the node refutes no mark.
#[test]
fn a_former_holders_mark_on_the_holders_own_host_is_taken_back() {
    let mut town = Town::new(Profile::Production);
    town.mark(NODE, "down", false);
    town.pass(30);
    assert!(town.actions().is_empty(), "an operator's is an operator's");
    town.mark(NODE, "down", true);
    town.bench.fact.phase = "recovering".into();
    town.pass(30);
    assert!(town.actions().is_empty(), "its node does not serve yet");
    town.bench.fact.phase = "healthy".into();
    town.pass(2);
    assert_eq!((town.actions(), town.bench.last_step().subject), (vec![Action::MarkUp], hosts(&[NODE])));
    town.done();
    let (incident, _) = town.bench.last_proof();
    town.bench.proved(&incident);
    assert!(town.bench.open().is_empty());
}

#[test]
fn three_losses_of_power_within_an_hour_are_three_incidents() {
    let mut town = Town::new(Profile::Production);
    for round in 1..=3 {
        town.power_off(&["n6"]);
        town.pass(17);
        assert_eq!(town.bench.last_step().action, Action::MarkDown, "round {round}");
        town.done();
        town.pass(120);
        town.power_on("n6");
        town.pass(2);
        assert_eq!(town.bench.last_step().action, Action::MarkUp, "round {round}");
        town.done();
        let (incident, _) = town.bench.last_proof();
        town.bench.proved(&incident);
        assert_eq!(town.resolved(), round);
    }
    assert_eq!(town.bench.records(RecordKind::Opened).len(), 3);
}

#[test]
fn who_does_not_hold_the_lease_does_nothing() {
    let mut town = Town::new(Profile::Production);
    town.lease(false);
    town.power_off(&["n6"]);
    town.pass(60);
    assert!(town.bench.open().is_empty() && town.actions().is_empty());
}

#[test]
fn a_rack_that_goes_is_one_incident() {
    let mut town = Town::new(Profile::Production);
    town.power_off(&["n5", "n6"]);
    town.pass(17);
    let incident = town.bench.only();
    assert_eq!((incident.mode, incident.subject), (Mode::HostDown, hosts(&["n5", "n6"])));
    town.done();
    // The first may have been marked before the second was found.
    if town.bench.last_step().subject != hosts(&["n5", "n6"]) {
        town.pass(20);
        town.done();
    }
    assert!(town.bench.fact.members.iter().filter(|member| member.state == "down").count() == 2);
    // One of the two comes back: it is unmarked, and the other is still waited for.
    town.power_on("n5");
    town.pass(2);
    let step = town.bench.last_step();
    assert_eq!((step.action, step.subject), (Action::MarkUp, hosts(&["n5"])));
    town.done();
    assert_eq!(town.bench.only().state, IncidentState::Recovering);
}

#[test]
fn hosts_of_different_racks_that_go_at_once_have_a_common_cause_and_are_only_marked() {
    let mut town = Town::new(Profile::Fast);
    town.power_off(&["n3", "n6"]);
    town.pass(17);
    assert_eq!(town.bench.open().len(), 2);
    let marks: Vec<StepId> = town.bench.executed().iter().map(|step| step.id).collect();
    town.mark("n3", "down", true);
    town.mark("n6", "down", true);
    marks.into_iter().for_each(|step| drop(town.bench.done(step)));
    town.pass(200);
    assert_eq!(town.actions(), [Action::MarkDown, Action::MarkDown], "the wait (10 s) is long over");
    assert!(town.bench.refusals().contains(&GuardName::StormBrake), "{:?}", town.bench.refusals());
    // The one that comes back was the sign: now the other one is alone.
    town.power_on("n3");
    town.pass(2);
    assert!(town.actions().contains(&Action::EvacuateHost) && town.actions().contains(&Action::MarkUp));
}

#[test]
fn hosts_that_go_one_after_the_other_have_a_cause_each() {
    let mut town = Town::new(Profile::Production);
    town.power_off(&["n3"]);
    town.pass(17);
    town.done();
    town.pass(100);
    town.power_off(&["n6"]);
    town.pass(17);
    town.done();
    town.pass(490);
    let given_up = town.bench.last_step();
    assert_eq!((given_up.action, given_up.subject), (Action::EvacuateHost, hosts(&["n3"])));
}

#[test]
fn a_partition_is_neither_marked_nor_rebuilt() {
    let mut town = Town::new(Profile::Production);
    town.hearing = vec!["n5"];
    town.power_off(&["n6"]);
    town.pass(700);
    assert_eq!(town.bench.only().mode, Mode::NetworkPartition);
    assert_eq!(town.actions(), [Action::Reclaim; 3], "connections are dialled anew, and that is all");
}

#[test]
fn a_conviction_that_does_not_hold_any_more_gives_nothing_up() {
    let mut town = Town::new(Profile::Production);
    town.power_off(&["n6"]);
    town.pass(17);
    town.done();
    // By now n5 hears it, and we still do not.
    town.hearing = vec!["n5"];
    town.pass(700);
    let of_host = |action: &&Action| **action != Action::Reclaim;
    assert_eq!(town.actions().iter().filter(of_host).collect::<Vec<_>>(), [&Action::MarkDown]);
    assert!(town.bench.refusals().contains(&GuardName::Corroborated), "{:?}", town.bench.refusals());
}

#[test]
fn an_operators_mark_is_the_operators() {
    let mut town = Town::new(Profile::Production);
    town.mark("n6", "out", false);
    town.power_off(&["n6"]);
    town.pass(700);
    town.power_on("n6");
    town.pass(30);
    assert!(town.bench.open().is_empty() && town.actions().is_empty());
}

#[test]
fn the_next_holder_goes_on_from_the_marks_and_the_last_one_lets_go() {
    let mut town = Town::new(Profile::Production);
    town.power_off(&["n6"]);
    town.pass(17);
    town.done();
    town.lease(false);
    town.pass(20);
    assert_eq!(town.bench.open().len(), 1, "it may gain the lease again");
    town.pass(15);
    assert!(town.bench.open().is_empty());
    // And the same agent is the next one after all.
    town.lease(true);
    town.pass(2);
    let incident = town.bench.only();
    assert_eq!((incident.detected_by.as_str(), incident.subject), ("cluster map", hosts(&["n6"])));
    town.pass(602);
    assert_eq!(town.actions(), [Action::MarkDown, Action::EvacuateHost], "and the mark is not made twice");
}

/// Seen in outages of real hosts: the lease changed hands meanwhile, and one outage had two incidents.
#[test]
fn one_outage_is_one_incident_whoever_holds_the_lease() {
    let mut first = Town::new(Profile::Production);
    first.power_off(&["n6"]);
    first.pass(17);
    let (incident, reason) = (first.bench.only().id, first.bench.last_step().reason);
    assert!(reason.starts_with(&format!("[{incident}] ")), "the mark names it: {reason}");
    let mut next = Town::new(Profile::Production);
    next.lease(false);
    next.power_off(&["n6"]);
    next.mark("n6", "down", true);
    let marked = next.bench.fact.members.iter_mut().find(|member| member.node == "n6").expect("a member");
    marked.reason = reason.replace(&format!("[{incident}]"), "[n4-4711]");
    next.pass(17);
    next.lease(true);
    next.pass(2);
    let taken_over = next.bench.only();
    assert_eq!(taken_over.id.0, "n4-4711");
    assert!(!taken_over.evidence.contains('['), "its name is not told twice: {}", taken_over.evidence);
    // What another than an agent wrote names nothing.
    let mut plain = Town::new(Profile::Production);
    plain.power_off(&["n6"]);
    plain.mark("n6", "down", true);
    let marked = plain.bench.fact.members.iter_mut().find(|member| member.node == "n6").expect("a member");
    marked.reason = "[somebody] said so".into();
    plain.pass(17);
    assert!(plain.bench.only().id.0.starts_with("n1-"), "{}", plain.bench.only().id);
}

#[test]
fn the_agents_own_restart_repeats_no_mark() {
    let mut town = Town::new(Profile::Production);
    town.power_off(&["n6"]);
    town.pass(17);
    assert_eq!(town.actions(), [Action::MarkDown]);
    // The mark was made, and the agent was killed before it heard of it.
    town.mark("n6", "down", true);
    town.bench.restart_agent();
    town.pass(12);
    assert_eq!(town.bench.only().subject, hosts(&["n6"]), "known from the journal");
    town.lease(true);
    town.pass(30);
    assert_eq!(town.actions(), [Action::MarkDown]);
}

#[test]
fn a_mark_that_cannot_be_made_is_tried_again_through_an_election() {
    let mut town = Town::new(Profile::Production);
    town.power_off(&["n6"]);
    town.pass(17);
    for attempt in 1..=4 {
        assert_eq!(town.actions().len(), attempt);
        let step = town.bench.last_step();
        town.bench.failed(step.id);
        // 0, 2, 8 s and then a minute, with what spreads them.
        for _ in 0..90 {
            town.pass(if town.actions().len() == attempt { 1 } else { 0 });
        }
    }
    assert_eq!(town.actions(), [Action::MarkDown; 5]);
    assert_eq!(town.bench.state(), IncidentState::Recovering);
}
