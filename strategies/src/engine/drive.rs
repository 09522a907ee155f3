//! Does what `decide.rs` decided: begins steps, seeks proofs, closes and escalates incidents.
//!
//! Invariants: `Execute` is always preceded by the step's durable intent, in the same list of commands. A slot that was
//! asked for is closed once, whatever happens.

use std::time::Duration;

use crate::api::{Command, ProcessFact, Step, StepId, StepResult, Subject};
use crate::coordinator::LEADER_MOVES;
use crate::engine::Engine;
use crate::engine::decide::{Move, is_in_doubt};
use crate::engine::detect::process_crash::Planned;
use crate::engine::detect::{State, damage, host_down};
use crate::engine::incidents::{Flight, Incident, IncidentState};
use crate::engine::jitter;
use crate::engine::ladder::{self, Effect, Rung};
use crate::engine::present::is_watched;
use crate::record::{GuardResult, RecordKind};
use crate::types::{Action, GuardName, Mode, Moment, Now};

/// How long the holder of the lease may take to answer.
const SLOT_DEADLINE: Duration = Duration::from_secs(15);
/// How much longer than its deadline a step or proof may stay without an answer before it counts as failed.
pub(crate) const ANSWER_MARGIN: Duration = Duration::from_secs(5);
/// How often a person is told at once of the same: as long as a target that flaps is held.
const TOLD_AT_ONCE_EVERY: Duration = Duration::from_secs(3600);
/// Moves of one incident in one turn: a whole ladder's steps may be there already.
const MAX_MOVES: usize = 8;

/// Whose turn a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The ladder's next.
    Ladder,
    /// Beside the ladder: done again because the node shows it no more.
    Again,
}

impl Engine {
    /// Moves every open incident as far as it goes.
    pub(crate) fn advance(&mut self, now: Now) {
        for id in self.incidents.ids() {
            let Some(mut incident) = self.incidents.open.remove(&id) else { continue };
            for _ in 0..MAX_MOVES {
                let before = (incident.flight.clone(), incident.rung, incident.state);
                self.drive(now, &mut incident);
                let moved = before != (incident.flight.clone(), incident.rung, incident.state);
                if !moved || incident.closed_ms.is_some() {
                    break;
                }
            }
            self.incidents.put(incident);
        }
    }

    fn drive(&mut self, now: Now, incident: &mut Incident) {
        match incident.flight.clone() {
            Flight::Idle => self.decide(now, incident),
            Flight::Asking { step, until } if now.mono >= until => {
                self.close_slot(&step, false, "no answer from the lease's holder");
                self.slot_refused(now, incident, &step, GuardName::OneAtATime, "no answer from the lease's holder");
            }
            Flight::Granted { step, since, until } => self.granted(now, incident, step, since, until),
            Flight::Doing { step, since } if now.mono.since(since) >= step.deadline + ANSWER_MARGIN => {
                let error = format!("no answer within {} s", step.deadline.as_secs());
                self.step_ended(now, incident, step, since, StepResult::Failed { error });
            }
            Flight::Seeing { step, until } => self.seeing(now, incident, &step, until),
            Flight::Proving { asked, next, until, tries } => self.proving(now, incident, asked, next, until, tries),
            Flight::Reconciling { step, since } => self.reconcile(now, incident, &step, since),
            Flight::Asking { .. } | Flight::Doing { .. } => {}
        }
    }

    fn decide(&mut self, now: Now, incident: &mut Incident) {
        self.take_back(now, incident);
        self.lost_again(now, incident);
        // What died while its copy was to be mended is dead first of all.
        if incident.mode == Mode::ProcessCrash && incident.rung > 0 && self.facts.running().is_none() {
            (incident.rung, incident.attempt) = (0, 0);
        }
        if self.say_again(now, incident) {
            return;
        }
        let next = self.next_move(now.mono, incident);
        // One whose slot, or whose step, is refused is held, too, while it waits to ask again; a step that is not refused ends that.
        let refused = incident.refused.is_some() && matches!(next, Move::Later { .. } | Move::Act { .. });
        if !matches!(next, Move::Held { .. }) && !refused {
            incident.held = None;
        }
        match next {
            Move::Wait(_) => {}
            Move::Undone => self.taken_back(now, incident, "the node shows it so already"),
            Move::Later { rung, wait, backoff } => {
                if backoff {
                    let evidence = format!("attempt {} in {} ms", incident.attempt + 1, wait.as_millis());
                    let held = GuardResult { guard: ladder::LADDER_CLOCK, passed: false, evidence };
                    self.record_refusal(now, incident, rung.action, rung.grade, std::slice::from_ref(&held), &held);
                }
            }
            Move::Held { rung, guards, held } if held.guard == GuardName::Authority => {
                self.held_by_authority(now, incident, &rung, &guards, &held);
                self.tell_when_held(now, incident, &held);
                incident.guards = guards;
            }
            Move::Held { rung, guards, held } => {
                self.record_refusal(now, incident, rung.action, rung.grade, &guards, &held);
                self.tell_when_held(now, incident, &held);
                incident.guards = guards;
            }
            Move::Act { rung, guards } => self.act(now, incident, &rung, guards, Turn::Ladder),
            Move::Skip { why } => {
                self.record_skip(incident, &why);
                self.next_rung(now, incident, &why);
            }
            Move::Prove { why } => {
                incident.event(now, format!("seeks the proof: {why}"));
                let deadline = self.proof_deadline(incident);
                self.prove(now, incident, deadline);
            }
            Move::Close { why } => self.close(now, incident, &why),
            Move::Escalate { why, guards } => {
                incident.guards = guards;
                self.escalate(now, incident, &why);
            }
        }
    }

