//! Stories of `cascading_failure`: one failure that drags others along, and failures that only happen near each other.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use resilver_strategies::api::{FailureFact, Input, MemberFact, Observation, PeerFact, Subject};
use resilver_strategies::cascade::{Cascades, Detector, Failure, MAX_ACTIVE, MAX_PER_KIND, Pattern, Place};
use resilver_strategies::config::{PolicyConfig, Profile};
use resilver_strategies::engine::{IncidentState, IncidentView};
use resilver_strategies::record::RecordKind;
use resilver_strategies::types::{Action, FailureKind, GuardName, Mode, Moment, Severity};

/// What the own node tells of failures.
struct Node {
    bench: Bench,
    sequence: u64,
}

impl Node {
    fn calm() -> Self {
        Self { bench: Bench::calm(Profile::Production), sequence: 0 }
    }

    fn with(cascades: Cascades) -> Self {
        let bench = Bench::calm_with(PolicyConfig { cascades, ..PolicyConfig::default() });
        Self { bench, sequence: 0 }
    }

    fn says(&mut self, kind: FailureKind, subject: &str, places: &[Place]) {
        self.sequence += 1;
        let event = FailureFact {
            sequence: self.sequence,
            kind: kind.as_str().to_owned(),
            component: "peers".to_owned(),
            subject: subject.to_owned(),
            places: places.to_vec(),
            age_ms: 10,
        };
        self.bench.observe(Observation::Failures { events: vec![event] });
    }

    /// A peer falls silent, locks wait for it, then keys cannot be read.
    fn peer_drags(&mut self, peer: &str) {
        self.says(FailureKind::PeerUnreachable, peer, &[Place::host(peer)]);
        self.bench.beat(5);
        self.says(FailureKind::LockTimeout, "photos/a", &[Place::host(peer), Place::host("n2")]);
        self.bench.beat(10);
        self.says(FailureKind::AuthTimeout, "access keys", &[Place::host(peer)]);
    }

    fn peer(&mut self, node: &str, well: bool, leader: &str) {
        self.bench.observe(Observation::Peer(PeerFact {
            node: node.into(),
            agent_answers: well,
            node_alive: well.then_some(true),
            node_phase: if well { "healthy" } else { "" }.into(),
            node_answers: (!well).then_some(false),
            leader: leader.into(),
            ..PeerFact::default()
        }));
    }

    fn cascades(&self) -> Vec<IncidentView> {
        self.bench.open().into_iter().filter(|incident| incident.mode == Mode::CascadingFailure).collect()
    }
}

#[test]
fn a_silent_peer_that_drags_locks_and_keys_along_is_one_incident_of_grade_0() {
    let mut node = Node::calm();
    node.peer_drags("n3");
    let incident = node.bench.only();
    assert_eq!((incident.mode, &incident.subject), (Mode::CascadingFailure, &Subject::Node("n3".into())));
    assert_eq!(incident.severity, Some(Severity::Critical));
    assert_eq!(
        incident.evidence,
        "peer_locks_keys on host n3: peer_unreachable of n3 after 0 ms, lock_timeout of photos/a after 5000 ms, \
         auth_timeout of access keys after 15000 ms (within 30 s, 1 in the hour)"
    );
    let opened = node.bench.records(RecordKind::Opened)[0];
    assert_eq!((opened.action, opened.text("pattern")), (Action::Alert, Some("peer_locks_keys")));
    assert_eq!(opened.text("initial_failure"), Some("peer_unreachable"));

    // It goes on: still one incident, and nothing is done to anybody.
    for _ in 0..20 {
        node.bench.beat(1);
        node.says(FailureKind::LockTimeout, "photos/b", &[Place::host("n3")]);
        node.says(FailureKind::AuthTimeout, "access keys", &[Place::host("n3")]);
    }
    assert_eq!(node.bench.open().len(), 1);
    assert!(node.bench.actions().is_empty());
    assert!(node.bench.engine.may_hold_lease(), "it is about another host: or nobody could hold the lease");
}

#[test]
fn it_is_over_when_nothing_more_happens_for_the_window_and_the_peer_is_well() {
    let mut node = Node::calm();
    node.peer("n3", false, "");
    node.peer_drags("n3");
    node.bench.beat(29);
    assert_eq!(node.cascades().len(), 1, "the window is not over");
    node.bench.beat(60);
    assert_eq!(node.cascades().len(), 1, "quiet, but n3 is still gone");
    node.peer("n3", true, "n2");
    node.bench.beat(1);
    assert!(node.bench.open().is_empty());
    let resolved = node.bench.engine.incidents()[0].resolution.clone().unwrap();
    assert!(resolved.contains("what began it is gone"), "{resolved}");
}

