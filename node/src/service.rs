//! One storage node: opens its folders, enters its cluster, brings its parts up in order, and decides when it may serve.
//!
//! Owns: the order of startup and shutdown. Must never: serve a client before it is verified; go on when Raft has stopped
//! inside, or the S3 door has ended (the process ends, and its agent sees that); start Raft on damaged metadata.

mod aside;
mod door;
mod error;
mod membership;
mod ownership;
mod rebirth;
mod rejoin;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use resilver_host::{Host, Listener};
use resilver_proto::contract::meta_recovery_server::MetaRecoveryServer;
use resilver_proto::contract::node_control_server::NodeControlServer;
use resilver_proto::contract::node_recovery_server::NodeRecoveryServer;
use resilver_proto::contract::replica_repair_server::ReplicaRepairServer;
use resilver_proto::internal::presence_server::PresenceServer;
use resilver_proto::internal::raft_server::RaftServer;
use resilver_proto::internal::shards_server::ShardsServer;
use resilver_proto::locks::locks_server::LocksServer;
use resilver_proto::store::cluster_server::ClusterServer;
use resilver_proto::store::store_server::StoreServer;
use resilver_proto::{transport, web};
use tokio::sync::{Mutex, mpsc, watch};
use tonic::Status;

use self::door::Opened;
pub use self::error::NodeError;
use self::membership::Dropped;
use crate::control::{
    ClusterService, Core, ForceOrder, FoundRequest, MetaRecoveryService, NodeControlService, NodeRecoveryService,
    RejoinOrder, ReplicaRepairService, RestoreOrder, Shared, UndoOrder, Views, Volumes, adopt,
};
use crate::disk::{DiskSet, Patience};
use crate::gateway::{Gateway, GatewayParts, StoreService};
use crate::late::Late;
use crate::locks::{LockService, Locks, run_leases};
use crate::meta::identity::Identity;
use crate::meta::{Meta, RaftService, rebirth as rebirth_of_meta};
use crate::options::Options;
use crate::peers::{Peers, PresenceService, watch_all};
use crate::phase::{Damage, Phase, PhaseCell};
use crate::repair::{Board, Rebuilder, Repair, RepairParts};
use crate::s3::Door;
use crate::steps::{Step, Steps};
use crate::transport::{ShardClient, ShardService};
use crate::types::{Epoch, LifeId, RaftId};

/// How long parts may take to end before the process ends without them: nothing acknowledged depends on it.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How long the last answer may take to be sent. On two full cores a second was too short for a few bytes.
const ANSWER_GRACE: Duration = Duration::from_secs(3);

/// How a node ended when nothing was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Shutdown,
}

/// A node, its sockets bound and its folders opened.
pub struct Node {
    shared: Arc<Shared>,
    identity: Identity,
    disks: Arc<DiskSet>,
    grpc: Box<dyn Listener>,
    http: Box<dyn Listener>,
    s3: Option<Box<dyn Listener>>,
    orders: Orders,
    lost: Option<String>,
}

/// What others may order of a node that is in no cluster, or has lost its place.
struct Orders {
    found: mpsc::Receiver<FoundRequest>,
    rejoin: mpsc::Receiver<RejoinOrder>,
    restore: mpsc::Receiver<RestoreOrder>,
    force: mpsc::Receiver<ForceOrder>,
    undo: mpsc::Receiver<UndoOrder>,
}

/// The services that come up once the node is in a cluster.
#[derive(Clone)]
struct LateServices {
    raft: Late<RaftServer<RaftService>>,
    presence: Late<PresenceServer<PresenceService>>,
    shards: Late<ShardsServer<ShardService>>,
    locks: Late<LocksServer<LockService>>,
    store: Late<StoreServer<StoreService>>,
}

