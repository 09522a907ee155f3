//! Uploads in parts, from their beginning to what is left of them.

use super::*;

const MIB: u64 = 1024 * 1024;

pub(super) fn upload(id: u128, key: &str) -> UploadRecord {
    UploadRecord {
        id: UploadId(id),
        bucket: "b".into(),
        key: key.into(),
        created_ms: 3,
        attributes: Attributes { content_type: Some("text/plain".into()), ..Attributes::default() },
        checksum: Some((ChecksumAlgorithm::Crc32c, ChecksumKind::Composite)),
        coding: Coding { k: 1, m: 1 },
        initiator: "RS1".into(),
        completed: None,
    }
}

pub(super) fn put_part(id: u128, part: u16, object: ObjectRecord) -> Command {
    Command::PutPart { bucket: "b".into(), key: "k".into(), upload: UploadId(id), part, object, now_ms: 5 }
}

pub(super) fn complete(id: u128, parts: &[(u16, u128)], version: u128) -> Command {
    Command::CompleteUpload {
        bucket: "b".into(),
        key: "k".into(),
        upload: UploadId(id),
        parts: parts.iter().map(|(number, version)| (*number, etag(*version))).collect(),
        version: Version(version),
        checksum: None,
        condition: Condition::None,
        now_ms: 9,
    }
}

pub(super) fn abort(id: u128) -> Command {
    Command::AbortUpload { bucket: "b".into(), key: "k".into(), upload: UploadId(id), now_ms: 8 }
}

/// Upload 1 to key `k`, with parts of 5 MiB, 20 MiB and 7 bytes under the versions 101 to 103.
async fn begun() -> Story {
    let mut story = Story::cluster().await;
    assert_eq!(story.run(Command::CreateUpload { upload: upload(1, "k") }).await, Outcome::Done);
    for (part, size) in [(1, 5 * MIB), (2, 20 * MIB), (7, 7)] {
        let object = sized(100 + u128::from(part), size);
        assert_eq!(story.run(put_part(1, part, object)).await, Outcome::Put { replaced: None });
    }
    story
}

#[tokio::test]
async fn parts_become_an_object_without_a_byte_being_moved() {
    let mut story = begun().await;
    story.put("k", object(50)).await;
    let before = story.state.counts();
    assert_eq!((before.objects, before.parts), (1, 3));
    let outcome = story.run(complete(1, &[(1, 101), (2, 102), (7, 107)], 200)).await;
    let Outcome::Completed(done) = outcome.clone() else { panic!("{outcome:?}") };
    let text = done.etag.to_string();
    assert!(text.ends_with("-3"), "{text}");

    let object = story.state.object(&"b".into(), "k").await.unwrap().unwrap();
    assert_eq!((object.version, object.size_bytes, object.etag), (Version(200), 25 * MIB + 7, done.etag));
    assert_eq!(object.attributes.content_type.as_deref(), Some("text/plain"));
    let ids: Vec<(u128, u32)> = object.extents.iter().map(|extent| (extent.id.version.0, extent.id.index.0)).collect();
    assert_eq!(ids, [(101, 0), (102, 0), (102, 1), (107, 0)]);
    let parts: Vec<(u16, u64)> = object.parts.iter().map(|part| (part.number, part.size_bytes)).collect();
    assert_eq!(parts, [(1, 5 * MIB), (2, 20 * MIB), (7, 7)]);
    for version in [200, 101, 102, 107] {
        let owner = story.state.owner_of(Version(version)).await.unwrap();
        assert_eq!(owner, Some(("b".into(), "k".into())), "version {version}");
    }
    // The object that was there is garbage, the parts are not.
    assert_eq!(story.garbage().await.len(), 1);
    assert_eq!(story.state.usage(&"b".into()).await.unwrap(), Usage { objects: 1, bytes: 25 * MIB + 7 });
    assert!(story.state.list_parts(&"b".into(), "k", UploadId(1), 0, 10).await.unwrap().is_none());

    // Asked again with the same list, by another version even: the same answer, and nothing happens.
    assert_eq!(story.run(complete(1, &[(1, 101), (2, 102), (7, 107)], 201)).await, outcome);
    assert_eq!(story.run(complete(1, &[(1, 101)], 202)).await, refused(Refusal::NoUpload));
    assert_eq!(story.run(put_part(1, 8, sized(108, 5))).await, refused(Refusal::NoUpload));
    assert_eq!(story.run(abort(1)).await, refused(Refusal::NoUpload));
    let forget = Command::ForgetUpload { bucket: "b".into(), key: "k".into(), upload: UploadId(1) };
    assert_eq!(story.run(forget).await, Outcome::Done);
    assert_eq!(story.run(complete(1, &[(1, 101), (2, 102), (7, 107)], 203)).await, refused(Refusal::NoUpload));
    assert_eq!(story.state.object(&"b".into(), "k").await.unwrap().unwrap().version, Version(200));
}

