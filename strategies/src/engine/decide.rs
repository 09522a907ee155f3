//! The next move of an incident: the rules that walk a ladder. Pure: it reads, and says what it would do; `drive.rs`
//! does it, and `plan.rs` shows it.

use std::time::Duration;

use crate::api::{ProcessFact, Subject};
use crate::engine::Engine;
use crate::engine::detect::{disk_failure, process_crash};
use crate::engine::guards::{self, Look};
use crate::engine::incidents::{Incident, IncidentState};
use crate::engine::ladder::{self, Effect, Otherwise, Rung};
use crate::record::GuardResult;
use crate::types::{Action, Fence, GuardName, Mode, Moment};

/// Steps that this host has under way at once: rebuilding is throttled by the node, the rest is quick.
pub(crate) const MAX_IN_FLIGHT: usize = 4;

/// How often an escalated incident is looked at again: a person may have mended it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What an incident's subject looks like now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    /// Not enough is known to act.
    Unknown(&'static str),
    /// Still ill.
    Ill,
    /// It seems well: only the proof is missing.
    Prove(String),
    /// The disk or a host is well again, but the agents' own throttle or mark is on it.
    Undo,
    /// There is nothing to recover (any more).
    Over(String),
    /// Nothing this version can do.
    Beyond(String),
}

/// What an incident would do now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Move {
    /// Wait for something.
    Wait(String),
    /// Wait until then: the ladder's clock.
    Later { rung: Box<Rung>, wait: Duration, backoff: bool },
    /// A guard holds it back.
    Held { rung: Box<Rung>, guards: Vec<GuardResult>, held: GuardResult },
    /// Begin this step (or ask for its slot).
    Act { rung: Box<Rung>, guards: Vec<GuardResult> },
    /// The step's effect is there already: the next one.
    Skip { why: String },
    /// Seek the proof.
    Prove { why: String },
    /// Close it.
    Close { why: String },
    /// A person is needed.
    Escalate { why: String, guards: Vec<GuardResult> },
}

impl Engine {
    /// What the incident's subject looks like now.
    pub(crate) fn present(&self, now: Moment, incident: &Incident) -> Present {
        match (&incident.subject, incident.mode) {
            (_, Mode::CascadingFailure) => self.present_cascade(now, incident),
            (Subject::Node(_), _) => self.present_process(incident),
            (Subject::Hosts(hosts), _) => self.present_hosts(hosts),
            (Subject::Disk { disk, .. }, Mode::DiskDegrading) => self.present_degrading(now, incident, disk),
            (Subject::Disk { disk, .. }, _) => self.present_disk(incident, disk),
            (Subject::Object { .. }, _) if incident.mended => {
                Present::Prove("the node says that it has repaired it".to_owned())
            }
            (Subject::Object { .. }, _) => Present::Ill,
        }
    }

    fn present_process(&self, incident: &Incident) -> Present {
        match self.facts.process() {
            None => Present::Unknown("nothing is known of the process yet"),
            Some(ProcessFact::Running { pid, .. }) => match self.facts.phase() {
                "lost_voter" => Present::Beyond(format!(
                    "the node lost its vote: `resilver node rejoin {}` brings it back as a learner",
                    self.node
                )),
                "waiting" if incident.initial => {
                    Present::Over(format!("process {pid} runs and waits to be made part of a cluster"))
                }
                _ => Present::Prove(format!("process {pid} runs")),
            },
            Some(_) => match process_crash::read(&self.node, &self.facts, &self.policy, self.planned()) {
                process_crash::Reading::Deliberate { evidence } => {
                    Present::Over(format!("{evidence}: a deliberate stop is not fought"))
                }
                // An incident of an earlier death may still be open when a person has the node restarted: a second start
                // beside that restart would make two of one.
                process_crash::Reading::Fine => {
                    Present::Unknown("the end of the process was meant, or is known from one source only")
                }
                _ => Present::Ill,
            },
        }
    }

