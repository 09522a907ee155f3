//! A bench for the engine: time that is moved by hand, a journal that is kept, commands that can be asked for.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::time::Duration;

use resilver_strategies::api::{
    Command, DiskFact, ExitClass, FindingFact, IncidentId, Input, MemberFact, NodeFact, Observation, OperatorCommand,
    PeerFact, ProcessFact, Proof, RaftFact, SmartFact, SmartVerdict, Step, StepId, StepResult,
};
use resilver_strategies::chain::{Line, Tip, seal};
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::engine::{Engine, EngineOptions, IncidentState, IncidentView};
use resilver_strategies::flight::{FORMAT, Head, Player, Replay, Report, Tape};
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::{Action, Authority, Fence, GuardName, Moment, Now};
use resilver_strategies::when::{Uptime, When};

pub const NODE: &str = "n1";
pub const EPOCH_MS: u64 = 1_700_000_000_000;

pub struct Bench {
    pub engine: Engine,
    pub ms: u64,
    /// When this life of the agent began.
    pub born_ms: u64,
    /// The wall clock was set forward by this.
    pub wall_ahead_ms: u64,
    /// Which boot of the host this is.
    pub boot: u32,
    pub policy: PolicyConfig,
    pub journal: Vec<Line>,
    pub tip: Tip,
    pub commands: Vec<Command>,
    pub fact: NodeFact,
    pub peers: Vec<PeerFact>,
    pub recording: Option<Recording>,
    /// At which `ms` each of `commands` was given.
    pub at: Vec<u64>,
    /// Hears every input, and what the engine made of it.
    pub listener: Option<Listener>,
}

pub type Listener = Box<dyn FnMut(Now, &Input, &[Command])>;

/// How many stories a property is told: its own number, or `PROPTEST_CASES` where that asks for more.
#[allow(clippy::disallowed_methods, reason = "a test reads its own environment")]
pub fn cases(otherwise: u32) -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse::<u32>().ok());
    asked.unwrap_or(0).max(otherwise)
}

/// What a flight recorder would have kept: segments of so many inputs.
#[derive(Default)]
pub struct Recording {
    tape: Tape,
    pub segments: Vec<Vec<String>>,
    every: usize,
    broken: bool,
}

impl Recording {
    fn begin(&mut self, engine: &Engine, wall_ms: u64) {
        let head = Head {
            flight: FORMAT,
            program: "test".into(),
            node: NODE.into(),
            segment: self.segments.len() as u64 + 1,
            at_ms: wall_ms,
            continues: !self.segments.is_empty() && !self.broken,
            lost: 0,
            engine: serde_json::Value::Null,
        };
        let line = self.tape.head(head, engine);
        self.segments.push(vec![line]);
        self.broken = false;
    }
}

/// Replays segments, all or from one on.
pub fn replay(segments: &[Vec<String>], policy: Option<PolicyConfig>) -> Report {
    let mut replay = Replay::new(policy);
    for lines in segments {
        replay.head(Player::head(&lines[0]).expect("a head")).expect("a checkpoint");
        let mut player = Player::default();
        for line in &lines[1..] {
            replay.event(player.event(line).expect("a line"));
        }
    }
    replay.finish()
}

pub fn healthy() -> NodeFact {
    let disk = |name: &str| DiskFact {
        disk: name.to_owned(),
        path: format!("/data/{name}"),
        state: "up".to_owned(),
        health: "ok".to_owned(),
        available_bytes: 1 << 30,
        total_bytes: 1 << 40,
        read_errors: Some(0),
        ..DiskFact::default()
    };
    NodeFact {
        pid: 100,
        phase: "healthy".to_owned(),
        epoch: 1,
        raft: Some(RaftFact {
            role: "follower".into(),
            term: 3,
            leader: "n2".into(),
            committed: 40,
            applied: 40,
            last_log: 40,
            last_log_term: 3,
            ..RaftFact::default()
        }),
        mode: "read_write".into(),
        stands: Some(true),
        disks: vec![disk("d1"), disk("d2")],
        ..NodeFact::default()
    }
}

/// A well peer of the bench's cluster: n2 leads.
pub fn peer(name: &str) -> PeerFact {
    let leads = name == "n2";
    PeerFact {
        node: name.to_owned(),
        agent_answers: true,
        node_alive: Some(true),
        node_phase: "healthy".into(),
        node_answers: Some(true),
        domain: format!("host {name}"),
        silent: Some(Vec::new()),
        leader: "n2".into(),
        cluster: "c".into(),
        epoch: 1,
        raft: Some(RaftFact {
            role: if leads { "leader" } else { "follower" }.into(),
            term: 3,
            leader: "n2".into(),
            committed: 40,
            applied: 40,
            last_log: 40,
            last_log_term: 3,
            quorum_ack_ms: leads.then_some(100),
            ..RaftFact::default()
        }),
        clock_offset_ms: Some(1),
        clock_error_ms: 2,
        ..PeerFact::default()
    }
}

