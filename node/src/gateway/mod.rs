//! Puts and gets: turns the bytes of an object into extents, stripes and shards, and back.
//!
//! Owns: names, the path of an upload up to its commit, the path of a read with all its detours, and the answers that
//! clients get ([`StoreService`]).
//! Must never: acknowledge what is not committed; answer "failed" when the outcome of a commit is unknown; hand out bytes
//! that no CRC covered; touch a disk itself (shards go through [`crate::transport`]).
//!
//! Invariants:
//! - A put is acknowledged once, for every extent, k+1 shards are durable and losing any one failure domain leaves k,
//!   and the commit was applied. Homes that failed meanwhile are recorded as nowhere: repair brings them back.
//! - Shards are written under a version nobody else has, so an upload that fails harms no reader. What it leaves behind
//!   is an orphan, collected by [`crate::repair`] under its own rules.
//! - A get reads one version from its first byte to its last, whatever is put meanwhile.

mod body;
mod error;
mod extent_reader;
mod extent_writer;
mod get;
mod names;
mod operations;
mod put;
mod service;
mod verify;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use resilver_host::{Host, Rng};
use tokio::sync::Semaphore;

pub use error::GatewayError;
pub use extent_reader::{ExtentReader, ExtentSpec, ReadAhead, ReadPlan, Stripe, Unreadable};
pub use get::{ByteRange, Content, ContentStream};
pub use names::{RESERVED_PREFIX, check_bucket_name, check_key};
pub use operations::Operations;
pub use put::{PutDone, PutOptions};
pub use service::StoreService;
pub use verify::{ObjectRepair, ObjectVerdict, RepairedShard, ShardCheck, ShardState};

use crate::meta::Meta;
use crate::model::{BucketRecord, Coding, Command, Condition, ObjectRecord, Outcome};
use crate::repair::Rebuilder;
use crate::transport::ShardClient;
use crate::types::{BucketName, Version};

/// Puts at work on one node. Each holds some stripes per home and up to an extent of an unannounced body: beyond this the
/// node refuses, because memory is what it would run out of.
pub const MAX_PUTS: usize = 64;

/// Puts of unannounced length that may hold a whole extent in memory side by side; others wait. Eight are 128 MiB.
const MAX_UNSIZED_PUTS: usize = 8;

/// Keys of a page when the client names no limit, and the most it gets: S3's figure.
pub const MAX_PAGE: usize = 1000;

/// What a gateway is made of.
pub struct GatewayParts {
    /// The machine.
    pub host: Host,
    /// The metadata.
    pub meta: Meta,
    /// The way to the shards.
    pub shards: ShardClient,
    /// The way to rebuild one, for `repair`.
    pub rebuilder: Rebuilder,
    /// How long replaced versions stay readable: a get that takes longer is ended.
    pub read_deadline: Duration,
}

/// The gateway of a node. Stateless but for what is in flight; cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inner: Arc<Inner>,
}

struct Inner {
    host: Host,
    meta: Meta,
    shards: ShardClient,
    rebuilder: Rebuilder,
    read_deadline: Duration,
    versions: Mutex<Rng>,
    operations: Operations,
    puts: Arc<Semaphore>,
    unsized_puts: Arc<Semaphore>,
}

/// One page of a listing.
#[derive(Clone, Debug)]
pub struct ObjectPage {
    /// Keys and records in order.
    pub objects: Vec<(String, ObjectRecord)>,
    /// Whether there are more.
    pub truncated: bool,
    /// The applied index the page is of.
    pub applied: u64,
}

impl Gateway {
    /// A gateway over the given parts.
    pub fn new(parts: GatewayParts) -> Self {
        let versions = Mutex::new(parts.host.rand.fork("gateway.version"));
        Self {
            inner: Arc::new(Inner {
                host: parts.host,
                meta: parts.meta,
                shards: parts.shards,
                rebuilder: parts.rebuilder,
                read_deadline: parts.read_deadline,
                versions,
                operations: Operations::default(),
                puts: Arc::new(Semaphore::new(MAX_PUTS)),
                unsized_puts: Arc::new(Semaphore::new(MAX_UNSIZED_PUTS)),
            }),
        }
    }

    /// What is in flight.
    pub fn operations(&self) -> &Operations {
        &self.inner.operations
    }