    fn present_disk(&self, incident: &Incident, disk: &str) -> Present {
        if self.facts.node_now().is_none() {
            return Present::Unknown("the node does not answer");
        }
        // The cluster's map is not changed through a node that takes no part in it: no step would do anything.
        if self.facts.phase() == "lost_voter" {
            return Present::Beyond(
                "the node lost its vote: its disks cannot be looked after before it is back".to_owned(),
            );
        }
        let Some(fact) = self.facts.disk(disk) else {
            // A node that serves lists every disk it has, those that are gone with them: this one is no disk of it any more.
            return match self.facts.phase() {
                "healthy" => {
                    Present::Over("the node has let go of the disk: a person replaced or removed it".to_owned())
                }
                _ => Present::Unknown("the node does not list the disk"),
            };
        };
        let well = self.disks.well(disk, &self.policy);
        match fact.state.as_str() {
            "up" if well => Present::Over("the disk is well and in service again".to_owned()),
            "read_only" if well && incident.throttled => Present::Undo,
            // Read-only by somebody else's will: nothing to take back.
            "read_only" if well => {
                Present::Over("the disk is well again; its mode is not the agent's to change".to_owned())
            }
            "draining" if well => Present::Over("the disk is well again; it is being emptied".to_owned()),
            "up" | "read_only" | "draining" if !disk_failure::failed(&fact.health) => {
                Present::Unknown("the disk's canary is of two minds")
            }
            _ => Present::Ill,
        }
    }

    /// Ill enough to act is a disk whose counters and whose node agree. One that is emptied already is emptied to the end,
    /// whatever the counters say meanwhile: half of the way is no place to stop.
    fn present_degrading(&self, now: Moment, incident: &Incident, disk: &str) -> Present {
        let Some(node) = self.facts.node_now() else { return Present::Unknown("the node does not answer") };
        let Some(fact) = self.facts.disk(disk) else {
            return match node.phase.as_str() {
                "healthy" => Present::Over("the node has this disk no more".to_owned()),
                _ => Present::Unknown("the node does not list the disk"),
            };
        };
        match fact.state.as_str() {
            "draining" | "out" if incident.evacuating => Present::Ill,
            "out" => Present::Over("the disk is out of service".to_owned()),
            "draining" => Present::Unknown("it is being emptied by somebody else's will"),
            "down" => Present::Unknown("it is detached, which is not this incident's"),
            _ if self.degrading.well(now, disk) => Present::Over("two SMART samples in a row are well".to_owned()),
            _ if incident.evacuating && incident.rung > ladder::EVACUATION => Present::Beyond(
                "the disk was taken back into service while it was being emptied: a person knows why".to_owned(),
            ),
            _ if disk_failure::failed(&fact.health) => Present::Unknown("its canary fails: that is disk_failure's"),
            _ if self.degrading.agree(now, disk).0 => Present::Ill,
            _ => Present::Unknown("it was told; SMART alone does not empty a disk"),
        }
    }

    /// What an idle incident would do now.
    pub(crate) fn next_move(&self, now: Moment, incident: &Incident) -> Move {
        let escalated = incident.state == IncidentState::Escalated;
        match self.present(now, incident) {
            Present::Over(why) => return Move::Close { why },
            Present::Beyond(why) if !escalated => return Move::Escalate { why, guards: Vec::new() },
            Present::Beyond(why) => return Move::Wait(why),
            // The ladder's clock is for going up it: that hosts came back, or are given up, is looked at as soon as it is so.
            Present::Prove(why) if now >= incident.not_before || incident.mode == Mode::HostDown => {
                return Move::Prove { why };
            }
            Present::Prove(_) => return Move::Wait("the next look at the proof".to_owned()),
            Present::Unknown(why) => return Move::Wait(why.to_owned()),
            Present::Undo => {
                // The ladder's clock is for going up it, not for stepping down.
                let ready = if incident.undone == 0 { now } else { incident.not_before };
                return self.step_move(
                    now,
                    incident,
                    ladder::undo(incident.mode, &self.policy),
                    incident.undone,
                    ready,
                );
            }
            Present::Ill => {}
        }
        if escalated {
            // Its data may have been mended by hand: the proof would tell.
            let provable = !matches!(incident.subject, Subject::Node(_)) && self.provable(incident);
            return match provable && now >= incident.not_before {
                true => Move::Prove { why: "a person may have mended it".to_owned() },
                false => Move::Wait("a person".to_owned()),
            };
        }
        let Some(rung) = ladder::ladder(incident.mode, &self.policy).into_iter().nth(incident.rung) else {
            return Move::Escalate { why: "the ladder's end was reached".to_owned(), guards: Vec::new() };
        };
        if let Some(state) = self.shown(incident, &rung) {
            return Move::Skip { why: format!("{} is {state} already", incident.subject) };
        }
        self.step_move(now, incident, rung, incident.attempt, incident.not_before)
    }

