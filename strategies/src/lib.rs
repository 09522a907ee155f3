//! The decision core: detectors, incidents, ladders, guards, plans, the lease's rules. Pure.
//!
//! Owns: every decision the agent takes. [`Engine`](engine::Engine) is a state machine: `handle(now, Input) ->
//! Vec<Command>`.
//!
//! Must never: import a sibling crate, tokio, a clock, randomness, a file or a socket; hold a channel; await. The same
//! inputs give the same commands, always: every incident that ever happened is a test.

pub mod api;
pub mod cascade;
pub mod chain;
pub mod config;
pub mod coordinator;
pub mod engine;
pub mod flight;
pub mod health;
pub mod lease;
pub mod liveness;
pub mod predict;
pub mod record;
pub mod resume;
pub mod storm;
pub mod types;
pub mod watching;
pub mod when;
