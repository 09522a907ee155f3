//! What is known of the other members' health: what their agents say, and how they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use resilver_strategies::health::{MemberInput, Recent, Standing};
use serde::Serialize;

/// Unanswered questions in a row, to its agent and to the node itself, before a member counts as dead. Three: the same as
/// for the own node's heartbeats, because one lost packet is no lost host.
const SILENT_FOR: usize = 3;

/// What one round of asking a member showed.
pub(crate) struct Pinged {
    /// How long its agent took; `None`: it did not answer.
    pub(crate) took: Option<Duration>,
    /// Whether its node lives, as its agent says.
    pub(crate) alive: Option<bool>,
    /// Its score, as its agent says.
    pub(crate) score: Option<u8>,
    /// Whether its node answered directly; `None`: not asked.
    pub(crate) node_answers: Option<bool>,
    /// Whether its node knows a leader; `None`: its agent did not say.
    pub(crate) leader_known: Option<bool>,
}

/// A member.
struct Peer {
    pings: Recent,
    standing: Standing,
    leader_known: bool,
}

/// All other members.
pub(super) struct Peers(BTreeMap<String, Peer>);

/// A member as it is shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MemberView {
    node: String,
    /// scored | lives | unknown | dead.
    standing: &'static str,
    /// Null: not known. 0 for a dead one.
    score: Option<u8>,
    /// The middle one of its agent's last answers; null for the own one.
    ping_ms: Option<f64>,
    /// How many of the last pings were not answered.
    pings_unanswered: Option<u64>,
}

impl Peer {
    fn unknown() -> Peer {
        Peer { pings: Recent::default(), standing: Standing::Unknown, leader_known: false }
    }
}

impl Peers {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Peers {
        Peers(names.into_iter().map(|name| (name, Peer::unknown())).collect())
    }

    /// Only these are asked from now on. Of the others nothing is known, and nothing is shown: not even that.
    pub(super) fn keep(&mut self, asked: &BTreeSet<String>) {
        self.0.retain(|name, _| asked.contains(name));
        for name in asked {
            if !self.0.contains_key(name) {
                self.0.insert(name.clone(), Peer::unknown());
            }
        }
    }

    /// A member was asked.
    pub(super) fn pinged(&mut self, name: &str, ping: &Pinged) {
        let Some(peer) = self.0.get_mut(name) else { return };
        peer.pings.push(ping.took);
        let silent = peer.pings.silent_for() >= SILENT_FOR;
        peer.leader_known = ping.leader_known.unwrap_or(false);
        peer.standing = match (ping.alive, ping.score, ping.node_answers) {
            (Some(false), ..) => Standing::Dead,
            (Some(true), Some(score), _) => Standing::Scored(score),
            (Some(true), None, _) | (None, _, Some(true)) => Standing::Lives,
            (None, _, Some(false)) if silent => Standing::Dead,
            // Not for long enough: it is what it was.
            (None, ..) => peer.standing,
        };
    }

    /// Whether any member says that it knows a leader.
    pub(super) fn know_a_leader(&self) -> bool {
        self.0.values().any(|peer| peer.leader_known)
    }

    /// For the cluster's score.
    pub(super) fn inputs<'a>(&'a self, votes: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = MemberInput> + 'a {
        self.0.iter().map(move |(node, peer)| MemberInput {
            node: node.clone(),
            votes: votes(node),
            standing: peer.standing,
            pings: peer.pings.rate(),
        })
    }

    /// For people.
    pub(super) fn views(&self) -> impl Iterator<Item = MemberView> + '_ {
        self.0.iter().map(|(node, peer)| MemberView {
            ping_ms: peer.pings.median().map(|took| took.as_secs_f64() * 1e3),
            pings_unanswered: peer.pings.rate().map(|rate| rate.failed),
            ..MemberView::of(node, peer.standing)
        })
    }
}

impl MemberView {
    pub(super) fn of(node: &str, standing: Standing) -> MemberView {
        let (word, score) = match standing {
            Standing::Scored(score) => ("scored", Some(score)),
            Standing::Lives => ("lives", None),
            Standing::Unknown => ("unknown", None),
            Standing::Dead => ("dead", Some(0)),
        };
        MemberView { node: node.to_owned(), standing: word, score, ping_ms: None, pings_unanswered: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(peers: &Peers) -> Standing {
        peers.inputs(|_| true).next().expect("one").standing
    }

    #[test]
    fn a_silent_member_is_dead_only_after_a_while_and_when_its_node_is_silent_too() {
        let mut peers = Peers::new(["n2".to_owned()]);
        assert_eq!(standing(&peers), Standing::Unknown);
        let well = Pinged {
            took: Some(Duration::from_millis(1)),
            alive: Some(true),
            score: Some(97),
            node_answers: None,
            leader_known: Some(true),
        };
        peers.pinged("n2", &well);
        assert_eq!((standing(&peers), peers.know_a_leader()), (Standing::Scored(97), true));
        let lost = Pinged { took: None, alive: None, score: None, node_answers: Some(false), leader_known: None };
        for _ in 1..SILENT_FOR {
            peers.pinged("n2", &lost);
            assert_eq!(standing(&peers), Standing::Scored(97));
        }
        peers.pinged("n2", &lost);
        assert_eq!((standing(&peers), peers.know_a_leader()), (Standing::Dead, false));
        peers.pinged("n2", &Pinged { node_answers: Some(true), ..lost });
        assert_eq!(standing(&peers), Standing::Lives, "only its agent is away");
        peers.pinged("n2", &Pinged { alive: Some(false), ..well });
        assert_eq!(standing(&peers), Standing::Dead, "its own agent knows");
        peers.pinged("n9", &Pinged { took: None, alive: None, score: None, node_answers: None, leader_known: None });
        assert_eq!(peers.views().count(), 1, "nobody else becomes a member by being asked");
    }
}
