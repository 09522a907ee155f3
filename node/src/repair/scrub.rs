//! The scrub: reads every shard of a disk back, whether anyone asks for it or not, at a pace that spreads one pass over
//! its period.

use std::sync::Arc;
use std::time::Duration;

use rand::RngCore;
use tokio::time::{Instant, sleep, sleep_until};

use super::throttle::Throttle;
use super::{FoundBy, RepairParts, Suspect, SuspectKind};
use crate::disk::{Health, ShardVerdict, Volume};
use crate::types::ShardKey;

/// Pause before a disk that has nothing to scrub, or that is not well, is looked at again.
const IDLE_PAUSE: Duration = Duration::from_secs(10);

/// Scrubs one disk for ever.
pub(super) async fn run(parts: Arc<RepairParts>, volume: Arc<Volume>) {
    let throttle = Throttle::new(parts.scrub.rate_bytes_per_second);
    let mut rng = parts.host.rand.fork("repair.scrub");
    parts.board.scrubs(volume.id());
    loop {
        let began = Instant::now();
        let mut shards = match volume.list_shards().await {
            Ok(shards) if !shards.is_empty() => shards,
            Ok(_) => {
                sleep(IDLE_PAUSE.min(parts.scrub.period)).await;
                continue;
            }
            Err(error) => {
                tracing::debug!(disk = %volume.id(), %error, "the scrub cannot list this disk");
                sleep(IDLE_PAUSE).await;
                continue;
            }
        };
        // A node that is restarted often must not scrub the same first shards again and again.
        let start = (rng.next_u64() % shards.len() as u64) as usize;
        shards.rotate_left(start);
        let total = shards.len();
        for (index, shard) in shards.into_iter().enumerate() {
            wait_until_well(&volume).await;
            scrub(&parts, &volume, &throttle, shard).await;
            // Spread evenly over the period, by number: shards of one cluster are of one order of size.
            sleep_until(began + parts.scrub.period.mul_f64((index + 1) as f64 / total as f64)).await;
        }
        parts.board.pass_finished(volume.id());
    }
}

async fn wait_until_well(volume: &Volume) {
    while !matches!(volume.status().health, Health::Ok | Health::Suspect) {
        sleep(IDLE_PAUSE).await;
    }
}

async fn scrub(parts: &RepairParts, volume: &Volume, throttle: &Throttle, shard: ShardKey) {
    let (expected, got, detail) = match volume.verify_shard(shard).await {
        Ok(ShardVerdict::Ok { bytes }) => {
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
