//! What the metadata places on this node's disks, as sums of ranges that are kept in step; and the objects of which a shard is
//! not where it belongs.
//!
//! Anti-entropy compares the sums with what lies on the disks, so that nobody walks a million objects to learn that nothing
//! has changed. They are in memory alone: [`State::watch_disks`] counts them from one moment of the database, and from that
//! moment on every command that is applied brings its difference along.
//!
//! Invariants: what is told is the state as of what was applied last; shards of garbage count until their version is
//! forbidden, because they are to be there until then. Must never: tell sums of a state that was replaced as a whole
//! (a snapshot, a patch): nothing is known then until the disks are watched anew.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use redb::{ReadTransaction, ReadableDatabase};

use super::merkle::shards::{Folder, Leaf, ShardTree, versions_of, versions_of_folder};
use super::query::Table;
use super::tables::{GARBAGE, OBJECTS, VERSIONS, get, split_object_key, split_version_key, unseal, version_key};
use super::{State, StateError};
use crate::model::{GarbageRecord, ObjectRecord};
use crate::types::{BucketName, DiskId, ShardKey, Version};

/// Objects with a shard out of place that are remembered by name. More of them, after the loss of a host, are found by a walk
/// over all objects, which looks at nothing else then.
const MAX_UNSETTLED: usize = 65_536;

/// What a command changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A shard is to be on a disk from now on.
    On(DiskId, ShardKey),
    /// Nor any more.
    Off(DiskId, ShardKey),
    /// Whether all shards of the object of this version are where they belong.
    Settled(Version, bool),
}

/// What commands of one transaction changed, as far as somebody watches.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// The disks that are watched; `None`: nobody watches any.
    disks: Option<Arc<BTreeSet<DiskId>>>,
    news: Vec<News>,
}

impl Told {
    /// Content became live: put, or uploaded as a part.
    pub(super) fn live(&mut self, object: &ObjectRecord) {
        self.shards(object, News::On);
        self.tell(News::Settled(object.version, is_settled(object)));
    }

    /// Parts became an object: the same shards, under another version.
    pub(super) fn joined(&mut self, object: &ObjectRecord) {
        for extent in &object.extents {
            self.tell(News::Settled(extent.id.version, true));
        }
        self.tell(News::Settled(object.version, is_settled(object)));
    }

    /// Content is live no more. Its shards stay where they are for those who still read it.
    pub(super) fn discarded(&mut self, object: &ObjectRecord) {
        self.tell(News::Settled(object.version, true));
    }

    /// Garbage is given up.
    pub(super) fn forbidden(&mut self, object: &ObjectRecord) {
        self.shards(object, News::Off);
    }

    /// A shard of an object moved; the object as it is now.
    pub(super) fn moved(&mut self, object: &ObjectRecord, shard: ShardKey, from: Option<DiskId>, to: Option<DiskId>) {
        if let Some(disk) = from {
            self.tell(News::Off(disk, shard));
        }
        if let Some(disk) = to {
            self.tell(News::On(disk, shard));
        }
        self.tell(News::Settled(object.version, is_settled(object)));
    }

    fn shards(&mut self, object: &ObjectRecord, what: fn(DiskId, ShardKey) -> News) {
        if self.disks.is_some() {
            shards_of(object, |disk, shard, _| self.tell(what(disk, shard)));
        }
    }

