//! The metadata, agreed upon by Raft: the facade over openraft and the state machine.
//!
//! Owns: one member of Raft (log, vote, database, snapshots, its tasks), proposing from any node, linearizable reads, and
//! who votes. No openraft type leaves this module.
//!
//! Must never: start Raft on a doubtful log, vote or database ([`MetaError::LostVoter`]): it resumes leadership from its
//! stored vote. Make a cluster out of an empty folder: only [`Meta::found`] does.
//!
//! Invariants: an entry is durable before it is acknowledged; the log is purged only below what the database holds
//! durably; once Raft stops inside, [`Meta::stopped`] resolves and the process must exit, since gRPC would go on
//! answering.

mod barrier;
mod election;
mod error;
mod facts;
mod handover;
mod heard;
pub mod identity;
mod log_store;
mod machine;
mod membership;
mod network;
mod propose;
#[cfg(feature = "quantity")]
pub mod quantity;
mod raft;
mod reads;
pub(crate) mod rebirth;
mod reclaim;
mod replay;
pub(crate) mod replicas;
mod room;
mod scrub;
mod service;
mod snapshot;
mod spare;
mod status;
mod storage;
#[cfg(test)]
mod tests;
pub(crate) mod undo;
mod upkeep;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::BasicNode;
use openraft::error::{InitializeError, RaftError};
use rand::RngCore;
use resilver_host::Host;
use resilver_proto::internal::Envelope;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::Status;

use self::barrier::{Barrier, NoIndex};
use self::election::Elections;
use self::identity::Identity;
use self::log_store::{LogAdapter, PurgeGate};
use self::machine::Machine;
use self::network::{Ids, Links, Network};
use self::propose::Sessions;
use self::raft::{Node, Raft};
use self::replicas::{Replicas, Stops};
use self::room::Room;
use self::snapshot::Snapshots;
use self::storage::Layout;
use self::upkeep::Upkeep;
use crate::mode::ModeState;
use crate::model::{ClusterMap, Command, Outcome};
use crate::peers::Peers;
use crate::state::State;
use crate::steps::{Step, Steps};
use crate::types::{ClusterId, Epoch, RaftId};

pub(crate) use self::election::Asked;
pub use self::error::MetaError;
pub(crate) use self::membership::{CAUGHT_UP_ENTRIES, VOTERS};
pub use self::propose::PROPOSE_DEADLINE;
pub(crate) use self::propose::name_of;
pub use self::raft::Tuning;
pub use self::room::NoRoom;
pub(crate) use self::room::room_beside;
pub use self::service::RaftService;
pub use self::status::{MetaStatus, Replication, Role, StoredVote};
pub(crate) use self::storage::{ASIDE, make as make_member, move_aside};
pub use crate::state::{Counts, FIRST_EPOCH, FIRST_RAFT_ID, Scan};
pub use crate::state::{Entry, ListQuery, Page, PartPage, UploadEntry, UploadPage, UploadQuery};

/// How long a read waits for its barrier. Several elections fit in.
pub const BARRIER_DEADLINE: Duration = Duration::from_secs(10);
/// Before asking for a read index again after a round came to nothing.
const BARRIER_PAUSE: Duration = Duration::from_millis(30);

/// What a member is started with.
#[derive(Clone, Debug)]
pub struct MetaOptions {
    /// The metadata folder.
    pub dir: PathBuf,
    /// Who this is, with its membership set. On a first start the caller has not stored it yet: [`Meta::start`] stores
    /// it, after log, vote and database were made.
    pub identity: Identity,
    /// This node's gRPC address.
    pub address: String,
    /// Times and sizes.
    pub tuning: Tuning,
}

/// A running member. Cheap to clone.
#[derive(Clone)]
pub struct Meta {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft,
    state: State,
    snapshots: Snapshots,
    links: Arc<Links>,
    barrier: Barrier,
    elections: Arc<Elections>,
    sessions: Sessions,
    address: String,
    cluster_name: String,
    tuning: Tuning,
    committed: Arc<AtomicU64>,
    /// Set while leadership is being handed over: nothing is appended here then.
    yielding: watch::Sender<bool>,
    /// Why the state machine failed, once it has.
    failed: watch::Receiver<Option<String>>,
    room: Room,
    /// What was found to rot while the member cannot be spared.
    rot: watch::Sender<Option<String>>,
    replicas: Replicas,
    /// Whether the member serves.
    settled: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Resolves once `leader` is not believed to lead any more, or Raft has stopped.
async fn leader_leaves(raft: &Raft, leader: Node) {
    let mut metrics = raft.metrics();
    // An error means that Raft is gone: then nobody leads.
    let _ = metrics.wait_for(|m| m.current_leader != Some(leader) || m.running_state.is_err()).await;
}

impl Meta {
    /// Opens what this member keeps and starts Raft on it. On a first start everything is made, and the identity stored.
    ///
    /// # Errors
    /// [`MetaError::LostVoter`]: Raft was not started and must not be. [`MetaError::TooNew`], [`MetaError::Foreign`]: it
    /// is not this program's, or not this member's. Nothing was changed then.
    pub async fn start(host: &Host, options: MetaOptions, peers: Peers) -> Result<Self, MetaError> {
        let meta = Self::start_telling(host, options, peers, &Steps::default()).await?;
        meta.serves();
        Ok(meta)
    }

