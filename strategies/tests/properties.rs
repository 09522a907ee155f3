//! Whatever happens, in whatever order: what the engine must never do.
//!
//! `happens.rs` draws what happens and what a person has configured, `story.rs` and `world.rs` tell it to an engine and answer what
//! the engine asks, `watcher.rs` and `climb.rs` hold it to its promises, `flood.rs` and `bounds.rs` to its limits. How many stories
//! are told: `PROPTEST_CASES`, or what each property says, whichever is more.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test, in several files")]

mod common;

#[path = "properties/bounds.rs"]
mod bounds;
#[path = "properties/climb.rs"]
mod climb;
#[path = "properties/flood.rs"]
mod flood;
#[path = "properties/happens.rs"]
mod happens;
#[path = "properties/story.rs"]
mod story;
#[path = "properties/watcher.rs"]
mod watcher;
#[path = "properties/world.rs"]
mod world;

use std::collections::BTreeSet;

use common::{cases, peer, replay};
use flood::{Flood, flood};
use happens::{Answer, Drawn, Happens, Ill, Manner, Token, drawn, story};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use resilver_strategies::api::{Command, Input, Observation, PeerFact};
use resilver_strategies::config::{GradeTable, PolicyConfig, Profile};
use resilver_strategies::engine::{MAX_OPEN, MAX_RECENT, MAX_WRONG};
use resilver_strategies::flight::Tape;
use resilver_strategies::resume::MAX_HISTORY;
use resilver_strategies::types::{Action, Authority, Mode, Moment, Now};
use story::Story;
use watcher::Reach;

/// The latest time that the wall clock is set to: the year 9999, and then some.
const FAR_MS: u64 = 300_000_000_000_000;

/// Seconds in which a slot is closed although nobody answers, with policy times divided by the fast profile's factor: to be asked for,
/// to be done, to be seen, and an operator's to be proven.
const LONGEST_SLOT: u64 = 150;

/// Inputs of a segment of a recording, where it does not matter how many.
const SEGMENT: usize = 50;

fn automatic(profile: Profile) -> PolicyConfig {
    let mut policy = PolicyConfig::of(profile);
    policy.authority.grades.all = Some(Authority::Auto);
    policy
}

