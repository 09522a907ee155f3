//! What would be done now: the same moves the engine makes, shown instead of made.

use std::fmt;

use serde::Serialize;

use crate::api::{IncidentId, MemberFact, Proof, Subject};
use crate::engine::Engine;
use crate::engine::decide::Move;
use crate::engine::incidents::{Flight, Incident};
use crate::engine::ladder::{Effect, Rung, ladder, proof};
use crate::engine::present::is_watched;
use crate::record::GuardResult;
use crate::types::{Action, Grade, Mode, Moment, Now};

/// What the agent would do now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The node.
    pub node: String,
    /// By how much policy times are divided.
    pub factor: f64,
    /// One entry per open incident.
    pub entries: Vec<PlanEntry>,
}

/// What the agent would do about one incident.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanEntry {
    /// Which incident.
    pub incident: IncidentId,
    /// Its mode.
    pub mode: Mode,
    /// What it is about.
    pub subject: Subject,
    /// What was seen.
    pub evidence: String,
    /// The next move, in words.
    pub next: String,
    /// What would be done; `None`: nothing is.
    pub action: Option<Action>,
    /// How invasive that is.
    pub grade: Option<Grade>,
    /// The guards, with their numbers.
    pub guards: Vec<GuardResult>,
    /// The whole ladder.
    pub ladder: Vec<Rung>,
    /// Which step of it is next, from 0.
    pub at: usize,
    /// What shows that it is over.
    pub proof: String,
}

impl Engine {
    /// What would be done now.
    pub fn plan(&self, now: Now) -> Plan {
        let ids = self.incidents.ids();
        let open = ids.iter().filter_map(|id| self.incidents.open.get(id));
        let entries = open.map(|incident| self.entry(now.mono, incident)).collect();
        Plan { node: self.node.clone(), factor: self.policy.factor, entries }
    }

    pub(crate) fn entry(&self, now: Moment, incident: &Incident) -> PlanEntry {
        let (next, rung, guards) = self.in_words(now, incident);
        PlanEntry {
            incident: incident.id.clone(),
            mode: incident.mode,
            subject: incident.subject.clone(),
            evidence: incident.evidence.clone(),
            next,
            action: rung.as_ref().map(|rung| rung.action),
            grade: rung.as_ref().map(|rung| rung.grade),
            guards,
            ladder: ladder(incident.mode, &self.policy),
            at: incident.rung,
            proof: self.proof_of(incident),
        }
    }

    /// What shows that an incident is over, in words.
    pub(crate) fn proof_of(&self, incident: &Incident) -> String {
        proof_in_words(incident.mode, self.proof(incident))
    }

    /// What shows that an incident is over.
    pub(crate) fn proof(&self, incident: &Incident) -> Proof {
        let members = || self.facts.node().map(|fact| fact.members.as_slice()).unwrap_or_default();
        // One that is marked down is `host_down`'s, which this incident, while it is open, keeps from being given up: to wait for
        // it here would hold both for ever.
        let there = |member: &&MemberFact| !matches!(member.state.as_str(), "down" | "out");
        let hosts: Vec<String> = members().iter().filter(there).map(|member| member.node.clone()).collect();
        // Of a disk that is in service and well again nothing was rebuilt elsewhere. That the node serves is no word of the disk's own
        // canary, which found it.
        let well = |disk: &str| match incident.mode {
            Mode::DiskFailure => self.disks.well(disk, &self.policy),
            Mode::DiskDegrading => self.degrading.well(self.now, disk, &self.policy.smart),
            _ => false,
        };
        match &incident.subject {
            Subject::Disk { disk, .. } if self.is_of_disk_in_service(incident) && well(disk) => Proof::Serves,
            Subject::Hosts(hosts) if incident.mode == Mode::HostDown => Proof::HostsSettled {
                hosts: hosts.clone(),
                canary_ms: self.watches.deadlock.limit(&self.policy.deadlock),
            },
            subject => proof(incident.mode, subject, &self.policy, &hosts),
        }
    }

    /// It is about a disk that serves, and that this incident does not empty.
    pub(crate) fn is_of_disk_in_service(&self, incident: &Incident) -> bool {
        let Subject::Disk { disk, .. } = &incident.subject else { return false };
        let of_disk = matches!(incident.mode, Mode::DiskFailure | Mode::DiskDegrading);
        let state = self.facts.disk(disk).map_or("", |fact| &*fact.state);
        of_disk && (matches!(state, "up" | "read_only") || (state == "draining" && !incident.evacuating))
    }

