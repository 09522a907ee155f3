//! A shard whose bytes changed is not called sound, until it was written anew.

use std::collections::BTreeSet;

use resilver_host::audit::Fact;

use super::{Broken, Invariant, broken};
use crate::event::{Event, Happening};
use crate::world::World;

/// The rule.
#[derive(Default)]
pub struct RotIsSeen {
    rotten: BTreeSet<(String, String)>,
}

impl Invariant for RotIsSeen {
    fn name(&self) -> &'static str {
        "rot_is_seen"
    }

    fn origin(&self) -> &'static str {
        "design.md, Extents and shards: a CRC32C per block, header included, verified on every read"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        match event {
            Event::Kernel { what: Happening::Rotted { machine, path }, .. } => {
                self.rotten.insert((machine.clone(), path.clone()));
            }
            Event::Kernel { what: Happening::FileRemoved { machine, path }, .. } => {
                self.rotten.remove(&(machine.clone(), path.clone()));
            }
            Event::Kernel { what: Happening::Wiped { machine, path }, .. } => {
                self.rotten.retain(|(on, file)| on != machine || !file.starts_with(path));
            }
            Event::Kernel { .. } => {}
            Event::Fact(stamped) => match &stamped.fact {
                Fact::ShardWritten { path } => {
                    self.rotten.remove(&(stamped.machine.clone(), path.clone()));
                }
                Fact::ShardVerified { path, sound: true }
                    if self.rotten.contains(&(stamped.machine.clone(), path.clone())) =>
                {
                    return broken(format!("{} calls {path} sound, whose bytes have changed", stamped.machine));
                }
                _ => {}
            },
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Story;

    fn rotten() -> Story {
        let (machine, path) = ("n1".to_owned(), "/d/shards/00/x".to_owned());
        let mut story = Story::default();
        story.node("n1", 1).node("n2", 2).kernel(Happening::Rotted { machine, path });
        story
    }

    fn verified(sound: bool) -> Fact {
        Fact::ShardVerified { path: "/d/shards/00/x".to_owned(), sound }
    }

    #[test]
    fn rot_that_is_called_sound_is_found() {
        rotten().says("n1", verified(true)).breaks(RotIsSeen::default(), "n1 calls /d/shards/00/x sound");
    }

    #[test]
    fn rot_that_is_seen_or_mended_passes() {
        rotten().says("n1", verified(false)).says("n2", verified(true)).passes(RotIsSeen::default());
        let written = Fact::ShardWritten { path: "/d/shards/00/x".to_owned() };
        rotten().says("n1", written).says("n1", verified(true)).passes(RotIsSeen::default());
    }
}
