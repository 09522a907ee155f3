//! A day of ordinary noise on six engines with modelled sensors and no data path: load, pauses up to two seconds, one in a hundred
//! answers lost, elections, deploys. Nothing in it needs a disruptive step, so none may even be asked for.
//!
//! A few seeds and hours always; `NOISE_SEEDS=200 NOISE_HOURS=24 cargo test --release -p resilver-strategies --test noise -- --nocapture`
//! is the whole of it.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test reads its own environment")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::EPOCH_MS;
use resilver_strategies::api::{
    CanaryFact, Command, DiskFact, ExitClass, HostFact, Input, MemberFact, NodeFact, Observation, PeerFact,
    ProcessFact, ProcessStateFact, RaftFact, ReplicaFact, ReplicasFact, SilenceFact, Step, StepResult, VolumeFact,
};
use resilver_strategies::chain::{Line, Tip, seal};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::engine::{Engine, EngineOptions};
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, Fence, Grade, Mode, Moment, Now};

const NODES: usize = 6;
const VOTERS: usize = 3;

/// Splitmix64: the world's only source of chance.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Once in so many.
    fn once_in(&mut self, many: u64) -> bool {
        self.next() % many == 0
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }
}

/// One host: its node, and its agent's engine.
struct Host {
    engine: Engine,
    /// When this life of the agent began, in seconds.
    born: u64,
    journal: Vec<Line>,
    tip: Tip,
    pid: u32,
    /// Until when the node's process, or the whole host, stands still.
    node_pauses: u64,
    host_pauses: u64,
    /// Until when the node is down for a deploy, and until when it recovers after.
    down: u64,
    recovers: u64,
    /// Until when the host is busy, and how busy.
    busy: u64,
    busy_share: u32,
    applied: u64,
    term: u64,
    leads: bool,
    /// When a quorum acknowledged it last, as a leader.
    acknowledged: u64,
    mode: String,
    stands: bool,
    clock_ms: i64,
    room: u64,
    /// A client's long upload: since when, until when.
    upload: Option<(u64, u64)>,
    finished: Vec<Step>,
}

struct World {
    chance: Chance,
    now: u64,
    hosts: Vec<Host>,
    leader: Option<usize>,
    elects: u64,
    term: u64,
    committed: u64,
    rate: u64,
    /// The deploy's next host, and when.
    deploy: Option<(usize, u64)>,
    lease: usize,
    steps: BTreeMap<(Action, Grade), u64>,
    /// Incidents by mode.
    opened: BTreeMap<Mode, u64>,
    /// Disruptive steps that were asked for: when, where, what, why.
    asked: Vec<(u64, String, Action, String)>,
    inputs: u64,
    policy: PolicyConfig,
    /// A node that hangs from then on, for good: what the engines must find in spite of the noise.
    hangs: Option<(usize, u64)>,
}

fn name(at: usize) -> String {
    format!("n{}", at + 1)
}

fn engine(at: usize, policy: &PolicyConfig) -> Engine {
    Engine::new(EngineOptions { node: name(at), domain: format!("host {}", name(at)), policy: policy.clone() })
}

/// Production's figures; and everything automatic, so that nothing is hidden in a shadow.
fn policy() -> PolicyConfig {
    common::auto()
}

impl World {
    fn new(seed: u64, policy: &PolicyConfig) -> World {
        let host = |at: usize| Host {
            engine: engine(at, policy),
            born: 0,
            journal: Vec::new(),
            tip: Tip::default(),
            pid: 100,
            node_pauses: 0,
            host_pauses: 0,
            down: 0,
            recovers: 0,
            busy: 0,
            busy_share: 0,
            applied: 0,
            term: 1,
            leads: at == 0,
            acknowledged: 0,
            mode: "read_write".into(),
            stands: true,
            clock_ms: 0,
            room: 40,
            upload: None,
            finished: Vec::new(),
        };
        let mut world = World {
            chance: Chance(seed),
            now: 1,
            hosts: (0..NODES).map(host).collect(),
            leader: Some(0),
            elects: 0,
            term: 1,
            committed: 100,
            rate: 20,
            deploy: None,
            lease: 5,
            steps: BTreeMap::new(),
            opened: BTreeMap::new(),
            asked: Vec::new(),
            inputs: 0,
            policy: policy.clone(),
            hangs: None,
        };
        for at in 0..NODES {
            world.restart_agent(at);
        }
        world
    }

