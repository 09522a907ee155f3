//! What the sensors would see: how the node, its host and its peers are, and what makes them ill.

use resilver_strategies::api::{
    CanaryFact, ExitClass, HostFact, Input, LockFact, LogMatchFact, Observation, PeerFact, ProcessStateFact,
    ReplicaFact, ReplicasFact, SilenceFact, SmartVerdict, VolumeFact,
};
use resilver_strategies::cascade::Place;
use resilver_strategies::types::{FailureKind, Mode};

use crate::common::{self, NODE, finding, healthy};
use crate::happens::{Happens, Ill};
use crate::story::{Story, VOTERS};

/// Room and memory left, of a thousand: enough, little, as good as nothing.
const ENOUGH: u64 = 600;
const LITTLE: u64 = 80;
const NOTHING: u64 = 5;
/// Figures of the host come so often, in seconds, and so do canaries and comparisons.
const HOST_EVERY: u64 = 10;
const CANARY_EVERY: u64 = 5;
const COMPARED_EVERY: u64 = 15;

/// What is used up of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    Little,
    Cores,
    Short,
    Full,
    Memory,
}

impl Story {
    /// A second in which everybody says how they are.
    pub fn second(&mut self) {
        for _ in 0..2 {
            self.bench.ms += 500;
            self.bench.give(Input::Tick);
        }
        if self.answers {
            self.watcher.restart_failed = false;
            let fact = self.bench.fact.clone();
            self.bench.observe(Observation::Heartbeat(Box::new(fact)));
        } else {
            self.bench.observe(Observation::HeartbeatMissed { error: "deadline".into() });
        }
        for fact in self.words() {
            self.bench.observe(Observation::Peer(fact));
        }
        self.seconds += 1;
        if self.seconds.is_multiple_of(HOST_EVERY) {
            self.host();
        }
        if self.seconds.is_multiple_of(CANARY_EVERY) {
            let millis = self.canary.filter(|_| self.answers);
            self.bench.observe(Observation::Canary(CanaryFact { millis, error: String::new() }));
        }
        if self.seconds.is_multiple_of(COMPARED_EVERY) {
            self.compared(self.differs);
        }
    }

    /// What each peer says of itself, and of those that are not there.
    fn words(&self) -> Vec<PeerFact> {
        let now = self.bench.ms;
        let silence = |(host, (since, heard)): (&&str, &(u64, bool))| {
            let ms = now.saturating_sub(*since);
            let domain = format!("host {host}");
            (!heard).then(|| SilenceFact { node: (*host).into(), agent_ms: ms, node_ms: ms, domain })
        };
        let told: Vec<SilenceFact> = self.gone.iter().filter_map(silence).collect();
        let word = |fact: &PeerFact| {
            if self.gone.contains_key(fact.node.as_str()) {
                return PeerFact { node: fact.node.clone(), node_answers: Some(false), ..PeerFact::default() };
            }
            let mut silent = fact.silent.clone().unwrap_or_default();
            silent.extend(told.iter().cloned());
            PeerFact { silent: Some(silent), ..fact.clone() }
        };
        self.bench.peers.iter().map(word).collect()
    }

    fn host(&mut self) {
        let (room, memory) = match self.load {
            Load::Short => (LITTLE, ENOUGH),
            Load::Full => (NOTHING, ENOUGH),
            Load::Memory => (ENOUGH, NOTHING),
            Load::Little | Load::Cores => (ENOUGH, ENOUGH),
        };
        let volume =
            VolumeFact { name: "d1".into(), total_bytes: 1000, available_bytes: room, ..VolumeFact::default() };
        let host = HostFact {
            cpu_per_mille: Some(100),
            cpu_pressure_per_mille: Some(if self.load == Load::Cores { 900 } else { 10 }),
            memory_total_bytes: Some(1000),
            memory_available_bytes: Some(memory),
            volumes: vec![volume],
            ..HostFact::default()
        };
        self.bench.observe(Observation::Host(Box::new(host)));
    }

