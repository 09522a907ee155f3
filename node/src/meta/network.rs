//! Raft's calls to other members, over gRPC.
//!
//! Owns: envelopes, the mapping of transport errors to Raft's, and the record of who answered when. Must never: retry (openraft
//! does). A peer that has not answered for [`SILENCE`] and lets another call time out is dialled afresh.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::{AnyError, BasicNode, OptionalSend, Snapshot, StorageIOError, Vote};
use resilver_host::{Host, OpenMode};
use resilver_proto::internal::raft_client::RaftClient;
use resilver_proto::internal::{Envelope, RaftMessage, SnapshotChunk};
use resilver_proto::transport::MAX_MESSAGE_BYTES;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::raft::{Node, RaftNode, TypeConfig};
use super::snapshot::SnapshotFile;
use super::wire::{self, SnapshotOffer};
use crate::model::ClusterMap;
use crate::peers::{Peers, Profile};
use crate::types::{ClusterId, Epoch, NodeName, RaftId};

/// After this long without an answer a connection is not trusted any more. A busy peer answers late, but answers.
const SILENCE: Duration = Duration::from_secs(1);
/// Pauses before calling an unreachable member again: it may be back within a restart's time.
const BACKOFF: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];
/// Bytes of a snapshot in one message.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks waiting for the wire.
const CHUNKS_IN_FLIGHT: usize = 4;
/// From the first byte of a snapshot to its installation. Ten minutes move 30 GB over 1 GbE; a dead peer is noticed by
/// keepalive long before.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(600);

/// Who this member is, for envelopes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids {
    pub(super) cluster: ClusterId,
    pub(super) epoch: Epoch,
    pub(super) raft_id: RaftId,
}

impl Ids {
    pub(super) fn envelope(&self, target: RaftId) -> Envelope {
        Envelope { cluster_id: self.cluster.to_string(), epoch: self.epoch.0, target: target.0, sender: self.raft_id.0 }
    }

    /// Refuses what is not meant for this member of this cluster in this epoch.
    #[allow(clippy::result_large_err)] // tonic's own error type
    pub(super) fn check(&self, envelope: Option<&Envelope>) -> Result<(), Status> {
        let refuse = |detail: String| Err(Status::failed_precondition(detail));
        let Some(envelope) = envelope else { return refuse("the call names no cluster".to_owned()) };
        if envelope.cluster_id != self.cluster.to_string() {
            let (wanted, own) = (&envelope.cluster_id, self.cluster);
            return refuse(format!("the call is for cluster {wanted}, this node belongs to cluster {own}"));
        }
        if envelope.epoch > self.epoch.0 {
            let (wanted, own) = (envelope.epoch, self.epoch.0);
            return refuse(format!(
                "the cluster is in epoch {wanted}, and this member is of epoch {own}, which is over"
            ));
        }
        if envelope.epoch != self.epoch.0 {
            let (wanted, own) = (envelope.epoch, self.epoch.0);
            return refuse(format!("the call is of epoch {wanted}, the cluster is in epoch {own} here"));
        }
        if envelope.target != self.raft_id.0 {
            let (wanted, own) = (envelope.target, self.raft_id);
            return refuse(format!("the call is for member {wanted}, this is member {own}: an address was taken over"));
        }
        Ok(())
    }
}

/// What all calls of this member share.
pub(super) struct Links {
    pub(super) host: Host,
    pub(super) ids: Ids,
    pub(super) peers: Peers,
    map: watch::Receiver<Arc<ClusterMap>>,
    answered: Mutex<BTreeMap<Node, Instant>>,
    /// The latest epoch of this cluster that anybody spoke of.
    latest: watch::Sender<Epoch>,
}

impl Links {
    pub(super) fn new(host: Host, ids: Ids, peers: Peers, map: watch::Receiver<Arc<ClusterMap>>) -> Arc<Self> {
        let latest = watch::Sender::new(ids.epoch);
        Arc::new(Self { host, ids, peers, map, answered: Mutex::default(), latest })
    }