    fn at(&self, host: usize) -> Now {
        let since = self.now - self.hosts[host].born;
        Now { mono: Moment(Duration::from_secs(since)), wall_ms: EPOCH_MS + self.now * 1000 }
    }

    fn restart_agent(&mut self, at: usize) {
        let wall = EPOCH_MS + self.now * 1000;
        let started = resilver_strategies::resume::from_lines(self.hosts[at].journal.iter(), wall);
        self.hosts[at].engine = engine(at, &self.policy);
        self.hosts[at].born = self.now;
        self.give(at, started);
        if at == self.lease {
            self.give(at, Input::Lease { fence: Some(Fence { epoch: 1, round: 1, holder: name(at) }) });
        }
        let pid = self.hosts[at].pid;
        let fact = ProcessFact::Running { pid, start_ticks: u64::from(pid) };
        self.give(at, Input::Observed(Observation::Process(fact)));
    }

    fn give(&mut self, at: usize, input: Input) {
        self.inputs += 1;
        let now = self.at(at);
        for command in self.hosts[at].engine.handle(now, input) {
            match command {
                Command::Record { draft, .. } => {
                    let host = &mut self.hosts[at];
                    let line = seal(&host.tip, now.wall_ms, *draft);
                    host.tip = line.tip();
                    host.journal.push(line);
                }
                Command::TakeSlot(step) => {
                    self.asked.push((self.now, name(at), step.action, step.reason.clone()));
                    let reply = Err((resilver_strategies::types::GuardName::OneAtATime, "only counted".to_owned()));
                    self.give(at, Input::Slot { step: step.id, reply });
                }
                Command::Execute(step) => {
                    if step.disruptive || step.grade >= Grade::RESTART {
                        self.asked.push((self.now, name(at), step.action, step.reason.clone()));
                    }
                    *self.steps.entry((step.action, step.grade)).or_default() += 1;
                    self.hosts[at].finished.push(step);
                }
                Command::Prove { incident, .. } => {
                    // The node serves or it does not; nothing else is modelled.
                    let serves = self.serves(at);
                    let result = match serves {
                        true => StepResult::Done { detail: "asked".into() },
                        false => StepResult::Failed { error: "it does not answer".into() },
                    };
                    self.give(at, Input::Proved { incident, result });
                }
                // Nobody approves anything here.
                Command::CloseSlot { .. } | Command::OfferApproval { .. } | Command::Answer { .. } => {}
            }
        }
    }

    fn runs(&self, at: usize) -> bool {
        self.now >= self.hosts[at].down
    }

    fn answers(&self, at: usize) -> bool {
        let host = &self.hosts[at];
        let hangs = self.hangs.is_some_and(|(hung, since)| hung == at && self.now >= since);
        !hangs && self.runs(at) && self.now >= host.node_pauses && self.now >= host.host_pauses
    }

    fn serves(&self, at: usize) -> bool {
        self.answers(at) && self.now >= self.hosts[at].recovers
    }

