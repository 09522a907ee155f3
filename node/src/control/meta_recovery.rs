//! `MetaRecovery`: how far a member is, backup, restore, and a quorum that is lost.
//!
//! Owns: the guards before anything is ordered, and the order. Must never: stop Raft, or touch a member's files: only the
//! service's own loop does. Force anything while a quorum lives, or could come back.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use resilver_host::OpenMode;
use resilver_proto::contract::meta_recovery_client::MetaRecoveryClient;
use resilver_proto::contract::meta_recovery_server::MetaRecovery;
use resilver_proto::contract::restore_request::Of;
use resilver_proto::contract::{
    BackupChunk, BackupRequest, Progress, RecoverQuorumRequest, RecoverQuorumResponse, ReplayJournalRequest,
    RestoreBegin, RestoreRequest, RestoreResponse, StateFinding, SurveyRequest, SurveyResponse,
    UndoRecoverQuorumRequest, UndoRecoverQuorumResponse, ValidateClusterStateRequest, ValidateClusterStateResponse,
};
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::forced::{Kept, Scene, may_be_forced, may_be_restored};
use super::{Shared, journal, meta_status, undo};
use crate::meta::rebirth::passing;
use crate::peers::Profile;
use crate::phase::Phase;
use crate::state::describe;
use crate::types::{Epoch, NodeName, RaftId};

/// Bytes of a file in one message.
const CHUNK_BYTES: usize = 256 * 1024;
/// Messages waiting for the wire.
const CHUNKS_IN_FLIGHT: usize = 4;
/// How long another node may take to say how it is. Longer than a suspicion: a member that is only slow is not gone.
const ASK: Duration = Duration::from_secs(5);
/// How long a quorum is looked for before it counts as lost: several elections.
const QUORUM_WAIT: Duration = Duration::from_secs(5);

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Clone)]
pub(crate) struct MetaRecoveryService {
    pub(crate) shared: Arc<Shared>,
}

/// A file that lies in the metadata folder and was read to its end: this node is to go on from it.
pub(crate) struct RestoreOrder {
    pub(crate) from: PathBuf,
    /// Held until this is done: whoever asks this node meanwhile hears of it.
    #[allow(dead_code)] // dropped with the order
    pub(crate) one: OwnedMutexGuard<()>,
    /// The latest epoch that anybody who was asked knows of.
    pub(crate) above: Epoch,
    pub(crate) reason: String,
    pub(crate) answer: oneshot::Sender<Result<Reborn, Status>>,
}

/// This member is to go on alone.
pub(crate) struct ForceOrder {
    pub(crate) gone: BTreeSet<NodeName>,
    /// Held until this is done: whoever asks this member meanwhile hears of it.
    pub(crate) one: OwnedMutexGuard<()>,
    /// The latest epoch that anybody who was asked knows of.
    pub(crate) above: Epoch,
    pub(crate) reason: String,
    pub(crate) answer: oneshot::Sender<Result<Reborn, Status>>,
}

/// The only voter of a new epoch.
#[derive(Clone, Debug)]
pub(crate) struct Reborn {
    pub(crate) cluster_id: String,
    pub(crate) epoch: u64,
    pub(crate) raft_id: RaftId,
    /// Up to which entry its state reaches.
    pub(crate) reaches: u64,
    /// Where what was there before is kept; empty: nothing was.
    pub(crate) aside: String,
}

#[tonic::async_trait]
impl MetaRecovery for MetaRecoveryService {
    type ReplayJournalStream = Messages<Progress>;
    type BackupStream = Messages<BackupChunk>;

    async fn replay_journal(
        &self,
        request: Request<ReplayJournalRequest>,
    ) -> Result<Response<Self::ReplayJournalStream>, Status> {
        journal::replay_journal(&self.shared, request.into_inner().from_sequence).map(Response::new)
    }

    async fn validate_cluster_state(
        &self,
        _: Request<ValidateClusterStateRequest>,
    ) -> Result<Response<ValidateClusterStateResponse>, Status> {
        validate(&self.shared).await.map(Response::new)
    }

