use std::collections::BTreeSet;

use super::*;
use crate::scenario::{self, Bounds};

/// Seeds looked at: enough that every class of every scenario is drawn many times.
const SEEDS: u64 = 300;

#[test]
fn a_plan_depends_on_seed_and_scenario_only() {
    for scenario in scenario::all() {
        assert_eq!(draw(7, scenario), draw(7, scenario), "{}", scenario.name);
    }
    let mixed = crate::scenario::find("mixed").expect("there is one");
    assert_ne!(draw(7, mixed).events, draw(8, mixed).events);
}

#[test]
fn every_class_of_a_scenario_is_drawn() {
    for scenario in scenario::all() {
        let drawn: usize = (0..SEEDS).map(|seed| draw(seed, scenario).events.len()).sum();
        assert_eq!(drawn == 0, scenario.faults.1 == 0, "{}: {drawn} faults in {SEEDS} seeds", scenario.name);
    }
}

#[test]
fn damage_stays_on_one_machine_and_one_voter() {
    for scenario in scenario::all().filter(|scenario| scenario.bounds == Bounds::Redundancy) {
        for seed in 0..SEEDS {
            let plan = draw(seed, scenario);
            let mut damaged: BTreeSet<usize> = plan.metadata_victims();
            damaged.extend(plan.disk_victims().into_iter().map(|(machine, _)| machine));
            assert!(damaged.len() <= 1, "{plan}");
            for (at, event) in plan.events.iter().enumerate() {
                let down = |other: &&Event| {
                    matches!(other.fault, Fault::PowerOff | Fault::Partition(_) | Fault::Freeze(Role::Node))
                        && other.at_ms < event.at_ms + event.for_ms
                        && event.at_ms < other.at_ms + other.for_ms
                        && other.machine().is_none_or(|machine| machine <= VOTERS)
                };
                // One machine may be struck twice at a time.
                let voters: BTreeSet<Option<usize>> =
                    plan.events[..=at].iter().filter(down).map(Event::machine).collect();
                assert!(voters.len() <= 1 || !down(&event), "two voters at once, event {}\n{plan}", event.number);
            }
        }
    }
}

#[test]
fn dropped_events_renumber_nothing() {
    let plan = draw(3, crate::scenario::find("mixed").expect("there is one"));
    let kept: BTreeSet<u32> = plan.numbers().into_iter().skip(1).step_by(2).collect();
    assert!(!kept.is_empty());
    let shrunk = plan.clone().only(&kept);
    assert_eq!(shrunk.numbers(), kept);
    assert!(shrunk.events.iter().all(|event| plan.events.contains(event)));
}

#[test]
fn a_plan_reads_back_from_its_json() {
    let plan = draw(11, crate::scenario::find("beyond").expect("there is one"));
    let text = serde_json::to_string(&plan).expect("plain data");
    assert_eq!(serde_json::from_str::<Plan>(&text).expect("its own text"), plan);
}
