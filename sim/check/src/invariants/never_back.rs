//! Terms, votes and applied indexes never go back: not in a life, and not over a restart, as far as they were durable.
//!
//! But for a database that rotted: its newest commit cannot be read any more, and the one before it is gone on from. What lies between is in
//! the log, whose own rules stay (`log_kept`, `committed_kept`), and is applied again.

use std::collections::BTreeSet;

use resilver_host::audit::{Fact, LogId, Vote};

use super::{Broken, Invariant, broken};
use crate::event::{Event, Happening};
use crate::world::{Member, MemberId, World};

/// A member's database.
const DATABASE: &str = "state.redb";

/// The rule.
#[derive(Debug, Default)]
pub struct NeverBack {
    /// Machines whose databases rotted.
    rotted: BTreeSet<String>,
}

impl NeverBack {
    fn reopened(
        id: &MemberId,
        known: &Member,
        vote: Option<Vote>,
        applied: Option<LogId>,
        rotted: bool,
    ) -> Result<(), Broken> {
        if vote < known.vote {
            return broken(format!("{id} had stored {:?} and came back with {vote:?}", known.vote));
        }
        let applied = applied.map(|id| id.index);
        if applied < known.durable_applied && !rotted {
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
        if let Event::Kernel { what: Happening::Rotted { machine, path }, .. } = event
            && path.ends_with(DATABASE)
        {
            self.rotted.insert(machine.clone());
        }
        let Event::Fact(stamped) = event else { return Ok(()) };
        if let Fact::MemberOpened { cluster, raft_id, vote, applied, .. } = &stamped.fact {
            let id = MemberId { cluster: cluster.clone(), raft_id: *raft_id };
            let rotted = self.rotted.contains(&stamped.machine);
            return world.member(&id).map_or(Ok(()), |known| Self::reopened(&id, known, *vote, *applied, rotted));
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

    fn rule() -> NeverBack {
        NeverBack::default()
    }

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
        story.says("n1", Fact::Applied { id: id(3, 2, 5), digest: 0 }).passes(rule());
    }

    #[test]
    fn a_vote_that_goes_back_is_found() {
        one().says("n1", voted(3, 1, false)).breaks(rule(), "votes");
        one().says("n1", voted(2, 3, true)).breaks(rule(), "votes");
        let mut story = one();
        story.ends("n1", "node").node("n1", 2).says("n1", back(Some(vote(2, 2, true)), 4));
        story.breaks(rule(), "had stored");
    }

    #[test]
    fn an_applied_index_that_goes_back_is_found() {
        one().says("n1", Fact::Applied { id: id(3, 2, 4), digest: 0 }).breaks(rule(), "applies");
        let snapshot = Fact::SnapshotInstalled { id: Some(id(3, 2, 3)), digest: 0, voters: Vec::new() };
        one().says("n1", snapshot).breaks(rule(), "installs a snapshot");
        let mut story = one();
        story.ends("n1", "node").node("n1", 2).says("n1", back(Some(vote(3, 2, true)), 1));
        story.breaks(rule(), "durably");
    }

    /// `mixed`, seed 908871200.
    #[test]
    fn a_database_that_rotted_may_go_back_and_a_vote_may_not() {
        let rot = |story: &mut Story| {
            let (machine, path) = ("n1".to_owned(), "/meta/data/state.redb".to_owned());
            story.kernel(Happening::Rotted { machine, path });
            story.ends("n1", "node").node("n1", 2);
        };
        let mut story = one();
        rot(&mut story);
        story.says("n1", back(Some(vote(3, 2, true)), 1)).passes(rule());
        let mut story = one();
        rot(&mut story);
        story.says("n1", back(Some(vote(2, 2, true)), 1)).breaks(rule(), "had stored");
    }
}
