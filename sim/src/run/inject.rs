//! Makes a plan's events happen when their time comes, and ends them.
//!
//! Owns: the plan's progress, what is on now and how it is taken back, and who starts agents again (their init does, in
//! production). Must never: draw what happens; that is in the plan. What only a running cluster can decide (the bit that
//! flips, who leads) is drawn here from the kernel's generator.
//!
//! Invariant: a fault counts as taken effect only when it did. One without a target is counted as skipped.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use resilver_host::planted::damage;
use resilver_sim_check::Happening;
use resilver_sim_disk::{Damage, DeviceFault, Times};
use resilver_sim_kernel::{Kernel, MachineId, Pid};

use super::active::{Active, Flap, Struck, Undo};
use super::aim::{alive, folder, ill, machines, make_folder, processes, resolve};
use super::errands::{Errand, Errands};
use super::links::Links;
use super::places::Places;
use super::views::{Intent, Views};
use super::{devices, people};
use crate::cluster::{Cluster, NODE_PORT, node_name};
use crate::outcome::Coverage;
use crate::plan::{Ask, Cut, Event, Fault, Files, Plan, Role, Tampering, Target, VOTERS};
use crate::workload::Notes;

/// How long an init waits before it starts an agent again (systemd's RestartSec in deploy/).
const RESTART_WAIT: Duration = Duration::from_secs(1);
/// How often processes are looked after: none of what is waited for there is shorter.
const SUPERVISE_EVERY: Duration = Duration::from_millis(50);

/// Reads of shards that fail on a disk that wears out: enough to be met, and too few to be a disk that failed.
const UNREAD: u32 = 2;

/// A trap for the next agent that writes an intent.
struct Trap {
    nth_op: u64,
    after: Duration,
}

/// What the injector works on.
pub(crate) struct Field<'a> {
    pub(crate) kernel: &'a mut Kernel,
    pub(crate) cluster: &'a Cluster,
    pub(crate) places: &'a Places,
    pub(crate) views: &'a Views,
    pub(crate) coverage: &'a mut Coverage,
    pub(crate) errands: &'a Errands,
    pub(crate) notes: &'a Notes,
}

/// The plan under way.
pub(crate) struct Injector {
    began: Duration,
    todo: VecDeque<Event>,
    active: Vec<Active>,
    links: Links,
    trap: Option<Trap>,
    /// How long the next holder that grants a slot is cut off.
    grant_trap: Option<Duration>,
    /// Agents that will be killed, and when.
    condemned: Vec<(Duration, Pid)>,
    /// Processes told to die at a disk operation: counted when they did.
    at_op: Vec<Pid>,
    /// When the agent of a machine may run again.
    agent_due: BTreeMap<usize, Duration>,
    supervised: Duration,
    /// Folders that whoever puts a new disk in makes on it.
    wanted: BTreeMap<(MachineId, PathBuf), PathBuf>,
    /// How many pieces of a machine's damage were told of.
    damage_told: BTreeMap<MachineId, usize>,
    /// What took effect.
    struck: Vec<Struck>,
}

impl Injector {
    /// A plan that begins now.
    pub(crate) fn new(kernel: &Kernel, cluster: &Cluster, plan: &Plan) -> Injector {
        let mut machines = cluster.machines().to_vec();
        machines.push(cluster.client());
        Injector {
            began: kernel.now(),
            todo: plan.events.iter().cloned().collect(),
            active: Vec::new(),
            links: Links::new(machines),
            trap: None,
            grant_trap: None,
            condemned: Vec::new(),
            at_op: Vec::new(),
            agent_due: BTreeMap::new(),
            supervised: Duration::ZERO,
            wanted: BTreeMap::new(),
            damage_told: BTreeMap::new(),
            struck: Vec::new(),
        }
    }

    /// What took effect so far.
    pub(crate) fn struck(&self) -> &[Struck] {
        &self.struck
    }

