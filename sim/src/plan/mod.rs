//! The fault plan: what will go wrong in a run, drawn from the seed before the run begins, as data.
//!
//! Owns: the words of a plan ([`Event`], [`Fault`], [`Target`]), their text and their JSON.
//!
//! Must never: look at a running cluster. A target that only a running cluster knows (who leads) is named here and
//! resolved by [`crate::run::inject`] when its time comes.
//!
//! Invariant: an event's number is its place in the full plan. Dropping events (`--only`) renumbers nothing, so that a
//! plan which was shrunk says which events of the seed it keeps.

mod budget;
mod classes;
mod draw;
mod lasting;
mod verbs;
mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use self::classes::Class;
pub(crate) use self::draw::draw;
pub(crate) use self::lasting::Kind;

/// Machines of a run: 4+2 has one shard on each.
pub(crate) const MACHINES: usize = 6;
/// Disks of a machine: one may fail while another one takes its shards.
pub(crate) const DISKS: usize = 2;
/// The disk (from 1) of every machine that nothing is on until somebody takes it into service.
pub(crate) const SPARE: usize = DISKS + 1;
/// Machines `n1` to `n3` vote: the first three that join.
pub(crate) const VOTERS: usize = 3;

/// One fault: when, what, at what, for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Its place in the full plan.
    pub(crate) number: u32,
    /// Milliseconds after the safety phase began.
    pub(crate) at_ms: u64,
    /// What goes wrong.
    pub(crate) fault: Fault,
    /// Where.
    pub(crate) target: Target,
    /// For how long; 0: it happens once and is over (what it left behind stays).
    pub(crate) for_ms: u64,
}

impl Event {
    /// When it happens, from the beginning of the safety phase.
    pub(crate) fn at(&self) -> Duration {
        Duration::from_millis(self.at_ms)
    }
}

/// Which processes of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// The storage node.
    Node,
    /// The recovery agent. Whoever runs it (systemd in production, the harness here) starts it again.
    Agent,
    /// The keeper between them.
    Keeper,
    /// All three.
    All,
}

/// How a partition cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cut {
    /// Nothing gets in or out.
    Both,
    /// Nothing gets out.
    Outbound,
    /// Nothing gets in.
    Inbound,
    /// Nothing gets in or out, on and off.
    Flapping {
        /// Half a period.
        every_ms: u64,
    },
}

/// Which disk operations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DiskOp {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Syncing.
    Sync,
}

/// Which files rot or are written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Files {
    /// Shards of objects.
    Shards,
    /// The Raft log's segments and header.
    Log,
    /// The vote.
    Vote,
    /// The database.
    Database,
    /// Snapshots of the database.
    Snapshots,
}

/// What a person asks for, as one of the command's verbs: the same calls in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// `disk drain`.
    Drain,
    /// `disk fail`.
    Fail,
    /// `disk add`.
    Add,
    /// `disk replace`, by one in the old one's place or by the machine's spare.
    Replace {
        /// By the spare.
        spare: bool,
    },
    /// `disk remove`.
    Remove,
    /// `meta resync`, and `meta compare` whether it helped.
    Resync(Mending),
    /// `meta recover-quorum --undo`.
    Undo,
    /// `meta backup`, kept by who asked.
    Backup,
    /// `meta restore` of that, and `repair collect` once all are back.
    Restore,
    /// `meta recover-quorum` at a survivor that has most, `node up` for those that were lost, and `repair collect`.
    Recover {
        /// The place of the voter that is left.
        left: usize,
    },
}

/// What is done to records of a member's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tampering {
    /// More slip in.
    Inserted,
    /// They are gone.
    Removed,
    /// They say something else.
    Changed,
}

/// How a member's metadata is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mending {
    /// By the records that differ.
    Differences,
    /// By the whole state of another member.
    Whole,
    /// By its own snapshot and log.
    Replay,
}

