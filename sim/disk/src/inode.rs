//! What an inode holds: a file in its two views, or a folder in its two views.
//!
//! Owns: the difference between what processes see and what a power loss would leave for certain. Must never: draw
//! anything; what becomes of the difference is decided in `crash`.
//!
//! Invariants: `durable` changes only by a sync, by the system writing back of its own accord, by a power loss, and by
//! damage. Whatever a process did since stands in `pending`, in order.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::device::DeviceId;
use crate::pages::Content;

/// Unsynced changes of a file beyond which the system writes the older half back by itself, as a real one does after
/// some seconds. A file that nobody ever syncs (a process's log) must not be held twice.
const WRITEBACK_CHANGES: usize = 4096;

/// Names an inode. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InodeId(pub(crate) u64);

/// A file or folder, wherever it is linked from.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) device: DeviceId,
    /// Entries (visible and durable), pending directory steps and open handles that name it. It goes with the last.
    pub(crate) refs: u32,
    /// Whether it stands in the visible tree.
    pub(crate) linked: bool,
    /// Open handles.
    pub(crate) handles: u32,
    pub(crate) node: Node,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    File(FileData),
    Dir(DirData),
}

/// A change of a file that no sync has covered.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { offset: u64, data: Bytes },
    SetLen(u64),
    Reserve { len_bytes: u64, grow: bool },
}

impl Change {
    /// The length after this change of a file that was `len_bytes` long.
    pub(crate) fn len_after(&self, len_bytes: u64) -> u64 {
        match self {
            Self::Write { offset, data } => len_bytes.max(offset + data.len() as u64),
            Self::SetLen(new) => *new,
            Self::Reserve { len_bytes: new, grow: true } => len_bytes.max(*new),
            Self::Reserve { .. } => len_bytes,
        }
    }

    pub(crate) fn apply(&self, content: &mut Content, twin: Option<&Content>) {
        match self {
            Self::Write { offset, data } => content.write(*offset, data, twin),
            Self::SetLen(len_bytes) => content.set_len(*len_bytes),
            Self::Reserve { len_bytes, grow } => content.reserve(*len_bytes, *grow),
        }
    }

    /// Whether the byte at `offset` will be what this change says.
    fn covers(&self, at: u64) -> bool {
        match self {
            Self::Write { offset, data } => (*offset..offset + data.len() as u64).contains(&at),
            Self::SetLen(len_bytes) => at >= *len_bytes,
            Self::Reserve { .. } => false,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len(),
            Self::SetLen(_) | Self::Reserve { .. } => 0,
        }
    }
}

/// A file's bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileData {
    pub(crate) visible: Content,
    pub(crate) durable: Content,
    pub(crate) pending: Vec<Change>,
}

impl FileData {
    pub(crate) fn change(&mut self, change: Change) {
        change.apply(&mut self.visible, None);
        self.pending.push(change);
        if self.pending.len() > WRITEBACK_CHANGES {
            self.write_back(WRITEBACK_CHANGES / 2);
        }
    }

    pub(crate) fn sync(&mut self) {
        self.write_back(self.pending.len());
    }

    fn write_back(&mut self, count: usize) {
        for change in self.pending.drain(..count) {
            change.apply(&mut self.durable, Some(&self.visible));
        }
    }

    /// A sync failed. What it should have made durable counts as clean from now on: it stays visible, and no later
    /// sync writes it. This is what Linux does, and what a retry of fsync must not be built on.
    pub(crate) fn forget_unsynced(&mut self) {
        self.pending.clear();
    }

    pub(crate) fn unsynced_bytes(&self) -> usize {
        self.pending.iter().map(Change::bytes).sum()
    }

    /// Whether an unsynced change covers the byte at `offset`.
    pub(crate) fn is_unsynced(&self, offset: u64) -> bool {
        self.pending.iter().any(|change| change.covers(offset))
    }
}

/// A folder's entries.
#[derive(Clone, Debug)]
pub(crate) struct DirData {
    /// The folder it is in, in the visible tree; of a device's root itself.
    pub(crate) parent: InodeId,
    pub(crate) entries: BTreeMap<String, InodeId>,
    pub(crate) durable: BTreeMap<String, InodeId>,
    pub(crate) pending: VecDeque<DirStep>,
}

impl DirData {
    pub(crate) fn new(parent: InodeId) -> Self {
        Self { parent, entries: BTreeMap::new(), durable: BTreeMap::new(), pending: VecDeque::new() }
    }
}

/// A change of a folder that no sync of it has covered.
#[derive(Clone, Debug)]
pub(crate) struct DirStep {
    /// Its place in the order of all directory changes of the machine.
    pub(crate) seq: u64,
    pub(crate) change: DirChange,
}

#[derive(Clone, Debug)]
pub(crate) enum DirChange {
    /// A new entry, or another inode under an old name.
    Add { name: String, inode: InodeId, replaced: Option<InodeId> },
    /// An entry went. `moved_to`: it went by a rename into that folder, where step number so and so adds it.
    Remove { name: String, inode: InodeId, moved_to: Option<(InodeId, u64)> },
    /// A rename within the folder: one step, so never half.
    Rename { from: String, to: String, inode: InodeId, replaced: Option<InodeId> },
}

impl DirChange {
    /// Every inode that must live as long as this change is pending.
    pub(crate) fn mentions(&self) -> impl Iterator<Item = InodeId> + use<> {
        let (inode, other) = match self {
            Self::Add { inode, replaced, .. } | Self::Rename { inode, replaced, .. } => (*inode, *replaced),
            Self::Remove { inode, moved_to, .. } => (*inode, moved_to.map(|(folder, _)| folder)),
        };
        std::iter::once(inode).chain(other)
    }

    /// The inode this change takes away from its name for good.
    pub(crate) fn displaced(&self) -> Option<InodeId> {
        match self {
            Self::Add { replaced, .. } | Self::Rename { replaced, .. } => *replaced,
            Self::Remove { moved_to: Some(_), .. } => None,
            Self::Remove { inode, .. } => Some(*inode),
        }
    }
}
