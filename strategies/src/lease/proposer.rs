//! The proposer: acquires the lease when nobody holds it, renews it, and gives it up when its own host is ill.
//!
//! Owns: what this agent believes about holding. Must never: believe past its term; use a round twice; count an answer
//! to another question than the one that was asked.
//!
//! Invariants: [`Proposer::fence`] is `Some` only until one [`TERM`] after the moment *before* the last round of
//! requests that a majority granted. Every request carries the attempt it belongs to, and only answers to the present
//! attempt count. A round is stored before it is sent.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::messages::{AcceptReply, AcceptRequest, Ballot, PrepareReply, PrepareRequest, ReleaseRequest, Slot};
use super::{ASK_TIMEOUT, RENEW_EVERY, TERM, majority};
use crate::types::{Fence, Moment};

/// Attempts in vain that still lengthen the wait before the next: 2^5 half seconds.
const MAX_BACKOFF_STEPS: u32 = 5;

/// The shortest wait before an attempt; a random part of the same size comes on top.
const BACKOFF: Duration = Duration::from_millis(500);

/// Attempts of one life of an agent, as a power of two: at one every three seconds, a year and a half.
const ATTEMPTS_PER_LIFE_BITS: u32 = 24;

/// Who proposes, and to whom.
#[derive(Clone, Debug)]
pub struct ProposerOptions {
    /// This agent.
    pub agent: String,
    /// The cluster.
    pub cluster: String,
    /// Its epoch.
    pub epoch: u64,
    /// All acceptors, this agent's own among them if it has one.
    pub acceptors: Vec<String>,
    /// The highest round used in an earlier life: [`Persisted::proposed`](super::Persisted::proposed).
    pub last_round: u64,
    /// How long a holder believes: [`TERM`].
    pub term: Duration,
    /// How often it renews: [`RENEW_EVERY`].
    pub renew_every: Duration,
    /// How long answers are waited for: [`ASK_TIMEOUT`].
    pub ask_timeout: Duration,
}

impl ProposerOptions {
    /// The usual times.
    pub fn new(agent: &str, cluster: &str, epoch: u64, acceptors: Vec<String>, last_round: u64) -> Self {
        Self {
            agent: agent.to_owned(),
            cluster: cluster.to_owned(),
            epoch,
            acceptors,
            last_round,
            term: TERM,
            renew_every: RENEW_EVERY,
            ask_timeout: ASK_TIMEOUT,
        }
    }
}

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseMessage {
    /// Phase 1.
    Prepare(PrepareRequest),
    /// Phase 2, and renewal.
    Accept(AcceptRequest),
    /// Gives it up. Wants no answer.
    Release(ReleaseRequest),
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseReply {
    /// To phase 1.
    Prepare(PrepareReply),
    /// To phase 2.
    Accept(AcceptReply),
}

/// What happens to a proposer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Time passed; come at least every 100 ms.
    Tick {
        /// Randomness from outside, 0 to 999: spreads attempts, so that two agents do not outbid each other for ever.
        random: u32,
    },
    /// An acceptor answered.
    Reply {
        /// Which.
        from: String,
        /// The attempt that the request carried.
        attempt: u64,
        /// What.
        reply: LeaseReply,
    },
    /// Whether this agent may hold: not while its own host has an open incident or its journal cannot be synced.
    Eligible(bool),
}

/// What the proposer wants done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEffect {
    /// Store this round ([`Acceptor::propose`](super::Acceptor::propose)) before the effects after this one.
    PersistRound(u64),
    /// Send this; feed the answer back with the same attempt.
    Send {
        /// To which acceptor (maybe this agent's own).
        to: String,
        /// Goes back with the answer.
        attempt: u64,
        /// What.
        message: LeaseMessage,
    },
    /// This agent holds the lease now.
    Acquired {
        /// What its steps are fenced by.
        fence: Fence,
        /// Slots that former holders left open.
        slots: Vec<Slot>,
    },
    /// It does not any more.
    Lost {
        /// Why, for people.
        why: String,
    },
}

/// A change of the acceptors by more than one at a time: majorities before and after might not meet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease's acceptors would change by {changed} members at once ({before:?} to {after:?}): one at a time")]
pub struct BadMembers {
    /// How many differ.
    pub changed: usize,
    /// As they are.
    pub before: Vec<String>,
    /// As they would be.
    pub after: Vec<String>,
}

/// Where a proposer stands, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeaseState {
    /// idle | preparing | accepting | holding.
    pub state: &'static str,
    /// The holder as last heard, this agent included; empty: nobody known.
    pub holder: String,
    /// The ballot round of the present or last attempt.
    pub round: u64,
    /// Whether it may hold.
    pub eligible: bool,
    /// How long this agent still holds; 0: it does not.
    pub left_ms: u64,
}

