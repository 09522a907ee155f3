//! Tokens with which a person approves one step of one incident.
//!
//! Owns: drawing them, and keeping them for whoever asks what may be approved. Must never: write one into the journal, a log or
//! the flight recorder: those have its hash.
//!
//! Invariants: bounded; none outlives the agent, and then the engine has forgotten the offer, too.

use std::collections::BTreeMap;

use resilver_host::{Host, rand::Rng};
use resilver_strategies::api::IncidentId;
use resilver_strategies::engine::MAX_OPEN;
use sha2::{Digest, Sha256};

/// Bytes of a token: nobody guesses it within the few tries that an offer stands.
const TOKEN_BYTES: usize = 16;

/// The tokens that stand.
pub(crate) struct Tokens {
    random: Rng,
    offered: BTreeMap<IncidentId, String>,
    /// The incidents in the order of their tokens, the oldest first.
    drawn: Vec<IncidentId>,
}

impl Tokens {
    /// None yet.
    pub(crate) fn new(host: &Host) -> Tokens {
        Tokens { random: host.rand.fork("agent.approvals"), offered: BTreeMap::new(), drawn: Vec::new() }
    }

    /// A new token for an incident, in place of one that it may have; its hash.
    pub(crate) fn draw(&mut self, incident: &IncidentId) -> String {
        let mut bytes = [0; TOKEN_BYTES];
        self.random.fill_bytes(&mut bytes);
        let token = hex(&bytes);
        let hash = hash(&token);
        self.forget(incident);
        // As many as incidents can be open, and those that are over are forgotten: never reached, but bounded here as well.
        if self.drawn.len() >= MAX_OPEN {
            self.offered.remove(&self.drawn.remove(0));
        }
        self.drawn.push(incident.clone());
        self.offered.insert(incident.clone(), token);
        hash
    }

    /// The token of an incident, while it has one.
    pub(crate) fn of(&self, incident: &IncidentId) -> Option<&str> {
        self.offered.get(incident).map(String::as_str)
    }

    /// It was used, or is over.
    pub(crate) fn forget(&mut self, incident: &IncidentId) {
        self.offered.remove(incident);
        self.drawn.retain(|known| known != incident);
    }
}

/// What the engine and the journal know of a token.
pub(crate) fn hash(token: &str) -> String {
    hex(Sha256::digest(token.as_bytes()).as_slice())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
