//! The journal's hash chain holds, and no durable line of it goes missing.
//!
//! Bytes that rot under a journal are damage the agent must tell of, and goes on behind; nothing else may break it.

use std::collections::{BTreeMap, BTreeSet};

use resilver_host::audit::Fact;
use resilver_strategies::chain::{Line, Tip};

use super::{Broken, Invariant, broken};
use crate::event::{Event, Happening};
use crate::world::World;

/// One machine's journal.
#[derive(Default)]
struct Chain {
    tip: Tip,
    durable: u64,
    hashes: BTreeMap<u64, String>,
}

/// The rule.
#[derive(Default)]
pub struct JournalChain {
    chains: BTreeMap<String, Chain>,
    /// Machines on which a disk was wiped, or a journal's bytes changed, since it was last opened.
    damaged: BTreeSet<String>,
}

impl Chain {
    fn opened(&self, machine: &str, next_sequence: u64, hash: &str) -> Result<(), Broken> {
        if next_sequence <= self.durable {
            let durable = self.durable;
            return broken(format!("{machine}'s journal was durable through {durable} and goes on at {next_sequence}"));
        }
        match self.hashes.get(&(next_sequence - 1)) {
            Some(known) if known != hash => {
                broken(format!("{machine}'s line {} has another hash than when it was written", next_sequence - 1))
            }
            _ => Ok(()),
        }
    }

    fn line(&mut self, machine: &str, text: &str) -> Result<(), Broken> {
        let line = Line::parse(text).or_else(|why| broken(format!("{machine} wrote a bad line: {why}")))?;
        if line.tip().next_sequence != self.tip.next_sequence + 1 || line.prev != self.tip.hash {
            let expected = self.tip.next_sequence;
            return broken(format!("{machine} wrote line {} where {expected} follows, or unchained", line.sequence));
        }
        self.tip = line.tip();
        self.hashes.insert(line.sequence, line.hash);
        Ok(())
    }
}

impl Invariant for JournalChain {
    fn name(&self) -> &'static str {
        "journal_chain"
    }

    fn origin(&self) -> &'static str {
        "design.md, Journal: each record carries the hash of the one before; synced before it counts"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        let stamped = match event {
            Event::Fact(stamped) => stamped,
            Event::Kernel {
                what: Happening::Rotted { machine, path } | Happening::Wiped { machine, path }, ..
            } => {
                if !path.contains("/shards/") {
                    self.damaged.insert(machine.clone());
                }
                return Ok(());
            }
            Event::Kernel { .. } => return Ok(()),
        };
        let machine = &stamped.machine;
        let chain = self.chains.entry(machine.clone()).or_default();
        match &stamped.fact {
            Fact::JournalOpened { next_sequence, hash, broken: told } => {
                if !self.damaged.remove(machine) {
                    if *told {
                        return broken(format!("{machine}'s journal is broken, and nothing was done to it"));
                    }
                    chain.opened(machine, *next_sequence, hash)?;
                }
                chain.tip = Tip { next_sequence: *next_sequence, hash: hash.clone() };
                // What was read may lie in the page cache only: no line is durable that was not before.
                chain.durable = chain.durable.min(next_sequence - 1);
                chain.hashes.split_off(next_sequence);
                Ok(())
            }
            Fact::JournalLine { line } => chain.line(machine, line),
            Fact::JournalDurable { through } => {
                if *through >= chain.tip.next_sequence {
                    return broken(format!("{machine} calls line {through} durable, which it never wrote"));
                }
                chain.durable = chain.durable.max(*through);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use resilver_strategies::record::{Draft, RecordKind};
    use resilver_strategies::types::Action;

    use super::*;
    use crate::testing::Story;

    fn note() -> Draft {
        Draft::new(RecordKind::Note, Action::Skip)
    }

    fn one() -> Story {
        let mut story = Story::default();
        story.agent("n1", 1).opens_journal("n1").writes("n1", note()).writes("n1", note());
        story
    }

    fn reopened<'a>(story: &'a mut Story, next_sequence: u64, hash: &str, broken: bool) -> &'a mut Story {
        story.ends("n1", "agent").agent("n1", 2);
        story.agent_says("n1", Fact::JournalOpened { next_sequence, hash: hash.to_owned(), broken })
    }

    #[test]
    fn a_chain_that_goes_on_passes() {
        let mut story = one();
        story.ends("n1", "agent").agent("n1", 2).opens_journal("n1").writes("n1", note());
        story.passes(JournalChain::default());
    }

    #[test]
    fn lost_and_changed_lines_are_found() {
        let rule = JournalChain::default;
        reopened(&mut one(), 2, "x", false).breaks(rule(), "durable through 2 and goes on at 2");
        reopened(&mut one(), 3, "x", false).breaks(rule(), "another hash");
        reopened(&mut one(), 3, "x", true).breaks(rule(), "nothing was done to it");
    }

    #[test]
    fn a_bad_line_is_found() {
        let rule = JournalChain::default;
        one().agent_says("n1", Fact::JournalLine { line: "{}".to_owned() }).breaks(rule(), "bad line");
        let mut other = Story::default();
        other.agent("n1", 1).adds("n1", note());
        let Event::Fact(first) = other.take().remove(1) else { unreachable!() };
        one().agent_says("n1", first.fact).breaks(rule(), "where 3 follows");
        one().agent_says("n1", Fact::JournalDurable { through: 3 }).breaks(rule(), "never wrote");
    }

    #[test]
    fn rot_may_break_it_once() {
        let (machine, path) = ("n1".to_owned(), "/agent/journal/segment".to_owned());
        let mut story = one();
        story.kernel(Happening::Rotted { machine, path });
        reopened(&mut story, 2, "x", true).passes(JournalChain::default());
    }
}
