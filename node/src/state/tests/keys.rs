//! Access keys.

use super::*;

pub(super) fn put_key(id: &str, admin: bool) -> Command {
    let key = KeyRecord {
        id: id.into(),
        secret: "the secret".into(),
        label: "test".into(),
        created_ms: 1,
        admin,
        grants: BTreeMap::new(),
    };
    Command::PutKey { key }
}

#[tokio::test]
async fn a_key_is_made_once_granted_and_revoked() {
    let mut story = Story::cluster().await;
    assert_eq!(story.run(put_key("RS1", false)).await, Outcome::Done);
    assert_eq!(story.run(put_key("RS1", false)).await, Outcome::Done, "the same again");
    assert_eq!(story.run(put_key("RS1", true)).await, refused(Refusal::KeyExists("RS1".into())));
    story.run(put_key("RS0", true)).await;
    let ids: Vec<String> = story.state.keys().await.unwrap().into_iter().map(|key| key.id).collect();
    assert_eq!(ids, ["RS0", "RS1"]);

    let grant = Grant { read: true, write: true, admin: false };
    let set = |id: &str, bucket: &str, grant| Command::GrantKey { id: id.into(), bucket: bucket.into(), grant };
    assert_eq!(story.run(set("RS9", "b", Some(grant))).await, refused(Refusal::NoKey("RS9".into())));
    assert_eq!(story.run(set("RS1", "none", Some(grant))).await, refused(Refusal::NoBucket("none".into())));
    assert_eq!(story.run(set("RS1", "b", Some(grant))).await, Outcome::Done);
    assert_eq!(story.state.key("RS1").await.unwrap().unwrap().grants, BTreeMap::from([("b".into(), grant)]));
    assert_eq!(story.run(set("RS1", "b", None)).await, Outcome::Done);
    assert!(story.state.key("RS1").await.unwrap().unwrap().grants.is_empty());

    let revoke = Command::RevokeKey { id: "RS1".into() };
    assert_eq!(story.run(revoke.clone()).await, Outcome::Done);
    assert_eq!(story.run(revoke).await, refused(Refusal::NoKey("RS1".into())));
    assert_eq!(story.state.key("RS1").await.unwrap(), None);
}

#[tokio::test]
async fn a_secret_is_in_no_debug_output() {
    let text = format!("{:?}", put_key("RS1", false));
    assert!(text.contains("RS1") && !text.contains("the secret"), "{text}");
}