#[derive(Clone, Debug)]
enum State {
    /// Not before this moment.
    Idle { until: Moment },
    /// Asked for promises.
    Preparing { asked: Moment, promised: BTreeSet<String>, slots: BTreeSet<Slot> },
    /// Asked for grants.
    Accepting { asked: Moment, granted: BTreeSet<String>, slots: BTreeSet<Slot> },
    /// Holds until `expires`; `renewal` is under way.
    Holding { expires: Moment, next: Moment, renewal: Option<(Moment, BTreeSet<String>)> },
}

/// One agent's proposer.
#[derive(Clone, Debug)]
pub struct Proposer {
    options: ProposerOptions,
    eligible: bool,
    round: u64,
    attempt: u64,
    failures: u32,
    state: State,
    /// Who else holds, as last heard, and until when that may be so.
    other: Option<(String, Moment)>,
    #[cfg(test)]
    pub(crate) mutation: Option<super::Mutation>,
}

impl Proposer {
    /// A proposer that does not hold, and is not eligible until told.
    pub fn new(now: Moment, options: ProposerOptions) -> Self {
        let round = options.last_round;
        Self {
            options,
            eligible: false,
            round,
            // No attempt of an earlier life has this number: each life stored a higher round before it sent anything.
            attempt: round << ATTEMPTS_PER_LIFE_BITS,
            failures: 0,
            state: State::Idle { until: now },
            other: None,
            #[cfg(test)]
            mutation: None,
        }
    }

    /// The fence of the lease this agent holds at this moment. Ask anew before every use: time passes.
    pub fn fence(&self, now: Moment) -> Option<Fence> {
        match self.state {
            State::Holding { expires, .. } if now < expires => Some(self.ballot().fence(self.options.epoch)),
            _ => None,
        }
    }

    /// Who holds the lease, as far as this agent knows.
    pub fn holder(&self, now: Moment) -> Option<&str> {
        if self.fence(now).is_some() {
            return Some(&self.options.agent);
        }
        self.other.as_ref().filter(|(_, until)| now < *until).map(|(holder, _)| holder.as_str())
    }

    /// For people.
    pub fn status(&self, now: Moment) -> LeaseState {
        let (state, left) = match &self.state {
            State::Idle { .. } => ("idle", Duration::ZERO),
            State::Preparing { .. } => ("preparing", Duration::ZERO),
            State::Accepting { .. } => ("accepting", Duration::ZERO),
            State::Holding { expires, .. } => ("holding", expires.since(now)),
        };
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let holder = self.holder(now).unwrap_or_default().to_owned();
        LeaseState { state, holder, round: self.round, eligible: self.eligible, left_ms }
    }

    /// The acceptors changed: by one, never more.
    pub fn set_acceptors(&mut self, acceptors: Vec<String>) -> Result<(), BadMembers> {
        let before: BTreeSet<&String> = self.options.acceptors.iter().collect();
        let after: BTreeSet<&String> = acceptors.iter().collect();
        let changed = before.symmetric_difference(&after).count();
        if changed > 1 {
            return Err(BadMembers { changed, before: self.options.acceptors.clone(), after: acceptors });
        }
        self.options.acceptors = acceptors;
        Ok(())
    }

    /// The cluster's epoch rose (it never falls). What was asked for or is held under the one before fences nothing any more, and
    /// is given up.
    pub fn set_epoch(&mut self, now: Moment, epoch: u64) -> Vec<LeaseEffect> {
        let mut effects = Vec::new();
        if epoch > self.options.epoch {
            self.expire(now, &mut effects);
            self.give_up(now, "the cluster is in a new epoch", &mut effects);
            self.options.epoch = epoch;
        }
        effects
    }

    /// Somebody else was seen to hold the lease (a ping said so, or this agent's own acceptor granted it).
    pub fn heard(&mut self, now: Moment, holder: &str, left: Duration) {
        if holder != self.options.agent {
            self.other = Some((holder.to_owned(), now + left));
        }
    }

    /// Whoever held it gave it up (this agent's own acceptor saw the release): no need to wait until it runs out.
    pub fn freed(&mut self, now: Moment, random: u32) {
        self.other = None;
        if let State::Idle { until } = &mut self.state {
            *until = now + spread(BACKOFF, random).saturating_sub(BACKOFF);
        }
    }

    /// Takes one event.
    pub fn handle(&mut self, now: Moment, event: LeaseEvent) -> Vec<LeaseEffect> {
        let mut effects = Vec::new();
        self.expire(now, &mut effects);
        match event {
            LeaseEvent::Tick { random } => self.tick(now, random, &mut effects),
            LeaseEvent::Eligible(eligible) => {
                self.eligible = eligible;
                if !eligible {
                    self.give_up(now, "this agent is not fit to hold it now", &mut effects);
                }
            }
            // An answer to an attempt that is over says nothing about the present one.
            LeaseEvent::Reply { attempt, .. } if attempt != self.attempt => {}
            LeaseEvent::Reply { from, reply: LeaseReply::Prepare(reply), .. } => {
                self.prepared(now, from, reply, &mut effects);
            }
            LeaseEvent::Reply { from, reply: LeaseReply::Accept(reply), .. } => {
                self.accepted(now, from, reply, &mut effects);
            }
        }
        effects
    }

