//! Who votes: the leader turns what the cluster map says into Raft's membership.
//!
//! Owns: adding joined nodes as learners, following their addresses, promoting; giving the vote of a member that will not
//! come back (its node has another id, or its host is out) to one that is there, and forgetting the former. Must never:
//! take a vote from a member without giving it to another in the same change; promote a member that does not answer: a
//! voter that is not there costs the quorum its margin. Invariant: the number of voters it makes is odd: an even number
//! tolerates no more failures than one less.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::{BasicNode, ChangeMembers, LogIdOptionExt, LogIndexOptionExt, RaftMetrics};
use tokio::sync::watch;

use super::network::Links;
use super::raft::{Node, Raft, RaftNode};
use crate::model::{ClusterMap, HostState};
use crate::types::RaftId;

/// Voters of a small cluster: one may fail.
const VOTERS: usize = 3;
/// Voters of a large one: two may fail.
const VOTERS_LARGE: usize = 5;
/// From how many nodes on a cluster is large.
const LARGE_CLUSTER: usize = 7;
/// Entries a learner may be behind and still count as caught up: what a busy leader writes within a heartbeat.
const CAUGHT_UP_ENTRIES: u64 = 100;
/// A learner that answered within this time is there.
const PRESENT: Duration = Duration::from_secs(1);
/// How often to look again while something is left to do: learners catch up without telling.
const WORK_INTERVAL: Duration = Duration::from_millis(200);
/// How often to look while nothing is: against a change that slipped by.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// One membership change. Without a quorum it would wait for ever.
const CHANGE_DEADLINE: Duration = Duration::from_secs(5);

/// The next change of membership, if one is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Lets a node in as a learner.
    Learn(Node, String),
    /// Takes over a member's new address.
    Readdress(Node, String),
    /// Makes learners voters.
    Promote(BTreeSet<Node>),
    /// Gives the votes of some to as many others, in one change.
    Replace {
        /// Whose.
        out: BTreeSet<Node>,
        /// To whom.
        by: BTreeSet<Node>,
    },
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

/// What is due, and whether anything is left to wait for. `leader` decides, and never about itself.
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
    let stays = |id: &Node| map.node_by_raft(RaftId(*id)).is_some_and(|node| node.state != HostState::Out);
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
        if chosen.is_empty() {
            return (None, true);
        }
        let out = leaving.into_iter().take(chosen.len()).copied().collect();
        return (Some(Step::Replace { out, by: chosen.into_iter().collect() }), true);
    }
    let target = if map.nodes.len() >= LARGE_CLUSTER { VOTERS_LARGE } else { VOTERS };
    let learners = members.keys().filter(|id| stays(id)).count().saturating_sub(voters.len());
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

