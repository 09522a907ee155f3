//! Access keys: who may use the S3 door.
//!
//! Must never: show a secret but to whoever makes the key, or lists keys as an operator.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngCore;
use tokio::time::{Instant, timeout};

use super::{Gateway, GatewayError, check_bucket_name};
use crate::meta::MetaError;
use crate::model::{Command, Grant, KeyRecord};
use crate::types::BucketName;

/// What an id begins with: an operator knows at sight whose it is.
const ID_PREFIX: &str = "RS";
/// Characters of an id behind that: 90 bits, so that no two are ever alike.
const ID_CHARS: usize = 18;
/// The alphabet of ids: base 32 of RFC 4648.
const ID_ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Characters of a secret: 240 bits.
const SECRET_CHARS: usize = 40;
/// The alphabet of secrets: 64 characters that need no quoting in a shell or a URL.
const SECRET_ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// The longest label.
const MAX_LABEL_CHARS: usize = 256;

/// How reading access keys goes, for metrics.
#[derive(Default)]
pub(crate) struct KeyReads {
    last_micros: AtomicU64,
    given_up: AtomicU64,
}

impl KeyReads {
    fn note(&self, took: Duration, given_up: bool) {
        self.last_micros.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.given_up.fetch_add(u64::from(given_up), Ordering::Relaxed);
    }

    /// What the last one took, and how many were given up.
    pub(crate) fn figures(&self) -> (Duration, u64) {
        let took = Duration::from_micros(self.last_micros.load(Ordering::Relaxed));
        (took, self.given_up.load(Ordering::Relaxed))
    }
}

impl Gateway {
    /// Makes an access key.
    ///
    /// # Errors
    /// For a label that is too long, too many keys, or metadata that cannot be reached.
    pub async fn create_key(&self, label: &str, admin: bool) -> Result<KeyRecord, GatewayError> {
        if label.chars().count() > MAX_LABEL_CHARS {
            return Err(GatewayError::BadRequest(format!("a label has at most {MAX_LABEL_CHARS} characters")));
        }
        let (id, secret) = self.with_rng(|rng| {
            (format!("{ID_PREFIX}{}", draw(rng, ID_ALPHABET, ID_CHARS)), draw(rng, SECRET_ALPHABET, SECRET_CHARS))
        });
        let key = KeyRecord {
            id,
            secret,
            label: label.to_owned(),
            created_ms: self.now_ms(),
            admin,
            grants: BTreeMap::new(),
        };
        self.change_key_config(&key.id, Command::PutKey { key: key.clone() }).await?;
        self.catch_up().await;
        Ok(key)
    }

    /// The access key of this id. What this node has applied is good enough when it has the key: a key that was revoked
    /// elsewhere may be known here a moment longer. A node that is cut off has nothing to give away: without a quorum it
    /// answers no client.
    ///
    /// # Errors
    /// When it is not known here, and no quorum of the metadata answers.
    pub async fn key(&self, id: &str) -> Result<Option<KeyRecord>, GatewayError> {
        let (began, waited) = (Instant::now(), self.inner.shards.deadlines().config_read);
        let read = async {
            if let Some(key) = self.inner.meta.key(id).await? {
                return Ok(Some(key));
            }
            self.inner.meta.barrier().await?;
            self.inner.meta.key(id).await
        };
        let read = timeout(waited, read).await;
        // The metadata may give up on its own, in the same moment: that is the same failure.
        let timed_out = matches!(read, Err(_) | Ok(Err(MetaError::NoLeader { .. })));
        self.inner.key_reads.note(began.elapsed(), timed_out);
        if timed_out {
            self.failures().auth_timeout("access keys", self.metadata_places());
        }
        let late = |_| MetaError::NoLeader { doing: "reading an access key", waited };
        Ok(read.map_err(late)??)
    }

    /// How reading access keys goes.
    pub(crate) fn key_reads(&self) -> &KeyReads {
        &self.inner.key_reads
    }

    /// All access keys, by id, as of now.
    ///
    /// # Errors
    /// When no quorum of the metadata answers.
    pub async fn list_keys(&self) -> Result<Vec<KeyRecord>, GatewayError> {
        self.inner.meta.barrier().await?;
        Ok(self.inner.meta.keys().await?)
    }

    /// Takes an access key away.
    ///
    /// # Errors
    /// [`GatewayError::NoKey`], or metadata that cannot be reached.
    pub async fn revoke_key(&self, id: &str) -> Result<(), GatewayError> {
        self.change_key_config(id, Command::RevokeKey { id: id.to_owned() }).await?;
        self.catch_up().await;
        Ok(())
    }

    /// Sets what a key may do in a bucket; `None`: nothing any more.
    ///
    /// # Errors
    /// [`GatewayError::NoKey`], no such bucket, or metadata that cannot be reached.
    pub async fn grant_key(&self, id: &str, bucket: &BucketName, grant: Option<Grant>) -> Result<(), GatewayError> {
        check_bucket_name(bucket)?;
        self.change_key_config(id, Command::GrantKey { id: id.to_owned(), bucket: bucket.clone(), grant }).await?;
        self.catch_up().await;
        Ok(())
    }

    /// What was answered holds at this node from the answer on. That it was done is certain, whatever comes of this.
    async fn catch_up(&self) {
        if let Err(error) = self.inner.meta.barrier().await {
            tracing::debug!(%error, "a change of access keys is done, and not known to be applied here yet");
        }
    }
}

/// Text of an alphabet whose length is a power of two: each character is as likely as any other.
fn draw(rng: &mut dyn RngCore, alphabet: &[u8], chars: usize) -> String {
    (0..chars).map(|_| char::from(alphabet[rng.next_u32() as usize % alphabet.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_secrets_are_of_their_alphabets_and_never_alike() {
        let mut rng = resilver_host::real::host().rand.fork("test");
        let drawn: std::collections::BTreeSet<String> =
            (0..1000).map(|_| draw(&mut rng, ID_ALPHABET, ID_CHARS)).collect();
        assert_eq!(drawn.len(), 1000);
        assert!(drawn.iter().all(|id| id.len() == 18 && id.bytes().all(|char| ID_ALPHABET.contains(&char))));
        assert_eq!(draw(&mut rng, SECRET_ALPHABET, SECRET_CHARS).len(), 40);
    }
}
