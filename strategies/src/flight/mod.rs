//! The flight recorder, as far as it is pure: how the engine's inputs are written down, and what another policy would have
//! done with them.
//!
//! Owns: the recording's format (docs/replay.md), the replay and the comparison. Must never: touch a file (the agent does), or
//! say of what came after a policy's first own step what the world would have answered: nobody knows.
//!
//! A recording is made of segments, each of lines of JSON: first a head with a checkpoint of the engine, then one line per
//! input with what the engine commanded. An input that equals the last one of its kind is written as a reference to it.

mod compare;
mod replay;
mod tape;

pub use compare::{Decision, Difference, IncidentReport, Verdict};
pub use replay::{Replay, ReplayError, Report};
pub use tape::{BadLine, Event, FORMAT, Head, Kept, Player, Tape};
