//! Watches the commands and holds the engine to its promises, command by command, each at the time at which it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use resilver_strategies::api::{Command, IncidentId, Step, StepId};
use resilver_strategies::config::PolicyConfig;
use resilver_strategies::engine::{APPROVAL_LASTS, MAX_OPEN, MAX_RECENT, OFFER_LASTS, Rung};
use resilver_strategies::record::{Draft, RecordKind};
use resilver_strategies::types::{Action, Authority, Fence, Grade, Mode};

use crate::bounds;
use crate::climb::Climb;
use crate::common::Bench;

/// What stories have come to.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// How many incidents of each mode were opened.
    pub opened: BTreeMap<Mode, u64>,
    /// How many steps of each mode and grade were begun; `None`: an operator's.
    pub begun: BTreeMap<(Option<Mode>, u8), u64>,
    /// Steps that were taken back, and done again because the node showed them no more.
    pub taken_back: u64,
    pub again: u64,
    /// Steps that a person approved.
    pub approved: u64,
    /// Tokens that were worth nothing, by why.
    pub refused: BTreeMap<String, u64>,
}

impl Reach {
    pub fn add(&mut self, other: &Reach) {
        other.opened.iter().for_each(|(mode, count)| *self.opened.entry(*mode).or_default() += count);
        other.begun.iter().for_each(|(of, count)| *self.begun.entry(*of).or_default() += count);
        other.refused.iter().for_each(|(why, count)| *self.refused.entry(why.clone()).or_default() += count);
        self.taken_back += other.taken_back;
        self.again += other.again;
        self.approved += other.approved;
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = format!("{:<22}{:>7} |", "mode", "opened");
        for grade in 0..=5 {
            let _ = write!(table, "{:>7}", format!("g{grade}"));
        }
        for mode in Mode::ALL.iter().map(|mode| Some(*mode)).chain([None]) {
            let name = mode.map_or("(operator)", Mode::as_str);
            let opened = mode.and_then(|mode| self.opened.get(&mode)).copied().unwrap_or(0);
            let _ = write!(table, "\n{name:<22}{opened:>7} |");
            for grade in 0..=5 {
                let count = self.begun.get(&(mode, grade)).copied().unwrap_or(0);
                let _ = write!(table, "{:>7}", if count == 0 { "-".to_owned() } else { count.to_string() });
            }
        }
        let _ =
            write!(table, "\ntaken back: {}, done again: {}, approved: {}", self.taken_back, self.again, self.approved);
        for (why, count) in &self.refused {
            let _ = write!(table, "\ntoken refused {count} times: {why}");
        }
        table
    }
}

/// A token that the engine took for an offer.
#[derive(Clone, Debug)]
pub struct Token {
    pub hash: String,
    pub at_ms: u64,
    pub used: bool,
}

