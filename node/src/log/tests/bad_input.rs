//! Folders nobody should have: each gets its verdict, and none is changed.

use resilver_host::Disk;

use super::*;
use crate::log::prefix::Kind;

async fn sample() -> MemDisk {
    let disk = MemDisk::default();
    let opened = open(&disk).await.unwrap();
    opened.log.append(records(0, &[1000; 20])).await.unwrap();
    opened.vote.write(Bytes::from_static(b"term 3")).await.unwrap();
    disk
}

/// The damage found; nothing must have been written meanwhile.
async fn damage(disk: &MemDisk) -> String {
    let before: Vec<_> = disk.files().into_iter().map(|(path, _)| (disk.content(&path), path)).collect();
    let error = open(disk).await.err().expect("this folder is damaged");
    let after: Vec<_> = disk.files().into_iter().map(|(path, _)| (disk.content(&path), path)).collect();
    assert!(before == after, "a damaged folder is evidence: it must stay as it is");
    assert!(error.is_lost(), "{error}");
    error.to_string()
}

#[tokio::test]
async fn an_empty_folder_becomes_a_log_only_where_one_may_begin() {
    let disk = MemDisk::default();
    let refused = open_with(&disk, LogOptions { create: false, ..options() }).await.err().unwrap();
    assert!(refused.is_lost(), "{refused}");
    assert_eq!(disk.files(), vec![], "nothing was made");
    assert!(disk.list(dir()).await.is_err(), "not even the folder");

    let opened = open(&disk).await.unwrap();
    assert!(opened.recovered.created);
    assert_eq!((opened.log.first(), opened.log.next(), opened.voted.clone()), (0, 0, None));
    let again = open_with(&disk, LogOptions { create: false, ..options() }).await.unwrap();
    assert!(!again.recovered.created);
}

#[tokio::test]
async fn a_garbage_header_is_a_lost_voter() {
    let disk = sample().await;
    disk.tamper(&dir().join("header"), |bytes| bytes.fill(0xaa));
    assert!(damage(&disk).await.contains("/meta/log/header, byte 0: prefix of slot A"));
}

#[tokio::test]
async fn an_empty_header_is_a_lost_voter() {
    let disk = sample().await;
    disk.tamper(&dir().join("header"), Vec::clear);
    assert!(damage(&disk).await.contains("expected 32 bytes, got 0 bytes"));
}

#[tokio::test]
async fn a_missing_header_beside_segments_or_a_vote_is_a_lost_voter() {
    let disk = sample().await;
    disk.lose(&dir().join("header"));
    assert!(damage(&disk).await.contains("expected the header of the segments beside it, got no such file"));
    for (path, _) in disk.files() {
        if path != dir().join("vote") {
            disk.lose(&path);
        }
    }
    assert!(damage(&disk).await.contains("expected the header of the log beside the vote"));
}

#[tokio::test]
async fn a_missing_vote_is_a_lost_voter() {
    let disk = sample().await;
    disk.lose(&dir().join("vote"));
    assert!(damage(&disk).await.contains("/meta/log/vote, byte 0: file: expected the vote beside the log"));
    let alone = VoteFile::open_on(&disk, dir()).await.err().unwrap();
    assert!(alone.is_lost(), "{alone}");
}

#[tokio::test]
async fn an_unreadable_vote_is_a_lost_voter() {
    let disk = sample().await;
    disk.tamper(&dir().join("vote"), |bytes| {
        bytes[34] ^= 1;
        bytes[4096 + 34] ^= 1;
    });
    // The log itself is sound, and says nothing of the vote.
    assert!(damage(&disk).await.contains("/meta/log/vote, byte 0: checksum of slot A"));
}

#[tokio::test]
async fn a_lost_log_keeps_its_bad_header_copy_as_it_is() {
    let disk = sample().await;
    disk.tamper(&dir().join("header"), |bytes| bytes[33] ^= 1);
    disk.tamper(&segment(0), |bytes| bytes[4096 + 20] ^= 1);
    assert!(damage(&disk).await.contains("checksum of record 0"));
}

#[tokio::test]
async fn a_missing_segment_is_a_lost_voter() {
    let disk = sample().await;
    for id in 0..3 {
        let damaged = disk.copy();
        damaged.lose(&segment(id));
        let text = damage(&damaged).await;
        assert!(text.contains(&format!("{}, byte 0: file: expected segments 0 to ", segment(id).display())), "{text}");
    }
}

#[tokio::test]
async fn swapped_segments_are_noticed() {
    let disk = sample().await;
    let (one, other) = (disk.content(&segment(0)), disk.content(&segment(1)));
    disk.plant(&segment(0), other);
    disk.plant(&segment(1), one);
    assert!(damage(&disk).await.contains("number of the segment: expected 0, got 1"));
}

#[tokio::test]
async fn a_segment_of_another_log_is_noticed() {
    let (disk, other) = (sample().await, MemDisk::default());
    let mut foreign = records(0, &[1000; 20]);
    foreign[0].payload = Bytes::from(vec![9; 1000]);
    open(&other).await.unwrap().log.append(foreign).await.unwrap();
    for id in 0..3 {
        let damaged = disk.copy();
        damaged.plant(&segment(id), other.content(&segment(id)));
        let text = damage(&damaged).await;
        assert!(text.contains("checksum of"), "{text}");
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_untouched() {
    let newer = |kind: &'static [u8; 8]| Kind { magic: *kind, format: 7 }.encode();
    for (name, magic, slots) in [("header", b"RSLVLOGH", 2), ("vote", b"RSLVVOTE", 2), ("segment", b"RSLVLOGS", 1)] {
        let disk = sample().await;
        let path = if name == "segment" { segment(1) } else { dir().join(name) };
        disk.tamper(&path, |bytes| {
            for slot in 0..slots {
                bytes[slot * 4096..slot * 4096 + 16].copy_from_slice(&newer(magic));
            }
        });
        let before = disk.content(&path);
        let error = open(&disk).await.err().unwrap();
        assert!(matches!(error, LogError::TooNew { found: 7, known: 1, .. }), "{error}");
        assert_eq!(disk.content(&path), before);
    }
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let disk = sample().await;
    for name in ["segment-1", "segment-+000000000000001", "notes.txt", "header.bak"] {
        disk.plant(&dir().join(name), b"not ours".to_vec());
    }
    let opened = open(&disk).await.unwrap();
    assert_eq!((opened.log.next(), opened.recovered.strays), (20, 0));
    assert_eq!(disk.content(&dir().join("notes.txt")), b"not ours");
}

#[tokio::test]
async fn stray_segments_are_removed() {
    let disk = sample().await;
    let content = disk.content(&segment(0));
    disk.plant(&segment(50), content);
    disk.plant(&segment(51), Vec::new());
    let opened = open(&disk).await.unwrap();
    assert_eq!((opened.log.next(), opened.recovered.strays), (20, 2));
    assert_eq!(open(&disk).await.unwrap().recovered.strays, 0);
}
