//! The loop, and what may be done to the world between two of its steps.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use resilver_host::{ExitStatus, Host, Signal};
use resilver_sim_disk::FileSystem;

use crate::interpose;
use crate::machine::{Machine, MachineId};
use crate::net::{self, Delivery, LinkOptions};
use crate::process::{Entry, Pid, ProcessState, Program, Running};
use crate::rng::{SimRng, mix};
use crate::seat::Seat;
use crate::trace::Trace;
use crate::world::{Programs, Request, TICK, World};

/// The number of SIGKILL.
const SIGKILL: i32 = 9;

thread_local! {
    /// The process whose step this is: for facts and panics, which come without a name.
    static CURRENT: RefCell<Option<Pid>> = const { RefCell::new(None) };
}

/// A process, as the table shows it.
#[derive(Clone, Debug)]
pub struct ProcessInfo {
    /// Its id.
    pub pid: Pid,
    /// Where it runs.
    pub machine: MachineId,
    /// What it is: `node`, `agent`, `keeper`.
    pub role: String,
    /// Whether it lives.
    pub state: ProcessState,
    /// Who started it, if a process did.
    pub parent: Option<Pid>,
    /// Disk operations so far.
    pub disk_ops: u64,
}

/// The world, and the processes in it.
pub struct Kernel {
    world: World,
    running: BTreeMap<Pid, Running>,
    rng: SimRng,
    /// Processes that were thawed: how much time passes for them at once.
    jumps: BTreeMap<Pid, Duration>,
}

impl Kernel {
    /// An empty world. From here on libc's clock and randomness are the run's.
    pub fn new(seed: u64) -> Kernel {
        interpose::begin(seed);
        Kernel {
            world: World::new(seed),
            running: BTreeMap::new(),
            rng: SimRng::new(seed, "kernel"),
            jumps: BTreeMap::new(),
        }
    }

    /// The process whose step is being taken.
    pub fn current() -> Option<Pid> {
        CURRENT.with_borrow(|current| *current)
    }

    /// A machine that is on, its file system empty. Its name is its host name.
    pub fn add_machine(&mut self, name: &str) -> MachineId {
        self.world.with(|state| {
            let files = FileSystem::new(mix(state.seed, &format!("disk/{name}")));
            state.machines.push(Machine::new(name, files));
            MachineId(state.machines.len() - 1)
        })
    }

    /// What `Proc::spawn` runs.
    pub fn on_spawn(&mut self, programs: Programs) {
        self.world.with(|state| state.programs = Some(programs));
    }

    /// Starts a process, as a machine's init would.
    pub fn start(&mut self, machine: MachineId, role: &str, program: &Program) -> Pid {
        let pid = self.world.with(|state| state.enroll(machine, role, None));
        self.begin(pid, program);
        pid
    }

    fn begin(&mut self, pid: Pid, program: &Program) {
        let entry = self.world.with(|state| {
            let entry = state.processes.get(&pid)?;
            // A power cut came between the call and its effect.
            let alive = entry.state.is_alive();
            let (machine, born) = (entry.machine, state.machine(entry.machine).monotonic(state.now));
            alive.then(|| {
                state.note(pid, &format!("starts as {}", pid.0));
                (machine, born, state.seed)
            })
        });
        let Some((machine, born, seed)) = entry else { return };
        let seat = Seat { world: self.world.clone(), pid, machine };
        CURRENT.set(Some(pid));
        let running = Running::new(mix(seed, &format!("runtime/{}", pid.0)), seat.host(), program, born);
        CURRENT.set(None);
        // Nothing of the real machine is asked for but memory.
        let running = running.expect("a runtime without IO can always be made");
        self.running.insert(pid, running);
    }

    /// The run's time.
    pub fn now(&self) -> Duration {
        self.world.with(|state| state.now)
    }

    /// One tick: what is due arrives, every process takes its step, and what was asked for in it is done.
    pub fn step(&mut self) {
        let clocks = self.world.with(|state| {
            state.now += TICK;
            interpose::set_now(state.now.as_nanos() as u64);
            state.deliver_due();
            let alive = state.processes.iter().filter(|(_, entry)| entry.state == ProcessState::Running);
            alive.map(|(pid, entry)| (*pid, state.machine(entry.machine).monotonic(state.now))).collect::<Vec<_>>()
        });
        for (pid, shown) in clocks {
            let jump = self.jumps.remove(&pid).unwrap_or_default();
            let Some(running) = self.running.get_mut(&pid) else { continue };
            CURRENT.set(Some(pid));
            running.step(shown, jump);
            if let Some(code) = running.ended() {
                self.world.with(|state| {
                    let entry = state.processes.get_mut(&pid);
                    // One that was told to die in this very step dies by that.
                    if let Some(entry) = entry.filter(|entry| entry.state.is_alive()) {
                        entry.state = ProcessState::Dying(ExitStatus::Code(code));
                    }
                });
            }
            CURRENT.set(None);
        }
        self.do_requests();
        self.reap();
    }

