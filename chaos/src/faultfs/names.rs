//! Which number the kernel knows a file by, and what its name is now. Pure.
//!
//! Invariants: a number belongs to one name as long as the kernel remembers it, follows it when it or a folder above it is
//! renamed, and is never given twice: a file that is made under a removed one's name has another.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The kernel's number of the root.
pub(super) const ROOT: u64 = 1;

/// A name in a folder.
type Place = (u64, OsString);

struct Node {
    /// `None` when it was removed: only those who have it open know it.
    place: Option<Place>,
    /// How often the kernel was told its number, less what it forgot.
    known: u64,
}

pub(super) struct Names {
    nodes: BTreeMap<u64, Node>,
    places: BTreeMap<Place, u64>,
    last: u64,
}

impl Default for Names {
    fn default() -> Self {
        Self { nodes: BTreeMap::new(), places: BTreeMap::new(), last: ROOT }
    }
}

impl Names {
    /// Where a number's file is below the root; `None` when it is nowhere any more.
    pub(super) fn path(&self, number: u64) -> Option<PathBuf> {
        let mut parts = Vec::new();
        let mut at = number;
        while at != ROOT {
            let (parent, name) = self.nodes.get(&at)?.place.as_ref()?;
            parts.push(name);
            at = *parent;
        }
        Some(parts.into_iter().rev().collect())
    }

    /// The number of what is found at a place; the kernel is told it once more.
    pub(super) fn found(&mut self, parent: u64, name: &OsStr) -> u64 {
        let place = (parent, name.to_owned());
        let number = *self.places.entry(place.clone()).or_insert_with(|| {
            self.last += 1;
            self.last
        });
        self.nodes.entry(number).or_insert(Node { place: Some(place), known: 0 }).known += 1;
        number
    }

    /// The kernel forgets a number that it was told so many times.
    pub(super) fn forget(&mut self, number: u64, times: u64) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.known = node.known.saturating_sub(times);
        if node.known == 0
            && let Some(Node { place: Some(place), .. }) = self.nodes.remove(&number)
        {
            self.places.remove(&place);
        }
    }

    /// There is nothing at this place any more.
    pub(super) fn removed(&mut self, parent: u64, name: &OsStr) {
        if let Some(number) = self.places.remove(&(parent, name.to_owned()))
            && let Some(node) = self.nodes.get_mut(&number)
        {
            node.place = None;
        }
    }

    /// What was at one place is at another now, where it took the place of what was there.
    pub(super) fn renamed(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) {
        let (from, to) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        if from == to {
            return;
        }
        self.removed(to.0, &to.1);
        if let Some(number) = self.places.remove(&from) {
            if let Some(node) = self.nodes.get_mut(&number) {
                node.place = Some(to.clone());
            }
            self.places.insert(to, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn a_number_follows_its_file_through_renames_of_itself_and_its_folders() {
        let mut names = Names::default();
        assert_eq!(names.path(ROOT).as_deref(), Some(Path::new("")));
        let folder = names.found(ROOT, name("tmp"));
        let file = names.found(folder, name("a"));
        assert_eq!(names.path(file).as_deref(), Some(Path::new("tmp/a")));
        names.renamed((folder, name("a")), (folder, name("b")));
        names.renamed((ROOT, name("tmp")), (ROOT, name("shards")));
        assert_eq!(names.path(file).as_deref(), Some(Path::new("shards/b")));
        assert_eq!(names.found(folder, name("b")), file);
        names.renamed((folder, name("b")), (folder, name("b")));
        assert_eq!(names.path(file).as_deref(), Some(Path::new("shards/b")));
    }

    #[test]
    fn what_is_removed_or_replaced_is_nowhere_and_its_number_is_not_given_again() {
        let mut names = Names::default();
        let [old, new] = ["old", "new"].map(|text| names.found(ROOT, name(text)));
        names.renamed((ROOT, name("new")), (ROOT, name("old")));
        assert_eq!((names.path(old), names.path(new).as_deref()), (None, Some(Path::new("old"))));
        names.removed(ROOT, name("old"));
        assert_eq!(names.path(new), None);
        let newest = names.found(ROOT, name("old"));
        assert!(newest != old && newest != new);
    }

    #[test]
    fn a_number_is_kept_until_the_kernel_has_forgotten_it_as_often_as_it_was_told() {
        let mut names = Names::default();
        let file = names.found(ROOT, name("a"));
        assert_eq!(names.found(ROOT, name("a")), file);
        names.forget(file, 1);
        assert!(names.path(file).is_some());
        names.forget(file, 1);
        assert_eq!(names.path(file), None);
        assert_ne!(names.found(ROOT, name("a")), file);
    }
}
