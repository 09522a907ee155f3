//! The folders' way to durability: pending steps, and which of them must become durable together.
//!
//! Owns: the order of directory changes. Must never: change the visible tree.
//!
//! Invariants: of each folder's steps a prefix is durable. A rename across folders may leave the old name (the folder it
//! left was not synced) but never loses the file: when the old name goes, the new one is durable and reachable. A folder
//! that goes for good has had its own history settled first, so that nothing hangs on it.

use std::collections::BTreeMap;

use crate::inode::{DirChange, DirStep, InodeId};
use crate::state::State;

/// Pending steps of a folder beyond which the journal commits the older half by itself, as a real one does every few
/// seconds. A folder that nobody syncs (one for temporary files) must not remember every file it ever held.
const COMMIT_STEPS: usize = 512;

/// Up to which step each folder is to become durable.
pub(crate) type Bounds = BTreeMap<InodeId, u64>;

impl State {
    /// Notes a change that no sync of `folder` has covered. Its place in the order.
    pub(crate) fn record(&mut self, folder: InodeId, change: DirChange) -> u64 {
        let seq = self.next_step;
        self.next_step += 1;
        for inode in change.mentions() {
            self.hold(inode);
        }
        let Some(dir) = self.dir_mut(folder) else { return seq };
        dir.pending.push_back(DirStep { seq, change });
        if dir.pending.len() > COMMIT_STEPS {
            let bound = dir.pending[COMMIT_STEPS / 2].seq;
            self.commit(BTreeMap::from([(folder, bound)]));
        }
        seq
    }

    /// Makes all of a folder's entries durable.
    pub(crate) fn commit_all(&mut self, folder: InodeId) {
        self.commit(BTreeMap::from([(folder, u64::MAX)]));
    }

    /// Makes the folders' steps up to their bounds durable, and what must go with them.
    pub(crate) fn commit(&mut self, bounds: Bounds) {
        for (folder, bound) in self.closure(bounds) {
            while let Some(step) = self.next_due(folder, bound) {
                let mentioned: Vec<_> = step.change.mentions().collect();
                self.apply(folder, step.change);
                for inode in mentioned {
                    self.release(inode);
                }
            }
        }
    }

    fn next_due(&mut self, folder: InodeId, bound: u64) -> Option<DirStep> {
        let pending = &mut self.dir_mut(folder)?.pending;
        if pending.front()?.seq <= bound { pending.pop_front() } else { None }
    }

    fn apply(&mut self, folder: InodeId, change: DirChange) {
        match change {
            DirChange::Add { name, inode, .. } => self.set_durable(folder, name, inode),
            DirChange::Remove { name, inode, .. } => self.take_durable(folder, &name, inode),
            DirChange::Rename { from, to, inode, .. } => {
                self.set_durable(folder, to, inode);
                self.take_durable(folder, &from, inode);
            }
        }
    }

    fn set_durable(&mut self, folder: InodeId, name: String, inode: InodeId) {
        self.hold(inode);
        match self.dir_mut(folder).map(|dir| dir.durable.insert(name, inode)) {
            Some(Some(old)) => self.release(old),
            Some(None) => {}
            None => self.release(inode),
        }
    }

    fn take_durable(&mut self, folder: InodeId, name: &str, inode: InodeId) {
        let Some(dir) = self.dir_mut(folder) else { return };
        if dir.durable.get(name) == Some(&inode) {
            dir.durable.remove(name);
            self.release(inode);
        }
    }

    /// Raises bounds until each kept step has what it needs.
    fn closure(&self, mut bounds: Bounds) -> Bounds {
        let mut due: Vec<InodeId> = bounds.keys().copied().collect();
        while let Some(folder) = due.pop() {
            for (needed, seq) in self.needs(folder, bounds[&folder]) {
                let bound = bounds.entry(needed).or_insert(0);
                if *bound < seq {
                    *bound = seq;
                    due.push(needed);
                }
            }
        }
        bounds
    }

    /// What the steps of `folder` up to `bound` need: other folders, each up to a step.
    fn needs(&self, folder: InodeId, bound: u64) -> Vec<(InodeId, u64)> {
        let mut needs = Vec::new();
        let Some(dir) = self.inodes.get(&folder).and_then(|_| self.dir(folder).ok()) else { return needs };
        for step in dir.pending.iter().take_while(|step| step.seq <= bound) {
            if let DirChange::Remove { moved_to: Some((target, added)), .. } = step.change {
                needs.push((target, added));
                self.anchor(target, &mut needs);
            }
            if let Some(gone) =
                step.change.displaced().filter(|gone| self.inodes.contains_key(gone) && self.is_dir(*gone))
            {
                needs.push((gone, u64::MAX));
            }
        }
        needs
    }

    /// What makes a folder reachable from its device's root.
    fn anchor(&self, folder: InodeId, needs: &mut Vec<(InodeId, u64)>) {
        let mut at = folder;
        while let Some(parent) = self.inodes.get(&at).and_then(|_| self.dir(at).ok()).map(|dir| dir.parent)
            && parent != at
        {
            let Some(Ok(above)) = self.inodes.get(&parent).map(|_| self.dir(parent)) else { return };
            let added = above.pending.iter().rev().find(|step| match &step.change {
                DirChange::Add { inode, .. } | DirChange::Rename { inode, .. } => *inode == at,
                DirChange::Remove { .. } => false,
            });
            if let Some(step) = added {
                needs.push((parent, step.seq));
            }
            at = parent;
        }
    }
}
