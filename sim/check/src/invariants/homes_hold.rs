//! The metadata is told that a shard is in a file only once that file has been made.

use std::collections::BTreeSet;

use resilver_host::audit::Fact;

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::world::World;

/// The rule.
#[derive(Default)]
pub struct HomesHold {
    /// Files of shards that were made, by machine. What becomes of them later is other rules' business.
    made: BTreeSet<(String, String)>,
}

impl Invariant for HomesHold {
    fn name(&self) -> &'static str {
        "homes_hold"
    }

    fn origin(&self) -> &'static str {
        "design.md, Recovery services: a hint is dropped when its delivery is durable, a rebuild recorded when it was read back"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        let Event::Fact(stamped) = event else { return Ok(()) };
        match &stamped.fact {
            Fact::ShardWritten { path } => {
                self.made.insert((stamped.machine.clone(), path.clone()));
                Ok(())
            }
            Fact::HomeRecorded { path } if !self.made.contains(&(stamped.machine.clone(), path.clone())) => {
                broken(format!("{} says that a shard is in {path}, which it has not made", stamped.machine))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Story;

    #[test]
    fn a_home_is_told_of_after_it_was_made_and_by_whom_it_was_made() {
        let written = || Fact::ShardWritten { path: "/d/shards/4f/4f00-0-1".to_owned() };
        let told = || Fact::HomeRecorded { path: "/d/shards/4f/4f00-0-1".to_owned() };
        let story = || {
            let mut story = Story::default();
            story.node("n1", 1).node("n2", 2);
            story
        };
        story().says("n1", told()).breaks(HomesHold::default(), "has not made");
        story().says("n1", written()).says("n1", told()).passes(HomesHold::default());
        story().says("n2", written()).says("n1", told()).breaks(HomesHold::default(), "n1 says");
    }
}
