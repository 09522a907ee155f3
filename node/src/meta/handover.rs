//! Giving leadership away. openraft 0.9 has no transfer: the leader falls silent until its lease has run out, then asks
//! the best follower to stand.
//!
//! Must never: leave the leader silent: whatever happens, heartbeats are switched on again, and it may stand for election.

use std::time::Duration;

use openraft::{LogIdOptionExt, RaftMetrics};

use super::leader_leaves;
use super::raft::{Node, RaftNode};
use super::wire::Forward;
use super::{Inner, MetaError};
use crate::types::RaftId;

/// How long the chosen one has to win, after the lease. An election takes a round trip; this is many.
const WIN_DEADLINE: Duration = Duration::from_secs(2);

/// Undoes the silence, also when the caller went away.
struct Silence<'a>(&'a Inner);

impl<'a> Silence<'a> {
    fn begin(inner: &'a Inner) -> Self {
        inner.yielding.send_replace(true);
        inner.raft.runtime_config().heartbeat(false);
        Self(inner)
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.raft.runtime_config().heartbeat(true);
        self.0.yielding.send_replace(false);
    }
}

impl Inner {
    /// Hands leadership to `to`, or to the voter that is furthest. Nothing to do where this member does not lead.
    pub(super) async fn hand_over(&self, to: Option<RaftId>) -> Result<(), MetaError> {
        let own = self.links.ids.raft_id;
        let chosen = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            if metrics.current_leader != Some(own.0) {
                return Ok(());
            }
            to.or_else(|| best(&metrics))
        };
        let Some(chosen) = chosen.filter(|chosen| *chosen != own) else {
            return Err(MetaError::Refused { detail: "there is no other voter to lead".to_owned() });
        };
        let silence = Silence::begin(self);
        // The voters refuse to vote while they believe in this leader.
        tokio::time::sleep(self.tuning.election_max + self.tuning.heartbeat).await;
        let asked = self.ask(chosen, &Forward::Elect).await;
        let left = tokio::time::timeout(WIN_DEADLINE, leader_leaves(&self.raft, own.0)).await;
        drop(silence);
        match (asked, left) {
            (_, Ok(())) => Ok(()),
            (Ok(_), Err(_)) => Err(MetaError::Refused { detail: format!("member {chosen} did not win the election") }),
            (Err(_), Err(_)) => Err(MetaError::Refused { detail: format!("member {chosen} did not answer") }),
        }
    }
}

/// The other voter with the longest log.
fn best(metrics: &RaftMetrics<Node, RaftNode>) -> Option<RaftId> {
    let replication = metrics.replication.as_ref()?;
    let voters = metrics.membership_config.membership().voter_ids().filter(|id| *id != metrics.id);
    voters.max_by_key(|id| replication.get(id).copied().flatten().next_index()).map(RaftId)
}
