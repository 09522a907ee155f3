//! The folder behind the file system: every request is done to it as it is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, StatVfs, Timestamps};
use rustix::io::Errno;

use super::names::Names;

/// What of a caller's flags concerns the opening itself. Not: O_APPEND (the kernel says the place of each write), O_DIRECT
/// (its alignment is the backing's own), O_SYNC and O_DSYNC (the kernel asks for the syncs).
const OPENING: OFlags = OFlags::RWMODE.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::TRUNC);

/// Something open, and whose it is.
pub(super) struct Opened {
    number: u64,
    file: File,
    /// Of a folder: what was in it when reading began.
    listing: Mutex<Vec<(fs::FileType, OsString)>>,
}

#[derive(Default)]
struct Handles {
    last: u64,
    open: BTreeMap<u64, Arc<Opened>>,
}

/// What is to be another one of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) len_bytes: Option<u64>,
    pub(super) times: Option<Timestamps>,
}

pub(super) struct Volume {
    root: PathBuf,
    names: Mutex<Names>,
    handles: Mutex<Handles>,
}

/// Locks a mutex that only ever guards plain values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, names: Mutex::default(), handles: Mutex::default() }
    }

    fn path(&self, number: u64) -> io::Result<PathBuf> {
        let below = lock(&self.names).path(number).ok_or(Errno::NOENT)?;
        // Joined to nothing it would end in a slash, which asks for what a link points to.
        Ok(if below == Path::new("") { self.root.clone() } else { self.root.join(below) })
    }

    fn opened(&self, handle: u64) -> io::Result<Arc<Opened>> {
        Ok(lock(&self.handles).open.get(&handle).cloned().ok_or(Errno::BADF)?)
    }

    fn keep(&self, number: u64, file: File) -> u64 {
        let mut handles = lock(&self.handles);
        handles.last += 1;
        let handle = handles.last;
        handles.open.insert(handle, Arc::new(Opened { number, file, listing: Mutex::default() }));
        handle
    }

    pub(super) fn forget(&self, number: u64, times: u64) {
        lock(&self.names).forget(number, times);
    }

    pub(super) fn look_up(&self, parent: u64, name: &OsStr) -> io::Result<(u64, Metadata)> {
        let metadata = fs::symlink_metadata(self.path(parent)?.join(name))?;
        Ok((lock(&self.names).found(parent, name), metadata))
    }

    /// Of a name, or of what has none any more but is open.
    pub(super) fn metadata(&self, number: u64, handle: Option<u64>) -> io::Result<Metadata> {
        if let Some(opened) = handle.and_then(|handle| self.opened(handle).ok()) {
            return opened.file.metadata();
        }
        match self.path(number) {
            Ok(path) => fs::symlink_metadata(path),
            Err(nowhere) => {
                let open = lock(&self.handles).open.values().find(|opened| opened.number == number).cloned();
                open.map_or(Err(nowhere), |opened| opened.file.metadata())
            }
        }
    }

    pub(super) fn change(&self, number: u64, handle: Option<u64>, changes: &Changes) -> io::Result<Metadata> {
        if let Some(len_bytes) = changes.len_bytes {
            match handle {
                Some(handle) => self.opened(handle)?.file.set_len(len_bytes)?,
                None => File::options().write(true).open(self.path(number)?)?.set_len(len_bytes)?,
            }
        }
        if let Some(mode) = changes.mode {
            rustix::fs::chmod(self.path(number)?, Mode::from_raw_mode(mode))?;
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            std::os::unix::fs::lchown(self.path(number)?, changes.uid, changes.gid)?;
        }
        if let Some(times) = &changes.times {
            rustix::fs::utimensat(CWD, self.path(number)?, times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        self.metadata(number, handle)
    }

    pub(super) fn open(&self, number: u64, flags: OFlags) -> io::Result<u64> {
        let flags = (flags & OPENING).difference(OFlags::CREATE | OFlags::EXCL) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.path(number)?, flags, Mode::empty())?;
        Ok(self.keep(number, file.into()))
    }

    pub(super) fn create(
        &self,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: OFlags,
    ) -> io::Result<(u64, Metadata, u64)> {
        let flags = (flags & OPENING) | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(self.path(parent)?.join(name), flags, Mode::from_raw_mode(mode))?;
        let file = File::from(file);
        let metadata = file.metadata()?;
        let number = lock(&self.names).found(parent, name);
        Ok((number, metadata, self.keep(number, file)))
    }

    pub(super) fn open_folder(&self, number: u64) -> io::Result<u64> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(self.path(number)?, flags, Mode::empty())?;
        Ok(self.keep(number, folder.into()))
    }

    pub(super) fn close(&self, handle: u64) {
        let closed = lock(&self.handles).open.remove(&handle);
        // The last one closes the file, which may take a while: without the lock.
        drop(closed);
    }

    /// Shorter than asked for only at the file's end.
    pub(super) fn read(&self, handle: u64, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let opened = self.opened(handle)?;
        let mut buffer = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match opened.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        Ok(buffer)
    }

    pub(super) fn write(&self, handle: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        self.opened(handle)?.file.write_all_at(data, offset)
    }

    pub(super) fn sync(&self, handle: u64, data_only: bool) -> io::Result<()> {
        let opened = self.opened(handle)?;
        if data_only { opened.file.sync_data() } else { opened.file.sync_all() }
    }

    pub(super) fn allocate(&self, handle: u64, mode: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.opened(handle)?.file, mode, offset, len)?)
    }

    /// What is in a folder from a place on: the folder is read anew whenever reading begins at its start.
    pub(super) fn list(&self, handle: u64, from: u64) -> io::Result<Vec<(fs::FileType, OsString)>> {
        let opened = self.opened(handle)?;
        if from == 0 {
            let mut found = Vec::new();
            for entry in fs::read_dir(self.path(opened.number)?)? {
                let entry = entry?;
                found.push((entry.file_type()?, entry.file_name()));
            }
            *lock(&opened.listing) = found;
        }
        let listing = lock(&opened.listing);
        Ok(listing.iter().skip(usize::try_from(from).unwrap_or(usize::MAX)).cloned().collect())
    }

    pub(super) fn make_folder(&self, parent: u64, name: &OsStr, mode: u32) -> io::Result<(u64, Metadata)> {
        rustix::fs::mkdir(self.path(parent)?.join(name), Mode::from_raw_mode(mode))?;
        self.look_up(parent, name)
    }

    pub(super) fn remove(&self, parent: u64, name: &OsStr, folder: bool) -> io::Result<()> {
        let path = self.path(parent)?.join(name);
        if folder { fs::remove_dir(path) } else { fs::remove_file(path) }?;
        lock(&self.names).removed(parent, name);
        Ok(())
    }

    pub(super) fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), flags: RenameFlags) -> io::Result<()> {
        // Neither exchanging nor leaving a whiteout behind is followed by the names.
        if !RenameFlags::NOREPLACE.contains(flags) {
            return Err(Errno::INVAL.into());
        }
        let paths = [from, to].map(|(parent, name)| Ok::<_, io::Error>(self.path(parent)?.join(name)));
        let [old, new] = paths;
        rustix::fs::renameat_with(CWD, old?, CWD, new?, flags)?;
        lock(&self.names).renamed(from, to);
        Ok(())
    }

    pub(super) fn room(&self) -> io::Result<StatVfs> {
        Ok(rustix::fs::statvfs(&self.root)?)
    }
}
