//! `split_brain`: two nodes lead, and a quorum acknowledged each of them after both were seen to lead; or two clusters under one
//! configuration; or two logs that have committed different entries at one index.
//!
//! Never: takes the stale claim of a leader that was cut off for one: nobody acknowledges it any more; takes for committed what an
//! election may still take back; says which side is right.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::RaftFact;
use crate::config::SplitBrainPolicy;
use crate::engine::detect::State;
use crate::engine::detect::held::Held;
use crate::engine::peers::Peers;
use crate::types::Moment;

/// Leaders remembered at a time: there are 7 voters at most.
const MAX_CLAIMS: usize = 16;

/// How old a claim may be. Its agent tells it with every answer.
const CLAIM_FRESH: Duration = Duration::from_secs(5);

/// A node that says that it leads.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claim {
    /// Of the metadata: a later one supersedes those before, whatever their terms.
    #[serde(default)]
    epoch: u64,
    term: u64,
    log: (u64, u64),
    first: Moment,
    /// When a quorum acknowledged it last.
    acknowledged: Moment,
    seen: Moment,
}

impl Claim {
    fn rank<'a>(&self, node: &'a str) -> (u64, u64, (u64, u64), &'a str) {
        (self.epoch, self.term, self.log, node)
    }
}

/// Another member's log, and the own one, which cannot both be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Forked {
    held: Held,
    with: String,
    index: u64,
    terms: (u64, u64),
}

/// The last entry of a log whose every entry is committed: (index, term). `None`: it may still be taken back, or is not told.
fn committed_end(raft: &RaftFact) -> Option<(u64, u64)> {
    let known = raft.last_log > 0 && raft.last_log_term > 0;
    (known && raft.committed >= raft.last_log).then_some((raft.last_log, raft.last_log_term))
}

/// All that lead, or say so.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    claims: BTreeMap<String, Claim>,
    #[serde(default)]
    forked: Forked,
    strangers: Held,
    stranger: String,
    single: Held,
}

impl Watch {
    /// What a node of this cluster, in this epoch, says of Raft, as of `at`.
    pub(crate) fn heard(&mut self, now: Moment, at: Moment, node: &str, epoch: u64, raft: Option<&RaftFact>) {
        let leads = raft.filter(|raft| raft.role == "leader").and_then(|raft| Some((raft, raft.quorum_ack_ms?)));
        let Some((raft, ack)) = leads else {
            self.claims.remove(node);
            return;
        };
        if !self.claims.contains_key(node) && self.claims.len() >= MAX_CLAIMS {
            return;
        }
        let acknowledged = Moment(at.0.saturating_sub(Duration::from_millis(ack)));
        let log = (raft.last_log_term, raft.last_log);
        let known = self.claims.entry(node.to_owned()).or_insert(Claim {
            epoch,
            term: raft.term,
            log,
            first: now,
            acknowledged,
            seen: now,
        });
        if (known.epoch, known.term) != (epoch, raft.term) {
            known.first = now;
        }
        known.epoch = epoch;
        (known.term, known.log, known.acknowledged, known.seen) = (raft.term, log, acknowledged, now);
    }

    /// It is asked no more: what it claimed last is not kept up.
    pub(crate) fn forget(&mut self, node: &str) {
        self.claims.remove(node);
    }

    pub(crate) fn look(&mut self, now: Moment, own_cluster: &str, peers: &Peers, policy: &SplitBrainPolicy) {
        self.claims.retain(|_, claim| now.since(claim.seen) <= CLAIM_FRESH);
        let stranger = peers.strangers(now, CLAIM_FRESH, own_cluster).next();
        self.strangers.look(now, stranger.is_some(), CLAIM_FRESH * 2);
        if let Some((node, cluster)) = stranger {
            self.stranger = format!("{node} is in cluster {cluster}, this node in {own_cluster}");
        }
        let split = self.pair(policy).is_some();
        self.single.look(now, !split && self.claims.len() <= 1, CLAIM_FRESH * 2);
    }

