//! The lease under every schedule: delayed, duplicated, dropped and reordered messages, partitions, frozen and
//! restarted agents, clocks that run at different rates. The same world with a planted bug must break.

mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::types::{Fence, Moment};

const CLUSTER: &str = "c";
const CHAOS_STEPS: u32 = 12_000;
const CALM_STEPS: u32 = 600;

/// SplitMix64: the simulation's only randomness.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

#[derive(Clone, Debug)]
enum Message {
    Ask {
        attempt: u64,
        message: LeaseMessage,
    },
    Answer {
        attempt: u64,
        reply: LeaseReply,
    },
    OpenSlot(SlotRequest),
    SlotOpened(Slot),
    CloseSlot(SlotRequest),
    /// To the target: do the step of this slot.
    Step(Slot),
    StepDone(Slot),
    RaiseFence(Fence),
    FenceRaised,
}

struct Envelope {
    at: u64,
    order: u64,
    from: usize,
    to: usize,
    message: Message,
}

struct Agent {
    disk: Persisted,
    acceptor: Acceptor,
    proposer: Proposer,
    book: Option<SlotBook>,
    acks: BTreeMap<Slot, BTreeSet<usize>>,
    /// Real milliseconds until which it does not run at all.
    frozen_until: u64,
    /// Real milliseconds until which its messages are lost, both ways.
    cut_until: u64,
    /// Its clock: started then, at this rate (per thousand).
    started: u64,
    rate: u64,
}

struct World {
    random: Random,
    /// Real time in milliseconds.
    now: u64,
    order: u64,
    agents: Vec<Agent>,
    wire: Vec<Envelope>,
    mutation: Option<Mutation>,
    chaos: bool,
    // What an all-knowing observer has seen:
    highest_holder: Fence,
    acquired: u64,
    steps_done: u64,
    open: BTreeSet<Slot>,
    admitted: BTreeMap<usize, Fence>,
    violation: Option<String>,
}

fn name(agent: usize) -> String {
    format!("n{agent}")
}

fn index(name: &str) -> usize {
    name[1..].parse().expect("a name of this world")
}

impl World {
    fn new(seed: u64, agents: usize, mutation: Option<Mutation>) -> Self {
        let mut random = Random(seed);
        let agents = (0..agents)
            .map(|agent| {
                let rate = 990 + random.below(21);
                boot(0, agent, agents, rate, Persisted::default(), mutation)
            })
            .collect();
        Self {
            random,
            now: 0,
            order: 0,
            agents,
            wire: Vec::new(),
            mutation,
            chaos: true,
            highest_holder: Fence::default(),
            acquired: 0,
            steps_done: 0,
            open: BTreeSet::new(),
            admitted: BTreeMap::new(),
            violation: None,
        }
    }

    fn local(&self, agent: usize) -> Moment {
        let Agent { started, rate, .. } = self.agents[agent];
        Moment(Duration::from_micros((self.now - started) * rate))
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..CHAOS_STEPS {
            self.disturb();
            self.step()?;
        }
        self.chaos = false;
        for agent in &mut self.agents {
            agent.frozen_until = 0;
            agent.cut_until = 0;
        }
        let before = self.acquired;
        for _ in 0..CALM_STEPS {
            self.step()?;
        }
        let holder = (0..self.agents.len()).any(|agent| self.agents[agent].proposer.fence(self.local(agent)).is_some());
        if holder {
            Ok(())
        } else {
            Err(format!("nobody holds the lease a minute after all is calm ({before} before)"))
        }
    }

    fn disturb(&mut self) {
        let agent = self.random.below(self.agents.len() as u64) as usize;
        if self.random.one_in(120) {
            self.agents[agent].frozen_until = self.now + self.random.below(25_000);
        }
        if self.random.one_in(150) {
            self.agents[agent].cut_until = self.now + self.random.below(25_000);
        }
        if self.random.one_in(200) {
            self.restart(agent);
        }
        if self.random.one_in(2_000) {
            // Power is lost everywhere at once.
            (0..self.agents.len()).for_each(|agent| self.restart(agent));
        }
        if self.random.one_in(300) {
            let eligible = LeaseEvent::Eligible(false);
            self.propose(agent, eligible);
        }
    }

    fn restart(&mut self, agent: usize) {
        let mut disk = self.agents[agent].disk.clone();
        match self.mutation {
            Some(Mutation::ForgetPromise) => disk.promised = Ballot::default(),
            Some(Mutation::ForgetFence) => disk.fence_highest = FenceGate::default(),
            Some(Mutation::ForgetSlots) => disk.slots.clear(),
            _ => {}
        }
        let rate = self.agents[agent].rate;
        self.agents[agent] = boot(self.now, agent, self.agents.len(), rate, disk, self.mutation);
    }

    fn step(&mut self) -> Result<(), String> {
        self.now += 1 + self.random.below(200);
        for agent in 0..self.agents.len() {
            if self.now < self.agents[agent].frozen_until {
                continue;
            }
            // A thawed agent may find its messages before its timer, or after.
            if self.random.one_in(2) {
                self.tick(agent);
            }
            for envelope in self.due(agent) {
                self.deliver(envelope);
                self.check()?;
            }
            self.tick(agent);
            self.act(agent);
            self.check()?;
        }
        Ok(())
    }