    fn tick(&mut self, now: Moment, random: u32, effects: &mut Vec<LeaseEffect>) {
        let timeout = self.options.ask_timeout;
        match &mut self.state {
            State::Idle { until } if now < *until || !self.eligible => {}
            State::Idle { .. } => match &self.other {
                // Ask again when the other's lease can have run out, each agent a little later than that.
                Some((_, expires)) if now < *expires => {
                    self.state = State::Idle { until: *expires + spread(BACKOFF, random) };
                }
                _ => self.prepare(now, effects),
            },
            State::Preparing { asked, .. } | State::Accepting { asked, .. } => {
                if now.since(*asked) >= timeout {
                    self.failed(now, random);
                }
            }
            State::Holding { next, renewal, .. } => {
                if now >= *next {
                    *next = now + self.options.renew_every;
                    *renewal = Some((now, BTreeSet::new()));
                    self.ask_grants(effects);
                }
            }
        }
    }

    fn prepare(&mut self, now: Moment, effects: &mut Vec<LeaseEffect>) {
        self.round += 1;
        effects.push(LeaseEffect::PersistRound(self.round));
        let request =
            PrepareRequest { ballot: self.ballot(), cluster: self.options.cluster.clone(), epoch: self.options.epoch };
        self.send(&LeaseMessage::Prepare(request), effects);
        self.state = State::Preparing { asked: now, promised: BTreeSet::new(), slots: BTreeSet::new() };
    }

    fn prepared(&mut self, now: Moment, from: String, reply: PrepareReply, effects: &mut Vec<LeaseEffect>) {
        let need = self.need();
        if !reply.promised {
            self.refused(now, &reply.highest);
            if !reply.granted_to.is_empty() {
                self.heard(now, &reply.granted_to, Duration::from_millis(reply.granted_left_ms));
            }
            return;
        }
        let State::Preparing { promised, slots, .. } = &mut self.state else { return };
        #[cfg(test)]
        let skip = self.mutation == Some(super::Mutation::FirstSlotsOnly) && !promised.is_empty();
        #[cfg(not(test))]
        let skip = false;
        if !skip {
            slots.extend(reply.slots);
        }
        promised.insert(from);
        if promised.len() < need {
            return;
        }
        let slots = std::mem::take(slots);
        self.state = State::Accepting { asked: now, granted: BTreeSet::new(), slots };
        self.ask_grants(effects);
    }

    fn accepted(&mut self, now: Moment, from: String, reply: AcceptReply, effects: &mut Vec<LeaseEffect>) {
        let need = self.need();
        if !reply.accepted {
            // A holder goes on until its term ends: a minority that refuses takes nothing away.
            if matches!(self.state, State::Accepting { .. }) {
                self.refused(now, &reply.highest);
            }
            return;
        }
        #[cfg(test)]
        let from_answer = self.mutation == Some(super::Mutation::CountFromAnswer);
        #[cfg(not(test))]
        let from_answer = false;
        let counted = |asked: Moment| if from_answer { now } else { asked };
        match &mut self.state {
            State::Accepting { asked, granted, slots } => {
                granted.insert(from);
                if granted.len() < need {
                    return;
                }
                let expires = counted(*asked) + self.options.term;
                if now >= expires {
                    return;
                }
                let slots = std::mem::take(slots).into_iter().collect();
                let next = *asked + self.options.renew_every;
                self.state = State::Holding { expires, next, renewal: None };
                self.failures = 0;
                self.other = None;
                effects.push(LeaseEffect::Acquired { fence: self.ballot().fence(self.options.epoch), slots });
            }
            State::Holding { expires, renewal: renewal @ Some(_), .. } => {
                let Some((asked, granted)) = renewal else { return };
                granted.insert(from);
                if granted.len() >= need {
                    *expires = (*expires).max(counted(*asked) + self.options.term);
                    *renewal = None;
                }
            }
            _ => {}
        }
    }

    /// An acceptor refused: remember how high others are; the attempt goes on, others may still agree.
    fn refused(&mut self, now: Moment, highest: &Ballot) {
        let outbid = highest.round > self.round;
        if outbid && matches!(self.state, State::Preparing { .. } | State::Accepting { .. }) {
            // The next attempt must be above it, or it would be in vain.
            self.round = highest.round;
            self.attempt += 1;
            self.failures = (self.failures + 1).min(MAX_BACKOFF_STEPS);
            self.state = State::Idle { until: now + BACKOFF };
        }
    }

