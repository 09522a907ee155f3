//! Why the agent does not act, if it does not: what `agent status` says.

use crate::config::NEW_CLUSTER;
use crate::coordinator::grace_left;
use crate::engine::Engine;
use crate::engine::decide::Move;
use crate::engine::incidents::IncidentState;
use crate::types::{Authority, Grade, Mode, Moment};

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
            } else if incident.step().is_none()
                && let Move::Held { rung, held, .. } = self.next_move(now, incident)
            {
                reasons.push(format!("{id}: {} held by {}: {}", rung.action, held.guard, held.evidence));
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
        let left = self.policy.scaled(NEW_CLUSTER).saturating_sub(age).as_secs();
        let until = if left > 0 && low.iter().any(|text| text.contains("24 hours")) {
            format!("; the cluster is known for {} s, {left} s are left", age.as_secs())
        } else {
            String::new()
        };
        (!low.is_empty()).then(|| format!("authority: disruptive steps: {}{until}", low.join(", ")))
    }
}
