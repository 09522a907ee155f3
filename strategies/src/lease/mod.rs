//! The agents' lease: who may order a disruptive step, and how a step of a former holder is kept from taking effect.
//!
//! PaxosLease with durable promises. A proposer ([`Proposer`]) asks all acceptors to *prepare* a ballot higher than any
//! they promised, then to *accept* it for [`LEASE`]; a majority grants. Each holder's ballot is higher than every
//! earlier one's, so (epoch, ballot) is a fence: the target's agent ([`FenceGate`]) keeps the highest it has seen on
//! disk and refuses lower ones where the step takes effect. Slots (which target, under which fence) are opened at a
//! majority of the acceptors and survive the lease: a successor learns the open ones while it prepares.
//!
//! Owns: the rules. Must never: send, store, or look at a clock: whoever calls does, and hands in what came of it.
//!
//! Invariants (each one is checked by the simulation in `simulation.rs`, which also shows that planted bugs break it):
//! - at no instant do two agents believe that they hold the lease;
//! - fences rise strictly from holder to holder;
//! - a gate that let a fence pass never lets a lower one pass again, over any restart;
//! - a slot that was opened and not closed is known to every later holder.
//!
//! Time: the holder counts from before asking, the granters from after answering, each on its own monotonic clock. The
//! clocks need not agree, only run at about the same rate; [`TERM`] leaves a margin of 5 % for that.

mod acceptor;
mod gate;
mod messages;
mod proposer;
#[cfg(test)]
mod simulation;
mod slots;

pub use acceptor::{Acceptor, AcceptorOptions, Answer, Grant, Persisted};
pub use gate::{FenceGate, Stale};
pub use messages::{
    AcceptReply, AcceptRequest, Ballot, PrepareReply, PrepareRequest, ReleaseRequest, Slot, SlotReply, SlotRequest,
};
pub use proposer::{
    BadMembers, LeaseEffect, LeaseEvent, LeaseMessage, LeaseReply, LeaseState, Proposer, ProposerOptions,
};
pub use slots::{Busy, SlotBook, SlotState, step_name};

use std::time::Duration;

/// How long a grant lasts. Long enough for three renewals, short enough that a dead holder is replaced soon.
pub const LEASE: Duration = Duration::from_secs(10);

/// How long a holder believes: [`LEASE`] less a margin for clocks that run at different rates.
pub const TERM: Duration = Duration::from_millis(9_500);

/// How often a holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(3);

/// How long an answer is waited for. Below [`RENEW_EVERY`], so that rounds do not overlap.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Slots an acceptor remembers. At most one is open at a time; the rest are of targets nobody could reach.
pub const MAX_SLOTS: usize = 64;

/// How many of `members` are a majority.
pub fn majority(members: usize) -> usize {
    members / 2 + 1
}

/// A planted bug, to show that the tests would catch it.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The acceptor keeps its promise in memory only.
    ForgetPromise,
    /// The acceptor grants as soon as it is back.
    GrantAfterRestart,
    /// The holder counts from when the majority answered.
    CountFromAnswer,
    /// The acceptor gives away what another one holds.
    IgnoreGrant,
    /// The gate keeps its highest fence in memory only.
    ForgetFence,
    /// The acceptor keeps its slots in memory only.
    ForgetSlots,
    /// The proposer takes one acceptor's word for the open slots.
    FirstSlotsOnly,
    /// The holder needs no majority.
    MinorityWins,
}
