//! Whether a leader is seen: one that is named, and that somebody hears.
//!
//! A follower and a learner name the leader that they knew last for as long as they know no other; since a voter asks a quorum before
//! it stands, that may be for ever. So a name alone is no sign of a leader.
//!
//! Never: takes the word of one that was cut off for a quorum's; calls a leader gone that another agent hears.

use std::time::Duration;

use crate::api::RaftFact;
use crate::engine::peers::{Peers, UNACKNOWLEDGED_MS, is_cut_off};
use crate::liveness::{Liveness, Verdict};
use crate::types::Moment;

/// Whether a node hears its leader, by its own word; a leader: its quorum. What does not say is not doubted.
pub(crate) fn hears_leader(raft: &RaftFact) -> bool {
    match raft.role.as_str() {
        "leader" => !is_cut_off(raft),
        _ => raft.unheard_ms.is_none_or(|unheard| unheard <= UNACKNOWLEDGED_MS),
    }
}

/// What a look at leaders needs.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    /// This agent's node.
    pub(crate) own: &'a str,
    /// What others said.
    pub(crate) peers: &'a Peers,
    /// Who is heard by whom.
    pub(crate) liveness: &'a Liveness,
    /// How old a word may be.
    pub(crate) within: Duration,
}

impl Around<'_> {
    /// Whether the own node names a leader that is one.
    pub(crate) fn own_sees(&self, now: Moment, raft: Option<&RaftFact>) -> bool {
        raft.is_some_and(|raft| !raft.leader.is_empty() && self.leads(now, &raft.leader, Some(raft)))
    }

    /// Whether the own node, or anybody that is heard, does.
    pub(crate) fn anybody_sees(&self, now: Moment, raft: Option<&RaftFact>) -> bool {
        let named = || self.peers.leaders(now, self.within).any(|(_, leader)| self.leads(now, leader, raft));
        self.own_sees(now, raft) || named()
    }

    fn leads(&self, now: Moment, named: &str, own: Option<&RaftFact>) -> bool {
        let itself = |raft: &RaftFact| raft.leader == named && !is_cut_off(raft);
        if named == self.own {
            return own.is_some_and(itself);
        }
        match self.peers.raft_of(now, self.within, named) {
            Some(raft) => itself(raft),
            None => {
                self.peers.is_alive(now, self.within, named)
                    || self.liveness.judge(now, named).verdict == Verdict::Partition
            }
        }
    }
}