#[test]
fn failures_without_a_common_place_are_no_cascade() {
    let mut node = Node::calm();
    // Of another peer.
    node.says(FailureKind::PeerUnreachable, "n3", &[Place::host("n3")]);
    node.says(FailureKind::LockTimeout, "a", &[Place::host("n4")]);
    node.says(FailureKind::AuthTimeout, "keys", &[Place::host("n3")]);
    // Of two disks.
    node.says(FailureKind::LockTimeout, "a", &[Place::host("n1")]);
    node.says(FailureKind::DiskStateCheckTimeout, "d1", &[Place::disk("n1", "d1")]);
    node.says(FailureKind::UploadFailure, "photos", &[Place::disk("n1", "d2")]);
    // Of nothing that is named, and of what suffered only.
    node.says(FailureKind::LockTimeout, "photos", &[]);
    node.says(FailureKind::DiskStateCheckTimeout, "photos", &[]);
    node.says(FailureKind::UploadFailure, "photos", &[]);
    // In a chain whose ends have nothing in common.
    node.says(FailureKind::PeerUnreachable, "n5", &[Place::host("n5")]);
    node.says(FailureKind::LockTimeout, "a", &[Place::host("n5"), Place::host("n6")]);
    node.says(FailureKind::AuthTimeout, "keys", &[Place::host("n6")]);
    assert!(node.bench.open().is_empty(), "{:#?}", node.bench.open());
    assert_eq!(node.bench.engine.cascades(node.bench.now()).total_events, 12);
}

#[test]
fn the_wrong_order_is_no_cascade() {
    let mut node = Node::calm();
    let n3 = [Place::host("n3")];
    for kind in [FailureKind::AuthTimeout, FailureKind::LockTimeout, FailureKind::PeerUnreachable] {
        node.says(kind, "x", &n3);
        node.bench.beat(1);
    }
    node.says(FailureKind::AuthTimeout, "x", &n3);
    assert!(node.bench.open().is_empty());
    // Until it is the right one.
    node.says(FailureKind::LockTimeout, "x", &n3);
    node.says(FailureKind::AuthTimeout, "x", &n3);
    assert_eq!(node.cascades().len(), 1);
}

#[test]
fn what_follows_after_the_window_is_no_cascade() {
    let mut node = Node::calm();
    let n3 = [Place::host("n3")];
    node.says(FailureKind::PeerUnreachable, "n3", &n3);
    node.bench.beat(20);
    node.says(FailureKind::LockTimeout, "a", &n3);
    node.bench.beat(11);
    node.says(FailureKind::AuthTimeout, "keys", &n3);
    assert!(node.bench.open().is_empty());
}

#[test]
fn any_number_of_one_kind_is_no_cascade() {
    for kind in FailureKind::ALL.iter().filter(|kind| **kind != FailureKind::FalseQuorumLoss) {
        let mut node = Node::calm();
        for _ in 0..500 {
            node.says(*kind, "n3", &[Place::host("n3"), Place::disk("n1", "d1")]);
        }
        assert!(node.bench.open().is_empty(), "{kind}");
    }
}

#[test]
fn two_stages_of_three_are_no_cascade() {
    let mut node = Node::calm();
    node.says(FailureKind::PeerUnreachable, "n3", &[Place::host("n3")]);
    node.says(FailureKind::AuthTimeout, "keys", &[Place::host("n3")]);
    assert!(node.bench.open().is_empty());
}

#[test]
fn the_third_time_in_an_hour_is_an_emergency_and_the_fourth_in_another_hour_is_not() {
    let mut node = Node::calm();
    for time in 1..=3 {
        node.peer_drags("n3");
        let incident = node.bench.only();
        let severity = if time < 3 { Severity::Critical } else { Severity::Emergency };
        assert_eq!(incident.severity, Some(severity), "time {time}");
        assert_eq!(incident.state == IncidentState::Escalated, time == 3);
        assert_eq!(node.bench.records(RecordKind::Escalated).len(), usize::from(time == 3));
        node.peer("n3", true, "n2");
        node.bench.beat(60);
        assert!(node.bench.open().is_empty(), "one incident each");
    }
    let status = node.bench.engine.cascades(node.bench.now());
    let pattern = &status.patterns[0];
    assert_eq!((pattern.in_hour, pattern.severity), (3, Some(Severity::Emergency)));
    assert_eq!(status.patterns[1].severity, None, "the others were not found");

    node.bench.wait(3_600_000);
    node.bench.beat(1);
    assert_eq!(node.bench.engine.cascades(node.bench.now()).patterns[0].in_hour, 0);
    node.peer_drags("n3");
    assert_eq!(node.bench.only().severity, Some(Severity::Critical));
}