#[tokio::test]
async fn checksums_of_parts_combine_to_that_of_the_whole() {
    let mut story = Story::cluster().await;
    story.run(Command::CreateUpload { upload: upload(1, "k") }).await;
    let content: Vec<u8> = (0..11 * MIB).map(|n| (n % 251) as u8).collect();
    for (part, bytes) in (1u16..).zip(content.chunks(5 * MIB as usize)) {
        let object = sized(100 + u128::from(part), bytes.len() as u64);
        story.run(put_part(1, part, ObjectRecord { crc32c: crc32c::crc32c(bytes), ..object })).await;
    }
    story.run(complete(1, &[(1, 101), (2, 102), (3, 103)], 200)).await;
    let object = story.state.object(&"b".into(), "k").await.unwrap().unwrap();
    assert_eq!(object.crc32c, crc32c::crc32c(&content));
}

#[tokio::test]
async fn a_completion_demands_every_part_as_named_in_order_and_large_enough() {
    let mut story = begun().await;
    let invalid = |number| refused(Refusal::InvalidPart { number });
    for (parts, number) in [
        (&[][..], 0),
        (&[(1, 101), (3, 103)], 3),
        (&[(1, 102)], 1),
        (&[(2, 102), (1, 101)], 1),
        (&[(1, 101), (1, 101)], 1),
        (&[(0, 0)], 0),
    ] {
        assert_eq!(story.run(complete(1, parts, 200)).await, invalid(number), "{parts:?}");
    }
    story.run(put_part(1, 3, sized(103, MIN_PART_BYTES - 1))).await;
    let small = refused(Refusal::PartTooSmall { number: 3 });
    assert_eq!(story.run(complete(1, &[(1, 101), (3, 103), (7, 107)], 200)).await, small);
    assert_eq!(story.run(complete(9, &[(1, 101)], 200)).await, refused(Refusal::NoUpload));
    story.run(Command::ForbidVersion { version: Version(200) }).await;
    assert_eq!(story.run(complete(1, &[(1, 101)], 200)).await, refused(Refusal::Forbidden));
    assert!(story.live().await.len() == 4, "nothing of it happened");
    // Its condition is judged like a put's.
    story.put("k", object(50)).await;
    let Command::CompleteUpload { bucket, key, upload, parts, version, checksum, now_ms, .. } =
        complete(1, &[(1, 101), (3, 103)], 201)
    else {
        unreachable!()
    };
    let condition = Condition::Absent;
    let command = Command::CompleteUpload { bucket, key, upload, parts, version, checksum, condition, now_ms };
    assert_eq!(story.run(command).await, refused(Refusal::Condition { at: Some(Version(50)) }));
    assert!(matches!(story.run(complete(1, &[(1, 101), (3, 103)], 201)).await, Outcome::Completed(_)));
    let garbage: Vec<u128> = story.garbage().await.iter().map(|garbage| garbage.object.version.0).collect();
    assert_eq!(garbage, [50, 102, 107], "the object that was there, and the parts that were not named");
}

#[tokio::test]
async fn an_object_has_a_largest_size_however_it_is_put_together() {
    let mut story = Story::cluster().await;
    story.run(Command::CreateUpload { upload: upload(1, "k") }).await;
    let too_large = |bytes, limit| refused(Refusal::TooLarge { bytes, limit });
    assert_eq!(
        story.run(put_part(1, 1, sized(100, MAX_PART_BYTES + 1))).await,
        too_large(MAX_PART_BYTES + 1, MAX_PART_BYTES)
    );
    let count = (MAX_OBJECT_BYTES / MAX_PART_BYTES) as u16 + 1;
    let mut parts = Vec::new();
    for part in 1..=count {
        let version = 100 + u128::from(part);
        story.run(put_part(1, part, sized(version, MAX_PART_BYTES))).await;
        parts.push((part, version));
    }
    let bytes = u64::from(count) * MAX_PART_BYTES;
    assert_eq!(story.run(complete(1, &parts, 200)).await, too_large(bytes, MAX_OBJECT_BYTES));
    assert!(matches!(story.run(complete(1, &parts[1..], 200)).await, Outcome::Completed(_)));
}

