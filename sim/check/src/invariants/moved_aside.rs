//! A shard that was renamed into place is never removed from there: it is moved aside, and kept for a while.

use super::{Broken, Invariant, broken};
use crate::event::{Event, Happening};
use crate::world::World;

/// The rule.
pub struct MovedAside;

impl Invariant for MovedAside {
    fn name(&self) -> &'static str {
        "moved_aside"
    }

    fn origin(&self) -> &'static str {
        "failure-modes.md, guard 6: data is renamed and kept, never deleted"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        match event {
            Event::Kernel { what: Happening::FileRemoved { machine, path }, .. } if path.contains("/shards/") => {
                broken(format!("{path} was deleted on {machine}, not moved aside"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Story;

    fn removed(path: &str) -> Story {
        let mut story = Story::default();
        story.kernel(Happening::FileRemoved { machine: "n1".to_owned(), path: path.to_owned() });
        story
    }

    #[test]
    fn a_deleted_shard_is_found_and_leftovers_are_not_minded() {
        removed("/data/d1/shards/4f/4f00-0-1").breaks(MovedAside, "deleted on n1");
        removed("/data/d1/aside/corrupt-4f00-0-1.7").passes(MovedAside);
        removed("/data/d1/tmp/4f00-0-1.7").passes(MovedAside);
    }
}
