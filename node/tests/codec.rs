//! The erasure code against an independent implementation, against parity vectors in the repository, and against any m
//! losses.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use resilver_node::codec::{CodecError, REED_SOLOMON, codec, codec_of};
use resilver_node::model::{Coding, MAX_SHARDS};
use resilver_node::types::ShardIndex;

/// GF(2^8) over 0x11D and the systematic Vandermonde matrix, written to be read, not to be fast.
mod reference {
    pub(super) fn mul(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b != 0 {
            if b & 1 != 0 {
                product ^= a;
            }
            a = if a & 0x80 == 0 { a << 1 } else { (a << 1) ^ 0x1D };
            b >>= 1;
        }
        product
    }

    fn power(a: u8, n: usize) -> u8 {
        (0..n).fold(1, |product, _| mul(product, a))
    }

    fn inverse(matrix: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let n = matrix.len();
        let unit = |i: usize| (0..n).map(move |j| u8::from(i == j));
        let mut rows: Vec<Vec<u8>> =
            matrix.iter().enumerate().map(|(i, row)| row.iter().copied().chain(unit(i)).collect()).collect();
        for column in 0..n {
            let pivot = (column..n).find(|row| rows[*row][column] != 0).expect("invertible");
            rows.swap(column, pivot);
            let factor = power(rows[column][column], 254);
            rows[column].iter_mut().for_each(|cell| *cell = mul(*cell, factor));
            let pivot = rows[column].clone();
            for (i, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
                let factor = row[column];
                assert_ne!(i, column);
                row.iter_mut().zip(&pivot).for_each(|(cell, p)| *cell ^= mul(factor, *p));
            }
        }
        rows.into_iter().map(|row| row[n..].to_vec()).collect()
    }

    /// The m rows of factors that make parity.
    pub(super) fn parity_rows(k: usize, m: usize) -> Vec<Vec<u8>> {
        let vandermonde: Vec<Vec<u8>> =
            (0..k + m).map(|r| (0..k).map(|c| power(u8::try_from(r).unwrap(), c)).collect()).collect();
        let top = inverse(&vandermonde[..k]);
        let times = |row: &[u8], c: usize| row.iter().zip(&top).fold(0, |sum, (f, t)| sum ^ mul(*f, t[c]));
        vandermonde[k..].iter().map(|row| (0..k).map(|c| times(row, c)).collect()).collect()
    }

    pub(super) fn encode(data: &[Vec<u8>], m: usize) -> Vec<Vec<u8>> {
        let byte = |row: &[u8], i: usize| row.iter().zip(data).fold(0, |sum, (f, d)| sum ^ mul(*f, d[i]));
        parity_rows(data.len(), m).iter().map(|row| (0..data[0].len()).map(|i| byte(row, i)).collect()).collect()
    }
}

/// Data anybody can make again: byte i of shard s.
fn data(k: usize, len: usize) -> Vec<Vec<u8>> {
    let byte = |s: usize, i: usize| ((i * 31 + (i >> 8) * 7 + s * 101 + 1) % 256) as u8;
    (0..k).map(|s| (0..len).map(|i| byte(s, i)).collect()).collect()
}

fn blocks(data: &[Vec<u8>]) -> Vec<Bytes> {
    data.iter().map(|block| Bytes::from(block.clone())).collect()
}

#[test]
fn the_parity_rows_of_4_and_2_are_those_of_backblaze_and_klauspost() {
    let rows = vec![vec![27, 28, 18, 20], vec![28, 27, 20, 18]];
    assert_eq!(reference::parity_rows(4, 2), rows);
    // And the codec's: coding a unit vector shows a column.
    for column in 0..4 {
        let unit: Vec<Bytes> = (0..4).map(|i| Bytes::from(vec![u8::from(i == column)])).collect();
        let parity = codec(Coding { k: 4, m: 2 }).unwrap().encode(&unit).unwrap();
        let expected: Vec<u8> = rows.iter().map(|row| row[column]).collect();
        assert_eq!([parity[0][0], parity[1][0]], expected[..]);
    }
}

