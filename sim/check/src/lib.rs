//! What must hold in a simulated cluster, whatever happens to it.
//!
//! Owns: the invariants (one file each under `invariants/`), the model of the cluster that they share ([`World`]), and
//! the clients' [`oracle`].
//!
//! Must never: touch the cluster, draw a random number, or know a clock but the one of the events it is told. The same
//! events always give the same verdict.
//!
//! How it works: the simulator tells a [`Checker`] every event in order: facts that node and agent state
//! (`resilver_host::audit`), and what it does to them itself. The first broken rule is a [`Violation`].

mod checker;
mod event;
pub mod invariants;
mod journal;
mod log;
pub mod oracle;
#[cfg(test)]
mod testing;
mod world;

pub use checker::Checker;
pub use event::{Event, Happening, Stamped};
pub use invariants::{Invariant, Limits, Violation};
pub use log::{Held, Log};
pub use world::{Member, MemberId, World};
