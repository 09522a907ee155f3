//! Everything a machine's file systems are, behind one lock.
//!
//! Owns: the inodes and how long each lives, the devices, the draws. Must never: wait, or ask a device's faults: what
//! comes here was admitted (`disk`, `handle`) or comes from outside the machine.
//!
//! Invariants: an inode is there exactly as long as something names it (an entry of either view, a pending step, a
//! handle); a device's used pages are the visible pages of its files that are linked or open.

use std::collections::BTreeMap;
use std::path::Path;

use crate::damage::Damage;
use crate::device::{Device, DeviceId};
use crate::errno::{ENOTDIR, errno};
use crate::inode::{DirData, FileData, Inode, InodeId, Node};
use crate::pages::Content;
use crate::rng::Rng;

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) inodes: BTreeMap<InodeId, Inode>,
    pub(crate) devices: Vec<Device>,
    next_inode: u64,
    pub(crate) next_step: u64,
    pub(crate) rng: Rng,
    pub(crate) damage: Vec<Damage>,
}

impl State {
    /// A machine with one device, mounted at the top.
    pub(crate) fn new(seed: u64, capacity_bytes: u64) -> Self {
        let mut state = Self {
            inodes: BTreeMap::new(),
            devices: Vec::new(),
            next_inode: 1,
            next_step: 1,
            rng: Rng::new(seed),
            damage: Vec::new(),
        };
        state.add_device(Path::new("/"), Vec::new(), capacity_bytes);
        state
    }

    pub(crate) fn add_device(&mut self, mount: &Path, names: Vec<String>, capacity_bytes: u64) {
        let id = DeviceId(self.devices.len());
        let root = self.add_root(id);
        self.devices.push(Device {
            mount: mount.to_owned(),
            names,
            root,
            capacity_bytes,
            used_pages: 0,
            faults: Vec::new(),
            misdirect: None,
            generation: 0,
        });
    }

    /// A new, empty top folder for a device.
    pub(crate) fn add_root(&mut self, device: DeviceId) -> InodeId {
        let root = InodeId(self.next_inode);
        let id = self.add_inode(device, Node::Dir(DirData::new(root)));
        // A root is named by its device.
        self.hold(id);
        id
    }

    /// A new inode that nothing names yet.
    pub(crate) fn add_inode(&mut self, device: DeviceId, node: Node) -> InodeId {
        let id = InodeId(self.next_inode);
        self.next_inode += 1;
        self.inodes.insert(id, Inode { device, refs: 0, linked: false, handles: 0, node });
        id
    }

    pub(crate) fn device(&mut self, id: DeviceId) -> &mut Device {
        &mut self.devices[id.0]
    }

    /// An inode that is known to be there: something names it.
    pub(crate) fn inode(&self, id: InodeId) -> &Inode {
        &self.inodes[&id]
    }

    pub(crate) fn is_dir(&self, id: InodeId) -> bool {
        matches!(self.inode(id).node, Node::Dir(_))
    }

    pub(crate) fn dir(&self, id: InodeId) -> std::io::Result<&DirData> {
        match &self.inode(id).node {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(errno(ENOTDIR)),
        }
    }

    /// The folder of that number, if it is (still) one.
    pub(crate) fn dir_mut(&mut self, id: InodeId) -> Option<&mut DirData> {
        match &mut self.inodes.get_mut(&id)?.node {
            Node::Dir(dir) => Some(dir),
            Node::File(_) => None,
        }
    }

    pub(crate) fn file(&self, id: InodeId) -> Option<&FileData> {
        match &self.inodes.get(&id)?.node {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        }
    }

    pub(crate) fn file_mut(&mut self, id: InodeId) -> Option<&mut FileData> {
        match &mut self.inodes.get_mut(&id)?.node {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        }
    }

    /// One more name for an inode.
    pub(crate) fn hold(&mut self, id: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.refs += 1;
        }
    }

    /// One name less; with the last one the inode goes, and what only it named.
    pub(crate) fn release(&mut self, id: InodeId) {
        let mut due = vec![id];
        while let Some(id) = due.pop() {
            let Some(inode) = self.inodes.get_mut(&id) else { continue };
            inode.refs -= 1;
            if inode.refs > 0 {
                continue;
            }
            if let Some(Inode { node: Node::Dir(dir), .. }) = self.inodes.remove(&id) {
                due.extend(dir.entries.into_values());
                due.extend(dir.durable.into_values());
                due.extend(dir.pending.iter().flat_map(|step| step.change.mentions()));
            }
        }
    }

    pub(crate) fn opened(&mut self, id: InodeId) {
        self.hold(id);
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.handles += 1;
        }
    }

    pub(crate) fn closed(&mut self, id: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&id) {
            inode.handles -= 1;
        }
        self.give_room_back(id);
        self.release(id);
    }

    /// Closes whatever is open: of a copy nothing is.
    pub(crate) fn close_all(&mut self) {
        let open: Vec<_> = self.inodes.iter().map(|(id, inode)| (*id, inode.handles)).collect();
        for (id, handles) in open {
            for _ in 0..handles {
                self.closed(id);
            }
        }
    }

    /// Frees the room of a file that no process can reach any more. Its durable side stays for as long as a power loss
    /// could bring it back.
    pub(crate) fn give_room_back(&mut self, id: InodeId) {
        let Some(inode) = self.inodes.get_mut(&id) else { return };
        if inode.linked || inode.handles > 0 {
            return;
        }
        let device = inode.device;
        if let Node::File(file) = &mut inode.node {
            let pages = file.visible.room_pages();
            file.visible = Content::default();
            self.device(device).charge(pages, 0);
        }
    }
}