    /// Chance has its way for a second.
    fn happens(&mut self) {
        let now = self.now;
        for at in 0..NODES {
            let chance = &mut self.chance;
            let host = &mut self.hosts[at];
            // A pause of the node's process about every ten minutes, of the host every hour: up to two seconds.
            if chance.once_in(600) {
                host.node_pauses = now + chance.between(1, 2);
            }
            if chance.once_in(3600) {
                host.host_pauses = now + chance.between(1, 2);
            }
            // A busy half hour every few hours: saturated at times.
            if now > host.busy && chance.once_in(3 * 3600) {
                host.busy = now + chance.between(60, 1800);
                host.busy_share = u32::try_from(chance.between(500, 1000)).unwrap();
            }
            // Uploads over slow lines take minutes.
            if host.upload.is_none() && chance.once_in(1800) {
                host.upload = Some((now, now + chance.between(60, 500)));
            }
            host.upload = host.upload.filter(|(_, until)| now < *until);
            if chance.once_in(60) {
                host.clock_ms = (host.clock_ms + i64::try_from(chance.between(0, 8)).unwrap() - 4).clamp(-20, 20);
                host.room = (host.room + chance.between(0, 2)).saturating_sub(1).clamp(25, 60);
            }
        }
        if self.chance.once_in(300) {
            self.rate = self.chance.between(0, 400);
        }
        self.deploys();
        self.raft();
    }

    /// A rolling deploy every six hours: every node, one after the other, and every other time its agent as well.
    fn deploys(&mut self) {
        if self.deploy.is_none() && self.now % (6 * 3600) == 3 * 3600 {
            self.deploy = Some((0, self.now));
        }
        let Some((at, when)) = self.deploy else { return };
        if self.now < when {
            return;
        }
        if at == NODES {
            self.deploy = None;
            return;
        }
        let (down, recovers, next) =
            (self.chance.between(3, 20), self.chance.between(2, 10), self.chance.between(45, 90));
        let pid = self.hosts[at].pid;
        let exit = ProcessFact::Exited {
            pid,
            start_ticks: u64::from(pid),
            exit: ExitClass::Signal(15),
            last_error: String::new(),
            deliberate: true,
        };
        self.give(at, Input::Observed(Observation::Process(exit)));
        let host = &mut self.hosts[at];
        (host.down, host.recovers) = (self.now + down, self.now + down + recovers);
        host.pid += 1;
        host.leads = false;
        self.deploy = Some((at + 1, self.now + down + next));
        if self.chance.once_in(2) {
            self.restart_agent(at);
            let gone = ProcessFact::Exited {
                pid,
                start_ticks: u64::from(pid),
                exit: ExitClass::Signal(15),
                last_error: String::new(),
                deliberate: true,
            };
            self.give(at, Input::Observed(Observation::Process(gone)));
        }
    }

    /// Who leads, and how far everybody is.
    fn raft(&mut self) {
        let now = self.now;
        let up = |world: &World, at: usize| world.answers(at);
        match self.leader {
            Some(leader) if up(self, leader) => self.hosts[leader].acknowledged = now,
            // A leader that stands still for a second may find another one when it wakes.
            Some(leader) if !self.runs(leader) || self.chance.once_in(2) => {
                self.leader = None;
                self.elects = now + self.chance.between(1, 3);
                let _ = leader;
            }
            Some(_) => {}
            None if now >= self.elects => {
                let standing: Vec<usize> = (0..VOTERS).filter(|at| self.serves(*at)).collect();
                if standing.len() * 2 > VOTERS {
                    let chosen = standing[usize::try_from(self.chance.next() % standing.len() as u64).unwrap()];
                    self.term += self.chance.between(1, 2);
                    self.leader = Some(chosen);
                    (self.hosts[chosen].leads, self.hosts[chosen].acknowledged) = (true, now);
                }
            }
            None => {}
        }
        if self.leader.is_some() {
            self.committed += self.rate;
        }
        for at in 0..NODES {
            if !self.answers(at) {
                continue;
            }
            let busy = now < self.hosts[at].busy;
            // Who was away catches up at a few thousand a second; who is busy is up to two seconds behind.
            let behind = if busy { self.rate * (self.chance.next() % 3) } else { 0 };
            let host = &mut self.hosts[at];
            let upto = self.committed.saturating_sub(behind);
            host.applied = (host.applied + 3000).min(upto).max(host.applied);
            // It hears of the present leader with the next message.
            if self.leader.is_some() && self.chance.next() % 4 != 0 {
                host.term = self.term;
                host.leads = self.leader == Some(at);
            }
        }
    }

