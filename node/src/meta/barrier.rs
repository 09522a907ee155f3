//! Linearizable reads without leader leases: one read-index round serves all reads that wait for it.
//!
//! Owns: the batching. Invariant: a question is answered only by a round that began after it was asked: those that come
//! while a round runs wait for the next.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use openraft::LogId;
use openraft::error::{CheckIsLeaderError, RaftError};
use resilver_proto::internal::ReadIndexRequest;
use tokio::sync::{mpsc, oneshot, watch};

use super::network::Links;
use super::raft::{Node, Raft};
use crate::peers::Profile;
use crate::types::RaftId;

/// Questions that may wait at once; more wait at the door.
const MAX_WAITING: usize = 4096;
/// One question to the leader. It answers within a heartbeat; a dead one not at all.
const ASK_DEADLINE: Duration = Duration::from_secs(1);

/// Why a round came to nothing. The caller tries again.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum NoIndex {
    #[error("this member does not lead")]
    NotLeader,
    #[error("there is no leader")]
    NoLeader,
    #[error("the leader could not reach a quorum")]
    NoQuorum,
    #[error("the leader did not answer: {0}")]
    Unreachable(String),
    #[error("raft is stopped: {0}")]
    Stopped(String),
}

type Reply = oneshot::Sender<Result<u64, NoIndex>>;

/// The two kinds of rounds.
#[derive(Clone)]
pub(super) struct Barrier {
    /// Asks Raft itself; works on the leader only.
    leader: mpsc::Sender<Reply>,
    /// Asks whoever leads.
    any: mpsc::Sender<Reply>,
}

impl Barrier {
    /// Starts the batching. It ends when the last handle is dropped. While this member is `yielding` it confirms nothing:
    /// the rounds would renew the lease that is to run out.
    pub(super) fn start(raft: Raft, links: Arc<Links>, yielding: watch::Receiver<bool>) -> Self {
        let (leader, leader_rx) = mpsc::channel(MAX_WAITING);
        let (any, any_rx) = mpsc::channel(MAX_WAITING);
        let own = raft.clone();
        let floor = Arc::new(OnceLock::new());
        tokio::spawn(rounds(leader_rx, move || leader_round(own.clone(), *yielding.borrow(), floor.clone())));
        let own = leader.downgrade();
        tokio::spawn(rounds(any_rx, move || any_round(raft.clone(), links.clone(), own.clone())));
        Self { leader, any }
    }

    /// The read index, if this member leads.
    pub(super) async fn leader_index(&self) -> Result<u64, NoIndex> {
        ask(&self.leader).await
    }

    /// The read index, whoever leads.
    pub(super) async fn index(&self) -> Result<u64, NoIndex> {
        ask(&self.any).await
    }
}

async fn ask(door: &mpsc::Sender<Reply>) -> Result<u64, NoIndex> {
    let stopped = || NoIndex::Stopped("the metadata is shut down".to_owned());
    let (tx, rx) = oneshot::channel();
    door.send(tx).await.map_err(|_| stopped())?;
    rx.await.map_err(|_| stopped())?
}

/// One round after the other, each for all that wait when it begins.
async fn rounds<F, R>(mut door: mpsc::Receiver<Reply>, round: F)
where
    F: Fn() -> R,
    R: Future<Output = Result<u64, NoIndex>>,
{
    let mut waiting = Vec::new();
    while door.recv_many(&mut waiting, MAX_WAITING).await > 0 {
        let index = round().await;
        for reply in waiting.drain(..) {
            // Whoever stopped waiting needs no answer.
            let _ = reply.send(index.clone());
        }
    }
}

/// A leader that comes back within its term is restored as leader by openraft (0.9.25), which then knows neither what was
/// committed before the crash nor that it must not answer before it does (its noop entry is the term's first). Everything
/// that was acknowledged is in its log: no read index may lie before where that ended when the first round was answered.
async fn leader_round(raft: Raft, yielding: bool, floor: Arc<OnceLock<u64>>) -> Result<u64, NoIndex> {
    if yielding {
        return Err(NoIndex::NotLeader);
    }
    let (index, _): (Option<LogId<Node>>, _) = raft.get_read_log_id().await.map_err(|error| match error {
        RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_)) => NoIndex::NotLeader,
        RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)) => NoIndex::NoQuorum,
        RaftError::Fatal(fatal) => NoIndex::Stopped(fatal.to_string()),
    })?;
    let floor = *floor.get_or_init(|| raft.metrics().borrow().last_log_index.unwrap_or(0));
    index.map(|id| id.index.max(floor)).ok_or(NoIndex::NotLeader)
}

async fn any_round(raft: Raft, links: Arc<Links>, own: mpsc::WeakSender<Reply>) -> Result<u64, NoIndex> {
    let leader = raft.metrics().borrow().current_leader.ok_or(NoIndex::NoLeader)?;
    if leader == links.ids.raft_id.0 {
        let own = own.upgrade().ok_or_else(|| NoIndex::Stopped("the metadata is shut down".to_owned()))?;
        return ask(&own).await;
    }
    let unreachable = |detail: String| NoIndex::Unreachable(detail);
    let address = links.address(RaftId(leader)).ok_or(NoIndex::NoLeader)?;
    let mut client = links.client(&address, Profile::Control).map_err(|error| unreachable(error.to_string()))?;
    let request = ReadIndexRequest { envelope: Some(links.ids.envelope(RaftId(leader))) };
    tokio::select! {
        answer = tokio::time::timeout(ASK_DEADLINE, client.read_index(request)) => match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner().index),
            Ok(Err(status)) => Err(unreachable(status.message().to_owned())),
            Err(_) => {
                links.peers.drop_channel(&address, Profile::Control);
                Err(unreachable(format!("no answer within {} s", ASK_DEADLINE.as_secs())))
            }
        },
        () = super::leader_leaves(&raft, leader) => Err(NoIndex::NoLeader),
    }
}