    fn in_words(&self, now: Moment, incident: &Incident) -> (String, Option<Rung>, Vec<GuardResult>) {
        let under_way = |text: String| (text, self.rung(incident), incident.guards.clone());
        match &incident.flight {
            Flight::Idle => {}
            Flight::Asking { step, .. } => return under_way(format!("waits for a slot for {}", step.action)),
            Flight::Granted { step, .. } => {
                return under_way(format!("has a slot for {}, reads the evidence again", step.action));
            }
            Flight::Doing { step, .. } => {
                return under_way(format!(
                    "{} is under way (step {}, attempt {})",
                    step.action, step.id.0, step.attempt
                ));
            }
            Flight::Seeing { step, .. } => return under_way(format!("waits to see what {} did", step.action)),
            Flight::Proving { tries, .. } => return under_way(format!("seeks the proof (try {})", (*tries).max(1))),
            Flight::Reconciling { step, .. } => {
                return under_way(format!("looks at what became of {} (step {})", step.action, step.id.0));
            }
        }
        match self.next_move(now, incident) {
            Move::Wait(what) => (format!("waits: {what}"), None, incident.guards.clone()),
            Move::Later { rung, wait, .. } => {
                (format!("{} in {} ms", rung.action, wait.as_millis()), Some(*rung), incident.guards.clone())
            }
            Move::Held { rung, guards, held } => {
                (format!("{} held by {}: {}", rung.action, held.guard, held.evidence), Some(*rung), guards)
            }
            Move::Act { rung, guards } => (format!("{} now", rung.action), Some(*rung), guards),
            Move::Skip { why } => (format!("the next step of the ladder: {why}"), None, incident.guards.clone()),
            Move::Prove { why } => (format!("seeks the proof: {why}"), None, incident.guards.clone()),
            Move::Undone => ("it is taken back already".to_owned(), None, incident.guards.clone()),
            Move::Close { why } => (format!("closes it: {why}"), None, incident.guards.clone()),
            Move::Escalate { why, guards } => (format!("tells a person: {why}"), None, guards),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entries.is_empty() {
            return writeln!(f, "nothing to do on {}", self.node);
        }
        for entry in &self.entries {
            write!(f, "{entry}")?;
        }
        if self.factor > 1.0 {
            writeln!(f, "policy times are divided by {}; detection times are not", self.factor)?;
        }
        Ok(())
    }
}

impl fmt::Display for PlanEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} of {}", self.incident, self.mode, self.subject)?;
        writeln!(f, "  seen:  {}", self.evidence)?;
        writeln!(f, "  next:  {}", self.next)?;
        for (number, rung) in self.ladder.iter().enumerate() {
            let mark = if number == self.at { ">" } else { " " };
            writeln!(f, "  {mark} {}. {}", number + 1, in_one_line(rung))?;
            if let Effect::Proof { deadline } = rung.effect {
                writeln!(f, "       proof within {} s: {}", deadline.as_secs(), self.proof)?;
            }
        }
        if is_watched(self.mode) {
            writeln!(f, "    proof: {}", self.proof)?;
        }
        for guard in &self.guards {
            let verdict = if guard.passed { "pass" } else { "HELD" };
            writeln!(f, "    {verdict} {}: {}", guard.guard, guard.evidence)?;
        }
        Ok(())
    }
}

/// A step of a ladder in one line.
pub(crate) fn in_one_line(rung: &Rung) -> String {
    let wait = if rung.wait.is_zero() { String::new() } else { format!("after {} ms: ", rung.wait.as_millis()) };
    if rung.attempts == 0 {
        return format!("{wait}{} (grade {} {}): {}", rung.action, rung.grade.0, rung.grade.name(), rung.does);
    }
    let disruptive = if rung.disruptive { ", disruptive: lease, slot and fence" } else { "" };
    let approval = if rung.approval { ", only with approval" } else { "" };
    let with = if rung.with.is_empty() { String::new() } else { format!(" {}", rung.with) };
    format!(
        "{wait}{}{with} (grade {} {}{disruptive}{approval}; {} attempts of {} s): {}",
        rung.action,
        rung.grade.0,
        rung.grade.name(),
        rung.attempts,
        rung.deadline.as_secs(),
        rung.does
    )
}

/// What shows that an incident is over, in words.
fn proof_in_words(mode: Mode, proof: Proof) -> String {
    if mode == Mode::CascadingFailure {
        return "no more of its failures for its window, and what began it gone".to_owned();
    }
    match proof {
        Proof::Serves => "a canary write and read through the node, and caught up to the commit index".to_owned(),
        Proof::DiskRebuilt { disk } => {
            format!("every shard of disk {disk} read back from its new home; failed = skipped = 0")
        }
        Proof::HostsSettled { hosts, canary_ms } => {
            let hosts = hosts.join(", ");
            let within = canary_ms.map_or_else(String::new, |limit| format!(" within {limit} ms"));
            format!("{hosts} up in the cluster map and serving, or out; no shard without a home; a canary that comes through{within}")
        }
        Proof::ObjectIntact { bucket, key } => {
            format!("every shard of {bucket}/{key} read from disk, cache bypassed")
        }
        Proof::ReplicaEqual => {
            "its digest, from stored bytes, is the majority's of at least three at one entry, twice".to_owned()
        }
        Proof::ReadsEqual => "its digest, from stored bytes, is the majority's of at least three at one entry, twice; a sample of reads is \
                              another member's"
            .to_owned(),
        Proof::LogReplays => "its digest, from stored bytes, is the majority's of at least three at one entry, twice; its log, replayed, \
                              comes to what is stored"
            .to_owned(),
        Proof::OneHistory { hosts } => format!(
            "{} answer directly and call this host silent nowhere; one leader per term for all that answer; no lag; one epoch, older ones \
             refused; all digests, from stored bytes, equal",
            hosts.join(", ")
        ),
        Proof::OneLeader { hosts } => format!(
            "{} answer directly and call this host silent nowhere; one leader per term for all that answer; no lag",
            hosts.join(", ")
        ),
        Proof::ClockAgrees { within_ms } => {
            format!("asked anew, most peers find this clock within {within_ms} ms of theirs")
        }
    }
}
