//! Anti-entropy on a node as it runs: what changed behind its back is found, at the cost of what changed.

use std::time::Duration;

use super::{Cluster, Node, Settings, content, until};
use crate::disk::ShardVerdict;
use crate::repair::{AntiEntropy, FoundBy};
use crate::types::{DiskId, ShardIndex, ShardKey, Version};

/// What was done by a pass that began after this was asked.
async fn after_a_pass(node: &Node) -> AntiEntropy {
    let begun = node.repair.anti_entropy().passes;
    until("another pass", async || node.repair.anti_entropy().passes >= begun + 2).await;
    node.repair.anti_entropy()
}

/// Waits until a pass reads no folder and looks into nothing: all is known.
async fn settled(node: &Node) -> AntiEntropy {
    loop {
        let before = node.repair.anti_entropy();
        let after = after_a_pass(node).await;
        if (before.folders_read, before.ranges_examined) == (after.folders_read, after.ranges_examined) {
            return after;
        }
    }
}

/// The shards of an object that a node has.
async fn shards_at(cluster: &Cluster, key: &str, node: usize) -> Vec<(ShardKey, DiskId)> {
    let record = cluster.record(key).await;
    let extents = record.extents.iter().flat_map(|extent| {
        let homes = (0u8..).map(ShardIndex).zip(&extent.homes);
        homes.filter_map(|(shard, home)| Some((extent.id.shard(shard), home.at?)))
    });
    extents.filter(|(_, disk)| cluster.owner(*disk) == node).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_vanished_behind_a_nodes_back_is_found_by_reading_what_changed_and_strangers_are_left_alone() {
    let settings = Settings { check_interval: Duration::from_millis(300), ..Settings::default() };
    let cluster = Cluster::start(6, settings).await;
    for number in 0..40 {
        cluster.put(number % 6, &format!("key{number}"), &content(20_000 + number)).await.unwrap();
    }
    let node = cluster.node(2);
    let before = settled(node).await;
    assert_eq!(before.missing, 0, "what was put is no loss: {before:?}");

    // Two shards vanish, and one turns up that nobody ever put.
    let mut gone = Vec::new();
    for key in ["key7", "key31"] {
        let (shard, disk) = shards_at(&cluster, key, 2).await[0];
        std::fs::remove_file(cluster.file(disk, shard)).unwrap();
        gone.push((shard, disk));
    }
    let (shard, disk) = shards_at(&cluster, "key12", 2).await[0];
    let stranger = ShardKey { version: Version(shard.version.0 ^ 1), ..shard };
    let file = cluster.file(disk, shard);
    let strange_file = file.with_file_name(stranger.to_string());
    std::fs::copy(&file, &strange_file).unwrap();

    for (shard, disk) in &gone {
        let volume = node.disks.volume(*disk).unwrap();
        until("it is found and rebuilt", async || {
            matches!(volume.verify_shard(*shard).await, Ok(ShardVerdict::Ok { .. }))
        })
        .await;
    }
    let found = node.repair.findings();
    assert!(found.iter().all(|finding| finding.suspect.found_by == FoundBy::Check), "{found:?}");
    let mut named: Vec<ShardKey> = found.iter().map(|finding| finding.suspect.shard).collect();
    let mut expected: Vec<ShardKey> = gone.iter().map(|(shard, _)| *shard).collect();
    named.sort();
    expected.sort();
    assert_eq!(named, expected);

    // Three folders changed, of 512; each is read until its time stamp has settled. The stranger is looked into, and then
    // remembered as explained.
    let after = settled(node).await;
    let read = after.folders_read - before.folders_read;
    assert!((3..120).contains(&read), "{read} folders were read");
    let examined = after.ranges_examined - before.ranges_examined;
    assert!((3..60).contains(&examined), "{examined} ranges were looked into");
    assert!(strange_file.exists(), "whether it is anybody's the search for orphans judges");
    assert_eq!(after_a_pass(node).await.ranges_examined, after.ranges_examined);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_cut_short_changes_no_name_and_is_found_by_the_full_comparison() {
    let settings = Settings {
        check_interval: Duration::from_millis(300),
        full_check_period: Duration::from_secs(3),
        ..Settings::default()
    };
    let cluster = Cluster::start(6, settings).await;
    cluster.put(0, "key", &content(300_000)).await.unwrap();
    let (shard, disk) = shards_at(&cluster, "key", 4).await[0];
    let file = std::fs::OpenOptions::new().write(true).open(cluster.file(disk, shard)).unwrap();
    file.set_len(100).unwrap();
    let node = cluster.node(4);
    let volume = node.disks.volume(disk).unwrap();
    until("it is found and rebuilt", async || {
        let found = node.repair.findings().into_iter().find(|finding| finding.suspect.shard == shard);
        found.is_some_and(|finding| finding.repaired && finding.suspect.found_by == FoundBy::Check)
            && matches!(volume.verify_shard(shard).await, Ok(ShardVerdict::Ok { .. }))
    })
    .await;
    until("all shards of a disk were asked for", async || node.repair.anti_entropy().full_passes > 0).await;
}

/// Nothing is watched yet when a node starts, and what went while it was away shows in no time stamp it knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_vanished_while_a_node_was_down_is_found_when_it_is_back() {
    let settings = Settings { check_interval: Duration::from_millis(300), ..Settings::default() };
    let mut cluster = Cluster::start(6, settings).await;
    for number in 0..6 {
        cluster.put(0, &format!("key{number}"), &content(50_000)).await.unwrap();
    }
    let (shard, disk) = shards_at(&cluster, "key3", 5).await[0];
    let file = cluster.file(disk, shard);
    cluster.stop(5).await;
    std::fs::remove_file(&file).unwrap();
    cluster.restart(5).await;
    let volume = cluster.node(5).disks.volume(disk).unwrap();
    until("it is rebuilt", async || matches!(volume.verify_shard(shard).await, Ok(ShardVerdict::Ok { .. }))).await;
}
