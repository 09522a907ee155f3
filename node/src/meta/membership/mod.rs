//! Who votes: the leader turns what the cluster map says into Raft's membership.
//!
//! Owns: adding joined nodes as learners, following their addresses, promoting; giving the vote of a member that will not
//! come back (its node has another id, or its host is out), or is not to vote (it is emptied, slow, or somebody said so), to
//! one that is there; handing leadership over when that is the leader; forgetting members that no node is any more; and
//! letting a member that was slow vote again. What is due is decided in [`decide`]. Must never: undo what a person said of a
//! vote.

mod decide;
mod proven;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::{BasicNode, ChangeMembers, LogIdOptionExt, LogIndexOptionExt, RaftMetrics};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use self::decide::VOTERS;
use self::decide::{Member, Step, decide};
use self::proven::Proven;
use super::Meta;
use super::network::Links;
use super::raft::{Node, RaftNode};
use crate::model::{ClusterMap, Command, MarkedBy, Outcome};
use crate::types::{NodeName, RaftId};

/// Entries a learner may be behind and still count as caught up: what a busy leader writes within a heartbeat.
pub(crate) const CAUGHT_UP_ENTRIES: u64 = 100;
/// A learner that answered within this time is there.
const PRESENT: Duration = Duration::from_secs(1);
/// How often to look again while something is left to do: learners catch up without telling.
const WORK_INTERVAL: Duration = Duration::from_millis(200);
/// How often to look while nothing is: against a change that slipped by. Also after leadership was not taken over: every
/// attempt costs the cluster an election's time.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// Heartbeats between a node's removal and the drop of its member: the first one tells it what is committed.
const FAREWELL_BEATS: u32 = 4;
/// One membership change. Without a quorum it would wait for ever.
const CHANGE_DEADLINE: Duration = Duration::from_secs(5);

