//! All disks of a node: recognised at open, watched while it runs.
//!
//! Opening decides first and writes after: every configured path is looked at, and if one of them is a mistake (a foreign
//! disk, somebody's data, one disk twice) nothing at all is touched. A disk that merely fails is no mistake: it is part
//! of the set, with its health, and the node opens with the others.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use futures_util::future::join_all;
use resilver_host::Host;
use resilver_host::disk::create_dir_durably;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::core::Core;
use super::error::DiskError;
use super::io::{Patience, within};
use super::superblock::{self, Found, Superblock};
use super::volume::Volume;
use super::{Health, HealthReport, KnownDisk, Owner, canary};
use crate::failures::Failures;
use crate::types::{ClusterId, DiskId, Epoch};

/// The disks of this node, in the order of its configuration.
pub struct DiskSet {
    /// Those that were added later stand at the end.
    volumes: RwLock<Vec<Arc<Volume>>>,
    /// Counts what came and went: whoever works on each disk is told.
    changed: watch::Sender<u64>,
    /// Where disks tell that they do not say in time how they are.
    failures: OnceLock<Failures>,
    patience: Patience,
}

/// What is to be done with one configured path.
#[derive(Debug)]
enum Plan {
    /// It is a disk of ours.
    Use(Superblock),
    /// It becomes one.
    Found,
    /// It is a disk of ours that is not there or not readable.
    Without { id: DiskId, health: Health, reason: String },
}

impl DiskSet {
    /// Opens the disks at `paths`. New folders become disks; a `known` path without its superblock is a disk that is
    /// gone, and is never made anew. Also gives what to remember as known from now on.
    ///
    /// # Errors
    /// Only on what an operator must set right: a foreign disk, a folder with somebody's data, a newer format, one disk
    /// under two paths, a new folder that cannot be written. Then nothing that was there before was changed.
    pub async fn open(
        host: &Host,
        paths: &[PathBuf],
        owner: &Owner,
        known: &[KnownDisk],
        patience: Patience,
    ) -> Result<(Self, Vec<KnownDisk>), DiskError> {
        let mut looked_at = Vec::with_capacity(paths.len());
        let removed = |id: DiskId| known.iter().any(|disk| disk.id == id && disk.removed);
        for path in paths {
            let found = match within(patience.hanging_ticks, superblock::inspect(host, path)).await {
                Some(found) => found?,
                None => Found::Failed(io::Error::from(io::ErrorKind::TimedOut)),
            };
            let is_removed = match &found {
                Found::Disk(superblock) => removed(superblock.disk),
                // Where a removed disk stood, nothing becomes a disk unasked: it may be the mount point that it left.
                _ => {
                    known.iter().any(|disk| disk.path == *path)
                        && known.iter().all(|disk| disk.path != *path || disk.removed)
                }
            };
            if is_removed {
                let path = path.display();
                tracing::warn!(%path, "a disk was removed here: nothing is opened; `resilver disk add` takes a folder into service");
                continue;
            }
            looked_at.push((path.clone(), found));
        }
        // A new disk may stand where a removed one stood.
        let expected: Vec<KnownDisk> = known.iter().filter(|disk| !disk.removed).cloned().collect();
        let plans = decide(owner, &expected, looked_at)?;
        let mut volumes = Vec::with_capacity(plans.len());
        for (path, plan) in plans {
            let volume = carry_out(host, owner, path, plan, (patience, &volumes)).await?;
            volumes.push(volume);
        }
        join_all(volumes.iter().map(|volume| make_ready(&volume.core))).await;

        let added = |id| known.iter().any(|disk| disk.id == id && disk.added);
        let remember = |volume: &Arc<Volume>| KnownDisk {
            path: volume.path().to_owned(),
            id: volume.id(),
            added: added(volume.id()),
            removed: false,
        };
        let mut remembered: Vec<KnownDisk> = volumes.iter().map(remember).collect();
        // A disk taken out of the configuration stays known: should its path come back empty, it is gone and not new.
        let opened: BTreeSet<DiskId> = volumes.iter().map(|volume| volume.id()).collect();
        remembered.extend(known.iter().filter(|disk| !opened.contains(&disk.id)).cloned());
        let set =
            Self { volumes: RwLock::new(volumes), changed: watch::Sender::new(0), failures: OnceLock::new(), patience };
        Ok((set, remembered))
    }

