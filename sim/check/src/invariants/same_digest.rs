//! Whoever has applied the same entries has the same state.

use std::collections::{BTreeMap, BTreeSet};

use resilver_host::audit::{Fact, LogId};

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::world::World;

/// The rule.
#[derive(Default)]
pub struct SameDigest {
    /// By cluster and index: the entry, the digest, and who was first to say so.
    known: BTreeMap<(String, u64), (LogId, u32, String)>,
    /// Machines whose member was tampered with, until it says that it was mended. (Until then it may say what it likes; that
    /// it is mended in the end, the harness asks the members themselves.)
    tampered: BTreeSet<String>,
}

impl Invariant for SameDigest {
    fn name(&self) -> &'static str {
        "same_digest"
    }

    fn origin(&self) -> &'static str {
        "Raft §5.4.3, state machine safety; failure mode state_divergence"
    }

    fn observe(&mut self, event: &Event, world: &World) -> Result<(), Broken> {
        let Event::Fact(stamped) = event else { return Ok(()) };
        let (id, digest) = match &stamped.fact {
            Fact::StateTampered => {
                self.tampered.insert(stamped.machine.clone());
                return Ok(());
            }
            Fact::StateMended => {
                self.tampered.remove(&stamped.machine);
                return Ok(());
            }
            Fact::Applied { .. } if self.tampered.contains(&stamped.machine) => return Ok(()),
            Fact::Applied { id, digest } | Fact::SnapshotInstalled { id: Some(id), digest, .. } => (*id, *digest),
            _ => return Ok(()),
        };
        let Some((who, _)) = world.member_of(stamped) else { return Ok(()) };
        let known = self.known.entry((who.cluster.clone(), id.index)).or_insert((id, digest, who.to_string()));
        if known.0 != id {
            return broken(format!("{who} applied {id:?} where {} applied {:?}", known.2, known.0));
        }
        if known.1 != digest {
            let (other, expected) = (&known.2, known.1);
            return broken(format!("{who} has digest {digest:08x} at {}, {other} has {expected:08x}", id.index));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, id, opened};

    fn two() -> Story {
        let mut story = Story::default();
        story.node("n1", 1).says("n1", opened(1, None, None)).node("n2", 2).says("n2", opened(2, None, None));
        story.says("n1", Fact::Applied { id: id(1, 1, 5), digest: 55 });
        story
    }

    #[test]
    fn equal_states_pass_also_by_a_snapshot() {
        let snapshot = Fact::SnapshotInstalled { id: Some(id(1, 1, 5)), digest: 55, voters: Vec::new() };
        two()
            .says("n2", snapshot)
            .says("n2", Fact::Applied { id: id(1, 1, 6), digest: 9 })
            .passes(SameDigest::default());
    }

    #[test]
    fn a_member_that_was_tampered_with_may_differ_until_it_says_that_it_was_mended() {
        let rule = SameDigest::default;
        let other = || Fact::Applied { id: id(1, 1, 5), digest: 56 };
        two().says("n2", Fact::StateTampered).says("n2", other()).passes(rule());
        let mut mended = two();
        mended.says("n2", Fact::StateTampered).says("n2", other()).says("n2", Fact::StateMended);
        mended.says("n2", other()).breaks(rule(), "digest 00000038 at 5");
    }

    #[test]
    fn another_state_or_another_entry_does_not() {
        let rule = SameDigest::default;
        two().says("n2", Fact::Applied { id: id(1, 1, 5), digest: 56 }).breaks(rule(), "digest 00000038 at 5");
        two().says("n2", Fact::Applied { id: id(2, 2, 5), digest: 55 }).breaks(rule(), "member 2 applied");
    }
}
