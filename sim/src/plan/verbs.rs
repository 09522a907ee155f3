//! What happens around a verb that a person asks for: the same once more, something else about the same thing, and a node
//! that ends in the middle.
//!
//! Invariant: over the seeds a node ends at every await of a verb and at every disk operation of it: the moment is a number of
//! disk operations from the verb's first one, or a time after it that is short more often than long.

use rand::Rng;
use rand::rngs::StdRng;

use super::classes::asked_about;
use super::{Ask, Class, Event, Fault, MACHINES, Mending, Role, Target, VOTERS};

/// The longest that a verb takes where nothing is in its way, in powers of two of a millisecond.
const SPAN_LOG2: u32 = 12;
/// Disk operations until a node ends: a verb, and what follows from it, are some dozens.
const OPS: (u64, u64) = (1, 90);
/// How long a machine without power stays away.
const AWAY_MS: (u64, u64) = (500, 6_000);
/// How much later somebody else asks for the same, at most; and for something else.
const AGAIN_MS: u64 = 800;
const RIVAL_MS: u64 = 2_000;
/// How long the disk that is replaced is gone.
const GONE_MS: (u64, u64) = (1_500, 7_000);

fn event(at_ms: u64, fault: Fault, target: Target, for_ms: u64) -> Event {
    Event { number: 0, at_ms, fault, target, for_ms }
}

fn asked(rng: &mut StdRng, at_ms: u64, ask: Ask, target: Target) -> Event {
    event(at_ms, Fault::Asked { ask, through: rng.random_range(1..=MACHINES) }, target, 0)
}

/// A moment within a verb's span: each power of two is as likely as any other.
fn soon(rng: &mut StdRng) -> u64 {
    let scale = 1_u64 << rng.random_range(0..SPAN_LOG2);
    scale + rng.random_range(0..scale)
}

/// How long clients ask for nothing before the quorum is lost: what they were told is everywhere by then, so that nothing of it
/// may be lost; and for how long in all.
const SETTLE_MS: u64 = 1_500;
pub(super) const QUIET_MS: u64 = SETTLE_MS + 500;
/// How long the machines are away, and so the person's time to recover without them; then they come back, empty.
const LOST_MS: (u64, u64) = (22_000, 28_000);

/// How long after somebody asks for it an epoch may still be undone: as long as he asks, and as a call takes that he gave up on.
const UNDO_ENDS_MS: u64 = 18_000;

/// Two voters lose everything but their shards, and people recover the quorum from what is left.
fn recovering(rng: &mut StdRng, events: &mut Vec<Event>) {
    let Some(Event { at_ms: quiet_ms, target: Target::Machine(left), .. }) = events.first().cloned() else { return };
    let lost_ms = quiet_ms + SETTLE_MS;
    for machine in (1..=VOTERS).filter(|machine| *machine != left) {
        let away_ms = rng.random_range(LOST_MS.0..=LOST_MS.1);
        // Another metadata disk is in the machine before it is switched on.
        events.push(event(lost_ms, Fault::DiskReplaced, Target::MetaDisk(machine), away_ms));
        events.push(event(lost_ms + 5, Fault::PowerOff, Target::Machine(machine), away_ms));
    }
    let survivors: Vec<usize> = (1..=MACHINES).filter(|machine| *machine > VOTERS || *machine == left).collect();
    let through = survivors[rng.random_range(0..survivors.len())];
    let ask =
        |at_ms, through| event(at_ms, Fault::Asked { ask: Ask::Recover { left }, through }, Target::Machine(left), 0);
    let mut at_ms = lost_ms + rng.random_range(500..=3_000);
    events.push(ask(at_ms, through));
    if rng.random_bool(0.6) {
        // Somebody else, who may begin with another one of those that have the same.
        let other = if rng.random_bool(0.5) { through } else { survivors[rng.random_range(0..survivors.len())] };
        at_ms += rng.random_range(0..=3_000);
        events.push(ask(at_ms, other));
    }
    if rng.random_bool(0.35) {
        // Somebody thinks better of it. What is written in an epoch that is undone is lost: nothing is, until he has ended.
        let undo_ms = at_ms + rng.random_range(2_000..=9_000);
        events.push(event(undo_ms, Fault::Asked { ask: Ask::Undo, through }, Target::Machine(left), 0));
        events[0].for_ms = undo_ms - quiet_ms + UNDO_ENDS_MS;
    }
    for _ in 0..rng.random_range(0..=2) {
        let later = at_ms + rng.random_range(0..=12_000);
        let place = survivors[rng.random_range(0..survivors.len())];
        let place = Target::Machine(if rng.random_bool(0.6) { through } else { place });
        events.push(match rng.random_range(0..6) {
            0..=3 => {
                let nth = rng.random_range(1..=200);
                event(later, Fault::KillAtOp { role: Role::Node, nth }, place, 0)
            }
            4 => event(later, Fault::Kill(Role::Node), place, 0),
            _ => event(later, Fault::PowerOff, place, rng.random_range(AWAY_MS.0..=AWAY_MS.1)),
        });
    }
}

