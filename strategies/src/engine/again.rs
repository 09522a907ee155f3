//! What was done to the node and the node shows no more: its process began anew, or let background work go on by itself in case
//! that its agent was gone. While the reason lasts it is done again, beside the ladder.
//!
//! Must never: move the ladder (a person who is asked after half an hour would never be asked), spend an approval that was given
//! for the ladder's own step, or act against a person's word.

use std::time::Duration;

use crate::api::Step;
use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::guards;
use crate::engine::incidents::Incident;
use crate::engine::ladder;
use crate::types::{Action, Now};

/// How often it is done again at most: a node that does not keep it is no reason to fill the journal.
const SAY_AGAIN: Duration = Duration::from_secs(60);

impl Engine {
    /// Begins it, if there is something; whether it did.
    pub(crate) fn say_again(&mut self, now: Now, incident: &mut Incident) -> bool {
        let lately = incident.said_again.is_some_and(|at| now.mono.since(at) < SAY_AGAIN);
        if lately || incident.applied.is_empty() || self.present(now.mono, incident) != Present::Ill {
            return false;
        }
        let Some((action, with)) = self.lost(incident) else { return false };
        let Some(rung) = ladder::again(action, &with, &self.policy) else { return false };
        let guards = guards::judge(&self.look(now.mono, incident, &rung, None));
        if guards.iter().any(|result| !result.passed) {
            return false;
        }
        incident.said_again = Some(now.mono);
        incident.event(now, format!("the node shows {action} {with} no more: it is done again"));
        self.act(now, incident, &rung, guards);
        true
    }

    /// Whether a step does again what was done, beside the ladder.
    pub(crate) fn is_again(&self, incident: &Incident, step: &Step) -> bool {
        let was_done = incident.applied.iter().any(|(action, with)| (*action, with) == (step.action, &step.with));
        let of_ladder = |rung: &ladder::Rung| (rung.action, rung.with) == (step.action, step.with.as_str());
        was_done && !self.rung(incident).as_ref().is_some_and(of_ladder)
    }

    fn lost(&self, incident: &Incident) -> Option<(Action, String)> {
        let fact = self.facts.node_now()?;
        let is_lost = |(action, with): &&(Action, String)| match (action, with.as_str()) {
            // Shards that leave a disk need the repair that rests.
            (Action::Throttle, _) => !fact.throttled && !incident.evacuating,
            (Action::SetMode, "quiet") => fact.stands == Some(true),
            (Action::SetMode, mode) => !fact.mode.is_empty() && fact.mode != mode && !self.mode_is_persons(),
            _ => false,
        };
        incident.applied.iter().find(is_lost).cloned()
    }
}
