//! Connections to other nodes, one per address, shared by every client in this node.
//!
//! Owns: the channels. Must never: retry, or judge a peer. Invariant: a channel that let a call time out is dropped by
//! whoever noticed ([`Peers::drop_channel`]) and dialled afresh by the next caller: its connection may be to a peer that
//! lost power and will never answer on it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use resilver_host::Net;
use tonic::transport::Channel;

/// An address that cannot be dialled.
#[derive(Debug, thiserror::Error)]
#[error("{address} is no address: host:port expected")]
pub struct BadAddress {
    /// As it was given.
    pub address: String,
}

/// The channels of a node. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    net: Arc<dyn Net>,
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Peers {
    /// No channel yet.
    pub fn new(net: Arc<dyn Net>) -> Self {
        Self { net, channels: Arc::default() }
    }

    /// The channel to `address`, which connects on first use.
    ///
    /// # Errors
    /// When the address is none.
    pub fn channel(&self, address: &str) -> Result<Channel, BadAddress> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = resilver_proto::transport::channel(&self.net, address)
            .map_err(|_| BadAddress { address: address.to_owned() })?;
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Forgets the channel to `address`: calls in flight on it end as they may, the next caller dials.
    pub fn drop_channel(&self, address: &str) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peers")
    }
}
