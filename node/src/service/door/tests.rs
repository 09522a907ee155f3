//! A whole node in this process, over real sockets, whose door's listener does as it is told.
#![allow(clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use resilver_host::{Datagram, Host, Net, Stream};
use resilver_proto::contract::node_control_client::NodeControlClient;
use resilver_proto::contract::{CanaryRequest, ObserveRequest, SetModeRequest};
use resilver_proto::store::InitRequest;
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::transport::{self, Profile};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tonic::Status;
use tonic::transport::Channel;

use super::*;
use crate::deadlines::{Deadlines, Defences};
use crate::options::{LocationOptions, MetadataScrubOptions, Options, RepairOptions, S3Options, ScrubOptions};
use crate::service::{Ended, Node};
use crate::testing::until;

/// How the door's listener does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listens {
    Well,
    /// Who connects waits for ever, as when the task that accepts hangs.
    Deaf,
    /// There are no descriptors left.
    Starved,
    /// Who connects is told something, and it is no HTTP.
    Babbles,
    /// The socket is none any more.
    Gone,
    /// Whoever calls it finds a bug.
    Broken,
}

/// The real network, but for the listener on one address.
struct Stage {
    real: Arc<dyn Net>,
    door: String,
    now: watch::Receiver<Listens>,
}

struct Staged {
    real: Box<dyn Listener>,
    now: watch::Receiver<Listens>,
}

#[async_trait]
impl Net for Stage {
    async fn bind(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        let real = self.real.bind(addr).await?;
        if addr == self.door { Ok(Box::new(Staged { real, now: self.now.clone() })) } else { Ok(real) }
    }

    async fn connect(&self, addr: &str) -> io::Result<Box<dyn Stream>> {
        self.real.connect(addr).await
    }

    async fn bind_datagram(&self, addr: &str) -> io::Result<Box<dyn Datagram>> {
        self.real.bind_datagram(addr).await
    }
}

#[async_trait]
impl Listener for Staged {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let mut now = self.now.clone();
        loop {
            let does = *now.borrow_and_update();
            match does {
                Listens::Well | Listens::Babbles => {
                    let accepted = tokio::select! {
                        accepted = self.real.accept() => accepted,
                        _ = now.changed() => continue,
                    };
                    if does == Listens::Well {
                        return accepted;
                    }
                    AsyncWriteExt::write_all(&mut accepted?.0, b"220 ready\r\n").await?;
                }
                Listens::Deaf => now.changed().await.unwrap(),
                Listens::Starved => return Err(io::Error::from_raw_os_error(24)),
                Listens::Gone => return Err(io::Error::from_raw_os_error(22)),
                Listens::Broken => panic!("planted by this test"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.real.local_addr()
    }
}

/// A cluster of one, that serves.
struct Story {
    door: String,
    channel: Channel,
    listens: watch::Sender<Listens>,
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<Ended, NodeError>>,
    _folder: TempDir,
}

impl Story {
    async fn serving() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let real = resilver_host::real::host();
        let (address, http, door) = (free(&real).await, free(&real).await, free(&real).await);
        let (listens, now) = watch::channel(Listens::Well);
        let net = Arc::new(Stage { real: real.net.clone(), door: door.clone(), now });
        let options = Options {
            name: "n1".to_owned(),
            address: address.clone(),
            http,
            data_dir: folder.path().join("meta"),
            aside: None,
            disks: ["disk1", "disk2"].map(|disk| folder.path().join(disk)).to_vec(),
            join: Vec::new(),
            location: LocationOptions::default(),
            scrub: ScrubOptions::default(),
            metadata_scrub: MetadataScrubOptions::default(),
            repair: RepairOptions::default(),
            read_deadline: Duration::from_secs(30),
            abandoned_uploads_after: Duration::from_secs(3600),
            deadlines: Deadlines::default(),
            defences: Defences::On,
            s3: Some(S3Options::at(door.clone())),
        };
        let node = Node::open(Host { net: net.clone(), ..real }, options).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(node.run(stopping));
        let net: Arc<dyn Net> = net;
        let channel = transport::channel(&net, &address, Profile::Bulk).unwrap();
        let story = Self { door, channel, listens, stop, running, _folder: folder };
        until("it is founded", async || {
            let init = InitRequest { name: "test".to_owned() };
            ClusterClient::new(story.channel.clone()).init(init).await.is_ok()
        })
        .await;
        until("it serves", async || story.phase().await.is_some_and(|phase| phase == "healthy")).await;
        story
    }

    fn control(&self) -> NodeControlClient<Channel> {
        NodeControlClient::new(self.channel.clone())
    }

    async fn phase(&self) -> Option<String> {
        Some(self.control().observe(ObserveRequest {}).await.ok()?.into_inner().phase)
    }

    async fn canary(&self) -> Result<(), Status> {
        self.control().canary(CanaryRequest {}).await.map(|_| ())
    }

    /// How the node ended by itself.
    async fn ended(self) -> NodeError {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.running).await;
        ended.expect("a node without its door ends").unwrap().unwrap_err()
    }
}

/// An address nobody listens on now.
async fn free(host: &Host) -> String {
    host.net.bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

/// Found by a reviewer: nothing sensed the door. Its port could be deaf while heartbeats and canaries were green.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_does_not_come_through_a_door_that_answers_nobody() {
    // Phase 1: a door that works lets canaries through; also when the node is told to serve no clients: that is an answer.
    let story = Story::serving().await;
    story.canary().await.unwrap();
    let isolated =
        SetModeRequest { mode: "isolated".to_owned(), reason: "a test".to_owned(), ..SetModeRequest::default() };
    story.control().set_mode(isolated).await.unwrap();
    story.canary().await.unwrap();
    // Phase 2: what answers nobody, or nothing that a client understands, fails it by name. The node itself is fine.
    for (listens, why) in [
        (Listens::Deaf, "nothing came within 4000 ms"),
        (Listens::Starved, "nothing came within 4000 ms"),
        (Listens::Babbles, "the connection broke: "),
    ] {
        story.listens.send_replace(listens);
        let failed = story.canary().await.unwrap_err();
        let told = format!("canary: the S3 door at {} does not answer: {why}", story.door);
        assert!(failed.message().starts_with(&told), "{listens:?}: {}", failed.message());
        assert_eq!(story.phase().await.as_deref(), Some("healthy"), "{listens:?}");
    }
    // Phase 3: when it is back, they come through again.
    story.listens.send_replace(Listens::Well);
    story.canary().await.unwrap();
    story.stop.send_replace(true);
    assert_eq!(story.running.await.unwrap().unwrap(), Ended::Shutdown);
}

/// Found by a reviewer: the door's task was awaited when the node stopped, and not before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_door_has_ended_ends_and_says_so() {
    for (listens, why) in [
        (Listens::Broken, "it panicked: planted by this test"),
        (Listens::Gone, "nobody can connect to it any more: Invalid argument (os error 22)"),
    ] {
        let story = Story::serving().await;
        let door = story.door.clone();
        story.listens.send_replace(listens);
        let told = story.ended().await.to_string();
        let expected =
            format!("the S3 door at {door} ended: {why}; the process ends so that its agent can start it anew");
        assert_eq!(told, expected);
    }
}
