//! Repair gives way to clients: a disk that is busy with them holds what has a spare, and says so.

use std::time::Duration;

use super::{Cluster, Settings, bucket, content, until};
use crate::disk::ShardVerdict;
use crate::repair::PAUSE_ABOVE;
use crate::types::ShardIndex;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_busy_with_clients_is_not_repaired_until_they_let_go_unless_a_person_asks() {
    let settings = Settings { check_interval: Duration::from_millis(300), ..Settings::default() };
    let cluster = Cluster::start(6, settings).await;
    for key in ["one", "two"] {
        cluster.put(0, key, &content(300_000)).await.unwrap();
    }
    // A shard of each, on one disk.
    let shard_on = async |key: &str, node: usize| {
        let record = cluster.record(key).await;
        let extent = &record.extents[0];
        let homes = (0u8..).map(ShardIndex).zip(&extent.homes);
        let mut found = homes.filter_map(|(shard, home)| Some((extent.id.shard(shard), home.at?)));
        found.find(|(_, disk)| cluster.owner(*disk) == node).expect("six nodes, six shards")
    };
    let (one, disk) = shard_on("one", 2).await;
    let (two, other) = shard_on("two", 2).await;
    let node = cluster.node(2);
    let (volume, other_volume) = (node.disks.volume(disk).unwrap(), node.disks.volume(other).unwrap());

    let busy = (volume.client_step(), other_volume.client_step());
    until("the disks count as busy", async || {
        let held = node.repair.held();
        held.contains_key(&disk) && held.contains_key(&other)
    })
    .await;
    std::fs::remove_file(cluster.file(disk, one)).unwrap();
    std::fs::remove_file(cluster.file(other, two)).unwrap();
    until("both wait", async || node.repair.held().values().map(|held| held.shards).sum::<u64>() == 2).await;
    let held = node.repair.held()[&disk];
    assert!(held.percent > PAUSE_ABOVE && node.repair.foreground_percent(disk) == held.percent, "{held:?}");
    assert_eq!((node.repair.status().queue, node.repair.status().in_flight), (2, 0));
    assert_eq!(volume.verify_shard(one).await.unwrap(), ShardVerdict::Missing);

    // What a person names is repaired all the same.
    let repair = cluster.node(0).gateway.repair(&bucket(), "one").await.unwrap();
    assert!(repair.intact, "{repair:?}");
    assert_eq!(other_volume.verify_shard(two).await.unwrap(), ShardVerdict::Missing, "the other still waits");

    drop(busy);
    until("what waited is rebuilt", async || {
        matches!(other_volume.verify_shard(two).await, Ok(ShardVerdict::Ok { .. }))
    })
    .await;
    assert!(node.repair.held().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_read_and_write_counts_and_what_verification_reads_does_not() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let busy = || -> Vec<Duration> {
        let volumes = cluster.nodes.iter().flatten().flat_map(|node| node.disks.volumes());
        volumes.map(|volume| volume.foreground_busy()).collect()
    };
    let total = || busy().iter().sum::<Duration>();
    assert_eq!(total(), Duration::ZERO);
    cluster.put(0, "key", &content(2_000_000)).await.unwrap();
    let written = total();
    assert!(busy().iter().filter(|busy| !busy.is_zero()).count() >= 6, "{:?}", busy());
    assert!(cluster.get(1, "key").await.unwrap() == content(2_000_000));
    let read = total();
    assert!(read > written);

    cluster.node(3).gateway.verify(&bucket(), "key").await.unwrap();
    let record = cluster.record("key").await;
    let home = record.extents[0].homes[3].at.unwrap();
    std::fs::remove_file(cluster.file(home, record.extents[0].id.shard(ShardIndex(3)))).unwrap();
    assert!(cluster.node(4).gateway.repair(&bucket(), "key").await.unwrap().intact);
    assert_eq!(total(), read, "neither verification nor a rebuild is a client");
}
