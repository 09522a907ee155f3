//! The policy's figures: every threshold the decisions use, with its default and its reason.
//!
//! Owns: defaults, ranges, and which times a factor scales. Must never: let a factor touch a detection time: shortened
//! suspicion convicts healthy nodes on a busy machine.

mod modes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::modes::{
    ClockPolicy, DamagePolicy, DeadlockPolicy, LagPolicy, PartitionPolicy, QuorumPolicy, ReplicaPolicy, ResourcePolicy,
    SmartPolicy, SplitBrainPolicy, TermPolicy,
};
pub use crate::cascade::Cascades;
pub use crate::health::HealthPolicy;
pub use crate::predict::TrendPolicy;
use crate::types::{Authority, Grade, Mode};

/// By how much the profile `fast` divides policy times.
pub const FAST_FACTOR: f64 = 60.0;

/// A proof reads back real work: a factor makes nobody's disk faster. No proof or step deadline is scaled below this.
pub const DEADLINE_FLOOR: Duration = Duration::from_secs(15);

/// Why something is in shadow in a new cluster.
pub(crate) const NEW: &str = "the cluster's first 24 hours";

/// Starts after one crash are at most this: the same crash a fourth time is a bug, and no accident (failure-modes.md, `process_crash`, never).
const MOST_SAME_CRASH: u32 = 3;

/// Which figures apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// The figures of failure-modes.md.
    #[default]
    Production,
    /// Policy times divided by [`FAST_FACTOR`], detection times unchanged, authority automatic (grade 6 excepted).
    Fast,
}

/// All of the policy. Every key has a default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyConfig {
    /// Divides policy times (waits, grace, proofs, budget windows, holds). Detection times never scale.
    pub factor: f64,
    /// Starting and restarting.
    pub recovery: Recovery,
    /// When something counts as seen.
    pub detection: Detection,
    /// The ladder of `disk_failure`.
    pub disk: DiskPolicy,
    /// `disk_degrading`, and what SMART's counters mean.
    pub smart: SmartPolicy,
    /// The ladder of `data_corruption`.
    pub corruption: CorruptionPolicy,
    /// The ladder of `host_down`.
    pub host: HostPolicy,
    /// `network_partition`.
    pub partition: PartitionPolicy,
    /// `database_corruption` and `log_corruption`.
    pub damage: DamagePolicy,
    /// `split_brain`.
    pub split_brain: SplitBrainPolicy,
    /// `term_divergence`.
    pub terms: TermPolicy,
    /// `state_divergence`.
    pub replicas: ReplicaPolicy,
    /// `deadlock`.
    pub deadlock: DeadlockPolicy,
    /// `resource_exhaustion`.
    pub resources: ResourcePolicy,
    /// `slow_follower`.
    pub lag: LagPolicy,
    /// `clock_skew`.
    pub clock: ClockPolicy,
    /// `quorum_loss`.
    pub quorum: QuorumPolicy,
    /// A step that a guard holds back for so long is told to a person, once.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub told_when_held: Duration,
    /// How often at most.
    pub budget: Budget,
    /// When disruptive steps freeze.
    pub storm: Storm,
    /// No disruptive step this long after the agent's start or a leader change.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub grace: Duration,
    /// Grade 5 work waits while this many client operations are in flight on the node.
    pub pressure_operations: u64,
    /// Nor begins while clients take more than so many percent of the time of one of the node's disks. 80: the node's own repair
    /// gives way there, too.
    pub pressure_percent: u32,
    /// What the agent may do without asking.
    pub authority: AuthorityTable,
    /// Patterns in which one failure drags others along. Detection: no factor scales their windows.
    pub cascades: Cascades,
    /// How scores are weighed. Never scaled.
    pub health: HealthPolicy,
    /// When what is expected is recorded. Never scaled.
    pub trends: TrendPolicy,
}

