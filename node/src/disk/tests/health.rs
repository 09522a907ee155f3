//! The canary at work.

use std::fs;

use tokio::time::Instant;

use super::*;

fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

#[tokio::test]
async fn a_wiped_disk_is_gone_within_about_a_second_and_stays_empty() {
    let disk = OneDisk::open().await;
    write(&disk.volume, head(1, 400, 50)).await;
    let mut open_writer = disk.volume.create_shard(head(2, 400, 50)).unwrap();
    send_blocks(&mut open_writer).await;
    disk.watch();
    let wiped = Instant::now();
    empty(disk.folder.path());
    let report = disk.until(Health::Gone).await;
    assert!(wiped.elapsed() < Duration::from_secs(5), "{:?}: far too late, even for a busy machine", wiped.elapsed());
    assert!(report.reason.contains("no superblock"), "{}", report.reason);
    assert!(matches!(disk.volume.create_shard(head(3, 400, 50)), Err(DiskError::Gone { .. })));
    assert!(matches!(open_writer.finish().await, Err(DiskError::Gone { .. })));
    assert_eq!(fs::read_dir(disk.folder.path()).unwrap().count(), 0, "nothing is written where the disk was");
}

#[tokio::test]
async fn a_failed_operation_has_the_disk_looked_at_at_once() {
    // No canary has run yet, and the wiped disk is noticed by the shard that is missing.
    let disk = OneDisk::open().await;
    write(&disk.volume, head(1, 400, 50)).await;
    empty(disk.folder.path());
    assert!(matches!(disk.volume.open_shard(key(1), Purpose::Client).await, Err(DiskError::Missing { .. })));
    let mut writer = disk.volume.create_shard(head(3, 400, 50)).unwrap();
    send_blocks(&mut writer).await;
    assert!(matches!(writer.finish().await, Err(DiskError::Gone { .. })));
    disk.watch();
    disk.until(Health::Gone).await;
}

#[tokio::test]
async fn a_disk_that_is_mounted_again_is_taken_back() {
    let disk = OneDisk::open().await;
    let kept = head(1, 400, 50);
    write(&disk.volume, kept).await;
    let away = tempfile::tempdir().unwrap();
    let parked = away.path().join("disk");
    disk.watch();
    fs::rename(disk.folder.path(), &parked).unwrap();
    disk.until(Health::Gone).await;
    fs::create_dir(disk.folder.path()).unwrap(); // its mount point
    fs::remove_dir(disk.folder.path()).unwrap();
    fs::rename(&parked, disk.folder.path()).unwrap();
    disk.until(Health::Ok).await;
    read(&disk.volume, &kept).await.unwrap();
    assert_eq!(disk.volume.status().shards, 1);
}

#[tokio::test]
async fn another_disk_in_its_place_is_foreign() {
    let (disk, other) = (OneDisk::open().await, OneDisk::open().await);
    write(&disk.volume, head(1, 400, 50)).await;
    disk.watch();
    fs::copy(other.folder.path().join(SUPERBLOCK_FILE), disk.folder.path().join(SUPERBLOCK_FILE)).unwrap();
    let report = disk.until(Health::Foreign).await;
    assert!(report.reason.contains(&other.volume.id().to_string()), "{}", report.reason);
    assert!(matches!(disk.volume.create_shard(head(2, 400, 50)), Err(DiskError::Foreign { .. })));
    assert!(matches!(disk.volume.open_shard(key(1), Purpose::Client).await, Err(DiskError::Foreign { .. })));
}

