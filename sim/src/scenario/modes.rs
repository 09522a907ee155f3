//! One scenario for each failure mode that takes long to see, and what agents must do about it.
//!
//! Times are detection's (`strategies/src/config/modes.rs`), which no profile scales, and what a look, a heartbeat and an answer
//! may take on top.

use super::{Agents, Bounds, Clients, DISKS, FoundBy, Heals, NOTHING, OnCall, Scenario, Treatment};
use crate::plan::{Class, Kind};

/// What is the same in all of them: one fault, that clients may notice, and that must be over in the end.
const ONE: Scenario = Scenario {
    name: "",
    about: "",
    mix: &[],
    faults: (1, 1),
    safety_seconds: (0, 0),
    bounds: Bounds::Redundancy,
    clients: Clients::MayWait,
    agents: Agents::MayAct,
    on_call: OnCall::Afterwards,
    accounts: NOTHING,
};

/// A disk that fails for good.
const DISK_DIES: Treatment = Treatment {
    mode: "disk_failure",
    within_s: 20,
    first: &["throttle"],
    steps: &["throttle", "detach_disk", "repair_shards"],
    must: &["throttle", "detach_disk", "repair_shards"],
    heals: Heals::Itself(60),
    ..Treatment::NONE
};

/// A member whose metadata is lost, with whatever of it.
const REJOINS: Treatment = Treatment {
    // At the next start, which comes at once, or when it reads back what it has stored.
    within_s: 16,
    first: &["rejoin_learner"],
    steps: &["rejoin_learner"],
    must: &["rejoin_learner"],
    // Its process ended first.
    also: &["process_crash"],
    aside: &["start_node"],
    heals: Heals::Itself(50),
    reread_every_s: Some(10),
    ..Treatment::NONE
};

/// What is done about voters that are gone, by those that are left, and once they are back.
const ABOUT_VOTERS: &[&str] =
    &["mark_down", "mark_up", "start_node", "reclaim connections", "set_mode read_only", "set_mode read_write"];

