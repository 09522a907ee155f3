//! One engine, its watcher, and a world around them that goes on in its manner.

use std::collections::{BTreeMap, BTreeSet};

use resilver_strategies::api::{
    ExitClass, FailureFact, IncidentId, Input, Observation, OperatorCommand, ProcessFact, SmartVerdict, Step, StepId,
    StepResult, Subject,
};
use resilver_strategies::cascade::Place;
use resilver_strategies::chain::verify;
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::types::{Action, FailureKind, GuardName, Mode};

use crate::common::*;
use crate::happens::{Answer, Happens, Ill, Manner, Token, Turn};
use crate::watcher::Watcher;
use crate::world::Load;

pub const VOTERS: [&str; 5] = FIVE;
/// The lease's fence, whenever this agent holds it.
const LEASE_ROUND: u64 = 7;

/// See the module.
pub struct Story {
    pub bench: Bench,
    pub watcher: Watcher,
    pub manner: Manner,
    pub pid: u32,
    pub findings: u64,
    pub samples: u64,
    /// The node's process answers.
    pub answers: bool,
    /// Peers that are not heard here, since when, and whether the others hear them.
    pub gone: BTreeMap<&'static str, (u64, bool)>,
    /// What a canary takes now; `None`: it does not come back.
    pub canary: Option<u64>,
    /// What is used up of the host.
    pub load: Load,
    /// Comparisons call the own replica wrong.
    pub differs: bool,
    /// Steps that were answered.
    answered: BTreeSet<StepId>,
    tokens: u64,
    pub seconds: u64,
}

impl Story {
    /// A calm cluster of five voters.
    pub fn new(policy: PolicyConfig) -> Story {
        let mut bench = Bench::calm_with(policy);
        bench.voters(&VOTERS);
        Story {
            bench,
            watcher: Watcher::default(),
            manner: Manner::KIND,
            pid: 100,
            findings: 0,
            samples: 0,
            answers: true,
            gone: BTreeMap::new(),
            canary: Some(8),
            load: Load::Little,
            differs: false,
            answered: BTreeSet::new(),
            tokens: 0,
            seconds: 0,
        }
    }

    /// Tells all of it, and holds the engine to what it must have kept at the end.
    pub fn tell_all(&mut self, story: &[Happens]) {
        story.iter().for_each(|happens| self.tell(happens));
        self.watcher.end(&self.bench);
        let lines = self.bench.journal.iter().map(|line| line.to_text());
        assert!(verify(lines).is_ok(), "the journal's chain is broken");
    }

    pub fn look(&mut self) {
        self.watcher.look(&self.bench);
    }

    pub fn tell(&mut self, happens: &Happens) {
        self.look();
        match happens {
            Happens::Pass(seconds) => self.pass(u64::from(*seconds)),
            Happens::Falls(ill) => self.falls(*ill),
            Happens::Turn(turn) => self.turns(*turn),
            Happens::Well => self.well(),
            Happens::Leads(leads) => self.leads(*leads),
            Happens::Manner(manner) => self.manner = *manner,
            Happens::Lease(held) => {
                self.watcher.lease = held.then(|| fence(LEASE_ROUND));
                let fence = self.watcher.lease.clone();
                self.bench.give(Input::Lease { fence });
            }
            Happens::Wait(ms) => self.bench.wait(u64::from(*ms)),
            Happens::Sleep(seconds) => {
                self.bench.ms += u64::from(*seconds) * 1000;
                self.bench.give(Input::Tick);
            }
            Happens::Beat(count) => {
                self.watcher.restart_failed &= *count == 0;
                self.bench.beat(u64::from(*count));
            }
            Happens::Miss(count) => self.bench.miss(u64::from(*count)),
            Happens::Dies(signal) => self.ends(ExitClass::Signal(*signal)),
            Happens::Stops => self.process(stopped(self.pid), true),
            Happens::Runs => self.runs(),
            Happens::Vanishes => self.process(ProcessFact::Absent, false),
            Happens::Pause(seconds) => {
                self.watcher.paused_until = Some(self.bench.ms + u64::from(*seconds) * 1000);
                self.bench.pause(u64::from(*seconds));
            }
            Happens::Resume => {
                self.watcher.paused_until = None;
                self.bench.give(Input::Operator(OperatorCommand::Resume { owner: "bob".into() }));
            }
            Happens::Restart => self.order(false),
            Happens::StartDead => self.order(true),
            Happens::AgentDies => {
                self.watcher.agent_died();
                self.bench.restart_agent();
            }
            answers => self.tell_answer(answers),
        }
        self.look();
    }

