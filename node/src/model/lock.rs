//! Locks: who holds what, who waits for it, and under which token.
//!
//! Owns: the records, and what each question changes in one of them (pure; `state` stores the result). Must never: know
//! the time. A lease is a length here; whoever leads measures it (`locks::leases`) and says when it is over.
//!
//! Invariants: every grant draws a token higher than all before it, in any lock; every grant, renewal and question draws
//! a stamp, so what is said to be over is exactly what was measured; a lock that nobody holds has no record, so nobody
//! waits for a free lock; within one lock, an owner either holds, or waits once, or does neither.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MAX_LOCK_PATH_BYTES, MAX_WAITERS, Outcome, Refusal};
use crate::types::{Epoch, LifeId, LockToken, NodeName};

/// How far apart the tokens of two epochs are. When a quorum is forced, what its members had not heard of may be lost,
/// the last tokens among it; a higher epoch begins far above. 2^40 grants of an epoch are thirty years of a thousand a
/// second, and a thousand epochs still fit what JSON readers take for a whole number.
const TOKENS_PER_EPOCH: u64 = 1 << 40;

/// The name of a lock, such as `config/bucket/photos`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LockPath(Arc<str>);

/// A text that names no lock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path:?} names no lock: {why}; a path is names of letters, digits, `.`, `_` and `-`, with `/` between them, of at \
     most {MAX_LOCK_PATH_BYTES} bytes"
)]
pub struct BadLockPath {
    /// The text, shortened.
    pub path: String,
    /// The rule it breaks.
    pub why: &'static str,
}

impl LockPath {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// For the rule it breaks.
    pub fn parse(path: &str) -> Result<Self, BadLockPath> {
        let bad = |why| BadLockPath { path: path.chars().take(MAX_LOCK_PATH_BYTES).collect(), why };
        if path.is_empty() {
            return Err(bad("it is empty"));
        }
        if path.len() > MAX_LOCK_PATH_BYTES {
            return Err(bad("it is too long"));
        }
        for name in path.split('/') {
            match name {
                "" => return Err(bad("a `/` stands at its begin or end, or beside another")),
                "." | ".." => return Err(bad("`.` and `..` mean nothing in it")),
                name if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => {}
                _ => return Err(bad("there is a character in it that may not be")),
            }
        }
        Ok(Self(path.into()))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LockPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who holds a lock or waits for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockOwner {
    /// The node whose process it is; empty: a client, of whose death no node can tell.
    pub node: NodeName,
    /// The run of that process.
    pub life: LifeId,
    /// What that process calls it. One process never uses a label for two questions at a time.
    pub label: String,
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.node.as_str().is_empty() {
            return f.write_str(&self.label);
        }
        write!(f, "{} on {}", self.label, self.node)
    }
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who.
    pub owner: LockOwner,
    /// Under which token.
    pub token: LockToken,
    /// How long without a renewal.
    pub lease: Duration,
    /// Of the grant or the last renewal.
    pub stamp: u64,
}

/// Who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// Who.
    pub owner: LockOwner,
    /// The lease it is to get. It must ask again within as long, or loses its place.
    pub lease: Duration,
    /// Of the last time it asked.
    pub stamp: u64,
}

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockRecord {
    /// Its name.
    pub path: LockPath,
    /// By whom.
    pub holder: Holder,
    /// Who gets it next, in order.
    pub queue: Vec<Waiter>,
}

/// What is drawn for grants and renewals: the last of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockCounters {
    /// The last token.
    pub token: LockToken,
    /// The last stamp.
    pub stamp: u64,
}

impl LockCounters {
    /// The next token, above all of this epoch and those before.
    pub fn draw_token(&mut self, epoch: Epoch) -> LockToken {
        let floor = epoch.0.saturating_sub(crate::state::FIRST_EPOCH.0).saturating_mul(TOKENS_PER_EPOCH);
        self.token = LockToken(self.token.0.max(floor) + 1);
        self.token
    }

    /// The next stamp.
    pub fn draw_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }
}

/// Every lock that is held, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockTable {
    /// The locks.
    pub locks: BTreeMap<LockPath, Arc<LockRecord>>,
    /// What was drawn last.
    pub counters: LockCounters,
}

impl LockTable {
    /// The lock of this name, if it is held.
    pub fn get(&self, path: &LockPath) -> Option<&LockRecord> {
        self.locks.get(path).map(Arc::as_ref)
    }

