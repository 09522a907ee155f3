//! The keeper: a small process that is the node's parent, so that somebody always knows how the node ended.
//!
//! Owns: one run of the node: starts it, says who runs (`run/node.json`), waits, says how it ended (`run/exit.json`),
//! ends. It has a session of its own and outlives the agent: an agent that was restarted adopts the running node by its
//! record, and reads afterwards how it ended.
//!
//! Must never: restart the node (that is a decision), signal it once it is recorded, or start it while the node of the
//! last record still runs.
//!
//! Invariants: a node runs unrecorded only for the moment between its start and its record; when it cannot be recorded
//! it is stopped again, because an agent that does not see it would start a second one on the same data.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use resilver_host::{ExitStatus, Host, OpenMode, Process, Signal, SpawnSpec};

use crate::log_tail;
use crate::run_dir::{ExitRecord, NodeRecord, RunDir};

/// The run was kept and its end recorded.
pub const EXIT_OK: u8 = 0;
/// The node could not be started, or its run not be recorded.
pub const EXIT_FAILED: u8 = 1;
/// A node of this folder already runs.
pub const EXIT_REFUSED: u8 = 5;

/// How often the end of a run is tried to be recorded. A full disk may have room again a second later.
const RECORD_ATTEMPTS: u32 = 5;
/// The pause between two such attempts.
const RECORD_PAUSE: Duration = Duration::from_secs(1);
/// The longest control file of the kernel that is read.
const MAX_KERNEL_FILE_BYTES: usize = 16 * 1024;

/// What a keeper keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeeperOptions {
    /// Where the run is recorded.
    pub run_dir: PathBuf,
    /// Where the node's output goes (appended).
    pub log: PathBuf,
    /// The node's program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

impl KeeperOptions {
    /// The arguments from which the hidden verb `keeper` makes these options again:
    /// `--run-dir DIR --log FILE -- PROGRAM ARGS…`.
    pub fn to_args(&self) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut args = vec!["--run-dir".to_owned(), text(&self.run_dir), "--log".to_owned(), text(&self.log)];
        args.push("--".to_owned());
        args.push(text(&self.program));
        args.extend(self.args.iter().cloned());
        args
    }
}

/// Why a run could not be kept.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error("node {pid} of {} still runs: stop it first, or let the agent restart it", dir.display())]
    StillRuns { pid: u32, dir: PathBuf },
    #[error("the node's program {} cannot be started", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot {what} in {}", dir.display())]
    Record { what: &'static str, dir: PathBuf, source: io::Error },
}

/// Keeps one run of the node, from its start to its recorded end. Returns the exit code for the keeper's process.
pub async fn run_keeper(host: Host, options: KeeperOptions) -> u8 {
    match keep(&host, &options).await {
        Ok(status) => {
            tracing::info!(?status, "the node has ended and its end is recorded");
            EXIT_OK
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, source, "the keeper gives up");
            if matches!(error, KeeperError::StillRuns { .. }) { EXIT_REFUSED } else { EXIT_FAILED }
        }
    }
}

async fn keep(host: &Host, options: &KeeperOptions) -> Result<ExitStatus, KeeperError> {
    let run = RunDir::new(host, &options.run_dir);
    let failed = |what| move |source| KeeperError::Record { what, dir: options.run_dir.clone(), source };
    run.create().await.map_err(failed("make the folder for runs"))?;
    refuse_second(&run).await?;

    let log_from = host.disk.metadata(&options.log).await.map_or(0, |metadata| metadata.len_bytes);
    let kills_before = out_of_memory_kills(host).await;
    let node = spawn_node(host, options).await?;
    let boot_id = host.proc.boot_id().map_err(failed("read the boot's id"))?;
    let record = NodeRecord {
        pid: node.id().pid,
        start_ticks: node.id().start_ticks,
        boot_id: boot_id.clone(),
        started_ms: host.clock.now().as_millis(),
        keeper_pid: host.proc.own().pid,
        keeper_start_ticks: host.proc.own().start_ticks,
    };
    if let Err(error) = run.set_node(&record).await {
        stop_unrecorded(&node).await;
        return Err(failed("record the started node")(error));
    }
    let status = node.exited().await.map_err(failed("wait for the node"))?.unwrap_or(ExitStatus::Code(-1));
    let exit = ExitRecord {
        pid: record.pid,
        start_ticks: record.start_ticks,
        boot_id,
        status,
        out_of_memory: out_of_memory_kills(host).await > kills_before && status == ExitStatus::Signal(SIGKILL),
        ended_ms: host.clock.now().as_millis(),
        last_error: log_tail::last_error(host, &options.log, log_from).await,
    };
    record_exit(&run, &exit).await.map_err(failed("record the node's end"))?;
    Ok(status)
}

