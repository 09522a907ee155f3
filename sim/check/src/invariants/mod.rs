//! The rules, one file each. Each says where it comes from.

mod committed_kept;
mod drained_is_empty;
mod fence_respected;
mod homes_hold;
mod intent_and_outcome;
mod journal_chain;
mod log_kept;
mod log_matching;
mod moved_aside;
mod never_back;
mod no_fault_no_step;
mod one_disruptive_step;
mod one_leader_per_term;
mod pause_respected;
mod quorum_kept;
mod rot_is_seen;
mod same_digest;
mod shards_durable;
mod starts_bounded;

use std::fmt;
use std::time::Duration;

pub use committed_kept::CommittedKept;
pub use drained_is_empty::DrainedIsEmpty;
pub use fence_respected::FenceRespected;
pub use homes_hold::HomesHold;
pub use intent_and_outcome::IntentAndOutcome;
pub use journal_chain::JournalChain;
pub use log_kept::LogKept;
pub use log_matching::LogMatching;
pub use moved_aside::MovedAside;
pub use never_back::NeverBack;
pub use no_fault_no_step::NoFaultNoStep;
pub use one_disruptive_step::OneDisruptiveStep;
pub use one_leader_per_term::OneLeaderPerTerm;
pub use pause_respected::PauseRespected;
pub use quorum_kept::QuorumKept;
pub use rot_is_seen::RotIsSeen;
pub use same_digest::SameDigest;
pub use shards_durable::ShardsDurable;
pub use starts_bounded::StartsBounded;

use crate::event::Event;
use crate::world::World;

/// A rule. It sees every event, with the world as it was before it.
pub trait Invariant {
    /// Its name: that of its file.
    fn name(&self) -> &'static str;

    /// Where it comes from.
    fn origin(&self) -> &'static str;

    /// Judges an event.
    ///
    /// # Errors
    /// How the event breaks the rule.
    fn observe(&mut self, event: &Event, world: &World) -> Result<(), Broken>;

    /// Judges the end of a run.
    ///
    /// # Errors
    /// What is missing.
    fn finish(&mut self, _world: &World) -> Result<(), Broken> {
        Ok(())
    }
}

/// What was done against a rule, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl Broken {
    /// Names the rule.
    pub(crate) fn told_by(self, rule: &dyn Invariant, at: Duration) -> Violation {
        Violation { rule: rule.name(), origin: rule.origin(), at, what: self.0 }
    }
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// Which.
    pub rule: &'static str,
    /// Where it comes from.
    pub origin: &'static str,
    /// When.
    pub at: Duration,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t={:.3} {}: {} ({})", self.at.as_secs_f64(), self.rule, self.what, self.origin)
    }
}

impl std::error::Error for Violation {}

/// Figures of the policy under which the agents run, and how much later than the truth they may know it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A member that cannot take part for this long must be known to be down. Two heartbeats, a slot's way through a
    /// majority, and evidence read again: within 15 s by default.
    pub known_down_after: Duration,
    /// An intent this old has an outcome at the end of a run.
    pub outcome_within: Duration,
    /// Starts of one node within `starts_window`.
    pub starts: usize,
    /// The window of starts, by virtual time, the policy's factor already applied.
    pub starts_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            known_down_after: Duration::from_secs(15),
            outcome_within: Duration::from_secs(30),
            starts: 5,
            starts_window: Duration::from_secs(30 * 60),
        }
    }
}

/// All rules.
pub fn all(limits: &Limits) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(OneLeaderPerTerm::default()),
        Box::new(LogMatching::default()),
        Box::new(SameDigest::default()),
        Box::new(CommittedKept::default()),
        Box::new(LogKept),
        Box::new(NeverBack::default()),
        Box::new(OneDisruptiveStep::default()),
        Box::new(FenceRespected::default()),
        Box::new(QuorumKept::new(limits)),
        Box::new(PauseRespected::default()),
        Box::new(IntentAndOutcome::new(limits)),
        Box::new(JournalChain::default()),
        Box::new(NoFaultNoStep::default()),
        Box::new(StartsBounded::new(limits)),
        Box::new(RotIsSeen::default()),
        Box::new(MovedAside::default()),
        Box::new(DrainedIsEmpty),
        Box::new(HomesHold::default()),
        Box::new(ShardsDurable),
    ]
}

/// The rule is broken.
fn broken<T>(what: String) -> Result<T, Broken> {
    Err(Broken(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own_and_an_origin() {
        let rules = all(&Limits::default());
        let names: std::collections::BTreeSet<&str> = rules.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), rules.len());
        assert!(rules.iter().all(|rule| rule.origin().len() > 10));
    }
}