fn config(otherwise: u32) -> ProptestConfig {
    ProptestConfig { cases: cases(otherwise), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(96))]

    /// One disruptive step at a time; none during a pause; none that nobody allowed; no step of a ladder left out; nothing that grows
    /// without end. See `watcher.rs`.
    #[test]
    fn whatever_happens_the_engine_keeps_its_promises(drawn in drawn(), story in story(100)) {
        Story::new(drawn.policy()).tell_all(&story);
    }

    /// The same story, told to a second engine whose wall clock jumps before every input: both decide the same, to the last command.
    ///
    /// Not with lives of the agent that end: wall time is all that links two of them (the journal's times of a pause, of budgets, of
    /// crash signatures), by design. Pauses and approvals are in it: that they expire is judged by the agent's own clock, and wall
    /// time is only what people are shown.
    #[test]
    fn no_decision_is_made_by_wall_time(drawn in drawn(), story in story(50), jumps in vec(0..FAR_MS, 1..60)) {
        let mut told = Story::new(drawn.policy());
        let mut twin = told.bench.engine.clone();
        let mut walls = jumps.into_iter().cycle();
        told.bench.listener = Some(Box::new(move |now, input, commands| {
            let wall_ms = walls.next().unwrap_or_default();
            let others = twin.handle(Now { wall_ms, ..now }, input.clone());
            assert_eq!(told_by(commands), told_by(&others), "decided by wall time: {wall_ms} instead of {}", now.wall_ms);
        }));
        let one_life: Vec<Happens> =
            story.into_iter().filter(|happens| !matches!(happens, Happens::AgentDies)).collect();
        told.tell_all(&one_life);
    }

    /// Whatever happened: a replay from any segment's checkpoint commands the same, to the last letter, and comes to the very
    /// state that the next segment begins with.
    #[test]
    fn a_recording_is_decided_the_same_from_wherever_it_is_replayed(
        drawn in drawn(),
        story in story(16),
        every in 5usize..80,
    ) {
        let mut told = Story::new(drawn.policy());
        told.bench.record(every);
        told.bench.beat(3);
        told.tell_all(&story);
        let segments = told.bench.segments();
        let whole = replay(segments, None);
        prop_assert!(whole.same, "{whole:#?}");
        for from in 0..segments.len() {
            let alone = replay(&segments[from..=from], None);
            prop_assert!(alone.same && alone.inputs_decided_otherwise == 0, "segment {from}: {alone:#?}");
        }
    }

    /// The policy that it was decided by, given as another one, decides the same.
    #[test]
    fn a_recording_is_decided_the_same_by_the_same_policy_given_as_another(drawn in drawn(), story in story(16)) {
        let mut told = Story::new(drawn.policy());
        told.bench.record(SEGMENT);
        // What a person says of an incident that is none, a replay under another policy leaves out, and counts.
        let of_something = |happens: &Happens| !matches!(happens, Happens::Approve(Token::Nowhere));
        told.tell_all(&story.into_iter().filter(of_something).collect::<Vec<_>>());
        same_as_another(&told)?;
    }

    /// Nobody answers any more: every slot that is open by then is closed all the same.
    #[test]
    fn every_slot_that_was_asked_for_is_closed_in_the_end(drawn in drawn(), story in story(60), well in any::<bool>()) {
        let mut policy = drawn.policy();
        policy.factor = PolicyConfig::of(Profile::Fast).factor;
        let mut told = Story::new(policy);
        told.tell_all(&story);
        told.tell(&Happens::Resume);
        if well {
            told.tell(&Happens::Well);
        }
        let (slots, steps, proofs) = (Answer::Never, Answer::Never, Answer::Never);
        told.manner = Manner { slots, steps, proofs, approves: false };
        for _ in 0..2 {
            let open = told.watcher.slots.clone();
            told.pass(LONGEST_SLOT);
            let left: Vec<_> = open.intersection(&told.watcher.slots).collect();
            prop_assert!(left.is_empty(), "{left:?} after {LONGEST_SLOT} s");
        }
    }
}

proptest! {
    #![proptest_config(config(24))]

    /// Hundreds of everything at once: no list, queue or map of the engine grows beyond its limit, whatever it is.
    #[test]
    fn however_much_is_told_at_once_nothing_grows_without_end(drawn in drawn(), floods in vec(flood(), 1..6)) {
        let mut told = Story::new(drawn.policy());
        for flood in floods {
            told.floods(flood);
            told.watcher.end(&told.bench);
        }
    }
}

fn same_as_another(told: &Story) -> Result<(), TestCaseError> {
    let again = replay(told.bench.segments(), Some(told.bench.policy.clone()));
    prop_assert!(again.same && again.answers_left_out == 0, "{again:#?}");
    Ok(())
}

/// Found by the property above: the shortest story of it.
#[test]
fn the_tenth_incident_of_a_recording_is_not_taken_for_an_older_one() {
    let mut told = Story::new(automatic(Profile::Fast));
    told.bench.record(SEGMENT);
    told.tell_all(&[Happens::Falls(Ill::Replica), Happens::Pass(103), Happens::Finding(false), Happens::Pass(50)]);
    same_as_another(&told).unwrap();
}