#[test]
fn one_outage_that_goes_on_is_counted_once() {
    let mut node = Node::calm();
    let here = [Place::host("n1")];
    for _ in 0..100 {
        node.says(FailureKind::LockTimeout, "a", &here);
        node.says(FailureKind::DiskStateCheckTimeout, "d1", &here);
        node.says(FailureKind::UploadFailure, "photos", &here);
        node.bench.beat(3);
    }
    assert_eq!(node.bench.only().severity, Some(Severity::Critical));
    assert!(!node.bench.engine.may_hold_lease(), "the own host is ill");
}

#[test]
fn the_hour_outlives_the_agent() {
    let mut node = Node::calm();
    for _ in 0..2 {
        node.peer_drags("n3");
        node.bench.beat(60);
        assert!(node.bench.open().is_empty());
    }
    node.bench.restart_agent();
    node.bench.process(running(100));
    node.bench.beat(61);
    node.peer_drags("n3");
    assert_eq!(node.bench.only().severity, Some(Severity::Emergency));
    // And an open one is the same after the next restart, and ends as it would have.
    let id = node.bench.only().id;
    node.bench.restart_agent();
    node.bench.process(running(100));
    node.bench.beat(1);
    let taken_over = node.bench.only();
    assert_eq!((taken_over.id, taken_over.severity), (id, Some(Severity::Emergency)));
    node.bench.beat(31);
    assert!(node.bench.open().is_empty());
}

#[test]
fn what_ended_before_the_agent_began_is_not_found_again() {
    let mut node = Node::calm();
    node.peer_drags("n3");
    node.bench.beat(40);
    assert!(node.bench.open().is_empty());
    node.bench.restart_agent();
    node.bench.process(running(100));
    node.bench.wait(1000);
    // The node still has it in its record and tells the new agent all of it.
    let event = |kind: FailureKind, age_ms| FailureFact {
        kind: kind.as_str().into(),
        places: vec![Place::host("n3")],
        age_ms,
        ..FailureFact::default()
    };
    node.bench.observe(Observation::Failures {
        events: vec![
            event(FailureKind::PeerUnreachable, 56_000),
            event(FailureKind::LockTimeout, 51_000),
            event(FailureKind::AuthTimeout, 41_000),
        ],
    });
    assert!(node.bench.open().is_empty());
}

#[test]
fn disruptive_steps_wait_while_failures_come_and_go_on_when_they_end() {
    let mut node = Node::calm();
    let d1 = [Place::disk("n1", "d1")];
    node.says(FailureKind::LockTimeout, "photos/a", &[Place::host("n1")]);
    node.says(FailureKind::DiskStateCheckTimeout, "d1", &d1);
    node.says(FailureKind::UploadFailure, "photos", &d1);
    let cascade = node.bench.only();
    assert_eq!(cascade.subject, Subject::Disk { disk: "d1".into(), node: NODE.into() });

    // The disk is called bad: an incident of its own, folded under the cascade. Stopping new writes takes nothing away.
    node.bench.disk("d1", "up", "gone");
    node.bench.beat(3);
    let open = node.bench.open();
    let folded = open.iter().find(|incident| incident.mode == Mode::DiskFailure).unwrap();
    assert_eq!(folded.folded_under, Some(cascade.id.clone()));
    assert_eq!(node.bench.actions(), [Action::Throttle]);
    let step = node.bench.last_step();
    node.bench.done(step.id);
    node.bench.disk("d1", "read_only", "gone");
    node.bench.beat(20);
    assert!(node.bench.asked_slot().is_none(), "no ladder of its own while failures come");
    assert!(node.bench.refusals().contains(&GuardName::StormBrake));
    let status = node.bench.engine.status(node.bench.now());
    assert!(status.storm && status.storm_evidence.starts_with("a cascade is under way on disk d1 of n1"));

    // It is quiet: the disk is dead all the same, and is given up by its own ladder. Then the cascade ends, too.
    node.bench.beat(45);
    let slot = node.bench.asked_slot().expect("the brake is off");
    assert_eq!(slot.action, Action::DetachDisk);
    assert_eq!(node.cascades().len(), 1, "what began it is not gone");
    node.bench.grant(slot.id, 6);
    node.bench.beat(1);
    let detach = node.bench.last_step();
    node.bench.done(detach.id);
    node.bench.disk("d1", "out", "gone");
    node.bench.beat(40);
    assert!(node.cascades().is_empty());
}

