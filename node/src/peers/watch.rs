//! Watches whether the other nodes are there: one open call to each on its control way. A host that loses power says
//! nothing; its keepalive does. Owns: the calls. Must never: be taken for proof that a host is down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use resilver_proto::internal::presence_client::PresenceClient;
use resilver_proto::internal::{PresenceRequest, PresenceResponse};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use super::{CircuitState, Peers, Profile};
use crate::model::ClusterMap;
use crate::types::{LifeId, NodeName};

/// How long a peer may take to say that it is there: a connection and one word.
const GREETING: Duration = Duration::from_millis(1500);
/// Between two attempts at a peer that is not there: it is noticed within this when it comes back.
const AGAIN: Duration = Duration::from_millis(500);

/// Before calling one again that was there until now.
const RECALL: Duration = Duration::from_millis(50);

/// Watches every other node of the map, as the map changes, until dropped.
pub(crate) async fn watch_all(peers: Peers, own: NodeName, mut maps: watch::Receiver<Arc<ClusterMap>>) {
    if !peers.defended() {
        return std::future::pending().await;
    }
    let mut watched: BTreeMap<NodeName, (String, Watching)> = BTreeMap::new();
    let beating = peers.clone();
    let _beat = Watching(tokio::spawn(async move { beating.inner.pulse.beat().await }).abort_handle());
    loop {
        let map = maps.borrow_and_update().clone();
        watched.retain(|name, (address, _)| map.nodes.get(name).is_some_and(|node| node.address == *address));
        for node in map.nodes.values().filter(|node| node.name != own) {
            watched.entry(node.name.clone()).or_insert_with(|| {
                let task = tokio::spawn(watch_one(peers.clone(), node.address.clone()));
                (node.address.clone(), Watching(task.abort_handle()))
            });
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}

/// A task that ends with this.
struct Watching(AbortHandle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn watch_one(peers: Peers, address: String) {
    loop {
        let began = Instant::now();
        let present = be_with(&peers, &address).await;
        let now = Instant::now();
        // In bulk, too: what works on the old connection goes on, but after a cut that has healed its kernel waits for many
        // seconds before it tries again, and nobody new is to wait with it.
        for profile in Profile::ALL {
            peers.drop_channel(&address, profile);
        }
        // A peer that was there and is not any more; and one that still does not answer. Not: one that had no time to
        // answer because we were not there ourselves.
        if !peers.inner.pulse.stood_still(now) {
            if present {
                peers.inner.circuits.silent(&address, now);
            } else {
                peers.inner.circuits.failure(&address, Profile::Control, began, now);
            }
        }
        // It may have been the connection, and not the peer.
        tokio::time::sleep(if present { RECALL } else { AGAIN }).await;
    }
}

/// Calls, and stays on the line for as long as the peer does. Whether it ever answered.
async fn be_with(peers: &Peers, address: &str) -> bool {
    let Some((_, mut words)) = greet(peers, address, Profile::Control).await else { return false };
    peers.inner.circuits.present(address, Instant::now());
    // Nobody turns to a peer that was suspect: that it is well in bulk, too, has to be found out.
    if peers.circuit(address, Profile::Bulk) != CircuitState::Closed {
        match greet(peers, address, Profile::Bulk).await {
            Some(_) => peers.answered(address, Profile::Bulk),
            None => peers.drop_channel(address, Profile::Bulk),
        }
    }
    // It ends with an error when the peer stops, its connection breaks, or its keepalive goes unanswered.
    while let Ok(Some(_)) = words.message().await {}
    true
}

/// Who is at this address, and which run of its process; `None`: nobody answered, which says nothing. The question is
/// sent now: the answer is not older than this call.
pub(crate) async fn who_is_there(peers: &Peers, address: &str) -> Option<(NodeName, LifeId)> {
    let (said, _) = greet(peers, address, Profile::Control).await?;
    // A member of another version does not say which run it is.
    Some((NodeName(said.node), said.life.parse().ok()?))
}

async fn greet(
    peers: &Peers,
    address: &str,
    profile: Profile,
) -> Option<(PresenceResponse, Streaming<PresenceResponse>)> {
    let mut client = PresenceClient::new(peers.channel(address, profile).ok()?);
    let greeting = async {
        let mut words = client.watch(PresenceRequest {}).await.ok()?.into_inner();
        words.message().await.ok()?.map(|first| (first, words))
    };
    timeout(GREETING, greeting).await.ok()?
}
