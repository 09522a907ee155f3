//! The lines of a recording: written by [`Tape`], read by [`Player`].
//!
//! Invariants: a segment can be read without any other; a line that cannot be read ends it (the rest refers to what is not
//! there any more), and what came before stays good.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::{Command, Input, Observation};
use crate::engine::Engine;
use crate::types::{Moment, Now};

/// Version of the format.
pub const FORMAT: u32 = 1;

/// Kinds of inputs whose last one is remembered for folding. Each peer and each disk is one; beyond it inputs are written out.
const MAX_KINDS: usize = 2048;

/// What a segment begins with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the format.
    pub flight: u32,
    /// Version of the program that wrote it: another one may decide otherwise.
    pub program: String,
    /// Whose engine.
    pub node: String,
    /// Number of the segment; the next one has the next number, also after a restart of the agent.
    pub segment: u64,
    /// When, milliseconds since the Unix epoch, for people.
    pub at_ms: u64,
    /// It goes on exactly where the segment before it ended.
    pub continues: bool,
    /// Inputs lost just before it: they came faster than they could be written.
    pub lost: u64,
    /// The engine, before the segment's first input.
    pub engine: Value,
}

/// A line after the head.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// The agent's clock, nanoseconds.
    ns: u64,
    /// Wall time, milliseconds since the Unix epoch.
    ms: u64,
    /// The input, the first time. These are counted from 0 within a segment.
    #[serde(rename = "in", default, skip_serializing_if = "Option::is_none")]
    input: Option<Input>,
    /// The same as the input of this count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    again: Option<u64>,
    /// What was commanded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    did: Vec<Command>,
}

/// One input and what the engine made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub now: Now,
    /// What came in.
    pub input: Input,
    /// What was commanded.
    pub did: Vec<Command>,
}

/// An input on its way into a line: noted before the engine takes it.
#[derive(Debug)]
pub struct Kept {
    now: Now,
    input: Option<Input>,
    again: Option<u64>,
}

/// The writing end: folds, and makes lines.
#[derive(Debug, Default)]
pub struct Tape {
    last: BTreeMap<String, (u64, Input)>,
    count: u64,
}

impl Tape {
    /// Begins a segment; the line.
    pub fn head(&mut self, mut head: Head, engine: &Engine) -> String {
        self.last.clear();
        self.count = 0;
        // A checkpoint is text that is JSON already: the rest of the head is put around it.
        head.engine = Value::Null;
        let text = to_text(&head);
        let open = text.strip_suffix("null}").expect("the engine is the head's last field");
        format!("{open}{}}}", engine.checkpoint())
    }

    /// Notes an input, before the engine takes it.
    pub fn note(&mut self, now: Now, input: &Input) -> Kept {
        let kind = kind(input);
        let known = kind.as_ref().and_then(|kind| self.last.get(kind));
        if let Some((count, _)) = known.filter(|(_, last)| last == input) {
            return Kept { now, input: None, again: Some(*count) };
        }
        if let Some(kind) = kind
            && (self.last.len() < MAX_KINDS || self.last.contains_key(&kind))
        {
            self.last.insert(kind, (self.count, input.clone()));
        }
        self.count += 1;
        Kept { now, input: Some(input.clone()), again: None }
    }

    /// The line of a noted input, with what the engine commanded.
    pub fn line(kept: Kept, did: &[Command]) -> String {
        let Kept { now, input, again } = kept;
        let ns = u64::try_from(now.mono.0.as_nanos()).unwrap_or(u64::MAX);
        to_text(&Entry { ns, ms: now.wall_ms, input, again, did: did.to_vec() })
    }
}

fn to_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and maps with text keys always serialize")
}

/// What kind of input it is, for folding; `None`: each is its own.
fn kind(input: &Input) -> Option<String> {
    let observation = match input {
        Input::Tick => return Some("tick".to_owned()),
        Input::Lease { .. } => return Some("lease".to_owned()),
        Input::Observed(observation) => observation,
        _ => return None,
    };
    Some(match observation {
        Observation::Process(_) => "process".to_owned(),
        Observation::Heartbeat(_) => "heartbeat".to_owned(),
        Observation::HeartbeatMissed { .. } => "missed".to_owned(),
        Observation::Peer(fact) => format!("peer {}", fact.node),
        Observation::Smart(fact) => format!("smart {}", fact.disk),
        Observation::Host(_) => "host".to_owned(),
        Observation::Canary(_) => "canary".to_owned(),
        Observation::Replicas(_) => "replicas".to_owned(),
        Observation::ProcessState(_) => "state".to_owned(),
        Observation::Watch(_) | Observation::Failures { .. } | Observation::LogMatch(_) => return None,
    })
}

/// A line that is none of a recording.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// It is no such JSON.
    #[error("the line cannot be read")]
    Json(#[from] serde_json::Error),
    /// A newer program wrote it.
    #[error("format {0} is newer than this program knows ({FORMAT})")]
    Newer(u32),
    /// It refers to an input that did not come.
    #[error("the line refers to input {0}, which is not there")]
    Reference(u64),
    /// Neither an input nor a reference.
    #[error("the line holds no input")]
    Empty,
}

/// The reading end of one segment.
#[derive(Debug, Default)]
pub struct Player {
    inputs: Vec<Input>,
}

impl Player {
    /// Reads a segment's first line.
    ///
    /// # Errors
    /// When it is none.
    pub fn head(line: &str) -> Result<Head, BadLine> {
        let head: Head = serde_json::from_str(line)?;
        if head.flight > FORMAT { Err(BadLine::Newer(head.flight)) } else { Ok(head) }
    }

    /// Reads the next line.
    ///
    /// # Errors
    /// When it cannot be: then the segment ends here.
    pub fn event(&mut self, line: &str) -> Result<Event, BadLine> {
        let Entry { ns, ms, input, again, did } = serde_json::from_str(line)?;
        let input = match (input, again) {
            (Some(input), _) => {
                self.inputs.push(input.clone());
                input
            }
            (None, Some(count)) => {
                let at = usize::try_from(count).ok();
                at.and_then(|at| self.inputs.get(at)).cloned().ok_or(BadLine::Reference(count))?
            }
            (None, None) => return Err(BadLine::Empty),
        };
        Ok(Event { now: Now { mono: Moment(Duration::from_nanos(ns)), wall_ms: ms }, input, did })
    }
}
