//! Asking the home of a shard, wherever it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use resilver_proto::internal::{
    DiscardRequest, ForceShard, GetShardRequest, PutShardRequest, RebuildShardRequest, RebuildShardResponse,
    ReportShardRequest, VerifyShardRequest,
};
use tokio::time::Instant;

use super::gather::{Asked, Gatherer};
use super::home::RemoteHome;
use super::{BlockSink, BlockStream, Pace, TransportError, wire};
use crate::deadlines::Deadlines;
use crate::disk::{DiskSet, Health, Purpose, ShardHead, ShardVerdict, Volume};
use crate::meta::Meta;
use crate::model::{ClusterMap, DiskState};
use crate::peers::{Peers, Profile};
use crate::repair::{Board, Force, Suspect};
use crate::types::{DiskId, NodeName, ShardKey, Version};

/// Homes asked to discard side by side: an object of many parts has as many versions on each of its disks, and one slow
/// home must not hold up the others.
const DISCARDS_IN_FLIGHT: usize = 8;

/// When a write to a silent peer may be tried again: by then its presence may have begun again.
const SILENT_RETRY: Duration = Duration::from_secs(2);

/// How gladly a disk is read from. Lower is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preference {
    /// Ours and well.
    Local,
    /// Another node's that answers.
    Remote,
    /// Failed lately, or its host is down or out: only when nothing else is left.
    Doubtful,
    /// Not readable at all.
    Never,
}

/// Reads, writes and checks shards at their homes. Cheap to clone.
#[derive(Clone)]
pub struct ShardClient {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeName,
    meta: Meta,
    disks: Arc<DiskSet>,
    peers: Peers,
    board: Board,
    pace: Pace,
    gatherer: Gatherer,
}

enum Route {
    Local(Arc<Volume>),
    Remote(RemoteHome),
}

impl ShardClient {
    /// The ways to other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// The client of the node `node` in the cluster that `meta` knows. What it reports about our own disks goes to
    /// `board`.
    pub fn new(node: NodeName, meta: Meta, disks: Arc<DiskSet>, peers: Peers, board: Board) -> Self {
        let pace = Pace::new(peers.deadlines());
        let gatherer = Gatherer::default();
        Self { inner: Arc::new(Inner { node, meta, disks, peers, board, pace, gatherer }) }
    }

    /// How long homes may take for what.
    pub(crate) fn deadlines(&self) -> &Deadlines {
        self.inner.peers.deadlines()
    }

    /// Whether clients are defended against homes that do not answer.
    pub(crate) fn defended(&self) -> bool {
        self.inner.peers.defended()
    }

    /// How long the home of a disk may take to begin an answer.
    pub(crate) fn answer_deadline(&self, disk: DiskId) -> Duration {
        self.peer_of(disk).map_or(self.deadlines().first_block, |peer| self.inner.pace.answer_deadline(&peer))
    }

    /// How long the home of a disk may take to make a shard durable.
    pub(crate) fn durable_deadline(&self, disk: DiskId) -> Duration {
        self.peer_of(disk).map_or(self.deadlines().shard_durable, |peer| self.inner.pace.durable_deadline(&peer))
    }

    /// The home of a disk took so long to make a shard durable, or was given up after that time.
    pub(crate) fn made_durable(&self, disk: DiskId, took: Duration) {
        if let Some(peer) = self.peer_of(disk) {
            self.inner.pace.durable(&peer, took);
        }
    }

    /// The other node that a disk is in.
    fn peer_of(&self, disk: DiskId) -> Option<NodeName> {
        let map = self.inner.meta.map();
        map.node_of_disk(disk).map(|node| node.name.clone()).filter(|name| *name != self.inner.node)
    }

    /// How fast homes are.
    pub(crate) fn pace(&self) -> &Pace {
        &self.inner.pace
    }

    /// How gladly this disk is read from now.
    pub fn preference(&self, disk: DiskId) -> Preference {
        let map = self.inner.meta.map();
        if !map.readable_at_need(disk) {
            return Preference::Never;
        }
        let host_is_up = map.host_is_up(disk);
        if let Some(volume) = self.inner.disks.volume(disk) {
            return match volume.status().health {
                Health::Ok if host_is_up => Preference::Local,
                Health::Ok => Preference::Doubtful,
                // A failed disk may hold the last copy that is needed: asked when no other is left.
                Health::Suspect | Health::Error => Preference::Doubtful,
                Health::Gone | Health::Foreign => Preference::Never,
            };
        }
        match map.node_of_disk(disk) {
            Some(node) if host_is_up && !self.inner.peers.is_suspect(&node.address) => Preference::Remote,
            Some(_) => Preference::Doubtful,
            None => Preference::Never,
        }
    }

