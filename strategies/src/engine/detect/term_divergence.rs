//! `term_divergence`: terms that run away from the leader's, or that went back.
//!
//! Never: takes the one or two terms of an election for it; calms a node that leads; lets a persisted term be lowered or edited:
//! what is done is an election above all of them.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{NodeFact, RaftFact};
use crate::config::{PolicyConfig, TermPolicy};
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::detect::split_brain;
use crate::engine::peers::Peers;
use crate::types::Moment;

/// Rises remembered: more than any window has that is not ill long before.
const MAX_RISES: usize = 64;

/// How old a word about Raft may be.
const WORD_FRESH: Duration = Duration::from_secs(5);

/// What was seen of terms.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    term: u64,
    since: Moment,
    /// The highest that the own node had in this membership.
    high: u64,
    cluster: String,
    epoch: u64,
    rises: VecDeque<Moment>,
    /// Above the term of a leader that a quorum acknowledges, by however little: an election is over before that lasts.
    above: Held,
    ahead: Held,
    back: Held,
    /// A voter elsewhere is ahead, and the own node is the one to align it.
    stray: Held,
    highest: u64,
    aligns: bool,
    evidence: String,
}

/// Which of two logs an election prefers.
fn rank(raft: &RaftFact) -> (u64, u64) {
    (raft.last_log_term, raft.last_log)
}

impl Watch {
    /// What an earlier life of the agent saw.
    pub(crate) fn restore(&mut self, high: u64) {
        self.high = self.high.max(high);
    }

    /// One heartbeat; what peers said before it is in `peers` and `leaders`.
    pub(crate) fn heartbeat(
        &mut self,
        now: Moment,
        own: &str,
        fact: &NodeFact,
        peers: &Peers,
        leaders: &split_brain::Watch,
        policy: &PolicyConfig,
    ) {
        let (figures, gap) = (&policy.terms, policy.detection.heartbeat * 10);
        // Another membership begins its own count: what a lost voter promised, nobody holds it to any more.
        if fact.phase == "lost_voter"
            || (!self.cluster.is_empty() && (self.cluster != fact.cluster || self.epoch != fact.epoch))
        {
            *self = Self::default();
        }
        let Some(raft) = &fact.raft else { return };
        if self.cluster != fact.cluster {
            self.cluster.clone_from(&fact.cluster);
        }
        self.epoch = fact.epoch;
        if raft.term != self.term {
            if raft.term > self.term && self.term > 0 {
                if self.rises.len() >= MAX_RISES {
                    self.rises.pop_front();
                }
                self.rises.push_back(now);
            }
            (self.term, self.since) = (raft.term, now);
        }
        while self.rises.front().is_some_and(|at| now.since(*at) > figures.window) {
            self.rises.pop_front();
        }
        self.back.look(now, raft.term < self.high, gap);
        self.high = self.high.max(raft.term);
        // A leader that others see, acknowledged by a quorum just now.
        let leader = leaders.quorum_leader(now, policy.fresh_within() * 2, fact.epoch);
        // Who has no vote stands for nothing: its term is what it was told.
        let votes = fact.members.iter().any(|member| member.node == own && member.role == "voter");
        let elsewhere =
            leader.filter(|(name, term)| votes && *name != own && *term < raft.term && raft.role != "leader");
        self.above.look(now, elsewhere.is_some(), gap);
        let far = elsewhere.is_some_and(|(_, term)| raft.term >= term + u64::from(figures.ahead));
        self.ahead.look(now, far, gap);
        self.align(now, own, fact, raft, peers, leader, figures, gap);
        self.describe(raft, elsewhere, figures);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one heartbeat")]
    fn align(
        &mut self,
        now: Moment,
        own: &str,
        fact: &NodeFact,
        raft: &RaftFact,
        peers: &Peers,
        leader: Option<(&str, u64)>,
        figures: &TermPolicy,
        gap: Duration,
    ) {
        let voter = |name: &str| {
            fact.members.iter().any(|member| member.node == name && member.role == "voter" && member.state != "out")
        };
        let voters = fact.members.iter().filter(|member| member.role == "voter" && member.state != "out").count();
        let base = leader.map_or(raft.term, |(_, term)| term);
        // A term that this member had before and has no more counts as seen: whoever was promised something in it may be back.
        let (mut seen, mut highest, mut best) = (1, raft.term.max(self.high), true);
        for (_, _, other) in peers.raft(now, WORD_FRESH).filter(|(name, ..)| voter(name)) {
            seen += 1;
            highest = highest.max(other.term);
            best &= rank(raft) >= rank(other);
        }
        self.highest = highest;
        // The one that leads; without a leader the one with the best log of a majority.
        self.aligns = match leader {
            Some((name, _)) => name == own,
            None => voter(own) && best && seen * 2 > voters && raft.role != "leader",
        };
        let far = highest >= base + u64::from(figures.ahead) || self.high > raft.term;
        self.stray.look(now, self.aligns && far, gap);
    }

    fn describe(&mut self, raft: &RaftFact, leader: Option<(&str, u64)>, figures: &TermPolicy) {
        if self.back.looks() > 0 {
            self.evidence = format!("term {} is lower than {}, which this member had before", raft.term, self.high);
        } else if let Some((name, term)) = leader {
            let (rises, window) = (self.rises.len(), figures.window.as_secs());
            self.evidence = format!(
                "term {} while {name} leads term {term} with a quorum's word: {} ahead for {:.0} s (limit {}), {rises} rises in {window} s (limit {})",
                raft.term,
                raft.term - term,
                self.above.time().as_secs_f64(),
                figures.ahead,
                figures.rises
            );
        } else if self.stray.looks() > 0 {
            let time = self.stray.time().as_secs_f64();
            self.evidence = format!(
                "a voter is at term {} and this member, with the best log, at {}, for {time:.0} s",
                self.highest, raft.term
            );
        }
    }

    /// The own node is the one that is not where the others are.
    pub(crate) fn is_stray(&self, policy: &TermPolicy) -> bool {
        self.runs_away(policy) || self.went_back()
    }

    /// It raises its term alone. One that forgot a term does not, and may be the very one that has to stand.
    pub(crate) fn runs_away(&self, policy: &TermPolicy) -> bool {
        self.is_churning(policy) || self.ahead.lasts(policy.confirm_after, 2)
    }

    fn is_churning(&self, policy: &TermPolicy) -> bool {
        self.rises.len() >= policy.rises as usize && self.above.lasts(policy.confirm_after, 2)
    }

    /// The own member has forgotten a term that it had.
    pub(crate) fn went_back(&self) -> bool {
        self.back.looks() >= 2
    }

    /// The own node is the one to elect, and above this term.
    pub(crate) fn aligns(&self, policy: &TermPolicy) -> Option<u64> {
        (self.aligns && self.stray.lasts(policy.confirm_after, 2)).then_some(self.highest)
    }

    /// It will be, if that lasts.
    pub(crate) fn may_align(&self) -> bool {
        self.aligns && self.stray.looks() > 0
    }

    pub(crate) fn state(&self, now: Moment, policy: &TermPolicy, stable_for: Duration) -> State {
        if self.is_stray(policy) || self.aligns(policy).is_some() {
            return State::Ill(self.evidence.clone());
        }
        let calm = self.above.looks() == 0 && self.back.looks() == 0 && self.stray.looks() == 0;
        match calm && self.term > 0 && now.since(self.since) >= stable_for {
            true => State::Well,
            false => State::Unknown("the term to stay as it is for long enough"),
        }
    }
}
