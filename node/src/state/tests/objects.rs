//! Objects, their versions and their shards.

use super::*;

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
    assert_eq!(story.garbage().await, [GarbageRecord { object: object(1), replaced_ms: 5 }]);
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
    let expected =
        Counts { objects: 1, parts: 0, homeless_shards: 1, shards_by_disk: BTreeMap::from([(DiskId(11), 1)]) };
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
    assert_eq!(story.garbage().await.len(), 1);
    assert_eq!(story.state.counts(), Counts::default());
}

#[tokio::test]
async fn a_shard_moves_only_from_where_it_was_believed_to_be() {
    let mut story = Story::cluster().await;
    story.put("k", object(1)).await;
    let set = |version, shard, expected: Option<u128>, at: Option<u128>, wanted| Command::SetHome {
        bucket: "b".into(),
        key: "k".into(),
        shard: ShardKey { version: Version(version), extent: ExtentIndex(0), shard: ShardIndex(shard) },
        expected: expected.map(DiskId),
        at: at.map(DiskId),
        wanted: DiskId(wanted),
    };
    assert_eq!(story.run(set(1, 1, Some(22), Some(21), 21)).await, refused(Refusal::Moved));
    assert_eq!(story.run(set(2, 1, None, Some(21), 21)).await, refused(Refusal::NoObject));
    assert_eq!(story.run(set(1, 7, None, Some(21), 21)).await, refused(Refusal::NoObject));
    assert_eq!(story.run(set(1, 1, None, Some(77), 21)).await, refused(Refusal::NoDisk(DiskId(77))));
    assert_eq!(story.run(set(1, 1, None, Some(11), 21)).await, refused(Refusal::Moved), "never two on one disk");
    assert_eq!(story.run(set(1, 1, None, Some(21), 21)).await, Outcome::Done);
    assert_eq!(story.state.counts().homeless_shards, 0);
    assert_eq!(story.run(set(1, 1, None, Some(22), 22)).await, refused(Refusal::Moved), "somebody was faster");
    assert_eq!(story.run(set(1, 0, Some(11), None, 12)).await, Outcome::Done, "a shard is lost");
    assert_eq!(story.state.counts().shards_by_disk, BTreeMap::from([(DiskId(21), 1)]));
}

#[tokio::test]
async fn of_several_shards_that_move_each_is_judged_for_itself_and_as_of_those_before_it() {
    let mut story = Story::cluster().await;
    story.put("k", object(1)).await;
    let set = |version, shard, expected: Option<u128>, at: u128| HomeMove {
        shard: ShardKey { version: Version(version), extent: ExtentIndex(0), shard: ShardIndex(shard) },
        expected: expected.map(DiskId),
        at: Some(DiskId(at)),
        wanted: DiskId(at),
    };
    let homes = vec![
        set(1, 1, Some(22), 21),
        set(1, 1, None, 21),
        set(1, 1, None, 22),
        set(2, 0, None, 22),
        set(1, 0, Some(11), 12),
    ];
    let told = [Some(Refusal::Moved), None, Some(Refusal::Moved), Some(Refusal::NoObject), None];
    assert_eq!(story.run(Command::SetHomes { homes }).await, Outcome::HomesSet(told.into()));
    assert_eq!(story.state.counts().shards_by_disk, BTreeMap::from([(DiskId(12), 1), (DiskId(21), 1)]));
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
    assert!(story.garbage().await.is_empty());
    assert_eq!(story.put("k", object(2)).await, refused(Refusal::Forbidden));
}

#[tokio::test]
async fn etags_are_conditions_too() {
    let mut story = Story::cluster().await;
    let no = |at: Option<u128>| refused(Refusal::Condition { at: at.map(Version) });
    assert_eq!(story.run(put("k", object(1), Condition::Present)).await, no(None));
    assert_eq!(story.run(put("k", object(1), Condition::ETag(etag(1)))).await, no(None));
    assert_eq!(story.run(put("k", object(1), Condition::NotETag(etag(1)))).await, Outcome::Put { replaced: None });
    assert_eq!(story.run(put("k", object(2), Condition::NotETag(etag(1)))).await, no(Some(1)));
    assert_eq!(story.run(put("k", object(2), Condition::ETag(etag(9)))).await, no(Some(1)));
    let replaced = Outcome::Put { replaced: Some(Version(1)) };
    assert_eq!(story.run(put("k", object(2), Condition::ETag(etag(1)))).await, replaced);
    assert_eq!(story.run(delete("k", Condition::ETag(etag(1)))).await, no(Some(2)));
    assert_eq!(story.run(delete("k", Condition::Present)).await, Outcome::Deleted { existed: true });
    assert_eq!(story.run(delete("k", Condition::Present)).await, no(None));
}

#[tokio::test]
async fn many_are_deleted_at_once_and_each_is_answered_for() {
    let mut story = Story::cluster().await;
    for (version, key) in [(1, "a"), (2, "b"), (3, "c")] {
        story.put(key, object(version)).await;
    }
    let delete = |keys: &[&str]| Command::DeleteObjects {
        bucket: "b".into(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        now_ms: 7,
    };
    let outcome = story.run(delete(&["c", "none", "a", "a"])).await;
    assert_eq!(outcome, Outcome::DeletedMany(vec![true, false, true, false]));
    assert_eq!(story.live().await.len(), 1);
    assert_eq!(story.garbage().await.len(), 2);
    let keys: Vec<String> = (0..=MAX_DELETES).map(|n| n.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert!(matches!(story.run(delete(&keys)).await, Outcome::Refused(Refusal::TooLarge { .. })));
}

#[tokio::test]
async fn content_with_extents_of_another_upload_is_never_taken() {
    let mut story = Story::cluster().await;
    story.put("k", object(1)).await;
    let stolen = ObjectRecord { extents: object(1).extents, ..object(2) };
    assert_eq!(story.put("thief", stolen).await, refused(Refusal::Forbidden));
    let large = sized(3, MAX_PUT_BYTES + 1);
    let refusal = Refusal::TooLarge { bytes: MAX_PUT_BYTES + 1, limit: MAX_PUT_BYTES };
    assert_eq!(story.put("large", large).await, refused(refusal));
}
