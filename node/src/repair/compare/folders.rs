//! What is known of the 256 folders of a disk, and what of it has to be looked at again. Pure.
//!
//! A folder's names are read when it may have changed: when its time stamp is another than it was, or, where the file system
//! keeps none, when this node changed it or its turn has come. From its names come the sums of its leaves; where they are not
//! those of the metadata the leaf is looked into, once: what was found to be explained (an upload under way, an orphan that is
//! not old enough) is not looked into again before either side has changed.
//!
//! Must never: take a wall clock's word. A time stamp is only compared with itself, and counts as settled once it has been the
//! same for [`SETTLED`] of this process's own time: two changes within one tick of a file system's clock look like one.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::state::shards::{Folder, Leaf, unequal_leaves};

/// Folders of a disk.
pub(super) const FOLDERS: usize = 256;

/// How long a time stamp must have been the same before the names are not read once more. File systems' clocks tick every few
/// milliseconds; FAT's every two seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// Folders whose turn it is in one pass where there are no time stamps: all of a disk within sixteen.
const TURNS: usize = FOLDERS / 16;

/// One folder.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Its time stamp as last seen, and since when it has been the same.
    stamp: Option<(u64, Instant)>,
    /// The names were read when the stamp was settled: what was found holds until it changes.
    settled: bool,
    sums: Option<Folder>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Folders {
    known: Vec<Known>,
    /// Leaves that differ and were looked into: the sums here and there.
    explained: BTreeMap<Leaf, (crate::state::Sum, crate::state::Sum)>,
    turn: usize,
}

impl Default for Folders {
    fn default() -> Self {
        Self { known: vec![Known::default(); FOLDERS], explained: BTreeMap::new(), turn: 0 }
    }
}

impl Folders {
    /// The folders whose names have to be read now: by their time stamps, and by which of them this node changed since.
    pub(super) fn due(&mut self, stamps: &[Option<u64>], touched: &[bool], now: Instant) -> Vec<u8> {
        let (turn, mut due) = (self.turn, Vec::new());
        self.turn = (turn + TURNS) % FOLDERS;
        for (at, known) in self.known.iter_mut().enumerate() {
            let stamp = stamps.get(at).copied().flatten();
            let is_due = match (stamp, known.stamp) {
                (Some(stamp), Some((was, _))) if stamp == was => !known.settled,
                (Some(stamp), _) => {
                    known.stamp = Some((stamp, now));
                    known.settled = false;
                    true
                }
                (None, _) => {
                    known.stamp = None;
                    let its_turn = (turn..turn + TURNS).contains(&at);
                    touched.get(at).copied().unwrap_or(true) || its_turn || known.sums.is_none()
                }
            };
            if is_due {
                due.push(at as u8);
            }
        }
        due
    }

    /// The names of a folder were read, beginning at `began`.
    pub(super) fn listed(&mut self, folder: u8, sums: Folder, began: Instant) {
        let known = &mut self.known[usize::from(folder)];
        known.sums = Some(sums);
        known.settled = known.stamp.is_some_and(|(_, since)| began.duration_since(since) >= SETTLED);
    }

    /// The names of a folder could not be read: nothing is known of it.
    pub(super) fn forget(&mut self, folder: u8) {
        self.known[usize::from(folder)] = Known::default();
    }

    /// The leaves of a folder that are not what the metadata says, and are not explained.
    pub(super) fn differing(&self, folder: u8, placed: &Folder) -> Vec<Leaf> {
        let Some(here) = &self.known[usize::from(folder)].sums else { return Vec::new() };
        let mut leaves = unequal_leaves(folder, here, placed);
        leaves.retain(|leaf| self.explained.get(leaf) != Some(&sums_of(*leaf, here, placed)));
        leaves
    }

    /// A leaf was looked into, and nothing that should be there is missing.
    pub(super) fn explained(&mut self, leaf: Leaf, placed: &Folder) {
        let folder = usize::from(leaf) / placed.len();
        if let Some(here) = self.known.get(folder).and_then(|known| known.sums.as_ref()) {
            self.explained.insert(leaf, sums_of(leaf, here, placed));
        }
    }

    /// What was explained of a folder is looked into again when next compared.
    pub(super) fn doubt(&mut self, folder: u8) {
        self.explained.retain(|leaf, _| (leaf >> 4) as u8 != folder);
        self.known[usize::from(folder)].settled = false;
    }
}

