//! Every operation on a disk goes through here: bounded in number, bounded in time, counted when it fails.
//!
//! Why bounded in number: a blocking operation holds a thread of tokio's one blocking pool until the kernel lets go of
//! it. A disk that hangs must not collect them all, or one disk would take the node's other disks and its metadata with
//! it. An operation therefore keeps its permit until it has really ended, even after its caller gave up waiting.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use resilver_host::{DirEntry, File, Host, Metadata, OpenMode, Space};
use tokio::sync::{Notify, Semaphore};

use super::error::DiskError;
use super::together::Companies;
use crate::company::Company;
use crate::deadlines::Deadlines;
use crate::types::DiskId;

/// Operations in flight per disk. Deeper queues than this gain a disk nothing, and eight such disks still leave the
/// pool's 512 threads room for the rest.
const OPERATIONS_IN_FLIGHT: usize = 48;

/// The unit in which waiting is counted, see [`within`].
pub(super) const TICK: Duration = Duration::from_secs(1);

/// How many ticks a disk is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A canary that hangs so many makes the disk suspect.
    pub(super) suspect_ticks: u32,
    /// An operation that hangs so many has failed.
    pub(super) hanging_ticks: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self::from(&Deadlines::default())
    }
}

impl From<&Deadlines> for Patience {
    fn from(deadlines: &Deadlines) -> Self {
        let ticks = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
        Self { suspect_ticks: ticks(deadlines.disk_state_check), hanging_ticks: ticks(deadlines.disk_operation) }
    }
}

/// Waits at most `ticks` of one second *that this process lived through*. A process that was stopped (or a machine that
/// slept) finds every deadline passed when it wakes up, but the operation had no chance to finish either: such a pause
/// costs one tick, and no disk is blamed for it.
pub(super) async fn within<T>(ticks: u32, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    for _ in 0..ticks {
        if let Ok(value) = tokio::time::timeout(TICK, work.as_mut()).await {
            return Some(value);
        }
    }
    None
}

const READ: &str = "a read";
const OPEN_AND_READ: &str = "opening and reading a file";
const REREAD: &str = "reading a file from the device";
const OPEN: &str = "opening a file";
const LIST: &str = "listing a folder";
const METADATA: &str = "asking for metadata";
const TIMES: &str = "asking for times";

/// The operations that only read: of a file, or what the file system has about it, which lies on the same sectors.
const READS: [&str; 7] = [READ, OPEN_AND_READ, REREAD, OPEN, LIST, METADATA, TIMES];

/// An open file and its first bytes.
type Opened = Result<(Arc<dyn File>, Bytes), DiskError>;

/// One disk's door to the system.
pub(super) struct Io {
    pub(super) host: Host,
    pub(super) disk: DiskId,
    pub(super) root: PathBuf,
    pub(super) patience: Patience,
    permits: Arc<Semaphore>,
    companies: Companies,
    errors: AtomicU64,
    read_errors: AtomicU64,
    /// Asks for a canary now.
    pub(super) doubt: Notify,
}

impl Io {
    pub(super) fn new(host: Host, disk: DiskId, root: PathBuf, patience: Patience) -> Self {
        let permits = Arc::new(Semaphore::new(OPERATIONS_IN_FLIGHT));
        let companies = Companies::new(&host.disk, &permits);
        let (errors, read_errors) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { host, disk, root, patience, permits, companies, errors, read_errors, doubt: Notify::new() }
    }

    /// Operations that failed so far.
    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Those of them that were to read, and for which the medium is to blame: not one that hung, or was not allowed.
    pub(super) fn read_errors(&self) -> u64 {
        self.read_errors.load(Ordering::Relaxed)
    }

