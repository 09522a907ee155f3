//! Watches the shelves from outside: a shard that was on its disk and is neither there nor moved aside was removed; and
//! an object that clients were promised has k good shards at any time, whatever is being moved and repaired.
//!
//! Must never: mind what a power loss or a replaced disk took away; that is a fault's doing and nobody's decision.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use resilver_sim_check::Happening;
use resilver_sim_kernel::{Kernel, MachineId};

use crate::cluster::{Cluster, disk_mount};

/// Between two looks: far shorter than what is moved aside is kept (the read deadline, 30 s).
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Shards of which an object can be read: k of the workload's 4+2.
const ENOUGH: usize = 4;

/// What was on the shelves at the last look.
#[derive(Default)]
pub(crate) struct Shelf {
    looked: Duration,
    /// Shards whose bytes are not what was written.
    bad: BTreeSet<(MachineId, PathBuf)>,
    seen: BTreeMap<(MachineId, usize), BTreeSet<PathBuf>>,
    /// The extents of objects that were completed from parts, by version. Others have one, named after it.
    composed: BTreeMap<String, Vec<String>>,
    /// Disks that nobody reads any more because a person said so, as of this revision of the map: what is on them counts as gone.
    given_up: (u64, BTreeSet<(MachineId, PathBuf)>),
}

impl Shelf {
    /// A fault took or changed what this machine has: what is there at the next look counts as what was there.
    pub(crate) fn forget(&mut self, machine: MachineId) {
        self.seen.retain(|(of, _), _| *of != machine);
    }

    /// A fault changed bytes of this file.
    pub(crate) fn rotted(&mut self, machine: MachineId, path: &Path) {
        self.bad.insert((machine, path.to_owned()));
    }

    /// Persons had these disks given up, as of a revision of the map.
    pub(crate) fn given_up(&mut self, revision: u64, disks: BTreeSet<(MachineId, PathBuf)>) {
        if revision > self.given_up.0 {
            self.given_up = (revision, disks);
        }
    }

    /// Whether a file can be read, as far as people are concerned.
    fn is_in_use(&self, machine: MachineId, path: &Path) -> bool {
        !self.given_up.1.iter().any(|(on, disk)| *on == machine && path.starts_with(disk))
    }

    /// An object was completed from parts: these are its extents.
    pub(crate) fn composed(&mut self, version: &str, extents: &[String]) {
        self.composed.insert(version.to_owned(), extents.to_vec());
    }

    /// An extent of a version that was promised and has too few good shards, as of the last look: which, and how many.
    pub(crate) fn thin(&self, promised: &BTreeSet<String>) -> Option<(String, usize)> {
        let extents = promised.iter().flat_map(|version| {
            let composed = self.composed.get(version).cloned();
            composed.unwrap_or_else(|| vec![format!("{version}-0")])
        });
        let mut good: BTreeMap<String, BTreeSet<&str>> = extents.map(|extent| (extent, BTreeSet::new())).collect();
        for ((machine, _), shards) in &self.seen {
            let good_ones = shards.iter().filter(|path| !self.bad.contains(&(*machine, (*path).clone())));
            for path in good_ones.filter(|path| self.is_in_use(*machine, path)) {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Some((extent, shard)) = name.rsplit_once('-') else { continue };
                if let Some(found) = good.get_mut(extent) {
                    found.insert(shard);
                }
            }
        }
        let thin = good.into_iter().find(|(_, shards)| shards.len() < ENOUGH);
        thin.map(|(extent, shards)| (extent, shards.len()))
    }

    /// Whether the last look was at `now`.
    pub(crate) fn is_fresh(&self, now: Duration) -> bool {
        self.looked == now
    }

    /// Looks, when it is time to. What was removed.
    pub(crate) fn look(&mut self, kernel: &Kernel, cluster: &Cluster) -> Vec<Happening> {
        if kernel.now() < self.looked + LOOK_EVERY {
            return Vec::new();
        }
        self.looked = kernel.now();
        let mut removed = Vec::new();
        for machine in cluster.machines() {
            for disk in 0..cluster.disks() {
                let files = kernel.file_system(*machine).files(&disk_mount(disk));
                let (shards, others): (Vec<PathBuf>, Vec<PathBuf>) =
                    files.into_iter().map(|(path, _)| path).partition(|path| is_shard(path));
                let shards: BTreeSet<PathBuf> = shards.into_iter().collect();
                let before = self.seen.get(&(*machine, disk));
                for gone in before.into_iter().flat_map(|before| before.difference(&shards)) {
                    if !others.iter().any(|other| is_of(other, gone)) {
                        let (machine, path) = (kernel.machine_name(*machine), gone.display().to_string());
                        removed.push(Happening::FileRemoved { machine, path });
                    }
                }
                // One that was moved aside is written anew under its name.
                let mount = disk_mount(disk);
                self.bad.retain(|(at, path)| at != machine || !path.starts_with(&mount) || shards.contains(path));
                self.seen.insert((*machine, disk), shards);
            }
        }
        removed
    }
}

/// `…/shards/4f/VERSION-EXTENT-SHARD`.
fn is_shard(path: &Path) -> bool {
    let fan_out = path.parent();
    let shelf = fan_out.and_then(Path::parent).and_then(Path::file_name);
    shelf.is_some_and(|shelf| shelf == "shards")
        && fan_out.and_then(Path::file_name).is_some_and(|folder| folder.len() == 2)
}

/// Whether `other` is the shard `gone` under another name: the old one is part of the new one.
fn is_of(other: &Path, gone: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name(other).contains(&name(gone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_told_from_what_lies_beside_them() {
        assert!(is_shard(Path::new("/disk1/shards/shards/4f/4f00-0-1")));
        for other in ["/disk1/shards/aside/corrupt-4f00-0-1.7", "/disk1/shards/tmp/4f00-0-1.7", "/disk1/shards/canary"]
        {
            assert!(!is_shard(Path::new(other)), "{other}");
        }
        let gone = Path::new("/disk1/shards/shards/4f/4f00-0-1");
        assert!(is_of(Path::new("/disk1/shards/aside/corrupt-4f00-0-1.7"), gone));
        assert!(!is_of(Path::new("/disk1/shards/aside/corrupt-4f01-0-1.7"), gone));
    }
}
