//! The node as a child of a keeper, for machines without a service manager, for `up`, `demo` and tests.
//!
//! Owns: starting keepers, and reading their records. Must never: be the node's parent itself (it would lose the exit
//! status when the agent is restarted) or end a node because the agent ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use resilver_host::{ExitStatus, Host, ProcId, Process, Signal, SpawnSpec};
use resilver_strategies::api::ExitClass;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::{Ended, ServiceError, ServiceManager, ServiceState, classify};
use crate::keeper::KeeperOptions;
use crate::log_tail;
use crate::options::{Launch, Options};
use crate::run_dir::{ExitRecord, NodeRecord, RunDir, StopRecord};

/// How long a keeper may take to record the node it started. It does so within milliseconds of its own start; a machine
/// that is paging needs seconds.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How often the record of a starting node is looked for. The keeper has no way to call us through the seam, and 5 ms
/// is small beside the start of a process.
const START_LOOK: Duration = Duration::from_millis(5);
/// How long a node may take to end cleanly: flush its database, finish streams. Then it is killed, which it survives.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// The number of the signal that asks for a clean end.
const SIGTERM: i32 = 15;
/// How long after the node's end its keeper may take to record it: one fsync, which on a busy disk takes long.
const RECORD_DEADLINE: Duration = Duration::from_secs(3);

/// The node as a child of a keeper.
pub struct ChildService {
    host: Host,
    run: RunDir,
    launch: Launch,
    /// One start, stop or restart at a time.
    acting: Mutex<()>,
    restarting: AtomicBool,
}

impl ChildService {
    /// The service whose records lie in the agent's folder.
    pub fn new(host: &Host, options: &Options) -> ChildService {
        ChildService {
            host: host.clone(),
            run: RunDir::new(host, &options.run_dir()),
            launch: options.launch.clone(),
            acting: Mutex::new(()),
            restarting: AtomicBool::new(false),
        }
    }

    async fn running(&self) -> Result<Option<Arc<dyn Process>>, ServiceError> {
        let Some(record) = self.run.node().await.map_err(record_error("read who runs"))? else { return Ok(None) };
        self.run.alive(&record).await.map_err(record_error("look for the node's process"))
    }

    async fn start_keeper(&self) -> Result<Arc<dyn Process>, ServiceError> {
        self.run.create().await.map_err(record_error("make the folder for runs"))?;
        let keeper = KeeperOptions {
            run_dir: self.run.path().to_owned(),
            log: self.launch.log.clone(),
            program: self.launch.node.program.clone(),
            args: self.launch.node.args.clone(),
        };
        let mut args = self.launch.keeper.args.clone();
        args.extend(keeper.to_args());
        let spec = SpawnSpec {
            program: self.launch.keeper.program.clone(),
            args,
            env: Vec::new(),
            log: Some(self.keeper_log()),
            new_session: true,
        };
        let program = spec.program.display().to_string();
        let spawned = self.host.proc.spawn(spec).await;
        let keeper = spawned.map_err(|source| ServiceError::Spawn { program, source })?;
        self.run.set_keeper(keeper.id()).await.map_err(record_error("record the keeper"))?;
        Ok(keeper)
    }

    fn keeper_log(&self) -> std::path::PathBuf {
        self.run.path().join("keeper.log")
    }

    /// Waits until `keeper` has recorded a node, or has ended without.
    async fn recorded(&self, keeper: &Arc<dyn Process>, log_from: u64) -> Result<ProcId, ServiceError> {
        let begun = Instant::now();
        let mut ended = None;
        loop {
            if let Some(record) = self.run.node().await.map_err(record_error("read who runs"))?
                && record.keeper() == keeper.id()
            {
                return Ok(record.node());
            }
            // Looked for once more after the keeper's end: a node may live shorter than one look.
            if let Some(how) = ended {
                let said = log_tail::last_error(&self.host, &self.keeper_log(), log_from).await;
                return Err(ServiceError::Failed { what: "starting the node".to_owned(), how, said });
            }
            if begun.elapsed() > START_DEADLINE {
                let what = "the start of the node".to_owned();
                return Err(ServiceError::Late { what, seconds: START_DEADLINE.as_secs() });
            }
            if let Ok(status) = timeout(START_LOOK, keeper.exited()).await {
                ended = Some(describe(status.map_err(record_error("wait for the keeper"))?));
            }
        }
    }

    /// A keeper that runs and has not recorded its node yet. One that has is at the end of its work (its node is dead)
    /// and is waited for.
    async fn starting(&self) -> Result<Option<Arc<dyn Process>>, ServiceError> {
        let Some(keeper) = self.run.keeper().await.map_err(record_error("look for the last keeper"))? else {
            return Ok(None);
        };
        let record = self.run.node().await.map_err(record_error("read who runs"))?;
        match record.filter(|record| record.keeper() == keeper.id()) {
            Some(record) => {
                self.keeper_is_done(record.node()).await;
                Ok(None)
            }
            None => Ok(Some(keeper)),
        }
    }

    async fn start_locked(&self) -> Result<ProcId, ServiceError> {
        let node = match self.running().await? {
            Some(node) => node.id(),
            None => {
                let log_from = self.host.disk.metadata(&self.keeper_log()).await.map_or(0, |found| found.len_bytes);
                // A keeper that an agent killed a moment ago has started: its node is on its way, a second one must
                // not be.
                let keeper = match self.starting().await? {
                    Some(keeper) => keeper,
                    None => self.start_keeper().await?,
                };
                self.recorded(&keeper, log_from).await?
            }
        };
        self.run.clear_marks().await.map_err(record_error("clear the marks of a stop"))?;
        Ok(node)
    }

