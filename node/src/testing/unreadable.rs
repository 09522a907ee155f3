//! Shards on sectors that cannot be read: as good as corrupt while their disk serves, and the disk's matter while it does not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::faults::{EIO, Faults, Step};
use super::{Cluster, Settings, bucket, content, until};
use crate::disk::{Health, ShardVerdict, Volume};
use crate::gateway::ShardState;
use crate::repair::{Finding, FoundBy, RebuildState, SuspectKind};
use crate::types::{DiskId, ShardIndex, ShardKey};

const LEN: usize = 2 * 1024 * 1024 + 17;

/// A cluster with an object, and one of its shards.
struct Scene {
    cluster: Cluster,
    faults: Arc<Faults>,
    shard: ShardKey,
    disk: DiskId,
    file: PathBuf,
    owner: usize,
    volume: Arc<Volume>,
}

impl Scene {
    async fn with(settings: Settings) -> Self {
        let (host, faults) = Faults::host();
        let cluster = Cluster::start_on(host, 6, settings).await;
        cluster.put(0, "key", &content(LEN)).await.unwrap();
        let record = cluster.record("key").await;
        let (shard, disk) = (record.extents[0].id.shard(ShardIndex(1)), record.extents[0].homes[1].at.unwrap());
        let (file, owner) = (cluster.file(disk, shard), cluster.owner(disk));
        let volume = cluster.node(owner).disks.volume(disk).unwrap();
        until("its disk serves", async || volume.status().health == Health::Ok).await;
        Self { cluster, faults, shard, disk, file, owner, volume }
    }

    fn sicken(&self, step: Step) {
        self.faults.sicken(&self.file, step, EIO, u32::MAX);
    }

    fn findings(&self) -> Vec<Finding> {
        self.cluster.node(self.owner).repair.findings()
    }

    /// Waits until the shard is found as it should be, rebuilt and read back, and what it was is aside.
    async fn mended(&self, found_by: FoundBy) {
        until("it is found and rebuilt", async || {
            self.findings().iter().any(|finding| finding.suspect.shard == self.shard && finding.repaired)
        })
        .await;
        let findings = self.findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        let suspect = &findings[0].suspect;
        assert_eq!((suspect.kind, suspect.found_by), (SuspectKind::Corrupt, found_by));
        assert!(suspect.detail.contains("cannot be read") && suspect.detail.contains("os error 5"), "{suspect:?}");
        assert!(matches!(self.volume.verify_shard(self.shard).await, Ok(ShardVerdict::Ok { .. })));
        assert_eq!(names(&self.volume, "aside").len(), 1, "kept, not deleted");
        assert_eq!(self.volume.status().health, Health::Ok);
        assert!(self.cluster.node(2).gateway.verify(&bucket(), "key").await.unwrap().intact);
    }
}

