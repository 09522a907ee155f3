//! The process table, as processes see it.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use resilver_host::{BootId, ExitStatus, HostLoad, Proc, ProcId, ProcMemory, Process, RunState, Signal, SpawnSpec};

use crate::process::{Entry, Pid, ProcessState};
use crate::seat::Seat;
use crate::world::{Request, State};

/// Clock ticks per second in a process's start time, as on Linux.
const TICKS_PER_SECOND: u128 = 100;

/// What every living process has in memory, and may have: memory is no part of the simulation, so it neither grows nor
/// runs out.
const MEMORY: ProcMemory = ProcMemory { resident_bytes: 64 << 20, limit_bytes: 8 << 30 };

/// How many descriptors every living process has open, and may have.
const DESCRIPTORS: (u64, u64) = (64, 4096);

/// A process that another one watches.
struct Watched {
    seat: Seat,
    id: ProcId,
    parent: bool,
}

impl Entry {
    pub(crate) fn start_ticks(&self) -> u64 {
        (self.started.as_millis() * TICKS_PER_SECOND / 1_000) as u64
    }
}

impl State {
    /// Adds a process to the table; it begins to run when the kernel gets to it.
    pub(crate) fn enroll(&mut self, machine: crate::MachineId, role: &str, parent: Option<Pid>) -> Pid {
        let pid = Pid(self.next_pid);
        self.next_pid += 1;
        let entry = Entry {
            machine,
            role: role.to_owned(),
            parent,
            started: self.now,
            state: ProcessState::Running,
            hung: false,
            waiting: Vec::new(),
            disk_ops: 0,
            forks: Default::default(),
            kill_at_op: None,
        };
        self.processes.insert(pid, entry);
        pid
    }

    /// The living process `pid` on `machine`, if its start time is right.
    fn living(&self, machine: crate::MachineId, pid: u32) -> Option<ProcId> {
        let entry = self.processes.get(&Pid(pid))?;
        let alive = entry.machine == machine && entry.state.is_alive();
        alive.then(|| ProcId { pid, start_ticks: entry.start_ticks() })
    }
}

#[async_trait]
impl Proc for Seat {
    async fn spawn(&self, spec: SpawnSpec) -> io::Result<Arc<dyn Process>> {
        let id = self
            .act_or_hang(|state| {
                let program = state.programs.clone().and_then(|programs| programs(&spec)).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, format!("no program {}", spec.program.display()))
                })?;
                let role = spec.args.first().map_or("program", String::as_str);
                let pid = state.enroll(self.machine, role, Some(self.pid));
                state.requests.push(Request::Start(pid, program));
                let start_ticks = state.processes.get(&pid).map_or(0, Entry::start_ticks);
                io::Result::Ok(ProcId { pid: pid.0, start_ticks })
            })
            .await?;
        Ok(Arc::new(Watched { seat: self.clone(), id, parent: true }))
    }

    async fn adopt(&self, id: ProcId) -> io::Result<Option<Arc<dyn Process>>> {
        let found = self.act_or_hang(|state| state.living(self.machine, id.pid)).await;
        Ok(found.filter(|found| *found == id).map(|id| {
            let watched: Arc<dyn Process> = Arc::new(Watched { seat: self.clone(), id, parent: false });
            watched
        }))
    }

    fn identify(&self, pid: u32) -> io::Result<Option<ProcId>> {
        self.act(|state| state.living(self.machine, pid)).ok_or_else(crate::seat::dying)
    }

    fn memory(&self, id: ProcId) -> io::Result<Option<ProcMemory>> {
        let found = self.act(|state| state.living(self.machine, id.pid)).ok_or_else(crate::seat::dying)?;
        Ok(found.filter(|found| *found == id).map(|_| MEMORY))
    }

    fn state(&self, id: ProcId) -> io::Result<Option<RunState>> {
        let found = self
            .act(|state| {
                let entry = state.processes.get(&Pid(id.pid))?;
                let same = entry.machine == self.machine && entry.start_ticks() == id.start_ticks;
                match entry.state {
                    ProcessState::Running if same => Some(RunState::Sleeping),
                    ProcessState::Frozen(_) if same && entry.hung => Some(RunState::Sleeping),
                    ProcessState::Frozen(_) if same => Some(RunState::Stopped),
                    _ => None,
                }
            })
            .ok_or_else(crate::seat::dying)?;
        Ok(found)
    }

    fn descriptors(&self, id: ProcId) -> Option<(u64, u64)> {
        matches!(self.memory(id), Ok(Some(_))).then_some(DESCRIPTORS)
    }

    fn load(&self, of: Option<ProcId>) -> HostLoad {
        let lives = of.is_some_and(|id| matches!(self.memory(id), Ok(Some(_))));
        let left = self.world.with(|state| state.machine(self.machine).memory_left_permille);
        // Cores and memory are no part of the simulation: an idle machine, that stays so, unless a fault says otherwise.
        HostLoad {
            cpu_per_mille: Some(0),
            cpu_pressure_per_mille: Some(0),
            memory_pressure_per_mille: Some(0),
            io_pressure_per_mille: Some(0),
            memory_total_bytes: Some(MEMORY.limit_bytes),
            memory_available_bytes: Some(MEMORY.limit_bytes * left / 1000),
            process_resident_bytes: lives.then_some(MEMORY.resident_bytes),
            process_descriptors: lives.then_some(DESCRIPTORS.0),
            process_descriptors_limit: lives.then_some(DESCRIPTORS.1),
        }
    }

    fn own(&self) -> ProcId {
        let start_ticks = self.world.with(|state| state.processes.get(&self.pid).map_or(0, Entry::start_ticks));
        ProcId { pid: self.pid.0, start_ticks }
    }

    fn boot_id(&self) -> io::Result<BootId> {
        Ok(BootId(self.world.with(|state| state.machine(self.machine).boot_id())))
    }
}

#[async_trait]
impl Process for Watched {
    fn id(&self) -> ProcId {
        self.id
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let sent = self.seat.act(|state| {
            let alive = state.living(self.seat.machine, self.id.pid) == Some(self.id);
            if alive {
                state.requests.push(Request::Signal(Pid(self.id.pid), signal));
            }
            alive
        });
        match sent {
            Some(true) => Ok(()),
            Some(false) => Err(io::Error::new(io::ErrorKind::NotFound, "it has ended")),
            None => Err(crate::seat::dying()),
        }
    }

    async fn exited(&self) -> io::Result<Option<ExitStatus>> {
        let pid = Pid(self.id.pid);
        std::future::poll_fn(|cx| {
            let ended = self.seat.act(|state| match state.processes.get_mut(&pid) {
                Some(Entry { state: ProcessState::Ended(status), .. }) => Some(*status),
                Some(entry) => {
                    entry.waiting.push(cx.waker().clone());
                    None
                }
                // Entries are kept for the whole run.
                None => Some(ExitStatus::Code(0)),
            });
            match ended.flatten() {
                Some(status) => Poll::Ready(Ok(self.parent.then_some(status))),
                None => Poll::Pending,
            }
        })
        .await
    }
}
