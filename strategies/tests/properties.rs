//! Whatever happens, in whatever order: what the engine must never do.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use proptest::prelude::*;
use resilver_strategies::api::{
    CanaryFact, Command, ExitClass, FailureFact, HostFact, Input, LockFact, LogMatchFact, Observation, OperatorCommand,
    ProcessFact, ProcessStateFact, ReplicaFact, ReplicasFact, SmartVerdict, Step, StepId, StepResult, VolumeFact,
};
use resilver_strategies::cascade::Place;
use resilver_strategies::chain::verify;
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::engine::{MAX_OPEN, MAX_RECENT, Rung, ladder};
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::{Action, Authority, FailureKind, GuardName, Mode};

const VOTERS: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

/// Stories that are told; `PROPERTY_CASES=5000` for a long night.
#[allow(clippy::disallowed_methods, reason = "a test reads its own environment")]
fn cases() -> u32 {
    std::env::var("PROPERTY_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(96)
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happens {
    Wait(u16),
    Beat(u8),
    Miss(u8),
    Dies(i32),
    Stops,
    Runs,
    Vanishes,
    Disk(bool, u8, u8),
    Finding(u8),
    Mended(u8),
    Pause(u16),
    Resume,
    Restart,
    Finish(u8),
    Proof(bool),
    Slot(bool),
    Fails(u8, u8),
    Smart(u8),
    ReadFails,
    AgentDies,
    /// The node's process is as the kernel says.
    State(u8),
    Canary(u8),
    /// How full the host is.
    Host(u8),
    /// Members are compared, and this one differs or not.
    Compared(bool),
    /// What the node says of itself.
    Says(u8),
    /// How Raft is here.
    Raft(u8),
    /// How a peer is, and what it says.
    Peer(u8, u8),
    /// The node does (or does not) show what was asked of it.
    Shows(bool),
    Line,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (0u16..20_000).prop_map(Happens::Wait),
        8 => (1u8..12).prop_map(Happens::Beat),
        1 => (1u8..8).prop_map(Happens::Miss),
        3 => prop_oneof![Just(9), Just(11)].prop_map(Happens::Dies),
        1 => Just(Happens::Stops),
        3 => Just(Happens::Runs),
        1 => Just(Happens::Vanishes),
        4 => (any::<bool>(), 0u8..5, 0u8..4).prop_map(|(which, state, health)| Happens::Disk(which, state, health)),
        2 => (0u8..20).prop_map(Happens::Finding),
        1 => (0u8..20).prop_map(Happens::Mended),
        1 => (1u16..600).prop_map(Happens::Pause),
        1 => Just(Happens::Resume),
        1 => Just(Happens::Restart),
        8 => (0u8..4).prop_map(Happens::Finish),
        6 => any::<bool>().prop_map(Happens::Proof),
        6 => any::<bool>().prop_map(Happens::Slot),
        6 => (0u8..6, 0u8..4).prop_map(|(kind, place)| Happens::Fails(kind, place)),
        4 => (0u8..6).prop_map(Happens::Smart),
        2 => Just(Happens::ReadFails),
        1 => Just(Happens::AgentDies),
        2 => (0u8..5).prop_map(Happens::State),
        4 => (0u8..3).prop_map(Happens::Canary),
        4 => (0u8..5).prop_map(Happens::Host),
        3 => any::<bool>().prop_map(Happens::Compared),
        6 => (0u8..9).prop_map(Happens::Says),
        8 => (0u8..8).prop_map(Happens::Raft),
        8 => (0u8..4, 0u8..9).prop_map(|(who, how)| Happens::Peer(who, how)),
        6 => any::<bool>().prop_map(Happens::Shows),
        1 => Just(Happens::Line),
    ]
}

/// Watches the commands and holds the engine to its promises.
#[derive(Default)]
struct Watcher {
    seen: usize,
    /// Durable intents without an execution yet.
    intents: BTreeSet<StepId>,
    executed: BTreeSet<StepId>,
    in_flight: BTreeMap<StepId, bool>,
    /// Slots that were asked for and not closed, and whether they were refused.
    slots: BTreeSet<StepId>,
    /// By step, and the life of the agent.
    closed: BTreeSet<(StepId, u64)>,
    /// An operator's restart has failed, or was not answered in time, and nothing has been heard of the node since: an end
    /// seen now may be that restart's own, and bringing the node back is right.
    restart_failed: bool,
}

impl Watcher {
    fn look(&mut self, bench: &Bench, paused: bool) {
        for command in &bench.commands[self.seen..] {
            match command {
                Command::Record { draft, durable } if draft.kind == RecordKind::Intent => {
                    assert!(durable, "an intent that is not durable");
                    self.intents.insert(StepId(draft.step.expect("an intent names its step")));
                }
                Command::Execute(step) => {
                    assert!(self.intents.remove(&step.id), "{step:?} without an intent before it");
                    assert!(self.executed.insert(step.id), "{step:?} executed twice");
                    assert!(!paused, "{step:?} during a pause");
                    let other = self.in_flight.values().any(|disruptive| *disruptive);
                    assert!(!(step.disruptive && other), "{step:?} beside another disruptive step");
                    assert_eq!(step.disruptive, step.fence.is_some(), "{step:?}");
                    assert_ne!(step.mode, Some(Mode::CascadingFailure), "a cascade is told, never treated");
                    self.in_flight.insert(step.id, step.disruptive);
                    nothing_lower_was_left_out(bench, step);
                }
                Command::TakeSlot(step) => {
                    assert!(!paused, "a slot asked for during a pause");
                    assert!(step.disruptive);
                    self.slots.insert(step.id);
                }
                Command::CloseSlot { step, .. } => {
                    // An agent's next life does not know whether the one before came to it: closed already, it stays so.
                    let first = self.closed.insert((step.id, bench.born_ms));
                    assert!(first, "slot of {step:?} closed twice in one life");
                    self.slots.remove(&step.id);
                }
                Command::Record { draft, .. } if matches!(draft.kind, RecordKind::Outcome | RecordKind::Reconciled) => {
                    self.restart_failed |=
                        draft.action == Action::RestartNode && draft.text("resolution") != Some("done");
                    self.in_flight.remove(&StepId(draft.step.expect("an outcome names its step")));
                }
                Command::Record { .. }
                | Command::Prove { .. }
                | Command::OfferApproval { .. }
                | Command::Answer { .. } => {}
            }
        }
        self.seen = bench.commands.len();
        let incidents = bench.engine.incidents();
        let open = incidents.iter().filter(|incident| incident.closed_ms.is_none()).count();
        assert!(open <= MAX_OPEN && incidents.len() - open <= MAX_RECENT);
        assert!(incidents.iter().all(|incident| incident.steps.len() <= 64));
    }
}

/// Every step of a lower grade was done before, or there is a record of why it was not.
fn nothing_lower_was_left_out(bench: &Bench, step: &Step) {
    let (Some(mode), Some(incident)) = (step.mode, &step.incident) else { return };
    let rungs = ladder(mode, &bench.policy);
    let fits = |rung: &Rung| rung.action == step.action && (rung.with.is_empty() || rung.with == step.with);
    let Some(at) = rungs.iter().position(fits) else { return };
    let of = |draft: &&Draft| draft.incident.as_ref() == Some(incident);
    for lower in rungs[..at].iter().filter(|rung| rung.grade < step.grade && rung.attempts > 0) {
        let accounted = bench.journal.iter().map(|line| &line.draft).filter(of).any(|draft| match draft.kind {
            RecordKind::Intent => draft.action == lower.action,
            RecordKind::Note => draft.text("skipped") == Some(lower.action.as_str()),
            _ => false,
        });
        assert!(accounted, "{} was left out before {step:?}", lower.action);
    }
}

struct Story {
    bench: Bench,
    watcher: Watcher,
    pid: u32,
    findings: u64,
    samples: u64,
    paused_until: u64,
    last_slot: Option<StepId>,
    deliberate: bool,
}

impl Story {
    fn paused(&self) -> bool {
        self.bench.ms < self.paused_until
    }

    fn tell(&mut self, happens: &Happens) {
        match happens {
            Happens::State(state) => {
                let state = ["running", "sleeping", "disk_wait", "stopped", "zombie"][usize::from(*state)];
                let fact = ProcessStateFact { pid: self.pid, state: state.into(), for_ms: 9_000 };
                self.bench.observe(Observation::ProcessState(fact));
            }
            Happens::Canary(how) => {
                let millis = [Some(8), Some(9_000), None][usize::from(*how)];
                for _ in 0..4 {
                    self.bench.observe(Observation::Canary(CanaryFact { millis, error: String::new() }));
                    self.seconds(1, |bench| bench.pass(1));
                }
            }
            Happens::Host(level) => self.host(*level),
            Happens::Compared(wrong) => {
                self.samples += 1;
                let members = VOTERS.iter().map(|name| {
                    let wrong = *wrong && *name == NODE;
                    let (verdict, digest) = if wrong { ("wrong", "41aa") } else { ("right", "7d0c") };
                    ReplicaFact { node: (*name).into(), verdict: verdict.into(), digest: digest.into() }
                });
                let fact = ReplicasFact { index: self.samples, members: members.collect() };
                self.bench.observe(Observation::Replicas(fact));
            }
            Happens::Says(what) => self.says(*what),
            Happens::Raft(how) => self.raft(*how),
            Happens::Peer(who, how) => self.peer(*who, *how),
            Happens::Shows(shows) => self.shows(*shows),
            Happens::Line => {
                let (pattern, line) = ("stuck".to_owned(), "task stuck".to_owned());
                let fact = LogMatchFact { pattern, mode: Some(Mode::Deadlock), line, count: 1 };
                self.bench.observe(Observation::LogMatch(fact));
            }
            Happens::Wait(ms) => self.seconds(u64::from(*ms) / 1000, |bench| bench.wait(1000)),
            Happens::Beat(count) => {
                self.watcher.restart_failed &= *count == 0;
                self.seconds(u64::from(*count), |bench| bench.beat(1));
            }
            Happens::Miss(count) => self.seconds(u64::from(*count), |bench| bench.miss(1)),
            Happens::Dies(signal) => self.process(exited(self.pid, ExitClass::Signal(*signal)), false),
            Happens::Stops => self.process(stopped(self.pid), true),
            Happens::Runs => {
                self.pid += 1;
                self.bench.fact.pid = self.pid;
                self.process(running(self.pid), false);
            }
            Happens::Vanishes => self.process(ProcessFact::Absent, false),
            Happens::Disk(which, state, health) => {
                let state = ["up", "read_only", "down", "out", "draining"][usize::from(*state)];
                let health = ["ok", "gone", "error", "suspect"][usize::from(*health)];
                self.bench.disk(if *which { "d1" } else { "d2" }, state, health);
            }
            Happens::Finding(key) | Happens::Mended(key) => {
                self.findings += 1;
                let mut found = finding(self.findings, "d1", &format!("k{key}"));
                found.repaired = matches!(happens, Happens::Mended(_));
                self.bench.fact.findings.push(found);
            }
            Happens::Pause(seconds) => {
                self.bench.pause(u64::from(*seconds));
                self.paused_until = self.bench.ms + u64::from(*seconds) * 1000;
            }
            Happens::Resume => {
                self.paused_until = 0;
                self.bench.give(Input::Operator(OperatorCommand::Resume { owner: "bob".into() }));
            }
            Happens::Restart => {
                let (owner, reason) = ("bob".to_owned(), "why not".to_owned());
                let command = OperatorCommand::RestartNode { owner, reason, fence: fence(5), dead: false };
                self.bench.give(Input::Operator(command));
            }
            Happens::Finish(how) => {
                let Some(step) = self.watcher.in_flight.keys().next().copied() else { return };
                let result = match how {
                    0 | 1 => StepResult::Done { detail: "ok".into() },
                    2 => StepResult::Failed { error: "no".into() },
                    _ => StepResult::Refused { guard: GuardName::OneAtATime, evidence: "stale".into() },
                };
                self.bench.give(Input::Finished { step, result });
            }
            Happens::Proof(holds) => {
                let asked = self.bench.commands.iter().rev().find_map(|command| match command {
                    Command::Prove { incident, .. } => Some(incident.clone()),
                    _ => None,
                });
                let Some(incident) = asked else { return };
                if *holds {
                    self.bench.proved(&incident)
                } else {
                    self.bench.not_proved(&incident)
                };
            }
            Happens::Slot(granted) => {
                let Some(step) = self.bench.asked_slot().filter(|step| self.last_slot != Some(step.id)) else { return };
                self.last_slot = Some(step.id);
                if *granted {
                    self.bench.grant(step.id, 6);
                } else {
                    self.watcher.slots.remove(&step.id);
                    let reply = Err((GuardName::QuorumKept, "1 of 3".to_owned()));
                    self.bench.give(Input::Slot { step: step.id, reply });
                }
            }
            Happens::Fails(kind, place) => {
                let places = [Place::host("n1"), Place::disk("n1", "d1"), Place::disk("n1", "d2"), Place::host("n2")];
                let event = FailureFact {
                    kind: FailureKind::ALL[usize::from(*kind)].as_str().to_owned(),
                    places: vec![places[usize::from(*place)].clone()],
                    ..FailureFact::default()
                };
                self.bench.observe(Observation::Failures { events: vec![event] });
            }
            Happens::Smart(verdict) => {
                let verdicts =
                    [SmartVerdict::Unknown, SmartVerdict::Ok, SmartVerdict::Failing, SmartVerdict::Degrading];
                let verdict = verdicts[usize::from(*verdict).min(3)];
                self.samples += 1;
                self.bench.smart(self.samples, verdict, u64::from(verdict.is_ill()));
            }
            Happens::ReadFails => self.bench.fact.disks[0].errors += 1,
            Happens::AgentDies => {
                // Slots that were granted to the dead agent are settled by the lease's holder.
                self.bench.restart_agent();
                self.watcher.slots.clear();
            }
        }
        let paused = self.paused();
        self.watcher.look(&self.bench, paused);
    }

    fn host(&mut self, level: u8) {
        let left = [600u64, 120, 80, 30, 5][usize::from(level)];
        let volume =
            VolumeFact { name: "d1".into(), total_bytes: 1000, available_bytes: left, ..VolumeFact::default() };
        let host = HostFact {
            cpu_per_mille: Some(if level == 1 { 990 } else { 100 }),
            cpu_pressure_per_mille: Some(if level == 2 { 900 } else { 10 }),
            memory_total_bytes: Some(1000),
            memory_available_bytes: Some(left),
            volumes: vec![volume],
            ..HostFact::default()
        };
        for _ in 0..5 {
            self.bench.observe(Observation::Host(Box::new(host.clone())));
            self.seconds(10, |bench| bench.pass(1));
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
            6 => {
                let owner_node = "n3".to_owned();
                let health = "unhealthy".to_owned();
                let lock = LockFact {
                    path: "a".into(),
                    health,
                    owner_node,
                    token: 3,
                    held_ms: 500_000,
                    waiting: 2,
                    ..LockFact::default()
                };
                fact.locks = vec![lock];
            }
            7 => fact.locks.clear(),
            _ => fact.mode_is_persons = !fact.mode_is_persons,
        }
        self.seconds(3, |bench| bench.pass(1));
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
        self.seconds(6, |bench| bench.pass(1));
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
        self.seconds(5, |bench| bench.pass(1));
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
        self.seconds(2, |bench| bench.pass(1));
    }

    /// Second by second, so that the watcher knows for each whether it was in a pause.
    fn seconds(&mut self, count: u64, each: impl Fn(&mut Bench)) {
        for _ in 0..count {
            let before = self.paused();
            each(&mut self.bench);
            let paused = before && self.paused();
            self.watcher.look(&self.bench, paused);
        }
    }

    fn process(&mut self, fact: ProcessFact, deliberate: bool) {
        self.deliberate = deliberate;
        let before = self.bench.actions().len();
        self.bench.observe(Observation::Process(fact));
        if deliberate && !self.watcher.restart_failed {
            let started = self.bench.actions()[before..].contains(&Action::StartNode);
            assert!(!started, "a deliberate stop was fought");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_engine_keeps_its_promises(
        fast in any::<bool>(),
        story in proptest::collection::vec(happens(), 1..160),
    ) {
        let profile = if fast { Profile::Fast } else { Profile::Production };
        let mut policy = PolicyConfig::of(profile);
        // Nothing is hidden in a shadow.
        policy.authority.grades.all = Some(Authority::Auto);
        let mut bench = Bench::calm_with(policy);
        bench.voters(&VOTERS);
        let watcher = Watcher::default();
        let mut told =
            Story { bench, watcher, pid: 100, findings: 0, samples: 0, paused_until: 0, last_slot: None, deliberate: false };
        for happens in &story {
            told.tell(happens);
        }
        let bench = &told.bench;
        prop_assert!(verify(bench.journal.iter().map(|line| line.to_text())).is_ok());
        // The same inputs give the same journal: nothing but the inputs decides.
        let plan = bench.engine.plan(bench.now()).to_string();
        prop_assert_eq!(plan, bench.engine.clone().plan(bench.now()).to_string());
    }

    /// Whatever happened: a replay from any segment's checkpoint commands the same, to the last letter, and comes to the very
    /// state that the next segment begins with.
    #[test]
    fn a_recording_is_decided_the_same_from_wherever_it_is_replayed(
        fast in any::<bool>(),
        story in proptest::collection::vec(happens(), 1..30),
        every in 5usize..80,
    ) {
        let mut policy = PolicyConfig::of(if fast { Profile::Fast } else { Profile::Production });
        policy.authority.grades.all = Some(Authority::Auto);
        let mut bench = Bench::calm_with(policy);
        bench.voters(&VOTERS);
        bench.fact.cluster = "c1".into();
        bench.record(every);
        let mut told =
            Story { bench, watcher: Watcher::default(), pid: 100, findings: 0, samples: 0, paused_until: 0, last_slot: None, deliberate: false };
        told.seconds(3, |bench| bench.beat(1));
        for happens in &story {
            told.tell(happens);
        }
        let segments = told.bench.segments();
        let whole = replay(segments, None);
        prop_assert!(whole.same, "{whole:#?}");
        for from in 0..segments.len() {
            let alone = replay(&segments[from..=from], None);
            prop_assert!(alone.same && alone.inputs_decided_otherwise == 0, "segment {from}: {alone:#?}");
        }
        // The policy it was decided by, given as another one, decides the same.
        let again = replay(segments, Some(told.bench.policy.clone()));
        prop_assert!(again.same && again.answers_left_out == 0, "{again:#?}");
    }

    #[test]
    fn every_slot_that_was_asked_for_is_closed_in_the_end(story in proptest::collection::vec(happens(), 1..80)) {
        let mut bench = Bench::calm(Profile::Fast);
        bench.voters(&VOTERS);
        let mut told = Story {
            bench, watcher: Watcher::default(), pid: 100, findings: 0, samples: 0, paused_until: 0, last_slot: None, deliberate: false,
        };
        for happens in &story {
            told.tell(happens);
        }
        // Nobody answers any more, and the node is well.
        told.tell(&Happens::Resume);
        for disk in ["d1", "d2"] {
            told.bench.disk(disk, "out", "gone");
        }
        told.seconds(200, |bench| bench.beat(1));
        prop_assert!(told.watcher.slots.is_empty(), "{:?}", told.watcher.slots);
    }
}
