//! The next move of an incident: the rules that walk a ladder. Pure: it reads, and says what it would do; `drive.rs`
//! does it, and `plan.rs` shows it.

use std::time::Duration;

use crate::api::Subject;
use crate::engine::Engine;
use crate::engine::detect::damage;
use crate::engine::guards::{self, Look};
use crate::engine::incidents::{Incident, IncidentState};
use crate::engine::ladder::{self, Effect, Otherwise, Rung};
use crate::engine::present::{Applies, is_watched};
use crate::record::GuardResult;
use crate::types::{Action, Fence, Grade, GuardName, Mode, Moment};

/// Steps that this host has under way at once: rebuilding is throttled by the node, the rest is quick.
pub(crate) const MAX_IN_FLIGHT: usize = 4;

/// How often an escalated incident is looked at again: a person may have mended it.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Proofs that did not hold before a person hears of it. Each is several looks, five seconds apart: the cluster around the node may have
/// to come back first.
const PROOFS_IN_VAIN: u32 = 3;

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
    /// What would be taken back is not there any more.
    Undone,
    /// Seek the proof.
    Prove { why: String },
    /// Close it.
    Close { why: String },
    /// A person is needed.
    Escalate { why: String, guards: Vec<GuardResult> },
}

/// What took a vote is over by the node's own word, and no proof held: that is a person's, and is proven on meanwhile.
pub(crate) fn is_in_doubt(incident: &Incident) -> bool {
    damage::is_damage(incident.mode) && incident.in_vain >= PROOFS_IN_VAIN
}

impl Engine {
    /// What an idle incident would do now. A person is told once.
    pub(crate) fn next_move(&self, now: Moment, incident: &Incident) -> Move {
        match self.any_move(now, incident) {
            Move::Escalate { why, .. } if incident.state == IncidentState::Escalated => Move::Wait(why),
            next => next,
        }
    }

    fn any_move(&self, now: Moment, incident: &Incident) -> Move {
        let escalated = incident.state == IncidentState::Escalated;
        match self.present(now, incident) {
            Present::Over(why) => return Move::Close { why },
            Present::Beyond(why) if !escalated => return Move::Escalate { why, guards: Vec::new() },
            Present::Beyond(why) => return Move::Wait(why),
            // It says no more that it lost its vote, so that no step of the ladder is called for, and yet its copy may be another.
            Present::Prove(_) if !escalated && is_in_doubt(incident) => {
                let why = format!(
                    "the node does not say any more that it lost its vote, and its copy of the metadata was not proven equal in {} \
                     attempts: `resilver meta compare` shows who differs and where",
                    incident.in_vain
                );
                return Move::Escalate { why, guards: Vec::new() };
            }
            // The ladder's clock is for going up it: that hosts came back, or are given up, is looked at as soon as it is so.
            Present::Prove(why)
                if now >= incident.not_before || incident.mode == Mode::HostDown || self.is_first_proof(incident) =>
            {
                return Move::Prove { why };
            }
            Present::Prove(_) => return Move::Wait("the next look at the proof".to_owned()),
            Present::Unknown(why) => return Move::Wait(why.to_owned()),
            Present::Undo => {
                // The ladder's clock is for going up it, not for stepping down.
                let ready = if incident.undone == 0 { now } else { incident.not_before };
                let rung = self.undo_of(incident);
                // What a person has set since is the person's to take back.
                let persons = rung.with == "read_write" && self.mode_is_persons();
                if !incident.applied.is_empty() && (persons || self.shown(incident, &rung).is_some()) {
                    return Move::Undone;
                }
                // A person was told, and it is tried on: what was done to the node does not stay because three attempts failed.
                let tried = if escalated && incident.undone >= rung.attempts { 0 } else { incident.undone };
                return self.step_move(now, incident, rung, tried, ready);
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
        match self.applies(now, incident, &rung) {
            Applies::Yes => {}
            Applies::Skip(why) => return Move::Skip { why: format!("{}: {why}", rung.action) },
            Applies::Wait(what) => return Move::Wait(what.to_owned()),
        }
        if let Some(state) = self.shown(incident, &rung) {
            return Move::Skip { why: format!("{} is {state} already", incident.subject) };
        }
        self.step_move(now, incident, rung, incident.attempt, incident.not_before)
    }

    fn step_move(&self, now: Moment, incident: &Incident, rung: Rung, attempt: u32, ready: Moment) -> Move {
        if rung.action == Action::Alert && rung.otherwise == Otherwise::NextRung {
            return Move::Skip { why: "it was told when it was found".to_owned() };
        }
        if rung.action == Action::Alert && rung.otherwise == Otherwise::Wait {
            return Move::Wait(rung.does.to_owned());
        }
        // What was done has its time to help, and a person is asked no sooner than the ladder says.
        let waits = matches!(rung.effect, Effect::Relief { .. }) || rung.attempts == 0;
        if waits && now < ready {
            return Move::Later { rung: Box::new(rung), wait: ready.since(now), backoff: false };
        }
        if attempt >= rung.attempts {
            return match rung.otherwise {
                Otherwise::NextRung => Move::Skip { why: format!("{}: {attempt} attempts did not help", rung.action) },
                Otherwise::Wait => Move::Wait(rung.does.to_owned()),
                Otherwise::Escalate if rung.attempts == 0 => {
                    Move::Escalate { why: self.guided(incident, &rung), guards: Vec::new() }
                }
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
            // A small relief that was tried often lately keeps the next step from nothing.
            Some(held)
                if held.guard == GuardName::Budget
                    && matches!(rung.effect, Effect::Relief { .. })
                    && rung.grade <= Grade::RELIEVE =>
            {
                Move::Skip { why: format!("{}: {}: {}", rung.action, held.guard, held.evidence) }
            }
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
            peers: &self.peers,
            watches: &self.watches,
            heard: &self.heard,
            pause: self.pause.as_ref(),
            ledger: &self.ledger,
            storm: &self.storm,
            liveness: &self.liveness,
            lease: self.lease.fence.as_ref(),
            began: self.began.unwrap_or(now),
            age: self.age.known_for(),
            approved_by: self.approved_by(now, incident, rung),
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
        if let Effect::NodeState { shows, .. } = rung.effect {
            return self.node_shows(shows, None).then_some("so");
        }
        let Subject::Disk { disk, .. } = &incident.subject else { return None };
        let Effect::DiskState { states, .. } = rung.effect else { return None };
        let state = self.facts.node_now().and(self.facts.disk(disk)).map(|fact| fact.state.as_str())?;
        states.contains(&state).then_some(state)
    }

    /// The first proof of what a watch sees is sought at once: the ladder's clock is for going up it.
    fn is_first_proof(&self, incident: &Incident) -> bool {
        is_watched(incident.mode) && !incident.unproven
    }

    /// What a person is told who has to decide.
    fn guided(&self, incident: &Incident, rung: &Rung) -> String {
        let does = rung.does;
        match incident.mode {
            Mode::QuorumLoss => {
                format!("{does}. Known of the voters, as (term, index): {}", self.watches.voters.survivors())
            }
            _ => format!("grade {} is a person's: {does}", rung.grade.0),
        }
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
