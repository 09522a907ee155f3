//! Shards that are rebuilt at the same time, and what they share: one that fails fails alone.

use std::time::Duration;

use resilver_proto::internal::shards_client::ShardsClient;
use resilver_proto::internal::{GetManyRequest, ShardId, ShardRun};
use tonic::Code;

use super::{Cluster, Settings, content, until};
use crate::disk::ShardVerdict;
use crate::model::Command;
use crate::peers::Profile;
use crate::types::{DiskId, ShardIndex, ShardKey};

impl Cluster {
    /// The shard of a small object that lies on a disk of this node.
    async fn shard_at(&self, key: &str, node: usize) -> (ShardKey, DiskId) {
        let record = self.record(key).await;
        let extent = &record.extents[0];
        let homes = (0u8..).zip(&extent.homes);
        let mut here = homes.filter_map(|(shard, home)| Some((shard, home.at?)));
        let (shard, disk) = here.find(|(_, disk)| self.owner(*disk) == node).expect("each node has a shard of it");
        (extent.id.shard(ShardIndex(shard)), disk)
    }
}

fn run(key: ShardKey, first_block: u32, blocks: u32) -> ShardRun {
    let id = ShardId { version: key.version.to_string(), extent: key.extent.0, shard: u32::from(key.shard.0) };
    ShardRun { id: Some(id), first_block, blocks }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_runs_that_are_asked_for_together_each_is_answered_for_itself_and_too_many_are_refused() {
    let cluster = Cluster::start(6, Settings { disks: 1, ..Settings::default() }).await;
    let data = content(300_000);
    for key in ["good", "gone", "rotten"] {
        cluster.put(0, key, &data).await.unwrap();
    }
    let (good, disk) = cluster.shard_at("good", 3).await;
    let (gone, _) = cluster.shard_at("gone", 3).await;
    let (rotten, _) = cluster.shard_at("rotten", 3).await;
    std::fs::remove_file(cluster.file(disk, gone)).unwrap();
    let mut bytes = std::fs::read(cluster.file(disk, rotten)).unwrap();
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    std::fs::write(cluster.file(disk, rotten), bytes).unwrap();

    let node = cluster.node(0);
    let channel = node.peers.channel(&cluster.addresses[3], Profile::Bulk).unwrap();
    let member = node.meta.map().node_of_disk(disk).unwrap().raft_id;
    let ask = async |runs: Vec<ShardRun>| {
        let request = GetManyRequest { envelope: Some(node.meta.envelope(member)), disk_id: disk.to_string(), runs };
        ShardsClient::new(channel.clone()).get_many(request).await.map(|answer| answer.into_inner().answers)
    };
    let answers = ask(vec![run(gone, 0, 2), run(good, 0, 4), run(rotten, 0, 2), run(good, 1, 1)]).await.unwrap();
    let told: Vec<_> = answers.iter().map(|answer| (Code::from_i32(answer.code as i32), answer.blocks.len())).collect();
    assert_eq!(told, [(Code::NotFound, 0), (Code::Ok, 2), (Code::DataLoss, 1), (Code::Ok, 1)]);
    assert_eq!(answers[1].blocks[1], answers[3].blocks[0], "the second block");
    for block in &answers[1].blocks {
        assert_eq!(crc32c::crc32c(&block.data), block.crc32c);
    }

    let refused = ask(vec![run(good, 0, 5)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let refused = ask(vec![run(good, 0, 0)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "to the end is no small run: {refused}");
    let refused = ask((0..9).map(|_| run(good, 0, 4)).collect()).await.unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("36 blocks"), "{refused}");
}

/// Each of the workers that waited for a job when a pause began still took one: 64 small shards were rebuilt in spite of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_wait_when_a_pause_begins_take_nothing_before_it_ends() {
    let cluster = Cluster::start(6, Settings { disks: 1, ..Settings::default() }).await;
    let keys: Vec<String> = (0..5).map(|number| format!("k{number}")).collect();
    for key in &keys {
        cluster.put(0, key, &content(70_000)).await.unwrap();
    }
    let (node, length) = (cluster.node(2), Duration::from_secs(3600));
    let pause = Command::PauseRepair { owner: "test".to_owned(), reason: "looking".to_owned(), length };
    node.meta.propose(pause).await.unwrap();
    for key in &keys {
        let (shard, disk) = cluster.shard_at(key, 2).await;
        std::fs::remove_file(cluster.file(disk, shard)).unwrap();
    }
    node.repair.check_now();
    until("all of them wait", async || node.repair.status().queue == 5).await;
    node.meta.propose(Command::ResumeRepair { stamp: None }).await.unwrap();
    until("all of them are back", async || node.repair.status().completed == 5).await;
}

/// All shards of a disk at once, so that they go in company; one cannot be read well enough, and comes back all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_shards_that_are_lost_at_once_all_come_back_although_some_of_what_is_left_is_bad() {
    let cluster = Cluster::start(6, Settings { disks: 1, ..Settings::default() }).await;
    let data = content(70_000);
    let keys: Vec<String> = (0..40).map(|number| format!("k{number}")).collect();
    for key in &keys {
        cluster.put(0, key, &data).await.unwrap();
    }
    let mut lost = Vec::new();
    for key in &keys {
        let (shard, disk) = cluster.shard_at(key, 2).await;
        std::fs::remove_file(cluster.file(disk, shard)).unwrap();
        lost.push((shard, disk));
    }
    for key in &keys[..3] {
        let (shard, disk) = cluster.shard_at(key, 4).await;
        std::fs::write(cluster.file(disk, shard), b"no shard at all").unwrap();
    }
    cluster.node(2).repair.check_now();
    until("all are back", async || {
        for (shard, disk) in &lost {
            let volume = cluster.node(2).disks.volume(*disk).unwrap();
            if !matches!(volume.verify_shard(*shard).await, Ok(ShardVerdict::Ok { .. })) {
                return false;
            }
        }
        true
    })
    .await;
    for key in &keys {
        assert!(cluster.get(1, key).await.unwrap() == data, "{key}");
    }
}
