//! The shards of one disk as sums of ranges: of those the metadata places there, and of those that are there. Pure.
//!
//! Versions are random, so their first bits cut a disk into even ranges: a leaf is the first [`LEAF_BITS`] of them, sixteen leaves
//! are what lies in one of the 256 folders of a disk. Nothing here moves with what is put, unlike the leaves of the state.

use sha2::{Digest, Sha256};

use super::Sum;
use crate::types::{ShardKey, Version};

/// Bits of a version that name its leaf: 4,096 leaves. Of a million shards one holds 250, which is what a difference costs to
/// look into, and the tree of a disk has 128 KiB.
const LEAF_BITS: u32 = 12;

/// Leaves of one tree.
const LEAVES: usize = 1 << LEAF_BITS;

/// Leaves of one folder.
pub(crate) const FOLDER_LEAVES: usize = LEAVES / 256;

/// A range of a disk: the first bits of the versions in it.
pub(crate) type Leaf = u16;

/// The leaf that a version lies in.
pub(crate) fn leaf_of(version: Version) -> Leaf {
    (version.0 >> (u128::BITS - LEAF_BITS)) as Leaf
}

/// The leaves of the folder that holds versions of this first byte.
pub(crate) fn leaves_of(folder: u8) -> impl Iterator<Item = Leaf> {
    let first = Leaf::from(folder) * FOLDER_LEAVES as Leaf;
    first..first + FOLDER_LEAVES as Leaf
}

/// The versions of a leaf: from the first up to the first of the next; `None`: to the end.
pub(in crate::state) fn versions_of(leaf: Leaf) -> (Version, Option<Version>) {
    let first = |leaf: u128| Version(leaf << (u128::BITS - LEAF_BITS));
    let next = u128::from(leaf) + 1;
    (first(u128::from(leaf)), (next < LEAVES as u128).then(|| first(next)))
}

/// The sums of one folder's leaves.
pub(crate) type Folder = [Sum; FOLDER_LEAVES];

/// Sums of the shards of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShardTree {
    leaves: Vec<Sum>,
}

impl Default for ShardTree {
    fn default() -> Self {
        Self { leaves: vec![Sum::default(); LEAVES] }
    }
}

impl ShardTree {
    /// Counts a shard in.
    pub(crate) fn add(&mut self, shard: ShardKey) {
        self.change(shard, Sum::plus);
    }

    /// Counts a shard out.
    pub(crate) fn remove(&mut self, shard: ShardKey) {
        self.change(shard, Sum::minus);
    }

    fn change(&mut self, shard: ShardKey, how: fn(Sum, Sum) -> Sum) {
        let leaf = &mut self.leaves[usize::from(leaf_of(shard.version))];
        *leaf = how(*leaf, Sum::of(digest(shard)));
    }

    /// Adds what another tree counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (leaf, more) in self.leaves.iter_mut().zip(&other.leaves) {
            *leaf = leaf.plus(*more);
        }
    }

    /// The sums of one folder.
    pub(crate) fn folder(&self, folder: u8) -> Folder {
        let first = usize::from(folder) * FOLDER_LEAVES;
        *self.leaves[first..].first_chunk().expect("every folder has its leaves")
    }
}

/// The sums of the shards of one folder, whose versions have its first byte.
pub(crate) fn folder_sums(shards: impl IntoIterator<Item = ShardKey>) -> Folder {
    let mut sums = Folder::default();
    for shard in shards {
        let leaf = &mut sums[usize::from(leaf_of(shard.version)) % FOLDER_LEAVES];
        *leaf = leaf.plus(Sum::of(digest(shard)));
    }
    sums
}

/// The leaves of a folder in which two sums of it differ: none when those of the whole folder are equal.
pub(crate) fn unequal_leaves(folder: u8, here: &Folder, there: &Folder) -> Vec<Leaf> {
    let whole = |sums: &Folder| sums.iter().fold(Sum::default(), |all, sum| all.plus(*sum));
    if whole(here) == whole(there) {
        return Vec::new();
    }
    let leaves = leaves_of(folder).zip(here.iter().zip(there));
    leaves.filter(|(_, (here, there))| here != there).map(|(leaf, _)| leaf).collect()
}

/// Half of a SHA-256 over a shard's name.
fn digest(shard: ShardKey) -> u128 {
    let mut hash = Sha256::new();
    hash.update(shard.version.0.to_be_bytes());
    hash.update(shard.extent.0.to_be_bytes());
    hash.update([shard.shard.0]);
    let hash = hash.finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    u128::from_le_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ExtentIndex, ShardIndex};

    fn shard(version: u128, index: u8) -> ShardKey {
        ShardKey { version: Version(version), extent: ExtentIndex(0), shard: ShardIndex(index) }
    }

    #[test]
    fn a_leaf_is_the_first_bits_of_a_version_and_sixteen_make_a_folder() {
        assert_eq!(leaf_of(Version(u128::MAX)), 0xfff);
        assert_eq!(leaf_of(Version(0xabc << 116)), 0xabc);
        assert_eq!(leaves_of(0xab).collect::<Vec<_>>(), (0xab0..=0xabf).collect::<Vec<_>>());
        let (first, next) = versions_of(0xabc);
        assert_eq!((leaf_of(first), next.map(leaf_of)), (0xabc, Some(0xabd)));
        assert_eq!(leaf_of(Version(next.unwrap().0 - 1)), 0xabc);
        assert_eq!(versions_of(0xfff).1, None);
    }

    #[test]
    fn a_tree_is_what_was_counted_in_less_what_was_counted_out_in_any_order() {
        let (one, two, three) = (shard(0xab1 << 116, 0), shard(0xab2 << 116, 1), shard(0xcd3 << 116, 2));
        let mut tree = ShardTree::default();
        // Out before in: a count that began in between meets what came before it later.
        tree.remove(two);
        for key in [one, two, three, two] {
            tree.add(key);
        }
        assert_eq!(tree.folder(0xab), folder_sums([two, one]));
        assert_eq!(tree.folder(0xcd), folder_sums([three]));
        assert_eq!(unequal_leaves(0xab, &tree.folder(0xab), &folder_sums([one])), [0xab2]);
        assert_eq!(unequal_leaves(0xab, &tree.folder(0xab), &folder_sums([one, two])), [0_u16; 0]);
        assert_ne!(folder_sums([shard(7, 0)]), folder_sums([shard(7, 1)]), "another shard of one extent is another");
        let mut both = ShardTree::default();
        both.add(one);
        let mut rest = ShardTree::default();
        [two, three].into_iter().for_each(|key| rest.add(key));
        both.merge(&rest);
        assert_eq!(both, tree);
    }
}