#[test]
fn a_dead_process_is_started_in_the_middle_of_a_cascade() {
    let mut node = Node::calm();
    node.says(FailureKind::LockTimeout, "photos/a", &[Place::host("n1")]);
    node.says(FailureKind::DiskStateCheckTimeout, "d1", &[Place::host("n1")]);
    node.says(FailureKind::UploadFailure, "photos", &[Place::host("n1")]);
    node.bench.process(exited(100, resilver_strategies::api::ExitClass::Signal(9)));
    assert_eq!(node.bench.actions(), [Action::StartNode]);
    let crash = node.bench.open().into_iter().find(|incident| incident.mode == Mode::ProcessCrash).unwrap();
    assert_eq!(crash.folded_under, None, "a crash is none of the modes that a cascade causes");
}

/// Three voters; the own node knows no leader, the others answer for themselves.
fn leaderless(n2: &str, n3: &str) -> Node {
    let mut node = Node::calm();
    node.bench.fact.members = ["n1", "n2", "n3"]
        .iter()
        .map(|name| MemberFact {
            node: (*name).into(),
            state: "up".into(),
            role: "voter".into(),
            ..MemberFact::default()
        })
        .collect();
    node.bench.beat(1);
    node.says(FailureKind::PeerUnreachable, "n2", &[Place::host("n2")]);
    node.says(FailureKind::DiskStateCheckTimeout, "d9", &[Place::disk("n2", "d9")]);
    node.bench.fact.raft.as_mut().unwrap().leader = String::new();
    for _ in 0..10 {
        node.peer("n2", true, n2);
        node.peer("n3", true, n3);
        node.bench.beat(1);
    }
    node
}

#[test]
fn a_node_that_claims_a_lost_quorum_while_one_lives_is_part_of_the_cascade_and_no_loss_of_quorum() {
    let node = leaderless("n2", "n2");
    let incident = node.bench.only();
    assert_eq!(incident.mode, Mode::CascadingFailure);
    assert!(incident.evidence.starts_with("peer_disks_quorum on disk d9 of n2"), "{}", incident.evidence);
    assert!(incident.evidence.contains("false_quorum_loss of n1, while a quorum follows n2"), "{}", incident.evidence);
    let modes = node.bench.journal.iter().filter_map(|line| line.draft.mode);
    assert!(modes.into_iter().all(|mode| mode != Mode::QuorumLoss), "never, while a quorum lives");
    let counted = node.bench.engine.cascades(node.bench.now()).by_type;
    assert_eq!(counted.get(&FailureKind::FalseQuorumLoss), Some(&1), "once, not with every heartbeat");
}

#[test]
fn a_claim_is_not_false_unless_a_leader_says_so_itself_and_a_majority_follows() {
    // Nobody knows one: the quorum is lost, or an election goes on.
    for (n2, n3) in [("", ""), ("n2", ""), ("n3", "n2"), ("n9", "n9"), ("n1", "n1")] {
        let node = leaderless(n2, n3);
        let counted = node.bench.engine.cascades(node.bench.now()).by_type;
        assert_eq!(counted.get(&FailureKind::FalseQuorumLoss), None, "n2 follows {n2:?}, n3 follows {n3:?}");
        assert!(node.bench.open().is_empty());
    }
    // Nor is a node's word that a claim of its own was false.
    let mut node = Node::calm();
    node.says(FailureKind::FalseQuorumLoss, "n1", &[Place::host("n1")]);
    assert_eq!(node.bench.engine.cascades(node.bench.now()).unknown_events, 1);
}

#[test]
fn a_short_election_is_no_claim() {
    let mut node = Node::calm();
    node.bench.fact.raft.as_mut().unwrap().leader = String::new();
    for _ in 0..2 {
        node.peer("n2", true, "n2");
        node.peer("n3", true, "n2");
        node.bench.beat(1);
    }
    node.bench.fact.raft.as_mut().unwrap().leader = "n2".into();
    node.bench.beat(5);
    assert_eq!(node.bench.engine.cascades(node.bench.now()).total_events, 0);
}

