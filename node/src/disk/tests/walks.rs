//! How far the walks over a disk are, over a restart.

use std::fs;

use super::super::{Walk, WalkKind};
use super::*;

#[tokio::test]
async fn a_walk_goes_on_where_it_was_after_a_restart_and_anew_when_that_cannot_be_read() {
    let disk = OneDisk::open().await;
    assert_eq!(disk.volume.walk(WalkKind::Scrub).await, None, "it never began");
    let at = |done| Walk { first: 9, done, elapsed_ms: u64::from(done) * 1000 };
    disk.volume.keep_walk(WalkKind::Scrub, at(1)).await;
    assert_eq!(disk.volume.walk(WalkKind::Scrub).await, Some(at(1)));
    let file = disk.folder.path().join("walks");
    assert!(!file.exists(), "a moment's work is not worth two syncs");

    // A minute later it is.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    disk.volume.keep_walk(WalkKind::Scrub, at(40)).await;
    disk.volume.keep_walk(WalkKind::Compare, at(7)).await;
    assert!(file.exists());
    let again = disk.open_again().await;
    assert_eq!(again.walk(WalkKind::Scrub).await, Some(at(40)));
    assert_eq!(again.walk(WalkKind::Compare).await, None, "it began a moment before the restart");

    let mut bytes = fs::read(&file).unwrap();
    bytes[10] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_eq!(disk.open_again().await.walk(WalkKind::Scrub).await, None);
}

#[tokio::test]
async fn stamps_of_folders_move_with_their_names() {
    let disk = OneDisk::open().await;
    let before = disk.volume.folder_stamps().await.unwrap();
    assert_eq!(before.len(), 256);
    let head = head(5, 10, 4);
    disk.volume.take_touched();
    write(&disk.volume, head).await;
    let folder = (head.key.version.0 >> 120) as usize;
    let touched = disk.volume.take_touched();
    assert_eq!((0..256).filter(|at| touched[*at]).collect::<Vec<_>>(), [folder]);
    assert_eq!(disk.volume.take_touched(), [false; 256]);
    // The clock of a file system ticks every few milliseconds.
    let path = disk.path(head.key);
    let mut after = disk.volume.folder_stamps().await.unwrap();
    for _ in 0..100 {
        if after[folder] != before[folder] {
            break;
        }
        fs::rename(&path, path.with_extension("x")).unwrap();
        fs::rename(path.with_extension("x"), &path).unwrap();
        after = disk.volume.folder_stamps().await.unwrap();
    }
    let changed: Vec<usize> = (0..256).filter(|at| after[*at] != before[*at]).collect();
    assert_eq!(changed, [folder]);
}
