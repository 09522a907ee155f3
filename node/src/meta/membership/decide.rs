//! The next change of membership that is due: pure.
//!
//! Must never: take a vote without giving it to another in the same change, unless an odd number of three or more is left, all
//! of whom are there; promote a member that does not answer: a voter that is not there costs the quorum its margin. Invariant:
//! the number of voters it makes is odd: an even number tolerates no more failures than one less.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::Node;
use crate::model::{ClusterMap, NodeRecord};
use crate::types::RaftId;

/// Voters of a small cluster: one may fail.
pub(crate) const VOTERS: usize = 3;
/// Voters of a large one: two may fail.
const VOTERS_LARGE: usize = 5;
/// From how many nodes on a cluster is large.
const LARGE_CLUSTER: usize = 7;

/// The next change of membership, if one is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Lets a node in as a learner.
    Learn(Node, String),
    /// Takes over a member's new address.
    Readdress(Node, String),
    /// Makes learners voters.
    Promote(BTreeSet<Node>),
    /// Gives the votes of some to others, in one change: to as many, or, with nobody there to take them, to none.
    Replace {
        /// Whose.
        out: BTreeSet<Node>,
        /// To whom.
        by: BTreeSet<Node>,
    },
    /// Hands leadership to a voter: the leader's own vote is to go, and the next one decides about that.
    Yield(Node),
    /// Drops members that no node is any more, and that have no vote.
    Forget(BTreeSet<Node>),
    /// Ends a change that was cut off.
    Settle,
}

/// What the decision needs to know of one member of Raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) address: String,
    pub(super) voter: bool,
    /// Caught up and answering.
    pub(super) ready: bool,
}

/// What is due, and whether anything is left to wait for. `leader` decides, and never about its own vote.
pub(super) fn decide(map: &ClusterMap, leader: Node, members: &BTreeMap<Node, Member>) -> (Option<Step>, bool) {
    for node in map.nodes.values() {
        match members.get(&node.raft_id.0) {
            None => return (Some(Step::Learn(node.raft_id.0, node.address.clone())), true),
            Some(member) if member.address != node.address => {
                return (Some(Step::Readdress(node.raft_id.0, node.address.clone())), true);
            }
            Some(_) => {}
        }
    }
    let is_a_node = |id: &Node| map.node_by_raft(RaftId(*id)).is_some();
    let stays = |id: &Node| map.node_by_raft(RaftId(*id)).is_some_and(NodeRecord::may_vote);
    let forgotten = members.iter().filter(|(id, member)| !member.voter && !is_a_node(id)).map(|(id, _)| *id);
    let forgotten: BTreeSet<Node> = forgotten.collect();
    if !forgotten.is_empty() {
        return (Some(Step::Forget(forgotten)), true);
    }
    let voters: Vec<&Node> = members.iter().filter(|(_, member)| member.voter).map(|(id, _)| id).collect();
    let ready = || members.iter().filter(|(id, member)| !member.voter && member.ready && stays(id)).map(|(id, _)| *id);
    let (staying, mut leaving): (Vec<&Node>, Vec<&Node>) = voters.iter().partition(|id| stays(id) || ***id == leader);
    if !leaving.is_empty() {
        // Those that no node is any more are gone for certain; a host that is out may yet come back.
        leaving.sort_by_key(|id| is_a_node(id));
        let mut chosen = spread(map, &staying, ready().collect());
        chosen.truncate(leaving.len());
        if !chosen.is_empty() {
            let out = leaving.into_iter().take(chosen.len()).copied().collect();
            return (Some(Step::Replace { out, by: chosen.into_iter().collect() }), true);
        }
        if let Some(out) = shed(map, leader, members, &leaving) {
            return (Some(Step::Replace { out, by: BTreeSet::new() }), true);
        }
    }
    let heir = || voters.iter().find(|id| stays(id) && members.get(**id).is_some_and(|member| member.ready));
    if !stays(&leader)
        && let Some(heir) = heir()
    {
        return (Some(Step::Yield(**heir)), true);
    }
    if !leaving.is_empty() {
        return (None, true);
    }
    let target = if map.nodes.len() >= LARGE_CLUSTER { VOTERS_LARGE } else { VOTERS };
    let learners = members.iter().filter(|(id, member)| !member.voter && stays(id)).count();
    if voters.len() >= target || learners == 0 {
        return (None, false);
    }
    let mut chosen = spread(map, &voters, ready().collect());
    chosen.truncate(target - voters.len());
    if (voters.len() + chosen.len()).is_multiple_of(2) {
        chosen.pop();
    }
    // With a single learner there may be no odd number to reach: nothing to wait for until another joins.
    let most = voters.len() + learners.min(target - voters.len());
    let reachable = most - usize::from(most.is_multiple_of(2)) > voters.len();
    if chosen.is_empty() { (None, reachable) } else { (Some(Step::Promote(chosen.into_iter().collect())), true) }
}

/// Whose votes are taken when nobody is there to take them over: those that somebody wants gone, and one more where an even
/// number would be left. None unless those that are left are [`VOTERS`] or more, and every one of them is there: four that are
/// there tolerate no more than three, and five of whom two are not there no more either.
fn shed(map: &ClusterMap, leader: Node, members: &BTreeMap<Node, Member>, leaving: &[&Node]) -> Option<BTreeSet<Node>> {
    let marked = |node: &NodeRecord| node.draining.is_some() || node.no_vote.is_some();
    let mut out: BTreeSet<Node> =
        leaving.iter().filter(|id| map.node_by_raft(RaftId(***id)).is_some_and(marked)).map(|id| **id).collect();
    if out.is_empty() {
        return None;
    }
    let mut left: Vec<(&Node, &Member)> =
        members.iter().filter(|(id, member)| member.voter && !out.contains(id)).collect();
    if left.len().is_multiple_of(2) {
        // One that is not there, else the youngest.
        left.sort_by_key(|(id, member)| (**id == leader, member.ready, Reverse(**id)));
        out.insert(*left.remove(0).0);
    }
    (left.len() >= VOTERS && left.iter().all(|(_, member)| member.ready)).then_some(out)
}

/// Candidates in the order they are wanted: those from racks and datacenters without a voter first, then the oldest.
fn spread(map: &ClusterMap, voters: &[&Node], candidates: Vec<Node>) -> Vec<Node> {
    let place = |id: Node| map.node_by_raft(RaftId(id)).map(|node| node.location.clone()).unwrap_or_default();
    let mut taken: BTreeMap<_, usize> = BTreeMap::new();
    for voter in voters {
        *taken.entry(place(**voter)).or_default() += 1;
    }
    let mut left = candidates;
    let mut chosen = Vec::with_capacity(left.len());
    while !left.is_empty() {
        left.sort_by_key(|id| Reverse((taken.get(&place(*id)).copied().unwrap_or(0), *id)));
        if let Some(next) = left.pop() {
            *taken.entry(place(next)).or_default() += 1;
            chosen.push(next);
        }
    }
    chosen
}
