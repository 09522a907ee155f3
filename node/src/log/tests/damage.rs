//! Bytes flipped and tails cut, anywhere: either all that was acknowledged is there, or the voter is lost. Never fewer
//! records, never others, and never lost for what was not synced.

use proptest::prelude::*;

use super::*;
use crate::log::header::HEADER_NAME;
use crate::log::segment::SEGMENT_HEAD_BYTES;

/// What must become of a folder that was damaged in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names)] // they read as a sentence: must be lost, must be whole
enum Must {
    /// All of it is needed: lost.
    BeLost,
    /// A copy, or not needed: everything is there.
    BeWhole,
    /// Either, but nothing between.
    BeEither,
}

/// Where each file begins to be without meaning.
struct Extent {
    end_offset: u64,
    last_segment: Option<PathBuf>,
}

impl Extent {
    async fn of(disk: &MemDisk) -> Self {
        let header = header(disk).await;
        let last_segment = (header.first_segment < header.next_segment).then(|| segment(header.next_segment - 1));
        Self { end_offset: header.end_offset, last_segment }
    }

    /// What a flip at `offset` of `path` must lead to.
    fn flip(&self, path: &Path, offset: u64) -> Must {
        match path.file_name().unwrap().to_str().unwrap() {
            HEADER_NAME | "vote" => Must::BeWhole,
            _ if self.last_segment.as_deref() != Some(path) => Must::BeEither,
            _ if offset >= self.end_offset => Must::BeWhole,
            _ if !(48..SEGMENT_HEAD_BYTES).contains(&offset) => Must::BeLost,
            _ => Must::BeWhole,
        }
    }

    /// What cutting `path` to `len` must lead to.
    fn cut(&self, path: &Path, len: u64) -> Must {
        match path.file_name().unwrap().to_str().unwrap() {
            HEADER_NAME | "vote" if len >= 4096 => Must::BeWhole,
            // Of the first slot only its padding is gone.
            HEADER_NAME | "vote" => Must::BeEither,
            _ if self.last_segment.as_deref() != Some(path) => Must::BeEither,
            _ if len >= self.end_offset => Must::BeWhole,
            _ => Must::BeLost,
        }
    }
}

async fn assert_becomes(disk: &MemDisk, model: &Model, must: Must, what: &dyn std::fmt::Debug) {
    match open(disk).await {
        Ok(opened) => {
            assert_eq!(opened.content().await.unwrap(), *model, "{what:?}");
            assert_ne!(must, Must::BeLost, "{what:?} went unnoticed");
            // What was mended stays mended, and the log goes on.
            opened.log.append(records(model.next, &[10, 2000])).await.unwrap();
            let again = open(disk).await.unwrap();
            assert_eq!(again.log.next(), model.next + 2);
            assert!(!again.recovered.healed_header);
        }
        Err(error) => {
            assert!(error.is_lost(), "{what:?}: {error}");
            assert_ne!(must, Must::BeWhole, "{what:?}: {error}");
        }
    }
}

