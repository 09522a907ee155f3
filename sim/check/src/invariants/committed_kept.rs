//! What was once committed stays: nowhere else is another entry committed in its place, nobody drops it, and every
//! later leader has it.

use std::collections::BTreeMap;

use resilver_host::audit::{Fact, LeaderId, LogId};

use super::{Broken, Invariant, broken};
use crate::event::{Event, Stamped};
use crate::log::Held;
use crate::world::{Member, MemberId, World};

/// A committed entry, and under which leader it is known to be committed (or an earlier one).
#[derive(Clone, Copy, Debug)]
struct Commit {
    id: LogId,
    under: LeaderId,
}

/// The rule.
#[derive(Default)]
pub struct CommittedKept {
    committed: BTreeMap<(String, u64), Commit>,
    /// Up to which index each member's commits are taken in.
    seen: BTreeMap<MemberId, u64>,
}

impl CommittedKept {
    fn commit(&mut self, who: &MemberId, member: &Member, through: LogId, world: &World) -> Result<(), Broken> {
        let under = member.vote.map_or(through.leader, |vote| vote.leader);
        let from = self.seen.get(who).map_or(0, |seen| seen + 1);
        for index in from..=through.index {
            let id = match member.log.at(index) {
                Held::Is(id) => id,
                Held::Nothing | Held::Purged | Held::Unknown if index == through.index => through,
                Held::Nothing | Held::Purged | Held::Unknown => continue,
            };
            if index == through.index && id != through {
                return broken(format!("{who} says that {through:?} is committed, but its log has {id:?}"));
            }
            let known = self.committed.entry((who.cluster.clone(), index)).or_insert(Commit { id, under });
            if known.id != id {
                return broken(format!("{id:?} is committed at {who}, {:?} elsewhere", known.id));
            }
        }
        self.seen.insert(who.clone(), through.index.max(from.saturating_sub(1)));
        let later = world.members().filter(|(id, other)| id.cluster == who.cluster && leads_after(id, other, under));
        for (id, leader) in later {
            if !leader.log.may_hold(through) {
                return broken(format!("{id} leads a later term than {who} and lacks the committed {through:?}"));
            }
        }
        Ok(())
    }

    fn elected(&self, who: &MemberId, member: &Member, leader: LeaderId) -> Result<(), Broken> {
        let before = self.of(&who.cluster, 0).filter(|commit| commit.under < leader);
        match before.into_iter().find(|commit| !member.log.may_hold(commit.id)) {
            Some(commit) => broken(format!("{who} was elected for {leader:?} without the committed {:?}", commit.id)),
            None => Ok(()),
        }
    }

    fn of(&self, cluster: &str, from: u64) -> impl Iterator<Item = &Commit> {
        let range = (cluster.to_owned(), from)..=(cluster.to_owned(), u64::MAX);
        self.committed.range(range).map(|(_, commit)| commit)
    }

    fn truncating(&self, who: &MemberId, member: &Member, from: u64) -> Result<(), Broken> {
        let drops = |commit: &&Commit| member.log.at(commit.id.index) == Held::Is(commit.id);
        match self.of(&who.cluster, from).find(drops) {
            Some(commit) => broken(format!("{who} drops the committed {:?}", commit.id)),
            None => Ok(()),
        }
    }

    fn reopened(&self, who: &MemberId, known: &Member, last: Option<LogId>) -> Result<(), Broken> {
        let first_lost = last.map_or(0, |last| last.index + 1);
        let had = |commit: &&Commit| known.log.at(commit.id.index) == Held::Is(commit.id);
        let knew = |commit: &&Commit| Some(commit.id.index) <= known.committed;
        match self.of(&who.cluster, first_lost).find(|commit| had(commit) && knew(commit)) {
            Some(commit) => broken(format!("{who} came back without the committed {:?}", commit.id)),
            None => Ok(()),
        }
    }
}

/// Whether this member leads, under a later leader id than `under`.
fn leads_after(id: &MemberId, member: &Member, under: LeaderId) -> bool {
    member.vote.is_some_and(|vote| vote.committed && vote.leader.member == id.raft_id && vote.leader > under)
}

impl Invariant for CommittedKept {
    fn name(&self) -> &'static str {
        "committed_kept"
    }

    fn origin(&self) -> &'static str {
        "Raft §5.4, leader completeness"
    }

    fn observe(&mut self, event: &Event, world: &World) -> Result<(), Broken> {
        let Event::Fact(stamped @ Stamped { fact, .. }) = event else { return Ok(()) };
        if let Fact::MemberOpened { cluster, raft_id, last_log, .. } = fact {
            let id = MemberId { cluster: cluster.clone(), raft_id: *raft_id };
            return world.member(&id).map_or(Ok(()), |known| self.reopened(&id, known, *last_log));
        }
        let Some((who, member)) = world.member_of(stamped) else { return Ok(()) };
        match fact {
            Fact::Committed { id } | Fact::Applied { id, .. } => self.commit(who, member, *id, world),
            Fact::VoteStored { vote } if vote.committed && vote.leader.member == who.raft_id => {
                self.elected(who, member, vote.leader)
            }
            Fact::Truncating { from } => self.truncating(who, member, *from),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, appended, id, opened, voted};

    /// Member 1 leads term 1 and has committed entries 1 and 2 with member 2.
    fn committed() -> Story {
        let mut story = Story::default();
        for (machine, number) in [("n1", 1), ("n2", 2), ("n3", 3)] {
            story.node(machine, number).says(machine, opened(u64::from(number), None, None));
            story.says(machine, voted(1, 1, true));
        }
        for machine in ["n1", "n2"] {
            story.says(machine, appended(&[id(1, 1, 1), id(1, 1, 2)]));
        }
        story.says("n1", Fact::Committed { id: id(1, 1, 2) });
        story
    }

    #[test]
    fn a_later_leader_that_has_it_and_drops_only_the_rest_passes() {
        let mut story = committed();
        story.says("n1", appended(&[id(1, 1, 3)])).says("n2", voted(2, 2, true));
        story.says("n1", voted(2, 2, true)).says("n1", Fact::Truncating { from: 3 });
        story.says("n1", Fact::Truncated { from: 3 }).says("n2", Fact::Committed { id: id(1, 1, 2) });
        story.ends("n1", "node").node("n1", 9).says("n1", opened(1, None, Some(id(1, 1, 2))));
        story.passes(CommittedKept::default());
    }

    #[test]
    fn a_later_leader_without_it_is_found_whichever_comes_first() {
        let rule = CommittedKept::default;
        committed().says("n3", voted(2, 3, true)).breaks(rule(), "member 3 was elected");
        let mut story = committed();
        story.says("n1", appended(&[id(1, 1, 3)])).says("n2", voted(2, 2, true));
        story.says("n1", Fact::Committed { id: id(1, 1, 3) }).breaks(rule(), "member 2 leads a later term");
    }

    #[test]
    fn dropping_or_losing_it_is_found() {
        let rule = CommittedKept::default;
        committed().says("n2", Fact::Truncating { from: 2 }).breaks(rule(), "member 2 drops the committed");
        let mut story = committed();
        story.ends("n1", "node").node("n1", 9).says("n1", opened(1, None, Some(id(1, 1, 1))));
        story.breaks(rule(), "came back without the committed");
    }

    #[test]
    fn two_entries_committed_in_one_place_are_found() {
        let mut story = committed();
        story.says("n3", appended(&[id(1, 1, 1), id(1, 3, 2)])).says("n3", Fact::Committed { id: id(1, 3, 2) });
        story.breaks(CommittedKept::default(), "elsewhere");
    }
}