    /// Counts a failure of the disk.
    pub(super) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failure of the disk and has the canary look at it now.
    pub(super) fn failed(&self) {
        self.count_error();
        self.doubt.notify_one();
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        path: &Path,
        work: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> Result<T, DiskError> {
        let bounded = async {
            let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
            let task = tokio::spawn(async move {
                let result = work.await;
                drop(permit);
                result
            });
            task.await.unwrap_or_else(|lost| Err(io::Error::other(lost)))
        };
        self.judged(operation, path, bounded).await
    }

    /// The same of what goes in company: the permit is the company's.
    async fn joined<T: Send + 'static, R: Send + 'static>(
        &self,
        operation: &'static str,
        path: &Path,
        (company, item): (&Company<T, io::Result<R>>, T),
    ) -> Result<R, DiskError> {
        let bounded = async {
            let lost = || Err(io::Error::other("the steps that went together with it panicked"));
            company.join(item, 1).await.unwrap_or_else(lost)
        };
        self.judged(operation, path, bounded).await
    }

    /// Waits for an operation as long as one may take, and says what its failure means.
    async fn judged<T>(
        &self,
        operation: &'static str,
        path: &Path,
        bounded: impl Future<Output = io::Result<T>>,
    ) -> Result<T, DiskError> {
        let ticks = self.patience.hanging_ticks;
        match within(ticks, bounded).await {
            Some(Ok(value)) => Ok(value),
            Some(Err(source)) => Err(self.explain(operation, path, source)),
            None => {
                self.failed();
                let seconds = u64::from(ticks) * TICK.as_secs();
                Err(DiskError::Hanging { disk: self.disk, path: path.to_owned(), operation, seconds })
            }
        }
    }

    /// What an error of the system means, and whether the disk is to blame for it.
    fn explain(&self, operation: &'static str, path: &Path, source: io::Error) -> DiskError {
        let disk = self.disk;
        match blame(&source) {
            Blame::Full => DiskError::Full { disk, path: self.root.clone(), available_bytes: 0, needed_bytes: 0 },
            Blame::ReadOnly => {
                self.failed();
                DiskError::ReadOnly { disk, path: self.root.clone() }
            }
            Blame::Disk => {
                if is_unreadable(&source) && READS.contains(&operation) {
                    self.read_errors.fetch_add(1, Ordering::Relaxed);
                }
                self.failed();
                DiskError::Io { disk, path: path.to_owned(), operation, source }
            }
            Blame::Nobody => DiskError::Io { disk, path: path.to_owned(), operation, source },
        }
    }

    pub(super) async fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn File>, DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), path.to_owned());
        let operation = if mode == OpenMode::Read { OPEN } else { "opening a file to write it" };
        self.run(operation, path, async move { disk.open(&owned, mode).await }).await
    }

    pub(super) async fn read(
        &self,
        file: &Arc<dyn File>,
        path: &Path,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, DiskError> {
        let file = Arc::clone(file);
        self.run(READ, path, async move { file.read_at(offset, len).await }).await
    }

    pub(super) async fn write(
        &self,
        file: &Arc<dyn File>,
        path: &Path,
        offset: u64,
        data: Bytes,
    ) -> Result<(), DiskError> {
        let file = Arc::clone(file);
        self.run("a write", path, async move { file.write_at(offset, data).await }).await
    }

    pub(super) async fn sync(&self, file: &Arc<dyn File>, path: &Path) -> Result<(), DiskError> {
        let file = Arc::clone(file);
        self.run("a sync", path, async move { file.sync().await }).await
    }

    pub(super) async fn len(&self, file: &Arc<dyn File>, path: &Path) -> Result<u64, DiskError> {
        let file = Arc::clone(file);
        self.run("asking for a length", path, async move { file.len().await }).await
    }

    pub(super) async fn drop_cache(&self, file: &Arc<dyn File>, path: &Path) -> Result<(), DiskError> {
        let file = Arc::clone(file);
        self.run("dropping the cache", path, async move { file.drop_cache().await }).await
    }

    pub(super) async fn open_and_read(&self, path: &Path, len: usize) -> Result<(Arc<dyn File>, Bytes), DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), path.to_owned());
        self.run(OPEN_AND_READ, path, async move { disk.open_and_read(&owned, len).await }).await
    }

    /// [`Io::open_and_read`] of several, as one operation.
    pub(super) async fn open_and_read_all(&self, paths: &[PathBuf], len: usize) -> Result<Vec<Opened>, DiskError> {
        let (disk, asked) = (Arc::clone(&self.host.disk), paths.to_vec());
        let reading = async move { Ok(disk.open_and_read_all(asked, len).await) };
        let opened = self.run(OPEN_AND_READ, &self.root, reading).await?;
        let told = paths.iter().zip(opened);
        Ok(told.map(|(path, opened)| opened.map_err(|error| self.explain(OPEN_AND_READ, path, error))).collect())
    }

    /// Opens a file and reads its first window from the device, past the page cache.
    pub(super) async fn open_and_reread(&self, path: &Path) -> Result<(Arc<dyn File>, Bytes), DiskError> {
        let item = (&self.companies.rereads, path.to_owned());
        self.joined(REREAD, path, item).await
    }

    pub(super) async fn create_synced(&self, path: &Path, data: Bytes) -> Result<(), DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), path.to_owned());
        self.run("writing and syncing a file", path, async move { disk.create_synced(&owned, data).await }).await
    }

    pub(super) async fn publish(&self, from: &Path, to: &Path) -> Result<Option<u64>, DiskError> {
        let (disk, source, target) = (Arc::clone(&self.host.disk), from.to_owned(), to.to_owned());
        self.run("giving a file its name", to, async move { disk.publish(&source, &target).await }).await
    }

    /// [`Io::create_synced`] of what nobody waits for.
    pub(super) async fn create_synced_together(&self, path: &Path, data: Bytes) -> Result<(), DiskError> {
        let item = (&self.companies.creates, (path.to_owned(), data));
        self.joined("writing and syncing a file", path, item).await
    }

    /// [`Io::publish`] of what nobody waits for.
    pub(super) async fn publish_together(&self, from: &Path, to: &Path) -> Result<Option<u64>, DiskError> {
        let item = (&self.companies.names, (from.to_owned(), to.to_owned()));
        self.joined("giving a file its name", to, item).await
    }

    pub(super) async fn metadata(&self, path: &Path) -> Result<Metadata, DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), path.to_owned());
        self.run(METADATA, path, async move { disk.metadata(&owned).await }).await
    }

    /// When each of these folders' names were last changed; `None`: this file system does not say.
    pub(super) async fn modified_ms(&self, folders: Vec<PathBuf>) -> Result<Vec<Option<u64>>, DiskError> {
        let disk = Arc::clone(&self.host.disk);
        self.run(TIMES, &self.root, async move { disk.modified_all_ms(&folders).await }).await
    }

    pub(super) async fn replace(&self, path: &Path, data: Bytes) -> Result<(), DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), path.to_owned());
        let replacing = async move { resilver_host::disk::replace_file(&*disk, &owned, data).await };
        self.run("replacing a file", path, replacing).await
    }

    pub(super) async fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let (disk, source, target) = (Arc::clone(&self.host.disk), from.to_owned(), to.to_owned());
        self.run("a rename", to, async move { disk.rename(&source, &target).await }).await
    }

    pub(super) async fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), path.to_owned());
        self.run("removing a file", path, async move { disk.remove_file(&owned).await }).await
    }

    pub(super) async fn create_dir(&self, path: &Path) -> Result<(), DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), path.to_owned());
        self.run("making a folder", path, async move { disk.create_dir_all(&owned).await }).await
    }

    pub(super) async fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), path.to_owned());
        self.run("a sync of a folder", path, async move { disk.sync_dir(&owned).await }).await
    }

    pub(super) async fn list(&self, path: &Path) -> Result<Vec<DirEntry>, DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), path.to_owned());
        self.run(LIST, path, async move { disk.list(&owned).await }).await
    }

    pub(super) async fn space(&self) -> Result<Space, DiskError> {
        let (disk, owned) = (Arc::clone(&self.host.disk), self.root.clone());
        self.run("asking for room", &self.root, async move { disk.space(&owned).await }).await
    }
}

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The disk's.
    Disk,
    /// The disk's: it takes no writes.
    ReadOnly,
    /// There is no room.
    Full,
    /// Not the disk's: nothing is there, or this process lacks descriptors or memory.
    Nobody,
}

/// Whether an error of the system says that what lies in one place cannot be read: a sector, or what the file system has to
/// say where it is. Only those that do: what a task says that was lost, and a file that may not be opened for want of a
/// permission, are nothing that writing the bytes anew would mend.
pub(super) fn is_unreadable(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    // How block devices tell of a medium error, and file systems of a checksum that does not hold.
    const ENODATA: i32 = 61;
    const EBADMSG: i32 = 74;
    const EILSEQ: i32 = 84;
    const EUCLEAN: i32 = 117;
    matches!(error.raw_os_error(), Some(EIO | ENODATA | EBADMSG | EILSEQ | EUCLEAN))
}

/// Reads an error of the system. A process without file descriptors must not convict its disks.
pub(super) fn blame(error: &io::Error) -> Blame {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match (error.kind(), error.raw_os_error()) {
        (_, Some(ENOMEM | ENFILE | EMFILE)) => Blame::Nobody,
        (io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists | io::ErrorKind::OutOfMemory, _) => Blame::Nobody,
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => Blame::Full,
        (io::ErrorKind::ReadOnlyFilesystem, _) => Blame::ReadOnly,
        _ => Blame::Disk,
    }
}
