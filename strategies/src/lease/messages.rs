//! What agents tell each other about the lease: as in `agent.proto`, in the core's own words.

use serde::{Deserialize, Serialize};

use crate::types::Fence;

/// Orders attempts at the lease: by round, then by agent. Never used twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Rises with every attempt.
    pub round: u64,
    /// Whose attempt.
    pub agent: String,
}

impl Ballot {
    /// The fence of who holds the lease by this ballot.
    pub fn fence(&self, epoch: u64) -> Fence {
        Fence { epoch, round: self.round, holder: self.agent.clone() }
    }
}

/// Leave for one disruptive step on one target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// The node it is done to.
    pub target: String,
    /// Names the step; the agent that does it chooses the name.
    pub step: String,
    /// The fence it runs under.
    pub fence: Fence,
    /// Of which incident; empty for an operator's step.
    pub incident: String,
    /// When it was opened, wall time, for people.
    pub opened_ms: u64,
}

/// Phase 1: never grant a lower ballot from now on, and tell what is granted and which slots are open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareRequest {
    /// The attempt.
    pub ballot: Ballot,
    /// Which cluster.
    pub cluster: String,
    /// Its epoch, as the asker knows.
    pub epoch: u64,
}

/// The answer to [`PrepareRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareReply {
    /// Whether it was promised.
    pub promised: bool,
    /// The highest ballot promised so far.
    pub highest: Ballot,
    /// Who holds an unexpired grant of this acceptor; empty: nobody.
    pub granted_to: String,
    /// How much longer.
    pub granted_left_ms: u64,
    /// All open slots it knows.
    pub slots: Vec<Slot>,
    /// Why not promised, for people.
    pub refusal: String,
}

/// Phase 2: grant the lease by this ballot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptRequest {
    /// The attempt; its agent is the holder to be.
    pub ballot: Ballot,
    /// Which cluster.
    pub cluster: String,
    /// Its epoch.
    pub epoch: u64,
}

/// The answer to [`AcceptRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptReply {
    /// Whether it was granted.
    pub accepted: bool,
    /// The highest ballot promised so far.
    pub highest: Ballot,
    /// Why not, for people.
    pub refusal: String,
}

/// The holder needs its grant no longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// What it held by.
    pub ballot: Ballot,
}

/// Opens or closes a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRequest {
    /// What the asker holds the lease by.
    pub ballot: Ballot,
    /// The slot.
    pub slot: Slot,
}

/// The answer to [`SlotRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReply {
    /// Whether it was done.
    pub done: bool,
    /// Why not, for people.
    pub refusal: String,
}
