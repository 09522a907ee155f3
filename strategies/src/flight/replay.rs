//! Gives a recording's inputs to an engine again, with the policy they were decided by or with another.
//!
//! With another policy the recorded answers fit only what both policies asked: an answer to a step, a slot or a proof is
//! handed on when the replaying engine has asked the same (the same action to the same subject), and left out otherwise.

use std::collections::BTreeMap;

use serde::Serialize;

use super::compare::{IncidentReport, Key, Track, Verdict, compare, key};
use super::tape::{Event, Head};
use crate::api::{Command, IncidentId, Input, OperatorCommand, Step, StepId, Subject};
use crate::config::PolicyConfig;
use crate::engine::{BadCheckpoint, Engine};
use crate::types::Action;

/// Why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The checkpoint is none of this version's engine.
    #[error("segment {segment}, written by version {program}")]
    Checkpoint {
        /// Which segment.
        segment: u64,
        /// Who wrote it.
        program: String,
        /// Why not.
        source: BadCheckpoint,
    },
}

/// What a replay found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Whose engine.
    pub node: String,
    /// By which policy: the recorded one, or another.
    pub policy: &'static str,
    /// All decisions are the same.
    pub same: bool,
    /// Segments read.
    pub segments: u64,
    /// Inputs replayed.
    pub inputs: u64,
    /// Inputs that the recorder had lost.
    pub lost: u64,
    /// Times that the replay had to begin anew from a checkpoint.
    pub restarts: u64,
    /// First input, milliseconds since the Unix epoch.
    pub from_ms: Option<u64>,
    /// Last input.
    pub to_ms: Option<u64>,
    /// Decisions in the recording.
    pub recorded_decisions: usize,
    /// Decisions in the replay.
    pub replayed_decisions: usize,
    /// With the recorded policy: inputs after which something else was commanded than then, to the last letter.
    pub inputs_decided_otherwise: u64,
    /// With the recorded policy: segments whose checkpoint is not the state that the replay had come to.
    pub checkpoints_off: u64,
    /// With another policy: recorded answers to what it did not ask, left out.
    pub answers_left_out: u64,
    /// Incident by incident, oldest first.
    pub incidents: Vec<IncidentReport>,
    /// What could not be read, in words.
    pub notes: Vec<String>,
}

/// A replay under way.
#[derive(Debug, Default)]
pub struct Replay {
    policy: Option<PolicyConfig>,
    engine: Option<Engine>,
    node: String,
    then: Track,
    now: Track,
    asked_then: Asked,
    asked_now: Asked,
    report: Counts,
    notes: Vec<String>,
    /// Inputs are missing since: the next checkpoint is gone on from.
    gap: bool,
}

#[derive(Debug, Default)]
struct Counts {
    segments: u64,
    inputs: u64,
    lost: u64,
    restarts: u64,
    from_ms: Option<u64>,
    to_ms: Option<u64>,
    otherwise: u64,
    checkpoints_off: u64,
    left_out: u64,
}

/// What a run asked and was not answered yet.
#[derive(Debug, Default)]
struct Asked {
    steps: BTreeMap<StepId, (Action, Subject, Option<Key>)>,
    incidents: BTreeMap<IncidentId, Key>,
}

impl Asked {
    fn read(&mut self, commands: &[Command]) {
        for command in commands {
            match command {
                Command::Record { draft, .. } => {
                    if let (Some(id), Some(mode), Some(subject)) = (&draft.incident, draft.mode, draft.subject()) {
                        // A step may be about less than its incident: the opening names the whole.
                        self.incidents.entry(id.clone()).or_insert_with(|| key(mode, &subject));
                    }
                }
                Command::TakeSlot(step) | Command::Execute(step) => {
                    self.steps.insert(step.id, self.of(step));
                }
                _ => {}
            }
        }
    }

    fn of(&self, step: &Step) -> (Action, Subject, Option<Key>) {
        let incident = step.incident.as_ref().and_then(|id| self.incidents.get(id)).cloned();
        (step.action, step.subject.clone(), incident)
    }

    /// This run's own name for a step of the other one.
    fn step(&self, other: &Asked, id: StepId) -> Option<StepId> {
        let wanted = other.steps.get(&id)?;
        self.steps.iter().rev().find(|(_, asked)| *asked == wanted).map(|(id, _)| *id)
    }

    fn incident(&self, other: &Asked, id: &IncidentId) -> Option<IncidentId> {
        let wanted = other.incidents.get(id)?;
        // The newest: by its number, which no order of texts is.
        let of_it = self.incidents.iter().filter(|(_, known)| *known == wanted);
        of_it.max_by_key(|(id, _)| id.number()).map(|(id, _)| id.clone())
    }
}

