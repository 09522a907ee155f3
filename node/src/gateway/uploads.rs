//! Uploads in parts. A part is stored like an object; completing moves no byte of it.

use bytes::Bytes;
use futures_util::Stream;
use rand::RngCore;

use super::objects::page_limit;
use super::put::check_attributes;
use super::{Gateway, GatewayError, PutDone, Uploaded, check_bucket_name, check_key};
use crate::meta::{PartPage, UploadPage, UploadQuery};
use crate::model::{
    Attributes, ChecksumAlgorithm, ChecksumKind, Command, Condition, ETag, MAX_PART_NUMBER, ObjectRecord, Outcome,
    StoredChecksum, UPLOADS_BUCKET, UploadRecord, part_key,
};
use crate::types::{BucketName, UploadId, Version};

/// An upload to begin.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// The bucket.
    pub bucket: BucketName,
    /// The key the object will have.
    pub key: String,
    /// What the object will carry.
    pub attributes: Attributes,
    /// Which checksum parts and object have.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// The access key that begins it.
    pub initiator: String,
}

/// What an upload of content becomes: a part.
#[derive(Clone, Debug)]
pub struct PartTarget {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: String,
    /// The upload.
    pub upload: UploadId,
    /// The number, from 1.
    pub part: u16,
    /// Its raw checksum, by the algorithm that the upload was begun with; nothing is kept of it when there is none.
    pub checksum: Option<Vec<u8>>,
}

/// What makes an object of an upload.
#[derive(Clone, Debug)]
pub struct Complete {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: String,
    /// The upload.
    pub upload: UploadId,
    /// Numbers, rising, and the ETags they must have.
    pub parts: Vec<(u16, ETag)>,
    /// The object's checksum.
    pub checksum: Option<StoredChecksum>,
    /// What must hold of the object that is replaced.
    pub condition: Condition,
}

/// An upload that became an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteDone {
    /// The object's version.
    pub version: Version,
    /// Its ETag.
    pub etag: ETag,
    /// Its checksum, as stored.
    pub record_checksum: Option<StoredChecksum>,
    /// Bytes of content.
    pub size_bytes: u64,
}

impl Gateway {
    /// Begins an upload in parts.
    ///
    /// # Errors
    /// For a bad name, too much metadata, no such bucket, no room, or metadata that cannot be reached.
    pub async fn create_upload(&self, new: NewUpload) -> Result<UploadRecord, GatewayError> {
        check_bucket_name(&new.bucket)?;
        check_key(&new.key)?;
        check_attributes(&new.attributes)?;
        self.inner.meta.has_room()?;
        let bucket = self.bucket_for_put(&new.bucket).await?;
        let NewUpload { bucket: name, key, attributes, checksum, initiator } = new;
        let upload = UploadRecord {
            id: self.draw_upload(),
            bucket: name,
            key,
            created_ms: self.now_ms(),
            attributes,
            checksum,
            coding: bucket.coding,
            initiator,
            completed: None,
        };
        self.done(Command::CreateUpload { upload: upload.clone() }).await?;
        Ok(upload)
    }