fn sums_of(leaf: Leaf, here: &Folder, placed: &Folder) -> (crate::state::Sum, crate::state::Sum) {
    let at = usize::from(leaf) % placed.len();
    (here[at], placed[at])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::state::shards::{ShardTree, folder_sums, leaf_of};
    use crate::types::{ExtentIndex, ShardIndex, ShardKey, Version};

    fn shard(number: u16) -> ShardKey {
        // Spread over three folders and their leaves, with company in each.
        let version = u128::from(number % 48) << 116 | u128::from(number);
        ShardKey { version: Version(version), extent: ExtentIndex(0), shard: ShardIndex(0) }
    }

    fn folder_of(shard: ShardKey) -> usize {
        usize::from(leaf_of(shard.version) >> 4)
    }

    const UNCHANGED: [bool; FOLDERS] = [false; FOLDERS];

    #[test]
    fn names_are_read_when_a_stamp_is_new_once_more_when_it_has_settled_and_then_no_more() {
        let mut folders = Folders::default();
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut stamps = vec![Some(7); FOLDERS];
        let all: Vec<u8> = (0..=255).collect();
        let mut pass = |stamps: &[Option<u64>], seconds: u64| {
            let due = folders.due(stamps, &UNCHANGED, at(seconds));
            due.iter().for_each(|folder| folders.listed(*folder, Folder::default(), at(seconds)));
            due
        };
        assert_eq!(pass(&stamps, 0), all);
        assert_eq!(pass(&stamps, 1), all, "a change within the same tick would not show");
        assert_eq!(pass(&stamps, 3), all);
        assert_eq!(pass(&stamps, 4), [0_u8; 0]);
        // Back in time is a change like any other.
        stamps[9] = Some(5);
        assert_eq!(pass(&stamps, 5), [9]);
        assert_eq!(pass(&stamps, 8), [9]);
        assert_eq!(pass(&stamps, 9), [0_u8; 0]);
    }

    #[test]
    fn without_stamps_what_was_touched_is_read_at_once_and_all_in_turn() {
        let mut folders = Folders::default();
        let none = vec![None; FOLDERS];
        let now = Instant::now();
        let mut pass = |touched: &[bool]| {
            let due = folders.due(&none, touched, now);
            due.iter().for_each(|folder| folders.listed(*folder, Folder::default(), now));
            due
        };
        assert_eq!(pass(&UNCHANGED).len(), FOLDERS, "nothing was known");
        let mut touched = UNCHANGED;
        touched[200] = true;
        assert!(pass(&touched).contains(&200));
        let seen: BTreeSet<u8> = (0..16).flat_map(|_| pass(&UNCHANGED)).collect();
        assert_eq!(seen.len(), FOLDERS);
    }

    #[test]
    fn what_is_explained_is_not_looked_into_again_until_a_side_changes_or_it_is_doubted() {
        let mut folders = Folders::default();
        let (one, two) = (shard(0), shard(48));
        folders.listed(0, folder_sums([one, two]), Instant::now());
        let mut placed = ShardTree::default();
        placed.add(one);
        assert_eq!(folders.differing(0, &placed.folder(0)), [0]);
        folders.explained(0, &placed.folder(0));
        assert_eq!(folders.differing(0, &placed.folder(0)), [0_u16; 0]);
        folders.doubt(1);
        assert_eq!(folders.differing(0, &placed.folder(0)), [0_u16; 0]);
        folders.doubt(0);
        assert_eq!(folders.differing(0, &placed.folder(0)), [0]);
        folders.explained(0, &placed.folder(0));
        placed.add(shard(96));
        assert_eq!(folders.differing(0, &placed.folder(0)), [0], "another is missing there");
    }

    /// What happens to a disk and to the metadata's word on it.
    #[derive(Clone, Debug)]
    enum Step {
        /// Written, then placed.
        Put(u16),
        /// Given up, then moved away.
        Discard(u16),
        /// Behind our back: gone, or there again.
        Vanish(u16),
        Appear(u16),
        /// Time passes, and a pass is made.
        Pass(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u16..400).prop_map(Step::Put),
            1 => (0_u16..400).prop_map(Step::Discard),
            2 => (0_u16..400).prop_map(Step::Vanish),
            1 => (0_u16..400).prop_map(Step::Appear),
            3 => (0_u8..4).prop_map(Step::Pass),
        ]
    }

    /// A disk, the metadata's word on it, and a clock that ticks once a second: many changes share a stamp.
    struct World {
        there: BTreeSet<ShardKey>,
        placed: BTreeSet<ShardKey>,
        tree: ShardTree,
        stamps: Vec<Option<u64>>,
        touched: Vec<bool>,
        millis: u64,
        began: Instant,
        folders: Folders,
        stamped: bool,
    }

    impl World {
        fn change(&mut self, shard: ShardKey, is_there: bool, ours: bool) {
            let changed = if is_there { self.there.insert(shard) } else { self.there.remove(&shard) };
            if changed {
                let folder = folder_of(shard);
                self.stamps[folder] = self.stamped.then_some(self.millis / 1000);
                self.touched[folder] |= ours;
            }
        }

        fn run(&mut self, step: &Step) -> BTreeSet<ShardKey> {
            match step {
                Step::Put(number) => {
                    self.change(shard(*number), true, true);
                    if self.placed.insert(shard(*number)) {
                        self.tree.add(shard(*number));
                    }
                }
                Step::Discard(number) => {
                    if self.placed.remove(&shard(*number)) {
                        self.tree.remove(shard(*number));
                    }
                    self.change(shard(*number), false, true);
                }
                Step::Vanish(number) => self.change(shard(*number), false, false),
                Step::Appear(number) => self.change(shard(*number), true, false),
                Step::Pass(quarters) => {
                    self.millis += u64::from(*quarters) * 250;
                    return self.pass();
                }
            }
            BTreeSet::new()
        }

        /// What a pass finds missing.
        fn pass(&mut self) -> BTreeSet<ShardKey> {
            let now = self.began + Duration::from_millis(self.millis);
            let touched = std::mem::replace(&mut self.touched, vec![false; FOLDERS]);
            for folder in self.folders.due(&self.stamps, &touched, now) {
                let names = self.there.iter().copied().filter(|shard| folder_of(*shard) == usize::from(folder));
                self.folders.listed(folder, folder_sums(names), now);
            }
            let mut missing = BTreeSet::new();
            for folder in 0..=u8::MAX {
                let placed = self.tree.folder(folder);
                for leaf in self.folders.differing(folder, &placed) {
                    let due = self.placed.iter().filter(|shard| leaf_of(shard.version) == leaf);
                    let gone: Vec<ShardKey> = due.filter(|shard| !self.there.contains(shard)).copied().collect();
                    if gone.is_empty() {
                        self.folders.explained(leaf, &placed);
                    }
                    missing.extend(gone);
                }
            }
            missing
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
        #[test]
        fn what_a_full_comparison_finds_the_incremental_one_finds_once_stamps_have_settled(
            steps in prop::collection::vec(step(), 1..120),
            stamped in any::<bool>(),
        ) {
            let mut world = World {
                there: BTreeSet::new(),
                placed: BTreeSet::new(),
                tree: ShardTree::default(),
                stamps: vec![stamped.then_some(0); FOLDERS],
                touched: vec![false; FOLDERS],
                millis: 0,
                began: Instant::now(),
                folders: Folders::default(),
                stamped,
            };
            for step in &steps {
                let found = world.run(step);
                let really: BTreeSet<ShardKey> = world.placed.difference(&world.there).copied().collect();
                prop_assert!(found.is_subset(&really), "what is found is missing");
            }
            // Nothing happens any more: after a few seconds, or a turn of all folders, a pass knows all there is to know.
            for _ in 0..16 {
                world.run(&Step::Pass(1));
            }
            let full: BTreeSet<ShardKey> = world.placed.difference(&world.there).copied().collect();
            prop_assert_eq!(world.run(&Step::Pass(1)), full.clone());
            // And what is found stays found until it is mended.
            prop_assert_eq!(world.run(&Step::Pass(1)), full.clone());
            full.into_iter().for_each(|shard| world.change(shard, true, true));
            for _ in 0..16 {
                world.run(&Step::Pass(1));
            }
            prop_assert_eq!(world.run(&Step::Pass(1)), BTreeSet::new());
        }
    }
}
