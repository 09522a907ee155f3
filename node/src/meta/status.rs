//! What a member knows of itself and of those it leads. For people, metrics and the agent: nothing is decided by it here.

use std::time::Duration;

use openraft::{RaftMetrics, ServerState, Vote};

use super::raft::{Node, RaftNode};
use crate::types::RaftId;

/// A member's part in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It leads.
    Leader,
    /// It votes and follows.
    Follower,
    /// It stands for election.
    Candidate,
    /// It follows without a vote.
    Learner,
    /// Raft is stopped here.
    Shutdown,
}

impl Role {
    /// The name in tables, metrics and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Shutdown => "shutdown",
        }
    }
}

/// How far the leader knows a member to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    /// The member.
    pub member: RaftId,
    /// The last entry known to be in its log.
    pub matched: u64,
    /// Whether it votes.
    pub voter: bool,
}

/// What a member promised last, as it is on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredVote {
    /// In which term.
    pub term: u64,
    /// Whom it voted for.
    pub member: RaftId,
    /// A quorum voted the same: that member leads, or led, this term.
    pub committed: bool,
}

/// One member's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaStatus {
    /// Its id.
    pub raft_id: RaftId,
    /// Its part.
    pub role: Role,
    /// Whether it votes.
    pub voter: bool,
    /// All voters.
    pub voters: Vec<RaftId>,
    /// Its term.
    pub term: u64,
    /// Its vote; none before the first.
    pub vote: Option<StoredVote>,
    /// Whom it believes to lead.
    pub leader: Option<RaftId>,
    /// Index of its last entry.
    pub last_log: u64,
    /// Highest index it knows to be committed.
    pub committed: u64,
    /// Last entry applied.
    pub applied: u64,
    /// Last entry in its snapshot.
    pub snapshot: Option<u64>,
    /// On a leader: how long ago a quorum last acknowledged it.
    pub quorum_ack_age: Option<Duration>,
    /// On a leader: the members it replicates to.
    pub replication: Vec<Replication>,
}

/// Reads a status out of openraft's metrics.
pub(super) fn status(metrics: &RaftMetrics<Node, RaftNode>, committed: u64, vote: Option<Vote<Node>>) -> MetaStatus {
    let membership = metrics.membership_config.membership();
    let voters: Vec<RaftId> = membership.voter_ids().map(RaftId).collect();
    let applied = metrics.last_applied.map_or(0, |id| id.index);
    let role = match (&metrics.running_state, metrics.state) {
        (Err(_), _) | (_, ServerState::Shutdown) => Role::Shutdown,
        (_, ServerState::Leader) => Role::Leader,
        (_, ServerState::Follower) => Role::Follower,
        (_, ServerState::Candidate) => Role::Candidate,
        (_, ServerState::Learner) => Role::Learner,
    };
    let replication = metrics.replication.iter().flatten().map(|(id, matched)| Replication {
        member: RaftId(*id),
        matched: matched.map_or(0, |id| id.index),
        voter: voters.contains(&RaftId(*id)),
    });
    MetaStatus {
        raft_id: RaftId(metrics.id),
        role,
        voter: voters.contains(&RaftId(metrics.id)),
        term: metrics.current_term,
        vote: vote.map(|vote| StoredVote {
            term: vote.leader_id.term,
            member: RaftId(vote.leader_id.node_id),
            committed: vote.committed,
        }),
        leader: metrics.current_leader.map(RaftId),
        last_log: metrics.last_log_index.unwrap_or(0),
        committed: committed.max(applied),
        applied,
        snapshot: metrics.snapshot.map(|id| id.index),
        quorum_ack_age: metrics.millis_since_quorum_ack.map(Duration::from_millis),
        replication: replication.collect(),
        voters,
    }
}
