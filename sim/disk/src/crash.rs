//! Power loss: what becomes of everything that was not synced.
//!
//! Owns: every draw about it. Must never: touch a synced byte or a synced entry.
//!
//! Each unsynced write is kept, lost or torn between sectors, each unsynced length is kept, lost or half way; of each
//! folder's unsynced changes a prefix is kept. Per file and folder it is first drawn whether all, nothing or some of it
//! got through: with many small writes, independent draws alone would never lose all of a file, which is what a real
//! power loss does most often.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;

use crate::device::DeviceId;
use crate::inode::{Change, DirData, FileData, InodeId, Node};
use crate::pages::Content;
use crate::rng::Rng;
use crate::state::State;

/// What a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// How much of something unsynced got through.
enum Luck {
    Nothing,
    Everything,
    Some,
}

impl Luck {
    fn draw(rng: &mut Rng) -> Self {
        match rng.below(4) {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Some,
        }
    }
}

impl State {
    /// The power of these devices fails. Whatever is open on them becomes stale.
    pub(crate) fn power_loss(&mut self, devices: &BTreeSet<DeviceId>) {
        self.lose_entries(devices);
        self.lose_data(devices);
        for device in devices {
            self.remount(*device);
        }
    }

    fn lose_entries(&mut self, devices: &BTreeSet<DeviceId>) {
        let mut bounds = BTreeMap::new();
        for (id, inode) in self.inodes.iter().filter(|(_, inode)| devices.contains(&inode.device)) {
            let Node::Dir(dir) = &inode.node else { continue };
            let steps = dir.pending.len();
            if steps == 0 {
                continue;
            }
            let kept = match Luck::draw(&mut self.rng) {
                Luck::Nothing => 0,
                Luck::Everything => steps,
                Luck::Some => self.rng.index(steps + 1),
            };
            if kept > 0 {
                bounds.insert(*id, dir.pending[kept - 1].seq);
            }
        }
        self.commit(bounds);
    }

    fn lose_data(&mut self, devices: &BTreeSet<DeviceId>) {
        for inode in self.inodes.values_mut().filter(|inode| devices.contains(&inode.device)) {
            if let Node::File(file) = &mut inode.node
                && !file.pending.is_empty()
            {
                file.power_loss(&mut self.rng);
            }
        }
    }

    /// Makes what is durable what is seen, and forgets all else.
    fn remount(&mut self, device: DeviceId) {
        let root = self.device(device).root;
        let mut seen = BTreeSet::from([root]);
        let mut due = vec![root];
        while let Some(folder) = due.pop() {
            let Some(dir) = self.dir_mut(folder) else { continue };
            dir.pending.clear();
            for (name, inode) in dir.durable.clone() {
                if seen.insert(inode) {
                    if self.is_dir(inode) {
                        due.push(inode);
                    }
                } else {
                    self.settle_second_name(folder, name, inode, &mut seen);
                }
            }
        }
        self.inodes.retain(|id, inode| inode.device != device || seen.contains(id));
        self.show_durable(root, &seen);
        let used: u64 = seen.iter().filter_map(|id| self.file(*id)).map(|file| file.visible.room_pages()).sum();
        let device = self.device(device);
        device.used_pages = used;
        device.generation += 1;
    }

    /// Both names of a rename across folders became durable. A file is then there twice, as copies: no file system
    /// leaves two names for one file whose change under one shows under the other. A folder is there once.
    fn settle_second_name(&mut self, folder: InodeId, name: String, inode: InodeId, seen: &mut BTreeSet<InodeId>) {
        let copy = match self.file(inode) {
            Some(file) => {
                let (device, file) = (self.inode(inode).device, file.clone());
                Some(self.add_inode(device, Node::File(file)))
            }
            None => None,
        };
        let Some(dir) = self.dir_mut(folder) else { return };
        match copy {
            Some(copy) => {
                seen.insert(copy);
                dir.durable.insert(name, copy);
            }
            None => drop(dir.durable.remove(&name)),
        }
    }

    fn show_durable(&mut self, root: InodeId, seen: &BTreeSet<InodeId>) {
        let mut parents = BTreeMap::new();
        for id in seen {
            if let Some(dir) = self.dir_mut(*id) {
                dir.entries = dir.durable.clone();
                parents.extend(dir.durable.values().map(|child| (*child, *id)));
            }
        }
        for id in seen {
            let Some(inode) = self.inodes.get_mut(id) else { continue };
            // An entry in each view; a root is named by its device.
            inode.refs = if *id == root { 1 } else { 2 };
            inode.linked = true;
            inode.handles = 0;
            match &mut inode.node {
                Node::File(file) => file.visible = file.durable.clone(),
                Node::Dir(dir) => dir.parent = parents.get(id).copied().unwrap_or(*id),
            }
        }
    }

    /// Another, empty disk in the place of this one.
    pub(crate) fn wipe(&mut self, device: DeviceId) {
        let keep = self.mount_points(device);
        let root = self.add_root(device);
        self.inodes.retain(|id, inode| inode.device != device || *id == root);
        let device_entry = self.device(device);
        device_entry.root = root;
        device_entry.used_pages = 0;
        device_entry.generation += 1;
        for names in keep {
            self.make_durable_dir(&names);
        }
    }

