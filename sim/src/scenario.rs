//! The scenarios: which faults are mixed, how many, for how long, and what the end may look like.
//!
//! Owns: the table. Must never: hold code that runs: a scenario is data, so that a new one is a new row.

mod modes;
mod treatment;

use std::time::Duration;

use crate::cluster::Watching;
use crate::plan::Class;

pub(crate) use self::treatment::{FoundBy, Heals, Treatment};

/// What redundancy has to bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// No more than it can: everything acknowledged must be there in the end, and everything must be whole again.
    Redundancy,
    /// What is drawn, without a budget: a majority of the voters, or all metadata, is lost for good at a moment when nothing is
    /// being written, or all power fails at once. What was acknowledged must be there, and all be whole again.
    Quorum,
    /// More than it can: no wrong answer and a clear refusal are demanded, not an answer.
    Beyond,
}

impl Bounds {
    /// Whether everything must be well in the end.
    pub(crate) fn must_heal(self) -> bool {
        self != Bounds::Beyond
    }
}

/// What clients may notice who ask machines that no fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    /// Refusals, and waits as long as their patience. What they are told must be true all the same.
    MayWait,
    /// Nothing: `clients_unharmed` (`sim/src/run/unharmed.rs`) holds. One fault at a time only, or it says little.
    Unharmed,
    /// That it takes longer, through whatever machine they ask, the struck one as well; no error.
    Served,
}

/// What agents may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agents {
    /// What the general rules allow.
    MayAct,
    /// Nothing: `nothing_overdone` (`sim/src/run/overdone.rs`) allows no step and no incident.
    Idle,
    /// One incident for each loss of power, its marks, the start of the node, and an emergency from the third on.
    OnceEach,
    /// What this table has, in time: `treated` (`sim/src/run/treated.rs`) holds.
    Treat(&'static [Treatment]),
}

impl Agents {
    /// How closely agents look.
    pub(crate) fn watching(self) -> Watching {
        let Agents::Treat(table) = self else { return Watching::default() };
        let compare_every = table.iter().find_map(|row| row.compare_every_s).map(Duration::from_secs);
        let (smart, cascade) = (table.iter().any(|row| row.smart), table.iter().any(|row| row.cascade));
        let reread_every = table.iter().find_map(|row| row.reread_every_s).map(Duration::from_secs);
        Watching { compare_every, reread_every, smart, cascade }
    }
}

/// When somebody is there who restarts what was given up, and brings back who lost his vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnCall {
    /// Once the faults are over.
    Afterwards,
    /// All the time: what a person orders is struck by faults, too.
    Throughout,
}

/// A kind of run.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) about: &'static str,
    /// Faults and their weights.
    pub(crate) mix: &'static [(Class, u32)],
    /// How many faults, at least and at most.
    pub(crate) faults: (u32, u32),
    /// How long the safety phase lasts, at least and at most.
    pub(crate) safety_seconds: (u64, u64),
    /// What redundancy has to bear.
    pub(crate) bounds: Bounds,
    /// What clients may notice.
    pub(crate) clients: Clients,
    /// What agents may do.
    pub(crate) agents: Agents,
    /// When a person is on call.
    pub(crate) on_call: OnCall,
    /// What the end may look like, for people: what the product cannot mend by itself yet.
    pub(crate) accounts: &'static str,
}

const NOTHING: &str = "nothing";
const DISKS: &str = "a disk that an injected fault struck may stay out of service; its shards are elsewhere by then";

