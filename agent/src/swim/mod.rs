//! SWIM among the agents: who of them is heard by anybody at all.
//!
//! Owns: the gossip's socket, its keys, and what the protocol (the `foca` crate, which does no I/O) makes of it. What is
//! found is one piece of evidence among others, judged in `resilver_strategies::liveness`.
//!
//! Must never: judge a host. It hears agents, not hosts: an agent that was killed is `down` here while its host is well.
//!
//! Invariants: nothing unsealed leaves or enters; datagrams go only to configured members, whatever address a datagram
//! names; what cannot be sent is lost, as datagrams may be.

mod identity;
mod key;
mod randomness;
#[cfg(feature = "quantity")]
pub mod scale;
mod seal;
mod task;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use resilver_host::{Datagram, Host};
use resilver_strategies::api::SwimState;
use tokio::sync::watch;

pub(crate) use self::key::KeyRing;
pub use self::key::{KeyError, new_key_file};
pub(crate) use self::task::Swim;
use crate::options::{Gossip, Options};

/// Why gossip cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The key file cannot be used.
    #[error("gossip cannot be sealed")]
    Key(#[from] KeyError),
    /// A member's address is missing or no address.
    #[error(
        "nodes: {member} has no usable `gossip` address ({found}): write ADDRESS:PORT with a number as address, for every member"
    )]
    Address {
        /// Whose.
        member: String,
        /// What stands there.
        found: String,
    },
    /// The socket.
    #[error("cannot listen for gossip on {address}: is another agent of this host running, or the port taken?")]
    Bind {
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The number of this life.
    #[error("the number of this agent's life cannot be kept in {}", dir.display())]
    Life {
        /// The agent's folder.
        dir: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// How each configured member's agent is, by gossip. Members that were never heard of are absent.
pub(crate) type SwimView = BTreeMap<String, SwimState>;

/// Gossip that is ready to begin.
pub(crate) struct Opened {
    own: identity::Identity,
    peers: BTreeMap<String, SocketAddr>,
    keys: KeyRing,
    socket: Box<dyn Datagram>,
}

/// Reads the key, binds the socket and begins a life.
///
/// # Errors
/// What an operator has to settle before this agent can gossip.
pub(crate) async fn open(host: &Host, options: &Options, gossip: &Gossip) -> Result<Opened, GossipError> {
    let keys = KeyRing::read(&*host.disk, &gossip.key_file).await?;
    let mut peers = BTreeMap::new();
    for peer in options.others() {
        peers.insert(peer.id.clone(), address(&peer.id, peer.gossip.as_deref().unwrap_or_default())?);
    }
    let listed = options.peers.iter().find(|peer| peer.id == options.name).and_then(|peer| peer.gossip.as_deref());
    let address = address(&options.name, listed.unwrap_or(&gossip.listen))?;
    let bound = host.net.bind_datagram(&gossip.listen).await;
    let socket = bound.map_err(|source| GossipError::Bind { address: gossip.listen.clone(), source })?;
    let life = begin(host, &options.dir).await?;
    let own = identity::Identity { name: options.name.as_str().into(), address, life };
    Ok(Opened { own, peers, keys, socket })
}

fn address(member: &str, found: &str) -> Result<SocketAddr, GossipError> {
    let refused = || GossipError::Address { member: member.to_owned(), found: format!("`{found}`") };
    found.parse().map_err(|_| refused())
}

async fn begin(host: &Host, dir: &Path) -> Result<u64, GossipError> {
    let life = identity::begin_life(host, dir).await;
    life.map_err(|source| GossipError::Life { dir: dir.to_owned(), source })
}

/// Where the task shows what it knows, and the rest of the agent reads it.
pub(crate) fn views() -> (Arc<watch::Sender<SwimView>>, watch::Receiver<SwimView>) {
    let (sender, receiver) = watch::channel(SwimView::new());
    (Arc::new(sender), receiver)
}