/// Starting and restarting the node's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recovery {
    /// `false`: authority `shadow` for grade 2. A dead process is still started (grade 1).
    pub auto_restart: bool,
    /// Data is moved aside, never deleted; a step is refused when there is no room for the copy.
    pub backup_before_recovery: bool,
    /// Starts in [`Budget::window`]; then the incident goes to a person.
    pub max_restart_attempts: u32,
    /// The wait before the fourth start and every later one: three quick ones did not help.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub restart_cooldown: Duration,
    /// Waits before the first, second and third start: the first is free, a node that fails at once gets room.
    #[serde(with = "durations")]
    #[schemars(with = "Vec<String>")]
    pub restart_waits: Vec<Duration>,
    /// How long a started node has to serve and catch up. Log replay and a snapshot fit in.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub proof_deadline: Duration,
    /// Where a node keeps what is left of its metadata when it comes back as a learner (`rejoin_learner`, `node rejoin`), in a
    /// folder of its name; `aside/` of its `data_dir` when absent. On the file system of `data_dir`: it is renamed, never copied.
    pub dir: Option<String>,
}

/// When something counts as seen. Never scaled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Detection {
    /// How often the agent asks its own node, and its peers.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub heartbeat: Duration,
    /// Missed heartbeats in a row before a silent node is suspected.
    pub missed_heartbeats: u32,
    /// Heartbeats in a row that must call a disk bad: one may be a slow canary on a busy machine.
    pub disk_confirmations: u32,
    /// Evidence older than this many heartbeats is stale.
    pub fresh_heartbeats: u32,
    /// A host whose agent and node are silent this long is suspected: routed around, nothing more.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub suspect_after: Duration,
    /// Silent this long for two probers in different failure domains, and heard by nobody, it is convicted.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub convict_after: Duration,
}

/// The ladder of `disk_failure`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DiskPolicy {
    /// From stopping new writes to detaching: a cable put back or a remount is given this long.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub detach_after: Duration,
    /// From detaching to rebuilding elsewhere.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub rebuild_after: Duration,
    /// How long a rebuild and its proof may take: a full disk at the repair's rate limit.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub rebuild_deadline: Duration,
    /// Other nodes that may be down while a disk that still holds data is detached. Acknowledged data survives the loss
    /// of one failure domain; the disk's own host is that one.
    pub others_down: u32,
}

/// The ladder of `host_down`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HostPolicy {
    /// From marking a host down to giving it up: most hosts come back, and rebuilding all of one is the costlier the
    /// sooner it does.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub out_after: Duration,
    /// How long the cluster may take to be whole again: everything a host held, at the repair's rate limit.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub rebuild_deadline: Duration,
}

impl Default for HostPolicy {
    fn default() -> Self {
        Self { out_after: secs(600), rebuild_deadline: secs(24 * 3600) }
    }
}

/// The ladder of `data_corruption`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CorruptionPolicy {
    /// Corrupt objects on one disk in a day before a person is told: rot comes alone, a dying disk does not.
    pub many_in_a_day: u32,
    /// How long the repair of one object, and its proof, may take.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub repair_deadline: Duration,
}

/// How often at most. Exhausted: a person is told, nothing more is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// The window of `attempts` and of `recovery.max_restart_attempts`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub window: Duration,
    /// Attempts of one step on one target in the window.
    pub attempts: u32,
    /// Starts of a node within a day after the same crash (the same signal or exit code, with the same last error). 3 at most: what ended
    /// it three times will end it again.
    pub same_crash: u32,
    /// Disruptive steps on one target in a day.
    pub disruptive_per_target_day: u32,
    /// Disruptive steps in the cluster in an hour (counted where the lease is held).
    pub disruptive_per_cluster_hour: u32,
    /// Disruptive steps on one target in ten minutes before it counts as flapping and is held for an hour.
    pub flapping: u32,
}

/// When disruptive steps freeze because too much fails at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Storm {
    /// Targets that fall ill within this time count together (detection: no factor scales that); and so long, scaled, must two thirds
    /// be well to go on.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub window: Duration,
    /// This many targets freeze disruptive steps, however large the cluster.
    pub targets: u32,
}

/// What the agent may do without asking, by grade; and narrower by mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorityTable {
    /// How long a cluster counts as new: grade 4, and grade 5 where it is disruptive, stay in shadow for so long, so that a person sees
    /// a day's plans before any of them is carried out; what `grades` names holds from the beginning. A policy time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub new_cluster: Duration,
    /// For every mode.
    pub grades: GradeTable,
    /// For one mode: the lower of this and `grades` holds.
    pub modes: BTreeMap<Mode, GradeTable>,
}

