//! A cluster of whole nodes in one process, over loopback gRPC and temporary folders, for tests of what only shows
//! between nodes.
//!
//! Owns: starting, stopping and wiring; it takes the place of `service`. A stopped node ends its server and its
//! connections, as a killed process does for its peers.
#![allow(clippy::disallowed_methods)]

mod anti_entropy;
pub(crate) mod faults;
mod hosts;
mod inflight;
mod locks;
mod multipart;
mod pressure;
mod relief;
mod stories;
mod together;
mod unreadable;
mod wrong_shards;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use resilver_host::Host;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::disk::{DiskSet, Owner, Patience};
use crate::gateway::{
    BucketSettings, ByteRange, Gateway, GatewayError, GatewayParts, PutDone, PutOptions, StoreService,
};
use crate::locks::{LockService, Locks, run_leases};
use crate::meta::identity::{Identity, Membership};
use crate::meta::{FIRST_EPOCH, FIRST_RAFT_ID, Meta, MetaOptions, Tuning};
use crate::model::{Coding, Command, Condition, DiskState, JoiningDisk, Location, MarkedBy, ObjectRecord, Outcome};
use crate::options::{RepairOptions, ScrubOptions};
use crate::peers::{Peers, PresenceService, watch_all};
use crate::phase::{Phase, PhaseCell};
use crate::repair::{Board, Rebuilder, Repair, RepairHandle, RepairParts};
use crate::transport::{ShardClient, ShardService};
use crate::types::{BucketName, ClusterId, DiskId, LifeId, NodeName, RaftId, ShardKey};

/// How long a condition is waited for. Generous: the machine that tests run on is shared.
const PATIENCE: Duration = Duration::from_secs(60);

/// What tests turn: everything else is as in production.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) check_interval: Duration,
    pub(crate) full_check_period: Duration,
    pub(crate) scrub_period: Duration,
    pub(crate) read_deadline: Duration,
    pub(crate) abandoned_uploads_after: Duration,
    /// Of each node.
    pub(crate) disks: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            check_interval: hour,
            full_check_period: 24 * hour,
            scrub_period: 24 * hour,
            read_deadline: hour,
            abandoned_uploads_after: 24 * hour,
            disks: 2,
        }
    }
}

pub(crate) struct Node {
    pub(crate) peers: Peers,
    pub(crate) disks: Arc<DiskSet>,
    pub(crate) meta: Meta,
    pub(crate) gateway: Gateway,
    pub(crate) locks: Locks,
    pub(crate) repair: RepairHandle,
    pub(crate) phase: PhaseCell,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Option<Node>>,
    host: Host,
    id: ClusterId,
    pub(crate) addresses: Vec<String>,
    settings: Settings,
    folder: TempDir,
}

pub(crate) fn bucket() -> BucketName {
    BucketName::from("test")
}

/// Content that differs from place to place, so that a block in a wrong place shows.
pub(crate) fn content(len: usize) -> Bytes {
    let mut state = len as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut data = Vec::with_capacity(len + 8);
    while data.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(len);
    data.into()
}

/// Waits for a condition. There is no one event for it: it is about several nodes.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}

impl Cluster {
    /// Nodes, and a 4+2 bucket (fewer nodes: 2+2).
    pub(crate) async fn start(count: usize, settings: Settings) -> Self {
        Self::start_on(resilver_host::real::host(), count, settings).await
    }

    /// The same on this machine.
    pub(crate) async fn start_on(host: Host, count: usize, settings: Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let id = ClusterId::draw(&mut host.rand.fork("test.cluster"));
        let mut cluster = Self { nodes: Vec::new(), host, id, addresses: Vec::new(), settings, folder };
        for index in 0..count {
            let listener = cluster.host.net.bind("127.0.0.1:0").await.unwrap();
            cluster.addresses.push(listener.local_addr().unwrap().to_string());
            let raft_id = if index == 0 { FIRST_RAFT_ID } else { cluster.admit(index).await };
            let node = cluster.boot(index, raft_id, listener).await;
            cluster.nodes.push(Some(node));
            if index == 0 {
                let meta = &cluster.node(0).meta;
                meta.found().await.unwrap();
                let outcome = meta.propose(Command::InitCluster { cluster: id, name: "test".to_owned() }).await;
                assert_eq!(outcome.unwrap(), Outcome::Done);
                cluster.admit(0).await;
            }
            // The disks are known only now.
            cluster.admit(index).await;
        }
        for index in 0..count {
            cluster.node(index).meta.barrier().await.unwrap();
        }
        until("three voters", async || cluster.node(0).meta.status().voters.len() >= count.min(3)).await;
        let (k, m) = if count >= 6 { (4, 2) } else { (2, 2) };
        cluster
            .node(0)
            .gateway
            .create_bucket(
                &bucket(),
                BucketSettings { coding: Some(Coding { k, m }), ..BucketSettings::default() },
                false,
            )
            .await
            .unwrap();
        cluster
    }

