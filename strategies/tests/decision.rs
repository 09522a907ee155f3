//! What a decision costs: time from an observation to its commands, memory over a million inputs, and memory of a coordinator's
//! view of a thousand nodes. `cargo test --release -p resilver-strategies --test decision -- --nocapture` prints the figures; time is
//! judged in a release build only.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test that measures needs a clock, and the kernel's word on its memory"
)]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::{EPOCH_MS, auto, exited, healthy, peer, running};
use resilver_strategies::api::{
    CanaryFact, Command, ExitClass, HostFact, Input, MemberFact, NodeFact, Observation, PeerFact, SilenceFact,
    StepResult, VolumeFact, WatchFact,
};
use resilver_strategies::coordinator::Coordinator;
use resilver_strategies::engine::{Engine, EngineOptions};
use resilver_strategies::types::{Action, Fence, Moment, Now};
use resilver_strategies::watching::Asker;

/// What issue 7 asks for.
const MEDIAN_LIMIT: Duration = Duration::from_micros(50);
const VIEW_LIMIT: u64 = 16 << 20;
/// Of an agent that does not hold the lease: what it knows of its few, the cluster map, and the test's own feed of both.
const PARTIAL_LIMIT: u64 = 4 << 20;
/// Noise of the allocator, not growth: a leak of ten bytes an input would be ten megabytes.
const GROWTH_LIMIT: u64 = 2 << 20;

/// Resident memory of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("pages") * 4096
}

fn name(at: usize) -> String {
    format!("n{at}")
}

fn member(at: usize) -> MemberFact {
    let role = if at <= 5 { "voter" } else { "learner" };
    MemberFact { node: name(at), state: "up".into(), role: role.into(), ..MemberFact::default() }
}

struct Feed {
    engine: Engine,
    fact: NodeFact,
    peers: Vec<PeerFact>,
    ms: u64,
    took: Vec<Duration>,
    acted: Vec<Duration>,
}

impl Feed {
    fn new(nodes: usize) -> Feed {
        let mut fact = healthy();
        fact.cluster = "c".into();
        fact.members = (1..=nodes).map(member).collect();
        let peers = (2..=nodes).map(|at| PeerFact { domain: format!("rack {}", at % 40), ..peer(&name(at)) }).collect();
        let engine = Engine::new(EngineOptions { node: name(1), domain: "rack 1".into(), policy: auto() });
        let mut feed = Feed { engine, fact, peers, ms: 0, took: Vec::new(), acted: Vec::new() };
        feed.give(Input::Lease { fence: Some(Fence { epoch: 1, round: 1, holder: name(1) }) });
        feed.give(Input::Observed(Observation::Process(running(100))));
        feed
    }

    fn give(&mut self, input: Input) -> Vec<Command> {
        let now = Now { mono: Moment(Duration::from_millis(self.ms)), wall_ms: EPOCH_MS + self.ms };
        let began = Instant::now();
        let commands = self.engine.handle(now, input);
        let took = began.elapsed();
        self.took.push(took);
        if commands.iter().any(|command| matches!(command, Command::Execute(_) | Command::TakeSlot(_))) {
            self.acted.push(took);
        }
        commands
    }

    /// A second as an agent has it: a heartbeat, every peer's word, ten ticks, and now and then what is looked at seldom.
    fn second(&mut self) {
        for _ in 0..10 {
            self.ms += 100;
            self.give(Input::Tick);
        }
        let raft = self.fact.raft.as_mut().expect("Raft runs");
        (raft.committed, raft.applied) = (raft.committed + 7, raft.applied + 7);
        let committed = raft.committed;
        let fact = self.fact.clone();
        self.give(Input::Observed(Observation::Heartbeat(Box::new(fact))));
        for at in 0..self.peers.len() {
            let mut fact = self.peers[at].clone();
            if let Some(raft) = &mut fact.raft {
                (raft.committed, raft.applied) = (committed, committed);
            }
            self.give(Input::Observed(Observation::Peer(fact)));
        }
        if self.ms.is_multiple_of(5_000) {
            self.give(Input::Observed(Observation::Canary(CanaryFact { millis: Some(9), error: String::new() })));
            let volume =
                VolumeFact { name: "d1".into(), total_bytes: 1000, available_bytes: 500, ..VolumeFact::default() };
            let host = HostFact { cpu_per_mille: Some(100), volumes: vec![volume], ..HostFact::default() };
            self.give(Input::Observed(Observation::Host(Box::new(host))));
        }
    }

    /// The node dies and is started, or its disk fails for a moment: what has incidents opened, acted on and closed.
    fn trouble(&mut self, round: u32) {
        let pid = self.fact.pid;
        self.give(Input::Observed(Observation::Process(exited(pid, ExitClass::Signal(9)))));
        let steps = self.engine.status(Now { mono: Moment(Duration::from_millis(self.ms)), wall_ms: 0 }).steps;
        for step in steps.into_iter().filter(|step| step.action == Action::StartNode) {
            self.give(Input::Finished { step: step.id, result: StepResult::done("started") });
        }
        self.fact.pid = 100 + round;
        self.give(Input::Observed(Observation::Process(running(100 + round))));
        self.second();
        for incident in self.engine.incidents().into_iter().filter(|incident| incident.closed_ms.is_none()) {
            let result = StepResult::done("serves");
            self.give(Input::Proved { incident: incident.id, result });
        }
    }
}

fn median(of: &mut [Duration]) -> Duration {
    of.sort_unstable();
    of[of.len() / 2]
}

