//! Disks in folders of the real host, and disks that fail on demand.
#![allow(clippy::disallowed_methods)]

mod health;
mod open;
mod shards;
mod unreadable;
mod walks;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use resilver_host::Host;
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::codec::REED_SOLOMON;
use crate::model::Coding;
use crate::testing::faults::{EIO, Faults, Step};
use crate::types::{Epoch, ExtentIndex, ShardIndex, ShardKey, Version};

const CLUSTER: ClusterId = ClusterId(0xC1);

fn owner() -> Owner {
    Owner { node: "n1".into(), instance: InstanceId(0x11), cluster: Some(CLUSTER) }
}

/// A node with one disk in a folder of its own.
struct OneDisk {
    folder: TempDir,
    faults: Arc<Faults>,
    host: Host,
    set: Arc<DiskSet>,
    volume: Arc<Volume>,
    known: Vec<KnownDisk>,
    stop: watch::Sender<bool>,
}

impl OneDisk {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (host, faults) = Faults::host();
        let (set, known) =
            DiskSet::open(&host, &[folder.path().to_owned()], &owner(), &[], Patience::default()).await.unwrap();
        let (set, stop) = (Arc::new(set), watch::Sender::new(false));
        let volume = set.volumes().remove(0);
        Self { folder, faults, host, set, volume, known, stop }
    }

    /// The same folder as another process would find it.
    async fn open_again(&self) -> Arc<Volume> {
        let paths = [self.folder.path().to_owned()];
        DiskSet::open(&self.host, &paths, &owner(), &self.known, Patience::default())
            .await
            .unwrap()
            .0
            .volumes()
            .remove(0)
    }

    /// Starts the canary.
    fn watch(&self) {
        tokio::spawn(Arc::clone(&self.set).run(self.stop.subscribe()));
    }

    /// Waits until the disk is as said; with a deadline far beyond any that counts.
    async fn until(&self, health: Health) -> HealthReport {
        let mut changes = self.volume.health_changes();
        let found = tokio::time::timeout(Duration::from_secs(60), changes.wait_for(|now| now.health == health)).await;
        found.unwrap_or_else(|_| panic!("the disk never became {health:?}")).unwrap().clone()
    }

    fn path(&self, key: ShardKey) -> PathBuf {
        self.folder.path().join("shards").join(&key.version.to_string()[..2]).join(key.to_string())
    }

    fn temporary_files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("tmp")).unwrap().count()
    }
}

impl Drop for OneDisk {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

fn key(version: u128) -> ShardKey {
    ShardKey { version: Version(version << 96 | version), extent: ExtentIndex(3), shard: ShardIndex(1) }
}

fn head(version: u128, extent_bytes: u64, block_bytes: u32) -> ShardHead {
    ShardHead {
        key: key(version),
        coding: Coding { k: 2, m: 1 },
        codec: REED_SOLOMON,
        block_bytes,
        extent_bytes,
        epoch: Epoch(1),
    }
}

/// The data of a block of a test.
fn block_of(head: &ShardHead, block: u32) -> Bytes {
    let start = head.key.version.0 as usize + block as usize * 7;
    (0..head.layout().block_len(block)).map(|i| ((start + i) % 251) as u8).collect::<Vec<_>>().into()
}

async fn send_blocks(writer: &mut ShardWriter) {
    let head = *writer.head();
    for block in 0..head.layout().stripes() {
        let data = block_of(&head, block);
        let crc = crc32c::crc32c(&data);
        writer.block(data, crc).await.unwrap();
    }
}

async fn write(volume: &Volume, head: ShardHead) -> u64 {
    let mut writer = volume.create_shard(head).unwrap();
    send_blocks(&mut writer).await;
    writer.finish().await.unwrap()
}

/// Reads all of a shard and compares it with what was written.
async fn read(volume: &Volume, head: &ShardHead) -> Result<(), DiskError> {
    let mut reader = volume.open_shard(head.key, Purpose::Client).await?;
    assert_eq!(reader.head(), head);
    for block in 0..reader.blocks() {
        let (data, crc) = reader.block(block).await?;
        assert_eq!((&data, crc), (&block_of(head, block), crc32c::crc32c(&data)));
    }
    Ok(())
}
