//! Processes: one tokio runtime each, on paused time that the kernel moves.
//!
//! Owns: what the process table says of each, and the runtime of those that live.
//!
//! Invariants: a dying process has no effect any more (its calls through the seam wait for ever), and its runtime is
//! dropped at the end of the step; a frozen one takes no step, and finds on waking that time has passed at once.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use resilver_host::{ExitStatus, Host};
use tokio::runtime::{Builder, RngSeed, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::machine::MachineId;

/// A process of the run: never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pid(pub u32);

/// What a process runs: given its host and the flag that SIGTERM raises, it ends with an exit code.
pub type Program = Arc<dyn Fn(Host, watch::Receiver<bool>) -> Pin<Box<dyn Future<Output = i32> + Send>> + Send + Sync>;

/// The exit code of a process whose main task panicked, as Rust's runtime has it.
pub(crate) const PANIC_CODE: i32 = 101;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// It takes its steps.
    Running,
    /// SIGSTOP, since this time of the run.
    Frozen(Duration),
    /// It has been ended in this step; nothing it does has an effect.
    Dying(ExitStatus),
    /// It has ended.
    Ended(ExitStatus),
}

impl ProcessState {
    /// Whether it holds its sockets and its name.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Frozen(_))
    }
}

/// Its line in the process table.
pub(crate) struct Entry {
    pub(crate) machine: MachineId,
    pub(crate) role: String,
    pub(crate) parent: Option<Pid>,
    pub(crate) started: Duration,
    pub(crate) state: ProcessState,
    /// Nobody stopped it, it does not get on: the process table calls it asleep.
    pub(crate) hung: bool,
    /// Those who wait for its end.
    pub(crate) waiting: Vec<Waker>,
    /// Disk operations so far.
    pub(crate) disk_ops: u64,
    /// How often randomness was forked, by label.
    pub(crate) forks: BTreeMap<String, u64>,
    /// It is killed when this many are reached, before the last takes effect.
    pub(crate) kill_at_op: Option<u64>,
}

/// A living process.
pub(crate) struct Running {
    runtime: Option<Runtime>,
    root: JoinHandle<i32>,
    terminate: watch::Sender<bool>,
    /// Its time when it was made: the zero of `local`.
    origin: Instant,
    /// What its machine's clock showed then.
    pub(crate) born: Duration,
}

impl Running {
    pub(crate) fn new(seed: u64, host: Host, program: &Program, born: Duration) -> std::io::Result<Running> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
            .build()?;
        let (terminate, told) = watch::channel(false);
        let _inside = runtime.enter();
        let origin = Instant::now();
        let root = runtime.spawn(program(host, told));
        drop(_inside);
        Ok(Running { runtime: Some(runtime), root, terminate, origin, born })
    }

    /// Lets it run until its own clock shows `until`. `jump`: time that passed while it was frozen, and passes at once.
    pub(crate) fn step(&mut self, until: Duration, jump: Duration) {
        let Some(runtime) = &self.runtime else { return };
        let target = self.origin + millis(until.saturating_sub(self.born));
        runtime.block_on(async {
            if !jump.is_zero() {
                tokio::time::advance(millis(jump)).await;
            }
            tokio::time::sleep_until(target).await;
        });
    }

    /// Its exit code, once its main task has ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        if !self.root.is_finished() {
            return None;
        }
        let runtime = self.runtime.as_ref()?;
        Some(runtime.block_on(&mut self.root).unwrap_or(PANIC_CODE))
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.terminate.send_replace(true);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Tasks are dropped here: their files and streams ask the process table, which says dying or ended by now.
        if let Some(runtime) = self.runtime.take() {
            drop(runtime);
        }
    }
}

/// Whole milliseconds: tokio's timers know nothing finer, and a clock that is a fraction ahead would round up each step.
fn millis(duration: Duration) -> Duration {
    Duration::from_millis(duration.as_millis() as u64)
}
