//! Shards that are as somebody wrote them, with good checksums and a header that fits, and wrong all the same.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::{Cluster, Settings, bucket, content, until};
use crate::codec::REED_SOLOMON;
use crate::disk::ShardHead;
use crate::gateway::{GatewayError, ShardState};
use crate::model::{ObjectRecord, UPLOADS_BUCKET};
use crate::repair::RebuildState;
use crate::types::{BucketName, DiskId, Epoch, ShardIndex, ShardKey};

const LEN: usize = 1_500_000;

impl Cluster {
    /// Puts a sound shard of other content in the place of one.
    async fn swap(&self, record: &ObjectRecord, extent: usize, index: u8) {
        let of = &record.extents[extent];
        let (key, disk) = (of.id.shard(ShardIndex(index)), of.homes[usize::from(index)].at.unwrap());
        let volume = self.node(self.owner(disk)).disks.volume(disk).unwrap();
        let head = ShardHead {
            key,
            coding: record.coding,
            codec: REED_SOLOMON,
            block_bytes: record.block_bytes,
            extent_bytes: of.len_bytes,
            epoch: Epoch(1),
        };
        let mut writer = volume.create_shard(head).unwrap();
        for block in 0..head.layout().stripes() {
            let data: Bytes = vec![index ^ 0x5a; head.layout().block_len(block)].into();
            let crc = crc32c::crc32c(&data);
            writer.block(data, crc).await.unwrap();
        }
        writer.finish().await.unwrap();
    }

