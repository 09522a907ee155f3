//! Whatever happens, in whatever order: what the engine must never do.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::*;
use proptest::prelude::*;
use resilver_strategies::api::{
    Command, ExitClass, FailureFact, Input, Observation, OperatorCommand, ProcessFact, SmartVerdict, StepId, StepResult,
};
use resilver_strategies::cascade::Place;
use resilver_strategies::chain::verify;
use resilver_strategies::config::Profile;
use resilver_strategies::engine::{MAX_OPEN, MAX_RECENT};
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, FailureKind, GuardName, Mode};

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
    closed: BTreeSet<StepId>,
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
                }
                Command::TakeSlot(step) => {
                    assert!(!paused, "a slot asked for during a pause");
                    assert!(step.disruptive);
                    self.slots.insert(step.id);
                }
                Command::CloseSlot { step, .. } => {
                    assert!(self.closed.insert(step.id), "slot of {step:?} closed twice");
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
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_engine_keeps_its_promises(
        fast in any::<bool>(),
        story in proptest::collection::vec(happens(), 1..160),
    ) {
        let profile = if fast { Profile::Fast } else { Profile::Production };
        let bench = Bench::calm(profile);
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
        story in proptest::collection::vec(happens(), 1..60),
        every in 5usize..80,
    ) {
        let mut bench = Bench::calm(if fast { Profile::Fast } else { Profile::Production });
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
        let bench = Bench::calm(Profile::Fast);
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
