//! What goes into the detector and what comes out.
//!
//! Owns: shapes only. Must never: decide.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Place;
use crate::types::{FailureKind, Moment, Severity};

/// A failure, as it comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
    /// What suffered, for people.
    pub subject: String,
    /// The hosts and disks it waited for.
    pub places: Vec<Place>,
    /// How long ago.
    pub age: Duration,
}

/// A pattern that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub pattern: String,
    /// What came first.
    pub initial: FailureKind,
    /// The place that has all of it on it.
    pub place: Place,
    /// What was seen, with numbers.
    pub evidence: String,
    /// When the initial failure was; the agent's start if it was before.
    pub began: Moment,
    /// Times found within the hour, this one included.
    pub times: usize,
    /// How urgent.
    pub severity: Severity,
}

/// What is known of cascades, for people and machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CascadeStatus {
    /// Failures seen since the agent's start.
    pub total_events: u64,
    /// The same by kind.
    pub by_type: BTreeMap<FailureKind, u64>,
    /// Failures of kinds that this agent does not know.
    pub unknown_events: u64,
    /// All patterns, and how often they were found.
    pub patterns: Vec<PatternStatus>,
}

/// A pattern and what was found of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatternStatus {
    /// Its name.
    pub name: String,
    /// What comes first.
    pub initial: FailureKind,
    /// What follows.
    pub then: Vec<FailureKind>,
    /// Within this time.
    pub window_ms: u64,
    /// Times found within the hour.
    pub in_hour: usize,
    /// How long ago it was last found; `None`: not within the hour.
    pub last_age_ms: Option<u64>,
    /// How urgent; `None`: not found.
    pub severity: Option<Severity>,
}
