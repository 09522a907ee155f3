//! `NodeControl`: describe, observe, leadership, disks, the canary; what only passes requests on is in modules beside this.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use resilver_proto::contract::node_control_server::NodeControl;
use resilver_proto::contract::{
    AddDiskRequest, AddDiskResponse, CanaryRequest, CanaryResponse, CancelOperationRequest, CancelOperationResponse,
    DescribeRequest, DescribeResponse, DiskRequest, DiskResponse, DiskVerb, ListOperationsRequest,
    ListOperationsResponse, ObserveRequest, ObserveResponse, ReclaimRequest, ReclaimResponse, RemoveDiskRequest,
    RemoveDiskResponse, RemoveNodeRequest, RemoveNodeResponse, SetHostStateRequest, SetHostStateResponse,
    SetModeRequest, SetModeResponse, SetVotingRequest, SetVotingResponse, StepDownRequest, StepDownResponse,
    ThrottleRequest, ThrottleResponse, TriggerElectionRequest, TriggerElectionResponse,
};
use tonic::{Request, Response, Status};

use super::observe::{millis, observe};
use super::{CANARY_BUCKET, Core, Shared, disks, meta_status, relief, room};
use crate::gateway::{BucketSettings, ByteRange, GatewayError, PutOptions};
use crate::model::{Command, Condition, DiskState, MarkedBy, Outcome, Refusal};
use crate::types::{BucketName, Fence};

/// What the canary writes: long enough for every shard to carry some of it.
const CANARY_BYTES: usize = 4096;

/// How long a look at the node waits for Raft, and for the term of its last entry.
const RAFT_DEADLINE: Duration = Duration::from_millis(50);

/// The service.
#[derive(Clone)]
pub(crate) struct NodeControlService {
    pub(crate) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl NodeControl for NodeControlService {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        let served = [
            "NodeControl.Describe",
            "NodeControl.Observe",
            "NodeControl.StepDown",
            "NodeControl.TriggerElection",
            "NodeControl.SetMode",
            "NodeControl.ListOperations",
            "NodeControl.CancelOperation",
            "NodeControl.Reclaim",
            "NodeControl.Throttle",
            "NodeControl.Disk",
            "NodeControl.AddDisk",
            "NodeControl.RemoveDisk",
            "NodeControl.SetHostState",
            "NodeControl.SetVoting",
            "NodeControl.RemoveNode",
            "NodeControl.Canary",
            "NodeRecovery.ReplayLogs",
            "NodeRecovery.RestoreSnapshot",
            "NodeRecovery.VerifyIntegrity",
            "NodeRecovery.Rejoin",
            "MetaRecovery.ReplayJournal",
            "MetaRecovery.ValidateClusterState",
            "MetaRecovery.Survey",
            "MetaRecovery.Backup",
            "MetaRecovery.Restore",
            "MetaRecovery.RecoverQuorum",
            "MetaRecovery.UndoRecoverQuorum",
            "ReplicaRepair.CompareChecksums",
            "ReplicaRepair.SyncMissingEntries",
        ];
        let cluster = self.shared.core.get().and_then(|core| core.meta.map().cluster);
        Ok(Response::new(DescribeResponse {
            engine: "resilver".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: served.map(str::to_owned).to_vec(),
            cluster_id: cluster.map(|id| id.to_string()).unwrap_or_default(),
            node: self.shared.name.to_string(),
            contract: 1,
        }))
    }

    async fn observe(&self, _: Request<ObserveRequest>) -> Result<Response<ObserveResponse>, Status> {
        let mut answer = observe(&self.shared);
        if let (Some(core), Some(raft)) = (self.shared.core.get(), answer.raft.as_mut()) {
            // Read from the log, mostly out of memory. A disk that hangs must not make the node look dead: then it is not told.
            let last = tokio::time::timeout(RAFT_DEADLINE, core.meta.last_log()).await;
            // Both of one read: the term of one entry beside the index of another would be a log that nobody has.
            (raft.last_log_term, raft.last_log) = last.ok().and_then(Result::ok).unwrap_or((0, raft.last_log));
            // Raft is asked, which may be busy: then it is not told.
            let unheard = tokio::time::timeout(RAFT_DEADLINE, core.meta.unheard()).await;
            raft.millis_since_leader = unheard.ok().flatten().map(millis);
        }
        Ok(Response::new(answer))
    }

