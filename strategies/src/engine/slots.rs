//! Slots of disruptive steps: asked for, granted, refused. Once one is open, the evidence is read again before the step begins.

use crate::api::{Step, StepId};
use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::guards;
use crate::engine::incidents::{Flight, Incident};
use crate::engine::present::Applies;
use crate::record::GuardResult;
use crate::types::{Fence, GuardName, Mode, Moment, Now};
use std::time::Duration;

/// How long after a refused slot it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long evidence newer than the slot is waited for, in heartbeats.
const EVIDENCE_HEARTBEATS: u32 = 4;

impl Engine {
    /// The slot is open: evidence is read again before the step begins.
    pub(crate) fn granted(&mut self, now: Now, incident: &mut Incident, step: Step, since: Moment, until: Moment) {
        // A hung node's evidence is that it is asked again, and does not answer again.
        let asked = if incident.mode == Mode::Deadlock { self.facts.asked_at() } else { self.facts.heartbeat_at() };
        if asked.is_none_or(|at| at <= since) {
            if now.mono >= until {
                self.close_slot(&step, false, "no fresh evidence after the slot was opened");
                let why = "no heartbeat since the slot was opened";
                self.slot_refused(now, incident, &step, GuardName::Fresh, why);
            }
            return;
        }
        let Some(rung) = self.rung(incident) else { return self.withdraw(now, incident, &step, "the ladder ended") };
        let fits = self.applies(now.mono, incident, &rung) == Applies::Yes;
        if self.present(now.mono, incident) != Present::Ill || rung.action != step.action || !fits {
            return self.withdraw(now, incident, &step, "the evidence changed while the slot was asked for");
        }
        let guards = guards::judge(&self.look(now.mono, incident, &rung, step.fence.as_ref()));
        if let Some(held) = guards.iter().find(|result| !result.passed).cloned() {
            self.close_slot(&step, false, &format!("held by {}: {}", held.guard, held.evidence));
            self.slot_refused(now, incident, &step, held.guard, &held.evidence);
            return;
        }
        incident.guards = guards;
        self.begin(now, incident, step);
    }

    fn withdraw(&mut self, now: Now, incident: &mut Incident, step: &Step, why: &str) {
        incident.event(now, format!("{} withdrawn: {why}", step.action));
        incident.flight = Flight::Idle;
        self.close_slot(step, false, why);
    }

    /// The holder answered.
    pub(crate) fn slot(&mut self, now: Now, step: StepId, reply: Result<Fence, (GuardName, String)>) {
        let asks = |incident: &&mut Incident| matches!(&incident.flight, Flight::Asking { step: asked, .. } if asked.id == step);
        let Some(id) = self.incidents.open.values_mut().find(asks).map(|incident| incident.id.clone()) else { return };
        let Some(mut incident) = self.incidents.open.remove(&id) else { return };
        if let Flight::Asking { mut step, .. } = incident.flight.clone() {
            match reply {
                Ok(fence) => {
                    incident.event(now, format!("slot open under fence {fence}"));
                    step.fence = Some(fence);
                    let until = now.mono + self.policy.detection.heartbeat * EVIDENCE_HEARTBEATS;
                    incident.flight = Flight::Granted { step, since: now.mono, until };
                }
                Err((guard, evidence)) => self.slot_refused(now, &mut incident, &step, guard, &evidence),
            }
        }
        self.incidents.put(incident);
    }

    pub(crate) fn slot_refused(
        &mut self,
        now: Now,
        incident: &mut Incident,
        step: &Step,
        guard: GuardName,
        evidence: &str,
    ) {
        let held = GuardResult { guard, passed: false, evidence: evidence.to_owned() };
        let mut guards = incident.guards.clone();
        guards.retain(|result| result.guard != guard);
        guards.push(held.clone());
        self.record_refusal(now, incident, step.action, step.grade, &guards, &held);
        self.tell_when_held(now, incident, &held);
        incident.guards = guards;
        incident.flight = Flight::Idle;
        incident.not_before = now.mono + ASK_AGAIN;
    }
}
