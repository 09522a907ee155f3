//! The recovery agent: sensors → engine → executors.
//!
//! Owns: everything between the pure core (`strategies`) and the world: watching the node of this host, doing the steps
//! that were decided, the journal, the agents' lease, the API for people.
//!
//! Must never: decide what is wrong or what to do about it (that is the engine's), end the node because the agent ends,
//! or act on another host than its own.
//!
//! Invariants: a durable record is on disk before the step it announces begins; a disruptive step passes the persisted
//! fence gate where it takes effect; what the agent was doing when it was killed is finished once by its next life.

mod agent;
mod approvals;
mod coordinator;
mod executors;
mod facts;
pub mod flight;
mod health;
mod http;
pub mod journal;
pub mod keeper;
mod lease;
mod links;
mod log_tail;
mod main_loop;
pub mod options;
mod peer_service;
mod replay;
pub mod run_dir;
mod sensors;
pub mod service;
mod state;
mod swim;
mod telemetry;
mod timebase;

pub use crate::agent::{Agent, AgentError};
pub use crate::keeper::{KeeperOptions, run_keeper};
pub use crate::lease::{LeaseError, acceptors};
pub use crate::options::{
    FlightOptions, Gossip, Invocation, JournalOptions, Launch, Options, Peer, ServiceKind, ServiceOptions, SmartSource,
};
#[cfg(feature = "quantity")]
pub use crate::swim::scale as gossip_at_scale;
pub use crate::swim::{GossipError, KeyError, new_key_file};
