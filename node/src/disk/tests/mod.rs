//! Disks in folders of the real host, and disks that fail on demand.
#![allow(clippy::disallowed_methods)]

mod health;
mod open;
mod shards;
mod walks;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use resilver_host::{BlockingFile, DirEntry, Disk, File, Host, Metadata, OpenMode, Space};
use tempfile::TempDir;
use tokio::sync::watch;

use super::*;
use crate::codec::REED_SOLOMON;
use crate::model::Coding;
use crate::types::{Epoch, ExtentIndex, ShardIndex, ShardKey, Version};

/// A host whose disks do what a test says.
struct Faults {
    inner: Arc<dyn Disk>,
    /// While true, nothing comes back.
    hang: watch::Sender<bool>,
    /// What every read of a file says; 0: nothing.
    read_errno: AtomicI32,
    /// What every write to a file says; 0: nothing.
    write_errno: AtomicI32,
    /// The room there is said to be; `u64::MAX`: what there really is.
    available: AtomicU64,
    /// Syncs of files so far.
    syncs: AtomicU64,
}

impl Faults {
    fn host() -> (Host, Arc<Self>) {
        let mut host = resilver_host::real::host();
        let faults = Arc::new(Self {
            inner: Arc::clone(&host.disk),
            hang: watch::Sender::new(false),
            read_errno: AtomicI32::new(0),
            write_errno: AtomicI32::new(0),
            available: AtomicU64::new(u64::MAX),
            syncs: AtomicU64::new(0),
        });
        host.disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
        (host, faults)
    }

    async fn pass(&self) {
        let _ = self.hang.subscribe().wait_for(|hang| !hang).await;
    }

    fn fail(errno: &AtomicI32) -> io::Result<()> {
        match errno.load(Ordering::SeqCst) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

struct FaultyDisk(Arc<Faults>);

struct FaultyFile(Arc<Faults>, Arc<dyn File>);

#[async_trait]
impl Disk for FaultyDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.0.pass().await;
        Ok(Arc::new(FaultyFile(Arc::clone(&self.0), self.0.inner.open(path, mode).await?)))
    }
    fn open_blocking(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn BlockingFile>> {
        self.0.inner.open_blocking(path, mode)
    }
    async fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.0.pass().await;
        self.0.inner.metadata(path).await
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.pass().await;
        self.0.inner.rename(from, to).await
    }
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.pass().await;
        self.0.inner.remove_file(path).await
    }
    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.pass().await;
        self.0.inner.remove_dir(path).await
    }
    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.pass().await;
        self.0.inner.create_dir_all(path).await
    }
    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.pass().await;
        self.0.inner.sync_dir(path).await
    }
    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.pass().await;
        self.0.inner.list(path).await
    }
    async fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.pass().await;
        let space = self.0.inner.space(path).await?;
        let available_bytes = self.0.available.load(Ordering::SeqCst).min(space.available_bytes);
        Ok(Space { available_bytes, ..space })
    }
    async fn modified_ms(&self, path: &Path) -> io::Result<Option<u64>> {
        self.0.pass().await;
        self.0.inner.modified_ms(path).await
    }
}

#[async_trait]
impl File for FaultyFile {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.0.pass().await;
        Faults::fail(&self.0.read_errno)?;
        self.1.read_at(offset, len).await
    }
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.0.pass().await;
        Faults::fail(&self.0.write_errno)?;
        self.1.write_at(offset, data).await
    }
    async fn sync(&self) -> io::Result<()> {
        self.0.pass().await;
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        self.1.sync().await
    }
    async fn len(&self) -> io::Result<u64> {
        self.0.pass().await;
        self.1.len().await
    }
    async fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.1.set_len(len_bytes).await
    }
    async fn allocate(&self, len_bytes: u64, grow: bool) -> io::Result<()> {
        self.1.allocate(len_bytes, grow).await
    }
    async fn drop_cache(&self) -> io::Result<()> {
        self.0.pass().await;
        self.1.drop_cache().await
    }
}

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
