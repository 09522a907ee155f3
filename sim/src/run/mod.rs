//! One seed, from an empty world to a verdict.
//!
//! Owns: the phases and their bounds.
//!
//! 1. **Founding**: the cluster comes up and a bucket is made. No fault is on.
//! 2. **Safety**: clients work, the plan's faults happen; every rule is checked with every event.
//! 3. **Liveness**: everything is mended; within [`LIVENESS_BOUND`] all must be well (see [`survey`]).
//! 4. **Reading back**: every key is read; then the oracle and the rules that judge a whole run speak.
//!
//! Must never: let a run depend on anything but seed, scenario, kept events and planted bug. The real clock is not asked.

mod active;
mod aim;
mod devices;
mod errands;
pub(crate) mod inject;
mod links;
mod overdone;
mod people;
mod places;
mod shelf;
mod stage;
mod survey;
mod tap;
mod treated;
mod unharmed;
mod views;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resilver_host::planted;
use resilver_sim_check::Happening;
use resilver_sim_kernel::ProcessState;

use self::stage::Stage;
use self::survey::{Board, Spared};
use crate::outcome::{Failure, Outcome};
use crate::plan::{self, Plan};
use crate::scenario::{Agents, Clients, OnCall, Scenario};
use crate::workload::{self, Load};

/// Within which, from the last fault on, all must be well: a scrub pass (20 s) finds what rotted, budgets of the agents
/// (30 s in the profile `fast`) run out and are full again, and what was rebuilt is verified.
const LIVENESS_BOUND: Duration = Duration::from_secs(120);
/// How long a cluster with more damage than redundancy gets to calm down before it is read.
const AFTERMATH: Duration = Duration::from_secs(15);
/// How long reading everything back may take: some 30 reads with a deadline of 5 s each, most of them quick.
const READ_BACK_BOUND: Duration = Duration::from_secs(200);
/// How long clients may take to end: one attempt and its deadline.
const CLIENTS_END_BOUND: Duration = Duration::from_secs(8);

/// What to run.
pub(crate) struct Options {
    /// The seed.
    pub(crate) seed: u64,
    /// The scenario.
    pub(crate) scenario: &'static Scenario,
    /// Keep these events of the plan only.
    pub(crate) only: Option<BTreeSet<u32>>,
    /// The bug to plant.
    pub(crate) plant: Option<planted::Bug>,
    /// Where each line of the trace goes.
    pub(crate) trace: Option<Box<dyn Write + Send>>,
}

/// Why a seed could not be run at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HarnessError {
    /// No cluster, before any fault.
    #[error(transparent)]
    Boot(#[from] crate::cluster::BootError),
}

/// Runs one seed. Call it once in the life of a process: it takes over the process's clock and randomness.
///
/// # Errors
/// When there is nothing to judge.
pub(crate) fn run(options: Options) -> Result<Outcome, HarnessError> {
    planted::plant(options.plant);
    let mut plan = plan::draw(options.seed, options.scenario);
    if let Some(only) = &options.only {
        plan = plan.only(only);
    }
    let mut stage = Stage::new(options.seed, &plan, options.scenario, options.trace)?;
    let failure = phases(&mut stage, &plan, options.scenario).err();
    if let Some(failure) = &failure {
        stage.kernel.note("verdict", &format!("{}: {}", failure.invariant, failure.detail));
    }
    Ok(stage.outcome(plan, failure))
}

fn phases(stage: &mut Stage, plan: &Plan, scenario: &Scenario) -> Result<(), Failure> {
    let struck = stage.struck(plan);
    let person = Person::new(scenario.on_call);
    let load = if matches!(scenario.agents, Agents::Treat(_)) { Load::Leisurely } else { Load::Full };
    safety(stage, plan, &person, load)?;
    let harm = match scenario.clients {
        Clients::MayWait => None,
        Clients::Unharmed => unharmed::harmed(&stage.notes.answered(), plan, &struck),
        Clients::Served => unharmed::unserved(&stage.notes.answered()),
    };
    if let Some(detail) = harm {
        return Err(stage.failure("clients_unharmed", detail));
    }
    if scenario.bounds.must_heal() {
        liveness(stage, plan, &person)?;
        if let Some(detail) = overdone::overdone(scenario.agents, &stage.coverage) {
            return Err(stage.failure("nothing_overdone", detail));
        }
        // Of a plan that was shrunk to nothing nothing can be said.
        if let Agents::Treat(table) = scenario.agents
            && !plan.events.is_empty()
            && let Some(detail) = stage.untreated(table)
        {
            return Err(stage.failure("treated", detail));
        }
        read_back(stage, true)?;
    } else {
        stage.mend()?;
        stage.steps(AFTERMATH)?;
        read_back(stage, false)?;
    }
    stage.finish()
}

