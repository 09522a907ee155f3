//! Uploads in parts.

use std::time::Duration;

use bytes::Bytes;
use rusty_s3::actions::{CompleteMultipartUploadResponse, CreateMultipartUpload};

use super::door::said;
use super::objects::{Condition, Store, nothing, sign};
use super::{Content, S3Error};

/// An upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The object it will be.
    pub key: String,
    /// Its id.
    pub id: String,
}

impl Store {
    /// Begins an upload.
    ///
    /// # Errors
    /// When that was refused, failed, or nobody knows.
    pub async fn create_upload(&self, key: &str, deadline: Duration) -> Result<Upload, S3Error> {
        let signed = sign(self.bucket.create_multipart_upload(Some(&self.credentials), key), Vec::new());
        let answer = self.door.call(signed, nothing(), deadline).await?.whole().await?;
        let answer = CreateMultipartUpload::parse_response(&String::from_utf8_lossy(&answer));
        let id = answer.map_err(|error| self.door.odd(error))?.upload_id().to_owned();
        Ok(Upload { key: key.to_owned(), id })
    }

    /// Stores a part, counted from 1. Its ETag.
    ///
    /// # Errors
    /// When that was refused, failed, or nobody knows.
    pub async fn put_part(
        &self,
        upload: &Upload,
        number: u16,
        content: Content,
        deadline: Duration,
    ) -> Result<String, S3Error> {
        let signed =
            sign(self.bucket.upload_part(Some(&self.credentials), &upload.key, number, &upload.id), Vec::new());
        let reply = self.door.call(signed, content, deadline).await?;
        let etag = reply.etag();
        reply.whole().await?;
        etag.ok_or_else(|| self.door.odd("a part without an ETag"))
    }

    /// Makes the object of its parts, numbered from 1 in this order. Its ETag.
    ///
    /// # Errors
    /// When that was refused, failed, or nobody knows.
    pub async fn complete(
        &self,
        upload: &Upload,
        etags: &[String],
        condition: &Condition,
        deadline: Duration,
    ) -> Result<String, S3Error> {
        let etags = etags.iter().map(String::as_str);
        let action = self.bucket.complete_multipart_upload(Some(&self.credentials), &upload.key, &upload.id, etags);
        let signed = sign(action.clone(), condition.headers());
        let body = Content::Whole(Bytes::from(action.body()));
        let answer = self.door.call(signed, body, deadline).await?.whole().await?;
        let text = String::from_utf8_lossy(&answer);
        // S3 may say 200 first and fail later: the document has the last word.
        if text.contains("<Error>") {
            return Err(S3Error::Failed(said(200, &text)));
        }
        let done = CompleteMultipartUploadResponse::parse(&text).map_err(|error| self.door.odd(error))?;
        Ok(done.etag().trim_matches('"').to_owned())
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// When that was refused, failed, or nobody knows.
    pub async fn abort(&self, upload: &Upload, deadline: Duration) -> Result<(), S3Error> {
        let action = self.bucket.abort_multipart_upload(Some(&self.credentials), &upload.key, &upload.id);
        self.door.call(sign(action, Vec::new()), nothing(), deadline).await?.whole().await.map(drop)
    }
}