    /// [`Ids::check`], takes note of an epoch that is later than this member's, and refuses who was removed.
    #[allow(clippy::result_large_err)] // tonic's own error type
    pub(super) fn check(&self, envelope: Option<&Envelope>) -> Result<(), Status> {
        if let Some(envelope) = envelope.filter(|envelope| envelope.cluster_id == self.ids.cluster.to_string()) {
            let heard = Epoch(envelope.epoch);
            self.latest.send_if_modified(|latest| {
                heard > *latest && {
                    *latest = heard;
                    true
                }
            });
        }
        self.ids.check(envelope)?;
        let map = self.map.borrow();
        match envelope.and_then(|envelope| map.removed.get(&RaftId(envelope.sender))) {
            Some(removed) => Err(Status::failed_precondition(format!(
                "the call is from node {}, which was removed from the cluster and takes part in nothing any more",
                removed.name
            ))),
            None => Ok(()),
        }
    }

    /// Resolves with the epoch once one is later than this member's.
    pub(super) async fn left_behind(&self) -> Epoch {
        let mut latest = self.latest.subscribe();
        let own = self.ids.epoch;
        // The guard of what was seen must not be held across an await.
        let heard = latest.wait_for(|latest| *latest > own).await.map(|epoch| *epoch);
        match heard {
            Ok(epoch) => epoch,
            // The sender is in this very record.
            Err(_) => std::future::pending().await,
        }
    }

    /// This member's name.
    pub(super) fn own(&self) -> NodeName {
        let map = self.map.borrow();
        map.node_by_raft(self.ids.raft_id).map_or_else(|| NodeName::from(""), |node| node.name.clone())
    }

    /// Where a member is: the map knows of moves before Raft's membership does.
    pub(super) fn address(&self, member: RaftId) -> Option<String> {
        self.map.borrow().node_by_raft(member).map(|node| node.address.clone())
    }

    /// How long ago a member last answered.
    pub(super) fn silent_for(&self, member: Node) -> Option<Duration> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.get(&member).map(Instant::elapsed)
    }

    fn note_answer(&self, member: Node) {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(member, Instant::now());
    }

    /// A client of the member at `address`.
    pub(super) fn client(
        &self,
        address: &str,
        profile: Profile,
    ) -> Result<RaftClient<Channel>, crate::peers::BadAddress> {
        let channel = self.peers.channel(address, profile)?;
        Ok(RaftClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }
}

/// Makes links.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) links: Arc<Links>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: Node, node: &BasicNode) -> Link {
        Link { links: self.links.clone(), target, fallback: node.addr.clone(), unfinished: false }
    }
}

/// The way to one member.
pub(super) struct Link {
    links: Arc<Links>,
    target: Node,
    fallback: String,
    /// The last call was given up by its caller before it ended.
    unfinished: bool,
}

/// Which of the two plain calls.
#[derive(Clone, Copy)]
enum Call {
    Append,
    Vote,
}

type RpcError = RPCError<Node, RaftNode, RaftError<Node>>;

impl Link {
    fn address(&self) -> String {
        self.links.address(RaftId(self.target)).unwrap_or_else(|| self.fallback.clone())
    }

    /// A client, on a new connection if the old one looks dead.
    fn client(&mut self, address: &str) -> Result<RaftClient<Channel>, crate::peers::BadAddress> {
        let silent = self.links.silent_for(self.target).is_none_or(|silent| silent > SILENCE);
        if std::mem::take(&mut self.unfinished) && silent {
            self.links.peers.drop_channel(address, Profile::Control);
        }
        self.links.client(address, Profile::Control)
    }