    /// A process that was left to a person while it ran (a lost voter waits for its order to come back) and has ended since is
    /// started again: the person needs it running, and starting what is dead takes nothing away. So is one that does not run
    /// when its agent begins anew, after a reboot for example. How often, the guards judge by what the journal knows.
    pub(crate) fn take_back(&mut self, now: Now, incident: &mut Incident) {
        if incident.mode != Mode::ProcessCrash || incident.state != IncidentState::Escalated {
            return;
        }
        if incident.left_before
            && let Some(life) = self.facts.running()
        {
            (incident.left_before, incident.left_running) = (false, Some(life));
        }
        let ended = match self.facts.process() {
            Some(ProcessFact::Absent) => incident.left_before,
            Some(ProcessFact::Exited { pid, start_ticks, .. }) => {
                incident.left_before || incident.left_running == Some((*pid, *start_ticks))
            }
            _ => false,
        };
        if ended {
            self.ended_again(now, incident);
            incident.state = IncidentState::Recovering;
            incident.flight = Flight::Idle;
            (incident.left_before, incident.left_running) = (false, None);
            incident.rung = 0;
            incident.not_before = now.mono;
        }
    }

    /// A member that was in doubt while it was well has lost its vote again: that is for its agent, as if it was the first time.
    fn lost_again(&self, now: Now, incident: &mut Incident) {
        if incident.state != IncidentState::Escalated || !is_in_doubt(incident) {
            return;
        }
        if let State::Ill(evidence) = self.state_of(now.mono, incident.mode, &[]) {
            incident.event(now, format!("it lost its vote again: {evidence}"));
            incident.evidence = evidence;
            incident.state = IncidentState::Recovering;
            (incident.rung, incident.attempt, incident.in_vain, incident.unproven) = (0, 0, 0, false);
            incident.not_before = now.mono;
        }
    }

    pub(crate) fn act(&mut self, now: Now, incident: &mut Incident, rung: &Rung, guards: Vec<GuardResult>, turn: Turn) {
        let with = if is_watched(incident.mode) { self.with_of(incident, rung) } else { String::new() };
        let undo = ladder::is_undo(rung.action, &with);
        let attempt = if undo { incident.undone } else { incident.attempt } + 1;
        let step = Step {
            id: self.next_step(),
            incident: Some(incident.id.clone()),
            mode: Some(incident.mode),
            action: rung.action,
            grade: rung.grade,
            subject: self.step_subject(incident, rung),
            disruptive: rung.disruptive,
            // What is done to other hosts, the lease's holder does, by its own fence.
            fence: self.lease.fence.clone().filter(|_| incident.mode == Mode::HostDown),
            deadline: rung.deadline,
            attempt,
            reason: match incident.mode {
                Mode::HostDown => host_down::reason_of_mark(&incident.id, &incident.evidence),
                _ => incident.evidence.clone(),
            },
            with,
            approved_by: self.approved_by(now.mono, incident, rung).unwrap_or_default().to_owned(),
            again: turn == Turn::Again,
        };
        incident.guards = guards;
        if rung.disruptive {
            self.reserve(step.id);
            incident.event(now, format!("asks the lease's holder for a slot to {}", rung.does));
            incident.flight = Flight::Asking { step: step.clone(), until: now.mono + SLOT_DEADLINE };
            self.out.push(Command::TakeSlot(step));
        } else {
            self.begin(now, incident, step);
        }
    }

