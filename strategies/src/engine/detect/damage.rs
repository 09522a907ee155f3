//! `database_corruption` and `log_corruption`: the node says itself what took its vote.
//!
//! Never: decides anything about the damage (the node did, when it refused to be a voter); takes a member that was removed, or of
//! an epoch that is over, for damaged.

use serde::{Deserialize, Serialize};

use crate::api::NodeFact;
use crate::config::DamagePolicy;
use crate::engine::detect::State;
use crate::types::Mode;

/// What the node said in a row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Watch {
    mode: Option<Mode>,
    evidence: String,
    said: u32,
    well: u32,
}

/// The mode that a node's word stands for.
pub(crate) fn mode_of(damage: &str) -> Option<Mode> {
    match damage {
        "database" => Some(Mode::DatabaseCorruption),
        // What is not there cannot be trusted either; the log is what promises were kept in.
        "log" | "vote" | "absent" => Some(Mode::LogCorruption),
        _ => None,
    }
}

/// Whether a mode is of what is seen here.
pub(crate) fn is_damage(mode: Mode) -> bool {
    matches!(mode, Mode::DatabaseCorruption | Mode::LogCorruption)
}

impl Watch {
    pub(crate) fn heartbeat(&mut self, fact: &NodeFact) {
        let mode = mode_of(&fact.damage).filter(|_| fact.phase == "lost_voter");
        self.said =
            if mode.is_some() && mode == self.mode { self.said.saturating_add(1) } else { u32::from(mode.is_some()) };
        self.well = if fact.phase == "healthy" && fact.damage.is_empty() { self.well.saturating_add(1) } else { 0 };
        if mode.is_some() && mode != self.mode {
            self.evidence = format!("the node lost its vote ({}): {}", fact.damage, fact.phase_detail);
        }
        self.mode = mode;
    }

    /// The damage, when it was said often enough.
    pub(crate) fn found(&self, policy: &DamagePolicy) -> Option<(Mode, &str)> {
        self.mode.filter(|_| self.said >= policy.confirmations).map(|mode| (mode, self.evidence.as_str()))
    }

    pub(crate) fn state(&self, mode: Mode, policy: &DamagePolicy) -> State {
        match self.found(policy) {
            Some((found, evidence)) if found == mode => State::Ill(evidence.to_owned()),
            // Another kind of damage now: that has an incident of its own.
            Some(_) => State::Over("the node names another damage now".to_owned()),
            None if self.well >= policy.confirmations => State::Well,
            None => State::Unknown("the node to say how it is"),
        }
    }

    /// How often in a row it was said.
    pub(crate) fn said(&self) -> u32 {
        self.said
    }
}
