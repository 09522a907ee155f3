//! What the agent knows now, as others may see it: the HTTP API and other agents' pings read it, the main loop and the
//! sensors write it.
//!
//! Must never: be read for a decision. Decisions are the engine's, from its own inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilver_strategies::api::{
    CanaryFact, HostFact, LogMatchFact, NodeFact, Observation, PeerFact, ProcessFact, ProcessStateFact, ReplicasFact,
    SilenceFact,
};
use resilver_strategies::engine::{Partial, Pause};
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

/// Names that are believed of a kind (a holder, a leader) by others' words: a change leaves two or three about.
const MAX_NAMED: usize = 4;

/// All peers as last seen.
#[derive(Default)]
pub(crate) struct PeerViews(Mutex<Seers>);

#[derive(Default)]
struct Seers {
    peers: BTreeMap<String, (PeerFact, Option<Instant>)>,
    /// Who holds the lease, as each says. Hearsay: it shows whom to ask.
    holders: BTreeMap<String, String>,
    /// How many there are, when not all are asked.
    partial: Option<Partial>,
}

impl PeerViews {
    fn seen(&self) -> MutexGuard<'_, Seers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer answered, or did not.
    pub(crate) fn set(&self, fact: &PeerFact) {
        let peers = &mut self.seen().peers;
        let before = peers.get(&fact.node).and_then(|(_, seen)| *seen);
        let seen = if fact.agent_answers { Some(Instant::now()) } else { before };
        peers.insert(fact.node.clone(), (fact.clone(), seen));
    }

    /// A peer said who holds the lease; empty: it does not know, or did not answer.
    pub(crate) fn names(&self, peer: &str, holder: &str) {
        let holders = &mut self.seen().holders;
        if holder.is_empty() {
            holders.remove(peer);
        } else if holders.get(peer).is_none_or(|known| known != holder) {
            holders.insert(peer.to_owned(), holder.to_owned());
        }
    }

    /// Only these of so many are asked from now on.
    pub(crate) fn keep(&self, asked: &BTreeSet<String>, of: usize) {
        let mut seen = self.seen();
        seen.peers.retain(|name, _| asked.contains(name));
        seen.holders.retain(|name, _| asked.contains(name));
        seen.partial = Partial::new(asked.len(), of);
    }

    /// How many are asked of how many; `None`: all.
    pub(crate) fn partial(&self) -> Option<Partial> {
        self.seen().partial
    }

    /// Who leads and who holds the lease, by others' words.
    pub(crate) fn named(&self) -> BTreeSet<String> {
        let seen = self.seen();
        let leaders: BTreeSet<&String> =
            seen.peers.values().map(|(fact, _)| &fact.leader).filter(|leader| !leader.is_empty()).collect();
        let holders: BTreeSet<&String> = seen.holders.values().collect();
        leaders.into_iter().take(MAX_NAMED).chain(holders.into_iter().take(MAX_NAMED)).cloned().collect()
    }

    /// Those that did not answer well when they were asked last: what is known of them is to be kept up until they do.
    pub(crate) fn doubtful(&self, cluster: &str) -> BTreeSet<String> {
        let well = |fact: &PeerFact| {
            let stranger = !cluster.is_empty() && !fact.cluster.is_empty() && fact.cluster != cluster;
            fact.agent_answers && fact.node_alive != Some(false) && fact.node_answers != Some(false) && !stranger
        };
        let seen = self.seen();
        seen.peers.iter().filter(|(_, (fact, _))| !well(fact)).map(|(name, _)| name.clone()).collect()
    }

    /// For people.
    pub(crate) fn list(&self) -> Vec<PeerView> {
        let age =
            |seen: &Option<Instant>| seen.map(|seen| u64::try_from(seen.elapsed().as_millis()).unwrap_or(u64::MAX));
        let seen = self.seen();
        seen.peers.values().map(|(fact, seen)| PeerView { fact: fact.clone(), seen_age_ms: age(seen) }).collect()
    }

