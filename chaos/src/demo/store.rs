//! Storing everything, and reading everything back.

use std::time::Duration;

use anyhow::Context;
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::{BUCKET, Stage, millis};
use crate::client::Written;
use crate::dataset::Item;
use crate::report::span;

/// Objects stored or read side by side: enough to keep the disks busy, few enough to hold in memory.
const SIDE_BY_SIDE: usize = 4;

/// How long one object may take to be stored. 64 MiB on a slow day.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// How long one object may take to be read.
pub(crate) const READ_DEADLINE: Duration = Duration::from_secs(30);

impl Stage<'_> {
    /// Stores every item, again when its outcome is unknown: the content is the same.
    pub(super) async fn store_all(&self) -> anyhow::Result<u64> {
        let begun = Instant::now();
        let bytes: u64 = self.items.iter().map(|item| item.size_bytes).sum();
        (self.say)(&format!("storing {} objects, {} MiB", self.items.len(), bytes >> 20));
        let mut stores = stream::iter(self.items).map(|item| self.store(item)).buffer_unordered(SIDE_BY_SIDE);
        while let Some(stored) = stores.next().await {
            stored?;
        }
        let took = millis(begun.elapsed());
        let rate = bytes.checked_div(took.max(1)).unwrap_or(0) / 1000;
        (self.say)(&format!("stored in {} ({rate} MB/s, every shard synced)", span(Some(took))));
        Ok(took)
    }

    async fn store(&self, item: &Item) -> anyhow::Result<()> {
        let content = item.content(self.host).await?;
        let mut last = String::new();
        for _ in 0..3 {
            match self.client.put(BUCKET, &item.key, content.clone(), WRITE_DEADLINE).await {
                Written::Acknowledged => return Ok(()),
                Written::Refused(why) => anyhow::bail!("{} was refused: {why}", item.key),
                Written::Unknown(why) => last = why,
            }
        }
        anyhow::bail!("{} could not be stored: {last}", item.key)
    }

    /// Reads every item back. Those that are lost or changed, with why.
    pub(super) async fn read_all_back(&self) -> anyhow::Result<Vec<String>> {
        let mut lost = Vec::new();
        let mut reads = stream::iter(self.items).map(|item| self.read_back(item)).buffer_unordered(SIDE_BY_SIDE);
        while let Some(read) = reads.next().await {
            lost.extend(read?);
        }
        Ok(lost)
    }

    async fn read_back(&self, item: &Item) -> anyhow::Result<Option<String>> {
        let content = item.content(self.host).await.with_context(|| format!("{} cannot be made again", item.key))?;
        let expected = (content.len() as u64, crc32c::crc32c(&content));
        Ok(match self.client.get_crc(BUCKET, &item.key, READ_DEADLINE).await {
            Ok(found) if found == expected => None,
            Ok(found) => Some(format!("{}: {found:?} instead of {expected:?}", item.key)),
            Err(status) => Some(format!("{}: {}", item.key, status.message())),
        })
    }
}
