//! A machine's file systems as the world outside the machine holds them.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use resilver_host::{Disk, OpenMode};

use crate::damage::Damage;
use crate::device::{DeviceFault, DeviceId, Filter};
use crate::disk::{Shared, SimDisk};
use crate::gate::Gate;
use crate::inode::Change;
use crate::rng::Rng;
use crate::state::State;
use crate::tree::names;

/// Room of the device at the top when nobody says otherwise: more than any run writes.
const DEFAULT_CAPACITY_BYTES: u64 = 1 << 40;

/// The file systems of one machine. Cheap to clone; all clones are the same machine.
#[derive(Clone)]
pub struct FileSystem {
    shared: Arc<Shared>,
}

impl fmt::Debug for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSystem").field("devices", &self.devices()).finish_non_exhaustive()
    }
}

impl FileSystem {
    /// A machine with one empty device, mounted at `/`. `seed` decides everything that is drawn later.
    pub fn new(seed: u64) -> Self {
        Self { shared: Shared::new(State::new(seed, DEFAULT_CAPACITY_BYTES)) }
    }

    /// A disk of its own, mounted at a folder (made when absent, for good). Of a mount that is there already only the
    /// capacity is changed: so `/` gets another one.
    pub fn device(&self, mount: &Path, capacity_bytes: u64) {
        let mut state = self.shared.lock();
        let names = names(mount);
        match state.devices.iter_mut().find(|device| device.names == names) {
            Some(device) => device.capacity_bytes = capacity_bytes,
            None => {
                state.make_durable_dir(&names);
                state.add_device(mount, names, capacity_bytes);
            }
        }
    }

    /// The mounts of all devices, sorted.
    pub fn devices(&self) -> Vec<PathBuf> {
        let mut mounts: Vec<_> = self.shared.lock().devices.iter().map(|device| device.mount.clone()).collect();
        mounts.sort();
        mounts
    }

    /// The seam's disk for one process, behind its gate.
    pub fn disk(&self, gate: Arc<dyn Gate>) -> Arc<dyn Disk> {
        Arc::new(SimDisk::new(Arc::clone(&self.shared), gate))
    }

    /// The machine's power fails: what was not synced is kept, lost or torn as drawn, and every open file is stale. The
    /// machine's processes must be dead.
    pub fn power_loss(&self) {
        let mut state = self.shared.lock();
        let all: BTreeSet<_> = (0..state.devices.len()).map(DeviceId).collect();
        state.power_loss(&all);
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// One disk alone loses its power, or is pulled and put back: as [`FileSystem::power_loss`], for that device.
    ///
    /// # Panics
    /// When no device is mounted there, as in all that follow.
    pub fn power_loss_of(&self, device: &Path) {
        self.with_device(device, |state, id| state.power_loss(&BTreeSet::from([id])));
        self.shared.changed.notify_waiters();
    }

    /// A device begins to fail. Faults add up.
    pub fn fault(&self, device: &Path, fault: DeviceFault) {
        self.with_device(device, |state, id| state.device(id).faults.push(fault));
    }

    /// The faults of a device, in the order in which they began.
    pub fn faults(&self, device: &Path) -> Vec<DeviceFault> {
        self.with_device(device, |state, id| state.device(id).faults.clone())
    }

    /// All faults of the device end. What hung goes on; a vanished disk is back with its content; damage stays.
    pub fn mend(&self, device: &Path) {
        self.with_device(device, |state, id| {
            let device = state.device(id);
            device.faults.clear();
            device.misdirect = None;
        });
        self.shared.changed.notify_waiters();
    }

    /// The device is replaced by an empty one of the same size. Its faults stay until mended; what is open on it is
    /// stale.
    pub fn wipe(&self, device: &Path) {
        self.with_device(device, State::wipe);
        self.shared.changed.notify_waiters();
    }

    /// Flips a drawn bit of a file's synced bytes within `range`, for good. `None`: there is no such byte.
    pub fn flip_bit(&self, file: &Path, range: Range<u64>) -> Option<Damage> {
        let mut state = self.shared.lock();
        let inode = state.find(&names(file)).ok()?;
        state.flip(file, inode, range)
    }

    /// Flips a drawn bit of the synced bytes of a drawn file, for good. `None`: no file that `filter` matches has any.
    pub fn rot(&self, device: &Path, filter: &Filter) -> Option<Damage> {
        self.with_device(device, |state, id| state.rot(id, filter))
    }

    /// The next write to the device that `filter` matches lands at another place: other sectors of the same file, or
    /// another file. Its caller is told that all is well.
    pub fn misdirect_next_write(&self, device: &Path, filter: Filter) {
        self.with_device(device, |state, id| state.device(id).misdirect = Some(filter));
    }

    /// All damage done so far, in order.
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.lock().damage.clone()
    }

