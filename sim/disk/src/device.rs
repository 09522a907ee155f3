//! A device: where it is mounted, how much fits on it, and what is wrong with it.
//!
//! Owns: the faults that refuse or delay operations, and the count of room. Must never: touch a file's bytes; that is
//! `damage`.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::errno::{EIO, EROFS, Refusal, refuse};
use crate::inode::InodeId;
use crate::pages::PAGE_BYTES;

/// Which paths of a device a fault strikes. An open file goes by the path it was opened by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All of them.
    #[default]
    Any,
    /// That path only.
    Path(PathBuf),
    /// That folder and everything below it.
    Under(PathBuf),
    /// Every path with this in its text.
    Containing(String),
}

impl Filter {
    /// Whether `path` is meant.
    pub fn matches(&self, path: &Path) -> bool {
        match self {
            Self::Any => true,
            Self::Path(only) => path == only,
            Self::Under(folder) => path.starts_with(folder),
            Self::Containing(text) => path.to_string_lossy().contains(text.as_str()),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("every path"),
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Under(folder) => write!(f, "{}/**", folder.display()),
            Self::Containing(text) => write!(f, "*{text}*"),
        }
    }
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// Every time, until the device is mended.
    #[default]
    Always,
    /// So many times, then never again.
    Next(u32),
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Next(1) => f.write_str("once"),
            Self::Next(times) => write!(f, "{times} times"),
        }
    }
}

/// What can be wrong with a device, until it is mended. Several can be at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceFault {
    /// Reading a file or listing a folder fails with EIO.
    ReadError {
        /// Of which paths.
        on: Filter,
        /// How often.
        times: Times,
    },
    /// Changing anything (bytes, lengths, entries) fails with EIO and has no effect.
    WriteError {
        /// Of which paths.
        on: Filter,
        /// How often.
        times: Times,
    },
    /// A sync fails with EIO. A file's unsynced bytes are then lost to every later sync, though still visible; a
    /// folder's entries stay pending.
    SyncError {
        /// Of which paths.
        on: Filter,
        /// How often.
        times: Times,
    },
    /// No room, whatever the capacity: what needs a new page or entry fails with ENOSPC.
    Full,
    /// Something else has written to it: so many per mille of its capacity are taken.
    Crowded {
        /// So many of a thousand.
        permille: u32,
    },
    /// Every operation takes so many times longer.
    Slow {
        /// How many times.
        factor: u32,
    },
    /// Nothing is answered before the mend. The synchronous face, which cannot wait, gets `TimedOut`.
    Hung,
    /// The device is gone: ENODEV by path, EIO by an open file. It returns with its content.
    Vanished,
    /// Remounted read-only: EROFS for every change, and for a sync of what was changed before.
    ReadOnly,
}

impl DeviceFault {
    /// [`DeviceFault::ReadError`].
    pub fn read_error(on: Filter, times: Times) -> Self {
        Self::ReadError { on, times }
    }

    /// [`DeviceFault::WriteError`].
    pub fn write_error(on: Filter, times: Times) -> Self {
        Self::WriteError { on, times }
    }

    /// [`DeviceFault::SyncError`].
    pub fn sync_error(on: Filter, times: Times) -> Self {
        Self::SyncError { on, times }
    }
}

impl fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadError { on, times } => write!(f, "read error on {on}, {times}"),
            Self::WriteError { on, times } => write!(f, "write error on {on}, {times}"),
            Self::SyncError { on, times } => write!(f, "sync error on {on}, {times}"),
            Self::Full => f.write_str("full"),
            Self::Crowded { permille } => write!(f, "{permille} per mille taken by something else"),
            Self::Slow { factor } => write!(f, "{factor} times slower"),
            Self::Hung => f.write_str("hung"),
            Self::Vanished => f.write_str("vanished"),
            Self::ReadOnly => f.write_str("read-only"),
        }
    }
}

/// What an operation asks of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// What the system knows without the disk: lengths, names, room.
    Look,
    /// Bytes or entries from the disk.
    Read,
    /// A change.
    Change,
    /// Durability.
    Sync,
}

/// Index into the machine's devices. Devices are never taken away, only emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeviceId(pub(crate) usize);

#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) mount: PathBuf,
    /// The mount as names from the top.
    pub(crate) names: Vec<String>,
    pub(crate) root: InodeId,
    pub(crate) capacity_bytes: u64,
    pub(crate) used_pages: u64,
    pub(crate) faults: Vec<DeviceFault>,
    /// The next write that matches goes astray.
    pub(crate) misdirect: Option<Filter>,
    /// Counts the times at which everything open became stale.
    pub(crate) generation: u64,
}

impl Device {
    /// Whether the device lets an operation happen. A fault that strikes a number of times is used up by striking.
    pub(crate) fn admit(&mut self, access: Access, path: &Path) -> Result<(), Refusal> {
        if self.faults.contains(&DeviceFault::Hung) {
            return Err(Refusal::Hung);
        }
        if self.faults.contains(&DeviceFault::Vanished) {
            return Err(Refusal::Vanished);
        }
        if access == Access::Change && self.is_read_only() {
            return refuse(EROFS);
        }
        if self.strike(access, path) { refuse(EIO) } else { Ok(()) }
    }

    /// Lets a sync happen. A clean file or folder has nothing to write, and syncs well on a read-only device.
    pub(crate) fn admit_sync(&mut self, path: &Path, dirty: bool) -> Result<(), Refusal> {
        self.admit(Access::Sync, path)?;
        if dirty && self.is_read_only() { refuse(EROFS) } else { Ok(()) }
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.faults.contains(&DeviceFault::ReadOnly)
    }

    fn strike(&mut self, access: Access, path: &Path) -> bool {
        for fault in &mut self.faults {
            let (on, times) = match (access, fault) {
                (Access::Read, DeviceFault::ReadError { on, times })
                | (Access::Change, DeviceFault::WriteError { on, times })
                | (Access::Sync, DeviceFault::SyncError { on, times }) => (on, times),
                _ => continue,
            };
            if !on.matches(path) {
                continue;
            }
            match times {
                Times::Always => return true,
                Times::Next(0) => {}
                Times::Next(left) => {
                    *left -= 1;
                    return true;
                }
            }
        }
        false
    }

    /// How many times slower than a healthy device it is.
    pub(crate) fn slow(&self) -> u32 {
        let factors = self.faults.iter().map(|fault| match fault {
            DeviceFault::Slow { factor } => *factor,
            _ => 1,
        });
        factors.max().unwrap_or(1).max(1)
    }

    /// Pages that may still be added.
    pub(crate) fn room_pages(&self) -> u64 {
        if self.faults.contains(&DeviceFault::Full) {
            return 0;
        }
        // After a power loss what was removed may be back beside what was written in its room.
        let pages = self.capacity_bytes / PAGE_BYTES;
        let others = self.faults.iter().map(|fault| match fault {
            DeviceFault::Crowded { permille } => pages * u64::from((*permille).min(1000)) / 1000,
            _ => 0,
        });
        pages.saturating_sub(self.used_pages + others.max().unwrap_or(0))
    }

    pub(crate) fn charge(&mut self, before_pages: u64, after_pages: u64) {
        self.used_pages = (self.used_pages + after_pages).saturating_sub(before_pages);
    }
}
