//! Asking for a lock.
//!
//! Owns: the attempts, their pauses, and how they went. Must never: ask for longer than [`Terms`] allow. Invariant: an
//! attempt that is repeated is the same question (same owner), so it neither takes a lock twice nor loses its place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngCore;
use resilver_host::{Host, Rng};
use tokio::time::{Instant, sleep, timeout};

use super::LockError;
use super::guard::{Claim, LockGuard};
use super::health::{Attempt, Book, Figure};
use super::told::Since;
use crate::failures::{Place, places_of_metadata};
use crate::meta::{Meta, MetaError};
use crate::model::{Command, LockOwner, LockPath, Outcome};
use crate::peers::Peers;
use crate::types::{LifeId, LockToken, NodeName};

/// The lease of changes to the configuration. They take milliseconds; whoever dies in the middle keeps the others out
/// for this long, and an election fits in.
pub const CONFIG_LEASE: Duration = Duration::from_secs(5);

/// How long one attempt at a lock may take: an election (under 2 s) and a round. Four of them, with their pauses, are as
/// long as a proposal itself is tried, and twice [`CONFIG_LEASE`]: a change waits out one that died, and hardly ever
/// fails where it would have gone well without a lock.
const ATTEMPT: Duration = Duration::from_millis(2500);

/// A pause is longer by up to a quarter of itself, drawn: those who collided do not collide again.
const JITTER_PARTS: u32 = 4;

/// A lease is renewed when a third of it is over: one renewal may be lost, and the next still comes in time.
pub(super) const RENEWALS_PER_LEASE: u32 = 3;

/// How a lock is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// For how long without a renewal.
    pub lease: Duration,
    /// How long one attempt may take.
    pub attempt: Duration,
}

impl Terms {
    /// Of a change to the configuration.
    pub const CONFIG: Self = Self { lease: CONFIG_LEASE, attempt: ATTEMPT };
}

/// What a process knows of locks. Cheap to clone.
#[derive(Clone)]
pub struct Locks {
    inner: Arc<Inner>,
}

struct Inner {
    meta: Meta,
    peers: Peers,
    node: NodeName,
    life: LifeId,
    labels: AtomicU64,
    rng: Mutex<Rng>,
    book: Mutex<Book>,
    since: Mutex<Since>,
    retries: AtomicU64,
    timeouts: AtomicU64,
}

/// A lock that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) token: LockToken,
    /// Until then it is certainly held, unless it is broken.
    pub(super) until: Instant,
}

