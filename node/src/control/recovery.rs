//! `NodeRecovery` and `ReplicaRepair`: the verbs that bring data back, and those that are not served yet.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use resilver_proto::contract::node_recovery_server::NodeRecovery;
use resilver_proto::contract::replica_repair_server::ReplicaRepair;
use resilver_proto::contract::{
    ChecksumDifference, CompareChecksumsRequest, Progress, RejoinRequest, ReplayLogsRequest, RestoreSnapshotRequest,
    Scope as ScopeMessage, SyncMissingEntriesRequest, VerifyIntegrityRequest,
};
use tonic::{Request, Response, Status};

use super::{Shared, unimplemented};
use crate::repair::Scope;

type ProgressStream = Pin<Box<dyn Stream<Item = Result<Progress, Status>> + Send>>;

/// Verifying, and coming back.
#[derive(Clone)]
pub(crate) struct NodeRecoveryService {
    pub(crate) shared: Arc<Shared>,
}

/// Rebuilding.
#[derive(Clone)]
pub(crate) struct ReplicaRepairService {
    pub(crate) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl NodeRecovery for NodeRecoveryService {
    type ReplayLogsStream = ProgressStream;
    type RestoreSnapshotStream = ProgressStream;
    type VerifyIntegrityStream = ProgressStream;
    type RejoinStream = ProgressStream;

    async fn replay_logs(&self, _: Request<ReplayLogsRequest>) -> Result<Response<ProgressStream>, Status> {
        Err(unimplemented("ReplayLogs", "a node replays its own log when it starts"))
    }

    async fn restore_snapshot(&self, _: Request<RestoreSnapshotRequest>) -> Result<Response<ProgressStream>, Status> {
        Err(unimplemented("RestoreSnapshot", "snapshots are installed by Raft only"))
    }

    async fn verify_integrity(
        &self,
        request: Request<VerifyIntegrityRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let scope = scope_of(request.into_inner().scope)?;
        let progress = self.shared.core()?.repair.verify_scope(scope);
        Ok(Response::new(Box::pin(progress.map(|step| Ok(step.into())))))
    }

    async fn rejoin(&self, request: Request<RejoinRequest>) -> Result<Response<ProgressStream>, Status> {
        let progress = super::rejoin::rejoin(self.shared.clone(), request.into_inner()).await?;
        Ok(Response::new(Box::pin(progress)))
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
        Ok(Response::new(Box::pin(progress.map(|step| Ok(step.into())))))
    }
}

fn scope_of(message: Option<ScopeMessage>) -> Result<Scope, Status> {
    let message =
        message.ok_or_else(|| Status::invalid_argument("a scope is missing: everything, a disk or an object"))?;
    Scope::try_from(message).map_err(Status::invalid_argument)
}
