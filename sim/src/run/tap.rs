//! Listens to what happens: facts that programs state, processes that come and go, panics.
//!
//! Owns: the order in which the checker is told. Within one tick: processes that began, then facts in the order they were
//! stated, then processes that ended, froze or went on. A process cannot state a fact before it began or after it ended.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use resilver_host::audit::{self, Fact};
use resilver_sim_check::{Event, Happening, Stamped};
use resilver_sim_kernel::{Kernel, Pid, ProcessState};

thread_local! {
    /// What panicked, as the hook saw it: process and message.
    static PANICS: RefCell<Vec<(Option<Pid>, String)>> = const { RefCell::new(Vec::new()) };
}

/// Machine and role of a process, and what it last was.
struct Known {
    machine: String,
    role: String,
    state: Shown,
}

/// A process's state, as far as the checker cares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Running,
    Frozen,
    Ended,
}

/// The listener of a run.
pub(crate) struct Tap {
    facts: Rc<RefCell<Vec<(Pid, Fact)>>>,
    known: BTreeMap<Pid, Known>,
}

impl Tap {
    /// Listens from now on. Panics of simulated processes are kept instead of printed.
    pub(crate) fn new() -> Tap {
        let facts: Rc<RefCell<Vec<(Pid, Fact)>>> = Rc::default();
        let sink = facts.clone();
        audit::listen(Box::new(move |fact| {
            // A fact outside of a process's step is a harness's look at files with the product's code.
            if let Some(pid) = Kernel::current() {
                sink.borrow_mut().push((pid, fact));
            }
        }));
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| match Kernel::current() {
            Some(pid) => PANICS.with_borrow_mut(|panics| panics.push((Some(pid), info.to_string()))),
            None => before(info),
        }));
        Tap { facts, known: BTreeMap::new() }
    }

    /// What panicked since the last look.
    pub(crate) fn panics(&self) -> Vec<(Option<Pid>, String)> {
        PANICS.take()
    }

    /// All that happened in the tick that is over.
    pub(crate) fn drain(&mut self, kernel: &Kernel) -> Vec<Event> {
        let at = kernel.now();
        let mut events = Vec::new();
        let mut later = Vec::new();
        for process in kernel.processes() {
            let shown = match process.state {
                ProcessState::Running => Shown::Running,
                ProcessState::Frozen(_) => Shown::Frozen,
                ProcessState::Dying(_) | ProcessState::Ended(_) => Shown::Ended,
            };
            let pid = process.pid.0;
            let known = self.known.entry(process.pid).or_insert_with(|| {
                let (machine, role) = (kernel.machine_name(process.machine), process.role.clone());
                let what = Happening::ProcessStarted { machine: machine.clone(), role: role.clone(), pid };
                events.push(Event::Kernel { at, what });
                Known { machine, role, state: Shown::Running }
            });
            if known.state == shown {
                continue;
            }
            known.state = shown;
            let (machine, role) = (known.machine.clone(), known.role.clone());
            let what = match shown {
                Shown::Running => Happening::Thawed { machine, pid },
                Shown::Frozen => Happening::Frozen { machine, pid },
                Shown::Ended => Happening::ProcessEnded { machine, role, pid },
            };
            later.push(Event::Kernel { at, what });
        }
        for (pid, fact) in self.facts.take() {
            let Some(known) = self.known.get(&pid) else { continue };
            let (machine, role) = (known.machine.clone(), known.role.clone());
            events.push(Event::Fact(Stamped { at, machine, role, pid: pid.0, fact }));
        }
        events.append(&mut later);
        events
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        audit::unlisten();
    }
}
