//! The door on top of a real cluster, over real sockets.
#![allow(clippy::disallowed_methods)]

mod bodies;
mod buckets;
mod client;
mod connections;
mod listings;
mod objects;
mod signatures;
mod uploads;

use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::client::{Client, Request, Response};
use super::Door;
use crate::model::{Grant, KeyRecord};
use crate::options::S3Options;
use crate::phase::{Phase, PhaseCell};
use crate::testing::{Cluster, Settings};
use crate::types::BucketName;

/// A cluster of four nodes with a door at the first, and an admin's client.
struct Stage {
    cluster: Cluster,
    client: Client,
    door: Door,
    stop: watch::Sender<bool>,
    running: JoinHandle<std::io::Result<()>>,
}

impl Stage {
    async fn start() -> Self {
        Self::with(S3Options::at("127.0.0.1:0")).await
    }

    async fn with(options: S3Options) -> Self {
        let cluster = Cluster::start(4, Settings::default()).await;
        let phase = PhaseCell::new();
        let region = options.region.clone();
        let door = Door::new(options, phase.clone());
        let listener = resilver_host::real::host().net.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(door.clone().run(listener, stopping));
        let gateway = &cluster.node(0).gateway;
        let admin = gateway.create_key("admin", true).await.unwrap();
        door.open(gateway.clone());
        phase.set(Phase::Healthy, "serving");
        let client = Client { address, id: admin.id, secret: admin.secret, region, now: SystemTime::now() };
        Self { cluster, client, door, stop, running }
    }

    /// A client whose key has a grant on one bucket, or none at all.
    async fn client_with(&self, bucket: &str, grant: Option<Grant>) -> Client {
        let gateway = &self.cluster.node(0).gateway;
        let key: KeyRecord = gateway.create_key("a test's", false).await.unwrap();
        if grant.is_some() {
            gateway.grant_key(&key.id, &BucketName::from(bucket), grant).await.unwrap();
        }
        Client { id: key.id, secret: key.secret, ..self.client.clone() }
    }

    async fn send(&self, request: Request) -> Response {
        self.client.send(request).await
    }

    async fn put(&self, path: &str, body: &[u8]) -> Response {
        self.send(Request::new("PUT", path).body(body)).await
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Request::new("GET", path)).await
    }

    async fn head(&self, path: &str) -> Response {
        self.client.send_head(Request::new("HEAD", path)).await
    }

    async fn delete(&self, path: &str) -> Response {
        self.send(Request::new("DELETE", path)).await
    }

    /// The bucket that the cluster begins with is `test`; this is for more of them.
    async fn bucket(&self, name: &str) {
        self.put(&format!("/{name}"), b"").await.ok();
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(std::time::Duration::from_secs(10), self.running).await.unwrap().unwrap().unwrap();
        drop(self.door);
    }
}

/// Content that differs from place to place.
fn content(len: usize) -> Vec<u8> {
    crate::testing::content(len).to_vec()
}
