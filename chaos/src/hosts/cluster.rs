//! A cluster with a host for each node and its agent.

mod disks;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use rand::RngCore;
use resilver_host::Host;
use resilver_host::disk::{replace_file, replace_private_file};
use resilver_proto::store::cluster_client::ClusterClient;
use resilver_proto::store::store_client::StoreClient;
use resilver_proto::store::{CreateKeyRequest, InitRequest, StatusResponse};
use resilver_proto::transport::{self, Profile};
use tokio::time::Instant;

use super::Hosts;
use crate::client::Client;
use crate::s3::Access;
use crate::target::{HostInfo, Target};

/// Every host has the same ports: they have addresses of their own.
const NODE_PORT: u16 = 7001;
const HTTP_PORT: u16 = 7002;
const AGENT_PORT: u16 = 7003;
const API_PORT: u16 = 7004;
const GOSSIP_PORT: u16 = 7005;
const S3_PORT: u16 = 9000;

/// What the agents' gossip is sealed with, in the cluster's folder.
const GOSSIP_KEY_FILE: &str = "gossip.key";
/// Bytes of that key (docs/liveness.md).
const GOSSIP_KEY_BYTES: usize = 32;

/// How long the cluster may take to be whole.
const START_TIME: Duration = Duration::from_secs(90);
/// How often is looked whether it is.
const LOOK: Duration = Duration::from_millis(100);

/// How large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Hosts, each with a node and an agent.
    pub nodes: usize,
    /// Disks of each node.
    pub disks: usize,
    /// Which of them, counted from 1, lies behind a fault file system, on every host; `None`: none does.
    pub faulty_disk: Option<usize>,
    /// Hosts without a node, for clients: they come after the others.
    pub clients: usize,
    /// Whether the nodes have the layers that make the loss of a peer cost nothing.
    pub defences: Defences,
}

/// Whether suspicion, circuits, hedged reads and stand-ins are at work in the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defences {
    /// As it is by default.
    On,
    /// Without them, to measure what they cost when nothing is wrong.
    Off,
}

impl Shape {
    /// So many nodes with so many disks, and nothing else.
    pub fn new(nodes: usize, disks: usize) -> Self {
        Self { nodes, disks, faulty_disk: None, clients: 0, defences: Defences::On }
    }
}

/// A cluster whose hosts can lose their power.
pub struct HostCluster {
    host: Host,
    hosts: Hosts,
    binary: PathBuf,
    target: Target,
    shape: Shape,
}

impl HostCluster {
    /// Makes the hosts and starts a cluster on them; waits until it is whole. All of it lies in `dir`.
    ///
    /// # Errors
    /// When the hosts cannot be made, or the cluster does not become whole.
    pub async fn start(host: &Host, dir: &Path, binary: &Path, shape: Shape) -> anyhow::Result<Self> {
        ensure!(shape.faulty_disk.is_none_or(|disk| (1..=shape.disks).contains(&disk)), "no such disk: {shape:?}");
        let hosts = Hosts::new(host, &dir.join("hosts"), shape.nodes + shape.clients).await?;
        let target =
            Target { dir: dir.to_owned(), hosts: (0..shape.nodes).map(|at| info(&hosts, dir, at, shape)).collect() };
        let cluster = Self { host: host.clone(), hosts, binary: binary.to_owned(), target, shape };
        cluster.write_gossip_key(dir).await?;
        for at in 0..shape.nodes {
            let folder = cluster.folder(at);
            host.disk.create_dir_all(&folder).await?;
            let text = cluster.configuration(at, shape);
            replace_file(&*host.disk, &folder.join("resilver.yaml"), Bytes::from(text)).await?;
            cluster.start_agent(at).await?;
        }
        cluster.found().await?;
        cluster.await_whole(START_TIME).await?;
        Ok(cluster)
    }

    /// Where its parts are.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its hosts.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The number of the host of a node.
    pub fn index(&self, node: &str) -> Option<usize> {
        self.target.hosts.iter().position(|host| host.name == node)
    }

