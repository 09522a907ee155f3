//! An agent of two hundred that does not hold the lease asks a few of them, and what it does not ask it does not judge; the one
//! that gains the lease sees all.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::*;
use resilver_strategies::api::{
    CanaryFact, Input, MemberFact, Observation, PeerFact, SilenceFact, Subject, SwimState, WatchFact,
};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::coordinator::Coordinator;
use resilver_strategies::engine::Partial;
use resilver_strategies::lease::SlotBook;
use resilver_strategies::liveness::Verdict;
use resilver_strategies::types::{Mode, Moment};
use resilver_strategies::watching::Asker;

const HOSTS: usize = 200;
const VOTERS: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];
/// None of those that n1 asks, in a rack of many.
const FAR: &str = "n78";

fn name(at: usize) -> String {
    format!("n{at}")
}

fn rack(host: &str) -> String {
    let at: usize = host.trim_start_matches('n').parse().expect("a number");
    format!("rack {}", at % 10)
}

/// n1 and the others, each of which asks whom [`Asker`] says and tells of those.
struct City {
    bench: Bench,
    all: Vec<String>,
    holds: bool,
    /// Who is gone, and since when.
    gone: BTreeMap<String, u64>,
    asks: BTreeMap<String, BTreeSet<String>>,
    asked: BTreeSet<String>,
}

impl City {
    fn new(holds: bool) -> City {
        City::with(holds, auto())
    }

    fn with(holds: bool, policy: PolicyConfig) -> City {
        let mut all: Vec<String> = (1..=HOSTS).map(name).collect();
        all.sort();
        let needed: BTreeSet<String> = VOTERS.map(str::to_owned).into();
        let nobody = BTreeSet::new();
        let asks = |own: &String| Asker { own, all: &all, holds: false, needed: &needed, doubtful: &nobody }.asks();
        let asks = all.iter().map(|own| (own.clone(), asks(own))).collect();
        let mut bench = Bench::calm_with(policy);
        let role = |name: &String| if VOTERS.contains(&name.as_str()) { "voter" } else { "learner" };
        let member = |name: &String| MemberFact {
            node: name.clone(),
            state: "up".into(),
            role: role(name).into(),
            ..MemberFact::default()
        };
        bench.fact.members = all.iter().map(member).collect();
        bench.fact.cluster = "c".into();
        let mut city = City { bench, all, holds: !holds, gone: BTreeMap::new(), asks, asked: BTreeSet::new() };
        city.lease(holds);
        city.pass(70);
        city
    }

    /// The lease comes or goes, and with it whom the agent asks.
    fn lease(&mut self, held: bool) {
        self.bench.give(Input::Lease { fence: held.then(|| fence(7)) });
        if held == self.holds && !self.asked.is_empty() {
            return;
        }
        self.holds = held;
        let asked = match held {
            true => self.all.iter().filter(|name| *name != NODE).cloned().collect(),
            false => self.asks[NODE].clone(),
        };
        self.ask(asked);
    }

    fn ask(&mut self, asked: BTreeSet<String>) {
        let dropped = self.asked.difference(&asked).cloned().collect();
        let fact = WatchFact { asked: asked.len(), of: HOSTS - 1, dropped };
        self.asked = asked;
        self.bench.observe(Observation::Watch(fact));
    }

    fn word(&self, host: &str) -> PeerFact {
        if self.gone.contains_key(host) {
            return PeerFact {
                node: host.into(),
                node_answers: Some(false),
                swim: Some(SwimState::Down),
                ..PeerFact::default()
            };
        }
        let asks = &self.asks[host];
        let silent = |(gone, since): (&String, &u64)| {
            let ms = self.bench.ms - since;
            SilenceFact { node: gone.clone(), agent_ms: ms, node_ms: ms, domain: rack(gone) }
        };
        PeerFact {
            domain: rack(host),
            swim: Some(SwimState::Alive),
            silent: Some(self.gone.iter().filter(|(gone, _)| asks.contains(*gone)).map(silent).collect()),
            heard: Some(asks.iter().filter(|name| !self.gone.contains_key(*name)).cloned().collect()),
            ..peer(host)
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.bench.beat(1);
            self.round(|_, _| {});
        }
    }

    /// Everybody that is asked says something.
    fn round(&mut self, change: impl Fn(&str, &mut PeerFact)) {
        for host in self.asked.clone() {
            let mut fact = self.word(&host);
            change(&host, &mut fact);
            self.bench.observe(Observation::Peer(fact));
        }
    }

    fn falls(&mut self, hosts: &[&str]) {
        for host in hosts {
            self.gone.insert((*host).to_owned(), self.bench.ms);
        }
    }

    fn status(&self) -> resilver_strategies::engine::EngineStatus {
        self.bench.engine.status(self.bench.now())
    }

