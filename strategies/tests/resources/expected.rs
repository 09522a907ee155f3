//! Stories of what is expected to run out, and of cores: cleaned up, paused, and never more than that.

use resilver_strategies::api::HostFact;
use resilver_strategies::types::{Action, Mode};

use crate::Story;
use crate::common::*;

#[test]
fn a_disk_that_is_expected_to_be_full_within_the_hour_is_cleaned_and_nothing_more() {
    let mut story = Story::new();
    story.host.volumes[1].total_bytes = 1_000_000;
    for minute in 0..70u64 {
        story.room(600_000 - minute * 7_000);
        story.pass(60);
        if let Some(step) = story.bench.running() {
            story.bench.done(step.id);
        }
    }
    let actions = story.bench.actions();
    assert!(actions.contains(&Action::Reclaim), "{actions:?}");
    assert!(!actions.contains(&Action::SetMode) && story.bench.asked_slot().is_none(), "{actions:?}");
    let found = story.bench.open().into_iter().find(|one| one.mode == Mode::ResourceExhaustion).expect("open");
    assert!(found.evidence.contains("d1 is expected to be full in"), "{}", found.evidence);
}

/// Minute after minute something changes; what is begun is done.
fn through_minutes(story: &mut Story, minutes: std::ops::Range<u64>, change: impl Fn(&mut HostFact, u64)) {
    for minute in minutes {
        change(&mut story.host, minute);
        for _ in 0..60 {
            story.pass(1);
            let Some(step) = story.bench.running() else { continue };
            if step.action == Action::Throttle {
                story.bench.fact.throttled = step.with == "on";
            }
            story.bench.done(step.id);
        }
    }
}

fn exhausted(story: &Story) -> String {
    let open = story.bench.open();
    open.iter().find(|one| one.mode == Mode::ResourceExhaustion).map(|one| one.evidence.clone()).unwrap_or_default()
}

#[test]
fn inodes_that_are_expected_to_be_used_up_within_the_hour_are_cleaned_up_and_nothing_more() {
    let mut story = Story::new();
    story.host.volumes[1].inodes_total = 1_000_000;
    through_minutes(&mut story, 0..70, |host, minute| host.volumes[1].inodes_free = 600_000 - minute * 7_000);
    let told = exhausted(&story);
    assert!(told.contains("the inodes of d1 are expected to be used up in"), "{told}");
    let actions = story.bench.actions();
    assert!(actions.contains(&Action::Reclaim) && !actions.contains(&Action::SetMode), "{actions:?}");
    assert!(story.bench.asked_slot().is_none());
}

/// Memory of which the node's process takes a little more each minute.
fn leaks(host: &mut HostFact, minute: u64) {
    host.memory_total_bytes = Some(1_000_000);
    host.memory_available_bytes = Some(600_000 - minute * 7_000);
    host.node_resident_bytes = Some(100_000 + minute * 7_000);
}

#[test]
fn a_process_that_leaks_is_told_and_its_background_work_pauses_and_nothing_more() {
    let mut story = Story::new();
    through_minutes(&mut story, 0..70, leaks);
    let told = exhausted(&story);
    assert!(told.contains("the node's process is expected to have no memory left in"), "{told}");
    assert_eq!(story.bench.actions(), [Action::Throttle], "of grade 1; nothing is restarted for it");
    assert!(story.bench.asked_slot().is_none() && story.bench.engine.may_hold_lease());
    // A person restarts it: what the other process did says nothing of this one.
    story.bench.process(running(4711));
    story.bench.fact.pid = 4711;
    through_minutes(&mut story, 0..3, |host, _| leaks(host, 0));
    assert!(!story.bench.fact.throttled, "and the pause is taken back: {:?}", story.bench.actions());
}

#[test]
fn descriptors_that_are_never_closed_are_told_and_its_background_work_pauses_and_nothing_more() {
    let mut story = Story::new();
    story.host.node_descriptors_limit = Some(1_000_000);
    through_minutes(&mut story, 0..80, |host, minute| host.node_descriptors = Some(100_000 + minute * 7_000));
    let told = exhausted(&story);
    assert!(told.contains("the node's process is expected to have no descriptors left in"), "{told}");
    assert_eq!(story.bench.actions(), [Action::Throttle]);
    assert!(story.bench.asked_slot().is_none());
}

/// A cache that fills, a compaction that comes each half hour, a burst of uploads.
#[test]
fn a_process_that_takes_memory_and_gives_it_back_does_not_leak() {
    let shapes: [fn(u64) -> u64; 4] = [
        // A cache that is full after an hour.
        |minute| 100_000 + 5_000 * minute.min(60),
        // A tooth of half an hour.
        |minute| 200_000 + 3_000 * (minute % 30),
        // A step.
        |minute| if minute < 40 { 100_000 } else { 450_000 },
        // Noise.
        |minute| 300_000 + (minute * 7_919) % 40_000,
    ];
    for (which, shape) in shapes.into_iter().enumerate() {
        let mut story = Story::new();
        through_minutes(&mut story, 0..150, |host, minute| {
            host.memory_total_bytes = Some(1_000_000);
            host.node_resident_bytes = Some(shape(minute));
            host.memory_available_bytes = Some(900_000 - shape(minute));
            host.node_descriptors_limit = Some(1_000_000);
            host.node_descriptors = Some(shape(minute));
            host.volumes[0].inodes_total = 1_000_000;
            host.volumes[0].inodes_free = 900_000 - shape(minute);
        });
        assert_eq!((exhausted(&story), story.bench.actions()), (String::new(), Vec::new()), "shape {which}");
    }
}

#[test]
fn where_the_kernel_tells_no_pressure_busy_cores_stand_in_and_pause_background_work_and_no_more() {
    let mut story = Story::new();
    (story.host.cpu_pressure_per_mille, story.host.cpu_per_mille) = (None, Some(960));
    story.pass(3600);
    assert!(story.bench.open().is_empty(), "nearly all cores busy is a host that works");
    story.host.cpu_per_mille = Some(990);
    story.pass(590);
    assert!(story.bench.open().is_empty(), "some minutes of load are nobody's incident");
    assert_eq!(story.relieved(Action::Throttle).with, "on");
    let told = exhausted(&story);
    assert!(told.contains("busy time of all cores (this kernel tells no PSI) 990 per mille, limit 970"), "{told}");
    story.pass(3 * 3600);
    assert_eq!(story.bench.actions(), [Action::Throttle]);
    story.host.cpu_per_mille = Some(400);
    assert_eq!(story.relieved(Action::Throttle).with, "off");
}

#[test]
fn busy_cores_for_which_nobody_waits_are_nothing() {
    let mut story = Story::new();
    (story.host.cpu_pressure_per_mille, story.host.cpu_per_mille) = (Some(100), Some(1000));
    story.pass(3600);
    assert!(story.bench.open().is_empty(), "where the kernel tells, its word counts");
}