#[tokio::test]
async fn a_part_is_replaced_by_its_number_and_must_fit_its_upload() {
    let mut story = begun().await;
    let replaced = Outcome::Put { replaced: Some(Version(101)) };
    assert_eq!(story.run(put_part(1, 1, sized(111, 6 * MIB))).await, replaced);
    assert_eq!(story.run(put_part(1, 1, sized(111, 6 * MIB))).await, Outcome::Put { replaced: None }, "obeyed before");
    assert_eq!(story.run(put_part(1, 1, sized(101, 5 * MIB))).await, Outcome::Put { replaced: None }, "obeyed once");
    assert_eq!(story.garbage().await.len(), 1);
    assert_eq!(story.run(put_part(1, 2, sized(111, 6 * MIB))).await, refused(Refusal::Forbidden));
    for number in [0, MAX_PART_NUMBER + 1] {
        assert_eq!(story.run(put_part(1, number, sized(120, 1))).await, refused(Refusal::InvalidPart { number }));
    }
    let recoded = ObjectRecord { coding: Coding { k: 2, m: 1 }, ..sized(121, 1) };
    assert_eq!(story.run(put_part(1, 9, recoded)).await, refused(Refusal::InvalidPart { number: 9 }));
    assert_eq!(story.run(put_part(2, 1, sized(122, 1))).await, refused(Refusal::NoUpload));
    // Parts count for the bucket's quota.
    story.run(quota("b", Some(27 * MIB))).await;
    assert!(matches!(story.run(put_part(1, 3, sized(123, 2 * MIB))).await, Outcome::Refused(Refusal::Quota { .. })));
    let page = story.state.list_parts(&"b".into(), "k", UploadId(1), 1, 1).await.unwrap().unwrap();
    assert_eq!((page.parts.len(), page.parts[0].0, page.truncated), (1, 2, true));
    let page = story.state.list_parts(&"b".into(), "k", UploadId(1), 2, 10).await.unwrap().unwrap();
    assert_eq!((page.parts.len(), page.parts[0].0, page.truncated), (1, 7, false));
}

#[tokio::test]
async fn an_aborted_upload_leaves_garbage_and_nothing_else() {
    let mut story = begun().await;
    story.run(Command::CreateUpload { upload: upload(2, "k") }).await;
    story.run(put_part(2, 1, sized(301, 1))).await;
    assert_eq!(story.run(abort(1)).await, Outcome::Done);
    assert_eq!(story.run(abort(1)).await, refused(Refusal::NoUpload));
    assert_eq!(story.garbage().await.len(), 3);
    assert_eq!(story.state.usage(&"b".into()).await.unwrap(), Usage { objects: 0, bytes: 1 });
    let forget = Command::ForgetUpload { bucket: "b".into(), key: "k".into(), upload: UploadId(2) };
    assert_eq!(story.run(forget).await, refused(Refusal::NoUpload), "one that is under way is never just forgotten");
    assert_eq!(story.live().await.len(), 1);
}

#[tokio::test]
async fn uploads_that_went_with_their_bucket_leave_parts_that_count_for_nobody_and_are_dropped() {
    let mut story = begun().await;
    story.run(Command::CreateUpload { upload: upload(2, "k") }).await;
    story.run(put_part(2, 1, sized(301, 9))).await;
    story.run(complete(2, &[(1, 301)], 302)).await;
    story.run(delete("k", Condition::None)).await;
    assert_eq!(story.run(Command::DeleteBucket { bucket: "b".into() }).await, Outcome::Done);
    assert_eq!(story.state.leftovers(10).await.unwrap(), [("b".into(), UploadId(1))], "a completed one has no parts");
    // The next bucket of the name begins empty, and stays so while the parts of the old one go.
    story.run(bucket("b")).await;
    story.put("k", object(60)).await;
    assert_eq!(story.run(put_part(1, 9, sized(109, 1))).await, refused(Refusal::NoUpload));
    assert!(story.state.list_uploads(&"b".into(), UploadQuery::default()).await.unwrap().entries.is_empty());
    let drop = Command::DropParts { bucket: "b".into(), upload: UploadId(1), now_ms: 9 };
    assert_eq!(story.run(drop.clone()).await, Outcome::Dropped { more: false });
    assert_eq!(story.run(drop).await, Outcome::Dropped { more: false });
    assert!(story.state.leftovers(10).await.unwrap().is_empty());
    assert_eq!(story.live().await.len(), 1);
    assert_eq!(story.state.usage(&"b".into()).await.unwrap(), Usage { objects: 1, bytes: 10 });
    // Nobody drops the parts of an upload that is under way.
    story.run(Command::CreateUpload { upload: upload(3, "k") }).await;
    story.run(put_part(3, 1, sized(401, 1))).await;
    story.run(Command::DropParts { bucket: "b".into(), upload: UploadId(3), now_ms: 9 }).await;
    assert_eq!(story.live().await.len(), 2);
}