    /// What others answer, and what they say of themselves.
    fn tell_answer(&mut self, happens: &Happens) {
        match happens {
            Happens::Finish(how) => {
                let Some(step) = self.watcher.in_flight.values().next().cloned() else { return };
                match how {
                    0 => self.finish(&step, Answer::Well),
                    1 => self.finish(&step, Answer::Hollow),
                    2 => self.finish(&step, Answer::Badly),
                    _ => self.finish(&step, Answer::Refused),
                }
            }
            Happens::Proof(holds) => {
                let Some(incident) = self.watcher.proofs.first().cloned() else { return };
                self.proof(&incident, *holds);
            }
            Happens::Slot(granted) => {
                let Some(step) = self.watcher.asked.first().copied() else { return };
                self.slot(step, *granted);
            }
            Happens::Offered => self.draw(),
            Happens::Approve(token) => self.approve(*token),
            Happens::Fails(kind, place) => {
                let places = [Place::host("n1"), Place::disk("n1", "d1"), Place::disk("n1", "d2"), Place::host("n2")];
                let kind = FailureKind::ALL[usize::from(*kind)];
                self.fails(kind, places[usize::from(*place)].clone());
            }
            Happens::Smart(verdict) => {
                let verdicts =
                    [SmartVerdict::Unknown, SmartVerdict::Ok, SmartVerdict::Failing, SmartVerdict::Degrading];
                let verdict = verdicts[usize::from(*verdict).min(3)];
                self.samples += 1;
                self.bench.smart(self.samples, verdict, u64::from(verdict.is_ill()));
            }
            said => self.tell_said(said),
        }
    }

    /// Each is a few things that happen in this order.
    fn turns(&mut self, turn: Turn) {
        let manner = self.manner;
        match turn {
            Turn::LateBegin | Turn::LateToken => {
                self.manner.approves = false;
                self.pass(4);
                self.draw();
                if matches!(turn, Turn::LateToken) {
                    self.tell(&Happens::Sleep(3601));
                    self.approve(Token::Newest);
                } else {
                    self.tell(&Happens::Pause(700));
                    self.approve(Token::Newest);
                    self.tell(&Happens::Sleep(601));
                    self.tell(&Happens::Resume);
                }
                self.pass(4);
            }
            Turn::Handover(later) => {
                self.tell(&Happens::Lease(true));
                self.tell(&Happens::Falls(Ill::Host));
                self.pass(14 + u64::from(later));
                self.tell(&Happens::Lease(false));
                self.pass(12);
            }
            Turn::PauseAfterGrant => {
                self.manner.slots = Answer::Never;
                self.pass(3);
                if let Some(step) = self.watcher.asked.first().copied() {
                    self.slot(step, true);
                }
                self.tell(&Happens::Pause(4));
                self.pass(6);
            }
            Turn::StartedByHand => {
                self.tell(&Happens::Pause(600));
                self.tell(&Happens::Dies(9));
                self.pass(2);
                self.tell(&Happens::Runs);
                self.manner.proofs = Answer::Badly;
                self.tell(&Happens::Resume);
                self.pass(if self.bench.policy.factor > 1.0 { 25 } else { 130 });
            }
            Turn::MendedByHand => {
                self.tell(&Happens::Pause(600));
                self.bench.disk("d1", "up", "gone");
                self.pass(4);
                self.bench.disk("d1", "read_only", "ok");
                self.tell(&Happens::Resume);
                self.pass(5);
            }
        }
        self.manner = manner;
    }

