//! The check: finds what should be on our disks and is not there ([`super::compare`]), the shards that have no home and belong
//! here, and settles stand-ins whose home is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::{Instant, sleep};

use super::board::{Again, Why, job_of};
use super::target::{delivery_of, target_of};
use super::throttle::rest;
use super::walks::{Walked, Walks};
use super::{Board, FoundBy, Only, RepairParts, Suspect, SuspectKind, compare, holder_of};
use crate::disk::{DiskError, Health, shard_file_bytes};
use crate::gateway::ExtentSpec;
use crate::meta::{Counts, MetaError};
use crate::model::{
    ClusterMap, Command, DEFAULT_REPAIR_PRIORITY, DiskState, Home, ObjectRecord, Outcome, accounted_bucket,
};
use crate::placement::settled;
use crate::state::Unsettled;
use crate::types::{BucketName, DiskId, ShardIndex, ShardKey};

/// Objects per step of the walk: one read transaction, one rest.
pub(super) const PAGE: usize = 256;

/// Rest after each step, in percent of what it took: the walk never has the disk for more than half of the time.
const REST_PERCENT: u32 = 100;

/// Looks for ever: at each interval, whenever the cluster map changes, and when asked.
pub(super) async fn run(parts: Arc<RepairParts>) {
    let mut maps = parts.meta.map_changes();
    let (mut asked, mut walks) = (false, Walks::default());
    loop {
        if maps.borrow_and_update().has_changed() {
            walks.anew();
        }
        if let Err(error) = round(&parts, asked, &mut walks).await {
            // What was asked for, or called for, is still to be done.
            walks.anew();
            tracing::warn!(%error, "the check of what should be on this node's disks was cut short");
        }
        let pause = sleep(parts.repair.check_interval);
        asked = tokio::select! {
            () = pause => false,
            Ok(()) = maps.changed() => {
                walks.anew();
                false
            }
            () = parts.board.check_requested() => true,
        };
    }
}

/// One look: at what is known to be out of place. At all objects only when somebody asks for it or that
/// is the only way to find what is to be done.
async fn round(parts: &RepairParts, asked: bool, walks: &mut Walks) -> Result<(), MetaError> {
    try_again(parts).await;
    compare::watch(parts).await?;
    let map = parts.meta.map();
    // Whether its host is there or not: one that is away takes nothing back. A disk that is forgotten is asked about no more.
    parts.board.forget_moves(|disk| !map.is_emptied(disk));
    let walks_now = asked || walks.is_due(Instant::now(), parts.board.has_room());
    let everything = asked || (walks_now && is_left_behind(&map, &parts.meta.counts()));
    match parts.meta.unsettled() {
        Unsettled::These(versions) if !everything => {
            for version in versions {
                if let Some((bucket, key)) = parts.meta.owner_of(version).await? {
                    let began = Instant::now();
                    check_named(parts, &bucket, &key).await?;
                    rest(began.elapsed(), REST_PERCENT).await;
                }
            }
            Ok(())
        }
        _ if !walks_now => Ok(()),
        unsettled => {
            let walked = pass(parts, &Only::Any).await?;
            walks.walked(Instant::now(), parts.repair.check_interval, walked);
            if unsettled == Unsettled::TooMany {
                // Perhaps they are not any more: counted anew at the next look.
                parts.meta.watch_disks(BTreeSet::new()).await?;
            }
            Ok(())
        }
    }
}

/// Whether shards lie where they may not stay: on disks that are emptied or given up. Each of them looks settled by itself.
fn is_left_behind(map: &ClusterMap, counts: &Counts) -> bool {
    counts
        .shards_by_disk
        .iter()
        .any(|(disk, shards)| *shards > 0 && map.disk_state(*disk).is_none_or(DiskState::is_left))
}

/// Records that cannot be read in one look, before the rest is left for the next: then it is the metadata, and not they.
const MAX_UNREAD: u32 = 3;