    fn tell(&mut self, news: News) {
        let Some(disks) = &self.disks else { return };
        match &news {
            News::On(disk, _) | News::Off(disk, _) if !disks.contains(disk) => {}
            _ => self.news.push(news),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Counts the counts: one that ends after another began, or after the state was replaced, is none.
    round: u64,
    disks: Arc<BTreeSet<DiskId>>,
    counted: bool,
    trees: BTreeMap<DiskId, ShardTree>,
    /// Whether the object of a version is settled, for those of which that is not known by being absent: while counting, all
    /// that changed; afterwards those that are not.
    objects: BTreeMap<Version, bool>,
    /// There are more than are remembered.
    overflow: bool,
}

impl Placed {
    fn begin(&mut self, disks: Arc<BTreeSet<DiskId>>) -> u64 {
        let trees = disks.iter().map(|disk| (*disk, ShardTree::default())).collect();
        *self = Self { round: self.round + 1, disks, trees, ..Self::default() };
        self.round
    }

    /// After a commit: what it changed.
    pub(super) fn follow(&mut self, told: &mut Told) {
        let news = std::mem::take(&mut told.news);
        if told.disks.is_none() {
            // Nobody watches, or the state was replaced and nobody watches the new one: a count that still runs is of the old one.
            *self = Self { round: self.round + 1, ..Self::default() };
            return;
        }
        for news in news {
            match news {
                News::On(disk, shard) => self.tree(disk, |tree| tree.add(shard)),
                News::Off(disk, shard) => self.tree(disk, |tree| tree.remove(shard)),
                News::Settled(version, settled) => self.settled(version, settled),
            }
        }
    }

    fn tree(&mut self, disk: DiskId, change: impl FnOnce(&mut ShardTree)) {
        if let Some(tree) = self.trees.get_mut(&disk) {
            change(tree);
        }
    }

    fn settled(&mut self, version: Version, settled: bool) {
        if settled && self.counted {
            self.objects.remove(&version);
        } else if self.objects.len() < MAX_UNSETTLED || self.objects.contains_key(&version) {
            self.objects.insert(version, settled);
        } else {
            self.overflow = true;
        }
    }

    fn count(&mut self, round: u64, count: Count) {
        if round != self.round {
            return;
        }
        for (disk, counted) in count.trees {
            self.tree(disk, |tree| tree.merge(&counted));
        }
        let changed = std::mem::take(&mut self.objects);
        self.counted = true;
        self.overflow |= count.overflow;
        count.unsettled.into_iter().for_each(|version| self.settled(version, false));
        changed.into_iter().for_each(|(version, settled)| self.settled(version, settled));
    }
}

/// What there is at one moment.
#[derive(Default)]
struct Count {
    trees: BTreeMap<DiskId, ShardTree>,
    unsettled: BTreeSet<Version>,
    overflow: bool,
}

impl Count {
    fn of(txn: &ReadTransaction, disks: &BTreeSet<DiskId>) -> Result<Self, StateError> {
        let mut count = Self::default();
        for entry in txn.open_table(OBJECTS)?.range::<&[u8]>(..)? {
            let object: ObjectRecord = unseal("objects", entry?.1.value())?;
            count.add(&object, disks);
            if is_settled(&object) {
                continue;
            }
            match count.unsettled.len() < MAX_UNSETTLED {
                true => drop(count.unsettled.insert(object.version)),
                false => count.overflow = true,
            }
        }
        for entry in txn.open_table(GARBAGE)?.range::<&[u8]>(..)? {
            let garbage: GarbageRecord = unseal("garbage", entry?.1.value())?;
            count.add(&garbage.object, disks);
        }
        Ok(count)
    }

    fn add(&mut self, object: &ObjectRecord, disks: &BTreeSet<DiskId>) {
        shards_of(object, |disk, shard, _| {
            if disks.contains(&disk) {
                self.trees.entry(disk).or_default().add(shard);
            }
        });
    }
}

/// A shard that the metadata places on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlacedShard {
    /// The bucket of its object.
    pub(crate) bucket: BucketName,
    /// The key of its object.
    pub(crate) key: String,
    /// Its name.
    pub(crate) shard: ShardKey,
    /// Length of its file.
    pub(crate) file_bytes: u64,
}

/// Objects with a shard that is not where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unsettled {
    /// It is not known: the disks have to be watched (again).
    Unknown,
    /// These, by their versions.
    These(Vec<Version>),
    /// More than are remembered.
    TooMany,
}