    /// Does what is due after a tick; what that makes happen.
    pub(crate) fn tick(&mut self, field: &mut Field<'_>) -> Vec<Happening> {
        let now = field.kernel.now();
        let mut happened = Vec::new();
        while self.todo.front().is_some_and(|event| self.began + event.at() <= now) {
            if let Some(event) = self.todo.pop_front() {
                field.kernel.note("fault", &event.to_string());
                // Who leads is asked once: what is struck may change it.
                let machines = machines(field, &event);
                let done = self.begin(field, &event, &mut happened);
                if done {
                    let until = now + Duration::from_millis(event.for_ms);
                    self.struck.push(Struck { fault: event.fault, machines, from: now, until });
                }
                let name = event.fault.name();
                field.coverage.count(&if done { format!("fault.{name}") } else { format!("skipped.{name}") });
            }
        }
        for intent in &field.views.intents {
            self.spring(field.kernel, intent);
        }
        for machine in &field.views.grants {
            self.cut_off_in_grant(field, machine, &mut happened);
        }
        let due: Vec<Pid> = self.condemned.iter().filter(|(at, _)| *at <= now).map(|(_, pid)| *pid).collect();
        self.condemned.retain(|(at, _)| *at > now);
        for pid in due {
            field.kernel.kill(pid);
            field.coverage.count("fault.killed_in_recovery");
        }
        self.flap(field, now, &mut happened);
        self.end_due(field, now, &mut happened);
        self.supervise(field, now);
        self.report_damage(field, &mut happened);
        happened
    }

    /// Tells of damage when it is done: a misdirected write is done by the program that writes.
    fn report_damage(&mut self, field: &mut Field<'_>, happened: &mut Vec<Happening>) {
        for machine in field.cluster.machines() {
            let damage = field.kernel.file_system(*machine).damage();
            let told = self.damage_told.entry(*machine).or_default();
            for done in &damage[*told..] {
                let name = field.kernel.machine_name(*machine);
                field.kernel.note("fault", &format!("{name}: {done}"));
                field.coverage.count(match done {
                    Damage::Rot { .. } => "fault.bits_flipped",
                    Damage::Misdirected { .. } => "fault.writes_misdirected",
                });
                happened.extend(
                    done.files()
                        .map(|path| Happening::Rotted { machine: name.clone(), path: path.display().to_string() }),
                );
            }
            *told = damage.len();
        }
    }

    /// Ends everything that is on: the liveness phase begins. Nothing that was not begun by now will be.
    pub(crate) fn mend_all(&mut self, field: &mut Field<'_>) -> Vec<Happening> {
        self.todo.clear();
        self.condemned.clear();
        self.trap = None;
        self.grant_trap = None;
        damage::clear();
        for struck in &mut self.struck {
            struck.until = struck.until.min(field.kernel.now());
        }
        let mut happened = self.links.mend(field.kernel);
        for active in std::mem::take(&mut self.active) {
            self.undo(field, active.undo, &mut happened);
        }
        for machine in field.cluster.machines().iter().copied() {
            // An agent says that its clock is off for as long as it is.
            if field.kernel.right_clock(machine) {
                happened.push(Happening::ClockJumped { machine: field.kernel.machine_name(machine) });
            }
        }
        field.kernel.note("fault", "all mended");
        happened
    }