impl Locks {
    /// Of the process `life` of a node.
    pub fn new(host: &Host, meta: Meta, peers: Peers, node: NodeName, life: LifeId) -> Self {
        let rng = Mutex::new(host.rand.fork("locks.jitter"));
        let (labels, retries, timeouts) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let (book, since) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { meta, peers, node, life, labels, rng, book, since, retries, timeouts }) }
    }

    /// Whose process this is.
    pub fn node(&self) -> &NodeName {
        &self.inner.node
    }

    /// The run of this process.
    pub fn life(&self) -> LifeId {
        self.inner.life
    }

    /// Waits for a lock, for no longer than the terms allow, and keeps it until the guard goes.
    ///
    /// # Errors
    /// When it was not had in time, when its path is unhealthy, or when the metadata refuses.
    pub async fn hold(&self, path: &LockPath, purpose: &str, terms: Terms) -> Result<LockGuard, LockError> {
        let label = format!("{purpose} #{}", self.inner.labels.fetch_add(1, Ordering::Relaxed) + 1);
        let owner = LockOwner { node: self.inner.node.clone(), life: self.inner.life, label };
        let admitted = self.book().admit(path, Instant::now());
        let pauses = admitted.map_err(|why| LockError::Unhealthy { path: path.clone(), why })?;
        let claim = Claim::new(self, path, &owner);
        let began = Instant::now();
        let mut pauses = pauses.iter();
        loop {
            let mut queued = false;
            let tried = timeout(terms.attempt, self.attempt(path, &owner, terms.lease, &mut queued)).await;
            let answered = match tried {
                Ok(Err(LockError::Meta(MetaError::NoLeader { .. } | MetaError::Unknown { .. }))) | Err(_) => None,
                Ok(answer) => Some(answer),
            };
            let attempt = if answered.is_some() { Attempt::Answered } else { Attempt::TimedOut };
            self.book().note(path, attempt, Instant::now());
            match answered {
                Some(Ok(grant)) => return Ok(LockGuard::keep(claim, terms.lease, grant)),
                Some(Err(error)) => {
                    if matches!(error, LockError::Refused(_)) {
                        claim.hand_over();
                    }
                    return Err(error);
                }
                None => {}
            }
            self.inner.timeouts.fetch_add(1, Ordering::Relaxed);
            self.tell(path);
            let Some(pause) = pauses.next() else {
                return Err(LockError::late(path, began.elapsed(), queued, self.who_has(path)));
            };
            self.inner.retries.fetch_add(1, Ordering::Relaxed);
            sleep(*pause + self.jitter(*pause)).await;
        }
    }

    /// One attempt: asks, and stands in the queue until the lock is granted. Ends when its caller stops waiting; `queued`
    /// then says whether it had a place.
    pub(super) async fn attempt(
        &self,
        path: &LockPath,
        owner: &LockOwner,
        lease: Duration,
        queued: &mut bool,
    ) -> Result<Grant, LockError> {
        let mut changes = self.inner.meta.lock_changes();
        loop {
            let asked = Instant::now();
            let command = Command::AcquireLock { path: path.clone(), owner: owner.clone(), lease, queue: true };
            match self.propose(command).await? {
                Outcome::Locked { token } => return Ok(Grant { token, until: asked + lease }),
                Outcome::Queued { .. } => *queued = true,
                Outcome::Refused(refusal) => return Err(refusal.into()),
                other => return Err(LockError::unexpected(path, other)),
            }
            // Asked again within the lease, or it would lose its place; and what it is told here may be older than its
            // place in the queue, so that not to be in it means nothing yet.
            let granted = timeout(
                lease / RENEWALS_PER_LEASE,
                changes.wait_for(|table| table.get(path).is_some_and(|record| record.holder.owner == *owner)),
            );
            match granted.await {
                // When it was granted is not known: it asks once more and counts from that question.
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(_)) => {
                    let reason = "the state machine is gone".to_owned();
                    return Err(LockError::Meta(MetaError::Stopped { reason }));
                }
            }
        }
    }

    /// How asking has gone, for metrics: the busiest paths, retries, timeouts.
    pub(crate) fn figures(&self) -> (Vec<Figure>, u64, u64) {
        let (retries, timeouts) = (&self.inner.retries, &self.inner.timeouts);
        let figures = self.book().figures(Instant::now());
        (figures, retries.load(Ordering::Relaxed), timeouts.load(Ordering::Relaxed))
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.inner.meta
    }

    pub(super) fn who_has(&self, path: &LockPath) -> String {
        match self.inner.meta.locks().get(path) {
            Some(record) => format!("{} has it, {} wait", record.holder.owner, record.queue.len()),
            None => "it was given back just now".to_owned(),
        }
    }

    /// Tells the node's record of failures of an attempt that was not answered in time, with whom it waited for: who has the
    /// lock, and what the metadata waits for.
    fn tell(&self, path: &LockPath) {
        let mut places = places_of_metadata(&self.inner.meta, &self.inner.peers);
        if let Some(record) = self.inner.meta.locks().get(path) {
            let owner = &record.holder.owner.node;
            // Waiting for an owner on this node, or for a client, is contention and nobody's failure.
            if *owner != self.inner.node && self.inner.meta.map().nodes.contains_key(owner) {
                places.push(Place::Node(owner.clone()));
            }
        }
        self.inner.peers.failures().lock_timeout(&path.to_string(), places);
    }

    async fn propose(&self, command: Command) -> Result<Outcome, LockError> {
        self.inner.meta.propose(command).await.map_err(LockError::Meta)
    }

    fn jitter(&self, pause: Duration) -> Duration {
        // Drawing cannot panic; a poisoned generator still draws.
        let drawn = self.inner.rng.lock().unwrap_or_else(PoisonError::into_inner).next_u32();
        (pause / JITTER_PARTS).mul_f64(f64::from(drawn) / f64::from(u32::MAX))
    }

    pub(super) fn since(&self) -> &Mutex<Since> {
        &self.inner.since
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.inner.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
