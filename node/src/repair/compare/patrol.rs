//! The full comparison: each shard that the metadata places on a disk is asked for by name and length, folder by folder, spread
//! over a period and going on where it was after a restart.
//!
//! It trusts neither sums nor time stamps, and has the other comparison trust its own no longer for each folder it has done.

use std::sync::Arc;
use std::time::Duration;

use rand::RngCore;
use tokio::time::{Instant, sleep, sleep_until};

use super::super::RepairParts;
use super::super::check::check_named;
use super::super::pace::Pace;
use super::super::throttle::rest;
use crate::disk::{DiskError, Health, Volume, Walk, WalkKind};
use crate::meta::MetaError;
use crate::state::shards::leaves_of;

/// Pause before a disk that does not answer, or metadata that does not, is asked again.
const AGAIN: Duration = Duration::from_secs(10);

/// Rest after a leaf was looked at, in percent of what it took: asking for a length may be a trip of a disk's arm.
const REST_PERCENT: u32 = 1900;

/// Walks one disk for ever.
pub(in crate::repair) async fn run(parts: Arc<RepairParts>, volume: Arc<Volume>) {
    let mut rng = parts.host.rand.fork("repair.compare");
    let fresh = Walk { first: rng.next_u32() as u8, ..Walk::default() };
    loop {
        let walk = volume.walk(WalkKind::Compare).await.unwrap_or(fresh);
        if let Err(error) = pass(&parts, &volume, walk).await {
            tracing::debug!(disk = %volume.id(), %error, "the comparison of this disk was cut short");
            sleep(AGAIN).await;
        }
    }
}

/// The rest of a pass.
async fn pass(parts: &RepairParts, volume: &Volume, walk: Walk) -> Result<(), MetaError> {
    let pace = Pace::resume(parts.repair.full_check_period, walk, Instant::now());
    let mut health = volume.health_changes();
    for (turn, folder) in pace.left() {
        // The sender lives in the volume.
        let _ = health.wait_for(|report| matches!(report.health, Health::Ok | Health::Suspect)).await;
        compare(parts, volume, folder).await?;
        volume.keep_walk(WalkKind::Compare, pace.after(turn, Instant::now())).await;
        sleep_until(pace.due(turn, 1.0)).await;
    }
    parts.board.compared(|totals| totals.full_passes += 1);
    Ok(())
}

/// Asks for each shard of a folder.
async fn compare(parts: &RepairParts, volume: &Volume, folder: u8) -> Result<(), MetaError> {
    for leaf in leaves_of(folder) {
        let began = Instant::now();
        for placed in parts.meta.placed_in(volume.id(), leaf).await? {
            let there = match volume.stat_shard(placed.shard).await {
                Ok(there) => there,
                Err(DiskError::Missing { .. }) => None,
                // The disk does not answer: that says nothing about a shard.
                Err(_) => continue,
            };
            if there != Some(placed.file_bytes) {
                check_named(parts, &placed.bucket, &placed.key).await?;
            }
        }
        rest(began.elapsed(), REST_PERCENT).await;
    }
    parts.board.doubt(volume.id(), folder);
    Ok(())
}