    /// Writes the intention down and begins.
    pub(crate) fn begin(&mut self, now: Now, incident: &mut Incident, step: Step) {
        let undo = ladder::is_undo(step.action, &step.with);
        let again = step.again;
        match undo {
            _ if again => {}
            true => incident.undone += 1,
            false => incident.attempt += 1,
        }
        let of_disk = matches!(step.subject, Subject::Disk { .. });
        incident.throttled |= of_disk && step.action == Action::Throttle;
        (incident.unproven, incident.in_vain) = (false, 0);
        if ladder::leaves(step.action, &step.with)
            && !incident.applied.iter().any(|known| (known.0, known.1.as_str()) == (step.action, step.with.as_str()))
        {
            incident.applied.push((step.action, step.with.clone()));
        }
        if step.action.moves_leader() {
            self.facts.leader_moves = Some(now.mono + LEADER_MOVES);
        }
        match step.action {
            // Its end is meant.
            Action::RestartNode => self.planned = self.facts.running().map_or(Planned::No, Planned::Life),
            Action::RepairShards if incident.mode == Mode::DataCorruption => {
                if let Subject::Disk { disk, .. } = &step.subject {
                    self.findings.scanning(now.mono, disk);
                }
            }
            // What was compared before says nothing about what is there after.
            Action::Resync | Action::InstallSnapshot | Action::RejoinLearner => self.watches.replicas.acted(),
            _ => {}
        }
        incident.evacuating |= step.action == Action::EvacuateDisk;
        if !((undo || again) && incident.state == IncidentState::Escalated) {
            incident.state = IncidentState::Recovering;
        }
        if !again {
            incident.use_approval();
        }
        incident.event(now, format!("{} begins, attempt {} (step {})", step.action, step.attempt, step.id.0));
        incident.begun(now, &step);
        if Self::counts(incident, &step) {
            let signature = incident.signature.clone().filter(|_| step.action == Action::StartNode);
            self.ledger.note(now.mono, step.action, &step.subject, step.disruptive, signature);
        }
        self.record_intent(&step, &incident.guards.clone(), Some(incident));
        incident.flight = Flight::Doing { step: step.clone(), since: now.mono };
        self.out.push(Command::Execute(step));
    }

    /// Whether a step uses up a budget. The node's first start is no answer to a failure; and what is done again, or taken back, was
    /// counted before.
    fn counts(incident: &Incident, step: &Step) -> bool {
        let of_disk = matches!(step.subject, Subject::Disk { .. });
        !incident.initial && !step.again && (of_disk || !ladder::is_undo(step.action, &step.with))
    }

    /// A step of an incident ended, or was given up.
    pub(crate) fn finished(&mut self, now: Now, step: StepId, result: StepResult) {
        let doing =
            |incident: &&Incident| matches!(&incident.flight, Flight::Doing { step: known, .. } if known.id == step);
        let Some(id) = self.incidents.open.values().find(doing).map(|incident| incident.id.clone()) else { return };
        let Some(mut incident) = self.incidents.open.remove(&id) else { return };
        if let Flight::Doing { step, since } = incident.flight.clone() {
            self.step_ended(now, &mut incident, step, since, result);
        }
        self.incidents.put(incident);
    }

