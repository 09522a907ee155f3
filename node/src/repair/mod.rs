//! Brings redundancy back, by itself and all the time: every node does its own part for its own disks.
//!
//! Owns: the check pass (what metadata says should be here, is it?), the scrub (is it still what was written?), the look at what
//! somebody could not read, the queue of shards to rebuild, the rebuild itself, the collection of replaced versions, of orphans
//! and of abandoned uploads.
//! Must never: overwrite or move aside a shard while fewer than k others are good; move a shard aside whose version was
//! not forbidden first (or that metadata does not place elsewhere); delete anything that was not moved aside long ago.
//!
//! Invariants:
//! - Nothing here is state that must survive: metadata and disks say what is to be done, so a restart in the middle of a
//!   rebuild loses a temporary file and nothing else, and doing a job twice does no harm.
//! - A shard is rebuilt by the node that is to hold it: it is written, synced, read back from disk, and only then
//!   recorded as being there.
//! - The fewest spare shards first, and of those the bucket with the lower priority. Bounded in flight and in bytes per second.

mod board;
mod check;
mod collect;
mod compare;
mod doubts;
mod finding;
mod force;
mod homes;
mod orphans;
mod pace;
mod pause;
mod pressure;
mod progress;
mod queue;
mod rebuild;
mod report;
mod room;
mod scope;
mod scrub;
mod target;
mod throttle;
mod timings;
mod uploads;
mod walks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use resilver_host::Host;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use board::{AntiEntropy, Board, Held};
pub(crate) use board::{Only, THROTTLE_LASTS};
pub use finding::{Finding, FoundBy, RepairStatus, Suspect, SuspectKind};
pub use force::Force;
pub use pressure::{PAUSE_ABOVE, Pressure};
pub use progress::Progress;
pub use rebuild::Rebuilder;
pub use report::{RebuildReport, RebuildState};
pub use scope::{ProgressStream, Scope};
pub use target::target_of;
pub use timings::{Timings, TimingsSnapshot};

use crate::disk::DiskSet;
use crate::gateway::Gateway;
use crate::meta::{Meta, MetaError};
use crate::model::ObjectRecord;
use crate::options::{RepairOptions, ScrubOptions};
use crate::transport::ShardClient;
use crate::types::{BucketName, DiskId, ExtentId, Version};

/// What repair is made of.
pub struct RepairParts {
    /// The machine.
    pub host: Host,
    /// The metadata.
    pub meta: Meta,
    /// Our disks.
    pub disks: Arc<DiskSet>,
    /// The way to all shards.
    pub shards: ShardClient,
    /// What is known to be wrong: the same board the client and the service report to.
    pub board: Board,
    /// Rebuilds shards: the same one the service and the gateway use, so that one limit holds for all.
    pub rebuilder: Rebuilder,
    /// How fast.
    pub repair: RepairOptions,
    /// How often every byte is read.
    pub scrub: ScrubOptions,
    /// How long replaced versions stay.
    pub read_deadline: Duration,
    /// How long an upload may be left alone.
    pub abandoned_uploads_after: Duration,
}

/// The recovery services of one node.
pub struct Repair {
    parts: Arc<RepairParts>,
}

impl Repair {
    /// Over the given parts.
    pub fn new(parts: RepairParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// A handle for control: status, findings, and the verbs of an agent.
    pub fn handle(&self, gateway: Gateway) -> RepairHandle {
        RepairHandle { parts: self.parts.clone(), gateway }
    }

    /// Works until `shutdown` turns true. A rebuild in flight is dropped then: it leaves a temporary file.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        for _ in 0..rebuild::workers(&self.parts.repair) {
            tasks.spawn(rebuild::work(self.parts.clone()));
        }
        tasks.spawn(check::run(self.parts.clone()));
        tasks.spawn(compare::run(self.parts.clone()));
        tasks.spawn(collect::run(self.parts.clone()));
        tasks.spawn(uploads::run(self.parts.clone()));
        tasks.spawn(orphans::run(self.parts.clone()));
        tasks.spawn(room::run(self.parts.clone()));
        tasks.spawn(pause::run(self.parts.clone()));
        tasks.spawn(pressure::run(self.parts.clone()));
        let mut disks = self.parts.disks.changes();
        let mut scrubbed = std::collections::BTreeSet::new();
        // The tasks have no end of their own; a panic in one is told, and the others go on.
        loop {
            disks.borrow_and_update();
            let volumes = self.parts.disks.volumes();
            scrubbed.retain(|id| volumes.iter().any(|volume| volume.id() == *id));
            for volume in volumes.into_iter().filter(|volume| scrubbed.insert(volume.id())) {
                let parts = self.parts.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = scrub::run(parts.clone(), volume.clone()) => {}
                        () = doubts::run(parts.clone(), volume.clone()) => {}
                        () = compare::patrol::run(parts, volume.clone()) => {}
                        () = volume.retired() => {}
                    }
                });
            }
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                Ok(()) = disks.changed() => {}
                ended = tasks.join_next() => match ended {
                    Some(Err(error)) => tracing::error!(%error, "a recovery service of this node died"),
                    Some(Ok(())) => {}
                    None => return,
                },
            }
        }
    }
}

