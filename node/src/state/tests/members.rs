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
async fn a_lost_member_is_replaced_once_however_often_that_is_asked_for() {
    let mut story = Story::cluster().await;
    let replace = |name: &str, instance, lost, attempt, round: Option<u64>| Command::ReplaceMember {
        name: name.into(),
        instance: InstanceId(instance),
        lost: RaftId(lost),
        attempt,
        fence: round.map(|round| Fence { epoch: 1, round, holder: "n1".into() }),
    };
    let before = story.state.map();
    let was = before.nodes[&NodeName::from("n2")].clone();
    let fresh = Outcome::Joined { raft_id: RaftId(3) };
    assert_eq!(story.run(replace("n2", 2, was.raft_id.0, 71, None)).await, fresh);
    let after = story.state.map();
    let is = after.nodes[&NodeName::from("n2")].clone();
    let expected = NodeRecord { raft_id: RaftId(3), attempt: Some(71), ..was.clone() };
    assert_eq!(is, expected, "nothing but its id in raft is another");
    assert_eq!(after.disks, before.disks);
    // The answer was lost, and it is asked again.
    assert_eq!(story.run(replace("n2", 2, was.raft_id.0, 71, None)).await, fresh);
    assert_eq!(story.state.map().revision, after.revision);
    assert_eq!(story.run(join("n2", 2, &[21, 22])).await, fresh, "it joins as who it is now");
    // An older folder of the node, under an id that was replaced: what was given since may have voted, and is not given anew.
    let not_that =
        |lost, known| refused(Refusal::NotThatMember { name: "n2".into(), lost: RaftId(lost), known: RaftId(known) });
    assert_eq!(story.run(replace("n2", 2, was.raft_id.0, 72, None)).await, not_that(was.raft_id.0, 3));
    // Lost once more, it gets an id that nobody ever had; a late word of the first attempt takes that from nobody.
    assert_eq!(story.run(replace("n2", 2, 3, 73, None)).await, Outcome::Joined { raft_id: RaftId(4) });
    assert_eq!(story.run(replace("n2", 2, was.raft_id.0, 71, None)).await, not_that(was.raft_id.0, 4));
    assert_eq!(story.run(join("n3", 3, &[])).await, Outcome::Joined { raft_id: RaftId(5) });

    assert_eq!(story.run(replace("n2", 2, 9, 74, None)).await, not_that(9, 4));
    assert_eq!(story.run(replace("n2", 7, 4, 74, None)).await, refused(Refusal::NameTaken("n2".into())));
    assert_eq!(story.run(replace("n8", 8, 1, 74, None)).await, refused(Refusal::NoNode("n8".into())));
    story.run(mark(11, DiskState::ReadOnly, MarkedBy::Automatic, Some(5))).await;
    let stale = story.run(replace("n2", 2, 4, 75, Some(4))).await;
    assert!(matches!(stale, Outcome::Refused(Refusal::StaleFence { .. })), "{stale:?}");
}

#[tokio::test]
async fn a_disk_that_was_judged_by_another_map_is_not_taken() {
    let mut story = Story::cluster().await;
    let judged = Some(story.state.map().revision);
    let take = |disk| Command::SetDiskState {
        disk: DiskId(disk),
        state: DiskState::Out,
        by: MarkedBy::Operator,
        reason: "test".into(),
        judged,
        fence: None,
    };
    assert_eq!(story.run(take(11)).await, Outcome::DiskWas(DiskState::Up));
    assert_eq!(story.run(take(21)).await, refused(Refusal::MapMoved), "each was safe without the other");
    assert_eq!(story.state.map().disk_state(DiskId(21)), Some(DiskState::Up));
}

#[tokio::test]
async fn an_upload_that_outlived_its_disks_has_its_shards_there_counted_as_missing() {
    let mut story = Story::cluster().await;
    let mut whole = object(5);
    whole.extents[0].homes[1].at = Some(DiskId(21));
    story.run(mark(11, DiskState::Out, MarkedBy::Operator, None)).await;
    assert_eq!(story.put("k", whole.clone()).await, Outcome::Put { replaced: None });
    assert_eq!(story.live().await.into_values().next().unwrap().missing_shards(), 1);
    assert_eq!(story.state.counts().homeless_shards, 1);
    story.run(mark(21, DiskState::Out, MarkedBy::Operator, None)).await;
    let again = ObjectRecord { version: Version(6), ..whole };
    assert_eq!(story.put("k2", again).await, refused(Refusal::Forbidden), "nothing of it is left");
}

#[tokio::test]
async fn a_pause_of_repair_ends_with_its_own_end_and_not_with_that_of_an_earlier_one() {
    let mut story = Story::cluster().await;
    let pause = |reason: &str| Command::PauseRepair {
        owner: "ada".into(),
        reason: reason.into(),
        length: Duration::from_secs(60),
    };
    story.run(pause("one")).await;
    let one = story.state.map().repair_pause.clone().unwrap();
    story.run(pause("two")).await;
    let two = story.state.map().repair_pause.clone().unwrap();
    assert_eq!((two.reason.as_str(), two.stamp > one.stamp), ("two", true));
    story.run(Command::ResumeRepair { stamp: Some(one.stamp) }).await;
    assert_eq!(story.state.map().repair_pause, Some(two.clone()));
    story.run(Command::ResumeRepair { stamp: Some(two.stamp) }).await;
    assert_eq!(story.state.map().repair_pause, None);
    let revision = story.state.map().revision;
    story.run(Command::ResumeRepair { stamp: None }).await;
    assert_eq!(story.state.map().revision, revision, "nothing lasted: nothing changed");
}

#[tokio::test]
async fn a_disk_is_emptied_only_where_there_is_room_and_forgotten_only_when_it_is_out_and_empty() {
    let mut story = Story::cluster().await;
    let forget = |disk| Command::ForgetDisk { disk: DiskId(disk) };
    let in_use = |disk, state| refused(Refusal::DiskInUse { disk: DiskId(disk), state, shards: 0 });
    assert_eq!(story.run(forget(99)).await, refused(Refusal::NoDisk(DiskId(99))));
    assert_eq!(story.run(forget(11)).await, in_use(11, DiskState::Up));
    let drain = |disk| mark(disk, DiskState::Draining, MarkedBy::Operator, None);
    assert_eq!(story.run(drain(11)).await, Outcome::DiskWas(DiskState::Up), "nothing is stored, so nothing needs room");
    assert_eq!(story.run(forget(11)).await, in_use(11, DiskState::Draining));
    let back = mark(11, DiskState::Up, MarkedBy::Automatic, None);
    assert_eq!(story.run(back).await, refused(Refusal::OperatorMark), "it is a person's");
    story.run(mark(11, DiskState::Out, MarkedBy::Operator, None)).await;
    assert_eq!(story.run(forget(11)).await, Outcome::DiskWas(DiskState::Out));
    assert!(!story.state.map().disks.contains_key(&DiskId(11)));
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
