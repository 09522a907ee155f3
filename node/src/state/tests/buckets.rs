//! Buckets, their quotas and what goes with them.

use super::*;

#[tokio::test]
async fn a_bucket_is_made_once() {
    let mut story = Story::cluster().await;
    assert_eq!(story.run(bucket("b")).await, refused(Refusal::BucketExists("b".into())));
    let other = BucketRecord { coding: Coding { k: 4, m: 2 }, ..bucket_record("b") };
    let Outcome::Bucket(found) = story.run(Command::CreateBucket { bucket: other, if_absent: true }).await else {
        panic!("an existing bucket is no error with if_absent")
    };
    assert_eq!(found.coding, Coding { k: 1, m: 1 }, "the one that was there");
    for bad in ["", "a\0b", "a/b", UPLOADS_BUCKET] {
        assert_eq!(story.run(bucket(bad)).await, refused(Refusal::NoBucket(bad.into())));
    }
    assert_eq!(story.state.buckets().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_bucket_is_changed_in_what_is_named_and_in_nothing_else() {
    let mut story = Story::cluster().await;
    let set = |coding, quota_bytes, repair_priority| Command::SetBucket {
        bucket: "b".into(),
        coding,
        quota_bytes,
        repair_priority,
    };
    let mut expected = bucket_record("b");
    expected.quota_bytes = Some(5);
    assert_eq!(story.run(set(None, Some(Some(5)), None)).await, Outcome::Bucket(expected.clone()));
    expected.coding = Coding { k: 2, m: 1 };
    expected.repair_priority = 7;
    assert_eq!(story.run(set(Some(expected.coding), None, Some(7))).await, Outcome::Bucket(expected.clone()));
    expected.quota_bytes = None;
    assert_eq!(story.run(set(None, Some(None), None)).await, Outcome::Bucket(expected.clone()));
    assert_eq!(story.state.bucket(&"b".into()).await.unwrap(), Some(expected));
    assert_eq!(story.run(quota("none", None)).await, refused(Refusal::NoBucket("none".into())));
}

#[tokio::test]
async fn a_quota_refuses_what_does_not_fit_and_lets_shrink_what_is_over_it() {
    let mut story = Story::cluster().await;
    story.run(quota("b", Some(100))).await;
    let full = |used_bytes| refused(Refusal::Quota { bucket: "b".into(), quota_bytes: 100, used_bytes });
    assert_eq!(story.put("a", sized(1, 60)).await, Outcome::Put { replaced: None });
    assert_eq!(story.put("b", sized(2, 41)).await, full(60));
    assert_eq!(story.put("b", sized(2, 40)).await, Outcome::Put { replaced: None }, "to the last byte");
    assert_eq!(story.put("c", sized(3, 1)).await, full(100));
    assert_eq!(story.put("c", sized(3, 0)).await, Outcome::Put { replaced: None }, "nothing always fits");
    assert_eq!(story.put("a", sized(4, 61)).await, full(100));
    assert!(matches!(story.put("a", sized(4, 60)).await, Outcome::Put { .. }), "what it replaces makes room");
    // Lowered below what is there: nothing is lost, and it may only become less.
    story.run(quota("b", Some(10))).await;
    assert!(matches!(story.put("a", sized(5, 59)).await, Outcome::Put { .. }));
    assert!(matches!(story.put("a", sized(6, 60)).await, Outcome::Refused(Refusal::Quota { used_bytes: 99, .. })));
    story.run(delete("a", Condition::None)).await;
    assert_eq!(story.state.usage(&"b".into()).await.unwrap(), Usage { objects: 2, bytes: 40 });
}

#[tokio::test]
async fn only_an_empty_bucket_is_deleted_and_its_grants_go_with_it() {
    let mut story = Story::cluster().await;
    let gone = Command::DeleteBucket { bucket: "b".into() };
    story.run(keys::put_key("RS1", false)).await;
    let grant = Grant { read: true, ..Grant::default() };
    story.run(Command::GrantKey { id: "RS1".into(), bucket: "b".into(), grant: Some(grant) }).await;
    story.put("k", object(1)).await;
    assert_eq!(story.run(gone.clone()).await, refused(Refusal::BucketNotEmpty("b".into())));
    story.run(delete("k", Condition::None)).await;
    assert_eq!(story.run(gone.clone()).await, Outcome::Done);
    assert_eq!(story.run(gone).await, refused(Refusal::NoBucket("b".into())));
    assert_eq!(story.put("k", object(2)).await, refused(Refusal::NoBucket("b".into())));
    story.run(bucket("b")).await;
    let key = story.state.key("RS1").await.unwrap().unwrap();
    assert!(key.grants.is_empty(), "the next bucket of the name is another's");
}
