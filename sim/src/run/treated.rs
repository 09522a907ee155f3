//! The rule `treated`: agents find what was made to fail, in time and nothing else, do what its ladder says and no more, and it
//! is over in time once the fault is.
//!
//! Origin: issue 7, "Each mode in the simulator: 200 seeds, recovered within its bound or rightly refused".
//!
//! Owns: the chart, which is what agents' journals and gates said with their times, and its comparison with the scenario's table.
//! Must never: look at what agents think; only what is durable or took effect counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use resilver_host::audit::Fact;
use resilver_sim_check::{Event, Stamped};
use serde_json::Value;

use super::active::Struck;
use crate::outcome::Coverage;
use crate::plan::{Fault, MACHINES};
use crate::scenario::{FoundBy, Heals, Treatment};

/// A clock this far off is no holder's (`clock.give_up_ms`).
const FAR_MS: u64 = 500;
/// A lease that is not renewed ends after this (10 s, and a heartbeat until the agent knows).
const LEASE: Duration = Duration::from_secs(12);
/// Actions that say nothing without what they are done with.
const WITH: [&str; 3] = ["set_mode", "throttle", "reclaim"];

/// The mode whose incidents are about objects.
const OF_OBJECTS: &str = "data_corruption";
/// Stands in a table for no step at all.
const NO_STEP: &str = "none";

/// An incident, by the journal of the agent that opened it.
#[derive(Clone, Debug, Default)]
struct Incident {
    agent: String,
    id: String,
    mode: String,
    /// The nodes it is about.
    about: BTreeSet<String>,
    evidence: String,
    opened: Duration,
    resolved: Option<Duration>,
}

/// A step that began, by the gate it passed.
#[derive(Clone, Debug)]
struct Done {
    at: Duration,
    agent: String,
    incident: Option<String>,
    /// The action, and what it is done with.
    what: String,
    target: String,
    disruptive: bool,
}

/// What happened, with times.
#[derive(Default)]
pub(crate) struct Chart {
    incidents: Vec<Incident>,
    steps: Vec<Done>,
    /// Which step of which agent is done with what.
    with: BTreeMap<(String, u64), String>,
    /// When the lease was got (or lost) by whom.
    leases: Vec<(Duration, String, bool)>,
}

impl Chart {
    /// Takes in what happened in a tick.
    pub(crate) fn take(&mut self, events: &[Event]) {
        for event in events {
            let Event::Fact(Stamped { at, machine, fact, .. }) = event else { continue };
            match fact {
                Fact::JournalLine { line } => self.line(*at, machine, line),
                Fact::LeaseAcquired { .. } => self.leases.push((*at, machine.clone(), true)),
                Fact::LeaseLost => self.leases.push((*at, machine.clone(), false)),
                Fact::StepBegan(step) => {
                    let with =
                        self.with.get(&(machine.clone(), step.step)).filter(|_| WITH.contains(&step.action.as_str()));
                    let what = with.map_or_else(|| step.action.clone(), |with| format!("{} {with}", step.action));
                    self.steps.push(Done {
                        at: *at,
                        agent: machine.clone(),
                        incident: step.incident.clone(),
                        what: what.trim_end().to_owned(),
                        target: step.target.clone(),
                        disruptive: step.disruptive,
                    });
                }
                _ => {}
            }
        }
    }

