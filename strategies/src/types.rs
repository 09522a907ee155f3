//! The words every other module uses: time, modes, grades, actions, guards, fences.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Monotonic time of one agent process, since its start. Comes in with every input; decisions use nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub Duration);

impl Moment {
    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, later: Duration) -> Moment {
        Moment(self.0 + later)
    }
}

/// The present, as an input carries it: monotonic for decisions, wall for records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// For decisions.
    pub mono: Moment,
    /// For people: milliseconds since the Unix epoch.
    pub wall_ms: u64,
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All of them, in the order of the specification.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// The name used in code, records, metrics, runbooks and alert rules.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// A failure mode. One detector, one ladder, one runbook page each.
    Mode {
        /// The node's process ended or does not answer.
        ProcessCrash = "process_crash",
        /// A host is gone.
        HostDown = "host_down",
        /// Hosts live but cannot reach each other.
        NetworkPartition = "network_partition",
        /// The metadata database is damaged.
        DatabaseCorruption = "database_corruption",
        /// The Raft log is damaged.
        LogCorruption = "log_corruption",
        /// Two leaders, each with a fresh quorum.
        SplitBrain = "split_brain",
        /// Terms run away or went back.
        TermDivergence = "term_divergence",
        /// Replicas disagree at one index.
        StateDivergence = "state_divergence",
        /// Heartbeats without progress.
        Deadlock = "deadlock",
        /// Room, memory, descriptors or CPU run out.
        ResourceExhaustion = "resource_exhaustion",
        /// A follower lags.
        SlowFollower = "slow_follower",
        /// A disk is gone or fails.
        DiskFailure = "disk_failure",
        /// A disk is about to fail.
        DiskDegrading = "disk_degrading",
        /// A shard's checksum does not hold.
        DataCorruption = "data_corruption",
        /// A clock is off.
        ClockSkew = "clock_skew",
        /// No metadata quorum.
        QuorumLoss = "quorum_loss",
        /// One failure drags others along.
        CascadingFailure = "cascading_failure",
    }
}

impl Mode {
    /// Whether a line of one host's log can be evidence for it. Not for what is judged by comparing members or hosts, about which one
    /// of them has no say: another host, a leader, a term, the members' state, a quorum, a chain of failures.
    pub const fn is_told_by_logs(self) -> bool {
        match self {
            Mode::ProcessCrash
            | Mode::NetworkPartition
            | Mode::DatabaseCorruption
            | Mode::LogCorruption
            | Mode::Deadlock
            | Mode::ResourceExhaustion
            | Mode::SlowFollower
            | Mode::DiskFailure
            | Mode::DiskDegrading
            | Mode::DataCorruption
            | Mode::ClockSkew => true,
            Mode::HostDown
            | Mode::SplitBrain
            | Mode::TermDivergence
            | Mode::StateDivergence
            | Mode::QuorumLoss
            | Mode::CascadingFailure => false,
        }
    }
}

named! {
    /// What failed on the way of an operation: what a cascade is made of. A node tells all but the last; that one is the
    /// agent's own reading.
    FailureKind {
        /// The circuit to a peer opened.
        PeerUnreachable = "peer_unreachable",
        /// A lock was not had in time.
        LockTimeout = "lock_timeout",
        /// A disk did not say in time how it is.
        DiskStateCheckTimeout = "disk_state_check_timeout",
        /// Keys or configuration could not be read in time.
        AuthTimeout = "auth_timeout",
        /// An upload failed on the server's side.
        UploadFailure = "upload_failure",
        /// A node knows no leader while a quorum names one.
        FalseQuorumLoss = "false_quorum_loss",
    }
}

impl FailureKind {
    /// The modes that such failures grow into: their incidents are part of a cascade that has this kind.
    pub fn causes(self) -> &'static [Mode] {
        match self {
            FailureKind::PeerUnreachable => &[Mode::HostDown, Mode::NetworkPartition],
            FailureKind::LockTimeout => &[Mode::Deadlock],
            FailureKind::DiskStateCheckTimeout => &[Mode::DiskFailure, Mode::DiskDegrading],
            FailureKind::FalseQuorumLoss => &[Mode::QuorumLoss],
            FailureKind::AuthTimeout | FailureKind::UploadFailure => &[],
        }
    }
}

named! {
    /// How urgent an alert is.
    Severity {
        /// Wants a look.
        Critical = "critical",
        /// Wants a person now.
        Emergency = "emergency",
    }
}