    /// [`Meta::start`], telling how far it is. What can wait until the member serves waits for [`Meta::serves`].
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn start_telling(
        host: &Host,
        options: MetaOptions,
        peers: Peers,
        steps: &Steps,
    ) -> Result<Self, MetaError> {
        let MetaOptions { dir, identity, address, tuning } = options;
        let config = tuning.config()?;
        let (layout, node) = (Layout::of(&dir), identity.node.clone());
        let (storage, member) = storage::open_telling(host, &dir, &identity, steps).await?;
        let ids = Ids { cluster: member.cluster, epoch: member.epoch, raft_id: member.raft_id };
        let mut rng = host.rand.fork("meta.session");
        let label = format!("{}-{:08x}", ids.raft_id, rng.next_u32());
        let state = storage.state;
        let reading = steps.begin(Step::Snapshot);
        let snapshots = Snapshots::open(host, &layout.snapshots, label, storage.log.first()).await?;
        drop(reading);

        let (failed_tx, failed) = watch::channel(None);
        let gate = PurgeGate { durable: state.durable_changes(), failed: failed.clone() };
        let log = LogAdapter::new(storage.log, storage.vote_file, storage.vote, gate);
        let committed = log.committed();
        let stops = Arc::new(Stops::default());
        let machine = Machine::new(state.clone(), snapshots.clone(), stops.clone(), failed_tx.clone())?;
        #[cfg(any(feature = "audit", feature = "planted-bugs"))]
        let machine = machine.of(ids.raft_id);
        #[cfg(feature = "planted-bugs")]
        resilver_host::planted::damage::delude(ids.raft_id.0, None);
        #[cfg(feature = "audit")]
        facts::opened(&ids, log.clone(), &machine::note_of(state.applied().as_ref())?).await;
        let links = Links::new(host.clone(), ids, peers, state.map_changes());
        let starting = steps.begin(Step::Raft);
        let raft = Raft::new(ids.raft_id.0, config, Network { links: links.clone() }, log.clone(), machine)
            .await
            .map_err(|fatal| MetaError::Stopped { reason: fatal.to_string() })?;
        // The first answer comes after the first report: from here on the status says what is stored, not nothing.
        raft.with_raft_state(|_| ()).await.map_err(|fatal| MetaError::Stopped { reason: fatal.to_string() })?;
        drop(starting);

        let (stop, yielding) = (watch::Sender::new(false), watch::Sender::new(false));
        let settled = watch::Sender::new(false);
        let upkeep = Upkeep {
            state: state.clone(),
            raft: raft.clone(),
            tuning: tuning.clone(),
            failed: failed_tx.clone(),
            settled: settled.subscribe(),
        };
        let elections = Elections {
            raft: raft.clone(),
            log,
            links: links.clone(),
            tuning: tuning.clone(),
            yielding: yielding.subscribe(),
            asked: Asked::default(),
            quiet: watch::Sender::new(false),
            heard: heard::Heard::new(),
            draws: Mutex::new(host.rand.fork("meta.election")),
            stored: spare::Found::default(),
        };
        let elections = Arc::new(elections);
        let tasks =
            vec![tokio::spawn(elections.clone().run(stop.subscribe())), tokio::spawn(upkeep.run(stop.subscribe()))];
        let inner = Inner {
            barrier: Barrier::start(raft.clone(), links.clone(), yielding.subscribe()),
            elections,
            sessions: Sessions::new(rng),
            raft,
            state,
            snapshots,
            links,
            address,
            cluster_name: member.cluster_name,
            tuning,
            committed,
            yielding,
            failed,
            room: Room { host: host.clone(), node, database: layout.database, dir, low: watch::Sender::new(false) },
            settled,
            rot: watch::Sender::new(None),
            replicas: Replicas::new(host.rand.fork("meta.checkpoint"), stops),
            stop,
            tasks: Mutex::new(tasks),
        };
        let meta = Self { inner: Arc::new(inner) };
        let whole = [
            tokio::spawn(membership::run(meta.clone(), meta.inner.stop.subscribe())),
            tokio::spawn(room::run(meta.clone(), meta.inner.stop.subscribe())),
            tokio::spawn(scrub::run(meta.clone(), failed_tx, meta.inner.stop.subscribe())),
        ];
        meta.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(whole);
        Ok(meta)
    }

