//! What this member has applied. Whoever needs to know no less than what was acknowledged before asks for a
//! [`Meta::barrier`] first.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::raft::{Node, RaftNode};
use super::{Meta, MetaError};
use crate::model::{BucketRecord, GarbageRecord, KeyRecord, LockTable, ObjectRecord, UploadRecord, Usage};
use crate::state::{
    Counts, ListQuery, Page, PartPage, PlacedShard, Scan, Unsettled, UploadPage, UploadQuery, Validation, shards,
};
use crate::types::{BucketName, DiskId, UploadId, Version};

impl Meta {
    /// The bucket of this name.
    pub async fn bucket(&self, bucket: &BucketName) -> Result<Option<BucketRecord>, MetaError> {
        Ok(self.inner.state.bucket(bucket).await?)
    }

    /// All buckets, by name.
    pub async fn buckets(&self) -> Result<Vec<BucketRecord>, MetaError> {
        Ok(self.inner.state.buckets().await?)
    }

    /// What there is in a bucket.
    pub async fn usage(&self, bucket: &BucketName) -> Result<Usage, MetaError> {
        Ok(self.inner.state.usage(bucket).await?)
    }

    /// The object under this key.
    pub async fn object(&self, bucket: &BucketName, key: &str) -> Result<Option<ObjectRecord>, MetaError> {
        Ok(self.inner.state.object(bucket, key).await?)
    }

    /// One page of a listing, at one applied index.
    pub async fn list(&self, bucket: &BucketName, query: ListQuery) -> Result<Page, MetaError> {
        Ok(self.inner.state.list(bucket, query).await?)
    }

    /// One step through all objects, parts of uploads among them, for repair.
    pub async fn scan(&self, after: Option<(BucketName, String)>, limit: usize) -> Result<Scan, MetaError> {
        Ok(self.inner.state.scan(after, limit).await?)
    }

    /// An upload, also one that was completed a while ago.
    pub async fn upload(
        &self,
        bucket: &BucketName,
        key: &str,
        id: UploadId,
    ) -> Result<Option<UploadRecord>, MetaError> {
        Ok(self.inner.state.upload(bucket, key, id).await?)
    }

    /// One page of a bucket's uploads that are under way.
    pub async fn list_uploads(&self, bucket: &BucketName, query: UploadQuery) -> Result<UploadPage, MetaError> {
        Ok(self.inner.state.list_uploads(bucket, query).await?)
    }

    /// Up to `limit` parts behind number `after` of an upload that is under way; `None` when there is no such upload.
    pub async fn list_parts(
        &self,
        bucket: &BucketName,
        key: &str,
        id: UploadId,
        after: u16,
        limit: usize,
    ) -> Result<Option<PartPage>, MetaError> {
        Ok(self.inner.state.list_parts(bucket, key, id, after, limit).await?)
    }

    /// Up to `limit` uploads of any bucket after the one named, completed ones included.
    pub async fn scan_uploads(
        &self,
        after: Option<&UploadRecord>,
        limit: usize,
    ) -> Result<Vec<UploadRecord>, MetaError> {
        Ok(self.inner.state.scan_uploads(after, limit).await?)
    }

    /// When the newest part of an upload was put, as its gateway's wall clock said.
    pub async fn newest_part_ms(&self, bucket: &BucketName, id: UploadId) -> Result<Option<u64>, MetaError> {
        Ok(self.inner.state.newest_part_ms(bucket, id).await?)
    }

    /// Up to `limit` uploads that went with their bucket and still have parts.
    pub async fn leftovers(&self, limit: usize) -> Result<Vec<(BucketName, UploadId)>, MetaError> {
        Ok(self.inner.state.leftovers(limit).await?)
    }

    /// Up to `limit` versions that wait to be collected.
    pub async fn garbage_versions(&self, limit: usize) -> Result<Vec<Version>, MetaError> {
        Ok(self.inner.state.garbage_versions(limit).await?)
    }

    /// What is to be collected of this version.
    pub async fn garbage(&self, version: Version) -> Result<Option<GarbageRecord>, MetaError> {
        Ok(self.inner.state.garbage(version).await?)
    }

    /// Looks through everything that is applied here for what should not be so.
    pub async fn validate(&self) -> Result<Validation, MetaError> {
        Ok(self.inner.state.validate().await?)
    }

    /// Whether a version was given up.
    pub async fn forbidden(&self, version: Version) -> Result<bool, MetaError> {
        Ok(self.inner.state.forbidden(version).await?)
    }

    /// The live object that owns this version: that has it, or an extent uploaded under it.
    pub async fn owner_of(&self, version: Version) -> Result<Option<(BucketName, String)>, MetaError> {
        Ok(self.inner.state.owner_of(version).await?)
    }

    /// The access key of this id.
    pub async fn key(&self, id: &str) -> Result<Option<KeyRecord>, MetaError> {
        Ok(self.inner.state.key(id).await?)
    }

    /// All access keys, by id.
    pub async fn keys(&self) -> Result<Vec<KeyRecord>, MetaError> {
        Ok(self.inner.state.keys().await?)
    }

    /// Every lock that is held.
    pub fn locks(&self) -> Arc<LockTable> {
        self.inner.state.locks()
    }

    /// Follows the locks.
    pub fn lock_changes(&self) -> watch::Receiver<Arc<LockTable>> {
        self.inner.state.lock_changes()
    }

    /// Waits until this member leads in another term than `known` (`None`: it does not lead), and says in which. An
    /// error: Raft is gone.
    pub(crate) async fn leads_otherwise(&self, known: Option<u64>) -> Result<Option<u64>, MetaError> {
        let leads = |metrics: &openraft::RaftMetrics<Node, RaftNode>| {
            let leads = metrics.current_leader == Some(metrics.id) && metrics.running_state.is_ok();
            leads.then_some(metrics.current_term)
        };
        let mut metrics = self.inner.raft.metrics();
        let now = metrics.wait_for(|metrics| metrics.running_state.is_err() || leads(metrics) != known).await;
        match now {
            Ok(metrics) if metrics.running_state.is_ok() => Ok(leads(&metrics)),
            _ => Err(MetaError::Stopped { reason: "raft is shut down".to_owned() }),
        }
    }

    /// Counts what is placed on these disks, and keeps the sums in step from then on: see [`crate::state`].
    pub(crate) async fn watch_disks(&self, disks: BTreeSet<DiskId>) -> Result<(), MetaError> {
        Ok(self.inner.state.watch_disks(disks).await?)
    }

    /// Whether the sums of exactly these disks are known now.
    pub(crate) fn watches(&self, disks: &BTreeSet<DiskId>) -> bool {
        self.inner.state.watches(disks)
    }

    /// The sums of what is placed in a folder of a disk; `None`: that is not known now.
    pub(crate) fn placed_folder(&self, disk: DiskId, folder: u8) -> Option<shards::Folder> {
        self.inner.state.placed_folder(disk, folder)
    }

    /// The shards of live objects that are placed on a disk, of one leaf.
    pub(crate) async fn placed_in(&self, disk: DiskId, leaf: shards::Leaf) -> Result<Vec<PlacedShard>, MetaError> {
        Ok(self.inner.state.placed_in(disk, leaf).await?)
    }

    /// The objects of which a shard is not where it belongs.
    pub(crate) fn unsettled(&self) -> Unsettled {
        self.inner.state.unsettled()
    }

    /// The totals.
    pub fn counts(&self) -> Counts {
        self.inner.state.counts()
    }
}
