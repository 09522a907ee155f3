//! What is on now: a fault, until when, and how it is taken back.
//!
//! Owns: shapes. Must never: take anything back; `inject.rs` does.

use std::path::PathBuf;
use std::time::Duration;

use resilver_sim_kernel::{MachineId, Pid};

use crate::plan::Fault;

/// How an event is taken back.
pub(super) enum Undo {
    Thaw(Vec<Pid>),
    /// Of a saturated machine: those that wait now.
    Ease(usize, Vec<Pid>),
    Links(MachineId),
    /// Machines that do not reach each other, by direction.
    Apart(Vec<(MachineId, MachineId)>),
    /// Nodes that do not reach each other.
    NodesApart(Vec<(MachineId, MachineId)>),
    Memory(MachineId),
    /// What a disk says of itself, and its reads that fail.
    Wear {
        machine: MachineId,
        mount: PathBuf,
        disk: usize,
    },
    Clock(MachineId),
    /// The member of Raft that is slow.
    Slow(u64),
    /// The one that goes its own way, in whatever sense.
    Astray(u64),
    Mend {
        machine: MachineId,
        mount: PathBuf,
        wipe: bool,
    },
    PowerOn(usize),
    Rate(MachineId),
    Disarm,
}

/// An event that is on.
pub(super) struct Active {
    pub(super) until: Duration,
    pub(super) undo: Undo,
    /// For what goes on and off meanwhile.
    pub(super) flap: Option<Flap>,
}

/// A fault that goes on and off.
pub(super) struct Flap {
    /// How long it is on, and then off.
    on: Duration,
    off: Duration,
    is_on: bool,
    /// When that changes.
    next: Duration,
}

impl Flap {
    /// Begins now, with what it is on for.
    pub(super) fn begin(now: Duration, on: Duration, off: Duration) -> Self {
        Self { on, off, is_on: true, next: now + on }
    }

    /// Whether it changes now, and to what.
    pub(super) fn turn(&mut self, now: Duration) -> Option<bool> {
        if now < self.next {
            return None;
        }
        self.is_on = !self.is_on;
        self.next = now + if self.is_on { self.on } else { self.off };
        Some(self.is_on)
    }
}

/// A fault that took effect, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Struck {
    /// What.
    pub(crate) fault: Fault,
    /// Its machines' names: the one that it strikes, and of two that do not reach each other the other one.
    pub(crate) machines: Vec<String>,
    /// From when.
    pub(crate) from: Duration,
    /// Until when at the latest; what ends at once leaves something behind.
    pub(crate) until: Duration,
}