    /// Where other devices are mounted on this one.
    fn mount_points(&self, device: DeviceId) -> Vec<Vec<String>> {
        let below = self.devices.iter().filter(|other| !other.names.is_empty());
        let on = below.filter(|other| self.device_of(&other.names[..other.names.len() - 1]) == device);
        on.map(|other| other.names.clone()).collect()
    }

    /// A folder for a mount, there in both views.
    pub(crate) fn make_durable_dir(&mut self, names: &[String]) {
        // A file in the way stays in the way: the caller's scenario is wrong, and `find` will say so.
        let _ = self.make_mount_point(names);
        self.commit_above(names);
    }

    /// Makes the entries that lead to a path durable.
    pub(crate) fn commit_above(&mut self, names: &[String]) {
        for depth in 0..names.len() {
            if let Ok(folder) = self.find(&names[..depth]) {
                self.commit_all(folder);
            }
        }
    }
}

impl FileData {
    /// Draws what of the unsynced changes is on the disk.
    fn power_loss(&mut self, rng: &mut Rng) {
        match Luck::draw(rng) {
            Luck::Nothing => {}
            Luck::Everything => self.sync(),
            Luck::Some => {
                let len_bytes = self.drawn_len(rng);
                for change in &self.pending {
                    lose_some(change, &mut self.durable, rng);
                }
                // Never garbage: what no write reached is zeros.
                self.durable.set_len(len_bytes);
            }
        }
        self.pending.clear();
    }

    /// One of the lengths the file went through, or half way to one.
    fn drawn_len(&self, rng: &mut Rng) -> u64 {
        let step = rng.index(self.pending.len() + 1);
        let mut lens = (self.durable.len_bytes(), self.durable.len_bytes());
        for change in &self.pending[..step] {
            lens = (lens.1, change.len_after(lens.1));
        }
        let (before, after) = lens;
        if after > before && rng.coin() { before + 1 + rng.below(after - before) } else { after }
    }
}

/// A change of which it is drawn whether it got through.
fn lose_some(change: &Change, durable: &mut Content, rng: &mut Rng) {
    match (change, rng.below(3)) {
        (_, 0) => change.apply(durable, None),
        (Change::Write { offset, data }, 1) => tear(*offset, data, durable, rng),
        _ => {}
    }
}

/// A write of which some sectors got through: the first ones, or any.
fn tear(offset: u64, data: &Bytes, durable: &mut Content, rng: &mut Rng) {
    let sectors: Vec<Range<u64>> = sectors(offset, data.len() as u64).collect();
    let prefix = rng.coin().then(|| rng.index(sectors.len() + 1));
    for (index, range) in sectors.into_iter().enumerate() {
        let kept = prefix.map_or_else(|| rng.coin(), |prefix| index < prefix);
        if kept {
            let part = (range.start - offset) as usize..(range.end - offset) as usize;
            durable.write(range.start, &data[part], None);
        }
    }
}

/// The range of a write, cut at sector boundaries.
fn sectors(offset: u64, len: u64) -> impl Iterator<Item = Range<u64>> {
    let end = offset + len;
    (offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES))
        .map(move |sector| (sector * SECTOR_BYTES).max(offset)..((sector + 1) * SECTOR_BYTES).min(end))
        .filter(|range| !range.is_empty())
}

impl DirData {
    #[cfg(test)]
    fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.entries == self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn sectors_cover_a_write_exactly() {
        let cut: Vec<_> = sectors(500, 600).collect();
        assert_eq!(cut, [500..512, 512..1024, 1024..1100]);
        assert!(sectors(1024, 512).eq(std::iter::once(1024..1536)));
        assert_eq!(sectors(7, 0).count(), 0);
    }

    #[test]
    fn after_a_power_loss_nothing_is_pending_and_every_count_is_right() {
        for seed in 0..200 {
            let mut state = State::new(seed, 1 << 30);
            let at = |path: &str| crate::tree::names(Path::new(path));
            state.create_dir_all(&at("/a/b")).unwrap();
            state.create_dir_all(&at("/c")).unwrap();
            state.open(&at("/a/b/f"), resilver_host::OpenMode::Create).unwrap();
            state.commit_all(state.find(&at("/a")).unwrap());
            state.rename(&at("/a/b/f"), &at("/c/g")).unwrap();
            state.rename(&at("/a/b"), &at("/c/d")).unwrap();
            state.power_loss(&BTreeSet::from([DeviceId(0)]));
            for (id, inode) in &state.inodes {
                if let Node::Dir(dir) = &inode.node {
                    assert!(dir.is_settled(), "seed {seed}: {id:?}");
                }
            }
            let named: usize = state.inodes.keys().filter_map(|id| state.dir(*id).ok()).map(|d| d.entries.len()).sum();
            assert_eq!(named + 1, state.inodes.len(), "seed {seed}: every inode but the root has exactly one name");
        }
    }
}
