//! The seam's `Disk` for one process of the machine.
//!
//! Owns: the way of an operation: gate, fault, effect. Must never: hold the lock while it waits. An operation takes
//! effect in the same poll in which the gate let it pass, under one lock; a future dropped before that did nothing.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use resilver_host::{BlockingFile, DirEntry, Disk, File, Metadata, OpenMode, Space};
use tokio::sync::Notify;

use crate::device::Access;
use crate::errno::{ENODEV, Refusal, errno};
use crate::gate::{Gate, Op, OpKind};
use crate::handle::OpenFile;
use crate::pages::PAGE_BYTES;
use crate::state::State;
use crate::tree::names;

/// What all processes of a machine share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Rings when a device is mended, replaced, or loses its power: what hangs on it asks again.
    pub(crate) changed: Notify,
}

impl Shared {
    pub(crate) fn new(state: State) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    /// The state. A panic elsewhere leaves it as usable as a crash would.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One process's way to the machine's file systems.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) shared: Arc<Shared>,
    gate: Arc<dyn Gate>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

/// What an operation says of itself at the gate.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) kind: OpKind,
    pub(crate) path: &'a Path,
    pub(crate) bytes: usize,
    /// What a device that vanished answers.
    pub(crate) vanished: i32,
}

impl Door {
    fn op(&self, wish: Wish<'_>) -> Op {
        let mut state = self.shared.lock();
        let device = state.device_of(&names(wish.path));
        let slow = state.device(device).slow();
        Op { kind: wish.kind, path: wish.path.to_owned(), bytes: wish.bytes, slow }
    }

    /// Passes the gate, then takes effect; waits as long as the device hangs, and then passes again.
    pub(crate) async fn run<T>(
        &self,
        wish: Wish<'_>,
        mut effect: impl FnMut(&mut State) -> Result<T, Refusal> + Send,
    ) -> io::Result<T>
    where
        T: Send,
    {
        loop {
            self.gate.pass(&self.op(wish)).await;
            let changed = {
                let mut state = self.shared.lock();
                match effect(&mut state) {
                    Ok(value) => return Ok(value),
                    Err(Refusal::Error(error)) => return Err(error),
                    Err(Refusal::Vanished) => return Err(errno(wish.vanished)),
                    // Made under the lock, so that no mend falls between asking and listening.
                    Err(Refusal::Hung) => self.shared.changed.notified(),
                }
            };
            changed.await;
        }
    }

    /// The synchronous face, which cannot wait: a device that hangs is a timeout.
    pub(crate) fn run_blocking<T>(
        &self,
        wish: Wish<'_>,
        effect: impl FnOnce(&mut State) -> Result<T, Refusal>,
    ) -> io::Result<T> {
        if !self.gate.pass_blocking(&self.op(wish)) {
            return Err(io::Error::other("the process is dying"));
        }
        match effect(&mut self.shared.lock()) {
            Ok(value) => Ok(value),
            Err(Refusal::Error(error)) => Err(error),
            Err(Refusal::Vanished) => Err(errno(wish.vanished)),
            Err(Refusal::Hung) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

pub(crate) struct SimDisk(Door);

impl SimDisk {
    pub(crate) fn new(shared: Arc<Shared>, gate: Arc<dyn Gate>) -> Self {
        Self(Door { shared, gate })
    }
}

fn wish(kind: OpKind, path: &Path) -> Wish<'_> {
    Wish { kind, path, bytes: 0, vanished: ENODEV }
}

/// The names of a path whose device lets it be touched in that way.
fn admitted(state: &mut State, access: Access, path: &Path) -> Result<Vec<String>, Refusal> {
    let names = names(path);
    let device = state.device_of(&names);
    state.device(device).admit(access, path)?;
    Ok(names)
}

#[async_trait]
impl Disk for SimDisk {
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let door = &self.0;
        // The handle is made in the same poll: a future dropped later drops it, and so closes it.
        let open = door.run(wish(OpKind::Open, path), |state| state.open_file(path, mode)).await?;
        Ok(Arc::new(OpenFile::new(door.clone(), open)))
    }

    fn open_blocking(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn BlockingFile>> {
        let door = &self.0;
        let open = door.run_blocking(wish(OpKind::Open, path), |state| state.open_file(path, mode))?;
        Ok(Box::new(OpenFile::new(door.clone(), open)))
    }

    async fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let effect = |state: &mut State| {
            let names = admitted(state, Access::Look, path)?;
            Ok(state.metadata(&names)?)
        };
        self.0.run(wish(OpKind::Metadata, path), effect).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let effect = |state: &mut State| {
            let source = admitted(state, Access::Change, from)?;
            let target = names(to);
            if state.device_of(&source) != state.device_of(&target) {
                admitted(state, Access::Change, to)?;
            }
            Ok(state.rename(&source, &target)?)
        };
        self.0.run(wish(OpKind::Rename, from), effect).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let effect = |state: &mut State| {
            let names = admitted(state, Access::Change, path)?;
            Ok(state.remove_file(&names)?)
        };
        self.0.run(wish(OpKind::RemoveFile, path), effect).await
    }

    async fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let effect = |state: &mut State| {
            let names = admitted(state, Access::Change, path)?;
            Ok(state.remove_dir(&names)?)
        };
        self.0.run(wish(OpKind::RemoveDir, path), effect).await
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let effect = |state: &mut State| {
            let names = admitted(state, Access::Look, path)?;
            if state.lacks(&names) {
                let device = state.device_of(&names);
                state.admit_entry(device, path)?;
            }
            Ok(state.create_dir_all(&names)?)
        };
        self.0.run(wish(OpKind::CreateDir, path), effect).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let effect = |state: &mut State| {
            let names = admitted(state, Access::Look, path)?;
            let folder = state.find(&names)?;
            // The real one tells this by itself, without a number.
            let dir = state.dir(folder).map_err(|_| io::Error::from(io::ErrorKind::NotADirectory))?;
            let dirty = !dir.pending.is_empty();
            let device = state.device_of(&names);
            state.device(device).admit_sync(path, dirty)?;
            state.commit_all(folder);
            Ok(())
        };
        self.0.run(wish(OpKind::SyncDir, path), effect).await
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let effect = |state: &mut State| {
            let names = admitted(state, Access::Read, path)?;
            Ok(state.list(&names)?)
        };
        self.0.run(wish(OpKind::List, path), effect).await
    }

    async fn space(&self, path: &Path) -> io::Result<Space> {
        let effect = |state: &mut State| {
            let names = admitted(state, Access::Look, path)?;
            state.find(&names)?;
            let device = state.device_of(&names);
            let device = state.device(device);
            let total_bytes = device.capacity_bytes;
            let available_bytes = device.room_pages() * PAGE_BYTES;
            // Simulated file systems do not run out of names.
            Ok(Space { total_bytes, available_bytes, inodes_total: 0, inodes_free: 0 })
        };
        self.0.run(wish(OpKind::Space, path), effect).await
    }
}