/// What failed since the last look is put into the queue again, whoever had found it; and what had no place there, once it has. What
/// this does not come to stays for the next look.
async fn try_again(parts: &RepairParts) {
    let (mut waiting, mut unread) = (parts.board.take_unmended(), 0);
    while let Some((why, again)) = waiting.next() {
        if unread == MAX_UNREAD || (why == Why::LeftOut && !parts.board.has_room()) {
            return;
        }
        match queue_again(parts, again).await {
            Ok(()) => waiting.settled(),
            Err(error) => {
                tracing::debug!(%error, "a shard that is to be rebuilt again is left for the next look");
                unread += 1;
                waiting.put_off();
            }
        }
    }
}

async fn queue_again(parts: &RepairParts, (bucket, key, shard, disk): Again) -> Result<(), MetaError> {
    let Some((bucket, key, record)) = holder_of(&parts.meta, &bucket, &key, shard.extent_id()).await? else {
        return Ok(());
    };
    let priority = priority_of(parts, &mut BTreeMap::new(), accounted_bucket(&bucket, &key)).await?;
    let (kind, found_by, detail) = (SuspectKind::Corrupt, FoundBy::Check, String::new());
    let suspect = Suspect { bucket, key, shard, disk, kind, found_by, detail };
    if let Some(job) = job_of(&parts.meta.map(), &record, &suspect, priority) {
        // Without a place it is remembered anew.
        parts.board.push(job);
    }
    Ok(())
}

/// One walk over all objects, for the part of the shards that is meant.
pub(super) async fn pass(parts: &RepairParts, only: &Only) -> Result<Walked, MetaError> {
    let map = parts.meta.map();
    parts.board.forget_moves(|disk| !map.is_emptied(disk));
    let (mut after, mut walked) = (None, Walked::default());
    let mut priorities = BTreeMap::new();
    loop {
        let began = Instant::now();
        let map = parts.meta.map();
        let scan = parts.meta.scan(after.take(), PAGE).await?;
        for (bucket, key, record) in &scan.objects {
            let priority = priority_of(parts, &mut priorities, accounted_bucket(bucket, key)).await?;
            walked.new += check_object(parts, &map, &Checked { bucket, key, record, priority }, only).await;
            walked.full |= !parts.board.has_room();
        }
        if scan.end {
            return Ok(walked);
        }
        after = scan.objects.last().map(|(bucket, key, _)| (bucket.clone(), key.clone()));
        rest(began.elapsed(), REST_PERCENT).await;
    }
}

/// Looks at one object, if it is still there.
pub(super) async fn check_named(parts: &RepairParts, bucket: &BucketName, key: &str) -> Result<(), MetaError> {
    let Some(record) = parts.meta.object(bucket, key).await? else { return Ok(()) };
    let priority = priority_of(parts, &mut BTreeMap::new(), accounted_bucket(bucket, key)).await?;
    check_object(parts, &parts.meta.map(), &Checked { bucket, key, record: &record, priority }, &Only::Any).await;
    Ok(())
}

/// The repair priority of a bucket, asked for once per pass.
async fn priority_of(
    parts: &RepairParts,
    known: &mut BTreeMap<BucketName, u8>,
    bucket: BucketName,
) -> Result<u8, MetaError> {
    if let Some(priority) = known.get(&bucket) {
        return Ok(*priority);
    }
    let record = parts.meta.bucket(&bucket).await?;
    let priority = record.map_or(DEFAULT_REPAIR_PRIORITY, |record| record.repair_priority);
    known.insert(bucket, priority);
    Ok(priority)
}

/// An object being looked at.
struct Checked<'a> {
    bucket: &'a BucketName,
    key: &'a str,
    record: &'a ObjectRecord,
    priority: u8,
}

