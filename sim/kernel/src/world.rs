//! The state all processes of a run share, behind one lock, and the events that are due.
//!
//! Owns: time, machines, processes' entries, the network, the trace. One OS thread runs everything, so the lock is never
//! contended; it is there because the seam's traits are `Send + Sync`.
//!
//! Must never: wake a task or drop a waker while locked (a task that is dropped by that drops its streams, which lock).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use resilver_host::Signal;

use crate::machine::{Machine, MachineId};
use crate::net::{Delivery, Network};
use crate::process::{Entry, Pid, Program};
use crate::rng::SimRng;
use crate::trace::Trace;

/// One step of virtual time. tokio's timers have this resolution, and no message between processes arrives sooner: within
/// a step processes cannot influence each other, so the order in which they take their steps does not matter.
pub const TICK: Duration = Duration::from_millis(1);

/// Answers which program a [`resilver_host::SpawnSpec`] names; `None`: no such file.
pub type Programs = Arc<dyn Fn(&resilver_host::SpawnSpec) -> Option<Program> + Send + Sync>;

/// A handle to the shared state.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

/// What a process asked of the kernel in the middle of a step, done at its end.
pub(crate) enum Request {
    /// Begin to run an entry that exists already.
    Start(Pid, Program),
    /// A signal.
    Signal(Pid, Signal),
}

pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) now: Duration,
    pub(crate) rng: SimRng,
    pub(crate) machines: Vec<Machine>,
    pub(crate) processes: BTreeMap<Pid, Entry>,
    pub(crate) next_pid: u32,
    pub(crate) net: Network,
    pub(crate) due: BTreeMap<(Duration, u64), Delivery>,
    pub(crate) next_event: u64,
    pub(crate) requests: Vec<Request>,
    pub(crate) programs: Option<Programs>,
    pub(crate) trace: Trace,
    pub(crate) wakes: Vec<Waker>,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        World(Arc::new(Mutex::new(State {
            seed,
            now: Duration::ZERO,
            rng: SimRng::new(seed, "world"),
            machines: Vec::new(),
            processes: BTreeMap::new(),
            next_pid: 100,
            net: Network::default(),
            due: BTreeMap::new(),
            next_event: 0,
            requests: Vec::new(),
            programs: None,
            trace: Trace::default(),
            wakes: Vec::new(),
        })))
    }

    /// Works on the state; tasks are woken after the lock is gone.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut state);
        let wakes = std::mem::take(&mut state.wakes);
        drop(state);
        for waker in wakes {
            waker.wake();
        }
        result
    }
}

impl State {
    /// Puts a delivery on the calendar, `after` from now, a tick at least.
    pub(crate) fn after(&mut self, after: Duration, delivery: Delivery) -> Duration {
        let at = self.now + after.max(TICK);
        self.at(at, delivery);
        at
    }

    /// Puts a delivery on the calendar. Those of one moment come in the order in which they were put there.
    pub(crate) fn at(&mut self, at: Duration, delivery: Delivery) {
        self.next_event += 1;
        self.due.insert((at, self.next_event), delivery);
    }

    /// Makes everything happen that is due by now.
    pub(crate) fn deliver_due(&mut self) {
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > self.now {
                return;
            }
            let delivery = entry.remove();
            crate::net::deliver(self, delivery);
        }
    }

    /// Keeps the task of `cx` in `slot`, to be woken by [`State::wake`].
    pub(crate) fn park(wakes: &mut Vec<Waker>, slot: &mut Option<Waker>, cx: &Context<'_>) {
        match slot {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            // The one that is replaced is woken, not dropped: see the module's "must never".
            slot => wakes.extend(slot.replace(cx.waker().clone())),
        }
    }

    pub(crate) fn machine(&self, id: MachineId) -> &Machine {
        &self.machines[id.0]
    }

    pub(crate) fn machine_named(&self, name: &str) -> Option<MachineId> {
        self.machines.iter().position(|machine| machine.name == name).map(MachineId)
    }

    /// A line of the trace about a process.
    pub(crate) fn note(&mut self, pid: Pid, what: &str) {
        let who = match self.processes.get(&pid) {
            Some(entry) => format!("{}/{}", self.machines[entry.machine.0].name, entry.role),
            None => format!("pid{}", pid.0),
        };
        self.trace.add(self.now, &who, what);
    }

    /// A line of the trace about a machine.
    pub(crate) fn note_machine(&mut self, id: MachineId, what: &str) {
        let name = self.machines[id.0].name.clone();
        self.trace.add(self.now, &name, what);
    }
}
