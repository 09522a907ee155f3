//! A disk that loses its power, under the real one's files: what was not synced is gone then. A sync that fails does so once,
//! as Linux tells it: what it should have made durable stays visible, and no later sync makes it so.
//!
//! Names are durable at once: the journal syncs its folder, and that is not what is tried here.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use resilver_host::{BlockingFile, DirEntry, Disk, File, Host, Metadata, OpenMode, Space};

/// The disk's other side.
#[derive(Clone, Default)]
pub(crate) struct Lossy(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, Stored>,
    begun: u64,
    syncs: u64,
    fail_next: u32,
    fail_every: Option<u64>,
    held: bool,
}

/// A file as a loss of power leaves it, and what would change it.
#[derive(Default)]
struct Stored {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write(u64, Bytes),
    SetLen(u64),
}

impl Stored {
    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write(offset, data) => {
                    let (offset, end) = (offset as usize, offset as usize + data.len());
                    self.durable.resize(self.durable.len().max(end), 0);
                    self.durable[offset..end].copy_from_slice(&data);
                }
                Change::SetLen(len_bytes) => self.durable.resize(len_bytes as usize, 0),
            }
        }
    }
}

/// The host with such a disk.
pub(crate) fn host() -> (Host, Lossy) {
    let mut host = resilver_host::real::host();
    let lossy = Lossy::default();
    host.disk = Arc::new(LossyDisk { real: host.disk.clone(), lossy: lossy.clone() });
    (host, lossy)
}

impl Lossy {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// So many syncs fail, from the next on.
    pub(crate) fn fail_next(&self, syncs: u32) {
        self.state().fail_next = syncs;
    }

    /// Every so many syncs one fails.
    pub(crate) fn fail_every(&self, syncs: u64) {
        self.state().fail_every = Some(syncs);
    }

    /// Syncs wait until they are let go. Whoever gives up waiting does not end them: nobody can.
    pub(crate) fn hold(&self, held: bool) {
        self.state().held = held;
    }

    /// How many syncs were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.state().begun
    }

    /// How many have ended.
    pub(crate) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// The power fails. No file may be open.
    pub(crate) fn lose_power(&self) {
        for (path, stored) in std::mem::take(&mut self.state().files) {
            std::fs::write(path, stored.durable).unwrap();
        }
    }

    async fn sync(self, path: PathBuf) -> io::Result<()> {
        self.state().begun += 1;
        while self.state().held {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut state = self.state();
        state.syncs += 1;
        let fails = state.fail_next > 0 || state.fail_every.is_some_and(|every| state.syncs.is_multiple_of(every));
        state.fail_next = state.fail_next.saturating_sub(1);
        let stored = state.files.get_mut(&path).expect("an open file");
        if fails {
            stored.pending.clear();
            return Err(io::Error::other("the device said no"));
        }
        stored.sync();
        Ok(())
    }
}

struct LossyDisk {
    real: Arc<dyn Disk>,
    lossy: Lossy,
}

struct LossyFile {
    real: Arc<dyn File>,
    path: PathBuf,
    lossy: Lossy,
}

#[async_trait]
impl Disk for LossyDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let real = self.real.open(path, mode).await?;
        let mut state = self.lossy.state();
        // What was there before the first look counts as durable.
        let stored = || Stored { durable: std::fs::read(path).unwrap(), pending: Vec::new() };
        state.files.entry(path.to_owned()).or_insert_with(stored);
        Ok(Arc::new(LossyFile { real, path: path.to_owned(), lossy: self.lossy.clone() }))
    }
    fn open_blocking(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn BlockingFile>> {
        self.real.open_blocking(path, mode)
    }
    async fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.real.metadata(path).await
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename(from, to).await?;
        let mut state = self.lossy.state();
        if let Some(stored) = state.files.remove(from) {
            state.files.insert(to.to_owned(), stored);
        }
        Ok(())
    }
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.real.remove_file(path).await?;
        self.lossy.state().files.remove(path);
        Ok(())
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

impl LossyFile {
    fn change(&self, change: Change) {
        self.lossy.state().files.get_mut(&self.path).expect("an open file").pending.push(change);
    }
}

#[async_trait]
impl File for LossyFile {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.real.read_at(offset, len).await
    }
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.real.write_at(offset, data.clone()).await?;
        self.change(Change::Write(offset, data));
        Ok(())
    }
    async fn sync(&self) -> io::Result<()> {
        // A task of its own, as the real one is a thread's call.
        tokio::spawn(self.lossy.clone().sync(self.path.clone())).await.expect("no panic")
    }
    async fn len(&self) -> io::Result<u64> {
        self.real.len().await
    }
    async fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.real.set_len(len_bytes).await?;
        self.change(Change::SetLen(len_bytes));
        Ok(())
    }
    async fn allocate(&self, len_bytes: u64, grow: bool) -> io::Result<()> {
        self.real.allocate(len_bytes, grow).await
    }
    async fn drop_cache(&self) -> io::Result<()> {
        self.real.drop_cache().await
    }
}
