//! Faults that last until agents must have found them: one for each failure mode that takes time to see.
//!
//! Must never: be shorter than the mode's detection, which no profile scales (`strategies/src/config/modes.rs`).

use rand::Rng;
use rand::rngs::StdRng;

use super::classes::{between, pick};
use super::{Cut, DISKS, DiskOp, Event, Fault, Files, MACHINES, Role, Tampering, Target, VOTERS};

/// What goes wrong, for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A follower applies entries slowly.
    SlowFollower,
    /// A node applies an entry wrongly.
    Misapplied,
    /// Something else takes the room of a disk.
    Crowded,
    /// Something else takes the memory of a machine.
    MemoryShort,
    /// Two machines do not reach each other.
    Apart,
    /// A node and all others do not reach each other, or none any other; their agents do.
    NodesApart,
    /// A machine is cut off for longer than it takes to call itself the minority, and shorter than it takes others to rebuild.
    Minority,
    /// A wall clock jumps and stays wrong.
    WrongClock,
    /// A node hangs.
    Hang,
    /// A disk's counters show losses, and that is all.
    Wears,
    /// They do, and its node fails to read there.
    WearsOut,
    /// Two of three voters lose their power.
    TwoVoters,
    /// They do, and somebody goes on changing a bucket meanwhile.
    Dragged,
    /// A voter takes no leader's word, and raises its term alone.
    Astray,
    /// A leader that is none any more takes itself for one.
    SecondLeader,
    /// A node's process ends, or all of a machine's.
    Crash,
    /// A machine loses its power for longer than the others need to do without it.
    Gone,
    /// A disk fails, in one way or another, for longer than it takes to give it up.
    DiskDies,
    /// Shards rot.
    Rot,
    /// A node's log is rotten from end to end, and in half of the runs the node ends.
    RuinedLog,
    /// A node's database is, likewise.
    RuinedDatabase,
}

/// A batch longer than `lag.behind` (10 s), so that the oldest entry is older than that at every moment.
const BATCH_MS: (u64, u64) = (13_000, 17_000);
/// `lag.confirm_after` (30 s) from the second batch on, and time for the ladder.
const SLOW_MS: (u64, u64) = (72_000, 78_000);
/// `resources.confirm_after` (30 s), looked at every 10 s and told of every 5 s, and time for the ladder.
const SHORT_MS: (u64, u64) = (58_000, 64_000);
/// `detection.suspect_after` and `partition.confirm_after` (13 s), and time for the ladder.
const APART_MS: (u64, u64) = (22_000, 34_000);
/// A leader that is not heard for 5 s; then `partition.unled_after` (15 s), and time for the ladder.
const NODES_APART_MS: (u64, u64) = (26_000, 36_000);
/// A leader is none once no quorum has acknowledged it for 5 s; then `partition.minority_after` (15 s). A convicted host
/// (15 s) is rebuilt elsewhere 10 s later in the profile `fast`.
const MINORITY_MS: (u64, u64) = (22_800, 24_000);
/// `clock.confirm_after` (30 s), and the time of a lease.
const CLOCK_MS: (u64, u64) = (48_000, 54_000);
/// `deadlock.hung_after` (30 s), the lease, and a restart.
const HANG_MS: (u64, u64) = (56_000, 60_000);
/// Two samples, looked at every 10 s, the lease, and time to move what is there.
const WEARS_MS: (u64, u64) = (52_000, 58_000);
/// `quorum.lost_after` (60 s).
const VOTERS_MS: (u64, u64) = (82_000, 86_000);

/// What a Raft without a question before its elections waits between them, and how an operator's longer timeouts look.
const STANDS_MS: (u64, u64) = (500, 2_000);
/// Five terms ahead (`terms.ahead`) at the slowest, `terms.confirm_after` (10 s) seen by the leader's agent, the lease, elections.
const ASTRAY_MS: (u64, u64) = (44_000, 50_000);
/// An election, `split_brain.overlap` (2 s), the lease, a step down that is looked for in vain (15 s), and a restart, which ends it.
const TWO_LEADERS_MS: (u64, u64) = (54_000, 58_000);

