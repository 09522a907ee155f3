//! What is due, by map and members.

use super::decide::{Member, Step, decide};
use super::*;
use crate::model::{HostState, Location, Mark, NodeRecord};
use crate::types::InstanceId;

pub(super) fn map(racks: &[&str]) -> ClusterMap {
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
            draining: None,
            no_vote: None,
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
    assert_eq!(decide(&map, 2, &all).0, Some(Step::Yield(1)), "a leader does not decide about itself");
    assert_eq!(decide(&map, 1, &members(&[1, 3, 5], &[2, 4, 6], &[])), (None, false), "it stays as a learner");
}

fn word(by: MarkedBy) -> Option<Mark> {
    Some(Mark { by, reason: "test".to_owned() })
}

/// A cluster without racks in which some are not to vote, for one reason or another.
fn unwanted(nodes: usize, unwanted: &[&str]) -> ClusterMap {
    let mut map = map(&vec![""; nodes]);
    for (at, name) in unwanted.iter().enumerate() {
        let node = map.nodes.get_mut(&(*name).into()).unwrap();
        match at % 3 {
            0 => node.draining = word(MarkedBy::Operator),
            1 => node.no_vote = word(MarkedBy::Operator),
            _ => node.no_vote = word(MarkedBy::Automatic),
        }
    }
    map
}

#[test]
fn whoever_is_emptied_slow_or_without_a_vote_by_a_persons_word_gives_it_away_and_gets_none() {
    let map = unwanted(7, &["n2", "n3", "n4"]);
    assert_eq!(decide(&map, 1, &members(&[1, 2, 3, 4, 5], &[6, 7], &[])).0, replaced(&[2, 3], &[6, 7]));
    assert_eq!(decide(&map, 1, &members(&[1, 5, 6], &[2, 3, 4, 7], &[])), (None, false), "four may vote: three do");
    assert_eq!(decide(&map, 1, &members(&[1], &[2, 3, 4], &[5, 6, 7])), (None, true), "none of them is promoted");
    assert_eq!(decide(&map, 1, &members(&[1], &[2, 3, 4, 5, 6], &[7])).0, promote(&[5, 6]));
}

#[test]
fn a_vote_that_nobody_can_take_over_is_taken_only_where_three_are_left_who_are_there() {
    let three = unwanted(3, &["n2"]);
    assert_eq!(decide(&three, 1, &members(&[1, 2, 3], &[], &[])), (None, true), "two tolerate nothing");
    let four = unwanted(4, &["n2"]);
    assert_eq!(decide(&four, 1, &members(&[1, 2, 3], &[], &[4])), (None, true), "the fourth has to catch up first");
    let five = unwanted(5, &["n2"]);
    assert_eq!(
        decide(&five, 1, &members(&[1, 2, 3, 4, 5], &[], &[])).0,
        replaced(&[2, 5], &[]),
        "an odd number is left"
    );
    assert_eq!(decide(&five, 5, &members(&[1, 2, 3, 4, 5], &[], &[])).0, replaced(&[2, 4], &[]), "the leader stays");
    let not_there = |absent: &[Node]| {
        let mut members = members(&[1, 2, 3, 4, 5], &[], &[]);
        absent.iter().for_each(|id| members.get_mut(id).unwrap().ready = false);
        decide(&five, 1, &members)
    };
    assert_eq!(not_there(&[2]).0, replaced(&[2, 5], &[]));
    assert_eq!(not_there(&[2, 3]).0, replaced(&[2, 3], &[]), "rather that of one that is not there");
    assert_eq!(not_there(&[3, 4]), (None, true), "two would be left");
    // Not for a host that is out: it may come back, or another may join.
    let mut out = map(&[""; 5]);
    out.nodes.get_mut(&"n2".into()).unwrap().state = HostState::Out;
    assert_eq!(decide(&out, 1, &members(&[1, 2, 3, 4, 5], &[], &[])), (None, true));
}

#[test]
fn a_leader_that_is_not_to_vote_hands_over_first_to_one_that_is_there_and_may() {
    let map = unwanted(5, &["n1", "n2"]);
    let mut all = members(&[1, 2, 3], &[4, 5], &[]);
    assert_eq!(decide(&map, 1, &all).0, replaced(&[2], &[4]), "the others first: it is still of use");
    all = members(&[1, 3, 4], &[2, 5], &[]);
    assert_eq!(decide(&map, 1, &all).0, Some(Step::Yield(3)));
    all.get_mut(&3).unwrap().ready = false;
    assert_eq!(decide(&map, 1, &all).0, Some(Step::Yield(4)));
    all.get_mut(&4).unwrap().ready = false;
    assert_eq!(decide(&map, 1, &all).0, None, "nobody is there to lead");
    assert_eq!(decide(&map, 3, &members(&[1, 3, 4], &[2, 5], &[])).0, replaced(&[1], &[5]), "its successor goes on");
    // Leadership does not wait for somebody to take the vote over.
    assert_eq!(decide(&map, 1, &members(&[1, 3, 4], &[2], &[5])).0, Some(Step::Yield(3)));
}

#[test]
fn a_lone_voter_that_is_not_to_vote_lets_others_vote_and_then_goes() {
    let map = unwanted(4, &["n1"]);
    assert_eq!(decide(&map, 1, &members(&[1], &[2, 3], &[4])).0, promote(&[2, 3]));
    assert_eq!(decide(&map, 1, &members(&[1, 2, 3], &[4], &[])).0, Some(Step::Yield(2)));
    assert_eq!(decide(&map, 2, &members(&[1, 2, 3], &[4], &[])).0, replaced(&[1], &[4]));
}

#[test]
fn a_node_that_was_removed_is_dropped_and_its_vote_given_away_if_it_had_one_still() {
    let mut map = map(&[""; 5]);
    map.nodes.remove(&"n2".into());
    assert_eq!(decide(&map, 1, &members(&[1, 3, 4], &[2, 5], &[])).0, Some(Step::Forget(BTreeSet::from([2]))));
    assert_eq!(decide(&map, 1, &members(&[1, 2, 3], &[4, 5], &[])).0, replaced(&[2], &[4]));
}

#[test]
fn whoever_may_vote_again_is_promoted_when_a_vote_is_free() {
    let map = unwanted(5, &[]);
    assert_eq!(decide(&map, 1, &members(&[1, 3, 4], &[2, 5], &[])), (None, false), "it waits as a learner");
    let mut map = map;
    map.nodes.get_mut(&"n4".into()).unwrap().no_vote = word(MarkedBy::Operator);
    assert_eq!(decide(&map, 1, &members(&[1, 3, 4], &[2, 5], &[])).0, replaced(&[4], &[2]));
}