#[tokio::test]
async fn a_version_given_up_as_garbage_takes_all_that_its_extents_have_with_it() {
    let mut story = begun().await;
    story.run(complete(1, &[(1, 101), (2, 102), (7, 107)], 200)).await;
    let forbid = |version| Command::ForbidVersion { version: Version(version) };
    for version in [200, 101, 102, 107] {
        let live = refused(Refusal::Condition { at: Some(Version(version)) });
        assert_eq!(story.run(forbid(version)).await, live, "a live extent's version is never forbidden");
    }
    story.run(delete("k", Condition::None)).await;
    assert_eq!(story.run(forbid(200)).await, Outcome::Done);
    for version in [200, 101, 102, 107] {
        assert!(story.state.forbidden(Version(version)).await.unwrap(), "version {version}");
    }
    assert!(story.garbage().await.is_empty());
}

#[tokio::test]
async fn a_shard_rebuilt_while_its_part_became_an_object_is_recorded_with_the_object() {
    let mut story = begun().await;
    story.run(complete(1, &[(2, 102), (7, 107)], 200)).await;
    let set = |extent| Command::SetHome {
        bucket: UPLOADS_BUCKET.into(),
        key: part_key(&"b".into(), UploadId(1), 2),
        shard: ShardKey { version: Version(102), extent: ExtentIndex(extent), shard: ShardIndex(1) },
        expected: None,
        at: Some(DiskId(21)),
        wanted: DiskId(21),
    };
    assert_eq!(story.run(set(1)).await, Outcome::Done);
    assert_eq!(story.run(set(1)).await, refused(Refusal::Moved));
    assert_eq!(story.run(set(2)).await, refused(Refusal::NoObject));
    let object = story.state.object(&"b".into(), "k").await.unwrap().unwrap();
    assert_eq!(object.extents[1].homes[1].at, Some(DiskId(21)));
    assert_eq!(object.missing_shards(), 2);
}

#[tokio::test]
async fn uploads_are_listed_by_key_and_id_and_completed_ones_are_not() {
    let mut story = Story::cluster().await;
    for (id, key) in [(3, "a"), (1, "b"), (2, "b"), (4, "dir/x"), (5, "dir/y"), (6, "k")] {
        story.run(Command::CreateUpload { upload: upload(id, key) }).await;
    }
    story.run(put_part(6, 1, sized(100, 1))).await;
    story.run(complete(6, &[(1, 100)], 200)).await;
    let mut shown = Vec::new();
    let mut query = UploadQuery { delimiter: "/".into(), limit: 1, ..UploadQuery::default() };
    loop {
        let page = story.state.list_uploads(&"b".into(), query.clone()).await.unwrap();
        shown.extend(page.entries.iter().map(|entry| match entry {
            UploadEntry::Upload(upload) => format!("{}:{}", upload.key, upload.id.0),
            UploadEntry::Prefix(prefix) => prefix.clone(),
        }));
        if !page.truncated {
            break;
        }
        query = UploadQuery { after_key: page.next_key, after_upload: page.next_upload, ..query };
    }
    assert_eq!(shown, ["a:3", "b:1", "b:2", "dir/"]);
    let query = UploadQuery { after_key: "b".into(), limit: 10, ..UploadQuery::default() };
    let page = story.state.list_uploads(&"b".into(), query).await.unwrap();
    assert_eq!(page.entries.len(), 2, "without an id, all of that key are passed");
}