    fn step_ended(&mut self, now: Now, incident: &mut Incident, step: Step, since: Moment, result: StepResult) {
        let took = u64::try_from(now.mono.since(since).as_millis()).unwrap_or(u64::MAX).max(1);
        let (resolution, detail) = result.said();
        incident.ended(now, step.id, resolution, &detail);
        incident.event(now, format!("{} {resolution}: {detail}", step.action));
        self.record_outcome(&step, &result, took);
        if resolution != "done" && step.action.moves_leader() {
            self.facts.leader_moves = None;
        }
        if resolution != "refused" {
            (incident.refused, incident.held, incident.denied) = (None, None, 0);
        }
        if ladder::leaves(step.action, &step.with) {
            // The heartbeat that is known is from before: what it shows not yet is not lost.
            incident.said_again = Some(now.mono);
            if step.action == Action::SetMode && resolution == "done" {
                incident.told_to = self.facts.running();
            }
        }
        if step.again {
            incident.flight = Flight::Idle;
            return;
        }
        if let StepResult::Refused { guard, evidence } = result {
            self.close_if_disruptive(&step, &detail);
            // Nothing was done: neither the attempt counts nor a budget is used up, but a new slot is needed.
            let undo = ladder::is_undo(step.action, &step.with);
            incident.attempt = incident.attempt.saturating_sub(u32::from(!undo));
            if Self::counts(incident, &step) {
                self.ledger.refused(step.action, &step.subject);
            }
            self.restart_failed(&step);
            self.slot_refused(now, incident, &step, guard, &evidence);
            // What refuses it may do so for long, and each try asks the holder for a slot.
            incident.denied = incident.denied.saturating_add(1);
            let wait = jitter::spread(self.policy.wait_before(incident.denied), &incident.id, incident.denied);
            incident.not_before = incident.not_before.max(now.mono + wait);
            return;
        }
        if resolution == "failed" {
            self.close_if_disruptive(&step, &detail);
            self.restart_failed(&step);
            return self.attempt_failed(now, incident);
        }
        match self.effect_of(incident, &step) {
            Some(Effect::DiskState { deadline, .. } | Effect::HostState { deadline, .. }) => {
                incident.flight = Flight::Seeing { step, until: now.mono + deadline };
            }
            Some(Effect::NodeState { deadline, .. }) => {
                incident.flight = Flight::Seeing { step, until: now.mono + deadline };
            }
            Some(Effect::Relief { within }) => {
                if step.disruptive {
                    self.close_slot(&step, true, &detail);
                }
                incident.flight = Flight::Idle;
                if ladder::is_undo(step.action, &step.with) {
                    return self.taken_back(now, incident, &detail);
                }
                incident.not_before = now.mono + within;
            }
            Some(Effect::Proof { deadline }) => self.prove(now, incident, deadline),
            Some(Effect::Quiet) | None => incident.flight = Flight::Idle,
        }
    }

    fn seeing(&mut self, now: Now, incident: &mut Incident, step: &Step, until: Moment) {
        let undo = ladder::is_undo(step.action, &step.with);
        let rung = if undo { Some(self.undo_of(incident)) } else { self.rung(incident) };
        let seen = rung.and_then(|rung| match (&step.subject, rung.effect) {
            (_, Effect::NodeState { shows, deadline }) => {
                let since = Moment(until.0.saturating_sub(deadline));
                self.node_shows(shows, Some(since)).then_some("it was to be")
            }
            (Subject::Hosts(hosts), Effect::HostState { states, .. }) => self.hosts_shown(hosts, states),
            _ => self.shown(incident, &rung),
        });
        if let Some(state) = seen.map(str::to_owned) {
            let told = format!("the node shows {} as {state}", step.subject);
            if step.disruptive {
                self.close_slot(step, true, &told);
            }
            incident.flight = Flight::Idle;
            match step.action {
                _ if undo && is_watched(incident.mode) => self.taken_back(now, incident, &told),
                Action::SetMode if undo => incident.throttled = false,
                Action::MarkUp => self.unmarked(now, incident, &told),
                _ => self.next_rung(now, incident, &told),
            }
        } else if now.mono >= until {
            self.close_if_disruptive(step, "the node does not show what the step did");
            incident.event(now, "the node does not show what the step did");
            self.attempt_failed(now, incident);
        }
    }

    pub(crate) fn attempt_failed(&mut self, now: Now, incident: &mut Incident) {
        incident.flight = Flight::Idle;
        incident.state =
            if incident.state == IncidentState::Escalated { incident.state } else { IncidentState::Recovering };
        // Elsewhere the ladder's next step must not wait for what proofs did.
        let in_vain = if damage::is_damage(incident.mode) { incident.in_vain } else { 0 };
        let attempt = incident.attempt.max(incident.undone).max(in_vain);
        incident.not_before = now.mono + jitter::spread(self.policy.wait_before(attempt), &incident.id, attempt);
    }

    /// The newest of what was done to the node is taken back.
    fn taken_back(&mut self, now: Now, incident: &mut Incident, why: &str) {
        if let Some((action, with)) = incident.applied.pop() {
            incident.event(now, format!("{action} {with} is taken back: {why}"));
        }
        incident.undone = 0;
        incident.flight = Flight::Idle;
        // Should it fall ill again before it is proven well, the ladder begins at its foot.
        (incident.rung, incident.attempt) = (0, 0);
    }

    /// A restart that did not come about leaves a process whose end, if it is one now, was not the end of this.
    pub(crate) fn restart_failed(&mut self, step: &Step) {
        if step.action == Action::RestartNode
            && let Planned::Life(life) = self.planned
        {
            self.planned = Planned::Failed(life);
        }
    }

