//! The kinds of fault a scenario mixes, and the figures each is drawn with.

use rand::Rng;
use rand::rngs::StdRng;

use super::{Ask, Cut, DISKS, DiskOp, Fault, Files, MACHINES, Role, SPARE, Tampering, Target, VOTERS, lasting, verbs};

/// A kind of fault. A scenario gives each a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A node is killed.
    KillNode,
    /// An agent is killed.
    KillAgent,
    /// A keeper is killed.
    KillKeeper,
    /// Node, keeper and agent of a machine are killed.
    KillAll,
    /// A process is killed in the middle of its disk operations.
    KillAtOp,
    /// A machine loses power.
    Power,
    /// A machine loses power for longer than others need to give it up.
    LongPower,
    /// A machine loses power for as long, and nobody asks for anything meanwhile.
    Gone,
    /// The same machine loses power for as long three times, and is whole in between.
    Thrice,
    /// All machines lose power in the same moment.
    Blackout,
    /// A machine's processor is taken by something else.
    Saturated,
    /// A node hangs.
    FreezeNode,
    /// An agent hangs.
    FreezeAgent,
    /// A machine is cut off.
    Partition,
    /// A machine is cut off in one direction.
    OneWay,
    /// A machine is cut off and on.
    Flapping,
    /// The Raft leader is cut off.
    IsolateLeader,
    /// The Raft leader's node hangs.
    FreezeLeader,
    /// The agent that holds the lease hangs until after its lease has expired.
    FreezeHolder,
    /// The agent that holds the lease is cut off until after its lease has expired.
    IsolateHolder,
    /// Slow links.
    SlowLinks,
    /// Lossy links.
    LossyLinks,
    /// EIO of a data disk.
    DiskError,
    /// A full data disk.
    DiskFull,
    /// A slow data disk.
    DiskSlow,
    /// A hung data disk.
    DiskHung,
    /// A data disk that goes and returns.
    DiskVanished,
    /// A data disk that goes and is replaced.
    DiskReplaced,
    /// Rot in shards.
    RotShards,
    /// A misdirected write of a shard.
    MisdirectShard,
    /// EIO of the disk with the metadata.
    MetaError,
    /// The disk with the metadata is slow, full or hangs.
    MetaTrouble,
    /// Rot in log, vote, database or snapshots.
    RotMeta,
    /// A misdirected write of log, vote or database.
    MisdirectMeta,
    /// EIO or no room on the agent's disk.
    AgentDisk,
    /// A wall clock jumps.
    ClockJump,
    /// A clock runs fast or slow.
    ClockRate,
    /// An operator restarts a node.
    OperatorRestart,
    /// An operator pauses an agent.
    OperatorPause,
    /// The holder of the lease is cut off while its order for a step is on the way.
    IsolateInGrant,
    /// An agent dies in the middle of a recovery.
    KillInRecovery,
    /// A person empties a disk; somebody may ask for the same, or for something else about it, and a node ends meanwhile.
    DrainDisk,
    /// A person gives a disk up, likewise.
    FailDisk,
    /// Persons give disks of three machines up at the same time.
    FailDisks,
    /// A person takes the spare disk, or one that was given up, into service, likewise.
    AddDisk,
    /// A disk is gone, and a person puts another one in its place, likewise.
    ReplaceDisk,
    /// A person has a disk forgotten that he empties or gives up before, likewise.
    RemoveDisk,
    /// A member's metadata is tampered with, and a person mends it, likewise.
    TamperMeta,
    /// Two of three voters lose their power, and their metadata for good; people recover the quorum, likewise.
    LoseQuorum,
    /// All machines lose their power, and their metadata for good; people restore a backup, likewise.
    LoseAll,
    /// One of `lasting.rs`: what makes a failure mode last until agents have found it.
    Lasting(lasting::Kind),
}

