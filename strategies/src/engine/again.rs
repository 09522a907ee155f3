//! What was done to the node and the node shows no more: its process began anew, or let background work go on by itself in case
//! that its agent was gone. While the reason lasts it is done again, beside the ladder.
//!
//! Must never: move the ladder (a person who is asked after half an hour would never be asked), spend an approval that was given
//! for the ladder's own step, act against a person's word, or weaken what another incident made of the node.

use std::time::Duration;

use crate::api::NodeFact;
use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::drive::Turn;
use crate::engine::guards;
use crate::engine::incidents::{Incident, IncidentState};
use crate::engine::ladder;
use crate::engine::present::Applies;
use crate::types::{Action, Now};

/// How often it is done again at most: a node that does not keep it is no reason to fill the journal.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Each time that a node does not show it the wait is doubled, so often: an hour at the end. A node of another version may not
/// know the word at all.
const DOUBLINGS: u32 = 6;

impl Engine {
    /// Begins it, if there is something; whether it did.
    pub(crate) fn say_again(&mut self, now: Now, incident: &mut Incident) -> bool {
        let wait = SAY_AGAIN * 2u32.pow(incident.unheard.min(DOUBLINGS));
        let lately = incident.said_again.is_some_and(|at| now.mono.since(at) < wait);
        if incident.applied.is_empty() || lately || self.present(now.mono, incident) != Present::Ill {
            return false;
        }
        let Some((action, with)) = self.lost(incident) else {
            incident.unheard = 0;
            return false;
        };
        let Some(rung) = ladder::again(action, &with, &self.policy) else { return false };
        if self.applies(now.mono, incident, &rung) != Applies::Yes {
            return false;
        }
        let guards = guards::judge(&self.look(now.mono, incident, &rung, None));
        if guards.iter().any(|result| !result.passed) {
            return false;
        }
        incident.said_again = Some(now.mono);
        incident.unheard = incident.unheard.saturating_add(1);
        incident.event(now, format!("the node shows {action} {with} no more: it is done again"));
        self.act(now, incident, &rung, guards, Turn::Again);
        true
    }

    fn lost(&self, incident: &Incident) -> Option<(Action, String)> {
        let fact = self.facts.node_now()?;
        // The step that the ladder stands on is the ladder's to repeat, and has its time to help.
        let stands_on = self.rung(incident).filter(|_| incident.state != IncidentState::Escalated);
        let of_ladder =
            |action, with: &str| stands_on.as_ref().is_some_and(|rung| (rung.action, rung.with) == (action, with));
        let lost = |(action, with): &&(Action, String)| {
            !of_ladder(*action, with) && is_lost(fact, *action, with, incident.evacuating, self.is_told(incident))
        };
        incident.applied.iter().find(lost).cloned()
    }

    /// The process that runs was told the mode by this incident: if it shows another, somebody said so since.
    fn is_told(&self, incident: &Incident) -> bool {
        incident.told_to.is_none() || incident.told_to == self.facts.running()
    }
}

/// Whether a node shows no more what was done to it.
fn is_lost(fact: &NodeFact, action: Action, with: &str, evacuating: bool, told: bool) -> bool {
    match (action, with) {
        // Shards that leave a disk need the repair that rests.
        (Action::Throttle, _) => !fact.throttled && !evacuating,
        (Action::SetMode, "quiet") => !told && fact.stands == Some(true),
        // A stricter mode is another incident's.
        (Action::SetMode, mode) => !told && strictness(&fact.mode).is_some_and(|shown| Some(shown) < strictness(mode)),
        _ => false,
    }
}

/// How much a mode holds back.
fn strictness(mode: &str) -> Option<u8> {
    ["read_write", "read_only", "isolated"]
        .into_iter()
        .zip(0..)
        .find_map(|(known, rank)| (known == mode).then_some(rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two incidents with different modes undid each other's, once a minute, and a fence was open in between.
    #[test]
    fn a_stricter_mode_than_was_said_is_not_lost() {
        let shows = |mode: &str| NodeFact { mode: mode.to_owned(), ..NodeFact::default() };
        let lost = |shown: &str, said| is_lost(&shows(shown), Action::SetMode, said, false, false);
        assert!(lost("read_write", "read_only") && lost("read_write", "isolated") && lost("read_only", "isolated"));
        assert!(!lost("isolated", "read_only") && !lost("read_only", "read_only"));
        assert!(!lost("", "isolated") && !lost("another", "isolated"), "nothing is known");
        assert!(!is_lost(&shows("read_write"), Action::SetMode, "read_only", false, true), "somebody said so since");
    }
}