impl Node {
    /// Binds the node's addresses, then opens its folders. Nothing is written before all of them are ours.
    ///
    /// # Errors
    /// Whatever an operator has to mend: each says what, where and what next.
    pub async fn open(host: Host, options: Options) -> Result<Self, NodeError> {
        error::check(&options)?;
        let grpc = bind(&host, &options.address).await?;
        let http = bind(&host, &options.http).await?;
        let s3 = match &options.s3 {
            Some(s3) => Some(bind(&host, &s3.address).await?),
            None => None,
        };
        ownership::take(&host, &options.data_dir).await?;
        aside::tell(&host, &options);
        // What an earlier process had under way.
        rebirth_of_meta::sweep(&host, &options.data_dir).await?;
        rebirth_of_meta::finish(&host, &options.data_dir).await?;
        let (identity, lost) = membership::identify(&host, &options).await?;
        let (owner, patience) = (membership::owner(&identity), Patience::from(&options.deadlines));
        let mut paths = options.disks.clone();
        let added = identity.disks.iter().filter(|disk| disk.added && !options.disks.contains(&disk.path));
        paths.extend(added.map(|disk| disk.path.clone()));
        let steps = Steps::default();
        let opening = steps.begin(Step::Folders);
        let (disks, known) = DiskSet::open(&host, &paths, &owner, &identity.disks, patience).await?;
        drop(opening);
        let disks = Arc::new(disks);
        let peers = Peers::with(host.net.clone(), options.deadlines.clone(), options.defences);
        disks.report_to(peers.failures());
        let identity = Identity { disks: known, ..identity };
        if lost.is_none() {
            identity.store(&host, &membership::meta_dir(&options)).await?;
        }
        let (found_tx, found) = mpsc::channel(1);
        let (rejoin_tx, rejoin) = mpsc::channel(1);
        let (restore_tx, restore) = mpsc::channel(1);
        let (force_tx, force) = mpsc::channel(1);
        let (undo_tx, undo) = mpsc::channel(1);
        let phase = PhaseCell::new();
        phase.mode().load(&host, &options.data_dir).await;
        if lost.is_some() {
            phase.damaged(Damage::Absent);
        }
        let door = options.s3.clone().map(|s3| Door::new(s3, phase.clone()));
        let shared = Arc::new(Shared {
            name: options.name.as_str().into(),
            phase,
            steps,
            door,
            peers,
            views: Views::new(&options.deadlines),
            started: host.clock.now(),
            disks: OnceLock::from(disks.clone()),
            core: OnceLock::new(),
            found: found_tx,
            rejoin: rejoin_tx,
            restore: restore_tx,
            force: force_tx,
            undo: undo_tx,
            forcing: Arc::default(),
            canary: Mutex::new(()),
            volumes: Volumes::default(),
            reclaiming: Mutex::new(()),
            adding: Mutex::new(()),
            options,
            host,
        });
        Ok(Self {
            shared,
            identity,
            disks,
            grpc,
            http,
            s3,
            orders: Orders { found, rejoin, restore, force, undo },
            lost,
        })
    }

    /// Runs until told to stop, or until something ends it.
    ///
    /// # Errors
    /// When a part failed that the node cannot live without; the process is then to exit.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) -> Result<Ended, NodeError> {
        let (stop, stopping) = watch::channel(false);
        let phase = self.shared.phase.clone();
        let late = LateServices {
            raft: Late::new(phase.clone()),
            presence: Late::new(phase.clone()),
            shards: Late::new(phase.clone()),
            locks: Late::new(phase.clone()),
            store: Late::new(phase.clone()),
        };
        let servers = serve(self.shared.clone(), late.clone(), self.grpc, self.http, stopping.clone());
        let disks = tokio::spawn(self.disks.clone().run(stopping.clone()));
        let door = self.s3.zip(self.shared.door.clone());
        let mut door = door.map(|(listener, door)| Opened::run(door, listener, stopping.clone()));
        let life = Life { shared: self.shared.clone(), disks: self.disks, late, stopping };
        let mut servers = std::pin::pin!(servers);
        let ended = tokio::select! {
            ended = &mut servers => Err(ended),
            ended = door::ended(&mut door) => Err(ended),
            ended = life.live(self.identity, self.orders, self.lost) => Err(ended),
            () = told(&mut shutdown) => Ok(Ended::Shutdown),
        };
        phase.set(Phase::Stopping, "ending");
        stop.send_replace(true);
        if matches!(ended, Err(NodeError::Reborn(_))) {
            // Whoever ordered it is still to hear what came of it.
            let _ = tokio::time::timeout(ANSWER_GRACE, &mut servers).await;
        }
        if let Some(door) = door {
            // Requests at work may end while there is metadata to commit them.
            let _ = tokio::time::timeout(SHUTDOWN_GRACE, door.finished()).await;
        }
        if let Some(core) = self.shared.core.get() {
            let _ = tokio::time::timeout(SHUTDOWN_GRACE, core.meta.shutdown()).await;
        }
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, disks).await;
        ended
    }
}

/// Resolves once the flag is raised (or its owner is gone).
async fn told(flag: &mut watch::Receiver<bool>) {
    // An owner that is gone cannot say stop any more: that is the end too.
    let _ = flag.wait_for(|stop| *stop).await;
}

async fn bind(host: &Host, address: &str) -> Result<Box<dyn Listener>, NodeError> {
    host.net.bind(address).await.map_err(|source| NodeError::Bind { address: address.to_owned(), source })
}