/// Everything that is not a person's is automatic.
pub fn auto() -> PolicyConfig {
    let mut policy = PolicyConfig::default();
    policy.authority.grades.all = Some(Authority::Auto);
    policy
}

pub fn running(pid: u32) -> ProcessFact {
    ProcessFact::Running { pid, start_ticks: u64::from(pid) * 10 }
}

pub fn exited(pid: u32, exit: ExitClass) -> ProcessFact {
    let last_error = String::new();
    ProcessFact::Exited { pid, start_ticks: u64::from(pid) * 10, exit, last_error, deliberate: false }
}

pub fn stopped(pid: u32) -> ProcessFact {
    ProcessFact::Exited {
        pid,
        start_ticks: u64::from(pid) * 10,
        exit: ExitClass::Signal(15),
        last_error: String::new(),
        deliberate: true,
    }
}

pub fn finding(sequence: u64, disk: &str, key: &str) -> FindingFact {
    FindingFact {
        sequence,
        kind: "corrupt_shard".into(),
        disk: disk.into(),
        bucket: "b".into(),
        key: key.into(),
        found_by: "scrub".into(),
        detail: "crc 1 expected, 2 read".into(),
        repaired: false,
    }
}

impl Bench {
    pub fn new(profile: Profile) -> Self {
        Self::with(PolicyConfig::of(profile))
    }

    pub fn with(policy: PolicyConfig) -> Self {
        let engine = Engine::new(EngineOptions {
            node: NODE.to_owned(),
            domain: format!("host {NODE}"),
            policy: policy.clone(),
        });
        let mut bench = Self {
            engine,
            ms: 0,
            born_ms: 0,
            wall_ahead_ms: 0,
            boot: 1,
            policy,
            journal: Vec::new(),
            tip: Tip::default(),
            commands: Vec::new(),
            fact: healthy(),
            peers: Vec::new(),
            recording: None,
            at: Vec::new(),
            listener: None,
        };
        bench.restart_agent();
        bench
    }

    /// A bench whose node has run well until the agent's grace is over.
    pub fn calm(profile: Profile) -> Self {
        Self::calm_with(PolicyConfig::of(profile))
    }

    pub fn calm_with(policy: PolicyConfig) -> Self {
        let mut bench = Self::with(policy);
        bench.observe(Observation::Process(running(100)));
        bench.beat(90);
        bench
    }

    /// The agent dies and comes back with its journal.
    pub fn restart_agent(&mut self) {
        self.engine = Engine::new(EngineOptions {
            node: NODE.to_owned(),
            domain: format!("host {NODE}"),
            policy: self.policy.clone(),
        });
        self.born_ms = self.ms;
        if let Some(recording) = &mut self.recording {
            recording.broken = true;
        }
        let started = resilver_strategies::resume::from_lines(self.journal.iter(), self.when());
        self.give(started);
    }

    pub fn now(&self) -> Now {
        Now { mono: Moment(Duration::from_millis(self.ms - self.born_ms)), wall_ms: self.when().wall_ms }
    }

    /// By both clocks, as a journal's line has it.
    pub fn when(&self) -> When {
        let uptime = Some(Uptime { boot: format!("boot {}", self.boot), millis: self.ms });
        When { wall_ms: EPOCH_MS + self.wall_ahead_ms + self.ms, uptime }
    }

    pub fn give(&mut self, input: Input) -> Vec<Command> {
        let now = self.now();
        let kept = self.recording.as_mut().map(|recording| {
            let full = recording.segments.last().is_none_or(|lines| lines.len() > recording.every);
            if full || recording.broken {
                recording.begin(&self.engine, now.wall_ms);
            }
            recording.tape.note(now, &input)
        });
        let heard = self.listener.is_some().then(|| input.clone());
        let commands = self.engine.handle(now, input);
        if let (Some(listener), Some(input)) = (&mut self.listener, heard) {
            listener(now, &input, &commands);
        }
        if let (Some(recording), Some(kept)) = (&mut self.recording, kept) {
            recording.segments.last_mut().expect("one was begun").push(Tape::line(kept, &commands));
        }
        for command in &commands {
            if let Command::Record { draft, .. } = command {
                let line = seal(&self.tip, self.when(), (**draft).clone());
                self.tip = line.tip();
                self.journal.push(line);
            }
        }
        self.at.resize(self.commands.len() + commands.len(), self.ms);
        self.commands.extend(commands.clone());
        commands
    }

    /// From here on, in segments of so many inputs.
    pub fn record(&mut self, every: usize) {
        self.recording = Some(Recording { every, ..Recording::default() });
    }