    fn dir(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("n{}", index + 1))
    }

    async fn identity(&self, index: usize) -> Identity {
        let dir = self.dir(index).join("meta");
        if let Some(identity) = Identity::load(&self.host, &dir).await.unwrap() {
            return identity;
        }
        let name = NodeName(format!("n{}", index + 1));
        let identity = Identity::draw(name, &mut self.host.rand.fork("test.identity"));
        identity.store(&self.host, &dir).await.unwrap();
        identity
    }

    /// Proposes the node through any that runs; answers its Raft id.
    async fn admit(&self, index: usize) -> RaftId {
        let identity = self.identity(index).await;
        let disks = self.nodes.get(index).and_then(Option::as_ref).map(|node| {
            let disk = |volume: Arc<crate::disk::Volume>| JoiningDisk {
                id: volume.id(),
                path: volume.path().display().to_string(),
                capacity_bytes: 1 << 40,
            };
            node.disks.volumes().into_iter().map(disk).collect()
        });
        let command = Command::JoinNode {
            name: identity.node.clone(),
            instance: identity.instance,
            address: self.addresses[index].clone(),
            location: Location::default(),
            disks: disks.unwrap_or_default(),
            raft_id: (index == 0).then_some(FIRST_RAFT_ID),
        };
        match self.any().meta.propose(command).await.unwrap() {
            Outcome::Joined { raft_id } => raft_id,
            other => panic!("{other:?}"),
        }
    }

    async fn boot(&self, index: usize, raft_id: RaftId, listener: Box<dyn resilver_host::Listener>) -> Node {
        let host = &self.host;
        let dir = self.dir(index);
        let mut identity = self.identity(index).await;
        let known = identity.disks.clone();
        let owner = Owner { node: identity.node.clone(), instance: identity.instance, cluster: Some(self.id) };
        let paths: Vec<_> = (1..=self.settings.disks).map(|disk| dir.join(format!("disk{disk}"))).collect();
        let (disks, known) = DiskSet::open(host, &paths, &owner, &known, Patience::default()).await.unwrap();
        disks.stamp(self.id, FIRST_EPOCH).await.unwrap();
        let disks = Arc::new(disks);
        identity.disks = known;
        let joined = identity.member.is_some();
        identity.member =
            Some(Membership { cluster: self.id, epoch: FIRST_EPOCH, raft_id, cluster_name: "test".to_owned() });
        if joined {
            identity.store(host, &dir.join("meta")).await.unwrap();
        }
        let peers = Peers::new(host.net.clone());
        let name = identity.node.clone();
        let options = MetaOptions {
            dir: dir.join("meta"),
            identity,
            address: self.addresses[index].clone(),
            // Slower than in production: six nodes and their tests share two cores.
            tuning: Tuning {
                heartbeat: Duration::from_millis(200),
                election_min: Duration::from_millis(1500),
                election_max: Duration::from_millis(3000),
                ..Tuning::default()
            },
        };
        let meta = Meta::start(host, options, peers.clone()).await.unwrap();
        self.wire(name, meta, disks, peers, listener)
    }

    /// What `service` does in production.
    fn wire(
        &self,
        name: NodeName,
        meta: Meta,
        disks: Arc<DiskSet>,
        peers: Peers,
        listener: Box<dyn resilver_host::Listener>,
    ) -> Node {
        let host = self.host.clone();
        let options = RepairOptions {
            check_interval: self.settings.check_interval,
            full_check_period: self.settings.full_check_period,
            ..RepairOptions::default()
        };
        let board = Board::new(&host);
        let shards = ShardClient::new(name.clone(), meta.clone(), disks.clone(), peers.clone(), board.clone());
        let rebuilder = Rebuilder::new(meta.clone(), disks.clone(), shards.clone(), board.clone(), &options);
        let life = LifeId::draw(&mut host.rand.fork("test.life"));
        let locks = Locks::new(&host, meta.clone(), peers.clone(), name.clone(), life);
        let gateway = Gateway::new(GatewayParts {
            host: host.clone(),
            meta: meta.clone(),
            locks: locks.clone(),
            shards: shards.clone(),
            rebuilder: rebuilder.clone(),
            read_deadline: self.settings.read_deadline,
        });
        let shard_service = ShardService::new(meta.clone(), disks.clone(), board.clone(), rebuilder.clone());
        let repair = Repair::new(RepairParts {
            host,
            meta: meta.clone(),
            disks: disks.clone(),
            shards,
            board,
            rebuilder,
            repair: options,
            scrub: ScrubOptions { period: self.settings.scrub_period, ..ScrubOptions::default() },
            read_deadline: self.settings.read_deadline,
            abandoned_uploads_after: self.settings.abandoned_uploads_after,
        });
        let handle = repair.handle(gateway.clone());
        let (stop, stopping) = watch::channel(false);
        let phase = PhaseCell::new();
        phase.set(Phase::Healthy, "serving");
        meta.stands_while(phase.mode().changes());
        let router = resilver_proto::transport::server()
            .add_service(resilver_proto::internal::raft_server::RaftServer::new(meta.raft_service()))
            .add_service(shard_service.into_server())
            .add_service(PresenceService::new(name.clone(), life, stopping.clone()).into_server())
            .add_service(LockService::new(locks.clone(), peers.clone(), phase.mode().clone()).into_server())
            .add_service(StoreService::new(gateway.clone(), meta.clone(), phase.clone()).into_server());
        let mut ending = stopping.clone();
        let server = async move {
            let shutdown = async move {
                let _ = ending.wait_for(|stop| *stop).await;
            };
            resilver_proto::transport::serve(router, listener, shutdown).await.unwrap();
        };
        let tasks = vec![
            tokio::spawn(server),
            tokio::spawn(repair.run(stopping.clone())),
            tokio::spawn(run_leases(meta.clone(), stopping.clone())),
            tokio::spawn(disks.clone().run(stopping.clone())),
        ];
        let watching = watch_all(peers.clone(), name, meta.map_changes());
        let mut ending = stopping;
        tokio::spawn(async move {
            tokio::select! {
                () = watching => {}
                _ = ending.wait_for(|stop| *stop) => {}
            }
        });
        Node { peers, disks, meta, gateway, locks, repair: handle, phase, stop, tasks }
    }

    pub(crate) fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().expect("the node runs")
    }

    /// Some node that runs.
    pub(crate) fn any(&self) -> &Node {
        self.nodes.iter().flatten().next().expect("a node runs")
    }

    pub(crate) async fn stop(&mut self, index: usize) {
        let node = self.nodes[index].take().expect("the node runs");
        node.stop.send_replace(true);
        node.meta.shutdown().await;
        for task in node.tasks {
            // A server with streams of peers that wait for it would not end by itself.
            if tokio::time::timeout(Duration::from_secs(2), task).await.is_err() {
                tracing::debug!(index, "a task of a stopped node was left behind");
            }
        }
    }

    pub(crate) async fn restart(&mut self, index: usize) {
        let listener = self.host.net.bind(&self.addresses[index]).await.unwrap();
        let raft_id = self.identity(index).await.member.expect("it was a member").raft_id;
        let node = self.boot(index, raft_id, listener).await;
        self.nodes[index] = Some(node);
    }

    pub(crate) async fn put(&self, at: usize, key: &str, data: &Bytes) -> Result<PutDone, GatewayError> {
        self.put_if(at, key, data, Condition::None).await
    }

    pub(crate) async fn put_if(
        &self,
        at: usize,
        key: &str,
        data: &Bytes,
        condition: Condition,
    ) -> Result<PutDone, GatewayError> {
        // Chunks of an odd size: stripes must not depend on how the client cuts.
        let chunks: Vec<Result<Bytes, std::io::Error>> =
            (0..data.len()).step_by(77_777).map(|at| Ok(data.slice(at..(at + 77_777).min(data.len())))).collect();
        let options =
            PutOptions { bucket: bucket(), key: key.to_owned(), condition, size_bytes: Some(data.len() as u64) };
        self.node(at).gateway.put(options, futures_util::stream::iter(chunks)).await
    }

    pub(crate) async fn get(&self, at: usize, key: &str) -> Result<Bytes, GatewayError> {
        self.get_range(at, key, ByteRange::default()).await
    }

    pub(crate) async fn get_range(&self, at: usize, key: &str, range: ByteRange) -> Result<Bytes, GatewayError> {
        let mut content = self.node(at).gateway.get(&bucket(), key, range).await?;
        let mut data = Vec::new();
        while let Some(piece) = content.stream.next().await {
            data.extend_from_slice(&piece?);
        }
        assert_eq!(data.len() as u64, content.length);
        Ok(data.into())
    }

    pub(crate) async fn record(&self, key: &str) -> ObjectRecord {
        self.any().gateway.head(&bucket(), key).await.unwrap()
    }

    /// The running node that has a disk.
    pub(crate) fn owner(&self, disk: DiskId) -> usize {
        let has = |node: &Option<Node>| node.as_ref().is_some_and(|node| node.disks.volume(disk).is_some());
        self.nodes.iter().position(has).expect("a running node has the disk")
    }

    /// The file of a shard.
    pub(crate) fn file(&self, disk: DiskId, key: ShardKey) -> PathBuf {
        let volume = self.node(self.owner(disk)).disks.volume(disk).unwrap();
        let name = format!("{}-{}-{}", key.version, key.extent.0, key.shard.0);
        find(&volume.path().join("shards"), &name).unwrap_or_else(|| volume.path().join("no-such-shard"))
    }

    pub(crate) async fn set_disk(&self, disk: DiskId, state: DiskState) {
        let command = Command::SetDiskState {
            disk,
            state,
            by: MarkedBy::Operator,
            reason: "a test".to_owned(),
            judged: None,
            fence: None,
        };
        let outcome = self.any().meta.propose(command).await.unwrap();
        assert!(matches!(outcome, Outcome::DiskWas(_)), "{outcome:?}");
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir()
            && let Some(found) = find(&path, name)
        {
            return Some(found);
        }
        if path.file_name().is_some_and(|found| found.to_string_lossy() == name) {
            return Some(path);
        }
    }
    None
}
