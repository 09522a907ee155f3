//! Measuring leases: whoever leads the metadata proposes the end of each that was not renewed in time.
//!
//! Owns: the timetable of the leader ([`Timetable`], pure) and the task that keeps it. Must never: look at wall time, or
//! at how long another leader has measured: a new leader gives every lease its full length anew.
//!
//! Invariant: a lease is proposed to end no earlier than its length after it was applied here. So it is over for its
//! holder, too, who counts from before it asked; that stays true whoever proposes it and however late it is applied, for
//! a renewal in between has another stamp.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::meta::Meta;
use crate::model::{Command, LockPath, LockTable, Outcome, Refusal};

/// Before proposing the end of a lease again that could not be proposed: there was no leader to apply it.
const AGAIN: Duration = Duration::from_secs(1);
/// Ends proposed side by side. Commands of a node in flight are bounded, and clients need theirs.
const AT_ONCE: usize = 32;

/// A lease or a wait that is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Measured {
    path: LockPath,
    ends: Instant,
}

/// When each lease and each wait ends, by the stamp it was given.
#[derive(Debug, Default)]
struct Timetable {
    measured: BTreeMap<u64, Measured>,
}

impl Timetable {
    /// Takes in what was applied: what is new is measured from now on, and what is gone or renewed is forgotten.
    fn follow(&mut self, table: &LockTable, now: Instant) {
        let before = std::mem::take(&mut self.measured);
        for record in table.locks.values() {
            let waiting = record.queue.iter().map(|waiter| (waiter.stamp, waiter.lease));
            for (stamp, lease) in waiting.chain([(record.holder.stamp, record.holder.lease)]) {
                let known = before.get(&stamp).cloned();
                let measured = known.unwrap_or_else(|| Measured { path: record.path.clone(), ends: now + lease });
                self.measured.insert(stamp, measured);
            }
        }
    }

    /// What is over.
    fn due(&self, now: Instant) -> Vec<(LockPath, u64)> {
        let over = self.measured.iter().filter(|(_, measured)| measured.ends <= now);
        over.map(|(stamp, measured)| (measured.path.clone(), *stamp)).collect()
    }

    /// When something is over next.
    fn next(&self) -> Option<Instant> {
        self.measured.values().map(|measured| measured.ends).min()
    }

    /// It was proposed, and is looked at again only then.
    fn postpone(&mut self, stamp: u64, until: Instant) {
        if let Some(measured) = self.measured.get_mut(&stamp) {
            measured.ends = until;
        }
    }
}

/// Measures while this member leads, until told to stop or Raft is gone.
pub(crate) async fn run_leases(meta: Meta, mut stop: watch::Receiver<bool>) {
    let mut changes = meta.lock_changes();
    let mut leading = None;
    let mut timetable = Timetable::default();
    loop {
        let next = timetable.next();
        let over = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            term = meta.leads_otherwise(leading) => match term {
                // What was measured before is not ours to go on with: in between, another led.
                Ok(term) => (leading, timetable) = (term, Timetable::default()),
                Err(_) => return,
            },
            changed = changes.changed() => if changed.is_err() { return },
            () = over => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if leading.is_none() {
            changes.mark_unchanged();
            continue;
        }
        let table = changes.borrow_and_update().clone();
        timetable.follow(&table, Instant::now());
        let due = timetable.due(Instant::now());
        let ends = due.into_iter().map(|(path, stamp)| expire(&meta, path, stamp));
        let mut ends = futures_util::stream::iter(ends).buffer_unordered(AT_ONCE);
        while let Some(stamp) = ends.next().await {
            timetable.postpone(stamp, Instant::now() + AGAIN);
        }
    }
}