    /// Whether the home of a disk is silent: it is not there, as far as this node knows. Our own disks never are.
    pub(crate) fn is_silent(&self, disk: DiskId) -> bool {
        let map = self.inner.meta.map();
        self.inner.disks.volume(disk).is_none()
            && map.node_of_disk(disk).is_none_or(|node| self.inner.peers.is_silent(&node.address))
    }

    /// A home that was turned to then stalled: remember it, so that the next request asks another first.
    pub fn stalled(&self, disk: DiskId, began: Instant) {
        let map = self.inner.meta.map();
        if self.inner.disks.volume(disk).is_none()
            && let Some(node) = map.node_of_disk(disk)
        {
            self.inner.peers.timed_out(&node.address, Profile::Bulk, began);
        }
    }

    /// Begins to write a shard of a client's.
    ///
    /// # Errors
    /// When the home takes no new shards or cannot be reached. A peer's failure may show only at a later block.
    pub async fn put(&self, disk: DiskId, head: ShardHead) -> Result<BlockSink, TransportError> {
        let key = head.key;
        match self.route(disk, Use::Write)? {
            Route::Local(volume) => {
                let created = volume.create_shard(head);
                let writer = created.map_err(|error| TransportError::from_disk(&error, disk, key))?;
                Ok(BlockSink::local(disk, key, writer.for_client()))
            }
            Route::Remote(home) => {
                let begin = PutShardRequest {
                    envelope: Some(home.envelope.clone()),
                    disk_id: disk.to_string(),
                    begin: Some(wire::to_head(&head)),
                    blocks: Vec::new(),
                    last: false,
                };
                Ok(BlockSink::remote(disk, key, home, begin))
            }
        }
    }

    /// Reads `blocks` blocks from `first` on. The caller drains what it asked for without waiting for anything else
    /// (see the invariants of this module).
    ///
    /// # Errors
    /// When the home cannot be reached, does not begin in time, or does not have the shard.
    pub async fn get(
        &self,
        disk: DiskId,
        key: ShardKey,
        first: u32,
        blocks: u32,
        purpose: Purpose,
    ) -> Result<BlockStream, TransportError> {
        match self.route(disk, Use::Read)? {
            Route::Local(volume) => {
                let opened = volume.open_shard(key, purpose).await;
                let reader = opened.map_err(|error| TransportError::from_disk(&error, disk, key))?;
                Ok(BlockStream::local(disk, key, reader, first, first + blocks))
            }
            Route::Remote(home) => {
                if purpose == Purpose::Background && Gatherer::takes(blocks) {
                    let asked = Asked { home: home.clone(), disk, key, first, blocks };
                    if let Some(gathered) = self.inner.gatherer.get(asked).await {
                        return Ok(BlockStream::gathered(disk, key, gathered?, first));
                    }
                }
                let request = GetShardRequest {
                    envelope: Some(home.envelope.clone()),
                    disk_id: disk.to_string(),
                    id: Some(wire::to_id(key)),
                    first_block: first,
                    blocks,
                    background: purpose == Purpose::Background,
                };
                let mut client = home.client();
                let (pace, began) = (&self.inner.pace, Instant::now());
                let deadline = pace.answer_deadline(&home.node);
                let answer = home.call(deadline, disk, key, client.get(request)).await;
                if matches!(answer, Ok(_) | Err(TransportError::Stalled { .. })) {
                    pace.answered(&home.node, began.elapsed());
                }
                let messages = answer?;
                Ok(BlockStream::remote(disk, key, home, messages, first))
            }
        }
    }

    /// Whether the disk is in this node: reads from it need no flow control of their own.
    pub fn is_local(&self, disk: DiskId) -> bool {
        self.inner.disks.volume(disk).is_some()
    }

