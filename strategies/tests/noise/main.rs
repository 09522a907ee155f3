//! A day of ordinary noise on six engines with modelled sensors and no data path: load, pauses up to two seconds, one in a hundred
//! answers lost, elections, deploys. Nothing in it needs a disruptive step, so none may even be asked for.
//!
//! A few seeds and hours always; `NOISE_SEEDS=200 NOISE_HOURS=24 cargo test --release -p resilver-strategies --test noise -- --nocapture`
//! is the whole of it.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test reads its own environment")]

#[path = "../common/mod.rs"]
mod common;
mod facts;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use resilver_strategies::record::RecordKind;
use resilver_strategies::types::Action;
use world::{NODES, World, name, policy};

fn run(mut world: World, hours: u64) -> World {
    while world.now < hours * 3600 {
        world.second();
    }
    for at in 0..NODES {
        for line in world.hosts[at].journal.iter().filter(|line| line.draft.kind == RecordKind::Opened) {
            *world.opened.entry(line.draft.mode.unwrap()).or_default() += 1;
            if std::env::var_os("NOISE_TELL").is_some() {
                println!("{} {}: {:?}", line.timestamp, name(at), line.draft);
            }
        }
    }
    world
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn a_day_of_noise_needs_no_disruptive_step() {
    let (from, seeds, hours) = (number("NOISE_FROM", 1), number("NOISE_SEEDS", 3), number("NOISE_HOURS", 4));
    let (mut steps, mut opened, mut inputs) = (BTreeMap::new(), BTreeMap::new(), 0);
    for seed in from..from + seeds {
        let world = run(World::new(seed, &policy()), hours);
        assert!(world.asked.is_empty(), "seed {seed}: {:#?}", world.asked);
        inputs += world.inputs;
        if seeds > 3 {
            println!("seed {seed}: {} inputs, nothing disruptive asked for; opened {:?}", world.inputs, world.opened);
        }
        world.steps.iter().for_each(|(step, count)| *steps.entry(*step).or_insert(0) += count);
        world.opened.iter().for_each(|(mode, count)| *opened.entry(*mode).or_insert(0) += count);
    }
    println!("{seeds} seeds of {hours} h, {inputs} inputs: no disruptive step; incidents {opened:?}; steps {steps:?}");
}

/// The noise is no silence: with times that are too short it would be answered with restarts.
#[test]
fn times_that_are_too_short_restart_nodes_in_this_noise() {
    let mut hasty = policy();
    let figures = &mut hasty.deadlock;
    (figures.canary_factor, figures.canary_floor) = (2, Duration::from_millis(1));
    (figures.stuck_after, figures.operation_limit) = (Duration::from_secs(2), Duration::from_secs(60));
    (figures.saturated_cpu, figures.saturated_pressure) = (1001, 1001);
    let found = run(World::new(1, &hasty), 6);
    assert!(!found.asked.is_empty(), "this noise would find nothing: {:?} {:?}", found.opened, found.steps);
    assert!(run(World::new(1, &policy()), 6).asked.is_empty());
}

/// And what does hang is found in spite of it.
#[test]
fn a_node_that_hangs_is_found_in_this_noise() {
    for seed in 1..=3 {
        let mut world = World::new(seed, &policy());
        world.hangs = Some((4, 1800));
        let world = run(world, 1);
        let (second, node, action, _) = world.asked.first().expect("it is found");
        assert_eq!((node.as_str(), *action), ("n5", Action::RestartNode));
        assert!((1830..1850).contains(second), "seed {seed}: after {} s", second - 1800);
        assert!(world.asked.iter().all(|(_, node, ..)| node == "n5"), "seed {seed}: {:?}", world.asked);
    }
}