/// What control asks of repair. Cheap to clone.
#[derive(Clone)]
pub struct RepairHandle {
    parts: Arc<RepairParts>,
    gateway: Gateway,
}

impl RepairHandle {
    /// Queue, rates and totals.
    pub fn status(&self) -> RepairStatus {
        self.parts.board.status()
    }

    /// What anti-entropy has done.
    pub fn anti_entropy(&self) -> AntiEntropy {
        self.parts.board.anti_entropy()
    }

    /// The disks on which repair and scrub give way to clients now.
    pub fn held(&self) -> BTreeMap<DiskId, Held> {
        self.parts.board.held()
    }

    /// What clients take of a disk's time, in percent.
    pub fn foreground_percent(&self, disk: DiskId) -> u32 {
        self.parts.board.foreground_percent(disk)
    }

    /// What was found wrong lately, oldest first.
    pub fn findings(&self) -> Vec<Finding> {
        self.parts.board.findings()
    }

    /// Where the time of rebuilds went.
    pub fn timings(&self) -> TimingsSnapshot {
        self.parts.board.timings().snapshot()
    }

    /// A shard is suspected to be bad: look at it, and rebuild it if it is.
    pub async fn enqueue(&self, suspect: Suspect) {
        self.parts.board.suspect(&self.parts.meta, suspect).await;
    }

    /// Compare what should be here with what is here, now.
    pub fn check_now(&self) {
        self.parts.board.request_check();
    }

    /// Has scrub and the queue rest for a while, or go on; whether they rested.
    pub(crate) fn throttle(&self, reason: Option<&str>) -> bool {
        self.parts.board.throttle(reason)
    }

    /// Why they rest, if they do.
    pub(crate) fn throttled(&self) -> Option<String> {
        self.parts.board.throttled()
    }

    /// Removes from every disk what the metadata gave up and is still kept aside: how many shards, and what stood in the way.
    pub(crate) async fn purge_replaced(&self) -> (u64, Vec<String>) {
        let (mut removed, mut failed) = (0, Vec::new());
        if self.parts.meta.map().collection_held {
            failed.push("shards that were given up stay: collection is held (resilver repair collect)".to_owned());
            return (removed, failed);
        }
        for volume in self.parts.disks.volumes() {
            match volume.purge_replaced().await {
                Ok(shards) => removed += shards,
                Err(error) => failed.push(format!("disk {}: {error}", volume.id())),
            }
        }
        (removed, failed)
    }

    /// Collects what is due, without waiting for the next round.
    pub(crate) fn collect_now(&self) {
        self.parts.board.request_collection();
    }

    /// Makes the scope fully redundant again; the last item says how it ended. Idempotent.
    pub fn sync_scope(&self, scope: Scope) -> ProgressStream {
        scope::sync(self.parts.clone(), self.gateway.clone(), scope)
    }

    /// Reads back from disk what the scope names; the last item says what was found.
    pub fn verify_scope(&self, scope: Scope) -> ProgressStream {
        scope::verify(self.parts.clone(), self.gateway.clone(), scope)
    }
}

#[cfg(test)]
impl RepairHandle {
    pub(crate) fn parts_for_test(&self) -> Arc<RepairParts> {
        self.parts.clone()
    }
}

/// The search for orphans with an age of the test's choosing.
#[cfg(test)]
pub(crate) async fn search_orphans(
    parts: &RepairParts,
    volume: &crate::disk::Volume,
    seen: &mut std::collections::BTreeMap<(crate::types::DiskId, crate::types::ShardKey), tokio::time::Instant>,
    age: Duration,
) -> u64 {
    orphans::search(parts, volume, seen, age).await.expect("the disk serves")
}

/// The live object that has an extent of this name, as applied here: under the key that was told, or, a part having become
/// an object meanwhile, under another.
pub(crate) async fn holder_of(
    meta: &Meta,
    bucket: &BucketName,
    key: &str,
    extent: ExtentId,
) -> Result<Option<(BucketName, String, ObjectRecord)>, MetaError> {
    let has = |record: &ObjectRecord| record.position(extent).is_some();
    if let Some(record) = meta.object(bucket, key).await?.filter(has) {
        return Ok(Some((bucket.clone(), key.to_owned(), record)));
    }
    let Some((bucket, key)) = meta.owner_of(extent.version).await? else { return Ok(None) };
    let record = meta.object(&bucket, &key).await?.filter(has);
    Ok(record.map(|record| (bucket, key, record)))
}

/// Whether a version is forbidden, by metadata that is not behind: what this node has applied if that says yes, else the
/// cluster's word.
pub(crate) async fn is_forbidden(meta: &Meta, version: Version) -> Result<bool, MetaError> {
    if meta.forbidden(version).await? {
        return Ok(true);
    }
    meta.barrier().await?;
    meta.forbidden(version).await
}