    fn raft_fact(&self, at: usize) -> RaftFact {
        let host = &self.hosts[at];
        let role = match (host.leads, self.leader) {
            (true, _) => "leader",
            (false, None) if at < VOTERS => "candidate",
            (false, _) if at >= VOTERS => "learner",
            (false, _) => "follower",
        };
        let leader = if host.leads { Some(at) } else { self.leader };
        RaftFact {
            role: role.into(),
            term: host.term,
            leader: leader.map(name).unwrap_or_default(),
            committed: host.applied.max(if host.leads { self.committed } else { 0 }),
            applied: host.applied,
            voters: VOTERS as u64,
            last_log: host.applied,
            last_log_term: host.term,
            snapshot: 0,
            quorum_ack_ms: host.leads.then(|| (self.now - host.acknowledged.min(self.now)) * 1000 + 80),
        }
    }

    fn node_fact(&mut self, at: usize) -> NodeFact {
        let raft = self.raft_fact(at);
        let serves = self.serves(at);
        let busy = self.now < self.hosts[at].busy;
        let in_flight = if busy { self.chance.between(0, 400) } else { self.chance.between(0, 30) };
        let host = &self.hosts[at];
        let member = |at: usize| MemberFact {
            node: name(at),
            state: "up".into(),
            role: if at < VOTERS { "voter" } else { "learner" }.into(),
            ..MemberFact::default()
        };
        let disk = |id: &str| DiskFact {
            disk: id.into(),
            state: "up".into(),
            health: "ok".into(),
            available_bytes: 1 << 40,
            ..DiskFact::default()
        };
        NodeFact {
            pid: host.pid,
            phase: if serves { "healthy" } else { "recovering" }.into(),
            epoch: 1,
            raft: Some(raft),
            disks: vec![disk("d1"), disk("d2")],
            operations_in_flight: in_flight,
            members: (0..NODES).map(member).collect(),
            cluster: "c".into(),
            mode: host.mode.clone(),
            stands: Some(host.stands),
            oldest_operation_ms: host.upload.map_or(0, |(since, _)| (self.now - since) * 1000),
            oldest_operation: host.upload.map_or(String::new(), |(since, _)| format!("put-{since}")),
            ..NodeFact::default()
        }
    }

    /// What the agent of `at` is told by asking `of`.
    fn peer_fact(&mut self, at: usize, of: usize, silences: &[Option<Vec<SilenceFact>>]) -> PeerFact {
        let lost = |chance: &mut Chance| chance.once_in(100);
        let agent = self.now >= self.hosts[of].host_pauses && !lost(&mut self.chance);
        let node = self.answers(of) && !lost(&mut self.chance);
        if !agent {
            return PeerFact { node: name(of), node_answers: Some(node), ..PeerFact::default() };
        }
        let raft = self.runs(of).then(|| self.raft_fact(of));
        let offset = self.hosts[of].clock_ms - self.hosts[at].clock_ms;
        let error = self.chance.between(1, if self.now < self.hosts[of].busy { 400 } else { 10 });
        let wrong = i64::try_from(self.chance.between(0, error)).unwrap();
        PeerFact {
            node: name(of),
            agent_answers: true,
            node_alive: Some(self.runs(of)),
            node_phase: if self.serves(of) { "healthy" } else { "recovering" }.into(),
            node_answers: Some(node),
            domain: format!("host {}", name(of)),
            silent: silences[of].clone(),
            leader: raft.as_ref().map(|raft| raft.leader.clone()).unwrap_or_default(),
            raft,
            raft_age_ms: self.chance.between(0, 1500),
            cluster: "c".into(),
            epoch: 1,
            hears_us: Some(self.answers(at) && !lost(&mut self.chance)),
            clock_offset_ms: Some(offset + wrong),
            clock_error_ms: error,
            ..PeerFact::default()
        }
    }

