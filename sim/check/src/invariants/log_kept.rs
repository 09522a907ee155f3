//! A log that comes back ends where it ended, or behind: what was acknowledged as durable is durable.
//!
//! It may end behind, because a crash may swallow the fact of an append; and before, where a truncation was under way.

use resilver_host::audit::Fact;

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::log::Held;
use crate::world::{MemberId, World};

/// The rule.
pub struct LogKept;

impl Invariant for LogKept {
    fn name(&self) -> &'static str {
        "log_kept"
    }

    fn origin(&self) -> &'static str {
        "design.md, The node, Log: durable before it is acknowledged; only a torn tail may be cut"
    }

    fn observe(&mut self, event: &Event, world: &World) -> Result<(), Broken> {
        let Event::Fact(stamped) = event else { return Ok(()) };
        let Fact::MemberOpened { cluster, raft_id, last_log, .. } = &stamped.fact else { return Ok(()) };
        let id = MemberId { cluster: cluster.clone(), raft_id: *raft_id };
        let Some(known) = world.member(&id) else { return Ok(()) };
        let (Some(had), next) = (known.log.last(), last_log.map_or(0, |last| last.index + 1)) else { return Ok(()) };
        if known.truncating.is_some_and(|from| next >= from) {
            return Ok(());
        }
        if next <= had.index {
            return broken(format!("the log of {id} ended with {had:?} and came back with {last_log:?}"));
        }
        match (last_log, last_log.map(|last| known.log.at(last.index))) {
            (Some(last), Some(Held::Is(held))) if held != *last => {
                broken(format!("the log of {id} had {held:?} and came back with {last:?}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, appended, id, opened};

    fn one() -> Story {
        let mut story = Story::default();
        story.node("n1", 1).says("n1", opened(1, None, None)).says("n1", appended(&[id(1, 1, 1), id(1, 1, 2)]));
        story
    }

    fn back(story: &mut Story, last: resilver_host::audit::LogId) -> &mut Story {
        story.ends("n1", "node").node("n1", 2).says("n1", opened(1, None, Some(last)))
    }

    #[test]
    fn the_same_end_or_a_later_one_passes() {
        back(&mut one(), id(1, 1, 2)).passes(LogKept);
        back(&mut one(), id(1, 1, 4)).passes(LogKept);
    }

    #[test]
    fn an_earlier_end_is_a_loss_unless_a_truncation_was_under_way() {
        back(&mut one(), id(1, 1, 1)).breaks(LogKept, "ended with");
        back(one().says("n1", Fact::Truncating { from: 2 }), id(1, 1, 1)).passes(LogKept);
        back(one().says("n1", Fact::Truncating { from: 2 }), id(0, 0, 0)).breaks(LogKept, "ended with");
    }

    #[test]
    fn another_entry_at_the_end_is_a_loss() {
        back(&mut one(), id(2, 2, 2)).breaks(LogKept, "came back with");
    }
}
