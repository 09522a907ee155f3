//! Processes of Linux, each held by a pidfd.
//!
//! Owns: starting, watching and reaping. A task per watched process waits for its pidfd, reaps it when it is our child
//! and publishes how it ended.
//!
//! Must never: signal by pid (it may be another process by now), end a process because a handle was dropped, leave a
//! started process unwatched.
//!
//! Invariants: at most one watcher per process, so the status of a child, which the kernel hands out once, is never
//! taken by another handle; a child is reaped before its end is published.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, pidfd_send_signal, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::blocking::off_loop;
use super::load::Looker;
use super::procfs;
use super::supervise;
use crate::{BootId, ExitStatus, HostLoad, Proc, ProcId, ProcMemory, Process, RunState, Signal, SpawnSpec};

pub(super) struct RealProc {
    own: ProcId,
    table: Arc<Table>,
    looker: Looker,
}

impl RealProc {
    pub(super) fn new() -> RealProc {
        RealProc {
            own: procfs::own().expect("/proc must be mounted: processes are told apart by it"),
            table: Arc::default(),
            looker: Looker::new(),
        }
    }
}

#[async_trait]
impl Proc for RealProc {
    async fn spawn(&self, spec: SpawnSpec) -> io::Result<Arc<dyn Process>> {
        let table = Arc::clone(&self.table);
        // In one piece off the loop: a caller that stops waiting half way must not leave a child without a watcher.
        off_loop(move || {
            let mut child = command(&spec)?.spawn()?;
            match table.watch_child(child.id()) {
                Ok(process) => Ok(process as Arc<dyn Process>),
                Err(error) => {
                    // Not watched, it would run unseen and end as a zombie.
                    let _ = child.kill();
                    let _ = child.wait();
                    Err(error)
                }
            }
        })
        .await
    }

    async fn adopt(&self, id: ProcId) -> io::Result<Option<Arc<dyn Process>>> {
        let Some((pidfd, found)) = hold(id.pid)? else { return Ok(None) };
        if found != id {
            return Ok(None);
        }
        Ok(Some(self.table.watch(id, pidfd)?))
    }

    fn identify(&self, pid: u32) -> io::Result<Option<ProcId>> {
        Ok(hold(pid)?.map(|(_, id)| id))
    }

    fn memory(&self, id: ProcId) -> io::Result<Option<ProcMemory>> {
        procfs::memory(id)
    }

    fn state(&self, id: ProcId) -> io::Result<Option<RunState>> {
        procfs::state(id)
    }

    fn descriptors(&self, id: ProcId) -> Option<(u64, u64)> {
        let found = procfs::descriptors(id.pid).zip(procfs::descriptors_limit(id.pid))?;
        // Looked at last: what was read before is this process's, if it is this process still.
        (procfs::start_ticks(id.pid).ok()? == Some(id.start_ticks)).then_some(found)
    }

    fn load(&self, of: Option<ProcId>) -> HostLoad {
        self.looker.look(of)
    }

    fn own(&self) -> ProcId {
        self.own
    }

    fn boot_id(&self) -> io::Result<BootId> {
        procfs::boot_id()
    }
}

fn command(spec: &SpawnSpec) -> io::Result<Command> {
    let mut command = Command::new(&spec.program);
    // Meant for this process alone: `systemctl`, for one, tells its own failures to whoever it finds there.
    for name in supervise::VARIABLES {
        command.env_remove(name);
    }
    command.args(&spec.args).envs(spec.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    if let Some(path) = &spec.log {
        let log = OpenOptions::new().append(true).create(true).open(path)?;
        command.stdout(log.try_clone()?).stderr(log);
    } else {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    if spec.new_session {
        own_session(&mut command);
    }
    Ok(command)
}

/// A process group alone would not do: the end of our terminal's session reaches every group in it.
#[allow(unsafe_code)]
fn own_session(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. This closure makes one system call, takes
    // no lock and allocates nothing.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
}

/// A pidfd of the running process `pid` and its identity; `None` when none runs (a zombie has ended).
fn hold(pid: u32) -> io::Result<Option<(OwnedFd, ProcId)>> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // Absent; or the number now belongs to a thread (its errno depends on the kernel's age).
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // After the pidfd was opened, and before it is asked for the end: if the process still runs then, the pid was its
    // own all along and the start time read in between is its own too.
    let Some(start_ticks) = procfs::start_ticks(pid)? else { return Ok(None) };
    if has_ended(&pidfd)? {
        return Ok(None);
    }
    Ok(Some((pidfd, ProcId { pid, start_ticks })))
}

/// Whether the process has ended, reaped or not.
fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())))? > 0)
}