    fn step_move(&self, now: Moment, incident: &Incident, rung: Rung, attempt: u32, ready: Moment) -> Move {
        if rung.action == Action::Alert && rung.otherwise == Otherwise::NextRung {
            return Move::Skip { why: "it was told when it was found".to_owned() };
        }
        if attempt >= rung.attempts {
            return match rung.otherwise {
                Otherwise::NextRung => Move::Skip { why: format!("{attempt} attempts did not help") },
                Otherwise::Escalate => {
                    let why = format!("{} attempts to {} did not help", attempt, rung.does);
                    Move::Escalate { why, guards: incident.guards.clone() }
                }
            };
        }
        if now < ready {
            return Move::Later { rung: Box::new(rung), wait: ready.since(now), backoff: attempt > 0 };
        }
        // Starting what is dead never waits for other work.
        if incident.mode != Mode::ProcessCrash && self.in_flight() >= MAX_IN_FLIGHT {
            return Move::Wait(format!("{MAX_IN_FLIGHT} steps are under way"));
        }
        let guards = guards::judge(&self.look(now, incident, &rung, None));
        let rung = Box::new(rung);
        match guards.iter().find(|result| !result.passed).cloned() {
            // These do not pass by waiting: a person is needed.
            Some(held) if matches!(held.guard, GuardName::CrashSignature | GuardName::Budget) => {
                Move::Escalate { why: format!("{}: {}", held.guard, held.evidence), guards }
            }
            Some(held) => Move::Held { rung, guards, held },
            None => Move::Act { rung, guards },
        }
    }

    pub(crate) fn look<'a>(
        &'a self,
        now: Moment,
        incident: &'a Incident,
        rung: &'a Rung,
        fence: Option<&'a Fence>,
    ) -> Look<'a> {
        Look {
            now,
            node: &self.node,
            policy: &self.policy,
            facts: &self.facts,
            disks: &self.disks,
            degrading: &self.degrading,
            pause: self.pause.as_ref(),
            ledger: &self.ledger,
            storm: &self.storm,
            liveness: &self.liveness,
            lease: self.lease.fence.as_ref(),
            began: self.began.unwrap_or(now),
            incident,
            rung,
            under_way: self.disruptive_under_way(incident),
            fence,
        }
    }

    /// The state in which the node shows the disk or the hosts, when that is what the step is for.
    pub(crate) fn shown(&self, incident: &Incident, rung: &Rung) -> Option<&str> {
        if let (Subject::Hosts(hosts), Effect::HostState { states, .. }) = (&incident.subject, rung.effect) {
            return self.hosts_shown(&self.concerned(hosts, rung.action), states);
        }
        let Subject::Disk { disk, .. } = &incident.subject else { return None };
        let Effect::DiskState { states, .. } = rung.effect else { return None };
        let state = self.facts.node_now().and(self.facts.disk(disk)).map(|fact| fact.state.as_str())?;
        states.contains(&state).then_some(state)
    }

    /// A disk that is still in service has nothing that could have been rebuilt.
    fn provable(&self, incident: &Incident) -> bool {
        match &incident.subject {
            Subject::Disk { disk, .. } => self.facts.disk(disk).is_some_and(|fact| fact.state == "out"),
            // Whether they are back is seen without it.
            Subject::Hosts(_) => false,
            _ => true,
        }
    }

    fn in_flight(&self) -> usize {
        let busy = |incident: &&Incident| incident.step().is_some();
        self.incidents.open.values().filter(busy).count()
    }

    /// Another disruptive step of this host that is asked for or under way.
    pub(crate) fn disruptive_under_way(&self, but: &Incident) -> Option<String> {
        if let Some(operator) = &self.operator {
            return Some(format!("{} for {}", operator.step.action, operator.owner));
        }
        let others = self.incidents.open.values().filter(|incident| incident.id != but.id);
        let step = others.filter_map(Incident::step).find(|step| step.disruptive)?;
        Some(format!("{} of {}", step.action, step.subject))
    }

    /// When an escalated incident is looked at again.
    pub(crate) fn look_again(&self) -> Duration {
        // A person mends at a person's pace: not scaled below a few seconds.
        self.policy.scaled(LOOK_AGAIN).max(Duration::from_secs(5))
    }

    /// Modes whose proof reads data back: asked seldom.
    pub(crate) fn reads_data(mode: Mode) -> bool {
        mode != Mode::ProcessCrash
    }
}
