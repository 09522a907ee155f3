//! Members in one process, over real files and real gRPC on loopback.
#![allow(clippy::disallowed_methods)]

mod cluster;
mod election;
mod identity;
mod journal;
mod lost;
mod membership;
mod rebirth;
mod replicas;
mod scrub;
mod suite;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use resilver_host::Host;
use resilver_proto::internal::raft_server::RaftServer;
use resilver_proto::transport::{self, MAX_MESSAGE_BYTES};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::service::interceptor::InterceptedService;

use super::identity::{Identity, Membership};
use super::*;
use crate::model::{
    Attributes, BucketRecord, Coding, Command, Condition, DEFAULT_REPAIR_PRIORITY, ETag, Location, ObjectRecord,
    Outcome,
};
use crate::peers::Peers;
use crate::types::{ClusterId, InstanceId, RaftId, Version};

const CLUSTER: ClusterId = ClusterId(0xc1);
/// Long enough for a busy machine; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// One member with its server.
struct Member {
    meta: Meta,
    address: String,
    dir: PathBuf,
    /// While set, calls of others are refused unheard; its own go out.
    deaf: Arc<AtomicBool>,
    close: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

fn host() -> Host {
    resilver_host::real::host()
}

fn identity(id: u64) -> Identity {
    let folder = Identity::new(format!("n{id}").as_str().into(), InstanceId(u128::from(id)));
    folder.as_member(Membership {
        cluster: CLUSTER,
        epoch: FIRST_EPOCH,
        raft_id: RaftId(id),
        cluster_name: "test".to_owned(),
    })
}

impl Member {
    async fn start(dir: &Path, id: u64, tuning: Tuning) -> Self {
        Self::start_at(dir, id, "127.0.0.1:0", tuning).await
    }

    async fn start_at(dir: &Path, id: u64, address: &str, tuning: Tuning) -> Self {
        let host = host();
        let listener = host.net.bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dir = dir.join(format!("n{id}"));
        let options = MetaOptions { dir: dir.clone(), identity: identity(id), address: address.clone(), tuning };
        let meta = Meta::start(&host, options, Peers::new(host.net.clone())).await.unwrap();
        let service = RaftServer::new(meta.raft_service())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let deaf = Arc::new(AtomicBool::new(false));
        let ear = deaf.clone();
        let service = InterceptedService::new(service, move |request| match ear.load(Ordering::Relaxed) {
            true => Err(Status::unavailable("deaf")),
            false => Ok(request),
        });
        let (close, closed) = oneshot::channel();
        let server = tokio::spawn(async move {
            let router = transport::server().add_service(service);
            // A member that stops does not wait for its peers to hang up.
            tokio::select! {
                served = transport::serve(router, listener, std::future::pending()) => served.unwrap(),
                _ = closed => {}
            }
        });
        Self { meta, address, dir, deaf, close: Some(close), server }
    }

    /// Ends the member: its server, its Raft, its files.
    async fn stop(mut self) -> PathBuf {
        drop(self.close.take());
        self.server.await.unwrap();
        self.meta.shutdown().await;
        self.dir
    }

    fn join(&self, id: u64) -> Command {
        Command::JoinNode {
            name: format!("n{id}").as_str().into(),
            instance: InstanceId(u128::from(id)),
            address: self.address.clone(),
            location: Location::default(),
            disks: Vec::new(),
            raft_id: Some(RaftId(id)),
        }
    }

    /// Waits until `holds` of this member's status.
    async fn until(&self, what: &str, holds: impl Fn(&MetaStatus) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(&self.meta.status()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(waited.await.is_ok(), "{} never saw {what}: {:?}", self.address, self.meta.status());
    }
}

/// A founded cluster of members 1 to `size`, all of them in, three of them voting.
async fn cluster(dir: &Path, size: u64, tuning: &Tuning) -> Vec<Member> {
    let founder = Member::start(dir, 1, tuning.clone()).await;
    founder.meta.found().await.unwrap();
    let init = Command::InitCluster { cluster: CLUSTER, name: "test".to_owned() };
    assert_eq!(founder.meta.propose(init).await.unwrap(), Outcome::Done);
    founder.meta.propose(founder.join(1)).await.unwrap();
    founder.meta.propose(bucket("b")).await.unwrap();
    let mut members = vec![founder];
    for id in 2..=size {
        let member = Member::start(dir, id, tuning.clone()).await;
        let joined = members[0].meta.propose(member.join(id)).await.unwrap();
        assert_eq!(joined, Outcome::Joined { raft_id: RaftId(id) });
        members.push(member);
    }
    let voters = usize::try_from(size.min(3)).unwrap();
    for member in &members {
        member.until("all voters", |status| status.voters.len() == voters && status.leader.is_some()).await;
    }
    members
}

fn bucket(name: &str) -> Command {
    let bucket = BucketRecord {
        name: name.into(),
        coding: Coding { k: 1, m: 1 },
        created_ms: 1,
        quota_bytes: None,
        repair_priority: DEFAULT_REPAIR_PRIORITY,
        owner: String::new(),
    };
    Command::CreateBucket { bucket, if_absent: true }
}

fn put(key: &str, version: u128) -> Command {
    let object = ObjectRecord {
        version: Version(version),
        size_bytes: 0,
        crc32c: 0,
        modified_ms: 0,
        coding: Coding { k: 1, m: 1 },
        block_bytes: 1,
        extents: Vec::new(),
        etag: ETag::Content([0; 16]),
        attributes: Attributes::default(),
        parts: Vec::new(),
    };
    Command::PutObject { bucket: "b".into(), key: key.to_owned(), object, condition: Condition::None, now_ms: 0 }
}
