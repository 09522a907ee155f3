//! Shards: what is written comes back, and what is not what was written is found.

use std::fs;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::shard_file::{FORMAT, block_offset};
use super::*;

#[tokio::test]
async fn shards_of_all_sizes_come_back() {
    let disk = OneDisk::open().await;
    let sizes = [(1, 64), (63, 64), (128, 64), (129, 64), (300_000, 65_536), (9_000_000, 65_536), (5_000, 1_048_576)];
    let mut bytes = 0;
    for (version, (extent, block)) in (1..).zip(sizes) {
        let head = head(version, extent, block);
        assert_eq!(write(&disk.volume, head).await, head.file_bytes());
        assert_eq!(disk.volume.stat_shard(head.key).await.unwrap(), Some(head.file_bytes()));
        bytes += head.file_bytes();
        read(&disk.volume, &head).await.unwrap();
        let verdict = disk.volume.verify_shard(head.key).await.unwrap();
        let blocks = (0..head.layout().stripes()).map(|block| block_of(&head, block));
        let crc = blocks.fold(0, |crc, block| crc32c::crc32c_append(crc, &block));
        assert_eq!(verdict, ShardVerdict::Ok { bytes: head.file_bytes(), crc });
    }
    assert_eq!(disk.temporary_files(), 0);
    let status = disk.volume.status();
    assert_eq!((status.shards, status.used_bytes, status.errors), (7, bytes, 0));
    let keys: Vec<ShardKey> = (1..=7).map(key).collect();
    assert_eq!(disk.volume.list_shards().await.unwrap(), keys);
    let again = disk.open_again().await;
    assert_eq!((again.status().shards, again.status().used_bytes), (7, bytes));
}

#[tokio::test]
async fn blocks_are_read_in_any_order() {
    let disk = OneDisk::open().await;
    let head = head(1, 10_000_000, 65_536);
    write(&disk.volume, head).await;
    let mut reader = disk.volume.open_shard(head.key, Purpose::Client).await.unwrap();
    let last = reader.blocks() - 1;
    for block in [last, 0, 40, 41, 42, 7, 7, last, 1] {
        assert_eq!(reader.block(block).await.unwrap().0, block_of(&head, block));
    }
    assert!(matches!(reader.block(last + 1).await, Err(DiskError::Invalid { .. })));
}

#[tokio::test]
async fn one_shard_costs_one_sync_of_its_file() {
    let disk = OneDisk::open().await;
    let before = disk.faults.syncs.load(Ordering::SeqCst);
    write(&disk.volume, head(1, 9_000_000, 65_536)).await;
    assert_eq!(disk.faults.syncs.load(Ordering::SeqCst) - before, 1);
}

#[tokio::test]
async fn a_shard_shows_only_when_it_is_finished() {
    let disk = OneDisk::open().await;
    let head = head(1, 1000, 100);
    let mut writer = disk.volume.create_shard(head).unwrap();
    send_blocks(&mut writer).await;
    assert!(matches!(disk.volume.open_shard(head.key, Purpose::Client).await, Err(DiskError::Missing { .. })));
    assert!(matches!(disk.volume.create_shard(head), Err(DiskError::Busy { .. })));
    // Given up in words, then by being dropped: it can be written again, and another process sweeps up.
    writer.abort().await;
    assert_eq!(disk.temporary_files(), 0);
    let mut dropped = disk.volume.create_shard(super::head(2, 10_000_000, 65_536)).unwrap();
    send_blocks(&mut dropped).await;
    drop(dropped);
    assert_eq!((disk.temporary_files(), disk.volume.status().shards), (1, 0));
    assert_eq!(disk.open_again().await.status().shards, 0);
    assert_eq!(disk.temporary_files(), 0);
    write(&disk.volume, head).await;
    // The same shard again: replaced, and counted once.
    let bytes = write(&disk.volume, head).await;
    assert_eq!((disk.volume.status().shards, disk.volume.status().used_bytes), (1, bytes));
}