    fn host_fact(&mut self, at: usize) -> HostFact {
        let busy = self.now < self.hosts[at].busy;
        let share = if busy { self.hosts[at].busy_share } else { 200 };
        let jitter = u32::try_from(self.chance.between(0, 100)).unwrap();
        let room = self.hosts[at].room;
        let volume = |name: &str| VolumeFact {
            name: name.into(),
            path: format!("/{name}"),
            total_bytes: 100 << 30,
            available_bytes: room << 30,
            inodes_total: 1_000_000,
            inodes_free: 900_000,
        };
        HostFact {
            cpu_per_mille: Some((share + jitter).min(1000)),
            cpu_pressure_per_mille: Some(if busy { (share / 2 + jitter).min(1000) } else { jitter }),
            memory_pressure_per_mille: Some(0),
            io_pressure_per_mille: Some(if busy { share / 3 } else { jitter }),
            memory_total_bytes: Some(64 << 30),
            memory_available_bytes: Some((20 << 30) + (u64::from(jitter) << 24)),
            node_resident_bytes: Some(1 << 30),
            node_descriptors: Some(300),
            node_descriptors_limit: Some(65_536),
            volumes: vec![volume("metadata"), volume("d1"), volume("d2")],
        }
    }

    fn second(&mut self) {
        self.now += 1;
        self.happens();
        let silences: Vec<_> = (0..NODES).map(|at| self.hosts[at].engine.silences(self.at(at))).collect();
        for at in 0..NODES {
            // A host that stands still: its agent sees nothing, and knows of nothing.
            if self.now < self.hosts[at].host_pauses {
                continue;
            }
            self.give(at, Input::Tick);
            self.ends(at);
            self.looks(at, &silences);
        }
    }

    fn ends(&mut self, at: usize) {
        for step in std::mem::take(&mut self.hosts[at].finished) {
            if step.action == Action::SetMode {
                match step.with.as_str() {
                    "quiet" => self.hosts[at].stands = false,
                    "standing" => self.hosts[at].stands = true,
                    mode => mode.clone_into(&mut self.hosts[at].mode),
                }
            }
            self.give(at, Input::Finished { step: step.id, result: StepResult::Done { detail: "done".into() } });
        }
    }

    fn looks(&mut self, at: usize, silences: &[Option<Vec<SilenceFact>>]) {
        if self.runs(at) {
            if self.hosts[at].down == self.now {
                let pid = self.hosts[at].pid;
                let fact = ProcessFact::Running { pid, start_ticks: u64::from(pid) };
                self.give(at, Input::Observed(Observation::Process(fact)));
            }
            if self.answers(at) && !self.chance.once_in(100) {
                let fact = self.node_fact(at);
                self.give(at, Input::Observed(Observation::Heartbeat(Box::new(fact))));
            } else {
                self.give(at, Input::Observed(Observation::HeartbeatMissed { error: "deadline".into() }));
            }
        } else {
            self.give(at, Input::Observed(Observation::HeartbeatMissed { error: "refused".into() }));
        }
        for of in (0..NODES).filter(|of| *of != at) {
            let fact = self.peer_fact(at, of, silences);
            self.give(at, Input::Observed(Observation::Peer(fact)));
        }
        let turn = self.now + at as u64;
        if turn.is_multiple_of(5) {
            let canary = self.canary(at);
            self.give(at, Input::Observed(Observation::Canary(canary)));
        }
        if turn.is_multiple_of(10) {
            let fact = self.host_fact(at);
            self.give(at, Input::Observed(Observation::Host(Box::new(fact))));
            let pid = self.hosts[at].pid;
            let state = if self.runs(at) { "sleeping" } else { "zombie" };
            let state = ProcessStateFact { pid, state: state.into(), for_ms: 10_000 };
            self.give(at, Input::Observed(Observation::ProcessState(state)));
        }
        if turn.is_multiple_of(600) {
            let fact = self.compare();
            self.give(at, Input::Observed(Observation::Replicas(fact)));
        }
    }