#[test]
fn an_operators_pattern_is_found_as_those_that_ship() {
    let pattern = Pattern {
        name: "slow_disk".into(),
        initial: FailureKind::DiskStateCheckTimeout,
        then: vec![FailureKind::LockTimeout, FailureKind::UploadFailure],
        window: std::time::Duration::from_secs(20),
    };
    let mut node = Node::with(Cascades { patterns: vec![pattern], ..Cascades::default() });
    let d1 = [Place::disk("n1", "d1")];
    node.says(FailureKind::DiskStateCheckTimeout, "d1", &d1);
    node.says(FailureKind::LockTimeout, "a", &d1);
    node.says(FailureKind::UploadFailure, "photos", &d1);
    assert!(node.bench.only().evidence.starts_with("slow_disk on disk d1 of n1"));
    assert_eq!(node.bench.engine.cascades(node.bench.now()).patterns[3].in_hour, 1);
}

#[test]
fn a_kind_of_a_newer_node_is_counted_and_part_of_nothing() {
    let mut node = Node::calm();
    let event = FailureFact { kind: "moon_phase".into(), places: vec![Place::host("n3")], ..FailureFact::default() };
    node.bench.give(Input::Observed(Observation::Failures { events: vec![event] }));
    let status = node.bench.engine.cascades(node.bench.now());
    assert_eq!((status.total_events, status.unknown_events), (1, 1));
}

#[test]
fn two_peers_that_go_together_and_are_waited_for_together_are_one_cascade() {
    let mut node = Node::calm();
    let both = [Place::host("n3"), Place::host("n4")];
    node.says(FailureKind::PeerUnreachable, "n3", &both[..1]);
    node.says(FailureKind::PeerUnreachable, "n4", &both[1..]);
    for _ in 0..10 {
        node.says(FailureKind::LockTimeout, "a", &both);
        node.says(FailureKind::AuthTimeout, "keys", &both);
        node.bench.beat(1);
    }
    assert_eq!(node.cascades().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(24), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_failures_makes_it_grow(
        events in proptest::collection::vec((0usize..6, 0u16..60, 0u16..60, 0u64..900, 0u64..400_000), 1..700),
    ) {
        let mut detector = Detector::new(&Cascades::default());
        let mut now = Moment::default();
        for (kind, host, disk, wait, age) in events {
            now = now + std::time::Duration::from_millis(wait);
            let host = format!("n{host}");
            let places = [Place::host("n1"), Place::host(&host), Place::disk(host, format!("d{disk}"))];
            let many = (0..40).map(|more| Place::host(format!("m{more}")));
            let places = places.into_iter().chain(many).collect();
            let age = std::time::Duration::from_millis(if age < 100_000 { age / 100 } else { age });
            detector.observe(now, Failure { kind: FailureKind::ALL[kind], subject: "x".into(), places, age });
            prop_assert!(detector.remembered() <= MAX_PER_KIND * FailureKind::ALL.len());
            prop_assert!(detector.active() <= MAX_ACTIVE);
            let status = detector.status(now);
            prop_assert!(status.patterns.iter().all(|pattern| pattern.in_hour <= 64));
        }
    }

    #[test]
    fn a_pattern_is_found_only_in_order_on_one_place_and_within_its_window(
        events in proptest::collection::vec((0usize..5, 0u8..3, 0u64..9000), 1..60),
    ) {
        let patterns = Pattern::builtin();
        let mut detector = Detector::new(&Cascades::default());
        let mut told: Vec<(FailureKind, String, u64)> = Vec::new();
        let mut ms = 1_000_000;
        for (kind, host, wait) in events {
            ms += wait;
            let (kind, host) = (FailureKind::ALL[kind], format!("n{host}"));
            told.push((kind, host.clone(), ms));
            let now = Moment(std::time::Duration::from_millis(ms));
            let failure =
                Failure { kind, subject: "x".into(), places: vec![Place::host(&host)], age: std::time::Duration::ZERO };
            for found in detector.observe(now, failure) {
                prop_assert_eq!(&found.place, &Place::host(&host));
                let pattern = patterns.iter().find(|pattern| pattern.name == found.pattern).unwrap();
                let window = u64::try_from(pattern.window.as_millis()).unwrap();
                // The simplest search there is: from every initial failure on, the first of each stage.
                let holds = (0..told.len()).filter(|first| told[*first].0 == pattern.initial).any(|first| {
                    let mut rest = told[first..].iter().filter(|event| event.1 == host && event.2 + window >= ms);
                    pattern.kinds().all(|kind| rest.any(|event| event.0 == kind))
                });
                prop_assert!(holds, "{:?} in {:?}", found, told);
            }
        }
    }
}
