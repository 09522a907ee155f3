//! A whole cluster on this machine: what `resilver up`, the demonstration and the end-to-end stories run on.
//!
//! Owns: the folder's layout, the agents it starts, and the end of everything it started. It starts agents only: each
//! agent starts its node.
//!
//! Must never: signal a process it cannot name by pid, start time and boot, or touch a node's data.
//!
//! Invariants: whatever runs from this folder can be found again after a crash of the starter, from records that were
//! written by whoever started it; stopping twice is the same as stopping once.

mod layout;
mod lock;
mod s3;
mod wait;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use resilver_agent::run_dir::RunDir;
use resilver_host::disk::{read_file, replace_file};
use resilver_host::{Host, ProcId, Process, Signal, SpawnSpec};

use self::lock::{DirLock, ProcessRecord};
pub(crate) use self::s3::S3Access;
use crate::exit::Failure;

/// Nodes when nobody says how many: six hosts are the fewest on which 4+2 survives any two.
pub(crate) const DEFAULT_NODES: u32 = 6;
/// Disks per node when nobody says how many.
pub(crate) const DEFAULT_DISKS: u32 = 2;

/// How long a process may take to end cleanly before it is killed. A node flushes its database meanwhile.
const STOP_TIME: Duration = Duration::from_secs(10);
/// How long a keeper may take to record its node's end: it tries for five seconds on a full disk.
const KEEPER_TIME: Duration = Duration::from_secs(8);
/// A process record is some hundred bytes.
const MAX_RECORD_BYTES: u64 = 4096;

/// How often disks are read through, and compared with the metadata, when nothing points at damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// So often that damage is found while one looks on. It costs clients a good part of a small machine.
    #[default]
    Playful,
    /// As in production: what a benchmark of clients' work measures.
    Production,
}

/// What kind of cluster is wanted.
#[derive(Clone, Debug)]
pub(crate) struct LocalOptions {
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// How many nodes; `None`: as many as the folder has, or [`DEFAULT_NODES`].
    pub(crate) nodes: Option<u32>,
    /// How many disks each; `None`: as the folder has, or [`DEFAULT_DISKS`].
    pub(crate) disks: Option<u32>,
    /// The `resilver` program.
    pub(crate) binary: PathBuf,
    /// The cluster's name.
    pub(crate) name: String,
    /// Written into the nodes' configuration when the cluster is made.
    pub(crate) upkeep: Upkeep,
}

/// A node of a local cluster: where everything of it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalNode {
    /// Its name.
    pub(crate) name: String,
    /// Its gRPC address.
    pub(crate) address: String,
    /// Its HTTP address.
    pub(crate) http: String,
    /// Its S3 address.
    pub(crate) s3: String,
    /// Its agent's gRPC address.
    pub(crate) agent_address: String,
    /// Its agent's HTTP address.
    pub(crate) api: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// Its disks.
    pub(crate) disks: Vec<PathBuf>,
    /// Its metadata.
    pub(crate) meta: PathBuf,
    /// Its configuration, and its agent's.
    pub(crate) config: PathBuf,
    /// Its agent's state.
    pub(crate) agent_dir: PathBuf,
    /// What the agent says.
    pub(crate) agent_log: PathBuf,
    /// What the node says.
    pub(crate) node_log: PathBuf,
}

/// The processes beside one name, as far as they run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pids {
    /// The agent.
    pub(crate) agent: Option<ProcId>,
    /// The node.
    pub(crate) node: Option<ProcId>,
    /// The node's keeper.
    pub(crate) keeper: Option<ProcId>,
}

/// A cluster on this machine. Held by one process at a time.
#[derive(Debug)]
pub(crate) struct LocalCluster {
    host: Host,
    dir: PathBuf,
    binary: PathBuf,
    name: String,
    nodes: Vec<LocalNode>,
    _lock: DirLock,
}

impl LocalCluster {
    /// Makes the folder's content, or takes up what it holds. Starts nothing.
    ///
    /// # Errors
    /// When the folder is held by another process, holds something else, or cannot be written.
    pub(crate) async fn create_or_open(host: &Host, options: LocalOptions) -> Result<LocalCluster, Failure> {
        let named = |error: io::Error| Failure::failed(format!("cannot use {}: {error}", options.dir.display()));
        let dir = std::path::absolute(&options.dir).map_err(named)?;
        layout::inspect(host, &dir, &options).await?;
        host.disk.create_dir_all(&dir).await.map_err(named)?;
        let lock = DirLock::take(host, &dir).await?;
        let file = layout::create_or_open(host, &dir, &options).await?;
        let nodes = file.nodes.iter().map(|member| layout::local_node(&dir, file.disks, member)).collect();
        Ok(LocalCluster { host: host.clone(), dir, binary: options.binary, name: file.name, nodes, _lock: lock })
    }

