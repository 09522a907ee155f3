//! An upload of content, from its first byte until it is durable. What becomes of it (an object, a part, nothing) is the
//! commit's to say.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

use super::body::Body;
use super::digest::Digest;
use super::extent_writer::{ExtentPlan, ExtentWriter};
use super::unowned::Unowned;
use super::{Gateway, GatewayError, RESERVED_PREFIX, check_bucket_name};
use crate::codec::{ErasureCodec, codec};
use crate::model::{
    Attributes, BLOCK_BYTES, BucketRecord, Coding, ETag, EXTENT_BYTES, ExtentRecord, MAX_PUT_BYTES, ObjectRecord,
};
use crate::placement::place;
use crate::types::{BucketName, ExtentId, ExtentIndex, Version};

/// Extents of one upload that may still be syncing while the next is sent: the disks' syncs then cost no bandwidth. With
/// many uploads at work the others use it, and none begins an extent before its last is durable: every open extent has k+m
/// streams, and each of those a buffer.
const EXTENTS_FINISHING: usize = 2;
const MANY_PUTS: usize = 12;

/// Bodies of unannounced length up to this need no permit to be held: most objects are small.
const SMALL_BODY_BYTES: u64 = 1024 * 1024;

/// Content that is durable and belongs to nobody yet. Dropped, it is given up.
#[derive(Debug)]
pub struct Uploaded {
    pub(super) object: ObjectRecord,
    pub(super) unowned: Unowned,
    md5: [u8; 16],
}

impl Uploaded {
    /// The version it was uploaded under.
    pub fn version(&self) -> Version {
        self.object.version
    }

    /// Bytes of content.
    pub fn size_bytes(&self) -> u64 {
        self.object.size_bytes
    }

    /// MD5 of the content.
    pub fn md5(&self) -> [u8; 16] {
        self.md5
    }

    /// CRC32C of the content.
    pub fn crc32c(&self) -> u32 {
        self.object.crc32c
    }
}

impl Gateway {
    /// Stores content for a bucket, to be committed as an object of it. Nothing shows before that.
    ///
    /// # Errors
    /// Nothing is stored then that anybody could see.
    pub async fn upload<S, E>(
        &self,
        bucket: &BucketName,
        size_bytes: Option<u64>,
        body: S,
    ) -> Result<Uploaded, GatewayError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        check_bucket_name(bucket)?;
        self.demand_metadata_room(bucket)?;
        let upload = async {
            let record = self.bucket_for_put(bucket).await?;
            self.store(bucket.as_str(), record.coding, size_bytes, body).await
        };
        self.noting(bucket, upload).await
    }

    /// Makes content durable under a version of its own. `subject`: for whom, as people know it.
    pub(super) async fn store<S, E>(
        &self,
        subject: &str,
        coding: Coding,
        size_bytes: Option<u64>,
        body: S,
    ) -> Result<Uploaded, GatewayError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        if let Some(bytes) = size_bytes.filter(|bytes| *bytes > MAX_PUT_BYTES) {
            return Err(too_large(bytes));
        }
        let _slot = self.inner.puts.clone().try_acquire_owned().map_err(|_| GatewayError::Busy(super::MAX_PUTS))?;
        let codec = codec(coding).map_err(|error| GatewayError::BadCoding(error.to_string()))?;
        let version = self.draw_version();
        let upload = Upload {
            gateway: self,
            codec,
            version,
            body: Body::new(body),
            size_bytes: 0,
            crc: 0,
            digest: Digest::start(),
            begun: 0,
            extents: Vec::new(),
            unowned: Unowned::new(self.clone(), version),
        };
        self.reading("upload", subject, upload.run(size_bytes)).await
    }

    /// The product's own buckets hold a few small objects, replaced again and again: what proves that a node works must
    /// not fail because clients filled a disk.
    pub(super) fn demand_metadata_room(&self, bucket: &BucketName) -> Result<(), GatewayError> {
        if bucket.as_str().starts_with(RESERVED_PREFIX) {
            return Ok(());
        }
        Ok(self.inner.meta.has_room()?)
    }

    /// What this node has applied of a bucket is good: only its absence must be asked for. Content coded as the bucket was
    /// a moment ago is as good as any.
    pub(super) async fn bucket_for_put(&self, name: &BucketName) -> Result<BucketRecord, GatewayError> {
        if let Some(bucket) = self.inner.meta.bucket(name).await? {
            return Ok(bucket);
        }
        self.inner.meta.barrier().await?;
        self.inner.meta.bucket(name).await?.ok_or_else(|| GatewayError::NoBucket(name.clone()))
    }
}

fn too_large(bytes: u64) -> GatewayError {
    GatewayError::TooLarge { what: "an upload", bytes, limit: MAX_PUT_BYTES }
}

struct Upload<'a, S> {
    gateway: &'a Gateway,
    codec: Arc<dyn ErasureCodec>,
    version: Version,
    body: Body<S>,
    size_bytes: u64,
    crc: u32,
    digest: Digest,
    /// Extents that were begun.
    begun: u32,
    extents: Vec<ExtentRecord>,
    unowned: Unowned,
}

impl<S, E> Upload<'_, S>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: std::fmt::Display,
{
    async fn run(mut self, announced: Option<u64>) -> Result<Uploaded, GatewayError> {
        match announced {
            Some(announced) => self.announced(announced).await?,
            None => self.unannounced().await?,
        }
        while let Some(extent) = self.unowned.finished(0).await {
            self.extents.push(extent?);
        }
        let md5 = self.digest.finish().await?;
        let object = ObjectRecord {
            version: self.version,
            size_bytes: self.size_bytes,
            crc32c: self.crc,
            modified_ms: self.gateway.inner.host.clock.now().as_millis(),
            coding: self.codec.coding(),
            block_bytes: BLOCK_BYTES,
            extents: self.extents,
            etag: ETag::Content(md5),
            attributes: Attributes::default(),
            parts: Vec::new(),
        };
        Ok(Uploaded { object, unowned: self.unowned, md5 })
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
            if self.size_bytes + len > MAX_PUT_BYTES {
                return Err(too_large(self.size_bytes + len));
            }
            self.extent(len, self.size_bytes + len).await?;
        }
    }

    /// Sends one extent of `len` bytes to its homes, and leaves it to finish by itself.
    async fn extent(&mut self, len: u64, announced: u64) -> Result<(), GatewayError> {
        let index = ExtentIndex(self.begun);
        self.begun += 1;
        let map = self.gateway.inner.meta.map();
        let placement = place(&map, self.version, index, self.codec.coding()).map_err(GatewayError::placement)?;
        let plan = ExtentPlan {
            id: ExtentId { version: self.version, index },
            len_bytes: len,
            epoch: map.epoch,
            homes: self.gateway.stand_ins(&map, self.version, index, self.codec.coding(), placement.homes),
        };
        self.unowned.sending(plan.id, plan.homes.iter().map(|home| home.at).collect());
        let inner = &self.gateway.inner;
        let mut writer = ExtentWriter::begin(&inner.shards, &inner.sending, self.codec.clone(), plan, map);
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
            self.digest.update(content.clone()).await;
            writer.stripe(&content).await?;
        }
        self.unowned.finishing(tokio::spawn(writer.finish()));
        let at_work = super::MAX_PUTS - self.gateway.inner.puts.available_permits();
        let finishing = if at_work > MANY_PUTS { 0 } else { EXTENTS_FINISHING };
        while let Some(oldest) = self.unowned.finished(finishing).await {
            self.extents.push(oldest?);
        }
        Ok(())
    }
}
