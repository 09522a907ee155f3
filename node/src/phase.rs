//! Where a node is on its way to serving. Owns the names and their order; [`crate::service`] decides the steps.
//!
//! Invariant: a client is served in [`Phase::Healthy`] and in no other phase.

use tokio::sync::watch;

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

/// Tells the phase to everybody who asks.
#[derive(Clone)]
pub struct PhaseCell {
    state: watch::Sender<PhaseState>,
    serving: watch::Sender<bool>,
}

impl PhaseCell {
    /// Starts in [`Phase::Starting`].
    pub fn new() -> Self {
        let state = PhaseState { phase: Phase::Starting, detail: "opening folders and sockets".to_owned() };
        Self { state: watch::Sender::new(state), serving: watch::Sender::new(false) }
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