    fn failed(&mut self, now: Moment, random: u32) {
        let wait = BACKOFF * 2u32.pow(self.failures);
        self.failures = (self.failures + 1).min(MAX_BACKOFF_STEPS);
        // Late answers to it must not count: the next attempt has a number of its own.
        self.attempt += 1;
        self.state = State::Idle { until: now + spread(wait, random) };
    }

    fn expire(&mut self, now: Moment, effects: &mut Vec<LeaseEffect>) {
        if let State::Holding { expires, .. } = self.state
            && now >= expires
        {
            self.attempt += 1;
            self.state = State::Idle { until: now + BACKOFF };
            effects.push(LeaseEffect::Lost { why: "no majority of agents renewed it in time".to_owned() });
        }
    }

    fn give_up(&mut self, now: Moment, why: &str, effects: &mut Vec<LeaseEffect>) {
        if matches!(self.state, State::Idle { .. }) {
            return;
        }
        let held = matches!(self.state, State::Holding { .. });
        self.send(&LeaseMessage::Release(ReleaseRequest { ballot: self.ballot() }), effects);
        self.state = State::Idle { until: now + BACKOFF };
        if held {
            effects.push(LeaseEffect::Lost { why: format!("given up: {why}") });
        }
    }

    fn ask_grants(&mut self, effects: &mut Vec<LeaseEffect>) {
        let request =
            AcceptRequest { ballot: self.ballot(), cluster: self.options.cluster.clone(), epoch: self.options.epoch };
        self.send(&LeaseMessage::Accept(request), effects);
    }

    fn send(&mut self, message: &LeaseMessage, effects: &mut Vec<LeaseEffect>) {
        self.attempt += 1;
        let attempt = self.attempt;
        let to = |to: &String| LeaseEffect::Send { to: to.clone(), attempt, message: message.clone() };
        effects.extend(self.options.acceptors.iter().map(to));
    }

    fn ballot(&self) -> Ballot {
        Ballot { round: self.round, agent: self.options.agent.clone() }
    }

    fn need(&self) -> usize {
        #[cfg(test)]
        if self.mutation == Some(super::Mutation::MinorityWins) {
            return 1;
        }
        majority(self.options.acceptors.len())
    }
}

/// A wait between one and two times `base`.
fn spread(base: Duration, random: u32) -> Duration {
    base + base.mul_f64(f64::from(random.min(999)) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only acceptor, and it grants.
    fn holding(now: Moment) -> Proposer {
        let mut proposer = Proposer::new(now, ProposerOptions::new("n1", "c", 1, vec!["n1".to_owned()], 0));
        proposer.handle(now, LeaseEvent::Eligible(true));
        let asked = proposer.handle(now, LeaseEvent::Tick { random: 0 });
        assert!(asked.iter().any(|effect| matches!(effect, LeaseEffect::Send { .. })), "{asked:?}");
        let promise = LeaseReply::Prepare(PrepareReply { promised: true, ..PrepareReply::default() });
        let (from, attempt) = ("n1".to_owned(), proposer.attempt);
        proposer.handle(now, LeaseEvent::Reply { from: from.clone(), attempt, reply: promise });
        let grant = LeaseReply::Accept(AcceptReply { accepted: true, ..AcceptReply::default() });
        let attempt = proposer.attempt;
        let won = proposer.handle(now, LeaseEvent::Reply { from, attempt, reply: grant });
        assert!(won.iter().any(|effect| matches!(effect, LeaseEffect::Acquired { .. })), "{won:?}");
        proposer
    }

    /// Found in review: after a forced quorum agents that went on running asked under the epoch before for ever. Acceptors of
    /// the new one refused them, and what they were granted by others fenced nothing: nothing was healed before a restart.
    #[test]
    fn a_new_epoch_ends_the_lease_of_the_one_before_and_the_next_is_asked_for_in_it() {
        let now = Moment::default();
        let mut proposer = holding(now);
        assert_eq!(proposer.fence(now).map(|fence| fence.epoch), Some(1));
        assert_eq!(proposer.set_epoch(now, 1), [], "nothing new");
        let lost = proposer.set_epoch(now, 2);
        assert!(lost.iter().any(|effect| matches!(effect, LeaseEffect::Lost { .. })), "{lost:?}");
        assert_eq!(proposer.fence(now), None);
        assert_eq!(proposer.set_epoch(now, 1), [], "it never falls");
        let later = now + BACKOFF * 3;
        let asked = proposer.handle(later, LeaseEvent::Tick { random: 0 });
        let under = asked.iter().find_map(|effect| match effect {
            LeaseEffect::Send { message: LeaseMessage::Prepare(request), .. } => Some(request.epoch),
            _ => None,
        });
        assert_eq!(under, Some(2), "{asked:?}");
    }
}
