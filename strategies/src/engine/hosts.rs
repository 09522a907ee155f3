//! Other hosts: what the holder of the lease does about those that are gone.
//!
//! Owns: which hosts belong to one incident, and what they look like now. Must never: act without the lease, touch an
//! operator's mark, or take a host for back that was not heard.
//!
//! Invariants: one incident per failure domain, so that a rack that loses its power is one incident; who gains the lease
//! goes on from the marks in the cluster map, and who loses it lets go.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{MemberFact, Subject};
use crate::cascade::HOUR;
use crate::engine::Engine;
use crate::engine::decide::Present;
use crate::engine::detect::{Symptom, host_down};
use crate::engine::incidents::{Flight, Incident};
use crate::engine::ladder::{IN_SERVICE, Rung};
use crate::engine::present::is_watched;
use crate::liveness::{Judgement, Verdict};
use crate::record::RecordKind;
use crate::types::{Action, Fence, Mode, Moment, Now, Severity};

/// How long an agent keeps an incident of another host without the lease: it may gain it again, as after an election or
/// its own restart (a restarted agent grants nothing for 10 s). Detection, not policy: not scaled.
const HANDOVER: Duration = Duration::from_secs(30);

/// When hosts were convicted, within the last hour: the third time a person is wanted now, as with cascades. Grows with the members of the cluster map.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Falls(BTreeMap<String, Vec<Moment>>);

impl Falls {
    /// One more. How many within the hour.
    fn count(&mut self, now: Moment, host: &str, enough: usize) -> usize {
        self.0.retain(|_, falls| {
            falls.retain(|fall| now.since(*fall) < HOUR);
            !falls.is_empty()
        });
        let falls = self.0.entry(host.to_owned()).or_default();
        // More than these say nothing new.
        if falls.len() >= enough {
            falls.remove(0);
        }
        falls.push(now);
        falls.len()
    }
}

/// This agent's part in the lease.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// The fence, while it is held.
    pub(crate) fence: Option<Fence>,
    /// Since when it is not held; the agent's start, when it never was.
    since: Moment,
}

impl Lease {
    pub(crate) fn set(&mut self, now: Moment, fence: Option<Fence>) {
        if fence.is_none() && self.fence.is_some() {
            self.since = now;
        }
        self.fence = fence;
    }
}

fn in_service(member: &MemberFact) -> bool {
    IN_SERVICE.contains(&member.state.as_str())
}

impl Engine {
    /// The holder: looks at every host of the cluster map.
    pub(crate) fn read_hosts(&mut self, now: Now) {
        let fresh = self.facts.heartbeat_age(now.mono).is_some_and(|age| age <= self.policy.fresh_within());
        let Some(fact) = self.facts.node_now().filter(|_| fresh && self.lease.fence.is_some()) else { return };
        // The own one among them: a former holder's mark on it is nobody else's to take back.
        let members = fact.members.iter().filter(|member| !self.is_looked_after(&member.node));
        let judged = members.filter_map(|member| host_down::read(member, &self.judged(&member.node)));
        for symptom in judged.collect::<Vec<_>>() {
            self.see_host(now, symptom);
        }
    }

    /// Hosts that are not heard, judged: for people.
    pub(crate) fn silent(&self, now: Moment) -> BTreeMap<String, Judgement> {
        self.liveness.silent(now).map(|(host, _)| (host.to_owned(), self.liveness.judge(now, host))).collect()
    }

    fn is_looked_after(&self, host: &str) -> bool {
        self.incidents.open.values().any(|incident| hosts_of(incident).iter().any(|known| known == host))
    }

    /// Opens an incident, or adds the host to the one of its failure domain.
    fn see_host(&mut self, now: Now, symptom: Symptom) {
        let Subject::Hosts(found) = &symptom.subject else { return };
        let domain = found.first().map(|host| self.liveness.domain(host));
        let shares =
            |incident: &&Incident| hosts_of(incident).iter().any(|known| Some(self.liveness.domain(known)) == domain);
        let Some(id) = self.incidents.open.values().find(shares).map(|incident| incident.id.clone()) else {
            let fallen = found.first().cloned().filter(|host| self.facts.member(host).is_some_and(in_service));
            let marks = found.first().and_then(|host| self.facts.member(host)).filter(|member| member.automatic);
            let goes_on = marks.and_then(|member| host_down::read_mark(&member.reason).0);
            self.see_as(now, symptom, goes_on);
            return self.fell(now, fallen);
        };
        let Some(mut incident) = self.incidents.open.remove(&id) else { return };
        if let Subject::Hosts(known) = &mut incident.subject {
            known.extend(found.iter().cloned());
            known.sort();
        }
        // It begins the ladder anew, for the newcomer; what is done already is seen to be.
        incident.rung = 0;
        incident.attempt = 0;
        incident.not_before = now.mono;
        if matches!(incident.flight, Flight::Proving { .. }) {
            incident.flight = Flight::Idle;
        }
        incident.event(now, format!("{} belongs to it, too: {}", symptom.subject, symptom.evidence));
        let note = self.draft_about(RecordKind::Note, Action::Skip, &incident).with("evidence", symptom.evidence);
        self.record(note, false);
        self.incidents.put(incident);
    }

