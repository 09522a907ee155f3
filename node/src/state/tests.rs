//! What every command does, and when it is refused; what survives a crash; what a snapshot carries.
#![allow(clippy::disallowed_methods)]

mod flush;

use std::collections::BTreeMap;
use std::sync::Arc;

use resilver_host::Host;

use super::*;
use crate::model::*;
use crate::types::*;

const OWNER: Owner = Owner { cluster: ClusterId(7), raft_id: RaftId(1) };

/// A state in a folder of its own, and a proposer that numbers its commands.
struct Story {
    dir: tempfile::TempDir,
    host: Host,
    state: State,
    index: u64,
    sequence: u64,
}

impl Story {
    /// Nothing in it.
    async fn blank() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = resilver_host::real::host();
        let state = State::create(&host, &dir.path().join("state.redb"), OWNER).await.unwrap();
        Self { dir, host, state, index: 0, sequence: 0 }
    }

    /// A cluster of two nodes with two disks each, and one bucket.
    async fn cluster() -> Self {
        let mut story = Self::blank().await;
        story.run(Command::InitCluster { cluster: OWNER.cluster, name: "c".into() }).await;
        story.run(join("n1", 1, &[11, 12])).await;
        story.run(join("n2", 2, &[21, 22])).await;
        story.run(bucket("b")).await;
        story
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("state.redb")
    }

    async fn run(&mut self, command: Command) -> Outcome {
        self.sequence += 1;
        let proposal = Proposal { session: 1, sequence: self.sequence, floor: self.sequence, command };
        self.apply(proposal).await
    }

    async fn apply(&mut self, proposal: Proposal) -> Outcome {
        self.index += 1;
        let change = Change { index: self.index, proposal: Some(proposal) };
        let applied = Applied { index: self.index, note: vec![] };
        let outcome = self.state.apply(vec![change], applied).await.unwrap().pop().unwrap();
        self.check_counts().await;
        outcome
    }

    /// Counts what there is, and compares it with what was counted on the way.
    async fn check_counts(&self) {
        let mut counted = Counts::default();
        for (_, _, object) in self.state.scan(None, usize::MAX).await.unwrap().objects {
            counted.add(&object);
        }
        assert_eq!(self.state.counts(), counted);
    }

    async fn put(&mut self, key: &str, object: ObjectRecord) -> Outcome {
        self.run(put(key, object, Condition::None)).await
    }
}

fn join(name: &str, instance: u128, disks: &[u128]) -> Command {
    Command::JoinNode {
        name: name.into(),
        instance: InstanceId(instance),
        address: format!("{name}:1"),
        location: Location::default(),
        disks: disks
            .iter()
            .map(|id| JoiningDisk { id: DiskId(*id), path: format!("/d{id}"), capacity_bytes: 100 })
            .collect(),
        raft_id: None,
    }
}

fn bucket(name: &str) -> Command {
    let bucket = BucketRecord { name: name.into(), coding: Coding { k: 1, m: 1 }, created_ms: 1 };
    Command::CreateBucket { bucket, if_absent: false }
}

fn object(version: u128) -> ObjectRecord {
    let homes = vec![Home { at: Some(DiskId(11)), wanted: DiskId(11) }, Home { at: None, wanted: DiskId(21) }];
    ObjectRecord {
        version: Version(version),
        size_bytes: 10,
        crc32c: 1,
        modified_ms: 1,
        coding: Coding { k: 1, m: 1 },
        block_bytes: BLOCK_BYTES,
        extents: vec![ExtentRecord { len_bytes: 10, homes }],
    }
}

fn put(key: &str, object: ObjectRecord, condition: Condition) -> Command {
    Command::PutObject { bucket: "b".into(), key: key.into(), object, condition, now_ms: 5 }
}

fn delete(key: &str, condition: Condition) -> Command {
    Command::DeleteObject { bucket: "b".into(), key: key.into(), condition, now_ms: 6 }
}

fn mark(disk: u128, state: DiskState, by: MarkedBy, round: Option<u64>) -> Command {
    let fence = round.map(|round| Fence { epoch: 1, round, holder: "n1".into() });
    Command::SetDiskState { disk: DiskId(disk), state, by, reason: "test".into(), fence }
}

