//! Buckets: making, changing, deleting, listing them.

use super::configuration::done;
use super::{Gateway, GatewayError, RESERVED_PREFIX, check_bucket_name};
use crate::model::{BucketRecord, Coding, Command, DEFAULT_REPAIR_PRIORITY, Outcome, Usage};
use crate::types::BucketName;

/// What a new bucket is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketSettings {
    /// `None`: the default for the cluster as it is.
    pub coding: Option<Coding>,
    /// The most bytes it may have.
    pub quota_bytes: Option<u64>,
    /// Whose shards are rebuilt first: lower ones.
    pub repair_priority: u8,
    /// The access key that makes it; empty: an operator.
    pub owner: String,
}

impl Default for BucketSettings {
    fn default() -> Self {
        Self { coding: None, quota_bytes: None, repair_priority: DEFAULT_REPAIR_PRIORITY, owner: String::new() }
    }
}

/// What is to be changed of a bucket; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketChange {
    /// How objects put from now on are coded.
    pub coding: Option<Coding>,
    /// The quota; `Some(None)` takes it away.
    pub quota_bytes: Option<Option<u64>>,
    /// The priority of its repair.
    pub repair_priority: Option<u8>,
}

impl Gateway {
    /// Makes a bucket. The second value warns an operator when its coding cannot survive the loss of a host.
    ///
    /// # Errors
    /// For a bad name or coding, an existing bucket (unless `if_absent`), or metadata that cannot be reached.
    pub async fn create_bucket(
        &self,
        bucket: &BucketName,
        settings: BucketSettings,
        if_absent: bool,
    ) -> Result<(BucketRecord, Option<String>), GatewayError> {
        check_bucket_name(bucket)?;
        self.demand_metadata_room(bucket)?;
        let (coding, warning) = match settings.coding {
            Some(coding) => (coding, self.check_coding(coding)?),
            None => crate::placement::default_coding(&self.inner.meta.map()).map_err(GatewayError::too_few_disks)?,
        };
        let record = BucketRecord {
            name: bucket.clone(),
            coding,
            created_ms: self.now_ms(),
            quota_bytes: settings.quota_bytes,
            repair_priority: settings.repair_priority,
            owner: settings.owner,
        };
        match self.change_bucket_config(bucket, Command::CreateBucket { bucket: record, if_absent }).await? {
            Outcome::Bucket(record) => Ok((record, warning)),
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(GatewayError::unexpected(&other)),
        }
    }

    /// Changes a bucket. The second value is as of [`Gateway::create_bucket`].
    ///
    /// # Errors
    /// For a bad coding, no such bucket, or metadata that cannot be reached.
    pub async fn set_bucket(
        &self,
        bucket: &BucketName,
        change: BucketChange,
    ) -> Result<(BucketRecord, Option<String>), GatewayError> {
        check_bucket_name(bucket)?;
        let warning = change.coding.map(|coding| self.check_coding(coding)).transpose()?.flatten();
        let BucketChange { coding, quota_bytes, repair_priority } = change;
        let command = Command::SetBucket { bucket: bucket.clone(), coding, quota_bytes, repair_priority };
        match self.change_bucket_config(bucket, command).await? {
            Outcome::Bucket(record) => Ok((record, warning)),
            Outcome::Refused(refusal) => Err(refusal.into()),
            other => Err(GatewayError::unexpected(&other)),
        }
    }

    /// Deletes an empty bucket. Uploads under way in it are forgotten.
    ///
    /// # Errors
    /// [`GatewayError::BucketNotEmpty`], no such bucket, or metadata that cannot be reached.
    pub async fn delete_bucket(&self, bucket: &BucketName) -> Result<(), GatewayError> {
        check_bucket_name(bucket)?;
        self.change_bucket_config(bucket, Command::DeleteBucket { bucket: bucket.clone() }).await.and_then(done)
    }

    /// A bucket, as of now.
    ///
    /// # Errors
    /// When there is none, or no quorum of the metadata answers.
    pub async fn bucket(&self, bucket: &BucketName) -> Result<BucketRecord, GatewayError> {
        check_bucket_name(bucket)?;
        self.inner.meta.barrier().await?;
        self.inner.meta.bucket(bucket).await?.ok_or_else(|| GatewayError::NoBucket(bucket.clone()))
    }

    /// All buckets, as of now.
    ///
    /// # Errors
    /// When no quorum of the metadata answers.
    pub async fn list_buckets(&self) -> Result<Vec<BucketRecord>, GatewayError> {
        self.inner.meta.barrier().await?;
        let mut buckets = self.inner.meta.buckets().await?;
        buckets.retain(|bucket| !bucket.name.as_str().starts_with(RESERVED_PREFIX));
        Ok(buckets)
    }

    /// What there is in a bucket, as this node has applied it; nothing of one that does not exist.
    ///
    /// # Errors
    /// When this node's metadata cannot be read.
    pub async fn bucket_usage(&self, bucket: &BucketName) -> Result<Usage, GatewayError> {
        Ok(self.inner.meta.usage(bucket).await?)
    }

    fn check_coding(&self, coding: Coding) -> Result<Option<String>, GatewayError> {
        crate::codec::codec(coding).map_err(|error| GatewayError::BadCoding(error.to_string()))?;
        crate::placement::check_room(&self.inner.meta.map(), coding).map_err(GatewayError::too_few_disks)
    }
}