    fn due(&mut self, agent: usize) -> Vec<Envelope> {
        let now = self.now;
        let mut due: Vec<Envelope> = self.wire.extract_if(.., |sent| sent.to == agent && sent.at <= now).collect();
        due.sort_by_key(|envelope| (envelope.at, envelope.order));
        due
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let copies = if self.chaos && self.random.one_in(10) { 2 } else { 1 };
        for _ in 0..copies {
            let lost = self.chaos && (self.random.one_in(10) || self.now < self.agents[from].cut_until);
            if lost && from != to {
                continue;
            }
            let slow = self.chaos && self.random.one_in(8);
            let delay = if slow { self.random.below(15_000) } else { self.random.below(250) };
            self.order += 1;
            let (at, order) = (self.now + delay, self.order);
            self.wire.push(Envelope { at, order, from, to, message: message.clone() });
        }
    }

    /// Stores first; `false`: the agent died before it could, and nobody hears an answer.
    fn store(&mut self, agent: usize, persist: Option<Persisted>) -> bool {
        let Some(persisted) = persist else { return true };
        if self.chaos && self.random.one_in(100) {
            self.restart(agent);
            return false;
        }
        self.agents[agent].disk = persisted;
        if self.chaos && self.random.one_in(100) {
            self.restart(agent);
            return false;
        }
        true
    }

    fn deliver(&mut self, Envelope { from, to, message, .. }: Envelope) {
        if from != to && self.now < self.agents[to].cut_until {
            return;
        }
        let now = self.local(to);
        match message {
            Message::Ask { attempt, message } => self.answer(now, from, to, attempt, &message),
            Message::Answer { attempt, reply } => {
                self.propose(to, LeaseEvent::Reply { from: name(from), attempt, reply });
            }
            Message::OpenSlot(request) => {
                let answer = self.agents[to].acceptor.open_slot(&request);
                if self.store(to, answer.persist) && answer.reply.done {
                    self.send(to, from, Message::SlotOpened(request.slot));
                }
            }
            Message::CloseSlot(request) => {
                let answer = self.agents[to].acceptor.close_slot(&request);
                self.store(to, answer.persist);
            }
            Message::SlotOpened(slot) => self.slot_opened(from, to, slot),
            Message::Step(slot) => self.take_effect(from, to, slot),
            Message::StepDone(slot) => self.finish(to, &slot),
            Message::RaiseFence(fence) => {
                let answer = self.agents[to].acceptor.raise_fence(&fence);
                if self.store(to, answer.persist) {
                    let seen = self.admitted.entry(to).or_default();
                    *seen = fence.max(seen.clone());
                    self.send(to, from, Message::FenceRaised);
                }
            }
            Message::FenceRaised => {
                if let Some(book) = &mut self.agents[to].book {
                    book.raised(&name(from));
                }
            }
        }
    }

    fn answer(&mut self, now: Moment, from: usize, to: usize, attempt: u64, message: &LeaseMessage) {
        let acceptor = &mut self.agents[to].acceptor;
        let (persist, reply, granted) = match message {
            LeaseMessage::Prepare(request) => {
                let answer = acceptor.prepare(now, request);
                (answer.persist, LeaseReply::Prepare(answer.reply), None)
            }
            LeaseMessage::Accept(request) => {
                let answer = acceptor.accept(now, request);
                (answer.persist, LeaseReply::Accept(answer.reply), Some(request.ballot.clone()))
            }
            LeaseMessage::Release(request) => return acceptor.release(request),
        };
        if self.store(to, persist) {
            self.send(to, from, Message::Answer { attempt, reply });
            if let Some(ballot) = granted {
                self.agents[to].acceptor.answered(now, &ballot);
            }
        }
    }

    fn propose(&mut self, agent: usize, event: LeaseEvent) {
        let now = self.local(agent);
        for effect in self.agents[agent].proposer.handle(now, event) {
            match effect {
                LeaseEffect::PersistRound(round) => {
                    let persisted = self.agents[agent].acceptor.propose(round);
                    if !self.store(agent, Some(persisted)) {
                        return;
                    }
                }
                LeaseEffect::Send { to, attempt, message } => {
                    self.send(agent, index(&to), Message::Ask { attempt, message });
                }
                LeaseEffect::Acquired { fence, slots } => self.acquired(agent, fence, slots),
                LeaseEffect::Lost { .. } => self.agents[agent].book = None,
            }
        }
    }

    fn tick(&mut self, agent: usize) {
        let random = self.random.below(1000) as u32;
        self.propose(agent, LeaseEvent::Tick { random });
        if self.random.one_in(20) {
            self.propose(agent, LeaseEvent::Eligible(true));
        }
    }

