//! What other members ask of this one: the gRPC service `internal.Raft`.
//!
//! Must never: answer a call that is not for this member of this cluster in this epoch. Every call checks its envelope
//! before anything else.

use std::path::Path;
use std::sync::Arc;

use openraft::Snapshot;
use openraft::error::{Fatal, RaftError};
use resilver_host::OpenMode;
use resilver_proto::internal::raft_server::Raft as Service;
use resilver_proto::internal::{
    DigestsRequest, DigestsResponse, PreVoteRequest, PreVoteResponse, RaftMessage, ReadIndexRequest, ReadIndexResponse,
    RecordsRequest, RecordsResponse, SnapshotChunk, StateChunk, StateRequest,
};
use serde::Serialize;
use tonic::{Request, Response, Status, Streaming};

use super::Inner;
use super::election::QUIET;
use super::propose::Attempt;
use super::raft::Node;
use super::replicas::Messages;
use super::snapshot::SnapshotFile;
use super::wire::{self, Forward, Forwarded, SnapshotOffer};
use crate::state::inspect;

/// The service. Wrap it in `internal::raft_server::RaftServer`, with [`resilver_proto::transport::MAX_MESSAGE_BYTES`].
#[derive(Clone)]
pub struct RaftService {
    pub(super) inner: Arc<Inner>,
}

type Answer = Result<Response<RaftMessage>, Status>;

#[allow(clippy::result_large_err)] // tonic's own error type
fn answer<T: Serialize>(value: &T) -> Answer {
    let payload = wire::encode(value).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(RaftMessage { envelope: None, payload }))
}

fn unreadable(error: wire::WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl Into<RaftError<Node>>) -> Status {
    Status::unavailable(format!("raft is stopped here: {}", error.into()))
}

#[tonic::async_trait]
impl Service for RaftService {
    type RecordsStream = Messages<RecordsResponse>;
    type StateStream = Messages<StateChunk>;

    async fn append(&self, request: Request<RaftMessage>) -> Answer {
        let message = request.into_inner();
        self.inner.links.check(message.envelope.as_ref())?;
        #[cfg(feature = "planted-bugs")]
        self.hear_a_leader()?;
        let append = wire::decode(&message.payload).map_err(unreadable)?;
        answer(&self.inner.raft.append_entries(append).await.map_err(stopped)?)
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Answer {
        let message = request.into_inner();
        self.inner.links.check(message.envelope.as_ref())?;
        let vote = wire::decode(&message.payload).map_err(unreadable)?;
        answer(&self.inner.raft.vote(vote).await.map_err(stopped)?)
    }

    async fn pre_vote(&self, request: Request<PreVoteRequest>) -> Result<Response<PreVoteResponse>, Status> {
        let request = request.into_inner();
        self.inner.links.check(request.envelope.as_ref())?;
        let last_log = wire::decode(&request.last_log).map_err(unreadable)?;
        let answered = self.inner.elections.answer(last_log).await;
        answered.map(Response::new).map_err(Status::unavailable)
    }

    async fn snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Answer {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.ok_or_else(|| Status::invalid_argument("an empty snapshot stream"))?;
        self.inner.links.check(first.envelope.as_ref())?;
        #[cfg(feature = "planted-bugs")]
        self.hear_a_leader()?;
        let offer: SnapshotOffer = wire::decode(&first.head).map_err(unreadable)?;
        let path = self.inner.snapshots.incoming();
        let installed = self.receive(&path, first, chunks, offer).await;
        // Installed, the file has another name by now.
        self.inner.snapshots.discard(&path).await;
        installed
    }

    async fn propose(&self, request: Request<RaftMessage>) -> Answer {
        let message = request.into_inner();
        self.inner.links.check(message.envelope.as_ref())?;
        match wire::decode(&message.payload).map_err(unreadable)? {
            Forward::Propose(proposal) => match self.inner.submit(*proposal).await {
                Attempt::Answered(outcome) => answer(&Forwarded::Outcome(outcome)),
                Attempt::NotLeader => answer(&Forwarded::NotLeader),
                Attempt::Unsent(detail) | Attempt::Lost(detail) => Err(Status::unavailable(detail)),
            },
            // Nor when a leader would hand over to it.
            Forward::Elect if self.inner.elections.is_quiet() => Err(Status::failed_precondition(QUIET)),
            Forward::Elect => {
                self.inner.raft.trigger().elect().await.map_err(|error: Fatal<Node>| stopped(error))?;
                answer(&Forwarded::Standing)
            }
        }
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexResponse>, Status> {
        self.inner.links.check(request.into_inner().envelope.as_ref())?;
        let index =
            self.inner.barrier.leader_index().await.map_err(|failure| Status::unavailable(failure.to_string()))?;
        Ok(Response::new(ReadIndexResponse { index }))
    }

    async fn digests(&self, request: Request<DigestsRequest>) -> Result<Response<DigestsResponse>, Status> {
        let request = request.into_inner();
        self.inner.links.check(request.envelope.as_ref())?;
        self.answer_digests(request).await.map(Response::new)
    }

    async fn records(&self, request: Request<RecordsRequest>) -> Result<Response<Messages<RecordsResponse>>, Status> {
        let request = request.into_inner();
        self.inner.links.check(request.envelope.as_ref())?;
        self.answer_records(request).await.map(Response::new)
    }

    async fn state(&self, request: Request<StateRequest>) -> Result<Response<Messages<StateChunk>>, Status> {
        let request = request.into_inner();
        self.inner.links.check(request.envelope.as_ref())?;
        self.answer_state(request).await.map(Response::new)
    }
}

impl RaftService {
    /// Whether this member takes a leader's word: one that the simulator led astray does not.
    #[cfg(feature = "planted-bugs")]
    #[allow(clippy::result_large_err)] // tonic's own error type
    fn hear_a_leader(&self) -> Result<(), Status> {
        match resilver_host::planted::damage::astray(self.inner.links.ids.raft_id.0) {
            Some(_) => Err(Status::unavailable("this member takes no leader's word")),
            None => Ok(()),
        }
    }

    /// Stores the stream, verifies it whole, and only then shows it to Raft.
    async fn receive(
        &self,
        path: &Path,
        first: SnapshotChunk,
        mut chunks: Streaming<SnapshotChunk>,
        offer: SnapshotOffer,
    ) -> Answer {
        let host = &self.inner.links.host;
        let refused = |error: std::io::Error| Status::internal(format!("storing a snapshot: {error}"));
        let file = host.disk.open(path, OpenMode::CreateNew).await.map_err(refused)?;
        let mut offset = 0;
        let mut next = Some(first);
        while let Some(chunk) = next {
            let len = chunk.data.len() as u64;
            file.write_at(offset, chunk.data).await.map_err(refused)?;
            offset += len;
            next = chunks.message().await?;
        }
        file.sync().await.map_err(refused)?;
        drop(file);
        let head = inspect(host, path).await.map_err(|error| Status::data_loss(error.to_string()))?;
        if head.cluster.is_some_and(|cluster| cluster != self.inner.links.ids.cluster) {
            return Err(Status::failed_precondition("the snapshot is of another cluster"));
        }
        let snapshot = Snapshot { meta: offer.meta, snapshot: Box::new(SnapshotFile { path: path.to_path_buf() }) };
        let installed = self.inner.raft.install_full_snapshot(offer.vote, snapshot).await;
        answer(&installed.map_err(stopped)?)
    }
}