/// An authority per grade; what is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GradeTable {
    /// For every grade that is not named.
    pub all: Option<Authority>,
    /// Grade 1.
    pub relieve: Option<Authority>,
    /// Grade 2.
    pub restart: Option<Authority>,
    /// Grade 3.
    pub resync: Option<Authority>,
    /// Grade 4.
    pub realign: Option<Authority>,
    /// Grade 5.
    pub repair: Option<Authority>,
    /// Grade 6: never more than `approve`, whatever is written here.
    pub approve: Option<Authority>,
}

impl GradeTable {
    fn of(&self, grade: Grade) -> Option<Authority> {
        let own = match grade.0 {
            0 => Some(Authority::Auto),
            1 => self.relieve,
            2 => self.restart,
            3 => self.resync,
            4 => self.realign,
            5 => self.repair,
            _ => self.approve,
        };
        own.or(self.all)
    }
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            factor: 1.0,
            recovery: Recovery::default(),
            detection: Detection::default(),
            disk: DiskPolicy::default(),
            smart: SmartPolicy::default(),
            corruption: CorruptionPolicy::default(),
            host: HostPolicy::default(),
            partition: PartitionPolicy::default(),
            damage: DamagePolicy::default(),
            split_brain: SplitBrainPolicy::default(),
            terms: TermPolicy::default(),
            replicas: ReplicaPolicy::default(),
            deadlock: DeadlockPolicy::default(),
            resources: ResourcePolicy::default(),
            lag: LagPolicy::default(),
            clock: ClockPolicy::default(),
            quorum: QuorumPolicy::default(),
            told_when_held: secs(600),
            budget: Budget::default(),
            storm: Storm::default(),
            grace: secs(60),
            pressure_operations: 256,
            pressure_percent: 80,
            authority: AuthorityTable::default(),
            cascades: Cascades::default(),
            health: HealthPolicy::default(),
            trends: TrendPolicy::default(),
        }
    }
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            auto_restart: true,
            backup_before_recovery: true,
            max_restart_attempts: 5,
            restart_cooldown: secs(60),
            restart_waits: vec![secs(0), secs(2), secs(8)],
            proof_deadline: secs(120),
            dir: None,
        }
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            heartbeat: secs(1),
            missed_heartbeats: 3,
            disk_confirmations: 2,
            fresh_heartbeats: 2,
            suspect_after: secs(3),
            convict_after: secs(15),
        }
    }
}

impl Default for DiskPolicy {
    fn default() -> Self {
        Self { detach_after: secs(5), rebuild_after: secs(30), rebuild_deadline: secs(24 * 3600), others_down: 0 }
    }
}

impl Default for CorruptionPolicy {
    fn default() -> Self {
        Self { many_in_a_day: 10, repair_deadline: secs(600) }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            window: secs(30 * 60),
            attempts: 3,
            same_crash: MOST_SAME_CRASH,
            disruptive_per_target_day: 5,
            disruptive_per_cluster_hour: 10,
            flapping: 5,
        }
    }
}

impl Default for AuthorityTable {
    fn default() -> Self {
        Self { new_cluster: secs(24 * 3600), grades: GradeTable::default(), modes: BTreeMap::new() }
    }
}

impl Default for Storm {
    fn default() -> Self {
        Self { window: secs(60), targets: 3 }
    }
}

/// A figure that no decision can be built on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}: {want}")]
pub struct BadPolicy {
    /// The key, as written.
    pub key: &'static str,
    /// What was found.
    pub value: String,
    /// What is allowed.
    pub want: &'static str,
}

impl PolicyConfig {
    /// The figures of a profile.
    pub fn of(profile: Profile) -> Self {
        match profile {
            Profile::Production => Self::default(),
            Profile::Fast => {
                let grades = GradeTable { all: Some(Authority::Auto), ..GradeTable::default() };
                let authority = AuthorityTable { grades, ..AuthorityTable::default() };
                Self { factor: FAST_FACTOR, authority, ..Self::default() }
            }
        }
    }

