//! `NodeControl.AddDisk`, `RemoveDisk`, and what a person may not do to a disk.
//!
//! Owns: the order in which a disk comes into service, and the guard over the last good copies. Must never: write to a folder
//! that holds anything but a disk of this node; give a disk up that works without looking at what else there is.
//!
//! Invariant: cut off anywhere and repeated, adding a disk ends the same: the superblock is written first, and says whose the
//! disk is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use resilver_host::planted::{Bug, bug};
use resilver_proto::contract::{AddDiskRequest, AddDiskResponse, RemoveDiskRequest, RemoveDiskResponse};
use tonic::Status;

use super::{Core, Shared, meta_status, own_join};
use crate::disk::{DiskError, DiskSet, Health, KnownDisk, Owner, Volume};
use crate::meta::identity::Identity;
use crate::model::{ClusterMap, Command, DiskState, MarkedBy, ObjectRecord, Outcome, Refusal};
use crate::types::DiskId;

/// Objects looked at in one read transaction.
const PAGE: usize = 256;
/// Looks at all objects before a map that moves on each time is given up on.
const GIVE_UP_TRIES: u32 = 5;

/// The disk of this name.
#[allow(clippy::result_large_err)] // tonic's own error type
pub(super) fn id_of(text: &str) -> Result<DiskId, Status> {
    text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is no disk id: `disk list` shows them")))
}

/// Takes a folder into service.
pub(super) async fn add(shared: &Arc<Shared>, request: AddDiskRequest) -> Result<AddDiskResponse, Status> {
    let core = shared.core()?;
    let disks = shared.disks.get().ok_or_else(|| Status::unavailable("the node is starting"))?;
    let path = PathBuf::from(&request.path);
    check_path(&path, &shared.options.data_dir)?;
    let replaces = if request.replaces.is_empty() { None } else { Some(id_of(&request.replaces)?) };
    let _one = shared.adding.lock().await;
    core.meta.barrier().await.map_err(|error| meta_status(&error))?;
    let map = core.meta.map();
    if let Some(old) = replaces {
        may_be_replaced(shared, disks, &map, old)?;
    }
    let (Some(node), Some(cluster)) = (map.nodes.get(&shared.name), map.cluster) else {
        return Err(Status::unavailable("this node is not in the cluster's map yet"));
    };
    let owner = Owner { node: shared.name.clone(), instance: node.instance, cluster: Some(cluster) };
    let is_here = |volume: &Arc<Volume>| volume.path() == path && serves(volume) && Some(volume.id()) != replaces;
    let here = disks.volumes().into_iter().find(is_here);
    let (volume, made) = match here {
        // Asked for before.
        Some(volume) => (volume, false),
        None => {
            let before: Vec<DiskId> = map.disks.keys().copied().collect();
            let volume = disks.add(&shared.host, &path, &owner).await.map_err(|error| refused(&error))?;
            let made = !before.contains(&volume.id());
            (volume, made)
        }
    };
    disks.stamp(cluster, map.epoch).await.map_err(|error| refused(&error))?;
    let added = !shared.options.disks.iter().any(|configured| configured == volume.path());
    let known = KnownDisk { path: volume.path().to_owned(), id: volume.id(), added, removed: false };
    remember(shared, known, replaces).await?;
    let join = own_join(shared, disks, node.instance, None);
    settle(core.meta.propose(join).await.map_err(|error| meta_status(&error))?)?;
    if core.meta.map().disks.get(&volume.id()).is_some_and(|record| record.state != DiskState::Up) {
        // Whoever adds a disk wants it used, whatever was said of it before.
        let (disk, state, by) = (volume.id(), DiskState::Up, MarkedBy::Operator);
        let reason = request.reason.clone();
        let command = Command::SetDiskState { disk, state, by, reason, judged: None, fence: None };
        settle(core.meta.propose(command).await.map_err(|error| meta_status(&error))?)?;
    }
    if let Some(disk) = replaces.filter(|old| map.disks.get(old).is_some_and(|record| record.state != DiskState::Out)) {
        let reason = format!("replaced by {}: {}", volume.id(), request.reason);
        give_up(shared, core, disk, DiskState::Out, reason).await?;
    }
    tracing::info!(disk = %volume.id(), path = %path.display(), made, reason = request.reason, "a disk was added");
    Ok(AddDiskResponse { disk_id: volume.id().to_string(), made })
}

