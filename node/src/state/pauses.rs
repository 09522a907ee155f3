//! Applying a person's pause of the repair queue, and its end; and the end of what holds collection.

use std::time::Duration;

use super::apply::Work;
use super::members::change_map;
use crate::model::{Outcome, RepairPause};

/// A pause takes the place of one that lasts: the later word counts.
pub(super) fn pause(work: &mut Work<'_>, owner: &str, reason: &str, length: Duration) -> Outcome {
    let map = change_map(work);
    // The revision rose with this very change, and never falls: no two pauses have the same.
    let stamp = map.revision;
    map.repair_pause = Some(RepairPause { owner: owner.to_owned(), reason: reason.to_owned(), length, stamp });
    Outcome::Done
}

/// Ends the pause that lasts, or only the one that is meant. Without one nothing changes.
pub(super) fn resume(work: &mut Work<'_>, stamp: Option<u64>) -> Outcome {
    let meant = |pause: &RepairPause| stamp.is_none_or(|stamp| stamp == pause.stamp);
    if work.map.repair_pause.as_ref().is_some_and(meant) {
        change_map(work).repair_pause = None;
    }
    Outcome::Done
}

/// What was held may be collected again.
pub(super) fn release_collection(work: &mut Work<'_>) -> Outcome {
    if work.map.collection_held {
        change_map(work).collection_held = false;
    }
    Outcome::Done
}