impl Ask {
    /// The verb.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Ask::Drain => "drain",
            Ask::Fail => "fail",
            Ask::Add => "add",
            Ask::Replace { .. } => "replace",
            Ask::Remove => "remove",
            Ask::Resync(Mending::Differences) => "resync",
            Ask::Resync(Mending::Whole) => "resync_whole",
            Ask::Resync(Mending::Replay) => "resync_replay",
            Ask::Undo => "undo_quorum",
            Ask::Backup => "backup",
            Ask::Restore => "restore",
            Ask::Recover { .. } => "recover_quorum",
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// SIGKILL.
    Kill(Role),
    /// SIGKILL at the nth disk operation from now, before it takes effect.
    KillAtOp {
        /// Whom.
        role: Role,
        /// Which operation.
        nth: u64,
    },
    /// The machine loses power: what was not synced may be lost or torn. It comes back after the event's time.
    PowerOff,
    /// SIGSTOP, then SIGCONT.
    Freeze(Role),
    /// The node gets on no more, and nobody stopped it.
    Hang,
    /// Something else takes the machine's processor: all three processes run and wait by turns.
    Saturated {
        /// They run so long,
        run_ms: u64,
        /// and wait so long.
        wait_ms: u64,
    },
    /// The machine is cut off from all other machines and from the clients.
    Partition(Cut),
    /// The machine and another one do not reach each other; everybody else reaches both.
    Apart {
        /// The other one.
        other: usize,
        /// How.
        cut: Cut,
    },
    /// Between nodes nothing gets through, and agents hear each other: the machine's node and all others, or none any other.
    NodesApart {
        /// None any other.
        all: bool,
    },
    /// Messages from and to the machine take long.
    SlowLinks {
        /// At least.
        low_ms: u64,
        /// At most.
        high_ms: u64,
    },
    /// Messages from and to the machine get lost (streams retransmit, datagrams do not).
    LossyLinks {
        /// In a thousand.
        permille: u32,
    },
    /// Operations fail with EIO.
    DiskError(DiskOp),
    /// No room.
    DiskFull,
    /// Something else takes most of the room.
    DiskCrowded {
        /// So many of a thousand.
        permille: u32,
    },
    /// The disk's counters show sectors that cannot be read.
    DiskWears {
        /// So many.
        sectors: u64,
        /// The node meets some of them.
        unread: bool,
    },
    /// Something else takes most of the memory.
    MemoryShort {
        /// So many of a thousand are left.
        left_permille: u64,
    },
    /// The node takes long to apply what was committed.
    SlowApply {
        /// Each batch of entries.
        batch_ms: u64,
    },
    /// The node takes no leader's word, and stands for election without asking whether anybody would have it.
    Astray {
        /// So often.
        every_ms: u64,
    },
    /// The node, which leads, tells none of it any more, and takes itself for the leader still when another one is.
    Deluded,
    /// Every operation takes this many times as long.
    DiskSlow {
        /// So many times.
        factor: u32,
    },
    /// No operation ends.
    DiskHung,
    /// The disk is gone; it returns with what it held.
    DiskVanished,
    /// The disk is gone; an empty one comes in its place.
    DiskReplaced,
    /// A bit of a synced file flips and stays flipped, in so many files.
    BitRot {
        /// Of these.
        files: Files,
        /// How many.
        count: u32,
    },
    /// As [`Fault::BitRot`], of so many shards of objects that are there: those of a version that was replaced or deleted nobody has
    /// to mend before they are collected.
    RotOfObjects {
        /// How many.
        count: u32,
    },
    /// All of these files rot from end to end: whoever reads one of them meets it.
    Ruin(Files),
    /// The next write lands elsewhere.
    MisdirectedWrite(Files),
    /// The wall clock jumps.
    ClockJump {
        /// By.
        by_ms: i64,
    },
    /// The machine's clocks run fast or slow.
    ClockRate {
        /// By so many millionths.
        ppm: i64,
    },
    /// Somebody asks for the restart of the node, through the agent of another machine.
    OperatorRestart {
        /// That machine.
        through: usize,
    },
    /// Somebody pauses the machine's agent.
    OperatorPause,
    /// Somebody changes a bucket through the machine's door, one time after the other, which takes a lock each time, and uploads into it.
    OperatorChanges,
    /// Somebody asks for a verb, and again until he is told what came of it.
    Asked {
        /// Which.
        ask: Ask,
        /// The machine he turns to first.
        through: usize,
    },
    /// Clients ask for nothing.
    Quiet,
    /// Records of the machine's metadata are not any more what the log's entries made of them.
    Tampered {
        /// What is done to them.
        how: Tampering,
        /// How many.
        records: u32,
        /// The digests that are kept in step know of it, as of an entry that was applied wrongly.
        in_step: bool,
    },
    /// The next agent that grants a slot is cut off with its machine in that very moment, for longer than its lease: its
    /// order is held up on the way, and arrives when another one holds.
    IsolateInGrant {
        /// For so long.
        away_ms: u64,
    },
    /// The next agent that writes an intent is killed soon after.
    KillInRecovery {
        /// At this disk operation after the intent; 0: after `after_ms`.
        nth_op: u64,
        /// After this time.
        after_ms: u64,
    },
}

