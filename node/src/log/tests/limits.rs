//! What is refused, and what is kept small.

use super::*;
use crate::log::{MAX_NOTE_BYTES, MAX_RECORD_BYTES, MAX_VOTE_BYTES};

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let disk = MemDisk::default();
    let opened = open(&disk).await.unwrap();
    let log = &opened.log;
    log.append(records(0, &[10; 10])).await.unwrap();
    log.purge(4, Bytes::from_static(b"note")).await.unwrap();

    let gap = log.append(records(11, &[1])).await.unwrap_err();
    assert_eq!(gap.to_string(), "record 11 does not continue the log: record 10 is next");
    let again = log.append(records(9, &[1])).await.unwrap_err();
    assert!(matches!(again, LogError::Gap { expected: 10, got: 9 }));
    let purged = log.truncate(3).await.unwrap_err();
    assert!(matches!(purged, LogError::Purged { from: 3, first: 5 }), "{purged}");
    let large = log.append(records(10, &[SEGMENT_BYTES as usize])).await.unwrap_err();
    assert!(matches!(large, LogError::TooLarge { limit_bytes: 4080, .. }), "{large}");
    let note = log.purge(6, Bytes::from(vec![0; MAX_NOTE_BYTES + 1])).await.unwrap_err();
    assert!(matches!(note, LogError::TooLarge { .. }), "{note}");
    let vote = opened.vote.write(Bytes::from(vec![0; MAX_VOTE_BYTES + 1])).await.unwrap_err();
    assert!(matches!(vote, LogError::TooLarge { .. }), "{vote}");
    log.append(Vec::new()).await.unwrap();
    log.purge(2, Bytes::from_static(b"older")).await.unwrap();

    assert_eq!((log.first(), log.next(), log.note()), (5, 10, Bytes::from_static(b"note")));
    log.append(records(10, &[4080])).await.unwrap();
    assert_eq!(open(&disk).await.unwrap().log.next(), 11);
}

#[tokio::test]
async fn segment_sizes_have_bounds() {
    for segment_bytes in [0, 4096, 2 << 30] {
        let refused = open_with(&MemDisk::default(), LogOptions { segment_bytes, ..options() }).await.err().unwrap();
        assert!(matches!(refused, LogError::BadOption { name: "segment_bytes", .. }), "{refused}");
    }
}

#[tokio::test]
async fn the_largest_record_fits_a_segment_of_the_default_size() {
    let disk = MemDisk::default();
    let log = open_with(&disk, LogOptions::default()).await.unwrap().log;
    log.append(records(0, &[MAX_RECORD_BYTES as usize])).await.unwrap();
    let too_large = log.append(records(1, &[MAX_RECORD_BYTES as usize + 1])).await.unwrap_err();
    assert!(matches!(too_large, LogError::TooLarge { .. }), "{too_large}");
    log.append(records(1, &[MAX_RECORD_BYTES as usize])).await.unwrap();
    let log = open_with(&disk, LogOptions::default()).await.unwrap().log;
    assert_eq!(log.read(0..2, u64::MAX).await.unwrap(), records(0, &[MAX_RECORD_BYTES as usize; 2]));
}

#[tokio::test]
async fn segments_of_another_size_are_read_and_filled() {
    let disk = MemDisk::default();
    open(&disk).await.unwrap().log.append(records(0, &[1000; 2])).await.unwrap();
    let larger = LogOptions { segment_bytes: 4 * SEGMENT_BYTES, ..options() };
    open_with(&disk, larger).await.unwrap().log.append(records(2, &[1000; 20])).await.unwrap();
    let opened = open(&disk).await.unwrap();
    opened.log.append(records(22, &[1000; 20])).await.unwrap();
    assert_eq!(opened.log.read(0..u64::MAX, u64::MAX).await.unwrap(), records(0, &[1000; 42]));
}

#[tokio::test]
async fn an_end_exactly_at_the_end_of_a_segment_is_an_end_like_any_other() {
    let disk = MemDisk::default();
    let opened = open(&disk).await.unwrap();
    // 4080 bytes and a head of 16 fill what the segment's own head leaves.
    opened.log.append(records(0, &[4080])).await.unwrap();
    assert_eq!(header(&disk).await.end_offset, SEGMENT_BYTES);
    let opened = open(&disk).await.unwrap();
    opened.log.append(records(1, &[4080, 5])).await.unwrap();
    opened.log.truncate(1).await.unwrap();
    let opened = open(&disk).await.unwrap();
    assert_eq!((opened.log.next(), opened.recovered.segments), (1, 2));
    opened.log.append(records(1, &[7])).await.unwrap();
    assert_eq!(open(&disk).await.unwrap().log.read(0..9, 9999).await.unwrap(), records(0, &[4080, 7]));
}

#[tokio::test]
async fn memory_is_bounded_whatever_the_length_of_the_log() {
    let disk = MemDisk::default();
    let log = open(&disk).await.unwrap().log;
    for round in 0..40 {
        log.append(records(round * 10, &[350; 10])).await.unwrap();
    }
    // A segment holds eleven such records: the last one's and one that was asked for.
    assert!(log.shared.lock().records_in_tables() <= 8 + 11);
    for index in (0..400).step_by(7) {
        assert_eq!(log.read(index..index + 1, 1).await.unwrap(), records(index, &[350]));
        assert!(log.shared.lock().records_in_tables() <= 8 + 2 * 11);
    }
    let log = open(&disk).await.unwrap().log;
    assert!(log.shared.lock().records_in_tables() <= 8 + 11);
    log.truncate(33).await.unwrap();
    log.append(records(33, &[350; 3])).await.unwrap();
    assert_eq!(log.read(0..u64::MAX, u64::MAX).await.unwrap(), records(0, &[350; 36]));
}

#[tokio::test]
async fn a_purge_gives_the_room_back() {
    let disk = MemDisk::default();
    let log = open(&disk).await.unwrap().log;
    log.append(records(0, &[1000; 100])).await.unwrap();
    let before = disk.files().len();
    log.purge(90, Bytes::new()).await.unwrap();
    assert!(disk.files().len() < before / 4, "{:?}", disk.files());
    log.purge(99, Bytes::new()).await.unwrap();
    assert_eq!((log.first(), log.next()), (100, 100));
    log.append(records(100, &[1])).await.unwrap();
    assert_eq!(log.read(0..u64::MAX, 9999).await.unwrap(), records(100, &[1]));
}

#[tokio::test]
async fn a_failed_sync_is_never_tried_again() {
    let disk = MemDisk::default();
    let opened = open(&disk).await.unwrap();
    opened.log.append(records(0, &[10])).await.unwrap();
    disk.fail_after(1);
    let failed = opened.log.append(records(1, &[10])).await.unwrap_err();
    assert!(failed.to_string().starts_with("cannot sync /meta/log/segment-"), "{failed}");
    // The disk would work again; what it did with the dirty pages nobody knows.
    disk.kill();
    let later = opened.log.append(records(1, &[10])).await.unwrap_err();
    assert!(later.to_string().contains("the test broke the disk"), "{later}");
    assert!(matches!(opened.log.purge(0, Bytes::new()).await, Err(LogError::Poisoned { .. })));
    assert_eq!(opened.log.read(0..9, 99).await.unwrap().len(), 1, "what was acknowledged can still be read");
}
