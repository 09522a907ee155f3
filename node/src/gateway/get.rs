//! Reading an object: one version, streamed, checked to the last byte.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::operations::Operation;
use super::{ExtentReader, ExtentSpec, Gateway, GatewayError, ReadAhead, ReadPlan, Stripe};
use crate::codec::{ErasureCodec, codec};
use crate::model::{ExtentRecord, ObjectRecord};
use crate::transport::ShardClient;
use crate::types::{BucketName, DiskId, ShardIndex};

/// Pieces of at most a block on their way to the client: two stripes of 4+2, so that the next is read while one is sent.
const PIECES_AHEAD: usize = 8;

/// A part of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteRange {
    /// From which byte on.
    pub offset: u64,
    /// How many; 0: to the end. A range that reaches past the end is cut there.
    pub length: u64,
}

/// What a get answers with.
pub struct Content {
    /// The object, as of when the read began.
    pub record: ObjectRecord,
    /// Bytes that will come.
    pub length: u64,
    /// The bytes.
    pub stream: ContentStream,
}

/// The bytes of an object. Ends with an error when they cannot be had, or turn out not to be what was stored: a client
/// trusts them only after an end without error.
pub struct ContentStream {
    pieces: mpsc::Receiver<Result<Bytes, GatewayError>>,
}

impl Stream for ContentStream {
    type Item = Result<Bytes, GatewayError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pieces.poll_recv(cx)
    }
}

impl Gateway {
    /// Reads an object, or a part of it, as of now.
    ///
    /// # Errors
    /// When there is no such object or range, or no quorum of the metadata answers. What happens later is in the stream.
    pub async fn get(&self, bucket: &BucketName, key: &str, range: ByteRange) -> Result<Content, GatewayError> {
        let record = self.head(bucket, key).await?;
        self.read(bucket, key, record, range)
    }

    /// Reads the content that a record names, or a part of it, whatever the key holds by now.
    ///
    /// # Errors
    /// When there is no such range. What happens later is in the stream.
    pub fn read(
        &self,
        bucket: &BucketName,
        key: &str,
        record: ObjectRecord,
        range: ByteRange,
    ) -> Result<Content, GatewayError> {
        let operation = self.inner.operations.begin("get", &format!("{bucket}/{key}"));
        self.read_as(bucket, key, record, range, Some(operation))
    }

    /// [`Gateway::read`] as a part of another operation, which ends it by dropping what comes back.
    pub(super) fn read_within(
        &self,
        bucket: &BucketName,
        key: &str,
        record: ObjectRecord,
        range: ByteRange,
    ) -> Result<Content, GatewayError> {
        self.read_as(bucket, key, record, range, None)
    }

    fn read_as(
        &self,
        bucket: &BucketName,
        key: &str,
        record: ObjectRecord,
        range: ByteRange,
        operation: Option<Operation>,
    ) -> Result<Content, GatewayError> {
        if range.offset > record.size_bytes || (range.offset == record.size_bytes && range.offset > 0) {
            return Err(GatewayError::BadRange { offset: range.offset, size_bytes: record.size_bytes });
        }
        let rest = record.size_bytes - range.offset;
        let length = if range.length == 0 { rest } else { range.length.min(rest) };
        let (pieces, receiver) = mpsc::channel(PIECES_AHEAD);
        let read = Read {
            client: self.inner.shards.clone(),
            bucket: bucket.clone(),
            key: key.to_owned(),
            record: record.clone(),
            from: range.offset,
            to: range.offset + length,
            until: Instant::now() + self.inner.read_deadline,
            crc: 0,
            pieces,
        };
        tokio::spawn(read.run(operation));
        Ok(Content { record, length, stream: ContentStream { pieces: receiver } })
    }
}

/// Why a read ends before its end.
enum Stop {
    /// The client went away.
    Gone,
    Failed(GatewayError),
}

impl From<GatewayError> for Stop {
    fn from(error: GatewayError) -> Self {
        Self::Failed(error)
    }
}

impl From<super::Unreadable> for Stop {
    fn from(error: super::Unreadable) -> Self {
        Self::Failed(error.into())
    }
}

impl From<super::Unreadable> for GatewayError {
    fn from(error: super::Unreadable) -> Self {
        Self::Unreadable { extent: error.extent, detail: error.detail }
    }
}

struct Read {
    client: ShardClient,
    bucket: BucketName,
    key: String,
    record: ObjectRecord,
    from: u64,
    to: u64,
    until: Instant,
    crc: u32,
    pieces: mpsc::Sender<Result<Bytes, GatewayError>>,
}

