//! What the shards of an extent make: every codeword that k of them agree upon. Pure.

use bytes::Bytes;

use super::arbiter::Codeword;
use crate::codec::{CodecError, ErasureCodec, Layout, codec};
use crate::types::ShardIndex;

/// Codewords of one extent that are looked for at most: what is beyond that is not decided anyway.
const MAX_CODEWORDS: usize = 1024;

/// Choices of k shards that are tried at most for one extent, each at the cost of decoding 16 MiB: all of 8+4.
const MAX_TRIES: usize = 512;

/// All codewords that k of the given shards (by index, in blocks) make, each once; as many as are bounded. Empty with fewer
/// than k.
///
/// # Errors
/// When the coding is out of range, or blocks do not fit.
pub(super) fn codewords(shards: &[Option<Vec<Bytes>>], layout: Layout) -> Result<Vec<Codeword>, CodecError> {
    let codec = codec(layout.coding)?;
    let crcs: Vec<Option<u32>> = shards.iter().map(|shard| shard.as_deref().map(crc_of)).collect();
    let there: Vec<usize> = (0..shards.len()).filter(|at| shards[*at].is_some()).collect();
    let mut found: Vec<Codeword> = Vec::new();
    for chosen in choices(&there, usize::from(layout.coding.k)).take(MAX_TRIES) {
        let agrees = |codeword: &Codeword| chosen.iter().all(|at| crcs[*at] == Some(codeword.shard_crcs[*at]));
        // Any k shards that agree with a codeword make it.
        if found.len() < MAX_CODEWORDS && !found.iter().any(agrees) {
            found.push(codeword(shards, &chosen, layout, codec.as_ref())?);
        }
    }
    Ok(found)
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
}