/// Found by the first property above (CI of 42eed03): an agent that dies again within the millisecond in which it began closes an old
/// slot in each of its lives, and is right to: neither knows whether the one before came to it.
#[test]
fn an_agent_that_dies_twice_in_a_millisecond_closes_an_old_slot_in_each_life() {
    let mut told = Story::new(automatic(Profile::Fast));
    let manner = Manner { steps: Answer::Badly, approves: false, ..Manner::KIND };
    let dies_twice = [Happens::AgentDies, Happens::AgentDies];
    told.tell_all(&[Happens::Manner(manner), Happens::Falls(Ill::DiskGone)]);
    while !told.bench.executed().iter().any(|step| step.action == Action::DetachDisk) {
        told.pass(1);
    }
    told.tell_all(&dies_twice);
    let closed =
        |command: &&Command| matches!(command, Command::CloseSlot { step, .. } if step.action == Action::DetachDisk);
    assert_eq!(told.bench.commands.iter().filter(closed).count(), 3, "by the step's end, and by each life after it");
}

/// What was commanded, without what is wall time for people: of records what they are about, of everything else all of it.
fn told_by(commands: &[Command]) -> Vec<String> {
    let told = |command: &Command| match command {
        Command::Record { draft, durable } => {
            let guard = draft.text("guard").unwrap_or_default();
            format!("{:?} {} {:?} {:?} {guard} {durable}", draft.kind, draft.action, draft.incident, draft.step)
        }
        other => format!("{other:?}"),
    };
    commands.iter().map(told).collect()
}

/// Stories of these seeds, by any strategy: the same on every machine.
fn seeded<T>(strategy: &impl Strategy<Value = T>, seed: u8) -> T {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    strategy.new_tree(&mut runner).expect("a story can be drawn").current()
}

/// Of the same stories as above, of fixed seeds: that they come to every failure mode, and to steps of every grade. A property of
/// what is never reached would hold for any engine.
#[test]
fn the_stories_come_to_every_mode_and_to_steps_of_every_grade() {
    /// Stories that are told.
    const STORIES: u8 = 96;
    let mut reach = Reach::default();
    for seed in 0..STORIES {
        let (drawn, story): (Drawn, Vec<Happens>) = seeded(&(drawn(), story(100)), seed);
        let mut told = Story::new(drawn.policy());
        told.tell_all(&story);
        reach.add(&told.watcher.reach);
    }
    println!("{STORIES} stories:\n{}", reach.table());
    let missing: Vec<&Mode> = Mode::ALL.iter().filter(|mode| !reach.opened.contains_key(*mode)).collect();
    assert!(missing.is_empty(), "never opened: {missing:?}");
    let grades: BTreeSet<u8> =
        reach.begun.iter().filter(|((mode, _), _)| mode.is_some()).map(|((_, g), _)| *g).collect();
    assert!((0..=5).all(|grade| grades.contains(&grade)), "steps of these grades alone: {grades:?}");
    let host_down = |grade| reach.begun.contains_key(&(Some(Mode::HostDown), grade));
    assert!(host_down(0) && host_down(5), "no host was marked, or none was given up");
    assert!(reach.taken_back > 0 && reach.again > 0 && reach.approved > 0);
    assert!(reach.refused.keys().any(|why| why.contains("worth nothing")), "no token was given twice");
}

/// So many objects are found corrupt, and mended one after the other, that everything that remembers them is full; and a few hundred
/// more.
#[test]
fn what_is_remembered_of_incidents_is_full_in_the_end_and_grows_no_further() {
    let mut told = Story::new(automatic(Profile::Fast));
    let wanted = MAX_RECENT.max(MAX_HISTORY) + 100;
    let mut most = 0;
    // One on each disk: it is not the disks.
    told.floods(Flood::Findings(u16::try_from(wanted).unwrap(), u16::try_from(wanted).unwrap()));
    for _ in 0..wanted {
        if told.bench.engine.open_incidents() == 0 {
            break;
        }
        most = most.max(told.bench.engine.open_incidents());
        told.pass(1);
    }
    told.watcher.end(&told.bench);
    let state = bounds::state(&told.bench.engine);
    assert!(most + 1 >= MAX_OPEN, "{most} open at once, {MAX_OPEN} at most");
    assert_eq!(bounds::count(&state, "incidents.recent"), MAX_RECENT);
    assert_eq!(bounds::count(&state, "ledger.entries"), MAX_HISTORY);
    assert_eq!(bounds::count(&state, "findings.by_disk"), bounds::max_disks());
}

