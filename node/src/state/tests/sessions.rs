//! Once only.

use super::*;

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