    /// Has the home read the whole shard back from its disk. A proof is worth waiting for: a home whose circuit is open
    /// (it may have come back a moment ago) is asked once more when its next probe is due.
    ///
    /// # Errors
    /// When the home cannot be asked: that says nothing about the shard.
    pub async fn verify(&self, disk: DiskId, key: ShardKey) -> Result<ShardVerdict, TransportError> {
        match self.verify_now(disk, key).await {
            Err(TransportError::Circuit { retry_in, .. }) => {
                tokio::time::sleep(retry_in).await;
                self.verify_now(disk, key).await
            }
            verdict => verdict,
        }
    }

    async fn verify_now(&self, disk: DiskId, key: ShardKey) -> Result<ShardVerdict, TransportError> {
        match self.route(disk, Use::Read)? {
            Route::Local(volume) => {
                volume.verify_shard(key).await.map_err(|error| TransportError::from_disk(&error, disk, key))
            }
            Route::Remote(home) => {
                let request = VerifyShardRequest {
                    envelope: Some(home.envelope.clone()),
                    disk_id: disk.to_string(),
                    id: Some(wire::to_id(key)),
                };
                let mut client = home.client();
                home.call(self.deadlines().verify, disk, key, client.verify(request)).await.map(wire::from_verdict)
            }
        }
    }

    /// Has the home move shards of a forbidden version aside. Answers how many it had.
    ///
    /// # Errors
    /// When the home cannot be asked, or refuses because the version was not forbidden first.
    pub async fn discard(&self, disk: DiskId, version: Version, keys: &[ShardKey]) -> Result<u64, TransportError> {
        let Some(first) = keys.first().copied() else { return Ok(0) };
        match self.route(disk, Use::Discard)? {
            Route::Local(volume) => {
                let moved = volume.move_all_aside(keys, crate::disk::REPLACED).await;
                moved.map_err(|error| TransportError::from_disk(&error, disk, first))
            }
            Route::Remote(home) => {
                let request = DiscardRequest {
                    envelope: Some(home.envelope.clone()),
                    disk_id: disk.to_string(),
                    version: version.to_string(),
                    shards: keys.iter().copied().map(wire::to_id).collect(),
                };
                let mut client = home.client();
                let answer = home.call(self.deadlines().discard, disk, first, client.discard(request)).await?;
                Ok(answer.discarded)
            }
        }
    }

    /// Has all homes of shards of forbidden versions move them aside, as far as they can be asked. A home that cannot keeps
    /// them until its own search for orphans finds them forbidden.
    pub async fn discard_all(&self, shards: Vec<(DiskId, ShardKey)>) {
        let mut by_home: BTreeMap<(DiskId, Version), Vec<ShardKey>> = BTreeMap::new();
        for (disk, shard) in shards {
            by_home.entry((disk, shard.version)).or_default().push(shard);
        }
        let discards = stream::iter(by_home).map(|((disk, version), shards)| async move {
            if let Err(error) = self.discard(disk, version, &shards).await {
                tracing::debug!(%disk, %version, %error, "a home keeps shards of a forbidden version for now");
            }
        });
        discards.buffer_unordered(DISCARDS_IN_FLIGHT).collect::<()>().await;
    }

    /// Tells the home of a shard that it is corrupt or missing. Returns at once; best effort: the home's own scrub and
    /// check find it too, only later.
    pub fn report(&self, suspect: Suspect) {
        let client = self.clone();
        tokio::spawn(async move {
            let (disk, key) = (suspect.disk, suspect.shard);
            if let Err(error) = client.send_report(suspect).await {
                tracing::debug!(%disk, shard = %key, %error, "a bad shard could not be reported to its home");
            }
        });
    }

    async fn send_report(&self, suspect: Suspect) -> Result<(), TransportError> {
        let (disk, key) = (suspect.disk, suspect.shard);
        match self.route(disk, Use::Read)? {
            Route::Local(_) => {
                self.inner.board.suspect(&self.inner.meta, suspect).await;
                Ok(())
            }
            Route::Remote(home) => {
                let request = ReportShardRequest {
                    envelope: Some(home.envelope.clone()),
                    disk_id: disk.to_string(),
                    id: Some(wire::to_id(key)),
                    bucket: suspect.bucket.0,
                    key: suspect.key,
                    why: suspect.detail,
                    found_by: suspect.found_by.as_str().to_owned(),
                    kind: suspect.kind.as_str().to_owned(),
                };
                let mut client = home.client();
                home.call(self.deadlines().note, disk, key, client.report(request)).await.map(drop)
            }
        }
    }

