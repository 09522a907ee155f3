//! What the other agents said last, of themselves and of their nodes.
//!
//! Owns: the newest word of each, with its time. Must never: answer with a word whose age it does not tell, or take silence for
//! one. Bounded: [`MAX_OTHERS`]; whoever is asked no more is forgotten; one that was removed from the configuration is never asked again,
//! and its word grows old.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{PeerFact, RaftFact};
use crate::types::Moment;
use crate::watching::MAX_OTHERS;

/// A leader that no quorum has acknowledged for so long leads nobody: an election takes less.
pub(crate) const UNACKNOWLEDGED_MS: u64 = 5_000;

/// Whether a node says that it leads, and that no quorum says so.
pub(crate) fn is_cut_off(raft: &RaftFact) -> bool {
    raft.role == "leader" && raft.quorum_ack_ms.is_some_and(|ack| ack > UNACKNOWLEDGED_MS)
}

/// One peer, as it was told last.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// When its agent answered last.
    answered: Option<Moment>,
    /// When its node answered last, or its agent said that it lives.
    alive: Option<Moment>,
    /// Raft, as of then.
    raft: Option<(Moment, RaftFact)>,
    cluster: String,
    #[serde(default)]
    epoch: u64,
    leader: String,
    /// Its clock's distance from ours and the error of that, as asked then.
    clock: Option<(Moment, i64, u64)>,
    /// How long its node's canary took, in milliseconds, as told then.
    canary: Option<(Moment, u64)>,
    /// Whether our node answers it, as told then.
    hears_us: Option<(Moment, bool)>,
    /// It says that it does not hear this host.
    misses_us: bool,
}

/// All of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Peers(BTreeMap<String, Peer>);

impl Peers {
    /// `stranger`: its node is of another cluster.
    pub(crate) fn observe(&mut self, now: Moment, own: &str, fact: &PeerFact, stranger: bool) {
        if fact.node == own || (!self.0.contains_key(&fact.node) && self.0.len() >= MAX_OTHERS) {
            return;
        }
        if !self.0.contains_key(&fact.node) {
            self.0.insert(fact.node.clone(), Peer::default());
        }
        let Some(peer) = self.0.get_mut(&fact.node) else { return };
        match (fact.node_answers, fact.node_alive) {
            (Some(true), _) | (None, Some(true)) => peer.alive = Some(now),
            // Dead, or its process runs and answers neither its own agent nor us.
            (_, Some(_)) => peer.alive = None,
            (_, None) => {}
        }
        if let Some(offset) = fact.clock_offset_ms {
            peer.clock = Some((now, offset, fact.clock_error_ms));
        }
        if !fact.agent_answers {
            return;
        }
        peer.answered = Some(now);
        peer.canary = fact.canary_ms.map(|millis| (now, millis));
        peer.leader = if stranger { String::new() } else { fact.leader.clone() };
        peer.cluster.clone_from(&fact.cluster);
        peer.epoch = fact.epoch;
        peer.misses_us = fact.silent.iter().flatten().any(|silence| silence.node == own);
        peer.hears_us = fact.hears_us.map(|hears| (now, hears));
        let as_of = Moment(now.0.saturating_sub(Duration::from_millis(fact.raft_age_ms)));
        match (fact.raft.as_ref().filter(|_| !stranger), &mut peer.raft) {
            (Some(raft), Some((at, known))) => {
                known.clone_from(raft);
                *at = as_of;
            }
            (raft, known) => *known = raft.map(|raft| (as_of, raft.clone())),
        }
    }

    /// It is asked no more.
    pub(crate) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Raft of each, by words no older than `within`, and as of when each is.
    pub(crate) fn raft(&self, now: Moment, within: Duration) -> impl Iterator<Item = (&str, Moment, &RaftFact)> {
        self.0.iter().filter_map(move |(name, peer)| {
            let (at, raft) = peer.raft.as_ref().filter(|(at, _)| now.since(*at) <= within)?;
            Some((name.as_str(), *at, raft))
        })
    }

