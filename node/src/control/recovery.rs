//! `NodeRecovery`, `ReplicaRepair` and `MetaRecovery`: the verbs that bring data back, and those that are not served yet.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use resilver_proto::contract::meta_recovery_server::MetaRecovery;
use resilver_proto::contract::node_recovery_server::NodeRecovery;
use resilver_proto::contract::replica_repair_server::ReplicaRepair;
use resilver_proto::contract::{
    ChecksumDifference, CompareChecksumsRequest, Progress, ReplayJournalRequest, ReplayLogsRequest,
    RestoreSnapshotRequest, Scope as ScopeMessage, SyncMissingEntriesRequest, ValidateClusterStateRequest,
    ValidateClusterStateResponse, VerifyIntegrityRequest, scope,
};
use tonic::{Request, Response, Status};

use super::{Shared, unimplemented};
use crate::repair::{Scope, ScopeProgress};

type ProgressStream = Pin<Box<dyn Stream<Item = Result<Progress, Status>> + Send>>;

/// Verifying.
#[derive(Clone)]
pub(crate) struct NodeRecoveryService {
    pub(crate) shared: Arc<Shared>,
}

/// Rebuilding.
#[derive(Clone)]
pub(crate) struct ReplicaRepairService {
    pub(crate) shared: Arc<Shared>,
}

/// Metadata recovery: nothing of it is served yet.
#[derive(Clone)]
pub(crate) struct MetaRecoveryService;

#[tonic::async_trait]
impl NodeRecovery for NodeRecoveryService {
    type ReplayLogsStream = ProgressStream;
    type RestoreSnapshotStream = ProgressStream;
    type VerifyIntegrityStream = ProgressStream;

    async fn replay_logs(&self, _: Request<ReplayLogsRequest>) -> Result<Response<ProgressStream>, Status> {
        Err(unimplemented("ReplayLogs", "a node replays its own log when it starts"))
    }

    async fn restore_snapshot(&self, _: Request<RestoreSnapshotRequest>) -> Result<Response<ProgressStream>, Status> {
        Err(unimplemented("RestoreSnapshot", "snapshots are installed by Raft only"))
    }

    async fn verify_integrity(&self, request: Request<VerifyIntegrityRequest>) -> Result<Response<ProgressStream>, Status> {
        let scope = scope_of(request.into_inner().scope)?;
        let progress = self.shared.core()?.repair.verify_scope(scope);
        Ok(Response::new(Box::pin(progress.map(|step| Ok(progress_message("verify", step))))))
    }
}

#[tonic::async_trait]
impl ReplicaRepair for ReplicaRepairService {
    type CompareChecksumsStream = Pin<Box<dyn Stream<Item = Result<ChecksumDifference, Status>> + Send>>;
    type SyncMissingEntriesStream = ProgressStream;

    async fn compare_checksums(
        &self,
        _: Request<CompareChecksumsRequest>,
    ) -> Result<Response<Self::CompareChecksumsStream>, Status> {
        Err(unimplemented("CompareChecksums", "range digests come with metadata replica repair"))
    }

    async fn sync_missing_entries(
        &self,
        request: Request<SyncMissingEntriesRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let scope = scope_of(request.into_inner().scope)?;
        let progress = self.shared.core()?.repair.sync_scope(scope);
        Ok(Response::new(Box::pin(progress.map(|step| Ok(progress_message("rebuild", step))))))
    }
}

#[tonic::async_trait]
impl MetaRecovery for MetaRecoveryService {
    type ReplayJournalStream = ProgressStream;

    async fn replay_journal(&self, _: Request<ReplayJournalRequest>) -> Result<Response<ProgressStream>, Status> {
        Err(unimplemented("ReplayJournal", "it comes with metadata recovery"))
    }

    async fn validate_cluster_state(
        &self,
        _: Request<ValidateClusterStateRequest>,
    ) -> Result<Response<ValidateClusterStateResponse>, Status> {
        Err(unimplemented("ValidateClusterState", "it comes with metadata recovery"))
    }
}

fn scope_of(message: Option<ScopeMessage>) -> Result<Scope, Status> {
    match message.and_then(|message| message.of) {
        Some(scope::Of::Everything(_)) => Ok(Scope::Everything),
        Some(scope::Of::DiskId(id)) => id
            .parse()
            .map(Scope::Disk)
            .map_err(|_| Status::invalid_argument(format!("{id:?} is no disk id: `disk list` shows them"))),
        Some(scope::Of::Object(object)) => Ok(Scope::Object { bucket: object.bucket.as_str().into(), key: object.key }),
        Some(scope::Of::Range(_)) => Err(unimplemented("a key range as scope", "name a disk, an object or everything")),
        None => Err(Status::invalid_argument("a scope is missing: everything, a disk or an object")),
    }
}

fn progress_message(phase: &str, step: ScopeProgress) -> Progress {
    Progress {
        phase: phase.to_owned(),
        done: step.done,
        total: step.total,
        failed: step.failed,
        skipped: step.skipped,
        bytes: step.bytes,
        finished: step.finished,
        message: step.message,
    }
}
