//! The acceptor beside each voter: promises, grants, remembers slots, and keeps this host's fence gate.
//!
//! Owns: what must be on disk for the lease to be safe ([`Persisted`]). Must never: have an answer sent, or a step
//! begun, before the state that came with it is on disk.
//!
//! Invariants: a promise never goes down; at most one unexpired grant at a time; a grant is not persisted, so an
//! acceptor that was restarted answers nothing for one lease time: by then all it granted before has run out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gate::{FenceGate, Stale};
use super::messages::{
    AcceptReply, AcceptRequest, Ballot, PrepareReply, PrepareRequest, ReleaseRequest, Slot, SlotReply, SlotRequest,
};
use super::{LEASE, MAX_SLOTS};
use crate::types::{Fence, Moment};

/// Version of [`Persisted`].
const FORMAT: u32 = 1;

/// What an agent keeps on disk for the lease: replaced as a whole, atomically, synced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persisted {
    /// Version of this shape.
    pub format: u32,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The highest round this agent's own proposer ever used: a round is never used twice, over restarts either.
    pub proposed: u64,
    /// Open slots.
    pub slots: Vec<Slot>,
    /// The highest fence that this host's gate has seen.
    pub fence_highest: FenceGate,
}

impl Default for Persisted {
    fn default() -> Self {
        Self {
            format: FORMAT,
            promised: Ballot::default(),
            proposed: 0,
            slots: Vec::new(),
            fence_highest: FenceGate::default(),
        }
    }
}

/// An answer, and what must be on disk before it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Answer<R> {
    /// Store this first, if it is there. When that fails: do not answer; the state in memory is only stricter.
    pub persist: Option<Persisted>,
    /// The answer.
    pub reply: R,
}

/// A grant that has not run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// By which ballot; its agent holds the lease.
    pub ballot: Ballot,
    /// Until when, on this agent's clock.
    pub until: Moment,
}

/// Who this acceptor is for.
#[derive(Clone, Debug)]
pub struct AcceptorOptions {
    /// The cluster; requests of another one are refused.
    pub cluster: String,
    /// Its epoch; requests of an older one are refused.
    pub epoch: u64,
    /// How long a grant lasts: [`LEASE`].
    pub lease: Duration,
}

impl AcceptorOptions {
    /// The usual lease, for this cluster.
    pub fn new(cluster: &str, epoch: u64) -> Self {
        Self { cluster: cluster.to_owned(), epoch, lease: LEASE }
    }
}

/// One acceptor.
#[derive(Clone, Debug)]
pub struct Acceptor {
    options: AcceptorOptions,
    persisted: Persisted,
    grant: Option<Grant>,
    /// It was started: it may have granted just before, and has forgotten.
    quiet_until: Moment,
    #[cfg(test)]
    pub(crate) mutation: Option<super::Mutation>,
}

impl Acceptor {
    /// An acceptor that starts now with what its disk holds (nothing: [`Persisted::default`]; a lost file and a first
    /// start look alike, so both wait).
    pub fn start(now: Moment, options: AcceptorOptions, persisted: Persisted) -> Self {
        let quiet_until = now + options.lease;
        Self {
            options,
            persisted,
            grant: None,
            quiet_until,
            #[cfg(test)]
            mutation: None,
        }
    }

    /// What the disk should hold by now.
    pub fn persisted(&self) -> &Persisted {
        &self.persisted
    }

    /// The cluster's epoch rose (it never falls).
    pub fn set_epoch(&mut self, epoch: u64) {
        self.options.epoch = self.options.epoch.max(epoch);
    }

    /// The unexpired grant: who holds the lease, as far as this acceptor knows.
    pub fn granted(&self, now: Moment) -> Option<&Grant> {
        self.grant.as_ref().filter(|grant| now < grant.until)
    }

    /// Phase 1.
    pub fn prepare(&mut self, now: Moment, request: &PrepareRequest) -> Answer<PrepareReply> {
        let grant = self.granted(now).cloned();
        let refusal = self
            .refuse(now, &request.cluster, request.epoch)
            .or_else(|| self.refuse_holder(grant.as_ref(), &request.ballot))
            // An equal ballot would be an attempt of a former life with the same round: never twice.
            .or_else(|| (request.ballot <= self.persisted.promised).then(|| self.outbid(&request.ballot)));
        if refusal.is_none() {
            self.persisted.promised = request.ballot.clone();
            // Its own former grant: that life is over, and must not keep the new one from being granted.
            self.grant = None;
        }
        let left = grant.as_ref().map_or(Duration::ZERO, |grant| grant.until.since(now));
        let reply = PrepareReply {
            promised: refusal.is_none(),
            highest: self.persisted.promised.clone(),
            granted_to: grant.map(|grant| grant.ballot.agent).unwrap_or_default(),
            granted_left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            slots: self.persisted.slots.clone(),
            refusal: refusal.unwrap_or_default(),
        };
        Answer { persist: reply.promised.then(|| self.persisted.clone()), reply }
    }

