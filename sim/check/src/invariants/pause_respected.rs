//! While an agent is paused, it intends no step.
//!
//! Judged at the intent: the decision. A step that was intended before may still be on its way when the pause comes.

use std::collections::BTreeMap;

use resilver_strategies::chain::Line;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::Action;

use super::{Broken, Invariant, broken};
use crate::event::Event;
use crate::journal::line_of;
use crate::world::World;

/// The rule.
#[derive(Default)]
pub struct PauseRespected {
    /// Until when each machine's agent is paused, by its own wall clock.
    until_ms: BTreeMap<String, u64>,
}

impl Invariant for PauseRespected {
    fn name(&self) -> &'static str {
        "pause_respected"
    }

    fn origin(&self) -> &'static str {
        "failure-modes.md, guard 4: pause"
    }

    fn observe(&mut self, event: &Event, _: &World) -> Result<(), Broken> {
        let Some((stamped, line)) = line_of(event) else { return Ok(()) };
        let machine = &stamped.machine;
        let expired = self.until_ms.get(machine).is_some_and(|until| line.wall_ms() >= *until);
        match (line.draft.kind, line.draft.action) {
            (RecordKind::Note, Action::Pause) => {
                let until = line.draft.details.get("expires_ms").and_then(serde_json::Value::as_u64);
                self.until_ms.insert(machine.clone(), until.unwrap_or(u64::MAX));
            }
            (RecordKind::Note, Action::Resume) => {
                self.until_ms.remove(machine);
            }
            // A new life of the agent judges by its wall clock what is left of a pause.
            (RecordKind::Note, _) if expired && begins_a_life(&line) => {
                self.until_ms.remove(machine);
            }
            (RecordKind::Intent, action) if self.until_ms.contains_key(machine) && !expired => {
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
    fn steps_again_when_it_is_over() {
        let resume = Draft::new(RecordKind::Note, Action::Resume);
        paused().writes("n1", resume).writes("n1", intent()).passes(PauseRespected::default());
        paused().later(61).writes("n1", intent()).passes(PauseRespected::default());
    }
}