    /// Stores the content of a part, coded as its upload was begun. Asks for the upload first: nobody sends gigabytes to
    /// one that is gone.
    ///
    /// # Errors
    /// As of [`Gateway::upload`]; [`GatewayError::NoUpload`].
    pub async fn upload_part<S, E>(
        &self,
        bucket: &BucketName,
        key: &str,
        id: UploadId,
        size_bytes: Option<u64>,
        body: S,
    ) -> Result<Uploaded, GatewayError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        self.inner.meta.has_room()?;
        let part = async {
            let upload = self.open_upload(bucket, key, id).await?;
            self.store(&format!("{bucket}/{key}"), upload.coding, size_bytes, body).await
        };
        self.noting(bucket, part).await
    }

    /// Makes a part of what was uploaded, replacing one of the same number.
    ///
    /// # Errors
    /// Nothing is changed then, except for [`GatewayError::Unknown`]: the commit may have been applied.
    pub async fn commit_part(&self, uploaded: Uploaded, target: PartTarget) -> Result<PutDone, GatewayError> {
        let PartTarget { bucket, key, upload, part, checksum } = target;
        if part == 0 || part > MAX_PART_NUMBER {
            return Err(GatewayError::InvalidPart { number: part });
        }
        let record = self.open_upload(&bucket, &key, upload).await?;
        let checksum = record.checksum.zip(checksum).map(|((algorithm, _), value)| StoredChecksum {
            algorithm,
            kind: ChecksumKind::FullObject,
            value,
        });
        let attributes = Attributes { checksum, ..Attributes::default() };
        let Uploaded { object, unowned, .. } = uploaded;
        let object = ObjectRecord { attributes, ..object };
        let now_ms = object.modified_ms;
        let name = part_key(&bucket, upload, part);
        let into = bucket.clone();
        let command = Command::PutPart { bucket, key, upload, part, object: object.clone(), now_ms };
        let replaced = self.noting(&into, self.commit(command, unowned)).await?;
        self.hand_off(&BucketName::from(UPLOADS_BUCKET), &name, &object);
        Ok(PutDone::of(&object, replaced))
    }

    /// An upload that is under way, as of now.
    ///
    /// # Errors
    /// [`GatewayError::NoUpload`], no such bucket, or no quorum of the metadata answers.
    pub async fn upload_record(
        &self,
        bucket: &BucketName,
        key: &str,
        id: UploadId,
    ) -> Result<UploadRecord, GatewayError> {
        check_bucket_name(bucket)?;
        check_key(key)?;
        self.inner.meta.barrier().await?;
        match self.inner.meta.upload(bucket, key, id).await? {
            Some(upload) if upload.completed.is_none() => Ok(upload),
            _ => Err(self.no_upload(bucket).await?),
        }
    }

    /// One page of an upload's parts behind number `after`, as of now; `limit` 0 is [`super::MAX_PAGE`].
    ///
    /// # Errors
    /// As of [`Gateway::upload_record`].
    pub async fn list_parts(
        &self,
        bucket: &BucketName,
        key: &str,
        id: UploadId,
        after: u16,
        limit: usize,
    ) -> Result<PartPage, GatewayError> {
        check_bucket_name(bucket)?;
        check_key(key)?;
        self.inner.meta.barrier().await?;
        match self.inner.meta.list_parts(bucket, key, id, after, page_limit(limit)).await? {
            Some(page) => Ok(page),
            None => Err(self.no_upload(bucket).await?),
        }
    }

    /// One page of a bucket's uploads that are under way, as of now; `limit` 0 is [`super::MAX_PAGE`].
    ///
    /// # Errors
    /// When there is no such bucket, or no quorum of the metadata answers.
    pub async fn list_uploads(&self, bucket: &BucketName, query: UploadQuery) -> Result<UploadPage, GatewayError> {
        self.bucket(bucket).await?;
        let limit = page_limit(query.limit);
        Ok(self.inner.meta.list_uploads(bucket, UploadQuery { limit, ..query }).await?)
    }

    /// Makes an object of an upload's parts. Repeated within the hour, it is answered the same.
    ///
    /// # Errors
    /// Nothing is changed then, except for [`GatewayError::Unknown`]: it may have been applied; repeat it.
    pub async fn complete_upload(&self, complete: Complete) -> Result<CompleteDone, GatewayError> {
        check_bucket_name(&complete.bucket)?;
        check_key(&complete.key)?;
        let Complete { bucket, key, upload, parts, checksum, condition } = complete;
        if parts.len() > usize::from(MAX_PART_NUMBER) {
            return Err(GatewayError::BadRequest(format!("{} parts: at most {MAX_PART_NUMBER}", parts.len())));
        }
        let (version, now_ms) = (self.draw_version(), self.now_ms());
        let subject = format!("{bucket}/{key}");
        let command = Command::CompleteUpload { bucket, key, upload, parts, version, checksum, condition, now_ms };
        let work = async { Ok(self.inner.meta.propose(command).await?) };
        match self.changing("complete", &subject, work).await? {
            Outcome::Completed(done) => Ok(CompleteDone {
                version: done.version,
                etag: done.etag,
                record_checksum: done.checksum,
                size_bytes: done.size_bytes,
            }),
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(GatewayError::unexpected(&other)),
        }
    }

    /// Ends an upload; its parts are collected.
    ///
    /// # Errors
    /// [`GatewayError::NoUpload`], or metadata that cannot be reached.
    pub async fn abort_upload(&self, bucket: &BucketName, key: &str, id: UploadId) -> Result<(), GatewayError> {
        check_bucket_name(bucket)?;
        check_key(key)?;
        let now_ms = self.now_ms();
        self.done(Command::AbortUpload { bucket: bucket.clone(), key: key.to_owned(), upload: id, now_ms }).await
    }

    /// As [`Gateway::upload_record`], but what this node has applied is good enough while the upload is in it: whether it
    /// is still under way is judged once more when a part is committed.
    async fn open_upload(&self, bucket: &BucketName, key: &str, id: UploadId) -> Result<UploadRecord, GatewayError> {
        check_bucket_name(bucket)?;
        check_key(key)?;
        match self.inner.meta.upload(bucket, key, id).await? {
            Some(upload) if upload.completed.is_none() => Ok(upload),
            _ => self.upload_record(bucket, key, id).await,
        }
    }

    /// Which of the two is missing: the upload, or the bucket it should be in.
    async fn no_upload(&self, bucket: &BucketName) -> Result<GatewayError, GatewayError> {
        let known = self.inner.meta.bucket(bucket).await?.is_some();
        Ok(if known { GatewayError::NoUpload } else { GatewayError::NoBucket(bucket.clone()) })
    }

    fn draw_upload(&self) -> UploadId {
        self.with_rng(|rng| UploadId((u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64())))
    }
}