/// Keeps Raft's membership in step with the map while this member leads.
pub(super) async fn run(meta: Meta, mut stop: watch::Receiver<bool>) {
    let mut map = meta.map_changes();
    let mut server = meta.inner.raft.server_metrics();
    let mut proven = Proven::new(meta.inner.tuning.kept_up);
    loop {
        let present = map.borrow_and_update().clone();
        let progress = tokio::select! {
            progress = look(&meta, &present, &mut proven) => progress,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let pause = match progress {
            Progress::Done => Duration::ZERO,
            Progress::Waiting => WORK_INTERVAL,
            Progress::Idle => IDLE_INTERVAL,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = map.changed() => if changed.is_err() { return },
            changed = server.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

enum Progress {
    Done,
    Waiting,
    Idle,
}

async fn look(meta: &Meta, map: &ClusterMap, proven: &mut Proven) -> Progress {
    let inner = &meta.inner;
    let joint = inner.raft.metrics().borrow().membership_config.membership().get_joint_config().len() > 1;
    let (own, members) = {
        let metrics = inner.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.current_leader != Some(metrics.id) || !metrics.state.is_leader() {
            // Whoever led meanwhile may have seen a member fall behind.
            proven.clear();
            return Progress::Idle;
        }
        (metrics.id, members(&metrics, &inner.links))
    };
    let (step, waiting) = match joint {
        // A change that was cut off between its two entries: until it is ended, both sets have to agree.
        true => (Some(Step::Settle), true),
        false => decide(map, own, &members),
    };
    if let Some(step) = step {
        return carry_out(meta, &members, step).await;
    }
    let ready = |id: RaftId| id.0 == own || members.get(&id.0).is_some_and(|member| member.ready);
    if let Some(node) = proven.due(Instant::now(), map, ready) {
        give_back(meta, node, map.revision).await;
        return Progress::Waiting;
    }
    if waiting || !proven.is_empty() { Progress::Waiting } else { Progress::Idle }
}

async fn carry_out(meta: &Meta, members: &BTreeMap<Node, Member>, step: Step) -> Progress {
    let change = match step.clone() {
        Step::Learn(id, address) => ChangeMembers::AddNodes(BTreeMap::from([(id, BasicNode::new(address))])),
        Step::Readdress(id, address) => ChangeMembers::SetNodes(BTreeMap::from([(id, BasicNode::new(address))])),
        Step::Promote(ids) => ChangeMembers::AddVoterIds(ids),
        Step::Replace { out, by } => {
            let voters = members.iter().filter(|(_, member)| member.voter).map(|(id, _)| *id);
            ChangeMembers::ReplaceAllVoters(voters.filter(|id| !out.contains(id)).chain(by).collect())
        }
        Step::Yield(heir) => return hand_over(meta, RaftId(heir)).await,
        Step::Forget(ids) => {
            // Nobody sends anything to a member that was dropped: that of a node that was taken out is first given the time to
            // hear that it is none any more.
            if ids.iter().any(|id| meta.map().removed.contains_key(&RaftId(*id))) {
                tokio::time::sleep(meta.inner.tuning.heartbeat * FAREWELL_BEATS).await;
            }
            ChangeMembers::RemoveNodes(ids)
        }
        Step::Settle => ChangeMembers::AddVoterIds(BTreeSet::new()),
    };
    // Those whose vote is taken go on as learners; whether they are forgotten is decided of its own.
    match tokio::time::timeout(CHANGE_DEADLINE, meta.inner.raft.change_membership(change, true)).await {
        Ok(Ok(_)) => {
            tracing::info!(operation = "membership", ?step, "raft's membership changed");
            Progress::Done
        }
        Ok(Err(error)) => {
            tracing::warn!(operation = "membership", ?step, %error, "a membership change was refused");
            Progress::Waiting
        }
        Err(_) => {
            tracing::warn!(operation = "membership", ?step, "a membership change found no quorum");
            Progress::Waiting
        }
    }
}

async fn hand_over(meta: &Meta, heir: RaftId) -> Progress {
    match meta.step_down(Some(heir)).await {
        Ok(()) => {
            tracing::info!(operation = "membership", %heir, "leadership was handed over: this member is not to vote");
            Progress::Done
        }
        Err(error) => {
            tracing::warn!(operation = "membership", %heir, %error, "leadership was not taken over: tried again later");
            Progress::Idle
        }
    }
}

/// Takes an agent's mark back from a member that keeps up again.
async fn give_back(meta: &Meta, node: NodeName, revision: u64) {
    let reason = "it kept up with the leader again".to_owned();
    let (by, judged) = (MarkedBy::Automatic, Some(revision));
    let command = Command::SetVoting { node: node.clone(), votes: true, by, reason, judged, fence: None };
    match meta.propose(command).await {
        Ok(Outcome::Done) => tracing::info!(operation = "membership", %node, "a member that was slow may vote again"),
        // The map moved on, or a person took the vote meanwhile: looked at again.
        Ok(outcome) => tracing::debug!(operation = "membership", %node, ?outcome, "the mark of a slow member stays"),
        Err(error) => {
            tracing::warn!(operation = "membership", %node, %error, "the mark of a slow member stays for now")
        }
    }
}

fn members(metrics: &RaftMetrics<Node, RaftNode>, links: &Links) -> BTreeMap<Node, Member> {
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<Node> = membership.voter_ids().collect();
    let matched = |id: &Node| metrics.replication.as_ref().and_then(|targets| targets.get(id)).copied().flatten();
    membership
        .nodes()
        .map(|(id, node)| {
            let behind = metrics.last_log_index.next_index().saturating_sub(matched(id).next_index());
            let present = links.silent_for(*id).is_some_and(|silent| silent < PRESENT);
            // The leader is where its log ends.
            let ready = *id == metrics.id || behind <= CAUGHT_UP_ENTRIES && matched(id).is_some() && present;
            (*id, Member { address: node.addr.clone(), voter: voters.contains(id), ready })
        })
        .collect()
}
