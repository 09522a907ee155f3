//! The proof that every shard of an object is what it has to be, and not only what somebody once wrote: the content is read
//! as a client reads it, its parity is computed anew, and each shard's checksum, taken from the disk, is compared with that of
//! the bytes that belong there.
//!
//! Owns: that comparison. Must never: ask repair what it did, or take its word: a shard that was rebuilt wrongly has a good
//! checksum, a header that fits, and a place in the metadata.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use super::verify::{ObjectVerdict, ShardState};
use super::{ByteRange, ContentStream, Gateway, GatewayError};
use crate::codec::{CodecError, Layout, codec};
use crate::model::ObjectRecord;
use crate::types::{BucketName, ExtentId, ExtentIndex};

impl Gateway {
    /// [`Gateway::verify`], and of an object that can be read: that each shard holds what its content demands. What does not
    /// is corrupt in the verdict.
    ///
    /// # Errors
    /// As [`Gateway::verify`], and when the content cannot be read although its shards are good.
    pub async fn verify_fully(&self, bucket: &BucketName, key: &str) -> Result<ObjectVerdict, GatewayError> {
        self.reading("verify", &format!("{bucket}/{key}"), self.prove(bucket, key)).await
    }

    /// [`Gateway::verify_fully`] as a part of another operation.
    pub(super) async fn prove(&self, bucket: &BucketName, key: &str) -> Result<ObjectVerdict, GatewayError> {
        let mut verdict = self.verify_shards(bucket, key).await?;
        if !verdict.recoverable {
            return Ok(verdict);
        }
        let demanded = match self.demanded(bucket, key, &verdict.record).await {
            Ok(demanded) => demanded,
            // Every shard is as it was written, and what those that were read make is not what was stored. Which of them are wrong
            // shows when others make it; otherwise nothing is blamed.
            Err(GatewayError::Checksum { .. }) => match self.weigh(bucket, key, &verdict).await {
                Ok(weighed) => weighed.into_iter().map(|(_, right)| right.shard_crcs).collect(),
                Err(GatewayError::Undecided(_)) => return Ok(ObjectVerdict { intact: false, ..verdict }),
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        for check in &mut verdict.shards {
            let Some(expected) = demanded.get(check.extent.0 as usize).and_then(|of| of.get(check.shard.as_usize()))
            else {
                continue;
            };
            if let ShardState::Ok { crc, .. } = check.state
                && crc != *expected
            {
                let detail = "its bytes are as they were written, and not what the object's content demands".to_owned();
                check.state = ShardState::Corrupt { expected: *expected, got: crc, detail };
            }
        }
        verdict.intact = verdict.shards.iter().all(|check| matches!(check.state, ShardState::Ok { .. }));
        Ok(verdict)
    }

    /// The CRC32C that each shard of each extent must have, by the object's content.
    async fn demanded(
        &self,
        bucket: &BucketName,
        key: &str,
        record: &ObjectRecord,
    ) -> Result<Vec<Vec<u32>>, GatewayError> {
        let bad = |error: CodecError| GatewayError::BadCoding(error.to_string());
        let codec = codec(record.coding).map_err(bad)?;
        let mut content = Content {
            stream: self.read_within(bucket, key, record.clone(), ByteRange::default())?.stream,
            ahead: BytesMut::new(),
            of: ExtentId { version: record.version, index: ExtentIndex(0) },
        };
        let mut demanded = Vec::with_capacity(record.extents.len());
        for extent in &record.extents {
            let layout =
                Layout { extent_bytes: extent.len_bytes, coding: record.coding, block_bytes: record.block_bytes };
            let mut crcs = vec![0; record.coding.total()];
            for stripe in 0..layout.stripes() {
                let data = layout.split(&content.take(layout.content_len(stripe)).await?);
                let parity = codec.encode(&data).map_err(bad)?;
                for (crc, block) in crcs.iter_mut().zip(data.iter().chain(&parity)) {
                    *crc = crc32c::crc32c_append(*crc, block);
                }
            }
            demanded.push(crcs);
        }
        // The checksum of the whole is compared at the end of the stream.
        content.end().await?;
        Ok(demanded)
    }
}

/// An object's bytes, in the lengths that are asked for.
struct Content {
    stream: ContentStream,
    ahead: BytesMut,
    /// Whose bytes they are, for messages.
    of: ExtentId,
}

impl Content {
    async fn take(&mut self, len: usize) -> Result<Bytes, GatewayError> {
        while self.ahead.len() < len {
            match self.stream.next().await {
                Some(piece) => self.ahead.extend_from_slice(&piece?),
                None => return Err(self.short()),
            }
        }
        Ok(self.ahead.split_to(len).freeze())
    }

    async fn end(&mut self) -> Result<(), GatewayError> {
        match self.stream.next().await {
            None => Ok(()),
            Some(Ok(_)) => Err(self.short()),
            Some(Err(error)) => Err(error),
        }
    }

    fn short(&self) -> GatewayError {
        let detail = "its content is not as long as its extents".to_owned();
        GatewayError::Unreadable { extent: self.of, detail }
    }
}
