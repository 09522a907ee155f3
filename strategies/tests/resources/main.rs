//! Stories of `resource_exhaustion`: what is cleaned up, stopped and moved, and that nothing is restarted for it.

#[path = "../common/mod.rs"]
mod common;
mod expected;

use common::*;
use resilver_strategies::api::{CanaryFact, Command, HostFact, Observation, Proof, Subject, VolumeFact};
use resilver_strategies::engine::IncidentState;
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, Grade, Mode};

struct Story {
    bench: Bench,
    host: HostFact,
    seconds: u64,
}

impl Story {
    fn new() -> Story {
        let mut bench = Bench::calm_with(auto());
        bench.voters(&["n1", "n2", "n3"]);
        let volume = |name: &str| VolumeFact {
            name: name.into(),
            path: format!("/data/{name}"),
            total_bytes: 1000,
            available_bytes: 500,
            inodes_total: 1000,
            inodes_free: 900,
        };
        let host = HostFact {
            cpu_pressure_per_mille: Some(50),
            memory_total_bytes: Some(1000),
            memory_available_bytes: Some(600),
            node_descriptors: Some(100),
            node_descriptors_limit: Some(1000),
            volumes: vec![volume("metadata"), volume("d1")],
            ..HostFact::default()
        };
        let mut story = Story { bench, host, seconds: 0 };
        story.pass(120);
        story
    }

    /// So many seconds; the host is looked at every ten.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.bench.pass(1);
            self.seconds += 1;
            if self.seconds.is_multiple_of(10) {
                self.bench.observe(Observation::Host(Box::new(self.host.clone())));
            }
        }
    }

    fn room(&mut self, left: u64) {
        self.host.volumes[1].available_bytes = left;
    }

    fn relieved(&mut self, action: Action) -> resilver_strategies::api::Step {
        for _ in 0..400 {
            if self.bench.running().is_some_and(|step| step.action == action) {
                break;
            }
            self.pass(1);
        }
        let step = self.bench.relieved(action);
        if action == Action::Throttle {
            self.bench.fact.throttled = step.with == "on";
        }
        step
    }
}

#[test]
fn a_disk_that_fills_up_is_cleaned_then_takes_no_writes_and_takes_them_again_five_points_below() {
    let mut story = Story::new();
    story.room(101);
    story.pass(100);
    assert!(story.bench.open().is_empty(), "below the threshold");
    story.room(80);
    story.pass(30);
    assert!(story.bench.open().is_empty(), "not at once");
    story.pass(20);
    assert_eq!(story.bench.only().mode, Mode::ResourceExhaustion);
    assert!(story.bench.engine.may_hold_lease(), "disks fill up together, and hinder no agent");
    for _ in 0..3 {
        let step = story.relieved(Action::Reclaim);
        assert_eq!((step.with.as_str(), step.disruptive), ("space", false));
        story.pass(110);
    }
    assert_eq!(story.relieved(Action::Throttle).with, "on");
    story.pass(600);
    assert!(!story.bench.actions().contains(&Action::SetMode), "eight parts in a hundred are left: writes go on");
    story.room(40);
    let step = story.relieved(Action::SetMode);
    assert_eq!((step.with.as_str(), step.grade), ("read_only", Grade::RELIEVE));
    story.bench.fact.mode = "read_only".into();
    story.room(120);
    story.pass(200);
    assert_eq!(story.bench.last_step().with, "read_only", "not five points under yet");
    story.room(200);
    story.pass(45);
    assert_eq!(story.relieved(Action::SetMode).with, "read_write");
    story.bench.fact.mode = "read_write".into();
    assert_eq!(story.relieved(Action::Throttle).with, "off");
    story.pass(2);
    let (incident, proof) = story.bench.last_proof();
    assert_eq!(proof, Proof::Serves, "writes succeed");
    story.bench.proved(&incident);
    assert!(story.bench.open().is_empty());
}

#[test]
fn a_full_disk_restarts_nothing_and_is_emptied_only_with_approval() {
    let mut story = Story::new();
    story.room(10);
    story.pass(60);
    for _ in 0..8 {
        if let Some(step) = story.bench.running() {
            if step.action == Action::SetMode {
                story.bench.fact.mode = "read_only".into();
            }
            story.bench.done(step.id);
        }
        story.pass(125);
    }
    story.pass(2 * 3600);
    for never in [Action::RestartNode, Action::StartNode, Action::StepDown, Action::EvacuateDisk] {
        assert!(!story.bench.actions().contains(&never), "{never}");
    }
    assert!(story.bench.asked_slot().is_none());
    let plan = story.bench.engine.plan(story.bench.now()).to_string();
    assert!(plan.contains("evacuate_disk held by authority: grade 5 needs a person's approval"), "{plan}");
}