/// How many jobs of it are new.
async fn check_object(parts: &RepairParts, map: &ClusterMap, object: &Checked<'_>, only: &Only) -> u64 {
    let Checked { bucket, key, record, priority } = *object;
    let mut new = 0;
    for extent in &record.extents {
        let spec = ExtentSpec::of(bucket, key, record, extent);
        for (shard, home) in (0u8..).map(ShardIndex).zip(&extent.homes) {
            settle(parts, map, &spec, shard, *home).await;
            let Some(found) = look(parts, map, &spec, shard, *home).await else { continue };
            if !only.means(found.disk, bucket) {
                continue;
            }
            let Some(job) = job_of(map, record, &found, priority) else { continue };
            // A shard that lost its home with a disk or an upload is known to everybody: that is no finding.
            if home.at == Some(found.disk) {
                parts.board.note(found);
            }
            new += u64::from(parts.board.push(job));
        }
    }
    new
}

/// A shard that one of our disks has in place of a home that will not take it any more: from now on it belongs here, or
/// where it stands better. No byte moves for it.
async fn settle(parts: &RepairParts, map: &ClusterMap, spec: &ExtentSpec, shard: ShardIndex, home: Home) {
    let Some(at) = home.at.filter(|at| *at != home.wanted && parts.disks.volume(*at).is_some()) else { return };
    let Some(wanted) = settled(map, spec.id.version, spec.id.index, spec.coding, &spec.homes, shard) else { return };
    let command = Command::SetHome {
        bucket: spec.bucket.clone(),
        key: spec.key.clone(),
        shard: spec.shard(shard),
        expected: home.at,
        at: home.at,
        wanted,
    };
    match parts.meta.propose(command).await {
        // It moved or was deleted meanwhile: the next pass sees what became of it.
        Ok(Outcome::Done | Outcome::Refused(_)) => {}
        Ok(other) => tracing::warn!(shard = %spec.shard(shard), ?other, "an unexpected outcome of settling a stand-in"),
        Err(error) => tracing::debug!(shard = %spec.shard(shard), disk = %at, %error, "a stand-in is settled later"),
    }
}

/// What is wrong with one shard, if this node is the one to do something about it.
async fn look(
    parts: &RepairParts,
    map: &ClusterMap,
    spec: &ExtentSpec,
    shard: ShardIndex,
    home: Home,
) -> Option<Suspect> {
    let key = spec.shard(shard);
    remember_move(&parts.board, map, home, key);
    // Asking for a replacement is the costly part: most shards are simply where they should be.
    let ours = |disk: &DiskId| parts.disks.volume(*disk).is_some();
    let target = delivery_of(map, home).filter(ours).or_else(|| target_of(map, spec, shard))?;
    let volume = parts.disks.volume(target)?;
    // What a disk that is gone does not have is not missing: it is for the agent to give the disk up.
    if !matches!(volume.status().health, Health::Ok | Health::Suspect) {
        return None;
    }
    let suspect = |kind, detail: String| Suspect {
        bucket: spec.bucket.clone(),
        key: spec.key.clone(),
        shard: key,
        disk: target,
        kind,
        found_by: FoundBy::Check,
        detail,
    };
    match home.at {
        Some(at) if at == target => {}
        Some(_) if target == home.wanted => {
            return Some(suspect(SuspectKind::Missing, "a stand-in has it: it is fetched".to_owned()));
        }
        _ => return Some(suspect(SuspectKind::Missing, "it has no home".to_owned())),
    }
    match volume.stat_shard(key).await {
        Ok(Some(bytes)) if bytes == file_bytes(spec) => None,
        Ok(Some(bytes)) => {
            let expected = file_bytes(spec);
            Some(suspect(SuspectKind::Corrupt, format!("its file has {bytes} bytes, not {expected}")))
        }
        Ok(None) | Err(DiskError::Missing { .. }) => {
            Some(suspect(SuspectKind::Missing, "its file is not there".to_owned()))
        }
        Err(error) => {
            tracing::debug!(shard = %key, %error, "a shard could not be looked at");
            None
        }
    }
}

fn remember_move(board: &Board, map: &ClusterMap, home: Home, key: ShardKey) {
    if let Some(disk) = home.at
        && map.disk_state(disk).is_some_and(DiskState::is_left)
    {
        board.moves_from(disk, key);
    }
}

fn file_bytes(spec: &ExtentSpec) -> u64 {
    shard_file_bytes(spec.coding, spec.block_bytes, spec.len_bytes)
}