    /// Phase 2, and renewal: grants from now on for one lease time.
    pub fn accept(&mut self, now: Moment, request: &AcceptRequest) -> Answer<AcceptReply> {
        let refusal = self
            .refuse(now, &request.cluster, request.epoch)
            .or_else(|| self.refuse_holder(self.granted(now), &request.ballot))
            .or_else(|| (request.ballot < self.persisted.promised).then(|| self.outbid(&request.ballot)));
        let mut persist = None;
        if refusal.is_none() {
            if request.ballot > self.persisted.promised {
                self.persisted.promised = request.ballot.clone();
                persist = Some(self.persisted.clone());
            }
            self.grant = Some(Grant { ballot: request.ballot.clone(), until: now + self.options.lease });
        }
        let highest = self.persisted.promised.clone();
        let reply = AcceptReply { accepted: refusal.is_none(), highest, refusal: refusal.unwrap_or_default() };
        Answer { persist, reply }
    }

    /// The answer to [`Self::accept`] has been sent: granters count from after answering.
    pub fn answered(&mut self, now: Moment, ballot: &Ballot) {
        let until = now + self.options.lease;
        if let Some(grant) = self.grant.as_mut().filter(|grant| grant.ballot == *ballot) {
            grant.until = grant.until.max(until);
        }
    }

    /// The holder gave it up. Another ballot's release is late and means nothing.
    pub fn release(&mut self, request: &ReleaseRequest) {
        if self.grant.as_ref().is_some_and(|grant| grant.ballot == request.ballot) {
            self.grant = None;
        }
    }

    /// Remembers an open slot. Repeating it changes nothing.
    pub fn open_slot(&mut self, request: &SlotRequest) -> Answer<SlotReply> {
        let SlotRequest { ballot, slot } = request;
        if *ballot < self.persisted.promised {
            return Answer { persist: None, reply: SlotReply { done: false, refusal: self.outbid(ballot) } };
        }
        if slot.fence.round != ballot.round || slot.fence.holder != ballot.agent {
            let refusal = format!("fence {} is not of ballot {}.{}", slot.fence, ballot.round, ballot.agent);
            return Answer { persist: None, reply: SlotReply { done: false, refusal } };
        }
        if self.persisted.slots.contains(slot) {
            return Answer { persist: None, reply: SlotReply { done: true, refusal: String::new() } };
        }
        if self.persisted.slots.len() >= MAX_SLOTS {
            let refusal = format!("{MAX_SLOTS} slots are open here already: verify and close them first");
            return Answer { persist: None, reply: SlotReply { done: false, refusal } };
        }
        self.persisted.promised = ballot.clone();
        self.persisted.slots.push(slot.clone());
        Answer { persist: Some(self.persisted.clone()), reply: SlotReply { done: true, refusal: String::new() } }
    }

    /// Forgets a slot that was verified or given up for good. Repeating it changes nothing.
    pub fn close_slot(&mut self, request: &SlotRequest) -> Answer<SlotReply> {
        if request.ballot < self.persisted.promised {
            return Answer { persist: None, reply: SlotReply { done: false, refusal: self.outbid(&request.ballot) } };
        }
        let before = self.persisted.slots.len();
        let closed = &request.slot;
        let same = |slot: &Slot| slot.target == closed.target && slot.step == closed.step && slot.fence == closed.fence;
        self.persisted.slots.retain(|slot| !same(slot));
        let persist = (self.persisted.slots.len() != before).then(|| self.persisted.clone());
        Answer { persist, reply: SlotReply { done: true, refusal: String::new() } }
    }

    /// This agent's own proposer is about to use a round. Store before anything is sent.
    pub fn propose(&mut self, round: u64) -> Persisted {
        self.persisted.proposed = self.persisted.proposed.max(round);
        self.persisted.clone()
    }

    /// A step is about to take effect on this host under `fence`: only with `Ok`, and after the state is on disk.
    pub fn admit(&mut self, fence: &Fence) -> Answer<Result<(), Stale>> {
        let admitted = self.persisted.fence_highest.admit(fence);
        let persist = matches!(admitted, Ok(true)).then(|| self.persisted.clone());
        Answer { persist, reply: admitted.map(|_| ()) }
    }

    /// From now on refuse lower fences. Answers the highest.
    pub fn raise_fence(&mut self, fence: &Fence) -> Answer<Fence> {
        let Answer { persist, .. } = self.admit(fence);
        Answer { persist, reply: self.persisted.fence_highest.highest().clone() }
    }

    fn refuse(&self, now: Moment, cluster: &str, epoch: u64) -> Option<String> {
        if cluster != self.options.cluster {
            return Some(format!("this agent is of cluster {}, not of {cluster}", self.options.cluster));
        }
        if epoch < self.options.epoch {
            return Some(format!("epoch {epoch} is over: the cluster is at {}", self.options.epoch));
        }
        #[cfg(test)]
        if self.mutation == Some(super::Mutation::GrantAfterRestart) {
            return None;
        }
        (now < self.quiet_until).then(|| {
            let left = self.quiet_until.since(now);
            format!("started just now and may have granted before: answers in {:.1} s", left.as_secs_f64())
        })
    }

    fn refuse_holder(&self, grant: Option<&Grant>, ballot: &Ballot) -> Option<String> {
        #[cfg(test)]
        if self.mutation == Some(super::Mutation::IgnoreGrant) {
            return None;
        }
        let grant = grant.filter(|grant| grant.ballot.agent != ballot.agent)?;
        Some(format!("{} holds the lease by round {}", grant.ballot.agent, grant.ballot.round))
    }

    fn outbid(&self, ballot: &Ballot) -> String {
        let Ballot { round, agent } = &self.persisted.promised;
        format!("round {} of {} came after round {round} was promised to {agent}", ballot.round, ballot.agent)
    }
}
