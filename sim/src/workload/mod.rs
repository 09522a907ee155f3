//! The clients: simulated processes that write, read, delete and list through the product's own gRPC door, and note
//! every call and every answer for the oracle.
//!
//! Owns: what clients do, in an order that only the seed decides. Must never: judge what an answer means for the
//! store; the oracle does ([`resilver_sim_check`]). A client says only what it was told.
//!
//! Invariants: every write has a value of its own; a call is noted before it is sent and its answer after it came, so
//! that the notes' order is the order a client could see; a call whose process ends stays without an answer, which the
//! oracle takes for unknown.

mod client;
pub(crate) mod content;
mod notes;
mod reader;
mod standing;
mod writer;

pub(crate) use self::client::DEADLINE as CLIENT_DEADLINE;
pub(crate) use self::notes::{Answered, Notes, ORACLE_RULES};
pub(crate) use self::reader::read_back;
pub(crate) use self::writer::{Load, write};

/// Clients of a run. Two contend; a third one meets the others' answers.
pub(crate) const CLIENTS: u64 = 3;
/// Keys they share: few, so that each is written many times.
const KEYS: u64 = 24;
/// Keys lie in folders, so that a list has a prefix.
const FOLDERS: u64 = 3;

/// The name of key `number`.
fn key(number: u64) -> String {
    format!("f{}/k{:02}", number % FOLDERS, number)
}

/// All keys that clients may write.
fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(key)
}
