//! An upload, from its first byte to its commit.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use tokio::task::JoinHandle;

use super::body::Body;
use super::extent_writer::{ExtentPlan, ExtentWriter};
use super::{Gateway, GatewayError, check_bucket_name, check_key};
use crate::codec::{ErasureCodec, codec};
use crate::model::{BLOCK_BYTES, BucketRecord, Command, Condition, EXTENT_BYTES, ExtentRecord, ObjectRecord, Outcome};
use crate::placement::place;
use crate::repair::{FoundBy, Suspect, SuspectKind};
use crate::types::{BucketName, ExtentIndex, ShardIndex, ShardKey, Version};

/// Extents of one upload that may still be syncing while the next is sent: the disks' syncs then cost no bandwidth.
const EXTENTS_FINISHING: usize = 2;

/// Bodies of unannounced length up to this need no permit to be held: most objects are small.
const SMALL_BODY_BYTES: u64 = 1024 * 1024;

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

/// A put that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutDone {
    /// Its version.
    pub version: Version,
    /// Bytes of content.
    pub size_bytes: u64,
    /// CRC32C of the content.
    pub crc32c: u32,
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
        check_bucket_name(&options.bucket)?;
        check_key(&options.key)?;
        let _slot = self.inner.puts.clone().try_acquire_owned().map_err(|_| GatewayError::Busy(super::MAX_PUTS))?;
        let _operation = self.inner.operations.begin();
        let bucket = self.bucket_for_put(&options.bucket).await?;
        let codec = codec(bucket.coding).map_err(|error| GatewayError::BadCoding(error.to_string()))?;
        let upload = Upload {
            gateway: self,
            codec,
            version: self.draw_version(),
            body: Body::new(body),
            size_bytes: 0,
            crc: 0,
            extents: Vec::new(),
            finishing: VecDeque::new(),
        };
        let object = upload.run(options.size_bytes).await?;
        self.commit(options, object).await
    }

    /// A bucket's coding never changes, so what this node has applied is good; only its absence must be asked for.
    async fn bucket_for_put(&self, name: &BucketName) -> Result<BucketRecord, GatewayError> {
        if let Some(bucket) = self.inner.meta.bucket(name).await? {
            return Ok(bucket);
        }
        self.inner.meta.barrier().await?;
        self.inner.meta.bucket(name).await?.ok_or_else(|| GatewayError::NoBucket(name.clone()))
    }

    async fn commit(&self, options: PutOptions, object: ObjectRecord) -> Result<PutDone, GatewayError> {
        let command = Command::PutObject {
            bucket: options.bucket.clone(),
            key: options.key.clone(),
            object: object.clone(),
            condition: options.condition,
            now_ms: object.modified_ms,
        };
        match self.inner.meta.propose(command).await? {
            Outcome::Put { replaced } => {
                self.report_missing(&options, &object);
                Ok(PutDone {
                    version: object.version,
                    size_bytes: object.size_bytes,
                    crc32c: object.crc32c,
                    shards_missing: object.missing_shards(),
                    replaced,
                })
            }
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(GatewayError::unexpected(&other)),
        }
    }

    /// Homes that failed the upload are told what they miss, should they be well again already.
    fn report_missing(&self, options: &PutOptions, object: &ObjectRecord) {
        for (extent, record) in (0u32..).map(ExtentIndex).zip(&object.extents) {
            for (shard, home) in (0u8..).map(ShardIndex).zip(&record.homes).filter(|(_, home)| home.at.is_none()) {
                self.inner.shards.report(Suspect {
                    bucket: options.bucket.clone(),
                    key: options.key.clone(),
                    shard: ShardKey { version: object.version, extent, shard },
                    disk: home.wanted,
                    kind: SuspectKind::Missing,
                    found_by: FoundBy::Write,
                    detail: "its home failed during the upload".to_owned(),
                });
            }
        }
    }
}

