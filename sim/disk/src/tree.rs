//! The visible tree: finding, making, renaming and removing entries, with the errors Linux gives.
//!
//! Owns: the rules of names and folders. Must never: make anything durable; every change is handed to `journal` as a
//! pending step. There are no links and no permissions.

use std::io;
use std::path::{Component, Path, PathBuf};

use resilver_host::{DirEntry, FileKind, Metadata, OpenMode};

use crate::device::DeviceId;
use crate::errno::{EBUSY, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ENOTEMPTY, EXDEV, errno};
use crate::inode::{DirChange, DirData, FileData, InodeId, Node};
use crate::state::State;

/// Bytes in a name, as on every Linux file system.
const NAME_BYTES: usize = 255;

/// What a folder says its length is, as on ext4.
const DIR_LEN_BYTES: u64 = 4096;

/// The names of a path from the top. A relative path begins at the top too: simulated processes have no other working
/// folder.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            // Without links the folder above is the name before. (Linux asks besides that the one before be there.)
            Component::ParentDir => drop(names.pop()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    names
}

/// A parent folder and the name in it.
struct Spot<'a> {
    folder: InodeId,
    name: &'a str,
}

impl State {
    /// The device a path lies on.
    pub(crate) fn device_of(&self, names: &[String]) -> DeviceId {
        let holds = |index: &usize| names.starts_with(&self.devices[*index].names);
        let found = (0..self.devices.len()).filter(holds).max_by_key(|index| self.devices[*index].names.len());
        DeviceId(found.unwrap_or(0))
    }

    pub(crate) fn find(&self, names: &[String]) -> io::Result<InodeId> {
        let device = &self.devices[self.device_of(names).0];
        let mut at = device.root;
        for name in &names[device.names.len()..] {
            at = self.child(at, name)?.ok_or_else(|| errno(ENOENT))?;
        }
        Ok(at)
    }

    /// What a power loss would leave under that path.
    pub(crate) fn find_durable(&self, names: &[String]) -> Option<InodeId> {
        let device = &self.devices[self.device_of(names).0];
        let step = |at: InodeId, name: &String| self.dir(at).ok()?.durable.get(name).copied();
        names[device.names.len()..].iter().try_fold(device.root, step)
    }

    fn child(&self, folder: InodeId, name: &str) -> io::Result<Option<InodeId>> {
        let dir = self.dir(folder)?;
        if name.len() > NAME_BYTES {
            return Err(errno(ENAMETOOLONG));
        }
        Ok(dir.entries.get(name).copied())
    }