impl Class {
    /// Whether a person asks for a verb, around which more happens.
    pub(super) fn is_verb(self) -> bool {
        matches!(
            self,
            Class::DrainDisk
                | Class::FailDisk
                | Class::FailDisks
                | Class::AddDisk
                | Class::ReplaceDisk
                | Class::RemoveDisk
                | Class::TamperMeta
                | Class::LoseQuorum
                | Class::LoseAll
        )
    }
}

/// A hang that is noticed (3 s are a suspicion) and one that is not.
const FREEZE_MS: (u64, u64) = (300, 9_000);
/// Longer than the agents' lease (10 s), so that another one takes it over while this one sleeps.
const HOLDER_AWAY_MS: (u64, u64) = (10_500, 14_000);
/// From a blip to longer than a conviction.
const CUT_MS: (u64, u64) = (400, 9_000);
const POWER_MS: (u64, u64) = (500, 8_000);
/// Longer than the 15 s after which a machine that is away counts as down.
const LONG_POWER_MS: (u64, u64) = (16_500, 22_000);
/// What a scheduler leaves a process among many busy ones: slices of some milliseconds, and waits many times as long.
const RUN_MS: (u64, u64) = (5, 30);
const WAIT_MS: (u64, u64) = (40, 250);
/// Longer than suspicion (3 s) and conviction (15 s) take.
const SATURATED_MS: (u64, u64) = (16_000, 25_000);
const LINK_MS: (u64, u64) = (1_000, 8_000);
const DISK_MS: (u64, u64) = (200, 8_000);
/// Short enough that a node outlives it (its agent gives a hung one a few seconds), long enough to be noticed.
const META_MS: (u64, u64) = (100, 3_000);
/// How long a killed agent stays away: systemd waits a moment, too.
const AGENT_AWAY_MS: (u64, u64) = (300, 5_000);
/// Disk operations until a kill: a put and an append are a dozen each.
const OPS: (u64, u64) = (1, 60);
/// What quartz does at worst. More is a broken clock, and the lease's margin (5 %) covers far more.
const RATE_PPM: i64 = 200;

pub(super) fn between(rng: &mut StdRng, (low, high): (u64, u64)) -> u64 {
    rng.random_range(low..=high)
}

pub(super) fn pick<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

/// The disk of a machine that people ask about: one of its two, so that every machine keeps one that takes shards, and the
/// one that faults strike at the plan's victim.
pub(super) fn asked_about(machine: usize) -> Target {
    Target::Disk { machine, disk: 1 + machine % DISKS }
}