    /// Every shard's file of an object, and what is in it.
    async fn files(&self, record: &ObjectRecord) -> BTreeMap<PathBuf, Vec<u8>> {
        let shards = record.extents.iter().flat_map(|extent| {
            let homes = (0u8..).map(ShardIndex).zip(&extent.homes);
            homes.filter_map(|(shard, home)| Some((extent.id.shard(shard), home.at?)))
        });
        let file = |(key, disk): (ShardKey, DiskId)| self.file(disk, key);
        shards.map(file).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_shards_with_good_checksums_are_found_by_the_content_and_replaced_when_asked() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let data = content(LEN);
    // One data shard; a data and a parity shard, where no majority of shards could tell; one beside a missing one.
    for (key, wrong, missing) in [("one", vec![1], None), ("two", vec![2, 5], None), ("three", vec![0], Some(4))] {
        cluster.put(0, key, &data).await.unwrap();
        let record = cluster.record(key).await;
        let before = cluster.files(&record).await;
        for index in &wrong {
            cluster.swap(&record, 0, *index).await;
        }
        if let Some(index) = missing {
            let (id, home) = (record.extents[0].id, record.extents[0].homes[index]);
            std::fs::remove_file(cluster.file(home.at.unwrap(), id.shard(ShardIndex(index as u8)))).unwrap();
        }

        // By their checksums all is well, and a verification of the content says which are not.
        let gateway = &cluster.node(3).gateway;
        let by_checksum = gateway.check_shards(&bucket(), key).await.unwrap();
        assert_eq!(by_checksum.intact, missing.is_none(), "{by_checksum:?}");
        let verdict = gateway.verify_fully(&bucket(), key).await.unwrap();
        assert!(verdict.recoverable && !verdict.intact);
        let corrupt = verdict.shards.iter().filter(|check| matches!(check.state, ShardState::Corrupt { .. }));
        assert_eq!(corrupt.map(|check| check.shard.0).collect::<Vec<_>>(), wrong, "{key}");

        let repair = gateway.repair_fully(&bucket(), key).await.unwrap();
        assert!(repair.intact, "{repair:?}");
        let rebuilt = repair.shards.iter().filter(|shard| shard.report.state == RebuildState::Rebuilt);
        assert_eq!(rebuilt.count(), wrong.len() + usize::from(missing.is_some()), "{repair:?}");
        for shard in &repair.shards {
            let from = &shard.report.rebuilt_from;
            assert!(!from.iter().any(|from| wrong.contains(&from.0) && wrong.contains(&shard.shard.0)), "{repair:?}");
        }
        assert_eq!(cluster.files(&record).await, before, "every byte as it was put");
        assert!(cluster.get(4, key).await.unwrap() == data);
        // Once is enough.
        let again = gateway.repair_fully(&bucket(), key).await.unwrap();
        assert!(again.intact && again.shards.is_empty(), "{again:?}");
    }
    // Moved aside, not overwritten.
    let aside = cluster.nodes.iter().flatten().flat_map(|node| node.disks.volumes()).map(|volume| {
        let names = std::fs::read_dir(volume.path().join("aside")).unwrap();
        names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().starts_with("wrong-")).count()
    });
    assert_eq!(aside.sum::<usize>(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_too_many_wrong_shards_a_repair_is_refused_and_changes_nothing() {
    let cluster = Cluster::start(6, Settings::default()).await;
    cluster.put(0, "key", &content(LEN)).await.unwrap();
    let record = cluster.record("key").await;
    for index in [0, 3, 4] {
        cluster.swap(&record, 0, index).await;
    }
    let before = cluster.files(&record).await;
    let gateway = &cluster.node(1).gateway;
    let refused = gateway.repair_fully(&bucket(), "key").await.unwrap_err();
    assert!(matches!(refused, GatewayError::Undecided(_)), "{refused}");
    let status = tonic::Status::from(refused);
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "which the command ends with as 5");
    assert_eq!(cluster.files(&record).await, before);
    let verdict = gateway.verify_fully(&bucket(), "key").await.unwrap();
    assert!(!verdict.intact, "and nobody calls it whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_large_object_the_extents_in_doubt_are_decided_together() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let data = content(33 * 1024 * 1024);
    cluster.put(0, "key", &data).await.unwrap();
    let record = cluster.record("key").await;
    let before = cluster.files(&record).await;
    cluster.swap(&record, 0, 3).await;
    cluster.swap(&record, 2, 1).await;
    let repair = cluster.node(5).gateway.repair_fully(&bucket(), "key").await.unwrap();
    assert!(repair.intact, "{repair:?}");
    assert_eq!(repair.shards.iter().map(|shard| (shard.extent.0, shard.shard.0)).collect::<Vec<_>>(), [(0, 3), (2, 1)]);
    assert_eq!(cluster.files(&record).await, before);
}

/// A report named a shard by the object's version, under which nobody knows the extents of one completed from parts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_verification_finds_in_parts_and_in_what_they_became_is_reported_under_its_own_name() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let (part, object) = cluster.with_parts("joined", LEN).await;
    let uploads = BucketName::from(UPLOADS_BUCKET);
    for (bucket, key) in [(uploads.clone(), part), (bucket(), object)] {
        let record = cluster.any().gateway.head(&bucket, &key).await.unwrap();
        let (shard, disk) = (record.extents[0].id.shard(ShardIndex(1)), record.extents[0].homes[1].at.unwrap());
        std::fs::remove_file(cluster.file(disk, shard)).unwrap();
        assert!(!cluster.node(1).gateway.verify(&bucket, &key).await.unwrap().intact);
        let volume = cluster.node(cluster.owner(disk)).disks.volume(disk).unwrap();
        until("it is rebuilt", async || volume.stat_shard(shard).await.is_ok_and(|there| there.is_some())).await;
    }
    // Parts are listed for whoever verifies everything, page by page, and nowhere else.
    let node = cluster.node(2);
    let page = node.gateway.list_parts_of_all(Default::default()).await.unwrap();
    assert_eq!(page.entries.len(), 1, "{page:?}");
    assert!(node.gateway.list(&uploads, Default::default()).await.is_err());
    tokio::time::timeout(Duration::from_secs(60), node.gateway.verify_fully(&uploads, "test/none/00001"))
        .await
        .unwrap()
        .unwrap_err();
}