#[tokio::test]
async fn folders_removed_under_a_disk_that_is_there_are_made_again() {
    let disk = OneDisk::open().await;
    write(&disk.volume, head(1, 400, 50)).await;
    disk.watch();
    fs::remove_dir_all(disk.folder.path().join("shards")).unwrap();
    let again = head(1, 400, 50);
    tokio::time::timeout(Duration::from_secs(30), async {
        // A repair would try again as well.
        while !disk.folder.path().join("shards/ff").exists() || disk.volume.status().shards > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    write(&disk.volume, again).await;
    read(&disk.volume, &again).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hanging_disk_is_suspect_then_failed_then_proves_itself() {
    let disk = OneDisk::open().await;
    let kept = head(1, 400, 50);
    write(&disk.volume, kept).await;
    disk.watch();
    disk.until(Health::Ok).await;
    let started = Instant::now();
    let told = crate::failures::Failures::default();
    disk.set.report_to(&told);
    disk.faults.hang.send_replace(true);

    // An operation in flight gives up by itself, and the volume says what hung.
    let reading = disk.volume.open_shard(kept.key, Purpose::Client);
    let (suspect, read_error) = tokio::join!(disk.until(Health::Suspect), reading);
    assert!(suspect.reason.contains("hanging for 3 s"), "{}", suspect.reason);
    assert!(matches!(read_error, Err(DiskError::Hanging { seconds: 10, .. })));

    let failed = disk.until(Health::Error).await;
    assert!(failed.hanging);
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(13), "{took:?}");
    // From now on nobody waits for it.
    let asked = Instant::now();
    assert!(matches!(disk.volume.open_shard(kept.key, Purpose::Client).await, Err(DiskError::Failed { .. })));
    assert!(matches!(disk.volume.create_shard(head(2, 400, 50)), Err(DiskError::Failed { .. })));
    assert_eq!(asked.elapsed(), Duration::ZERO);

    disk.faults.hang.send_replace(false);
    disk.until(Health::Ok).await;
    read(&disk.volume, &kept).await.unwrap();
    assert!(disk.volume.status().errors > 0);

    let told = told.told(None, &"n1".into(), |id| id == disk.volume.id());
    let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["disk_state_check_timeout"], "one check hung, however long");
    assert_eq!(told[0].places[0].disk_id, disk.volume.id().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_hanging_disk_holds_a_bounded_number_of_operations() {
    let disk = OneDisk::open().await;
    write(&disk.volume, head(1, 400, 50)).await;
    disk.faults.hang.send_replace(true);
    // More than are let in: those still outside give up in time too, and never reach the disk.
    let all = futures_util::future::join_all((0..200).map(|_| disk.volume.open_shard(key(1), Purpose::Client))).await;
    assert!(all.iter().all(|result| matches!(result, Err(DiskError::Hanging { .. }))));
    let waiting = disk.faults.hang.receiver_count();
    assert!(waiting <= 48, "{waiting} operations wait for the disk");
}

#[tokio::test]
async fn reads_that_failed_are_told_apart_from_writes_that_did() {
    let disk = OneDisk::open().await;
    let kept = head(1, 400, 50);
    write(&disk.volume, kept).await;
    let mut writer = disk.volume.create_shard(head(2, 400, 50)).unwrap();
    send_blocks(&mut writer).await;
    disk.faults.write_errno.store(5, Ordering::SeqCst);
    writer.finish().await.unwrap_err();
    let told = disk.volume.status();
    assert!(told.errors > 0 && told.read_errors == 0, "{told:?}");
    disk.faults.read_errno.store(5, Ordering::SeqCst);
    assert!(disk.volume.open_shard(kept.key, Purpose::Client).await.is_err());
    let after = disk.volume.status();
    assert_eq!((after.errors, after.read_errors), (told.errors + 1, 1));
}

#[tokio::test]
async fn an_io_error_is_counted_and_convicts_only_when_the_canary_agrees() {
    let disk = OneDisk::open().await;
    let kept = head(1, 400, 50);
    write(&disk.volume, kept).await;
    disk.faults.read_errno.store(5, Ordering::SeqCst);
    let error = disk.volume.open_shard(kept.key, Purpose::Client).await.unwrap_err();
    assert!(matches!(error, DiskError::Io { .. }) && error.is_unreadable(), "{error}");
    assert_eq!((disk.volume.status().errors, disk.volume.status().health), (1, Health::Ok));
    disk.watch();
    disk.until(Health::Error).await;
    disk.faults.read_errno.store(0, Ordering::SeqCst);
    disk.until(Health::Ok).await;
}