/// Those that mix faults.
const MIXES: &[Scenario] = &[
    Scenario {
        name: "calm",
        about: "no faults: no step may be taken, no incident opened",
        mix: &[],
        faults: (0, 0),
        safety_seconds: (20, 30),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "mixed",
        about: "a bit of everything that redundancy bears",
        mix: &[
            (Class::KillNode, 6),
            (Class::KillAgent, 5),
            (Class::KillKeeper, 2),
            (Class::KillAll, 3),
            (Class::KillAtOp, 6),
            (Class::Power, 6),
            (Class::FreezeNode, 4),
            (Class::FreezeAgent, 3),
            (Class::Partition, 4),
            (Class::OneWay, 4),
            (Class::Flapping, 3),
            (Class::IsolateLeader, 4),
            (Class::FreezeLeader, 2),
            (Class::FreezeHolder, 2),
            (Class::SlowLinks, 3),
            (Class::LossyLinks, 3),
            (Class::DiskError, 3),
            (Class::DiskFull, 2),
            (Class::DiskSlow, 3),
            (Class::DiskHung, 2),
            (Class::DiskVanished, 3),
            (Class::DiskReplaced, 2),
            (Class::RotShards, 4),
            (Class::MisdirectShard, 2),
            (Class::MetaError, 2),
            (Class::MetaTrouble, 2),
            (Class::RotMeta, 1),
            (Class::AgentDisk, 2),
            (Class::ClockJump, 4),
            (Class::ClockRate, 3),
            (Class::OperatorRestart, 3),
            (Class::OperatorPause, 2),
            (Class::KillInRecovery, 4),
        ],
        faults: (3, 9),
        safety_seconds: (20, 35),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: DISKS,
    },
    Scenario {
        name: "crashes",
        about: "processes are killed, at any await and at any disk operation",
        mix: &[
            (Class::KillNode, 4),
            (Class::KillAgent, 3),
            (Class::KillKeeper, 2),
            (Class::KillAll, 3),
            (Class::KillAtOp, 8),
        ],
        faults: (4, 10),
        safety_seconds: (20, 35),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "power",
        about: "machines lose power: what was not synced is lost or torn",
        mix: &[(Class::Power, 8), (Class::KillAtOp, 2), (Class::KillAll, 1)],
        faults: (3, 8),
        safety_seconds: (20, 35),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "blackout",
        about: "all machines lose power in the same moment: whatever was not synced is lost or torn everywhere",
        mix: &[(Class::Blackout, 1)],
        faults: (1, 2),
        safety_seconds: (25, 35),
        bounds: Bounds::Quorum,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "partitions",
        about: "links are cut, in one direction or both, flap, lose and delay",
        mix: &[
            (Class::Partition, 4),
            (Class::OneWay, 4),
            (Class::Flapping, 3),
            (Class::IsolateLeader, 4),
            (Class::IsolateHolder, 2),
            (Class::SlowLinks, 3),
            (Class::LossyLinks, 3),
        ],
        faults: (3, 8),
        safety_seconds: (20, 40),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "disks",
        about: "data disks fail, hang, fill up, rot, vanish and are replaced",
        mix: &[
            (Class::DiskError, 4),
            (Class::DiskFull, 3),
            (Class::DiskSlow, 3),
            (Class::DiskHung, 3),
            (Class::DiskVanished, 4),
            (Class::DiskReplaced, 3),
            (Class::RotShards, 6),
            (Class::MisdirectShard, 3),
            (Class::KillNode, 1),
            (Class::Power, 1),
        ],
        faults: (2, 6),
        safety_seconds: (20, 35),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: DISKS,
    },
    Scenario {
        name: "disk-verbs",
        about: "people empty, give up, add, replace and remove disks, twice and several at once, and nodes end in the middle",
        mix: &[
            (Class::DrainDisk, 5),
            (Class::FailDisk, 3),
            (Class::FailDisks, 3),
            (Class::AddDisk, 5),
            (Class::ReplaceDisk, 3),
            (Class::RemoveDisk, 4),
            (Class::KillNode, 1),
            (Class::Power, 1),
        ],
        faults: (2, 4),
        safety_seconds: (20, 30),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: "as `disks`; a disk that a person gave up stays so, and nothing is on it any more",
    },
    Scenario {
        name: "metadata",
        about: "log, vote, database and snapshots rot, are written over, their disk fails, and members are brought back under fire",
        mix: &[
            (Class::RotMeta, 6),
            (Class::MisdirectMeta, 3),
            (Class::MetaError, 4),
            (Class::MetaTrouble, 3),
            (Class::KillNode, 4),
            (Class::Power, 3),
            (Class::KillAtOp, 4),
            (Class::IsolateLeader, 2),
        ],
        faults: (2, 6),
        safety_seconds: (20, 35),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Throughout,
        accounts: NOTHING,
    },
    Scenario {
        name: "resync",
        about: "members' metadata is tampered with, and people compare and mend it while nodes end",
        mix: &[(Class::TamperMeta, 8), (Class::KillNode, 2), (Class::Power, 1), (Class::IsolateLeader, 1)],
        faults: (2, 4),
        safety_seconds: (20, 30),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "quorum",
        about: "two of three voters lose their metadata for good, and people recover the quorum while nodes end",
        mix: &[(Class::LoseQuorum, 1)],
        faults: (1, 1),
        safety_seconds: (50, 55),
        bounds: Bounds::Quorum,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Throughout,
        accounts: NOTHING,
    },
    Scenario {
        name: "restore",
        about: "all nodes lose their metadata for good, and people restore a backup of it while nodes end",
        mix: &[(Class::LoseAll, 1)],
        faults: (1, 1),
        safety_seconds: (50, 55),
        bounds: Bounds::Quorum,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Throughout,
        accounts: NOTHING,
    },
    Scenario {
        name: "leaders",
        about: "two agents that both think they lead, and leaders of Raft that sleep through their term",
        mix: &[
            (Class::FreezeHolder, 5),
            (Class::IsolateHolder, 4),
            (Class::FreezeLeader, 3),
            (Class::IsolateLeader, 3),
            (Class::KillNode, 4),
            (Class::FreezeNode, 3),
            (Class::KillAgent, 2),
            (Class::OperatorRestart, 8),
            (Class::IsolateInGrant, 6),
            (Class::LongPower, 3),
            (Class::OperatorPause, 2),
        ],
        faults: (4, 8),
        safety_seconds: (30, 40),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "clocks",
        about: "wall clocks jump, clocks run fast and slow",
        mix: &[
            (Class::ClockJump, 6),
            (Class::ClockRate, 5),
            (Class::KillNode, 2),
            (Class::FreezeHolder, 2),
            (Class::KillAgent, 1),
        ],
        faults: (4, 10),
        safety_seconds: (20, 35),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "recovery",
        about: "agents are killed at each step of a recovery",
        mix: &[
            (Class::KillInRecovery, 8),
            (Class::KillNode, 3),
            (Class::DiskVanished, 1),
            (Class::RotShards, 1),
            (Class::OperatorRestart, 2),
        ],
        faults: (2, 5),
        safety_seconds: (25, 40),
        bounds: Bounds::Redundancy,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: DISKS,
    },
    Scenario {
        name: "lost-peer",
        about: "one machine falls silent, or one disk hangs: clients of the others see no error and no stall",
        mix: &[
            (Class::Power, 4),
            (Class::Gone, 4),
            (Class::FreezeNode, 2),
            (Class::Partition, 2),
            (Class::OneWay, 3),
            (Class::LossyLinks, 2),
            (Class::DiskHung, 3),
        ],
        faults: (1, 1),
        safety_seconds: (30, 40),
        bounds: Bounds::Redundancy,
        clients: Clients::Unharmed,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: DISKS,
    },
    Scenario {
        name: "thrice",
        about: "one machine loses its power three times: one incident each, an emergency at the third, nothing rebuilt",
        mix: &[(Class::Thrice, 1)],
        faults: (1, 1),
        safety_seconds: (130, 135),
        bounds: Bounds::Redundancy,
        clients: Clients::Unharmed,
        agents: Agents::OnceEach,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "saturated",
        about: "a machine's processor is taken by something else: it is slow, and nobody takes it for dead",
        mix: &[(Class::Saturated, 1)],
        faults: (1, 1),
        safety_seconds: (30, 40),
        bounds: Bounds::Redundancy,
        clients: Clients::Served,
        agents: Agents::Idle,
        on_call: OnCall::Afterwards,
        accounts: NOTHING,
    },
    Scenario {
        name: "beyond",
        about: "more damage than redundancy bears: no wrong answer, a clear refusal",
        mix: &[
            (Class::DiskReplaced, 4),
            (Class::RotShards, 6),
            (Class::DiskVanished, 4),
            (Class::Power, 4),
            (Class::Partition, 4),
            (Class::KillAll, 3),
            (Class::RotMeta, 2),
            (Class::DiskError, 3),
            (Class::MisdirectShard, 3),
        ],
        faults: (8, 16),
        safety_seconds: (20, 30),
        bounds: Bounds::Beyond,
        clients: Clients::MayWait,
        agents: Agents::MayAct,
        on_call: OnCall::Afterwards,
        accounts: "reads may be refused and the cluster may stay unhealthy; an answer must be a right one",
    },
];

/// All scenarios.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    MIXES.iter().chain(modes::SCENARIOS)
}

/// The scenario of this name.
pub(crate) fn find(name: &str) -> Option<&'static Scenario> {
    all().find(|scenario| scenario.name == name)
}
