//! Some puts as uploads in parts, in the simulator: its clients know puts only, and its oracle judges puts. So whatever it
//! does to puts (crashes, losses of power, partitions, full and rotten disks) it does to parts and completions too.
//!
//! In no production build: part of the feature `audit`.

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use futures_util::{Stream, StreamExt, stream};

use super::{Complete, Gateway, GatewayError, NewUpload, PartTarget, PutDone, PutOptions, RESERVED_PREFIX};
use crate::model::{Attributes, MIN_PART_BYTES, UploadRecord};

/// One put of so many: a dozen in a run, and each costs as much as four others.
const ONE_IN: u128 = 16;

impl Gateway {
    /// Whether this put goes in parts. What proves that a node works stays as it is.
    pub(super) fn goes_in_parts(&self, options: &PutOptions) -> bool {
        !options.bucket.as_str().starts_with(RESERVED_PREFIX) && self.draw_version().0.is_multiple_of(ONE_IN)
    }

    /// A put by way of an upload in two parts, or one if it is too small: side by side, as clients send parts, so that what
    /// a client waits for is one part. One that fails is left as it is: somebody has to find what clients leave behind.
    pub(super) async fn put_in_parts<S, E>(&self, options: PutOptions, mut body: S) -> Result<PutDone, GatewayError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::fmt::Display,
    {
        let mut content = BytesMut::new();
        while let Some(chunk) = body.next().await {
            content.extend_from_slice(&chunk.map_err(|error| GatewayError::Body(error.to_string()))?);
        }
        let content = content.freeze();
        let got = content.len() as u64;
        if let Some(announced) = options.size_bytes.filter(|announced| *announced != got) {
            return Err(GatewayError::Size { announced, got: Some(got) });
        }
        let PutOptions { bucket, key, condition, .. } = options;
        let (attributes, initiator) = (Attributes::default(), String::new());
        let new = NewUpload { bucket, key, attributes, checksum: None, initiator };
        let upload = self.create_upload(new).await?;
        let first = if got >= 2 * MIN_PART_BYTES { content.len() / 2 } else { content.len() };
        let pieces = (1u16..).zip([content.slice(..first), content.slice(first..)]);
        let pieces = pieces.filter(|(part, piece)| *part == 1 || !piece.is_empty());
        let sent = try_join_all(pieces.map(|(part, piece)| self.put_part(&upload, part, piece))).await?;
        let shards_missing = sent.iter().map(|(_, done)| done.shards_missing).sum();
        let parts = sent.into_iter().map(|(part, done)| (part, done.etag)).collect();
        let (bucket, key, upload) = (upload.bucket, upload.key, upload.id);
        let complete = Complete { bucket, key, upload, parts, checksum: None, condition };
        let done = self.complete_upload(complete).await?;
        Ok(PutDone {
            version: done.version,
            etag: done.etag,
            size_bytes: done.size_bytes,
            crc32c: crc32c::crc32c(&content),
            modified_ms: self.inner.host.clock.now().as_millis(),
            shards_missing,
            replaced: None,
        })
    }
    async fn put_part(&self, upload: &UploadRecord, part: u16, piece: Bytes) -> Result<(u16, PutDone), GatewayError> {
        let size = Some(piece.len() as u64);
        let one = stream::iter([Ok::<_, String>(piece)]);
        let uploaded = self.upload_part(&upload.bucket, &upload.key, upload.id, size, one).await?;
        let (bucket, key) = (upload.bucket.clone(), upload.key.clone());
        let target = PartTarget { bucket, key, upload: upload.id, part, checksum: None };
        Ok((part, self.commit_part(uploaded, target).await?))
    }
}
