//! While an agent is paused, it intends no step.
//!
//! Judged at the intent: the decision. A step that was intended before may still be on its way when the pause comes.

use std::collections::BTreeMap;

use resilver_host::audit::Fact;
use resilver_strategies::chain::Line;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::Action;

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::journal::line_of;
use crate::world::World;

/// A machine's agent is paused.
struct Pause {
    /// The line that says so.
    sequence: u64,
    /// Until when, by its own wall clock.
    until_ms: u64,
}

/// The rule.
#[derive(Default)]
pub struct PauseRespected {
    paused: BTreeMap<String, Pause>,
}

impl Invariant for PauseRespected {
    fn name(&self) -> &'static str {
        "pause_respected"
    }

    fn origin(&self) -> &'static str {
        "failure-modes.md, guard 4: pause"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        if let Event::Fact(stamped) = event
            && let Fact::JournalOpened { next_sequence, broken, .. } = stamped.fact
        {
            // A line that was not durable yet, or cannot be read any more, pauses nobody.
            self.paused.retain(|on, pause| *on != stamped.machine || (pause.sequence < next_sequence && !broken));
        }
        let Some((stamped, line)) = line_of(event) else { return Ok(()) };
        let machine = &stamped.machine;
        let expired = self.paused.get(machine).is_some_and(|pause| line.wall_ms() >= pause.until_ms);
        match (line.draft.kind, line.draft.action) {
            (RecordKind::Note, Action::Pause) => {
                let until = line.draft.details.get("expires_ms").and_then(serde_json::Value::as_u64);
                let pause = Pause { sequence: line.sequence, until_ms: until.unwrap_or(u64::MAX) };
                self.paused.insert(machine.clone(), pause);
            }
            (RecordKind::Note, Action::Resume) => {
                self.paused.remove(machine);
            }
            // A new life of the agent judges by its wall clock what is left of a pause.
            (RecordKind::Note, _) if expired && begins_a_life(&line) => {
                self.paused.remove(machine);
            }
            (RecordKind::Intent, action) if self.paused.contains_key(machine) && !expired => {
                return broken(format!("{machine} intends {action} while it is paused"));
            }
            _ => {}
        }
        Ok(())
    }
}

fn begins_a_life(line: &Line) -> bool {
    line.draft.text("evidence") == Some("agent started")
}

#[cfg(test)]
mod tests {
    use resilver_strategies::record::Draft;

    use super::*;
    use crate::testing::{Story, draft_of, start};

    /// Paused for 60 s.
    fn paused() -> Story {
        let mut story = Story::default();
        let pause = Draft::new(RecordKind::Note, Action::Pause).with("expires_ms", 1_700_000_060_000_u64);
        story.agent("n1", 1).agent("n2", 2).writes("n1", pause);
        story
    }

    fn intent() -> Draft {
        draft_of(RecordKind::Intent, &start(3, "n1"))
    }

    #[test]
    fn no_step_during_a_pause() {
        paused().later(30).writes("n1", intent()).breaks(PauseRespected::default(), "n1 intends start_node");
        paused().later(30).writes("n2", intent()).passes(PauseRespected::default());
    }

    #[test]
    fn a_pause_outlives_the_agent_if_it_was_durable() {
        let again = |story: &mut Story| {
            story.ends("n1", "agent").agent("n1", 3).opens_journal("n1");
        };
        let mut story = paused();
        again(&mut story);
        story.writes("n1", intent()).breaks(PauseRespected::default(), "n1 intends start_node");
        let mut story = paused();
        story.agent_says("n1", Fact::JournalOpened { next_sequence: 1, hash: String::new(), broken: false });
        story.writes("n1", intent()).passes(PauseRespected::default());
    }

    #[test]
    fn steps_again_when_it_is_over() {
        let resume = Draft::new(RecordKind::Note, Action::Resume);
        paused().writes("n1", resume).writes("n1", intent()).passes(PauseRespected::default());
        paused().later(61).writes("n1", intent()).passes(PauseRespected::default());
    }
}
