//! Collects what nobody owns: shards of uploads that were never committed, of versions collected while this node was
//! away, and copies of shards that live elsewhere by now.
//!
//! Must never: move a shard aside whose version could still become, or be, what a reader needs. In this order: old enough
//! as seen by this process; the version forbidden, applied here; still no owner; only then aside. Nor a copy of a shard that
//! lives elsewhere before the other one was read back: of a host that was out and is back, it may be the last that is good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::RepairParts;
use super::throttle::rest;
use crate::disk::{REPLACED, ShardVerdict, Volume};
use crate::meta::MetaError;
use crate::model::{Command, Outcome};
use crate::types::{DiskId, ShardKey};

/// How long a shard must have had no owner under this process's eyes: far longer than any upload takes to commit.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// Orphans only take room: looking for them twice an hour is enough.
const PAUSE: Duration = Duration::from_secs(1800);

/// Orphans remembered at a time. What does not fit is remembered once others are gone.
const MAX_SEEN: usize = 65_536;

/// How long what was moved aside is kept. Long enough for a person to notice a mistake the same day.
const ASIDE_KEEP: Duration = Duration::from_secs(24 * 3600);

/// Looking at a shard is a point read; rest as long as it took.
const REST_PERCENT: u32 = 100;

type Seen = BTreeMap<(DiskId, ShardKey), Instant>;

/// Looks for ever. Begins a while after the start: a node that has just started has better things to do.
pub(super) async fn run(parts: Arc<RepairParts>) {
    let age = ORPHAN_AGE.max(parts.read_deadline * 2);
    let mut seen = Seen::new();
    loop {
        sleep(PAUSE).await;
        if parts.meta.map().collection_held {
            // What nobody owns by this state may be what another one owned: nothing is moved, and nothing removed.
            seen.clear();
            continue;
        }
        for volume in parts.disks.volumes() {
            if let Err(error) = search(&parts, &volume, &mut seen, age).await {
                tracing::debug!(disk = %volume.id(), %error, "the search for orphans was cut short");
            }
            if let Err(error) = volume.purge_aside(ASIDE_KEEP).await {
                tracing::debug!(disk = %volume.id(), %error, "what was moved aside stays a while longer");
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum SearchError {
    #[error(transparent)]
    Meta(#[from] MetaError),
    #[error(transparent)]
    Disk(#[from] crate::disk::DiskError),
}

/// One walk over a disk; answers how many shards were moved aside.
pub(super) async fn search(
    parts: &RepairParts,
    volume: &Volume,
    seen: &mut Seen,
    age: Duration,
) -> Result<u64, SearchError> {
    let mut moved = 0;
    let mut still = Seen::new();
    for folder in 0..=u8::MAX {
        for shard in volume.list_shards_in(folder).await? {
            let began = Instant::now();
            let name = (volume.id(), shard);
            match standing(parts, volume.id(), shard).await? {
                Standing::Owned => {}
                Standing::Forbidden => moved += u64::from(aside(volume, shard, REPLACED).await?),
                standing @ (Standing::Orphan | Standing::Stray(_)) => {
                    let since = seen.get(&name).copied().unwrap_or(began);
                    if since.elapsed() >= age && confirmed(parts, volume.id(), shard, standing).await? {
                        let why = if standing == Standing::Orphan { "orphan" } else { "stray" };
                        moved += u64::from(aside(volume, shard, why).await?);
                    } else if still.len() < MAX_SEEN {
                        still.insert(name, since);
                    }
                }
            }
            rest(began.elapsed(), REST_PERCENT).await;
        }
    }
    seen.retain(|(disk, _), _| *disk != volume.id());
    seen.append(&mut still);
    Ok(moved)
}

async fn aside(volume: &Volume, shard: ShardKey, why: &str) -> Result<bool, SearchError> {
    tracing::info!(disk = %volume.id(), %shard, why, "a shard nobody owns is moved aside");
    Ok(volume.move_aside(shard, why).await?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Metadata places it here.
    Owned,
    /// Its version was given up: it can never be owned again.
    Forbidden,
    /// No object has its version: an upload in flight, garbage that is still readable, or left over.
    Orphan,
    /// Its object has this shard on another disk that can be read: this one.
    Stray(DiskId),
}

async fn standing(parts: &RepairParts, disk: DiskId, shard: ShardKey) -> Result<Standing, MetaError> {
    let Some((bucket, key)) = parts.meta.owner_of(shard.version).await? else {
        let forbidden = parts.meta.forbidden(shard.version).await?;
        return Ok(if forbidden { Standing::Forbidden } else { Standing::Orphan });
    };
    let record = parts.meta.object(&bucket, &key).await?;
    let extent = record.as_ref().and_then(|record| record.extent(shard.extent_id()));
    // It changed between the two reads: the next search knows better.
    let Some(extent) = extent else { return Ok(Standing::Owned) };
    let home = extent.homes.get(shard.shard.as_usize()).copied();
    let map = parts.meta.map();
    let elsewhere = home.filter(|home| home.wanted != disk).and_then(|home| home.at);
    let elsewhere = elsewhere.filter(|at| *at != disk && map.readable(*at));
    Ok(elsewhere.map_or(Standing::Owned, Standing::Stray))
}

/// The second look, at metadata that is not behind. For an orphan the version is forbidden first: from then on no commit
/// can make it anybody's, so that having no owner after that is final. For a stray the shard is read back where it lives.
async fn confirmed(parts: &RepairParts, disk: DiskId, shard: ShardKey, first: Standing) -> Result<bool, MetaError> {
    parts.meta.barrier().await?;
    if standing(parts, disk, shard).await? != first {
        return Ok(false);
    }
    match first {
        Standing::Orphan => {
            let outcome = parts.meta.propose(Command::ForbidVersion { version: shard.version }).await?;
            if !matches!(outcome, Outcome::Done) {
                return Ok(false);
            }
            parts.meta.barrier().await?;
            Ok(standing(parts, disk, shard).await? == Standing::Forbidden)
        }
        Standing::Stray(at) => Ok(matches!(parts.shards.verify(at, shard).await, Ok(ShardVerdict::Ok { .. }))),
        Standing::Owned | Standing::Forbidden => Ok(true),
    }
}