    /// Refuses figures that would make the agent useless or dangerous.
    pub fn check(&self) -> Result<(), BadPolicy> {
        let bad = |key, value: String, want| Err(BadPolicy { key, value, want });
        if !(1.0..=1000.0).contains(&self.factor) {
            return bad("factor", self.factor.to_string(), "1 to 1000 expected");
        }
        if self.detection.heartbeat < Duration::from_millis(100) {
            return bad("detection.heartbeat", format!("{:?}", self.detection.heartbeat), "at least 100ms expected");
        }
        for (key, value) in [
            ("detection.missed_heartbeats", self.detection.missed_heartbeats),
            ("detection.disk_confirmations", self.detection.disk_confirmations),
            ("detection.fresh_heartbeats", self.detection.fresh_heartbeats),
        ] {
            if value < 2 {
                return bad(key, value.to_string(), "at least 2 expected: one reading is no evidence");
            }
        }
        let Detection { suspect_after, convict_after, .. } = self.detection;
        if suspect_after < self.fresh_within() {
            let want = "at least detection.fresh_heartbeats heartbeats expected: less is one late answer";
            return bad("detection.suspect_after", format!("{suspect_after:?}"), want);
        }
        if convict_after < suspect_after * 2 {
            let want = "at least twice detection.suspect_after expected: a saturated host answers late";
            return bad("detection.convict_after", format!("{convict_after:?}"), want);
        }
        if self.recovery.max_restart_attempts > 100 {
            return bad("recovery.max_restart_attempts", self.recovery.max_restart_attempts.to_string(), "at most 100");
        }
        if !(1..=MOST_SAME_CRASH).contains(&self.budget.same_crash) {
            let want = "1 to 3 expected: the same crash a fourth time is a bug, and no accident";
            return bad("budget.same_crash", self.budget.same_crash.to_string(), want);
        }
        modes::check(self)?;
        self.smart.check()?;
        self.cascades.check()?;
        self.health.check()?;
        self.trends.check()
    }

    /// A policy time, divided by the factor.
    pub fn scaled(&self, time: Duration) -> Duration {
        time.div_f64(self.factor.max(1.0))
    }

    /// A deadline of work that has to be done for real: scaled, but never below [`DEADLINE_FLOOR`].
    pub fn deadline(&self, time: Duration) -> Duration {
        self.scaled(time).max(time.min(DEADLINE_FLOOR))
    }

    /// How old evidence may be. Not scaled.
    pub fn fresh_within(&self) -> Duration {
        self.detection.heartbeat * self.detection.fresh_heartbeats
    }

    /// The wait before an attempt (0 is the first).
    pub fn wait_before(&self, attempt: u32) -> Duration {
        let waits = &self.recovery.restart_waits;
        let wait = waits.get(attempt as usize).copied().unwrap_or(self.recovery.restart_cooldown);
        self.scaled(wait)
    }

    /// What the agent may do at this grade for this mode in a cluster of unknown age: see [`PolicyConfig::authority_at`].
    pub fn authority_of(&self, mode: Mode, grade: Grade, disruptive: bool) -> (Authority, &'static str) {
        self.authority_at(mode, grade, disruptive, Duration::ZERO)
    }

    /// What the agent may do at this grade for this mode, and why (for the record). `age`: for how long the cluster has been
    /// known; the risky half of the ladder proves itself in shadow while it is new, unless somebody says otherwise.
    ///
    /// What is said for a mode can only lower what holds for the grade; and nothing makes grade 6 automatic.
    pub fn authority_at(&self, mode: Mode, grade: Grade, disruptive: bool, age: Duration) -> (Authority, &'static str) {
        let new = age < self.scaled(self.authority.new_cluster);
        let default = match grade.0 {
            4 if new => (Authority::Shadow, NEW),
            5 if disruptive && new => (Authority::Shadow, NEW),
            0..=5 => (Authority::Auto, "default"),
            _ => (Authority::Approve, "default"),
        };
        let mut found = match self.authority.grades.of(grade) {
            Some(authority) => (authority, "authority.grades"),
            None => default,
        };
        let narrower = self.authority.modes.get(&mode).and_then(|table| table.of(grade));
        if let Some(authority) = narrower.filter(|authority| *authority < found.0) {
            found = (authority, "authority.modes");
        }
        if grade == Grade::RESTART && !self.recovery.auto_restart && found.0 > Authority::Shadow {
            found = (Authority::Shadow, "recovery.auto_restart is false");
        }
        if grade >= Grade::APPROVE && found.0 > Authority::Approve {
            found = (Authority::Approve, "grade 6 is never automatic");
        }
        found
    }
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A list of times, each as people write them.
mod durations {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct One(#[serde(with = "humantime_serde")] Duration);

    pub(super) fn serialize<S: Serializer>(times: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(times.iter().copied().map(One))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<One>::deserialize(from)?.into_iter().map(|one| one.0).collect())
    }
}
