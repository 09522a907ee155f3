//! Files and folders: positioned reads and writes, and every step that durability needs said aloud (file sync, folder
//! sync, rename).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;

/// How a file is opened. All modes but `Read` allow reading too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading only.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// Created when absent, opened as it is when present.
    Create,
    /// Created; an error (`AlreadyExists`) when present.
    CreateNew,
}

/// What an entry of a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// Anything else: never touched.
    Other,
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name within its folder.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
}

/// Length and kind of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes.
    pub len_bytes: u64,
    /// What it is.
    pub kind: FileKind,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system in bytes.
    pub total_bytes: u64,
    /// Bytes an unprivileged writer may still use.
    pub available_bytes: u64,
    /// Files it can have; 0: it has no such limit.
    pub inodes_total: u64,
    /// How many more an unprivileged writer may make.
    pub inodes_free: u64,
}

/// A block device, as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// Which driver; 0: none, the file system is on no block device that it would name.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// An open file, asynchronous face.
#[async_trait]
#[allow(clippy::len_without_is_empty, reason = "a system call, not a property: it can fail")]
pub trait File: Send + Sync + 'static {
    /// Reads up to `len` bytes at `offset`; fewer only at the end of the file.
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes>;
    /// Writes all of `data` at `offset`. Not durable before [`File::sync`].
    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()>;
    /// Makes data (and the length) durable: fdatasync.
    async fn sync(&self) -> io::Result<()>;
    /// Present length in bytes.
    async fn len(&self) -> io::Result<u64>;
    /// Sets the length, cutting or growing with zeros.
    async fn set_len(&self, len_bytes: u64) -> io::Result<()>;
    /// Reserves room for `[0, len_bytes)`. `grow`: whether the visible length grows with it. Never shortens.
    ///
    /// # Errors
    /// `StorageFull` when there is no room; `Unsupported` without `grow` on a file system that cannot reserve room
    /// beyond the visible end.
    async fn allocate(&self, len_bytes: u64, grow: bool) -> io::Result<()>;
    /// Forgets what the page cache holds of this file and is synced, so that the next read of it asks the disk. Best effort. It
    /// syncs nothing itself: a file system may flush the device's cache for a file in which nothing changed.
    async fn drop_cache(&self) -> io::Result<()>;
    /// The same of `len_bytes` from `offset` on alone, where a file system can: what others read of the rest stays quick.
    async fn drop_cache_of(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        let _ = (offset, len_bytes);
        self.drop_cache().await
    }
}

/// An open file, synchronous face: only for redb's backend and inside [`crate::Host::blocking`].
#[allow(clippy::len_without_is_empty, reason = "a system call, not a property: it can fail")]
pub trait BlockingFile: Send + Sync + std::fmt::Debug + 'static {
    /// Fills `buf` from `offset`; an error (`UnexpectedEof`) when the file is shorter.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `data` at `offset`.
    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Makes data durable.
    fn sync(&self) -> io::Result<()>;
    /// Present length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Sets the length.
    fn set_len(&self, len_bytes: u64) -> io::Result<()>;
}

