//! Processes: started, watched through a pidfd, adopted after the watcher itself was restarted.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// A process beyond doubt: a pid alone is reused, a pid with its start time is not (within one boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcId {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of /proc/PID/stat.
    pub start_ticks: u64,
}

/// This boot of the kernel: /proc/sys/kernel/random/boot_id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

/// The signals the product sends. A closed list: nothing else is ever sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: end cleanly.
    Terminate,
    /// SIGKILL.
    Kill,
    /// SIGSTOP (tests and demonstrations).
    Stop,
    /// SIGCONT (tests and demonstrations).
    Continue,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct SpawnSpec {
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<String>,
    /// Variables added to the inherited environment.
    pub env: Vec<(String, String)>,
    /// Where standard output and error go (appended); `None`: /dev/null.
    pub log: Option<PathBuf>,
    /// Whether it starts a session of its own, so that a signal to our terminal or group does not reach it.
    pub new_session: bool,
}

/// A process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcMemory {
    /// What it has in memory.
    pub resident_bytes: u64,
    /// What it may have: all of the machine's, or its own control group's limit where that is less. Limits of the groups
    /// above are not looked at.
    pub limit_bytes: u64,
}

/// What the kernel says of a process that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// On a core, or waiting for one.
    Running,
    /// Waits for something, and can be woken.
    Sleeping,
    /// Waits in the kernel, mostly for a disk, and cannot be woken, not even to be killed.
    DiskWait,
    /// Stopped by a signal, or by a tracer.
    Stopped,
    /// It has ended, and nobody has asked how.
    Zombie,
}

impl RunState {
    /// The name in facts and evidence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::DiskWait => "disk_wait",
            Self::Stopped => "stopped",
            Self::Zombie => "zombie",
        }
    }
}

/// How much of everything is left on a machine. `None`: it cannot be told here, which is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostLoad {
    /// Share of all cores that was busy since the look before, in per mille.
    pub cpu_per_mille: Option<u32>,
    /// Share of the last 10 s in which some task waited for a core, in per mille (PSI).
    pub cpu_pressure_per_mille: Option<u32>,
    /// The same, for memory.
    pub memory_pressure_per_mille: Option<u32>,
    /// The same, for input and output.
    pub io_pressure_per_mille: Option<u32>,
    /// Memory of the machine, or of the process's own control group where that is less.
    pub memory_total_bytes: Option<u64>,
    /// What is left of it without pushing anything out that is needed.
    pub memory_available_bytes: Option<u64>,
    /// What the process has in memory.
    pub process_resident_bytes: Option<u64>,
    /// Descriptors it has open.
    pub process_descriptors: Option<u64>,
    /// How many it may have.
    pub process_descriptors_limit: Option<u64>,
}

/// A process that is watched, started by us or adopted.
#[async_trait]
pub trait Process: Send + Sync + 'static {
    /// Its identity.
    fn id(&self) -> ProcId;
    /// Sends a signal through the pidfd: never to a reused pid.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    fn signal(&self, signal: Signal) -> io::Result<()>;
    /// Resolves once it has ended: its status when we are its parent, `None` when it was adopted.
    async fn exited(&self) -> io::Result<Option<ExitStatus>>;
}

/// The process table of a host.
#[async_trait]
pub trait Proc: Send + Sync + 'static {
    /// Starts a process. Dropping the handle neither ends it nor leaves a zombie while we live.
    async fn spawn(&self, spec: SpawnSpec) -> io::Result<Arc<dyn Process>>;
    /// Takes up watching a running process; `None` when no process of that pid and start time runs (a zombie counts as
    /// ended).
    async fn adopt(&self, id: ProcId) -> io::Result<Option<Arc<dyn Process>>>;
    /// The identity of a running pid, if it runs.
    fn identify(&self, pid: u32) -> io::Result<Option<ProcId>>;
    /// How much memory a process has; `None` when no process of that pid and start time runs.
    fn memory(&self, id: ProcId) -> io::Result<Option<ProcMemory>>;
    /// How a process is; `None` when none of that pid and start time is there, not even as a zombie.
    fn state(&self, id: ProcId) -> io::Result<Option<RunState>>;
    /// How many descriptors a process has open, and may have; `None`: it is gone, or not ours to look at.
    fn descriptors(&self, id: ProcId) -> Option<(u64, u64)>;
    /// How much is left on this machine, and what a process takes of it. Reads many small files: some milliseconds with many
    /// descriptors, for [`crate::Host::blocking`].
    fn load(&self, of: Option<ProcId>) -> HostLoad;
    /// Our own identity.
    fn own(&self) -> ProcId;
    /// The boot this host is in.
    fn boot_id(&self) -> io::Result<BootId>;
}
