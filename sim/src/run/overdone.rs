//! The rule `nothing_overdone`: agents do what is needed, once, and nothing else.
//!
//! Origin: issue 5, "How it is shown". A saturated peer: no conviction, no step. Power off three times in an hour: one incident
//! each, an emergency at the third, no rebuild storm.
//!
//! Judged from the run's counts, after all is well again, for scenarios that promise it.

use crate::outcome::Coverage;
use crate::scenario::Agents;

/// Incidents of one host in an hour that make an emergency.
const EMERGENCY_AT: u64 = 3;

/// What agents did that was not needed, or did not do.
pub(super) fn overdone(allowed: Agents, seen: &Coverage) -> Option<String> {
    let outages = seen.get("fault.power_off");
    match allowed {
        // Of what a table has, `treated` says more.
        Agents::MayAct | Agents::Treat(_) => None,
        Agents::Idle => {
            let (steps, incidents) = (listed(seen, "step."), listed(seen, "incident."));
            let acted = !(steps.is_empty() && incidents.is_empty());
            acted.then(|| format!("nothing had failed, and there were incidents ({incidents}) and steps ({steps})"))
        }
        Agents::OnceEach => {
            let wanted = [
                ("incident.host_down", outages),
                ("step.mark_down", outages),
                ("emergencies", outages.saturating_sub(EMERGENCY_AT - 1)),
            ];
            let wrong = wanted.iter().find(|(what, times)| seen.get(what) != *times);
            // The mark is taken back by an agent, or by the node that says it is there, whichever is first. The machine's own
            // agent starts the node, which is an incident to it.
            let unwanted = |what: &str, allowed: &[&str]| {
                let names = seen.0.iter().filter(|(name, _)| name.starts_with(what));
                names.map(|(name, _)| name).find(|name| !allowed.contains(&name.as_str())).cloned()
            };
            let incident = unwanted("incident.", &["incident.host_down", "incident.process_crash"]);
            let step = unwanted("step.", &["step.mark_down", "step.mark_up", "step.start_node"]);
            match (wrong, incident.or(step)) {
                (Some((what, times)), _) => {
                    Some(format!("{outages} losses of power: {what} {times} times expected, {} seen", seen.get(what)))
                }
                (None, Some(name)) => Some(format!("{outages} losses of power, and {name} {} times", seen.get(&name))),
                (None, None) if seen.get("step.mark_up") > outages => {
                    Some("more marks taken back than made".to_owned())
                }
                (None, None) => None,
            }
        }
    }
}

fn listed(seen: &Coverage, prefix: &str) -> String {
    let found = seen.0.iter().filter(|(name, _)| name.starts_with(prefix));
    found.map(|(name, count)| format!("{} {count}", &name[prefix.len()..])).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(counts: &[(&str, u64)]) -> Coverage {
        let mut seen = Coverage::default();
        counts.iter().for_each(|(what, count)| seen.add(what, *count));
        seen
    }

    #[test]
    fn whoever_is_merely_busy_is_left_alone() {
        assert_eq!(overdone(Agents::Idle, &seen(&[("fault.saturated", 1), ("leases", 1)])), None);
        let told = overdone(Agents::Idle, &seen(&[("incident.host_down", 1), ("step.mark_down", 1)])).expect("acted");
        assert!(told.contains("(host_down 1)") && told.contains("(mark_down 1)"), "{told}");
        assert!(overdone(Agents::Idle, &seen(&[("incident.disk_degrading", 1)])).is_some(), "an incident is enough");
    }

    #[test]
    fn each_outage_is_one_incident_and_the_third_an_emergency() {
        let whole = [
            ("fault.power_off", 3),
            ("incident.host_down", 3),
            ("step.mark_down", 3),
            ("step.mark_up", 2),
            ("step.start_node", 3),
            ("emergencies", 1),
        ];
        assert_eq!(overdone(Agents::OnceEach, &seen(&whole)), None);
        let more = |extra: (&'static str, u64)| overdone(Agents::OnceEach, &seen(&[&whole[..], &[extra]].concat()));
        assert!(more(("incident.host_down", 1)).is_some(), "four incidents of three outages");
        assert!(more(("incident.disk_failure", 1)).is_some());
        assert!(more(("step.repair_shards", 1)).is_some(), "a rebuild");
        assert_eq!(more(("step.mark_up", 1)), None, "the node itself took back the one that is missing");
        assert!(more(("step.mark_up", 2)).is_some());
        let quiet: Vec<_> = whole.into_iter().filter(|(what, _)| *what != "emergencies").collect();
        let told = overdone(Agents::OnceEach, &seen(&quiet)).expect("no emergency");
        assert!(told.contains("emergencies 1 times expected, 0 seen"), "{told}");
    }
}
