//! Stories of a cluster: what clients keep, whatever happens to nodes, disks and shards.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;

use super::{Cluster, Settings, bucket, content, until};
use crate::disk::ShardVerdict;
use crate::gateway::{ByteRange, Entry, GatewayError, ListQuery, PutOptions, ShardState};
use crate::model::{Condition, DiskState, Home};
use crate::repair::{FoundBy, Progress, RebuildReport, RebuildState, Scope};
use crate::types::{DiskId, ExtentIndex, ShardIndex, ShardKey};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

pub(super) fn flip_byte(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() - 10;
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

pub(super) async fn last(mut stream: crate::repair::ProgressStream) -> Progress {
    let mut last = None;
    let drained = tokio::time::timeout(Duration::from_secs(60), async {
        while let Some(progress) = stream.next().await {
            last = Some(progress);
        }
    });
    drained.await.expect("the verb ended");
    let last = last.expect("a verb says how it ended");
    assert!(last.finished, "{last:?}");
    last
}

/// Shard `index` of the first extent: its name and its home.
async fn shard_of(cluster: &Cluster, key: &str, index: u8) -> (ShardKey, DiskId) {
    let record = cluster.record(key).await;
    let shard = ShardKey { version: record.version, extent: ExtentIndex(0), shard: ShardIndex(index) };
    (shard, record.extents[0].homes[usize::from(index)].at.expect("it has a home"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_size_and_range_comes_back_also_with_two_nodes_gone() {
    let mut cluster = Cluster::start(6, Settings::default()).await;
    let sizes =
        [0, 1, 63 * KIB, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 33 * MIB];

    // All nodes are well: put at one, get at another.
    for size in sizes {
        let done = cluster.put(0, &size.to_string(), &content(size)).await.unwrap();
        assert_eq!((done.size_bytes, done.shards_missing), (size as u64, 0));
        assert!(cluster.get(3, &size.to_string()).await.unwrap() == content(size), "{size} bytes");
    }
    let key = (33 * MIB).to_string();
    let whole = content(33 * MIB);
    let ranges = [(0, 1), (255 * KIB, 2 * KIB), (16 * MIB - 5, 10), (MIB, 20 * MIB), (33 * MIB - 1, 0), (7, 0)];
    for (offset, length) in ranges {
        let range = ByteRange { offset: offset as u64, length: length as u64 };
        let end = if length == 0 { whole.len() } else { offset + length };
        assert!(cluster.get_range(1, &key, range).await.unwrap() == whole.slice(offset..end), "{range:?}");
    }
    let beyond = ByteRange { offset: 33 * MIB as u64, length: 1 };
    assert!(matches!(cluster.get_range(1, &key, beyond).await, Err(GatewayError::BadRange { .. })));

    // A body whose length nobody announced is stored the same way.
    let chunks: Vec<Result<Bytes, String>> = whole.chunks(MIB).map(|chunk| Ok(whole.slice_ref(chunk))).collect();
    let options =
        PutOptions { bucket: bucket(), key: "unsized".to_owned(), condition: Condition::None, size_bytes: None };
    cluster.node(2).gateway.put(options, futures_util::stream::iter(chunks)).await.unwrap();
    assert!(cluster.get(4, "unsized").await.unwrap() == whole);

    // One node gone, and two: k shards are left, so all reads go on, and writes find other disks.
    for gone in [5, 4] {
        cluster.stop(gone).await;
        for size in sizes {
            assert!(cluster.get(1, &size.to_string()).await.unwrap() == content(size), "{size} bytes, {gone} gone");
        }
        let key = format!("without {gone}");
        cluster.put(1, &key, &content(MIB)).await.unwrap();
        assert!(cluster.get(3, &key).await.unwrap() == content(MIB));
    }

    // Four gone: on the disks that are left a write would not survive another loss, and is refused.
    cluster.stop(3).await;
    cluster.stop(2).await;
    let refused = cluster.put(1, "refused", &content(MIB)).await.unwrap_err();
    assert!(matches!(refused, GatewayError::TooFewHomes { durable: 4, .. }), "{refused}");
    assert!(matches!(cluster.get(1, "refused").await, Err(GatewayError::NoObject { .. })));
    // The first is told as a failure, with the homes that failed; that a client asks for what is not there is none.
    let node = cluster.node(1);
    let told = node.peers.failures().told(Some(&node.meta.map()), &"x".into(), |_| false);
    let uploads: Vec<_> = told.iter().filter(|event| event.kind == "upload_failure").collect();
    assert_eq!(uploads.len(), 1, "{told:?}");
    let stopped = |place: &resilver_proto::contract::FailurePlace| {
        node.meta.map().nodes.values().any(|at| at.name.as_str() == place.node && node.peers.is_suspect(&at.address))
    };
    assert!(uploads[0].places.iter().any(stopped), "{uploads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_is_away_has_a_stand_in_until_it_is_back() {
    let settings = Settings { check_interval: Duration::from_millis(500), ..Settings::default() };
    let mut cluster = Cluster::start(6, settings).await;
    let away = 5;
    let disks: Vec<DiskId> = cluster.node(away).disks.volumes().iter().map(|volume| volume.id()).collect();
    let address = cluster.addresses[away].clone();
    cluster.stop(away).await;
    until("the node is suspect", async || cluster.node(0).peers.is_suspect(&address)).await;

    // Writes are whole at once: what belongs on its disks is elsewhere, and the record says both.
    let keys: Vec<String> = (0..4).map(|number| format!("key{number}")).collect();
    let data = content(2 * MIB + 17);
    for key in &keys {
        assert_eq!(cluster.put(0, key, &data).await.unwrap().shards_missing, 0);
        let record = cluster.record(key).await;
        let homes = &record.extents[0].homes;
        let stood_in: Vec<&Home> = homes.iter().filter(|home| home.at != Some(home.wanted)).collect();
        assert_eq!(stood_in.len(), 1, "six hosts, six shards");
        assert!(disks.contains(&stood_in[0].wanted));
        let mut at: Vec<DiskId> = homes.iter().filter_map(|home| home.at).collect();
        at.sort();
        at.dedup();
        assert_eq!(at.len(), 6, "never two shards on one disk");
        assert!(cluster.get(1, key).await.unwrap() == data);
    }

    // It is back, and fetches what is its own; nobody had to ask.
    cluster.restart(away).await;
    for key in &keys {
        until("its shards are delivered", async || {
            let record = cluster.record(key).await;
            record.extents[0].homes.iter().all(|home| home.at == Some(home.wanted))
        })
        .await;
        assert!(cluster.node(2).gateway.verify(&bucket(), key).await.unwrap().intact);
    }
    assert!(cluster.node(away).repair.findings().is_empty(), "what was away is no discovery");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_shard_is_read_around_and_repaired() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let data = content(2 * MIB + 17);
    cluster.put(0, "key", &data).await.unwrap();
    let (shard, disk) = shard_of(&cluster, "key", 1).await;
    flip_byte(&cluster.file(disk, shard));

    // The read is right although it met the bad shard, and told its home.
    assert!(cluster.get(0, "key").await.unwrap() == data);
    let home = cluster.node(cluster.owner(disk));
    let volume = home.disks.volume(disk).unwrap();
    until("the shard is rebuilt", async || matches!(volume.verify_shard(shard).await, Ok(ShardVerdict::Ok { .. })))
        .await;
    until("the finding is closed", async || home.repair.findings().iter().all(|finding| finding.repaired)).await;
    let finding = home.repair.findings().pop().expect("it was noted");
    assert_eq!((finding.suspect.shard, finding.suspect.found_by), (shard, FoundBy::Read));
    assert_eq!(home.repair.status().completed, 1);
    assert!(home.repair.timings().bytes > 0);

    // Kept, not deleted.
    let aside = std::fs::read_dir(volume.path().join("aside")).unwrap().count();
    assert_eq!(aside, 1);
    assert!(cluster.node(2).gateway.verify(&bucket(), "key").await.unwrap().intact);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_the_bad_shards_and_repair_brings_them_back() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let data = content(MIB);
    cluster.put(0, "key", &data).await.unwrap();
    let (first, first_disk) = shard_of(&cluster, "key", 0).await;
    let (second, second_disk) = shard_of(&cluster, "key", 5).await;
    flip_byte(&cluster.file(first_disk, first));
    std::fs::remove_file(cluster.file(second_disk, second)).unwrap();

    let verdict = cluster.node(1).gateway.check_shards(&bucket(), "key").await.unwrap();
    assert!(verdict.recoverable && !verdict.intact);
    let bad: Vec<_> = verdict.shards.iter().filter(|check| !matches!(check.state, ShardState::Ok { .. })).collect();
    assert_eq!(bad.iter().map(|check| check.state.as_str()).collect::<Vec<_>>(), ["corrupt", "missing"]);

    let repair = cluster.node(1).gateway.repair(&bucket(), "key").await.unwrap();
    assert!(repair.intact, "{repair:?}");
    assert_eq!(repair.shards.len(), 2);
    // Their homes were told when they were found, and may have been quicker.
    let mended = |report: &RebuildReport| report.rebuilt_from.len() == 4 || report.state == RebuildState::Intact;
    assert!(repair.shards.iter().all(|shard| mended(&shard.report)), "{repair:?}");
    let proof =
        last(cluster.node(2).repair.verify_scope(Scope::Object { bucket: bucket(), key: "key".to_owned() })).await;
    assert_eq!((proof.done, proof.failed, proof.skipped), (6, 0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_fewer_than_k_good_shards_a_repair_changes_nothing() {
    let cluster = Cluster::start(6, Settings::default()).await;
    cluster.put(0, "key", &content(2 * MIB + 17)).await.unwrap();
    let mut files = Vec::new();
    for index in 0..6 {
        let (shard, disk) = shard_of(&cluster, "key", index).await;
        files.push(cluster.file(disk, shard));
    }
    // Three of 4+2: one more than can be made up for. A data shard, and both of the parity.
    let bad = [1, 4, 5];
    bad.iter().for_each(|index| flip_byte(&files[*index]));
    let content_of = || files.iter().map(|path| std::fs::read(path).ok()).collect::<Vec<_>>();
    let before = content_of();
    assert!(before.iter().all(Option::is_some));

    // Whoever asks, and however often, as each home by itself would try again.
    for node in [0, 3] {
        let repair = cluster.node(node).gateway.repair(&bucket(), "key").await.unwrap();
        assert!(!repair.intact);
        let tried: Vec<(u8, RebuildState)> =
            repair.shards.iter().map(|shard| (shard.shard.0, shard.report.state)).collect();
        assert_eq!(tried, bad.map(|index| (index as u8, RebuildState::Failed)), "{repair:?}");
        assert!(content_of() == before, "every file as it was, and in its place");
    }
    let count = |folder: &str| {
        let volumes = cluster.nodes.iter().flatten().flat_map(|node| node.disks.volumes());
        volumes.map(|volume| std::fs::read_dir(volume.path().join(folder)).unwrap().count()).sum::<usize>()
    };
    // The homes were told by who met bad shards, and try by themselves.
    until("nothing half made is left", async || count("tmp") == 0).await;
    assert_eq!(count("aside"), 0);
    let verdict = cluster.node(1).gateway.check_shards(&bucket(), "key").await.unwrap();
    assert!(!verdict.recoverable);

    // One of them comes back as it was: there are k, and the others are made anew.
    flip_byte(&files[1]);
    let repair = cluster.node(2).gateway.repair(&bucket(), "key").await.unwrap();
    assert!(repair.intact && repair.shards.len() == 2, "{repair:?}");
    assert!(cluster.get(4, "key").await.unwrap() == content(2 * MIB + 17));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_and_a_rotten_shard_are_found_without_any_reader() {
    let settings = Settings {
        check_interval: Duration::from_millis(500),
        scrub_period: Duration::from_secs(2),
        ..Settings::default()
    };
    let cluster = Cluster::start(6, settings).await;
    cluster.put(0, "missing", &content(300 * KIB)).await.unwrap();
    cluster.put(0, "rotten", &content(300 * KIB)).await.unwrap();
    let (missing, missing_disk) = shard_of(&cluster, "missing", 2).await;
    let (rotten, rotten_disk) = shard_of(&cluster, "rotten", 3).await;
    std::fs::remove_file(cluster.file(missing_disk, missing)).unwrap();
    flip_byte(&cluster.file(rotten_disk, rotten));
    for (shard, disk, found_by) in [(missing, missing_disk, FoundBy::Check), (rotten, rotten_disk, FoundBy::Scrub)] {
        let node = cluster.node(cluster.owner(disk));
        let volume = node.disks.volume(disk).unwrap();
        until("it is found and rebuilt", async || {
            let found = node.repair.findings().into_iter().find(|finding| finding.suspect.shard == shard);
            found.is_some_and(|finding| finding.repaired && finding.suspect.found_by == found_by)
                && matches!(volume.verify_shard(shard).await, Ok(ShardVerdict::Ok { .. }))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_and_replaced_versions_are_collected_after_the_read_deadline() {
    let settings = Settings { read_deadline: Duration::from_secs(3), ..Settings::default() };
    let cluster = Cluster::start(6, settings).await;
    cluster.put(0, "replaced", &content(MIB)).await.unwrap();
    cluster.put(0, "deleted", &content(MIB)).await.unwrap();
    let (old, old_disk) = shard_of(&cluster, "replaced", 0).await;
    let (gone, gone_disk) = shard_of(&cluster, "deleted", 0).await;

    let second = cluster.put(1, "replaced", &content(2 * MIB)).await.unwrap();
    assert_eq!(second.replaced, Some(old.version));
    assert!(cluster.node(2).gateway.delete(&bucket(), "deleted", Condition::None).await.unwrap());
    assert!(!cluster.node(2).gateway.delete(&bucket(), "deleted", Condition::None).await.unwrap());
    assert!(cluster.file(old_disk, old).exists(), "whoever reads it still can");

    for (shard, disk) in [(old, old_disk), (gone, gone_disk)] {
        until("it is moved aside", async || !cluster.file(disk, shard).exists()).await;
        assert!(cluster.any().meta.forbidden(shard.version).await.unwrap(), "forbidden before it was moved");
    }
    assert!(cluster.get(3, "replaced").await.unwrap() == content(2 * MIB));
    assert!(matches!(cluster.get(3, "deleted").await, Err(GatewayError::NoObject { .. })));
    let page = cluster.node(4).gateway.list(&bucket(), ListQuery::default()).await.unwrap();
    assert!(matches!(&page.entries[..], [Entry::Object(key, _)] if key == "replaced"), "{page:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_conditional_puts_that_race_exactly_one_wins() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let bodies: Vec<Bytes> = (0..4).map(|n| content(100 * KIB + n)).collect();
    let race = bodies.iter().enumerate().map(|(at, body)| cluster.put_if(at, "key", body, Condition::Absent));
    let results = futures_util::future::join_all(race).await;
    let won: Vec<usize> = (0..results.len()).filter(|at| results[*at].is_ok()).collect();
    assert_eq!(won.len(), 1, "{results:?}");
    for lost in results.iter().filter(|result| result.is_err()) {
        assert!(matches!(lost, Err(GatewayError::Condition { .. })), "{lost:?}");
    }
    assert!(cluster.get(5, "key").await.unwrap() == bodies[won[0]]);

    // From there on only whoever names the version may replace it.
    let version = cluster.record("key").await.version;
    let next = cluster.put_if(1, "key", &content(5), Condition::Version(version)).await.unwrap();
    assert_eq!(next.replaced, Some(version));
    assert!(cluster.put_if(2, "key", &content(6), Condition::Version(version)).await.is_err());
    assert!(cluster.get(3, "key").await.unwrap() == content(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_given_up_is_rebuilt_elsewhere_and_proven() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let keys: Vec<String> = (0..12).map(|n| format!("key-{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        cluster.put(n % 6, key, &content(200 * KIB * (n + 1))).await.unwrap();
    }
    let (_, disk) = shard_of(&cluster, "key-0", 0).await;
    let owner = cluster.owner(disk);
    let held = cluster.any().meta.counts().shards_by_disk.get(&disk).copied().unwrap_or(0);
    assert!(held > 0);
    // Wiped while it ran: what it held is gone.
    std::fs::remove_dir_all(cluster.node(owner).disks.volume(disk).unwrap().path()).unwrap();
    for (n, key) in keys.iter().enumerate() {
        assert!(
            cluster.get((owner + 1) % 6, key).await.unwrap() == content(200 * KIB * (n + 1)),
            "{key} while it is gone"
        );
    }

    cluster.set_disk(disk, DiskState::Out).await;
    let synced = last(cluster.node(owner).repair.sync_scope(Scope::Disk(disk))).await;
    assert_eq!((synced.failed, synced.skipped, synced.done), (0, 0, synced.total), "{synced:?}");
    // Twice is as good as once, and any node can be asked.
    last(cluster.node((owner + 1) % 6).repair.sync_scope(Scope::Disk(disk))).await;
    let proof = last(cluster.node(owner).repair.verify_scope(Scope::Disk(disk))).await;
    assert_eq!((proof.failed, proof.skipped), (0, 0), "{proof:?}");
    assert!(proof.done >= held, "{proof:?} of {held}");
    for (n, key) in keys.iter().enumerate() {
        let record = cluster.record(key).await;
        let homes: Vec<Home> = record.extents.iter().flat_map(|extent| extent.homes.clone()).collect();
        assert!(homes.iter().all(|home| home.at.is_some_and(|at| at != disk)), "{homes:?}");
        let verdict = cluster.node(2).gateway.verify(&bucket(), key).await.unwrap();
        assert!(verdict.intact, "{verdict:?}");
        assert!(cluster.get(n % 6, key).await.unwrap() == content(200 * KIB * (n + 1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_missed_while_it_was_down_is_rebuilt_when_it_is_back() {
    // With one disk a node there is none left to stand in.
    let settings = Settings { check_interval: Duration::from_millis(500), disks: 1, ..Settings::default() };
    let mut cluster = Cluster::start(6, settings).await;
    cluster.stop(5).await;
    let began = std::time::Instant::now();
    for n in 0..8 {
        let done = cluster.put(n % 5, &format!("key-{n}"), &content(100 * KIB)).await.unwrap();
        assert_eq!(done.shards_missing, 1);
    }
    // A refused connection is no timeout, and after three the peer is not even asked.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(cluster.any().meta.counts().homeless_shards, 8);

    cluster.restart(5).await;
    until("every shard has its home", async || cluster.any().meta.counts().homeless_shards == 0).await;
    for n in 0..8 {
        let verdict = cluster.node(0).gateway.check_shards(&bucket(), &format!("key-{n}")).await.unwrap();
        assert!(verdict.intact, "{verdict:?}");
    }
}

/// A home once gave an upload up when its client paused for longer than a block may take, and was blamed for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pauses_in_its_upload_loses_nothing() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let data = content(2 * MIB);
    let parts = [data.slice(..MIB), data.slice(MIB..)];
    let body = futures_util::stream::iter(parts.into_iter().enumerate()).then(|(index, part)| async move {
        if index > 0 {
            tokio::time::sleep(crate::deadlines::Deadlines::default().block + Duration::from_secs(1)).await;
        }
        Ok::<_, String>(part)
    });
    let options = PutOptions {
        bucket: bucket(),
        key: "slow".to_owned(),
        condition: Condition::None,
        size_bytes: Some(data.len() as u64),
    };
    let done = cluster.node(0).gateway.put(options, Box::pin(body)).await.unwrap();
    assert_eq!(done.shards_missing, 0);
    assert!(cluster.get(1, "slow").await.unwrap() == data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_broke_off_leaves_no_object_and_no_half_shard() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let chunks: Vec<Result<Bytes, String>> =
        (0..20).map(|_| Ok(content(MIB))).chain([Err("the client died".to_owned())]).collect();
    let options = PutOptions {
        bucket: bucket(),
        key: "broken".to_owned(),
        condition: Condition::None,
        size_bytes: Some(40 * MIB as u64),
    };
    let error = cluster.node(0).gateway.put(options, futures_util::stream::iter(chunks)).await.unwrap_err();
    assert!(matches!(error, GatewayError::Body(_)), "{error}");
    assert!(matches!(cluster.get(1, "broken").await, Err(GatewayError::NoObject { .. })));

    // Too short and too long against the announcement are refused, too.
    for (announced, len) in [(10, 9), (10, 11)] {
        let options = PutOptions {
            bucket: bucket(),
            key: "size".to_owned(),
            condition: Condition::None,
            size_bytes: Some(announced),
        };
        let body = futures_util::stream::iter([Ok::<_, String>(content(len))]);
        let error = cluster.node(0).gateway.put(options, body).await.unwrap_err();
        assert!(matches!(error, GatewayError::Size { .. }), "{error}");
    }

    // Extents that were whole by then give their room back, on every node.
    let held = || {
        cluster.nodes.iter().flatten().flat_map(|node| node.disks.volumes()).map(|it| it.status().shards).sum::<u64>()
    };
    until("nothing is left of them", async || held() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_that_died_left_behind_is_collected_once_it_is_old() {
    let cluster = Cluster::start(6, Settings::default()).await;
    let body = futures_util::stream::iter([Ok::<_, String>(content(MIB))]);
    let uploaded = cluster.node(0).gateway.upload(&bucket(), None, body).await.unwrap();
    // As if it had died before the commit: nobody gives the room back.
    std::mem::forget(uploaded);

    // One shard on each node. Young orphans stay; old ones are forbidden first, and then moved aside.
    let parts = cluster.node(3).repair.parts_for_test();
    let volumes = parts.disks.volumes();
    let held = || volumes.iter().map(|volume| volume.status().shards).sum::<u64>();
    until("the extent is durable", async || held() == 1).await;
    let mut seen = std::collections::BTreeMap::new();
    let mut moved = [0, 0];
    for volume in &volumes {
        moved[0] += crate::repair::search_orphans(&parts, volume, &mut seen, Duration::from_secs(3600)).await;
        moved[1] += crate::repair::search_orphans(&parts, volume, &mut seen, Duration::ZERO).await;
    }
    assert_eq!((moved, held()), ([0, 1], 0));
}
