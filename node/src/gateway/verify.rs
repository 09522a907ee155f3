//! Checking an object shard by shard at its homes, and having what is bad rebuilt.

use futures_util::stream::{self, StreamExt};

use super::{ExtentSpec, Gateway, GatewayError};
use crate::disk::ShardVerdict;
use crate::model::{ClusterMap, DiskState, Home, ObjectRecord};
use crate::repair::{FoundBy, RebuildReport, Suspect, SuspectKind};
use crate::transport::TransportError;
use crate::types::{BucketName, DiskId, ExtentIndex, NodeName, ShardIndex};

/// Shards of one object being read back at a time: enough for every home of an extent to work, and one waiting.
const VERIFIES_IN_FLIGHT: usize = 8;

/// What was found of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// Read back from disk, every block as written.
    Ok {
        /// Its size on disk.
        bytes: u64,
        /// CRC32C of its content.
        crc: u32,
    },
    /// Its bytes are not what was written, or cannot be read on a disk that serves otherwise.
    Corrupt {
        /// As recorded.
        expected: u32,
        /// As read.
        got: u32,
        /// Which block.
        detail: String,
    },
    /// It has no home, or its home does not have it.
    Missing(String),
    /// Its home could not be asked. That says nothing about the shard.
    Unreachable(String),
}

impl ShardState {
    /// What is wrong, for people.
    fn detail(&self) -> &str {
        match self {
            Self::Ok { .. } => "",
            Self::Corrupt { detail, .. } | Self::Missing(detail) | Self::Unreachable(detail) => detail,
        }
    }

    /// The name in answers.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ok { .. } => "ok",
            Self::Corrupt { .. } => "corrupt",
            Self::Missing(_) => "missing",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

/// One shard of an object, checked.
#[derive(Clone, Debug)]
pub struct ShardCheck {
    /// Which of the object's extents, from 0.
    pub extent: ExtentIndex,
    /// Which shard of it.
    pub shard: ShardIndex,
    /// Where it is, or should be.
    pub disk: DiskId,
    /// The node of that disk.
    pub node: Option<NodeName>,
    /// What was found.
    pub state: ShardState,
}

/// An object, checked shard by shard.
#[derive(Clone, Debug)]
pub struct ObjectVerdict {
    /// What was checked.
    pub record: ObjectRecord,
    /// In order of extent and shard.
    pub shards: Vec<ShardCheck>,
    /// Every extent has k good shards.
    pub recoverable: bool,
    /// Every shard is good.
    pub intact: bool,
}

/// What was done about one shard.
#[derive(Clone, Debug)]
pub struct RepairedShard {
    /// Which of the object's extents, from 0.
    pub extent: ExtentIndex,
    /// Which shard.
    pub shard: ShardIndex,
    /// Where it is now.
    pub disk: Option<DiskId>,
    /// The node of that disk.
    pub node: Option<NodeName>,
    /// What came of it.
    pub report: RebuildReport,
}

/// What a repair of an object did.
#[derive(Clone, Debug)]
pub struct ObjectRepair {
    /// The shards that were not good.
    pub shards: Vec<RepairedShard>,
    /// Every shard is good now, read back from disk.
    pub intact: bool,
}

impl Gateway {
    /// Has every home read its shards back from disk, page cache bypassed. What is bad is also reported to repair.
    ///
    /// # Errors
    /// When there is no such object, or no quorum of the metadata answers.
    pub async fn verify(&self, bucket: &BucketName, key: &str) -> Result<ObjectVerdict, GatewayError> {
        self.reading("verify", &format!("{bucket}/{key}"), self.verify_shards(bucket, key)).await
    }

    /// [`Gateway::verify`] as a part of another operation.
    pub(super) async fn verify_shards(&self, bucket: &BucketName, key: &str) -> Result<ObjectVerdict, GatewayError> {
        let verdict = self.check_shards(bucket, key).await?;
        for check in &verdict.shards {
            let kind = match &check.state {
                ShardState::Corrupt { .. } => SuspectKind::Corrupt,
                ShardState::Missing(_) => SuspectKind::Missing,
                ShardState::Ok { .. } | ShardState::Unreachable(_) => continue,
            };
            self.inner.shards.report(Suspect {
                bucket: bucket.clone(),
                key: key.to_owned(),
                // Not by the object's version: an extent of one completed from parts has another.
                shard: verdict.record.extents[check.extent.0 as usize].id.shard(check.shard),
                disk: check.disk,
                kind,
                found_by: FoundBy::Verify,
                detail: check.state.detail().to_owned(),
            });
        }
        Ok(verdict)
    }