    /// A step that is passed over is a decision: it is written down.
    pub(crate) fn record_skip(&mut self, incident: &Incident, why: &str) {
        let mut draft = self.draft_about(RecordKind::Note, Action::Skip, incident).with("evidence", why);
        if let Some(rung) = self.rung(incident) {
            draft.grade = Some(rung.grade);
            draft = draft.with("skipped", rung.action.as_str());
        }
        self.record(draft, false);
    }

    /// What is held back for long is told once: a shadow, or a guard, must not be where an incident is forgotten. A budget that is used
    /// up, and a target that flaps, hold for so long that it is told at once.
    pub(crate) fn tell_when_held(&mut self, now: Now, incident: &mut Incident, held: &GuardResult) {
        let (since, told) = *incident.held.get_or_insert((now.mono, false));
        let at_once = matches!(held.guard, GuardName::Budget | GuardName::Backoff);
        let soon = now.mono.since(since) < self.policy.scaled(self.policy.told_when_held);
        let known = |(guard, at): (GuardName, Moment)| guard == held.guard && now.mono.since(at) < TOLD_AT_ONCE_EVERY;
        if told || (soon && !at_once) || incident.told_at_once.is_some_and(known) {
            return;
        }
        incident.held = Some((since, true));
        incident.told_at_once = at_once.then_some((held.guard, now.mono)).or(incident.told_at_once);
        let why = format!("held for {} s by {}: {}", now.mono.since(since).as_secs(), held.guard, held.evidence);
        incident.event(now, format!("a person is told: {why}"));
        let draft = self
            .draft_about(RecordKind::Note, Action::Alert, incident)
            .with("evidence", why)
            .with("guard", held.guard.as_str());
        self.record(draft, true);
    }

    pub(crate) fn next_rung(&mut self, now: Now, incident: &mut Incident, why: &str) {
        incident.rung += 1;
        incident.attempt = 0;
        incident.flight = Flight::Idle;
        incident.refused = None;
        let wait = self.rung(incident).map_or(Duration::ZERO, |rung| rung.wait);
        incident.not_before = now.mono + wait;
        incident.event(now, format!("next step of the ladder in {} ms: {why}", wait.as_millis()));
    }

    pub(crate) fn close(&mut self, now: Now, incident: &mut Incident, why: &str) {
        incident.event(now, format!("resolved: {why}"));
        incident.state = IncidentState::Resolved;
        incident.flight = Flight::Idle;
        incident.closed_ms = Some(now.wall_ms);
        incident.resolution = Some(why.to_owned());
        let action = incident.steps.last().map_or(Action::Skip, |step| step.action);
        let mut draft = self.draft_about(RecordKind::Resolved, action, incident).with("resolution", why);
        draft.duration_ms = Some(now.wall_ms.saturating_sub(incident.opened_ms));
        self.record(draft, true);
        match incident.mode {
            Mode::ProcessCrash => self.answered = incident.life,
            Mode::CascadingFailure => self.cascade_over(incident),
            _ => {}
        }
    }

    pub(crate) fn escalate(&mut self, now: Now, incident: &mut Incident, why: &str) {
        incident.event(now, format!("a person is needed: {why}"));
        incident.state = IncidentState::Escalated;
        incident.flight = Flight::Idle;
        incident.left_running = self.facts.running();
        incident.resolution = Some(why.to_owned());
        incident.not_before = now.mono + self.look_again();
        let mut draft = self.draft_about(RecordKind::Escalated, Action::Alert, incident).with("evidence", why);
        draft.guards.clone_from(&incident.guards);
        if let Some(held) = incident.guards.iter().find(|result| !result.passed) {
            draft = draft.with("guard", held.guard.as_str());
        }
        self.record(draft, true);
    }

    pub(crate) fn rung(&self, incident: &Incident) -> Option<Rung> {
        ladder::ladder(incident.mode, &self.policy).into_iter().nth(incident.rung)
    }

    pub(crate) fn undo_of(&self, incident: &Incident) -> Rung {
        ladder::undo(incident.mode, incident.applied.last(), &self.policy)
    }

    fn effect_of(&self, incident: &Incident, step: &Step) -> Option<Effect> {
        match step.action {
            action if ladder::is_undo(action, &step.with) => Some(self.undo_of(incident).effect),
            _ => self.rung(incident).map(|rung| rung.effect),
        }
    }

    pub(crate) fn close_slot(&mut self, step: &Step, verified: bool, detail: &str) {
        self.out.push(Command::CloseSlot { step: step.clone(), verified, detail: detail.to_owned() });
    }

    fn close_if_disruptive(&mut self, step: &Step, detail: &str) {
        if step.disruptive {
            self.close_slot(step, false, detail);
        }
    }
}