impl Replay {
    /// A replay by the policy that the inputs were decided by, or (`Some`) by another.
    pub fn new(policy: Option<PolicyConfig>) -> Replay {
        Replay { policy, ..Replay::default() }
    }

    /// A segment begins.
    ///
    /// # Errors
    /// When its checkpoint is needed and cannot be read.
    pub fn head(&mut self, head: Head) -> Result<(), ReplayError> {
        self.report.segments += 1;
        self.report.lost += head.lost;
        self.node = head.node;
        let gap = std::mem::take(&mut self.gap) || head.lost > 0;
        if let Some(engine) = self.engine.as_ref().filter(|_| head.continues && !gap) {
            if self.policy.is_none() {
                let own: Option<serde_json::Value> = serde_json::from_str(&engine.checkpoint()).ok();
                self.report.checkpoints_off += u64::from(own.as_ref() != Some(&head.engine));
            }
            return Ok(());
        }
        let (segment, program) = (head.segment, head.program);
        let restored = Engine::restore(&head.engine.to_string());
        let mut engine = restored.map_err(|source| ReplayError::Checkpoint { segment, program, source })?;
        self.report.restarts += u64::from(self.engine.is_some());
        for incident in engine.incidents() {
            let known = key(incident.mode, &incident.subject);
            self.asked_then.incidents.insert(incident.id.clone(), known.clone());
            self.asked_now.incidents.insert(incident.id, known);
        }
        for step in engine.steps_under_way() {
            let asked = self.asked_then.of(&step);
            self.asked_then.steps.insert(step.id, asked.clone());
            self.asked_now.steps.insert(step.id, asked);
        }
        if let Some(policy) = &self.policy {
            engine.adopt(policy.clone());
        }
        self.engine = Some(engine);
        Ok(())
    }

    /// One input.
    pub fn event(&mut self, event: Event) {
        let Event { now, input, did } = event;
        let Some(engine) = &mut self.engine else { return };
        self.report.inputs += 1;
        self.report.from_ms.get_or_insert(now.wall_ms);
        self.report.to_ms = Some(now.wall_ms);
        let input = match self.policy {
            None => Some(input),
            Some(_) => translate(&self.asked_now, &self.asked_then, input),
        };
        self.asked_then.read(&did);
        self.then.add(now.wall_ms, &did);
        let Some(input) = input else {
            self.report.left_out += 1;
            return;
        };
        let does = engine.handle(now, input);
        self.report.otherwise += u64::from(self.policy.is_none() && does != did);
        self.asked_now.read(&does);
        self.now.add(now.wall_ms, &does);
    }

    /// Something that could not be read. What is decided without it says nothing: the replay goes on from the next checkpoint.
    pub fn gap(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
        self.gap = true;
    }

    /// What came of it.
    pub fn finish(self) -> Report {
        let counts = self.report;
        let (recorded_decisions, replayed_decisions) = (self.then.count(), self.now.count());
        let incidents = compare(self.then, self.now);
        let alike = incidents.iter().all(|report| report.verdict == Verdict::Same);
        Report {
            node: self.node,
            policy: if self.policy.is_some() { "another" } else { "recorded" },
            same: alike && counts.otherwise == 0 && counts.checkpoints_off == 0,
            segments: counts.segments,
            inputs: counts.inputs,
            lost: counts.lost,
            restarts: counts.restarts,
            from_ms: counts.from_ms,
            to_ms: counts.to_ms,
            recorded_decisions,
            replayed_decisions,
            inputs_decided_otherwise: counts.otherwise,
            checkpoints_off: counts.checkpoints_off,
            answers_left_out: counts.left_out,
            incidents,
            notes: self.notes,
        }
    }
}

/// An input in the replaying run's own names; `None`: it answers what that run did not ask.
fn translate(own: &Asked, then: &Asked, input: Input) -> Option<Input> {
    Some(match input {
        Input::Finished { step, result } => Input::Finished { step: own.step(then, step)?, result },
        Input::Slot { step, reply } => Input::Slot { step: own.step(then, step)?, reply },
        // The proof of an operator's step belongs to no incident: it goes by the step, which both runs took.
        Input::Proved { incident, result } if !then.incidents.contains_key(&incident) => {
            Input::Proved { incident, result }
        }
        Input::Proved { incident, result } => Input::Proved { incident: own.incident(then, &incident)?, result },
        Input::Offered { incident, token_sha256 } => {
            Input::Offered { incident: own.incident(then, &incident)?, token_sha256 }
        }
        Input::Operator(OperatorCommand::Approve { owner, incident, token_sha256 }) => {
            let incident = own.incident(then, &incident)?;
            Input::Operator(OperatorCommand::Approve { owner, incident, token_sha256 })
        }
        other => other,
    })
}