/// Keeps Raft's membership in step with the map while this member leads.
pub(super) async fn run(
    raft: Raft,
    links: Arc<Links>,
    mut map: watch::Receiver<Arc<ClusterMap>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut server = raft.server_metrics();
    loop {
        let present = map.borrow_and_update().clone();
        let pause = match step(&raft, &links, &present).await {
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

async fn step(raft: &Raft, links: &Links, map: &ClusterMap) -> Progress {
    let joint = raft.metrics().borrow().membership_config.membership().get_joint_config().len() > 1;
    let (own, members) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow();
        if metrics.current_leader != Some(metrics.id) || !metrics.state.is_leader() {
            return Progress::Idle;
        }
        (metrics.id, members(&metrics, links))
    };
    let (step, waiting) = match joint {
        // A change that was cut off between its two entries: until it is ended, both sets have to agree.
        true => (Some(Step::Settle), true),
        false => decide(map, own, &members),
    };
    let Some(step) = step else { return if waiting { Progress::Waiting } else { Progress::Idle } };
    let change = match step.clone() {
        Step::Learn(id, address) => ChangeMembers::AddNodes(BTreeMap::from([(id, BasicNode::new(address))])),
        Step::Readdress(id, address) => ChangeMembers::SetNodes(BTreeMap::from([(id, BasicNode::new(address))])),
        Step::Promote(ids) => ChangeMembers::AddVoterIds(ids),
        Step::Replace { out, by } => {
            let voters = members.iter().filter(|(_, member)| member.voter).map(|(id, _)| *id);
            ChangeMembers::ReplaceAllVoters(voters.filter(|id| !out.contains(id)).chain(by).collect())
        }
        Step::Forget(ids) => ChangeMembers::RemoveNodes(ids),
        Step::Settle => ChangeMembers::AddVoterIds(BTreeSet::new()),
    };
    // Those whose vote is taken go on as learners; whether they are forgotten is decided of its own.
    match tokio::time::timeout(CHANGE_DEADLINE, raft.change_membership(change, true)).await {
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

fn members(metrics: &RaftMetrics<Node, RaftNode>, links: &Links) -> BTreeMap<Node, Member> {
    let membership = metrics.membership_config.membership();
    let voters: BTreeSet<Node> = membership.voter_ids().collect();
    let matched = |id: &Node| metrics.replication.as_ref().and_then(|targets| targets.get(id)).copied().flatten();
    membership
        .nodes()
        .map(|(id, node)| {
            let behind = metrics.last_log_index.next_index().saturating_sub(matched(id).next_index());
            let present = links.silent_for(*id).is_some_and(|silent| silent < PRESENT);
            let ready = behind <= CAUGHT_UP_ENTRIES && matched(id).is_some() && present;
            (*id, Member { address: node.addr.clone(), voter: voters.contains(id), ready })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Location, MarkedBy, NodeRecord};
    use crate::types::InstanceId;

    fn map(racks: &[&str]) -> ClusterMap {
        let mut map = ClusterMap::default();
        for (id, rack) in (1..).zip(racks) {
            let record = NodeRecord {
                metadata_low: false,
                name: format!("n{id}").as_str().into(),
                raft_id: RaftId(id),
                instance: InstanceId(u128::from(id)),
                address: format!("n{id}:1"),
                location: Location { datacenter: String::new(), rack: (*rack).to_owned() },
                state: HostState::Up,
                marked_by: MarkedBy::Automatic,
                reason: String::new(),
                attempt: None,
            };
            map.nodes.insert(record.name.clone(), record);
        }
        map
    }

    fn members(voters: &[Node], ready: &[Node], waiting: &[Node]) -> BTreeMap<Node, Member> {
        let member = |id: &Node, voter, ready| (*id, Member { address: format!("n{id}:1"), voter, ready });
        let voters = voters.iter().map(|id| member(id, true, true));
        let ready = ready.iter().map(|id| member(id, false, true));
        voters.chain(ready).chain(waiting.iter().map(|id| member(id, false, false))).collect()
    }

    fn promote(ids: &[Node]) -> Option<Step> {
        Some(Step::Promote(ids.iter().copied().collect()))
    }

    #[test]
    fn a_joined_node_is_let_in_and_followed_to_its_new_address() {
        let map = map(&["", ""]);
        assert_eq!(decide(&map, 1, &members(&[1], &[], &[])), (Some(Step::Learn(2, "n2:1".into())), true));
        let mut moved = members(&[1], &[2], &[]);
        moved.get_mut(&2).unwrap().address = "old:1".into();
        assert_eq!(decide(&map, 1, &moved), (Some(Step::Readdress(2, "n2:1".into())), true));
    }

    #[test]
    fn the_number_of_voters_is_odd() {
        assert_eq!(decide(&map(&[""; 2]), 1, &members(&[1], &[2], &[])), (None, false), "two are no better than one");
        assert_eq!(decide(&map(&[""; 3]), 1, &members(&[1], &[2], &[3])), (None, true), "the third is on its way");
        assert_eq!(decide(&map(&[""; 3]), 1, &members(&[1], &[2, 3], &[])).0, promote(&[2, 3]));
        assert_eq!(decide(&map(&[""; 6]), 1, &members(&[1, 2, 3], &[4, 5, 6], &[])), (None, false));
        assert_eq!(decide(&map(&[""; 7]), 1, &members(&[1, 2, 3], &[4, 5, 6, 7], &[])).0, promote(&[4, 5]));
        assert_eq!(decide(&map(&[""; 7]), 1, &members(&[1, 2, 3], &[4], &[5, 6, 7])), (None, true));
    }

    #[test]
    fn voters_stand_in_different_racks_where_they_can() {
        let map = map(&["a", "a", "a", "b", "c", "b"]);
        assert_eq!(decide(&map, 1, &members(&[1], &[2, 3, 4, 5, 6], &[])).0, promote(&[4, 5]));
        assert_eq!(decide(&map, 1, &members(&[1], &[2, 4, 6], &[3, 5])).0, promote(&[2, 4]));
    }

    fn replaced(out: &[Node], by: &[Node]) -> Option<Step> {
        Some(Step::Replace { out: out.iter().copied().collect(), by: by.iter().copied().collect() })
    }

    /// The node of member 2 lost its metadata, and is member 7 now.
    fn rejoined(racks: &[&str]) -> ClusterMap {
        let mut map = map(racks);
        let node = map.nodes.get_mut(&"n2".into()).unwrap();
        (node.raft_id, node.address) = (RaftId(7), "n7:1".to_owned());
        map
    }

    #[test]
    fn the_vote_of_a_lost_member_goes_to_a_learner_that_is_there_in_one_change() {
        let map = rejoined(&[""; 6]);
        let learned = members(&[1, 2, 3], &[4, 5, 6], &[]);
        assert_eq!(decide(&map, 1, &learned).0, Some(Step::Learn(7, "n7:1".into())), "the node comes in again first");
        assert_eq!(decide(&map, 1, &members(&[1, 2, 3], &[4, 5, 6], &[7])).0, replaced(&[2], &[4]));
        let none = members(&[1, 2, 3], &[], &[4, 5, 6, 7]);
        assert_eq!(decide(&map, 1, &none), (None, true), "a vote is never taken without being given to another");
        // The lost one is a learner by then, and no node's.
        assert_eq!(decide(&map, 1, &members(&[1, 3, 4], &[5, 6], &[2, 7])).0, Some(Step::Forget(BTreeSet::from([2]))));
        assert_eq!(decide(&map, 1, &members(&[1, 3, 4], &[5, 6], &[7])), (None, false), "three vote, as before");
    }

    #[test]
    fn without_another_the_node_itself_takes_over_from_the_member_that_it_was() {
        let map = rejoined(&[""; 3]);
        assert_eq!(decide(&map, 1, &members(&[1, 2, 3], &[], &[7])), (None, true), "it has to catch up first");
        assert_eq!(decide(&map, 1, &members(&[1, 2, 3], &[7], &[])).0, replaced(&[2], &[7]));
    }

    #[test]
    fn a_host_that_is_out_gives_its_vote_away_and_gets_none() {
        let mut map = map(&[""; 6]);
        map.nodes.get_mut(&"n2".into()).unwrap().state = HostState::Out;
        map.nodes.get_mut(&"n4".into()).unwrap().state = HostState::Out;
        let all = members(&[1, 2, 3], &[4, 5, 6], &[]);
        assert_eq!(decide(&map, 1, &all).0, replaced(&[2], &[5]));
        assert_eq!(decide(&map, 2, &all), (None, false), "a leader does not decide about itself");
        assert_eq!(decide(&map, 1, &members(&[1, 3, 5], &[2, 4, 6], &[])), (None, false), "it stays as a learner");
    }
}