/// The person on call, and how many members he brought back.
struct Person {
    on_call: OnCall,
    rejoined: Arc<AtomicU64>,
}

impl Person {
    fn new(on_call: OnCall) -> Self {
        Self { on_call, rejoined: Arc::new(AtomicU64::new(0)) }
    }

    fn comes(&self, stage: &mut Stage) -> resilver_sim_kernel::Pid {
        stage.kernel.start(stage.cluster.client(), "person", &people::on_call(self.rejoined.clone()))
    }
}

fn safety(stage: &mut Stage, plan: &Plan, person: &Person, load: Load) -> Result<(), Failure> {
    if !plan.events.is_empty() {
        stage.tell(vec![Happening::FaultsOn])?;
    }
    let clients: Vec<_> = (0..workload::CLIENTS)
        .map(|number| {
            let program = workload::write(plan.seed, number, load, stage.notes.clone());
            stage.kernel.start(stage.cluster.client(), &format!("client{number}"), &program)
        })
        .collect();
    stage.begin_plan(plan);
    let person = (person.on_call == OnCall::Throughout).then(|| person.comes(stage));
    stage.steps(Duration::from_millis(plan.safety_ms))?;
    if let Some(person) = person {
        stage.kernel.kill(person);
    }
    stage.kernel.note("phase", "clients end");
    stage.end_clients(&clients, CLIENTS_END_BOUND)
}

/// Until all is well.
fn liveness(stage: &mut Stage, plan: &Plan, on_call: &Person) -> Result<(), Failure> {
    stage.mend()?;
    let began = stage.kernel.now();
    let struck = plan.disk_victims().iter().map(|(place, _)| stage.places.number(*place)).collect();
    let spared = Spared { struck, errands: stage.errands.clone() };
    let board = Board::default();
    let program = survey::survey(spared, board.clone());
    stage.kernel.note("phase", "liveness");
    stage.kernel.start(stage.cluster.client(), "survey", &program);
    let person = on_call.comes(stage);
    while !board.report().well {
        stage.step()?;
        if stage.kernel.now() > began + LIVENESS_BOUND {
            let waits_for = board.report().waits_for;
            let detail = format!("not well {} s after the last fault: {waits_for}", LIVENESS_BOUND.as_secs());
            return Err(stage.failure("heals", detail));
        }
    }
    stage.kernel.kill(person);
    let report = board.report();
    let took = stage.kernel.now().saturating_sub(began);
    stage.kernel.note("phase", &format!("all well after {} ms, {} looks", took.as_millis(), report.looks));
    stage.coverage.add("liveness_ms", took.as_millis() as u64);
    stage.coverage.add("objects_verified", report.verified);
    stage.coverage.add("rejoined", on_call.rejoined.load(Ordering::Relaxed));
    Ok(())
}

/// Reads everything back. `must_answer`: a refusal is the loss of an object.
fn read_back(stage: &mut Stage, must_answer: bool) -> Result<(), Failure> {
    stage.kernel.note("phase", "reading back");
    let program = workload::read_back(must_answer, stage.notes.clone());
    let reader = stage.kernel.start(stage.cluster.client(), "reader", &program);
    let until = stage.kernel.now() + READ_BACK_BOUND;
    loop {
        stage.step()?;
        let state = stage.kernel.processes().into_iter().find(|process| process.pid == reader).map(|found| found.state);
        match state {
            Some(ProcessState::Ended(_)) => return Ok(()),
            _ if stage.kernel.now() > until => {
                return Err(stage.failure("readable", "reading back took too long".to_owned()));
            }
            _ => {}
        }
    }
}