    /// All files at and below a folder with their lengths, sorted by path. For checkers: no gate, no fault.
    pub fn files(&self, under: &Path) -> Vec<(PathBuf, u64)> {
        let state = self.shared.lock();
        let len = |inode| state.file(inode).map_or(0, |file| file.visible.len_bytes());
        state.files(under).into_iter().map(|(path, inode)| (path, len(inode))).collect()
    }

    /// A file's content as processes see it. For checkers: no gate, no fault.
    pub fn content(&self, file: &Path) -> Option<Bytes> {
        let state = self.shared.lock();
        let inode = state.find(&names(file)).ok()?;
        Some(state.file(inode)?.visible.read(0, usize::MAX).into())
    }

    /// The part of a file's content that is certain to outlast a power loss, provided that its entry does.
    pub fn synced_content(&self, file: &Path) -> Option<Bytes> {
        let state = self.shared.lock();
        let inode = state.find(&names(file)).ok()?;
        Some(state.file(inode)?.durable.read(0, usize::MAX).into())
    }

    /// Whether a file would be there, whole, after a power loss in this moment. `None`: processes see no such file. One that
    /// is being replaced or moved is there as long as its old name is.
    pub fn outlasts_power_loss(&self, file: &Path) -> Option<bool> {
        let state = self.shared.lock();
        let names = names(file);
        state.file(state.find(&names).ok()?)?;
        let durable = state.find_durable(&names).and_then(|inode| state.file(inode));
        Some(durable.is_some_and(|file| file.pending.is_empty()))
    }

    /// Puts a file there from outside, durable with all its folders: how a machine gets its configuration.
    ///
    /// # Errors
    /// When a file stands where a folder must, or the other way round.
    pub fn put(&self, file: &Path, data: impl Into<Bytes>) -> io::Result<()> {
        let mut state = self.shared.lock();
        let names = names(file);
        state.create_dir_all(&names[..names.len().saturating_sub(1)])?;
        let inode = state.open(&names, OpenMode::Create)?;
        state.change(inode, Change::SetLen(0));
        state.change(inode, Change::Write { offset: 0, data: data.into() });
        if let Some(file) = state.file_mut(inode) {
            file.sync();
        }
        state.commit_above(&names);
        Ok(())
    }

    /// An independent copy of the machine's file systems as they are now, with draws of its own. What is open stays with
    /// the original.
    pub fn fork(&self, seed: u64) -> Self {
        let mut state = self.shared.lock().clone();
        state.rng = Rng::new(seed);
        state.close_all();
        Self { shared: Shared::new(state) }
    }

    fn with_device<T>(&self, mount: &Path, work: impl FnOnce(&mut State, DeviceId) -> T) -> T {
        let mut state = self.shared.lock();
        let wanted = names(mount);
        let found = state.devices.iter().position(|device| device.names == wanted);
        let Some(index) = found else { panic!("no device is mounted at {}", mount.display()) };
        work(&mut state, DeviceId(index))
    }
}
