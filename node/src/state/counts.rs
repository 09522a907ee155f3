//! Totals over the state, kept up to date by the commands that change them: nobody walks a million objects to know how
//! many there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::ObjectRecord;
use crate::types::DiskId;

/// What there is of live objects and their shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Live objects.
    pub objects: u64,
    /// Parts of uploads that are under way.
    pub parts: u64,
    /// Shards of both that are nowhere and wait to be rebuilt.
    pub homeless_shards: u64,
    /// Shards of both by the disk that holds them. Garbage is not counted.
    pub shards_by_disk: BTreeMap<DiskId, u64>,
}

impl Counts {
    /// Counts an object that became live; its shards are counted by themselves.
    pub(super) fn add_object(&mut self) {
        self.objects += 1;
    }

    /// Counts an object that is live no more.
    pub(super) fn remove_object(&mut self) {
        self.objects = self.objects.saturating_sub(1);
    }

    /// Counts the shards of content that became live.
    pub(super) fn add_shards(&mut self, object: &ObjectRecord) {
        for home in object.extents.iter().flat_map(|extent| &extent.homes) {
            self.arrive(home.at);
        }
    }

    /// Counts the shards of content that is live no more.
    pub(super) fn remove_shards(&mut self, object: &ObjectRecord) {
        for home in object.extents.iter().flat_map(|extent| &extent.homes) {
            self.leave(home.at);
        }
    }

    /// Counts a shard that moved.
    pub(super) fn moved(&mut self, from: Option<DiskId>, to: Option<DiskId>) {
        self.leave(from);
        self.arrive(to);
    }

    fn arrive(&mut self, at: Option<DiskId>) {
        match at {
            Some(disk) => *self.shards_by_disk.entry(disk).or_default() += 1,
            None => self.homeless_shards += 1,
        }
    }

    fn leave(&mut self, at: Option<DiskId>) {
        let Some(disk) = at else {
            self.homeless_shards = self.homeless_shards.saturating_sub(1);
            return;
        };
        // A disk without shards is no entry: the map stays as small as the cluster.
        match self.shards_by_disk.get_mut(&disk) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.shards_by_disk.remove(&disk);
            }
            None => {}
        }
    }
}

/// All totals that are stored: [`Counts`] and the bookkeeping of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    pub(super) counts: Counts,
    pub(super) outcomes: u64,
}
