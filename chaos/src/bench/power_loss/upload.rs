//! A large object stored in parts, during which a host loses its power.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::s3::{Condition, Content, Store};

/// How much of it is stored when the power goes, in percent.
pub(super) const SHARE: u64 = 45;
/// Its parts: what the AWS command line makes of a large file.
pub(super) const PART_BYTES: u64 = 8 * 1024 * 1024;
/// One request of it.
const PART_DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(50);
/// Where it goes.
const LARGE: &str = "large";

/// An upload under way.
pub(super) struct UploadTask {
    begun: Instant,
    bytes: u64,
    sent: Arc<AtomicU64>,
    task: JoinHandle<anyhow::Result<Duration>>,
}

async fn upload(store: Store, bytes: u64, sent: Arc<AtomicU64>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let upload = store.create_upload(LARGE, PART_DEADLINE).await?;
    let piece = piece();
    let mut etags = Vec::new();
    let mut left = bytes;
    for number in 1u16.. {
        let part = left.min(PART_BYTES);
        if part == 0 {
            break;
        }
        let content = Content::Repeated { piece: piece.clone(), len_bytes: part };
        etags.push(
            store.put_part(&upload, number, content, PART_DEADLINE).await.with_context(|| format!("part {number}"))?,
        );
        left -= part;
        sent.fetch_add(part, Ordering::Relaxed);
    }
    store.complete(&upload, &etags, &Condition::Always, PART_DEADLINE).await.context("completing")?;
    Ok(begun.elapsed())
}

/// What a part repeats. Its length shares no factor with a block's or a stripe's: a block in the wrong place shows.
fn piece() -> Bytes {
    (0u32..).flat_map(|number| number.wrapping_mul(0x9E37_79B9).to_le_bytes()).take(65_521).collect()
}

impl UploadTask {
    /// Begins to store it through one door.
    pub(super) fn start(store: &Store, bytes: u64) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(upload(store.clone(), bytes, sent.clone()));
        Self { begun: Instant::now(), bytes, sent, task }
    }

    /// Waits until so many percent of it are stored, or it ended.
    pub(super) async fn await_share(&self, percent: u64) {
        while self.sent.load(Ordering::Relaxed) * 100 < self.bytes * percent && !self.task.is_finished() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for its end and reads it back through another door. What it took.
    pub(super) async fn finish(self, other: &Store) -> anyhow::Result<Duration> {
        self.task.await.context("its task ended")??;
        let took = self.begun.elapsed();
        let piece = piece();
        let mut expected = 0;
        let mut left = self.bytes;
        while left > 0 {
            let part = left.min(PART_BYTES);
            let whole = part / piece.len() as u64;
            for _ in 0..whole {
                expected = crc32c::crc32c_append(expected, &piece);
            }
            let rest = usize::try_from(part % piece.len() as u64).unwrap_or_default();
            expected = crc32c::crc32c_append(expected, &piece[..rest]);
            left -= part;
        }
        let mut reply = other.get(LARGE, None, PART_DEADLINE * 10).await?;
        let (mut crc, mut len) = (0, 0u64);
        while let Some(data) = reply.piece().await? {
            crc = crc32c::crc32c_append(crc, &data);
            len += data.len() as u64;
        }
        anyhow::ensure!((len, crc) == (self.bytes, expected), "{len} bytes came back, and not those that were stored");
        Ok(took)
    }
}