impl Class {
    /// Draws what happens, where and for how long. `victim`: the machine whose disks and data the plan may damage.
    pub(super) fn draw(self, rng: &mut StdRng, victim: usize) -> (Fault, Target, u64) {
        let any = Target::Machine(rng.random_range(1..=MACHINES));
        // One disk of the victim only: its shards go to the other one.
        let disk = asked_about(victim);
        let meta = Target::MetaDisk(victim);
        let seconds = |rng: &mut StdRng, range| between(rng, range);
        let asked = |rng: &mut StdRng, ask: Ask, target: Target| {
            (Fault::Asked { ask, through: rng.random_range(1..=MACHINES) }, target, 0)
        };
        match self {
            Class::Lasting(kind) => kind.draw(rng),
            Class::DrainDisk | Class::RemoveDisk => {
                let target = asked_about(rng.random_range(1..=MACHINES));
                asked(rng, Ask::Drain, target)
            }
            Class::FailDisk | Class::FailDisks => {
                let target = asked_about(rng.random_range(1..=MACHINES));
                asked(rng, Ask::Fail, target)
            }
            Class::AddDisk => {
                let machine = rng.random_range(1..=MACHINES);
                let spare = Target::Disk { machine, disk: SPARE };
                let target = if rng.random_bool(0.7) { spare } else { asked_about(machine) };
                asked(rng, Ask::Add, target)
            }
            Class::ReplaceDisk => {
                let ask = Ask::Replace { spare: rng.random_bool(0.5) };
                asked(rng, ask, disk)
            }
            Class::LoseAll => (Fault::Quiet, Target::Machine(rng.random_range(1..=MACHINES)), verbs::ALL_QUIET_MS),
            Class::LoseQuorum => (Fault::Quiet, Target::Machine(rng.random_range(1..=VOTERS)), verbs::QUIET_MS),
            Class::TamperMeta => {
                // Two machines at most: four that are right stay a majority.
                let machine = if rng.random_bool(0.5) { victim } else { victim % MACHINES + 1 };
                let records = if rng.random_bool(0.5) { 1 } else { rng.random_range(2..=300) };
                let how = pick(rng, &[Tampering::Inserted, Tampering::Removed, Tampering::Changed]);
                (Fault::Tampered { how, records, in_step: false }, Target::Machine(machine), 0)
            }
            Class::KillNode => (Fault::Kill(Role::Node), any, 0),
            Class::KillAgent => (Fault::Kill(Role::Agent), any, seconds(rng, AGENT_AWAY_MS)),
            Class::KillKeeper => (Fault::Kill(Role::Keeper), any, 0),
            Class::KillAll => (Fault::Kill(Role::All), any, seconds(rng, AGENT_AWAY_MS)),
            Class::KillAtOp => {
                let role = pick(rng, &[Role::Node, Role::Node, Role::Agent]);
                (Fault::KillAtOp { role, nth: between(rng, OPS) }, any, 0)
            }
            Class::Power => (Fault::PowerOff, any, seconds(rng, POWER_MS)),
            Class::Blackout => (Fault::PowerOff, Target::Machine(1), seconds(rng, POWER_MS)),
            Class::LongPower | Class::Gone | Class::Thrice => (Fault::PowerOff, any, seconds(rng, LONG_POWER_MS)),
            Class::Saturated => {
                let (run_ms, wait_ms) = (between(rng, RUN_MS), between(rng, WAIT_MS));
                (Fault::Saturated { run_ms, wait_ms }, any, seconds(rng, SATURATED_MS))
            }
            Class::FreezeNode => (Fault::Freeze(Role::Node), any, seconds(rng, FREEZE_MS)),
            Class::FreezeAgent => (Fault::Freeze(Role::Agent), any, seconds(rng, FREEZE_MS)),
            Class::Partition => (Fault::Partition(Cut::Both), any, seconds(rng, CUT_MS)),
            Class::OneWay => (Fault::Partition(pick(rng, &[Cut::Inbound, Cut::Outbound])), any, seconds(rng, CUT_MS)),
            Class::Flapping => {
                (Fault::Partition(Cut::Flapping { every_ms: between(rng, (100, 1_500)) }), any, seconds(rng, CUT_MS))
            }
            Class::IsolateLeader => {
                let cut = pick(rng, &[Cut::Both, Cut::Inbound, Cut::Outbound]);
                (Fault::Partition(cut), Target::RaftLeader, seconds(rng, CUT_MS))
            }
            Class::FreezeLeader => (Fault::Freeze(Role::Node), Target::RaftLeader, seconds(rng, FREEZE_MS)),
            Class::FreezeHolder => (Fault::Freeze(Role::Agent), Target::LeaseHolder, seconds(rng, HOLDER_AWAY_MS)),
            Class::IsolateHolder => (Fault::Partition(Cut::Both), Target::LeaseHolder, seconds(rng, HOLDER_AWAY_MS)),
            Class::SlowLinks => {
                let low_ms = between(rng, (5, 100));
                let high_ms = low_ms + between(rng, (5, 400));
                (Fault::SlowLinks { low_ms, high_ms }, any, seconds(rng, LINK_MS))
            }
            Class::LossyLinks => {
                (Fault::LossyLinks { permille: rng.random_range(10..=250) }, any, seconds(rng, LINK_MS))
            }
            Class::DiskError => {
                (Fault::DiskError(pick(rng, &[DiskOp::Read, DiskOp::Write, DiskOp::Sync])), disk, seconds(rng, DISK_MS))
            }
            Class::DiskFull => (Fault::DiskFull, disk, seconds(rng, DISK_MS)),
            Class::DiskSlow => (Fault::DiskSlow { factor: rng.random_range(5..=200) }, disk, seconds(rng, DISK_MS)),
            Class::DiskHung => (Fault::DiskHung, disk, seconds(rng, DISK_MS)),
            Class::DiskVanished => (Fault::DiskVanished, disk, seconds(rng, DISK_MS)),
            Class::DiskReplaced => (Fault::DiskReplaced, disk, seconds(rng, DISK_MS)),
            Class::RotShards => {
                // Either disk: rot is healed in place, nothing is taken out of service for it.
                let disk = Target::Disk { machine: victim, disk: rng.random_range(1..=DISKS) };
                (Fault::BitRot { files: Files::Shards, count: rng.random_range(1..=4) }, disk, 0)
            }
            Class::MisdirectShard => (Fault::MisdirectedWrite(Files::Shards), disk, 0),
            Class::MetaError => {
                (Fault::DiskError(pick(rng, &[DiskOp::Read, DiskOp::Write, DiskOp::Sync])), meta, seconds(rng, META_MS))
            }
            Class::MetaTrouble => {
                let fault = match rng.random_range(0..3) {
                    0 => Fault::DiskFull,
                    1 => Fault::DiskHung,
                    _ => Fault::DiskSlow { factor: rng.random_range(5..=100) },
                };
                (fault, meta, seconds(rng, META_MS))
            }
            Class::RotMeta => {
                let files = pick(rng, &[Files::Log, Files::Log, Files::Vote, Files::Database, Files::Snapshots]);
                (Fault::BitRot { files, count: 1 }, meta, 0)
            }
            Class::MisdirectMeta => {
                (Fault::MisdirectedWrite(pick(rng, &[Files::Log, Files::Vote, Files::Database])), meta, 0)
            }
            Class::AgentDisk => {
                let fault = pick(
                    rng,
                    &[
                        Fault::DiskError(DiskOp::Write),
                        Fault::DiskError(DiskOp::Sync),
                        Fault::DiskFull,
                        Fault::DiskSlow { factor: 50 },
                    ],
                );
                (fault, Target::AgentDisk(rng.random_range(1..=MACHINES)), seconds(rng, DISK_MS))
            }
            Class::ClockJump => {
                let by_ms = rng.random_range(50..=7_200_000i64) * pick(rng, &[1, -1]);
                (Fault::ClockJump { by_ms }, any, 0)
            }
            Class::ClockRate => {
                let ppm = rng.random_range(-RATE_PPM..=RATE_PPM);
                (Fault::ClockRate { ppm }, any, seconds(rng, (5_000, 30_000)))
            }
            Class::OperatorRestart => (Fault::OperatorRestart { through: rng.random_range(1..=MACHINES) }, any, 0),
            Class::OperatorPause => (Fault::OperatorPause, any, seconds(rng, DISK_MS)),
            Class::IsolateInGrant => {
                let away_ms = between(rng, HOLDER_AWAY_MS);
                (Fault::IsolateInGrant { away_ms }, Target::WhoeverActs, away_ms + between(rng, (2_000, 5_000)))
            }
            Class::KillInRecovery => {
                let by_op = rng.random_bool(0.6);
                let nth_op = if by_op { between(rng, (1, 15)) } else { 0 };
                let after_ms = if by_op { 0 } else { between(rng, (1, 3_000)) };
                (Fault::KillInRecovery { nth_op, after_ms }, Target::WhoeverActs, between(rng, (5_000, 15_000)))
            }
        }
    }
}