    /// Whether a peer's node answered when it was last asked directly; `None`: it was not.
    pub(crate) fn node_answers(&self, name: &str) -> Option<bool> {
        self.seen().peers.get(name).and_then(|(fact, _)| fact.node_answers)
    }

    /// Whether a peer's node was last seen serving, with its agent answering.
    pub(crate) fn is_well(&self, name: &str) -> bool {
        self.seen().peers.get(name).is_some_and(|(fact, _)| {
            // Its phase is its last word: one that hangs was healthy when it gave it.
            let mute = fact.node_answers == Some(false);
            fact.agent_answers && fact.node_alive == Some(true) && fact.node_phase == "healthy" && !mute
        })
    }
}

/// A canary is told to other agents for so long: twice the longest time between two.
const CANARY_TOLD_WITHIN: Duration = Duration::from_secs(30);

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
    /// What the other sensors saw.
    pub(crate) seen: Seen,
}

/// The last word of each sensor that looks at the own host and node, with when it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    host: Option<(HostFact, Instant)>,
    canary: Option<(CanaryFact, Instant)>,
    replicas: Option<(ReplicasFact, Instant)>,
    process: Option<(ProcessStateFact, Instant)>,
    /// By pattern: as many as are configured.
    logs: BTreeMap<String, (LogMatchFact, Instant)>,
}

impl Seen {
    fn observe(&mut self, observation: &Observation) {
        let now = Instant::now();
        match observation {
            Observation::Host(fact) => self.host = Some(((**fact).clone(), now)),
            Observation::Canary(fact) => self.canary = Some((fact.clone(), now)),
            Observation::Replicas(fact) => self.replicas = Some((fact.clone(), now)),
            Observation::ProcessState(fact) => self.process = Some((fact.clone(), now)),
            Observation::LogMatch(fact) => _ = self.logs.insert(fact.pattern.clone(), (fact.clone(), now)),
            _ => {}
        }
    }

    /// For people: what each saw, and how long ago; null: nothing yet.
    pub(crate) fn told(&self) -> serde_json::Value {
        fn told<T: Serialize>(seen: Option<&(T, Instant)>) -> serde_json::Value {
            seen.map_or(serde_json::Value::Null, |(fact, at)| {
                let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                serde_json::json!({ "age_ms": age_ms, "fact": fact })
            })
        }
        let logs: Vec<_> = self.logs.values().map(|seen| told(Some(seen))).collect();
        serde_json::json!({
            "host": told(self.host.as_ref()),
            "canary": told(self.canary.as_ref()),
            "replicas": told(self.replicas.as_ref()),
            "process": told(self.process.as_ref()),
            "logs": logs,
        })
    }
}

impl NodeView {
    /// How long the last canary took, in milliseconds, while it says something of the present.
    pub(crate) fn canary_ms(&self) -> Option<u64> {
        let (fact, at) = self.seen.canary.as_ref()?;
        fact.millis.filter(|_| at.elapsed() <= CANARY_TOLD_WITHIN)
    }

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
            | Observation::Watch(_)
            | Observation::Failures { .. }
            | Observation::Smart(_)
            | Observation::Host(_)
            | Observation::Canary(_)
            | Observation::Replicas(_)
            | Observation::ProcessState(_)
            | Observation::LogMatch(_) => {}
        }
        self.seen.observe(observation);
    }

    /// Whether its process runs.
    pub(crate) fn alive(&self) -> bool {
        matches!(self.process, Some(ProcessFact::Running { .. }))
    }

    /// Whether it is known that no process of it runs.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.process, Some(ProcessFact::Exited { .. } | ProcessFact::Absent))
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
    /// Whom it hears; `None`: it asks everybody.
    pub(crate) heard: Option<Vec<String>>,
    /// How long ago each disruptive step on this node was begun.
    pub(crate) disrupted: Vec<u64>,
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
            heard: None,
            disrupted: Vec::new(),
            beat: Instant::now(),
        }
    }
}
