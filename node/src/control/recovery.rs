//! `NodeRecovery` and `ReplicaRepair`: the verbs that bring data and metadata back.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use resilver_proto::contract::node_recovery_server::NodeRecovery;
use resilver_proto::contract::replica_repair_server::ReplicaRepair;
use resilver_proto::contract::scope::Of;
use resilver_proto::contract::{
    ChecksumDifference, CompareChecksumsRequest, Progress, RejoinRequest, ReplayLogsRequest, RestoreSnapshotRequest,
    Scope as ScopeMessage, SyncMissingEntriesRequest, VerifyIntegrityRequest,
};
use tonic::{Request, Response, Status};

use super::{Shared, replicas};
use crate::meta::replicas::Mending;
use crate::repair::Scope;

pub(super) type ProgressStream = Pin<Box<dyn Stream<Item = Result<Progress, Status>> + Send>>;

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

    async fn replay_logs(&self, request: Request<ReplayLogsRequest>) -> Result<Response<ProgressStream>, Status> {
        let ReplayLogsRequest { from_index, fence } = request.into_inner();
        if from_index != 0 {
            return Err(Status::invalid_argument(
                "this engine replays from the last snapshot of its own: leave from_index at 0",
            ));
        }
        replicas::mend(&self.shared, Mending::Replay, fence).map(Response::new)
    }

    async fn restore_snapshot(
        &self,
        request: Request<RestoreSnapshotRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let RestoreSnapshotRequest { snapshot, fence } = request.into_inner();
        if !snapshot.is_empty() {
            return Err(Status::invalid_argument(
                "this engine keeps no snapshots by name: leave it empty for the state of a member that is right; a backup is \
                 restored by MetaRecovery.Restore",
            ));
        }
        replicas::mend(&self.shared, Mending::Whole, fence).map(Response::new)
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
        request: Request<CompareChecksumsRequest>,
    ) -> Result<Response<Self::CompareChecksumsStream>, Status> {
        let request = request.into_inner();
        match request.scope.as_ref().and_then(|scope| scope.of.as_ref()) {
            Some(Of::Metadata(true)) => replicas::compare(&self.shared, request).map(Response::new),
            _ => Err(Status::invalid_argument(
                "this engine compares replicas of the metadata: the scope is `metadata`; shards are compared with their own \
                 checksums, by VerifyIntegrity",
            )),
        }
    }

    async fn sync_missing_entries(
        &self,
        request: Request<SyncMissingEntriesRequest>,
    ) -> Result<Response<ProgressStream>, Status> {
        let SyncMissingEntriesRequest { scope, fence } = request.into_inner();
        if let Some(Of::Metadata(true)) = scope.as_ref().and_then(|scope| scope.of.as_ref()) {
            return replicas::mend(&self.shared, Mending::Differences, fence).map(Response::new);
        }
        let progress = self.shared.core()?.repair.sync_scope(scope_of(scope)?);
        Ok(Response::new(Box::pin(progress.map(|step| Ok(step.into())))))
    }
}

fn scope_of(message: Option<ScopeMessage>) -> Result<Scope, Status> {
    let message =
        message.ok_or_else(|| Status::invalid_argument("a scope is missing: everything, a disk or an object"))?;
    Scope::try_from(message).map_err(Status::invalid_argument)
}
