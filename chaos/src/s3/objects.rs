//! Buckets and objects.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use rusty_s3::actions::{DeleteObjectsResponse, ListObjectsV2, ObjectIdentifier};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use super::door::{Door, Reply, Signed};
use super::{Content, S3Error};

/// The region the doors answer to.
const REGION: &str = "us-east-1";

/// How long a signature holds: each is used at once.
const SIGNATURE_LIFE: Duration = Duration::from_secs(600);

/// What must hold for a put or a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no such object.
    Absent,
    /// The object has this ETag, without quotes.
    ETag(String),
}

impl Condition {
    pub(super) fn headers(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Always => Vec::new(),
            Self::Absent => vec![("if-none-match", "*".to_owned())],
            Self::ETag(etag) => vec![("if-match", format!("\"{etag}\""))],
        }
    }
}

/// An object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its ETag, without quotes.
    pub etag: String,
    /// Its length.
    pub size_bytes: u64,
}

/// Where a listing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From<'a> {
    /// At the first key.
    Start,
    /// Right after this key, which need not exist.
    After(&'a str),
    /// Where a page said that the next one begins.
    Next(&'a str),
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// By key.
    pub objects: Vec<Listed>,
    /// How to ask for the next page, when there is one.
    pub next: Option<String>,
}

/// One bucket through one door.
#[derive(Clone)]
pub struct Store {
    pub(super) door: Arc<Door>,
    pub(super) credentials: Credentials,
    pub(super) bucket: Bucket,
}

impl Store {
    pub(super) fn new(
        door: Arc<Door>,
        credentials: Credentials,
        endpoint: &str,
        bucket: &str,
    ) -> Result<Self, S3Error> {
        let wrong = || S3Error::Endpoint { endpoint: endpoint.to_owned() };
        let url = endpoint.parse().map_err(|_| wrong())?;
        let bucket = Bucket::new(url, UrlStyle::Path, bucket.to_owned(), REGION).map_err(|_| wrong())?;
        Ok(Self { door, credentials, bucket })
    }

    /// Where the door is.
    pub fn address(&self) -> &str {
        self.door.address()
    }

    /// Makes the bucket, or finds that it is ours already.
    ///
    /// # Errors
    /// When it is neither.
    pub async fn ensure_bucket(&self, deadline: Duration) -> Result<(), S3Error> {
        let signed = sign(self.bucket.create_bucket(&self.credentials), Vec::new());
        match self.door.call(signed, nothing(), deadline).await {
            Ok(reply) => reply.whole().await.map(drop),
            Err(error) if error.is("BucketAlreadyOwnedByYou") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes the bucket, which must be empty.
    ///
    /// # Errors
    /// When it could not be.
    pub async fn delete_bucket(&self, deadline: Duration) -> Result<(), S3Error> {
        let signed = sign(self.bucket.delete_bucket(&self.credentials), Vec::new());
        self.door.call(signed, nothing(), deadline).await?.whole().await.map(drop)
    }

    /// Stores an object. Its ETag.
    ///
    /// # Errors
    /// When that was refused, failed, or nobody knows.
    pub async fn put(
        &self,
        key: &str,
        content: Content,
        condition: &Condition,
        deadline: Duration,
    ) -> Result<String, S3Error> {
        let signed = sign(self.bucket.put_object(Some(&self.credentials), key), condition.headers());
        let reply = self.door.call(signed, content, deadline).await?;
        let etag = reply.etag();
        reply.whole().await?;
        etag.ok_or_else(|| self.door.odd("a put without an ETag"))
    }

    /// Reads an object, or a range of its bytes. The content is read from the reply.
    ///
    /// # Errors
    /// When the object is not there (`NoSuchKey`), or cannot be read now.
    pub async fn get(
        &self,
        key: &str,
        range: Option<RangeInclusive<u64>>,
        deadline: Duration,
    ) -> Result<Reply, S3Error> {
        let range = range.map(|range| ("range", format!("bytes={}-{}", range.start(), range.end())));
        let signed = sign(self.bucket.get_object(Some(&self.credentials), key), range.into_iter().collect());
        self.door.call(signed, nothing(), deadline).await
    }

    /// What a get would say, without the content.
    ///
    /// # Errors
    /// As [`Store::get`]; that an object is not there is a status of 404 without a code.
    pub async fn head(&self, key: &str, deadline: Duration) -> Result<Reply, S3Error> {
        let signed = sign(self.bucket.head_object(Some(&self.credentials), key), Vec::new());
        let mut reply = self.door.call(signed, nothing(), deadline).await?;
        // There is no body, but its end gives the connection back.
        while reply.piece().await?.is_some() {}
        Ok(reply)
    }

    /// Removes an object, if there is one.
    ///
    /// # Errors
    /// When that was refused, failed, or nobody knows.
    pub async fn delete(&self, key: &str, deadline: Duration) -> Result<(), S3Error> {
        let signed = sign(self.bucket.delete_object(Some(&self.credentials), key), Vec::new());
        self.door.call(signed, nothing(), deadline).await?.whole().await.map(drop)
    }

    /// Removes up to a thousand objects in one request.
    ///
    /// # Errors
    /// When that failed as a whole, or for one of them.
    pub async fn delete_many(&self, keys: &[String], deadline: Duration) -> Result<(), S3Error> {
        let keys: Vec<ObjectIdentifier> = keys.iter().cloned().map(ObjectIdentifier::new).collect();
        let mut action = self.bucket.delete_objects(Some(&self.credentials), keys.iter());
        action.set_quiet(true);
        let (body, md5) = action.clone().body_with_md5();
        let signed = sign(action, vec![("content-md5", md5)]);
        let answer = self.door.call(signed, Content::Whole(Bytes::from(body)), deadline).await?.whole().await?;
        let answer = DeleteObjectsResponse::parse(&String::from_utf8_lossy(&answer));
        match answer.map_err(|error| self.door.odd(error))?.errors.first() {
            None => Ok(()),
            Some(error) => Err(self.door.broken(format!("{}: {}: {}", error.key, error.code, error.message))),
        }
    }

    /// A page of a listing: its document, which [`Store::page`] reads.
    ///
    /// # Errors
    /// When it cannot be had now.
    pub async fn list_raw(
        &self,
        prefix: &str,
        from: From<'_>,
        limit: usize,
        deadline: Duration,
    ) -> Result<Bytes, S3Error> {
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_max_keys(limit);
        if !prefix.is_empty() {
            action.with_prefix(prefix);
        }
        match from {
            From::Start => {}
            From::After(key) => action.with_start_after(key),
            From::Next(token) => action.with_continuation_token(token),
        }
        self.door.call(sign(action, Vec::new()), nothing(), deadline).await?.whole().await
    }

    /// A page of a listing.
    ///
    /// # Errors
    /// When it cannot be had now, or is not S3's.
    pub async fn list(&self, prefix: &str, from: From<'_>, limit: usize, deadline: Duration) -> Result<Page, S3Error> {
        self.page(&self.list_raw(prefix, from, limit, deadline).await?)
    }

    /// What a page's document says.
    ///
    /// # Errors
    /// When it is not S3's.
    pub fn page(&self, document: &[u8]) -> Result<Page, S3Error> {
        let text = String::from_utf8_lossy(document);
        let parsed = ListObjectsV2::parse_response(&text).map_err(|error| self.door.odd(error))?;
        let listed = parsed.contents.into_iter().map(|object| Listed {
            key: object.key,
            etag: object.etag.unwrap_or_default().trim_matches('"').to_owned(),
            size_bytes: object.size.unwrap_or_default(),
        });
        Ok(Page { objects: listed.collect(), next: parsed.next_continuation_token })
    }
}

pub(super) fn nothing() -> Content {
    Content::Whole(Bytes::new())
}

/// Signs an action together with its headers: what was not signed could be taken off on the way.
pub(super) fn sign<'a, A: S3Action<'a>>(mut action: A, headers: Vec<(&'static str, String)>) -> Signed {
    for (name, value) in &headers {
        action.headers_mut().insert(*name, value.clone());
    }
    let url = action.sign(SIGNATURE_LIFE);
    let method = match A::METHOD {
        rusty_s3::Method::Head => Method::HEAD,
        rusty_s3::Method::Get => Method::GET,
        rusty_s3::Method::Post => Method::POST,
        rusty_s3::Method::Put => Method::PUT,
        rusty_s3::Method::Delete => Method::DELETE,
    };
    let path = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    Signed { method, path, headers }
}