    fn compared(&mut self, wrong: bool) {
        self.samples += 1;
        let members = VOTERS.iter().map(|name| {
            let wrong = wrong && *name == NODE;
            let (verdict, digest) = if wrong { ("wrong", "41aa") } else { ("right", "7d0c") };
            ReplicaFact { node: (*name).into(), verdict: verdict.into(), digest: digest.into() }
        });
        let fact = ReplicasFact { index: self.samples, members: members.collect() };
        self.bench.observe(Observation::Replicas(fact));
    }

    fn lost(&mut self, names: &[&'static str], heard: bool) {
        let now = self.bench.ms;
        self.gone.extend(names.iter().map(|name| (*name, (now, heard))));
    }

    pub fn leads(&mut self, leads: bool) {
        let name = if leads { NODE } else { "n2" };
        if let Some(raft) = &mut self.bench.fact.raft {
            (raft.role, raft.quorum_ack_ms) = (if leads { "leader" } else { "follower" }.into(), leads.then_some(20));
            raft.leader = name.into();
        }
        for peer in &mut self.bench.peers {
            peer.leader = name.into();
            let Some(raft) = &mut peer.raft else { continue };
            let it = peer.node == name;
            (raft.role, raft.leader) = (if it { "leader" } else { "follower" }.into(), name.into());
            raft.quorum_ack_ms = it.then_some(30);
        }
    }

    /// Everything is as it was at the beginning; what a person has to take back (a mark, a disk) is taken back.
    pub fn well(&mut self) {
        let (members, cluster) = (self.bench.fact.members.clone(), self.bench.fact.cluster.clone());
        self.bench.fact = healthy();
        (self.bench.fact.members, self.bench.fact.cluster, self.bench.fact.pid) = (members, cluster, self.pid);
        for member in &mut self.bench.fact.members {
            (member.state, member.automatic, member.role) = ("up".into(), false, "voter".into());
        }
        self.bench.peers.iter_mut().for_each(|peer| *peer = common::peer(&peer.node));
        (self.canary, self.load, self.differs) = (Some(8), Load::Little, false);
        self.gone.clear();
        self.answers = true;
    }

    pub fn falls(&mut self, ill: Ill) {
        match ill {
            Ill::Process => self.ends(ExitClass::Signal(11)),
            Ill::Hung => {
                self.answers = false;
                self.bench.peers.iter_mut().for_each(|peer| peer.hears_us = Some(false));
            }
            Ill::Host => self.lost(&["n5"], false),
            Ill::Hosts => self.lost(&["n4", "n5"], false),
            Ill::CutOff => self.lost(&["n4"], true),
            Ill::Minority => {
                self.lost(&["n3", "n4", "n5"], true);
                self.candidate();
            }
            Ill::Quorum => {
                self.lost(&["n2", "n3", "n4"], false);
                self.candidate();
                self.bench.peers.iter_mut().for_each(|peer| peer.leader = String::new());
            }
            Ill::Database | Ill::Log => {
                let damage = if ill == Ill::Log { "log" } else { "database" };
                (self.bench.fact.phase, self.bench.fact.damage) = ("lost_voter".into(), damage.into());
            }
            Ill::TwoLeaders => {
                self.leads(true);
                let own = self.bench.fact.raft.as_ref().map_or(0, |raft| raft.term);
                let other = &mut self.bench.peer("n2").raft;
                other.iter_mut().for_each(|raft| {
                    (raft.role, raft.term, raft.quorum_ack_ms) = ("leader".into(), own + 1, Some(30));
                });
            }
            Ill::Term => self.bench.fact.raft.iter_mut().for_each(|raft| raft.term += 7),
            Ill::TermBack => {
                self.bench.fact.raft.iter_mut().for_each(|raft| raft.term = raft.term.saturating_sub(2));
            }
            Ill::Stray => {
                self.leads(true);
                self.bench.peer("n5").raft.iter_mut().for_each(|raft| raft.term += 9);
            }
            Ill::Replica => self.differs = true,
            Ill::Operation => {
                self.canary = None;
                let fact = &mut self.bench.fact;
                (fact.oldest_operation, fact.oldest_operation_ms) = ("put-1".into(), 900_000);
            }
            Ill::Lock(dead) => {
                self.lock(500_000);
                if dead {
                    self.lost(&["n3"], false);
                }
            }
            Ill::Short => self.load = Load::Short,
            Ill::Room => self.load = Load::Full,
            Ill::Memory => self.load = Load::Memory,
            Ill::Cores => self.load = Load::Cores,
            Ill::Lag => {
                self.bench.fact.raft.iter_mut().for_each(|raft| raft.applied = 0);
                // The others are not slow: that would be a common cause.
                for raft in self.bench.peers.iter_mut().filter_map(|peer| peer.raft.as_mut()) {
                    (raft.committed, raft.applied) = (raft.committed + 5_000, raft.committed + 5_000);
                }
            }
            Ill::Clock => self.bench.peers.iter_mut().for_each(|peer| peer.clock_offset_ms = Some(700)),
            of_disks => self.disk_falls(of_disks),
        }
    }

    fn disk_falls(&mut self, ill: Ill) {
        match ill {
            Ill::DiskGone => self.bench.disk("d1", "up", "gone"),
            Ill::DiskFails => self.bench.disk("d2", "up", "error"),
            Ill::Counters => {
                for _ in 0..2 {
                    self.samples += 1;
                    self.bench.smart(self.samples, SmartVerdict::Degrading, 8);
                }
                self.bench.fact.disks.iter_mut().take(1).for_each(|disk| disk.errors += 1);
            }
            Ill::Rot => self.found(1, false),
            Ill::RotAllOver => self.found(12, false),
            _ => {
                for kind in [FailureKind::PeerUnreachable, FailureKind::LockTimeout, FailureKind::AuthTimeout] {
                    self.fails(kind, Place::host(NODE));
                }
            }
        }
    }

    /// No leader is known here.
    fn candidate(&mut self) {
        let raft = self.bench.fact.raft.iter_mut();
        raft.for_each(|raft| {
            (raft.role, raft.leader, raft.quorum_ack_ms) = ("candidate".into(), String::new(), None);
        });
    }

    fn lock(&mut self, held_ms: u64) {
        let lock = LockFact {
            path: "a".into(),
            health: "unhealthy".into(),
            owner_node: "n3".into(),
            token: 3,
            held_ms,
            waiting: 2,
            ..LockFact::default()
        };
        self.bench.fact.locks = vec![lock];
    }

    /// Fresh findings on the first disk.
    fn found(&mut self, count: u64, repaired: bool) {
        for _ in 0..count {
            self.findings += 1;
            let mut found = finding(self.findings, "d1", &format!("k{}", self.findings % 40));
            found.repaired = repaired;
            self.bench.fact.findings.push(found);
        }
        // A node keeps the newest.
        let old = self.bench.fact.findings.len().saturating_sub(64);
        self.bench.fact.findings.drain(..old);
    }

    /// What the node, its host and its peers say, one word at a time.
    pub fn tell_said(&mut self, happens: &Happens) {
        match happens {
            Happens::State(state) => {
                let state = ["running", "sleeping", "disk_wait", "stopped", "zombie"][usize::from(*state)];
                let fact = ProcessStateFact { pid: self.pid, state: state.into(), for_ms: 9_000 };
                self.bench.observe(Observation::ProcessState(fact));
            }
            Happens::Canary(how) => self.canary = [Some(8), Some(9_000), None][usize::from(*how)],
            Happens::Compared(wrong) => self.compared(*wrong),
            Happens::Says(what) => self.says(*what),
            Happens::Raft(how) => self.raft(*how),
            Happens::Peer(who, how) => self.peer(*who, *how),
            Happens::Silent(who, gone, heard) => {
                let name = VOTERS[usize::from(*who) + 1];
                if *gone {
                    self.lost(&[name], *heard);
                } else {
                    self.gone.remove(name);
                }
            }
            Happens::Shows(shows) => self.shows(*shows),
            Happens::Disk(which, state, health) => {
                let state = ["up", "read_only", "down", "out", "draining"][usize::from(*state)];
                let health = ["ok", "gone", "error", "suspect"][usize::from(*health)];
                self.bench.disk(if *which { "d1" } else { "d2" }, state, health);
            }
            Happens::Finding(mended) => self.found(1, *mended),
            Happens::ReadFails => self.bench.read_fails(),
            _ => {
                let (pattern, line) = ("stuck".to_owned(), "task stuck".to_owned());
                let fact = LogMatchFact { pattern, mode: Some(Mode::Deadlock), line, count: 1 };
                self.bench.observe(Observation::LogMatch(fact));
            }
        }
    }

    fn says(&mut self, what: u8) {
        let fact = &mut self.bench.fact;
        match what {
            0 => (fact.phase, fact.damage) = ("lost_voter".into(), "database".into()),
            1 => (fact.phase, fact.damage) = ("lost_voter".into(), "log".into()),
            2 => (fact.phase, fact.damage) = ("healthy".into(), String::new()),
            3 => fact.phase = "recovering".into(),
            4 => (fact.oldest_operation, fact.oldest_operation_ms) = ("put-1".into(), 900_000),
            5 => (fact.oldest_operation, fact.oldest_operation_ms) = (String::new(), 0),
            6 => self.lock(100_000),
            7 => fact.locks.clear(),
            _ => fact.mode_is_persons = !fact.mode_is_persons,
        }
        self.pass(3);
    }

    fn raft(&mut self, how: u8) {
        let Some(raft) = self.bench.fact.raft.as_mut() else { return };
        match how {
            0 => (raft.role, raft.leader, raft.quorum_ack_ms) = ("leader".into(), NODE.into(), Some(20)),
            1 => (raft.role, raft.leader, raft.quorum_ack_ms) = ("candidate".into(), String::new(), None),
            2 | 3 => (raft.role, raft.leader, raft.quorum_ack_ms) = ("follower".into(), "n2".into(), None),
            4 => raft.term += 7,
            5 => raft.term = raft.term.saturating_sub(2),
            6 => raft.applied = 0,
            _ => raft.applied = 5_000,
        }
        self.pass(6);
    }

    fn peer(&mut self, who: u8, how: u8) {
        let name = VOTERS[usize::from(who) + 1];
        let fact = self.bench.peer(name);
        match how {
            0 | 1 => *fact = common::peer(name),
            2 => (fact.agent_answers, fact.node_alive, fact.node_answers, fact.raft) = (false, None, Some(false), None),
            3 => (fact.node_alive, fact.node_answers, fact.raft) = (Some(false), Some(false), None),
            4 => fact.hears_us = Some(false),
            5 => fact.leader = String::new(),
            6 => fact.clock_offset_ms = Some(700),
            7 => {
                if let Some(raft) = &mut fact.raft {
                    (raft.role, raft.term, raft.quorum_ack_ms) = ("leader".into(), raft.term + 6, Some(30));
                }
            }
            _ => {
                if let Some(raft) = &mut fact.raft {
                    raft.committed += 5_000;
                }
            }
        }
        self.pass(5);
    }

    /// The node shows what its last step was to bring about, or goes back to what it was.
    fn shows(&mut self, shows: bool) {
        let last = self.bench.executed().pop().filter(|_| shows);
        let fact = &mut self.bench.fact;
        match last.map(|step| step.with) {
            Some(with) if with == "quiet" || with == "standing" => fact.stands = Some(with == "standing"),
            Some(with) if matches!(with.as_str(), "read_only" | "isolated" | "read_write") => fact.mode = with,
            Some(_) => {}
            None => (fact.stands, fact.mode) = (Some(true), "read_write".into()),
        }
        self.pass(2);
    }
}
