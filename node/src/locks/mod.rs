//! Locks between nodes: one at a time may change a thing, and whoever was overtaken is refused.
//!
//! Owns: asking for a lock and keeping it ([`Locks`], [`LockGuard`]), how that has gone lately ([`health`]), measuring
//! leases on the leader ([`run_leases`]), breaking the lock of an owner that is proven dead ([`owner_is_dead`]), and the
//! gRPC service. What a lock *is* lies in the metadata: `model::lock` and `state`.
//!
//! Must never: take a lease for protection. Between a look at the clock and what is done then, any time may pass. What is
//! done under a lock carries its token ([`Command::UnderLock`](crate::model::Command::UnderLock)), and is judged where it
//! is applied. Must never, either: compare wall clocks; repeat a release or a break; break a lock because it is old.
//!
//! Invariant: a guard believes in its lease for no longer than the leader does: it counts from before it asked, the
//! leader from after it applied.

mod client;
mod death;
mod error;
mod guard;
pub mod health;
mod leases;
mod service;
mod told;

pub use client::{CONFIG_LEASE, Locks, Terms};
pub(crate) use death::{Announced, Proof, owner_is_dead};
pub use error::LockError;
pub use guard::LockGuard;
pub(crate) use leases::run_leases;
pub(crate) use service::LockService;
pub(crate) use told::LockTold;
