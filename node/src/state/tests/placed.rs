//! What is placed on a disk, as sums kept in step: the same as counted anew, whatever was applied. Every story checks it
//! after each command.

use super::super::merkle::shards::{ShardTree, leaf_of};
use super::*;

/// The disks that every story watches: those of its first node.
pub(super) fn watched() -> BTreeSet<DiskId> {
    [DiskId(11), DiskId(12)].into()
}

/// An object whose shards are where they belong, on these disks.
fn on(version: u128, disks: &[u128]) -> ObjectRecord {
    let mut object = object(version);
    object.coding = Coding { k: 2, m: 2 };
    object.extents[0].homes =
        disks.iter().map(|disk| Home { at: Some(DiskId(*disk)), wanted: DiskId(*disk) }).collect();
    object
}

fn put_at(key: &str, object: ObjectRecord) -> Command {
    put(key, object, Condition::None)
}

impl Story {
    /// While the disks are watched: what is kept is what there is.
    pub(super) async fn check_placed(&self) {
        if self.state.watches(&watched()) {
            assert_eq!(self.state.placed_kept(), self.state.placed_anew(watched()).await);
        }
    }
}

#[tokio::test]
async fn what_is_placed_is_found_by_its_leaf_and_goes_when_its_version_is_forbidden() {
    let mut story = Story::cluster().await;
    let object = on(5, &[11, 12, 21, 22]);
    story.run(put_at("k", object.clone())).await;
    let extent = &object.extents[0];
    let (shard, leaf) = (extent.id.shard(ShardIndex(1)), leaf_of(extent.id.version));
    let found = story.state.placed_in(DiskId(12), leaf).await.unwrap();
    assert_eq!(found.iter().map(|found| (found.key.as_str(), found.shard)).collect::<Vec<_>>(), [("k", shard)]);
    assert_eq!(story.state.placed_in(DiskId(12), leaf ^ 1).await.unwrap(), []);
    let folder = (leaf >> 4) as u8;
    let mut expected = ShardTree::default();
    expected.add(shard);
    assert_eq!(story.state.placed_folder(DiskId(12), folder), Some(expected.folder(folder)));

    // Deleted, it is still to be there, and nobody misses it.
    story.run(delete("k", Condition::None)).await;
    assert_eq!(story.state.placed_folder(DiskId(12), folder), Some(expected.folder(folder)));
    assert_eq!(story.state.placed_in(DiskId(12), leaf).await.unwrap(), []);
    story.run(Command::ForbidVersion { version: object.version }).await;
    assert_eq!(story.state.placed_folder(DiskId(12), folder), Some(ShardTree::default().folder(folder)));
    assert_eq!(story.state.placed_folder(DiskId(21), folder), None, "nobody watches that one");
}

#[tokio::test]
async fn an_object_with_a_shard_out_of_place_is_remembered_until_it_is_home() {
    let mut story = Story::cluster().await;
    let mut stood_in = on(5, &[11, 12, 21, 22]);
    stood_in.extents[0].homes[0] = Home { at: None, wanted: DiskId(11) };
    story.run(put_at("k", stood_in.clone())).await;
    story.run(put_at("whole", on(6, &[11, 12, 21, 22]))).await;
    assert_eq!(story.state.unsettled(), Unsettled::These(vec![stood_in.version]));
    let home = Command::SetHome {
        bucket: "b".into(),
        key: "k".to_owned(),
        shard: stood_in.extents[0].id.shard(ShardIndex(0)),
        expected: None,
        at: Some(DiskId(11)),
        wanted: DiskId(11),
    };
    assert_eq!(story.run(home).await, Outcome::Done);
    assert_eq!(story.state.unsettled(), Unsettled::These(Vec::new()));
}

#[tokio::test]
async fn of_a_state_that_was_replaced_nothing_is_known_until_its_disks_are_watched_anew() {
    let mut story = Story::cluster().await;
    story.run(put_at("k", on(5, &[11, 12, 21, 22]))).await;
    let file = story.dir.path().join("snapshot");
    story.state.export(&file, "s1".into()).await.unwrap();
    story.run(put_at("later", on(6, &[11, 12, 21, 22]))).await;
    assert!(story.state.watches(&watched()));
    assert!(!story.state.watches(&[DiskId(11)].into()), "exactly these");

    let other = Story::cluster().await;
    other.state.install(&file).await.unwrap();
    assert!(!other.state.watches(&watched()));
    assert_eq!((other.state.unsettled(), other.state.placed_folder(DiskId(11), 0)), (Unsettled::Unknown, None));
    other.state.watch_disks(watched()).await.unwrap();
    assert!(other.state.watches(&watched()));
    other.check().await;
}

/// What is applied while the database is read from end to end is counted once, neither twice nor never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_applied_while_the_disks_are_counted_is_counted_once() {
    let mut story = Story::cluster().await;
    for version in 1..200_u128 {
        let spread = version.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        story.index += 1;
        story.sequence += 1;
        let object = on(spread, &[11, 12, 21, 22]);
        let command = put_at(&format!("k{}", version % 50), object);
        let proposal = Proposal { session: 1, sequence: story.sequence, floor: story.sequence, command };
        let change = Change { index: story.index, proposal: Some(proposal) };
        let applied = Applied { index: story.index, note: vec![] };
        let (watched, outcome) =
            tokio::join!(story.state.watch_disks(watched()), story.state.apply(vec![change], applied));
        watched.unwrap();
        assert!(matches!(outcome.unwrap()[0], Outcome::Put { .. }));
        if version % 20 == 0 {
            story.check_placed().await;
        }
    }
    assert!(story.state.watches(&watched()));
    story.check().await;
}
