//! Applying what concerns locks.
//!
//! Owns: the table of locks, in the database and in memory, and the counters of tokens and stamps. Must never: decide by
//! a clock when a lease is over: it is told, and judges only whether what it is told of is still as it was.
//! Invariants: memory and table say the same after every command; a refusal changes neither.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redb::ReadableTable;

use super::apply::{Stop, Work};
use super::tables::{KEY_LOCKS, get, put, unseal};
use super::{StateError, members};
use crate::model::{
    LockCounters, LockDraw, LockOwner, LockPath, LockRecord, LockTable, MAX_LEASE, MAX_LOCKS, MIN_LEASE, Outcome,
    Refusal,
};
use crate::types::{Fence, LockToken};

/// What a question makes of a lock: the record it has now (`None`: it is free), and the answer.
type Changed = (Option<LockRecord>, Outcome);

pub(super) fn acquire(
    work: &mut Work<'_>,
    path: &LockPath,
    owner: &LockOwner,
    lease: Duration,
    queue: bool,
) -> Result<Outcome, Stop> {
    // A member of another version may have let something else through: a lease that never ends must not get in here.
    let lease = lease.clamp(MIN_LEASE, MAX_LEASE);
    let held = work.locks.locks.len();
    change(work, path, |record, draw| match record {
        None if held >= MAX_LOCKS => Err(Refusal::TooManyLocks),
        None => {
            let record = LockRecord::taken(path.clone(), owner.clone(), lease, draw);
            let token = record.holder.token;
            Ok((Some(record), Outcome::Locked { token }))
        }
        Some(mut record) => {
            let answer = record.ask(owner, lease, queue, draw)?;
            Ok((Some(record), answer))
        }
    })
}

pub(super) fn renew(
    work: &mut Work<'_>,
    path: &LockPath,
    owner: &LockOwner,
    token: LockToken,
) -> Result<Outcome, Stop> {
    change(work, path, |record, draw| {
        let mut record = held_by(record, path, owner, token)?;
        record.holder.stamp = draw.counters.draw_stamp();
        Ok((Some(record), Outcome::Locked { token }))
    })
}

pub(super) fn release(
    work: &mut Work<'_>,
    path: &LockPath,
    owner: &LockOwner,
    token: LockToken,
) -> Result<Outcome, Stop> {
    change(work, path, |record, draw| Ok((held_by(record, path, owner, token)?.pass_on(draw), Outcome::Done)))
}

pub(super) fn withdraw(work: &mut Work<'_>, path: &LockPath, owner: &LockOwner) -> Result<Outcome, Stop> {
    change(work, path, |record, draw| {
        let left = match record {
            Some(record) if record.holder.owner == *owner => record.pass_on(draw),
            Some(mut record) => {
                record.queue.retain(|waiter| waiter.owner != *owner);
                Some(record)
            }
            None => None,
        };
        Ok((left, Outcome::Done))
    })
}

pub(super) fn expire(work: &mut Work<'_>, path: &LockPath, stamp: u64) -> Result<Outcome, Stop> {
    change(work, path, |record, draw| {
        let mut record = record.ok_or(Refusal::LockMoved)?;
        if record.holder.stamp == stamp {
            return Ok((record.pass_on(draw), Outcome::Done));
        }
        let waiting = record.queue.len();
        record.queue.retain(|waiter| waiter.stamp != stamp);
        if record.queue.len() == waiting {
            return Err(Refusal::LockMoved);
        }
        Ok((Some(record), Outcome::Done))
    })
}

pub(super) fn break_lock(
    work: &mut Work<'_>,
    path: &LockPath,
    token: LockToken,
    fence: Option<&Fence>,
) -> Result<Outcome, Stop> {
    members::admit_fence(work, fence)?;
    change(work, path, |record, draw| {
        let lost = || Refusal::LockLost { path: path.clone(), token };
        let record = record.filter(|record| record.holder.token == token).ok_or_else(lost)?;
        // Drawn also when nobody waits: whoever is told this token can refuse the dead owner before there is a next one.
        let broken_at = draw.counters.draw_token(draw.epoch);
        Ok((record.pass_on(draw), Outcome::Broken { token: broken_at }))
    })
}

/// Whether what comes under this token may be done.
pub(super) fn demand(work: &Work<'_>, path: &LockPath, token: LockToken) -> Result<(), Stop> {
    let held = work.locks.held_under(path, token).map(|_| ());
    held.ok_or_else(|| Refusal::LockLost { path: path.clone(), token }.into())
}

fn held_by(
    record: Option<LockRecord>,
    path: &LockPath,
    owner: &LockOwner,
    token: LockToken,
) -> Result<LockRecord, Refusal> {
    let held = record.filter(|record| record.holder.token == token && record.holder.owner == *owner);
    held.ok_or_else(|| Refusal::LockLost { path: path.clone(), token })
}

/// Puts a question to a lock and stores what it makes of it, in the table and in memory.
fn change(
    work: &mut Work<'_>,
    path: &LockPath,
    question: impl FnOnce(Option<LockRecord>, &mut LockDraw<'_>) -> Result<Changed, Refusal>,
) -> Result<Outcome, Stop> {
    let before = work.locks.get(path).cloned();
    let mut counters = work.locks.counters;
    let mut draw = LockDraw { counters: &mut counters, epoch: work.map.epoch };
    let (after, outcome) = question(before.clone(), &mut draw)?;
    if after == before && counters == work.locks.counters {
        return Ok(outcome);
    }
    let key = path.as_str().as_bytes();
    match &after {
        Some(record) => put(&mut work.tables.locks, key, record)?,
        None => {
            work.tables.locks.remove(key)?;
        }
    }
    if counters != work.locks.counters {
        put(&mut work.tables.cluster, KEY_LOCKS, &counters)?;
    }
    let table = Arc::make_mut(&mut work.locks);
    table.counters = counters;
    match after {
        Some(record) => drop(table.locks.insert(path.clone(), Arc::new(record))),
        None => drop(table.locks.remove(path)),
    }
    Ok(outcome)
}

/// Reads what is held. A database from before there were locks has none.
pub(super) fn read_locks(
    cluster: &impl ReadableTable<&'static [u8], &'static [u8]>,
    locks: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<LockTable, StateError> {
    let counters: Option<LockCounters> = get(cluster, "cluster", KEY_LOCKS)?;
    let mut held = BTreeMap::new();
    for entry in locks.range::<&[u8]>(..)? {
        let record: LockRecord = unseal("locks", entry?.1.value())?;
        held.insert(record.path.clone(), Arc::new(record));
    }
    Ok(LockTable { locks: held, counters: counters.unwrap_or_default() })
}