/// Serves both ports until told to stop. Returns only with an error or when told.
async fn serve(
    shared: Arc<Shared>,
    late: LateServices,
    grpc: Box<dyn Listener>,
    http: Box<dyn Listener>,
    stopping: watch::Receiver<bool>,
) -> NodeError {
    let router = transport::server()
        .add_service(NodeControlServer::new(NodeControlService { shared: shared.clone() }))
        .add_service(NodeRecoveryServer::new(NodeRecoveryService { shared: shared.clone() }))
        .add_service(ReplicaRepairServer::new(ReplicaRepairService { shared: shared.clone() }))
        .add_service(MetaRecoveryServer::new(MetaRecoveryService { shared: shared.clone() }))
        .add_service(ClusterServer::new(ClusterService { shared: shared.clone() }))
        .add_service(late.raft)
        .add_service(late.presence)
        .add_service(late.shards)
        .add_service(late.locks)
        .add_service(late.store);
    let grpc = transport::serve(router, grpc, stop_future(stopping.clone()));
    let http = web::serve(crate::http::router(shared), http, stop_future(stopping.clone()));
    let grpc = async { grpc.await.err().map_or("the gRPC server ended".to_owned(), |error| error.to_string()) };
    let http = async { http.await.err().map_or("the HTTP server ended".to_owned(), |error| error.to_string()) };
    NodeError::Server(first_to_end(grpc, http, &stopping).await)
}

/// What ended first. Servers that were told to stop both get to finish: one that has nobody to answer must not cut the other's
/// last answer off.
async fn first_to_end(
    grpc: impl Future<Output = String>,
    http: impl Future<Output = String>,
    stopping: &watch::Receiver<bool>,
) -> String {
    let (mut grpc, mut http) = (std::pin::pin!(grpc), std::pin::pin!(http));
    let told = || *stopping.borrow();
    tokio::select! {
        why = &mut grpc => {
            if told() {
                http.await;
            }
            why
        }
        why = &mut http => {
            if told() {
                grpc.await;
            }
            why
        }
    }
}

async fn stop_future(mut stopping: watch::Receiver<bool>) {
    told(&mut stopping).await;
}

/// The node's way from its folders to serving.
struct Life {
    shared: Arc<Shared>,
    disks: Arc<DiskSet>,
    late: LateServices,
    stopping: watch::Receiver<bool>,
}

impl Life {
    /// Ends only with the reason why the process must.
    async fn live(self, identity: Identity, mut orders: Orders, lost: Option<String>) -> NodeError {
        let meta = match self.enter(identity, &mut orders, lost).await {
            Ok(meta) => meta,
            Err(error) => return error,
        };
        let stopped = {
            let meta = meta.clone();
            async move { NodeError::RaftStopped(meta.stopped().await) }
        };
        // A member answers no other order any more: whoever still waits for one hears that.
        let Orders { mut rejoin, mut force, mut undo, .. } = orders;
        let serving = self.serve_as_member(meta.clone());
        tokio::pin!(serving, stopped);
        loop {
            return tokio::select! {
                error = &mut stopped => error,
                error = &mut serving => error,
                dropped = membership::until_dropped(&self.shared, &meta) => {
                    // Whoever still waits for another order hears that it is not answered any more.
                    drop(undo);
                    match dropped {
                        Dropped::Removed => self.stay_removed(&meta, &mut rejoin, &mut force).await,
                        Dropped::Replaced(id) => self.stay_replaced(&meta, id, &mut rejoin).await,
                    }
                }
                epoch = meta.left_behind() => {
                    drop((force, undo));
                    self.stay_behind(&meta, epoch, &mut rejoin).await
                }
                Some(order) = rejoin.recv() => match rejoin::may_leave(&self.shared, &meta, &order).await {
                    Ok(()) => rejoin::leave_epoch(&self.shared, &self.disks, &meta, order).await,
                    Err(refused) => {
                        // Whoever asked may have given up.
                        let _ = order.answer.send(Err(refused));
                        continue;
                    }
                },
                Some(order) = force.recv() => self.go_on_alone(&meta, order).await,
                Some(order) = undo.recv() => self.go_back(&meta, order).await,
            };
        }
    }

