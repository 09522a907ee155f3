//! What is read back while the log is in use: all rot before the synced end, nothing behind it, and never what was merely cut
//! or removed meanwhile.

use super::super::Unfit;
use super::super::segment::SEGMENT_HEAD_BYTES;
use super::*;

/// Reads everything back; what was read of records.
async fn all(log: &LogStore) -> Result<Vec<u64>, LogError> {
    let (mut seen, mut from) = (Vec::new(), 0);
    let mut see = |index: u64, _: &[u8]| {
        seen.push(index);
        Ok(())
    };
    while let Some(found) = log.reread(from, &mut see).await? {
        from = found.segment + 1;
    }
    Ok(seen)
}

fn flip(disk: &MemDisk, path: &Path, at: u64) {
    disk.tamper(path, |bytes| bytes[at as usize] ^= 0x10);
}

#[test]
fn every_byte_of_a_record_counts_in_closed_segments_and_up_to_the_synced_end_of_the_last() {
    block_on(async {
        let disk = MemDisk::default();
        let opened = open(&disk).await.unwrap();
        opened.log.append(records(0, &[1000; 20])).await.unwrap();
        let end = header(&disk).await.end_offset;
        let last = header(&disk).await.next_segment - 1;
        assert!(last >= 2, "several segments are closed");
        assert_eq!(all(&opened.log).await.unwrap(), (0..20).collect::<Vec<_>>());

        for id in 0..=last {
            // Four records of 1016 bytes fit into a segment.
            let until = if id == last { end } else { SEGMENT_HEAD_BYTES + 4 * 1016 };
            for at in (SEGMENT_HEAD_BYTES..until).chain(0..48) {
                flip(&disk, &segment(id), at);
                let error = all(&opened.log).await.unwrap_err();
                assert!(error.is_lost() && error.to_string().contains("segment"), "byte {at} of {id}: {error}");
                flip(&disk, &segment(id), at);
            }
        }
        // Behind the synced end nothing was acknowledged.
        for at in end..SEGMENT_BYTES {
            flip(&disk, &segment(last), at);
        }
        assert_eq!(all(&opened.log).await.unwrap().len(), 20);
    });
}

#[test]
fn a_segment_that_is_gone_cut_short_or_another_one_is_damage() {
    block_on(async {
        let disk = MemDisk::default();
        let opened = open(&disk).await.unwrap();
        opened.log.append(records(0, &[1000; 12])).await.unwrap();
        let whole = disk.content(&segment(0));
        for (what, change) in [("cut short", 5000), ("empty", 0)] {
            disk.tamper(&segment(0), |bytes| bytes.truncate(change));
            assert!(all(&opened.log).await.unwrap_err().is_lost(), "{what}");
            disk.plant(&segment(0), whole.clone());
        }
        // Each is sound by itself: only the log knows better.
        let other = disk.content(&segment(1));
        disk.plant(&segment(0), other);
        assert!(all(&opened.log).await.unwrap_err().to_string().contains("head of the segment"));
        disk.plant(&segment(0), whole.clone());
        disk.lose(&segment(0));
        assert!(all(&opened.log).await.unwrap_err().to_string().contains("no such file"));
    });
}

#[test]
fn what_a_record_holds_is_judged_by_who_knows_it_at_open_and_behind() {
    block_on(async {
        let disk = MemDisk::default();
        let opened = open(&disk).await.unwrap();
        opened.log.append(records(0, &[100; 5])).await.unwrap();
        let mut third_is_wrong = |index: u64, payload: &[u8]| match (index, payload.len()) {
            (3, 100) => Err(Unfit { what: "term".to_owned(), expected: "9".to_owned(), got: "7".to_owned() }),
            _ => Ok(()),
        };
        let behind = opened.log.reread(0, &mut third_is_wrong).await.unwrap_err();
        assert!(behind.is_lost() && behind.to_string().contains("term: expected 9, got 7"), "{behind}");
        let (disk, counter) = (Arc::new(disk.clone()), Counter::default());
        let at_open = LogStore::open_on(disk, dir(), options(), &counter, &mut third_is_wrong).await;
        assert!(at_open.err().unwrap().is_lost());
    });
}

#[test]
fn a_copy_of_header_or_vote_that_rotted_is_written_anew_and_two_are_damage() {
    block_on(async {
        let disk = MemDisk::default();
        let opened = open(&disk).await.unwrap();
        opened.log.append(records(0, &[100; 5])).await.unwrap();
        opened.vote.write(Bytes::from_static(b"term 7")).await.unwrap();
        for name in ["header", "vote"] {
            let path = dir().join(name);
            let reread = async || match name {
                "vote" => opened.vote.reread(&disk).await,
                _ => opened.log.reread_header().await,
            };
            let whole = disk.content(&path);
            assert_eq!(reread().await.unwrap(), None, "{name}");
            for (at, slot) in [(20, "slot A"), (4096 + 35, "slot B")] {
                flip(&disk, &path, at);
                let mended = reread().await.unwrap().unwrap();
                assert!(mended.what.contains(slot), "{name}: {mended}");
                assert_eq!(disk.content(&path), whole, "{name}");
            }
            // An older version of the file, sound by itself in both copies.
            let mut old = whole.clone();
            old.copy_within(0..4096, 4096);
            flip(&disk, &path, 20);
            flip(&disk, &path, 4096 + 20);
            let before = disk.content(&path);
            assert!(reread().await.unwrap_err().is_lost(), "{name}");
            assert_eq!(disk.content(&path), before, "{name}: nothing is written over the evidence");
            disk.lose(&path);
            assert!(reread().await.unwrap_err().is_lost(), "{name} is gone");
            disk.plant(&path, old);
        }
    });
}

#[test]
fn a_vote_that_went_back_in_both_copies_is_damage() {
    block_on(async {
        let disk = MemDisk::default();
        let opened = open(&disk).await.unwrap();
        let path = dir().join("vote");
        opened.vote.write(Bytes::from_static(b"term 7")).await.unwrap();
        let old = disk.content(&path);
        opened.vote.write(Bytes::from_static(b"term 8")).await.unwrap();
        disk.plant(&path, old);
        let error = opened.vote.reread(&disk).await.unwrap_err();
        assert!(error.is_lost() && error.to_string().contains("sequence"), "{error}");
    });
}

#[test]
fn a_log_that_is_cut_purged_and_rotated_meanwhile_is_never_damage() {
    block_on(async {
        for seed in 0..20 {
            let disk = MemDisk::default();
            let opened = open(&disk).await.unwrap();
            opened.log.append(records(0, &[900; 20])).await.unwrap();
            disk.slow_reads(seed);
            let changes = async {
                for round in 0..10_u64 {
                    let next = opened.log.next();
                    opened.log.truncate(next - 6).await.unwrap();
                    opened.log.append(records(next - 6, &[800 + round as usize; 12])).await.unwrap();
                    opened.log.purge(opened.log.first() + 3, Bytes::from(vec![round as u8])).await.unwrap();
                }
            };
            let looks = async {
                for _ in 0..30 {
                    all(&opened.log).await.unwrap();
                    opened.log.reread_header().await.unwrap();
                }
            };
            tokio::join!(changes, looks);
        }
    });
}