    async fn survey(&self, _: Request<SurveyRequest>) -> Result<Response<SurveyResponse>, Status> {
        survey(&self.shared).await.map(Response::new)
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let stream = backup(&self.shared, request.into_inner().local).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn restore(&self, request: Request<Streaming<RestoreRequest>>) -> Result<Response<RestoreResponse>, Status> {
        let reborn = restore(&self.shared, request.into_inner()).await?;
        Ok(Response::new(RestoreResponse {
            cluster_id: reborn.cluster_id,
            epoch: reborn.epoch,
            raft_id: reborn.raft_id.0,
            applied: reborn.reaches,
            aside: reborn.aside,
        }))
    }

    async fn recover_quorum(
        &self,
        request: Request<RecoverQuorumRequest>,
    ) -> Result<Response<RecoverQuorumResponse>, Status> {
        let reborn = recover_quorum(&self.shared, request.into_inner()).await?;
        Ok(Response::new(RecoverQuorumResponse {
            epoch: reborn.epoch,
            raft_id: reborn.raft_id.0,
            last_log_index: reborn.reaches,
            aside: reborn.aside,
        }))
    }

    async fn undo_recover_quorum(
        &self,
        request: Request<UndoRecoverQuorumRequest>,
    ) -> Result<Response<UndoRecoverQuorumResponse>, Status> {
        undo::undo(&self.shared, request.into_inner()).await.map(Response::new)
    }
}

async fn survey(shared: &Shared) -> Result<SurveyResponse, Status> {
    // First whether it is asked to go on alone: who has just done so is in another phase by then.
    let recovering = shared.forcing.try_lock().is_err();
    let mut answer = SurveyResponse {
        node: shared.name.to_string(),
        phase: shared.phase.get().phase.as_str().to_owned(),
        recovering,
        ..SurveyResponse::default()
    };
    let Some(core) = shared.core.get() else { return Ok(answer) };
    let (map, status) = (core.meta.map(), core.meta.status());
    let name = |id: RaftId| map.node_by_raft(id).map_or_else(|| id.to_string(), |node| node.name.to_string());
    let (cluster, cluster_name, epoch) = core.meta.cluster();
    (answer.cluster_id, answer.cluster_name, answer.epoch) = (cluster.to_string(), cluster_name.to_owned(), epoch.0);
    answer.raft_id = status.raft_id.0;
    answer.voters = status.voters.iter().copied().map(name).collect();
    answer.leader = status.leader.map(name).unwrap_or_default();
    answer.term = status.term;
    (answer.last_log_term, answer.last_log_index) = core.meta.last_log().await.map_err(|error| meta_status(&error))?;
    answer.committed = status.committed;
    answer.applied = status.applied;
    undo::surveyed(shared, core, &mut answer).await;
    Ok(answer)
}

/// What the metadata says of itself, and the voters of each other.
async fn validate(shared: &Shared) -> Result<ValidateClusterStateResponse, Status> {
    let core = shared.core()?;
    core.meta.barrier().await.map_err(|error| meta_status(&error))?;
    let found = core.meta.validate().await.map_err(|error| meta_status(&error))?;
    let mut report: Vec<StateFinding> = found
        .findings
        .into_iter()
        .map(|finding| StateFinding {
            kind: finding.kind.to_owned(),
            subject: finding.subject,
            detail: finding.detail,
            next: finding.next.to_owned(),
            contradiction: finding.contradiction,
        })
        .collect();
    let (map, status) = (core.meta.map(), core.meta.status());
    let about_quorum = |subject: String, detail: &str, next: &str| StateFinding {
        kind: "quorum".to_owned(),
        subject,
        detail: detail.to_owned(),
        next: next.to_owned(),
        contradiction: false,
    };
    for voter in status.voters.iter().filter(|voter| map.node_by_raft(**voter).is_none()) {
        let detail = "it votes, and is no node any more: its vote goes to a learner that has caught up";
        report.push(about_quorum(format!("member {voter}"), detail, "see `resilver meta status`: is there a learner?"));
    }
    if status.voters.len().is_multiple_of(2) {
        let detail = format!("{} members vote: no more may fail than of one less", status.voters.len());
        report.push(about_quorum("the voters".to_owned(), &detail, "add a node"));
    }
    let findings =
        report.iter().map(|it| format!("{}: {}: {} ({})", it.kind, it.subject, it.detail, it.next)).collect();
    let consistent = found.more == 0 && report.iter().all(|finding| !finding.contradiction);
    Ok(ValidateClusterStateResponse {
        findings,
        valid: report.is_empty(),
        consistent,
        applied: found.applied,
        objects: found.objects,
        shards: found.shards,
        report,
        more: found.more,
    })
}

/// Writes the state to a file of its own and streams that; it is removed in the end.
async fn backup(shared: &Arc<Shared>, local: bool) -> Result<ReceiverStream<Result<BackupChunk, Status>>, Status> {
    let core = shared.core()?;
    let number = shared.host.clock.now().as_millis();
    let path = passing(&shared.options.data_dir, &format!("backup-{number}"));
    let applied = core.meta.backup(&path, !local).await.map_err(|error| meta_status(&error))?;
    let (chunks, stream) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let host = shared.host.clone();
    tokio::spawn(async move {
        let read = async {
            let file = host.disk.open(&path, OpenMode::Read).await?;
            let mut offset = 0;
            loop {
                let data = file.read_at(offset, CHUNK_BYTES).await?;
                let chunk = BackupChunk { applied: if offset == 0 { applied } else { 0 }, data: data.clone() };
                offset += data.len() as u64;
                let last = data.len() < CHUNK_BYTES;
                // Whoever asked may have gone away.
                if chunks.send(Ok(chunk)).await.is_err() || last {
                    return Ok::<_, std::io::Error>(());
                }
            }
        };
        if let Err(error) = read.await {
            let _ = chunks.send(Err(Status::unavailable(format!("the backup broke off: {error}")))).await;
        }
        if let Err(error) = host.disk.remove_file(&path).await {
            tracing::warn!(%error, path = %path.display(), "a passing backup could not be removed");
        }
    });
    Ok(ReceiverStream::new(stream))
}

async fn restore(shared: &Shared, mut stream: Streaming<RestoreRequest>) -> Result<Reborn, Status> {
    let Some(Of::Begin(begin)) = stream.message().await?.and_then(|message| message.of) else {
        return Err(Status::invalid_argument("the first message of a restore is `begin`"));
    };
    let RestoreBegin { confirm, members, reason, gone } = begin;
    let phase = shared.phase.get().phase;
    if !matches!(phase, Phase::Waiting | Phase::LostVoter) {
        return Err(Status::failed_precondition(format!(
            "this node is {}: a backup is restored into a node that is in no cluster, or has lost its metadata; nothing \
             was changed",
            phase.as_str()
        )));
    }
    // Before anybody is asked: of two nodes that are asked for it at a time at least one sees the other.
    let busy = |_| Status::aborted("a recovery is under way at this node");
    let one = shared.forcing.clone().try_lock_owned().map_err(busy)?;
    let number = shared.host.clock.now().as_millis();
    let path = passing(&shared.options.data_dir, &format!("restore-{number}"));
    let wish = Wish { confirm: &confirm, members: &members, gone: &gone, reason };
    let ordered = order_restore(shared, &path, wish, one, &mut stream).await;
    match ordered {
        // The file is the service's from now on.
        Ok(answered) => {
            answered.await.map_err(|_| Status::aborted("the node moved on meanwhile: look at `node status`"))?
        }
        Err(status) => {
            if let Err(error) = shared.host.disk.remove_file(&path).await
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "a backup that was not restored could not be removed");
            }
            Err(status)
        }
    }
}