    async fn stop_locked(&self) -> Result<(), ServiceError> {
        let Some(node) = self.running().await? else { return Ok(()) };
        for (signal, patience) in [(Signal::Terminate, STOP_GRACE), (Signal::Kill, STOP_GRACE)] {
            match node.signal(signal) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(record_error("signal the node")(error));
                }
                _ => {}
            }
            if let Ok(ended) = timeout(patience, node.exited()).await {
                ended.map_err(record_error("wait for the node's end"))?;
                // The keeper of this run must be done before the next one looks at its records.
                self.keeper_is_done(node.id()).await;
                return Ok(());
            }
        }
        Err(ServiceError::Late { what: "the node's end, even by SIGKILL,".to_owned(), seconds: STOP_GRACE.as_secs() })
    }

    /// Waits, within its deadline, until the keeper of `node` has ended: its record is then written or never will be.
    async fn keeper_is_done(&self, node: ProcId) {
        let waiting = async {
            let record = self.run.node().await.ok().flatten().filter(|record| record.node() == node)?;
            let keeper = self.host.proc.adopt(record.keeper()).await.ok().flatten()?;
            keeper.exited().await.ok()
        };
        if timeout(RECORD_DEADLINE, waiting).await.is_err() {
            tracing::warn!(pid = node.pid, "the keeper has not recorded the node's end in time");
        }
    }

    async fn judge(&self, record: &NodeRecord) -> Result<Ended, ServiceError> {
        let node = record.node();
        let exit = self.run.exit().await.map_err(record_error("read how the node ended"))?;
        let stopped = self.run.stop().await.map_err(record_error("read the mark of a stop"))?.is_some();
        let restarting = self.run.restarting().await.map_err(record_error("read the mark of a restart"))?;
        Ok(match exit.filter(|exit| exit.node() == node && exit.boot_id == record.boot_id) {
            // A restart that was cut off half way: the node ended by our own SIGTERM, and must be started all the same.
            // A success would look like an operator's stop.
            Some(ExitRecord { status: ExitStatus::Code(0), last_error, .. }) if restarting && !stopped => {
                Ended { node, exit: ExitClass::Signal(SIGTERM), last_error, deliberate: false }
            }
            Some(ExitRecord { status, out_of_memory, last_error, .. }) => Ended {
                node,
                exit: classify(status, out_of_memory, &last_error),
                last_error,
                deliberate: stopped || status == ExitStatus::Code(0),
            },
            None => Ended { node, exit: ExitClass::Unknown, last_error: String::new(), deliberate: stopped },
        })
    }
}

#[async_trait]
impl ServiceManager for ChildService {
    async fn state(&self) -> Result<ServiceState, ServiceError> {
        let Some(record) = self.run.node().await.map_err(record_error("read who runs"))? else {
            return Ok(ServiceState::Absent);
        };
        if let Some(node) = self.run.alive(&record).await.map_err(record_error("look for the node's process"))? {
            return Ok(ServiceState::Running(node.id()));
        }
        let ended = self.judge(&record).await?;
        let this_boot = self.host.proc.boot_id().map_err(record_error("read the boot's id"))? == record.boot_id;
        let marked = self.run.stop().await.map_err(record_error("read the mark of a stop"))?.is_some();
        // What ended with the host's former boot was ended by it. Only an operator's mark outlives a boot.
        Ok(if this_boot || marked { ServiceState::Ended(ended) } else { ServiceState::Absent })
    }

    async fn start(&self) -> Result<ProcId, ServiceError> {
        let _one = self.acting.lock().await;
        self.start_locked().await
    }

    async fn restart(&self, owner: &str, reason: &str) -> Result<ProcId, ServiceError> {
        let _one = self.acting.lock().await;
        let at_ms = self.host.clock.now().as_millis();
        let mark = StopRecord { owner: owner.to_owned(), reason: reason.to_owned(), at_ms };
        self.run.mark_restarting(&mark).await.map_err(record_error("mark the restart"))?;
        let _restarting = Flag::raise(&self.restarting);
        self.stop_locked().await?;
        self.start_locked().await
    }

    async fn ended(&self, node: ProcId) -> Result<Ended, ServiceError> {
        self.keeper_is_done(node).await;
        match self.run.node().await.map_err(record_error("read who ran"))?.filter(|record| record.node() == node) {
            Some(record) => self.judge(&record).await,
            None => Ok(Ended { node, exit: ExitClass::Unknown, last_error: String::new(), deliberate: false }),
        }
    }

    fn is_restarting(&self) -> bool {
        self.restarting.load(Ordering::Acquire)
    }
}

/// Raised while it lives: a restart that is cut off by its deadline lowers it, too.
pub(super) struct Flag<'a>(&'a AtomicBool);

impl<'a> Flag<'a> {
    pub(super) fn raise(flag: &'a AtomicBool) -> Flag<'a> {
        flag.store(true, Ordering::Release);
        Flag(flag)
    }
}

impl Drop for Flag<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn record_error(what: &'static str) -> impl Fn(io::Error) -> ServiceError {
    move |source| ServiceError::Record { what, source }
}

fn describe(status: Option<ExitStatus>) -> String {
    match status {
        Some(ExitStatus::Code(code)) => format!("exit code {code}"),
        Some(ExitStatus::Signal(signal)) => format!("signal {signal}"),
        None => "exit unseen".to_owned(),
    }
}
