//! Shards that cannot be read, on disks that serve and on disks that do not.

use tokio::time::{Instant, timeout};

use super::*;

/// A disk that is watched, with two shards.
async fn watched() -> OneDisk {
    let disk = OneDisk::open().await;
    for number in [1, 2] {
        write(&disk.volume, head(number, 400, 50)).await;
    }
    disk.watch();
    disk.until(Health::Ok).await;
    disk
}

/// No shard is in doubt.
async fn nothing_in_doubt(disk: &OneDisk) {
    let doubted = timeout(Duration::from_millis(50), disk.volume.doubted()).await;
    assert!(doubted.is_err(), "{doubted:?}");
}

#[tokio::test]
async fn a_shard_that_cannot_be_read_on_a_disk_that_serves_is_as_good_as_corrupt() {
    let disk = watched().await;
    for step in [Step::Read, Step::Open] {
        disk.faults.sicken(&disk.path(key(1)), step, EIO, u32::MAX);
        let verdict = disk.volume.verify_shard(key(1)).await.unwrap();
        let ShardVerdict::Corrupt { expected: 0, got: 0, detail } = &verdict else { panic!("{verdict:?}") };
        assert!(detail.contains("cannot be read") && detail.contains("os error 5"), "{detail}");
        assert!(matches!(disk.volume.verify_shard(key(2)).await.unwrap(), ShardVerdict::Ok { .. }));
        assert_eq!(disk.volume.status().health, Health::Ok);
        disk.faults.sicken(&disk.path(key(1)), step, EIO, 0);
    }
    // Further in, too, where a read of its own is needed.
    let large = head(3, 800_000, 65_536);
    write(&disk.volume, large).await;
    disk.faults.sicken(&disk.path(large.key), Step::Read, EIO, u32::MAX);
    assert!(matches!(disk.volume.verify_shard(large.key).await.unwrap(), ShardVerdict::Corrupt { .. }));
    // It can be moved aside, whether its length can be asked for or not.
    disk.faults.sicken(&disk.path(large.key), Step::Open, EIO, u32::MAX);
    assert!(disk.volume.move_aside(large.key, "corrupt").await.unwrap());
    assert_eq!(disk.volume.verify_shard(large.key).await.unwrap(), ShardVerdict::Missing);
}

#[tokio::test]
async fn an_error_that_passes_is_no_verdict() {
    let disk = watched().await;
    for times in [1, 2] {
        disk.faults.sicken(&disk.path(key(1)), Step::Read, EIO, times);
        assert!(matches!(disk.volume.verify_shard(key(1)).await.unwrap(), ShardVerdict::Ok { .. }));
    }
    nothing_in_doubt(&disk).await;
}

#[tokio::test]
async fn whoever_waits_for_a_shard_is_told_at_once_and_leaves_it_in_doubt() {
    let disk = watched().await;
    let large = head(3, 800_000, 65_536);
    write(&disk.volume, large).await;
    let mut reader = disk.volume.open_shard(large.key, Purpose::Client).await.unwrap();
    for (number, step) in [(1, Step::Read), (2, Step::Open), (3, Step::Read)] {
        disk.faults.sicken(&disk.path(key(number)), step, EIO, u32::MAX);
    }
    let began = Instant::now();
    for number in [1, 2] {
        assert!(disk.volume.open_shard(key(number), Purpose::Client).await.unwrap_err().is_unreadable());
        assert_eq!(disk.volume.doubted().await, key(number));
    }
    assert!(disk.volume.stat_shard(key(2)).await.is_err());
    assert_eq!(disk.volume.doubted().await, key(2));
    let last = reader.blocks() - 1;
    assert!(reader.block(last).await.unwrap_err().is_unreadable());
    assert_eq!(disk.volume.doubted().await, large.key);
    let several = disk.volume.open_shards(&[key(1), key(2)]).await.unwrap();
    assert!(several.iter().all(Result::is_err));
    assert_eq!([disk.volume.doubted().await, disk.volume.doubted().await], [key(1), key(2)]);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}: nobody waits for the canary", began.elapsed());
    nothing_in_doubt(&disk).await;
}

#[tokio::test]
async fn of_a_disk_that_fails_as_a_whole_no_shard_is_called_corrupt() {
    let disk = watched().await;
    disk.faults.kill(disk.folder.path(), true);
    // Before the canary knows, and after.
    for _ in 0..2 {
        for number in [1, 2] {
            let error = disk.volume.verify_shard(key(number)).await.unwrap_err();
            assert!(error.is_unreadable(), "{error}");
        }
        disk.until(Health::Error).await;
    }
    // It is mended, and what was in doubt is sound.
    disk.faults.kill(disk.folder.path(), false);
    disk.until(Health::Ok).await;
    for number in [1, 2] {
        assert_eq!(disk.volume.doubted().await, key(number));
        assert!(matches!(disk.volume.verify_shard(key(number)).await.unwrap(), ShardVerdict::Ok { .. }));
    }
    nothing_in_doubt(&disk).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_or_is_not_asked_leaves_a_shard_in_doubt() {
    let disk = OneDisk::open().await;
    write(&disk.volume, head(1, 400, 50)).await;
    disk.faults.sicken(&disk.path(key(1)), Step::Read, EIO, u32::MAX);
    // Nobody watches it.
    assert!(disk.volume.verify_shard(key(1)).await.unwrap_err().is_unreadable());
    assert_eq!(disk.volume.doubted().await, key(1));
    // It hangs once the shard has been read.
    disk.watch();
    disk.until(Health::Ok).await;
    let (told, ()) = tokio::join!(disk.volume.verify_shard(key(1)), async {
        while disk.volume.status().errors < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        disk.faults.hang.send_replace(true);
    });
    assert!(told.is_err(), "{told:?}");
    assert_ne!(disk.volume.status().health, Health::Ok);
}

#[tokio::test]
async fn what_blames_nobody_blames_no_shard() {
    let disk = watched().await;
    let errors = disk.volume.status().errors;
    // No memory, no descriptors, no room, no permission.
    for errno in [12, 23, 24, 28, 13] {
        disk.faults.sicken(&disk.path(key(1)), Step::Open, errno, u32::MAX);
        let error = disk.volume.verify_shard(key(1)).await.unwrap_err();
        assert!(!error.is_unreadable() && disk.volume.open_shard(key(1), Purpose::Client).await.is_err(), "{error}");
    }
    // The last one counts as the disk's, which cannot do what it is asked.
    assert_eq!(disk.volume.status().errors, errors + 2);
    nothing_in_doubt(&disk).await;
}

#[tokio::test]
async fn a_shard_is_read_back_before_it_has_its_name() {
    let disk = watched().await;
    let mut writer = disk.volume.create_shard(head(3, 400, 50)).unwrap();
    assert!(matches!(writer.prove().await, Err(DiskError::Invalid { .. })), "before it is complete");
    send_blocks(&mut writer).await;
    writer.prove().await.unwrap();
    assert_eq!((disk.temporary_files(), disk.path(key(3)).exists()), (1, false));
    writer.finish().await.unwrap();
    read(&disk.volume, &head(3, 400, 50)).await.unwrap();

    let mut writer = disk.volume.create_shard(head(4, 400, 50)).unwrap();
    send_blocks(&mut writer).await;
    disk.faults.kill(&disk.folder.path().join("tmp"), true);
    assert!(writer.prove().await.unwrap_err().is_unreadable());
    writer.abort().await;
    assert_eq!(disk.temporary_files(), 0);
}
