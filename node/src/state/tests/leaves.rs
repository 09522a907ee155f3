//! Leaves are in step with the records, whatever came; and a patch makes one state like another, or changes nothing.

use super::*;
use crate::state::tables::{OBJECTS, object_key};
use crate::state::views::MAX_VIEWS;

impl Story {
    /// The leaves as they were kept are those that the records make.
    pub(super) async fn check_leaves(&self) {
        let (kept, made) = self.leaves().await;
        assert_eq!(kept, made);
    }

    async fn leaves(&self) -> (Arc<Vec<Range>>, Arc<Vec<Range>>) {
        let checkpoint = u128::from(self.index);
        self.state.hold(checkpoint).await.unwrap();
        let held = self.state.held(checkpoint).unwrap();
        let both = (self.state.leaves(&held, false).await.unwrap(), self.state.leaves(&held, true).await.unwrap());
        self.state.release(checkpoint);
        both
    }

    async fn root(&self) -> Sum {
        root(&self.leaves().await.1)
    }
}

fn place(key: &str) -> Vec<u8> {
    let tag = tables::REPLICATED
        .iter()
        .find(|(_, table)| redb::TableHandle::name(table) == redb::TableHandle::name(&OBJECTS));
    merkle::place(tag.unwrap().0, &object_key("b", key))
}

/// Two stories that applied the same commands, with objects enough for several leaves.
async fn two() -> (Story, Story) {
    let mut stories = (Story::cluster().await, Story::cluster().await);
    for version in 1..400 {
        stories.0.put(&format!("k{version:04}"), object(version)).await;
        stories.1.put(&format!("k{version:04}"), object(version)).await;
    }
    stories
}

#[tokio::test]
async fn a_patch_makes_one_state_like_the_other_and_anything_less_changes_nothing() {
    let (right, wrong) = two().await;
    assert_eq!(right.root().await, wrong.root().await, "what was applied is the same");
    let expected = right.root().await;
    let lost = wrong.state.tamper(place("k0007"), None).await.unwrap();
    let foreign = wrong.state.tamper(place("k0300"), Some(lost.clone())).await.unwrap();
    wrong.state.tamper(place("zzz"), Some(lost.clone())).await;
    let tampered = wrong.root().await;
    assert_ne!(tampered, expected);
    let (kept, _) = wrong.leaves().await;
    assert_eq!(root(&kept), expected, "nothing of it went through the leaves");

    let index = wrong.index;
    let part = vec![(place("k0007"), Some(lost)), (place("k0300"), Some(foreign))];
    let whole: Vec<_> = part.iter().cloned().chain([(place("zzz"), None)]).collect();
    let unlike = wrong.state.patch(index, part, expected).await.unwrap_err();
    assert!(matches!(unlike, PatchError::Unlike { .. }), "{unlike}");
    let late = wrong.state.patch(index - 1, whole.clone(), expected).await.unwrap_err();
    assert!(matches!(late, PatchError::Late { .. }), "{late}");
    assert_eq!(wrong.root().await, tampered, "a patch that was refused changed something");

    wrong.state.patch(index, whole, expected).await.unwrap();
    assert_eq!(wrong.root().await, expected);
    wrong.check().await;
}

/// Found by the simulator (`resync`, seed 8): of a few hundred records that came past the leaves some begin a leaf, which
/// nothing knew of when they were to be removed.
#[tokio::test]
async fn records_that_begin_leaves_of_which_nothing_is_known_are_taken_out_again() {
    let (right, wrong) = two().await;
    let expected = right.root().await;
    let foreign = wrong.state.tamper(place("k0300"), None).await.unwrap();
    wrong.state.tamper(place("k0300"), Some(foreign.clone())).await;
    let many: Vec<Vec<u8>> = (0..1000).map(|n| place(&format!("z{n:04}"))).collect();
    for place in &many {
        wrong.state.tamper(place.clone(), Some(foreign.clone())).await;
    }
    let (kept, made) = wrong.leaves().await;
    assert!(made.len() > kept.len(), "none of them begins a leaf: this tests nothing");
    let changes = many.into_iter().map(|place| (place, None)).collect();
    wrong.state.patch(wrong.index, changes, expected).await.unwrap();
    assert_eq!(wrong.root().await, expected);
    wrong.check_leaves().await;
}

#[tokio::test]
async fn a_whole_state_takes_the_place_of_another_of_the_same_entry_only() {
    let (mut right, wrong) = two().await;
    let expected = right.root().await;
    let file = right.dir.path().join("moment");
    right.state.hold(1).await.unwrap();
    right.state.export_moment(&right.state.held(1).unwrap(), &file).await.unwrap();
    wrong.state.tamper(place("k0007"), None).await.unwrap();
    wrong.state.replace(&file, wrong.index, expected).await.unwrap();
    assert_eq!(wrong.root().await, expected);
    wrong.check().await;
    // One entry later it is not the file's moment any more.
    right.put("more", object(1000)).await;
    let later = right.index;
    let before = right.root().await;
    let late = right.state.replace(&file, later, expected).await.unwrap_err();
    assert!(matches!(late, PatchError::Late { .. }), "{late}");
    assert_eq!(right.root().await, before);
}

#[tokio::test]
async fn a_moment_stays_what_it_was_and_goes_when_others_come_and_nobody_asks_for_it() {
    let (mut story, _) = two().await;
    story.state.hold(1).await.unwrap();
    let held = story.state.held(1).unwrap();
    let then = root(&story.state.leaves(&held, true).await.unwrap());
    story.put("more", object(1000)).await;
    assert_ne!(story.root().await, then);
    let (records, more) =
        story.state.records(&held, (place("k0001"), Some(place("k0003"))), true, (10, 10_000)).await.unwrap();
    assert_eq!((records.len(), more), (2, None));
    let (page, next) = story.state.records(&held, (Vec::new(), None), false, (3, usize::MAX)).await.unwrap();
    assert_eq!(page.len(), 3);
    assert!(next.is_some());
    // Others come, and who works with this one goes on asking for it.
    let others = MAX_VIEWS as u128;
    for other in 2..=2 * others {
        assert!(story.state.held(1).is_some(), "{other}: it is in use");
        story.state.hold(other).await.unwrap();
    }
    assert!(story.state.held(2).is_none(), "more moments are kept than {MAX_VIEWS}");
    for other in 0..others {
        story.state.hold(100 + other).await.unwrap();
    }
    assert!(story.state.held(1).is_none(), "nobody asked for it any more");
    assert_eq!(story.state.will_hold(1, Some(held.applied.index)).await.map(|held| held.applied.index), None);
}