#[test]
fn a_decision_is_quick_and_a_million_of_them_need_no_more_memory() {
    let mut feed = Feed::new(6);
    let (mut inputs, mut round, mut before) = (0u64, 1, None);
    feed.took.reserve(100_000);
    // What measures must not grow: its pages are touched before.
    let (mut all, mut acted) = (vec![Duration::ZERO; 1_300_000], vec![Duration::ZERO; 20_000]);
    all.clear();
    acted.clear();
    while inputs < 1_200_000 {
        feed.second();
        if feed.ms.is_multiple_of(600_000) {
            round += 1;
            feed.trouble(round);
        }
        inputs += feed.took.len() as u64;
        all.append(&mut feed.took);
        acted.append(&mut feed.acted);
        // The first two hundred thousand fill what is bounded.
        if inputs > 200_000 && before.is_none() {
            before = Some(resident());
        }
    }
    let grown = resident().saturating_sub(before.expect("measured"));
    let (of_all, of_acted) = (median(&mut all), median(&mut acted));
    let late = all[all.len() * 999 / 1000];
    println!(
        "{inputs} inputs: median {of_all:?}, 99.9% {late:?}; of the {} with a step {of_acted:?}; grown by {} KiB in the last million",
        acted.len(),
        grown >> 10
    );
    assert!(acted.len() > 10, "something was decided");
    assert!(grown < GROWTH_LIMIT, "grown by {grown} bytes");
    let limit = if cfg!(debug_assertions) { MEDIAN_LIMIT * 20 } else { MEDIAN_LIMIT };
    assert!(of_all < limit && of_acted < limit, "{of_all:?}, {of_acted:?}, limit {limit:?}");
}

/// Whom each of a thousand asks that does not hold the lease.
fn asked(own: usize, all: &[String]) -> Vec<String> {
    let (needed, nobody) = ((1..=5).map(name).collect(), BTreeSet::new());
    let asker = Asker { own: &name(own), all, holds: false, needed: &needed, doubtful: &nobody };
    asker.asks().into_iter().collect()
}

#[test]
fn what_an_agent_without_the_lease_knows_of_a_thousand_nodes_is_as_small_as_of_a_few() {
    let before = resident();
    let mut feed = Feed::new(1000);
    feed.give(Input::Lease { fence: None });
    let mut all: Vec<String> = (1..=1000).map(name).collect();
    all.sort();
    let asks = asked(1, &all);
    feed.peers.retain(|fact| asks.contains(&fact.node));
    let watch = WatchFact { asked: asks.len(), of: 999, dropped: Vec::new() };
    feed.give(Input::Observed(Observation::Watch(watch)));
    let mut coordinator = Coordinator::new(Moment::default(), "n1", auto());
    // Each of those that are asked calls silent whom it asks of ten hosts that fell silent, and names whom it hears.
    for fact in &mut feed.peers {
        let own: usize = fact.node[1..].parse().expect("a number");
        let (silent, heard) = asked(own, &all).into_iter().partition(|host| host.len() == 4 && host.ends_with("99"));
        let silent: Vec<String> = silent;
        let silence = |node| SilenceFact { node, agent_ms: 9000, node_ms: 9000, domain: "rack 7".into() };
        (fact.silent, fact.heard) = (Some(silent.into_iter().map(silence).collect()), Some(heard));
    }
    for _ in 0..150 {
        feed.second();
        let now = Moment(Duration::from_millis(feed.ms));
        coordinator.heartbeat(now, &feed.fact);
        feed.peers.iter().for_each(|fact| coordinator.peer(now, fact));
    }
    let view = resident().saturating_sub(before);
    println!("1000 nodes, without the lease: {} KiB resident, {} are asked", view >> 10, feed.peers.len());
    assert!(view < PARTIAL_LIMIT, "{view} bytes");
    assert!(feed.engine.incidents().is_empty(), "it looks after nobody else");
}

#[test]
fn a_coordinators_view_of_a_thousand_nodes_is_small() {
    let before = resident();
    let mut feed = Feed::new(1000);
    let silence =
        |at: usize| SilenceFact { node: name(at), agent_ms: 9000, node_ms: 9000, domain: format!("rack {}", at % 40) };
    let mut coordinator = Coordinator::new(Moment::default(), "n1", auto());
    for _ in 0..120 {
        feed.second();
        let now = Moment(Duration::from_millis(feed.ms));
        coordinator.heartbeat(now, &feed.fact);
        feed.peers.iter().for_each(|fact| coordinator.peer(now, fact));
    }
    // Ten hosts fall silent, and every one of the others says so.
    let mut all: Vec<String> = (1..=1000).map(name).collect();
    all.sort();
    for fact in &mut feed.peers {
        let own: usize = fact.node[1..].parse().expect("a number");
        fact.silent = Some((990..1000).map(silence).collect());
        fact.heard = Some(asked(own, &all));
    }
    feed.peers.truncate(988);
    for _ in 0..30 {
        feed.second();
    }
    let feeds = feed.peers.len() * 600 + feed.took.capacity() * size_of::<Duration>();
    let view = resident().saturating_sub(before);
    println!(
        "1000 nodes: {} KiB resident for engine and coordinator (of that about {} KiB the test's own feed)",
        view >> 10,
        feeds >> 10
    );
    assert!(view < VIEW_LIMIT + feeds as u64, "{view} bytes");
    assert!(!feed.engine.incidents().is_empty(), "it looks after them");
}