/// The file systems of a host.
#[async_trait]
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Creates a file for secrets: nobody but its owner may read or write it, from its first moment on. An error
    /// (`AlreadyExists`) when present. A file system without users has no such thing, and makes an ordinary file.
    async fn create_private(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path, OpenMode::CreateNew).await
    }
    /// Whether nobody but its owner may read or write this file. A file system without users has only private ones.
    async fn is_private(&self, path: &Path) -> io::Result<bool> {
        self.metadata(path).await.map(|_| true)
    }
    /// Opens a file, synchronous face.
    fn open_blocking(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn BlockingFile>>;
    /// Length and kind. `NotFound` when absent.
    async fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Renames, replacing the target. Durable only after both folders are synced.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable only after its folder is synced.
    async fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder. Durable only after its parent is synced.
    async fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a folder and its parents. Parents' entries are durable only after [`Disk::sync_dir`] of each.
    async fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder's entries durable.
    async fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a folder, sorted by name.
    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Room on the file system that holds `path`.
    async fn space(&self, path: &Path) -> io::Result<Space>;

    /// When a file's content was last changed, in milliseconds since the Unix epoch, by the clock of whoever changed it.
    /// `NotFound` when absent. `None`: this file system keeps no times.
    async fn modified_ms(&self, path: &Path) -> io::Result<Option<u64>> {
        self.metadata(path).await.map(|_| None)
    }
    /// The device that holds `path`; of a block device's own file, that device. `None`: there are no devices here.
    async fn device(&self, path: &Path) -> io::Result<Option<DeviceNumber>> {
        self.metadata(path).await.map(|_| None)
    }

    /// [`Disk::modified_ms`] of several paths.
    async fn modified_all_ms(&self, paths: &[PathBuf]) -> io::Result<Vec<Option<u64>>> {
        let mut found = Vec::with_capacity(paths.len());
        for path in paths {
            found.push(self.modified_ms(path).await?);
            // One that keeps none for the first keeps none.
            if found == [None] {
                return Ok(vec![None; paths.len()]);
            }
        }
        Ok(found)
    }

    // Steps that small files always take together. A host whose every step is a trip off the event loop makes one trip of
    // them; any other, and a simulated one above all, takes them one by one.

    /// Opens a file for reading and reads up to `len` bytes from its start; fewer only when it is shorter.
    async fn open_and_read(&self, path: &Path, len: usize) -> io::Result<(Arc<dyn File>, Bytes)> {
        let file = self.open(path, OpenMode::Read).await?;
        let start = file.read_at(0, len).await?;
        Ok((file, start))
    }
    /// The same of a file that was synced, past the page cache: what it holds of the file is forgotten before, and again after a
    /// read that saw all of it.
    async fn open_and_reread(&self, path: &Path, len: usize) -> io::Result<(Arc<dyn File>, Bytes)> {
        let file = self.open(path, OpenMode::Read).await?;
        file.drop_cache().await?;
        let start = file.read_at(0, len).await?;
        if start.len() < len {
            file.drop_cache().await?;
        }
        Ok((file, start))
    }
    /// Creates a file with this content, which is durable but for the file's name. An error (`AlreadyExists`) when present.
    async fn create_synced(&self, path: &Path, data: Bytes) -> io::Result<()> {
        let file = self.open(path, OpenMode::CreateNew).await?;
        file.write_at(0, data).await?;
        file.sync().await
    }
    /// Renames, replacing the target, and makes the new name durable; the old one may come back after a loss of power. The
    /// length in bytes of the file that was replaced, if there was one. After an error either name may be there.
    async fn publish(&self, from: &Path, to: &Path) -> io::Result<Option<u64>> {
        let replaced = match self.metadata(to).await {
            Ok(found) => Some(found.len_bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        self.rename(from, to).await?;
        self.sync_dir(to.parent().unwrap_or(Path::new("/"))).await?;
        Ok(replaced)
    }

    // The same of several side by side, each with a result of its own, in their order: one trip where one of them is.

    /// [`Disk::open_and_read`] of several.
    async fn open_and_read_all(&self, paths: Vec<PathBuf>, len: usize) -> Vec<io::Result<(Arc<dyn File>, Bytes)>> {
        join_all(paths.iter().map(|path| self.open_and_read(path, len))).await
    }
    /// [`Disk::open_and_reread`] of several.
    async fn open_and_reread_all(&self, paths: Vec<PathBuf>, len: usize) -> Vec<io::Result<(Arc<dyn File>, Bytes)>> {
        join_all(paths.iter().map(|path| self.open_and_reread(path, len))).await
    }
    /// [`Disk::create_synced`] of several.
    async fn create_all_synced(&self, files: Vec<(PathBuf, Bytes)>) -> Vec<io::Result<()>> {
        join_all(files.iter().map(|(path, data)| self.create_synced(path, data.clone()))).await
    }
    /// [`Disk::publish`] of several. A folder that cannot be synced fails all names in it.
    async fn publish_all(&self, names: Vec<(PathBuf, PathBuf)>) -> Vec<io::Result<Option<u64>>> {
        join_all(names.iter().map(|(from, to)| self.publish(from, to))).await
    }
}

/// Reads a whole file. For small files (identities, headers): the caller knows its bound.
///
/// # Errors
/// As [`Disk::open`] and [`File::read_at`]; `InvalidData` when it is longer than `limit_bytes`.
pub async fn read_file(disk: &dyn Disk, path: &Path, limit_bytes: u64) -> io::Result<Bytes> {
    let file = disk.open(path, OpenMode::Read).await?;
    let len = file.len().await?;
    if len > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is {len} bytes long, more than the {limit_bytes} expected", path.display()),
        ));
    }
    file.read_at(0, usize::try_from(len).unwrap_or(usize::MAX)).await
}

/// Replaces a file atomically and durably: temporary name, sync, rename, folder sync.
///
/// # Errors
/// Of any of the steps; the old content is then still in place.
pub async fn replace_file(disk: &dyn Disk, path: &Path, data: Bytes) -> io::Result<()> {
    let temporary = temporary(path);
    let file = disk.open(&temporary, OpenMode::Create).await?;
    file.set_len(0).await?;
    put_in_place(disk, &*file, &temporary, path, data).await
}

/// As [`replace_file`], for secrets: see [`Disk::create_private`].
///
/// # Errors
/// As [`replace_file`].
pub async fn replace_private_file(disk: &dyn Disk, path: &Path, data: Bytes) -> io::Result<()> {
    let temporary = temporary(path);
    // What a crash left behind may be readable for others: it is not written into.
    match disk.remove_file(&temporary).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create_private(&temporary).await?;
    put_in_place(disk, &*file, &temporary, path, data).await
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.parent().unwrap_or(Path::new("/")).join(name)
}

async fn put_in_place(disk: &dyn Disk, file: &dyn File, temporary: &Path, path: &Path, data: Bytes) -> io::Result<()> {
    file.write_at(0, data).await?;
    file.sync().await?;
    disk.rename(temporary, path).await?;
    disk.sync_dir(path.parent().unwrap_or(Path::new("/"))).await
}

/// Creates a folder and its parents, durably: a folder whose own name was never synced is gone after a loss of power,
/// with everything synced inside it. Parents are synced also when the folder is there already: whoever made it may have
/// been killed before it came to that.
///
/// # Errors
/// Of the creation, or of a sync. A parent that we may not read, or that is on a read-only file system, was not made by us
/// and ends the way up.
pub async fn create_dir_durably(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.create_dir_all(path).await?;
    for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        match disk.sync_dir(parent).await {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
