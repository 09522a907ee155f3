//! When the owner of a lock is proven dead.
//!
//! Owns: the proofs, pure. Must never: take silence for death: a node that does not answer may be cut off and at work.
//! Invariant: a proof stays true: no owner that it is about ever comes back.

use std::fmt;

use crate::model::{ClusterMap, LockOwner};
use crate::types::{LifeId, NodeName};

/// Which run of its process a node says it is. It counts only when it was asked *after* the lock was read: an answer from
/// before may be older than the owner, and would prove a living owner dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Who answered.
    pub(crate) node: NodeName,
    /// Which run.
    pub(crate) life: LifeId,
}

/// Why an owner is certainly dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Its node runs again, as another process. A data folder has one process at a time, so the one that asked for the
    /// lock has ended.
    Restarted {
        /// The node.
        node: NodeName,
        /// The run that owns the lock.
        was: LifeId,
        /// The run there is now.
        now: LifeId,
    },
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restarted { node, was, now } => {
                write!(f, "{node} was started again since: its process was {was} and is {now}")
            }
        }
    }
}

/// The proof that an owner is dead, if there is one. `presence` is what its node said when it was asked after the lock
/// was read; `None`: it did not answer, which proves nothing.
pub(crate) fn owner_is_dead(map: &ClusterMap, owner: &LockOwner, presence: Option<&Announced>) -> Option<Proof> {
    // A client has no node, and no node can speak for it; one that names a node we do not know is no better.
    map.nodes.get(&owner.node)?;
    let said = presence.filter(|said| said.node == owner.node && said.life != owner.life)?;
    Some(Proof::Restarted { node: owner.node.clone(), was: owner.life, now: said.life })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HostState, Location, MarkedBy, NodeRecord};
    use crate::types::{InstanceId, RaftId};

    fn map() -> ClusterMap {
        let node = NodeRecord {
            name: "n1".into(),
            raft_id: RaftId(1),
            instance: InstanceId(1),
            address: "n1:1".into(),
            location: Location::default(),
            metadata_low: false,
            state: HostState::Up,
            marked_by: MarkedBy::Automatic,
            reason: String::new(),
            attempt: None,
            draining: None,
            no_vote: None,
        };
        ClusterMap { nodes: [("n1".into(), node)].into(), ..ClusterMap::default() }
    }

    fn owner(node: &str) -> LockOwner {
        LockOwner { node: node.into(), life: LifeId(1), label: "test".into() }
    }

    fn says(node: &str, life: u128) -> Announced {
        Announced { node: node.into(), life: LifeId(life) }
    }

    #[test]
    fn a_node_that_was_started_again_proves_that_its_process_before_is_dead() {
        let proof = owner_is_dead(&map(), &owner("n1"), Some(&says("n1", 2))).unwrap();
        assert_eq!(proof, Proof::Restarted { node: "n1".into(), was: LifeId(1), now: LifeId(2) });
        assert!(proof.to_string().starts_with("n1 was started again since"), "{proof}");
    }

    #[test]
    fn silence_the_same_process_another_node_and_a_client_prove_nothing() {
        assert_eq!(owner_is_dead(&map(), &owner("n1"), None), None);
        assert_eq!(owner_is_dead(&map(), &owner("n1"), Some(&says("n1", 1))), None);
        assert_eq!(owner_is_dead(&map(), &owner("n1"), Some(&says("n2", 2))), None);
        assert_eq!(owner_is_dead(&map(), &owner(""), Some(&says("", 2))), None);
        assert_eq!(owner_is_dead(&map(), &owner("n9"), Some(&says("n9", 2))), None);
    }
}