    /// Another member was forced into a later epoch, or restored, without this one: it takes part in nothing any more, until it
    /// is ordered back, or that epoch is undone.
    async fn stay_behind(&self, meta: &Meta, epoch: Epoch, rejoin: &mut mpsc::Receiver<RejoinOrder>) -> NodeError {
        let reason = format!(
            "the cluster is in epoch {}, and this member is of one that is over: `resilver node rejoin {}` brings it back as a \
             learner",
            epoch.0, self.shared.name
        );
        tracing::error!(node = %self.shared.name, %reason, operation = "epoch", "this node was left behind");
        self.shared.phase.set(Phase::LostVoter, reason);
        meta.shutdown().await;
        tokio::select! {
            order = rejoin.recv() => match order {
                Some(order) => rejoin::leave_epoch(&self.shared, &self.disks, meta, order).await,
                None => std::future::pending().await,
            },
            () = membership::until_undone(&self.shared, meta, epoch) => {
                NodeError::Reborn(format!("epoch {} was undone: this member is of the present one", epoch.0))
            }
        }
    }

    /// The node gave this membership up, and was cut off before it had written down who it is since: nobody speaks to this member any
    /// more. It takes part in nothing, until it is ordered back.
    async fn stay_replaced(&self, meta: &Meta, id: RaftId, rejoin: &mut mpsc::Receiver<RejoinOrder>) -> NodeError {
        let reason = format!(
            "the cluster knows this node as member {id}, and its folder is member {}'s: `resilver node rejoin {}` brings it back as a \
             learner",
            meta.raft_id(),
            self.shared.name
        );
        tracing::error!(node = %self.shared.name, %reason, operation = "rejoin", "this node gave its membership up half way");
        self.shared.phase.set(Phase::LostVoter, reason);
        meta.shutdown().await;
        match rejoin.recv().await {
            Some(order) => rejoin::leave_epoch(&self.shared, &self.disks, meta, order).await,
            None => std::future::pending().await,
        }
    }

    /// The cluster has no such node any more: it takes part in nothing, and no order brings it back. It answers its agent, so
    /// that whoever looks is told why.
    async fn stay_removed(
        &self,
        meta: &Meta,
        rejoin: &mut mpsc::Receiver<RejoinOrder>,
        force: &mut mpsc::Receiver<ForceOrder>,
    ) -> NodeError {
        let reason = format!(
            "this node was removed from the cluster, for good: stop its agent; to use the machine again, empty {} and its disks, \
             and it joins as a new node",
            self.shared.options.data_dir.display()
        );
        tracing::warn!(node = %self.shared.name, %reason, operation = "removed", "this node is no member any more");
        self.shared.phase.damaged(Damage::Removed);
        self.shared.phase.set(Phase::LostVoter, reason.clone());
        meta.shutdown().await;
        loop {
            let refused = Status::failed_precondition(reason.clone());
            // Whoever asked may have given up.
            tokio::select! {
                Some(order) = rejoin.recv() => drop(order.answer.send(Err(refused))),
                Some(order) = force.recv() => drop(order.answer.send(Err(refused))),
                // Nobody is left to order anything.
                else => return std::future::pending().await,
            }
        }
    }

    /// The process ends, however it went: Raft is stopped, and what is on disk is a whole member.
    async fn go_on_alone(&self, meta: &Meta, order: ForceOrder) -> NodeError {
        let outcome = rebirth::force(&self.shared, meta, &order).await;
        let ended = match &outcome {
            Ok(reborn) => format!("it is the only voter of epoch {}", reborn.epoch),
            Err(status) => format!("it could not go on alone: {}", status.message()),
        };
        // Until the process ends nobody else goes on beside it.
        std::mem::forget(order.one);
        // Whoever asked may have given up.
        let _ = order.answer.send(outcome);
        NodeError::Reborn(ended)
    }

    /// As [`Life::go_on_alone`], back.
    async fn go_back(&self, meta: &Meta, order: UndoOrder) -> NodeError {
        let outcome = rebirth::take_back(&self.shared, meta, &order).await;
        let ended = match &outcome {
            Ok(undone) => {
                format!("epoch {} is undone, and it is in epoch {} again", undone.epoch.0, undone.member.epoch.0)
            }
            Err(status) => format!("it could not go back to the epoch before: {}", status.message()),
        };
        std::mem::forget(order.one);
        // Whoever asked may have given up.
        let _ = order.answer.send(outcome);
        NodeError::Reborn(ended)
    }

    /// Into the cluster: the usual way, or, for a lost voter, when somebody orders it back.
    async fn enter(&self, identity: Identity, orders: &mut Orders, lost: Option<String>) -> Result<Meta, NodeError> {
        let (shared, disks, raft) = (&self.shared, &self.disks, &self.late.raft);
        let reason = match lost {
            Some(reason) => reason,
            None => match membership::enter(shared, disks, identity.clone(), orders, raft).await {
                Err(NodeError::LostVoter(reason)) => reason,
                entered => return entered,
            },
        };
        rejoin::stay_lost(shared, disks, identity, reason, orders, raft).await
    }

