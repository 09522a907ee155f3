//! Reading all shards of an object that are there, to tell which of them are wrong although each is as it was written
//! ([`super::arbiter`]), and putting others in their place.
//!
//! Must never: change anything before it is decided for the whole object. Hold more than one extent in memory, or two objects'
//! at a time ([`super::Inner`]): that is up to 32 MiB.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::arbiter::{Codeword, Evidence, decide, wrong};
use super::codewords::codewords;
use super::verify::{ObjectRepair, ObjectVerdict, RepairedShard, ShardState};
use super::{ExtentSpec, Gateway, GatewayError};
use crate::disk::Purpose;
use crate::repair::Force;
use crate::transport::TransportError;
use crate::types::{BucketName, DiskId, ExtentIndex, ShardIndex, ShardKey};

/// Blocks asked for at a time: all of them are taken before any is used, because what is not taken holds up everything else
/// from that peer.
const RUN_BLOCKS: u32 = 32;

/// How often is begun anew: while wrong shards were replaced, another that was missing may have been computed from one of them.
const ROUNDS: u32 = 3;

impl Gateway {
    /// [`Gateway::repair`], and before it: puts others in the place of shards that are as they were written and not what the
    /// object's content demands. Such shards must not be what others are computed from.
    ///
    /// # Errors
    /// As [`Gateway::repair`]; [`GatewayError::Undecided`] when it cannot be told which shards are right. Nothing is changed then.
    pub async fn repair_fully(&self, bucket: &BucketName, key: &str) -> Result<ObjectRepair, GatewayError> {
        // Ended, what was replaced by then is good, and the rest is as it was.
        self.reading("repair", &format!("{bucket}/{key}"), self.replace_and_repair(bucket, key)).await
    }

    async fn replace_and_repair(&self, bucket: &BucketName, key: &str) -> Result<ObjectRepair, GatewayError> {
        let mut shards = Vec::new();
        let mut round = 0;
        loop {
            round += 1;
            shards.extend(self.replace_wrong(bucket, key).await?);
            shards.extend(self.repair_shards(bucket, key).await?.shards);
            let intact = self.prove(bucket, key).await?.intact;
            if intact || round == ROUNDS {
                return Ok(ObjectRepair { shards, intact });
            }
        }
    }

    async fn replace_wrong(&self, bucket: &BucketName, key: &str) -> Result<Vec<RepairedShard>, GatewayError> {
        let before = self.check_shards(bucket, key).await?;
        let mut shards = Vec::new();
        for (index, (evidence, right)) in (0..).map(ExtentIndex).zip(self.weigh(bucket, key, &before).await?) {
            let distrust = wrong(&evidence, &right);
            let spec = ExtentSpec::of(bucket, key, &before.record, &before.record.extents[index.0 as usize]);
            for shard in distrust.iter().copied() {
                let force = Force { crc: right.shard_crcs[shard.as_usize()], distrust: distrust.clone() };
                shards.push(self.force(&spec, index, shard, force).await);
            }
        }
        Ok(shards)
    }

    async fn force(&self, spec: &ExtentSpec, extent: ExtentIndex, shard: ShardIndex, force: Force) -> RepairedShard {
        let disk = spec.homes[shard.as_usize()].at;
        let report = match disk {
            Some(disk) => self.inner.rebuilder.force_at(&spec.bucket, &spec.key, spec.shard(shard), disk, force).await,
            None => crate::repair::RebuildReport::failed("it has no home any more".to_owned()),
        };
        let node = disk.and_then(|disk| self.inner.meta.map().node_of_disk(disk).map(|node| node.name.clone()));
        RepairedShard { extent, shard, disk, node, report }
    }

    /// As if another object were weighed for as long as this is held.
    #[cfg(test)]
    pub(crate) async fn weighing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.weighing.lock().await
    }

    /// For each extent what was found of it, and the codeword that it is.
    pub(super) async fn weigh(
        &self,
        bucket: &BucketName,
        key: &str,
        verdict: &ObjectVerdict,
    ) -> Result<Vec<(Evidence, Codeword)>, GatewayError> {
        let _one = self.inner.weighing.lock().await;
        let record = &verdict.record;
        let mut extents = Vec::with_capacity(record.extents.len());
        for (index, extent) in (0..).map(ExtentIndex).zip(&record.extents) {
            let spec = ExtentSpec::of(bucket, key, record, extent);
            let of = || verdict.shards.iter().filter(|check| check.extent == index);
            let unheard = of().filter(|check| matches!(check.state, ShardState::Unreachable(_))).count();
            let good = of().filter_map(|check| match check.state {
                ShardState::Ok { .. } => Some((check.shard, check.disk)),
                _ => None,
            });
            extents.push(self.evidence(&spec, good.collect(), unheard).await?);
        }
        let right = decide(&extents, record.coding.k, record.crc32c);
        let right = right.map_err(|undecided| GatewayError::Undecided(undecided.to_string()))?;
        Ok(extents.into_iter().zip(right).collect())
    }

    /// Of the shards that were good a moment ago; so many others could not be asked for.
    async fn evidence(
        &self,
        spec: &ExtentSpec,
        good: BTreeMap<ShardIndex, DiskId>,
        mut unheard: usize,
    ) -> Result<Evidence, GatewayError> {
        let layout = spec.layout();
        let mut shards: Vec<Option<Vec<Bytes>>> = vec![None; spec.coding.total()];
        let mut trouble = Vec::new();
        for (shard, disk) in good {
            match self.whole_shard(disk, spec.shard(shard), layout.stripes()).await {
                Ok(blocks) => shards[shard.as_usize()] = Some(blocks),
                Err(error) => {
                    let is_told = matches!(error, TransportError::Missing { .. } | TransportError::Corrupt { .. });
                    unheard += usize::from(!is_told);
                    trouble.push(error.to_string());
                }
            }
        }
        // What went bad meanwhile is as good as missing; too few are no evidence.
        if shards.iter().flatten().count() < usize::from(spec.coding.k) {
            let detail =
                if trouble.is_empty() { "fewer than k of its shards are good".to_owned() } else { trouble.join("; ") };
            return Err(GatewayError::Unreadable { extent: spec.id, detail });
        }
        let found = shards.iter().map(|shard| {
            shard.as_ref().map(|blocks| blocks.iter().fold(0, |crc, block| crc32c::crc32c_append(crc, block)))
        });
        let found = found.collect();
        // Seconds of computing, and half a minute for wide codings: off the loop.
        let made = self.inner.host.blocking(move || codewords(&shards, layout)).await;
        let made = made.map_err(|error| GatewayError::BadCoding(error.to_string()))?;
        Ok(Evidence {
            extent: spec.id,
            len_bytes: spec.len_bytes,
            found,
            codewords: made.found,
            all: made.all,
            unheard,
        })
    }

    /// A whole shard, in blocks.
    async fn whole_shard(&self, disk: DiskId, shard: ShardKey, blocks: u32) -> Result<Vec<Bytes>, TransportError> {
        let mut whole = Vec::with_capacity(blocks as usize);
        while (whole.len() as u32) < blocks {
            let (first, left) = (whole.len() as u32, blocks - whole.len() as u32);
            let run = RUN_BLOCKS.min(left);
            let mut stream = self.inner.shards.get(disk, shard, first, run, Purpose::Background).await?;
            for _ in 0..run {
                match stream.next().await? {
                    Some(block) => whole.push(block),
                    None => {
                        let detail = "it ends before its last block".to_owned();
                        return Err(TransportError::Corrupt { key: shard, disk, detail });
                    }
                }
            }
        }
        Ok(whole)
    }
}
