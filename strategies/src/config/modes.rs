//! The figures of the modes that are read from what nodes, hosts and peers say.
//!
//! A time whose documentation says *detection* is never scaled by the factor; the others are policy and are.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BadPolicy, secs};

macro_rules! figures {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $kind:tt = $value:expr),+ $(,)? }) => {
        figures!(@struct [$(#[$doc])*] $name [] $($(#[$fdoc])* $field: $kind = $value,)+);
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $value),+ }
            }
        }
    };
    (@struct [$($doc:tt)*] $name:ident [$($done:tt)*] $(#[$fdoc:meta])* $field:ident: time = $value:expr, $($rest:tt)*) => {
        figures!(@struct [$($doc)*] $name [$($done)* $(#[$fdoc])* #[serde(with = "humantime_serde")] #[schemars(with = "String")] pub $field: Duration,] $($rest)*);
    };
    (@struct [$($doc:tt)*] $name:ident [$($done:tt)*] $(#[$fdoc:meta])* $field:ident: count = $value:expr, $($rest:tt)*) => {
        figures!(@struct [$($doc)*] $name [$($done)* $(#[$fdoc])* pub $field: u32,] $($rest)*);
    };
    (@struct [$($doc:tt)*] $name:ident [$($done:tt)*]) => {
        $($doc)*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($done)* }
    };
}

figures! {
    /// `network_partition`.
    PartitionPolicy {
        /// Detection: hosts that this agent does not hear and somebody else does, for so long on top of the suspicion. Three lost
        /// answers in a row are no partition; a link that flaps is one only while it is gone.
        confirm_after: time = secs(10),
        /// Detection: without a leader, and without a majority of the voters heard, for so long: this is the minority side. As
        /// long as a conviction takes: an election is over by then.
        minority_after: time = secs(15),
        /// Detection: a node that hears no leader for so long, although another one leads, or although a majority of the voters'
        /// nodes run: they do not reach each other, however well their agents do. As long as a conviction takes.
        unled_after: time = secs(15),
        /// How long a try with fresh connections may take to help, before the next.
        reconnect_wait: time = secs(30),
        /// All hosts heard for so long before what was done is taken back: a link that flaps would open and close the door.
        healed_after: time = secs(10),
    }
}

figures! {
    /// `database_corruption` and `log_corruption`.
    DamagePolicy {
        /// Answers in a row in which the node says that it lost its vote, and by what: one may be of a node that is just ending.
        confirmations: count = 2,
        /// How long giving up a membership and coming back as a learner may take: the whole state is fetched.
        rejoin_deadline: time = secs(1800),
    }
}

figures! {
    /// `split_brain`.
    SplitBrainPolicy {
        /// Detection: a quorum must have acknowledged both leaders this long after both were seen to lead. The ages that agents tell
        /// are wrong by up to a heartbeat each, and a leader that was cut off gets no acknowledgement after that.
        overlap: time = secs(2),
        /// One writer per term for so long before the fence is taken back.
        settled_after: time = secs(30),
        /// How long the agents of the nodes concerned have before a person is asked to choose.
        human_after: time = secs(120),
    }
}

figures! {
    /// `term_divergence`.
    TermPolicy {
        /// Terms ahead of the leader's. An election takes one or two; a node that lost three in a row is still among those.
        ahead: count = 5,
        /// Rises of a node's term within `window`, while it stays above that of a leader with a quorum. Elections alone may be as many.
        rises: count = 3,
        /// Detection: the window of `rises`.
        window: time = secs(60),
        /// Detection: a term stays above the leader's for so long. A leader that is about to be elected at it is there sooner.
        confirm_after: time = secs(10),
        /// The term unchanged for so long is the proof, and takes the calming back.
        stable_for: time = secs(60),
        /// How long the calmed node has to follow before an election above all terms brings it back.
        align_after: time = secs(60),
        /// And how long after that before it gives its membership up.
        rejoin_after: time = secs(300),
    }
}

figures! {
    /// `state_divergence`.
    ReplicaPolicy {
        /// Comparisons, each as of a later entry, that call this member wrong: one may have met a change that was under way.
        looks: count = 2,
        /// Detection: a comparison older than this says nothing. Three of the times after which there is one by default (`interval`).
        good_for: time = secs(1800),
        /// How long mending a replica may take: records that differ, or the whole state.
        mend_deadline: time = secs(1800),
    }
}

figures! {
    /// `deadlock`, and a process that runs and does not answer.
    DeadlockPolicy {
        /// A canary is slow beyond so many times its baseline.
        canary_factor: count = 5,
        /// And beyond this, whatever the baseline: five times three milliseconds is one sync of a busy disk. Detection.
        canary_floor: time = secs(1),
        /// Canaries before there is a baseline. Fewer are no habit.
        baseline_samples: count = 20,
        /// Detection: no canary came through in time for so long, while heartbeats are fine.
        stuck_after: time = secs(30),
        /// Detection: a client operation this old is stuck. An upload over a slow line may take minutes.
        operation_limit: time = secs(600),
        /// Detection: a lock with waiters that is held for so long, and whose path does badly.
        lock_limit: time = secs(60),
        /// A lock of an owner that lives, held for so long, may be broken when a person approves.
        stuck_lock_after: time = secs(300),
        /// Detection: the process runs and no heartbeat was answered for so long. Ten times what makes a heartbeat missed: a node
        /// that replays its log, or waits for a saturated disk, answers by then.
        hung_after: time = secs(30),
        /// Detection: without any leader for so long, a hung voter may be restarted despite the storm brake.
        leaderless_after: time = secs(60),
        /// Per mille of all cores busy that is saturation: nothing above grade 1 is done about slowness then.
        saturated_cpu: count = 900,
        /// The same of time in which tasks wait for a core, memory or a disk (PSI).
        saturated_pressure: count = 500,
        /// How long one relief (an operation cancelled, a lock broken, leadership moved) has to help.
        relief_wait: time = secs(15),
        /// The canary's 99th percentile under its limit for so long is the proof.
        calm_for: time = secs(60),
        /// Detection: canaries, and looks at the host, older than this say nothing.
        good_for: time = secs(60),
    }
}

figures! {
    /// `resource_exhaustion`. Shares are in per mille.
    ResourcePolicy {
        /// Room used of a volume that calls for cleaning up. With a tenth left, a disk of any size has room for the cleaning itself.
        disk: count = 900,
        /// Room used at which the node takes no more writes: what is left is for the metadata's log and for repair.
        disk_full: count = 950,
        /// Inodes used: as for room.
        inodes: count = 900,
        /// Inodes used at which the node takes no more writes.
        inodes_full: count = 950,
        /// Memory used: background work pauses.
        memory: count = 900,
        /// Memory used at which leadership goes elsewhere before the kernel kills somebody.
        memory_full: count = 970,
        /// Descriptors used of what the process may have.
        descriptors: count = 800,
        /// Descriptors used at which leadership goes elsewhere.
        descriptors_full: count = 950,
        /// Time in which tasks wait for a core (PSI): background work pauses. Load alone is no failure, and nothing more is done.
        cpu_pressure: count = 600,
        /// Where the kernel tells no PSI: per mille of all cores busy, for as long (`cpu_confirm_after`). Higher than the one above,
        /// because work is no waiting: nobody has to wait before every core is busy, and a host of idle cores never comes here.
        cpu_busy: count = 970,
        /// So far under a threshold is back: else a node at the threshold would open and close its door.
        back: count = 50,
        /// Detection: over a threshold for so long.
        confirm_after: time = secs(30),
        /// Detection: tasks wait for a core (or every core is busy) for so long. A host may be busy for minutes, and that is what its cores are for; repair
        /// and scrub give way to clients by themselves meanwhile.
        cpu_confirm_after: time = secs(600),
        /// Well for so long before what was done is taken back.
        back_for: time = secs(30),
        /// A volume whose room or inodes are predicted to run out within this is cleaned up now; a process whose memory or
        /// descriptors are has its background work paused. Nothing more is done on a prediction. Detection.
        predicted_within: time = secs(3600),
        /// How long one cleaning has to help.
        relief_wait: time = secs(120),
        /// How long stopped writes have to help before a person is asked whether a disk is to be emptied.
        evacuate_after: time = secs(1800),
        /// Detection: looks at the host older than this say nothing.
        good_for: time = secs(180),
    }
}

figures! {
    /// `slow_follower`.
    LagPolicy {
        /// Entries committed and not applied here.
        entries: count = 64,
        /// Detection: and the oldest of them was committed so long ago. Both, because a burst is many entries for a moment, and a quiet
        /// cluster few for long.
        behind: time = secs(10),
        /// Detection: so for this long.
        confirm_after: time = secs(30),
        /// Detection: less than this behind is caught up.
        caught_up: time = secs(1),
        /// Caught up for so long is the proof, and gives the vote back.
        caught_up_for: time = secs(60),
        /// Detection: a write and a read through this node that take so many times as long as through the others' nodes at the median.
        answers_factor: count = 4,
        /// Detection: and longer than this. Below it nobody waits, and a small median is many times exceeded by one slow sync.
        answers_floor: time = Duration::from_millis(500),
        /// Detection: so for this long, on a host that is not saturated. Three times a load that is nobody's fault: slow answers
        /// harm less than what is done about them.
        answers_after: time = secs(180),
        /// Detection: what others' agents say of their canaries counts for so long; in a large cluster they are asked seldom.
        answers_good_for: time = secs(60),
        /// How long a relief has to help: an installed snapshot is caught up from in this time.
        relief_wait: time = secs(60),
    }
}

figures! {
    /// `clock_skew`. Offsets count beyond the error of the question that found them.
    ClockPolicy {
        /// Milliseconds from most peers' clocks that are told.
        warn_ms: count = 50,
        /// Milliseconds at which this agent gives the lease up: nothing is decided by wall time, but a host whose clock is this far
        /// off is not what it should be.
        give_up_ms: count = 500,
        /// Detection: off for so long. One question may have met a pause on its way back.
        confirm_after: time = secs(30),
        /// Back for so long is the end of it.
        back_for: time = secs(60),
        /// Detection: a peer's answer about its clock counts for so long.
        good_for: time = secs(60),
    }
}

figures! {
    /// `quorum_loss`.
    QuorumPolicy {
        /// Detection: a majority of the voters not reachable, and no leader named by anybody, for so long.
        lost_after: time = secs(60),
        /// A leader and a majority for so long is the end of it.
        back_for: time = secs(10),
        /// How long the dead members' own agents have to start them before the way back is written down for a person.
        human_after: time = secs(600),
    }
}

figures! {
    /// `disk_degrading`, and what a disk's own counters (SMART) mean. All of it is detection: nothing is scaled.
    SmartPolicy {
        /// Samples in a row, of different times, that must show lost data before a disk is emptied; and as many that are well end an
        /// incident. One may be a misread table, or another disk's.
        samples: count = 2,
        /// What the node failed to read on a disk, and a counter of lost data that grew, speak against it for so long: a day, in
        /// which the scrub and the daily load have been everywhere that is in use. What was lost before says nothing about now.
        errors_within: time = secs(24 * 3600),
        /// So many reads of the node that failed, and shards that it found corrupt, in that time. One: two samples of the counters stand beside it.
        errors: count = 1,
        /// More reallocated sectors than this, and a disk fails (from one on it degrades). A hundred is beyond one scratch or one bad
        /// flash block, and far below the thousands of spares after which a vendor's own threshold speaks.
        reallocated_failing: count = 100,
        /// More grown defects than this, and a SAS disk fails (from one on it degrades): the same thing by another name; lists of a
        /// few are shipped and live long.
        grown_defects_failing: count = 100,
        /// Per cent of its rated life used at which a disk degrades. The vendor's promise ends at 100; flash often goes on, on
        /// nobody's word.
        percentage_used_degrading: count = 100,
        /// Per cent of life left, by a flash disk's own attribute, at which it degrades. Normalised values stop at 1.
        wear_left_degrading: count = 1,
        /// A sample is stale, and its disk unknown, after so many of the times after which there is a look (`interval`). With the
        /// default an hour, twice the half hour of the timer in docs/smart.md: one missed run is no alarm.
        stale_intervals: count = 6,
        /// Nothing is stale sooner, however often is looked: what writes the files is no faster.
        stale_at_least: time = secs(60),
        /// How long `agent.smart.command` may take for a disk: one that hangs answers a command after half a minute, or not at all.
        command_deadline: time = secs(30),
    }
}

/// What every figure of these modes has to keep.
pub(super) fn check(policy: &super::PolicyConfig) -> Result<(), BadPolicy> {
    let bad = |key, value: String, want| Err(BadPolicy { key, value, want });
    let heartbeat = policy.detection.heartbeat;
    let two = "at least two heartbeats expected: less is one late answer";
    for (key, time) in [
        ("partition.confirm_after", policy.partition.confirm_after),
        ("partition.minority_after", policy.partition.minority_after),
        ("partition.unled_after", policy.partition.unled_after),
        ("split_brain.overlap", policy.split_brain.overlap),
        ("terms.confirm_after", policy.terms.confirm_after),
        ("deadlock.stuck_after", policy.deadlock.stuck_after),
        ("deadlock.hung_after", policy.deadlock.hung_after),
        ("deadlock.leaderless_after", policy.deadlock.leaderless_after),
        ("lag.confirm_after", policy.lag.confirm_after),
        ("lag.behind", policy.lag.behind),
        ("lag.answers_after", policy.lag.answers_after),
        ("clock.confirm_after", policy.clock.confirm_after),
        ("resources.confirm_after", policy.resources.confirm_after),
        ("resources.cpu_confirm_after", policy.resources.cpu_confirm_after),
        ("quorum.lost_after", policy.quorum.lost_after),
    ] {
        if time < heartbeat * 2 {
            return bad(key, format!("{time:?}"), two);
        }
    }
    let confirmed = "at least 2 expected: one reading is no evidence";
    for (key, count) in [
        ("damage.confirmations", policy.damage.confirmations),
        ("replicas.looks", policy.replicas.looks),
        ("terms.ahead", policy.terms.ahead),
        ("terms.rises", policy.terms.rises),
        ("deadlock.canary_factor", policy.deadlock.canary_factor),
        ("deadlock.baseline_samples", policy.deadlock.baseline_samples),
    ] {
        if count < 2 {
            return bad(key, count.to_string(), confirmed);
        }
    }
    if policy.deadlock.hung_after < heartbeat * policy.detection.missed_heartbeats {
        let want = "at least detection.missed_heartbeats heartbeats expected";
        return bad("deadlock.hung_after", format!("{:?}", policy.deadlock.hung_after), want);
    }
    if policy.clock.give_up_ms <= policy.clock.warn_ms {
        return bad("clock.give_up_ms", policy.clock.give_up_ms.to_string(), "more than clock.warn_ms expected");
    }
    let resources = &policy.resources;
    for (key, value, full) in [
        ("resources.disk", resources.disk, resources.disk_full),
        ("resources.inodes", resources.inodes, resources.inodes_full),
        ("resources.memory", resources.memory, resources.memory_full),
        ("resources.descriptors", resources.descriptors, resources.descriptors_full),
        ("resources.cpu_pressure", resources.cpu_pressure, 1000),
        ("resources.cpu_busy", resources.cpu_busy, 1000),
    ] {
        if value <= resources.back || value > full || full > 1000 {
            let want =
                "per mille expected: more than resources.back, and no more than its _full, which is at most 1000";
            return bad(key, format!("{value} (full: {full})"), want);
        }
    }
    Ok(())
}

impl SmartPolicy {
    /// Figures by which a disk would be called ill that is well, or one sample be believed alone.
    ///
    /// # Errors
    /// The first key that is wrong.
    pub(super) fn check(&self) -> Result<(), BadPolicy> {
        let bad = |key, value: String, want| Err(BadPolicy { key, value, want });
        let hours = |count: u64| secs(count * 3600);
        for (key, count, allowed, want) in [
            ("smart.samples", self.samples, 2..=100, "2 to 100 expected: one sample is no evidence"),
            ("smart.errors", self.errors, 1..=1_000_000, "at least 1 expected: SMART alone empties no disk"),
            (
                "smart.percentage_used_degrading",
                self.percentage_used_degrading,
                1..=255,
                "per cent, 1 to 255 expected: a new disk has used 0, and none tells more than 255",
            ),
            (
                "smart.wear_left_degrading",
                self.wear_left_degrading,
                0..=99,
                "per cent, 0 to 99 expected: a new disk has 100 left",
            ),
            ("smart.stale_intervals", self.stale_intervals, 2..=1000, "2 to 1000 expected: one look may be missed"),
        ] {
            if !allowed.contains(&count) {
                return bad(key, count.to_string(), want);
            }
        }
        for (key, time, allowed, want) in [
            ("smart.errors_within", self.errors_within, secs(60)..=hours(30 * 24), "1m to 30d expected"),
            ("smart.stale_at_least", self.stale_at_least, secs(1)..=hours(24), "1s to 1d expected"),
            ("smart.command_deadline", self.command_deadline, secs(1)..=secs(600), "1s to 10m expected"),
        ] {
            if !allowed.contains(&time) {
                return bad(key, format!("{time:?}"), want);
            }
        }
        Ok(())
    }
}