/// The number of the one signal the kernel sends to a process that takes too much memory.
const SIGKILL: i32 = 9;

async fn refuse_second(run: &RunDir) -> Result<(), KeeperError> {
    let failed = |source| KeeperError::Record { what: "read who runs", dir: run.path().to_owned(), source };
    let Some(record) = run.node().await.map_err(failed)? else { return Ok(()) };
    match run.alive(&record).await.map_err(failed)? {
        Some(node) => Err(KeeperError::StillRuns { pid: node.id().pid, dir: run.path().to_owned() }),
        None => Ok(()),
    }
}

async fn spawn_node(host: &Host, options: &KeeperOptions) -> Result<Arc<dyn Process>, KeeperError> {
    let spec = SpawnSpec {
        program: options.program.clone(),
        args: options.args.clone(),
        env: Vec::new(),
        log: Some(options.log.clone()),
        // The keeper leads a session already; the node stays in it, away from the agent's terminal.
        new_session: false,
    };
    host.proc.spawn(spec).await.map_err(|source| KeeperError::Spawn { program: options.program.clone(), source })
}

async fn stop_unrecorded(node: &Arc<dyn Process>) {
    // It has served nobody yet: there is nothing a clean end would save.
    if let Err(error) = node.signal(Signal::Kill) {
        tracing::warn!(%error, "the unrecorded node had already ended");
    }
    if let Err(error) = node.exited().await {
        tracing::warn!(%error, "the unrecorded node's end was not seen");
    }
}

async fn record_exit(run: &RunDir, exit: &ExitRecord) -> io::Result<()> {
    let mut attempt = 1;
    loop {
        match run.set_exit(exit).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt >= RECORD_ATTEMPTS => return Err(error),
            Err(error) => tracing::warn!(%error, attempt, "the node's end could not be recorded yet"),
        }
        attempt += 1;
        tokio::time::sleep(RECORD_PAUSE).await;
    }
}

/// How many processes of our control group the kernel has killed for want of memory; 0 when it does not say. The node
/// shares the keeper's group. Compared before and after a run: only a rise makes a SIGKILL a kill by the kernel.
async fn out_of_memory_kills(host: &Host) -> u64 {
    let Some(groups) = kernel_file(host, Path::new("/proc/self/cgroup")).await else { return 0 };
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let path = match controllers {
            "" => format!("/sys/fs/cgroup{group}/memory.events"),
            "memory" => format!("/sys/fs/cgroup/memory{group}/memory.oom_control"),
            _ => continue,
        };
        let Some(counters) = kernel_file(host, Path::new(&path)).await else { continue };
        if let Some(kills) = counters.lines().find_map(|line| line.strip_prefix("oom_kill ")) {
            return kills.trim().parse().unwrap_or(0);
        }
    }
    0
}

/// Files of the kernel say a length of zero: read without asking for it.
async fn kernel_file(host: &Host, path: &Path) -> Option<String> {
    let file = host.disk.open(path, OpenMode::Read).await.ok()?;
    let data = file.read_at(0, MAX_KERNEL_FILE_BYTES).await.ok()?;
    String::from_utf8(data.to_vec()).ok()
}
