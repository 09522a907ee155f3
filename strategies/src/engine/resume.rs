//! Goes on where an earlier life of the agent ended: observes first, repeats nothing blindly.

use crate::api::{IncidentId, OpenIncident, PastStep, ProcessFact, Step, Subject};
use crate::engine::Engine;
use crate::engine::detect::Symptom;
use crate::engine::incidents::{Flight, Incident, IncidentState};
use crate::engine::ladder::{self, Effect};
use crate::types::{Action, Mode, Moment, Now};
use std::time::Duration;

/// How long a step may stay in doubt after the agent began anew, or as long as the step itself may take. A node that runs answers within
/// seconds; one that hangs never does, and its incident has to go on.
const RECONCILE_WITHIN: Duration = Duration::from_secs(60);

/// What became of a step, as far as it can be seen.
enum Became {
    /// Its effect is there.
    Done(String),
    /// It is not.
    NotDone(String),
    /// Only the proof can tell.
    AskProof(String),
}

impl Engine {
    /// Takes an incident over from the journal.
    pub(crate) fn take_over(&mut self, now: Now, open: OpenIncident, history: &[PastStep]) {
        let OpenIncident {
            id,
            mode,
            subject,
            opened_ms,
            age_ms,
            unfinished,
            ended,
            steps_done,
            escalated,
            initial,
            pattern,
            applied,
        } = open;
        let symptom = Symptom {
            mode,
            subject,
            detected_by: "journal".to_owned(),
            evidence: "open when the agent ended".to_owned(),
            initial,
            life: None,
            signature: None,
            mended: false,
        };
        let mut incident = Incident::open(id, now, symptom);
        incident.opened_ms = opened_ms;
        let rungs = ladder::ladder(mode, &self.policy);
        let last = unfinished.as_ref().filter(|step| !step.again).map(|step| step.action);
        let at = |action: Action| rungs.iter().position(|rung| rung.action == action);
        // Its place on the ladder: the unfinished step's, or the last one that was done (its effect is looked for).
        incident.rung = last.and_then(at).or_else(|| steps_done.iter().rev().find_map(|done| at(*done))).unwrap_or(0);
        incident.applied = applied;
        incident.throttled = steps_done.contains(&Action::Throttle) || last == Some(Action::Throttle);
        incident.evacuating = steps_done.contains(&Action::EvacuateDisk) || last == Some(Action::EvacuateDisk);
        if let Some(rung) = rungs.get(incident.rung) {
            let counts = |past: &&PastStep| {
                past.action == rung.action && past.subject == incident.subject && past.age_ms <= age_ms
            };
            incident.attempt = u32::try_from(history.iter().filter(counts).count()).unwrap_or(u32::MAX);
        }
        incident.state = match (escalated, &unfinished) {
            (true, _) => IncidentState::Escalated,
            (false, Some(_)) => IncidentState::Recovering,
            (false, None) => IncidentState::Open,
        };
        incident.left_before = escalated;
        if mode == Mode::CascadingFailure {
            self.take_over_cascade(now, &mut incident, pattern.as_deref());
        }
        if let Some(step) = unfinished {
            let applied = (step.action, step.with.clone());
            if ladder::leaves(step.action, &step.with) && !incident.applied.contains(&applied) {
                incident.applied.push(applied);
            }
            incident.begun(now, &step);
            incident.flight = Flight::Reconciling { step, since: now.mono };
        } else if let Some((step, done)) = ended {
            self.look_at_last(now, &mut incident, step, done);
        }
        self.incidents.put(incident);
    }

    /// The agent may have ended between a disruptive step and the closing of its slot, which holds all others back: what it was done for
    /// is looked for again, and the slot is closed. Closed already, it stays so.
    fn look_at_last(&mut self, now: Now, incident: &mut Incident, step: Step, done: bool) {
        let shown = self.rung(incident).filter(|rung| rung.action == step.action).and_then(|rung| match rung.effect {
            Effect::NodeState { deadline, .. } | Effect::DiskState { deadline, .. } => Some(deadline),
            _ => None,
        });
        match shown.filter(|_| done && incident.state != IncidentState::Escalated) {
            Some(deadline) => incident.flight = Flight::Seeing { step, until: now.mono + deadline },
            None => self.close_slot(&step, false, "its agent ended before the slot was closed"),
        }
    }

    /// Looks at what became of a step that has an intent and no outcome.
    pub(crate) fn reconcile(&mut self, now: Now, incident: &mut Incident, step: &Step, since: Moment) {
        let became = self.became(incident, step, since).or_else(|| self.never_shown(now.mono, incident, step, since));
        let Some(became) = became else { return };
        let (resolution, detail, verified) = match &became {
            Became::Done(why) => ("done", why, true),
            Became::NotDone(why) => ("not done", why, false),
            Became::AskProof(why) => ("unknown", why, false),
        };
        incident.ended(now, step.id, resolution, detail);
        incident.event(now, format!("{} was under way when the agent ended: {resolution}: {detail}", step.action));
        self.record_reconciled(step, resolution, detail);
        if step.disruptive {
            self.close_slot(step, verified, detail);
        }
        incident.flight = Flight::Idle;
        match became {
            // The ladder skips what its facts show as done.
            Became::Done(_) => {}
            // It is said again in a minute, if it is still missing.
            _ if step.again => {}
            Became::NotDone(_) => self.attempt_failed(now, incident),
            // One look: if the proof does not hold, the step is tried again.
            Became::AskProof(_) => self.prove(now, incident, Duration::ZERO),
        }
    }

