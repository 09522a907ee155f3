//! Drawing a plan from a seed.
//!
//! Must never: depend on anything but seed and scenario. A plan can therefore be printed, and shrunk, without a run.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use resilver_sim_kernel::mix;

use super::budget::Budget;
use super::classes::between;
use super::verbs;
use super::{Class, Event, Fault, MACHINES, Plan, Target};
use crate::scenario::{Bounds, Scenario};

/// Attempts to place one fault within the budget; then it is left out.
const ATTEMPTS: u32 = 12;
/// Nothing happens this long, so that there is something to lose.
const QUIET_MS: u64 = 2_000;
/// Verbs are not begun so shortly before the end.
const VERB_MS: u64 = 3_500;
/// A fault that is to be met in the middle of its recovery follows its trap this soon.
const TRAP_MS: u64 = 20;

/// A machine that is away counts as down after 15 s; it comes back after 16.5 s at the earliest.
const KNOWN_DOWN_MS: u64 = 15_800;

/// How long a machine that loses its power again is back before that: it is marked up, and its incident over.
const BACK_MS: (u64, u64) = (20_000, 25_000);

/// The plan of a seed.
pub(crate) fn draw(seed: u64, scenario: &Scenario) -> Plan {
    let mut rng = StdRng::seed_from_u64(mix(seed, &format!("plan/{}", scenario.name)));
    let (low, high) = scenario.safety_seconds;
    let safety_ms = rng.random_range(low..=high) * 1_000;
    let victim = rng.random_range(1..=MACHINES);
    let mut budget = match scenario.bounds {
        Bounds::Redundancy | Bounds::Quorum => Budget::default(),
        Bounds::Beyond => Budget::boundless(),
    };
    let wanted = rng.random_range(scenario.faults.0..=scenario.faults.1);
    let mut events = Vec::new();
    for _ in 0..wanted {
        for _ in 0..ATTEMPTS {
            let mut drawn = one(&mut rng, scenario, victim, safety_ms);
            // All of what belongs together or nothing: the trap is admitted first, and harmless without its prey.
            // A quorum that is lost on purpose is beyond any.
            drawn.retain(|event| scenario.bounds == Bounds::Quorum || budget.admit(event));
            if !drawn.is_empty() {
                events.append(&mut drawn);
                break;
            }
        }
    }
    events.sort_by_key(|event| event.at_ms);
    for (number, event) in (1..).zip(&mut events) {
        event.number = number;
    }
    Plan { seed, scenario: scenario.name.to_owned(), safety_ms, events }
}

/// One fault; or a trap for an agent and what makes an agent act.
fn one(rng: &mut StdRng, scenario: &Scenario, victim: usize, safety_ms: u64) -> Vec<Event> {
    let Some(class) = weighted(rng, scenario.mix) else { return Vec::new() };
    // Beyond redundancy no machine is spared.
    let victim = if scenario.bounds == Bounds::Beyond { rng.random_range(1..=MACHINES) } else { victim };
    let (fault, target, for_ms) = class.draw(rng, victim);
    // What people ask for is still asked for.
    let latest = if class.is_verb() { safety_ms - VERB_MS } else { safety_ms };
    let at_ms = if let Class::Lasting(kind) = class {
        between(rng, kind.begins_ms())
    } else if matches!(class, Class::LoseQuorum | Class::LoseAll) {
        rng.random_range(QUIET_MS..2 * QUIET_MS)
    } else {
        rng.random_range(QUIET_MS..latest)
    };
    let event = |at_ms, fault, target, for_ms| Event { number: 0, at_ms, fault, target, for_ms };
    let mut events = vec![event(at_ms, fault, target, for_ms)];
    if matches!(fault, Fault::KillInRecovery { .. }) {
        let prey = [Class::KillNode, Class::FreezeNode, Class::DiskVanished, Class::RotShards];
        let (fault, target, for_ms) = prey[rng.random_range(0..prey.len())].draw(rng, victim);
        events.push(event(at_ms + TRAP_MS, fault, target, for_ms));
    }
    if class == Class::Blackout {
        for machine in 2..=MACHINES {
            let (fault, _, away_ms) = class.draw(rng, victim);
            events.push(event(at_ms, fault, Target::Machine(machine), away_ms));
        }
    }
    if let Class::Lasting(kind) = class {
        let beside = kind.beside(rng, &events[0]);
        events.extend(beside);
    }
    if class == Class::Thrice {
        let began = rng.random_range(QUIET_MS..2 * QUIET_MS);
        events[0].at_ms = began;
        for _ in 1..3 {
            let (last_at, last_for) = events.last().map_or((began, 0), |event| (event.at_ms, event.for_ms));
            let (_, _, away_ms) = class.draw(rng, victim);
            let at_ms = last_at + last_for + rng.random_range(BACK_MS.0..=BACK_MS.1);
            events.push(event(at_ms, fault, target, away_ms));
        }
    }
    if class == Class::LongPower {
        // While it counts as down somebody asks for another one's restart: a quorum may depend on the answer.
        let (fault, target, for_ms) = Class::OperatorRestart.draw(rng, victim);
        events.push(event(at_ms + KNOWN_DOWN_MS, fault, target, for_ms));
    }
    if class.is_verb() {
        verbs::around(rng, class, victim, &mut events);
    }
    if matches!(fault, Fault::IsolateInGrant { .. }) {
        let (fault, target, for_ms) = Class::OperatorRestart.draw(rng, victim);
        events.push(event(at_ms + TRAP_MS, fault, target, for_ms));
    }
    // What an intent is needed for is not known before the run; a leader there always is.
    debug_assert!(events.iter().all(|event| event.target != Target::WhoeverActs || events.len() == 2));
    events
}

fn weighted(rng: &mut StdRng, mix: &[(Class, u32)]) -> Option<Class> {
    let total: u32 = mix.iter().map(|(_, weight)| weight).sum();
    if total == 0 {
        return None;
    }
    let mut at = rng.random_range(0..total);
    for (class, weight) in mix {
        if at < *weight {
            return Some(*class);
        }
        at -= weight;
    }
    None
}