/// A backup is made once clients ask for nothing, and then everybody loses what he has.
const BACKUP_MS: u64 = 4_000;
pub(super) const ALL_QUIET_MS: u64 = SETTLE_MS + BACKUP_MS + 500;
/// How long the machines are away.
const ALL_LOST_MS: (u64, u64) = (1_000, 6_000);

/// All machines lose everything but their shards, and people go on from a backup.
fn restoring(rng: &mut StdRng, events: &mut Vec<Event>) {
    let Some(Event { at_ms: quiet_ms, target, .. }) = events.first().cloned() else { return };
    let through = rng.random_range(1..=MACHINES);
    events.push(event(quiet_ms + SETTLE_MS, Fault::Asked { ask: Ask::Backup, through }, target, 0));
    let lost_ms = quiet_ms + SETTLE_MS + BACKUP_MS;
    for machine in 1..=MACHINES {
        let away_ms = rng.random_range(ALL_LOST_MS.0..=ALL_LOST_MS.1);
        events.push(event(lost_ms, Fault::DiskReplaced, Target::MetaDisk(machine), away_ms));
        events.push(event(lost_ms + 5, Fault::PowerOff, Target::Machine(machine), away_ms));
    }
    let mut at_ms = lost_ms + rng.random_range(500..=8_000);
    events.push(asked(rng, at_ms, Ask::Restore, target));
    if rng.random_bool(0.6) {
        // Somebody else, at the same node or at another one.
        let other = if rng.random_bool(0.5) { target } else { Target::Machine(rng.random_range(1..=MACHINES)) };
        at_ms += rng.random_range(0..=2_000);
        events.push(asked(rng, at_ms, Ask::Restore, other));
    }
    for _ in 0..rng.random_range(0..=2) {
        let later = at_ms + rng.random_range(0..=10_000);
        let place = if rng.random_bool(0.6) { target } else { Target::Machine(rng.random_range(1..=MACHINES)) };
        events.push(match rng.random_range(0..6) {
            0..=3 => {
                let nth = rng.random_range(1..=200);
                event(later, Fault::KillAtOp { role: Role::Node, nth }, place, 0)
            }
            4 => event(later, Fault::Kill(Role::Node), place, 0),
            _ => event(later, Fault::PowerOff, place, rng.random_range(AWAY_MS.0..=AWAY_MS.1)),
        });
    }
}

/// A person mends what was tampered with: perhaps two at once, perhaps while a node ends.
fn mending(rng: &mut StdRng, events: &mut Vec<Event>) {
    let Some(Event { at_ms: tampered_ms, target: Target::Machine(machine), .. }) = events.first().cloned() else {
        return;
    };
    let mendings = [Mending::Differences, Mending::Differences, Mending::Whole, Mending::Replay];
    let at_ms = tampered_ms + rng.random_range(20..=2_000);
    let ask = Ask::Resync(mendings[rng.random_range(0..mendings.len())]);
    let first = asked(rng, at_ms, ask, Target::Machine(machine));
    let Fault::Asked { through, .. } = first.fault else { return };
    events.push(first);
    if rng.random_bool(0.4) {
        let ask = Ask::Resync(mendings[rng.random_range(0..mendings.len())]);
        let at_ms = at_ms + rng.random_range(0..=AGAIN_MS);
        events.push(asked(rng, at_ms, ask, Target::Machine(machine)));
    }
    for _ in 0..[0, 1, 1, 1, 2][rng.random_range(0..5)] {
        events.push(end_of_a_node(rng, at_ms, machine, through));
    }
}