/// The part of an extent that a read wants, in bytes of the extent.
#[derive(Clone, Copy)]
struct Part {
    /// Which of the object's extents.
    at: usize,
    from: u64,
    to: u64,
}

impl Read {
    async fn run(mut self, operation: Option<Operation>) {
        let read = match &operation {
            Some(operation) => operation.unless_cancelled(self.pump()).await,
            None => Ok(self.pump().await),
        };
        // A client that does not take its last piece holds a message, and is nothing to wait for.
        drop(operation);
        if let Err(Stop::Failed(error)) = read.unwrap_or_else(|cancelled| Err(Stop::Failed(cancelled.into()))) {
            tracing::warn!(bucket = %self.bucket, key = self.key, version = %self.record.version, %error, "a read failed");
            let _ = self.pieces.send(Err(error)).await;
        }
    }

    async fn pump(&mut self) -> Result<(), Stop> {
        let codec = codec(self.record.coding).map_err(|error| GatewayError::BadCoding(error.to_string()))?;
        let mut avoid = BTreeSet::new();
        let mut parts = self.parts().into_iter();
        let mut upcoming = parts.next().map(|part| (part, self.open(part, &avoid)));
        while let Some((part, mut reader)) = upcoming.take() {
            // The lanes of the next extent fill while this one is sent.
            upcoming = parts.next().map(|part| (part, self.open(part, &avoid)));
            while let Some(mut stripe) = reader.next().await? {
                self.send(part, &mut stripe, codec.as_ref()).await?;
            }
            avoid.extend(reader.stalled().iter().copied());
        }
        let whole = self.from == 0 && self.to == self.record.size_bytes;
        if whole && self.crc != self.record.crc32c {
            return Err(GatewayError::Checksum { expected: self.record.crc32c, got: self.crc }.into());
        }
        Ok(())
    }

    fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut start = 0;
        for (at, ExtentRecord { len_bytes, .. }) in self.record.extents.iter().enumerate() {
            let (from, to) = (self.from.max(start), self.to.min(start + len_bytes));
            if from < to {
                parts.push(Part { at, from: from - start, to: to - start });
            }
            start += len_bytes;
        }
        parts
    }

    fn open(&self, part: Part, avoid: &BTreeSet<DiskId>) -> ExtentReader {
        let spec = ExtentSpec::of(&self.bucket, &self.key, &self.record, &self.record.extents[part.at]);
        let stripe_bytes = self.stripe_bytes();
        let first = part.from / stripe_bytes;
        let end = part.to.div_ceil(stripe_bytes);
        // An extent has at most 16 MiB, so its stripes are few.
        let (first, end) = (first as u32, end as u32);
        let plan = ReadPlan { first, end, without: None, avoid, ahead: ReadAhead::Client, timings: None };
        ExtentReader::open(&self.client, spec, plan)
    }

    fn stripe_bytes(&self) -> u64 {
        u64::from(self.record.coding.k) * u64::from(self.record.block_bytes)
    }

    async fn send(&mut self, part: Part, stripe: &mut Stripe, codec: &dyn ErasureCodec) -> Result<(), Stop> {
        let k = usize::from(self.record.coding.k);
        let block_len = stripe.blocks.iter().flatten().next().map_or(0, Bytes::len) as u64;
        let start = u64::from(stripe.index) * self.stripe_bytes();
        // Which bytes of each data block are wanted; padding lies past the end of the part by itself.
        let wanted: Vec<(ShardIndex, u64, u64)> = (0..k as u64)
            .filter_map(|block| {
                let begin = start + block * block_len;
                let (from, to) = (part.from.max(begin), part.to.min(begin + block_len));
                (from < to).then(|| (ShardIndex(block as u8), from - begin, to - begin))
            })
            .collect();
        let shards: Vec<ShardIndex> = wanted.iter().map(|(shard, ..)| *shard).collect();
        stripe.complete(codec, &shards).map_err(|error| GatewayError::Unreadable {
            extent: self.record.extents[part.at].id,
            detail: error.to_string(),
        })?;
        for (shard, from, to) in wanted {
            let Some(block) = &stripe.blocks[shard.as_usize()] else { continue };
            let piece = block.slice(from as usize..to as usize);
            self.crc = crc32c::crc32c_append(self.crc, &piece);
            match timeout_at(self.until, self.pieces.send(Ok(piece))).await {
                Err(_) => return Err(GatewayError::TooSlow.into()),
                Ok(Err(_)) => return Err(Stop::Gone),
                Ok(Ok(())) => {}
            }
        }
        Ok(())
    }
}
