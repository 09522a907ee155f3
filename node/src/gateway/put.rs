//! Putting an object: an upload and its commit.

use bytes::Bytes;
use futures_util::Stream;

use super::unowned::Unowned;
use super::{Gateway, GatewayError, Uploaded, check_key};
use crate::model::{Attributes, Command, Condition, ETag, MAX_USER_METADATA_BYTES, ObjectRecord, Outcome};
use crate::types::{BucketName, Version};

/// What to put where.
#[derive(Clone, Debug)]
pub struct PutOptions {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: String,
    /// What must hold when the commit is applied.
    pub condition: Condition,
    /// How long the body will be, when the client knows: it is then streamed without being held. Another length is an
    /// error.
    pub size_bytes: Option<u64>,
}

/// What an upload becomes: an object.
#[derive(Clone, Debug)]
pub struct PutTarget {
    /// The bucket it was uploaded for.
    pub bucket: BucketName,
    /// The key.
    pub key: String,
    /// What must hold when the commit is applied.
    pub condition: Condition,
    /// What the client says of it.
    pub attributes: Attributes,
}

/// A put that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutDone {
    /// Its version.
    pub version: Version,
    /// Its ETag.
    pub etag: ETag,
    /// Bytes of content.
    pub size_bytes: u64,
    /// CRC32C of the content.
    pub crc32c: u32,
    /// When it was put, as its record says.
    pub modified_ms: u64,
    /// Shards that are still to be rebuilt because their homes failed.
    pub shards_missing: usize,
    /// The version it replaced.
    pub replaced: Option<Version>,
}

impl Gateway {
    /// Stores an object. Acknowledged only when it is durable and committed.
    ///
    /// # Errors
    /// Nothing is stored then, except for [`GatewayError::Unknown`]: the commit may have been applied.
    pub async fn put<S, E>(&self, options: PutOptions, body: S) -> Result<PutDone, GatewayError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        check_key(&options.key)?;
        #[cfg(feature = "audit")]
        if self.goes_in_parts(&options) {
            return self.put_in_parts(options, body).await;
        }
        let uploaded = self.upload(&options.bucket, options.size_bytes, body).await?;
        let PutOptions { bucket, key, condition, .. } = options;
        self.commit_put(uploaded, PutTarget { bucket, key, condition, attributes: Attributes::default() }).await
    }

    /// Makes an object of what was uploaded.
    ///
    /// # Errors
    /// Nothing is changed then, except for [`GatewayError::Unknown`]: the commit may have been applied.
    pub async fn commit_put(&self, uploaded: Uploaded, target: PutTarget) -> Result<PutDone, GatewayError> {
        let PutTarget { bucket, key, condition, attributes } = target;
        check_key(&key)?;
        check_attributes(&attributes)?;
        let Uploaded { object, unowned, .. } = uploaded;
        let object = ObjectRecord { attributes, ..object };
        let command = Command::PutObject {
            bucket: bucket.clone(),
            key: key.clone(),
            object: object.clone(),
            condition,
            now_ms: object.modified_ms,
        };
        let replaced = self.noting(&bucket, self.commit(command, unowned)).await?;
        self.hand_off(&bucket, &key, &object);
        Ok(PutDone::of(&object, replaced))
    }

    /// Proposes a commit of content; the version it replaced.
    pub(super) async fn commit(&self, command: Command, mut unowned: Unowned) -> Result<Option<Version>, GatewayError> {
        let sent = unowned.proposed();
        let subject = format!("version {}", unowned.version());
        let outcome = self.changing("commit", &subject, async { Ok(self.inner.meta.propose(command).await?) }).await?;
        match outcome {
            Outcome::Put { replaced } => Ok(replaced),
            Outcome::Refused(refusal) => {
                unowned.refused(sent);
                Err(refusal.into())
            }
            other => Err(GatewayError::unexpected(&other)),
        }
    }
}

impl PutDone {
    pub(super) fn of(object: &ObjectRecord, replaced: Option<Version>) -> Self {
        Self {
            version: object.version,
            etag: object.etag,
            size_bytes: object.size_bytes,
            crc32c: object.crc32c,
            modified_ms: object.modified_ms,
            shards_missing: object.missing_shards(),
            replaced,
        }
    }
}

pub(super) fn check_attributes(attributes: &Attributes) -> Result<(), GatewayError> {
    let bytes = attributes.user_bytes();
    if bytes > MAX_USER_METADATA_BYTES {
        let (bytes, limit) = (bytes as u64, MAX_USER_METADATA_BYTES as u64);
        return Err(GatewayError::TooLarge { what: "the user's metadata", bytes, limit });
    }
    Ok(())
}