/// A host that comes and goes all night, and is never proven settled: one incident.
#[test]
fn what_is_told_of_one_incident_is_full_in_the_end_and_grows_no_further() {
    let mut told = Story::new(automatic(Profile::Production));
    told.manner.proofs = Answer::Badly;
    told.tell(&Happens::Lease(true));
    for _ in 0..bounds::max_steps() {
        told.tell(&Happens::Falls(Ill::Host));
        told.pass(20);
        told.gone.clear();
        told.pass(5);
    }
    told.watcher.end(&told.bench);
    let steps = told.bench.executed();
    let marks = |action| steps.iter().filter(|step| step.action == action).count();
    assert!(marks(Action::MarkDown) + marks(Action::MarkUp) > bounds::max_steps());
    let incidents = told.bench.engine.incidents();
    let incident = incidents.iter().find(|incident| incident.mode == Mode::HostDown).expect("one was opened");
    assert_eq!(incident.steps.len(), bounds::max_steps());
    let told = told.bench.engine.explain(told.bench.now(), &incident.id).expect("it is known");
    assert_eq!(told.timeline.len(), bounds::max_events());
    assert!(told.timeline[0].what.starts_with("opened"), "the first line is kept: {:?}", told.timeline[0]);
}

#[test]
fn what_a_stranger_can_repeat_is_full_in_the_end_and_grows_no_further() {
    let grades = GradeTable { all: Some(Authority::Approve), ..GradeTable::default() };
    let mut policy = PolicyConfig::of(Profile::Production);
    policy.authority.grades = grades;
    let mut told = Story::new(policy);
    told.manner.approves = false;
    told.tell(&Happens::Falls(Ill::Process));
    let wrong = MAX_WRONG * u32::try_from(bounds::max_spent() * 4).unwrap();
    told.floods(Flood::Tokens(u16::try_from(wrong).unwrap()));
    told.floods(Flood::Lines(200));
    told.floods(Flood::Failures(900));
    for round in 0..12 {
        told.samples += round;
        told.floods(Flood::Peers(100));
    }
    told.floods(Flood::Findings(400, 400));
    told.watcher.end(&told.bench);
    let state = bounds::state(&told.bench.engine);
    let crash = state["incidents"]["open"].as_object().unwrap().values().find(|one| one["mode"] == "process_crash");
    assert_eq!(crash.map(|crash| bounds::count(crash, "spent")), Some(bounds::max_spent()));
    assert_eq!(bounds::count(&state, "lines"), bounds::max_lines());
    assert_eq!(bounds::count(&state, "peers"), bounds::max_peers());
    assert_eq!(bounds::count(&state, "cascades.active.hosts"), resilver_strategies::cascade::MAX_ACTIVE);
    let failures = bounds::count(&state, "cascades.events.peer_unreachable");
    assert_eq!(failures, resilver_strategies::cascade::MAX_PER_KIND);
}

/// A recorder that knows so many kinds of inputs folds those, and writes out every other one, however often it comes.
#[test]
fn a_recorder_remembers_so_many_kinds_of_inputs_and_no_more() {
    let most = bounds::max_kinds();
    let mut tape = Tape::default();
    let input = |number: usize| {
        let node = format!("p{number}");
        Input::Observed(Observation::Peer(PeerFact { node, ..peer("n2") }))
    };
    let now = Now { mono: Moment::default(), wall_ms: 0 };
    let mut line = |number: usize| Tape::line(tape.note(now, &input(number)), &[]);
    let first: Vec<String> = (0..most + 10).map(&mut line).collect();
    assert!(first.iter().all(|line| line.contains("\"in\"")), "each is written out the first time");
    for number in 0..most + 10 {
        let folded = line(number).contains("\"again\"");
        assert_eq!(folded, number < most, "input {number} of {most} that are remembered");
    }
}
