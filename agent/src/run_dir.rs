//! The folder in which a node's runs leave their traces: who runs now, how the last one ended, whether it was meant to.
//!
//! Owns: the shapes and names of `run/node.json` and `run/exit.json` (written by the keeper), `run/stop.json` (by an
//! operator's verb) and `run/keeper.json` and `run/restart.json` (by the
//! agent).
//!
//! Must never: act on a pid. A record names a process by pid, start time and boot, and only all three together.
//!
//! Invariants: every file is replaced atomically, so a reader sees a whole record or none; a record of another boot
//! speaks of a process that is gone for certain.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::disk::{create_dir_durably, read_file, replace_file};
use resilver_host::{BootId, ExitStatus, Host, ProcId, Process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest record that is read: they are a few hundred bytes, and garbage must not fill the memory.
const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// The node that was started last: `run/node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Process id of the node.
    pub pid: u32,
    /// Its start time in clock ticks since boot.
    pub start_ticks: u64,
    /// The boot it was started in.
    pub boot_id: BootId,
    /// When, wall time.
    pub started_ms: u64,
    /// Its keeper's process id.
    pub keeper_pid: u32,
    /// Its keeper's start time.
    pub keeper_start_ticks: u64,
}

impl NodeRecord {
    /// The node, beyond doubt (within its boot).
    pub fn node(&self) -> ProcId {
        ProcId { pid: self.pid, start_ticks: self.start_ticks }
    }

    /// Its keeper.
    pub fn keeper(&self) -> ProcId {
        ProcId { pid: self.keeper_pid, start_ticks: self.keeper_start_ticks }
    }
}

/// How a run ended: `run/exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Process id it had.
    pub pid: u32,
    /// Start time it had.
    pub start_ticks: u64,
    /// The boot it ran in.
    pub boot_id: BootId,
    /// How.
    pub status: ExitStatus,
    /// The kernel counted a kill for want of memory in the node's control group while it ran.
    #[serde(default)]
    pub out_of_memory: bool,
    /// When, wall time.
    pub ended_ms: u64,
    /// The last error line of its log, without its timestamp; empty when there was none.
    #[serde(default)]
    pub last_error: String,
}

impl ExitRecord {
    /// The process it is about.
    pub fn node(&self) -> ProcId {
        ProcId { pid: self.pid, start_ticks: self.start_ticks }
    }
}

/// The keeper that was started last, before it has recorded its node: `run/keeper.json`. An agent that is restarted just
/// then waits for that keeper instead of starting a second one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperRecord {
    /// Process id of the keeper.
    pub pid: u32,
    /// Its start time.
    pub start_ticks: u64,
    /// The boot it was started in.
    pub boot_id: BootId,
}

/// An operator stopped the node on purpose: `run/stop.json`. The agent never fights it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopRecord {
    /// Who.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// When, wall time.
    pub at_ms: u64,
}

/// The folder of one node's records.
#[derive(Clone, Debug)]
pub struct RunDir {
    host: Host,
    dir: PathBuf,
}

impl RunDir {
    /// The records in `dir`. Nothing is touched yet.
    pub fn new(host: &Host, dir: &Path) -> RunDir {
        RunDir { host: host.clone(), dir: dir.to_owned() }
    }