fn names(volume: &Volume, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(volume.path().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn bytes_of(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_meets_an_unreadable_shard_goes_around_it_and_its_home_rebuilds_it() {
    let scene = Scene::with(Settings::default()).await;
    scene.sicken(Step::Read);
    assert!(scene.cluster.get((scene.owner + 1) % 6, "key").await.unwrap() == content(LEN), "over the network");
    scene.mended(FoundBy::Read).await;
    // One whose file cannot even be opened, read where it lies.
    scene.faults.sicken(&scene.file, Step::Open, EIO, u32::MAX);
    assert!(scene.cluster.get(scene.owner, "key").await.unwrap() == content(LEN));
    until("it is rebuilt", async || names(&scene.volume, "aside").len() == 2).await;
    until("it is found sound", async || scene.findings().iter().all(|finding| finding.repaired)).await;
    assert!(scene.cluster.node(3).gateway.verify(&bucket(), "key").await.unwrap().intact);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scrub_finds_an_unreadable_shard_that_nobody_reads() {
    let scene = Scene::with(Settings { scrub_period: Duration::from_secs(2), ..Settings::default() }).await;
    scene.sicken(Step::Read);
    scene.mended(FoundBy::Scrub).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_names_an_unreadable_shard_and_reports_it() {
    let scene = Scene::with(Settings::default()).await;
    scene.sicken(Step::Read);
    let verdict = scene.cluster.node((scene.owner + 1) % 6).gateway.verify(&bucket(), "key").await.unwrap();
    assert!(verdict.recoverable && !verdict.intact);
    let bad: Vec<_> = verdict.shards.iter().filter(|check| !matches!(check.state, ShardState::Ok { .. })).collect();
    assert!(matches!(&bad[..], [check] if matches!(check.state, ShardState::Corrupt { .. })), "{bad:?}");
    scene.mended(FoundBy::Verify).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_is_asked_for_rebuilds_an_unreadable_shard() {
    let scene = Scene::with(Settings::default()).await;
    let before = bytes_of(&scene.file);
    scene.sicken(Step::Read);
    let gateway = &scene.cluster.node((scene.owner + 2) % 6).gateway;
    let repair = gateway.repair(&bucket(), "key").await.unwrap();
    assert!(repair.intact, "{repair:?}");
    assert_eq!(repair.shards[0].report.state, RebuildState::Rebuilt, "{repair:?}");
    assert_eq!(repair.shards[0].report.rebuilt_from.len(), 4);
    assert_eq!(bytes_of(&scene.file), before, "every byte as it was put");
    assert_eq!(names(&scene.volume, "aside").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_passes_is_no_finding() {
    let scene = Scene::with(Settings { scrub_period: Duration::from_secs(1), disks: 1, ..Settings::default() }).await;
    scene.faults.sicken(&scene.file, Step::Read, EIO, 2);
    let passes = || scene.cluster.node(scene.owner).repair.status().scrub_pass;
    let began = passes();
    assert!(scene.cluster.get(0, "key").await.unwrap() == content(LEN));
    until("it was scrubbed again", async || passes() >= began + 2).await;
    assert!(scene.findings().is_empty() && names(&scene.volume, "aside").is_empty(), "{:?}", scene.findings());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_before_the_new_shard_is_proven_leaves_the_unreadable_one_where_it_is() {
    let scene = Scene::with(Settings::default()).await;
    let before = bytes_of(&scene.file);
    scene.sicken(Step::Read);
    let gateway = &scene.cluster.node(scene.owner).gateway;
    let refused = async |why: &str| {
        let repair = gateway.repair(&bucket(), "key").await.unwrap();
        assert!(!repair.intact);
        let [shard] = &repair.shards[..] else { panic!("{repair:?}") };
        assert_eq!(shard.report.state, RebuildState::Failed);
        assert!(shard.report.detail.contains(why), "{repair:?}");
        assert_eq!(bytes_of(&scene.file), before);
        assert_eq!((names(&scene.volume, "aside").len(), names(&scene.volume, "tmp").len()), (0, 0));
    };
    // What was written cannot be read back.
    let temporary = scene.volume.path().join("tmp");
    scene.faults.kill(&temporary, true);
    refused("os error 5").await;
    scene.faults.kill(&temporary, false);
    // The unreadable file can be given no other name.
    scene.sicken(Step::Rename);
    refused("could not be moved aside").await;
    scene.faults.sicken(&scene.file, Step::Rename, EIO, 0);
    assert!(gateway.repair(&bucket(), "key").await.unwrap().intact);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_as_a_whole_floods_nobody() {
    let settings = Settings {
        check_interval: Duration::from_millis(300),
        full_check_period: Duration::from_secs(2),
        scrub_period: Duration::from_secs(2),
        ..Settings::default()
    };
    let scene = Scene::with(settings).await;
    let Scene { cluster, faults, volume, owner, .. } = &scene;
    let keys: Vec<String> = (0..12).map(|number| format!("key-{number}")).collect();
    for key in &keys {
        cluster.put(1, key, &content(300_000)).await.unwrap();
    }
    let calm = || {
        let node = cluster.node(*owner);
        let status = node.repair.status();
        assert!(node.repair.findings().is_empty(), "{:?}", node.repair.findings());
        assert_eq!((status.queue, status.in_flight, status.completed), (0, 0, 0), "{status:?}");
        assert!(names(volume, "aside").is_empty());
    };
    // It fails, recovers, and fails again: while the canary does not know it yet, while it does, while it begins to trust it again.
    for _ in 0..3 {
        faults.kill(volume.path(), true);
        for (at, key) in keys.iter().enumerate() {
            assert!(cluster.get(at % 6, key).await.unwrap() == content(300_000), "{key}");
            let verdict = cluster.node(at % 6).gateway.verify(&bucket(), key).await.unwrap();
            assert!(verdict.recoverable, "{verdict:?}");
            let on_it = verdict.shards.iter().filter(|check| check.disk == scene.disk);
            assert!(on_it.clone().all(|check| matches!(check.state, ShardState::Unreachable(_))), "{verdict:?}");
            calm();
        }
        until("the disk is known to fail", async || volume.status().health == Health::Error).await;
        faults.kill(volume.path(), false);
        until("it serves again", async || volume.status().health == Health::Ok).await;
        calm();
    }
    // What was in doubt is looked at, and sound.
    let scrubbed = || cluster.node(*owner).repair.status().scrub_pass;
    let began = scrubbed();
    until("it was scrubbed", async || scrubbed() >= began + 2).await;
    calm();
    for key in &keys {
        assert!(cluster.node(0).gateway.verify(&bucket(), key).await.unwrap().intact, "{key}");
    }
}
