//! A leader was elected by a majority of durable votes, and a member is one process.
//!
//! openraft names a leader by (term, member), ordered: a term that was won may be won again by a member with a higher
//! id, whose vote then outranks the first. So "one leader per term" means here: one leader per leader id, and for each a
//! majority of every voter set in force on disk. Two majorities share a voter, whose votes only rise (`never_back`):
//! hence at any time at most one leader can commit.

use std::collections::{BTreeMap, BTreeSet};

use resilver_host::audit::{Fact, LeaderId};

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::world::{MemberId, World};

/// The rule.
#[derive(Default)]
pub struct OneLeaderPerTerm {
    /// Who ever stored a vote for a leader, by cluster.
    granted: BTreeMap<(String, LeaderId), BTreeSet<u64>>,
    elected: BTreeSet<(String, LeaderId)>,
}

impl Invariant for OneLeaderPerTerm {
    fn name(&self) -> &'static str {
        "one_leader_per_term"
    }

    fn origin(&self) -> &'static str {
        "Raft §5.2, election safety, with openraft's leader ids"
    }

    fn observe(&mut self, event: &Event, world: &World) -> Result<(), Broken> {
        let Event::Fact(stamped) = event else { return Ok(()) };
        if let Fact::MemberOpened { cluster, raft_id, vote, .. } = &stamped.fact {
            // A crash may have swallowed the fact of this vote.
            if let Some(vote) = vote {
                self.granted.entry((cluster.clone(), vote.leader)).or_default().insert(*raft_id);
            }
            let id = MemberId { cluster: cluster.clone(), raft_id: *raft_id };
            let other =
                world.member(&id).filter(|known| known.pid != stamped.pid && world.runs(&known.machine, known.pid));
            return match other {
                Some(known) => {
                    broken(format!("{id} is two processes: on {} and on {}", known.machine, stamped.machine))
                }
                None => Ok(()),
            };
        }
        let Fact::VoteStored { vote } = &stamped.fact else { return Ok(()) };
        let Some((id, member)) = world.member_of(stamped) else { return Ok(()) };
        let key = (id.cluster.clone(), vote.leader);
        let granted = self.granted.entry(key.clone()).or_default();
        granted.insert(id.raft_id);
        if !vote.committed || vote.leader.member != id.raft_id || !self.elected.insert(key) {
            return Ok(());
        }
        for voters in member.log.voters().into_iter().flat_map(|(_, voters)| voters) {
            let votes = voters.intersection(granted).count();
            if votes <= voters.len() / 2 {
                let term = vote.leader.term;
                return broken(format!("{id} leads term {term} with {votes} durable votes of {voters:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, opened, voted};

    fn three() -> Story {
        let mut story = Story::default();
        for (machine, number) in [("n1", 1), ("n2", 2), ("n3", 3)] {
            story.node(machine, number).says(machine, opened(u64::from(number), None, None));
        }
        story
    }

    #[test]
    fn a_majority_elects() {
        let mut story = three();
        story.says("n1", voted(1, 1, false)).says("n3", voted(1, 1, false)).says("n1", voted(1, 1, true));
        // The same term, won again by a higher id with a majority of its own.
        story.says("n2", voted(1, 2, false)).says("n3", voted(1, 2, false)).says("n2", voted(1, 2, true));
        story.passes(OneLeaderPerTerm::default());
    }

    #[test]
    fn a_minority_does_not() {
        let mut story = three();
        story.says("n1", voted(1, 1, false)).says("n1", voted(1, 1, true));
        story.breaks(OneLeaderPerTerm::default(), "member 1 leads term 1 with 1 durable votes of {1, 2, 3}");
    }

    #[test]
    fn a_copied_folder_is_noticed() {
        let mut story = three();
        story.node("n4", 4).says("n4", opened(1, None, None));
        story.breaks(OneLeaderPerTerm::default(), "two processes: on n1 and on n4");
        let mut story = three();
        story.ends("n1", "node").node("n1", 9).says("n1", opened(1, None, None));
        story.passes(OneLeaderPerTerm::default());
    }
}
