//! A shard whose bytes changed before it was read is not called sound, until it was written anew.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use resilver_host::audit::Fact;

use super::{Broken, Invariant, broken};
use crate::event::{Event, Happening, Stamped};
use crate::world::World;

/// The rule.
#[derive(Default)]
pub struct RotIsSeen {
    /// Since when, by machine and file.
    rotten: BTreeMap<(String, String), Duration>,
    /// When each reading of a file began that has not ended; one that was given up only makes the rule kinder.
    reading: BTreeMap<(String, String), VecDeque<Duration>>,
}

impl RotIsSeen {
    fn fact(&mut self, stamped: &Stamped) -> Result<(), Broken> {
        let key = |path: &str| (stamped.machine.clone(), path.to_owned());
        match &stamped.fact {
            Fact::ShardWritten { path } => {
                self.rotten.remove(&key(path));
                // Readings that found nothing there do not end.
                self.reading.remove(&key(path));
            }
            Fact::ShardVerifying { path } => self.reading.entry(key(path)).or_default().push_back(stamped.at),
            Fact::ShardVerified { path, sound } => {
                let begun = self.reading.get_mut(&key(path)).and_then(VecDeque::pop_front);
                let rotten = self.rotten.get(&key(path)).copied();
                if *sound && begun.zip(rotten).is_some_and(|(begun, rotten)| rotten < begun) {
                    return broken(format!("{} calls {path} sound, whose bytes have changed", stamped.machine));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Invariant for RotIsSeen {
    fn name(&self) -> &'static str {
        "rot_is_seen"
    }

    fn origin(&self) -> &'static str {
        "design.md, Extents and shards: a CRC32C per block, header included, verified on every read"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        let (at, what) = match event {
            Event::Fact(stamped) => return self.fact(stamped),
            Event::Kernel { at, what } => (*at, what),
        };
        match what {
            Happening::Rotted { machine, path } => {
                self.rotten.entry((machine.clone(), path.clone())).or_insert(at);
            }
            Happening::FileRemoved { machine, path } => {
                self.rotten.remove(&(machine.clone(), path.clone()));
            }
            Happening::Wiped { machine, path } => {
                self.rotten.retain(|(on, file), _| on != machine || !file.starts_with(path));
            }
            // It may have written a shard anew, and had no time to say so.
            Happening::ProcessEnded { machine, role, .. } if role == "node" => {
                self.rotten.retain(|(on, _), _| on != machine);
                self.reading.retain(|(on, _), _| on != machine);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Story;

    const PATH: &str = "/d/shards/00/x";

    fn reads<'a>(story: &'a mut Story, machine: &str, sound: bool) -> &'a mut Story {
        story.says(machine, Fact::ShardVerifying { path: PATH.to_owned() }).later(1);
        story.says(machine, Fact::ShardVerified { path: PATH.to_owned(), sound })
    }

    fn rotten() -> Story {
        let (machine, path) = ("n1".to_owned(), PATH.to_owned());
        let mut story = Story::default();
        story.node("n1", 1).node("n2", 2).kernel(Happening::Rotted { machine, path }).later(1);
        story
    }

    #[test]
    fn rot_that_is_called_sound_is_found() {
        reads(&mut rotten(), "n1", true).breaks(RotIsSeen::default(), "n1 calls /d/shards/00/x sound");
    }

    #[test]
    fn rot_that_is_seen_or_mended_passes() {
        reads(reads(&mut rotten(), "n1", false), "n2", true).passes(RotIsSeen::default());
        let written = Fact::ShardWritten { path: PATH.to_owned() };
        reads(rotten().says("n1", written), "n1", true).passes(RotIsSeen::default());
    }

    #[test]
    fn rot_that_came_behind_the_reading_cannot_be_seen() {
        let (machine, path) = ("n1".to_owned(), PATH.to_owned());
        let mut story = Story::default();
        story.node("n1", 1).says("n1", Fact::ShardVerifying { path: PATH.to_owned() });
        story.later(1).kernel(Happening::Rotted { machine, path });
        story.says("n1", Fact::ShardVerified { path: PATH.to_owned(), sound: true }).passes(RotIsSeen::default());
    }
}