    /// Raft of one.
    pub(crate) fn raft_of(&self, now: Moment, within: Duration, name: &str) -> Option<&RaftFact> {
        let (at, raft) = self.0.get(name)?.raft.as_ref()?;
        (now.since(*at) <= within).then_some(raft)
    }

    /// In which epoch its node was, as it said last.
    pub(crate) fn epoch_of(&self, name: &str) -> Option<u64> {
        self.0.get(name).map(|peer| peer.epoch)
    }

    /// Whether its agent or its node was heard lately.
    pub(crate) fn is_heard(&self, now: Moment, within: Duration, name: &str) -> bool {
        let within = |at: Option<Moment>| at.is_some_and(|at| now.since(at) <= within);
        self.0.get(name).is_some_and(|peer| within(peer.answered) || within(peer.alive))
    }

    /// Whether its node lives, by a word no older than that.
    pub(crate) fn is_alive(&self, now: Moment, within: Duration, name: &str) -> bool {
        self.0.get(name).and_then(|peer| peer.alive).is_some_and(|at| now.since(at) <= within)
    }

    /// How many agents answered lately.
    pub(crate) fn answering(&self, now: Moment, within: Duration) -> usize {
        self.recent(now, within).count()
    }

    /// The leaders that agents name, each with who names it.
    pub(crate) fn leaders(&self, now: Moment, within: Duration) -> impl Iterator<Item = (&str, &str)> {
        // One that leads by its own word alone, and was not acknowledged, is cut off: nobody's leader.
        let cut_off = |name: &String, peer: &Peer| {
            *name == peer.leader && peer.raft.as_ref().is_some_and(|(_, raft)| is_cut_off(raft))
        };
        let named =
            self.recent(now, within).filter(move |(name, peer)| !peer.leader.is_empty() && !cut_off(name, peer));
        named.map(|(name, peer)| (name.as_str(), peer.leader.as_str()))
    }

    /// Clusters that are not this one, with who is in them.
    pub(crate) fn strangers(&self, now: Moment, within: Duration, own: &str) -> impl Iterator<Item = (&str, &str)> {
        let other = move |peer: &Peer| !own.is_empty() && !peer.cluster.is_empty() && peer.cluster != own;
        let others = self.recent(now, within).filter(move |(_, peer)| other(peer));
        others.map(|(name, peer)| (name.as_str(), peer.cluster.as_str()))
    }

    /// How far each peer's clock is ahead of ours, and the error of that.
    pub(crate) fn clocks(&self, now: Moment, within: Duration) -> impl Iterator<Item = (i64, u64)> {
        let told = self.0.values().filter_map(|peer| peer.clock);
        told.filter(move |(at, ..)| now.since(*at) <= within).map(|(_, offset, error)| (offset, error))
    }

    /// How long the others' canaries took, in milliseconds.
    pub(crate) fn canaries(&self, now: Moment, within: Duration) -> impl Iterator<Item = u64> {
        let told = self.0.values().filter_map(|peer| peer.canary);
        told.filter(move |(at, _)| now.since(*at) <= within).map(|(_, millis)| millis)
    }

    /// Peers that our node answers, and that it does not answer.
    pub(crate) fn hears_us(&self, now: Moment, within: Duration) -> (usize, usize) {
        let told = self.0.values().filter_map(|peer| peer.hears_us).filter(|(at, _)| now.since(*at) <= within);
        told.fold((0, 0), |(yes, no), (_, hears)| if hears { (yes + 1, no) } else { (yes, no + 1) })
    }

    /// Whether it says that it does not hear this host.
    pub(crate) fn misses_us(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|peer| peer.misses_us)
    }

    fn recent(&self, now: Moment, within: Duration) -> impl Iterator<Item = (&String, &Peer)> {
        self.0.iter().filter(move |(_, peer)| peer.answered.is_some_and(|at| now.since(at) <= within))
    }
}
