//! Uploads and reads of keys that fail on the server's side, told to the node's record of failures with their path.
//!
//! Must never: tell of what the client did, or name a place that the operation did not wait for.

use std::future::Future;

use super::{Gateway, GatewayError};
use crate::failures::{Failures, Place};
use crate::types::BucketName;

impl Gateway {
    pub(super) fn failures(&self) -> &Failures {
        self.inner.shards.peers().failures()
    }

    /// Does a part of an upload into this bucket; tells when it fails on the server's side.
    pub(super) async fn noting<T>(
        &self,
        bucket: &BucketName,
        part: impl Future<Output = Result<T, GatewayError>>,
    ) -> Result<T, GatewayError> {
        let done = part.await;
        if let Some(error) = done.as_ref().err().filter(|error| error.is_servers()) {
            let places = match error {
                GatewayError::TooFewHomes { failed, .. } => failed.iter().copied().map(Place::Disk).collect(),
                // No shard was asked for: it waited for metadata, or for nobody.
                GatewayError::Meta(_) | GatewayError::Unknown(_) => self.metadata_places(),
                _ => Vec::new(),
            };
            self.failures().upload_failure(bucket.as_str(), places);
        }
        done
    }

    /// Whom an answer of the metadata depends on and who may have held it up: its leader, as far as this node knows one,
    /// and the voters that are suspect.
    pub(super) fn metadata_places(&self) -> Vec<Place> {
        let (map, status) = (self.inner.meta.map(), self.inner.meta.status());
        let peers = self.inner.shards.peers();
        let held_up = |node: &&crate::model::NodeRecord| {
            let leads = status.leader == Some(node.raft_id);
            leads || (status.voters.contains(&node.raft_id) && peers.is_suspect(&node.address))
        };
        map.nodes.values().filter(held_up).map(|node| Place::Node(node.name.clone())).collect()
    }
}