/// What whoever restores says.
struct Wish<'a> {
    /// The cluster's name, as a person typed it.
    confirm: &'a str,
    /// Addresses of the others.
    members: &'a [String],
    /// Nodes of the backup that are gone for good.
    gone: &'a [String],
    reason: String,
}

/// Takes the file in, judges, and orders; what will be answered.
async fn order_restore(
    shared: &Shared,
    path: &std::path::Path,
    wish: Wish<'_>,
    one: OwnedMutexGuard<()>,
    stream: &mut Streaming<RestoreRequest>,
) -> Result<oneshot::Receiver<Result<Reborn, Status>>, Status> {
    let Wish { confirm, members, gone, reason } = wish;
    receive(shared, path, stream).await?;
    let found = describe(&shared.host, path).await.map_err(|error| {
        Status::failed_precondition(format!("the backup is not whole: {error}; nothing was changed"))
    })?;
    if found.name != confirm {
        return Err(Status::failed_precondition(format!(
            "the backup is of cluster `{}`, and `{confirm}` was confirmed; nothing was changed",
            found.name
        )));
    }
    if !found.nodes.contains(&shared.name) {
        let names: Vec<&str> = found.nodes.iter().map(NodeName::as_str).collect();
        return Err(Status::failed_precondition(format!(
            "node {} is not in the backup, which knows {}: restore it at one of those; nothing was changed",
            shared.name,
            names.join(", ")
        )));
    }
    let seen = others(shared, members).await;
    let (cluster, nodes) = (found.cluster.to_string(), found.nodes.iter().map(ToString::to_string).collect::<Vec<_>>());
    may_be_restored(shared.name.as_str(), &Kept { cluster: &cluster, nodes: &nodes }, gone, &seen)
        .map_err(|why| Status::failed_precondition(format!("{why}; nothing was changed")))?;
    let above = seen.iter().map(|(_, seen)| Epoch(seen.undone_epoch)).max().unwrap_or_default().max(found.epoch);
    // Should the word be wrong, and who is called gone have gone on from the backup itself: they are in different epochs at least.
    let above = if gone.is_empty() { above } else { Epoch(above.0 + 1) };
    let (answer, answered) = oneshot::channel();
    let order = RestoreOrder { from: path.to_owned(), one, above, reason, answer };
    shared.restore.try_send(order).map_err(|_| Status::aborted("a restore is under way at this node"))?;
    Ok(answered)
}

