//! The scrub: reads every shard of a disk back, whether anyone asks for it or not, at a pace that spreads one pass over
//! its period.

use std::sync::Arc;
use std::time::Duration;

use rand::RngCore;
use tokio::time::{Instant, sleep, sleep_until};

use super::throttle::Throttle;
use super::{FoundBy, RepairParts, Suspect, SuspectKind};
use crate::disk::{DiskError, Health, ShardVerdict, Volume};
use crate::types::ShardKey;

/// Pause before a disk that has nothing to scrub, or cannot be listed, is looked at again.
const IDLE_PAUSE: Duration = Duration::from_secs(10);

/// Folders of a disk, by the first byte of their shards' versions: scrubbed one after another, so that memory does not
/// grow with the disk.
const FOLDERS: u32 = 256;

/// Scrubs one disk for ever.
pub(super) async fn run(parts: Arc<RepairParts>, volume: Arc<Volume>) {
    let throttle = Throttle::new(parts.scrub.rate_bytes_per_second);
    let mut rng = parts.host.rand.fork("repair.scrub");
    parts.board.scrubs(volume.id());
    loop {
        // A node that is restarted often must not scrub the same first shards again and again.
        let first = rng.next_u32() % FOLDERS;
        match pass(&parts, &volume, &throttle, first).await {
            Ok(0) => sleep(IDLE_PAUSE.min(parts.scrub.period)).await,
            Ok(_) => parts.board.pass_finished(volume.id()),
            Err(error) => {
                tracing::debug!(disk = %volume.id(), %error, "the scrub of this disk was cut short");
                sleep(IDLE_PAUSE).await;
            }
        }
    }
}

/// One pass, spread evenly over the period; answers how many shards it saw.
async fn pass(parts: &RepairParts, volume: &Volume, throttle: &Throttle, first: u32) -> Result<u64, DiskError> {
    let began = Instant::now();
    let mut health = volume.health_changes();
    let mut seen = 0;
    for turn in 0..FOLDERS {
        let folder = ((first + turn) % FOLDERS) as u8;
        let shards = volume.list_shards_in(folder).await?;
        let count = shards.len() as f64;
        for (index, shard) in shards.into_iter().enumerate() {
            parts.board.unthrottled().await;
            // The sender lives in the volume.
            let _ = health.wait_for(|report| matches!(report.health, Health::Ok | Health::Suspect)).await;
            scrub(parts, volume, throttle, shard).await;
            seen += 1;
            let part = (f64::from(turn) + (index + 1) as f64 / count) / f64::from(FOLDERS);
            sleep_until(began + parts.scrub.period.mul_f64(part)).await;
        }
    }
    if seen > 0 {
        sleep_until(began + parts.scrub.period).await;
    }
    Ok(seen)
}

async fn scrub(parts: &RepairParts, volume: &Volume, throttle: &Throttle, shard: ShardKey) {
    let (expected, got, detail) = match volume.verify_shard(shard).await {
        Ok(ShardVerdict::Ok { bytes, .. }) => {
            parts.board.scrubbed(bytes);
            // Paid afterwards: the length is known by now.
            return throttle.take(bytes).await;
        }
        // Collected meanwhile; should it be missed, the check pass says so.
        Ok(ShardVerdict::Missing) => return,
        Ok(ShardVerdict::Corrupt { expected, got, detail }) => (expected, got, detail),
        Err(error) => {
            tracing::debug!(disk = %volume.id(), %shard, %error, "a shard could not be scrubbed");
            return;
        }
    };
    // Nobody's shard is nobody's loss: the collection of orphans will have it.
    let Ok(Some((bucket, key))) = parts.meta.owner_of(shard.version).await else { return };
    let suspect = Suspect {
        bucket,
        key,
        shard,
        disk: volume.id(),
        kind: SuspectKind::Corrupt,
        found_by: FoundBy::Scrub,
        detail: format!("{detail} (crc32c {got:08x}, expected {expected:08x})"),
    };
    parts.board.suspect(&parts.meta, suspect).await;
}