    async fn call<Q: Serialize, A: DeserializeOwned>(&mut self, call: Call, request: &Q) -> Result<A, RpcError> {
        #[cfg(feature = "planted-bugs")]
        if matches!(call, Call::Append) && resilver_host::planted::damage::deluded(self.links.ids.raft_id.0).is_some() {
            let untold = std::io::Error::other("it tells nobody that it leads");
            return Err(RPCError::Unreachable(Unreachable::new(&untold)));
        }
        let payload = wire::encode(request).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let address = self.address();
        let mut client = self.client(&address).map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        let message = RaftMessage { envelope: Some(self.links.ids.envelope(RaftId(self.target))), payload };
        self.unfinished = true;
        let answer = match call {
            Call::Append => client.append(message).await,
            Call::Vote => client.vote(message).await,
        };
        self.unfinished = false;
        let answer = answer.map_err(|status| RPCError::Unreachable(Unreachable::new(&status)))?;
        // Found by seed 172 of `term-divergence`: one that is elected leads, and is astray no more.
        #[cfg(feature = "planted-bugs")]
        if matches!(call, Call::Vote) && resilver_host::planted::damage::astray(self.links.ids.raft_id.0).is_some() {
            let unheard = std::io::Error::other("it hears no answer");
            return Err(RPCError::Unreachable(Unreachable::new(&unheard)));
        }
        self.links.note_answer(self.target);
        wire::decode(&answer.into_inner().payload).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote<Node>,
        snapshot: Snapshot<TypeConfig>,
    ) -> Result<SnapshotResponse<Node>, StreamingError<TypeConfig, Fatal<Node>>> {
        let unreachable = |error: &(dyn std::error::Error + 'static)| {
            StreamingError::Unreachable(Unreachable::new(&std::io::Error::other(error.to_string())))
        };
        let address = self.address();
        let mut client = self.links.client(&address, Profile::Bulk).map_err(|error| unreachable(&error))?;
        let offer = SnapshotOffer { vote, meta: snapshot.meta };
        let head = wire::encode(&offer).map_err(|error| unreachable(&error))?;
        let (tx, rx) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let envelope = self.links.ids.envelope(RaftId(self.target));
        let feed = feed(&self.links.host, &snapshot.snapshot, envelope, head, tx);
        let call = client.snapshot(ReceiverStream::new(rx));
        let both = async { tokio::join!(feed, call) };
        let (fed, answer) =
            tokio::time::timeout(SNAPSHOT_DEADLINE, both).await.map_err(|elapsed| unreachable(&elapsed))?;
        fed.map_err(|error| {
            let error = StorageIOError::read_snapshot(None, AnyError::new(&error));
            StreamingError::StorageError(error.into())
        })?;
        let answer = answer.map_err(|status| unreachable(&status))?;
        self.links.note_answer(self.target);
        wire::decode(&answer.into_inner().payload).map_err(|error| unreachable(&error))
    }
}

/// Reads the file into the stream. Ends early, without error, when nobody listens any more.
async fn feed(
    host: &Host,
    snapshot: &SnapshotFile,
    envelope: Envelope,
    head: Bytes,
    chunks: mpsc::Sender<SnapshotChunk>,
) -> std::io::Result<()> {
    let file = host.disk.open(&snapshot.path, OpenMode::Read).await?;
    let mut offset = 0;
    let mut first = Some((envelope, head));
    loop {
        let data = file.read_at(offset, CHUNK_BYTES).await?;
        offset += data.len() as u64;
        let (envelope, head) = first.take().map_or((None, Bytes::new()), |(envelope, head)| (Some(envelope), head));
        let last = data.len() < CHUNK_BYTES;
        if chunks.send(SnapshotChunk { envelope, head, data }).await.is_err() || last {
            return Ok(());
        }
    }
}

impl RaftNetwork<TypeConfig> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Node>, RpcError> {
        self.call(Call::Append, &request).await
    }

    async fn vote(&mut self, request: VoteRequest<Node>, _: RPCOption) -> Result<VoteResponse<Node>, RpcError> {
        self.call(Call::Vote, &request).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<Node>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Node>, StreamingError<TypeConfig, Fatal<Node>>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot) => sent,
        }
    }

    fn backoff(&self) -> Backoff {
        let longest = BACKOFF[BACKOFF.len() - 1];
        Backoff::new(BACKOFF.into_iter().chain(std::iter::repeat(longest)))
    }
}