    /// The member serves from now on: what waited for that begins.
    pub(crate) fn serves(&self) {
        self.inner.settled.send_replace(true);
    }

    /// Makes this member the only voter of a new cluster. Done before, it does nothing. The caller then proposes
    /// [`Command::InitCluster`] and this node's [`Command::JoinNode`].
    ///
    /// # Errors
    /// When Raft is stopped or refuses.
    pub async fn found(&self) -> Result<(), MetaError> {
        let own = BTreeMap::from([(self.raft_id().0, BasicNode::new(self.inner.address.clone()))]);
        match self.inner.raft.initialize(own).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(MetaError::Refused { detail: error.to_string() }),
            Err(RaftError::Fatal(fatal)) => Err(MetaError::Stopped { reason: fatal.to_string() }),
        }
    }

    /// Proposes a command from any node and waits for its outcome; a refusal is an outcome. However often it has to be
    /// sent, it is applied at most once.
    ///
    /// # Errors
    /// [`MetaError::NoLeader`]: certainly not done. [`MetaError::Unknown`]: it may have been.
    pub async fn propose(&self, command: Command) -> Result<Outcome, MetaError> {
        self.inner.propose(&command).await
    }

    /// Waits until everything acknowledged before this call is applied here; the index applied by then.
    ///
    /// # Errors
    /// [`MetaError::NoLeader`] when no leader could confirm a read index in time.
    pub async fn barrier(&self) -> Result<u64, MetaError> {
        let no_leader = |_| MetaError::NoLeader { doing: "a consistent read", waited: BARRIER_DEADLINE };
        tokio::time::timeout(BARRIER_DEADLINE, self.inner.barrier()).await.map_err(no_leader)?
    }

