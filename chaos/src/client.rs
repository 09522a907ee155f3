//! A client of the store as an application would write one: it knows several nodes, asks the next when one does not
//! answer, and never takes an unknown outcome for a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use resilver_host::{Host, Net};
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::{ObserveRequest, ObserveResponse};
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::store::{
    Coding, CreateBucketRequest, GetRequest, PutBegin, PutRequest, StatusRequest, StatusResponse, VerifyRequest,
    VerifyResponse, get_response, put_request,
};
use resilver_proto::transport::{self, MAX_MESSAGE_BYTES, Profile};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::target::Target;

/// Data per message of a put.
const CHUNK_BYTES: usize = 256 * 1024;

/// How long one question about health may take.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// How long one attempt of a small put or get may take before the next node is asked.
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(5);

/// How a write ended, as the client can know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// Acknowledged.
    Acknowledged,
    /// Certainly not done.
    Refused(String),
    /// Nobody can say: neither present nor absent may be concluded.
    Unknown(String),
}

/// A client of all nodes of a target.
#[derive(Clone)]
pub struct Client {
    nodes: Arc<Vec<(String, Channel)>>,
    next: Arc<AtomicUsize>,
}

impl Client {
    /// A client that will connect as needed.
    ///
    /// # Errors
    /// When an address of the target is none.
    pub fn new(host: &Host, target: &Target) -> anyhow::Result<Self> {
        Self::connect(&host.net, target.hosts.iter().map(|host| (host.name.clone(), host.address.clone())))
    }

    fn connect(net: &Arc<dyn Net>, nodes: impl Iterator<Item = (String, String)>) -> anyhow::Result<Self> {
        let nodes = nodes
            .map(|(name, address)| Ok((name, transport::channel(net, &address, Profile::Bulk)?)))
            .collect::<Result<Vec<_>, tonic::transport::Error>>()?;
        Ok(Self { nodes: Arc::new(nodes), next: Arc::new(AtomicUsize::new(0)) })
    }

    fn store(channel: Channel) -> StoreClient<Channel> {
        StoreClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn rotate(&self) -> impl Iterator<Item = &(String, Channel)> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        (0..self.nodes.len()).map(move |at| &self.nodes[(start + at) % self.nodes.len()])
    }

    /// Makes a bucket unless it is there.
    ///
    /// # Errors
    /// When no node could.
    pub async fn ensure_bucket(&self, bucket: &str, coding: Option<Coding>) -> Result<(), Status> {
        let request = CreateBucketRequest {
            bucket: bucket.to_owned(),
            coding,
            if_absent: true,
            ..CreateBucketRequest::default()
        };
        let mut last = Status::unavailable("no node is configured");
        for (_, channel) in self.rotate() {
            match Self::store(channel.clone()).create_bucket(request.clone()).await {
                Ok(_) => return Ok(()),
                Err(status) => last = status,
            }
        }
        Err(last)
    }

    /// Puts an object through one node, without a retry: the caller's clock measures what a client feels.
    pub async fn put(&self, bucket: &str, key: &str, content: Bytes, deadline: Duration) -> Written {
        let Some((node, channel)) = self.rotate().next() else {
            return Written::Refused("no node is configured".to_owned());
        };
        let begin = PutBegin {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            size_bytes: Some(content.len() as u64),
            ..PutBegin::default()
        };
        let mut messages = vec![PutRequest { of: Some(put_request::Of::Begin(begin)) }];
        let chunks = content.len().div_ceil(CHUNK_BYTES);
        messages.extend((0..chunks).map(|at| {
            let end = content.len().min((at + 1) * CHUNK_BYTES);
            PutRequest { of: Some(put_request::Of::Data(content.slice(at * CHUNK_BYTES..end))) }
        }));
        let mut store = Self::store(channel.clone());
        match tokio::time::timeout(deadline, store.put(stream::iter(messages))).await {
            Ok(Ok(_)) => Written::Acknowledged,
            // Refusals by rule are certain; everything else may have been committed before the answer was lost.
            Ok(Err(status)) if matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument) => {
                Written::Refused(format!("{node}: {}", status.message()))
            }
            Ok(Err(status)) => Written::Unknown(format!("{node}: {}", status.message())),
            Err(_) => Written::Unknown(format!("{node}: no answer within {} ms", deadline.as_millis())),
        }
    }

    /// Reads a whole object, asking every node in turn, until one gives it whole. Hands each piece to `take`.
    ///
    /// # Errors
    /// The last node's answer.
    pub async fn get_crc(&self, bucket: &str, key: &str, deadline: Duration) -> Result<(u64, u32), Status> {
        let mut last = Status::unavailable("no node is configured");
        for (_, channel) in self.rotate() {
            match tokio::time::timeout(deadline, Self::read(channel.clone(), bucket, key)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(status)) if status.code() == Code::NotFound => return Err(status),
                Ok(Err(status)) => last = status,
                Err(_) => last = Status::deadline_exceeded(format!("no answer within {} ms", deadline.as_millis())),
            }
        }
        Err(last)
    }

    /// Reads a whole object through one node. Length and CRC32C of what came.
    async fn read(channel: Channel, bucket: &str, key: &str) -> Result<(u64, u32), Status> {
        let request = GetRequest { bucket: bucket.to_owned(), key: key.to_owned(), offset: 0, length: 0 };
        let mut answer = Self::store(channel).get(request).await?.into_inner();
        let (mut length, mut crc) = (0u64, 0u32);
        while let Some(message) = answer.message().await? {
            if let Some(get_response::Of::Data(data)) = message.of {
                length += data.len() as u64;
                crc = crc32c::crc32c_append(crc, &data);
            }
        }
        Ok((length, crc))
    }

    /// Shard by shard, from disk.
    ///
    /// # Errors
    /// When no node could say.
    pub async fn verify(&self, bucket: &str, key: &str) -> Result<VerifyResponse, Status> {
        let mut last = Status::unavailable("no node is configured");
        for (_, channel) in self.rotate() {
            let request = VerifyRequest { bucket: bucket.to_owned(), key: key.to_owned(), full: false };
            match Self::store(channel.clone()).verify(request).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => last = status,
            }
        }
        Err(last)
    }

    /// What one node says of itself; `None` when it does not answer.
    pub async fn observe(&self, node: &str) -> Option<ObserveResponse> {
        let (_, channel) = self.nodes.iter().find(|(name, _)| name == node)?;
        let mut control = NodeControlClient::new(channel.clone());
        let answer = tokio::time::timeout(ASK_DEADLINE, control.observe(ObserveRequest {})).await;
        Some(answer.ok()?.ok()?.into_inner())
    }

    /// The cluster's status as the first node that answers gives it.
    pub async fn status(&self) -> Option<StatusResponse> {
        for (_, channel) in self.rotate() {
            let mut cluster = ClusterClient::new(channel.clone());
            let answer = tokio::time::timeout(ASK_DEADLINE, cluster.status(StatusRequest { local: false })).await;
            if let Ok(Ok(answer)) = answer {
                return Some(answer.into_inner());
            }
        }
        None
    }
}
