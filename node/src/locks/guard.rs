//! What is kept of a question for a lock ([`Claim`]) and of its answer ([`LockGuard`]): renewed while it lives, given back
//! when it goes.
//!
//! Owns: the renewals, and the last words. Must never: repeat them; leave a place in a queue behind when its caller goes
//! away. Invariant: a guard's lease is counted from before the question whose answer granted or renewed it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Grant, RENEWALS_PER_LEASE};
use super::{LockError, Locks};
use crate::meta::Meta;
use crate::model::{Command, LockOwner, LockPath, Outcome};
use crate::types::LockToken;

/// What is said when a claim goes.
enum Ending {
    /// It is not known what was granted.
    Withdraw,
    /// This was.
    Release(LockToken),
    /// Nothing: it belongs to somebody else now, or was given back.
    Nothing,
}

/// What an owner asked for, and gives up when this goes: also when the caller was dropped in the middle. Said once, in
/// the background, and not repeated. If it is lost, or overtakes a question that was still on its way, the lease ends what
/// is left.
pub(super) struct Claim {
    locks: Locks,
    path: LockPath,
    owner: LockOwner,
    end: Ending,
}

impl Claim {
    /// What an owner asks for from now on.
    pub(super) fn new(locks: &Locks, path: &LockPath, owner: &LockOwner) -> Self {
        Self { locks: locks.clone(), path: path.clone(), owner: owner.clone(), end: Ending::Withdraw }
    }

    /// There is nothing to give up, or it is somebody else's to give back from now on.
    pub(super) fn hand_over(mut self) {
        self.end = Ending::Nothing;
    }

    fn last_words(&mut self) -> Option<Command> {
        let (path, owner) = (self.path.clone(), self.owner.clone());
        match std::mem::replace(&mut self.end, Ending::Nothing) {
            Ending::Withdraw => Some(Command::WithdrawLock { path, owner }),
            Ending::Release(token) => Some(Command::ReleaseLock { path, owner, token }),
            Ending::Nothing => None,
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let Some(command) = self.last_words() else { return };
        // Without a runtime the process is ending, and its leases with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (meta, path) = (self.locks.meta().clone(), self.path.clone());
        runtime.spawn(async move {
            match meta.propose(command).await {
                Ok(Outcome::Done) => {}
                Ok(other) => tracing::info!(%path, ?other, "a lock was lost before it was given back"),
                Err(error) => tracing::info!(%path, %error, "a lock is given back when its lease ends"),
            }
        });
    }
}

/// A lock that is held. It is renewed while this lives, and given back when it goes.
pub struct LockGuard {
    claim: Claim,
    token: LockToken,
    until: Arc<Mutex<Instant>>,
    renewing: AbortHandle,
}

impl LockGuard {
    pub(super) fn keep(mut claim: Claim, lease: Duration, grant: Grant) -> Self {
        claim.end = Ending::Release(grant.token);
        let until = Arc::new(Mutex::new(grant.until));
        let renewal = Renewal {
            meta: claim.locks.meta().clone(),
            path: claim.path.clone(),
            owner: claim.owner.clone(),
            token: grant.token,
            lease,
            until: until.clone(),
        };
        let renewing = tokio::spawn(renewal.run()).abort_handle();
        Self { claim, token: grant.token, until, renewing }
    }

    /// What everything done under this lock carries.
    pub fn token(&self) -> LockToken {
        self.token
    }

    /// Which lock.
    pub fn path(&self) -> &LockPath {
        &self.claim.path
    }

    /// Whether the lease may still run. `false` is certain, by a count that began before the leader's: nothing is begun then.
    pub fn may_be_held(&self) -> bool {
        Instant::now() < *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `command`, to be applied only if this lock is still held then.
    pub fn cover(&self, command: Command) -> Command {
        Command::UnderLock { path: self.claim.path.clone(), token: self.token, command: Box::new(command) }
    }

    /// Gives the lock back and says how that went. Asked once; a guard that is dropped does the same unheard.
    ///
    /// # Errors
    /// When it was lost before, or nobody answered: its lease then ends it.
    pub async fn release(mut self) -> Result<(), LockError> {
        self.renewing.abort();
        let Some(command) = self.claim.last_words() else { return Ok(()) };
        match self.claim.locks.meta().propose(command).await.map_err(LockError::Meta)? {
            Outcome::Done => Ok(()),
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(LockError::unexpected(&self.claim.path, other)),
        }
    }

    /// As the holder's process ends when it is killed: nothing is given back, nothing is renewed.
    #[cfg(test)]
    pub(crate) fn die(mut self) {
        self.renewing.abort();
        self.claim.end = Ending::Nothing;
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Renews a lock until it is refused.
struct Renewal {
    meta: Meta,
    path: LockPath,
    owner: LockOwner,
    token: LockToken,
    lease: Duration,
    until: Arc<Mutex<Instant>>,
}

impl Renewal {
    async fn run(self) {
        let pace = self.lease / RENEWALS_PER_LEASE;
        loop {
            sleep(pace).await;
            let asked = Instant::now();
            let (path, owner) = (self.path.clone(), self.owner.clone());
            let renewed = self.meta.propose(Command::RenewLock { path, owner, token: self.token });
            // Of one that is not answered within its third, the next is the repetition.
            match timeout(pace, renewed).await {
                Ok(Ok(Outcome::Locked { .. })) => self.set(asked + self.lease),
                Ok(Ok(other)) => {
                    tracing::warn!(path = %self.path, token = %self.token, ?other, "a lock was lost");
                    self.set(asked);
                    return;
                }
                Ok(Err(error)) => tracing::debug!(path = %self.path, %error, "a lock was not renewed"),
                Err(_) => tracing::debug!(path = %self.path, "a lock was not renewed in time"),
            }
        }
    }

    fn set(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}