    fn do_requests(&mut self) {
        for request in self.world.with(|state| std::mem::take(&mut state.requests)) {
            match request {
                Request::Start(pid, program) => self.begin(pid, &program),
                Request::Signal(pid, Signal::Kill) => self.kill(pid),
                Request::Signal(pid, Signal::Stop) => self.freeze(pid),
                Request::Signal(pid, Signal::Continue) => self.thaw(pid),
                Request::Signal(pid, Signal::Terminate) => {
                    if let Some(running) = self.running.get(&pid) {
                        running.terminate();
                    }
                }
            }
        }
    }

    /// Ends what is dying: its runtime first (nothing it drops has an effect), then its sockets, then its name.
    fn reap(&mut self) {
        let dying = self.world.with(|state| {
            let dying = state.processes.iter().filter(|(_, entry)| matches!(entry.state, ProcessState::Dying(_)));
            dying.map(|(pid, _)| *pid).collect::<Vec<_>>()
        });
        for pid in dying {
            self.bury(pid, false);
        }
    }

    fn bury(&mut self, pid: Pid, silent: bool) {
        CURRENT.set(Some(pid));
        drop(self.running.remove(&pid));
        CURRENT.set(None);
        self.jumps.remove(&pid);
        self.world.with(|state| {
            net::process_ended(state, pid, silent);
            let Some(entry) = state.processes.get_mut(&pid) else { return };
            if let ProcessState::Dying(status) = entry.state {
                entry.state = ProcessState::Ended(status);
                let waiting = std::mem::take(&mut entry.waiting);
                state.wakes.extend(waiting);
                state.note(pid, &format!("ended: {status:?}"));
            }
        });
    }

    /// SIGKILL, between two of its steps.
    pub fn kill(&mut self, pid: Pid) {
        self.doom(pid);
        self.reap();
    }

    fn doom(&mut self, pid: Pid) {
        self.world.with(|state| {
            if let Some(entry) = state.processes.get_mut(&pid).filter(|entry| entry.state.is_alive()) {
                entry.state = ProcessState::Dying(ExitStatus::Signal(SIGKILL));
            }
        });
    }

    /// SIGKILL at the `nth` disk operation from now (1: the next), before that one takes effect.
    pub fn kill_at_op(&mut self, pid: Pid, nth: u64) {
        self.world.with(|state| {
            if let Some(entry) = state.processes.get_mut(&pid) {
                entry.kill_at_op = Some(entry.disk_ops + nth.max(1));
            }
        });
    }

    /// SIGSTOP.
    pub fn freeze(&mut self, pid: Pid) {
        self.world.with(|state| {
            let now = state.now;
            if let Some(entry) = state.processes.get_mut(&pid).filter(|entry| entry.state == ProcessState::Running) {
                entry.state = ProcessState::Frozen(now);
                state.note(pid, "frozen");
            }
        });
    }

    /// It gets on no more, and nobody stopped it: it takes no step, and the process table calls it asleep.
    pub fn hang(&mut self, pid: Pid) {
        self.freeze(pid);
        self.world.with(|state| {
            if let Some(entry) = state.processes.get_mut(&pid) {
                entry.hung = matches!(entry.state, ProcessState::Frozen(_));
            }
        });
    }

    /// SIGCONT: the time it missed passes for it at once.
    pub fn thaw(&mut self, pid: Pid) {
        let missed = self.world.with(|state| {
            let now = state.now;
            let entry = state.processes.get_mut(&pid)?;
            let ProcessState::Frozen(since) = entry.state else { return None };
            entry.state = ProcessState::Running;
            entry.hung = false;
            state.note(pid, "thawed");
            Some(now.saturating_sub(since))
        });
        if let Some(missed) = missed {
            *self.jumps.entry(pid).or_default() += missed;
        }
    }

    /// Power is gone: processes end without a word, and what was not synced is lost as the seed has it.
    pub fn power_off(&mut self, machine: MachineId) {
        let victims: Vec<Pid> = self.world.with(|state| {
            state.machines[machine.0].powered = false;
            state.note_machine(machine, "loses power");
            let there = state.processes.iter().filter(|(_, entry)| entry.machine == machine && entry.state.is_alive());
            there.map(|(pid, _)| *pid).collect()
        });
        for pid in victims {
            self.doom(pid);
            self.bury(pid, true);
        }
        self.file_system(machine).power_loss();
    }

    /// Power is back: an empty process table, a new boot.
    pub fn power_on(&mut self, machine: MachineId) {
        self.world.with(|state| {
            let there = &mut state.machines[machine.0];
            if !there.powered {
                there.powered = true;
                there.boots += 1;
                state.note_machine(machine, "has power again");
            }
        });
    }

    /// Whether a machine has power.
    pub fn is_powered(&self, machine: MachineId) -> bool {
        self.world.with(|state| state.machine(machine).powered)
    }