/// Every process that is being watched.
#[derive(Default)]
struct Table(Mutex<BTreeMap<ProcId, Arc<Watched>>>);

impl Table {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<ProcId, Arc<Watched>>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a child that nobody has waited for yet: its pid is its own, even if it has ended already.
    fn watch_child(self: &Arc<Self>, pid: u32) -> io::Result<Arc<Watched>> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty())?;
        let start_ticks = procfs::start_ticks(pid)?.ok_or(io::ErrorKind::NotFound)?;
        self.watch(ProcId { pid, start_ticks }, pidfd)
    }

    /// The watcher of this process: the present one, or a new one.
    fn watch(self: &Arc<Self>, id: ProcId, pidfd: OwnedFd) -> io::Result<Arc<Watched>> {
        let mut entries = self.entries();
        if let Some(watched) = entries.get(&id) {
            return Ok(Arc::clone(watched));
        }
        let pidfd = Arc::new(pidfd);
        let readable = register(Arc::clone(&pidfd))?;
        let (publish, ended) = watch::channel(None);
        let watched = Arc::new(Watched { id, pidfd, ended });
        entries.insert(id, Arc::clone(&watched));
        drop(entries);
        let table = Arc::clone(self);
        tokio::spawn(async move {
            match wait_for_end(&readable).await {
                Ok(status) => {
                    publish.send_replace(Some(status));
                }
                // Dropping the sender tells those who wait that the end was not seen.
                Err(error) => tracing::error!(pid = id.pid, %error, "watching a process failed"),
            }
            table.entries().remove(&id);
        });
        Ok(watched)
    }
}

/// Hands a pidfd to the runtime, to be told of its end.
#[allow(unsafe_code)]
fn register(pidfd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the `AsyncFd` keeps this `Arc`, so the descriptor stays open and the same until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

/// Waits for the end; reaps when it was a child of ours. Its status then, `None` for everybody else's child.
async fn wait_for_end(pidfd: &AsyncFd<Arc<OwnedFd>>) -> io::Result<Option<ExitStatus>> {
    // A pidfd becomes readable once, for good: the readiness needs no clearing.
    let _ready = pidfd.readable().await?;
    match reap(pidfd.get_ref(), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(Some(status)) => Ok(exit_status(&status)),
        // Ended, but a tracer has not let go of it yet. It will, and only then may the parent reap.
        Ok(None) => {
            let pidfd = Arc::clone(pidfd.get_ref());
            let reaped = off_loop(move || Ok(reap(&pidfd, WaitIdOptions::EXITED)?)).await?;
            Ok(reaped.as_ref().and_then(exit_status))
        }
        Err(Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn reap(pidfd: &OwnedFd, options: WaitIdOptions) -> rustix::io::Result<Option<WaitIdStatus>> {
    use std::os::fd::AsFd;
    retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), options))
}

fn exit_status(status: &WaitIdStatus) -> Option<ExitStatus> {
    status.exit_status().map(ExitStatus::Code).or_else(|| status.terminating_signal().map(ExitStatus::Signal))
}

/// A process under watch. Its watcher lives as long as the process, not as long as the handles.
struct Watched {
    id: ProcId,
    pidfd: Arc<OwnedFd>,
    /// `Some` once it has ended: the status, when we were its parent.
    ended: watch::Receiver<Option<Option<ExitStatus>>>,
}

#[async_trait]
impl Process for Watched {
    fn id(&self) -> ProcId {
        self.id
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        // The kernel takes a signal to a zombie without a word; the caller asked whether anybody is there.
        if has_ended(&self.pidfd)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let signal = match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
            Signal::Stop => rustix::process::Signal::STOP,
            Signal::Continue => rustix::process::Signal::CONT,
        };
        match pidfd_send_signal(&self.pidfd, signal) {
            Err(Errno::SRCH) => Err(io::ErrorKind::NotFound.into()),
            result => Ok(result?),
        }
    }

    async fn exited(&self) -> io::Result<Option<ExitStatus>> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(status) => Ok((*status).flatten()),
            Err(_) => Err(io::Error::other(format!("the watcher of pid {} stopped before its end", self.id.pid))),
        }
    }
}
