//! How Raft's messages and records are written: a format byte, then postcard.
//!
//! Owns: the shapes of what travels in `RaftMessage.payload`. Must never: change one without raising [`WIRE_FORMAT`].

use bytes::Bytes;
use openraft::{SnapshotMeta, Vote};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::raft::{Node, RaftNode};
use crate::model::Outcome;
use crate::state::Proposal;

/// The format of everything here.
pub(super) const WIRE_FORMAT: u8 = 5;

/// Bytes that are no message of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Of another format.
    #[error("a message of format {found}, this program speaks format {WIRE_FORMAT}")]
    Format {
        /// Its format.
        found: u8,
    },
    /// Empty.
    #[error("an empty message")]
    Empty,
    /// Not what its format says.
    #[error("a message that cannot be read or written: {0}")]
    Body(#[from] postcard::Error),
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, WireError> {
    let bytes = postcard::to_extend(value, vec![WIRE_FORMAT])?;
    Ok(Bytes::from(bytes))
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&WIRE_FORMAT, body)) => Ok(postcard::from_bytes(body)?),
        Some((&found, _)) => Err(WireError::Format { found }),
        None => Err(WireError::Empty),
    }
}

/// The first field of a message, without the rest.
pub(crate) fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&WIRE_FORMAT, body)) => Ok(postcard::take_from_bytes(body)?.0),
        Some((&found, _)) => Err(WireError::Format { found }),
        None => Err(WireError::Empty),
    }
}

/// What is asked through `Raft/Propose`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Forward {
    /// Of the leader: append this.
    Propose(Box<Proposal>),
    /// Of a voter that is to take over: stand for election now.
    Elect,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Forwarded {
    /// Applied: its outcome.
    Outcome(Outcome),
    /// Not appended: this member does not lead.
    NotLeader,
    /// It stands for election.
    Standing,
}

/// The head of a snapshot's first chunk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotOffer {
    /// The leader's vote.
    pub(crate) vote: Vote<Node>,
    /// What is offered.
    pub(crate) meta: SnapshotMeta<Node, RaftNode>,
}
