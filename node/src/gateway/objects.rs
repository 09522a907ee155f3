//! Objects by name: what is said of them, deleting and listing them. Their content is [`super::get`]'s and
//! [`super::upload`]'s.

use super::{Gateway, GatewayError, MAX_PAGE, check_bucket_name, check_key};
use crate::meta::{ListQuery, Page};
use crate::model::{Command, Condition, MAX_DELETES, ObjectRecord, Outcome, UPLOADS_BUCKET};
use crate::types::BucketName;

/// One page of a listing.
pub type ObjectPage = Page;

impl Gateway {
    /// The record of an object, as of now.
    ///
    /// # Errors
    /// When there is none, or no quorum of the metadata answers.
    pub async fn head(&self, bucket: &BucketName, key: &str) -> Result<ObjectRecord, GatewayError> {
        self.reading("head", &format!("{bucket}/{key}"), self.newest(bucket, key)).await
    }

    /// [`Gateway::head`] as a part of another operation.
    pub(super) async fn newest(&self, bucket: &BucketName, key: &str) -> Result<ObjectRecord, GatewayError> {
        check_bucket_name(bucket)?;
        check_key(key)?;
        self.inner.meta.barrier().await?;
        match self.inner.meta.object(bucket, key).await? {
            Some(record) => Ok(record),
            // Parts have a bucket without a record.
            None if bucket.as_str() != UPLOADS_BUCKET && self.inner.meta.bucket(bucket).await?.is_none() => {
                Err(GatewayError::NoBucket(bucket.clone()))
            }
            None => Err(GatewayError::NoObject { bucket: bucket.clone(), key: key.to_owned() }),
        }
    }

    /// Deletes an object; answers whether there was one.
    ///
    /// # Errors
    /// When the condition does not hold, or the metadata cannot be reached; [`GatewayError::Unknown`] when it may have
    /// happened.
    pub async fn delete(&self, bucket: &BucketName, key: &str, condition: Condition) -> Result<bool, GatewayError> {
        check_bucket_name(bucket)?;
        check_key(key)?;
        let now_ms = self.now_ms();
        let command = Command::DeleteObject { bucket: bucket.clone(), key: key.to_owned(), condition, now_ms };
        let work = async { Ok(self.inner.meta.propose(command).await?) };
        match self.changing("delete", &format!("{bucket}/{key}"), work).await? {
            Outcome::Deleted { existed } => Ok(existed),
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(GatewayError::unexpected(&other)),
        }
    }

    /// Deletes objects, all of them or none; answers for each whether there was one.
    ///
    /// # Errors
    /// As of [`Gateway::delete`]; for a bad key or too many of them.
    pub async fn delete_many(&self, bucket: &BucketName, keys: Vec<String>) -> Result<Vec<bool>, GatewayError> {
        check_bucket_name(bucket)?;
        if keys.len() > MAX_DELETES {
            return Err(GatewayError::BadRequest(format!(
                "{} keys to delete: at most {MAX_DELETES} at a time",
                keys.len()
            )));
        }
        for key in &keys {
            check_key(key)?;
        }
        let command = Command::DeleteObjects { bucket: bucket.clone(), keys, now_ms: self.now_ms() };
        let work = async { Ok(self.inner.meta.propose(command).await?) };
        match self.changing("delete", bucket.as_str(), work).await? {
            Outcome::DeletedMany(existed) => Ok(existed),
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(GatewayError::unexpected(&other)),
        }
    }

    /// One page of the parts of all uploads under way, as objects of the bucket that is theirs: for who verifies everything. No
    /// client's to ask.
    ///
    /// # Errors
    /// When no quorum of the metadata answers.
    pub async fn list_parts_of_all(&self, query: ListQuery) -> Result<ObjectPage, GatewayError> {
        let limit = page_limit(query.limit);
        self.inner.meta.barrier().await?;
        Ok(self.inner.meta.list(&BucketName::from(UPLOADS_BUCKET), ListQuery { limit, ..query }).await?)
    }

    /// One page of a listing, of one applied index; `limit` 0 is [`MAX_PAGE`]. It may have fewer entries than asked for
    /// although there are more.
    ///
    /// # Errors
    /// When there is no such bucket, or no quorum of the metadata answers.
    pub async fn list(&self, bucket: &BucketName, query: ListQuery) -> Result<ObjectPage, GatewayError> {
        check_bucket_name(bucket)?;
        let limit = page_limit(query.limit);
        let work = async {
            self.inner.meta.barrier().await?;
            if self.inner.meta.bucket(bucket).await?.is_none() {
                return Err(GatewayError::NoBucket(bucket.clone()));
            }
            Ok(self.inner.meta.list(bucket, ListQuery { limit, ..query }).await?)
        };
        self.reading("list", bucket.as_str(), work).await
    }
}

pub(super) fn page_limit(asked: usize) -> usize {
    if asked == 0 { MAX_PAGE } else { asked.min(MAX_PAGE) }
}
