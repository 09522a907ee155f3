//! The flight recorder: keeps what the engine was told and what it commanded, so that every incident can be decided again.
//!
//! Owns: the files of `flight/`: compressed segments of the lines that `strategies::flight` makes, their rotation and their
//! bound. Reading them back for a replay.
//!
//! Must never: hold the engine up. Lines wait in a bounded queue; what does not fit is lost, counted, and told by the next
//! segment's head, which begins from a checkpoint of its own. Nor be needed: an agent whose recorder cannot write goes on.
//!
//! Invariants: all segments together stay within [`FlightOptions::max_bytes`]; a segment that was cut off (a crash, a full
//! disk) is read as far as it goes.

mod reader;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use resilver_host::Host;
use resilver_strategies::api::{Command, Input};
use resilver_strategies::engine::Engine;
use resilver_strategies::flight::{FORMAT, Head, Kept, Tape};
use resilver_strategies::types::{Moment, Now};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use reader::{FlightError, replay};
pub(crate) use writer::Writer;

/// Lines that may wait to be compressed: a second of a busy agent is a few dozen.
const MAX_WAITING: usize = 512;

/// How long after a loss the recorder begins again: a checkpoint is the largest line, and not what a busy agent needs.
const BEGIN_AGAIN: Duration = Duration::from_secs(10);

/// How much of a recording one segment holds, compressed: small enough that dropping the oldest loses hours, not days.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// The least that is asked for: a segment that is written, one that is whole.
pub const MIN_BYTES: u64 = 2 * SEGMENT_BYTES;

/// The most that is taken by default: days of an ordinary host, and no burden for the disk of the agent's folder.
pub const DEFAULT_BYTES: u64 = 64 * 1024 * 1024;

/// The flight recorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FlightOptions {
    /// Whether the engine's inputs are recorded, in `flight/` of the agent's folder.
    pub enabled: bool,
    /// The most that all of it may take; the oldest goes. At least 8 MiB.
    pub max_bytes: u64,
}

impl Default for FlightOptions {
    fn default() -> Self {
        Self { enabled: true, max_bytes: DEFAULT_BYTES }
    }
}

/// What goes to the writer.
pub(crate) enum Message {
    /// A segment begins with this line.
    Begin(String),
    /// The next line of the present segment.
    Line(String),
}

/// What the writer tells the main loop.
#[derive(Default)]
pub(crate) struct Flags {
    /// There is enough in the present segment.
    full: AtomicBool,
    /// Writing failed: the present segment has lost what was in it and not written yet.
    broken: AtomicBool,
}

/// The main loop's end.
pub(crate) struct Recorder {
    tape: Tape,
    out: mpsc::Sender<Message>,
    flags: Arc<Flags>,
    node: String,
    segment: u64,
    open: bool,
    /// Whether the next segment goes on where the last one ended.
    continues: bool,
    lost: u64,
    lost_at: Option<Moment>,
}

impl Recorder {
    /// A recorder and its writer, which goes on with segment `next`. `None` where recording is switched off, or its folder
    /// cannot be used: that is worth a word, no more.
    pub(crate) async fn open(host: &Host, options: &crate::options::Options) -> Option<(Recorder, Writer)> {
        if !options.flight.enabled {
            return None;
        }
        let (out, lines) = mpsc::channel(MAX_WAITING);
        let flags = Arc::new(Flags::default());
        let max_bytes = options.flight.max_bytes.max(MIN_BYTES);
        match Writer::open(host, options.flight_dir(), max_bytes, lines, flags.clone()).await {
            Ok(writer) => {
                let recorder = Recorder {
                    tape: Tape::default(),
                    out,
                    flags,
                    node: options.name.clone(),
                    segment: writer.next_segment(),
                    open: false,
                    continues: false,
                    lost: 0,
                    lost_at: None,
                };
                Some((recorder, writer))
            }
            Err(error) => {
                tracing::warn!(%error, dir = %options.flight_dir().display(), "the flight recorder cannot be used");
                None
            }
        }
    }

    /// Notes an input before the engine takes it.
    pub(crate) fn note(&mut self, engine: &Engine, now: Now, input: &Input) -> Option<Kept> {
        if self.flags.broken.swap(false, Ordering::Relaxed) {
            self.lose(now);
        }
        if (!self.open || self.flags.full.load(Ordering::Relaxed)) && !self.begin(engine, now) {
            self.lose(now);
            return None;
        }
        Some(self.tape.note(now, input))
    }

    /// Keeps it, with what the engine commanded.
    pub(crate) fn keep(&mut self, now: Now, kept: Option<Kept>, commands: &[Command]) {
        let Some(kept) = kept else { return };
        if self.out.try_send(Message::Line(Tape::line(kept, commands))).is_err() {
            self.lose(now);
        }
    }

    fn begin(&mut self, engine: &Engine, now: Now) -> bool {
        let waits = self.lost_at.is_some_and(|at| now.mono.since(at) < BEGIN_AGAIN);
        if waits {
            return false;
        }
        let Ok(place) = self.out.try_reserve() else { return false };
        let head = Head {
            flight: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            node: self.node.clone(),
            segment: self.segment,
            at_ms: now.wall_ms,
            continues: self.continues,
            lost: self.lost,
            engine: serde_json::Value::Null,
        };
        let head = self.tape.head(head, engine);
        self.flags.full.store(false, Ordering::Relaxed);
        place.send(Message::Begin(head));
        self.segment += 1;
        (self.open, self.continues) = (true, true);
        (self.lost, self.lost_at) = (0, None);
        true
    }

    fn lose(&mut self, now: Now) {
        self.lost += 1;
        self.lost_at.get_or_insert(now.mono);
        (self.open, self.continues) = (false, false);
    }
}

#[cfg(test)]
mod tests;
