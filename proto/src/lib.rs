//! The gRPC contracts between node and agent, and the one way to speak them.
//!
//! Owns: the generated messages and services, one module per package, and [`transport`]: how a server listens and how a
//! client connects through the host seam.
//!
//! Must never: hold a rule. What a refused fence or a lost quorum means is decided in `node`, `agent` and `strategies`.

pub mod transport;
pub mod web;

/// What a message weighs on the wire, without what frames it.
pub fn encoded_bytes(message: &impl prost::Message) -> u64 {
    message.encoded_len() as u64
}

/// Messages that several packages share.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod common {
    tonic::include_proto!("resilver.common.v1");
}
/// What an engine implements to be pluggable.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod contract {
    tonic::include_proto!("resilver.contract.v1");
}
/// What clients and operators ask of a node.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod store {
    tonic::include_proto!("resilver.store.v1");
}
/// Between nodes of one cluster.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod internal {
    tonic::include_proto!("resilver.internal.v1");
}
/// Between agents.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod agent {
    tonic::include_proto!("resilver.agent.v1");
}
/// Locks of the cluster.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod locks {
    tonic::include_proto!("resilver.locks.v1");
}