    /// A canary needs a leader and a node that serves; on a busy host it takes up to twenty times as long.
    fn canary(&mut self, at: usize) -> CanaryFact {
        let quiet = self.chance.between(3, 12);
        if self.leader.is_none() || !self.serves(at) || self.chance.once_in(100) {
            return CanaryFact { millis: None, error: "deadline exceeded".into() };
        }
        let busy = self.now < self.hosts[at].busy;
        let times = if busy { self.chance.between(2, 20) } else { 1 };
        // And now and then one meets a pause on its way.
        let pause = if self.chance.once_in(50) { self.chance.between(500, 2500) } else { 0 };
        CanaryFact { millis: Some(quiet * times + pause), error: String::new() }
    }

    fn compare(&mut self) -> ReplicasFact {
        let members = (0..NODES)
            .map(|at| {
                let silent = !self.serves(at) || self.chance.once_in(100);
                let (verdict, digest) = if silent { ("silent", "") } else { ("right", "7d0c") };
                ReplicaFact { node: name(at), verdict: verdict.into(), digest: digest.into() }
            })
            .collect();
        ReplicasFact { index: self.committed, members }
    }
}

fn run(mut world: World, hours: u64) -> World {
    while world.now < hours * 3600 {
        world.second();
    }
    for at in 0..NODES {
        for line in world.hosts[at].journal.iter().filter(|line| line.draft.kind == RecordKind::Opened) {
            *world.opened.entry(line.draft.mode.unwrap()).or_default() += 1;
            if std::env::var_os("NOISE_TELL").is_some() {
                println!("{} {}: {:?}", line.timestamp, name(at), line.draft);
            }
        }
    }
    world
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn a_day_of_noise_needs_no_disruptive_step() {
    let (from, seeds, hours) = (number("NOISE_FROM", 1), number("NOISE_SEEDS", 3), number("NOISE_HOURS", 4));
    let (mut steps, mut opened, mut inputs) = (BTreeMap::new(), BTreeMap::new(), 0);
    for seed in from..from + seeds {
        let world = run(World::new(seed, &policy()), hours);
        assert!(world.asked.is_empty(), "seed {seed}: {:#?}", world.asked);
        inputs += world.inputs;
        world.steps.iter().for_each(|(step, count)| *steps.entry(*step).or_insert(0) += count);
        world.opened.iter().for_each(|(mode, count)| *opened.entry(*mode).or_insert(0) += count);
    }
    println!("{seeds} seeds of {hours} h, {inputs} inputs: no disruptive step; incidents {opened:?}; steps {steps:?}");
}

/// The noise is no silence: with times that are too short it would be answered with restarts.
#[test]
fn times_that_are_too_short_restart_nodes_in_this_noise() {
    let mut hasty = policy();
    let figures = &mut hasty.deadlock;
    (figures.canary_factor, figures.canary_floor) = (2, Duration::from_millis(1));
    (figures.stuck_after, figures.operation_limit) = (Duration::from_secs(2), Duration::from_secs(60));
    (figures.saturated_cpu, figures.saturated_pressure) = (1001, 1001);
    let found = run(World::new(1, &hasty), 6);
    assert!(!found.asked.is_empty(), "this noise would find nothing: {:?} {:?}", found.opened, found.steps);
    assert!(run(World::new(1, &policy()), 6).asked.is_empty());
}

/// And what does hang is found in spite of it.
#[test]
fn a_node_that_hangs_is_found_in_this_noise() {
    for seed in 1..=3 {
        let mut world = World::new(seed, &policy());
        world.hangs = Some((4, 1800));
        let world = run(world, 1);
        let (second, node, action, _) = world.asked.first().expect("it is found");
        assert_eq!((node.as_str(), *action), ("n5", Action::RestartNode));
        assert!((1830..1850).contains(second), "seed {seed}: after {} s", second - 1800);
        assert!(world.asked.iter().all(|(_, node, ..)| node == "n5"), "seed {seed}: {:?}", world.asked);
    }
}
