//! What an agent is told of locks: those that are waited for, or do badly here.
//!
//! Must never: list them all: an idle lock is nobody's trouble, and this is asked once a second.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::Locks;
use super::health::Health;
use crate::model::{LockPath, LockTable};
use crate::types::LockToken;

/// Since when this node has known each lock to be held under its token.
pub(super) type Since = BTreeMap<LockPath, (LockToken, Instant)>;

/// A lock, as this node has applied it and as asking for it has gone here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LockTold {
    pub(crate) path: LockPath,
    pub(crate) health: Health,
    /// Its owner's label; empty: nobody holds it.
    pub(crate) owner: String,
    /// Its owner's node; empty: a client, or nobody.
    pub(crate) owner_node: String,
    /// 0: nobody holds it.
    pub(crate) token: u64,
    pub(crate) held: Duration,
    pub(crate) waiting: usize,
}

impl Locks {
    /// Those that are waited for or do badly, the worst first, up to so many.
    pub(crate) fn told(&self, limit: usize) -> Vec<LockTold> {
        let now = Instant::now();
        let table = self.meta().locks();
        let mut since = self.since().lock().unwrap_or_else(PoisonError::into_inner);
        follow(&mut since, &table, now);
        let book = self.book();
        let held =
            |path: &LockPath| since.get(path).map_or(Duration::ZERO, |(_, at)| now.saturating_duration_since(*at));
        let mut told: Vec<LockTold> = table
            .locks
            .values()
            .map(|record| LockTold {
                path: record.path.clone(),
                health: book.health(&record.path, now),
                owner: record.holder.owner.label.clone(),
                owner_node: record.holder.owner.node.to_string(),
                token: record.holder.token.0,
                held: held(&record.path),
                waiting: record.queue.len(),
            })
            .filter(|lock| lock.waiting > 0 || lock.health != Health::Healthy)
            .collect();
        // Asked for in vain, and nobody has it.
        told.extend(book.ill(now).filter(|(path, _)| !table.locks.contains_key(*path)).map(|(path, health)| {
            LockTold {
                path: path.clone(),
                health,
                owner: String::new(),
                owner_node: String::new(),
                token: 0,
                held: Duration::ZERO,
                waiting: 0,
            }
        }));
        told.sort_by(|a, b| {
            b.health.cmp(&a.health).then(b.waiting.cmp(&a.waiting)).then(b.held.cmp(&a.held)).then(a.path.cmp(&b.path))
        });
        told.truncate(limit);
        told
    }
}

fn follow(since: &mut Since, table: &LockTable, now: Instant) {
    since.retain(|path, _| table.locks.contains_key(path));
    for record in table.locks.values() {
        let known = since.entry(record.path.clone()).or_insert((record.holder.token, now));
        if known.0 != record.holder.token {
            *known = (record.holder.token, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Holder, LockOwner, LockRecord};
    use crate::types::LifeId;

    #[test]
    fn a_lock_that_changed_hands_is_held_anew() {
        let path = LockPath::parse("config/bucket/photos").unwrap();
        let owner = LockOwner { node: "n1".into(), life: LifeId(1), label: "making a bucket #1".to_owned() };
        let held = |token| {
            let holder =
                Holder { owner: owner.clone(), token: LockToken(token), lease: Duration::from_secs(5), stamp: 1 };
            let record = LockRecord { path: path.clone(), holder, queue: Vec::new() };
            LockTable { locks: [(path.clone(), Arc::new(record))].into(), ..LockTable::default() }
        };
        let (mut since, start) = (Since::new(), Instant::now());
        follow(&mut since, &held(1), start);
        follow(&mut since, &held(1), start + Duration::from_secs(3));
        assert_eq!(since[&path], (LockToken(1), start));
        follow(&mut since, &held(2), start + Duration::from_secs(5));
        assert_eq!(since[&path].1, start + Duration::from_secs(5));
        follow(&mut since, &LockTable::default(), start);
        assert!(since.is_empty());
    }
}