/// A full disk looks like a deadlock: no write comes through, operations grow old, the log complains. A restart makes
/// no room.
#[test]
fn writes_that_fail_because_a_disk_is_full_are_no_deadlock_and_restart_nothing() {
    let mut story = Story::new();
    story.host.cpu_per_mille = Some(100);
    for _ in 0..40 {
        story.pass(1);
        story.bench.observe(Observation::Canary(CanaryFact { millis: Some(10), error: String::new() }));
    }
    story.room(10);
    (story.bench.fact.oldest_operation, story.bench.fact.oldest_operation_ms) = ("put-7".into(), 700_000);
    for _ in 0..1200 {
        if let Some(step) = story.bench.running() {
            if step.action == Action::SetMode {
                story.bench.fact.mode = "read_only".into();
            }
            story.bench.done(step.id);
        }
        story.pass(1);
        let error = "no space left on device".to_owned();
        story.bench.observe(Observation::Canary(CanaryFact { millis: None, error }));
    }
    let asked = story.bench.asked_slot();
    assert!(asked.is_none_or(|step| step.action != Action::RestartNode), "restarted because a disk is full");
}

#[test]
fn memory_that_runs_out_pauses_background_work_and_moves_leadership() {
    let mut story = Story::new();
    let raft = story.bench.raft();
    (raft.role, raft.leader, raft.quorum_ack_ms) = ("leader".into(), NODE.into(), Some(20));
    for name in ["n2", "n3"] {
        let raft = story.bench.raft_of(name);
        (raft.role, raft.leader, raft.quorum_ack_ms) = ("follower".into(), NODE.into(), None);
        story.bench.peer(name).leader = NODE.into();
    }
    story.pass(70);
    story.host.memory_available_bytes = Some(20);
    assert_eq!(story.relieved(Action::Throttle).with, "on");
    assert!(!story.bench.engine.may_hold_lease());
    story.pass(130);
    let step = story.bench.through(Action::StepDown);
    assert_eq!((step.grade, step.subject.clone()), (Grade::RESTART, Subject::Node(NODE.into())));
    (story.bench.raft().role, story.bench.raft().leader) = ("follower".into(), "n2".into());
    story.pass(600);
    assert_eq!(story.bench.actions(), [Action::Throttle, Action::StepDown]);
    assert_ne!(story.bench.state(), IncidentState::Escalated);
}

#[test]
fn load_pauses_background_work_and_nothing_more() {
    let mut story = Story::new();
    story.host.cpu_pressure_per_mille = Some(900);
    // A demonstration on a small machine had its scrub paused after half a minute, and found no damage any more.
    story.pass(590);
    assert!(story.bench.open().is_empty(), "some minutes of load are nobody's incident");
    assert_eq!(story.relieved(Action::Throttle).with, "on");
    story.pass(3 * 3600);
    assert_eq!(story.bench.actions(), [Action::Throttle]);
    // The node lets it go on by itself after a quarter of an hour, should its agent be gone. It is not.
    story.bench.fact.throttled = false;
    assert_eq!(story.relieved(Action::Throttle).with, "on");
    story.pass(130);
    story.host.cpu_pressure_per_mille = Some(100);
    assert_eq!(story.relieved(Action::Throttle).with, "off");
}

#[test]
fn descriptors_and_inodes_count_as_well() {
    let mut story = Story::new();
    story.host.node_descriptors = Some(850);
    story.pass(60);
    assert!(story.bench.only().evidence.contains("descriptors"), "{}", story.bench.only().evidence);
    let mut story = Story::new();
    story.host.volumes[0].inodes_free = 60;
    story.pass(60);
    assert!(story.bench.only().evidence.contains("inodes used of metadata 940"), "{}", story.bench.only().evidence);
}

#[test]
fn what_is_not_read_is_neither_over_nor_back() {
    let mut story = Story::new();
    story.host = HostFact::default();
    story.pass(600);
    assert!(story.bench.open().is_empty());
    // And an incident whose figures are not read any more is not over.
    let mut story = Story::new();
    story.room(80);
    story.pass(60);
    story.host = HostFact::default();
    story.pass(1200);
    assert_eq!(story.bench.open().len(), 1);
}

/// Found on review: the node's own end of a pause sent the ladder back to it every quarter of an hour, and the half hour after
/// which a person is asked never passed.
#[test]
fn a_pause_that_ends_by_itself_is_said_again_and_keeps_no_person_from_being_asked() {
    let mut story = Story::new();
    story.room(10);
    let mut renewed = 0;
    for second in 0..4000 {
        if let Some(step) = story.bench.running() {
            match step.action {
                Action::SetMode => story.bench.fact.mode = "read_only".into(),
                Action::Throttle => {
                    renewed += usize::from(story.bench.fact.mode == "read_only");
                    story.bench.fact.throttled = true;
                }
                _ => {}
            }
            story.bench.done(step.id);
        }
        if second % 900 == 899 {
            story.bench.fact.throttled = false;
        }
        story.pass(1);
    }
    assert!(renewed >= 3, "{renewed}");
    let offered = |command: &&Command| matches!(command, Command::OfferApproval { action, .. } if *action == Action::EvacuateDisk);
    assert!(story.bench.commands.iter().any(|command| offered(&command)), "a person is asked");
    let waits = story.bench.only();
    assert!(
        story.bench.engine.plan(story.bench.now()).to_string().contains("evacuate_disk held by authority"),
        "{waits:?}"
    );
}