    fn acquired(&mut self, agent: usize, fence: Fence, slots: Vec<Slot>) {
        self.acquired += 1;
        if fence <= self.highest_holder {
            self.violate(format!("{fence} acquired the lease after {}", self.highest_holder));
        }
        self.highest_holder = fence.clone().max(self.highest_holder.clone());
        let known: BTreeSet<Slot> = slots.iter().cloned().collect();
        if let Some(unknown) = self.open.difference(&known).next() {
            self.violate(format!("{fence} does not know of the open slot {unknown:?}"));
        }
        self.agents[agent].book = Some(SlotBook::inherit(fence, slots));
        self.agents[agent].acks.clear();
    }

    /// What a holder does with its lease: settles what it inherited, then one step after the other.
    fn act(&mut self, agent: usize) {
        let now = self.local(agent);
        if self.agents[agent].proposer.fence(now).is_none() || !self.random.one_in(8) {
            return;
        }
        let Some(book) = &mut self.agents[agent].book else { return };
        let fence = book.fence().clone();
        if let Some(slot) = book.unsettled().first() {
            return self.send(agent, index(&slot.target), Message::RaiseFence(fence));
        }
        let settled = book.all().find(|(_, state)| *state == SlotState::Raised).map(|(slot, _)| slot.clone());
        if let Some(slot) = settled {
            return self.finish(agent, &slot);
        }
        let target = self.random.below(self.agents.len() as u64) as usize;
        let step = format!("step-{}", self.now);
        let Some(book) = &mut self.agents[agent].book else { return };
        let opened = match book.blocking() {
            // The answers may have been lost: ask again for the same slot.
            Some(busy) => book.open(&busy.target, &busy.step, "", 0),
            None => book.open(&name(target), &step, "", 0),
        };
        if let Ok(slot) = opened {
            let ballot = book.ballot().clone();
            self.broadcast(agent, &Message::OpenSlot(SlotRequest { ballot, slot }));
        }
    }

    fn slot_opened(&mut self, from: usize, holder: usize, slot: Slot) {
        let need = majority(self.agents.len());
        let now = self.local(holder);
        let agent = &mut self.agents[holder];
        // A holder that thawed after its term must look at its lease before it counts an answer: a successor may have
        // settled and closed the slot by now.
        if agent.proposer.fence(now).is_none() {
            return;
        }
        // Only a slot of this tenure: an inherited one was opened by somebody else's answers.
        let ours = |book: &SlotBook| slot.fence == *book.fence() && book.all().any(|(known, _)| *known == slot);
        if !agent.book.as_ref().is_some_and(ours) {
            return;
        }
        let acks = agent.acks.entry(slot.clone()).or_default();
        acks.insert(from);
        if acks.len() == need {
            self.open.insert(slot.clone());
        }
        if acks.len() >= need {
            let target = index(&slot.target);
            self.send(holder, target, Message::Step(slot));
        }
    }

    fn take_effect(&mut self, from: usize, target: usize, slot: Slot) {
        let answer = self.agents[target].acceptor.admit(&slot.fence);
        if answer.reply.is_ok() {
            let seen = self.admitted.entry(target).or_default().clone();
            if slot.fence < seen {
                self.violate(format!("n{target} let {} pass after {seen}", slot.fence));
            }
        }
        if self.store(target, answer.persist) && answer.reply.is_ok() {
            self.admitted.insert(target, slot.fence.clone());
            self.steps_done += 1;
            self.send(target, from, Message::StepDone(slot));
        }
    }

    fn finish(&mut self, holder: usize, slot: &Slot) {
        let now = self.local(holder);
        let agent = &mut self.agents[holder];
        let Some(book) = agent.book.as_mut().filter(|_| agent.proposer.fence(now).is_some()) else { return };
        if book.closed(slot) {
            let ballot = book.ballot().clone();
            self.open.remove(slot);
            self.broadcast(holder, &Message::CloseSlot(SlotRequest { ballot, slot: slot.clone() }));
        }
    }

    fn broadcast(&mut self, from: usize, message: &Message) {
        (0..self.agents.len()).for_each(|to| self.send(from, to, message.clone()));
    }

    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn check(&mut self) -> Result<(), String> {
        let holds = |agent: &usize| self.agents[*agent].proposer.fence(self.local(*agent)).is_some();
        let holders: Vec<usize> = (0..self.agents.len()).filter(holds).collect();
        if holders.len() > 1 {
            return Err(format!("{holders:?} hold the lease at one instant ({} ms)", self.now));
        }
        self.violation.take().map_or(Ok(()), Err)
    }
}

fn boot(now: u64, agent: usize, agents: usize, rate: u64, disk: Persisted, mutation: Option<Mutation>) -> Agent {
    let names = (0..agents).map(name).collect();
    let options = ProposerOptions::new(&name(agent), CLUSTER, 1, names, disk.proposed);
    let mut proposer = Proposer::new(Moment::default(), options);
    proposer.handle(Moment::default(), LeaseEvent::Eligible(true));
    proposer.mutation = mutation;
    let mut acceptor = Acceptor::start(Moment::default(), AcceptorOptions::new(CLUSTER, 1), disk.clone());
    acceptor.mutation = mutation;
    Agent {
        disk,
        acceptor,
        proposer,
        book: None,
        acks: BTreeMap::new(),
        frozen_until: 0,
        cut_until: 0,
        started: now,
        rate,
    }
}