    fn line(&mut self, at: Duration, agent: &str, line: &str) {
        let Ok(record) = serde_json::from_str::<Value>(line) else { return };
        let text = |key: &str| record.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let detail = |key: &str| record.get("details").and_then(|details| details.get(key));
        let words = |key: &str| detail(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match text("kind").as_str() {
            "opened" => {
                let hosts = detail("node_ids").and_then(Value::as_array).into_iter().flatten();
                let hosts = hosts.filter_map(|host| host.as_str().map(str::to_owned));
                let about = hosts.chain(Some(words("node_id")).filter(|node| !node.is_empty())).collect();
                let (id, mode, evidence) = (text("incident"), text("mode"), words("evidence"));
                let agent = agent.to_owned();
                self.incidents.push(Incident { agent, id, mode, about, evidence, opened: at, resolved: None });
            }
            "resolved" => {
                let id = text("incident");
                let found = self.incidents.iter_mut().find(|incident| incident.agent == agent && incident.id == id);
                if let Some(incident) = found {
                    incident.resolved = Some(at);
                }
            }
            "intent" => {
                if let Some(step) = record.get("step").and_then(Value::as_u64) {
                    self.with.insert((agent.to_owned(), step), words("with"));
                }
            }
            _ => {}
        }
    }

    fn steps_of<'a>(&'a self, incident: &'a Incident) -> impl Iterator<Item = &'a Done> {
        let of = |step: &&Done| step.agent == incident.agent && step.incident.as_deref() == Some(&*incident.id);
        self.steps.iter().filter(of)
    }

    /// Whether an agent held the lease at some time of this span.
    fn held(&self, agent: &str, from: Duration, until: Duration) -> bool {
        let mut holds = false;
        for (at, who, got) in self.leases.iter().filter(|(at, ..)| *at <= until) {
            if holds && *at > from {
                return true;
            }
            // Who gets it takes it from all others.
            holds = if who == agent { *got } else { holds && !got };
            if holds && *at > from {
                return true;
            }
        }
        holds
    }
}

/// The first thing that was not as the table has it. What was found and how soon goes into the counts.
pub(super) fn untreated(table: &[Treatment], struck: &[Struck], chart: &Chart, seen: &mut Coverage) -> Option<String> {
    let cases: Vec<(&Treatment, &Struck)> = struck
        .iter()
        .filter_map(|struck| Some((table.iter().find(|row| row.fault == struck.fault.name())?, struck)))
        .collect();
    if cases.is_empty() {
        return Some("nothing that the table has was made to fail: there was nothing to find".to_owned());
    }
    let harmed = struck.iter().filter(|struck| !struck.fault.is_asked_for());
    let machines: BTreeSet<&str> = harmed.flat_map(|struck| &struck.machines).map(String::as_str).collect();
    let wrong = cases.iter().find_map(|(row, struck)| found(row, struck, &machines, chart, seen).err());
    wrong.or_else(|| {
        let (row, _) = cases.first()?;
        overdone(row, &cases, &machines, chart)
    })
}

/// The agents that must find it.
fn finders(row: &Treatment, struck: &Struck, machines: &BTreeSet<&str>) -> Vec<String> {
    match row.found_by {
        FoundBy::Struck | FoundBy::Alone => struck.machines.iter().take(1).cloned().collect(),
        FoundBy::Ends => struck.machines.clone(),
        FoundBy::Others | FoundBy::Holder => {
            (1..=MACHINES).map(|number| format!("n{number}")).filter(|name| !machines.contains(name.as_str())).collect()
        }
    }
}

/// Whether it was found, treated and healed.
fn found(
    row: &Treatment,
    struck: &Struck,
    machines: &BTreeSet<&str>,
    chart: &Chart,
    seen: &mut Coverage,
) -> Result<(), String> {
    let mode = row.mode;
    let late = struck.from + Duration::from_secs(row.within_s);
    let of_it = |incident: &&Incident| incident.mode == mode && incident.opened >= struck.from;
    let mut finders = finders(row, struck, machines);
    if row.found_by == FoundBy::Holder {
        // Which of them held the lease does not matter, and one of them must have.
        let first = chart.incidents.iter().filter(of_it).find(|incident| finders.contains(&incident.agent));
        let first = first.map_or_else(|| "whoever holds the lease".to_owned(), |incident| incident.agent.clone());
        finders = vec![first];
    }
    for agent in finders {
        let mine = |incident: &&Incident| incident.agent == agent && of_it(incident);
        let incident = chart.incidents.iter().find(mine).ok_or_else(|| {
            format!(
                "{} at {}: the agent of {agent} found no {mode} within {} s",
                struck.fault,
                struck.machines.join(", "),
                row.within_s
            )
        })?;
        if incident.opened > late {
            let took = incident.opened.saturating_sub(struck.from).as_secs();
            return Err(format!("the agent of {agent} found {mode} after {took} s, {} s expected", row.within_s));
        }
        let about_it = match row.found_by {
            // An object lies on many hosts: its incident names none.
            FoundBy::Struck if mode == OF_OBJECTS => incident.about.is_empty(),
            FoundBy::Struck => incident.about.contains(&agent),
            FoundBy::Alone => !incident.about.is_empty() && !incident.about.contains(&agent),
            FoundBy::Ends => struck.machines.iter().any(|end| *end != agent && incident.about.contains(end)),
            FoundBy::Others => true,
            // Of two that are gone at once it may name either.
            FoundBy::Holder => machines.iter().any(|machine| incident.about.contains(*machine)),
        };
        if !about_it {
            return Err(format!("{mode} of the agent of {agent} is about {:?}: {}", incident.about, incident.evidence));
        }
        ladder(row, struck, incident, chart)?;
        let bound = match row.heals {
            Heals::Itself(seconds) => incident.opened + Duration::from_secs(seconds),
            Heals::AfterFault(seconds) => struck.until.max(incident.opened) + Duration::from_secs(seconds),
        };
        match incident.resolved {
            None => return Err(format!("{mode} of the agent of {agent} was never resolved")),
            Some(at) if at > bound => {
                let late = at.saturating_sub(bound).as_secs_f64();
                return Err(format!("{mode} of the agent of {agent} was resolved {late:.1} s too late"));
            }
            Some(at) => {
                let from = if matches!(row.heals, Heals::Itself(_)) { incident.opened } else { struck.until };
                seen.count(&format!("treated.{mode}"));
                seen.add(&format!("treated.{mode}.found_ms"), millis(incident.opened.saturating_sub(struck.from)));
                seen.add(&format!("treated.{mode}.healed_ms"), millis(at.saturating_sub(from)));
            }
        }
    }
    Ok(())
}

/// Whether the incident's steps are those of the table, and the first is the first.
fn ladder(row: &Treatment, struck: &Struck, incident: &Incident, chart: &Chart) -> Result<(), String> {
    let (mode, agent) = (row.mode, &incident.agent);
    let steps: Vec<&Done> = chart.steps_of(incident).collect();
    match (row.first, steps.first()) {
        ([], None) => {}
        (first, None) if first.contains(&NO_STEP) => {}
        (first, Some(step)) if first.contains(&&*step.what) => {}
        (first, step) => {
            let step = step.map_or("none", |step| &step.what);
            return Err(format!("the first step of {mode} at {agent} was {step}, one of {first:?} expected"));
        }
    }
    if let Some(step) = steps.iter().find(|step| !row.steps.contains(&&*step.what)) {
        return Err(format!("{} at {} for {mode}: one of {:?} expected", step.what, step.target, row.steps));
    }
    if let Some(missed) = row.must.iter().find(|must| !steps.iter().any(|step| step.what == **must)) {
        return Err(format!("{mode} at {agent}: {missed} was never done"));
    }
    let far = matches!(struck.fault, Fault::ClockJump { by_ms } if by_ms.unsigned_abs() >= FAR_MS);
    if far && chart.held(agent, incident.opened + LEASE, struck.until) {
        return Err(format!("{agent} held the lease with its clock off ({})", struck.fault));
    }
    Ok(())
}

/// What was done, or opened, that nothing asked for.
fn overdone(
    row: &Treatment,
    cases: &[(&Treatment, &Struck)],
    machines: &BTreeSet<&str>,
    chart: &Chart,
) -> Option<String> {
    let finders: BTreeSet<String> = cases.iter().flat_map(|(row, struck)| finders(row, struck, machines)).collect();
    // A node's first start by its agent, before the plan began, is an incident, too.
    let began = cases.iter().map(|(_, struck)| struck.from).min().unwrap_or_default();
    let stray = chart.incidents.iter().filter(|incident| incident.opened >= began).find(|incident| {
        let its_own = incident.mode == row.mode && finders.contains(&incident.agent);
        !its_own && !row.also.contains(&incident.mode.as_str())
    });
    if let Some(Incident { agent, mode, about, evidence, .. }) = stray {
        return Some(format!(
            "the agent of {agent} opened {mode} about {about:?}, and nothing of that was made: {evidence}"
        ));
    }
    chart.steps.iter().filter(|step| step.at >= began).find_map(|step| {
        let Done { what, target, agent, at, .. } = step;
        let among = |of: &[&str]| of.contains(&what.as_str());
        let known = among(row.steps) || among(row.aside) || among(row.elsewhere);
        let here = machines.contains(target.as_str()) || among(row.elsewhere);
        let why = match (known, step.disruptive) {
            (false, _) => "that belongs to no ladder here",
            (true, true) if !here => "nothing was wrong there",
            _ => return None,
        };
        Some(format!("{what} of {target} by the agent of {agent} at {:.1} s: {why}", at.as_secs_f64()))
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