    fn is_calm(&self) {
        let status = self.status();
        assert!(self.bench.open().is_empty(), "{:?}", self.bench.open());
        assert!(status.silent.is_empty(), "{:?}", status.silent);
        assert!(!status.storm, "{}", status.storm_evidence);
        assert!(status.may_hold_lease && status.held_back.is_empty(), "{:?}", status.held_back);
    }
}

#[test]
fn one_that_loses_the_lease_forgets_most_of_the_cluster_and_nothing_comes_of_it() {
    let mut city = City::new(true);
    city.is_calm();
    assert_eq!(city.status().partial, None);
    city.lease(false);
    let asked = city.asked.len();
    assert!(HOSTS - 1 - asked > 130, "{asked} are asked");
    assert_eq!(city.status().partial, Some(Partial { asked, of: HOSTS - 1 }));
    for _ in 0..40 {
        city.pass(3);
        city.is_calm();
    }
    let now = city.bench.now();
    assert_eq!(city.bench.engine.silences(now), Some(Vec::new()));
    let heard: BTreeSet<String> = city.bench.engine.heard(now).expect("it does not ask all").into_iter().collect();
    assert_eq!(heard, city.asked, "it speaks for those that it asks");
    assert!(city.status().storm_evidence.contains(&format!("0 of {} nodes ill", asked + 1)), "and itself");
}

#[test]
fn whatever_those_said_last_that_are_asked_no_more_nothing_comes_of_it() {
    let mut city = City::new(true);
    let kept = city.asks[NODE].clone();
    // One round in which they say everything that can be held against somebody: too short for any incident.
    city.bench.beat(1);
    city.round(|host, fact| {
        if kept.contains(host) {
            return;
        }
        fact.clock_offset_ms = Some(700);
        fact.canary_ms = Some(1);
        fact.leader = host.to_owned();
        fact.hears_us = Some(false);
        fact.silent = Some(vec![SilenceFact { node: NODE.into(), ..SilenceFact::default() }]);
        let raft = fact.raft.as_mut().expect("Raft runs");
        (raft.role, raft.leader, raft.term, raft.quorum_ack_ms) = ("leader".into(), host.to_owned(), 99, Some(0));
    });
    city.lease(false);
    for _ in 0..40 {
        city.bench.observe(Observation::Canary(CanaryFact { millis: Some(40), ..CanaryFact::default() }));
        city.pass(3);
        city.is_calm();
    }
}

#[test]
fn the_one_that_gains_the_lease_sees_all_after_a_round() {
    let mut city = City::new(false);
    city.is_calm();
    city.lease(true);
    let now = city.bench.now();
    assert!(city.bench.engine.heard(now).is_some(), "until it has looked it speaks for those that it knows");
    city.is_calm();
    city.pass(1);
    city.is_calm();
    let now = city.bench.now();
    assert_eq!((city.bench.engine.heard(now), city.status().partial), (None, None));
    assert_eq!(city.bench.engine.silences(now), Some(Vec::new()));
    assert!(city.status().storm_evidence.contains(&format!("0 of {HOSTS} nodes ill")));
    city.pass(60);
    city.is_calm();
}

#[test]
fn the_holder_convicts_a_dead_host_with_its_probers_word_though_most_do_not_ask_it() {
    let mut city = City::new(true);
    assert!(city.asks.values().filter(|asks| asks.contains(FAR)).count() < 40, "a sample");
    city.falls(&[FAR]);
    city.pass(14);
    assert!(city.bench.open().is_empty());
    assert_eq!(city.status().silent[FAR].verdict, Verdict::Suspected, "nobody who does not ask it hears it");
    city.pass(4);
    let incident = city.bench.only();
    assert_eq!((incident.mode, incident.subject), (Mode::HostDown, Subject::Hosts(vec![FAR.into()])));
    assert!(incident.evidence.contains("199 of 200 agents heard"), "{}", incident.evidence);
}

#[test]
fn one_prober_that_hears_the_host_keeps_it_from_being_convicted() {
    let mut city = City::new(true);
    city.falls(&[FAR]);
    let prober = city.asks.iter().find(|(_, asks)| asks.contains(FAR)).map(|(name, _)| name.clone()).expect("one");
    for _ in 0..30 {
        city.bench.beat(1);
        city.round(|host, fact| {
            if *host == prober {
                fact.silent = Some(Vec::new());
                fact.heard.as_mut().expect("it asks some").push(FAR.into());
            }
        });
    }
    assert_eq!(city.status().silent[FAR].verdict, Verdict::Partition);
    assert!(city.bench.open().iter().all(|incident| incident.mode != Mode::HostDown));
}

#[test]
fn who_gains_the_lease_convicts_a_host_that_is_long_gone_only_after_its_own_fifteen_seconds() {
    let mut city = City::new(false);
    city.falls(&[FAR]);
    assert!(!city.asked.contains(FAR));
    city.pass(60);
    city.is_calm();
    city.lease(true);
    city.pass(14);
    assert!(city.bench.open().is_empty(), "{:?}", city.bench.open());
    city.pass(4);
    assert_eq!(city.bench.only().subject, Subject::Hosts(vec![FAR.into()]));
}

