//! Where a node is on its way to serving. Owns the names and their order; [`crate::service`] decides the steps.
//!
//! Invariant: a client is served in [`Phase::Healthy`] and in no other phase; and then as far as the [`ModeCell`] lets it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::mode::{Mode, ModeCell};

/// A node's phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Opening folders and sockets.
    Starting,
    /// In no cluster: waits for `cluster init` or for admission.
    Waiting,
    /// Replaying the log and catching up to what the cluster has committed.
    Recovering,
    /// Caught up; its disks have yet to answer their canaries.
    Verifying,
    /// Serves.
    Healthy,
    /// Its metadata is damaged or gone while it counts as a member: it votes no more and waits to be rejoined.
    LostVoter,
    /// Ending.
    Stopping,
}

impl Phase {
    /// The name in tables, metrics and the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Recovering => "recovering",
            Self::Verifying => "verifying",
            Self::Healthy => "healthy",
            Self::LostVoter => "lost_voter",
            Self::Stopping => "stopping",
        }
    }
}

/// The phase with what it waits for, for a person.
#[derive(Clone, Debug)]
pub struct PhaseState {
    /// Where it is.
    pub phase: Phase,
    /// What it waits for, or why it is there.
    pub detail: String,
}

/// What took a member's vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The log cannot be read where it was synced.
    Log,
    /// The vote cannot be read.
    Vote,
    /// The database of the metadata cannot be read, or does not fit the log.
    Database,
    /// The metadata folder, or the identity in it, is gone.
    Absent,
    /// The cluster has no such node any more.
    Removed,
}

impl Damage {
    /// The name in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Vote => "vote",
            Self::Database => "database",
            Self::Absent => "absent",
            Self::Removed => "removed",
        }
    }
}

/// Tells the phase to everybody who asks.
#[derive(Clone)]
pub struct PhaseCell {
    state: watch::Sender<PhaseState>,
    serving: watch::Sender<bool>,
    damage: Arc<Mutex<Option<Damage>>>,
    mode: ModeCell,
}

impl PhaseCell {
    /// Starts in [`Phase::Starting`].
    pub fn new() -> Self {
        let state = PhaseState { phase: Phase::Starting, detail: "opening folders and sockets".to_owned() };
        Self {
            state: watch::Sender::new(state),
            serving: watch::Sender::new(false),
            damage: Arc::default(),
            mode: ModeCell::default(),
        }
    }

    /// Moves on.
    pub fn set(&self, phase: Phase, detail: impl Into<String>) {
        let detail = detail.into();
        if self.state.borrow().phase == phase {
            tracing::debug!(phase = phase.as_str(), %detail, operation = "phase", "still in this phase");
        } else {
            tracing::info!(phase = phase.as_str(), %detail, operation = "phase", "the node's phase");
        }
        self.state.send_replace(PhaseState { phase, detail });
        self.serving.send_replace(phase == Phase::Healthy);
    }

    /// Where it is.
    pub fn get(&self) -> PhaseState {
        self.state.borrow().clone()
    }

    /// Where it is, and every change of it.
    pub fn changes(&self) -> watch::Receiver<PhaseState> {
        self.state.subscribe()
    }

    /// Says what took this member's vote.
    pub fn damaged(&self, damage: Damage) {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(damage);
    }

    /// What took it, while the node is a lost voter.
    pub fn damage(&self) -> Option<Damage> {
        let lost = self.state.borrow().phase == Phase::LostVoter;
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).filter(|_| lost)
    }

    /// For load balancers: whether they may send anybody here, and why not. A node that serves reads alone may be sent to: where
    /// all nodes do, as on full disks, reads must still find one.
    pub fn health(&self) -> (bool, String) {
        let (state, mode) = (self.get(), self.mode.get());
        let serves = state.phase == Phase::Healthy && mode.mode != Mode::Isolated;
        let text = match (state.phase, &mode.why) {
            (Phase::Healthy, Some(said)) => format!("{}: {}\n", mode.mode.as_str(), said.reason),
            _ => format!("{}: {}\n", state.phase.as_str(), state.detail),
        };
        (serves, text)
    }

    /// What clients are served once the node serves.
    pub fn mode(&self) -> &ModeCell {
        &self.mode
    }

    /// Whether clients are served, and every change of it.
    pub fn serving(&self) -> watch::Receiver<bool> {
        self.serving.subscribe()
    }
}

impl Default for PhaseCell {
    fn default() -> Self {
        Self::new()
    }
}