/// Where it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    /// Machine `n{0}`.
    Machine(usize),
    /// Data disk `disk{disk}` of `n{machine}`.
    Disk {
        /// Machine.
        machine: usize,
        /// Disk, from 1.
        disk: usize,
    },
    /// The disk with the metadata of the machine.
    MetaDisk(usize),
    /// The disk with the agent's state of the machine.
    AgentDisk(usize),
    /// The machine of the Raft leader at that time.
    RaftLeader,
    /// The machine of a voter that does not lead at that time.
    Follower,
    /// The machine of the agent that holds the lease at that time.
    LeaseHolder,
    /// Whichever agent acts next.
    WhoeverActs,
}

/// The faults of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The seed it was drawn from.
    pub(crate) seed: u64,
    /// The scenario it was drawn for.
    pub(crate) scenario: String,
    /// How long the safety phase lasts.
    pub(crate) safety_ms: u64,
    /// By time.
    pub(crate) events: Vec<Event>,
}

impl Plan {
    /// Keeps the events of these numbers.
    pub(crate) fn only(mut self, numbers: &BTreeSet<u32>) -> Plan {
        self.events.retain(|event| numbers.contains(&event.number));
        self
    }

    /// The numbers of its events.
    pub(crate) fn numbers(&self) -> BTreeSet<u32> {
        self.events.iter().map(|event| event.number).collect()
    }

    /// Machines whose metadata the plan damages for good: their nodes lose their votes.
    #[cfg(test)]
    pub(crate) fn metadata_victims(&self) -> BTreeSet<usize> {
        self.events
            .iter()
            .filter(|event| event.fault.damages_metadata(event.target))
            .filter_map(Event::machine)
            .collect()
    }

    /// Disks that a fault may have taken out of service for good: the agent gives up a disk that fails for longer than a
    /// moment, and only a person puts it back.
    pub(crate) fn disk_victims(&self) -> BTreeSet<(usize, usize)> {
        self.events
            .iter()
            .filter(|event| event.fault.ails_disk())
            .filter_map(|event| match event.target {
                Target::Disk { machine, disk } => Some((machine, disk)),
                _ => None,
            })
            .collect()
    }
}

impl Event {
    /// The machine it strikes, where the plan knows it.
    pub(crate) fn machine(&self) -> Option<usize> {
        match self.target {
            Target::Machine(machine)
            | Target::Disk { machine, .. }
            | Target::MetaDisk(machine)
            | Target::AgentDisk(machine) => Some(machine),
            Target::RaftLeader | Target::Follower | Target::LeaseHolder | Target::WhoeverActs => None,
        }
    }
}

