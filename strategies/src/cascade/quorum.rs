//! Whether a node's word that there is no leader is true: told apart from a loss of quorum by asking the others.
//!
//! Must never: call a quorum lost (`quorum_loss` is another mode, with a detector of its own), or call a claim false
//! without proof: a leader that says so itself, seen as such by a majority of the voters, all heard just now. A voter
//! that has not noticed its leader's death still names it; the dead leader does not.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Failure, Place};
use crate::api::{NodeFact, PeerFact};
use crate::types::{FailureKind, Moment};
use crate::watching::MAX_OTHERS;

/// What the own node says of its leader, and what the others say.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct QuorumWatch {
    /// Whom each peer's node follows, and when that was heard.
    views: BTreeMap<String, (Moment, String)>,
    /// The leader that the own node last knew.
    leader: String,
    /// Heartbeats in a row without one.
    leaderless: u32,
    told: bool,
}

impl QuorumWatch {
    /// Another agent's word.
    pub(crate) fn peer(&mut self, now: Moment, fact: &PeerFact) {
        if !fact.agent_answers || fact.node_alive != Some(true) || fact.leader.is_empty() {
            self.views.remove(&fact.node);
        } else if self.views.contains_key(&fact.node) || self.views.len() < MAX_OTHERS {
            self.views.insert(fact.node.clone(), (now, fact.leader.clone()));
        }
    }

    /// It is asked no more.
    pub(crate) fn forget(&mut self, node: &str) {
        self.views.remove(node);
    }

    /// The own node's word. Once per time without a leader: the failure that this is, when it is false.
    pub(crate) fn heartbeat(&mut self, now: Moment, own: &str, fact: &NodeFact, rule: &Rule) -> Option<Failure> {
        let Some(raft) = &fact.raft else {
            // Without Raft it claims nothing: it waits to be part of a cluster, or has lost its vote.
            (self.leaderless, self.told) = (0, false);
            return None;
        };
        if !raft.leader.is_empty() {
            self.leader.clone_from(&raft.leader);
            (self.leaderless, self.told) = (0, false);
            return None;
        }
        self.leaderless = self.leaderless.saturating_add(1);
        if self.told || self.leaderless < rule.heartbeats {
            return None;
        }
        let leader = self.living(now, own, fact, rule)?;
        self.told = true;
        let mut places = vec![Place::host(own), Place::host(&leader)];
        if !self.leader.is_empty() && self.leader != leader && self.leader != own {
            places.push(Place::host(&self.leader));
        }
        let subject = format!("{own}, while a quorum follows {leader}");
        Some(Failure { kind: FailureKind::FalseQuorumLoss, subject, places, age: Duration::ZERO })
    }

    /// The leader of a quorum that lives beyond doubt.
    fn living(&self, now: Moment, own: &str, fact: &NodeFact, rule: &Rule) -> Option<String> {
        let voters = || fact.members.iter().filter(|member| member.role == "voter");
        let heard = |name: &str| self.views.get(name).filter(|(at, _)| now.since(*at) <= rule.fresh).map(|(_, to)| to);
        let (_, leader) = self.views.iter().find_map(|(name, _)| {
            let itself = name != own && heard(name) == Some(name);
            itself.then_some((name, name.clone()))
        })?;
        let follow = voters().filter(|voter| heard(&voter.node) == Some(&leader)).count();
        (follow * 2 > voters().count()).then_some(leader)
    }
}

/// The figures that it judges by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Heartbeats in a row without a leader: an election takes less.
    pub(crate) heartbeats: u32,
    /// How old another's word may be.
    pub(crate) fresh: Duration,
}
