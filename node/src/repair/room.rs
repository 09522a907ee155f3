//! Room on full disks: what the metadata gave up is kept aside for a day, but not while clients are refused for want of it.
//!
//! Must never: remove what this node alone judged (orphans, corrupt shards): that judgement may have been wrong. Remove anything
//! while collection is held: what a forced epoch gave up may be asked for by the one before it (`recover-quorum --undo`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::RepairParts;

/// How often disks are looked at. Their figures are in memory, and a client that deleted to make room waits so long.
const PAUSE: Duration = Duration::from_secs(5);

/// Below this part of a disk's size there is no room to keep what nobody can read: a tenth, so that it is gone before
/// puts are refused.
const LOW_PART: u64 = 10;

/// Looks for ever.
pub(super) async fn run(parts: Arc<RepairParts>) {
    loop {
        sleep(PAUSE).await;
        if parts.meta.map().collection_held {
            continue;
        }
        for volume in parts.disks.volumes() {
            let status = volume.status();
            if status.available_bytes >= status.total_bytes / LOW_PART {
                continue;
            }
            match volume.purge_replaced().await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(disk = %volume.id(), removed, "replaced shards made room on a full disk"),
                Err(error) => tracing::debug!(disk = %volume.id(), %error, "a full disk stays full for now"),
            }
        }
    }
}