    /// Starts what starts when a host has power: its faulty disk, then the agent, which starts its node.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_agent(&self, at: usize) -> anyhow::Result<()> {
        self.mount_disk(at).await?;
        let folder = self.folder(at);
        let config = folder.join("resilver.yaml").display().to_string();
        let args = ["agent", "run", "--config", &config].map(str::to_owned);
        self.hosts.start(at, &self.binary, &args, &folder.join("agent.log")).await
    }

    /// An access key to everything, and the doors of these nodes in this order.
    ///
    /// # Errors
    /// When the node at the first of them makes no key.
    pub async fn access(&self, nodes: &[usize]) -> anyhow::Result<Access> {
        let first = &self.target.hosts[*nodes.first().context("no node")?];
        let mut store = StoreClient::new(transport::channel(&self.host.net, &first.address, Profile::Bulk)?);
        let made =
            store.create_key(CreateKeyRequest { label: "experiment".to_owned(), admin: true }).await?.into_inner();
        Ok(Access {
            endpoints: nodes.iter().map(|at| format!("http://{}:{S3_PORT}", self.hosts.address(*at))).collect(),
            access_key: made.key.unwrap_or_default().id,
            secret_key: made.secret,
        })
    }

    /// The process of each node, as we see it: what a node says of itself is its number on its host.
    ///
    /// # Errors
    /// When a node does not answer, or no process of its host has that number.
    pub async fn node_pids(&self) -> anyhow::Result<Vec<u32>> {
        let client = Client::new(&self.host, &self.target)?;
        let mut pids = Vec::new();
        for (at, info) in self.target.hosts.iter().enumerate() {
            let seen = client.observe(&info.name).await.with_context(|| format!("{} does not answer", info.name))?;
            pids.push(self.hosts.outer_pid(at, seen.pid).await?);
        }
        Ok(pids)
    }

    /// Waits until every node is healthy under a leader and nothing is missing.
    ///
    /// # Errors
    /// When that does not come in time; says what is in the way.
    pub async fn await_whole(&self, limit: Duration) -> anyhow::Result<StatusResponse> {
        let client = Client::new(&self.host, &self.target)?;
        let until = Instant::now() + limit;
        loop {
            let status = client.status().await;
            if let Some(status) = status.clone().filter(|status| is_whole(status, self.target.hosts.len())) {
                return Ok(status);
            }
            if Instant::now() >= until {
                bail!("the cluster is not whole after {} s: {}", limit.as_secs(), told(status.as_ref()));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it with its hosts.
    ///
    /// # Errors
    /// When a process cannot be waited for.
    pub async fn end(self) -> anyhow::Result<()> {
        self.remove_controls().await?;
        self.hosts.end().await
    }

    async fn found(&self) -> anyhow::Result<()> {
        let first = &self.target.hosts[0];
        let mut cluster = ClusterClient::new(transport::channel(&self.host.net, &first.address, Profile::Bulk)?);
        let until = Instant::now() + START_TIME;
        loop {
            let request = InitRequest { name: "experiment".to_owned() };
            match cluster.init(request).await {
                Ok(_) => return Ok(()),
                Err(status) if Instant::now() >= until => {
                    bail!("the cluster could not be founded: {}", status.message())
                }
                // Its node is being started.
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }

    async fn write_gossip_key(&self, dir: &Path) -> anyhow::Result<()> {
        let mut key = [0; GOSSIP_KEY_BYTES];
        self.host.rand.fork("hosts.gossip").fill_bytes(&mut key);
        let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        replace_private_file(&*self.host.disk, &dir.join(GOSSIP_KEY_FILE), Bytes::from(format!("1 {digits}\n")))
            .await?;
        Ok(())
    }

    fn folder(&self, at: usize) -> PathBuf {
        self.target.dir.join(&self.target.hosts[at].name)
    }

    fn configuration(&self, at: usize, shape: Shape) -> String {
        let own = &self.target.hosts[at];
        let address = |at: usize, port: u16| format!("\"{}:{port}\"", self.hosts.address(at));
        let join: Vec<String> =
            (0..shape.nodes).filter(|other| *other != at).map(|other| address(other, NODE_PORT)).collect();
        let disks: Vec<String> = own.disks.iter().map(|disk| disk.display().to_string()).collect();
        let mut text = format!(
            "profile: fast\nnode:\n  name: {name}\n  address: {node}\n  http: {http}\n  data_dir: meta\n  disks: [{disks}]\n  \
             join: [{join}]\n{defences}  repair: {{ check_interval: 2s }}\n  read_deadline: 30s\n  s3: {{ address: {s3} }}\nagent:\n  \
             name: {name}\n  node_address: {node}\n  node_http: {http}\n  address: {agent}\n  http: {api}\n  dir: agent\n  gossip: {{ listen: {gossip}, key_file: ../{GOSSIP_KEY_FILE} }}\nnodes:\n",
            name = own.name,
            node = address(at, NODE_PORT),
            http = address(at, HTTP_PORT),
            s3 = address(at, S3_PORT),
            agent = address(at, AGENT_PORT),
            api = address(at, API_PORT),
            gossip = address(at, GOSSIP_PORT),
            disks = disks.join(", "),
            join = join.join(", "),
            // Quoted: a bare `off` is a boolean to some readers of YAML.
            defences = if shape.defences == Defences::Off { "  defences: \"off\"\n" } else { "" },
        );
        for (at, member) in self.target.hosts.iter().enumerate() {
            let [node, agent, api, gossip] =
                [NODE_PORT, AGENT_PORT, API_PORT, GOSSIP_PORT].map(|port| address(at, port));
            text.push_str(&format!(
                "  - {{ id: {}, address: {node}, agent: {agent}, api: {api}, gossip: {gossip} }}\n",
                member.name
            ));
        }
        text
    }
}

fn info(hosts: &Hosts, dir: &Path, at: usize, shape: Shape) -> HostInfo {
    let name = format!("n{}", at + 1);
    let address = hosts.address(at);
    HostInfo {
        address: format!("{address}:{NODE_PORT}"),
        http: format!("{address}:{HTTP_PORT}"),
        api: format!("{address}:{API_PORT}"),
        disks: (1..=shape.disks).map(|disk| disks::disk_path(&dir.join(&name), disk)).collect(),
        name,
    }
}

fn is_whole(status: &StatusResponse, nodes: usize) -> bool {
    status.unanswered.is_empty()
        && !status.leader.is_empty()
        && status.nodes.len() == nodes
        && status.nodes.iter().all(|node| node.state == "healthy")
        && status.missing_shards + status.repair_queue + status.repair_in_flight == 0
}

fn told(status: Option<&StatusResponse>) -> String {
    let Some(status) = status else { return "no node answers".to_owned() };
    let ill = status.nodes.iter().filter(|node| node.state != "healthy");
    format!(
        "{} nodes of which {:?} are not healthy, leader {:?}, unanswered {:?}, {} shards missing, {} in the queue",
        status.nodes.len(),
        ill.map(|node| &node.node).collect::<Vec<_>>(),
        status.leader,
        status.unanswered,
        status.missing_shards,
        status.repair_queue + status.repair_in_flight,
    )
}
