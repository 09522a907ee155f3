//! What the agent knows now, as others may see it: the HTTP API and other agents' pings read it, the main loop and the
//! sensors write it.
//!
//! Must never: be read for a decision. Decisions are the engine's, from its own inputs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use resilver_strategies::api::{NodeFact, Observation, PeerFact, ProcessFact, SilenceFact};
use resilver_strategies::engine::Pause;
use serde::Serialize;
use tokio::time::Instant;

/// A peer as last seen.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PeerView {
    #[serde(flatten)]
    fact: PeerFact,
    /// Age of its agent's last answer; null: it never answered.
    seen_age_ms: Option<u64>,
}

/// All peers as last seen.
#[derive(Default)]
pub(crate) struct PeerViews(Mutex<BTreeMap<String, (PeerFact, Option<Instant>)>>);

impl PeerViews {
    /// A peer answered, or did not.
    pub(crate) fn set(&self, fact: &PeerFact) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = peers.get(&fact.node).and_then(|(_, seen)| *seen);
        let seen = if fact.agent_answers { Some(Instant::now()) } else { before };
        peers.insert(fact.node.clone(), (fact.clone(), seen));
    }

    /// For people.
    pub(crate) fn list(&self) -> Vec<PeerView> {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age =
            |seen: &Option<Instant>| seen.map(|seen| u64::try_from(seen.elapsed().as_millis()).unwrap_or(u64::MAX));
        peers.values().map(|(fact, seen)| PeerView { fact: fact.clone(), seen_age_ms: age(seen) }).collect()
    }

    /// Whether a peer's node was last seen serving, with its agent answering.
    pub(crate) fn is_well(&self, name: &str) -> bool {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(name).is_some_and(|(fact, _)| {
            fact.agent_answers && fact.node_alive == Some(true) && fact.node_phase == "healthy"
        })
    }
}

/// The own node as last seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeView {
    /// Its process.
    pub(crate) process: Option<ProcessFact>,
    /// How its last run ended, since this agent started.
    pub(crate) last_exit: Option<ProcessFact>,
    /// Its last answer.
    pub(crate) fact: Option<NodeFact>,
    /// When that came.
    pub(crate) heard: Option<Instant>,
}

impl NodeView {
    /// A fact about the own node.
    pub(crate) fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Process(fact) => {
                if matches!(fact, ProcessFact::Exited { .. }) {
                    self.last_exit = Some(fact.clone());
                    self.fact = None;
                }
                self.process = Some(fact.clone());
            }
            Observation::Heartbeat(fact) => {
                self.fact = Some((**fact).clone());
                self.heard = Some(Instant::now());
            }
            Observation::HeartbeatMissed { .. }
            | Observation::Peer(_)
            | Observation::Failures { .. }
            | Observation::Smart(_)
            | Observation::Host(_)
            | Observation::Canary(_)
            | Observation::Replicas(_)
            | Observation::ProcessState(_)
            | Observation::LogMatch(_) => {}
        }
    }

    /// Whether its process runs.
    pub(crate) fn alive(&self) -> bool {
        matches!(self.process, Some(ProcessFact::Running { .. }))
    }

    /// running | ended | absent | unknown.
    pub(crate) fn state(&self) -> &'static str {
        match self.process {
            Some(ProcessFact::Running { .. }) => "running",
            Some(ProcessFact::Exited { .. }) => "ended",
            Some(ProcessFact::Absent) => "absent",
            None => "unknown",
        }
    }

    /// Its phase by its last answer; empty when it does not run or has not answered.
    pub(crate) fn phase(&self) -> &str {
        self.fact.as_ref().filter(|_| self.alive()).map_or("", |fact| &fact.phase)
    }

    /// Age of its last answer; `None`: it never answered.
    pub(crate) fn heartbeat_age_ms(&self) -> Option<u64> {
        self.heard.map(|heard| u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Where the journal stands.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct JournalView {
    /// The next record's sequence.
    pub(crate) next_sequence: u64,
    /// It cannot be synced: grade 1 only, no lease.
    pub(crate) lost: bool,
}

/// What the main loop shows. Replaced as a whole.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) node: NodeView,
    pub(crate) paused: Option<Pause>,
    /// How many incidents are open, those that wait for a person among them.
    pub(crate) open: usize,
    pub(crate) journal: JournalView,
    /// Whom this agent does not hear; `None`: it does not say.
    pub(crate) silent: Option<Vec<SilenceFact>>,
    /// When the main loop last came round.
    pub(crate) beat: Instant,
}

impl View {
    /// Before anything was seen.
    pub(crate) fn new() -> View {
        View {
            node: NodeView::default(),
            paused: None,
            open: 0,
            journal: JournalView::default(),
            silent: None,
            beat: Instant::now(),
        }
    }
}
