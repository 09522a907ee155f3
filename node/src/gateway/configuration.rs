//! Changes of the configuration: each is made under the lock of what it changes, so that two operators' changes do not
//! interleave, and is refused if the lock was lost before it was applied.
//!
//! Owns: which lock a change needs. Must never: make a change without it.
//!
//! What that costs: two commands of the metadata beside the change itself (the lock is given back after the answer). A
//! lock is waited for as long as a proposal is tried (some 10 s): whoever died with it is waited out, and without a
//! leader the change itself would have come to nothing, too.

use super::{Gateway, GatewayError, RESERVED_PREFIX};
use crate::locks::{LockError, Terms};
use crate::meta::MetaError;
use crate::model::{Command, LockPath, Outcome, Refusal};
use crate::types::BucketName;

impl Gateway {
    /// Makes a change to a bucket.
    pub(super) async fn change_bucket_config(
        &self,
        bucket: &BucketName,
        command: Command,
    ) -> Result<Outcome, GatewayError> {
        // Nobody configures the cluster's own. One of them is the canary's, which proves that the store works: it must
        // not fail because of a lock.
        if bucket.as_str().starts_with(RESERVED_PREFIX) {
            return Ok(self.inner.meta.propose(command).await?);
        }
        let path = LockPath::parse(&format!("config/bucket/{bucket}"))
            .map_err(|bad| GatewayError::BadRequest(bad.to_string()))?;
        self.change(&path, command).await
    }

    /// Makes a change to an access key that has no answer but that it was done.
    pub(super) async fn change_key_config(&self, id: &str, command: Command) -> Result<(), GatewayError> {
        // No key has an id that names no lock.
        let path = LockPath::parse(&format!("config/key/{id}")).map_err(|_| GatewayError::NoKey(id.to_owned()))?;
        self.change(&path, command).await.and_then(done)
    }

    async fn change(&self, path: &LockPath, command: Command) -> Result<Outcome, GatewayError> {
        self.changing("configure", path.as_str(), self.change_under_lock(path, command)).await
    }

    async fn change_under_lock(&self, path: &LockPath, command: Command) -> Result<Outcome, GatewayError> {
        let guard = self.inner.locks.hold(path, crate::meta::name_of(&command), Terms::CONFIG).await?;
        // The answer to the last question may have come as late as its lease.
        if !guard.may_be_held() {
            return Err(Refusal::LockLost { path: path.clone(), token: guard.token() }.into());
        }
        let outcome = self.inner.meta.propose(guard.cover(command)).await?;
        match outcome {
            // A refusal for the lock's sake is no word on the change: it was never judged.
            Outcome::Refused(refusal @ Refusal::LockLost { .. }) => Err(refusal.into()),
            outcome => Ok(outcome),
        }
    }
}

/// What has no answer but that it was done.
pub(super) fn done(outcome: Outcome) -> Result<(), GatewayError> {
    match outcome {
        Outcome::Done => Ok(()),
        Outcome::Refused(refusal) => Err(refusal.into()),
        other => Err(GatewayError::unexpected(&other)),
    }
}

impl From<LockError> for GatewayError {
    fn from(error: LockError) -> Self {
        match error {
            // Whether the question arrived is not known, and does not matter: the change was not even proposed.
            LockError::Meta(error @ MetaError::Unknown { .. }) => Self::Meta(error.to_string()),
            LockError::Meta(error) => error.into(),
            silent @ LockError::Silent { .. } => Self::Meta(silent.to_string()),
            other => Self::Locked(other.to_string()),
        }
    }
}