async fn expire(meta: &Meta, path: LockPath, stamp: u64) -> u64 {
    match meta.propose(Command::ExpireLock { path: path.clone(), stamp }).await {
        Ok(Outcome::Done) => tracing::info!(%path, "a lock's lease was not renewed in time"),
        Ok(Outcome::Refused(Refusal::LockMoved)) => {}
        Ok(other) => tracing::warn!(%path, ?other, "a lease could not be ended"),
        Err(error) => tracing::debug!(%path, %error, "a lease is ended in the next round"),
    }
    stamp
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Holder, LockOwner, LockRecord, Waiter};
    use crate::types::{LifeId, LockToken};

    const LEASE: Duration = Duration::from_secs(5);

    fn owner(life: u128) -> LockOwner {
        LockOwner { node: "n1".into(), life: LifeId(life), label: "test".into() }
    }

    /// One lock, its holder's stamp first, then those of its queue.
    fn table(stamps: &[u64]) -> LockTable {
        let path = LockPath::parse("a").unwrap();
        let holder = Holder { owner: owner(0), token: LockToken(1), lease: LEASE, stamp: stamps[0] };
        let waiter = |stamp: &u64| Waiter { owner: owner(u128::from(*stamp)), lease: 2 * LEASE, stamp: *stamp };
        let record = LockRecord { path: path.clone(), holder, queue: stamps[1..].iter().map(waiter).collect() };
        LockTable { locks: [(path, Arc::new(record))].into(), ..LockTable::default() }
    }

    fn stamps(due: Vec<(LockPath, u64)>) -> Vec<u64> {
        due.into_iter().map(|(_, stamp)| stamp).collect()
    }

    #[test]
    fn a_lease_is_over_its_length_after_it_was_seen_and_a_renewal_counts_from_itself() {
        let (mut timetable, begun) = (Timetable::default(), Instant::now());
        timetable.follow(&table(&[1]), begun);
        assert_eq!(timetable.next(), Some(begun + LEASE));
        // Other locks change: nothing is measured anew.
        timetable.follow(&table(&[1]), begun + LEASE / 2);
        assert!(timetable.due(begun + LEASE - Duration::from_millis(1)).is_empty());
        assert_eq!(stamps(timetable.due(begun + LEASE)), [1]);

        timetable.follow(&table(&[2]), begun + LEASE);
        assert!(timetable.due(begun + LEASE).is_empty(), "renewed at the last moment");
        assert_eq!(stamps(timetable.due(begun + 2 * LEASE)), [2]);
    }

    #[test]
    fn waits_are_measured_like_leases_and_what_is_gone_is_forgotten() {
        let (mut timetable, begun) = (Timetable::default(), Instant::now());
        timetable.follow(&table(&[1, 2, 3]), begun);
        assert_eq!(stamps(timetable.due(begun + LEASE)), [1]);
        assert_eq!(stamps(timetable.due(begun + 2 * LEASE)), [1, 2, 3]);
        timetable.follow(&table(&[1, 3]), begun);
        assert_eq!(stamps(timetable.due(begun + 2 * LEASE)), [1, 3]);
        timetable.follow(&LockTable::default(), begun);
        assert_eq!(timetable.next(), None);
    }

    #[test]
    fn a_new_leader_gives_every_lease_its_full_length() {
        let begun = Instant::now();
        let mut old = Timetable::default();
        old.follow(&table(&[1]), begun);
        let mut new = Timetable::default();
        new.follow(&table(&[1]), begun + LEASE - Duration::from_millis(1));
        assert_eq!(stamps(old.due(begun + LEASE)), [1]);
        assert!(new.due(begun + LEASE).is_empty());
    }

    #[test]
    fn what_could_not_be_proposed_is_proposed_again_but_not_at_once() {
        let (mut timetable, begun) = (Timetable::default(), Instant::now());
        timetable.follow(&table(&[1]), begun);
        timetable.postpone(1, begun + LEASE + AGAIN);
        timetable.follow(&table(&[1]), begun + LEASE);
        assert!(timetable.due(begun + LEASE).is_empty());
        assert_eq!(stamps(timetable.due(begun + LEASE + AGAIN)), [1]);
    }
}
