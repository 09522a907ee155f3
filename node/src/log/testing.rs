//! A disk in memory that forgets like a real one.
//!
//! Every file and every folder has what was synced and what was done since. A power failure keeps any part of the
//! latter: any subset of the writes, each torn anywhere, any subset of the folder's changes. A killed
//! process keeps all of it, still unsynced. Bytes can be flipped and files cut behind the program's back, and any
//! operation can be the one that fails, with everything after it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use resilver_host::{BlockingFile, DirEntry, Disk, File, FileKind, Metadata, OpenMode, Space};

/// What a power failure leaves whole: a sector, or, on disks that promise more than they keep, less.
const WHOLE_BYTES: [usize; 3] = [512, 64, 8];

/// The disk. Clones are the same disk; [`MemDisk::copy`] is another.
#[derive(Clone, Default)]
pub(crate) struct MemDisk {
    world: Arc<Mutex<World>>,
}

#[derive(Clone, Default)]
struct World {
    inodes: Vec<Inode>,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    changes: u64,
    fail_at: Option<u64>,
    read_turns: usize,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Bytes),
    Cut(u64),
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl NameChange {
    fn path(&self) -> &Path {
        match self {
            NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(_, path, _) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write(offset, data) => write(bytes, *offset as usize, data),
            Change::Cut(len) => bytes.resize(*len as usize, 0),
        }
    }

    /// Applies what a power failure leaves of it.
    fn tear(&self, bytes: &mut Vec<u8>, rng: &mut StdRng, keep: f64) {
        let Change::Write(offset, data) = self else {
            if rng.random_bool(keep) {
                self.apply(bytes);
            }
            return;
        };
        let whole = WHOLE_BYTES[rng.random_range(0..WHOLE_BYTES.len())];
        let (mut at, end) = (*offset as usize, *offset as usize + data.len());
        while at < end {
            let next = ((at / whole + 1) * whole).min(end);
            if rng.random_bool(keep) {
                write(bytes, at, &data[at - *offset as usize..next - *offset as usize]);
            }
            at = next;
        }
    }
}

fn write(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    if bytes.len() < at + data.len() {
        bytes.resize(at + data.len(), 0);
    }
    bytes[at..at + data.len()].copy_from_slice(data);
}

/// The injected failure.
fn broken() -> io::Error {
    io::Error::other("the test broke the disk")
}

impl World {
    /// Counts a change about to be made: whether it takes place, and whether it is reported as done.
    fn change(&mut self) -> (bool, io::Result<()>) {
        self.changes += 1;
        match self.fail_at {
            Some(at) if self.changes > at => (false, Err(broken())),
            // It fails, but who knows what of it came to pass.
            Some(at) if self.changes == at => (true, Err(broken())),
            _ => (true, Ok(())),
        }
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl MemDisk {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Another disk with the same content.
    pub(crate) fn copy(&self) -> Self {
        Self { world: Arc::new(Mutex::new(self.world().clone())) }
    }

    /// Lets the `changes`th change from now on fail (0: the next), and every one after it.
    pub(crate) fn fail_after(&self, changes: u64) {
        let mut world = self.world();
        world.fail_at = Some(world.changes + changes + 1);
    }

    /// Makes reads give others so many more chances between being asked and looking.
    pub(crate) fn slow_reads(&self, turns: usize) {
        self.world().read_turns = turns;
    }

    /// Changes made so far.
    pub(crate) fn changes(&self) -> u64 {
        self.world().changes
    }

    /// The process was killed: everything done is there, nothing more is synced. The disk works again.
    pub(crate) fn kill(&self) {
        self.world().fail_at = None;
    }

    /// The power failed: of what was not synced, anything may remain. The disk works again.
    pub(crate) fn power_failure(&self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let keep = [0.0, 0.2, 0.5, 0.8, 1.0][rng.random_range(0..5)];
        let mut world = self.world();
        world.fail_at = None;
        for inode in &mut world.inodes {
            for change in std::mem::take(&mut inode.unsynced) {
                change.tear(&mut inode.synced, &mut rng, keep);
            }
            inode.bytes = inode.synced.clone();
        }
        for change in std::mem::take(&mut world.unsynced_names) {
            if rng.random_bool(keep) {
                change.apply(&mut world.synced_names);
            }
        }
        world.names = world.synced_names.clone();
    }

    /// All files with their lengths.
    pub(crate) fn files(&self) -> Vec<(PathBuf, usize)> {
        let world = self.world();
        world.names.iter().map(|(path, inode)| (path.clone(), world.inodes[*inode].bytes.len())).collect()
    }

    /// Changes what lies in a file, behind the program's back.
    pub(crate) fn tamper(&self, path: &Path, change: impl Fn(&mut Vec<u8>)) {
        let mut world = self.world();
        let inode = world.inode(path).unwrap();
        change(&mut world.inodes[inode].bytes);
        change(&mut world.inodes[inode].synced);
    }

    /// What lies in a file.
    pub(crate) fn content(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        world.inodes[world.inode(path).unwrap()].bytes.clone()
    }

    /// Puts a file there, or replaces it.
    pub(crate) fn plant(&self, path: &Path, bytes: Vec<u8>) {
        let mut world = self.world();
        let inode = world.inodes.len();
        world.inodes.push(Inode { synced: bytes.clone(), bytes, unsynced: Vec::new() });
        world.names.insert(path.to_owned(), inode);
        world.synced_names.insert(path.to_owned(), inode);
    }

    /// Takes a file away, behind the program's back.
    pub(crate) fn lose(&self, path: &Path) {
        let mut world = self.world();
        world.names.remove(path).unwrap();
        world.synced_names.remove(path);
    }
}

/// Gives other tasks, and whoever drops futures, a chance at each operation.
async fn turn() {
    tokio::task::yield_now().await;
}

struct MemFile {
    world: Arc<Mutex<World>>,
    inode: usize,
}

impl MemFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut world = self.world.lock().unwrap();
        let (happens, reported) = world.change();
        if happens {
            let inode = &mut world.inodes[self.inode];
            change.apply(&mut inode.bytes);
            inode.unsynced.push(change);
        }
        reported
    }
}