    async fn serve_as_member(&self, meta: Meta) -> NodeError {
        let phase = &self.shared.phase;
        let host = &self.shared.host;
        let options = &self.shared.options;
        let board = Board::new(host);
        let shards = ShardClient::new(
            self.shared.name.clone(),
            meta.clone(),
            self.disks.clone(),
            self.shared.peers.clone(),
            board.clone(),
        );
        let rebuilder =
            Rebuilder::new(meta.clone(), self.disks.clone(), shards.clone(), board.clone(), &options.repair);
        let life = LifeId::draw(&mut host.rand.fork("locks.life"));
        let locks = Locks::new(host, meta.clone(), self.shared.peers.clone(), self.shared.name.clone(), life);
        let gateway = Gateway::new(GatewayParts {
            host: host.clone(),
            meta: meta.clone(),
            locks: locks.clone(),
            shards: shards.clone(),
            rebuilder: rebuilder.clone(),
            read_deadline: options.read_deadline,
        });
        let service = ShardService::new(meta.clone(), self.disks.clone(), board.clone(), rebuilder.clone());
        self.late.shards.fill(service.into_server());
        let presence = PresenceService::new(self.shared.name.clone(), life, self.stopping.clone());
        self.late.presence.fill(presence.into_server());
        self.late
            .locks
            .fill(LockService::new(locks.clone(), self.shared.peers.clone(), phase.mode().clone()).into_server());
        // From now on: this node may lead before it serves.
        tokio::spawn(run_leases(meta.clone(), self.stopping.clone()));
        let watching = watch_all(self.shared.peers.clone(), self.shared.name.clone(), meta.map_changes());
        let repair = Repair::new(RepairParts {
            host: host.clone(),
            meta: meta.clone(),
            disks: self.disks.clone(),
            shards,
            board,
            rebuilder,
            repair: options.repair.clone(),
            scrub: options.scrub.clone(),
            read_deadline: options.read_deadline,
            abandoned_uploads_after: options.abandoned_uploads_after,
        });
        let handle = repair.handle(gateway.clone());
        let core = Core { meta: meta.clone(), gateway: gateway.clone(), locks, repair: handle };
        // Filled once: a node enters its cluster once per process.
        let _ = self.shared.core.set(core);

        phase.set(Phase::Recovering, "catching up to what the cluster has committed");
        let catching_up = self.shared.steps.begin(Step::CatchUp);
        membership::catch_up(&self.shared, &self.disks, &meta).await;
        drop(catching_up);
        adopt(&self.shared, &self.disks).await;
        phase.set(Phase::Verifying, "waiting for a disk to answer its canary");
        let waiting = self.shared.steps.begin(Step::Canary);
        membership::one_disk_answers(&self.disks).await;
        drop(waiting);
        if let Some(door) = &self.shared.door {
            door.open(gateway.clone());
        }
        self.late.store.fill(StoreService::new(gateway, meta.clone(), phase.clone()).into_server());
        phase.set(Phase::Healthy, "serving");
        meta.serves();
        tokio::spawn(membership::refute_late_mark(self.shared.clone(), self.disks.clone(), meta.clone()));
        tokio::select! {
            () = repair.run(self.stopping.clone()) => NodeError::Server("the repair service ended".to_owned()),
            () = watching => NodeError::Server("the watch over the other nodes ended".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found in CI: what `meta recover-quorum --undo` had set aside was not told, because the HTTP server had nobody to answer,
    /// ended at once, and the process with it, before the gRPC server had sent its last answer.
    #[tokio::test(start_paused = true)]
    async fn the_last_answer_is_sent_also_when_the_other_server_has_nobody_to_answer() {
        let (stop, stopping) = watch::channel(false);
        let sent = watch::Sender::new(false);
        let answers = async {
            stop_future(stopping.clone()).await;
            tokio::time::sleep(ANSWER_GRACE / 2).await;
            sent.send_replace(true);
            "grpc".to_owned()
        };
        let idle = async {
            stop_future(stopping.clone()).await;
            "http".to_owned()
        };
        stop.send_replace(true);
        assert_eq!(first_to_end(answers, idle, &stopping).await, "http");
        assert!(*sent.borrow());
        // One that ends without having been told is the end of both.
        let (_stop, stopping) = watch::channel(false);
        let ended = first_to_end(async { "grpc".to_owned() }, std::future::pending(), &stopping).await;
        assert_eq!(ended, "grpc");
    }
}
