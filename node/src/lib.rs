//! The storage node: metadata in Raft, Reed-Solomon shards on disks, recovery services.
//!
//! Reading order: [`types`] and [`model`] name what everything is about; [`meta`] keeps it agreed upon; [`disk`] keeps
//! shards; [`gateway`] turns puts and gets into both; [`s3`] is how clients come to it; [`repair`] brings redundancy back; [`locks`] lets one at a time change a thing; [`control`] answers the agent;
//! [`service`] wires one node together and decides when it may serve.

pub mod codec;
mod company;
pub mod control;
pub mod deadlines;
pub mod disk;
pub mod failures;
pub mod gateway;
mod http;
mod late;
pub mod locks;
pub mod log;
pub mod meta;
pub mod mode;
pub mod model;
pub mod options;
pub mod peers;
pub mod phase;
pub mod placement;
pub mod repair;
pub mod s3;
pub mod service;
pub mod state;
mod steps;
mod telemetry;
#[cfg(test)]
mod testing;
pub mod transport;
pub mod types;
