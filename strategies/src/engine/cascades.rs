//! `cascading_failure`: what the engine makes of a cascade that was found.
//!
//! Owns: the one incident per host with a cascade, what is folded under it, and when it is over. Must never: begin a step
//! (grade 0 alone), call a quorum lost, or keep another incident from being healed by what takes nothing away: only
//! disruptive steps wait, by the storm brake, and only while failures still come.
//!
//! What began it must be gone before it is over; what is folded under it need not be, but goes on by its own ladder once
//! the cascade is quiet.

use std::time::Duration;

use crate::api::{FailureFact, IncidentId, NodeFact, PastCascade, Subject};
use crate::cascade::{CascadeStatus, Failure, Found, Place, QuorumRule};
use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::detect::Symptom;
use crate::engine::incidents::{Incident, IncidentState};
use crate::record::RecordKind;
use crate::types::{Action, FailureKind, Mode, Moment, Now, Severity};

impl Engine {
    /// What is known of cascades.
    pub fn cascades(&self, now: Now) -> CascadeStatus {
        self.cascades.status(now.mono)
    }

    pub(crate) fn read_failures(&mut self, now: Now, events: &[FailureFact]) {
        for event in events {
            let kind = FailureKind::ALL.iter().copied().find(|kind| kind.as_str() == event.kind);
            // What a node knows and this agent does not is counted, and is part of nothing. That a claim of a lost quorum
            // is false is not the claiming node's to say.
            let Some(kind) = kind.filter(|kind| *kind != FailureKind::FalseQuorumLoss) else {
                self.cascades.unknown();
                continue;
            };
            let age = Duration::from_millis(event.age_ms);
            let failure = Failure { kind, subject: event.subject.clone(), places: event.places.clone(), age };
            self.failed_somewhere(now, failure);
        }
    }

    /// A node without a leader may be cut off, or all may be: only the first is known here, and only beyond doubt.
    pub(crate) fn read_quorum(&mut self, now: Now, fact: &NodeFact) {
        let detection = &self.policy.detection;
        let rule = QuorumRule { heartbeats: detection.missed_heartbeats, fresh: self.policy.fresh_within() };
        if let Some(failure) = self.quorum.heartbeat(now.mono, &self.node, fact, &rule) {
            self.failed_somewhere(now, failure);
        }
    }

    fn failed_somewhere(&mut self, now: Now, failure: Failure) {
        for found in self.cascades.observe(now.mono, failure) {
            self.cascade_found(now, found);
        }
    }

    fn cascade_found(&mut self, now: Now, found: Found) {
        let known = self.cascade_on(&found.place.host);
        if known.is_none() && self.incidents.room() == 0 {
            self.cascades.end(&found.place.host);
            return;
        }
        let mut incident = match known.and_then(|id| self.incidents.open.remove(&id)) {
            Some(incident) => self.cascade_again(now, incident, &found),
            None => self.cascade_opened(now, &found),
        };
        if found.severity == Severity::Emergency && incident.severity != Some(Severity::Emergency) {
            incident.severity = Some(Severity::Emergency);
            let why = format!("emergency: {} was found {} times in an hour", found.pattern, found.times);
            self.escalate(now, &mut incident, &why);
        }
        let id = incident.id.clone();
        self.incidents.put(incident);
        self.fold_earlier(now, &id, &found);
    }

    fn cascade_opened(&mut self, now: Now, found: &Found) -> Incident {
        let symptom = Symptom {
            mode: Mode::CascadingFailure,
            subject: found.place.subject(),
            detected_by: "failure events".to_owned(),
            evidence: found.evidence.clone(),
            initial: false,
            life: None,
            signature: None,
            mended: false,
        };
        let mut incident = Incident::open(self.next_incident(), now, symptom);
        incident.severity = Some(Severity::Critical);
        self.record_cascade(RecordKind::Opened, &incident, found);
        incident
    }

    fn cascade_again(&mut self, now: Now, mut incident: Incident, found: &Found) -> Incident {
        incident.event(now, format!("found again: {}", found.evidence));
        self.record_cascade(RecordKind::Note, &incident, found);
        incident
    }

    /// The alert. It carries the pattern: this is the record that counts it in its hour.
    fn record_cascade(&mut self, kind: RecordKind, incident: &Incident, found: &Found) {
        let draft = self
            .draft_about(kind, Action::Alert, incident)
            .with("evidence", found.evidence.as_str())
            .with("pattern", found.pattern.as_str())
            .with("initial_failure", found.initial.as_str())
            .with("severity", found.severity.as_str());
        self.record(draft, true);
    }