    /// Takes another disk into service while the node runs: an empty folder becomes one, a disk of this node that was taken
    /// out is taken back.
    ///
    /// # Errors
    /// On a foreign disk, a folder with somebody's data, a path in use, a newer format, a folder that cannot be written. Then
    /// nothing was changed.
    pub async fn add(&self, host: &Host, path: &Path, owner: &Owner) -> Result<Arc<Volume>, DiskError> {
        let found = match within(self.patience.hanging_ticks, superblock::inspect(host, path)).await {
            Some(found) => found?,
            None => Found::Failed(io::Error::from(io::ErrorKind::TimedOut)),
        };
        match &found {
            Found::Disk(superblock) => belongs(owner, path, superblock)?,
            // A path that is mistyped, or not mounted, must not become a disk on the file system below.
            Found::Absent => {
                let source = io::Error::from(io::ErrorKind::NotFound);
                return Err(DiskError::NotWritable { path: path.to_owned(), source });
            }
            _ => {}
        }
        let opened = self.volumes();
        // At the path of one that is gone there may be its successor; never beside one that serves there, nor twice.
        let serves = |volume: &&Arc<Volume>| matches!(volume.status().health, Health::Ok | Health::Suspect);
        let same = |volume: &&Arc<Volume>| volume.path().components().eq(path.components());
        let known = |volume: &&Arc<Volume>| matches!(&found, Found::Disk(superblock) if superblock.disk == volume.id());
        if let Some(first) = opened.iter().find(|volume| (same(volume) && serves(volume)) || known(volume)) {
            return Err(DiskError::Duplicate { first: first.path().to_owned(), second: path.to_owned() });
        }
        let plan = anew(path, found)?;
        let volume = carry_out(host, owner, path.to_owned(), plan, (self.patience, &opened)).await?;
        make_ready(&volume.core).await;
        if let Some(failures) = self.failures.get() {
            volume.core.report_to(failures);
        }
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        volumes.push(volume.clone());
        self.changed.send_modify(|count| *count += 1);
        Ok(volume)
    }

    /// Lets go of a disk: nothing of this node touches it any more, and what is on it stays. Whether it was there.
    pub fn remove(&self, id: DiskId) -> bool {
        let mut volumes = self.volumes.write().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = volumes.iter().position(|volume| volume.id() == id) else { return false };
        volumes.remove(at).core.retire();
        self.changed.send_modify(|count| *count += 1);
        true
    }

    /// Changes whenever a disk comes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Writes into the superblocks which cluster the node is in. A disk that cannot be written keeps its old one, and
    /// gets the new one from the canary that finds it well again.
    ///
    /// # Errors
    /// [`DiskError::ForeignCluster`] when a disk is in another cluster already.
    pub async fn stamp(&self, cluster: ClusterId, epoch: Epoch) -> Result<(), DiskError> {
        let volumes = self.volumes();
        for volume in &volumes {
            volume.core.join_cluster(cluster, epoch)?;
        }
        join_all(volumes.iter().map(|volume| restamp(&volume.core))).await;
        Ok(())
    }

    /// All disks, failed ones included.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        self.volumes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The disk of this id.
    pub fn volume(&self, id: DiskId) -> Option<Arc<Volume>> {
        let volumes = self.volumes.read().unwrap_or_else(PoisonError::into_inner);
        volumes.iter().find(|volume| volume.id() == id).cloned()
    }

    /// Disks that say that they have seen the epoch `undone`, which was taken back, say `epoch` from now on. A disk that is not
    /// there now does so at a later start.
    pub async fn take_back(&self, undone: Epoch, epoch: Epoch) {
        if undone > epoch {
            let volumes = self.volumes();
            join_all(volumes.iter().map(|volume| unstamp(&volume.core, undone, epoch))).await;
        }
    }

    /// The latest epoch that any of the superblocks says.
    pub fn highest_epoch(&self) -> Epoch {
        self.volumes().iter().map(|volume| volume.core.identity().epoch).max().unwrap_or_default()
    }

    /// Where it is told that a disk does not say in time how it is.
    pub fn report_to(&self, failures: &Failures) {
        // The first one stays: disks are in one node.
        let _ = self.failures.set(failures.clone());
        self.volumes().iter().for_each(|volume| volume.core.report_to(failures));
    }