    /// The folder that holds (or would hold) a path's last name. A mount has no such place.
    fn spot<'a>(&self, names: &'a [String]) -> io::Result<Spot<'a>> {
        let Some((name, above)) = names.split_last() else { return Err(errno(EBUSY)) };
        let folder = self.find(above)?;
        self.dir(folder)?;
        Ok(Spot { folder, name })
    }

    /// Whether a device is mounted there or below: such a folder stays where it is.
    fn carries_mount(&self, names: &[String]) -> bool {
        self.devices.iter().any(|device| device.names.starts_with(names))
    }

    /// Whether opening in that mode would create the file.
    pub(crate) fn would_create(&self, names: &[String], mode: OpenMode) -> bool {
        matches!(mode, OpenMode::Create | OpenMode::CreateNew)
            && self.spot(names).is_ok_and(|spot| matches!(self.child(spot.folder, spot.name), Ok(None)))
    }

    /// Finds or makes a file.
    pub(crate) fn open(&mut self, names: &[String], mode: OpenMode) -> io::Result<InodeId> {
        let create = matches!(mode, OpenMode::Create | OpenMode::CreateNew);
        let found = match self.find(names) {
            Err(error) if create && error.kind() == io::ErrorKind::NotFound => None,
            found => Some(found?),
        };
        match found {
            Some(_) if mode == OpenMode::CreateNew => Err(errno(EEXIST)),
            Some(inode) if self.is_dir(inode) => Err(errno(EISDIR)),
            Some(inode) => Ok(inode),
            None => {
                let spot = self.spot(names)?;
                let device = self.inode(spot.folder).device;
                let inode = self.add_inode(device, Node::File(FileData::default()));
                self.link(spot.folder, spot.name, inode);
                Ok(inode)
            }
        }
    }

    fn link(&mut self, folder: InodeId, name: &str, inode: InodeId) {
        self.set_entry(folder, name, inode);
        self.record(folder, DirChange::Add { name: name.to_owned(), inode, replaced: None });
    }

    /// Sets a visible entry.
    fn set_entry(&mut self, folder: InodeId, name: &str, inode: InodeId) {
        self.hold(inode);
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.linked = true;
            if let Node::Dir(dir) = &mut inode.node {
                dir.parent = folder;
            }
        }
        let old = self.dir_mut(folder).and_then(|dir| dir.entries.insert(name.to_owned(), inode));
        if let Some(old) = old {
            self.unlinked(old);
        }
    }

    /// Takes a visible entry away.
    fn take_entry(&mut self, folder: InodeId, name: &str) {
        if let Some(old) = self.dir_mut(folder).and_then(|dir| dir.entries.remove(name)) {
            self.unlinked(old);
        }
    }

    fn unlinked(&mut self, inode: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.linked = false;
        }
        self.give_room_back(inode);
        self.release(inode);
    }

    pub(crate) fn metadata(&self, names: &[String]) -> io::Result<Metadata> {
        Ok(match &self.inode(self.find(names)?).node {
            Node::File(file) => Metadata { len_bytes: file.visible.len_bytes(), kind: FileKind::File },
            Node::Dir(_) => Metadata { len_bytes: DIR_LEN_BYTES, kind: FileKind::Dir },
        })
    }

    pub(crate) fn list(&self, names: &[String]) -> io::Result<Vec<DirEntry>> {
        let kind = |inode: InodeId| if self.is_dir(inode) { FileKind::Dir } else { FileKind::File };
        let dir = self.dir(self.find(names)?)?;
        Ok(dir.entries.iter().map(|(name, inode)| DirEntry { name: name.clone(), kind: kind(*inode) }).collect())
    }

    /// Whether making a folder and its parents would make anything.
    pub(crate) fn lacks(&self, names: &[String]) -> bool {
        matches!(self.find(names), Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    pub(crate) fn create_dir_all(&mut self, names: &[String]) -> io::Result<()> {
        for depth in 1..=names.len() {
            match self.find(&names[..depth]) {
                Ok(found) if self.is_dir(found) => {}
                Ok(_) if depth == names.len() => return Err(errno(EEXIST)),
                Ok(_) => return Err(errno(ENOTDIR)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let spot = self.spot(&names[..depth])?;
                    let device = self.inode(spot.folder).device;
                    let inode = self.add_inode(device, Node::Dir(DirData::new(spot.folder)));
                    self.link(spot.folder, spot.name, inode);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The folder a device is mounted over. It is made even when the device is there already, and hides it.
    pub(crate) fn make_mount_point(&mut self, names: &[String]) -> io::Result<()> {
        let Some((_, above)) = names.split_last() else { return Ok(()) };
        self.create_dir_all(above)?;
        let spot = self.spot(names)?;
        if self.child(spot.folder, spot.name)?.is_none() {
            let device = self.inode(spot.folder).device;
            let inode = self.add_inode(device, Node::Dir(DirData::new(spot.folder)));
            self.link(spot.folder, spot.name, inode);
        }
        Ok(())
    }

    pub(crate) fn remove_file(&mut self, names: &[String]) -> io::Result<()> {
        self.remove(names, false)
    }

    pub(crate) fn remove_dir(&mut self, names: &[String]) -> io::Result<()> {
        self.remove(names, true)
    }

    fn remove(&mut self, names: &[String], dir: bool) -> io::Result<()> {
        if names.is_empty() {
            return Err(errno(if dir { EBUSY } else { EISDIR }));
        }
        let spot = self.spot(names)?;
        let inode = self.child(spot.folder, spot.name)?.ok_or_else(|| errno(ENOENT))?;
        match &self.inode(inode).node {
            Node::File(_) if dir => return Err(errno(ENOTDIR)),
            Node::Dir(_) if !dir => return Err(errno(EISDIR)),
            Node::Dir(_) if self.carries_mount(names) => return Err(errno(EBUSY)),
            Node::Dir(found) if !found.entries.is_empty() => return Err(errno(ENOTEMPTY)),
            _ => {}
        }
        self.record(spot.folder, DirChange::Remove { name: spot.name.to_owned(), inode, moved_to: None });
        self.take_entry(spot.folder, spot.name);
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &[String], to: &[String]) -> io::Result<()> {
        let (source, target) = (self.spot(from)?, self.spot(to)?);
        if self.inode(source.folder).device != self.inode(target.folder).device {
            return Err(errno(EXDEV));
        }
        let inode = self.child(source.folder, source.name)?.ok_or_else(|| errno(ENOENT))?;
        let is_dir = self.is_dir(inode);
        if is_dir && self.is_above(inode, target.folder) {
            return Err(errno(EINVAL));
        }
        let replaced = self.child(target.folder, target.name)?;
        if let Some(replaced) = replaced {
            self.may_replace(inode, replaced, source.folder)?;
        }
        if replaced == Some(inode) {
            return Ok(());
        }
        if self.carries_mount(from) || self.carries_mount(to) {
            return Err(errno(EBUSY));
        }
        self.record_rename(&source, &target, inode, replaced);
        // As if open, across the moment in which no entry names it.
        self.opened(inode);
        self.take_entry(source.folder, source.name);
        self.set_entry(target.folder, target.name, inode);
        self.closed(inode);
        Ok(())
    }

    fn may_replace(&self, inode: InodeId, replaced: InodeId, source_folder: InodeId) -> io::Result<()> {
        if self.is_dir(replaced) && self.is_above(replaced, source_folder) {
            return Err(errno(ENOTEMPTY));
        }
        match &self.inode(replaced).node {
            _ if replaced == inode => Ok(()),
            Node::File(_) if self.is_dir(inode) => Err(errno(ENOTDIR)),
            Node::Dir(_) if !self.is_dir(inode) => Err(errno(EISDIR)),
            Node::Dir(dir) if !dir.entries.is_empty() => Err(errno(ENOTEMPTY)),
            _ => Ok(()),
        }
    }

    fn record_rename(&mut self, source: &Spot<'_>, target: &Spot<'_>, inode: InodeId, replaced: Option<InodeId>) {
        let (from, to) = (source.name.to_owned(), target.name.to_owned());
        if source.folder == target.folder {
            self.record(source.folder, DirChange::Rename { from, to, inode, replaced });
        } else {
            let added = self.record(target.folder, DirChange::Add { name: to, inode, replaced });
            let moved_to = Some((target.folder, added));
            self.record(source.folder, DirChange::Remove { name: from, inode, moved_to });
        }
    }

    /// Whether `inode` is `folder` or above it.
    fn is_above(&self, inode: InodeId, folder: InodeId) -> bool {
        let mut at = folder;
        while at != inode {
            match self.dir(at) {
                Ok(dir) if dir.parent != at => at = dir.parent,
                _ => return false,
            }
        }
        true
    }

    /// Every file at and below a path, by path.
    pub(crate) fn files(&self, under: &Path) -> Vec<(PathBuf, InodeId)> {
        let mut found = Vec::new();
        let top: PathBuf = std::iter::once("/".to_owned()).chain(names(under)).collect();
        let mut due = vec![top];
        while let Some(path) = due.pop() {
            let Ok(inode) = self.find(&names(&path)) else { continue };
            match &self.inode(inode).node {
                Node::File(_) => found.push((path, inode)),
                Node::Dir(dir) => due.extend(dir.entries.keys().map(|name| path.join(name))),
            }
        }
        found.sort();
        found
    }

    /// Every file of a device that stands in the visible tree, by path.
    pub(crate) fn files_of(&self, device: DeviceId) -> Vec<(PathBuf, InodeId)> {
        let mut found = self.files(&self.devices[device.0].mount);
        found.retain(|(_, inode)| self.inode(*inode).device == device);
        found
    }
}