/// The scenarios.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "slow-follower",
        about: "a voter that does not lead applies entries far too slowly, for over a minute",
        mix: &[(Class::Lasting(Kind::SlowFollower), 1)],
        safety_seconds: (80, 84),
        agents: Agents::Treat(&[Treatment {
            fault: "slow_apply",
            mode: "slow_follower",
            within_s: 58,
            first: &["throttle on"],
            steps: &[
                "throttle on",
                "throttle off",
                "set_mode quiet",
                "set_mode standing",
                "install_snapshot",
                "demote",
                "promote",
            ],
            must: &["throttle on", "throttle off", "set_mode quiet", "set_mode standing"],
            // Its canaries do not come through either: found, and refused for want of a second source.
            also: &["deadlock"],
            heals: Heals::AfterFault(60),
            ..Treatment::NONE
        }]),
        ..ONE
    },
    Scenario {
        name: "state-divergence",
        about: "a member applies an entry wrongly; agents compare every 15 s and mend it by themselves",
        mix: &[(Class::Lasting(Kind::Misapplied), 1)],
        safety_seconds: (50, 54),
        agents: Agents::Treat(&[Treatment {
            fault: "misapplied",
            mode: "state_divergence",
            within_s: 45,
            first: &["resync", "step_down"],
            steps: &["resync", "step_down"],
            must: &["resync"],
            heals: Heals::Itself(60),
            compare_every_s: Some(15),
            ..Treatment::NONE
        }]),
        ..ONE
    },
    Scenario {
        name: "resource-exhaustion",
        about: "something else takes the room of a disk, or the memory of a machine, for a minute",
        mix: &[(Class::Lasting(Kind::Crowded), 1), (Class::Lasting(Kind::MemoryShort), 1)],
        safety_seconds: (66, 70),
        agents: Agents::Treat(&[
            Treatment {
                fault: "disk_crowded",
                mode: "resource_exhaustion",
                within_s: 52,
                first: &["reclaim space"],
                steps: &["reclaim space", "throttle on", "throttle off", "set_mode read_only", "set_mode read_write"],
                must: &["reclaim space", "throttle on", "throttle off"],
                heals: Heals::AfterFault(45),
                ..Treatment::NONE
            },
            Treatment {
                fault: "memory_short",
                mode: "resource_exhaustion",
                within_s: 48,
                first: &["throttle on"],
                steps: &["throttle on", "throttle off", "step_down"],
                must: &["throttle on", "throttle off"],
                heals: Heals::AfterFault(45),
                ..Treatment::NONE
            },
        ]),
        ..ONE
    },
    Scenario {
        name: "network-partition",
        about: "two machines do not reach each other, or one is cut off until it calls itself the minority, or nodes are and agents \
                are not",
        mix: &[
            (Class::Lasting(Kind::Apart), 2),
            (Class::Lasting(Kind::Minority), 1),
            (Class::Lasting(Kind::NodesApart), 2),
        ],
        safety_seconds: (38, 42),
        agents: Agents::Treat(&[
            Treatment {
                fault: "apart",
                mode: "network_partition",
                found_by: FoundBy::Ends,
                within_s: 18,
                first: &["reclaim connections"],
                steps: &["reclaim connections"],
                heals: Heals::AfterFault(30),
                ..Treatment::NONE
            },
            Treatment {
                fault: "partition",
                mode: "network_partition",
                found_by: FoundBy::Alone,
                within_s: 22,
                first: &["reclaim connections"],
                steps: &["reclaim connections", "set_mode read_only", "set_mode read_write"],
                must: &["set_mode read_only", "set_mode read_write"],
                // To all others it is a host that is down.
                also: &["host_down"],
                aside: &["mark_down", "mark_up"],
                heals: Heals::AfterFault(45),
                ..Treatment::NONE
            },
            // To the agents everybody is there: its node hears no leader.
            Treatment {
                fault: "node_apart",
                mode: "network_partition",
                found_by: FoundBy::Alone,
                within_s: 24,
                first: &["reclaim connections"],
                steps: &["reclaim connections", "set_mode read_only", "set_mode read_write"],
                heals: Heals::AfterFault(45),
                ..Treatment::NONE
            },
            // Nobody leads, and nobody is gone.
            Treatment {
                fault: "nodes_apart",
                mode: "network_partition",
                found_by: FoundBy::Ends,
                within_s: 24,
                first: &["reclaim connections"],
                steps: &["reclaim connections"],
                heals: Heals::AfterFault(45),
                ..Treatment::NONE
            },
        ]),
        ..ONE
    },
    Scenario {
        name: "clock-skew",
        about: "a wall clock jumps and stays wrong for most of a minute",
        mix: &[(Class::Lasting(Kind::WrongClock), 1)],
        safety_seconds: (70, 72),
        agents: Agents::Treat(&[Treatment {
            fault: "clock_jump",
            mode: "clock_skew",
            within_s: 36,
            heals: Heals::AfterFault(20),
            ..Treatment::NONE
        }]),
        ..ONE
    },
    Scenario {
        name: "deadlock",
        about: "a node hangs, and nobody stopped it",
        mix: &[(Class::Lasting(Kind::Hang), 1)],
        safety_seconds: (64, 68),
        agents: Agents::Treat(&[Treatment {
            fault: "hang_node",
            mode: "deadlock",
            within_s: 38,
            first: &["restart_node"],
            steps: &["restart_node"],
            heals: Heals::Itself(80),
            ..Treatment::NONE
        }]),
        ..ONE
    },
    Scenario {
        name: "disk-degrading",
        about: "a disk's own counters show sectors that cannot be read; in half of the runs its node fails to read there, too",
        mix: &[(Class::Lasting(Kind::Wears), 1), (Class::Lasting(Kind::WearsOut), 1)],
        safety_seconds: (76, 80),
        agents: Agents::Treat(&[
            // By its counters alone nothing is done to a disk.
            Treatment {
                fault: "disk_wears",
                mode: "disk_degrading",
                within_s: 24,
                heals: Heals::AfterFault(40),
                smart: true,
                ..Treatment::NONE
            },
            Treatment {
                fault: "disk_wears_out",
                mode: "disk_degrading",
                within_s: 24,
                first: &["evacuate_disk"],
                steps: &["evacuate_disk", "repair_shards"],
                must: &["evacuate_disk", "repair_shards"],
                // What could not be read is damage, too.
                also: &["data_corruption"],
                aside: &["repair_shards"],
                heals: Heals::Itself(70),
                smart: true,
                ..Treatment::NONE
            },
        ]),
        ..ONE
    },
    Scenario {
        name: "term-divergence",
        about: "a voter takes no leader's word and raises its term alone, as a Raft does that asks nobody before it stands",
        mix: &[(Class::Lasting(Kind::Astray), 1)],
        safety_seconds: (66, 70),
        agents: Agents::Treat(&[Treatment {
            fault: "astray",
            mode: "term_divergence",
            within_s: 30,
            first: &["set_mode quiet"],
            steps: &["set_mode quiet", "set_mode standing", "rejoin_learner"],
            // The leader's agent has an election held above the highest term.
            elsewhere: &["align_term"],
            must: &["set_mode quiet"],
            // One that gives its membership up goes on in another process, which was told nothing.
            also: &["term_divergence", "process_crash"],
            aside: &["start_node"],
            heals: Heals::AfterFault(60),
            ..Treatment::NONE
        }]),
        ..ONE
    },
    Scenario {
        name: "split-brain",
        about: "a leader tells nobody any more, another one is elected, and the first takes itself for the leader still",
        mix: &[(Class::Lasting(Kind::SecondLeader), 1)],
        safety_seconds: (74, 78),
        agents: Agents::Treat(&[Treatment {
            fault: "deluded",
            mode: "split_brain",
            within_s: 12,
            first: &["set_mode isolated"],
            steps: &["set_mode isolated", "set_mode read_write", "step_down", "restart_node"],
            // Its next process serves: what the one before was told is over.
            must: &["set_mode isolated", "step_down", "restart_node"],
            // All others see it as well, and leave it to the agent of the lower term.
            also: &["split_brain"],
            heals: Heals::Itself(70),
            ..Treatment::NONE
        }]),
        ..ONE
    },
    Scenario {
        name: "cascading-failure",
        about: "as `quorum-loss`, somebody changes a bucket, and an operator's pattern says what follows: no locks, no uploads",
        mix: &[(Class::Lasting(Kind::Dragged), 1)],
        safety_seconds: (94, 98),
        bounds: Bounds::Quorum,
        agents: Agents::Treat(&[Treatment {
            fault: "power_off",
            mode: "cascading_failure",
            found_by: FoundBy::Holder,
            within_s: 72,
            also: &["quorum_loss", "host_down", "process_crash", "network_partition"],
            aside: ABOUT_VOTERS,
            heals: Heals::AfterFault(90),
            cascade: true,
            ..Treatment::NONE
        }]),
        ..ONE
    },
    Scenario {
        name: "process-crash",
        about: "a node's process ends, or all processes of a machine, the leader's among them",
        mix: &[(Class::Lasting(Kind::Crash), 1)],
        safety_seconds: (20, 24),
        agents: Agents::Treat(&[
            Treatment {
                fault: "kill_node",
                mode: "process_crash",
                within_s: 1,
                first: &["start_node"],
                steps: &["start_node"],
                must: &["start_node"],
                heals: Heals::Itself(8),
                ..Treatment::NONE
            },
            // Once init has started the agent again.
            Treatment {
                fault: "kill_all",
                mode: "process_crash",
                within_s: 6,
                first: &["start_node"],
                steps: &["start_node"],
                must: &["start_node"],
                heals: Heals::Itself(8),
                ..Treatment::NONE
            },
        ]),
        ..ONE
    },
    Scenario {
        name: "host-down",
        about: "a machine loses its power, the lease's holder among them, until the others have rebuilt what it held",
        mix: &[(Class::Lasting(Kind::Gone), 1)],
        safety_seconds: (76, 80),
        agents: Agents::Treat(&[Treatment {
            fault: "power_off",
            mode: "host_down",
            found_by: FoundBy::Holder,
            within_s: 34,
            first: &["mark_down"],
            steps: &["mark_down", "evacuate_host", "mark_up"],
            must: &["mark_down", "evacuate_host"],
            // Its own agent starts its node once the power is back.
            also: &["process_crash"],
            aside: &["start_node"],
            heals: Heals::AfterFault(30),
            ..Treatment::NONE
        }]),
        ..ONE
    },
    Scenario {
        name: "disk-failure",
        about: "a disk's reads, writes or syncs fail, it hangs, or it is gone, until it was given up and rebuilt",
        mix: &[(Class::Lasting(Kind::DiskDies), 1)],
        safety_seconds: (64, 68),
        agents: Agents::Treat(&[
            Treatment { fault: "disk_read_error", also: &["data_corruption"], ..DISK_DIES },
            Treatment { fault: "disk_write_error", ..DISK_DIES },
            Treatment { fault: "disk_sync_error", ..DISK_DIES },
            Treatment { fault: "disk_hung", ..DISK_DIES },
            Treatment { fault: "disk_vanished", ..DISK_DIES },
        ]),
        accounts: DISKS,
        ..ONE
    },
    Scenario {
        name: "data-corruption",
        about: "bits of shards flip: scrub finds them, and they are rebuilt from what is good",
        mix: &[(Class::Lasting(Kind::Rot), 1)],
        safety_seconds: (50, 54),
        agents: Agents::Treat(&[Treatment {
            fault: "rot_shard",
            mode: "data_corruption",
            within_s: 30,
            // The node may have mended it before anybody had to ask for it.
            first: &["none", "repair_shards"],
            steps: &["repair_shards"],
            heals: Heals::Itself(20),
            ..Treatment::NONE
        }]),
        ..ONE
    },
    Scenario {
        name: "log-corruption",
        about: "a node's log is rotten from end to end, and in half of the runs it ends: it comes back as a learner",
        mix: &[(Class::Lasting(Kind::RuinedLog), 1)],
        safety_seconds: (60, 64),
        agents: Agents::Treat(&[Treatment { fault: "ruined_log", mode: "log_corruption", ..REJOINS }]),
        ..ONE
    },
    Scenario {
        name: "database-corruption",
        about: "a node's database is rotten from end to end, and in half of the runs it ends: it comes back as a learner",
        mix: &[(Class::Lasting(Kind::RuinedDatabase), 1)],
        safety_seconds: (60, 64),
        agents: Agents::Treat(&[Treatment { fault: "ruined_database", mode: "database_corruption", ..REJOINS }]),
        ..ONE
    },
    Scenario {
        name: "quorum-loss",
        about: "two of three voters lose power for longer than a minute, and come back",
        mix: &[(Class::Lasting(Kind::TwoVoters), 1)],
        safety_seconds: (94, 98),
        bounds: Bounds::Quorum,
        agents: Agents::Treat(&[Treatment {
            fault: "power_off",
            mode: "quorum_loss",
            found_by: FoundBy::Others,
            within_s: 72,
            also: &["host_down", "process_crash", "network_partition"],
            aside: ABOUT_VOTERS,
            heals: Heals::AfterFault(60),
            ..Treatment::NONE
        }]),
        ..ONE
    },
];