impl Fault {
    /// Its name in the counts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::Kill(Role::Node) => "kill_node",
            Fault::Kill(Role::Agent) => "kill_agent",
            Fault::Kill(Role::Keeper) => "kill_keeper",
            Fault::Kill(Role::All) => "kill_all",
            Fault::KillAtOp { .. } => "kill_at_op",
            Fault::PowerOff => "power_off",
            Fault::Freeze(Role::Agent) => "freeze_agent",
            Fault::Freeze(_) => "freeze_node",
            Fault::Hang => "hang_node",
            Fault::Apart { .. } => "apart",
            Fault::NodesApart { all: false } => "node_apart",
            Fault::NodesApart { all: true } => "nodes_apart",
            Fault::Saturated { .. } => "saturated",
            Fault::Partition(Cut::Both) => "partition",
            Fault::Partition(Cut::Inbound | Cut::Outbound) => "one_way_partition",
            Fault::Partition(Cut::Flapping { .. }) => "flapping",
            Fault::SlowLinks { .. } => "slow_links",
            Fault::LossyLinks { .. } => "lossy_links",
            Fault::DiskError(DiskOp::Read) => "disk_read_error",
            Fault::DiskError(DiskOp::Write) => "disk_write_error",
            Fault::DiskError(DiskOp::Sync) => "disk_sync_error",
            Fault::DiskFull => "disk_full",
            Fault::DiskCrowded { .. } => "disk_crowded",
            Fault::DiskWears { unread: false, .. } => "disk_wears",
            Fault::DiskWears { .. } => "disk_wears_out",
            Fault::MemoryShort { .. } => "memory_short",
            Fault::SlowApply { .. } => "slow_apply",
            Fault::Astray { .. } => "astray",
            Fault::Deluded => "deluded",
            Fault::DiskSlow { .. } => "disk_slow",
            Fault::DiskHung => "disk_hung",
            Fault::DiskVanished => "disk_vanished",
            Fault::DiskReplaced => "disk_replaced",
            Fault::BitRot { files: Files::Shards, .. } | Fault::RotOfObjects { .. } => "rot_shard",
            Fault::BitRot { files: Files::Log, .. } => "rot_log",
            Fault::BitRot { files: Files::Vote, .. } => "rot_vote",
            Fault::BitRot { files: Files::Database, .. } => "rot_database",
            Fault::BitRot { files: Files::Snapshots, .. } => "rot_snapshot",
            Fault::Ruin(Files::Log) => "ruined_log",
            Fault::Ruin(_) => "ruined_database",
            Fault::MisdirectedWrite(_) => "misdirected_write",
            Fault::ClockJump { .. } => "clock_jump",
            Fault::ClockRate { .. } => "clock_rate",
            Fault::OperatorRestart { .. } => "operator_restart",
            Fault::OperatorPause => "operator_pause",
            Fault::OperatorChanges => "operator_changes",
            Fault::Asked { .. } => "asked",
            Fault::Tampered { in_step: true, .. } => "misapplied",
            Fault::Tampered { .. } => "tampering",
            Fault::Quiet => "quiet",
            Fault::IsolateInGrant { .. } => "trap_in_grant",
            Fault::KillInRecovery { .. } => "trap_in_recovery",
        }
    }

    /// Whether stored metadata is not what was written afterwards.
    pub(crate) fn damages_metadata(self, target: Target) -> bool {
        match self {
            Fault::BitRot { files, .. } | Fault::MisdirectedWrite(files) | Fault::Ruin(files) => files != Files::Shards,
            Fault::DiskReplaced => matches!(target, Target::MetaDisk(_)),
            _ => false,
        }
    }

    /// Whether it is nothing that goes wrong, but what people ask for, or do not.
    pub(crate) fn is_asked_for(self) -> bool {
        matches!(self, Fault::Quiet | Fault::OperatorChanges)
    }

    /// Whether an agent may take the disk out of service for it.
    pub(crate) fn ails_disk(self) -> bool {
        matches!(
            self,
            Fault::DiskError(_)
                | Fault::DiskFull
                | Fault::DiskHung
                | Fault::DiskVanished
                | Fault::DiskReplaced
                | Fault::DiskSlow { .. }
                | Fault::DiskWears { unread: true, .. }
                | Fault::BitRot { .. }
                | Fault::RotOfObjects { .. }
                | Fault::MisdirectedWrite(_)
        )
    }
}

#[cfg(test)]
mod tests;
