//! What the checker is told: facts that the programs under test state, and what the simulator does to them.

use std::time::Duration;

use resilver_host::audit::Fact;
use serde::Serialize;

/// A fact, with when and by whom it was stated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stamped {
    /// When, in virtual time since the run began.
    pub at: Duration,
    /// On which machine. Machines have the names of the nodes on them.
    pub machine: String,
    /// By what kind of process: `node`, `agent`.
    pub role: String,
    /// By which process. Never used twice in one run.
    pub pid: u32,
    /// What.
    pub fact: Fact,
}

/// What the simulator does, or sees from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "happening")]
#[allow(missing_docs)] // The fields are machines, processes and paths.
pub enum Happening {
    /// From now on faults are injected.
    FaultsOn,
    /// Faults are over: the cluster must heal.
    FaultsOff,
    /// A fault that no other event tells of, in words.
    Fault { what: String },
    /// A process began.
    ProcessStarted { machine: String, role: String, pid: u32 },
    /// A process ended, however.
    ProcessEnded { machine: String, role: String, pid: u32 },
    /// A process stands still (SIGSTOP).
    Frozen { machine: String, pid: u32 },
    /// It goes on.
    Thawed { machine: String, pid: u32 },
    /// A machine lost its power. Each of its processes also ends, by an event of its own.
    PowerLost { machine: String },
    /// It has power again.
    PowerBack { machine: String },
    /// Nothing sent from one machine reaches the other any more.
    Cut { from: String, to: String },
    /// It does again.
    Mended { from: String, to: String },
    /// A machine's wall clock was set.
    ClockJumped { machine: String },
    /// Bytes of a file changed behind everybody's back. They stay so until the file is written anew.
    Rotted { machine: String, path: String },
    /// A folder's disk was replaced by an empty one.
    Wiped { machine: String, path: String },
    /// A program said that a file is durable, and a power loss in this moment could take it.
    NotDurable { machine: String, path: String },
    /// A program removed a file.
    FileRemoved { machine: String, path: String },
}

/// One event. They are told in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// A program stated a fact.
    Fact(Stamped),
    /// The simulator did something, or saw it.
    Kernel {
        /// When.
        at: Duration,
        /// What.
        #[serde(flatten)]
        what: Happening,
    },
}

impl Event {
    /// When.
    pub fn at(&self) -> Duration {
        match self {
            Event::Fact(stamped) => stamped.at,
            Event::Kernel { at, .. } => *at,
        }
    }
}
