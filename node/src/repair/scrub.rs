//! The scrub: reads every shard of a disk back, whether anyone asks for it or not, at a pace that spreads one pass over
//! its period. It rests while clients need the disk ([`super::pressure`]: a shard in turn, if that has no end), and goes on where
//! it was after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngCore;
use tokio::time::{Instant, sleep, sleep_until};

use super::pace::Pace;
use super::pressure::Pressure;
use super::throttle::Throttle;
use super::{FoundBy, RepairParts, Suspect, SuspectKind};
use crate::disk::{DiskError, Health, ShardVerdict, Volume, Walk, WalkKind};
use crate::types::{DiskId, ShardKey};

/// Pause before a disk that has nothing to scrub, or cannot be listed, is looked at again.
const IDLE_PAUSE: Duration = Duration::from_secs(10);

/// Scrubs one disk for ever.
pub(super) async fn run(parts: Arc<RepairParts>, volume: Arc<Volume>) {
    let throttle = Throttle::new(parts.scrub.rate_bytes_per_second);
    let mut rng = parts.host.rand.fork("repair.scrub");
    // Without a word from before, anywhere: a node that forgets must not scrub the same first shards again and again.
    let fresh = Walk { first: rng.next_u32() as u8, ..Walk::default() };
    parts.board.scrubs(volume.id());
    loop {
        let walk = volume.walk(WalkKind::Scrub).await.unwrap_or(fresh);
        match pass(&parts, &volume, &throttle, walk).await {
            Ok(0) => sleep(IDLE_PAUSE.min(parts.scrub.period)).await,
            Ok(_) => parts.board.pass_finished(volume.id()),
            Err(error) => {
                tracing::debug!(disk = %volume.id(), %error, "the scrub of this disk was cut short");
                sleep(IDLE_PAUSE).await;
            }
        }
    }
}

/// The rest of a pass, spread evenly over what is left of the period; answers how many shards it saw, 0 only of a disk that
/// has none.
async fn pass(parts: &RepairParts, volume: &Volume, throttle: &Throttle, walk: Walk) -> Result<u64, DiskError> {
    let pace = Pace::resume(parts.scrub.period, walk, Instant::now());
    let mut health = volume.health_changes();
    let mut pressures = parts.board.pressures();
    let own = volume.id();
    let mut used = 0;
    // Folders before a restart may have had them.
    let mut seen = u64::from(walk.done > 0 && volume.status().shards > 0);
    for (turn, folder) in pace.left() {
        let shards = volume.list_shards_in(folder).await?;
        let count = shards.len() as f64;
        for (index, shard) in shards.into_iter().enumerate() {
            parts.board.unthrottled().await;
            // The sender lives in the volume.
            let _ = health.wait_for(|report| matches!(report.health, Health::Ok | Health::Suspect)).await;
            // Nor does the board end before its tasks. What is late is made up for at the rate that is allowed.
            let free =
                |all: &BTreeMap<DiskId, Pressure>| all.get(&own).copied().unwrap_or_default().lets_through(&mut used);
            let _ = pressures.wait_for(free).await;
            scrub(parts, volume, throttle, shard).await;
            seen += 1;
            sleep_until(pace.due(turn, (index + 1) as f64 / count)).await;
        }
        volume.keep_walk(WalkKind::Scrub, pace.after(turn, Instant::now())).await;
    }
    if seen > 0 {
        sleep_until(pace.due(255, 1.0)).await;
    }
    Ok(seen)
}

async fn scrub(parts: &RepairParts, volume: &Volume, throttle: &Throttle, shard: ShardKey) {
    match look(parts, volume, shard, FoundBy::Scrub).await {
        Ok(Some(bytes)) => {
            parts.board.scrubbed(bytes);
            // Paid afterwards: the length is known by now.
            throttle.take(bytes).await;
        }
        Ok(None) => {}
        // The disk's matter: what could not be read is in doubt until the disk serves.
        Err(error) => tracing::debug!(disk = %volume.id(), %shard, %error, "a shard could not be scrubbed"),
    }
}

/// Reads a shard back; the bytes of a sound one. What is bad is told, and rebuilt.
pub(super) async fn look(
    parts: &RepairParts,
    volume: &Volume,
    shard: ShardKey,
    found_by: FoundBy,
) -> Result<Option<u64>, DiskError> {
    let (expected, got, detail) = match volume.verify_shard(shard).await? {
        ShardVerdict::Ok { bytes, .. } => return Ok(Some(bytes)),
        // Collected meanwhile; should it be missed, the check pass says so.
        ShardVerdict::Missing => return Ok(None),
        ShardVerdict::Corrupt { expected, got, detail } => (expected, got, detail),
    };
    // Nobody's shard is nobody's loss: the collection of orphans will have it.
    let Ok(Some((bucket, key))) = parts.meta.owner_of(shard.version).await else { return Ok(None) };
    // Where it is not about a checksum there are none to name.
    let detail = match expected == got {
        true => detail,
        false => format!("{detail} (crc32c {got:08x}, expected {expected:08x})"),
    };
    let (disk, kind) = (volume.id(), SuspectKind::Corrupt);
    parts.board.suspect(&parts.meta, Suspect { bucket, key, shard, disk, kind, found_by, detail }).await;
    Ok(None)
}
