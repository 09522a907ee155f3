//! The agent's way to its own node, to other agents and to their nodes.
//!
//! Owns: one channel per address, and the rule that a channel whose call timed out is dropped, not reused (its
//! connection may lead to a host that lost power).
//!
//! Must never: retry. Who calls knows whether a repeat is safe.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_host::{Host, Net};
use resilver_proto::agent::agent_peer_client::AgentPeerClient;
use resilver_proto::contract::meta_recovery_client::MetaRecoveryClient;
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::node_recovery_client::NodeRecoveryClient;
use resilver_proto::contract::replica_repair_client::ReplicaRepairClient;
use resilver_proto::internal::raft_client::RaftClient;
use resilver_proto::locks::locks_client::LocksClient;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::transport::{self, Profile};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::options::Options;

/// The way to one address; of an agent that has several, to the one it was found at.
pub(crate) struct Link {
    net: Arc<dyn Net>,
    address: Mutex<String>,
    channel: Mutex<Option<Channel>>,
}

impl Link {
    fn new(host: &Host, address: &str) -> Link {
        Link { net: host.net.clone(), address: Mutex::new(address.to_owned()), channel: Mutex::new(None) }
    }

    fn channel(&self) -> Result<Channel, Status> {
        let mut held = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = &*held {
            return Ok(channel.clone());
        }
        let address = self.address();
        let channel = transport::channel(&self.net, &address, Profile::Bulk)
            .map_err(|error| Status::invalid_argument(format!("{address} is no address: {error}")))?;
        *held = Some(channel.clone());
        Ok(channel)
    }

    fn forget(&self) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Where calls go.
    pub(crate) fn address(&self) -> String {
        self.address.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has calls from now on go to another address of the same agent.
    pub(crate) fn turn_to(&self, address: &str) {
        let mut now = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != address {
            *now = address.to_owned();
            drop(now);
            self.forget();
        }
    }

    /// Makes one call within `deadline`.
    pub(crate) async fn call<T, F>(&self, deadline: Duration, call: impl FnOnce(Channel) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let result = match timeout(deadline, call(self.channel()?)).await {
            Ok(result) => result,
            Err(_) => {
                let late = format!("{} did not answer within {} ms", self.address(), deadline.as_millis());
                Err(Status::deadline_exceeded(late))
            }
        };
        if let Err(status) = &result
            && matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable)
        {
            self.forget();
        }
        result
    }
}

/// The own node's services on a channel.
pub(crate) fn node_control(channel: Channel) -> NodeControlClient<Channel> {
    NodeControlClient::new(channel).max_decoding_message_size(transport::MAX_MESSAGE_BYTES)
}

/// The own node's verifying service on a channel.
pub(crate) fn node_recovery(channel: Channel) -> NodeRecoveryClient<Channel> {
    NodeRecoveryClient::new(channel)
}

/// The own node's repairing service on a channel.
pub(crate) fn replica_repair(channel: Channel) -> ReplicaRepairClient<Channel> {
    ReplicaRepairClient::new(channel)
}

/// The own node's service about its own log on a channel.
pub(crate) fn meta_recovery(channel: Channel) -> MetaRecoveryClient<Channel> {
    MetaRecoveryClient::new(channel)
}

/// A node's service for other members on a channel: for a question that has to be refused.
pub(crate) fn raft(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel)
}

/// A node's service for readers on a channel.
pub(crate) fn store(channel: Channel) -> StoreClient<Channel> {
    StoreClient::new(channel)
}

/// The cluster's locks on a channel.
pub(crate) fn locks(channel: Channel) -> LocksClient<Channel> {
    LocksClient::new(channel)
}

/// Another agent's service on a channel.
pub(crate) fn agent_peer(channel: Channel) -> AgentPeerClient<Channel> {
    AgentPeerClient::new(channel)
}

/// The ways to one other member.
pub(crate) struct PeerLink {
    /// To its agent, by whichever address it is reached.
    pub(crate) agent: Link,
    /// To each address of its agent, the first one first; empty when it has only one.
    pub(crate) ways: Vec<Link>,
    /// To its node.
    pub(crate) node: Link,
}

impl PeerLink {
    /// Lets its connections go; the next call dials afresh.
    pub(crate) fn forget(&self) {
        [&self.agent, &self.node].into_iter().chain(&self.ways).for_each(Link::forget);
    }
}

/// All ways of an agent.
pub(crate) struct Links {
    /// To the own node.
    pub(crate) node: Link,
    /// To the others, by name.
    pub(crate) peers: BTreeMap<String, PeerLink>,
}

impl Links {
    /// Nothing is connected before it is used.
    pub(crate) fn new(host: &Host, options: &Options) -> Links {
        let link = |peer: &crate::options::Peer| PeerLink {
            agent: Link::new(host, &peer.agent),
            ways: match peer.agent_also.is_empty() {
                true => Vec::new(),
                false => std::iter::once(&peer.agent).chain(&peer.agent_also).map(|way| Link::new(host, way)).collect(),
            },
            node: Link::new(host, &peer.address),
        };
        Links {
            node: Link::new(host, &options.node_address),
            peers: options.others().map(|peer| (peer.id.clone(), link(peer))).collect(),
        }
    }

    /// Has every call from now on dial afresh.
    pub(crate) fn redial(&self) {
        self.node.forget();
        self.peers.values().for_each(PeerLink::forget);
    }

    /// The way to the agent of `name`.
    pub(crate) fn agent(&self, name: &str) -> Result<&Link, Status> {
        let known = || self.peers.keys().cloned().collect::<Vec<_>>().join(", ");
        self.peers
            .get(name)
            .map(|peer| &peer.agent)
            .ok_or_else(|| Status::not_found(format!("no node {name} in the configuration; known: {}", known())))
    }
}
