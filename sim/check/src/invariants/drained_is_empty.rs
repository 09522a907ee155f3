//! A disk that is emptied is called empty only when nothing has its home there any more.

use resilver_host::audit::Fact;

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::world::World;

/// The rule.
#[derive(Default)]
pub struct DrainedIsEmpty;

impl Invariant for DrainedIsEmpty {
    fn name(&self) -> &'static str {
        "drained_is_empty"
    }

    fn origin(&self) -> &'static str {
        "docs/disks.md: `disk drain` ends when no shard is left there"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        let Event::Fact(stamped) = event else { return Ok(()) };
        match &stamped.fact {
            Fact::DiskDrained { disk, left } if *left > 0 => {
                broken(format!("{} calls disk {disk} empty, and {left} shards have their home there", stamped.machine))
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
    fn a_disk_with_shards_is_not_called_empty() {
        let drained = |left| Fact::DiskDrained { disk: "d1".to_owned(), left };
        let story = || {
            let mut story = Story::default();
            story.node("n1", 1);
            story
        };
        story().says("n1", drained(0)).passes(DrainedIsEmpty);
        story().says("n1", drained(1)).breaks(DrainedIsEmpty, "1 shards have their home there");
    }
}