    /// Incidents on its path that were opened since it began.
    fn fold_earlier(&mut self, now: Now, cascade: &IncidentId, found: &Found) {
        let caused = |incident: &Incident| {
            incident.folded_under.is_none()
                && incident.opened >= found.began
                && Place::of(&incident.subject)
                    .is_some_and(|place| self.cascades.over(now.mono, &place, incident.mode).is_some())
        };
        let ids: Vec<IncidentId> = self
            .incidents
            .open
            .values()
            .filter(|incident| caused(incident))
            .map(|incident| incident.id.clone())
            .collect();
        for id in ids {
            let Some(incident) = self.incidents.open.get_mut(&id) else { continue };
            incident.folded_under = Some(cascade.clone());
            incident.event(now, format!("folded under the cascade {cascade}"));
            let incident = incident.clone();
            let draft = self
                .draft_about(RecordKind::Note, Action::Skip, &incident)
                .with("folded_under", cascade.0.as_str())
                .with("evidence", "opened on the path of a cascade, within its window");
            self.record(draft, false);
            self.cascade_event(now, cascade, format!("{id} ({}) is folded under it", incident.mode));
        }
    }

    /// An incident that is being opened: is it part of a cascade?
    pub(crate) fn fold_new(&mut self, now: Now, incident: &mut Incident) {
        let Some(place) = Place::of(&incident.subject) else { return };
        let Some(host) = self.cascades.over(now.mono, &place, incident.mode) else { return };
        let Some(cascade) = self.cascade_on(host) else { return };
        incident.event(now, format!("folded under the cascade {cascade}"));
        self.cascade_event(now, &cascade, format!("{} ({}) is folded under it", incident.id, incident.mode));
        incident.folded_under = Some(cascade);
    }

    fn cascade_event(&mut self, now: Now, cascade: &IncidentId, what: String) {
        if let Some(incident) = self.incidents.open.get_mut(cascade) {
            incident.event(now, what);
        }
    }

    fn cascade_on(&self, host: &str) -> Option<IncidentId> {
        let on = |incident: &&Incident| {
            incident.mode == Mode::CascadingFailure && incident.subject.node().is_some_and(|node| node == host)
        };
        self.incidents.open.values().find(on).map(|incident| incident.id.clone())
    }

    /// Whether a cascade is over: nothing more happens, and what began it is gone.
    pub(crate) fn present_cascade(&self, now: Moment, incident: &Incident) -> Present {
        let Some(host) = incident.subject.node() else { return Present::Over("it names no host".to_owned()) };
        if !self.cascades.quiet_in(now, host).is_zero() {
            return Present::Unknown("no more of its failures for its window");
        }
        match self.root_remains(host, incident) {
            Some(why) => Present::Unknown(why),
            None => Present::Over("no more of its failures for its window, and what began it is gone".to_owned()),
        }
    }

    fn root_remains(&self, host: &str, cascade: &Incident) -> Option<&'static str> {
        let (initial, place) = self.cascades.root(host)?;
        let is_root = |incident: &&Incident| {
            incident.mode != Mode::CascadingFailure
                && (incident.folded_under.is_none() || initial.causes().contains(&incident.mode))
                && Place::of(&incident.subject).is_some_and(|other| other.meets(place))
        };
        if self.incidents.open.values().filter(|incident| incident.id != cascade.id).any(|one| is_root(&one)) {
            return Some("the incident on its path that began it to be resolved");
        }
        if host != self.node {
            return self.storm.is_ill(host).then_some("the host where it began to be well again");
        }
        if self.facts.phase() != "healthy" {
            return Some("the own node, where it began, to be healthy again");
        }
        let Subject::Disk { disk, .. } = &cascade.subject else { return None };
        // A disk that was given up, or is not there any more, holds nothing up.
        let ill = self.facts.disk(disk).is_some_and(|fact| fact.health != "ok" && fact.state != "out");
        ill.then_some("the disk where it began to answer again")
    }

    /// Its incident was closed.
    pub(crate) fn cascade_over(&mut self, incident: &Incident) {
        if let Some(host) = incident.subject.node() {
            self.cascades.end(host);
        }
    }

    pub(crate) fn remember_cascades(&mut self, now: Now, cascades: &[PastCascade]) {
        for past in cascades {
            self.cascades.restore(now.mono, &past.pattern, Duration::from_millis(past.age_ms));
        }
    }

    pub(crate) fn take_over_cascade(&mut self, now: Now, incident: &mut Incident, pattern: Option<&str>) {
        let escalated = incident.state == IncidentState::Escalated;
        incident.severity = Some(if escalated { Severity::Emergency } else { Severity::Critical });
        if let Some(place) = Place::of(&incident.subject) {
            self.cascades.resume(now.mono, place, pattern);
        }
    }
}