/// Convicted after 15 s by a holder that may have to be found first (a lease ends after 12), `host.reprotect_after` (10 s in the
/// profile `fast`), and the rebuilding.
const GONE_MS: (u64, u64) = (52_000, 58_000);
/// An operation that hangs is one after 10 s; a canary each 3 s; the lease; a disk that is down is rebuilt elsewhere 0.5 s later.
const DISK_MS: (u64, u64) = (38_000, 46_000);
/// Objects that are there stay there from so long before shards rot, and until they are whole again: rot in what is deleted
/// anyway nobody has to find.
const QUIET_BEFORE_MS: u64 = 6_000;
const QUIET_MS: u64 = 45_000;
/// Somebody is in the middle of changing a bucket when voters go, and goes on for longer than it takes to call that a cascade.
const CHANGES_BEFORE_MS: u64 = 1_000;
const CHANGES_MS: u64 = 60_000;
/// How long init takes to start an agent again whose machine's processes all ended.
const AGENT_AWAY_MS: (u64, u64) = (1_000, 3_000);

/// When it begins: once there is something to lose.
const BEGINS_MS: (u64, u64) = (2_000, 4_000);
/// Once an agent holds the lease, which takes an agent that has just begun some ten seconds.
const HELD_MS: (u64, u64) = (13_000, 15_000);

impl Kind {
    /// When it begins.
    pub(super) fn begins_ms(self) -> (u64, u64) {
        match self {
            // And once its disk has shards to be read.
            Kind::WrongClock
            | Kind::Astray
            | Kind::SecondLeader
            | Kind::Wears
            | Kind::WearsOut
            | Kind::Gone
            | Kind::DiskDies
            | Kind::Rot
            | Kind::RuinedLog
            | Kind::RuinedDatabase => HELD_MS,
            _ => BEGINS_MS,
        }
    }

