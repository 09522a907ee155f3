//! Terms, votes and applied indexes never go back: not in a life, and not over a restart, as far as they were durable.

use resilver_host::audit::{Fact, LogId, Vote};

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::world::{Member, MemberId, World};

/// The rule.
pub struct NeverBack;

impl NeverBack {
    fn reopened(id: &MemberId, known: &Member, vote: Option<Vote>, applied: Option<LogId>) -> Result<(), Broken> {
        if vote < known.vote {
            return broken(format!("{id} had stored {:?} and came back with {vote:?}", known.vote));
        }
        let applied = applied.map(|id| id.index);
        if applied < known.durable_applied {
            let had = known.durable_applied;
            return broken(format!("{id} had applied {had:?} durably and came back with {applied:?}"));
        }
        Ok(())
    }
}

impl Invariant for NeverBack {
    fn name(&self) -> &'static str {
        "never_back"
    }

    fn origin(&self) -> &'static str {
        "Raft §5.1 and figure 2: currentTerm, votedFor and lastApplied only rise, and persist"
    }

    fn observe(&mut self, event: &Event, world: &World) -> Result<(), Broken> {
        let Event::Fact(stamped) = event else { return Ok(()) };
        if let Fact::MemberOpened { cluster, raft_id, vote, applied, .. } = &stamped.fact {
            let id = MemberId { cluster: cluster.clone(), raft_id: *raft_id };
            return world.member(&id).map_or(Ok(()), |known| Self::reopened(&id, known, *vote, *applied));
        }
        let Some((who, member)) = world.member_of(stamped) else { return Ok(()) };
        match &stamped.fact {
            Fact::VoteStored { vote } if Some(*vote) < member.vote => {
                broken(format!("{who} votes {vote:?} after {:?}", member.vote))
            }
            Fact::Applied { id, .. } if Some(*id) <= member.applied || !rises(member.applied, *id) => {
                broken(format!("{who} applies {id:?} after {:?}", member.applied))
            }
            Fact::SnapshotInstalled { id, .. } if *id < member.applied => {
                broken(format!("{who} installs a snapshot of {id:?} over {:?}", member.applied))
            }
            _ => Ok(()),
        }
    }
}

fn rises(applied: Option<LogId>, next: LogId) -> bool {
    applied.is_none_or(|applied| next.index > applied.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, id, opened, vote, voted};

    fn one() -> Story {
        let mut story = Story::default();
        story.node("n1", 1).says("n1", opened(1, None, None)).says("n1", voted(3, 2, true));
        story.says("n1", Fact::Applied { id: id(3, 2, 4), digest: 0 });
        story.says("n1", Fact::StateDurable { applied: Some(2) });
        story
    }

    fn back(last_vote: Option<Vote>, applied: u64) -> Fact {
        let Fact::MemberOpened { cluster, raft_id, voters, .. } = opened(1, None, None) else { unreachable!() };
        let applied = Some(id(3, 2, applied));
        Fact::MemberOpened { cluster, raft_id, voters, vote: last_vote, last_log: Some(id(3, 2, 4)), applied }
    }

    #[test]
    fn rising_in_a_life_and_over_a_restart_passes() {
        let mut story = one();
        story.says("n1", voted(3, 3, false)).says("n1", voted(4, 1, false));
        story.says("n1", Fact::Applied { id: id(3, 2, 6), digest: 0 });
        // What was applied and not durable is applied again.
        story.ends("n1", "node").node("n1", 2).says("n1", back(Some(vote(4, 1, false)), 3));
        story.says("n1", Fact::Applied { id: id(3, 2, 5), digest: 0 }).passes(NeverBack);
    }

    #[test]
    fn a_vote_that_goes_back_is_found() {
        one().says("n1", voted(3, 1, false)).breaks(NeverBack, "votes");
        one().says("n1", voted(2, 3, true)).breaks(NeverBack, "votes");
        let mut story = one();
        story.ends("n1", "node").node("n1", 2).says("n1", back(Some(vote(2, 2, true)), 4));
        story.breaks(NeverBack, "had stored");
    }

    #[test]
    fn an_applied_index_that_goes_back_is_found() {
        one().says("n1", Fact::Applied { id: id(3, 2, 4), digest: 0 }).breaks(NeverBack, "applies");
        let snapshot = Fact::SnapshotInstalled { id: Some(id(3, 2, 3)), digest: 0, voters: Vec::new() };
        one().says("n1", snapshot).breaks(NeverBack, "installs a snapshot");
        let mut story = one();
        story.ends("n1", "node").node("n1", 2).says("n1", back(Some(vote(3, 2, true)), 1));
        story.breaks(NeverBack, "durably");
    }
}
