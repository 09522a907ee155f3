//! Anti-entropy: what lies on our disks against what the metadata places there, without asking for each shard.
//!
//! Two trees of sums for each disk: of the names in its folders ([`folders`], read again where they may have changed) and of
//! what the metadata says ([`crate::state`], kept in step with every command). Only a leaf in which they differ is looked into,
//! name by name. Sums know names and not lengths, and time stamps can lie: so each shard is asked for by itself all the same,
//! spread over a longer period ([`patrol`]).
//!
//! Must never: take a sum's word for a loss: what is missing is looked at before anything is said of it. What lies there and
//! belongs to nobody is not missed here; the search for orphans judges it.

mod folders;
pub(super) mod patrol;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use self::folders::{FOLDERS, Folders};
use super::check::check_named;
use super::throttle::rest;
use super::{RepairParts, board::AntiEntropy};
use crate::disk::{Health, Volume};
use crate::meta::MetaError;
use crate::state::shards::{Leaf, folder_sums};
use crate::types::{DiskId, ShardKey};

/// Rest after a folder was read or a leaf looked into, in percent of what it took: a fiftieth of the time at most, so that
/// clients never miss it.
const REST_PERCENT: u32 = 4900;

/// Compares for ever.
pub(super) async fn run(parts: Arc<RepairParts>) {
    let mut comparison = Comparison::default();
    loop {
        if let Err(error) = comparison.pass(&parts).await {
            tracing::warn!(%error, "the comparison of this node's disks with the metadata was cut short");
        }
        sleep(parts.repair.check_interval).await;
    }
}

/// Has the metadata keep sums of what it places on our disks, unless it does.
pub(super) async fn watch(parts: &RepairParts) -> Result<(), MetaError> {
    // One at a time: it reads all there is.
    let _one = parts.board.watching().await;
    let own: BTreeSet<DiskId> = parts.disks.volumes().iter().map(|volume| volume.id()).collect();
    if !parts.meta.watches(&own) {
        parts.meta.watch_disks(own).await?;
    }
    Ok(())
}

/// What is known of each of our disks.
#[derive(Default)]
struct Comparison {
    disks: BTreeMap<DiskId, Folders>,
}

impl Comparison {
    /// One pass over all disks that serve.
    async fn pass(&mut self, parts: &RepairParts) -> Result<(), MetaError> {
        let volumes = parts.disks.volumes();
        self.disks.retain(|disk, _| volumes.iter().any(|volume| volume.id() == *disk));
        watch(parts).await?;
        for (disk, folder) in parts.board.take_doubts() {
            if let Some(known) = self.disks.get_mut(&disk) {
                known.doubt(folder);
            }
        }
        for volume in volumes {
            // What a disk that is gone does not have is not missing: it is for the agent to give the disk up.
            if !matches!(volume.status().health, Health::Ok | Health::Suspect) {
                self.disks.remove(&volume.id());
                continue;
            }
            self.compare(parts, &volume).await?;
        }
        parts.board.compared(|totals| totals.passes += 1);
        Ok(())
    }

    async fn compare(&mut self, parts: &RepairParts, volume: &Arc<Volume>) -> Result<(), MetaError> {
        let known = self.disks.entry(volume.id()).or_default();
        // First what is touched, then the stamps: what changes in between is read once too often, never too seldom.
        let touched = volume.take_touched();
        let stamps = match volume.folder_stamps().await {
            Ok(stamps) => stamps,
            Err(error) => {
                tracing::debug!(disk = %volume.id(), %error, "a disk is compared with the metadata another time");
                self.disks.remove(&volume.id());
                return Ok(());
            }
        };
        let due: BTreeSet<u8> = known.due(&stamps, &touched, Instant::now()).into_iter().collect();
        for folder in 0..FOLDERS {
            let folder = folder as u8;
            let mut one = One { parts, volume, known: &mut *known, folder };
            let mut names = match due.contains(&folder) {
                true => one.list().await,
                false => None,
            };
            // The other side is asked for after this one: what was put meanwhile is in both, or in none.
            let Some(placed) = parts.meta.placed_folder(volume.id(), folder) else { return Ok(()) };
            if one.known.differing(folder, &placed).is_empty() {
                continue;
            }
            if names.is_none() {
                names = one.list().await;
            }
            let (Some(names), Some(placed)) = (names, parts.meta.placed_folder(volume.id(), folder)) else { continue };
            for leaf in one.known.differing(folder, &placed) {
                if one.look_into(leaf, &names).await? {
                    one.known.explained(leaf, &placed);
                }
            }
        }
        Ok(())
    }
}

/// One folder of a disk.
struct One<'a> {
    parts: &'a RepairParts,
    volume: &'a Volume,
    known: &'a mut Folders,
    folder: u8,
}

impl One<'_> {
    /// Reads its names; `None` when they cannot be.
    async fn list(&mut self) -> Option<BTreeSet<ShardKey>> {
        let began = Instant::now();
        let names = match self.volume.list_shards_in(self.folder).await {
            Ok(names) => names,
            Err(error) => {
                tracing::debug!(disk = %self.volume.id(), folder = self.folder, %error, "a folder could not be read");
                self.known.forget(self.folder);
                return None;
            }
        };
        self.known.listed(self.folder, folder_sums(names.iter().copied()), began);
        self.parts.board.compared(|totals: &mut AntiEntropy| totals.folders_read += 1);
        rest(began.elapsed(), REST_PERCENT).await;
        Some(names.into_iter().collect())
    }

    /// Whether all that should be of a leaf is there. What is not is looked at, and told where it is really missing.
    async fn look_into(&self, leaf: Leaf, names: &BTreeSet<ShardKey>) -> Result<bool, MetaError> {
        let began = Instant::now();
        let placed = self.parts.meta.placed_in(self.volume.id(), leaf).await?;
        let missing: Vec<_> = placed.into_iter().filter(|placed| !names.contains(&placed.shard)).collect();
        self.parts.board.compared(|totals: &mut AntiEntropy| {
            totals.ranges_examined += 1;
            totals.missing += missing.len() as u64;
        });
        for shard in &missing {
            check_named(self.parts, &shard.bucket, &shard.key).await?;
        }
        rest(began.elapsed(), REST_PERCENT).await;
        Ok(missing.is_empty())
    }
}
