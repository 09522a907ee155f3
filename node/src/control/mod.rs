//! What the node answers to its agent and to operators: the contract of `proto/` over the parts of this node.
//!
//! Owns: translation between messages and parts. Must never: decide about recovery (the agent does), or change metadata
//! other than through [`Meta::propose`](crate::meta::Meta::propose).

mod cluster;
mod disks;
mod forced;
mod hosts;
mod join;
mod journal;
mod leaving;
mod meta_recovery;
mod node_control;
mod observe;
mod recovery;
mod rejoin;
mod relief;
mod replicas;
mod room;
mod undo;
mod views;
mod volumes;
mod voters;

use std::sync::{Arc, OnceLock};

use resilver_host::{Host, WallTime};
use tokio::sync::{Mutex, mpsc};
use tonic::Status;

pub(crate) use self::views::Views;
pub(crate) use self::volumes::Volumes;
use crate::disk::DiskSet;
use crate::gateway::Gateway;
use crate::locks::Locks;
use crate::meta::{Meta, MetaError};
use crate::options::Options;
use crate::peers::Peers;
use crate::phase::PhaseCell;
use crate::repair::RepairHandle;
use crate::s3::Door;
use crate::steps::Steps;
use crate::types::NodeName;

pub(crate) use cluster::ClusterService;
pub(crate) use disks::adopt;
pub(crate) use join::{FoundRequest, JoinRound, Known, ask_members, ask_who_we_are, join_request, location, own_join};
pub(crate) use meta_recovery::{ForceOrder, MetaRecoveryService, Reborn, RestoreOrder, others};
pub(crate) use node_control::NodeControlService;
pub(crate) use observe::observe as observe_now;
pub(crate) use recovery::{NodeRecoveryService, ReplicaRepairService};
pub(crate) use rejoin::{RejoinOrder, Rejoined};
pub(crate) use undo::UndoOrder;

/// The bucket of the canaries. Reserved: it is in no listing of buckets.
pub const CANARY_BUCKET: &str = "resilver.canary";

/// The parts that exist once the node is in a cluster.
#[derive(Clone)]
pub(crate) struct Core {
    pub(crate) meta: Meta,
    pub(crate) gateway: Gateway,
    pub(crate) locks: Locks,
    pub(crate) repair: RepairHandle,
}

/// What every service of this node shares.
pub(crate) struct Shared {
    pub(crate) host: Host,
    pub(crate) options: Options,
    pub(crate) name: NodeName,
    pub(crate) phase: PhaseCell,
    /// How far the start is.
    pub(crate) steps: Steps,
    /// The S3 door, where there is one.
    pub(crate) door: Option<Door>,
    pub(crate) peers: Peers,
    /// What the others said of themselves.
    pub(crate) views: Views,
    pub(crate) started: WallTime,
    pub(crate) disks: OnceLock<Arc<DiskSet>>,
    pub(crate) core: OnceLock<Core>,
    /// Requests of `cluster init`, answered by the service's own loop: only it moves the node between phases.
    pub(crate) found: mpsc::Sender<FoundRequest>,
    /// Orders to come back, answered by that loop as well, while the node is a lost voter.
    pub(crate) rejoin: mpsc::Sender<RejoinOrder>,
    /// Orders to go on from a backup, answered while the node is in no cluster or lost.
    pub(crate) restore: mpsc::Sender<RestoreOrder>,
    /// Orders to go on alone, answered while the node is a member.
    pub(crate) force: mpsc::Sender<ForceOrder>,
    /// Orders to be again what this member was before it went on alone.
    pub(crate) undo: mpsc::Sender<UndoOrder>,
    /// Held while this member is asked to go on alone, or to undo that, from before it asks the others.
    pub(crate) forcing: Arc<tokio::sync::Mutex<()>>,
    /// One canary at a time: they share a key.
    pub(crate) canary: Mutex<()>,
    /// Room on the file systems that it writes to.
    pub(crate) volumes: Volumes,
    /// Room is reclaimed once at a time.
    pub(crate) reclaiming: Mutex<()>,
    /// One disk is added at a time: they share the identity's file.
    pub(crate) adding: Mutex<()>,
}

impl Shared {
    /// The parts of a member, or UNAVAILABLE with the phase.
    pub(crate) fn core(&self) -> Result<&Core, Status> {
        self.core.get().ok_or_else(|| {
            let state = self.phase.get();
            Status::unavailable(format!("the node is {}: {}", state.phase.as_str(), state.detail))
        })
    }
}

/// How a metadata error reads on the wire.
pub(crate) fn meta_status(error: &MetaError) -> Status {
    Status::unavailable(format!("metadata: {error}"))
}