    /// What can be said of a step although the node says nothing: that it ended with the process, or that it had its time.
    fn never_shown(&self, now: Moment, incident: &Incident, step: &Step, since: Moment) -> Option<Became> {
        match self.facts.process_since(since) {
            Some(ProcessFact::Exited { pid, exit, .. }) => {
                return Some(Became::NotDone(format!("process {pid} ended: {exit}")));
            }
            Some(ProcessFact::Absent) => return Some(Became::NotDone("no process runs".to_owned())),
            Some(ProcessFact::Running { .. }) | None => {}
        }
        let of_step = |rung: &ladder::Rung| rung.action == step.action;
        let patience = self.rung(incident).filter(of_step).map_or(RECONCILE_WITHIN, |rung| rung.deadline);
        let patience = patience.max(RECONCILE_WITHIN);
        let waited = now.since(since);
        (waited >= patience).then(|| {
            let seconds = waited.as_secs();
            Became::NotDone(format!("nothing has shown for {seconds} s that it was done, nor that it was not"))
        })
    }

    fn became(&self, incident: &Incident, step: &Step, since: Moment) -> Option<Became> {
        match (step.action, &incident.subject) {
            (Action::StartNode, _) => Some(match self.facts.process_since(since)? {
                ProcessFact::Running { pid, .. } => Became::Done(format!("process {pid} runs")),
                ProcessFact::Exited { pid, exit, .. } => Became::NotDone(format!("process {pid} ended: {exit}")),
                ProcessFact::Absent => Became::NotDone("no process runs".to_owned()),
            }),
            // Until the disk is given up, that nothing is left on it proves nothing: it may have been empty from the start.
            (Action::RepairShards, Subject::Disk { disk, .. })
                if incident.mode == Mode::DiskDegrading
                    && self.facts.disk(disk).is_none_or(|fact| fact.state != "out") =>
            {
                self.facts.node_now().filter(|_| self.facts.heartbeat_at() >= Some(since))?;
                Some(Became::NotDone("the disk is not given up yet".to_owned()))
            }
            (Action::RepairShards, _) => Some(Became::AskProof("the proof tells whether it was done".to_owned())),
            (_, Subject::Disk { disk, .. }) => {
                let fact = self.facts.node_now().filter(|_| self.facts.heartbeat_at() >= Some(since))?;
                let Some(fact) = fact.disks.iter().find(|fact| fact.disk == *disk) else {
                    // A node that serves lists every disk that it has.
                    let gone = "the node has this disk no more".to_owned();
                    return (fact.phase == "healthy").then_some(Became::NotDone(gone));
                };
                let state = &fact.state;
                let states: &[&str] = match step.action {
                    Action::Throttle => &["read_only", "draining", "down", "out"],
                    Action::DetachDisk => &["down", "out"],
                    Action::EvacuateDisk => ladder::LEFT,
                    _ => &["up"],
                };
                let text = format!("the node shows the disk as {state}");
                Some(if states.contains(&state.as_str()) { Became::Done(text) } else { Became::NotDone(text) })
            }
            (_, Subject::Node(_)) => self.became_of_node(step, since),
            _ => Some(Became::NotDone("nothing shows that it was done".to_owned())),
        }
    }

    /// What the node shows of itself, in an answer that came after the agent's start.
    fn became_of_node(&self, step: &Step, since: Moment) -> Option<Became> {
        self.facts.node_now().filter(|_| self.facts.heartbeat_at() >= Some(since))?;
        let mode = step.mode?;
        let rungs = ladder::ladder(mode, &self.policy);
        let rung = rungs
            .into_iter()
            .find(|rung| rung.action == step.action && (rung.with.is_empty() || rung.with == step.with));
        let shows = rung.and_then(|rung| match rung.effect {
            Effect::NodeState { shows, .. } => Some(shows),
            _ => None,
        });
        Some(match shows {
            Some(shows) if self.node_shows(shows, Some(since)) => Became::Done("the node shows it".to_owned()),
            Some(_) => Became::NotDone("the node does not show it".to_owned()),
            None => Became::NotDone("nothing shows that it was done; it does no harm to do it again".to_owned()),
        })
    }

    /// An operator's step that the agent's end interrupted: not repeated, but its slot must not stay open.
    pub(crate) fn take_over_operator(&mut self, now: Now, step: &Step) {
        let detail = "the agent ended while it was under way; it is not repeated: ask again if it is still wanted";
        self.record_reconciled(step, "unknown", detail);
        self.close_slot(step, false, detail);
        let _ = now;
    }

    /// Names a new incident.
    pub(crate) fn next_incident(&mut self) -> IncidentId {
        let id = IncidentId::new(&self.node, self.next_id);
        self.next_id += 1;
        id
    }
}
