//! The stage of a run: kernel, cluster, checker and plan, moved on tick by tick.
//!
//! Owns: the order within a tick: programs take their steps, what they stated is judged, then faults happen.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use resilver_host::audit::Fact;
use resilver_sim_check::{Checker, Event, Happening, Limits, Stamped, Violation};
use resilver_sim_kernel::{Kernel, MachineId, Pid, TICK};

use super::HarnessError;
use super::errands::Errands;
use super::inject::{Field, Injector};
use super::places::Places;
use super::shelf::Shelf;
use super::tap::Tap;
use super::treated::{self, Chart};
use super::unharmed::Struck;
use super::views::Views;
use crate::cluster::Cluster;
use crate::outcome::{Coverage, Failure, Outcome};
use crate::plan::{self, DISKS, MACHINES, Plan, VOTERS};
use crate::scenario::{Scenario, Treatment};
use crate::workload::Notes;

/// Starts of a node count together within this: the budget's window (30 min) in the profile `fast` (a 60th).
const STARTS_WINDOW: Duration = Duration::from_secs(30);

/// How long a cluster that was founded may take until three of its members vote.
const VOTERS_DEADLINE: Duration = Duration::from_secs(10);

/// Everything of one run.
pub(crate) struct Stage {
    pub(crate) kernel: Kernel,
    pub(crate) cluster: Cluster,
    pub(crate) places: Places,
    pub(crate) notes: Notes,
    pub(crate) coverage: Coverage,
    pub(crate) errands: Errands,
    views: Views,
    chart: Chart,
    tap: Tap,
    checker: Checker,
    injector: Injector,
    shelf: Shelf,
    /// Faults keep within what redundancy bears.
    bounded: bool,
}

impl Stage {
    /// A founded cluster.
    pub(crate) fn new(
        seed: u64,
        plan: &Plan,
        scenario: &Scenario,
        trace: Option<Box<dyn Write + Send>>,
    ) -> Result<Stage, HarnessError> {
        let mut kernel = Kernel::new(seed);
        if let Some(trace) = trace {
            kernel.trace(|kept| kept.send_to(trace));
        }
        kernel.note("plan", &plan.to_string());
        let mut tap = Tap::new();
        let cluster = Cluster::boot(&mut kernel, MACHINES, DISKS, scenario.agents.watching())?;
        let (mut views, mut coverage) = (Views::default(), Coverage::default());
        let mut checker = Checker::new(&Limits { starts_window: STARTS_WINDOW, ..Limits::default() });
        // What happened while it was founded comes at once, all of it with the present time.
        let mut events = tap.drain(&kernel);
        views.take(&events, &mut coverage);
        // Which machines vote, a plan has to know: the last of them may still be catching up.
        let late = kernel.now() + VOTERS_DEADLINE;
        while views.voters().len() < VOTERS && kernel.now() < late {
            kernel.step();
            let more = tap.drain(&kernel);
            views.take(&more, &mut coverage);
            events.extend(more);
        }
        let notes = Notes::new();
        let places = Places::of(&kernel, &cluster, &views.voters());
        let injector = Injector::new(&kernel, &cluster, &Plan { events: Vec::new(), ..plan.clone() });
        let mut chart = Chart::default();
        chart.take(&events);
        for event in &events {
            // A rule broken before any fault is a finding like any other, reported with the first tick.
            if let Err(violation) = checker.observe(event) {
                kernel.note("founding", &violation.to_string());
            }
        }
        coverage = Coverage::default();
        let (shelf, bounded) = (Shelf::default(), scenario.bounds.must_heal());
        let errands = Errands::default();
        Ok(Stage {
            kernel,
            cluster,
            places,
            notes,
            coverage,
            errands,
            views,
            chart,
            tap,
            checker,
            injector,
            shelf,
            bounded,
        })
    }

    /// The plan's time begins.
    pub(crate) fn begin_plan(&mut self, plan: &Plan) {
        self.kernel.note("phase", "safety");
        self.injector = Injector::new(&self.kernel, &self.cluster, plan);
    }

    /// The machines that the plan strikes, and whether one of them leads now.
    pub(super) fn struck(&self, plan: &Plan) -> Struck {
        let places = plan.events.iter().filter_map(plan::Event::machine);
        let machines: BTreeSet<String> = places.map(|place| format!("n{}", self.places.number(place))).collect();
        let leader = self.views.leader().is_some_and(|leader| machines.contains(leader));
        Struck { machines, leader }
    }

    /// One tick.
    pub(crate) fn step(&mut self) -> Result<(), Failure> {
        self.notes.set_now(self.kernel.now() + TICK);
        self.kernel.step();
        let events = self.tap.drain(&self.kernel);
        self.views.take(&events, &mut self.coverage);
        self.chart.take(&events);
        for (who, what) in &self.views.notes {
            self.kernel.note(who, what);
        }
        for (who, what) in self.notes.take_lines().into_iter().chain(self.errands.take_lines()) {
            self.kernel.note(&who, &what);
        }
        if let Some((pid, what)) = self.tap.panics().into_iter().next() {
            let who = pid.and_then(|pid| self.kernel.who(pid));
            let who = who.map_or_else(String::new, |(machine, role)| format!("{machine}/{role}: "));
            return Err(self.failure("no_panic", format!("{who}{what}")));
        }
        for event in &events {
            match event {
                Event::Fact(Stamped { fact: Fact::ObjectCompleted { version, extents }, .. }) => {
                    self.shelf.composed(version, extents);
                }
                Event::Fact(Stamped { fact: Fact::DisksGivenUp { revision, disks }, .. }) => {
                    let disks = disks.iter().filter_map(|(node, path)| Some((self.named(node)?, path.into())));
                    self.shelf.given_up(*revision, disks.collect());
                }
                _ => {}
            }
            self.judge(event)?;
            self.shards_durable(event)?;
        }
        let happened = self.inject(Injector::tick);
        for what in &happened {
            if let Happening::Rotted { machine, path } = what
                && let Some(machine) = self.named(machine)
            {
                self.shelf.rotted(machine, std::path::Path::new(path));
            }
            if let Happening::PowerLost { machine } | Happening::Wiped { machine, .. } = what {
                self.forget(machine);
            }
        }
        self.tell(happened)?;
        let removed = self.shelf.look(&self.kernel, &self.cluster);
        self.tell(removed)?;
        self.enough_shards()
    }