    /// At one index there is one committed entry, of one term (Ongaro and Ousterhout, "In search of an understandable consensus
    /// algorithm", 5.3): two that end at one index, all committed, in different terms, are two histories.
    pub(crate) fn compare_logs(&mut self, now: Moment, own: Option<(u64, &RaftFact)>, peers: &Peers) {
        let end = own.and_then(|(epoch, raft)| Some((epoch, committed_end(raft)?)));
        let other = end.and_then(|(epoch, (index, term))| {
            let ends = peers.raft(now, CLAIM_FRESH).filter(|(name, ..)| peers.epoch_of(name) == Some(epoch));
            let forked = |(name, _, raft): (&str, Moment, &RaftFact)| {
                let (at, theirs) = committed_end(raft)?;
                (at == index && theirs != term).then(|| (name.to_owned(), index, (term, theirs)))
            };
            ends.filter_map(forked).next()
        });
        self.forked.held.look(now, other.is_some(), CLAIM_FRESH * 2);
        if let Some((with, index, terms)) = other {
            (self.forked.with, self.forked.index, self.forked.terms) = (with, index, terms);
        }
    }

    fn forks(&self, policy: &SplitBrainPolicy) -> bool {
        self.forked.held.lasts(policy.overlap, 3)
    }

    /// The two that lead at once: the lower one first.
    fn pair(&self, policy: &SplitBrainPolicy) -> Option<(&str, &str)> {
        let of = |(name, claim): (&str, &Claim), (other, second): (&str, &Claim)| {
            let both_led = claim.first.max(second.first) + policy.overlap;
            let both = claim.acknowledged.min(second.acknowledged) > both_led;
            (name != other && both && claim.rank(name) < second.rank(other)).then_some(())
        };
        let all = || self.claims.iter().map(|(name, claim)| (name.as_str(), claim));
        all().find_map(|one| all().find(|other| of(one, *other).is_some()).map(|other| (one.0, other.0)))
    }

    /// Whether the own node is the one of the two that has to stop: the lower term, or of one term the shorter log.
    pub(crate) fn is_lower(&self, own: &str, policy: &SplitBrainPolicy) -> bool {
        self.pair(policy).is_some_and(|(lower, _)| lower == own)
    }

    /// Whether the own node leads, as it says, whoever acknowledges that.
    pub(crate) fn claims(&self, own: &str) -> bool {
        self.claims.contains_key(own)
    }

    /// The leader that a quorum acknowledges in this epoch, and its term; the higher of two. Terms of two epochs do not compare.
    pub(crate) fn quorum_leader(&self, now: Moment, within: Duration, epoch: u64) -> Option<(&str, u64)> {
        let fresh = |claim: &Claim| claim.epoch == epoch && now.since(claim.acknowledged) <= within;
        let fresh = self.claims.iter().filter(|(_, claim)| fresh(claim));
        fresh.max_by_key(|(_, claim)| claim.term).map(|(name, claim)| (name.as_str(), claim.term))
    }

    /// Two clusters, and not two leaders of one.
    pub(crate) fn is_of_clusters(&self, policy: &SplitBrainPolicy) -> bool {
        self.pair(policy).is_none() && self.strangers.looks() > 0
    }

    pub(crate) fn state(&self, policy: &SplitBrainPolicy, settled_after: Duration) -> State {
        if let Some((lower, higher)) = self.pair(policy) {
            let of = |name: &str| self.claims.get(name).map_or((0, 0), |claim| (claim.epoch, claim.term));
            let (low, high, overlap) = (of(lower), of(higher), policy.overlap.as_secs_f64());
            let term =
                |(epoch, term)| if low.0 == high.0 { format!("{term}") } else { format!("{term} of epoch {epoch}") };
            let (low, high) = (term(low), term(high));
            return State::Ill(format!(
                "{lower} leads term {low} and {higher} leads term {high}; a quorum acknowledged each of them {overlap:.0} s and \
                 more after both were seen to lead"
            ));
        }
        if self.strangers.lasts(policy.overlap.max(CLAIM_FRESH), 3) {
            return State::Ill(format!("two clusters: {}", self.stranger));
        }
        if self.forks(policy) {
            let Forked { with, index, terms: (own, theirs), .. } = &self.forked;
            return State::Ill(format!(
                "at index {index} this member has committed an entry of term {own}, and {with} one of term {theirs}: two histories"
            ));
        }
        let whole = self.strangers.looks() == 0 && self.forked.held.looks() == 0;
        match self.single.lasts(settled_after, 3) && whole {
            true => State::Well,
            false => State::Unknown("one writer per term for long enough"),
        }
    }
}