fn refused(refusal: Refusal) -> Outcome {
    Outcome::Refused(refusal)
}

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
async fn a_bucket_is_made_once() {
    let mut story = Story::cluster().await;
    assert_eq!(story.run(bucket("b")).await, refused(Refusal::BucketExists("b".into())));
    let other = BucketRecord { name: "b".into(), coding: Coding { k: 4, m: 2 }, created_ms: 9 };
    let Outcome::Bucket(found) = story.run(Command::CreateBucket { bucket: other, if_absent: true }).await else {
        panic!("an existing bucket is no error with if_absent")
    };
    assert_eq!(found.coding, Coding { k: 1, m: 1 }, "the one that was there");
    assert!(matches!(story.run(bucket("a\0b")).await, Outcome::Refused(_)));
    assert_eq!(story.state.buckets().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_put_demands_its_bucket_and_its_condition_and_makes_garbage_of_what_it_replaces() {
    let mut story = Story::cluster().await;
    let stray = Command::PutObject {
        bucket: "none".into(),
        key: "k".into(),
        object: object(1),
        condition: Condition::None,
        now_ms: 1,
    };
    assert_eq!(story.run(stray).await, refused(Refusal::NoBucket("none".into())));
    assert_eq!(
        story.run(put("k", object(1), Condition::Version(Version(9)))).await,
        refused(Refusal::Condition { at: None })
    );
    assert_eq!(story.run(put("k", object(1), Condition::Absent)).await, Outcome::Put { replaced: None });
    assert_eq!(
        story.run(put("k", object(2), Condition::Absent)).await,
        refused(Refusal::Condition { at: Some(Version(1)) })
    );
    assert_eq!(
        story.run(put("k", object(2), Condition::Version(Version(1)))).await,
        Outcome::Put { replaced: Some(Version(1)) }
    );
    let garbage = story.state.garbage(10).await.unwrap();
    assert_eq!(garbage, [GarbageRecord { object: object(1), replaced_ms: 5 }]);
    assert_eq!(story.state.owner_of(Version(1)).await.unwrap(), None);
    assert_eq!(story.state.owner_of(Version(2)).await.unwrap(), Some(("b".into(), "k".into())));
    // The same commit through another session, after its first answer was lost.
    assert_eq!(story.run(put("k", object(2), Condition::Absent)).await, Outcome::Put { replaced: None });
    assert_eq!(story.run(put("k", object(1), Condition::None)).await, Outcome::Put { replaced: None });
    assert_eq!(
        story.state.object(&"b".into(), "k").await.unwrap().unwrap().version,
        Version(2),
        "garbage stays garbage"
    );
    assert_eq!(story.run(put("other", object(2), Condition::None)).await, refused(Refusal::Forbidden));
    let expected = Counts { objects: 1, homeless_shards: 1, shards_by_disk: BTreeMap::from([(DiskId(11), 1)]) };
    assert_eq!(story.state.counts(), expected);
}

#[tokio::test]
async fn a_delete_judges_its_condition_and_says_whether_there_was_anything() {
    let mut story = Story::cluster().await;
    story.put("k", object(1)).await;
    assert_eq!(
        story.run(delete("k", Condition::Version(Version(2)))).await,
        refused(Refusal::Condition { at: Some(Version(1)) })
    );
    assert_eq!(story.run(delete("k", Condition::None)).await, Outcome::Deleted { existed: true });
    assert_eq!(story.run(delete("k", Condition::None)).await, Outcome::Deleted { existed: false });
    assert_eq!(story.state.object(&"b".into(), "k").await.unwrap(), None);
    assert_eq!(story.state.garbage(10).await.unwrap().len(), 1);
    assert_eq!(story.state.counts(), Counts::default());
}

#[tokio::test]
async fn a_shard_moves_only_from_where_it_was_believed_to_be() {
    let mut story = Story::cluster().await;
    story.put("k", object(1)).await;
    let set = |version, shard, expected: Option<u128>, at: Option<u128>, wanted| Command::SetHome {
        bucket: "b".into(),
        key: "k".into(),
        version: Version(version),
        extent: ExtentIndex(0),
        shard: ShardIndex(shard),
        expected: expected.map(DiskId),
        at: at.map(DiskId),
        wanted: DiskId(wanted),
    };
    assert_eq!(story.run(set(1, 1, Some(22), Some(21), 21)).await, refused(Refusal::Moved));
    assert_eq!(story.run(set(2, 1, None, Some(21), 21)).await, refused(Refusal::NoObject));
    assert_eq!(story.run(set(1, 7, None, Some(21), 21)).await, refused(Refusal::NoObject));
    assert_eq!(story.run(set(1, 1, None, Some(77), 21)).await, refused(Refusal::NoDisk(DiskId(77))));
    assert_eq!(story.run(set(1, 1, None, Some(21), 21)).await, Outcome::Done);
    assert_eq!(story.state.counts().homeless_shards, 0);
    assert_eq!(story.run(set(1, 1, None, Some(22), 22)).await, refused(Refusal::Moved), "somebody was faster");
    assert_eq!(story.run(set(1, 0, Some(11), None, 12)).await, Outcome::Done, "a shard is lost");
    assert_eq!(story.state.counts().shards_by_disk, BTreeMap::from([(DiskId(21), 1)]));
}

#[tokio::test]
async fn a_forbidden_version_never_comes_in_and_a_live_one_is_never_forbidden() {
    let mut story = Story::cluster().await;
    let forbid = |version| Command::ForbidVersion { version: Version(version) };
    assert_eq!(story.run(forbid(1)).await, Outcome::Done);
    assert!(story.state.forbidden(Version(1)).await.unwrap());
    assert_eq!(story.put("k", object(1)).await, refused(Refusal::Forbidden));
    story.put("k", object(2)).await;
    assert_eq!(story.run(forbid(2)).await, refused(Refusal::Condition { at: Some(Version(2)) }));
    story.run(delete("k", Condition::None)).await;
    assert_eq!(story.run(forbid(2)).await, Outcome::Done);
    assert!(story.state.garbage(10).await.unwrap().is_empty());
    assert_eq!(story.put("k", object(2)).await, refused(Refusal::Forbidden));
}

#[tokio::test]
async fn a_command_that_comes_twice_is_applied_once() {
    let mut story = Story::cluster().await;
    let proposal = |sequence, floor, key: &str, condition| Proposal {
        session: 42,
        sequence,
        floor,
        command: put(key, object(u128::from(sequence)), condition),
    };
    let first = story.apply(proposal(1, 1, "k", Condition::Absent)).await;
    assert_eq!(first, Outcome::Put { replaced: None });
    story.run(delete("k", Condition::None)).await;
    assert_eq!(story.apply(proposal(1, 1, "k", Condition::Absent)).await, first, "its answer, not its effect");
    assert_eq!(story.state.object(&"b".into(), "k").await.unwrap(), None);
    // Refusals are remembered as well.
    let no = story.apply(proposal(2, 1, "k", Condition::Version(Version(5)))).await;
    story.put("k", object(5)).await;
    assert_eq!(story.apply(proposal(2, 1, "k", Condition::Version(Version(5)))).await, no);
    // What is below the floor is not known any more, and not applied either.
    story.apply(proposal(3, 3, "l", Condition::None)).await;
    assert_eq!(story.apply(proposal(1, 1, "k", Condition::Absent)).await, refused(Refusal::Expired));
    assert_eq!(story.apply(proposal(2, 3, "k", Condition::None)).await, refused(Refusal::Expired));
}

#[tokio::test]
async fn the_session_unused_for_longest_is_given_up_first_and_never_looks_new() {
    let mut story = Story::cluster().await;
    Arc::get_mut(&mut story.state.inner).expect("the only handle").max_outcomes = 3;
    let proposal =
        |session, sequence, floor| Proposal { session, sequence, floor, command: delete("none", Condition::None) };
    for session in 10..13 {
        story.apply(proposal(session, 1, 1)).await;
    }
    // Session 1 (the story's own) is the oldest and is gone; then 10 speaks again, so 11 is the next to go.
    assert_eq!(story.apply(proposal(1, 9, 9)).await, refused(Refusal::Expired));
    story.apply(proposal(10, 2, 2)).await;
    story.apply(proposal(13, 1, 1)).await;
    assert_eq!(story.apply(proposal(11, 2, 2)).await, refused(Refusal::Expired));
    assert_eq!(story.apply(proposal(10, 2, 2)).await, Outcome::Deleted { existed: false });
    assert_eq!(story.apply(proposal(12, 2, 2)).await, Outcome::Deleted { existed: false });
}

#[tokio::test]
async fn a_listing_goes_in_byte_order_page_by_page() {
    let mut story = Story::cluster().await;
    story.run(bucket("bb")).await;
    for (version, key) in ["a", "dir/1", "dir/2", "dir/30", "dir/4", "dirt", "ä", "z"].iter().enumerate() {
        story.put(key, object(version as u128 + 1)).await;
    }
    let other = Command::PutObject {
        bucket: "bb".into(),
        key: "a".into(),
        object: object(99),
        condition: Condition::None,
        now_ms: 1,
    };
    story.run(other).await;
    let bucket = BucketName::from("b");
    let keys = |page: &Page| page.objects.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let all = story.state.list(&bucket, "", "", 100).await.unwrap();
    assert_eq!(keys(&all), ["a", "dir/1", "dir/2", "dir/30", "dir/4", "dirt", "z", "ä"]);
    assert_eq!((all.truncated, all.applied), (false, story.index));
    let first = story.state.list(&bucket, "dir/", "", 3).await.unwrap();
    assert_eq!((keys(&first), first.truncated), (vec!["dir/1".into(), "dir/2".into(), "dir/30".into()], true));
    let rest = story.state.list(&bucket, "dir/", "dir/30", 3).await.unwrap();
    assert_eq!((keys(&rest), rest.truncated), (vec!["dir/4".into()], false));
    assert!(story.state.list(&bucket, "dir/", "zzz", 3).await.unwrap().objects.is_empty());
    assert!(story.state.list(&bucket, "dir/", "\u{10ffff}", 3).await.unwrap().objects.is_empty());
    let step = story.state.scan(None, 8).await.unwrap();
    assert!(!step.end);
    let last = story.state.scan(Some(("b".into(), "ä".into())), 8).await.unwrap();
    assert_eq!((last.objects.len(), last.end), (1, true));
}

#[tokio::test]
async fn a_crash_takes_back_to_the_last_flush_and_no_further() {
    let mut story = Story::cluster().await;
    story.put("kept", object(1)).await;
    story.state.flush().await.unwrap();
    let flushed = story.index;
    assert_eq!(*story.state.durable_changes().borrow(), Some(flushed));
    story.put("lost", object(2)).await;
    let (host, path) = (story.host.clone(), story.path());
    let Story { dir, state, .. } = story;
    // Dropped without a close: what a kill leaves.
    drop(state);
    let state = State::open(&host, &path, OWNER).await.unwrap();
    assert_eq!(state.applied().unwrap().index, flushed);
    assert!(state.object(&"b".into(), "kept").await.unwrap().is_some());
    assert!(state.object(&"b".into(), "lost").await.unwrap().is_none());
    state.close().await;
    assert!(matches!(state.flush().await, Ok(())), "nothing to make durable");
    assert!(matches!(state.buckets().await, Err(StateError::Closed)));
    drop(dir);
}

#[tokio::test]
async fn a_snapshot_carries_everything_and_a_damaged_one_changes_nothing() {
    let mut story = Story::cluster().await;
    for version in 1..200 {
        story.put(&format!("k{version:04}"), object(version)).await;
    }
    let file = story.dir.path().join("snapshot");
    let head = story.state.export(&file, "s1".into()).await.unwrap();
    assert_eq!(head.applied, story.state.applied());
    assert_eq!(inspect(&story.host, &file).await.unwrap(), head);

    let mut other = Story::blank().await;
    other.run(Command::InitCluster { cluster: OWNER.cluster, name: "old".into() }).await;
    let whole = std::fs::read(&file).unwrap();
    for (place, damage) in [(0, "magic"), (40, "head"), (whole.len() / 2, "middle"), (whole.len() - 1, "trailer")] {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        std::fs::write(&file, &bytes).unwrap();
        let error = other.state.install(&file).await.unwrap_err();
        assert!(matches!(error, StateError::Snapshot { .. }), "{damage}: {error}");
    }
    for cut in [0, 10, 100, whole.len() - 1] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        assert!(other.state.install(&file).await.is_err(), "cut to {cut}");
    }
    assert_eq!(other.state.map().name, "old");

    std::fs::write(&file, &whole).unwrap();
    other.state.install(&file).await.unwrap();
    assert_eq!(other.state.map(), story.state.map());
    assert_eq!(other.state.counts(), story.state.counts());
    assert_eq!(other.state.applied(), story.state.applied());
    assert_eq!(other.state.scan(None, 1000).await.unwrap(), story.state.scan(None, 1000).await.unwrap());
    assert_eq!(*other.state.durable_changes().borrow(), Some(story.index));
    // The counter of ids came along: nobody gets an id twice.
    other.index = story.index;
    other.sequence = 1000;
    assert_eq!(other.run(join("n3", 3, &[])).await, Outcome::Joined { raft_id: RaftId(3) });
}

#[tokio::test]
async fn a_damaged_database_is_told_from_one_of_a_later_release_and_from_another_members() {
    let mut story = Story::cluster().await;
    for version in 1..500 {
        story.put(&format!("k{version:04}"), object(version)).await;
    }
    story.state.flush().await.unwrap();
    story.state.close().await;
    let path = story.path();
    let whole = std::fs::read(&path).unwrap();
    let stranger = Owner { raft_id: RaftId(2), ..OWNER };
    assert!(matches!(State::open(&story.host, &path, stranger).await, Err(StateError::Foreign { .. })));

    for cut in [0, 17, whole.len() / 2] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = State::open(&story.host, &path, OWNER).await.err().expect("cut");
        assert!(error.is_damage(), "cut to {cut}: {error}");
    }
    std::fs::write(&path, vec![0xa5; whole.len()]).unwrap();
    assert!(State::open(&story.host, &path, OWNER).await.err().expect("garbage").is_damage());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(State::open(&story.host, &path, OWNER).await, Err(StateError::Missing { .. })));

    // A byte in a page that holds records: found at open, before anything is built on it.
    let at = whole.windows(5).position(|bytes| bytes == b"k0250").expect("a key in the file");
    let mut bytes = whole.clone();
    bytes[at + 1] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();
    assert!(State::open(&story.host, &path, OWNER).await.err().expect("a flipped byte").is_damage());
    std::fs::write(&path, &whole).unwrap();
    State::open(&story.host, &path, OWNER).await.expect("the whole one opens").close().await;
}