#[tokio::test]
async fn a_dropped_writer_leaves_nothing_for_long() {
    let disk = OneDisk::open().await;
    let mut writer = disk.volume.create_shard(head(1, 10_000_000, 65_536)).unwrap();
    send_blocks(&mut writer).await;
    drop(writer);
    assert_eq!(disk.temporary_files(), 1);
    disk.watch();
    tokio::time::timeout(Duration::from_secs(30), async {
        while disk.temporary_files() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_arrives_damaged_is_not_written() {
    let disk = OneDisk::open().await;
    let head = head(1, 200, 50);
    let mut writer = disk.volume.create_shard(head).unwrap();
    let data = block_of(&head, 0);
    let crc = crc32c::crc32c(&data);
    let error = writer.block(data.clone(), crc ^ 1).await.unwrap_err();
    assert!(matches!(error, DiskError::BadBlock { block: 0, got, .. } if got == crc), "{error}");
    let short = data.slice(1..);
    let error = writer.block(short.clone(), crc32c::crc32c(&short)).await.unwrap_err();
    assert!(matches!(error, DiskError::Invalid { .. }), "{error}");
    writer.block(data, crc).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    assert!(matches!(&error, DiskError::Invalid { detail, .. } if detail == "1 of its 2 blocks came"), "{error}");
    assert_eq!(disk.volume.stat_shard(head.key).await.unwrap(), None);
    // One block too many.
    let mut writer = disk.volume.create_shard(head).unwrap();
    send_blocks(&mut writer).await;
    assert!(matches!(writer.block(Bytes::new(), 0).await, Err(DiskError::Invalid { .. })));
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn heads_that_make_no_shard_are_refused() {
    let disk = OneDisk::open().await;
    let good = head(1, 200, 50);
    let mut other_shard = good;
    other_shard.key.shard = ShardIndex(3);
    let bad = [
        other_shard,
        ShardHead { coding: Coding { k: 0, m: 1 }, ..good },
        ShardHead { coding: Coding { k: 30, m: 3 }, ..good },
        ShardHead { codec: 2, ..good },
        ShardHead { block_bytes: 0, ..good },
        ShardHead { block_bytes: MAX_BLOCK_BYTES + 1, ..good },
        ShardHead { extent_bytes: 0, ..good },
        ShardHead { extent_bytes: u64::MAX, ..good },
    ];
    for head in bad {
        let refused = disk.volume.create_shard(head);
        assert!(matches!(refused, Err(DiskError::Invalid { .. })), "{head:?}");
    }
    assert_eq!(disk.temporary_files(), 0);
}

/// Any byte of a shard file flipped, any tail cut, anything appended: found when it is read, found by the scrub, and
/// blamed on the right block.
#[test]
fn damage_anywhere_is_found() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let disk = runtime.block_on(OneDisk::open());
    let case = (1_u64..4000, 1_u32..600, any::<prop::sample::Index>(), 1_u8..=255, 0..3);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&case, |(extent, block_bytes, at, flip, how)| {
        runtime.block_on(async {
            let head = head(1, extent, block_bytes);
            write(&disk.volume, head).await;
            let path = disk.path(head.key);
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] ^= flip,
                1 => bytes.truncate(at),
                _ => bytes.push(flip),
            }
            fs::write(&path, &bytes).unwrap();
            let error = read(&disk.volume, &head).await.expect_err("damage goes unnoticed");
            let DiskError::Corrupt { key, block, .. } = &error else { panic!("{error}") };
            assert_eq!(*key, head.key);
            let hit = (how == 0 && at >= 64).then(|| (at as u64 - 64) / (u64::from(block_bytes) + 4));
            assert_eq!(block.map(u64::from), hit);
            assert!(!error.is_unreadable());
            let verdict = disk.volume.verify_shard(head.key).await.unwrap();
            assert!(matches!(verdict, ShardVerdict::Corrupt { .. }));
        });
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test]
async fn a_valid_block_in_the_wrong_place_is_found() {
    let disk = OneDisk::open().await;
    let (one, two) = (head(1, 400, 50), head(2, 400, 50));
    write(&disk.volume, one).await;
    write(&disk.volume, two).await;
    let record = |bytes: &[u8], block| {
        let start = block_offset(&one, block) as usize;
        bytes[start..start + 54].to_vec()
    };
    let put = |bytes: &mut [u8], block, record: &[u8]| {
        let start = block_offset(&one, block) as usize;
        bytes[start..start + 54].copy_from_slice(record);
    };
    let (first, second) = (fs::read(disk.path(one.key)).unwrap(), fs::read(disk.path(two.key)).unwrap());

    // From another shard, at the same place.
    let mut swapped = first.clone();
    put(&mut swapped, 2, &record(&second, 2));
    fs::write(disk.path(one.key), &swapped).unwrap();
    let error = read(&disk.volume, &one).await.unwrap_err();
    assert!(matches!(error, DiskError::Corrupt { block: Some(2), .. }), "{error}");

    // From another place of the same shard.
    let mut moved = first.clone();
    put(&mut moved, 1, &record(&first, 3));
    fs::write(disk.path(one.key), &moved).unwrap();
    let error = read(&disk.volume, &one).await.unwrap_err();
    assert!(matches!(error, DiskError::Corrupt { block: Some(1), .. }), "{error}");

    // The whole of another shard.
    fs::write(disk.path(one.key), &second).unwrap();
    let error = read(&disk.volume, &one).await.unwrap_err();
    assert!(
        matches!(&error, DiskError::Corrupt { block: None, detail, .. } if detail.contains("holds shard")),
        "{error}"
    );

    // A newer format is not corrupt.
    let mut newer = first;
    newer[8..10].copy_from_slice(&(FORMAT + 1).to_le_bytes());
    let crc = crc32c::crc32c(&newer[..60]);
    newer[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(disk.path(one.key), &newer).unwrap();
    let error = read(&disk.volume, &one).await.unwrap_err();
    assert!(matches!(error, DiskError::ShardTooNew { found: 2, .. }), "{error}");
}

#[tokio::test]
async fn a_file_cut_while_it_is_read_is_found() {
    let disk = OneDisk::open().await;
    let head = head(1, 10_000_000, 65_536);
    write(&disk.volume, head).await;
    let mut reader = disk.volume.open_shard(head.key, Purpose::Client).await.unwrap();
    reader.block(0).await.unwrap();
    fs::File::options().write(true).open(disk.path(head.key)).unwrap().set_len(3_000_000).unwrap();
    let error = reader.block(45).await.unwrap_err();
    assert!(matches!(error, DiskError::Corrupt { block: Some(45), .. }), "{error}");
    let error = reader.block(reader.blocks() - 1).await.unwrap_err();
    assert!(matches!(error, DiskError::Corrupt { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_shard_is_missing() {
    let disk = OneDisk::open().await;
    let error = disk.volume.open_shard(key(9), Purpose::Client).await.unwrap_err();
    assert!(matches!(error, DiskError::Missing { .. }) && !error.disk_is_bad());
    assert_eq!(disk.volume.verify_shard(key(9)).await.unwrap(), ShardVerdict::Missing);
    assert_eq!(disk.volume.stat_shard(key(9)).await.unwrap(), None);
    assert!(!disk.volume.move_aside(key(9), "corrupt").await.unwrap());
    assert_eq!(disk.volume.status().errors, 0, "no fault of the disk's");
}

#[tokio::test(start_paused = true)]
async fn what_is_moved_aside_is_kept_for_a_while() {
    let disk = OneDisk::open().await;
    let (one, two) = (head(1, 400, 50), head(2, 400, 50));
    write(&disk.volume, one).await;
    write(&disk.volume, two).await;
    let before = fs::read(disk.path(one.key)).unwrap();
    assert!(disk.volume.move_aside(one.key, "Corrupt: ../x").await.unwrap());
    let aside = disk.folder.path().join("aside");
    let kept = aside.join(format!("corrupt_____x-{}.2", one.key));
    assert_eq!(fs::read(&kept).unwrap(), before);
    assert_eq!(disk.volume.status().shards, 1);
    assert!(matches!(disk.volume.open_shard(one.key, Purpose::Client).await, Err(DiskError::Missing { .. })));
    assert_eq!(disk.volume.move_all_aside(&[one.key, two.key], "collected").await.unwrap(), 1);
    assert_eq!((disk.volume.status().shards, disk.volume.status().used_bytes), (0, 0));

    let hour = Duration::from_secs(3600);
    assert_eq!(disk.volume.purge_aside(hour).await.unwrap(), 0);
    // Another process counts from when it first sees them.
    tokio::time::advance(hour).await;
    assert_eq!(disk.open_again().await.purge_aside(hour).await.unwrap(), 0);
    assert_eq!(disk.volume.purge_aside(hour).await.unwrap(), 2);
    assert_eq!(fs::read_dir(&aside).unwrap().count(), 0);
}

#[tokio::test]
async fn the_reserve_is_kept() {
    let disk = OneDisk::open().await;
    disk.faults.available.store(1_000_000, Ordering::SeqCst);
    let volume = disk.open_again().await;
    let error = volume.create_shard(head(1, 400, 50)).unwrap_err();
    assert!(matches!(error, DiskError::Full { available_bytes: 1_000_000, .. }), "{error}");
    assert_eq!(disk.temporary_files(), 0);
    assert_eq!(volume.status().health, Health::Ok, "full is not failed");
}

#[tokio::test]
async fn a_write_that_finds_no_room_says_so() {
    let disk = OneDisk::open().await;
    let mut writer = disk.volume.create_shard(head(1, 400, 50)).unwrap();
    send_blocks(&mut writer).await;
    disk.faults.write_errno.store(28, Ordering::SeqCst);
    let error = writer.finish().await.unwrap_err();
    assert!(matches!(error, DiskError::Full { .. }) && !error.disk_is_bad(), "{error}");
    assert_eq!((disk.volume.status().errors, disk.volume.status().shards), (0, 0));
}

/// A file system of its own for a test, when we may mount one.
struct Mounted(TempDir);

impl Mounted {
    fn tmpfs(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        if done.is_ok_and(|output| output.status.success()) {
            Some(Self(folder))
        } else {
            assert!(
                std::env::var_os("RESILVER_TEST_NO_SKIP").is_none(),
                "CI skips nothing: mounting a tmpfs needs root"
            );
            eprintln!("skipped: this test mounts a tmpfs, which needs root");
            None
        }
    }

    fn remount_read_only(&self) {
        let done = Command::new("mount").args(["-o", "remount,ro"]).arg(self.0.path()).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_disk_that_really_fills_up_refuses_and_lives() {
    let Some(mounted) = Mounted::tmpfs("8m") else { return };
    let host = resilver_host::real::host();
    let (set, _) =
        DiskSet::open(&host, &[mounted.0.path().to_owned()], &owner(), &[], Patience::default()).await.unwrap();
    let volume = set.volumes().remove(0);
    // The canary is not running: what is available is what was counted off.
    let mut written = 0_u64;
    let refused = loop {
        match volume.create_shard(head(u128::from(written) + 1, 2_000_000, 65_536)) {
            Ok(mut writer) => {
                send_blocks(&mut writer).await;
                writer.finish().await.unwrap();
                written += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, DiskError::Full { .. }), "{refused}");
    assert!((5..=8).contains(&written), "{written} shards of 1 MB on 8 MiB");
    // Somebody else takes the rest: the system itself says no now.
    let small = volume.create_shard(head(1000, 2_000, 500));
    fs::write(mounted.0.path().join("hog"), vec![0; 8 << 20]).unwrap_err();
    let mut writer = small.unwrap();
    send_blocks(&mut writer).await;
    let error = writer.finish().await.unwrap_err();
    assert!(matches!(error, DiskError::Full { .. }), "{error}");
    for version in 1..=written {
        read(&volume, &head(u128::from(version), 2_000_000, 65_536)).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_system_gone_read_only_takes_no_shards_and_still_gives_them() {
    let Some(mounted) = Mounted::tmpfs("8m") else { return };
    let host = resilver_host::real::host();
    let (set, _) =
        DiskSet::open(&host, &[mounted.0.path().to_owned()], &owner(), &[], Patience::default()).await.unwrap();
    let volume = set.volumes().remove(0);
    let kept = head(1, 2_000, 500);
    write(&volume, kept).await;
    mounted.remount_read_only();
    let mut writer = volume.create_shard(head(2, 2_000, 500)).unwrap();
    send_blocks(&mut writer).await;
    let error = writer.finish().await.unwrap_err();
    assert!(matches!(error, DiskError::ReadOnly { .. }) && error.disk_is_bad(), "{error}");
    let stop = watch::Sender::new(false);
    let running = tokio::spawn(Arc::new(set).run(stop.subscribe()));
    let mut changes = volume.health_changes();
    let found =
        tokio::time::timeout(Duration::from_secs(30), changes.wait_for(|now| now.health == Health::Error)).await;
    assert!(found.unwrap().unwrap().reason.contains("read-only"));
    let error = volume.create_shard(head(2, 2_000, 500)).unwrap_err();
    assert!(matches!(error, DiskError::Failed { .. }), "{error}");
    read(&volume, &kept).await.unwrap();
    stop.send(true).unwrap();
    running.await.unwrap();
}
