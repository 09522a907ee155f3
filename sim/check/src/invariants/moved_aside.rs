//! A shard that was renamed into place is never removed from there: it is moved aside, and kept for a while. How long a
//! while depends: what the metadata gave up is kept for a day, but not on a full disk.

use std::collections::BTreeSet;

use resilver_host::audit::Fact;

use super::{Broken, Invariant, broken};
use crate::event::{Event, Happening};
use crate::world::World;

/// The rule.
#[derive(Default)]
pub struct MovedAside {
    /// What was removed from where it had been moved aside to, by machine and name: who looks once a second may see
    /// neither the one nor the other.
    purged: BTreeSet<(String, String)>,
}

impl Invariant for MovedAside {
    fn name(&self) -> &'static str {
        "moved_aside"
    }

    fn origin(&self) -> &'static str {
        "failure-modes.md, guard 6: data is renamed and kept, never deleted"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        match event {
            Event::Fact(stamped) => {
                if let Fact::AsidePurged { shard } = &stamped.fact {
                    self.purged.insert((stamped.machine.clone(), shard.clone()));
                }
                Ok(())
            }
            Event::Kernel { what: Happening::FileRemoved { machine, path }, .. } if path.contains("/shards/") => {
                let shard = path.rsplit('/').next().unwrap_or_default();
                if self.purged.contains(&(machine.clone(), shard.to_owned())) {
                    return Ok(());
                }
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
        removed("/data/d1/shards/4f/4f00-0-1").breaks(MovedAside::default(), "deleted on n1");
        removed("/data/d1/aside/corrupt-4f00-0-1.7").passes(MovedAside::default());
        removed("/data/d1/tmp/4f00-0-1.7").passes(MovedAside::default());
    }

    /// Seed 3755 of mixed: on a full disk it was aside for less than the second between two looks.
    #[test]
    fn what_was_aside_for_a_moment_only_was_not_deleted() {
        for (said_by, shard, right) in [("n1", "4f00-0-1", true), ("n1", "4f00-0-2", false), ("n2", "4f00-0-1", false)]
        {
            let mut story = Story::default();
            story.node("n1", 1).node("n2", 2).says(said_by, Fact::AsidePurged { shard: shard.to_owned() });
            story.kernel(Happening::FileRemoved { machine: "n1".to_owned(), path: "/d/shards/4f/4f00-0-1".to_owned() });
            if right {
                story.passes(MovedAside::default());
            } else {
                story.breaks(MovedAside::default(), "deleted on n1");
            }
        }
    }
}