/// Shards on disks outlive the program: its parity must never change. `RESILVER_BLESS=1` writes the file, from the
/// independent implementation, not from the codec.
#[test]
fn parity_is_what_the_golden_vectors_say() {
    const SHAPES: [(u8, u8, usize); 9] = [
        (1, 1, 5),
        (2, 1, 16),
        (2, 2, 33),
        (3, 2, 1),
        (4, 2, 32),
        (4, 2, 65_536),
        (6, 3, 1000),
        (10, 4, 8_191),
        (28, 4, 100),
    ];
    let mut reference_text = String::from("# k m length shard crc32c first-32-bytes; data: see tests/codec.rs\n");
    let mut codec_text = reference_text.clone();
    for (k, m, len) in SHAPES {
        let data = data(usize::from(k), len);
        let ours = codec(Coding { k, m }).unwrap().encode(&blocks(&data)).unwrap();
        for (text, parity) in [
            (&mut reference_text, reference::encode(&data, usize::from(m))),
            (&mut codec_text, ours.into_iter().map(|block| block.to_vec()).collect()),
        ] {
            for (i, block) in parity.iter().enumerate() {
                let start: String = block.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
                let crc = crc32c::crc32c(block);
                writeln!(text, "{k} {m} {len} {} {crc:08x} {start}", usize::from(k) + i).unwrap();
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parity.txt");
    if std::env::var_os("RESILVER_BLESS").is_some() {
        std::fs::write(&path, &reference_text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(reference_text, golden, "the independent implementation");
    assert_eq!(codec_text, golden, "the codec");
}

proptest! {
    /// Any shape, any k that are left: whatever is wanted comes back, and nothing else is filled in.
    #[test]
    fn any_m_losses_are_rebuilt(
        k in 1_u8..12,
        m in 1_u8..6,
        len in prop_oneof![0_usize..70, 8_100_usize..8_300, 16_000_usize..17_000],
        order in any::<u64>(),
        wanted_mask in any::<u32>(),
    ) {
        let coding = Coding { k, m };
        let codec = codec(coding).unwrap();
        let mut whole = blocks(&data(usize::from(k), len));
        whole.extend(codec.encode(&whole).unwrap());
        // Lose m shards, drawn by a walk over the indices.
        let mut shards: Vec<Option<Bytes>> = whole.iter().cloned().map(Some).collect();
        let mut state = order;
        for _ in 0..m {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let left: Vec<usize> = (0..shards.len()).filter(|i| shards[*i].is_some()).collect();
            shards[left[(state >> 33) as usize % left.len()]] = None;
        }
        let lost: Vec<usize> = (0..shards.len()).filter(|i| shards[*i].is_none()).collect();
        let wanted: Vec<ShardIndex> =
            (0..coding.total()).filter(|i| wanted_mask >> i & 1 == 1).map(|i| ShardIndex(i as u8)).collect();
        codec.reconstruct(&mut shards, &wanted).unwrap();
        for (i, shard) in shards.iter().enumerate() {
            let expected = (!lost.contains(&i) || wanted.contains(&ShardIndex(i as u8))).then(|| whole[i].clone());
            prop_assert_eq!(shard, &expected);
        }
    }
}

#[test]
fn one_loss_too_many_is_said_and_nothing_is_made_up() {
    let codec = codec(Coding { k: 2, m: 1 }).unwrap();
    let mut shards = vec![None, Some(Bytes::from_static(b"b")), None];
    let refused = codec.reconstruct(&mut shards, &[ShardIndex(0)]);
    assert_eq!(refused, Err(CodecError::TooFew { need: 2, have: 1 }));
    assert_eq!(shards[0], None);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (k, m) in [(0, 2), (4, 0), (0, 0), (MAX_SHARDS, 1), (255, 255)] {
        assert_eq!(codec(Coding { k, m }).err(), Some(CodecError::Coding { k, m }));
    }
    assert!(codec(Coding { k: MAX_SHARDS - 1, m: 1 }).is_ok());
    assert_eq!(codec_of(9, Coding { k: 2, m: 1 }).err(), Some(CodecError::UnknownCodec(9)));
    let codec = codec_of(REED_SOLOMON, Coding { k: 2, m: 1 }).unwrap();
    assert_eq!((codec.id(), codec.coding()), (REED_SOLOMON, Coding { k: 2, m: 1 }));
    let (a, b) = (Bytes::from_static(b"aa"), Bytes::from_static(b"b"));
    assert_eq!(codec.encode(std::slice::from_ref(&a)), Err(CodecError::Count { expected: 2, got: 1 }));
    assert_eq!(codec.encode(&[a.clone(), b.clone()]), Err(CodecError::Length { index: 1, expected: 2, got: 1 }));
    let mut shards = [Some(a), Some(b), None];
    assert_eq!(codec.reconstruct(&mut shards, &[ShardIndex(3)]), Err(CodecError::Index { index: 3, total: 3 }));
    let length = CodecError::Length { index: 1, expected: 2, got: 1 };
    assert_eq!(codec.reconstruct(&mut shards, &[ShardIndex(2)]), Err(length));
}