    /// Draws what happens, where and for how long.
    pub(super) fn draw(self, rng: &mut StdRng) -> (Fault, Target, u64) {
        let machine = rng.random_range(1..=MACHINES);
        let any = Target::Machine(machine);
        match self {
            Kind::SlowFollower => {
                (Fault::SlowApply { batch_ms: between(rng, BATCH_MS) }, Target::Follower, between(rng, SLOW_MS))
            }
            Kind::Misapplied => {
                let records = if rng.random_bool(0.5) { 1 } else { rng.random_range(2..=300) };
                let how = pick(rng, &[Tampering::Inserted, Tampering::Removed, Tampering::Changed]);
                let target = if rng.random_bool(0.3) { Target::RaftLeader } else { any };
                (Fault::Tampered { how, records, in_step: true }, target, 0)
            }
            Kind::Crowded => {
                // Over 900 it is cleaned up, over 950 no more writes are taken.
                let permille = rng.random_range(905..=985);
                let disk = Target::Disk { machine, disk: rng.random_range(1..=DISKS) };
                (Fault::DiskCrowded { permille }, disk, between(rng, SHORT_MS))
            }
            Kind::MemoryShort => {
                // Under 100 background work rests, under 30 leadership goes.
                let left_permille = rng.random_range(2..=95);
                let target = if rng.random_bool(0.4) { Target::RaftLeader } else { any };
                (Fault::MemoryShort { left_permille }, target, between(rng, SHORT_MS))
            }
            Kind::Apart => {
                let other = 1 + (machine - 1 + rng.random_range(1..MACHINES)) % MACHINES;
                let cut = pick(rng, &[Cut::Both, Cut::Inbound, Cut::Outbound]);
                (Fault::Apart { other, cut }, any, between(rng, APART_MS))
            }
            Kind::NodesApart => {
                let target = if rng.random_bool(0.4) { Target::RaftLeader } else { any };
                (Fault::NodesApart { all: rng.random_bool(0.3) }, target, between(rng, NODES_APART_MS))
            }
            Kind::Minority => (Fault::Partition(Cut::Both), any, between(rng, MINORITY_MS)),
            Kind::WrongClock => {
                let far = rng.random_bool(0.7);
                let by_ms = if far { rng.random_range(700..=7_200_000i64) } else { rng.random_range(80..=400) };
                let target = if rng.random_bool(0.5) { Target::LeaseHolder } else { any };
                (Fault::ClockJump { by_ms: by_ms * pick(rng, &[1, -1]) }, target, between(rng, CLOCK_MS))
            }
            Kind::Hang => (Fault::Hang, any, between(rng, HANG_MS)),
            Kind::Wears | Kind::WearsOut => {
                let sectors = rng.random_range(1..=400);
                let disk = Target::Disk { machine, disk: rng.random_range(1..=DISKS) };
                (Fault::DiskWears { sectors, unread: self == Kind::WearsOut }, disk, between(rng, WEARS_MS))
            }
            Kind::Astray => {
                (Fault::Astray { every_ms: between(rng, STANDS_MS) }, Target::Follower, between(rng, ASTRAY_MS))
            }
            Kind::SecondLeader => (Fault::Deluded, Target::RaftLeader, between(rng, TWO_LEADERS_MS)),
            Kind::TwoVoters | Kind::Dragged => {
                (Fault::PowerOff, Target::Machine(rng.random_range(1..=VOTERS)), between(rng, VOTERS_MS))
            }
            Kind::Crash => {
                let target = if rng.random_bool(0.3) { Target::RaftLeader } else { any };
                let all = rng.random_bool(0.4);
                let role = if all { Role::All } else { Role::Node };
                (Fault::Kill(role), target, if all { between(rng, AGENT_AWAY_MS) } else { 0 })
            }
            Kind::Gone => {
                let target = if rng.random_bool(0.3) { Target::LeaseHolder } else { any };
                (Fault::PowerOff, target, between(rng, GONE_MS))
            }
            Kind::DiskDies => {
                let ways = [
                    Fault::DiskError(DiskOp::Read),
                    Fault::DiskError(DiskOp::Write),
                    Fault::DiskError(DiskOp::Sync),
                    Fault::DiskHung,
                    Fault::DiskVanished,
                ];
                let disk = Target::Disk { machine, disk: rng.random_range(1..=DISKS) };
                (pick(rng, &ways), disk, between(rng, DISK_MS))
            }
            Kind::Rot => {
                let disk = Target::Disk { machine, disk: rng.random_range(1..=DISKS) };
                (Fault::RotOfObjects { count: rng.random_range(1..=4) }, disk, 0)
            }
            Kind::RuinedLog => (Fault::Ruin(Files::Log), Target::MetaDisk(machine), 0),
            Kind::RuinedDatabase => (Fault::Ruin(Files::Database), Target::MetaDisk(machine), 0),
        }
    }

    /// Draws what belongs to it, beside the fault itself.
    pub(super) fn beside(self, rng: &mut StdRng, first: &Event) -> Vec<Event> {
        let event = |at_ms, fault, target, for_ms| Event { number: 0, at_ms, fault, target, for_ms };
        match (self, first.target) {
            (Kind::TwoVoters | Kind::Dragged, Target::Machine(one)) => {
                let other = 1 + (one - 1 + rng.random_range(1..VOTERS)) % VOTERS;
                let at_ms = first.at_ms + rng.random_range(0..=1_000);
                let second = event(at_ms, first.fault, Target::Machine(other), first.for_ms);
                // Through one that is there all the time.
                let through = Target::Machine(rng.random_range(VOTERS + 1..=MACHINES));
                let changes = event(first.at_ms - CHANGES_BEFORE_MS, Fault::OperatorChanges, through, CHANGES_MS);
                [second].into_iter().chain((self == Kind::Dragged).then_some(changes)).collect()
            }
            (Kind::Rot, Target::Disk { machine, .. }) => {
                vec![event(first.at_ms - QUIET_BEFORE_MS, Fault::Quiet, Target::Machine(machine), QUIET_MS)]
            }
            (Kind::RuinedLog | Kind::RuinedDatabase, Target::MetaDisk(machine)) if rng.random_bool(0.5) => {
                // In the same moment, and after it: a node is started again within milliseconds.
                vec![event(first.at_ms, Fault::Kill(Role::Node), Target::Machine(machine), 0)]
            }
            _ => Vec::new(),
        }
    }
}