#[test]
fn a_whole_rack_that_falls_is_one_incident_though_its_probers_miss_many() {
    let mut city = City::new(true);
    let rack: Vec<String> = city.all.iter().filter(|host| rack(host) == rack(FAR)).cloned().collect();
    city.falls(&rack.iter().map(String::as_str).collect::<Vec<_>>());
    city.pass(20);
    let Subject::Hosts(hosts) = city.bench.only().subject else { panic!("hosts") };
    assert_eq!(hosts.len(), 20);
}

#[test]
fn a_host_that_is_cut_off_and_then_asked_no_more_does_not_keep_its_incident_open() {
    let mut city = City::new(true);
    for _ in 0..30 {
        city.bench.beat(1);
        // Silent here, and heard by its probers.
        city.round(|host, fact| {
            if host == FAR {
                *fact = PeerFact { node: FAR.into(), node_answers: Some(false), ..PeerFact::default() };
            }
        });
    }
    let incident = city.bench.only();
    assert_eq!((incident.mode, incident.subject), (Mode::NetworkPartition, Subject::Hosts(vec![FAR.into()])));
    city.lease(false);
    city.pass(120);
    assert!(!city.status().silent.contains_key(FAR));
    let (proved, _) = city.bench.last_proof();
    assert_eq!(
        proved, incident.id,
        "the network is whole as far as it is asked: that is proven, and no silence is waited for"
    );
}

/// What is open a few minutes after three of five voters have gone, and nobody knows a leader.
fn without_voters(holds: bool) -> BTreeSet<Mode> {
    let mut city = City::new(holds);
    assert!(VOTERS.iter().all(|voter| *voter == NODE || city.asked.contains(*voter)));
    city.falls(&["n3", "n4", "n5"]);
    let raft = city.bench.raft();
    (raft.leader, raft.role) = (String::new(), "follower".into());
    for _ in 0..200 {
        city.bench.beat(1);
        city.round(|_, fact| {
            fact.leader = String::new();
            if let Some(raft) = &mut fact.raft {
                (raft.leader, raft.role, raft.quorum_ack_ms) = (String::new(), "follower".into(), None);
            }
        });
    }
    let modes = city.bench.open().into_iter().map(|incident| incident.mode);
    modes.filter(|mode| *mode != Mode::HostDown).collect()
}

#[test]
fn voters_are_asked_by_everybody_so_that_a_lost_quorum_is_seen_by_everybody() {
    let seen = without_voters(false);
    assert!(seen.contains(&Mode::QuorumLoss), "{seen:?}");
    assert_eq!(seen, without_voters(true), "as by the one that asks all");
}

#[test]
fn the_holders_guards_know_nothing_of_who_is_asked_no_more_until_it_is_asked_again() {
    let mut coordinator = Coordinator::new(Moment::default(), NODE, auto());
    let book = SlotBook::inherit(fence(7), Vec::new());
    let city = City::new(true);
    let now = |second| Moment(Duration::from_secs(second));
    coordinator.heartbeat(now(0), &city.bench.fact);
    let others: Vec<String> = city.all.iter().filter(|host| *host != NODE).cloned().collect();
    // Three are ill: a storm, for as long as they are known.
    for host in &others {
        let ill = ["n7", "n8", "n9"].contains(&host.as_str());
        coordinator.peer(now(0), &PeerFact { node_alive: Some(!ill), ..city.word(host) });
    }
    assert!(coordinator.view(now(0), &book, FAR).storm.0);
    let dropped: Vec<String> = others.iter().filter(|host| !city.asks[NODE].contains(*host)).cloned().collect();
    coordinator.forget(&dropped);
    let view = coordinator.view(now(0), &book, FAR);
    let known = HOSTS - dropped.len();
    assert!(view.storm.1.contains(&format!("of {known} nodes ill")), "{}", view.storm.1);
    let well = |name: &str| view.nodes.iter().find(|node| node.node == name).is_some_and(|node| node.well);
    assert!(!well(FAR) && well("n2"), "nobody says that it is well: a step that needs it is refused");
    coordinator.peer(now(1), &city.word(FAR));
    let view = coordinator.view(now(1), &book, FAR);
    assert!(view.nodes.iter().any(|node| node.node == FAR && node.well), "asked again");
}

#[test]
fn words_of_small_clusters_are_written_and_read_as_before() {
    let text = serde_json::to_string(&peer("n2")).expect("JSON");
    assert!(!text.contains("heard"), "{text}");
    let read: PeerFact = serde_json::from_str(&text).expect("a recording from before");
    assert_eq!(read, peer("n2"));
    let bench = Bench::calm_with(auto());
    assert!(!serde_json::to_string(&bench.engine.status(bench.now())).expect("JSON").contains("partial"));
}
