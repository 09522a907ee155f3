//! Every step has a durable intent before it, and an outcome or a reconciliation after it.
//!
//! The one exception is the design's own: an agent whose journal cannot be synced says so, and may still relieve (grade
//! 1 and below) with an intent that is not durable.

use std::collections::BTreeMap;
use std::time::Duration;

use resilver_host::audit::{Fact, StepFact};
use resilver_strategies::chain::Line;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::Grade;

use super::{Broken, Invariant, Limits, broken};
use crate::event::{Event, Stamped};
use crate::journal::line_of;
use crate::world::World;

/// How an agent says that its journal cannot be synced, and that it can again.
const LOST: &str = "the journal cannot be synced";
const BACK: &str = "the journal is durable again";

#[derive(Debug)]
struct Intent {
    sequence: u64,
    at: Duration,
    grade: Option<Grade>,
    what: String,
    /// The line that ended it.
    ended: Option<u64>,
}

/// One machine's journal.
#[derive(Debug, Default)]
struct Book {
    pid: u32,
    intents: BTreeMap<u64, Intent>,
    durable: u64,
    lost: bool,
}

/// The rule.
pub struct IntentAndOutcome {
    outcome_within: Duration,
    books: BTreeMap<String, Book>,
}

impl IntentAndOutcome {
    /// The rule, with these figures.
    pub fn new(limits: &Limits) -> Self {
        Self { outcome_within: limits.outcome_within, books: BTreeMap::new() }
    }
}

impl Book {
    fn line(&mut self, at: Duration, machine: &str, line: &Line) -> Result<(), Broken> {
        let draft = &line.draft;
        let evidence = draft.text("evidence").unwrap_or_default();
        match (draft.kind, draft.step) {
            (RecordKind::Note, _) if evidence.starts_with(LOST) => self.lost = true,
            (RecordKind::Note, _) if evidence == BACK => self.lost = false,
            (RecordKind::Intent, Some(step)) => {
                let what = format!("step {step} ({}) of {machine}", draft.action);
                let intent = Intent { sequence: line.sequence, at, grade: draft.grade, what, ended: None };
                if let Some(known) = self.intents.insert(step, intent) {
                    return broken(format!("{} is intended again under the same number", known.what));
                }
            }
            (RecordKind::Outcome | RecordKind::Reconciled, Some(step)) => match self.intents.get_mut(&step) {
                Some(Intent { ended: Some(_), what, .. }) => return broken(format!("{what} has two outcomes")),
                Some(intent) => intent.ended = Some(line.sequence),
                None => return broken(format!("step {step} of {machine} has an outcome and no intent")),
            },
            _ => {}
        }
        Ok(())
    }

    /// The agent reads its journal: what was not durable may be gone.
    fn reopened(&mut self, pid: u32, next_sequence: u64, broken: bool) {
        self.intents.retain(|_, intent| intent.sequence < next_sequence);
        for intent in self.intents.values_mut() {
            intent.ended = intent.ended.filter(|ended| *ended < next_sequence);
        }
        if broken {
            // Lines that nobody can read any more.
            self.intents.retain(|_, intent| intent.ended.is_some());
        }
        (self.pid, self.lost) = (pid, false);
    }

    fn begins(&self, machine: &str, step: &StepFact) -> Result<(), Broken> {
        let Some(intent) = self.intents.get(&step.step) else {
            return broken(format!("step {} ({}) began on {machine} without an intent", step.step, step.action));
        };
        let relieves = self.lost && intent.grade.is_some_and(|grade| grade <= Grade::RELIEVE);
        if intent.sequence > self.durable && !relieves {
            return broken(format!("{} began before its intent was durable", intent.what));
        }
        if intent.ended.is_some() {
            return broken(format!("{} began after it had ended", intent.what));
        }
        Ok(())
    }
}

