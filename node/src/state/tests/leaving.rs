//! What the map says of nodes that leave, and what it refuses.

use super::*;

fn drain_by(node: &str, by: MarkedBy, judged: Option<u64>) -> Command {
    let fence = (by == MarkedBy::Automatic).then(|| Fence { epoch: 1, round: 1, holder: "n1".into() });
    Command::DrainHost { node: node.into(), by, reason: "it is sold".into(), judged, fence }
}

fn drain(node: &str) -> Command {
    drain_by(node, MarkedBy::Operator, None)
}

fn voting(node: &str, votes: bool, by: MarkedBy) -> Command {
    let fence = (by == MarkedBy::Automatic).then(|| Fence { epoch: 1, round: 1, holder: "n1".into() });
    Command::SetVoting { node: node.into(), votes, by, reason: "test".into(), judged: None, fence }
}

fn take(node: &str) -> Command {
    voting(node, false, MarkedBy::Operator)
}

fn slow(node: &str) -> Command {
    voting(node, false, MarkedBy::Automatic)
}

fn host(node: &str, state: HostState, by: MarkedBy) -> Command {
    Command::SetHostState { node: node.into(), state, by, reason: "test".into(), fence: None }
}

/// A cluster of so many nodes with so many disks each, and a bucket `b` (1+1).
async fn cluster(nodes: u128, disks: u128) -> Story {
    let mut story = Story::blank().await;
    story.run(Command::InitCluster { cluster: OWNER.cluster, name: "c".into() }).await;
    for node in 1..=nodes {
        let ids: Vec<u128> = (1..=disks).map(|disk| node * 10 + disk).collect();
        story.run(join(&format!("n{node}"), node, &ids)).await;
    }
    story.run(bucket("b")).await;
    story
}

fn node(story: &Story, name: &str) -> NodeRecord {
    story.state.map().nodes[&NodeName::from(name)].clone()
}

impl Story {
    async fn forget(&mut self, node: &str) -> Outcome {
        let judged = self.state.map().revision;
        self.run(Command::ForgetNode { node: node.into(), judged }).await
    }
}

#[tokio::test]
async fn every_disk_of_a_node_that_is_emptied_drains_also_one_that_is_added_later() {
    let mut story = cluster(4, 2).await;
    assert_eq!(story.run(drain("n9")).await, refused(Refusal::NoNode("n9".into())));
    assert_eq!(story.run(drain("n2")).await, Outcome::HostWas(HostState::Up));
    let marked = node(&story, "n2");
    assert_eq!(marked.draining, Some(Mark { by: MarkedBy::Operator, reason: "it is sold".into() }));
    assert!(!marked.may_vote() && !marked.keeps_its_place());
    let revision = story.state.map().revision;
    assert_eq!(story.run(drain("n2")).await, Outcome::HostWas(HostState::Up));
    assert_eq!(story.state.map().revision, revision, "saying what is known is no change");
    // It starts anew, with one more disk.
    story.run(join("n2", 2, &[21, 22, 23])).await;
    let map = story.state.map();
    for disk in [21, 22, 23] {
        assert_eq!(map.disk_state(DiskId(disk)), Some(DiskState::Draining));
    }
    assert_eq!(map.disk_state(DiskId(11)), Some(DiskState::Up));
}

#[tokio::test]
async fn a_node_that_dies_while_it_is_emptied_goes_on_when_it_is_back_and_only_a_person_ends_it() {
    let mut story = cluster(4, 2).await;
    story.run(drain("n2")).await;
    story.run(host("n2", HostState::Down, MarkedBy::Automatic)).await;
    assert_eq!(story.state.map().disk_state(DiskId(21)), Some(DiskState::Down));
    assert_eq!(
        story.run(host("n2", HostState::Up, MarkedBy::Automatic)).await,
        Outcome::HostWas(HostState::Down),
        "that it is away was an agent's word, and is one's to take back"
    );
    assert_eq!(story.state.map().disk_state(DiskId(21)), Some(DiskState::Draining));
    story.run(host("n2", HostState::Up, MarkedBy::Automatic)).await;
    assert!(node(&story, "n2").draining.is_some(), "that it is there says nothing of what somebody wants of it");
    assert_eq!(story.run(host("n2", HostState::Up, MarkedBy::Operator)).await, Outcome::HostWas(HostState::Up));
    assert_eq!(node(&story, "n2").draining, None);
    assert_eq!(story.state.map().disk_state(DiskId(21)), Some(DiskState::Up));
}