async fn receive(
    shared: &Shared,
    path: &std::path::Path,
    stream: &mut Streaming<RestoreRequest>,
) -> Result<(), Status> {
    let failed = |error: std::io::Error| Status::unavailable(format!("the backup could not be kept: {error}"));
    match shared.host.disk.remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let file = shared.host.disk.open(path, OpenMode::Create).await.map_err(failed)?;
    let mut offset = 0;
    while let Some(message) = stream.message().await? {
        let Some(Of::Data(data)) = message.of else {
            return Err(Status::invalid_argument("`begin` came twice"));
        };
        let len = data.len() as u64;
        file.write_at(offset, data).await.map_err(failed)?;
        offset += len;
    }
    file.sync().await.map_err(failed)
}

/// What each of these addresses says of itself; who does not answer is not in it.
pub(crate) async fn others(shared: &Shared, members: &[String]) -> Vec<(String, SurveyResponse)> {
    let asked = members.iter().filter(|address| **address != shared.options.address);
    let answers = asked.map(async |address| {
        let channel = shared.peers.channel(address, Profile::Control).ok()?;
        let asked = async { MetaRecoveryClient::new(channel).survey(SurveyRequest {}).await };
        let seen = tokio::time::timeout(ASK, asked).await.ok()?.ok()?.into_inner();
        Some((seen.node.clone(), seen))
    });
    futures_util::future::join_all(answers).await.into_iter().flatten().collect()
}

async fn recover_quorum(shared: &Shared, request: RecoverQuorumRequest) -> Result<Reborn, Status> {
    let RecoverQuorumRequest { confirm, gone, members, reason } = request;
    let core = shared.core()?;
    let (_, name, _) = core.meta.cluster();
    if confirm != name {
        return Err(Status::failed_precondition(format!(
            "this is cluster `{name}`, and `{confirm}` was confirmed; nothing was changed"
        )));
    }
    if tokio::time::timeout(QUORUM_WAIT, core.meta.barrier()).await.is_ok_and(|answer| answer.is_ok()) {
        return Err(Status::failed_precondition(
            "a quorum lives and answers: nothing is to be forced; nothing was changed",
        ));
    }
    // Before anybody is asked: of two members that are asked for it at a time at least one sees the other, because each has to
    // hear of all that are not gone.
    let busy = |_| Status::aborted("a recovery is under way at this node");
    let one = shared.forcing.clone().try_lock_owned().map_err(busy)?;
    let map = core.meta.map();
    // Whoever asks may not know of all: the map's own addresses are asked as well.
    let mut asked: BTreeSet<String> = members.into_iter().collect();
    asked.extend(map.nodes.values().map(|node| node.address.clone()));
    let seen = others(shared, &asked.into_iter().collect::<Vec<_>>()).await;
    let own = survey(shared).await?;
    let name_of = |id: &RaftId| map.node_by_raft(*id).map(|node| node.name.to_string());
    let scene = Scene {
        nodes: map.nodes.keys().map(ToString::to_string).collect(),
        sets: core.meta.voter_sets().iter().map(|set| set.iter().map(name_of).collect()).collect(),
    };
    may_be_forced(&own, &scene, &gone, &seen)
        .map_err(|why| Status::failed_precondition(format!("{why}; nothing was changed")))?;
    let gone = gone.iter().map(|name| NodeName::from(name.as_str())).collect();
    let above = Epoch(seen.iter().map(|(_, seen)| seen.epoch.max(seen.undone_epoch)).max().unwrap_or_default());
    let (answer, answered) = oneshot::channel();
    shared
        .force
        .try_send(ForceOrder { gone, one, above, reason, answer })
        .map_err(|_| Status::aborted("a recovery is under way at this node"))?;
    answered.await.map_err(|_| Status::aborted("the node moved on meanwhile: look at `node status`"))?
}