    pub fn segments(&self) -> &[Vec<String>] {
        &self.recording.as_ref().expect("it was recorded").segments
    }

    pub fn observe(&mut self, observation: Observation) -> Vec<Command> {
        self.give(Input::Observed(observation))
    }

    pub fn process(&mut self, fact: ProcessFact) -> Vec<Command> {
        self.observe(Observation::Process(fact))
    }

    /// These vote, and their agents and nodes are heard with every [`pass`](Self::pass). The bench's own node is one of the members.
    pub fn voters(&mut self, names: &[&str]) {
        let member = |name: &&str| MemberFact {
            node: (*name).to_owned(),
            state: "up".into(),
            role: "voter".into(),
            ..MemberFact::default()
        };
        self.fact.members = names.iter().map(member).collect();
        self.fact.cluster = "c".into();
        self.peers = names.iter().filter(|name| **name != NODE).map(|name| peer(name)).collect();
        self.pass(70);
    }

    /// So many seconds pass, with a heartbeat, and a word of every peer, in each.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.beat(1);
            self.words();
        }
    }

    /// The same, and the node does not answer.
    pub fn pass_missing(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.miss(1);
            self.words();
        }
    }

    fn words(&mut self) {
        for fact in self.peers.clone() {
            self.observe(Observation::Peer(fact));
        }
    }

    pub fn peer(&mut self, name: &str) -> &mut PeerFact {
        self.peers.iter_mut().find(|peer| peer.node == name).expect("a peer of the bench")
    }

    pub fn raft(&mut self) -> &mut RaftFact {
        self.fact.raft.as_mut().expect("Raft runs")
    }

    pub fn raft_of(&mut self, name: &str) -> &mut RaftFact {
        self.peer(name).raft.as_mut().expect("Raft runs")
    }

    /// Takes a disruptive step of this kind from its wish for a slot to its end; the evidence is read again in between.
    pub fn through(&mut self, action: Action) -> Step {
        for _ in 0..600 {
            if self
                .asked_slot()
                .is_some_and(|step| step.action == action && !self.executed().iter().any(|done| done.id == step.id))
            {
                break;
            }
            self.pass(1);
        }
        let asked = self.asked_slot().filter(|step| step.action == action);
        let Some(asked) = asked else {
            panic!("no slot for {action}: {:#?}\n{}", self.refusals(), self.engine.plan(self.now()))
        };
        self.grant(asked.id, 9);
        self.pass(1);
        let step = self.last_step();
        assert_eq!(step.id, asked.id, "begun once the evidence was read again");
        self.done(step.id);
        step
    }

    /// Waits for a step of this kind that needs no slot, and ends it.
    pub fn relieved(&mut self, action: Action) -> Step {
        for _ in 0..600 {
            if self.running().is_some_and(|step| step.action == action) {
                break;
            }
            self.pass(1);
        }
        let step = self.running().filter(|step| step.action == action);
        let Some(step) = step else { panic!("no {action}: {:?}\n{}", self.actions(), self.engine.plan(self.now())) };
        self.done(step.id);
        step
    }

    /// The step that is under way.
    pub fn running(&self) -> Option<Step> {
        self.engine
            .status(self.now())
            .steps
            .into_iter()
            .find(|step| self.executed().iter().any(|done| done.id == step.id))
    }

    /// Time passes, ticking, without any fact.
    pub fn wait(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.ms < end {
            self.ms = (self.ms + 100).min(end);
            self.give(Input::Tick);
        }
    }

    /// This many seconds pass, each with a heartbeat of the present node fact.
    pub fn beat(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.wait(1000);
            let fact = self.fact.clone();
            self.observe(Observation::Heartbeat(Box::new(fact)));
        }
    }

    pub fn miss(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.wait(1000);
            self.observe(Observation::HeartbeatMissed { error: "deadline".into() });
        }
    }

    pub fn disk(&mut self, name: &str, state: &str, health: &str) {
        let disk = self.fact.disks.iter_mut().find(|disk| disk.disk == name).expect("a disk of the bench");
        state.clone_into(&mut disk.state);
        health.clone_into(&mut disk.health);
    }

    /// Disk d1's counters are read, in a sample of this name: so many sectors pending. Good for an hour.
    pub fn smart(&mut self, sample: u64, verdict: SmartVerdict, pending: u64) {
        self.observe(Observation::Smart(SmartFact {
            disk: "d1".into(),
            verdict,
            reasons: vec![format!("sectors that cannot be read: {pending}")],
            counters: [("pending_sectors".to_owned(), pending)].into(),
            sampled_ms: (verdict != SmartVerdict::Unknown).then_some(sample),
            source: "sda.json".into(),
            good_for_ms: 3_600_000,
        }));
    }

    /// One look at d1's counters, of which `counters` are all there are.
    pub fn counted(&mut self, sample: u64, counters: &[(&str, u64)]) {
        self.observe(Observation::Smart(SmartFact {
            disk: "d1".into(),
            verdict: SmartVerdict::Degrading,
            reasons: vec!["its counters".into()],
            counters: counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            sampled_ms: Some(sample),
            source: "sda.json".into(),
            good_for_ms: 3_600_000,
        }));
    }

    /// The node fails to read something on disk d1.
    pub fn read_fails(&mut self) {
        let disk = &mut self.fact.disks[0];
        disk.errors += 1;
        disk.read_errors = disk.read_errors.map(|errors| errors + 1);
        self.beat(1);
    }

    pub fn done(&mut self, step: StepId) -> Vec<Command> {
        self.give(Input::Finished { step, result: StepResult::done("ok") })
    }

    pub fn failed(&mut self, step: StepId) -> Vec<Command> {
        self.give(Input::Finished { step, result: StepResult::Failed { error: "it did not".into() } })
    }

    pub fn proved(&mut self, incident: &IncidentId) -> Vec<Command> {
        self.give(Input::Proved { incident: incident.clone(), result: StepResult::done("read back") })
    }

    pub fn not_proved(&mut self, incident: &IncidentId) -> Vec<Command> {
        let result = StepResult::Failed { error: "no answer".into() };
        self.give(Input::Proved { incident: incident.clone(), result })
    }

    pub fn pause(&mut self, seconds: u64) {
        self.give(Input::Operator(OperatorCommand::Pause {
            owner: "ada".into(),
            reason: "moving racks".into(),
            expires_in: Duration::from_secs(seconds),
        }));
    }

    /// All steps executed so far.
    pub fn executed(&self) -> Vec<Step> {
        self.commands
            .iter()
            .filter_map(|command| if let Command::Execute(step) = command { Some(step.clone()) } else { None })
            .collect()
    }

    pub fn actions(&self) -> Vec<Action> {
        self.executed().iter().map(|step| step.action).collect()
    }

    pub fn last_step(&self) -> Step {
        self.executed().pop().expect("a step was executed")
    }

    pub fn asked_slot(&self) -> Option<Step> {
        self.commands
            .iter()
            .rev()
            .find_map(|command| if let Command::TakeSlot(step) = command { Some(step.clone()) } else { None })
    }

    pub fn grant(&mut self, step: StepId, round: u64) -> Vec<Command> {
        self.give(Input::Slot { step, reply: Ok(fence(round)) })
    }

    pub fn last_proof(&self) -> (IncidentId, Proof) {
        let asked = |command: &Command| match command {
            Command::Prove { incident, proof, .. } => Some((incident.clone(), proof.clone())),
            _ => None,
        };
        self.commands.iter().rev().find_map(asked).expect("a proof was asked for")
    }

    pub fn slots_closed(&self) -> Vec<(StepId, bool)> {
        let closed = |command: &Command| match command {
            Command::CloseSlot { step, verified, .. } => Some((step.id, *verified)),
            _ => None,
        };
        self.commands.iter().filter_map(closed).collect()
    }

    pub fn records(&self, kind: RecordKind) -> Vec<&Draft> {
        self.journal.iter().map(|line| &line.draft).filter(|draft| draft.kind == kind).collect()
    }

    pub fn refusals(&self) -> Vec<GuardName> {
        let name =
            |draft: &&Draft| GuardName::ALL.iter().copied().find(|guard| draft.text("guard") == Some(guard.as_str()));
        self.records(RecordKind::Refused).iter().filter_map(name).collect()
    }

    pub fn open(&self) -> Vec<IncidentView> {
        self.engine.incidents().into_iter().filter(|incident| incident.closed_ms.is_none()).collect()
    }

    pub fn only(&self) -> IncidentView {
        let open = self.open();
        assert_eq!(open.len(), 1, "one open incident expected: {open:#?}");
        open[0].clone()
    }

    pub fn state(&self) -> IncidentState {
        self.only().state
    }
}

pub fn fence(round: u64) -> Fence {
    Fence { epoch: 1, round, holder: "n2".into() }
}

/// The voters of [`Bench::of_five`].
pub const FIVE: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

impl Bench {
    /// A calm cluster of five voters.
    pub fn of_five(policy: PolicyConfig) -> Bench {
        let mut bench = Bench::calm_with(policy);
        bench.voters(&FIVE);
        bench
    }
}

/// Waits until the engine seeks the proof, which holds: that is the end of it.
pub fn prove(bench: &mut Bench, wanted: &Proof) {
    for _ in 0..200 {
        if bench.state() == IncidentState::Verifying {
            break;
        }
        bench.pass(1);
    }
    let (incident, proof) = bench.last_proof();
    assert_eq!(&proof, wanted);
    bench.proved(&incident);
    assert!(bench.open().is_empty(), "{:#?}", bench.open());
}
