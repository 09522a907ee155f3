//! The detectors: one file per mode. They read facts and say what they mean; nothing here acts.

pub(crate) mod clock_skew;
pub(crate) mod damage;
pub(crate) mod data_corruption;
pub(crate) mod deadlock;
pub(crate) mod disk_degrading;
pub(crate) mod disk_failure;
pub(crate) mod held;
pub(crate) mod host_down;
pub(crate) mod leader;
pub(crate) mod network_partition;
pub(crate) mod process_crash;
pub(crate) mod quorum_loss;
pub(crate) mod replicas;
pub(crate) mod resource_exhaustion;
pub(crate) mod slow_follower;
pub(crate) mod split_brain;
pub(crate) mod term_divergence;

use serde::{Deserialize, Serialize};

use crate::api::Subject;
use crate::config::PolicyConfig;
use crate::engine::facts::Life;
use crate::types::Mode;

/// A detector's reading: this is ill, for these reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symptom {
    pub(crate) mode: Mode,
    pub(crate) subject: Subject,
    /// Which sensor showed it.
    pub(crate) detected_by: String,
    /// What was seen, with numbers.
    pub(crate) evidence: String,
    /// The node's first start by this agent, not a crash.
    pub(crate) initial: bool,
    /// The life of the process that ended.
    pub(crate) life: Option<Life>,
    /// The crash signature.
    pub(crate) signature: Option<String>,
    /// The node says that it has mended it already: only the proof is missing.
    pub(crate) mended: bool,
}

impl Symptom {
    /// One of what is not a process's end.
    pub(crate) fn of(mode: Mode, subject: Subject, detected_by: &str, evidence: String) -> Self {
        let detected_by = detected_by.to_owned();
        Self { mode, subject, detected_by, evidence, initial: false, life: None, signature: None, mended: false }
    }
}

/// How something is by what a watch has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Ill, with the numbers.
    Ill(String),
    /// Well, for long enough to say so.
    Well,
    /// Neither is certain: what is waited for.
    Unknown(&'static str),
    /// It is not this mode's any more.
    Over(String),
}

/// The watches that are fed by what nodes, hosts and peers say.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Watches {
    pub(crate) partition: network_partition::Watch,
    pub(crate) damage: damage::Watch,
    pub(crate) leaders: split_brain::Watch,
    pub(crate) terms: term_divergence::Watch,
    pub(crate) replicas: replicas::Watch,
    pub(crate) deadlock: deadlock::Watch,
    pub(crate) resources: resource_exhaustion::Watch,
    pub(crate) lag: slow_follower::Watch,
    pub(crate) clock: clock_skew::Watch,
    pub(crate) voters: quorum_loss::Watch,
}

impl Watches {
    pub(crate) fn new(policy: &PolicyConfig) -> Self {
        Self {
            partition: network_partition::Watch::default(),
            damage: damage::Watch::default(),
            leaders: split_brain::Watch::default(),
            terms: term_divergence::Watch::default(),
            replicas: replicas::Watch::default(),
            deadlock: deadlock::Watch::default(),
            resources: resource_exhaustion::Watch::new(policy.trends.clone()),
            lag: slow_follower::Watch::default(),
            clock: clock_skew::Watch::default(),
            voters: quorum_loss::Watch::default(),
        }
    }
}