    /// What a node says that it keeps, its machine keeps.
    fn shards_durable(&mut self, event: &Event) -> Result<(), Failure> {
        let Event::Fact(Stamped { machine, fact: Fact::ShardKept { path }, .. }) = event else { return Ok(()) };
        let Some(on) = self.named(machine) else { return Ok(()) };
        match self.kernel.file_system(on).outlasts_power_loss(std::path::Path::new(path)) {
            Some(false) => self.tell(vec![Happening::NotDurable { machine: machine.clone(), path: path.clone() }]),
            _ => Ok(()),
        }
    }

    /// Within what redundancy bears, what was promised can be read from its shards at any time.
    fn enough_shards(&mut self) -> Result<(), Failure> {
        if !self.bounded || !self.shelf.is_fresh(self.kernel.now()) {
            return Ok(());
        }
        match self.shelf.thin(&self.notes.settled()) {
            Some((extent, shards)) => {
                Err(self.failure("enough_shards", format!("extent {extent} has {shards} good shards left")))
            }
            None => Ok(()),
        }
    }

    fn forget(&mut self, name: &str) {
        if let Some(machine) = self.named(name) {
            self.shelf.forget(machine);
        }
    }

    fn named(&self, name: &str) -> Option<MachineId> {
        self.cluster.machines().iter().copied().find(|machine| self.kernel.machine_name(*machine) == name)
    }

    /// So many ticks.
    pub(crate) fn steps(&mut self, time: Duration) -> Result<(), Failure> {
        let until = self.kernel.now() + time;
        while self.kernel.now() < until {
            self.step()?;
        }
        Ok(())
    }

    fn inject(&mut self, work: impl FnOnce(&mut Injector, &mut Field<'_>) -> Vec<Happening>) -> Vec<Happening> {
        let mut field = Field {
            kernel: &mut self.kernel,
            cluster: &self.cluster,
            places: &self.places,
            views: &self.views,
            coverage: &mut self.coverage,
            errands: &self.errands,
            notes: &self.notes,
        };
        work(&mut self.injector, &mut field)
    }

    /// Ends all faults.
    pub(crate) fn mend(&mut self) -> Result<(), Failure> {
        let mut happened = self.inject(Injector::mend_all);
        self.cluster.machines().to_vec().into_iter().for_each(|machine| self.shelf.forget(machine));
        happened.push(Happening::FaultsOff);
        self.tell(happened)
    }

    /// Tells the checker what the harness did.
    pub(crate) fn tell(&mut self, happened: Vec<Happening>) -> Result<(), Failure> {
        let at = self.kernel.now();
        happened.into_iter().try_for_each(|what| self.judge(&Event::Kernel { at, what }))
    }

    fn judge(&mut self, event: &Event) -> Result<(), Failure> {
        self.checker.observe(event).map_err(|violation| failure_of(&violation))
    }

    /// SIGTERM is not theirs to get: clients are told to stop, and end with their last answer.
    pub(crate) fn end_clients(&mut self, clients: &[Pid], bound: Duration) -> Result<(), Failure> {
        self.notes.stop();
        let until = self.kernel.now() + bound;
        let alive = |kernel: &Kernel| {
            kernel.processes().iter().any(|process| clients.contains(&process.pid) && process.state.is_alive())
        };
        while alive(&self.kernel) && self.kernel.now() < until {
            self.step()?;
        }
        for pid in clients {
            self.kernel.kill(*pid);
        }
        Ok(())
    }

    /// What agents did not do, or should not have done, about what the plan made fail.
    pub(super) fn untreated(&mut self, table: &[Treatment]) -> Option<String> {
        treated::untreated(table, self.injector.struck(), &self.chart, &mut self.coverage)
    }

    /// What is judged at the end.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        self.checker.finish().map_err(|violation| failure_of(&violation))?;
        self.notes.judge().map_err(|(rule, detail)| self.failure(&rule, detail))
    }

    /// A failure that the harness itself finds.
    pub(crate) fn failure(&self, invariant: &str, detail: String) -> Failure {
        Failure { invariant: invariant.to_owned(), at_ms: self.kernel.now().as_millis() as u64, detail }
    }

    /// All there is to say.
    pub(crate) fn outcome(mut self, plan: Plan, failure: Option<Failure>) -> Outcome {
        self.notes.counts().into_iter().for_each(|(what, count)| self.coverage.add(&format!("client.{what}"), count));
        self.errands.counts().into_iter().for_each(|(what, count)| self.coverage.add(&what, count));
        let (trace_hash, trace_lines, last) = self
            .kernel
            .trace(|trace| (trace.hash(), trace.lines(), trace.last().map(str::to_owned).collect::<Vec<_>>()));
        let simulated_ms = self.kernel.now().as_millis() as u64;
        Outcome { plan, failure, trace_hash, trace_lines, simulated_ms, coverage: self.coverage, last }
    }
}

fn failure_of(violation: &Violation) -> Failure {
    Failure {
        invariant: violation.rule.to_owned(),
        at_ms: violation.at.as_millis() as u64,
        detail: violation.what.clone(),
    }
}