    /// The lock of this name, if it is held under this token.
    pub fn held_under(&self, path: &LockPath, token: LockToken) -> Option<&LockRecord> {
        self.get(path).filter(|record| record.holder.token == token)
    }
}

/// What is drawn while one question is answered.
pub(crate) struct LockDraw<'a> {
    pub(crate) counters: &'a mut LockCounters,
    pub(crate) epoch: Epoch,
}

impl LockDraw<'_> {
    fn grant(&mut self, owner: LockOwner, lease: Duration) -> Holder {
        Holder { owner, token: self.counters.draw_token(self.epoch), lease, stamp: self.counters.draw_stamp() }
    }
}

impl LockRecord {
    /// A free lock, taken.
    pub(crate) fn taken(path: LockPath, owner: LockOwner, lease: Duration, draw: &mut LockDraw<'_>) -> Self {
        Self { path, holder: draw.grant(owner, lease), queue: Vec::new() }
    }

    /// Somebody asks for a lock that is held.
    pub(crate) fn ask(
        &mut self,
        owner: &LockOwner,
        lease: Duration,
        queue: bool,
        draw: &mut LockDraw<'_>,
    ) -> Result<Outcome, Refusal> {
        if self.holder.owner == *owner {
            // Asked again because the answer was lost: the asker counts its lease from this question.
            self.holder.lease = lease;
            self.holder.stamp = draw.counters.draw_stamp();
            return Ok(Outcome::Locked { token: self.holder.token });
        }
        if let Some(at) = self.queue.iter().position(|waiter| waiter.owner == *owner) {
            self.queue[at].lease = lease;
            self.queue[at].stamp = draw.counters.draw_stamp();
            return Ok(queued(at));
        }
        if !queue {
            let Holder { owner, token, .. } = self.holder.clone();
            return Err(Refusal::LockHeld { path: self.path.clone(), owner, token });
        }
        if self.queue.len() >= MAX_WAITERS {
            return Err(Refusal::LockQueueFull(self.path.clone()));
        }
        self.queue.push(Waiter { owner: owner.clone(), lease, stamp: draw.counters.draw_stamp() });
        Ok(queued(self.queue.len() - 1))
    }

    /// The holder goes: the head of the queue has it now, under a new token. `None`: the lock is free.
    pub(crate) fn pass_on(mut self, draw: &mut LockDraw<'_>) -> Option<Self> {
        if self.queue.is_empty() {
            return None;
        }
        let next = self.queue.remove(0);
        self.holder = draw.grant(next.owner, next.lease);
        Some(self)
    }
}

fn queued(before: usize) -> Outcome {
    Outcome::Queued { before: u32::try_from(before).unwrap_or(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_names_with_slashes_between_them_and_nothing_else() {
        for good in ["a", "config/bucket/photos", "config/key/RSABC234", "a.b/c-d/e_f", &"x".repeat(128)] {
            assert_eq!(LockPath::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "/", "/a", "a/", "a//b", "a/../b", ".", "a b", "a\0b", "ä", "a:b", &"x".repeat(129)] {
            let error = LockPath::parse(bad).unwrap_err();
            assert!(error.to_string().contains("names no lock"), "{bad}: {error}");
        }
        let long = LockPath::parse(&"y".repeat(100_000)).unwrap_err();
        assert!(long.to_string().len() < 500, "what is shown of it is bounded");
    }

    #[test]
    fn a_token_is_higher_than_all_before_it_also_when_a_forced_quorum_forgot_the_last() {
        let mut counters = LockCounters::default();
        assert_eq!(counters.draw_token(Epoch(1)), LockToken(1));
        assert_eq!(counters.draw_token(Epoch(1)), LockToken(2));
        let mut forgot = LockCounters { token: LockToken(1), stamp: 0 };
        assert!(forgot.draw_token(Epoch(2)) > LockToken(TOKENS_PER_EPOCH));
        assert!(forgot.draw_token(Epoch(2)) > LockToken(TOKENS_PER_EPOCH + 1));
    }

    #[test]
    fn an_owner_is_told_by_what_it_does_and_where() {
        let owner = LockOwner { node: "n1".into(), life: LifeId(1), label: "create bucket".into() };
        assert_eq!(owner.to_string(), "create bucket on n1");
        assert_eq!(LockOwner { node: "".into(), ..owner }.to_string(), "create bucket");
    }
}
