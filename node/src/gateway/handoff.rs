//! Stand-ins: what becomes of a shard whose home cannot take it now. It is put on another disk, and the metadata records
//! both where it is and where it belongs. That record is the hint: durable in the metadata (with the object's commit, or when
//! the stand-in has the shard), delivered by the home itself once it is back (`repair/check.rs`), and of no further meaning when the home is given up, because the shard has
//! a home already.
//!
//! Must never: put two shards of an extent on one disk; take a stand-in that is itself in doubt.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Gateway;
use super::extent_writer::PlannedHome;
use crate::model::{ClusterMap, Coding, Home, ObjectRecord};
use crate::placement::stand_in;
use crate::repair::{FoundBy, RebuildState, Suspect, SuspectKind};
use crate::transport::Preference;
use crate::types::{BucketName, DiskId, ExtentId, ExtentIndex, ShardIndex, Version};

/// Shards handed off side by side by one node.
pub(super) const MAX_HANDOFFS: usize = 8;

/// Shards that wait to be. What comes beyond stays without a home until its own is back, or is given up.
pub(super) const MAX_WAITING: usize = 4096;

impl Gateway {
    /// The homes of an extent that is about to be written: where one is in doubt, a stand-in.
    pub(super) fn stand_ins(
        &self,
        map: &ClusterMap,
        version: Version,
        extent: ExtentIndex,
        coding: Coding,
        homes: Vec<DiskId>,
    ) -> Vec<PlannedHome> {
        let mut planned: Vec<PlannedHome> = homes.iter().map(|disk| PlannedHome { at: *disk, wanted: *disk }).collect();
        for at in 0..planned.len() {
            if !self.in_doubt(planned[at].at) {
                continue;
            }
            let taken: Vec<DiskId> = planned.iter().flat_map(|home| [home.at, home.wanted]).collect();
            if let Some(disk) = stand_in(map, version, extent, coding, &taken, |disk| self.in_doubt(disk)) {
                planned[at].at = disk;
                self.inner.shards.pace().detours().stand_ins.fetch_add(1, Ordering::Relaxed);
            }
        }
        planned
    }

    /// Homes that failed the upload: stand-ins get what they miss. Returns at once.
    pub(super) fn hand_off(&self, bucket: &BucketName, key: &str, object: &ObjectRecord) {
        let map = self.inner.meta.map();
        for record in &object.extents {
            // Two that are missing do not go to one disk.
            let mut chosen = Vec::new();
            for (shard, home) in (0u8..).map(ShardIndex).zip(&record.homes).filter(|(_, home)| home.at.is_none()) {
                let suspect = Suspect {
                    bucket: bucket.clone(),
                    key: key.to_owned(),
                    shard: record.id.shard(shard),
                    disk: home.wanted,
                    kind: SuspectKind::Missing,
                    found_by: FoundBy::Write,
                    detail: "its home failed during the upload".to_owned(),
                };
                match self.stand_in_for(&map, object.coding, record.id, &record.homes, *home, &chosen) {
                    Some(disk) => {
                        chosen.push(disk);
                        self.hand_to(suspect, disk);
                    }
                    // It may be well again already.
                    None => self.inner.shards.report(suspect),
                }
            }
        }
    }

    fn stand_in_for(
        &self,
        map: &Arc<ClusterMap>,
        coding: Coding,
        extent: ExtentId,
        homes: &[Home],
        missing: Home,
        chosen: &[DiskId],
    ) -> Option<DiskId> {
        if !self.in_doubt(missing.wanted) {
            return None;
        }
        let homes = homes.iter().flat_map(|home| home.at.into_iter().chain([home.wanted]));
        let taken: Vec<DiskId> = homes.chain(chosen.iter().copied()).collect();
        stand_in(map, extent.version, extent.index, coding, &taken, |disk| self.in_doubt(disk))
    }

    fn hand_to(&self, suspect: Suspect, disk: DiskId) {
        let Ok(place) = self.inner.handoffs_waiting.clone().try_acquire_owned() else { return };
        let gateway = self.clone();
        tokio::spawn(async move {
            // Closed is no state of it: nobody closes it.
            let permit = gateway.inner.handoffs.clone().acquire_owned().await;
            drop(place);
            let Suspect { bucket, key, shard, .. } = &suspect;
            let report = gateway.inner.rebuilder.stand_in_at(bucket, key, *shard, disk).await;
            if report.state == RebuildState::Rebuilt {
                gateway.inner.shards.pace().detours().stand_ins.fetch_add(1, Ordering::Relaxed);
            }
            if report.state == RebuildState::Failed {
                tracing::debug!(%shard, %disk, detail = report.detail, "a shard could not be handed to a stand-in");
                gateway.inner.shards.report(suspect);
            }
            drop(permit);
        });
    }

    fn in_doubt(&self, disk: DiskId) -> bool {
        self.inner.shards.preference(disk) >= Preference::Doubtful
    }
}