    fn begin(&mut self, field: &mut Field<'_>, event: &Event, happened: &mut Vec<Happening>) -> bool {
        let now = field.kernel.now();
        let until = now + Duration::from_millis(event.for_ms);
        if let Fault::KillInRecovery { nth_op, after_ms } = event.fault {
            self.trap = Some(Trap { nth_op, after: Duration::from_millis(after_ms) });
            self.active.push(Active { until, undo: Undo::Disarm, flap: None });
            return true;
        }
        if let Fault::IsolateInGrant { away_ms } = event.fault {
            self.grant_trap = Some(Duration::from_millis(away_ms));
            self.active.push(Active { until, undo: Undo::Disarm, flap: None });
            return true;
        }
        let Some(index) = resolve(field, event.target) else { return false };
        let machine = field.cluster.machine(index);
        let name = field.kernel.machine_name(machine);
        happened.push(Happening::Fault { what: format!("{} at {name}", event.fault) });
        match event.fault {
            Fault::Kill(role) => {
                let found = processes(field, index, role);
                if matches!(role, Role::Agent | Role::All) {
                    self.agent_due.insert(index, until.max(now + RESTART_WAIT));
                }
                found.iter().for_each(|pid| field.kernel.kill(*pid));
                !found.is_empty()
            }
            Fault::KillAtOp { role, nth } => {
                let found = processes(field, index, role);
                found.iter().for_each(|pid| field.kernel.kill_at_op(*pid, nth));
                self.at_op.extend(&found);
                !found.is_empty()
            }
            Fault::Freeze(role) => {
                let found = processes(field, index, role);
                found.iter().for_each(|pid| field.kernel.freeze(*pid));
                let any = !found.is_empty();
                self.active.push(Active { until, undo: Undo::Thaw(found), flap: None });
                any
            }
            Fault::Hang => {
                let found = processes(field, index, Role::Node);
                found.iter().for_each(|pid| field.kernel.hang(*pid));
                let any = !found.is_empty();
                self.active.push(Active { until, undo: Undo::Thaw(found), flap: None });
                any
            }
            Fault::Apart { other, cut } => {
                let other = field.cluster.machine(field.places.index(other));
                let (out, into) = ((machine, other), (other, machine));
                let pairs = match cut {
                    Cut::Outbound => vec![out],
                    Cut::Inbound => vec![into],
                    Cut::Both | Cut::Flapping { .. } => vec![out, into],
                };
                happened.extend(self.links.part(field.kernel, &pairs, true));
                self.active.push(Active { until, undo: Undo::Apart(pairs), flap: None });
                true
            }
            Fault::NodesApart { all } => {
                let machines: Vec<MachineId> = field.cluster.machines().to_vec();
                let pairs = machines.iter().flat_map(|from| machines.iter().map(|to| (*from, *to)));
                let struck =
                    |(from, to): &(MachineId, MachineId)| from != to && (all || [*from, *to].contains(&machine));
                let pairs: Vec<(MachineId, MachineId)> = pairs.filter(struck).collect();
                pairs.iter().for_each(|(from, to)| field.kernel.cut_port(*from, *to, NODE_PORT));
                self.active.push(Active { until, undo: Undo::NodesApart(pairs), flap: None });
                true
            }
            Fault::MemoryShort { left_permille } => {
                field.kernel.set_memory_left(machine, Some(left_permille));
                self.active.push(Active { until, undo: Undo::Memory(machine), flap: None });
                true
            }
            Fault::DiskWears { sectors, unread } => {
                let (Target::Disk { disk, .. }, Some(mount)) = (event.target, devices::mount(event.target)) else {
                    return false;
                };
                let system = field.kernel.file_system(machine);
                if unread {
                    let Some(shards) = devices::filter(&system, &mount, Files::Shards) else { return false };
                    system.fault(&mount, DeviceFault::read_error(shards, Times::Next(UNREAD)));
                }
                field.cluster.counters().show(&name, disk, sectors);
                self.active.push(Active { until, undo: Undo::Wear { machine, mount, disk }, flap: None });
                true
            }
            Fault::SlowApply { batch_ms } => {
                let Some(member) = field.views.member_on(&name) else { return false };
                damage::slow(member, Duration::from_millis(batch_ms));
                self.active.push(Active { until, undo: Undo::Slow(member), flap: None });
                true
            }
            Fault::Astray { every_ms } => {
                let Some(member) = field.views.member_on(&name) else { return false };
                damage::lead_astray(member, Some(Duration::from_millis(every_ms)));
                self.active.push(Active { until, undo: Undo::Astray(member), flap: None });
                true
            }
            Fault::Deluded => {
                let (Some(member), Some(term)) = (field.views.member_on(&name), field.views.term()) else {
                    return false;
                };
                damage::delude(member, Some(term));
                self.active.push(Active { until, undo: Undo::Astray(member), flap: None });
                true
            }
            Fault::Saturated { run_ms, wait_ms } => {
                let waiting = processes(field, index, Role::All);
                waiting.iter().for_each(|pid| field.kernel.freeze(*pid));
                let (run, wait) = (Duration::from_millis(run_ms), Duration::from_millis(wait_ms));
                let any = !waiting.is_empty();
                let flap = Some(Flap::begin(now, wait, run));
                self.active.push(Active { until, undo: Undo::Ease(index, waiting), flap });
                any
            }
            Fault::PowerOff => {
                if !field.kernel.is_powered(machine) {
                    return false;
                }
                field.kernel.power_off(machine);
                happened.push(Happening::PowerLost { machine: name });
                self.active.push(Active { until, undo: Undo::PowerOn(index), flap: None });
                true
            }
            Fault::Partition(_) | Fault::SlowLinks { .. } | Fault::LossyLinks { .. } => {
                happened.extend(self.links.set(field.kernel, machine, Some(ill(event.fault))));
                let flap = match event.fault {
                    Fault::Partition(Cut::Flapping { every_ms }) => {
                        let every = Duration::from_millis(every_ms);
                        Some(Flap::begin(now, every, every))
                    }
                    _ => None,
                };
                self.active.push(Active { until, undo: Undo::Links(machine), flap });
                true
            }
            Fault::OperatorRestart { through } => {
                let through = field.kernel.machine_name(field.cluster.machine(field.places.index(through)));
                field.kernel.start(field.cluster.client(), "operator", &people::restart_node(through, name));
                true
            }
            Fault::OperatorPause => {
                let length = Duration::from_millis(event.for_ms);
                field.kernel.start(field.cluster.client(), "operator", &people::pause(name, length));
                true
            }
            Fault::OperatorChanges => {
                let length = Duration::from_millis(event.for_ms);
                field.kernel.start(field.cluster.client(), "operator", &people::change_bucket(name, length));
                true
            }
            Fault::Quiet => {
                field.notes.be_quiet(Duration::from_millis(event.for_ms));
                true
            }
            Fault::Tampered { how, records, in_step } => {
                let Some(member) = field.views.member_on(&name) else { return false };
                let how = match how {
                    Tampering::Inserted => damage::Tampering::Inserted,
                    Tampering::Removed => damage::Tampering::Removed,
                    Tampering::Changed => damage::Tampering::Changed,
                };
                damage::wish(member, damage::Slip { how, records, in_step });
                true
            }
            Fault::Asked { ask, through } => {
                let mount = devices::mount(event.target).unwrap_or_default();
                let folder = folder(ask, &mount);
                if ask == (Ask::Replace { spare: false }) {
                    self.wanted.insert((machine, mount.clone()), folder.clone());
                    make_folder(field.kernel, machine, &mount, &folder);
                }
                let gone = match ask {
                    Ask::Recover { left } => (1..=VOTERS).filter(|place| *place != left).collect(),
                    _ => Vec::new(),
                };
                let gone = gone.into_iter().map(|place| node_name(field.places.index(place))).collect();
                let through = field.places.number(through);
                let errand = Errand { ask, node: name, mount, folder, gone, through };
                field.kernel.start(field.cluster.client(), "asks", &field.errands.send(errand));
                true
            }
            Fault::ClockJump { by_ms } => {
                field.kernel.jump_clock(machine, by_ms);
                happened.push(Happening::ClockJumped { machine: name });
                // Of those that only jump nobody puts the clock back before all is mended.
                if event.for_ms > 0 {
                    self.active.push(Active { until, undo: Undo::Clock(machine), flap: None });
                }
                true
            }
            Fault::ClockRate { ppm } => {
                field.kernel.set_rate(machine, ppm);
                self.active.push(Active { until, undo: Undo::Rate(machine), flap: None });
                true
            }
            Fault::BitRot { files, count } => {
                let Some(mount) = devices::mount(event.target) else { return false };
                let system = field.kernel.file_system(machine);
                let Some(filter) = devices::filter(&system, &mount, files) else { return false };
                devices::rot(field.kernel, machine, &mount, |path| filter.matches(path), count) > 0
            }
            Fault::RotOfObjects { count } => {
                let Some(mount) = devices::mount(event.target) else { return false };
                let there = field.notes.settled();
                let of_one = |path: &Path| devices::version_of(path).is_some_and(|version| there.contains(version));
                devices::rot(field.kernel, machine, &mount, of_one, count) > 0
            }
            Fault::Ruin(files) => {
                let Some(mount) = devices::mount(event.target) else { return false };
                devices::ruin(field.kernel, machine, &mount, files) > 0
            }
            Fault::MisdirectedWrite(files) => {
                let Some(mount) = devices::mount(event.target) else { return false };
                let system = field.kernel.file_system(machine);
                let Some(filter) = devices::filter(&system, &mount, files) else { return false };
                system.misdirect_next_write(&mount, filter);
                true
            }
            Fault::KillInRecovery { .. } | Fault::IsolateInGrant { .. } => false,
            lasting => {
                let (Some(mount), Some(fault)) = (devices::mount(event.target), devices::lasting(lasting)) else {
                    return false;
                };
                field.kernel.file_system(machine).fault(&mount, fault);
                let undo = Undo::Mend { machine, mount, wipe: lasting == Fault::DiskReplaced };
                self.active.push(Active { until, undo, flap: None });
                true
            }
        }
    }

