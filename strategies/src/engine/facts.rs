//! The latest facts, with the time they came.
//!
//! Owns: what is believed about this host now. Must never: answer from an old fact without saying how old it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{DiskFact, MemberFact, NodeFact, Observation, ProcessFact};
use crate::types::Moment;

/// Names one life of a process beyond doubt.
pub(crate) type Life = (u32, u64);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Facts {
    process: Option<(Moment, ProcessFact)>,
    node: Option<(Moment, NodeFact)>,
    pub(crate) missed: u32,
    pub(crate) missed_error: String,
    pub(crate) missed_at: Option<Moment>,
    leader: String,
    pub(crate) leader_changed: Option<Moment>,
    /// The agent's own step moves the leadership: until then a change is no reason for a grace.
    pub(crate) leader_moves: Option<Moment>,
    /// The process was seen running since the agent's start.
    pub(crate) ran: bool,
}

impl Facts {
    pub(crate) fn observe(&mut self, now: Moment, observation: &Observation) {
        match observation {
            Observation::Process(fact) => {
                self.ran |= matches!(fact, ProcessFact::Running { .. });
                self.process = Some((now, fact.clone()));
            }
            Observation::Heartbeat(fact) => self.heartbeat(now, fact),
            Observation::HeartbeatMissed { error } => {
                self.missed = self.missed.saturating_add(1);
                self.missed_at = Some(now);
                self.missed_error.clone_from(error);
            }
            Observation::Peer(_)
            | Observation::Watch(_)
            | Observation::Failures { .. }
            | Observation::Smart(_)
            | Observation::Host(_)
            | Observation::Canary(_)
            | Observation::Replicas(_)
            | Observation::ProcessState(_)
            | Observation::LogMatch(_) => {}
        }
    }

    fn heartbeat(&mut self, now: Moment, fact: &NodeFact) {
        self.missed = 0;
        let leader = fact.raft.as_ref().map(|raft| raft.leader.as_str()).unwrap_or_default();
        if !leader.is_empty() && leader != self.leader {
            let meant = self.leader_moves.take_if(|until| now <= *until).is_some();
            if !self.leader.is_empty() && !meant {
                self.leader_changed = Some(now);
            }
            leader.clone_into(&mut self.leader);
        }
        self.node = Some((now, fact.clone()));
    }

    pub(crate) fn process(&self) -> Option<&ProcessFact> {
        self.process.as_ref().map(|(_, fact)| fact)
    }

    pub(crate) fn process_since(&self, since: Moment) -> Option<&ProcessFact> {
        self.process.as_ref().filter(|(at, _)| *at >= since).map(|(_, fact)| fact)
    }

    pub(crate) fn running(&self) -> Option<Life> {
        match self.process()? {
            ProcessFact::Running { pid, start_ticks } => Some((*pid, *start_ticks)),
            _ => None,
        }
    }

    /// The last heartbeat, whatever its age.
    pub(crate) fn node(&self) -> Option<&NodeFact> {
        self.node.as_ref().map(|(_, fact)| fact)
    }

    pub(crate) fn heartbeat_at(&self) -> Option<Moment> {
        self.node.as_ref().map(|(at, _)| *at)
    }

    /// When the node was asked last, whether it answered or not.
    pub(crate) fn asked_at(&self) -> Option<Moment> {
        self.heartbeat_at().max(self.missed_at)
    }

    pub(crate) fn heartbeat_age(&self, now: Moment) -> Option<Duration> {
        self.heartbeat_at().map(|at| now.since(at))
    }

    /// The last heartbeat, if none was missed since.
    pub(crate) fn node_now(&self) -> Option<&NodeFact> {
        self.node().filter(|_| self.missed == 0)
    }

    pub(crate) fn phase(&self) -> &str {
        self.node_now().map(|fact| fact.phase.as_str()).unwrap_or_default()
    }

    pub(crate) fn disk(&self, disk: &str) -> Option<&DiskFact> {
        self.node()?.disks.iter().find(|fact| fact.disk == disk)
    }

    /// A host of the cluster map.
    pub(crate) fn member(&self, host: &str) -> Option<&MemberFact> {
        self.node()?.members.iter().find(|member| member.node == host)
    }

    /// Epoch of the metadata, term, and the last entry applied.
    pub(crate) fn raft(&self) -> Option<(u64, u64, u64)> {
        let node = self.node()?;
        node.raft.as_ref().map(|raft| (node.epoch, raft.term, raft.applied))
    }
}