    /// Cuts the link from one machine to another, in this direction only.
    pub fn cut(&mut self, from: MachineId, to: MachineId) {
        self.world.with(|state| state.net.links.cut(from, to));
    }

    /// Cuts what goes from one machine to another in streams that were opened to this port, of either of them.
    pub fn cut_port(&mut self, from: MachineId, to: MachineId, port: u16) {
        self.world.with(|state| state.net.links.cut_port(from, to, port));
    }

    /// Takes that back; what waited for it goes on.
    pub fn mend_port(&mut self, from: MachineId, to: MachineId, port: u16) {
        self.world.with(|state| {
            state.net.links.mend_port(from, to, port);
            state.after(TICK, Delivery::Retransmit { from, to });
        });
    }

    /// Makes a link what it was, cut or slow; what waited for it goes on.
    pub fn mend_link(&mut self, from: MachineId, to: MachineId) {
        self.world.with(|state| {
            state.net.links.mend(from, to);
            state.after(TICK, Delivery::Retransmit { from, to });
        });
    }

    /// Sets how a link treats what it carries.
    pub fn set_link(&mut self, from: MachineId, to: MachineId, options: LinkOptions) {
        self.world.with(|state| state.net.links.set(from, to, options));
    }

    /// Moves a machine's wall clock by so many milliseconds.
    pub fn jump_clock(&mut self, machine: MachineId, by_ms: i64) {
        self.world.with(|state| state.machines[machine.0].clock_offset_ms += by_ms);
    }

    /// Puts a machine's wall clock back, as a time service does: whether it had been moved.
    pub fn right_clock(&mut self, machine: MachineId) -> bool {
        self.world.with(|state| std::mem::take(&mut state.machines[machine.0].clock_offset_ms) != 0)
    }

    /// Sets how much of a machine's memory is left, as it says; `None`: as usual.
    pub fn set_memory_left(&mut self, machine: MachineId, permille: Option<u64>) {
        let left = permille.unwrap_or(crate::machine::MEMORY_LEFT_PERMILLE);
        self.world.with(|state| state.machines[machine.0].memory_left_permille = left);
    }

    /// Lets a machine's clocks run fast (or slow, when negative) by parts per million.
    pub fn set_rate(&mut self, machine: MachineId, ppm: i64) {
        self.world.with(|state| {
            let now = state.now;
            state.machines[machine.0].set_rate(now, ppm);
        });
    }

    /// A machine's file system.
    pub fn file_system(&self, machine: MachineId) -> FileSystem {
        self.world.with(|state| state.machine(machine).files.clone())
    }

    /// A machine's name.
    pub fn machine_name(&self, machine: MachineId) -> String {
        self.world.with(|state| state.machine(machine).name.clone())
    }

    /// The process table, dead ones included, oldest first.
    pub fn processes(&self) -> Vec<ProcessInfo> {
        let info = |(pid, entry): (&Pid, &Entry)| ProcessInfo {
            pid: *pid,
            machine: entry.machine,
            role: entry.role.clone(),
            state: entry.state,
            parent: entry.parent,
            disk_ops: entry.disk_ops,
        };
        self.world.with(|state| state.processes.iter().map(info).collect())
    }

    /// The living process of a role on a machine: the youngest, should there be several.
    pub fn find(&self, machine: MachineId, role: &str) -> Option<Pid> {
        self.world.with(|state| {
            let mut alive = state.processes.iter().rev().filter(|(_, entry)| entry.state.is_alive());
            let found = alive.find(|(_, entry)| entry.machine == machine && entry.role == role);
            found.map(|(pid, _)| *pid)
        })
    }

    /// Machine name and role of a process.
    pub fn who(&self, pid: Pid) -> Option<(String, String)> {
        self.world.with(|state| {
            let entry = state.processes.get(&pid)?;
            Some((state.machine(entry.machine).name.clone(), entry.role.clone()))
        })
    }

    /// The generator of the harness.
    pub fn rng(&mut self) -> &mut SimRng {
        &mut self.rng
    }

    /// A line of the trace by the harness.
    pub fn note(&self, who: &str, what: &str) {
        self.world.with(|state| {
            let now = state.now;
            state.trace.add(now, who, what);
        });
    }

    /// Works on the trace.
    pub fn trace<T>(&self, work: impl FnOnce(&mut Trace) -> T) -> T {
        self.world.with(|state| work(&mut state.trace))
    }

    /// A host of its own on a machine, for a harness that looks at files with the product's own code. It belongs to no
    /// process that could be killed.
    pub fn observer(&mut self, machine: MachineId) -> Host {
        let pid = self.world.with(|state| state.enroll(machine, "observer", None));
        Seat { world: self.world.clone(), pid, machine }.host()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let all: Vec<Pid> = self.running.keys().copied().collect();
        for pid in all {
            self.doom(pid);
            self.bury(pid, true);
        }
    }
}