    pub fn fails(&mut self, kind: FailureKind, place: Place) {
        let event = FailureFact { kind: kind.as_str().to_owned(), places: vec![place], ..FailureFact::default() };
        self.bench.observe(Observation::Failures { events: vec![event] });
        self.look();
    }

    fn order(&mut self, dead: bool) {
        let (owner, reason) = ("bob".to_owned(), "why not".to_owned());
        let command = OperatorCommand::RestartNode { owner, reason, fence: fence(5), dead };
        self.bench.give(Input::Operator(command));
    }

    pub fn ends(&mut self, exit: ExitClass) {
        self.answers = false;
        self.process(exited(self.pid, exit), false);
    }

    pub fn runs(&mut self) {
        self.pid += 1;
        self.bench.fact.pid = self.pid;
        self.answers = true;
        self.process(running(self.pid), false);
    }

    fn process(&mut self, fact: ProcessFact, deliberate: bool) {
        let before = self.bench.actions().len();
        self.bench.observe(Observation::Process(fact));
        if deliberate && !self.watcher.restart_failed {
            let started = self.bench.actions()[before..].contains(&Action::StartNode);
            assert!(!started, "a deliberate stop was fought");
        }
        self.look();
    }

    /// So many seconds pass, in which everybody says what they have to say, and answers in their manner.
    pub fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.second();
            self.look();
            self.answer();
            self.look();
        }
    }

    /// Whoever was asked answers, or not.
    fn answer(&mut self) {
        let manner = self.manner;
        for step in self.watcher.asked.clone() {
            match manner.slots {
                Answer::Never => {}
                Answer::Badly | Answer::Refused => self.slot(step, false),
                Answer::Well | Answer::Hollow => self.slot(step, true),
            }
        }
        let under_way: Vec<Step> = self.watcher.in_flight.values().cloned().collect();
        for step in under_way.iter().filter(|_| manner.steps != Answer::Never) {
            if self.answered.insert(step.id) {
                self.finish(step, manner.steps);
            }
        }
        for incident in self.watcher.proofs.clone() {
            match manner.proofs {
                Answer::Never => {}
                Answer::Well => self.proof(&incident, true),
                Answer::Hollow | Answer::Badly | Answer::Refused => self.proof(&incident, false),
            }
        }
        if manner.approves {
            while !self.watcher.offers.is_empty() {
                self.draw();
                self.approve(Token::Newest);
            }
        }
    }

    fn slot(&mut self, step: StepId, granted: bool) {
        self.watcher.asked.remove(&step);
        if granted {
            self.bench.grant(step, 6);
        } else {
            // One that was never open needs no closing.
            self.watcher.slots.remove(&step);
            let reply = Err((GuardName::QuorumKept, "1 of 3".to_owned()));
            self.bench.give(Input::Slot { step, reply });
        }
        self.look();
    }

    fn finish(&mut self, step: &Step, how: Answer) {
        let result = match how {
            Answer::Well | Answer::Hollow => StepResult::done("ok"),
            Answer::Refused => StepResult::Refused { guard: GuardName::OneAtATime, evidence: "stale".into() },
            Answer::Badly | Answer::Never => StepResult::Failed { error: "no".into() },
        };
        if how == Answer::Well {
            self.takes_effect(step);
        }
        self.bench.give(Input::Finished { step: step.id, result });
        self.look();
    }

    fn proof(&mut self, incident: &IncidentId, holds: bool) {
        self.watcher.proofs.remove(incident);
        if holds {
            self.bench.proved(incident);
        } else {
            self.bench.not_proved(incident);
        }
        self.look();
    }

    /// The agent draws the token that was asked for first.
    fn draw(&mut self) {
        if self.watcher.offers.is_empty() {
            return;
        }
        let incident = self.watcher.offers.remove(0);
        self.tokens += 1;
        let token_sha256 = format!("h{}", self.tokens);
        self.bench.give(Input::Offered { incident, token_sha256 });
        self.look();
    }

    fn approve(&mut self, token: Token) {
        let known = |index: usize| {
            let offers = self.watcher.tokens.iter().filter_map(|(incident, tokens)| {
                let token = tokens.iter().rev().nth(index)?;
                Some((token.at_ms, incident.clone(), token.hash.clone()))
            });
            offers.max().map(|(_, incident, hash)| (incident, hash))
        };
        let given = match token {
            Token::Newest => known(0),
            // One of an incident that has had several, or else the last one once more.
            Token::Old => known(1).or_else(|| known(0)),
            Token::Wrong => known(0).map(|(incident, _)| (incident, "guessed".to_owned())),
            Token::Nowhere => Some((IncidentId::new(NODE, 999_999), "h1".to_owned())),
        };
        let Some((incident, token_sha256)) = given else { return };
        self.watcher.given = Some(token_sha256.clone());
        let owner = "ada".to_owned();
        self.bench.give(Input::Operator(OperatorCommand::Approve { owner, incident, token_sha256 }));
        self.look();
        assert!(self.watcher.given.is_none(), "a person was not answered");
    }

    /// What a step does when it works.
    fn takes_effect(&mut self, step: &Step) {
        match (step.action, &step.subject) {
            (Action::StartNode | Action::RestartNode, _) => {
                // Another process knows nothing of what was said to the one before.
                let fact = &mut self.bench.fact;
                (fact.mode, fact.stands, fact.throttled) = ("read_write".into(), Some(true), false);
                self.runs();
            }
            (action, Subject::Disk { disk, .. }) => {
                let state = match action {
                    Action::Throttle => "read_only",
                    Action::DetachDisk => "down",
                    Action::EvacuateDisk => "draining",
                    Action::RepairShards if step.mode != Some(Mode::DataCorruption) => "out",
                    Action::SetMode => "up",
                    _ => return,
                };
                let fact = self.bench.fact.disks.iter_mut().find(|fact| fact.disk == *disk);
                fact.into_iter().for_each(|fact| state.clone_into(&mut fact.state));
            }
            (action, Subject::Hosts(hosts)) => {
                let state = match action {
                    Action::MarkDown => "down",
                    Action::EvacuateHost => "out",
                    Action::MarkUp => "up",
                    _ => return,
                };
                let members = self.bench.fact.members.iter_mut().filter(|member| hosts.contains(&member.node));
                for member in members {
                    (member.state, member.automatic) = (state.to_owned(), state != "up");
                    member.reason.clone_from(&step.reason);
                }
            }
            (action, _) => self.takes_effect_on_node(action, &step.with),
        }
    }

    fn takes_effect_on_node(&mut self, action: Action, with: &str) {
        let fact = &mut self.bench.fact;
        let own = fact.members.iter_mut().find(|member| member.node == NODE);
        match (action, with) {
            (Action::SetMode, "quiet" | "standing") => fact.stands = Some(with == "standing"),
            (Action::SetMode, _) => with.clone_into(&mut fact.mode),
            (Action::Throttle, _) => fact.throttled = with == "on",
            (Action::Demote, _) => own.into_iter().for_each(|own| own.role = "learner".into()),
            (Action::Promote, _) => own.into_iter().for_each(|own| own.role = "voter".into()),
            (Action::RejoinLearner, _) => (fact.phase, fact.damage) = ("healthy".into(), String::new()),
            (Action::StepDown, _) => self.leads(false),
            _ => {}
        }
    }
}
