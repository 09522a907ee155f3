//! Files and folders of Linux. Every call runs on the blocking pool; durability is exactly what was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, major, minor, statvfs};
use rustix::io::retry_on_intr;

use super::blocking::off_loop;
use crate::{BlockingFile, DeviceNumber, DirEntry, Disk, File, FileKind, Metadata, OpenMode, Space};

/// A read longer than this is first cut to what the file holds: the length may come from a damaged header, and a
/// buffer for it must not be what ends the process.
const TRUSTED_READ_BYTES: usize = 1024 * 1024;

/// Zeros written at a time where a file system cannot reserve room itself.
const ZERO_FILL_BYTES: usize = 1024 * 1024;

/// Read and written by the owner, nobody else.
const PRIVATE_MODE: u32 = 0o600;
/// What group and others may do with a file.
const OTHERS_MODE: u32 = 0o077;

#[derive(Debug)]
pub(super) struct RealDisk;

#[async_trait]
impl Disk for RealDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let path = path.to_owned();
        let file = off_loop(move || open(&path, mode)).await?;
        Ok(Arc::new(RealFile(Arc::new(file))))
    }

    async fn create_private(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let path = path.to_owned();
        let create = move || OpenOptions::new().read(true).write(true).create_new(true).mode(PRIVATE_MODE).open(path);
        Ok(Arc::new(RealFile(Arc::new(off_loop(create).await?))))
    }

    async fn is_private(&self, path: &Path) -> io::Result<bool> {
        let path = path.to_owned();
        off_loop(move || Ok(fs::metadata(path)?.permissions().mode() & OTHERS_MODE == 0)).await
    }

    fn open_blocking(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn BlockingFile>> {
        Ok(Box::new(RealBlockingFile(open(path, mode)?)))
    }

    async fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let path = path.to_owned();
        off_loop(move || {
            let found = fs::metadata(path)?;
            Ok(Metadata { len_bytes: found.len(), kind: kind_of(found.file_type()) })
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        off_loop(move || fs::rename(from, to)).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        off_loop(move || fs::remove_file(path)).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        off_loop(move || fs::remove_dir(path)).await
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        off_loop(move || fs::create_dir_all(path)).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = folder(path).to_owned();
        off_loop(move || sync_dir(&path)).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let path = folder(path).to_owned();
        off_loop(move || list(&path)).await
    }

    async fn space(&self, path: &Path) -> io::Result<Space> {
        let path = folder(path).to_owned();
        off_loop(move || {
            let found = retry_on_intr(|| statvfs(&path))?;
            Ok(Space {
                total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
                available_bytes: found.f_bavail.saturating_mul(found.f_frsize),
                inodes_total: found.f_files,
                inodes_free: found.f_favail,
            })
        })
        .await
    }

    async fn modified_ms(&self, path: &Path) -> io::Result<Option<u64>> {
        let path = path.to_owned();
        off_loop(move || modified_ms(&path)).await
    }

    async fn modified_all_ms(&self, paths: &[PathBuf]) -> io::Result<Vec<Option<u64>>> {
        let paths = paths.to_vec();
        off_loop(move || paths.iter().map(|path| modified_ms(path)).collect()).await
    }

    async fn device(&self, path: &Path) -> io::Result<Option<DeviceNumber>> {
        let path = folder(path).to_owned();
        off_loop(move || {
            let found = fs::metadata(path)?;
            let number = if found.file_type().is_block_device() { found.rdev() } else { found.dev() };
            Ok(Some(DeviceNumber { major: major(number), minor: minor(number) }))
        })
        .await
    }

    async fn open_and_read(&self, path: &Path, len: usize) -> io::Result<(Arc<dyn File>, Bytes)> {
        let path = path.to_owned();
        off_loop(move || open_and_read(&path, len)).await.map(shared)
    }

    async fn create_synced(&self, path: &Path, data: Bytes) -> io::Result<()> {
        let path = path.to_owned();
        off_loop(move || create(&path, &data)?.sync_data()).await
    }

    async fn publish(&self, from: &Path, to: &Path) -> io::Result<Option<u64>> {
        let (from, to) = (from.to_owned(), to.to_owned());
        off_loop(move || {
            let replaced = rename(&from, &to)?;
            sync_dir(parent(&to))?;
            Ok(replaced)
        })
        .await
    }

    async fn open_and_read_all(&self, paths: Vec<PathBuf>, len: usize) -> Vec<io::Result<(Arc<dyn File>, Bytes)>> {
        open_all(paths, len, false).await
    }

    async fn open_and_reread_all(&self, paths: Vec<PathBuf>, len: usize) -> Vec<io::Result<(Arc<dyn File>, Bytes)>> {
        open_all(paths, len, true).await
    }

    async fn create_all_synced(&self, files: Vec<(PathBuf, Bytes)>) -> Vec<io::Result<()>> {
        let count = files.len();
        let made = off_loop(move || {
            // All are on their way to the device before the first is waited for: the file system commits them together.
            let begun = |(path, data): (PathBuf, Bytes)| {
                let file = create(&path, &data)?;
                // Only advice: the sync tells what is wrong.
                let _ = begin_writing(&file);
                Ok(file)
            };
            let files: Vec<io::Result<fs::File>> = files.into_iter().map(begun).collect();
            Ok(files.into_iter().map(|file| file?.sync_data()).collect())
        });
        each(made.await, count)
    }

    async fn publish_all(&self, names: Vec<(PathBuf, PathBuf)>) -> Vec<io::Result<Option<u64>>> {
        let count = names.len();
        let named = off_loop(move || {
            let renamed: Vec<_> = names.iter().map(|(from, to)| rename(from, to)).collect();
            let folders: BTreeSet<&Path> = names.iter().map(|(_, to)| parent(to)).collect();
            let synced: BTreeMap<&Path, io::Result<()>> =
                folders.into_iter().map(|folder| (folder, sync_dir(folder))).collect();
            let durable = |(to, renamed): (&Path, io::Result<Option<u64>>)| match synced.get(parent(to)) {
                Some(Err(error)) => renamed.and(Err(same(error))),
                _ => renamed,
            };
            Ok(names.iter().map(|(_, to)| to.as_path()).zip(renamed).map(durable).collect())
        });
        each(named.await, count)
    }
}

/// Opens and reads the start of all, in one trip off the loop. The device has all reads before the first is waited for.
async fn open_all(paths: Vec<PathBuf>, len: usize, past_cache: bool) -> Vec<io::Result<(Arc<dyn File>, Bytes)>> {
    let count = paths.len();
    let read = off_loop(move || {
        let begun = |path: PathBuf| {
            let file = open(&path, OpenMode::Read)?;
            if past_cache {
                drop_cache(&file)?;
            }
            // Only advice: the read itself tells what is wrong.
            let _ = fadvise(&file, 0, NonZeroU64::new(len as u64), Advice::WillNeed);
            Ok(file)
        };
        let files: Vec<io::Result<fs::File>> = paths.into_iter().map(begun).collect();
        let read = |file: io::Result<fs::File>| {
            let file = file?;
            let start = read_at(&file, 0, len)?;
            if past_cache && start.len() < len {
                drop_cache(&file)?;
            }
            Ok((file, start))
        };
        Ok(files.into_iter().map(read).collect())
    });
    each(read.await, count).into_iter().map(|opened| opened.map(shared)).collect()
}

/// A result for each; of a trip that failed, its error.
fn each<T>(trip: io::Result<Vec<io::Result<T>>>, count: usize) -> Vec<io::Result<T>> {
    trip.unwrap_or_else(|error| (0..count).map(|_| Err(same(&error))).collect())
}

/// The error once more: one failed step may be several callers'.
fn same(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

fn shared((file, start): (fs::File, Bytes)) -> (Arc<dyn File>, Bytes) {
    (Arc::new(RealFile(Arc::new(file))), start)
}

fn open_and_read(path: &Path, len: usize) -> io::Result<(fs::File, Bytes)> {
    let file = open(path, OpenMode::Read)?;
    let start = read_at(&file, 0, len)?;
    Ok((file, start))
}

/// A new file with this content, not yet durable.
fn create(path: &Path, data: &[u8]) -> io::Result<fs::File> {
    let file = open(path, OpenMode::CreateNew)?;
    file.write_all_at(data, 0)?;
    Ok(file)
}

/// Renames, not yet durably. The length of the file that was replaced, if there was one.
fn rename(from: &Path, to: &Path) -> io::Result<Option<u64>> {
    let replaced = match fs::metadata(to) {
        Ok(found) => Some(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    fs::rename(from, to)?;
    Ok(replaced)
}

/// The folder of a file.
fn parent(path: &Path) -> &Path {
    folder(path.parent().unwrap_or(Path::new("/")))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = fs::File::open(path)?;
    if !dir.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    // fsync, not fdatasync: a folder's entries are what it says about itself.
    dir.sync_all()
}

/// When a path was last changed.
fn modified_ms(path: &Path) -> io::Result<Option<u64>> {
    // A time before the epoch is nobody's: as good as none.
    let since = fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH).ok();
    Ok(since.and_then(|since| u64::try_from(since.as_millis()).ok()))
}

/// The parent of a bare file name is the empty path, by which people mean the working folder.
fn folder(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn open(path: &Path, mode: OpenMode) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.read(true);
    match mode {
        OpenMode::Read => {}
        OpenMode::Write => {
            options.write(true);
        }
        OpenMode::Create => {
            options.write(true).create(true).truncate(false);
        }
        OpenMode::CreateNew => {
            options.write(true).create_new(true);
        }
    }
    options.open(path)
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = match entry.file_type() {
            Ok(kind) => kind_of(kind),
            // It went away between reading the folder and asking about it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        entries.push(match entry.file_name().into_string() {
            Ok(name) => DirEntry { name, kind },
            // No name of ours is anything but UTF-8, and this one could not be opened by what we return.
            Err(name) => DirEntry { name: name.to_string_lossy().into_owned(), kind: FileKind::Other },
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn kind_of(kind: fs::FileType) -> FileKind {
    if kind.is_file() {
        FileKind::File
    } else if kind.is_dir() {
        FileKind::Dir
    } else {
        FileKind::Other
    }
}

/// The asynchronous face. The file is shared with calls in flight: one whose caller stopped waiting still completes.
struct RealFile(Arc<fs::File>);

impl RealFile {
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = Arc::clone(&self.0);
        off_loop(move || work(&file)).await
    }
}

#[async_trait]
impl File for RealFile {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.call(move |file| read_at(file, offset, len)).await
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        self.call(move |file| file.write_all_at(&data, offset)).await
    }

    async fn sync(&self) -> io::Result<()> {
        self.call(fs::File::sync_data).await
    }

    async fn len(&self) -> io::Result<u64> {
        self.call(|file| Ok(file.metadata()?.len())).await
    }

    async fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.call(move |file| file.set_len(len_bytes)).await
    }

    async fn allocate(&self, len_bytes: u64, grow: bool) -> io::Result<()> {
        self.call(move |file| allocate(file, len_bytes, grow)).await
    }

    async fn drop_cache(&self) -> io::Result<()> {
        self.call(drop_cache).await
    }

    async fn drop_cache_of(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        let forget = move |file: &fs::File| Ok(fadvise(file, offset, NonZeroU64::new(len_bytes), Advice::DontNeed)?);
        self.call(forget).await
    }
}

/// Has the kernel write what it holds of a file, without waiting for it: that is what this advice does to pages that are not
/// clean.
fn begin_writing(file: &fs::File) -> io::Result<()> {
    drop_cache(file)
}

/// The kernel drops clean pages only.
fn drop_cache(file: &fs::File) -> io::Result<()> {
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

fn read_at(file: &fs::File, offset: u64, len: usize) -> io::Result<Bytes> {
    let len = if len > TRUSTED_READ_BYTES {
        let rest = file.metadata()?.len().saturating_sub(offset);
        len.min(usize::try_from(rest).unwrap_or(usize::MAX))
    } else {
        len
    };
    let mut buffer = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(buffer.into())
}

fn allocate(file: &fs::File, len_bytes: u64, grow: bool) -> io::Result<()> {
    if len_bytes == 0 {
        return Ok(());
    }
    let mode = if grow { FallocateFlags::empty() } else { FallocateFlags::KEEP_SIZE };
    match retry_on_intr(|| fallocate(file, mode, 0, len_bytes)) {
        // Some file systems (many in user space) cannot reserve. Growing can still be had by writing; room beyond the
        // visible end cannot, and the caller is told.
        Err(rustix::io::Errno::OPNOTSUPP) if grow => zero_fill(file, len_bytes),
        result => Ok(result?),
    }
}

/// Appends zeros until the file is `len_bytes` long.
fn zero_fill(file: &fs::File, len_bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_FILL_BYTES];
    let mut end = file.metadata()?.len();
    while end < len_bytes {
        let step = (len_bytes - end).min(ZERO_FILL_BYTES as u64);
        file.write_all_at(&zeros[..step as usize], end)?;
        end += step;
    }
    Ok(())
}

/// The synchronous face.
#[derive(Debug)]
struct RealBlockingFile(fs::File);

impl BlockingFile for RealBlockingFile {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        self.0.set_len(len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_cannot_reserve_gets_zeros_and_what_was_there_stays() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        let len_bytes = ZERO_FILL_BYTES as u64 + 17;
        zero_fill(&file, len_bytes).unwrap();
        assert_eq!(file.metadata().unwrap().len(), len_bytes);
        let start = read_at(&file, 0, 8).unwrap();
        assert_eq!(&start[..], b"kept\0\0\0\0");
        zero_fill(&file, 3).unwrap();
        assert_eq!(file.metadata().unwrap().len(), len_bytes, "never shortens");
    }

    #[test]
    fn a_length_from_a_damaged_header_allocates_only_what_the_file_holds() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"short", 0).unwrap();
        assert_eq!(&read_at(&file, 1, usize::MAX).unwrap()[..], b"hort");
        assert!(read_at(&file, 1000, usize::MAX).unwrap().is_empty());
    }

    #[tokio::test]
    async fn steps_taken_together_do_what_they_do_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let (draft, name) = (folder.path().join("draft"), folder.path().join("name"));
        for (content, before) in [(&b"first"[..], None), (&b"the second"[..], Some(5))] {
            RealDisk.create_synced(&draft, Bytes::from_static(content)).await.unwrap();
            let again = RealDisk.create_synced(&draft, Bytes::new()).await.unwrap_err();
            assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(RealDisk.publish(&draft, &name).await.unwrap(), before);
            assert!(!draft.exists());
            let (file, start) = RealDisk.open_and_read(&name, 6).await.unwrap();
            assert_eq!(&start[..], &content[..content.len().min(6)]);
            assert_eq!(file.len().await.unwrap(), content.len() as u64);
            let (file, start) = RealDisk.open_and_reread(&name, 6).await.unwrap();
            assert_eq!(&start[..], &content[..content.len().min(6)]);
            assert_eq!(&file.read_at(0, 100).await.unwrap()[..], content, "read to its end or not");
        }
        assert_eq!(RealDisk.publish(&draft, &name).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read(&name).unwrap(), b"the second", "what is there stays when nothing takes its place");
    }

    #[tokio::test]
    async fn of_several_at_a_time_each_has_its_own_result() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("b/2"), b"before").unwrap();
        let files = ["1", "2", "1", "nowhere/3"].map(|name| (at(name), Bytes::copy_from_slice(name.as_bytes())));
        let made: Vec<_> =
            RealDisk.create_all_synced(files.into()).await.into_iter().map(|m| m.map_err(|e| e.kind())).collect();
        assert_eq!(made, [Ok(()), Ok(()), Err(io::ErrorKind::AlreadyExists), Err(io::ErrorKind::NotFound)]);

        let names = [("1", "a/1"), ("missing", "a/3"), ("2", "b/2")].map(|(from, to)| (at(from), at(to)));
        let named: Vec<_> =
            RealDisk.publish_all(names.into()).await.into_iter().map(|n| n.map_err(|e| e.kind())).collect();
        assert_eq!(named, [Ok(None), Err(io::ErrorKind::NotFound), Ok(Some(6))]);

        for again in [false, true] {
            let paths = ["b/2", "a/3", "a/1"].map(at).to_vec();
            let found = match again {
                false => RealDisk.open_and_read_all(paths, 9).await,
                true => RealDisk.open_and_reread_all(paths, 9).await,
            };
            let found: Vec<_> =
                found.into_iter().map(|read| read.map(|(_, start)| start).map_err(|e| e.kind())).collect();
            assert_eq!(found, [Ok("2".into()), Err(io::ErrorKind::NotFound), Ok("1".into())]);
        }
    }
}