/// Adds what happens around the verb that `events` begins with.
pub(super) fn around(rng: &mut StdRng, class: Class, victim: usize, events: &mut Vec<Event>) {
    match class {
        Class::TamperMeta => return mending(rng, events),
        Class::LoseQuorum => return recovering(rng, events),
        Class::LoseAll => return restoring(rng, events),
        _ => {}
    }
    let Some(Event { at_ms, fault: Fault::Asked { ask, through }, target, .. }) = events.first().cloned() else {
        return;
    };
    let Target::Disk { machine, .. } = target else { return };
    match class {
        Class::FailDisks => {
            for other in 1..3 {
                let machine = 1 + (machine - 1 + 2 * other - rng.random_range(0..=1)) % MACHINES;
                let at_ms = at_ms + rng.random_range(0..=30);
                events.push(asked(rng, at_ms, Ask::Fail, asked_about(machine)));
            }
        }
        Class::ReplaceDisk => {
            let gone_ms = rng.random_range(GONE_MS.0..=GONE_MS.1);
            let in_place = ask == Ask::Replace { spare: false };
            let fault = if in_place || rng.random_bool(0.5) { Fault::DiskReplaced } else { Fault::DiskVanished };
            // The disk goes first, and the person comes while it is gone, or after another one is in its place.
            let began = at_ms.saturating_sub(rng.random_range(300..=gone_ms + 2_000)).max(1);
            events.push(event(began, fault, asked_about(victim), gone_ms));
        }
        Class::RemoveDisk => {
            let at_ms = at_ms + soon(rng);
            events.push(asked(rng, at_ms, Ask::Remove, target));
        }
        _ => {}
    }
    if rng.random_bool(0.4) {
        let at_ms = at_ms + rng.random_range(0..=AGAIN_MS);
        events.push(asked(rng, at_ms, ask, target));
    }
    if class != Class::ReplaceDisk && rng.random_bool(0.35) {
        let rivals = [Ask::Drain, Ask::Fail, Ask::Add, Ask::Remove];
        let rival = rivals[rng.random_range(0..rivals.len())];
        let at_ms = at_ms + rng.random_range(0..=RIVAL_MS);
        events.push(asked(rng, at_ms, rival, target));
    }
    let ends = [0, 1, 1, 1, 2][rng.random_range(0..5)];
    for _ in 0..ends {
        events.push(end_of_a_node(rng, at_ms, machine, through));
    }
}

/// A node ends while the verb is under way: the one that was asked, the one whose it is about, who leads, or any.
fn end_of_a_node(rng: &mut StdRng, at_ms: u64, machine: usize, through: usize) -> Event {
    let place = match rng.random_range(0..8) {
        0..=2 => Target::Machine(machine),
        3 | 4 => Target::Machine(through),
        5 => Target::RaftLeader,
        _ => Target::Machine(rng.random_range(1..=MACHINES)),
    };
    let later = at_ms + soon(rng);
    match rng.random_range(0..8) {
        0..=3 => {
            let nth = rng.random_range(OPS.0..=OPS.1);
            event(at_ms, Fault::KillAtOp { role: Role::Node, nth }, place, 0)
        }
        4 | 5 => event(later, Fault::Kill(Role::Node), place, 0),
        6 => event(later, Fault::PowerOff, place, rng.random_range(AWAY_MS.0..=AWAY_MS.1)),
        _ => event(later, Fault::Kill(Role::All), place, 300),
    }
}