    /// Makes the folder when it is not there.
    ///
    /// # Errors
    /// Of the file system.
    pub async fn create(&self) -> io::Result<()> {
        create_dir_durably(&*self.host.disk, &self.dir).await
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The node started last.
    ///
    /// # Errors
    /// Of the file system, or `InvalidData` with the file's name.
    pub async fn node(&self) -> io::Result<Option<NodeRecord>> {
        self.read("node.json").await
    }

    /// How the last run ended.
    ///
    /// # Errors
    /// As [`RunDir::node`].
    pub async fn exit(&self) -> io::Result<Option<ExitRecord>> {
        self.read("exit.json").await
    }

    /// The operator's mark, if the node was stopped on purpose.
    ///
    /// # Errors
    /// As [`RunDir::node`].
    pub async fn stop(&self) -> io::Result<Option<StopRecord>> {
        self.read("stop.json").await
    }

    /// The keeper that was started last, if it still runs.
    ///
    /// # Errors
    /// As [`RunDir::node`].
    pub async fn keeper(&self) -> io::Result<Option<Arc<dyn Process>>> {
        let Some(KeeperRecord { pid, start_ticks, boot_id }) = self.read("keeper.json").await? else { return Ok(None) };
        if boot_id != self.host.proc.boot_id()? {
            return Ok(None);
        }
        self.host.proc.adopt(ProcId { pid, start_ticks }).await
    }

    /// Says which keeper was started.
    ///
    /// # Errors
    /// As [`RunDir::set_node`].
    pub async fn set_keeper(&self, keeper: ProcId) -> io::Result<()> {
        let ProcId { pid, start_ticks } = keeper;
        let boot_id = self.host.proc.boot_id()?;
        self.write("keeper.json", &KeeperRecord { pid, start_ticks, boot_id }).await
    }

    /// Says who runs now.
    ///
    /// # Errors
    /// Of the file system; the former record is then still in place.
    pub async fn set_node(&self, record: &NodeRecord) -> io::Result<()> {
        self.write("node.json", record).await
    }

    /// Says how a run ended. Durable when it returns.
    ///
    /// # Errors
    /// As [`RunDir::set_node`].
    pub async fn set_exit(&self, record: &ExitRecord) -> io::Result<()> {
        self.write("exit.json", record).await
    }

    /// An operator is about to stop the node on purpose. Written before the signal is sent, so that no agent sees the
    /// exit without the reason.
    ///
    /// # Errors
    /// As [`RunDir::set_node`].
    pub async fn mark_stopped(&self, record: &StopRecord) -> io::Result<()> {
        self.write("stop.json", record).await
    }

    /// The node is wanted again: a deliberate stop and a clean exit are forgotten, so that the agent starts it. For
    /// `resilver up` on a folder it has stopped itself, and for an operator's start.
    ///
    /// # Errors
    /// Of the file system.
    pub async fn want_running(&self) -> io::Result<()> {
        self.remove("stop.json").await?;
        self.remove("exit.json").await?;
        let alive = match self.node().await? {
            Some(record) => self.alive(&record).await?.is_some(),
            None => false,
        };
        if !alive {
            self.remove("node.json").await?;
        }
        Ok(())
    }

    /// The agent is about to end the node in order to start it again: a clean exit is then no deliberate stop, also
    /// for an agent that was itself restarted in between.
    ///
    /// # Errors
    /// As [`RunDir::set_node`].
    pub async fn mark_restarting(&self, record: &StopRecord) -> io::Result<()> {
        self.write("restart.json", record).await
    }

    /// Whether a restart was begun and its new node has not been seen yet.
    ///
    /// # Errors
    /// As [`RunDir::node`].
    pub async fn restarting(&self) -> io::Result<bool> {
        Ok(self.read::<StopRecord>("restart.json").await?.is_some())
    }

    /// Forgets both marks: the node runs again.
    ///
    /// # Errors
    /// Of the file system.
    pub async fn clear_marks(&self) -> io::Result<()> {
        self.remove("stop.json").await?;
        self.remove("restart.json").await
    }

    /// The node of `record`, if it still runs: in this boot and under that start time.
    ///
    /// # Errors
    /// When the process table cannot be read.
    pub async fn alive(&self, record: &NodeRecord) -> io::Result<Option<Arc<dyn Process>>> {
        if record.boot_id != self.host.proc.boot_id()? {
            return Ok(None);
        }
        self.host.proc.adopt(record.node()).await
    }

    async fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let path = self.dir.join(name);
        let data = match read_file(&*self.host.disk, &path, MAX_RECORD_BYTES).await {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(&data).map(Some).map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is no record of a run: {error}", path.display()))
        })
    }

    async fn write<T: Serialize>(&self, name: &str, record: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        replace_file(&*self.host.disk, &self.dir.join(name), Bytes::from(line)).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        match self.host.disk.remove_file(&self.dir.join(name)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.host.disk.sync_dir(&self.dir).await,
        }
    }
}
