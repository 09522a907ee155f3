//! Why the agent does not act, if it does not: what `agent status` says.

use crate::api::Step;
use crate::config::NEW;
use crate::coordinator::grace_left;
use crate::engine::Engine;
use crate::engine::decide::Move;
use crate::engine::incidents::{Flight, Incident, IncidentState};
use crate::record::GuardResult;
use crate::types::{Authority, Grade, Mode, Moment};

/// What refused this incident's step last, if that was not long ago and no step began since.
fn refused(incident: &Incident) -> Option<GuardResult> {
    let (guard, _) = incident.refused?;
    incident.guards.iter().find(|result| !result.passed && result.guard == guard).cloned()
}

impl Engine {
    /// One reason each; empty: nothing holds a step back that would be taken.
    pub(crate) fn held_back(&self, now: Moment) -> Vec<String> {
        let mut reasons: Vec<String> = self.pause.iter().map(|pause| pause.evidence(now)).collect();
        let (frozen, evidence) = self.storm.state(now);
        if frozen {
            reasons.push(format!("storm brake: no disruptive step: {evidence}"));
        }
        let grace = self.policy.scaled(self.policy.grace);
        let left = grace_left(now, grace, self.began.unwrap_or(now), self.facts.leader_changed);
        if !left.is_zero() {
            reasons
                .push(format!("grace: no disruptive step for {} s after start or leader change", left.as_secs() + 1));
        }
        if self.facts.heartbeat_at().is_none() {
            reasons.push("the node has not answered since the agent began: only starting it is possible".to_owned());
        }
        reasons.extend(self.low_authority());
        let incidents = self.incidents.ids();
        for incident in incidents.iter().filter_map(|id| self.incidents.open.get(id)) {
            let id = &incident.id;
            if incident.state == IncidentState::Escalated {
                let why = incident.resolution.as_deref().unwrap_or("a person is needed");
                reasons.push(format!("{id} waits for a person: {why}"));
                continue;
            }
            let asked =
                |step: &Step| (step.action, matches!(incident.flight, Flight::Doing { .. } | Flight::Seeing { .. }));
            let (action, held) = match (incident.step().map(asked), self.next_move(now, incident)) {
                (Some((_, true)), _) => continue,
                (Some((action, false)), _) => (action, refused(incident)),
                (None, Move::Held { rung, held, .. }) => (rung.action, Some(held)),
                // It is asked for again in a moment: the holder of the lease said no.
                (None, Move::Later { rung, .. } | Move::Act { rung, .. }) => (rung.action, refused(incident)),
                (None, _) => continue,
            };
            if let Some(GuardResult { guard, evidence, .. }) = held {
                reasons.push(format!("{id}: {action} held by {guard}: {evidence}"));
            }
        }
        reasons
    }

    /// Grades up to 5 that are not automatic whatever the mode, and why.
    fn low_authority(&self) -> Option<String> {
        let age = self.age.known_for();
        let of = |grade: u8| {
            // A mode that nothing narrower is said for; each mode's own table shows with its incidents.
            let plain = Mode::ALL.iter().find(|mode| !self.policy.authority.modes.contains_key(mode));
            let (authority, why) = self.policy.authority_at(*plain?, Grade(grade), true, age);
            (authority < Authority::Auto).then(|| format!("grade {grade} {authority} ({why})"))
        };
        let low: Vec<String> = (1..=5).filter_map(of).collect();
        let left = self.policy.scaled(self.policy.authority.new_cluster).saturating_sub(age).as_secs();
        let until = if left > 0 && low.iter().any(|text| text.contains(NEW)) {
            format!("; the cluster is known for {} s, {left} s are left", age.as_secs())
        } else {
            String::new()
        };
        (!low.is_empty()).then(|| format!("authority: disruptive steps: {}{until}", low.join(", ")))
    }
}