/// Lets go of a disk of this node, and has the cluster forget it. In this order: a node that went on with it would bring it
/// back into the map when it starts.
pub(super) async fn remove(shared: &Shared, request: &RemoveDiskRequest) -> Result<RemoveDiskResponse, Status> {
    let disk = id_of(&request.disk_id)?;
    let core = shared.core()?;
    let disks = shared.disks.get().ok_or_else(|| Status::unavailable("the node is starting"))?;
    let _one = shared.adding.lock().await;
    core.meta.barrier().await.map_err(|error| meta_status(&error))?;
    let map = core.meta.map();
    let Some(record) = map.disks.get(&disk) else { return Err(Status::not_found(Refusal::NoDisk(disk).to_string())) };
    let shards = core.meta.counts().shards_by_disk.get(&disk).copied().unwrap_or(0);
    if record.state != DiskState::Out || shards > 0 {
        let refusal = Refusal::DiskInUse { disk, state: record.state, shards };
        return Err(Status::failed_precondition(refusal.to_string()));
    }
    if map.nodes.contains_key(&record.node) && record.node != shared.name {
        return Err(Status::failed_precondition(format!(
            "disk {disk} is in node {}, which has to let go of it itself, or it would bring it back: ask that node",
            record.node
        )));
    }
    let in_use = |volume: &Arc<Volume>| {
        let known = map.disks.get(&volume.id());
        volume.id() != disk && serves(volume) && known.is_none_or(|record| record.state != DiskState::Out)
    };
    if !disks.volumes().iter().any(in_use) {
        return Err(Status::failed_precondition("no other disk of this node is in use: add one first"));
    }
    let path = PathBuf::from(&record.path);
    let known = KnownDisk { path, id: disk, added: false, removed: true };
    remember(shared, known, None).await?;
    disks.remove(disk);
    settle(core.meta.propose(Command::ForgetDisk { disk }).await.map_err(|error| meta_status(&error))?)?;
    tracing::info!(%disk, "a disk was removed");
    Ok(RemoveDiskResponse {})
}

/// Takes into service the disks that the cluster's map has of this node and that nobody told this process of: they were added
/// while it ran, and what remembered them is lost.
pub(crate) async fn adopt(shared: &Shared, disks: &DiskSet) {
    let Some(core) = shared.core.get() else { return };
    let map = core.meta.map();
    let (Some(node), Some(cluster)) = (map.nodes.get(&shared.name), map.cluster) else { return };
    let owner = Owner { node: shared.name.clone(), instance: node.instance, cluster: Some(cluster) };
    let _one = shared.adding.lock().await;
    let missing = map
        .disks
        .values()
        .filter(|disk| disk.node == shared.name && disk.state != DiskState::Out && disks.volume(disk.id).is_none());
    for disk in missing {
        let path = PathBuf::from(&disk.path);
        // Only what says itself that it is this disk: an empty folder at its path is not.
        let stamp = crate::disk::owner_on(&shared.host, &path).await;
        if stamp.is_none_or(|stamp| stamp.instance != node.instance) {
            continue;
        }
        let added = async {
            let volume = disks.add(&shared.host, &path, &owner).await.map_err(|error| refused(&error))?;
            let known = KnownDisk { path: path.clone(), id: volume.id(), added: true, removed: false };
            remember(shared, known, None).await
        };
        match added.await {
            Ok(()) => tracing::info!(disk = %disk.id, path = %path.display(), "a disk of this node was taken back"),
            Err(error) => {
                tracing::warn!(disk = %disk.id, path = %path.display(), error = error.message(), "a disk of this node stays out")
            }
        }
    }
}

/// Has a disk be used no more, by a person's word. Judged by one revision of the map, and refused by any other: two of these at
/// a time must not each count upon the disk that the other one takes.
pub(super) async fn give_up(
    shared: &Arc<Shared>,
    core: &Core,
    disk: DiskId,
    state: DiskState,
    reason: String,
) -> Result<DiskState, Status> {
    for _ in 0..GIVE_UP_TRIES {
        core.meta.barrier().await.map_err(|error| meta_status(&error))?;
        let map = core.meta.map();
        if !bug(Bug::GiveUpLastCopy) {
            spared(shared, core, &map, disk).await?;
        }
        let judged = (!bug(Bug::GiveUpTwoAtOnce)).then_some(map.revision);
        let (by, reason) = (MarkedBy::Operator, reason.clone());
        let command = Command::SetDiskState { disk, state, by, reason, judged, fence: None };
        match core.meta.propose(command).await.map_err(|error| meta_status(&error))? {
            Outcome::DiskWas(before) => return Ok(before),
            Outcome::Refused(Refusal::MapMoved) => {}
            outcome => settle(outcome)?,
        }
    }
    Err(Status::unavailable(Refusal::MapMoved.to_string()))
}

/// Refuses to take a disk away without which something could not be read. Of one that is not there any more nothing is taken.
async fn spared(shared: &Arc<Shared>, core: &Core, map: &ClusterMap, disk: DiskId) -> Result<(), Status> {
    let own = shared.disks.get().and_then(|disks| disks.volume(disk));
    if own.is_some_and(|volume| matches!(volume.status().health, Health::Gone | Health::Foreign)) {
        return Ok(());
    }
    let good = readable_now(shared, map).await;
    let mut after = None;
    loop {
        let scan = core.meta.scan(after.take(), PAGE).await.map_err(|error| meta_status(&error))?;
        for (bucket, key, record) in &scan.objects {
            if let Some(left) = left_without(&good, record, disk) {
                return Err(Status::failed_precondition(format!(
                    "without disk {disk} only {left} shards of {bucket}/{key} could be read, and it takes {}: this would take \
                     the last good copy away; bring other disks or nodes back first (`resilver status`). Nothing was changed",
                    record.coding.k
                )));
            }
        }
        if scan.end {
            return Ok(());
        }
        after = scan.objects.last().map(|(bucket, key, _)| (bucket.clone(), key.clone()));
    }
}