    fn spring(&mut self, kernel: &mut Kernel, intent: &Intent) {
        let Some(trap) = self.trap.take() else { return };
        let pid = Pid(intent.pid);
        kernel.note("fault", &format!("the trap springs at {}", intent.machine));
        if trap.nth_op > 0 {
            kernel.kill_at_op(pid, trap.nth_op);
            self.at_op.push(pid);
        } else {
            self.condemned.push((kernel.now() + trap.after, pid));
        }
    }

    /// The order has left, and arrives nowhere before the cut is over.
    fn cut_off_in_grant(&mut self, field: &mut Field<'_>, name: &str, happened: &mut Vec<Happening>) {
        let named = |index: &usize| field.kernel.machine_name(field.cluster.machine(*index)) == name;
        let Some(index) = (0..field.cluster.machines().len()).find(named) else { return };
        let Some(away) = self.grant_trap.take() else { return };
        let machine = field.cluster.machine(index);
        field.kernel.note("fault", &format!("{name} is cut off in the moment of its grant"));
        field.coverage.count("fault.isolated_in_grant");
        happened.extend(self.links.set(field.kernel, machine, Some(ill(Fault::Partition(Cut::Both)))));
        let until = field.kernel.now() + away;
        self.active.push(Active { until, undo: Undo::Links(machine), flap: None });
    }