/// A disk is full, and every step that relieves it was done.
fn full_and_read_only() -> Story {
    let mut story = Story::new();
    story.room(10);
    story.pass(60);
    for _ in 0..8 {
        if let Some(step) = story.bench.running() {
            if step.action == Action::SetMode {
                story.bench.fact.mode = "read_only".into();
            }
            story.bench.fact.throttled |= step.action == Action::Throttle;
            story.bench.done(step.id);
        }
        story.pass(125);
    }
    story
}

/// Found on review: an agent's mode is not on the node's disk. A node that died of a full one came back and took writes.
#[test]
fn a_node_that_begins_anew_while_it_is_full_is_made_read_only_again() {
    let mut story = full_and_read_only();
    assert_eq!(story.bench.fact.mode, "read_only");
    // The same process: somebody said so, a person or another incident's undoing.
    story.bench.fact.mode = "read_write".into();
    story.pass(300);
    assert!(story.bench.running().is_none(), "a word of somebody's is not fought");
    // Another one.
    story.bench.process(running(4711));
    story.bench.fact.pid = 4711;
    story.pass(3);
    let step = story.bench.running().expect("said again");
    assert_eq!((step.action, step.with.as_str(), step.again), (Action::SetMode, "read_only", true));
    // A person's word is not fought.
    story.bench.failed(step.id);
    story.bench.fact.mode_is_persons = true;
    story.pass(300);
    assert!(story.bench.running().is_none());
    // Nor is a stricter one.
    (story.bench.fact.mode_is_persons, story.bench.fact.mode) = (false, "isolated".into());
    story.pass(300);
    assert!(story.bench.running().is_none());
}

/// Found on review: a node that does not know the word was told it every minute, and the ladder stood still meanwhile.
#[test]
fn a_node_that_never_shows_a_pause_is_told_ever_more_seldom_and_the_ladder_goes_on() {
    let mut story = Story::new();
    story.room(10);
    let (mut told, mut modes) = (0, 0);
    for _ in 0..7200 {
        if let Some(step) = story.bench.running() {
            told += usize::from(step.action == Action::Throttle);
            modes += usize::from(step.action == Action::SetMode);
            if step.action == Action::SetMode {
                story.bench.fact.mode = "read_only".into();
            }
            story.bench.done(step.id);
        }
        story.pass(1);
    }
    assert_eq!(modes, 1, "the ladder went on");
    assert!((3..12).contains(&told), "told {told} times in two hours");
}

/// Found on review: an undo that failed three times told a person with every tick, and was never tried again.
#[test]
fn what_cannot_be_taken_back_is_told_once_and_tried_on() {
    let mut story = full_and_read_only();
    story.room(500);
    let mut failed = 0;
    for _ in 0..3600 {
        if let Some(step) = story.bench.running().filter(|step| step.with == "read_write") {
            failed += 1;
            story.bench.failed(step.id);
        }
        story.pass(1);
    }
    assert!(failed > 4, "it is tried on: {failed}");
    assert_eq!(story.bench.records(RecordKind::Escalated).len(), 1);
    for _ in 0..400 {
        if let Some(step) = story.bench.running() {
            if step.with == "read_write" {
                story.bench.fact.mode = "read_write".into();
            }
            story.bench.fact.throttled &= step.with != "off";
            story.bench.done(step.id);
            if step.with == "off" {
                break;
            }
        }
        story.pass(1);
    }
    story.pass(3);
    let (incident, proof) = story.bench.last_proof();
    assert_eq!(proof, Proof::Serves);
    story.bench.proved(&incident);
    assert!(story.bench.open().is_empty(), "{:#?}", story.bench.open());
}

/// Found by agents beside real nodes: a node whose disk had room again took no writes for as long as other work kept its cores busy.
#[test]
fn room_that_is_back_is_enough_however_busy_the_cores_are() {
    let mut story = Story::new();
    story.host.cpu_pressure_per_mille = Some(590);
    story.room(40);
    for _ in 0..3 {
        story.relieved(Action::Reclaim);
        story.pass(110);
    }
    story.relieved(Action::Throttle);
    assert_eq!(story.relieved(Action::SetMode).with, "read_only");
    story.bench.fact.mode = "read_only".into();
    story.room(200);
    story.pass(45);
    assert_eq!(story.relieved(Action::SetMode).with, "read_write");
    story.bench.fact.mode = "read_write".into();
    assert_eq!(story.relieved(Action::Throttle).with, "off");
    // But what was the matter has to pass, whatever else is well: the cores, this time.
    let mut story = Story::new();
    story.host.cpu_pressure_per_mille = Some(700);
    story.pass(700);
    assert_eq!(story.relieved(Action::Throttle).with, "on");
    story.host.cpu_pressure_per_mille = Some(590);
    story.pass(120);
    assert_eq!(story.bench.last_step().with, "on", "not five points under yet");
    story.host.cpu_pressure_per_mille = Some(500);
    story.pass(45);
    assert_eq!(story.relieved(Action::Throttle).with, "off");
}