    /// The cluster map as applied here.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.inner.state.map()
    }

    /// Follows the cluster map.
    pub fn map_changes(&self) -> watch::Receiver<Arc<ClusterMap>> {
        self.inner.state.map_changes()
    }

    /// This member's view of Raft.
    pub fn status(&self) -> MetaStatus {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        status::status(&metrics, self.inner.committed.load(Ordering::Relaxed), self.inner.elections.log.vote())
    }

    /// This member's id.
    pub fn raft_id(&self) -> RaftId {
        self.inner.links.ids.raft_id
    }

    /// The cluster that this member is of: its id, its name, and the epoch that the member belongs to. Known without any
    /// entry applied.
    pub fn cluster(&self) -> (ClusterId, &str, Epoch) {
        let ids = &self.inner.links.ids;
        (ids.cluster, &self.inner.cluster_name, ids.epoch)
    }

    /// The sets of voters that have to agree: one, two while the membership changes.
    pub fn voter_sets(&self) -> Vec<Vec<RaftId>> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let sets = metrics.membership_config.membership().get_joint_config();
        sets.iter().map(|set| set.iter().copied().map(RaftId).collect()).collect()
    }

    /// Resolves once Raft knows no such member any more.
    pub(crate) async fn dropped(&self, member: RaftId) {
        let mut metrics = self.inner.raft.metrics();
        // An error means that Raft is gone: then there is nothing to know.
        let knows_none = |metrics: &openraft::RaftMetrics<Node, raft::RaftNode>| {
            metrics.membership_config.membership().get_node(&member.0).is_none()
        };
        let _ = metrics.wait_for(knows_none).await;
    }

    /// How long ago this member last heard from whoever leads, or from its own quorum; `None`: not since it started.
    pub(crate) async fn silent_for(&self) -> Option<Duration> {
        self.inner.elections.last_word().await.map(|spoken| spoken.elapsed())
    }

    /// How long ago this member heard a leader; `None`: it leads, or Raft is gone.
    pub(crate) async fn unheard(&self) -> Option<Duration> {
        self.inner.elections.unheard().await
    }

    /// The envelope of a call to `target`.
    pub fn envelope(&self, target: RaftId) -> Envelope {
        self.inner.links.ids.envelope(target)
    }

    /// Refuses a call that is not for this member of this cluster in this epoch.
    ///
    /// # Errors
    /// FAILED_PRECONDITION, with what was expected.
    #[allow(clippy::result_large_err)] // tonic's own error type
    pub fn check_envelope(&self, envelope: Option<&Envelope>) -> Result<(), Status> {
        self.inner.links.check(envelope)
    }

    /// Resolves with the latest epoch once another member of this cluster is in a later one than this: it was forced, or
    /// restored, without this member, which must take no part in anything any more.
    pub async fn left_behind(&self) -> Epoch {
        self.inner.links.left_behind().await
    }

    /// Resolves with the reason once Raft has stopped inside. The process must then exit.
    pub async fn stopped(&self) -> String {
        let mut metrics = self.inner.raft.metrics();
        let mut failed = self.inner.failed.clone();
        let raft = async {
            match metrics.wait_for(|metrics| metrics.running_state.is_err()).await {
                Ok(metrics) => metrics.running_state.as_ref().err().map(ToString::to_string).unwrap_or_default(),
                Err(_) => "raft is gone".to_owned(),
            }
        };
        let state = async {
            let reason = failed.wait_for(Option::is_some).await.map(|reason| reason.clone().unwrap_or_default());
            match reason {
                Ok(reason) => reason,
                // All who could report a failure are gone, and Raft with them.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = raft => reason,
            reason = state => reason,
        }
    }

    /// Makes this member stand for election now, if a quorum misses the leader, too. Nothing to do where it leads.
    ///
    /// # Errors
    /// [`MetaError::Refused`] when too few would elect it: a leader lives, and is not to be deposed.
    pub async fn trigger_election(&self) -> Result<(), MetaError> {
        self.inner.elections.stand().await
    }

    /// What of its stored metadata was found to rot, while this member goes on because the others are no majority without it;
    /// and every change of that.
    pub(crate) fn rot(&self) -> watch::Receiver<Option<String>> {
        self.inner.rot.subscribe()
    }

    /// Has this member stand for election only while its mode says so.
    pub(crate) fn stands_while(&self, mut mode: watch::Receiver<ModeState>) {
        let (quiet, mut stop) = (self.inner.elections.clone(), self.inner.stop.subscribe());
        let follow = async move {
            loop {
                quiet.quiet.send_replace(!mode.borrow_and_update().stands);
                // Whoever could say anything else is gone.
                if mode.changed().await.is_err() {
                    return;
                }
            }
        };
        let task = tokio::spawn(async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = follow => {}
            }
        });
        self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    /// How often this member asked whether it should stand for election.
    pub(crate) fn asked(&self) -> &Asked {
        &self.inner.elections.asked
    }

    /// Hands leadership to `to`, or to the best voter. Nothing to do where this member does not lead.
    ///
    /// # Errors
    /// When nobody took over: this member then leads on.
    pub async fn step_down(&self, to: Option<RaftId>) -> Result<(), MetaError> {
        self.inner.hand_over(to).await
    }

    /// Ends Raft, makes what was applied durable and closes the files.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "raft did not end well");
        }
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::warn!(%error, "a task of the metadata did not end well");
            }
        }
        if let Err(error) = self.inner.state.flush().await {
            tracing::warn!(%error, "the last changes are not durable here; the log has them");
        }
        self.inner.state.close().await;
    }

    /// The last entry of this member's log: the term in which it was made, and its index. Of two members the greater has all
    /// that the other has of what was committed.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn last_log(&self) -> Result<(u64, u64), MetaError> {
        let last = self.inner.elections.last_log().await.map_err(|reason| MetaError::Stopped { reason })?;
        Ok(last.map_or((0, 0), |id| (id.leader_id.term, id.index)))
    }

    /// Writes the whole state as of one applied index to a file; that index. `consistent`: everything acknowledged before
    /// this call is in it, which takes a quorum.
    ///
    /// # Errors
    /// When no leader can be asked, or the disk refuses.
    pub async fn backup(&self, to: &Path, consistent: bool) -> Result<u64, MetaError> {
        if consistent {
            self.barrier().await?;
        }
        let head = self.inner.state.export(to, format!("backup-{}", self.raft_id())).await?;
        Ok(head.applied.map_or(0, |applied| applied.index))
    }

    /// The service other members call.
    pub fn raft_service(&self) -> RaftService {
        RaftService { inner: self.inner.clone() }
    }
}

impl Inner {
    async fn barrier(&self) -> Result<u64, MetaError> {
        let index = loop {
            match self.barrier.index().await {
                Ok(index) => break index,
                Err(NoIndex::Stopped(reason)) => return Err(MetaError::Stopped { reason }),
                Err(failure) => tracing::debug!(%failure, "a read waits for a leader"),
            }
            self.leader().await?;
            tokio::time::sleep(BARRIER_PAUSE).await;
        };
        let gone = |_| MetaError::Stopped { reason: "the state machine is gone".to_owned() };
        let mut applied = self.state.applied_changes();
        let reached = applied.wait_for(|applied| *applied >= Some(index)).await.map_err(gone)?;
        Ok(reached.unwrap_or(index))
    }
}
