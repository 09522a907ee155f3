//! Two logs that hold an entry with the same id hold the same bytes there, and the same entry before it.
//!
//! By induction they are equal up to there. Also: a log has no gaps, and leader ids never fall along it.

use std::collections::BTreeMap;

use resilver_host::audit::{Fact, LogEntry, LogId};

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::world::World;

/// What is known of an entry, wherever it lies.
#[derive(Clone, Copy, Debug)]
struct Known {
    crc: u32,
    before: Option<LogId>,
}

/// The rule.
#[derive(Default)]
pub struct LogMatching {
    known: BTreeMap<(String, LogId), Known>,
}

impl LogMatching {
    fn entry(&mut self, cluster: &str, who: &str, entry: &LogEntry, before: Option<LogId>) -> Result<(), Broken> {
        let id = entry.id;
        if let Some(before) = before.filter(|before| before.leader > id.leader) {
            return broken(format!("{who} has {id:?} after {before:?}: leaders fall along its log"));
        }
        let known = self.known.entry((cluster.to_owned(), id)).or_insert(Known { crc: entry.crc, before });
        if known.crc != entry.crc {
            return broken(format!("{who} has {id:?} with crc {:08x}, elsewhere it is {:08x}", entry.crc, known.crc));
        }
        match (known.before, before) {
            (Some(there), Some(here)) if there != here => {
                broken(format!("{who} has {here:?} before {id:?}, elsewhere there is {there:?}"))
            }
            _ => {
                known.before = known.before.or(before);
                Ok(())
            }
        }
    }
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log_matching"
    }

    fn origin(&self) -> &'static str {
        "Raft §5.3, log matching, with full log ids"
    }

    fn observe(&mut self, event: &Event, world: &World) -> Result<(), Broken> {
        let Event::Fact(stamped) = event else { return Ok(()) };
        let Fact::Appended { entries } = &stamped.fact else { return Ok(()) };
        let Some((id, member)) = world.member_of(stamped) else { return Ok(()) };
        let (cluster, who) = (id.cluster.clone(), id.to_string());
        let mut last = member.log.last();
        for entry in entries {
            let expected = last.map_or(0, |last| last.index + 1);
            if entry.id.index != expected {
                return broken(format!("{who} appends {:?} where entry {expected} comes next", entry.id));
            }
            self.entry(&cluster, &who, entry, last)?;
            last = Some(entry.id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Story, appended, entry, id, opened};

    fn two() -> Story {
        let mut story = Story::default();
        story.node("n1", 1).says("n1", opened(1, None, None)).node("n2", 2).says("n2", opened(2, None, None));
        story.says("n1", appended(&[id(1, 1, 1), id(1, 1, 2)]));
        story
    }

    #[test]
    fn equal_logs_match_and_so_do_those_that_part() {
        let mut story = two();
        story.says("n2", appended(&[id(1, 1, 1)])).says("n2", appended(&[id(2, 2, 2), id(2, 2, 3)]));
        story.passes(LogMatching::default());
    }

    #[test]
    fn the_same_entry_with_other_bytes_is_found() {
        let other = Fact::Appended { entries: vec![LogEntry { crc: 7, ..entry(id(1, 1, 1)) }] };
        two().says("n2", other).breaks(LogMatching::default(), "crc 00000007");
    }

    #[test]
    fn another_entry_before_the_same_one_is_found() {
        two().says("n2", appended(&[id(1, 0, 1), id(1, 1, 2)])).breaks(LogMatching::default(), "before LogId");
    }

    #[test]
    fn gaps_and_falling_leaders_are_found() {
        two().says("n2", appended(&[id(1, 1, 2)])).breaks(LogMatching::default(), "where entry 1 comes next");
        two().says("n2", appended(&[id(3, 1, 1), id(2, 2, 2)])).breaks(LogMatching::default(), "leaders fall");
    }
}
