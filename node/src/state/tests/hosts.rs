//! What the map says of hosts, and which automatic marks it refuses.

use super::*;

fn host(node: &str, state: HostState, by: MarkedBy, round: Option<u64>) -> Command {
    let fence = round.map(|round| Fence { epoch: 1, round, holder: "n1".into() });
    Command::SetHostState { node: node.into(), state, by, reason: "test".into(), fence }
}

fn automatic(node: &str, state: HostState) -> Command {
    host(node, state, MarkedBy::Automatic, Some(1))
}

fn by_hand(node: &str, state: HostState) -> Command {
    host(node, state, MarkedBy::Operator, None)
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

#[tokio::test]
async fn a_mark_is_kept_with_its_reason_and_answered_with_what_was() {
    let mut story = cluster(3, 2).await;
    assert_eq!(story.run(automatic("n2", HostState::Down)).await, Outcome::HostWas(HostState::Up));
    let marked = node(&story, "n2");
    assert_eq!((marked.state, marked.marked_by), (HostState::Down, MarkedBy::Automatic));
    assert_eq!(marked.reason, "test");
    assert_eq!(story.state.map().disk_state(DiskId(21)), Some(DiskState::Down), "its disks go with it");
    assert_eq!(story.state.map().disk_state(DiskId(11)), Some(DiskState::Up));

    let revision = story.state.map().revision;
    assert_eq!(story.run(automatic("n2", HostState::Down)).await, Outcome::HostWas(HostState::Down));
    assert_eq!(story.run(automatic("n1", HostState::Up)).await, Outcome::HostWas(HostState::Up));
    assert_eq!(story.state.map().revision, revision, "saying what is known is no change");

    assert_eq!(story.run(automatic("n2", HostState::Up)).await, Outcome::HostWas(HostState::Down));
    assert_eq!(node(&story, "n2").reason, "", "of what is well nobody asks why");
    assert_eq!(story.run(automatic("n9", HostState::Down)).await, refused(Refusal::NoNode("n9".into())));
}

#[tokio::test]
async fn a_lower_fence_is_refused_and_a_higher_one_is_kept_even_if_the_mark_is_refused() {
    let mut story = cluster(3, 2).await;
    let fence = |round| Fence { epoch: 1, round, holder: "n1".into() };
    story.run(host("n2", HostState::Down, MarkedBy::Automatic, Some(5))).await;
    assert_eq!(
        story.run(host("n2", HostState::Up, MarkedBy::Automatic, Some(4))).await,
        refused(Refusal::StaleFence { offered: fence(4), highest: fence(5) })
    );
    story.run(host("n9", HostState::Down, MarkedBy::Automatic, Some(8))).await;
    assert_eq!(story.state.map().fence, fence(8));
    assert_eq!(
        story.run(mark(11, DiskState::Down, MarkedBy::Automatic, Some(7))).await,
        refused(Refusal::StaleFence { offered: fence(7), highest: fence(8) }),
        "hosts and disks are marked under one fence"
    );
}

#[tokio::test]
async fn an_automatic_mark_never_undoes_an_operators() {
    let mut story = cluster(6, 2).await;
    story.run(by_hand("n2", HostState::Down)).await;
    let refusal = refused(Refusal::OperatorMarkedHost("n2".into()));
    assert_eq!(story.run(automatic("n2", HostState::Up)).await, refusal);
    assert_eq!(story.run(automatic("n2", HostState::Out)).await, Outcome::HostWas(HostState::Down));
    assert_eq!(node(&story, "n2").marked_by, MarkedBy::Operator, "a stricter one on top leaves it a person's");
    assert_eq!(story.run(automatic("n2", HostState::Up)).await, refusal);
    // It joins again: a person's word is a person's to take back.
    story.run(join("n2", 2, &[21, 22])).await;
    assert_eq!(node(&story, "n2").state, HostState::Out);

    assert_eq!(story.run(by_hand("n2", HostState::Up)).await, Outcome::HostWas(HostState::Out));
    assert_eq!(story.run(automatic("n2", HostState::Down)).await, Outcome::HostWas(HostState::Up));
    assert_eq!(
        story.run(automatic("n2", HostState::Up)).await,
        Outcome::HostWas(HostState::Down),
        "an operator's `up` gives the host back to the agents"
    );
}

#[tokio::test]
async fn a_node_that_joins_again_refutes_that_it_is_away_but_not_that_it_was_given_up() {
    let mut story = cluster(6, 2).await;
    story.run(automatic("n2", HostState::Down)).await;
    story.run(join("n3", 3, &[31, 32])).await;
    assert_eq!(node(&story, "n2").state, HostState::Down, "another's join says nothing of it");
    story.run(join("n2", 2, &[21, 22])).await;
    let back = node(&story, "n2");
    assert_eq!((back.state, back.reason.as_str()), (HostState::Up, ""));
    assert_eq!(story.state.map().disk_state(DiskId(21)), Some(DiskState::Up));

    story.run(automatic("n2", HostState::Out)).await;
    story.run(join("n2", 2, &[21, 22])).await;
    assert_eq!(node(&story, "n2").state, HostState::Out, "somebody looks at it first");
    assert_eq!(node(&story, "n2").reason, "test");
    assert_eq!(story.run(automatic("n2", HostState::Up)).await, Outcome::HostWas(HostState::Out));
}

#[tokio::test]
async fn more_than_a_third_of_the_hosts_is_not_given_up_automatically() {
    let mut story = cluster(6, 2).await;
    for name in ["n1", "n2"] {
        assert_eq!(story.run(automatic(name, HostState::Out)).await, Outcome::HostWas(HostState::Up));
    }
    let third = Refusal::TooManyOut { out: 3, hosts: 6 };
    assert_eq!(story.run(automatic("n3", HostState::Out)).await, refused(third));
    assert_eq!(story.run(automatic("n1", HostState::Out)).await, Outcome::HostWas(HostState::Out), "it is out already");
    // However many are silent, to say so is never refused.
    for name in ["n3", "n4", "n5", "n6"] {
        assert_eq!(story.run(automatic(name, HostState::Down)).await, Outcome::HostWas(HostState::Up));
    }
    // A person may, and what a person gave up counts for nothing: two of the five others are still too many for a third.
    assert_eq!(story.run(by_hand("n3", HostState::Out)).await, Outcome::HostWas(HostState::Down));
    let fourth = Refusal::TooManyOut { out: 3, hosts: 5 };
    assert_eq!(story.run(automatic("n4", HostState::Out)).await, refused(fourth));
}

#[tokio::test]
async fn of_two_hosts_none_is_given_up_automatically_and_of_three_one() {
    let mut two = cluster(2, 4).await;
    let refusal = Refusal::TooManyOut { out: 1, hosts: 2 };
    assert_eq!(two.run(automatic("n2", HostState::Out)).await, refused(refusal));
    let mut three = cluster(3, 4).await;
    assert_eq!(three.run(automatic("n2", HostState::Out)).await, Outcome::HostWas(HostState::Up));
}

#[tokio::test]
async fn a_host_is_kept_while_there_is_no_place_to_rebuild_what_is_on_it() {
    // Four disks, and after one host has gone three: a bucket with 2+2 could not have its shards apart.
    let mut story = cluster(4, 1).await;
    let wide = Command::SetBucket {
        bucket: "b".into(),
        coding: Some(Coding { k: 2, m: 2 }),
        quota_bytes: None,
        repair_priority: None,
    };
    story.run(wide).await;
    assert_eq!(story.run(automatic("n4", HostState::Out)).await, Outcome::HostWas(HostState::Up), "it holds nothing");
    story.run(automatic("n4", HostState::Up)).await;

    story.run(put("k", object(1), Condition::None)).await;
    let refusal = Refusal::NoPlace { bucket: "b".into(), need: 4, left: 3 };
    assert_eq!(story.run(automatic("n4", HostState::Out)).await, refused(refusal.clone()));
    assert_eq!(node(&story, "n4").state, HostState::Up, "a refusal changes nothing");
    assert_eq!(story.run(by_hand("n4", HostState::Out)).await, Outcome::HostWas(HostState::Up), "a person may");
    story.run(by_hand("n4", HostState::Up)).await;

    // A fifth disk is a place, unless it takes no new shards.
    story.run(join("n3", 3, &[31, 32])).await;
    story.run(mark(32, DiskState::ReadOnly, MarkedBy::Operator, None)).await;
    assert_eq!(story.run(automatic("n4", HostState::Out)).await, refused(refusal));
    story.run(mark(32, DiskState::Up, MarkedBy::Operator, None)).await;
    assert_eq!(story.run(automatic("n4", HostState::Out)).await, Outcome::HostWas(HostState::Up));
}

#[tokio::test]
async fn marks_of_hosts_survive_a_crash_and_travel_in_snapshots() {
    let mut story = cluster(3, 2).await;
    story.run(automatic("n2", HostState::Down)).await;
    let file = story.dir.path().join("snapshot");
    story.state.export(&file, "s1".into()).await.unwrap();
    let other = Story::blank().await;
    other.state.install(&file).await.unwrap();
    assert_eq!(*other.state.map(), *story.state.map());
    story.state.close().await;
    let again = State::open(&story.host, &story.path(), OWNER).await.unwrap();
    assert_eq!(again.map().nodes[&NodeName::from("n2")].state, HostState::Down);
}
