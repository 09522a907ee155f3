//! A host whose disks do what a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use resilver_host::{BlockingFile, DirEntry, Disk, File, Host, Metadata, OpenMode, Space};
use tokio::sync::watch;

/// The error of a sector that cannot be read.
pub(crate) const EIO: i32 = 5;

/// Which step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Opening the file, and asking for its length.
    Open,
    /// Reading it.
    Read,
    /// Giving it another name.
    Rename,
}

/// See the module.
pub(crate) struct Faults {
    inner: Arc<dyn Disk>,
    /// While true, nothing comes back.
    pub(crate) hang: watch::Sender<bool>,
    /// What every read of a file says; 0: nothing.
    pub(crate) read_errno: AtomicI32,
    /// What every write to a file says; 0: nothing.
    pub(crate) write_errno: AtomicI32,
    /// The room there is said to be; `u64::MAX`: what there really is.
    pub(crate) available: AtomicU64,
    /// Syncs of files so far.
    pub(crate) syncs: AtomicU64,
    /// Single files, by their present names: what is wrong with a file goes with it. The error, and how often.
    sick: Mutex<BTreeMap<(PathBuf, Step), (i32, u32)>>,
    /// Folders in and below which nothing can be read.
    dead: Mutex<BTreeSet<PathBuf>>,
}

impl Faults {
    pub(crate) fn host() -> (Host, Arc<Self>) {
        let mut host = resilver_host::real::host();
        let faults = Arc::new(Self {
            inner: Arc::clone(&host.disk),
            hang: watch::Sender::new(false),
            read_errno: AtomicI32::new(0),
            write_errno: AtomicI32::new(0),
            available: AtomicU64::new(u64::MAX),
            syncs: AtomicU64::new(0),
            sick: Mutex::default(),
            dead: Mutex::default(),
        });
        host.disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
        (host, faults)
    }

    /// From now on a step with this file fails, so many times; 0: it is well again.
    pub(crate) fn sicken(&self, path: &Path, step: Step, errno: i32, times: u32) {
        let mut sick = self.sick.lock().unwrap();
        match times {
            0 => sick.remove(&(path.to_owned(), step)),
            times => sick.insert((path.to_owned(), step), (errno, times)),
        };
    }

    /// From now on nothing in this folder can be read, or everything again.
    pub(crate) fn kill(&self, folder: &Path, dead: bool) {
        let mut all = self.dead.lock().unwrap();
        match dead {
            true => all.insert(folder.to_owned()),
            false => all.remove(folder),
        };
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

    fn strike(&self, path: &Path, step: Step) -> io::Result<()> {
        if step == Step::Read && self.dead.lock().unwrap().iter().any(|folder| path.starts_with(folder)) {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let mut sick = self.sick.lock().unwrap();
        let Some((errno, times)) = sick.get_mut(&(path.to_owned(), step)) else { return Ok(()) };
        let error = io::Error::from_raw_os_error(*errno);
        *times -= 1;
        if *times == 0 {
            sick.remove(&(path.to_owned(), step));
        }
        Err(error)
    }

    /// What was wrong with a file is wrong under its new name, and what had that name is gone.
    fn renamed(&self, from: &Path, to: &Path) {
        let mut sick = self.sick.lock().unwrap();
        sick.retain(|(path, _), _| path != to);
        let moved: Vec<_> = sick.extract_if(.., |(path, _), _| path == from).collect();
        sick.extend(moved.into_iter().map(|((_, step), wrong)| ((to.to_owned(), step), wrong)));
    }
}

struct FaultyDisk(Arc<Faults>);

struct FaultyFile {
    faults: Arc<Faults>,
    path: PathBuf,
    inner: Arc<dyn File>,
}

#[async_trait]
impl Disk for FaultyDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.0.pass().await;
        self.0.strike(path, Step::Open)?;
        let inner = self.0.inner.open(path, mode).await?;
        Ok(Arc::new(FaultyFile { faults: Arc::clone(&self.0), path: path.to_owned(), inner }))
    }
    fn open_blocking(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn BlockingFile>> {
        self.0.inner.open_blocking(path, mode)
    }
    async fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.0.pass().await;
        self.0.strike(path, Step::Open)?;
        self.0.inner.metadata(path).await
    }
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.pass().await;
        self.0.strike(from, Step::Rename)?;
        self.0.inner.rename(from, to).await?;
        self.0.renamed(from, to);
        Ok(())
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
        self.0.strike(path, Step::Read)?;
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
        self.faults.pass().await;
        Faults::fail(&self.faults.read_errno)?;
        self.faults.strike(&self.path, Step::Read)?;
        self.inner.read_at(offset, len).await
    }
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.faults.pass().await;
        Faults::fail(&self.faults.write_errno)?;
        self.inner.write_at(offset, data).await
    }
    async fn sync(&self) -> io::Result<()> {
        self.faults.pass().await;
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        self.inner.sync().await
    }
    async fn len(&self) -> io::Result<u64> {
        self.faults.pass().await;
        self.inner.len().await
    }
    async fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.inner.set_len(len_bytes).await
    }
    async fn allocate(&self, len_bytes: u64, grow: bool) -> io::Result<()> {
        self.inner.allocate(len_bytes, grow).await
    }
    async fn drop_cache(&self) -> io::Result<()> {
        self.faults.pass().await;
        self.inner.drop_cache().await
    }
}
