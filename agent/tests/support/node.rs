//! A storage node as its agent sees it: the contract's answers of a healthy node, for as long as the process that its
//! keeper has recorded really runs. Everything else about it is a `/bin/sleep`.

use std::path::{Path, PathBuf};

use resilver_agent::run_dir::RunDir;
use resilver_host::Host;
use resilver_proto::contract::node_control_server::{NodeControl, NodeControlServer};
use resilver_proto::contract::*;
use resilver_proto::transport;
use tonic::{Request, Response, Status};

/// Which node, and among whom.
#[derive(Clone)]
pub(crate) struct NodeDouble {
    pub(crate) name: String,
    pub(crate) members: Vec<String>,
    pub(crate) host: Host,
    pub(crate) agent_dir: PathBuf,
}

impl NodeDouble {
    /// Serves on a port of the system's choice; answers it.
    pub(crate) async fn serve(self) -> String {
        let listener = self.host.net.bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let router = transport::server().add_service(NodeControlServer::new(self));
        tokio::spawn(transport::serve(router, listener, std::future::pending()));
        address
    }

    /// The pid of the process that runs, or the silence of a dead node.
    async fn pid(&self) -> Result<u32, Status> {
        let run = RunDir::new(&self.host, &run_dir(&self.agent_dir));
        let record = run.node().await.ok().flatten().ok_or_else(|| Status::unavailable("never started"))?;
        match run.alive(&record).await {
            Ok(Some(_)) => Ok(record.pid),
            _ => Err(Status::unavailable("dead")),
        }
    }
}

pub(crate) fn run_dir(agent_dir: &Path) -> PathBuf {
    agent_dir.join("run")
}

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl NodeControl for NodeDouble {
    async fn describe(&self, _: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        self.pid().await?;
        Ok(Response::new(DescribeResponse { node: self.name.clone(), ..Default::default() }))
    }

    async fn observe(&self, _: Request<ObserveRequest>) -> Result<Response<ObserveResponse>, Status> {
        let pid = self.pid().await?;
        let member = |node: &String| NodeState {
            node: node.clone(),
            state: "up".into(),
            role: "voter".into(),
            ..Default::default()
        };
        let raft = RaftState { role: "follower".into(), leader: "n1".into(), term: 1, ..Default::default() };
        Ok(Response::new(ObserveResponse {
            node: self.name.clone(),
            cluster_id: "c1".into(),
            epoch: 1,
            phase: "healthy".into(),
            pid,
            raft: Some(RaftState { committed: 7, applied: 7, ..raft }),
            nodes: self.members.iter().map(member).collect(),
            ..Default::default()
        }))
    }

    async fn canary(&self, _: Request<CanaryRequest>) -> Result<Response<CanaryResponse>, Status> {
        self.pid().await?;
        Ok(Response::new(CanaryResponse { millis: 1 }))
    }

    async fn step_down(&self, _: Request<StepDownRequest>) -> Result<Response<StepDownResponse>, Status> {
        absent()
    }
    async fn trigger_election(
        &self,
        _: Request<TriggerElectionRequest>,
    ) -> Result<Response<TriggerElectionResponse>, Status> {
        absent()
    }
    async fn set_mode(&self, _: Request<SetModeRequest>) -> Result<Response<SetModeResponse>, Status> {
        absent()
    }
    async fn list_operations(
        &self,
        _: Request<ListOperationsRequest>,
    ) -> Result<Response<ListOperationsResponse>, Status> {
        absent()
    }
    async fn throttle(&self, _: Request<ThrottleRequest>) -> Result<Response<ThrottleResponse>, Status> {
        absent()
    }
    async fn cancel_operation(
        &self,
        _: Request<CancelOperationRequest>,
    ) -> Result<Response<CancelOperationResponse>, Status> {
        absent()
    }
    async fn reclaim(&self, _: Request<ReclaimRequest>) -> Result<Response<ReclaimResponse>, Status> {
        absent()
    }
    async fn disk(&self, _: Request<DiskRequest>) -> Result<Response<DiskResponse>, Status> {
        absent()
    }
    async fn add_disk(&self, _: Request<AddDiskRequest>) -> Result<Response<AddDiskResponse>, Status> {
        absent()
    }
    async fn remove_disk(&self, _: Request<RemoveDiskRequest>) -> Result<Response<RemoveDiskResponse>, Status> {
        absent()
    }
    async fn set_voting(&self, _: Request<SetVotingRequest>) -> Result<Response<SetVotingResponse>, Status> {
        absent()
    }
    async fn remove_node(&self, _: Request<RemoveNodeRequest>) -> Result<Response<RemoveNodeResponse>, Status> {
        absent()
    }
    async fn set_host_state(&self, _: Request<SetHostStateRequest>) -> Result<Response<SetHostStateResponse>, Status> {
        absent()
    }
}