#[async_trait]
impl File for MemFile {
    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let turns = self.world.lock().unwrap().read_turns;
        for _ in 0..=turns {
            turn().await;
        }
        let world = self.world.lock().unwrap();
        let bytes = &world.inodes[self.inode].bytes;
        let from = (offset as usize).min(bytes.len());
        Ok(Bytes::copy_from_slice(&bytes[from..from.saturating_add(len).min(bytes.len())]))
    }

    async fn write_at(&self, offset: u64, data: Bytes) -> io::Result<()> {
        turn().await;
        self.change(Change::Write(offset, data))
    }

    async fn sync(&self) -> io::Result<()> {
        turn().await;
        let mut world = self.world.lock().unwrap();
        // A sync that fails has synced nothing for certain: all of it stays open.
        world.change().1?;
        let inode = &mut world.inodes[self.inode];
        for change in std::mem::take(&mut inode.unsynced) {
            change.apply(&mut inode.synced);
        }
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.world.lock().unwrap().inodes[self.inode].bytes.len() as u64)
    }

    async fn set_len(&self, len_bytes: u64) -> io::Result<()> {
        turn().await;
        self.change(Change::Cut(len_bytes))
    }

    async fn allocate(&self, _len_bytes: u64, _grow: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn drop_cache(&self) -> io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Disk for MemDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        turn().await;
        let mut world = self.world();
        let inode = match (world.inode(path), mode) {
            (Ok(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(inode), _) => inode,
            (Err(_), OpenMode::Create | OpenMode::CreateNew) => {
                let (happens, reported) = world.change();
                if happens {
                    let inode = world.inodes.len();
                    world.inodes.push(Inode::default());
                    world.rename(NameChange::Link(path.to_owned(), inode));
                }
                reported?;
                world.inodes.len() - 1
            }
            (Err(error), _) => return Err(error),
        };
        Ok(Arc::new(MemFile { world: self.world.clone(), inode }))
    }

    fn open_blocking(&self, _path: &Path, _mode: OpenMode) -> io::Result<Box<dyn BlockingFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let world = self.world();
        if world.dirs.contains(path) {
            return Ok(Metadata { len_bytes: 0, kind: FileKind::Dir });
        }
        let len_bytes = world.inodes[world.inode(path)?].bytes.len() as u64;
        Ok(Metadata { len_bytes, kind: FileKind::File })
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        turn().await;
        let mut world = self.world();
        let inode = world.inode(from)?;
        let (happens, reported) = world.change();
        if happens {
            world.rename(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        }
        reported
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, format!("the log removes no folder: {}", path.display())))
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        turn().await;
        let mut world = self.world();
        world.inode(path)?;
        let (happens, reported) = world.change();
        if happens {
            world.rename(NameChange::Unlink(path.to_owned()));
        }
        reported
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.world().dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        turn().await;
        let mut world = self.world();
        world.change().1?;
        let (done, rest) = std::mem::take(&mut world.unsynced_names)
            .into_iter()
            .partition(|change| change.path().parent() == Some(path));
        world.unsynced_names = rest;
        let done: Vec<NameChange> = done;
        for change in done {
            change.apply(&mut world.synced_names);
        }
        Ok(())
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        turn().await;
        let world = self.world();
        if !world.dirs.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = world.names.keys().filter(|name| name.parent() == Some(path)).filter_map(|name| name.file_name());
        Ok(names.map(|name| DirEntry { name: name.to_string_lossy().into_owned(), kind: FileKind::File }).collect())
    }

    async fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space { total_bytes: u64::MAX, available_bytes: u64::MAX, inodes_total: 0, inodes_free: 0 })
    }
}
