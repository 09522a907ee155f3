//! A shard that was acknowledged outlasts a power loss: its bytes and its name are synced when its sender is told.

use super::{Broken, Invariant, broken};
use crate::event::{Event, Happening};
use crate::world::World;

/// The rule. Who holds the file systems looks at the file in the moment the node says that it keeps it: the loss itself
/// would have to strike most homes of one object at once before a client could notice.
pub struct ShardsDurable;

impl Invariant for ShardsDurable {
    fn name(&self) -> &'static str {
        "shards_durable"
    }

    fn origin(&self) -> &'static str {
        "design.md, Extents and shards: written to a temporary name, fsynced, renamed, directory fsynced; then acknowledged"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        match event {
            Event::Kernel { what: Happening::NotDurable { machine, path }, .. } => {
                broken(format!("{machine} acknowledged {path}, which a power loss could take"))
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
    fn a_promise_without_a_sync_is_found() {
        let mut story = Story::default();
        story.kernel(Happening::FaultsOn).passes(ShardsDurable);
        let (machine, path) = ("n1".to_owned(), "/d/shards/4f/4f00-0-1".to_owned());
        story.kernel(Happening::NotDurable { machine, path }).breaks(ShardsDurable, "n1 acknowledged");
    }
}
