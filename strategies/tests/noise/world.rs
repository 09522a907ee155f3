//! Six hosts, their nodes and agents, and what ordinarily happens to them. Everything by one chance, so that a seed is a story.

use std::collections::BTreeMap;
use std::time::Duration;

use resilver_strategies::api::{
    Command, ExitClass, Input, Observation, ProcessFact, ProcessStateFact, SilenceFact, Step, StepResult,
};
use resilver_strategies::chain::{Line, Tip, seal};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::engine::{Engine, EngineOptions};
use resilver_strategies::types::{Action, Fence, Grade, Mode, Moment, Now};

use crate::common::{self, EPOCH_MS};

pub(crate) const NODES: usize = 6;
pub(crate) const VOTERS: usize = 3;

/// Splitmix64: the world's only source of chance.
pub(crate) struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Once in so many.
    pub(crate) fn once_in(&mut self, many: u64) -> bool {
        self.next().is_multiple_of(many)
    }

    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }
}

/// One host: its node, and its agent's engine.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    /// When this life of the agent began, in seconds.
    pub(crate) born: u64,
    pub(crate) journal: Vec<Line>,
    pub(crate) tip: Tip,
    pub(crate) pid: u32,
    /// Until when the node's process, or the whole host, stands still.
    pub(crate) node_pauses: u64,
    pub(crate) host_pauses: u64,
    /// Until when the node is down for a deploy, and until when it recovers after.
    pub(crate) down: u64,
    pub(crate) recovers: u64,
    /// Until when the host is busy, and how busy.
    pub(crate) busy: u64,
    pub(crate) busy_share: u32,
    pub(crate) applied: u64,
    pub(crate) term: u64,
    pub(crate) leads: bool,
    /// When a quorum acknowledged it last, as a leader.
    pub(crate) acknowledged: u64,
    /// When it heard a leader last.
    pub(crate) heard: u64,
    pub(crate) mode: String,
    pub(crate) stands: bool,
    pub(crate) clock_ms: i64,
    pub(crate) canary_ms: Option<u64>,
    pub(crate) room: u64,
    /// A client's long upload: since when, until when.
    pub(crate) upload: Option<(u64, u64)>,
    pub(crate) finished: Vec<Step>,
}

pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) now: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) leader: Option<usize>,
    pub(crate) elects: u64,
    pub(crate) term: u64,
    pub(crate) committed: u64,
    pub(crate) rate: u64,
    /// The deploy's next host, and when.
    pub(crate) deploy: Option<(usize, u64)>,
    pub(crate) lease: usize,
    pub(crate) steps: BTreeMap<(Action, Grade), u64>,
    /// Incidents by mode.
    pub(crate) opened: BTreeMap<Mode, u64>,
    /// Disruptive steps that were asked for: when, where, what, why.
    pub(crate) asked: Vec<(u64, String, Action, String)>,
    pub(crate) inputs: u64,
    pub(crate) policy: PolicyConfig,
    /// A node that hangs from then on, for good: what the engines must find in spite of the noise.
    pub(crate) hangs: Option<(usize, u64)>,
}

pub(crate) fn name(at: usize) -> String {
    format!("n{}", at + 1)
}

pub(crate) fn engine(at: usize, policy: &PolicyConfig) -> Engine {
    Engine::new(EngineOptions { node: name(at), domain: format!("host {}", name(at)), policy: policy.clone() })
}

/// Production's figures; and everything automatic, so that nothing is hidden in a shadow.
pub(crate) fn policy() -> PolicyConfig {
    common::auto()
}

impl World {
    pub(crate) fn new(seed: u64, policy: &PolicyConfig) -> World {
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
            heard: 0,
            mode: "read_write".into(),
            stands: true,
            clock_ms: 0,
            canary_ms: None,
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

    pub(crate) fn at(&self, host: usize) -> Now {
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

    pub(crate) fn give(&mut self, at: usize, input: Input) {
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
                        true => StepResult::done("asked"),
                        false => StepResult::Failed { error: "it does not answer".into() },
                    };
                    self.give(at, Input::Proved { incident, result });
                }
                // Nobody approves, and nobody waits for an answer.
                Command::CloseSlot { .. } | Command::OfferApproval { .. } | Command::Answer { .. } => {}
            }
        }
    }

    pub(crate) fn runs(&self, at: usize) -> bool {
        self.now >= self.hosts[at].down
    }

    pub(crate) fn answers(&self, at: usize) -> bool {
        let host = &self.hosts[at];
        let hangs = self.hangs.is_some_and(|(hung, since)| hung == at && self.now >= since);
        !hangs && self.runs(at) && self.now >= host.node_pauses && self.now >= host.host_pauses
    }

    pub(crate) fn serves(&self, at: usize) -> bool {
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
            if self.leader.is_some() && !self.chance.next().is_multiple_of(4) {
                host.term = self.term;
                host.heard = now;
                host.leads = self.leader == Some(at);
            }
        }
    }

    pub(crate) fn second(&mut self) {
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
            self.give(at, Input::Finished { step: step.id, result: StepResult::done("done") });
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
            self.hosts[at].canary_ms = canary.millis;
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
}
