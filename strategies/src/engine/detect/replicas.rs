//! `state_divergence`: a majority of at least three members has something else than the own node, at one entry, and again at a
//! later one.
//!
//! Never: blames with fewer than three digests; trusts the newest, or the leader, instead of the majority; counts one comparison
//! twice.

use serde::{Deserialize, Serialize};

use crate::api::ReplicasFact;
use crate::config::ReplicaPolicy;
use crate::engine::detect::State;
use crate::types::Moment;

/// Digests that there must be: of two that differ nobody knows which is wrong.
const MIN_DIGESTS: usize = 3;

/// What comparisons said in a row of the own node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    index: u64,
    wrong: u32,
    right: u32,
    evidence: String,
    /// When members were compared last.
    #[serde(default)]
    at: Moment,
}

impl Watch {
    pub(crate) fn observe(&mut self, now: Moment, own: &str, fact: &ReplicasFact) {
        // The same comparison again, or one that came late.
        if fact.index <= self.index {
            return;
        }
        let digests: Vec<_> = fact.members.iter().filter(|member| !member.digest.is_empty()).collect();
        let Some(ours) = digests.iter().find(|member| member.node == own) else { return };
        let same = |digest: &str| digests.iter().filter(|member| member.digest == digest).count();
        // Counted here as well: what is acted on is not taken from a word alone.
        let most = digests.iter().map(|member| same(&member.digest)).max().unwrap_or(0);
        let majority = digests.len() >= MIN_DIGESTS && most * 2 > digests.len();
        let wrong = ours.verdict == "wrong" && majority && same(&ours.digest) < most;
        let right = ours.verdict == "right" && majority && same(&ours.digest) == most;
        (self.index, self.at) = (fact.index, now);
        self.wrong = if wrong { self.wrong.saturating_add(1) } else { 0 };
        self.right = if right { self.right.saturating_add(1) } else { 0 };
        if wrong {
            let (all, index, ours) = (digests.len(), fact.index, &ours.digest);
            self.evidence = format!("{most} of {all} members have one digest as of entry {index}, this one {ours}");
        }
    }

    /// Something was done: what was seen before it says nothing about now.
    pub(crate) fn acted(&mut self) {
        (self.wrong, self.right) = (0, 0);
    }

    pub(crate) fn state(&self, now: Moment, policy: &ReplicaPolicy) -> State {
        if now.since(self.at) > policy.good_for {
            return State::Unknown("members to be compared again: the last comparison is too old to act on");
        }
        if self.wrong >= policy.looks {
            return State::Ill(format!("{}; so {} times in a row, {} needed", self.evidence, self.wrong, policy.looks));
        }
        match (self.right, self.wrong) {
            (0, 0) => State::Unknown("members to be compared"),
            (0, _) => State::Unknown("another comparison, as of a later entry"),
            _ => State::Well,
        }
    }
}
