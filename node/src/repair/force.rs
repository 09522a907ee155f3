//! Puts another in the place of a shard that is as it was written, and wrong all the same: whoever asks has decided which it is
//! by the content ([`crate::gateway`]).
//!
//! Must never: touch the old shard before the new one is complete, has the checksum that is demanded and was read back; read a shard for it
//! that is distrusted.

use super::queue::PARTS;
use super::rebuild::{RebuildError, Rebuilder, head_of, put_in_place};
use super::{RebuildReport, RebuildState, holder_of};
use crate::disk::ShardVerdict;
use crate::gateway::ExtentSpec;
use crate::model::DiskState;
use crate::types::{BucketName, DiskId, ShardIndex, ShardKey};

/// A shard that is as it was written, and wrong all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Force {
    /// CRC32C of the content it must have.
    pub crc: u32,
    /// Shards of its extent that are not to be read for it.
    pub distrust: Vec<ShardIndex>,
}

impl Rebuilder {
    /// Puts another in the place of a shard that is wrong although its checksum is good, on `disk`, wherever that is.
    pub async fn force_at(
        &self,
        bucket: &BucketName,
        key: &str,
        shard: ShardKey,
        disk: DiskId,
        force: Force,
    ) -> RebuildReport {
        if self.inner.shards.is_local(disk) {
            return self.force_here(bucket, key, shard, disk, &force).await;
        }
        match self.inner.shards.force_remote(disk, shard, (bucket.as_str(), key), force).await {
            Ok(answer) => answer.into(),
            Err(error) => RebuildReport::failed(error.to_string()),
        }
    }

    /// The same on one of our disks.
    pub async fn force_here(
        &self,
        bucket: &BucketName,
        key: &str,
        shard: ShardKey,
        disk: DiskId,
        force: &Force,
    ) -> RebuildReport {
        if let Err(error) = self.inner.meta.barrier().await {
            return RebuildReport::failed(error.to_string());
        }
        let claim = self.inner.board.claim(shard, disk, bucket).await;
        let _slot = self.inner.slots.acquire_many(PARTS).await;
        let report = self.replace(bucket, key, shard, disk, force).await;
        let report = report.unwrap_or_else(|error| RebuildReport::failed(error.to_string()));
        if report.state == RebuildState::Rebuilt {
            tracing::warn!(%bucket, key, %shard, %disk, "a shard that was wrong with a good checksum was replaced");
        }
        drop(claim);
        report
    }

    /// Puts a shard of the demanded checksum in the place of one that is there. The old one is moved aside once the new one is
    /// complete, and nothing at all happens unless it is what is demanded.
    async fn replace(
        &self,
        bucket: &BucketName,
        key: &str,
        shard: ShardKey,
        disk: DiskId,
        force: &Force,
    ) -> Result<RebuildReport, RebuildError> {
        let found = holder_of(&self.inner.meta, bucket, key, shard.extent_id()).await?;
        let extent = found.as_ref().and_then(|(_, _, record)| record.extent(shard.extent_id()));
        let home = extent.and_then(|extent| extent.homes.get(shard.shard.as_usize())).copied();
        let (Some((bucket, key, record)), Some(extent), Some(home)) = (&found, extent, home) else {
            return Ok(RebuildReport::without_work(RebuildState::Obsolete, "the object was replaced or deleted"));
        };
        let map = self.inner.meta.map();
        if home.at != Some(disk) || map.disk_state(disk) != Some(DiskState::Up) {
            return Ok(RebuildReport::failed(
                "its disk takes no new shards now: once it does, or the shard is elsewhere".to_owned(),
            ));
        }
        let volume = self.inner.disks.volume(disk).ok_or(RebuildError::NotHere(disk))?;
        if matches!(volume.verify_shard(shard).await?, ShardVerdict::Ok { crc, .. } if crc == force.crc) {
            return Ok(RebuildReport::without_work(RebuildState::Intact, "it is what it must be"));
        }
        let mut spec = ExtentSpec::of(bucket, key, record, extent);
        for doubted in &force.distrust {
            if let Some(home) = spec.homes.get_mut(doubted.as_usize()) {
                home.at = None;
            }
        }
        let head = head_of(&spec, shard, map.epoch)?;
        let timings = self.inner.board.timings();
        let bytes = spec.layout().shard_bytes();
        self.inner.throttle.take(bytes).await;
        let (writer, from, crc) = self.compute(&spec, head, &volume, timings).await?;
        if crc != force.crc {
            writer.abort().await;
            return Err(RebuildError::NotDemanded { demanded: force.crc, got: crc });
        }
        put_in_place(&volume, writer, Some("wrong")).await?;
        match volume.verify_shard(shard).await? {
            ShardVerdict::Ok { crc, .. } if crc == force.crc => {}
            other => return Err(RebuildError::NotBack(format!("{other:?}"))),
        }
        timings.add_shard(bytes);
        Ok(RebuildReport { state: RebuildState::Rebuilt, rebuilt_from: from, bytes, detail: String::new() })
    }
}