    /// A host was convicted (not: taken over from its mark). The third time in an hour it is an emergency, told at once.
    fn fell(&mut self, now: Now, host: Option<String>) {
        let Some(host) = host else { return };
        let enough = self.policy.cascades.emergency_at as usize;
        let times = self.falls.count(now.mono, &host, enough);
        let about = |incident: &&mut Incident| hosts_of(incident).contains(&host);
        let Some(incident) = self.incidents.open.values_mut().find(about).filter(|_| times >= enough) else {
            return;
        };
        let why = format!("{host} was convicted {times} times in an hour: what brings it back does not hold");
        incident.severity = Some(Severity::Emergency);
        incident.event(now, format!("emergency: {why}"));
        let incident = incident.clone();
        let draft = self
            .draft_about(RecordKind::Note, Action::Alert, &incident)
            .with("evidence", why)
            .with("severity", Severity::Emergency.as_str());
        self.record(draft, true);
    }

    /// The own host is heard by definition; whether its node runs its heartbeat says.
    fn judged(&self, host: &str) -> Judgement {
        if host == self.node {
            return Judgement { verdict: Verdict::Heard, evidence: "this host".to_owned() };
        }
        self.liveness.judge(self.now, host)
    }

    fn is_heard(&self, host: &str) -> bool {
        self.judged(host).verdict == Verdict::Heard
    }

    fn node_runs(&self, host: &str) -> bool {
        if host == self.node {
            return self.facts.node_now().is_some_and(|fact| fact.phase == "healthy");
        }
        self.liveness.node_answers(self.now, host)
    }

    /// Those that came back and are still marked by an agent. Their node must run: a mark that is taken back sends it work.
    fn returned(&self, hosts: &[String]) -> Vec<String> {
        let marked =
            |host: &&String| self.facts.member(host).is_some_and(|member| !in_service(member) && member.automatic);
        let back = |host: &&String| self.is_heard(host) && self.node_runs(host);
        hosts.iter().filter(marked).filter(back).cloned().collect()
    }

    /// Those that are not there, and are the agents' to look after.
    fn gone(&self, hosts: &[String]) -> Vec<String> {
        let ours =
            |host: &&String| self.facts.member(host).is_some_and(|member| in_service(member) || member.automatic);
        hosts.iter().filter(ours).filter(|host| !self.is_heard(host)).cloned().collect()
    }

    pub(crate) fn present_hosts(&self, hosts: &[String]) -> Present {
        if self.lease.fence.is_none() {
            return match self.now.since(self.lease.since) >= HANDOVER {
                true => {
                    Present::Over("handed over: the holder of the lease goes on from the marks in the map".to_owned())
                }
                false => Present::Unknown("the lease is not held here"),
            };
        }
        if self.facts.node_now().is_none() {
            return Present::Unknown("the node does not answer: the cluster map cannot be read");
        }
        if !self.returned(hosts).is_empty() {
            return Present::Undo;
        }
        let gone = self.gone(hosts);
        let out = |host: &String| self.facts.member(host).is_some_and(|member| member.state == "out");
        if gone.iter().any(|host| !out(host)) {
            return Present::Ill;
        }
        if !gone.is_empty() {
            return Present::Prove("given up: its shards are rebuilt on the others".to_owned());
        }
        if hosts
            .iter()
            .all(|host| self.facts.member(host).is_none_or(|member| !in_service(member) && !member.automatic))
        {
            return Present::Over("an operator marked it, or removed it: it is the operator's".to_owned());
        }
        let unmarked =
            |host: &String| self.facts.member(host).is_none_or(|member| in_service(member) || !member.automatic);
        match hosts.iter().all(unmarked) {
            true => Present::Prove("heard again, and not marked".to_owned()),
            false => Present::Unknown("its agent is heard, but its node does not run yet"),
        }
    }

    /// The hosts that a step of this kind would be about.
    pub(crate) fn concerned(&self, hosts: &[String], action: Action) -> Vec<String> {
        if action == Action::MarkUp { self.returned(hosts) } else { self.gone(hosts) }
    }

    /// What a step is done to: of hosts, those it concerns now.
    pub(crate) fn step_subject(&self, incident: &Incident, rung: &Rung) -> Subject {
        if is_watched(incident.mode) {
            return self.watched_subject(incident, rung);
        }
        match &incident.subject {
            Subject::Hosts(hosts) => Subject::Hosts(self.concerned(hosts, rung.action)),
            subject => subject.clone(),
        }
    }

    /// The state in which the cluster map shows all these hosts, when it is one of those.
    pub(crate) fn hosts_shown(&self, hosts: &[String], states: &[&str]) -> Option<&str> {
        self.facts.node_now()?;
        let state = |host: &String| self.facts.member(host).map(|member| member.state.as_str());
        let all = hosts.iter().all(|host| state(host).is_some_and(|state| states.contains(&state)));
        hosts.first().filter(|_| all).and_then(state)
    }

    /// A mark was taken back: should the host go again, the ladder begins at its foot.
    pub(crate) fn unmarked(&self, now: Now, incident: &mut Incident, told: &str) {
        incident.event(now, format!("the mark is taken back: {told}"));
        incident.rung = 0;
        incident.attempt = 0;
        incident.undone = 0;
        incident.not_before = now.mono;
    }

    /// Whether a proof is sought for something that is not so any more: a host came back, or went.
    pub(crate) fn hosts_moved(&self, now: Now, incident: &mut Incident) -> bool {
        let present = self.present(now.mono, incident);
        let moved = matches!(present, Present::Undo | Present::Ill | Present::Over(_));
        if moved {
            incident.event(now, "the proof is put off: things have changed");
            incident.flight = Flight::Idle;
            incident.rung = 0;
            incident.attempt = 0;
            incident.not_before = now.mono;
        }
        moved
    }
}

fn hosts_of(incident: &Incident) -> &[String] {
    match &incident.subject {
        Subject::Hosts(hosts) if incident.mode == Mode::HostDown => hosts,
        _ => &[],
    }
}