#[tokio::test]
async fn a_node_is_not_emptied_where_shards_would_find_no_disk_or_stand_too_close() {
    // 1+1 on three hosts: two are enough, one is not.
    let mut story = cluster(3, 2).await;
    story.run(put("k", object(1), Condition::None)).await;
    assert_eq!(story.run(drain("n3")).await, Outcome::HostWas(HostState::Up));
    let close = Refusal::TooFewHosts { bucket: "b".into(), hosts: 1, together: 2, spare: 1 };
    let before = story.state.map();
    assert_eq!(story.run(drain("n2")).await, refused(close));
    assert_eq!(story.state.map().nodes, before.nodes, "a refusal changes nothing");
    story.run(host("n3", HostState::Up, MarkedBy::Operator)).await;
    assert_eq!(story.run(drain("n2")).await, Outcome::HostWas(HostState::Up));

    // Four disks on as many hosts, and a coding that needs each of them.
    let mut story = cluster(4, 1).await;
    let wide = Command::SetBucket {
        bucket: "b".into(),
        coding: Some(Coding { k: 2, m: 2 }),
        quota_bytes: None,
        repair_priority: None,
    };
    story.run(wide).await;
    assert_eq!(story.run(drain("n4")).await, Outcome::HostWas(HostState::Up), "nothing is stored");
    story.run(host("n4", HostState::Up, MarkedBy::Operator)).await;
    story.run(put("k", object(1), Condition::None)).await;
    let none = Refusal::NoPlace { bucket: "b".into(), need: 4, left: 3 };
    assert_eq!(story.run(drain("n4")).await, refused(none));

    // What was so before is no reason: on one host there is nothing to keep apart.
    let mut story = cluster(2, 2).await;
    story.run(host("n2", HostState::Down, MarkedBy::Automatic)).await;
    story.run(put("k", object(1), Condition::None)).await;
    assert_eq!(story.run(drain("n2")).await, Outcome::HostWas(HostState::Down));
}

#[tokio::test]
async fn the_last_node_that_may_vote_keeps_its_vote() {
    let mut story = cluster(3, 2).await;
    story.run(take("n1")).await;
    story.run(host("n2", HostState::Down, MarkedBy::Automatic)).await;
    let last = || refused(Refusal::LastVote("n3".into()));
    assert_eq!(story.run(take("n3")).await, last());
    assert_eq!(story.run(slow("n3")).await, last());
    assert_eq!(story.run(drain("n3")).await, last());
    story.run(host("n2", HostState::Up, MarkedBy::Automatic)).await;
    assert_eq!(story.run(drain("n3")).await, Outcome::HostWas(HostState::Up));
    assert_eq!(story.run(take("n3")).await, Outcome::Done, "it has no vote to lose");
}

#[tokio::test]
async fn a_persons_word_on_a_vote_is_not_undone_by_an_agent_nor_by_a_start() {
    let mut story = cluster(6, 1).await;
    assert_eq!(story.run(take("n9")).await, refused(Refusal::NoNode("n9".into())));
    assert_eq!(story.run(slow("n2")).await, Outcome::Done);
    assert!(!node(&story, "n2").may_vote());
    story.run(join("n2", 2, &[21])).await;
    assert_eq!(node(&story, "n2").no_vote.unwrap().by, MarkedBy::Automatic, "that it starts does not make it fast");
    assert_eq!(story.run(voting("n2", true, MarkedBy::Automatic)).await, Outcome::Done);
    assert!(node(&story, "n2").may_vote());

    story.run(slow("n2")).await;
    assert_eq!(story.run(take("n2")).await, Outcome::Done, "a person makes it his own");
    let revision = story.state.map().revision;
    for again in [take("n2"), slow("n2")] {
        assert_eq!(story.run(again).await, Outcome::Done);
    }
    assert_eq!(story.state.map().revision, revision, "saying what is known is no change");
    let refusal = refused(Refusal::OperatorTookVote("n2".into()));
    assert_eq!(story.run(voting("n2", true, MarkedBy::Automatic)).await, refusal);
    assert_eq!(story.run(voting("n2", true, MarkedBy::Operator)).await, Outcome::Done);
    assert_eq!(node(&story, "n2").no_vote, None);
}

#[tokio::test]
async fn two_that_are_slow_and_a_third_of_the_nodes_have_a_cause_in_common() {
    let mut six = cluster(6, 1).await;
    six.run(slow("n1")).await;
    assert_eq!(six.run(slow("n2")).await, refused(Refusal::TooManySlow { slow: 2, nodes: 6 }));
    assert_eq!(six.run(take("n2")).await, Outcome::Done, "a person may");
    assert_eq!(six.run(slow("n3")).await, refused(Refusal::TooManySlow { slow: 2, nodes: 6 }));
    let mut seven = cluster(7, 1).await;
    seven.run(slow("n1")).await;
    assert_eq!(seven.run(slow("n2")).await, Outcome::Done);
    assert_eq!(seven.run(slow("n3")).await, refused(Refusal::TooManySlow { slow: 3, nodes: 7 }));
}