    /// Has another node rebuild a shard on its disk now. For our own disks ask [`crate::repair::Rebuilder`].
    pub(crate) async fn rebuild_remote(
        &self,
        disk: DiskId,
        key: ShardKey,
        bucket: &str,
        object: &str,
        stand_in: bool,
    ) -> Result<RebuildShardResponse, TransportError> {
        match self.route(disk, Use::Write)? {
            Route::Local(_) => Err(TransportError::NoHome { disk, why: "it is our own" }),
            Route::Remote(home) => {
                let request = RebuildShardRequest {
                    envelope: Some(home.envelope.clone()),
                    disk_id: disk.to_string(),
                    id: Some(wire::to_id(key)),
                    bucket: bucket.to_owned(),
                    key: object.to_owned(),
                    stand_in,
                    force: None,
                };
                let mut client = home.client();
                home.call(self.deadlines().rebuild, disk, key, client.rebuild(request)).await
            }
        }
    }

    /// Has another node put another in the place of a shard that is wrong although its checksum is good.
    pub(crate) async fn force_remote(
        &self,
        disk: DiskId,
        key: ShardKey,
        (bucket, object): (&str, &str),
        force: Force,
    ) -> Result<RebuildShardResponse, TransportError> {
        match self.route(disk, Use::Write)? {
            Route::Local(_) => Err(TransportError::NoHome { disk, why: "it is our own" }),
            Route::Remote(home) => {
                let distrust = force.distrust.iter().map(|shard| u32::from(shard.0)).collect();
                let request = RebuildShardRequest {
                    envelope: Some(home.envelope.clone()),
                    disk_id: disk.to_string(),
                    id: Some(wire::to_id(key)),
                    bucket: bucket.to_owned(),
                    key: object.to_owned(),
                    stand_in: false,
                    force: Some(ForceShard { crc32c: force.crc, distrust }),
                };
                let mut client = home.client();
                home.call(self.deadlines().rebuild, disk, key, client.rebuild(request)).await
            }
        }
    }

    fn route(&self, disk: DiskId, purpose: Use) -> Result<Route, TransportError> {
        let inner = &self.inner;
        let map = inner.meta.map();
        let Some(record) = map.disks.get(&disk) else {
            return Err(TransportError::NoHome { disk, why: "the cluster map has no such disk" });
        };
        if !purpose.allowed(&map, disk) {
            return Err(TransportError::NoHome { disk, why: purpose.refusal() });
        }
        if let Some(volume) = inner.disks.volume(disk) {
            return Ok(Route::Local(volume));
        }
        let Some(node) = map.nodes.get(&record.node) else {
            return Err(TransportError::NoHome { disk, why: "the cluster map does not have its node" });
        };
        if node.name == inner.node {
            return Err(TransportError::NoHome { disk, why: "it is ours, but not in this node's configuration" });
        }
        let channel = inner
            .peers
            .channel(&node.address, Profile::Bulk)
            .map_err(|error| TransportError::Unreachable { node: node.name.clone(), detail: error.to_string() })?;
        if matches!(purpose, Use::Write) && inner.peers.is_silent(&node.address) {
            return Err(TransportError::Circuit { node: node.name.clone(), retry_in: SILENT_RETRY });
        }
        inner
            .peers
            .admit(&node.address, Profile::Bulk)
            .map_err(|retry_in| TransportError::Circuit { node: node.name.clone(), retry_in })?;
        Ok(Route::Remote(RemoteHome {
            node: node.name.clone(),
            address: node.address.clone(),
            envelope: inner.meta.envelope(node.raft_id),
            channel,
            peers: inner.peers.clone(),
            began: Instant::now(),
        }))
    }
}

/// What a disk is asked for; the cluster map decides which states allow it.
#[derive(Clone, Copy)]
enum Use {
    Read,
    Write,
    Discard,
}

impl Use {
    fn allowed(self, map: &ClusterMap, disk: DiskId) -> bool {
        match self {
            Self::Read | Self::Discard => map.readable_at_need(disk),
            Self::Write => map.disk_state(disk) == Some(DiskState::Up),
        }
    }

    fn refusal(self) -> &'static str {
        match self {
            Self::Read | Self::Discard => "it is detached",
            Self::Write => "it takes no new shards",
        }
    }
}