named! {
    /// What the journal calls a step or a decision.
    Action {
        /// Starts a node that was dead.
        StartNode = "start_node",
        /// Restarts a live node.
        RestartNode = "restart_node",
        /// Moves leadership away.
        StepDown = "step_down",
        /// Starts an election.
        TriggerElection = "trigger_election",
        /// Elects above the highest term seen.
        AlignTerm = "align_term",
        /// Catches a replica up.
        Resync = "resync",
        /// Installs a snapshot.
        InstallSnapshot = "install_snapshot",
        /// Leaves as voter, comes back as learner.
        RejoinLearner = "rejoin_learner",
        /// Learner to voter.
        Promote = "promote",
        /// Voter to learner.
        Demote = "demote",
        /// Rebuilds lost or damaged shards.
        RepairShards = "repair_shards",
        /// Empties a disk.
        EvacuateDisk = "evacuate_disk",
        /// Empties a host.
        EvacuateHost = "evacuate_host",
        /// Takes a disk out of service, not the process.
        DetachDisk = "detach_disk",
        /// Cancels an operation.
        CancelOperation = "cancel_operation",
        /// Breaks a dead owner's lock.
        BreakLock = "break_lock",
        /// Frees room.
        Reclaim = "reclaim",
        /// Compacts.
        Compact = "compact",
        /// Slows background work, or stops new writes to a disk.
        Throttle = "throttle",
        /// Cuts a torn tail.
        TruncateLog = "truncate_log",
        /// Read-write, read-only or isolated.
        SetMode = "set_mode",
        /// From a backup.
        RestoreBackup = "restore_backup",
        /// After a person chose.
        RecoverSplitBrain = "recover_split_brain",
        /// Forces a quorum.
        RecoverQuorum = "recover_quorum",
        /// Decided not to act.
        Skip = "skip",
        /// Told somebody.
        Alert = "alert",
        /// An operator paused the agent.
        Pause = "pause",
        /// The pause ended.
        Resume = "resume",
        /// A person approved.
        Approve = "approve",
        /// Says in the cluster map that a host is down.
        MarkDown = "mark_down",
        /// Takes an agent's mark back: the host is there again.
        MarkUp = "mark_up",
    }
}

named! {
    /// What may hold a step back. Each refusal is recorded under its name.
    GuardName {
        /// Evidence no older than two probe intervals.
        Fresh = "fresh",
        /// Two independent sources.
        Corroborated = "corroborated",
        /// Attempts per step, target and cluster.
        Budget = "budget",
        /// An operator's pause.
        Pause = "pause",
        /// Foreground load.
        Pressure = "pressure",
        /// Room for the copy that is kept.
        MoveAside = "move_aside",
        /// The intention on disk first.
        IntentFirst = "intent_first",
        /// Lease, slot and fence.
        OneAtATime = "one_at_a_time",
        /// Voters and shards stay enough.
        QuorumKept = "quorum_kept",
        /// Too many targets at once.
        StormBrake = "storm_brake",
        /// Waiting after a failed attempt.
        Backoff = "backoff",
        /// The first minute.
        Grace = "grace",
        /// A deliberate stop is never fought.
        DeliberateStop = "deliberate_stop",
        /// The same crash three times.
        CrashSignature = "crash_signature",
        /// What the operator allows for this mode and grade.
        Authority = "authority",
    }
}

named! {
    /// What an operator lets the agent do for a mode and grade.
    Authority {
        /// Only look.
        Observe = "observe",
        /// Plan and record as "would have".
        Shadow = "shadow",
        /// Ask first.
        Approve = "approve",
        /// Act.
        Auto = "auto",
    }
}

impl Action {
    /// Whether another leader is what it is for.
    pub(crate) fn moves_leader(self) -> bool {
        matches!(self, Self::StepDown | Self::TriggerElection | Self::AlignTerm)
    }
}

/// How invasive a step is, 0 (observe) to 6 (can lose data).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Grade(pub u8);

impl Grade {
    /// Looks, routes around.
    pub const OBSERVE: Grade = Grade(0);
    /// Local, reversible, takes nothing away.
    pub const RELIEVE: Grade = Grade(1);
    /// One live process or component.
    pub const RESTART: Grade = Grade(2);
    /// Brings a replica up to date.
    pub const RESYNC: Grade = Grade(3);
    /// Changes what a replica is.
    pub const REALIGN: Grade = Grade(4);
    /// Moves or rebuilds data.
    pub const REPAIR: Grade = Grade(5);
    /// Can lose data if wrong: only with a person's one-time approval.
    pub const APPROVE: Grade = Grade(6);

    /// The grade's name in configuration and in explanations.
    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "observe",
            1 => "relieve",
            2 => "restart",
            3 => "resync",
            4 => "realign",
            5 => "repair",
            _ => "approve",
        }
    }
}

/// Orders disruptive steps over holders of the lease: by epoch, then ballot round, then holder.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The cluster's epoch.
    pub epoch: u64,
    /// The ballot's round.
    pub round: u64,
    /// The agent that held the lease.
    pub holder: String,
}

/// A text that is no fence: `EPOCH.ROUND.HOLDER` expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fence: EPOCH.ROUND.HOLDER expected")]
pub struct BadFence;

impl std::str::FromStr for Fence {
    type Err = BadFence;
    fn from_str(text: &str) -> Result<Self, BadFence> {
        let mut parts = text.splitn(3, '.');
        let mut number = || parts.next().and_then(|digits| digits.parse().ok()).ok_or(BadFence);
        let (epoch, round) = (number()?, number()?);
        let holder = parts.next().filter(|holder| !holder.is_empty()).ok_or(BadFence)?.to_owned();
        Ok(Fence { epoch, round, holder })
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.round, self.holder)
    }
}
