//! How shards travel between nodes: one service on every node ([`ShardService`]) and one client ([`ShardClient`]) that
//! takes the short cut when the disk is our own.
//!
//! Owns: the messages of `Shards`, who is asked for which disk, and deadlines. Which peers fail, [`crate::peers`] remembers.
//! Must never: decide where a shard should be, retry a call, or hand on a block whose CRC it has not checked.
//!
//! Invariants:
//! - A put that does not end with `last` leaves nothing under a final name: giving up is the default, finishing is said.
//! - A reader drains what it asked for at once. It asks for no more than it has room for, because unread streams would
//!   fill the connection's HTTP/2 window and stall everything else to that peer, Raft included.
//! - A call to a peer that failed three times in a row fails at once, except for one probe every two seconds.

mod client;
mod error;
mod gather;
mod home;
mod pace;
mod service;
mod sink;
mod stream;
mod wire;

use std::time::Duration;

pub use client::{Preference, ShardClient};
pub use error::TransportError;
pub(crate) use pace::{Detours, Pace};
pub use service::ShardService;
pub use sink::BlockSink;
pub use stream::BlockStream;

/// Blocks per message. Four halve the cost per byte against one (header frames, wake-ups); more only adds latency to the
/// first block and memory to each stream.
pub const BLOCKS_PER_MESSAGE: usize = 4;

/// How long a home keeps an upload of which nothing arrives. Longer than the gateway waits for its client: a client that
/// pauses is no reason to give shards up, and a gateway that died is noticed by HTTP/2's keepalive before this.
pub const UPLOAD_IDLE_DEADLINE: Duration = Duration::from_secs(60);