struct Upload<'a, S> {
    gateway: &'a Gateway,
    codec: Arc<dyn ErasureCodec>,
    version: Version,
    body: Body<S>,
    size_bytes: u64,
    crc: u32,
    extents: Vec<ExtentRecord>,
    finishing: VecDeque<JoinHandle<Result<ExtentRecord, GatewayError>>>,
}

impl<S, E> Upload<'_, S>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: std::fmt::Display,
{
    async fn run(mut self, announced: Option<u64>) -> Result<ObjectRecord, GatewayError> {
        match announced {
            Some(announced) => self.announced(announced).await?,
            None => self.unannounced().await?,
        }
        while let Some(finishing) = self.finishing.pop_front() {
            self.extents.push(finished(finishing).await?);
        }
        Ok(ObjectRecord {
            version: self.version,
            size_bytes: self.size_bytes,
            crc32c: self.crc,
            modified_ms: self.gateway.inner.host.clock.now().as_millis(),
            coding: self.codec.coding(),
            block_bytes: BLOCK_BYTES,
            extents: self.extents,
        })
    }

    /// Shard headers carry the extent's length and are written first: with the size known, nothing has to be held.
    async fn announced(&mut self, announced: u64) -> Result<(), GatewayError> {
        while self.size_bytes < announced {
            self.extent((announced - self.size_bytes).min(EXTENT_BYTES), announced).await?;
        }
        if self.body.fill(1).await? > 0 {
            return Err(GatewayError::Size { announced, got: None });
        }
        Ok(())
    }

    /// The length of an extent is known only when it is full or the body has ended: hold one, then write it.
    async fn unannounced(&mut self) -> Result<(), GatewayError> {
        let mut permit = None;
        loop {
            let mut held = self.body.fill(SMALL_BODY_BYTES.min(EXTENT_BYTES)).await?;
            if held >= SMALL_BODY_BYTES {
                if permit.is_none() {
                    permit = self.gateway.inner.unsized_puts.clone().acquire_owned().await.ok();
                }
                held = self.body.fill(EXTENT_BYTES).await?;
            }
            if held == 0 {
                return Ok(());
            }
            let len = held.min(EXTENT_BYTES);
            self.extent(len, self.size_bytes + len).await?;
        }
    }

    /// Sends one extent of `len` bytes to its homes, and leaves it to finish by itself.
    async fn extent(&mut self, len: u64, announced: u64) -> Result<(), GatewayError> {
        let index = ExtentIndex((self.extents.len() + self.finishing.len()) as u32);
        let map = self.gateway.inner.meta.map();
        let placement = place(&map, self.version, index, self.codec.coding()).map_err(GatewayError::placement)?;
        let plan = ExtentPlan {
            version: self.version,
            extent: index,
            len_bytes: len,
            epoch: map.epoch,
            homes: placement.homes,
        };
        let mut writer = ExtentWriter::begin(&self.gateway.inner.shards, self.codec.clone(), plan);
        let layout = writer.layout();
        for stripe in 0..layout.stripes() {
            let want = layout.content_len(stripe);
            let here = self.body.fill(want as u64).await?;
            if here < want as u64 {
                return Err(GatewayError::Size { announced, got: Some(self.size_bytes + here) });
            }
            let content = self.body.take(want);
            self.crc = crc32c::crc32c_append(self.crc, &content);
            self.size_bytes += want as u64;
            writer.stripe(&content).await?;
        }
        self.finishing.push_back(tokio::spawn(async move { writer.finish(&map).await }));
        if self.finishing.len() > EXTENTS_FINISHING
            && let Some(oldest) = self.finishing.pop_front()
        {
            self.extents.push(finished(oldest).await?);
        }
        Ok(())
    }
}

async fn finished(task: JoinHandle<Result<ExtentRecord, GatewayError>>) -> Result<ExtentRecord, GatewayError> {
    task.await.unwrap_or_else(|_| Err(GatewayError::GivenUp("this node is stopping: put the object again".to_owned())))
}