#[tokio::test]
async fn what_was_judged_by_another_map_is_not_done_and_a_stale_fence_is_refused() {
    let mut story = cluster(4, 2).await;
    let judged = Some(story.state.map().revision);
    assert_eq!(story.run(drain_by("n2", MarkedBy::Operator, judged)).await, Outcome::HostWas(HostState::Up));
    assert_eq!(story.run(drain_by("n3", MarkedBy::Operator, judged)).await, refused(Refusal::MapMoved));
    let judged = story.state.map().revision;
    story.run(take("n1")).await;
    assert_eq!(story.run(Command::ForgetNode { node: "n2".into(), judged }).await, refused(Refusal::MapMoved));
    // A fence that nobody saw before does not count as a map that moved.
    let judged = Some(story.state.map().revision);
    assert_eq!(story.run(drain_by("n3", MarkedBy::Automatic, judged)).await, Outcome::HostWas(HostState::Up));
    story.run(mark(11, DiskState::ReadOnly, MarkedBy::Automatic, Some(5))).await;
    assert!(matches!(story.run(slow("n4")).await, Outcome::Refused(Refusal::StaleFence { .. })));
}

#[tokio::test]
async fn a_node_is_removed_once_it_is_emptied_or_given_up_and_nothing_has_its_home_there() {
    let mut story = cluster(4, 2).await;
    story.run(put("k", object(1), Condition::None)).await;
    let in_use = |state, draining, shards| {
        let node = "n1".into();
        refused(Refusal::NodeInUse { node, state, draining, shards })
    };
    let shards: u64 =
        [11, 12].iter().filter_map(|id| story.state.counts().shards_by_disk.get(&DiskId(*id)).copied()).sum();
    assert!(shards > 0);
    assert_eq!(story.forget("n9").await, refused(Refusal::NoNode("n9".into())));
    assert_eq!(story.forget("n1").await, in_use(HostState::Up, false, shards));
    story.run(drain("n1")).await;
    assert_eq!(story.forget("n1").await, in_use(HostState::Up, true, shards));
    story.run(host("n1", HostState::Out, MarkedBy::Operator)).await;
    assert_eq!(story.forget("n1").await, in_use(HostState::Out, true, shards));

    assert_eq!(
        story.forget("n4").await,
        refused(Refusal::NodeInUse { node: "n4".into(), state: HostState::Up, draining: false, shards: 0 })
    );
    story.run(drain("n4")).await;
    let id = node(&story, "n4").raft_id;
    assert_eq!(story.forget("n4").await, Outcome::HostWas(HostState::Up));
    let map = story.state.map();
    assert!(!map.nodes.contains_key(&NodeName::from("n4")));
    assert!(map.disks.values().all(|disk| disk.node != NodeName::from("n4")));
    assert_eq!(map.removed.get(&id), Some(&RemovedNode { name: "n4".into(), instance: InstanceId(4) }));
}

#[tokio::test]
async fn a_removed_node_does_not_come_back_and_its_name_and_its_id_are_told_apart() {
    let mut story = cluster(4, 2).await;
    story.run(drain("n4")).await;
    let id = node(&story, "n4").raft_id;
    story.forget("n4").await;
    let removed = || refused(Refusal::NodeRemoved("n4".into()));
    assert_eq!(story.run(join("n4", 4, &[41, 42])).await, removed());
    assert_eq!(story.run(join("n7", 4, &[41, 42])).await, removed(), "under no other name either");
    let replace =
        Command::ReplaceMember { name: "n4".into(), instance: InstanceId(4), lost: id, attempt: 1, fence: None };
    assert_eq!(story.run(replace).await, removed());
    // Emptied, it is another: under an id that nobody ever had.
    let Outcome::Joined { raft_id } = story.run(join("n4", 44, &[43])).await else { panic!("it is let in") };
    assert!(raft_id > id);
    assert_eq!(node(&story, "n4").draining, None);
    assert!(story.state.map().removed.contains_key(&id));
}

#[tokio::test]
async fn what_is_remembered_of_removed_nodes_is_bounded_and_survives_a_crash() {
    let mut story = cluster(2, 1).await;
    let mut ids = Vec::new();
    for instance in 100..100 + MAX_REMOVED as u128 + 2 {
        story.run(join("n3", instance, &[])).await;
        ids.push(node(&story, "n3").raft_id);
        story.run(drain("n3")).await;
        assert_eq!(story.forget("n3").await, Outcome::HostWas(HostState::Up));
    }
    story.state.close().await;
    let map = State::open(&story.host, &story.path(), OWNER).await.unwrap().map();
    assert_eq!(map.removed.len(), MAX_REMOVED);
    assert!(!map.removed.contains_key(&ids[1]) && map.removed.contains_key(&ids[2]), "the first ones are forgotten");
}
