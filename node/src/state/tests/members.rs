//! Members and disks.

use super::*;

#[tokio::test]
async fn nothing_happens_before_the_cluster_is_made_and_it_is_made_once() {
    let mut story = Story::blank().await;
    assert_eq!(story.run(bucket("b")).await, refused(Refusal::NoCluster));
    assert_eq!(story.run(join("n1", 1, &[])).await, refused(Refusal::NoCluster));
    let init = |id| Command::InitCluster { cluster: ClusterId(id), name: "c".into() };
    assert_eq!(story.run(init(7)).await, Outcome::Done);
    assert_eq!(story.state.map().epoch, FIRST_EPOCH);
    assert_eq!(story.run(init(7)).await, Outcome::Done, "the same again changes nothing");
    assert_eq!(story.run(init(8)).await, refused(Refusal::ClusterExists));
    assert_eq!(story.state.map().cluster, Some(ClusterId(7)));
}

#[tokio::test]
async fn nodes_join_under_ids_from_a_counter_and_keep_them() {
    let mut story = Story::blank().await;
    story.run(Command::InitCluster { cluster: OWNER.cluster, name: "c".into() }).await;
    let founder = match join("n1", 1, &[11]) {
        Command::JoinNode { name, instance, address, location, disks, .. } => {
            Command::JoinNode { name, instance, address, location, disks, raft_id: Some(FIRST_RAFT_ID) }
        }
        _ => unreachable!(),
    };
    assert_eq!(story.run(founder).await, Outcome::Joined { raft_id: RaftId(1) });
    assert_eq!(story.run(join("n2", 2, &[21])).await, Outcome::Joined { raft_id: RaftId(2) });
    assert_eq!(story.run(join("n3", 3, &[])).await, Outcome::Joined { raft_id: RaftId(3) });
    let revision = story.state.map().revision;
    assert_eq!(story.run(join("n2", 2, &[21])).await, Outcome::Joined { raft_id: RaftId(2) });
    assert_eq!(story.state.map().revision, revision, "saying what is known is no change");
    assert_eq!(story.run(join("n2", 9, &[])).await, refused(Refusal::NameTaken("n2".into())));
    assert_eq!(story.run(join("n9", 2, &[])).await, refused(Refusal::NameTaken("n2".into())));
    assert_eq!(story.run(join("n4", 4, &[21])).await, refused(Refusal::DiskTaken(DiskId(21), "n2".into())));
    assert!(!story.state.map().nodes.contains_key(&NodeName::from("n4")), "a refused join leaves nothing behind");
}

#[tokio::test]
async fn a_rejoining_node_brings_its_address_and_its_disks_keep_their_state() {
    let mut story = Story::cluster().await;
    story.run(mark(21, DiskState::Down, MarkedBy::Automatic, None)).await;
    let moved = match join("n2", 2, &[21, 23]) {
        Command::JoinNode { name, instance, location, disks, raft_id, .. } => {
            Command::JoinNode { name, instance, address: "elsewhere:2".into(), location, disks, raft_id }
        }
        _ => unreachable!(),
    };
    story.run(moved).await;
    let map = story.state.map();
    assert_eq!(map.nodes[&NodeName::from("n2")].address, "elsewhere:2");
    assert_eq!(map.disks[&DiskId(21)].state, DiskState::Down);
    assert_eq!(map.disks[&DiskId(23)].state, DiskState::Up);
    assert!(map.disks.contains_key(&DiskId(22)), "a disk that did not come along is still its disk");
}

#[tokio::test]
async fn a_lower_fence_is_refused_and_a_higher_one_is_kept() {
    let mut story = Story::cluster().await;
    let fence = |round| Fence { epoch: 1, round, holder: "n1".into() };
    assert_eq!(
        story.run(mark(11, DiskState::Down, MarkedBy::Automatic, Some(5))).await,
        Outcome::DiskWas(DiskState::Up)
    );
    assert_eq!(story.state.map().fence, fence(5));
    assert_eq!(
        story.run(mark(11, DiskState::Up, MarkedBy::Automatic, Some(4))).await,
        refused(Refusal::StaleFence { offered: fence(4), highest: fence(5) })
    );
    assert_eq!(
        story.run(mark(11, DiskState::Up, MarkedBy::Automatic, Some(5))).await,
        Outcome::DiskWas(DiskState::Down)
    );
    assert_eq!(
        story.run(mark(99, DiskState::Up, MarkedBy::Automatic, Some(9))).await,
        refused(Refusal::NoDisk(DiskId(99)))
    );
    assert_eq!(story.state.map().fence, fence(9), "seen is seen, even on a refused command");
}

#[tokio::test]
async fn an_automatic_mark_never_undoes_an_operators() {
    let mut story = Story::cluster().await;
    story.run(mark(11, DiskState::ReadOnly, MarkedBy::Operator, None)).await;
    assert_eq!(story.run(mark(11, DiskState::Up, MarkedBy::Automatic, None)).await, refused(Refusal::OperatorMark));
    assert_eq!(
        story.run(mark(11, DiskState::Out, MarkedBy::Automatic, None)).await,
        Outcome::DiskWas(DiskState::ReadOnly),
        "a stricter one may be set on top"
    );
    assert_eq!(story.run(mark(11, DiskState::Up, MarkedBy::Automatic, None)).await, refused(Refusal::OperatorMark));
    assert_eq!(story.run(mark(11, DiskState::Up, MarkedBy::Operator, None)).await, Outcome::DiskWas(DiskState::Out));
    assert_eq!(
        story.run(mark(11, DiskState::Down, MarkedBy::Automatic, None)).await,
        Outcome::DiskWas(DiskState::Up),
        "an operator's `up` gives the disk back to the agents"
    );
    assert_eq!(story.run(mark(11, DiskState::Up, MarkedBy::Automatic, None)).await, Outcome::DiskWas(DiskState::Down));
}

#[tokio::test]
async fn a_member_tells_of_its_metadata_disk_and_keeps_what_it_told_when_it_comes_back() {
    let mut story = Story::cluster().await;
    let room = |node: &str, low| Command::SetMetadataRoom { node: node.into(), low };
    assert_eq!(story.run(room("n9", true)).await, refused(Refusal::NoNode("n9".into())));
    assert_eq!(story.run(room("n2", true)).await, Outcome::Done);
    let revision = story.state.map().revision;
    assert_eq!(story.run(room("n2", true)).await, Outcome::Done);
    assert_eq!(story.state.map().revision, revision, "saying what is known is no change");
    story.run(join("n2", 2, &[21, 22])).await;
    assert!(story.state.map().nodes[&NodeName::from("n2")].metadata_low);
    assert!(!story.state.map().nodes[&NodeName::from("n1")].metadata_low);
    story.run(room("n2", false)).await;
    assert!(!story.state.map().nodes[&NodeName::from("n2")].metadata_low);
}