    /// Checks an object and has every shard that is not good rebuilt, now, where placement wants it; then checks again.
    ///
    /// # Errors
    /// When there is no such object, or no quorum of the metadata answers. Shards that could not be rebuilt are in the
    /// answer.
    pub async fn repair(&self, bucket: &BucketName, key: &str) -> Result<ObjectRepair, GatewayError> {
        // Ended, what was rebuilt by then is good, and the rest is as it was.
        self.reading("repair", &format!("{bucket}/{key}"), self.repair_shards(bucket, key)).await
    }

    /// [`Gateway::repair`] as a part of another operation.
    pub(super) async fn repair_shards(&self, bucket: &BucketName, key: &str) -> Result<ObjectRepair, GatewayError> {
        let before = self.check_shards(bucket, key).await?;
        let mut shards = Vec::new();
        for check in before.shards.iter().filter(|check| !matches!(check.state, ShardState::Ok { .. })) {
            shards.push(self.repair_shard(bucket, key, &before.record, check).await);
        }
        let intact = if shards.is_empty() { before.intact } else { self.check_shards(bucket, key).await?.intact };
        Ok(ObjectRepair { shards, intact })
    }

    async fn repair_shard(
        &self,
        bucket: &BucketName,
        key: &str,
        record: &ObjectRecord,
        check: &ShardCheck,
    ) -> RepairedShard {
        let map = self.inner.meta.map();
        let extent = &record.extents[check.extent.0 as usize];
        let spec = ExtentSpec::of(bucket, key, record, extent);
        let target = crate::repair::target_of(&map, &spec, check.shard);
        let report = match (target, &check.state) {
            // Its node is away for a while: rebuilding elsewhere is decided when the disk is given up.
            (_, ShardState::Unreachable(why)) if !given_up(&map, extent.homes[check.shard.as_usize()]) => {
                RebuildReport::failed(format!("not touched: {why}"))
            }
            (Some(disk), _) => self.inner.rebuilder.rebuild_at(bucket, key, spec.shard(check.shard), disk).await,
            (None, _) => RebuildReport::failed(
                "no disk may take it now: bring back what is down (`resilver node list`, `disk list`), or add disks"
                    .to_owned(),
            ),
        };
        let node = target.and_then(|disk| map.node_of_disk(disk)).map(|node| node.name.clone());
        RepairedShard { extent: check.extent, shard: check.shard, disk: target, node, report }
    }

    pub(crate) async fn check_shards(&self, bucket: &BucketName, key: &str) -> Result<ObjectVerdict, GatewayError> {
        let record = self.newest(bucket, key).await?;
        let map = self.inner.meta.map();
        let mut work = Vec::new();
        for (index, extent) in (0u32..).map(ExtentIndex).zip(&record.extents) {
            let spec = ExtentSpec::of(bucket, key, &record, extent);
            for (shard, home) in (0u8..).map(ShardIndex).zip(&extent.homes) {
                work.push((index, shard, *home, spec.shard(shard)));
            }
        }
        let shards: Vec<ShardCheck> = stream::iter(work)
            .map(|(extent, shard, home, shard_key)| {
                let client = self.inner.shards.clone();
                let disk = home.at.unwrap_or(home.wanted);
                let node = map.node_of_disk(disk).map(|node| node.name.clone());
                async move {
                    let state = match home.at {
                        None => ShardState::Missing("it has no home now".to_owned()),
                        Some(at) => state_of(client.verify(at, shard_key).await),
                    };
                    ShardCheck { extent, shard, disk, node, state }
                }
            })
            .buffered(VERIFIES_IN_FLIGHT)
            .collect()
            .await;
        let good = |extent: ExtentIndex| {
            shards.iter().filter(|check| check.extent == extent && matches!(check.state, ShardState::Ok { .. })).count()
        };
        let k = usize::from(record.coding.k);
        let recoverable = (0u32..).map(ExtentIndex).zip(&record.extents).all(|(extent, _)| good(extent) >= k);
        let intact = shards.iter().all(|check| matches!(check.state, ShardState::Ok { .. }));
        Ok(ObjectVerdict { record, shards, recoverable, intact })
    }
}

fn given_up(map: &ClusterMap, home: Home) -> bool {
    home.at.is_none_or(|disk| map.disk_state(disk).is_none_or(|state| state == DiskState::Out))
}

fn state_of(verdict: Result<ShardVerdict, TransportError>) -> ShardState {
    match verdict {
        Ok(ShardVerdict::Ok { bytes, crc }) => ShardState::Ok { bytes, crc },
        Ok(ShardVerdict::Corrupt { expected, got, detail }) => ShardState::Corrupt { expected, got, detail },
        Ok(ShardVerdict::Missing) => ShardState::Missing("its home does not have it".to_owned()),
        Err(error) => ShardState::Unreachable(error.to_string()),
    }
}