impl Invariant for IntentAndOutcome {
    fn name(&self) -> &'static str {
        "intent_and_outcome"
    }

    fn origin(&self) -> &'static str {
        "failure-modes.md, guard 7: intent first; after a crash it is reconciled, never blindly repeated"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        let Event::Fact(Stamped { at, machine, pid, fact, .. }) = event else { return Ok(()) };
        if let Some((_, line)) = line_of(event) {
            return self.books.entry(machine.clone()).or_default().line(*at, machine, &line);
        }
        let book = self.books.entry(machine.clone()).or_default();
        match fact {
            Fact::JournalOpened { next_sequence, broken, .. } => book.reopened(*pid, *next_sequence, *broken),
            Fact::JournalDurable { through } => book.durable = *through,
            Fact::StepBegan(step) => return book.begins(machine, step),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, world: &World) -> Result<(), Broken> {
        for (machine, book) in self.books.iter().filter(|(machine, book)| world.runs(machine, book.pid)) {
            let open = |intent: &&Intent| intent.ended.is_none() && intent.at + self.outcome_within <= world.now();
            if let Some(intent) = book.intents.values().find(open) {
                return broken(format!("{} has no outcome, and the agent of {machine} runs", intent.what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use resilver_strategies::record::Draft;
    use resilver_strategies::types::Action;

    use super::*;
    use crate::testing::{Story, draft_of, fence, restart, start};

    fn rule() -> IntentAndOutcome {
        IntentAndOutcome::new(&Limits::default())
    }

    fn one() -> Story {
        let mut story = Story::default();
        story.agent("n1", 1).opens_journal("n1");
        story
    }

    #[test]
    fn intent_step_outcome_passes_also_over_a_crash() {
        one().begins("n1", start(3, "n1")).ends_step("n1", start(3, "n1")).later(99).passes(rule());
        let mut story = one();
        story.begins("n1", start(3, "n1")).ends("n1", "agent").agent("n1", 2).opens_journal("n1");
        story.writes("n1", draft_of(RecordKind::Reconciled, &start(3, "n1"))).later(99).passes(rule());
    }

    #[test]
    fn a_step_without_a_durable_intent_is_found() {
        one().agent_says("n1", Fact::StepBegan(start(3, "n1"))).breaks(rule(), "without an intent");
        let mut story = one();
        story.adds("n1", draft_of(RecordKind::Intent, &start(3, "n1")));
        story.agent_says("n1", Fact::StepBegan(start(3, "n1"))).breaks(rule(), "before its intent was durable");
    }

    #[test]
    fn an_agent_that_lost_its_journal_may_relieve_and_nothing_else() {
        let lost = || Draft::new(RecordKind::Note, Action::Alert).with("evidence", "the journal cannot be synced: …");
        let mut story = one();
        story.adds("n1", lost());
        story.adds("n1", draft_of(RecordKind::Intent, &start(3, "n1")));
        story.agent_says("n1", Fact::StepBegan(start(3, "n1"))).ends_step("n1", start(3, "n1")).passes(rule());
        let (mut story, step) = (one(), restart(3, "n1", Some(fence(1, "n1"))));
        story.adds("n1", lost());
        story.adds("n1", draft_of(RecordKind::Intent, &step));
        story.agent_says("n1", Fact::StepBegan(step)).breaks(rule(), "before its intent was durable");
    }

    #[test]
    fn a_missing_outcome_is_found_at_the_end() {
        let mut story = one();
        story.begins("n1", start(3, "n1")).later(60).kernel(crate::Happening::FaultsOff);
        story.breaks(rule(), "has no outcome");
        let mut story = one();
        story.begins("n1", start(3, "n1")).ends("n1", "agent").later(60).kernel(crate::Happening::FaultsOff);
        story.passes(rule());
    }

    #[test]
    fn blind_repetition_and_outcomes_from_nowhere_are_found() {
        let mut story = one();
        story.begins("n1", start(3, "n1")).ends_step("n1", start(3, "n1"));
        story.begins("n1", start(3, "n1")).breaks(rule(), "intended again");
        let outcome = draft_of(RecordKind::Outcome, &start(3, "n1"));
        one().writes("n1", outcome).breaks(rule(), "no intent");
    }
}
