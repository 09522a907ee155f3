//! Looks at the shards of a disk that somebody could not read: a client, a rebuild, the check. Whoever met the error did not wait,
//! and says nothing of it; the disk that has the shard is where it can be told what it means.
//!
//! Must never: tell of a shard while its disk does not serve: that is the disk's matter, however many shards it has.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::scrub::look;
use super::{FoundBy, RepairParts};
use crate::disk::{Health, Volume};

/// Pause after a look that told nothing, because the disk fails or could not be asked: a shard in doubt must not keep it busy.
const AGAIN: Duration = Duration::from_secs(10);

/// Looks at one disk's for ever. They are few, and redundancy may be lost: no pace of its own holds it back.
pub(super) async fn run(parts: Arc<RepairParts>, volume: Arc<Volume>) {
    let mut health = volume.health_changes();
    loop {
        let shard = volume.doubted().await;
        // The sender lives in the volume.
        let _ = health.wait_for(|report| report.health == Health::Ok).await;
        match look(&parts, &volume, shard, FoundBy::Read).await {
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(disk = %volume.id(), %shard, %error, "a shard that could not be read is looked at later");
                sleep(AGAIN).await;
            }
        }
    }
}
