//! Collects replaced versions: on the leader, once nobody can be reading them any more.
//!
//! Must never: touch a shard before the version is forbidden; judge age by wall time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::RepairParts;
use crate::meta::{MetaError, Role};
use crate::model::{Command, GarbageRecord, Outcome};
use crate::types::{ShardIndex, Version};

/// Versions looked at per round. More wait for the next: their shards only take room a little longer.
const ROUND: usize = 4096;

/// Rounds come at least this often and at most once a second; in between, often enough for the read deadline to be met
/// within a quarter.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Collects for ever, while this node leads.
pub(super) async fn run(parts: Arc<RepairParts>) {
    let pause = (parts.read_deadline / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    let mut seen = BTreeMap::new();
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = parts.board.collection_requested() => {}
        }
        if parts.meta.status().role != Role::Leader || parts.meta.map().collection_held {
            // Another leader counts anew, from when it first sees the record: later, never earlier.
            seen.clear();
        } else if let Err(error) = round(&parts, &mut seen).await {
            tracing::debug!(%error, "replaced versions wait for the next round");
        }
    }
}

async fn round(parts: &RepairParts, seen: &mut BTreeMap<Version, Instant>) -> Result<(), MetaError> {
    let now = Instant::now();
    let mut still = BTreeMap::new();
    let mut due = Vec::new();
    for version in parts.meta.garbage_versions(ROUND).await? {
        let since = seen.get(&version).copied().unwrap_or(now);
        still.insert(version, since);
        if now - since >= parts.read_deadline {
            due.push(version);
        }
    }
    *seen = still;
    for version in due {
        // One at a time: the record of a large object has some megabytes.
        if let Some(record) = parts.meta.garbage(version).await? {
            collect(parts, &record).await?;
        }
        seen.remove(&version);
    }
    Ok(())
}

/// Forbids the version, and with it all that its extents were uploaded under, then has its homes move its shards aside. A
/// home that is away keeps them until its own search for orphans finds them forbidden.
async fn collect(parts: &RepairParts, record: &GarbageRecord) -> Result<(), MetaError> {
    let version = record.object.version;
    if !matches!(parts.meta.propose(Command::ForbidVersion { version }).await?, Outcome::Done) {
        return Ok(());
    }
    let homes = record.object.extents.iter().flat_map(|extent| {
        let shards = (0u8..).map(ShardIndex).zip(&extent.homes);
        shards.filter_map(|(shard, home)| Some((home.at?, extent.id.shard(shard))))
    });
    parts.shards.discard_all(homes.collect()).await;
    Ok(())
}
