//! What the shards of an extent make: every codeword that k of them agree upon. Pure.

use bytes::Bytes;

use super::arbiter::Codeword;
use crate::codec::{CodecError, ErasureCodec, Layout, codec};
use crate::types::ShardIndex;

/// Choices of k shards that are tried at most for one extent, each at the cost of decoding up to 16 MiB (some 10 ms): all there are
/// of 12+4. Of wider codings as many are drawn: of 16+4 with three wrong shards, the right ones are among them but for one in a
/// thousand extents.
const MAX_TRIES: usize = 2_048;

/// Where the drawing begins. The same extent is always judged alike.
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;

/// What was found.
#[derive(Debug)]
pub(super) struct Codewords {
    /// Each once; none with fewer than k shards.
    pub(super) found: Vec<Codeword>,
    /// All choices of k shards were tried: there is no other.
    pub(super) all: bool,
}

/// The codewords that k of the given shards (by index, in blocks) make.
///
/// # Errors
/// When the coding is out of range, or blocks do not fit.
pub(super) fn codewords(shards: &[Option<Vec<Bytes>>], layout: Layout) -> Result<Codewords, CodecError> {
    let codec = codec(layout.coding)?;
    let crcs: Vec<Option<u32>> = shards.iter().map(|shard| shard.as_deref().map(crc_of)).collect();
    let there: Vec<usize> = (0..shards.len()).filter(|at| shards[*at].is_some()).collect();
    let mut found: Vec<Codeword> = Vec::new();
    let (tries, all) = tries(&there, usize::from(layout.coding.k));
    for chosen in tries {
        let agrees = |codeword: &Codeword| chosen.iter().all(|at| crcs[*at] == Some(codeword.shard_crcs[*at]));
        // Any k shards that agree with a codeword make it.
        if !found.iter().any(agrees) {
            found.push(codeword(shards, &chosen, layout, codec.as_ref())?);
        }
        if found.len() == 1 && there.iter().all(|at| crcs[*at] == Some(found[0].shard_crcs[*at])) {
            return Ok(Codewords { found, all: true });
        }
    }
    Ok(Codewords { found, all })
}

/// The choices that are tried, and whether those are all. In order only when they are: of the first few in order, all have the
/// first shards in them, and one of those may be the wrong one.
fn tries(there: &[usize], k: usize) -> (Vec<Vec<usize>>, bool) {
    let tries: Vec<Vec<usize>> = choices(there, k).take(MAX_TRIES + 1).collect();
    if tries.len() <= MAX_TRIES {
        return (tries, true);
    }
    let mut state = SEED;
    let mut draw = |below: usize| {
        // xorshift64: evenly spread is all that is asked of it.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let drawn = (0..MAX_TRIES).map(|_| {
        let mut places = there.to_vec();
        (0..k).for_each(|at| places.swap(at, at + draw(there.len() - at)));
        places.truncate(k);
        places.sort_unstable();
        places
    });
    (drawn.collect(), false)
}

/// What these k shards make.
fn codeword(
    shards: &[Option<Vec<Bytes>>],
    chosen: &[usize],
    layout: Layout,
    codec: &dyn ErasureCodec,
) -> Result<Codeword, CodecError> {
    let all: Vec<ShardIndex> = (0..shards.len()).map(|at| ShardIndex(at as u8)).collect();
    let mut made = Codeword { content_crc: 0, shard_crcs: vec![0; shards.len()] };
    for stripe in 0..layout.stripes() {
        let block = |at: usize| shards[at].as_ref().and_then(|blocks| blocks.get(stripe as usize)).cloned();
        let mut blocks: Vec<Option<Bytes>> =
            (0..shards.len()).map(|at| chosen.contains(&at).then(|| block(at)).flatten()).collect();
        codec.reconstruct(&mut blocks, &all)?;
        let mut rest = layout.content_len(stripe);
        for (at, block) in blocks.iter().flatten().enumerate() {
            made.shard_crcs[at] = crc32c::crc32c_append(made.shard_crcs[at], block);
            if at < usize::from(layout.coding.k) {
                // The last blocks of content are padded.
                let part = block.len().min(rest);
                made.content_crc = crc32c::crc32c_append(made.content_crc, &block[..part]);
                rest -= part;
            }
        }
    }
    Ok(made)
}

fn crc_of(shard: &[Bytes]) -> u32 {
    shard.iter().fold(0, |crc, block| crc32c::crc32c_append(crc, block))
}

/// All ways to choose `k` of these, in order.
fn choices(of: &[usize], k: usize) -> impl Iterator<Item = Vec<usize>> + '_ {
    let mut at: Option<Vec<usize>> = (k > 0 && k <= of.len()).then(|| (0..k).collect());
    std::iter::from_fn(move || {
        let now = at.clone()?;
        at = (0..k).rev().find(|place| now[*place] < of.len() - k + place).map(|place| {
            let mut next = now.clone();
            next[place] += 1;
            (place + 1..k).for_each(|behind| next[behind] = next[behind - 1] + 1);
            next
        });
        Some(now.into_iter().map(|place| of[place]).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_comes_once() {
        let all: Vec<Vec<usize>> = choices(&[1, 3, 5, 7], 2).collect();
        assert_eq!(all, [[1, 3], [1, 5], [1, 7], [3, 5], [3, 7], [5, 7]].map(|pair| pair.to_vec()));
        assert_eq!(choices(&[0, 1, 2, 3, 4, 5], 4).count(), 15);
        assert_eq!(choices(&[0, 1], 3).count(), 0);
        assert_eq!(choices(&(0..12).collect::<Vec<_>>(), 8).count(), 495);
    }

    /// Of 10+4 there are 1,001 choices, and only the first 512 in order were tried: all with the first three shards.
    #[test]
    fn choices_of_wide_codings_are_all_tried_or_drawn_evenly() {
        for (total, k, all) in [(14, 10, 1_001), (16, 12, 1_820)] {
            let (tried, whole) = tries(&(0..total).collect::<Vec<_>>(), k);
            assert_eq!((tried.len(), whole), (all, true));
        }
        let there: Vec<usize> = (0..20).collect();
        let (tried, whole) = tries(&there, 16);
        assert_eq!((tried.len(), whole), (MAX_TRIES, false));
        assert!(tried.iter().all(|chosen| chosen.len() == 16 && chosen.is_sorted_by(|one, next| one < next)));
        for wrong in choices(&there, 2) {
            assert!(tried.iter().any(|chosen| wrong.iter().all(|at| !chosen.contains(at))), "without {wrong:?}");
        }
        assert_eq!(tried, tries(&there, 16).0);
    }
}