/// See the module.
#[derive(Default)]
pub struct Watcher {
    seen: usize,
    /// Durable intents without an execution yet.
    intents: BTreeSet<StepId>,
    executed: BTreeSet<StepId>,
    /// Begun, and nothing heard of their end.
    pub in_flight: BTreeMap<StepId, Step>,
    /// Slots that were asked for, or came with an operator's order, and are not closed.
    pub slots: BTreeSet<StepId>,
    /// Those of them that nobody has answered.
    pub asked: BTreeSet<StepId>,
    /// Those that this life of the agent closed: the next one does not know whether the one before came to it.
    closed: BTreeSet<StepId>,
    /// Proofs that are sought.
    pub proofs: BTreeSet<IncidentId>,
    /// Incidents for which a token is to be drawn.
    pub offers: Vec<IncidentId>,
    /// Tokens by incident, the newest last. Those of an earlier life of the agent are worth nothing.
    pub tokens: BTreeMap<IncidentId, Vec<Token>>,
    /// The token that a person gives right now.
    pub given: Option<String>,
    /// Approvals that have begun no step yet, and since when.
    approved: BTreeMap<IncidentId, u64>,
    /// Until when a pause is in force.
    pub paused_until: Option<u64>,
    /// The lease's fence, while it is held.
    pub lease: Option<Fence>,
    climbs: BTreeMap<IncidentId, Climb>,
    /// An operator's restart has failed, or was not answered in time, and nothing has been heard of the node since: an end
    /// seen now may be that restart's own, and bringing the node back is right.
    pub restart_failed: bool,
    pub reach: Reach,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Watcher {
    /// Looks at what is new. To be called before a pause, or the lease, changes: what was commanded until then is judged by what held
    /// until then.
    pub fn look(&mut self, bench: &Bench) {
        for (command, at) in bench.commands.iter().zip(&bench.at).skip(self.seen) {
            let paused = self.paused_until.is_some_and(|until| *at < until);
            match command {
                Command::Record { draft, durable } => self.record(bench, draft, *durable, *at),
                Command::Execute(step) => {
                    assert!(!paused, "{step:?} during a pause");
                    self.begins(bench, step, *at);
                }
                Command::TakeSlot(step) => {
                    assert!(!paused, "{step:?}: a slot asked for during a pause");
                    assert!(step.disruptive, "{step:?} needs no slot");
                    self.alone(step);
                    self.slots.insert(step.id);
                    self.asked.insert(step.id);
                }
                Command::CloseSlot { step, .. } => {
                    assert!(self.closed.insert(step.id), "slot of {step:?} closed twice in one life");
                    self.slots.remove(&step.id);
                    self.asked.remove(&step.id);
                }
                Command::Prove { incident, .. } => {
                    self.proofs.insert(incident.clone());
                }
                Command::OfferApproval { incident, grade, .. } => {
                    assert!(!paused, "{incident}: an approval offered during a pause would begin nothing");
                    assert!(*grade < Grade::APPROVE, "{incident}: what only a person does is offered as the agent's");
                    self.offers.push(incident.clone());
                }
                Command::Answer { incident, result } => self.answered(incident, result.is_ok(), *at),
            }
            if let Command::Answer { result: Err((_, why)), .. } = command {
                let why = why.split([':', ',']).next().unwrap_or_default();
                let why = if why.starts_with("no incident") { "no such incident is open" } else { why };
                let why = if why.contains("approved it already") { "somebody approved it already" } else { why };
                *self.reach.refused.entry(why.to_owned()).or_default() += 1;
            }
        }
        self.seen = bench.commands.len();
        assert!(bench.engine.open_incidents() <= MAX_OPEN);
    }

    /// Nothing else that is disruptive is asked for, under way, or done and not verified.
    fn alone(&self, step: &Step) {
        let slot = self.slots.iter().find(|slot| **slot != step.id);
        assert!(slot.is_none(), "{step:?} while the slot of {slot:?} is not closed");
        let other = self.in_flight.values().find(|other| other.disruptive && other.id != step.id);
        assert!(other.is_none(), "{step:?} beside {other:?}");
    }

    fn begins(&mut self, bench: &Bench, step: &Step, at: u64) {
        assert!(self.intents.remove(&step.id), "{step:?} without an intent before it");
        assert!(self.executed.insert(step.id), "{step:?} executed twice");
        assert!(step.grade < Grade::APPROVE, "{step:?} is a person's");
        assert_ne!(step.mode, Some(Mode::CascadingFailure), "a cascade is told, never treated");
        if step.disruptive {
            self.alone(step);
        }
        match (step.mode, step.disruptive) {
            (Some(Mode::HostDown), _) => assert!(
                step.fence.is_some() && step.fence == self.lease,
                "{step:?} under another fence than the lease's, {:?}",
                self.lease
            ),
            (Some(_), true) => {
                assert!(step.fence.is_some() && self.slots.contains(&step.id), "{step:?} without a slot");
            }
            (Some(_), false) => assert_eq!(step.fence, None, "{step:?}"),
            (None, disruptive) => {
                let action = if disruptive { Action::RestartNode } else { Action::StartNode };
                assert_eq!((step.action, step.fence.is_some(), &step.incident), (action, true, &None), "{step:?}");
                if disruptive {
                    self.slots.insert(step.id);
                }
            }
        }
        if let (Some(mode), Some(incident)) = (step.mode, &step.incident) {
            let other = self.in_flight.values().find(|other| other.incident.as_ref() == Some(incident));
            assert!(other.is_none(), "{step:?} before {other:?} has ended");
            let climb = self.climbs.entry(incident.clone()).or_default();
            let rung = climb.begins(&bench.policy, mode, step);
            self.allowed(&bench.policy, mode, incident, step, rung.as_ref(), at);
            self.reach.taken_back += u64::from(crate::climb::takes_back(step));
            self.reach.again += u64::from(step.again);
        }
        *self.reach.begun.entry((step.mode, step.grade.0)).or_default() += 1;
        self.in_flight.insert(step.id, step.clone());
    }

    /// What is configured allows it, or a person did: for this step, once, and not long ago.
    fn allowed(
        &mut self,
        policy: &PolicyConfig,
        mode: Mode,
        incident: &IncidentId,
        step: &Step,
        rung: Option<&Rung>,
        at: u64,
    ) {
        // As if the cluster was old: what its first day holds back is told by other tests.
        let (mut authority, _) = policy.authority_at(mode, step.grade, step.disruptive, Duration::MAX);
        if rung.is_some_and(|rung| rung.approval) {
            authority = authority.min(Authority::Approve);
        }
        assert!(authority >= Authority::Approve, "{step:?}, and authority is only {authority}");
        if authority == Authority::Auto && step.approved_by.is_empty() {
            return;
        }
        assert!(!step.approved_by.is_empty(), "{step:?} needs a person's approval");
        assert!(!step.again, "{step:?}: an approval spent on what is only done again");
        let Some(since) = self.approved.remove(incident) else {
            panic!("{step:?} by an approval that nobody gave, or that has begun a step already")
        };
        assert!(at < since + millis(APPROVAL_LASTS), "{step:?} by an approval of {} ms ago", at - since);
        self.reach.approved += 1;
    }

    /// The engine's answer to a person's token.
    fn answered(&mut self, incident: &IncidentId, taken: bool, at: u64) {
        let hash = self.given.take().expect("nobody gave a token");
        if !taken {
            return;
        }
        let newest = self.tokens.get_mut(incident).and_then(|tokens| tokens.last_mut());
        let Some(token) = newest.filter(|token| token.hash == hash) else {
            panic!("{incident}: token {hash} was taken, and is not the one that was offered last")
        };
        assert!(!token.used, "{incident}: token {hash} was taken twice");
        assert!(at < token.at_ms + millis(OFFER_LASTS), "{incident}: token {hash} was taken after it had expired");
        token.used = true;
        self.approved.insert(incident.clone(), at);
    }

    fn record(&mut self, bench: &Bench, draft: &Draft, durable: bool, at: u64) {
        match draft.kind {
            RecordKind::Intent => {
                assert!(durable, "an intent that is not durable");
                self.intents.insert(StepId(draft.step.expect("an intent names its step")));
            }
            RecordKind::Outcome | RecordKind::Reconciled => {
                self.restart_failed |= draft.action == Action::RestartNode && draft.text("resolution") != Some("done");
                self.in_flight.remove(&StepId(draft.step.expect("an outcome names its step")));
            }
            _ => {}
        }
        let (Some(incident), Some(mode)) = (&draft.incident, draft.mode) else { return };
        if draft.kind == RecordKind::Opened {
            *self.reach.opened.entry(mode).or_default() += 1;
            // An incident that another agent goes on with keeps its name, and begins its ladder anew.
            self.climbs.insert(incident.clone(), Climb::default());
        }
        let offered = draft.kind == RecordKind::Note && draft.action == Action::Approve && draft.text("to").is_some();
        if let Some(hash) = draft.text("token_sha256").filter(|_| offered) {
            let token = Token { hash: hash.to_owned(), at_ms: at, used: false };
            self.tokens.entry(incident.clone()).or_default().push(token);
        }
        self.climbs.entry(incident.clone()).or_default().hears(&bench.policy, mode, draft);
    }

    /// The agent died: slots that were granted to it are settled by the lease's holder, and nobody waits for its answers.
    pub fn agent_died(&mut self) {
        self.slots.clear();
        self.asked.clear();
        self.closed.clear();
        self.proofs.clear();
        self.offers.clear();
        self.tokens.clear();
        self.approved.clear();
        self.lease = None;
    }

    /// What a story must have kept when it ends.
    pub fn end(&self, bench: &Bench) {
        let incidents = bench.engine.incidents();
        let open = incidents.iter().filter(|incident| incident.closed_ms.is_none()).count();
        assert!(open <= MAX_OPEN && incidents.len() - open <= MAX_RECENT);
        bounds::hold(&bench.engine);
    }
}
