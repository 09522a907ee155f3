//! Once only: a command that comes twice is applied once.
//!
//! Owns: the outcomes kept per (session, sequence). Invariants: a sequence below its session's floor is never applied; a
//! recorded one is answered, not applied; at most [`MAX_OUTCOMES`] are kept, and what is given up is a whole session, the
//! one unused for longest. A session that was given up can never look new: a new one begins with floor 1.

use serde::{Deserialize, Serialize};

use super::StateError;
use super::apply::Work;
use super::tables::{OUTCOMES, get, outcome_key, put};
use crate::model::{Command, Outcome, Refusal};
use redb::{ReadableTable, TableHandle};

/// The most outcomes kept. One per session that ever was, plus what is in flight: 64 Ki sessions are as many starts of
/// nodes, and keep the table under 10 MiB.
pub(crate) const MAX_OUTCOMES: u64 = 64 * 1024;

/// A command with what makes a repeat of it recognisable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// Who proposes: one start of one node.
    pub session: u128,
    /// Which of its commands, from 1.
    pub sequence: u64,
    /// Its lowest command still waiting for an answer: lower ones will never be asked again.
    pub floor: u64,
    /// The command.
    pub command: Command,
}

/// What is known of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// Sequences below it are answered and forgotten.
    floor: u64,
    /// Log index of its last command.
    used: u64,
    /// Outcomes kept for it.
    outcomes: u64,
}

/// The answer that is already known, if this is a repeat.
pub(super) fn recall(work: &Work<'_>, proposal: &Proposal) -> Result<Option<Outcome>, StateError> {
    let known: Option<Session> = get(&*work.tables.sessions, "sessions", &proposal.session.to_be_bytes())?;
    let Some(session) = known else {
        // A new session begins with floor 1, so this one was known and given up: what it asks may have been applied.
        return Ok((proposal.floor > 1).then_some(Outcome::Refused(Refusal::Expired)));
    };
    if proposal.sequence < session.floor {
        return Ok(Some(Outcome::Refused(Refusal::Expired)));
    }
    get(&*work.tables.outcomes, "outcomes", &outcome_key(proposal.session, proposal.sequence))
}

/// Keeps an outcome and drops what nobody will ask for again.
pub(super) fn remember(
    work: &mut Work<'_>,
    index: u64,
    proposal: &Proposal,
    outcome: &Outcome,
) -> Result<(), StateError> {
    let key = proposal.session.to_be_bytes();
    let known: Option<Session> = get(&*work.tables.sessions, "sessions", &key)?;
    let mut session = known.unwrap_or(Session { floor: 1, used: index, outcomes: 0 });

    put(&mut work.tables.outcomes, &outcome_key(proposal.session, proposal.sequence), outcome)?;
    session.outcomes += 1;
    work.totals.outcomes += 1;

    let floor = session.floor.max(proposal.floor);
    for sequence in kept(work, proposal.session, floor)? {
        work.tables.outcomes.remove(outcome_key(proposal.session, sequence).as_slice())?;
        session.outcomes = session.outcomes.saturating_sub(1);
        work.totals.outcomes = work.totals.outcomes.saturating_sub(1);
    }
    session.floor = floor;

    work.tables.uses.remove(session.used.to_be_bytes().as_slice())?;
    session.used = index;
    work.tables.uses.insert(index.to_be_bytes().as_slice(), key.as_slice())?;
    put(&mut work.tables.sessions, &key, &session)?;
    evict(work, proposal.session)
}

/// The sequences of `session` below `floor` that still have an outcome.
fn kept(work: &Work<'_>, session: u128, floor: u64) -> Result<Vec<u64>, StateError> {
    let from = outcome_key(session, 0);
    let to = outcome_key(session, floor);
    let mut sequences = Vec::new();
    for entry in work.tables.outcomes.range(from.as_slice()..to.as_slice())? {
        let (key, _) = entry?;
        sequences.push(sequence_of(key.value())?);
    }
    Ok(sequences)
}

fn sequence_of(key: &[u8]) -> Result<u64, StateError> {
    let tail = key.get(16..24).and_then(|tail| <[u8; 8]>::try_from(tail).ok());
    tail.map(u64::from_be_bytes).ok_or_else(|| StateError::Corrupt {
        table: "outcomes",
        detail: format!("a key of {} bytes in {}", key.len(), OUTCOMES.name()),
    })
}

/// Gives up whole sessions, the longest unused first, until the bound holds. Never the one that just spoke.
fn evict(work: &mut Work<'_>, present: u128) -> Result<(), StateError> {
    while work.totals.outcomes > work.max_outcomes {
        let Some((used, session)) = oldest(work)? else { return Ok(()) };
        if session == present {
            return Ok(());
        }
        for sequence in kept(work, session, u64::MAX)? {
            work.tables.outcomes.remove(outcome_key(session, sequence).as_slice())?;
            work.totals.outcomes = work.totals.outcomes.saturating_sub(1);
        }
        work.tables.uses.remove(used.as_slice())?;
        work.tables.sessions.remove(session.to_be_bytes().as_slice())?;
    }
    Ok(())
}

fn oldest(work: &Work<'_>) -> Result<Option<(Vec<u8>, u128)>, StateError> {
    let Some((used, session)) = work.tables.uses.first()? else { return Ok(None) };
    let session = <[u8; 16]>::try_from(session.value()).map_err(|_| StateError::Corrupt {
        table: "uses",
        detail: format!("a session id of {} bytes", session.value().len()),
    })?;
    Ok(Some((used.value().to_vec(), u128::from_be_bytes(session))))
}