    fn flap(&mut self, field: &mut Field<'_>, now: Duration, happened: &mut Vec<Happening>) {
        for active in &mut self.active {
            let Some(on) = active.flap.as_mut().and_then(|flap| flap.turn(now)) else { continue };
            match &mut active.undo {
                Undo::Links(machine) => {
                    let cut = on.then(|| ill(Fault::Partition(Cut::Both)));
                    happened.extend(self.links.set(field.kernel, *machine, cut));
                }
                Undo::Ease(index, waiting) => {
                    waiting.drain(..).for_each(|pid| field.kernel.thaw(pid));
                    if on {
                        *waiting = processes(field, *index, Role::All);
                        waiting.iter().for_each(|pid| field.kernel.freeze(*pid));
                    }
                }
                _ => {}
            }
        }
    }

    fn end_due(&mut self, field: &mut Field<'_>, now: Duration, happened: &mut Vec<Happening>) {
        let mut at = 0;
        while at < self.active.len() {
            if self.active[at].until <= now {
                let ended = self.active.remove(at);
                self.undo(field, ended.undo, happened);
            } else {
                at += 1;
            }
        }
    }

    fn undo(&mut self, field: &mut Field<'_>, undo: Undo, happened: &mut Vec<Happening>) {
        let kernel = &mut *field.kernel;
        match undo {
            Undo::Thaw(pids) | Undo::Ease(_, pids) => pids.into_iter().for_each(|pid| kernel.thaw(pid)),
            Undo::Links(machine) => happened.extend(self.links.set(kernel, machine, None)),
            Undo::Apart(pairs) => happened.extend(self.links.part(kernel, &pairs, false)),
            Undo::NodesApart(pairs) => pairs.iter().for_each(|(from, to)| kernel.mend_port(*from, *to, NODE_PORT)),
            Undo::Memory(machine) => kernel.set_memory_left(machine, None),
            Undo::Wear { machine, mount, disk } => {
                kernel.file_system(machine).mend(&mount);
                field.cluster.counters().show(&kernel.machine_name(machine), disk, 0);
            }
            Undo::Slow(member) => damage::slow(member, Duration::ZERO),
            Undo::Astray(member) => {
                damage::lead_astray(member, None);
                damage::delude(member, None);
            }
            Undo::Clock(machine) => {
                if kernel.right_clock(machine) {
                    happened.push(Happening::ClockJumped { machine: kernel.machine_name(machine) });
                }
            }
            Undo::Mend { machine, mount, wipe } => {
                let system = kernel.file_system(machine);
                if wipe {
                    system.wipe(&mount);
                    if let Some(folder) = self.wanted.get(&(machine, mount.clone())) {
                        make_folder(kernel, machine, &mount, folder);
                    }
                    let (machine, path) = (kernel.machine_name(machine), mount.display().to_string());
                    happened.push(Happening::Wiped { machine, path });
                }
                system.mend(&mount);
            }
            Undo::PowerOn(index) => {
                let machine = field.cluster.machine(index);
                kernel.power_on(machine);
                self.agent_due.insert(index, kernel.now());
                happened.push(Happening::PowerBack { machine: kernel.machine_name(machine) });
            }
            Undo::Rate(machine) => kernel.set_rate(machine, 0),
            Undo::Disarm => {
                self.trap = None;
                self.grant_trap = None;
            }
        }
    }

    /// What an init does: an agent that ended is started again.
    fn supervise(&mut self, field: &mut Field<'_>, now: Duration) {
        if now < self.supervised + SUPERVISE_EVERY {
            return;
        }
        self.supervised = now;
        for index in 0..field.cluster.machines().len() {
            let machine = field.cluster.machine(index);
            if !field.kernel.is_powered(machine) || field.cluster.agent_pid(field.kernel, index).is_some() {
                continue;
            }
            let due = *self.agent_due.entry(index).or_insert(now + RESTART_WAIT);
            if due <= now {
                self.agent_due.remove(&index);
                field.cluster.start_agent(field.kernel, index);
                field.coverage.count("agents_started");
            }
        }
        let ended = |pid: &Pid| field.kernel.who(*pid).is_none() || !alive(field.kernel, *pid);
        let struck = self.at_op.iter().filter(|pid| ended(pid)).count();
        field.coverage.add("fault.killed_at_op", struck as u64);
        let kernel = &*field.kernel;
        self.at_op.retain(|pid| alive(kernel, *pid));
    }
}