impl State {
    /// Counts what is placed on these disks, and from then on keeps the sums in step.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn watch_disks(&self, disks: BTreeSet<DiskId>) -> Result<(), StateError> {
        self.look(move |inner, database| {
            let disks = Arc::new(disks);
            let lock = || inner.placed.lock().unwrap_or_else(PoisonError::into_inner);
            // Between two transactions: what the one before wrote is counted, what the one behind writes is told.
            let (txn, round) = {
                let _writing = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
                let txn = database.begin_read()?;
                let told = Told { disks: Some(disks.clone()), news: Vec::new() };
                inner.memory.lock().unwrap_or_else(PoisonError::into_inner).told = told;
                (txn, lock().begin(disks.clone()))
            };
            let count = Count::of(&txn, &disks)?;
            lock().count(round, count);
            Ok(())
        })
        .await
    }

    /// Whether the sums of exactly these disks are known now.
    pub(crate) fn watches(&self, disks: &BTreeSet<DiskId>) -> bool {
        let placed = self.inner.placed.lock().unwrap_or_else(PoisonError::into_inner);
        placed.counted && *placed.disks == *disks
    }

    /// The sums of what is placed in a folder of a disk; `None`: that is not known now.
    pub(crate) fn placed_folder(&self, disk: DiskId, folder: u8) -> Option<Folder> {
        let placed = self.inner.placed.lock().unwrap_or_else(PoisonError::into_inner);
        placed.trees.get(&disk).filter(|_| placed.counted).map(|tree| tree.folder(folder))
    }

    /// The objects of which a shard is not where it belongs.
    pub(crate) fn unsettled(&self) -> Unsettled {
        let placed = self.inner.placed.lock().unwrap_or_else(PoisonError::into_inner);
        match (placed.counted, placed.overflow) {
            (false, _) => Unsettled::Unknown,
            (true, true) => Unsettled::TooMany,
            (true, false) => Unsettled::These(placed.objects.keys().copied().collect()),
        }
    }

    /// The shards of live objects that are placed on a disk, of one leaf. Of garbage nobody misses any.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn placed_in(&self, disk: DiskId, leaf: Leaf) -> Result<Vec<PlacedShard>, StateError> {
        self.read(move |txn| placed_in(txn, disk, versions_of(leaf))).await
    }

    /// The same, of a whole folder.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn placed_in_folder(&self, disk: DiskId, folder: u8) -> Result<Vec<PlacedShard>, StateError> {
        self.read(move |txn| placed_in(txn, disk, versions_of_folder(folder))).await
    }
}

fn placed_in(
    txn: &ReadTransaction,
    disk: DiskId,
    (first, next): (Version, Option<Version>),
) -> Result<Vec<PlacedShard>, StateError> {
    let (first, next) = (version_key(first), next.map(version_key));
    let end = next.as_ref().map_or(Bound::Unbounded, |next| Bound::Excluded(next.as_slice()));
    let objects: Table = txn.open_table(OBJECTS)?;
    let mut found = Vec::new();
    for entry in txn.open_table(VERSIONS)?.range::<&[u8]>((Bound::Included(first.as_slice()), end))? {
        let (version, key) = entry?;
        let version = split_version_key(version.value())?;
        let Some(object) = get::<ObjectRecord>(&objects, "objects", key.value())? else { continue };
        let (bucket, name) = split_object_key(key.value())?;
        shards_of(&object, |at, shard, file_bytes| {
            if at == disk && shard.version == version {
                found.push(PlacedShard { bucket: BucketName::from(bucket), key: name.to_owned(), shard, file_bytes });
            }
        });
    }
    Ok(found)
}

/// Tells each shard that has a home: where, which, and how long its file is.
fn shards_of(object: &ObjectRecord, mut tell: impl FnMut(DiskId, ShardKey, u64)) {
    for extent in &object.extents {
        let file_bytes = crate::disk::shard_file_bytes(object.coding, object.block_bytes, extent.len_bytes);
        for (shard, home) in (0u8..).map(crate::types::ShardIndex).zip(&extent.homes) {
            if let Some(disk) = home.at {
                tell(disk, extent.id.shard(shard), file_bytes);
            }
        }
    }
}

fn is_settled(object: &ObjectRecord) -> bool {
    object.extents.iter().flat_map(|extent| &extent.homes).all(|home| home.at == Some(home.wanted))
}

#[cfg(test)]
impl State {
    /// What is kept, as far as it is known.
    pub(super) fn placed_kept(&self) -> (BTreeMap<DiskId, ShardTree>, Vec<Version>) {
        let placed = self.inner.placed.lock().unwrap();
        (placed.trees.clone(), placed.objects.keys().copied().collect())
    }

    /// The same counted from what is stored.
    pub(super) async fn placed_anew(&self, disks: BTreeSet<DiskId>) -> (BTreeMap<DiskId, ShardTree>, Vec<Version>) {
        let count = self.read(move |txn| {
            let mut count = Count::of(txn, &disks)?;
            for disk in &disks {
                count.trees.entry(*disk).or_default();
            }
            Ok(count)
        });
        let count = count.await.unwrap();
        (count.trees, count.unsettled.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_ends_after_its_state_was_replaced_is_none() {
        let disks: Arc<BTreeSet<DiskId>> = Arc::new([DiskId(11)].into());
        let mut placed = Placed::default();
        let round = placed.begin(disks.clone());
        // A snapshot is installed while the state before it is read from end to end.
        placed.follow(&mut Told::default());
        placed.count(round, Count { unsettled: [Version(5)].into(), ..Count::default() });
        assert!(!placed.counted && placed.objects.is_empty(), "{placed:?}");
        let round = placed.begin(disks);
        placed.count(round, Count::default());
        assert!(placed.counted);
    }
}
