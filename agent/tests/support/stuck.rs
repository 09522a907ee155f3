//! A disk whose syncs can be made to fail, or to hang, under one folder; everything else is the real one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use resilver_host::{BlockingFile, DirEntry, Disk, File, Host, Metadata, OpenMode, Space};

/// The switch.
#[derive(Clone, Default)]
pub(crate) struct Stuck(Arc<AtomicBool>);

impl Stuck {
    /// From now on syncs hang, or do not any more.
    pub(crate) fn set(&self, stuck: bool) {
        self.0.store(stuck, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The host, with syncs below `dir` under the switch.
pub(crate) fn host(dir: &Path) -> (Host, Stuck) {
    let mut host = resilver_host::real::host();
    let stuck = Stuck::default();
    host.disk = Arc::new(StuckDisk { real: host.disk.clone(), dir: dir.to_owned(), stuck: stuck.clone() });
    (host, stuck)
}

struct StuckDisk {
    real: Arc<dyn Disk>,
    dir: PathBuf,
    stuck: Stuck,
}

struct StuckFile {
    real: Arc<dyn File>,
    stuck: Stuck,
}

#[async_trait]
impl Disk for StuckDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let real = self.real.open(path, mode).await?;
        if !path.starts_with(&self.dir) {
            return Ok(real);
        }
        Ok(Arc::new(StuckFile { real, stuck: self.stuck.clone() }))
    }
    fn open_blocking(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn BlockingFile>> {
        self.real.open_blocking(path, mode)
    }
    async fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.real.metadata(path).await
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to).await
    }
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.real.remove_file(path).await
    }
    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.real.remove_dir(path).await
    }
    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.real.create_dir_all(path).await
    }
    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.real.sync_dir(path).await
    }
    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.real.list(path).await
    }
    async fn space(&self, path: &Path) -> io::Result<Space> {
        self.real.space(path).await
    }
}

#[async_trait]
impl File for StuckFile {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.real.read_at(offset, len).await
    }
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.real.write_at(offset, data).await
    }
    async fn sync(&self) -> io::Result<()> {
        // As a disk that hangs: whoever waits gives up by itself, and once it is back the call returns.
        while self.stuck.is_set() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.real.sync().await
    }
    async fn len(&self) -> io::Result<u64> {
        self.real.len().await
    }
    async fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.real.set_len(len_bytes).await
    }
    async fn allocate(&self, len_bytes: u64, grow: bool) -> io::Result<()> {
        self.real.allocate(len_bytes, grow).await
    }
    async fn drop_cache(&self) -> io::Result<()> {
        self.real.drop_cache().await
    }
}
