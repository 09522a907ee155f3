//! What is wrong with the metadata is found, and what is right is not.

use redb::ReadableTableMetadata;

use super::*;
use crate::state::validate::Validation;

/// Changes the tables behind the state's back.
async fn tampered(story: &Story, tamper: impl FnOnce(&WriteTransaction) + Send + 'static) -> Validation {
    let change = move |txn: &WriteTransaction, _: &mut Memory| {
        tamper(txn);
        Ok(())
    };
    story.state.write(Durability::None, change).await.unwrap();
    story.state.validate().await.unwrap()
}

fn kinds(found: &Validation) -> Vec<(&'static str, bool)> {
    found.findings.iter().map(|finding| (finding.kind, finding.contradiction)).collect()
}

async fn stored() -> Story {
    let mut story = Story::cluster().await;
    let mut whole = object(5);
    whole.extents[0].homes[1].at = Some(DiskId(21));
    story.put("k", whole).await;
    story
}

#[tokio::test]
async fn a_state_that_is_right_has_nothing_to_find() {
    let story = stored().await;
    let found = story.state.validate().await.unwrap();
    assert_eq!((found.objects, found.shards, found.findings.as_slice(), found.more), (1, 2, [].as_slice(), 0));
}

#[tokio::test]
async fn what_is_missing_is_told_apart_from_a_contradiction() {
    let mut story = stored().await;
    story.run(mark(11, DiskState::Down, MarkedBy::Operator, None)).await;
    assert_eq!(kinds(&story.state.validate().await.unwrap()), [("under_replicated", false)]);
    story.run(mark(21, DiskState::Down, MarkedBy::Operator, None)).await;
    assert_eq!(kinds(&story.state.validate().await.unwrap()), [("unreadable", false)]);
}

#[tokio::test]
async fn references_that_lead_nowhere_and_totals_that_are_not_so_are_found() {
    let version = Version(5);
    let story = stored().await;
    let lost = move |txn: &WriteTransaction| {
        txn.open_table(tables::VERSIONS).unwrap().remove(tables::version_key(version).as_slice()).unwrap();
    };
    assert_eq!(kinds(&tampered(&story, lost).await), [("reference", true)]);

    let story = stored().await;
    let given_up = move |txn: &WriteTransaction| {
        let mut table = txn.open_table(tables::FORBIDDEN).unwrap();
        table.insert(tables::version_key(version).as_slice(), [].as_slice()).unwrap();
    };
    assert_eq!(kinds(&tampered(&story, given_up).await), [("forbidden", true)]);

    // The object goes, and its version and the totals stay.
    let story = stored().await;
    let gone = |txn: &WriteTransaction| {
        let mut table = txn.open_table(tables::OBJECTS).unwrap();
        table.remove(tables::object_key("b", "k").as_slice()).unwrap();
        assert!(table.is_empty().unwrap());
    };
    let found = tampered(&story, gone).await;
    assert_eq!(kinds(&found), [("reference", true), ("totals", true)], "{found:?}");
}
