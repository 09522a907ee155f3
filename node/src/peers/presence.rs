//! What a node answers to those who watch whether it is there: one word, and then its silence is the news.

use std::pin::Pin;

use resilver_proto::internal::presence_server::{Presence, PresenceServer};
use resilver_proto::internal::{PresenceRequest, PresenceResponse};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::types::{LifeId, NodeName};

/// The service. It is served once the node takes part, so that whoever is present can be used.
pub(crate) struct PresenceService {
    node: NodeName,
    life: LifeId,
    stopping: watch::Receiver<bool>,
}

impl PresenceService {
    /// Of this run of this node; open calls end when it stops.
    pub(crate) fn new(node: NodeName, life: LifeId, stopping: watch::Receiver<bool>) -> Self {
        Self { node, life, stopping }
    }

    /// As a tonic service.
    pub(crate) fn into_server(self) -> PresenceServer<Self> {
        PresenceServer::new(self)
    }
}

#[tonic::async_trait]
impl Presence for PresenceService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<PresenceResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<PresenceRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let here = PresenceResponse { node: self.node.to_string(), life: self.life.to_string() };
        let mut stopping = self.stopping.clone();
        let end = async move {
            // An owner that is gone has stopped, too.
            let _ = stopping.wait_for(|stop| *stop).await;
            Err(Status::unavailable("the node stops"))
        };
        let stream =
            futures_util::StreamExt::chain(futures_util::stream::iter([Ok(here)]), futures_util::stream::once(end));
        Ok(Response::new(Box::pin(stream)))
    }
}