    /// Its folder, absolute.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its nodes.
    pub(crate) fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// The node of this name.
    pub(crate) fn node(&self, name: &str) -> Option<&LocalNode> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Starts every agent that does not run yet; each starts its node.
    ///
    /// # Errors
    /// When a process cannot be started or recorded. What was started by then runs on: [`LocalCluster::stop`] ends it.
    pub(crate) async fn start(&self) -> Result<(), Failure> {
        for node in &self.nodes {
            self.start_agent(node).await?;
        }
        Ok(())
    }

    /// Starts one agent, or adopts the one that runs.
    ///
    /// # Errors
    /// As [`LocalCluster::start`].
    pub(crate) async fn start_agent(&self, node: &LocalNode) -> Result<Arc<dyn Process>, Failure> {
        let failed = |error: io::Error| Failure::failed(format!("cannot start the agent of {}: {error}", node.name));
        if let Some(running) = self.agent(node).await.map_err(failed)? {
            return Ok(running);
        }
        // `up` stopped these nodes itself when it ended: that is no operator's stop that must not be fought.
        let run = self.run_dir(node);
        run.create().await.map_err(failed)?;
        run.want_running().await.map_err(failed)?;
        let spec = SpawnSpec {
            program: self.binary.clone(),
            args: ["agent", "run", "--config", &node.config.to_string_lossy()].map(str::to_owned).to_vec(),
            env: Vec::new(),
            log: Some(node.agent_log.clone()),
            // Ctrl-C in the terminal is for `up` alone, which then ends everything in order.
            new_session: true,
        };
        let process = self.host.proc.spawn(spec).await.map_err(failed)?;
        let record = ProcessRecord { id: process.id(), boot_id: self.host.proc.boot_id().map_err(failed)? };
        let data = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        replace_file(&*self.host.disk, &agent_record(node), Bytes::from(data)).await.map_err(failed)?;
        Ok(process)
    }

    /// The agent beside a node, if it runs.
    ///
    /// # Errors
    /// Of the file system or the process table.
    pub(crate) async fn agent(&self, node: &LocalNode) -> io::Result<Option<Arc<dyn Process>>> {
        let data = match read_file(&*self.host.disk, &agent_record(node), MAX_RECORD_BYTES).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            data => data?,
        };
        let record: ProcessRecord = serde_json::from_slice(&data)?;
        record.alive(&self.host).await
    }

    /// The processes beside a name, as far as they run.
    ///
    /// # Errors
    /// Of the file system or the process table.
    pub(crate) async fn pids(&self, name: &str) -> io::Result<Pids> {
        let Some(node) = self.node(name) else { return Ok(Pids::default()) };
        let agent = self.agent(node).await?.map(|process| process.id());
        let run = self.run_dir(node);
        let Some(record) = run.node().await? else { return Ok(Pids { agent, ..Pids::default() }) };
        let running = run.alive(&record).await?.map(|process| process.id());
        let keeper = match running {
            Some(_) => self.host.proc.adopt(record.keeper()).await?.map(|process| process.id()),
            None => None,
        };
        Ok(Pids { agent, node: running, keeper })
    }

    /// Ends all agents, then all nodes, and waits for their ends to be recorded. Says what it could not end.
    ///
    /// # Errors
    /// When a process could not be found out about or ended; the others are ended all the same.
    pub(crate) async fn stop(&self) -> Result<(), Failure> {
        // Agents first: they would start what ends.
        let agents = join_all(self.nodes.iter().map(|node| self.stop_agent(node))).await;
        let nodes = join_all(self.nodes.iter().map(|node| self.stop_node(node))).await;
        let failed = |error: io::Error| Failure::failed(format!("not everything could be stopped: {error}"));
        agents.into_iter().chain(nodes).collect::<io::Result<()>>().map_err(failed)
    }

    async fn stop_agent(&self, node: &LocalNode) -> io::Result<()> {
        match self.agent(node).await? {
            Some(process) => end(&process).await,
            None => Ok(()),
        }
    }

    async fn stop_node(&self, node: &LocalNode) -> io::Result<()> {
        let run = self.run_dir(node);
        let Some(record) = run.node().await? else { return Ok(()) };
        let Some(process) = run.alive(&record).await? else { return Ok(()) };
        let keeper = self.host.proc.adopt(record.keeper()).await?;
        end(&process).await?;
        if let Some(keeper) = keeper {
            // It ends by itself once it has recorded how the node ended.
            let _ = tokio::time::timeout(KEEPER_TIME, keeper.exited()).await;
        }
        Ok(())
    }

    fn run_dir(&self, node: &LocalNode) -> RunDir {
        RunDir::new(&self.host, &node.agent_dir.join("run"))
    }
}

fn agent_record(node: &LocalNode) -> PathBuf {
    node.dir.join("agent.json")
}

/// Ends a process: cleanly if it can, at once if it takes too long.
async fn end(process: &Arc<dyn Process>) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    gone(process.signal(Signal::Terminate))?;
    // One that was stopped (SIGSTOP) in an experiment would never see the signal.
    gone(process.signal(Signal::Continue))?;
    if tokio::time::timeout(STOP_TIME, process.exited()).await.is_err() {
        gone(process.signal(Signal::Kill))?;
        process.exited().await?;
    }
    Ok(())
}