/// The disks that can be read now: by the map, and by what their nodes say of them just now. What does not say counts as one
/// that cannot.
async fn readable_now(shared: &Arc<Shared>, map: &ClusterMap) -> BTreeSet<DiskId> {
    let answers = map.nodes.values().map(async |node| match node.name == shared.name {
        true => Some(super::observe_now(shared)),
        false => shared.views.of(&shared.peers, node).await.answer,
    });
    let answers = futures_util::future::join_all(answers).await;
    let told = answers.into_iter().flatten().flat_map(|answer| answer.disks);
    let well = told.filter(|disk| matches!(disk.health.as_str(), "ok" | "suspect"));
    well.filter_map(|disk| disk.disk_id.parse().ok()).filter(|disk| map.readable(*disk)).collect()
}

/// How many shards of an extent could be read without the disk, where that is too few.
fn left_without(good: &BTreeSet<DiskId>, record: &ObjectRecord, disk: DiskId) -> Option<usize> {
    let on_it = record.extents.iter().filter(|extent| extent.homes.iter().any(|home| home.at == Some(disk)));
    let left = on_it.map(|extent| {
        let others = extent.homes.iter().filter_map(|home| home.at).filter(|at| *at != disk && good.contains(at));
        others.count()
    });
    left.filter(|left| *left < usize::from(record.coding.k)).min()
}

fn serves(volume: &Volume) -> bool {
    matches!(volume.status().health, Health::Ok | Health::Suspect)
}

#[allow(clippy::result_large_err)] // tonic's own error type
fn check_path(path: &Path, data_dir: &Path) -> Result<(), Status> {
    if !path.is_absolute() {
        return Err(Status::invalid_argument(format!(
            "{} is no absolute path: a node cannot know where to look for it",
            path.display()
        )));
    }
    if data_dir.starts_with(path) || path.starts_with(data_dir) {
        return Err(Status::failed_precondition(format!(
            "{} and the metadata folder {} lie in one another: a lost disk would take the metadata along",
            path.display(),
            data_dir.display()
        )));
    }
    Ok(())
}

#[allow(clippy::result_large_err)] // tonic's own error type
fn may_be_replaced(shared: &Shared, disks: &DiskSet, map: &ClusterMap, old: DiskId) -> Result<(), Status> {
    let record = map.disks.get(&old).ok_or_else(|| Status::not_found(Refusal::NoDisk(old).to_string()))?;
    if record.node != shared.name {
        return Err(Status::failed_precondition(Refusal::DiskTaken(old, record.node.clone()).to_string()));
    }
    let works = disks.volume(old).is_some_and(|volume| serves(&volume));
    if works && !matches!(record.state, DiskState::Out) {
        return Err(Status::failed_precondition(format!(
            "disk {old} works, and is {}: empty it first (`resilver disk drain {old}`). Nothing was changed",
            record.state.as_str()
        )));
    }
    Ok(())
}

/// Has the next start know the disk as it is now, and not look for its predecessor.
async fn remember(shared: &Shared, known: KnownDisk, replaces: Option<DiskId>) -> Result<(), Status> {
    let dir = &shared.options.data_dir;
    let unread = |error: crate::meta::MetaError| Status::unavailable(error.to_string());
    let mut identity = Identity::load(&shared.host, dir)
        .await
        .map_err(unread)?
        .ok_or_else(|| Status::unavailable(format!("{} has no identity", dir.display())))?;
    identity.disks.retain(|disk| disk.id != known.id);
    for disk in identity.disks.iter_mut().filter(|disk| Some(disk.id) == replaces) {
        disk.removed = true;
    }
    identity.disks.push(known);
    identity.store(&shared.host, dir).await.map_err(unread)
}

fn refused(error: &DiskError) -> Status {
    match error {
        DiskError::Failed { .. } => Status::unavailable(error.to_string()),
        _ => Status::failed_precondition(format!("{error}; nothing was changed")),
    }
}

#[allow(clippy::result_large_err)] // tonic's own error type
fn settle(outcome: Outcome) -> Result<(), Status> {
    match outcome {
        Outcome::Refused(refusal @ Refusal::NoDisk(_)) => Err(Status::not_found(refusal.to_string())),
        Outcome::Refused(refusal) => Err(Status::failed_precondition(refusal.to_string())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_no_part_of_the_metadata_nor_the_other_way_round() {
        let code = |path: &str| check_path(Path::new(path), Path::new("/var/lib/resilver/meta")).map_err(|s| s.code());
        assert_eq!(code("/mnt/disk3"), Ok(()));
        assert_eq!(code("disk3"), Err(tonic::Code::InvalidArgument));
        for path in ["/var/lib/resilver/meta", "/var/lib/resilver", "/var/lib/resilver/meta/log"] {
            assert_eq!(code(path), Err(tonic::Code::FailedPrecondition), "{path}");
        }
    }
}
