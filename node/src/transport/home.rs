//! A peer that is the home of a disk: how it is called, and what is remembered of how that went.

use std::future::Future;
use std::time::Duration;

use resilver_proto::internal::Envelope;
use resilver_proto::internal::shards_client::ShardsClient;
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::TransportError;
use super::error::is_peer_failure;
use crate::deadlines::Deadlines;
use crate::peers::{Peers, Profile};
use crate::types::{DiskId, NodeName, ShardKey};

/// A peer that is the home of a disk.
#[derive(Clone)]
pub(super) struct RemoteHome {
    pub(super) node: NodeName,
    pub(super) address: String,
    pub(super) envelope: Envelope,
    pub(super) channel: Channel,
    pub(super) peers: Peers,
    /// When it was turned to.
    pub(super) began: Instant,
}

impl RemoteHome {
    pub(super) fn client(&self) -> ShardsClient<Channel> {
        ShardsClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub(super) fn deadlines(&self) -> &Deadlines {
        self.peers.deadlines()
    }

    /// It did not answer in the time that is configured.
    pub(super) fn timed_out(&self) {
        self.peers.timed_out(&self.address, Profile::Bulk, self.began);
    }

    /// Remembers how a call went.
    pub(super) fn account(&self, status: Option<&Status>) {
        match status {
            Some(status) if is_peer_failure(status) => self.peers.failed(&self.address, Profile::Bulk, self.began),
            _ => self.peers.answered(&self.address, Profile::Bulk),
        }
    }

    pub(super) async fn call<T>(
        &self,
        deadline: Duration,
        disk: DiskId,
        key: ShardKey,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, TransportError> {
        let Ok(answer) = tokio::time::timeout(deadline, call).await else {
            // One that takes longer than it does as a rule is only slow: that opens no circuit.
            if deadline >= self.deadlines().first_block {
                self.timed_out();
            }
            return Err(TransportError::Stalled { disk, after: deadline });
        };
        self.account(answer.as_ref().err());
        answer.map(Response::into_inner).map_err(|status| TransportError::from_status(&status, &self.node, disk, key))
    }
}