    async fn step_down(&self, request: Request<StepDownRequest>) -> Result<Response<StepDownResponse>, Status> {
        let request = request.into_inner();
        let core = self.shared.core()?;
        admit(core.meta.map().fence.clone(), request.fence)?;
        let to = match request.to.as_str() {
            "" => None,
            name => Some(
                core.meta
                    .map()
                    .nodes
                    .get(&name.into())
                    .ok_or_else(|| Status::not_found(format!("there is no node {name} in this cluster")))?
                    .raft_id,
            ),
        };
        core.meta.step_down(to).await.map_err(|error| meta_status(&error))?;
        Ok(Response::new(StepDownResponse {}))
    }

    async fn trigger_election(
        &self,
        request: Request<TriggerElectionRequest>,
    ) -> Result<Response<TriggerElectionResponse>, Status> {
        let core = self.shared.core()?;
        admit(core.meta.map().fence.clone(), request.into_inner().fence)?;
        core.meta.trigger_election().await.map_err(|error| meta_status(&error))?;
        Ok(Response::new(TriggerElectionResponse {}))
    }

    async fn set_mode(&self, request: Request<SetModeRequest>) -> Result<Response<SetModeResponse>, Status> {
        relief::set_mode(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn list_operations(
        &self,
        _: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        relief::operations(&self.shared).map(Response::new)
    }

    async fn cancel_operation(
        &self,
        request: Request<CancelOperationRequest>,
    ) -> Result<Response<CancelOperationResponse>, Status> {
        relief::cancel(&self.shared, &request.into_inner()).map(Response::new)
    }

    async fn reclaim(&self, request: Request<ReclaimRequest>) -> Result<Response<ReclaimResponse>, Status> {
        relief::reclaim(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn throttle(&self, request: Request<ThrottleRequest>) -> Result<Response<ThrottleResponse>, Status> {
        relief::throttle(&self.shared, &request.into_inner()).map(Response::new)
    }

    async fn disk(&self, request: Request<DiskRequest>) -> Result<Response<DiskResponse>, Status> {
        let request = request.into_inner();
        let core = self.shared.core()?;
        let disk = disks::id_of(&request.disk_id)?;
        let state = match request.verb() {
            DiskVerb::StopWrites => DiskState::ReadOnly,
            DiskVerb::Detach => DiskState::Down,
            DiskVerb::Out => DiskState::Out,
            DiskVerb::Attach => DiskState::Up,
            DiskVerb::Drain => DiskState::Draining,
            DiskVerb::Unspecified => {
                return Err(Status::invalid_argument("which verb? stop writes, detach, out, attach, drain"));
            }
        };
        // A detach takes something away that may still serve, and so does emptying (places for new shards): an agent needs
        // the fence of an open slot for it.
        if matches!(state, DiskState::Down | DiskState::Draining) && request.automatic && request.fence.is_none() {
            return Err(Status::failed_precondition(
                "detaching or draining a disk needs a fence: take a slot from the lease's holder",
            ));
        }
        if matches!(state, DiskState::Down | DiskState::Out) && !request.automatic {
            let before = disks::give_up(&self.shared, core, disk, state, request.reason).await?;
            let (before, after) = (before.as_str().to_owned(), state.as_str().to_owned());
            return Ok(Response::new(DiskResponse { before, after }));
        }
        let map = core.meta.map();
        match state {
            DiskState::Draining if request.automatic => room::of_drained(&self.shared, &map, disk).await?,
            DiskState::Out if request.automatic => room::of_lost_disk(&self.shared, &map, disk).await?,
            _ => {}
        }
        let command = Command::SetDiskState {
            disk,
            state,
            by: if request.automatic { MarkedBy::Automatic } else { MarkedBy::Operator },
            reason: request.reason,
            judged: None,
            fence: request.fence.map(Fence::from),
        };
        match core.meta.propose(command).await.map_err(|error| meta_status(&error))? {
            Outcome::DiskWas(before) => {
                Ok(Response::new(DiskResponse { before: before.as_str().to_owned(), after: state.as_str().to_owned() }))
            }
            Outcome::Refused(refusal @ Refusal::NoDisk(_)) => Err(Status::not_found(refusal.to_string())),
            Outcome::Refused(refusal) => Err(Status::failed_precondition(refusal.to_string())),
            other => Err(Status::internal(format!("an unexpected outcome of a disk verb: {other:?}"))),
        }
    }

    async fn add_disk(&self, request: Request<AddDiskRequest>) -> Result<Response<AddDiskResponse>, Status> {
        disks::add(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn remove_disk(&self, request: Request<RemoveDiskRequest>) -> Result<Response<RemoveDiskResponse>, Status> {
        disks::remove(&self.shared, &request.into_inner()).await.map(Response::new)
    }

    async fn set_host_state(
        &self,
        request: Request<SetHostStateRequest>,
    ) -> Result<Response<SetHostStateResponse>, Status> {
        super::hosts::set_host_state(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn set_voting(&self, request: Request<SetVotingRequest>) -> Result<Response<SetVotingResponse>, Status> {
        super::voters::set_voting(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Result<Response<RemoveNodeResponse>, Status> {
        super::leaving::remove(&self.shared, request.into_inner()).await.map(Response::new)
    }

    async fn canary(&self, _: Request<CanaryRequest>) -> Result<Response<CanaryResponse>, Status> {
        let core = self.shared.core()?;
        let _one = self.shared.canary.lock().await;
        let begun = tokio::time::Instant::now();
        // Side by side: a door that hangs until its deadline is told within the agent's.
        let (gateway, door) = tokio::join!(self.through_gateway(core), self.through_door());
        gateway?;
        door?;
        Ok(Response::new(CanaryResponse { millis: millis(begun.elapsed()) }))
    }
}

impl NodeControlService {
    /// A put, a get and a delete.
    async fn through_gateway(&self, core: &Core) -> Result<(), Status> {
        let failed = |what: &str, error: GatewayError| Status::unavailable(format!("canary {what}: {error}"));
        let bucket = BucketName::from(CANARY_BUCKET);
        core.gateway
            .create_bucket(&bucket, BucketSettings::default(), true)
            .await
            .map_err(|error| failed("bucket", error))?;
        // Wall time makes every write differ from the one before: a stale read cannot pass for a fresh one.
        let stamp = self.shared.host.clock.now().as_millis().to_le_bytes();
        let written = Bytes::from(stamp.iter().copied().cycle().take(CANARY_BYTES).collect::<Vec<u8>>());
        let key = self.shared.name.to_string();
        let put = PutOptions {
            bucket: bucket.clone(),
            key: key.clone(),
            condition: Condition::None,
            size_bytes: Some(CANARY_BYTES as u64),
        };
        let body = stream::iter([Ok::<_, Status>(written.clone())]);
        core.gateway.put(put, body).await.map_err(|error| failed("write", error))?;
        let read =
            core.gateway.get(&bucket, &key, ByteRange::default()).await.map_err(|error| failed("read", error))?;
        let mut content = read.stream;
        let mut got = Vec::with_capacity(CANARY_BYTES);
        while let Some(chunk) = content.next().await {
            got.extend_from_slice(&chunk.map_err(|error| failed("read", error))?);
        }
        if got != written {
            return Err(Status::data_loss("canary read: the content is not what was written"));
        }
        core.gateway.delete(&bucket, &key, Condition::None).await.map_err(|error| failed("delete", error))?;
        Ok(())
    }

    /// The gateway may be fine behind a door that lets nobody in.
    async fn through_door(&self) -> Result<(), Status> {
        let Some(door) = &self.shared.door else { return Ok(()) };
        let answered = door.answers(&self.shared.host.net).await;
        answered.map_err(|silent| Status::unavailable(format!("canary: {silent}")))
    }
}

/// Refuses a fence lower than the highest seen. A step without one is an operator's at this very node.
pub(super) fn admit(highest: Fence, offered: Option<resilver_proto::common::Fence>) -> Result<(), Status> {
    match offered.map(Fence::from) {
        Some(offered) if offered < highest => {
            Err(Status::failed_precondition(Refusal::StaleFence { offered, highest }.to_string()))
        }
        _ => Ok(()),
    }
}