    /// Makes a bucket. Without a coding it gets the default for the cluster as it is now. The second value warns an
    /// operator when that default cannot survive the loss of a host.
    ///
    /// # Errors
    /// For a bad name or coding, an existing bucket (unless `if_absent`), or metadata that cannot be reached.
    pub async fn create_bucket(
        &self,
        bucket: &BucketName,
        coding: Option<Coding>,
        if_absent: bool,
    ) -> Result<(BucketRecord, Option<String>), GatewayError> {
        check_bucket_name(bucket)?;
        let (coding, warning) = match coding {
            Some(coding) => {
                crate::codec::codec(coding).map_err(|error| GatewayError::BadCoding(error.to_string()))?;
                let warning = crate::placement::check_room(&self.inner.meta.map(), coding);
                (coding, warning.map_err(GatewayError::too_few_disks)?)
            }
            None => crate::placement::default_coding(&self.inner.meta.map()).map_err(GatewayError::too_few_disks)?,
        };
        let record = BucketRecord { name: bucket.clone(), coding, created_ms: self.inner.host.clock.now().as_millis() };
        match self.inner.meta.propose(Command::CreateBucket { bucket: record, if_absent }).await? {
            Outcome::Bucket(record) => Ok((record, warning)),
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(GatewayError::unexpected(&other)),
        }
    }

    /// All buckets, as of now.
    ///
    /// # Errors
    /// When no quorum of the metadata answers.
    pub async fn list_buckets(&self) -> Result<Vec<BucketRecord>, GatewayError> {
        self.inner.meta.barrier().await?;
        let mut buckets = self.inner.meta.buckets().await?;
        buckets.retain(|bucket| !bucket.name.as_str().starts_with(RESERVED_PREFIX));
        Ok(buckets)
    }

    /// The record of an object, as of now.
    ///
    /// # Errors
    /// When there is none, or no quorum of the metadata answers.
    pub async fn head(&self, bucket: &BucketName, key: &str) -> Result<ObjectRecord, GatewayError> {
        check_bucket_name(bucket)?;
        check_key(key)?;
        self.inner.meta.barrier().await?;
        match self.inner.meta.object(bucket, key).await? {
            Some(record) => Ok(record),
            None if self.inner.meta.bucket(bucket).await?.is_none() => Err(GatewayError::NoBucket(bucket.clone())),
            None => Err(GatewayError::NoObject { bucket: bucket.clone(), key: key.to_owned() }),
        }
    }

    /// Deletes an object; answers whether there was one. With a version, only that version.
    ///
    /// # Errors
    /// When the condition does not hold, or the metadata cannot be reached; [`GatewayError::Unknown`] when it may have
    /// happened.
    pub async fn delete(
        &self,
        bucket: &BucketName,
        key: &str,
        if_version: Option<Version>,
    ) -> Result<bool, GatewayError> {
        check_bucket_name(bucket)?;
        check_key(key)?;
        let condition = if_version.map_or(Condition::None, Condition::Version);
        let now_ms = self.inner.host.clock.now().as_millis();
        let command = Command::DeleteObject { bucket: bucket.clone(), key: key.to_owned(), condition, now_ms };
        match self.inner.meta.propose(command).await? {
            Outcome::Deleted { existed } => Ok(existed),
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(GatewayError::unexpected(&other)),
        }
    }

    /// One page of keys that begin with `prefix`, after `after`; `limit` 0 is [`MAX_PAGE`]. One applied index.
    ///
    /// # Errors
    /// When there is no such bucket, or no quorum of the metadata answers.
    pub async fn list(
        &self,
        bucket: &BucketName,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<ObjectPage, GatewayError> {
        check_bucket_name(bucket)?;
        let limit = if limit == 0 { MAX_PAGE } else { limit.min(MAX_PAGE) };
        self.inner.meta.barrier().await?;
        if self.inner.meta.bucket(bucket).await?.is_none() {
            return Err(GatewayError::NoBucket(bucket.clone()));
        }
        let page = self.inner.meta.list(bucket, prefix, after, limit).await?;
        Ok(ObjectPage { objects: page.objects, truncated: page.truncated, applied: page.applied })
    }

    fn draw_version(&self) -> Version {
        // Drawing cannot panic; a poisoned generator still draws.
        Version::draw(&mut self.inner.versions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