/// Every byte of every file, flipped one after another; every file, cut to every length.
#[test]
fn every_single_byte_counts_for_what_it_is() {
    let life = [
        Draft::Append(vec![700; 12]),
        Draft::Vote,
        Draft::Truncate(70),
        Draft::Append(vec![300; 4]),
        Draft::Purge(20),
        Draft::Append(vec![30, 0, 500]),
    ];
    block_on(async {
        let (disk, model) = build(&life).await;
        let extent = Extent::of(&disk).await;
        assert_eq!(disk.files().len(), 4, "header, vote and two segments");
        for (path, len) in disk.files() {
            for at in 0..len {
                let damaged = disk.copy();
                damaged.tamper(&path, |bytes| bytes[at] ^= 1 << (at % 8));
                let must = extent.flip(&path, at as u64);
                assert_becomes(&damaged, &model, must, &("flip", &path, at)).await;

                let damaged = disk.copy();
                damaged.tamper(&path, |bytes| bytes.truncate(at));
                let must = extent.cut(&path, at as u64);
                assert_becomes(&damaged, &model, must, &("cut", &path, at)).await;
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_flip_or_cut_is_classified_rightly(
        drafts in prop::collection::vec(draft(), 1..25),
        file in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        mask in 1u8..=255,
        cut in any::<bool>(),
    ) {
        block_on(async {
            let (disk, model) = build(&drafts).await;
            let extent = Extent::of(&disk).await;
            let files = disk.files();
            let (path, len) = &files[file.index(files.len())];
            let at = place.index(*len);
            let must = if cut { extent.cut(path, at as u64) } else { extent.flip(path, at as u64) };
            disk.tamper(path, |bytes| if cut { bytes.truncate(at) } else { bytes[at] ^= mask });
            assert_becomes(&disk, &model, must, &(cut, path, at)).await;
        });
    }

    #[test]
    fn a_torn_append_beside_damage_hides_nothing(
        drafts in prop::collection::vec(draft(), 1..15),
        sizes in prop::collection::vec(0usize..900, 1..8),
        changes in 0u64..6,
        seed in any::<u64>(),
        place in any::<prop::sample::Index>(),
    ) {
        block_on(async {
            let (disk, mut model) = build(&drafts).await;
            let opened = open(&disk).await.unwrap();
            disk.fail_after(changes);
            let act = Act::Append(records(model.next, &sizes));
            // Any outcome: the damage below must not be hidden by the torn tail, nor the tail be taken for damage.
            if opened.perform(&act).await.is_ok() {
                model.apply(&act);
            }
            disk.power_failure(seed);
            let whole = open(&disk.copy()).await.unwrap().content().await.unwrap();
            prop_assert!(whole == model || whole == model.after(&act));
            let segments: Vec<_> = disk.files().into_iter().filter(|(path, _)| path != &dir().join("vote")).collect();
            let (path, len) = &segments[place.index(segments.len())];
            if *len > 0 {
                disk.tamper(path, |bytes| bytes[seed as usize % *len] ^= 0x10);
            }
            match open(&disk).await {
                // One copy of the header may be all that told of an append that was not acknowledged.
                Ok(opened) => {
                    let content = opened.content().await.unwrap();
                    prop_assert!(content == model || content == whole);
                }
                Err(error) => prop_assert!(error.is_lost(), "{}", error),
            }
            Ok(())
        })?;
    }
}

/// A disk that lost a write and brought an older version of a block back: each record in it is sound by itself.
#[test]
fn an_older_version_of_synced_bytes_is_noticed() {
    block_on(async {
        let disk = MemDisk::default();
        let opened = open(&disk).await.unwrap();
        opened.log.append(records(0, &[100, 100, 100])).await.unwrap();
        let old = disk.content(&segment(0));
        opened.log.truncate(1).await.unwrap();
        let mut others = records(1, &[100, 100]);
        others[0].payload = Bytes::from(vec![7; 100]);
        opened.log.append(others).await.unwrap();
        disk.tamper(&segment(0), |bytes| bytes.clone_from(&old));
        assert!(open(&disk).await.err().unwrap().is_lost());
    });
}

/// Records damaged while the log is open are reported, not returned.
#[test]
fn rot_under_an_open_log_is_reported_by_the_read() {
    block_on(async {
        let disk = MemDisk::default();
        let opened = open_with(&disk, LogOptions { cache_bytes: 0, ..options() }).await.unwrap();
        opened.log.append(records(0, &[100; 5])).await.unwrap();
        disk.tamper(&segment(0), |bytes| bytes[SEGMENT_HEAD_BYTES as usize + 2 * 116 + 50] ^= 1);
        assert_eq!(opened.log.read(0..2, 1000).await.unwrap().len(), 2);
        let error = opened.log.read(0..5, 1000).await.unwrap_err();
        let LogError::Lost(damage) = error else { panic!("{error}") };
        assert_eq!((damage.path, damage.offset), (segment(0), SEGMENT_HEAD_BYTES + 2 * 116));
        assert_eq!(damage.what, "checksum of record 2");
    });
}
