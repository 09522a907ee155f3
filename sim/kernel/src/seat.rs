//! One process's view of the world: the seam's traits, each call in its name.
//!
//! Must never: have an effect for a process that is dying.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::SeedableRng;
use resilver_host::{Blocking, Clock, Host, Rand, Rng, WallTime};
use resilver_sim_disk::{Gate, Op};

use crate::machine::MachineId;
use crate::process::{Pid, ProcessState};
use crate::rng::mix;
use crate::world::{State, World};

/// Most disk operations hit a cache or a fast disk: no time passes that a millisecond's clock would show.
const QUICK_PERMILLE: u64 = 850;
/// What the others take, milliseconds.
const SLOW_MS: (u64, u64) = (1, 3);
/// How many times slower a disk may be drawn; the product of both bounds one operation.
const MAX_SLOW: u64 = 10_000;
/// Blocking work: now and then the pool is busy.
const BLOCKED_PERMILLE: u32 = 100;

/// Where a process sits.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) world: World,
    pub(crate) pid: Pid,
    pub(crate) machine: MachineId,
}

impl Seat {
    /// The host of this process.
    pub(crate) fn host(&self) -> Host {
        let seat = Arc::new(self.clone());
        let files = self.world.with(|state| state.machine(self.machine).files.clone());
        Host {
            net: seat.clone(),
            disk: files.disk(seat.clone()),
            clock: seat.clone(),
            rand: seat.clone(),
            blocking: seat.clone(),
            proc: seat,
        }
    }

    /// Works on the state if this process may still have an effect.
    pub(crate) fn act<T>(&self, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.world.with(|state| {
            let alive = state.processes.get(&self.pid).is_some_and(|entry| entry.state.is_alive());
            alive.then(|| work(state))
        })
    }

    /// As [`Seat::act`], for calls that wait: a dying process waits for ever.
    pub(crate) async fn act_or_hang<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        match self.act(work) {
            Some(result) => result,
            None => std::future::pending().await,
        }
    }

    /// Counts one disk operation; the process may have been told to die at this one.
    fn count_op(&self) -> bool {
        self.world.with(|state| {
            let Some(entry) = state.processes.get_mut(&self.pid) else { return false };
            if !entry.state.is_alive() {
                return false;
            }
            entry.disk_ops += 1;
            if entry.kill_at_op.is_some_and(|at| entry.disk_ops >= at) {
                entry.kill_at_op = None;
                entry.state = ProcessState::Dying(resilver_host::ExitStatus::Signal(9));
                state.note(self.pid, "killed at a disk operation");
                return false;
            }
            true
        })
    }
}

/// The error of a synchronous call that a dying process makes. Nobody sees it but that process, and not for long.
pub(crate) fn dying() -> io::Error {
    io::Error::other("this process is being killed")
}

#[async_trait]
impl Gate for Seat {
    async fn pass(&self, op: &Op) {
        if !self.count_op() {
            return std::future::pending().await;
        }
        let slow = u64::from(op.slow).clamp(1, MAX_SLOW);
        let wait = self.world.with(|state| {
            let quick = slow == 1 && state.rng.between(0, 999) < QUICK_PERMILLE;
            if quick { 0 } else { state.rng.between(SLOW_MS.0, SLOW_MS.1) * slow }
        });
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            // It may have been told to die meanwhile, in this very step.
            self.act_or_hang(|_| ()).await;
        }
    }

    fn pass_blocking(&self, _: &Op) -> bool {
        self.count_op()
    }
}

impl Clock for Seat {
    fn now(&self) -> WallTime {
        self.world.with(|state| state.machine(self.machine).wall(state.now))
    }

    fn since_boot(&self) -> Duration {
        // From before its boot on: only differences count.
        self.world.with(|state| state.machine(self.machine).monotonic(state.now))
    }
}

impl Rand for Seat {
    fn fork(&self, label: &str) -> Rng {
        // The pid is never used twice, and names machine, role and incarnation. Counted, because two users of one label
        // (the ids of two disks) must not draw the same numbers.
        let seed = self.world.with(|state| {
            let forks =
                state.processes.get_mut(&self.pid).map(|entry| entry.forks.entry(label.to_owned()).or_default());
            let nth = forks.map_or(0, |forks| std::mem::replace(forks, *forks + 1));
            mix(state.seed, &format!("{}/{label}/{nth}", self.pid.0))
        });
        Box::new(rand::rngs::StdRng::seed_from_u64(seed))
    }
}

#[async_trait]
impl Blocking for Seat {
    async fn run_boxed(&self, work: Box<dyn FnOnce() + Send>) {
        let busy = self.act_or_hang(|state| state.rng.chance(BLOCKED_PERMILLE)).await;
        if busy {
            tokio::time::sleep(crate::world::TICK).await;
            self.act_or_hang(|_| ()).await;
        }
        work();
    }
}