    /// Watches all disks until shutdown, those that are added meanwhile as well.
    pub async fn run(self: Arc<Self>, shutdown: watch::Receiver<bool>) {
        let mut watches = JoinSet::new();
        let mut changes = self.changes();
        let mut stop = shutdown.clone();
        let mut watched = BTreeSet::new();
        loop {
            changes.borrow_and_update();
            let volumes = self.volumes();
            watched.retain(|id| volumes.iter().any(|volume| volume.id() == *id));
            for volume in volumes.iter().filter(|volume| watched.insert(volume.id())) {
                watches.spawn(canary::watch(Arc::clone(&volume.core), shutdown.clone()));
            }
            let ended = tokio::select! {
                Some(ended) = watches.join_next() => ended,
                Ok(()) = changes.changed() => continue,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            if let Err(error) = ended
                && error.is_panic()
            {
                // A disk nobody watches would pass for healthy: rather no node.
                std::panic::resume_unwind(error.into_panic());
            }
        }
        // What a probe has begun, it ends.
        while watches.join_next().await.is_some() {}
    }
}

/// What to do with each path: a pure function of what was found.
fn decide(owner: &Owner, known: &[KnownDisk], found: Vec<(PathBuf, Found)>) -> Result<Vec<(PathBuf, Plan)>, DiskError> {
    let mut seen_paths = BTreeSet::new();
    let mut present: BTreeMap<DiskId, PathBuf> = BTreeMap::new();
    for (path, found) in &found {
        // Compared by components: a slash at the end makes no second disk.
        if !seen_paths.insert(path.components().collect::<PathBuf>()) {
            return Err(DiskError::Duplicate { first: path.clone(), second: path.clone() });
        }
        if let Found::Disk(superblock) = found {
            belongs(owner, path, superblock)?;
            if let Some(first) = present.insert(superblock.disk, path.clone()) {
                return Err(DiskError::Duplicate { first, second: path.clone() });
            }
        }
    }
    // Known disks that should be at a configured path and are nowhere. When disks changed places, the path that is left
    // without one stands for the disk that is left without a path.
    let mut lost: Vec<&KnownDisk> = known
        .iter()
        .filter(|disk| !present.contains_key(&disk.id))
        .filter(|disk| found.iter().any(|(path, _)| *path == disk.path))
        .collect();
    lost.sort_by_key(|disk| (disk.path.clone(), disk.id));
    let mut claim = |path: &Path| -> Option<DiskId> {
        known.iter().find(|disk| disk.path == path)?;
        let index = lost.iter().position(|disk| disk.path == path).or(if lost.is_empty() { None } else { Some(0) })?;
        Some(lost.remove(index).id)
    };
    found
        .into_iter()
        .map(|(path, found)| {
            let plan = match found {
                Found::Disk(superblock) => Plan::Use(superblock),
                found => match claim(&path) {
                    Some(id) => without(id, &path, found),
                    None => anew(&path, found)?,
                },
            };
            Ok((path, plan))
        })
        .collect()
}

/// A known disk that cannot be used now.
fn without(id: DiskId, path: &Path, found: Found) -> Plan {
    let (health, reason) = match found {
        Found::Damaged(detail) => (Health::Error, format!("its superblock is damaged: {detail}")),
        Found::Failed(error) => (Health::Error, error.to_string()),
        Found::Disk(_) | Found::Absent | Found::Empty | Found::Occupied { .. } => {
            (Health::Gone, format!("there is no superblock in {}", path.display()))
        }
    };
    Plan::Without { id, health, reason }
}

/// A path nobody knows: a new disk, or a mistake.
fn anew(path: &Path, found: Found) -> Result<Plan, DiskError> {
    let path = path.to_owned();
    match found {
        Found::Absent | Found::Empty => Ok(Plan::Found),
        Found::Occupied { first } => Err(DiskError::NotEmpty { path, first }),
        Found::Damaged(detail) => Err(DiskError::SuperblockDamaged { path, detail }),
        Found::Failed(source) => Err(DiskError::NotWritable { path, source }),
        Found::Disk(superblock) => Ok(Plan::Use(superblock)),
    }
}

/// Whether a disk is this node's.
fn belongs(owner: &Owner, path: &Path, superblock: &Superblock) -> Result<(), DiskError> {
    let path = path.to_owned();
    if let (Some(found), Some(ours)) = (superblock.cluster, owner.cluster)
        && found != ours
    {
        return Err(DiskError::ForeignCluster { path, disk: superblock.disk, found, ours });
    }
    // By the data folder, not the name: a node that was set up again under its old name does not own its old disks. And
    // one whose joining was interrupted (disks stamped, identity not yet) still does.
    if superblock.instance != owner.instance {
        return Err(DiskError::ForeignNode {
            path,
            disk: superblock.disk,
            found: superblock.node.clone(),
            found_instance: superblock.instance,
            ours: owner.node.clone(),
            our_instance: owner.instance,
        });
    }
    Ok(())
}

async fn carry_out(
    host: &Host,
    owner: &Owner,
    path: PathBuf,
    plan: Plan,
    (patience, opened): (Patience, &[Arc<Volume>]),
) -> Result<Arc<Volume>, DiskError> {
    let fresh = |disk, created_ms| Superblock {
        disk,
        node: owner.node.clone(),
        instance: owner.instance,
        cluster: owner.cluster,
        epoch: Epoch::default(),
        created_ms,
    };
    let well = HealthReport { health: Health::Ok, reason: String::new(), hanging: false };
    let (superblock, report) = match plan {
        // What the node knows better (its cluster, its name) is expected from now on, and written by the canary.
        Plan::Use(found) => {
            let cluster = found.cluster.or(owner.cluster);
            (Superblock { cluster, node: owner.node.clone(), ..found }, well)
        }
        Plan::Without { id, health, reason } => (fresh(id, 0), HealthReport { health, reason, hanging: false }),
        Plan::Found => {
            let id = DiskId::draw(&mut host.rand.fork("disk.id"));
            let superblock = fresh(id, host.clock.now().as_millis());
            found(host, &path, &superblock, opened).await?;
            (superblock, well)
        }
    };
    Ok(Arc::new(Volume { core: Arc::new(Core::new(host.clone(), path, patience, superblock, report)) }))
}

/// Makes a new disk: the superblock first. Everything else can be made later, because the superblock says whose it is.
async fn found(host: &Host, path: &Path, superblock: &Superblock, opened: &[Arc<Volume>]) -> Result<(), DiskError> {
    let not_writable = |source| DiskError::NotWritable { path: path.to_owned(), source };
    create_dir_durably(&*host.disk, path).await.map_err(not_writable)?;
    // Looked at again: through a symbolic link this may be the folder that was made a disk a moment ago.
    match superblock::inspect(host, path).await? {
        Found::Empty => superblock::write(host, path, superblock).await.map_err(not_writable)?,
        Found::Disk(other) => {
            return Err(match opened.iter().find(|volume| volume.id() == other.disk) {
                Some(first) => DiskError::Duplicate { first: first.path().to_owned(), second: path.to_owned() },
                None => DiskError::NotEmpty { path: path.to_owned(), first: superblock::SUPERBLOCK_FILE.to_owned() },
            });
        }
        Found::Occupied { first } => return Err(DiskError::NotEmpty { path: path.to_owned(), first }),
        Found::Damaged(detail) => return Err(DiskError::SuperblockDamaged { path: path.to_owned(), detail }),
        Found::Failed(source) => return Err(not_writable(source)),
        Found::Absent => return Err(not_writable(io::Error::from(io::ErrorKind::NotFound))),
    }
    tracing::info!(disk = %superblock.disk, path = %path.display(), "new disk");
    Ok(())
}

/// Folders and counters. A disk that fails here is a failed disk, not a failed node.
async fn make_ready(core: &Core) {
    if core.report().health != Health::Ok {
        return;
    }
    if let Err(error) = core.prepare().await {
        core.set_health(HealthReport { health: Health::Error, reason: error.to_string(), hanging: false });
    }
}

/// Has the superblock on disk say `epoch` where it says `undone`.
async fn unstamp(core: &Core, undone: Epoch, epoch: Epoch) {
    if !core.forget_epoch(undone, epoch) || core.report().health != Health::Ok {
        return;
    }
    let stamping = async {
        match superblock::read(&core.io.host, &core.io.root).await? {
            Ok(found) if found.epoch == undone => {
                superblock::write(&core.io.host, &core.io.root, &superblock::Superblock { epoch, ..found }).await
            }
            Ok(_) => Ok(()),
            Err(unreadable) => Err(io::Error::other(format!("{unreadable:?}"))),
        }
    };
    match within(core.io.patience.hanging_ticks, stamping).await {
        Some(Ok(())) => {}
        Some(Err(error)) => {
            tracing::warn!(disk = %core.io.disk, %error, "this disk names an epoch that was undone until the next start");
        }
        None => core.io.failed(),
    }
}

/// Has the superblock on disk say what the node knows.
async fn restamp(core: &Core) {
    if core.report().health != Health::Ok {
        return;
    }
    let stamping = async {
        match superblock::read(&core.io.host, &core.io.root).await? {
            Ok(found) => core.refresh(&found).await,
            Err(unreadable) => Err(io::Error::other(format!("{unreadable:?}"))),
        }
    };
    let error = match within(core.io.patience.hanging_ticks, stamping).await {
        Some(Ok(())) => return,
        Some(Err(error)) => error,
        None => io::Error::from(io::ErrorKind::TimedOut),
    };
    tracing::warn!(disk = %core.io.disk, path = %core.io.root.display(), %error, "superblock was not brought up to date");
    core.io.failed();
}
