//! Reed-Solomon over GF(2^8) with the field kernels (and the matrix) of `reed-solomon-erasure`.
//!
//! Coding and decoding are the same thing, rows of factors times blocks, so both go through [`combine`]: the crate's own
//! decoder rebuilds everything that is missing, and walks whole blocks once per factor. Here only what is wanted is
//! rebuilt, tile by tile, so that a tile of the output stays in the first-level cache while all inputs pass over it.

use bytes::Bytes;
use reed_solomon_erasure::galois_8;

use super::matrix::Matrix;
use super::{CodecError, ErasureCodec, REED_SOLOMON};
use crate::model::Coding;
use crate::types::ShardIndex;

/// The tile: 8 KiB of output and 8 KiB of one input fit any first-level cache (32 KiB and more) side by side.
const TILE_BYTES: usize = 8 * 1024;

/// The code for one (k, m).
pub(super) struct ReedSolomon {
    coding: Coding,
    /// k+m rows of k factors; the first k are the unit matrix.
    generator: Matrix,
}

impl ReedSolomon {
    /// Reads the matrix out of the crate by coding unit vectors: what it computes is then, by construction, what we do.
    pub(super) fn new(coding: Coding) -> Result<Self, CodecError> {
        let (k, m) = (usize::from(coding.k), usize::from(coding.m));
        let refused = CodecError::Coding { k: coding.k, m: coding.m };
        let code = galois_8::ReedSolomon::new(k, m).map_err(|_| refused)?;
        let mut rows = vec![vec![0_u8; k]; k + m];
        for column in 0..k {
            let unit: Vec<[u8; 1]> = (0..k).map(|i| [u8::from(i == column)]).collect();
            let mut parity = vec![[0_u8; 1]; m];
            code.encode_sep(&unit, &mut parity).map_err(|_| refused)?;
            rows[column][column] = 1;
            for (row, factor) in rows[k..].iter_mut().zip(&parity) {
                row[column] = factor[0];
            }
        }
        Ok(Self { coding, generator: Matrix::from_rows(k, rows.iter().map(Vec::as_slice)) })
    }

    fn k(&self) -> usize {
        usize::from(self.coding.k)
    }
}

impl ErasureCodec for ReedSolomon {
    fn coding(&self) -> Coding {
        self.coding
    }

    fn id(&self) -> u16 {
        REED_SOLOMON
    }

    fn encode(&self, data: &[Bytes]) -> Result<Vec<Bytes>, CodecError> {
        if data.len() != self.k() {
            return Err(CodecError::Count { expected: self.k(), got: data.len() });
        }
        let len = equal_length(data.iter().enumerate())?;
        let rows: Vec<&[u8]> = (self.k()..self.coding.total()).map(|i| self.generator.row(i)).collect();
        let inputs: Vec<&[u8]> = data.iter().map(Bytes::as_ref).collect();
        Ok(combine(&rows, &inputs, len))
    }

    fn reconstruct(&self, shards: &mut [Option<Bytes>], wanted: &[ShardIndex]) -> Result<(), CodecError> {
        let total = self.coding.total();
        if shards.len() != total {
            return Err(CodecError::Count { expected: total, got: shards.len() });
        }
        if let Some(index) = wanted.iter().map(|shard| shard.as_usize()).find(|index| *index >= total) {
            return Err(CodecError::Index { index, total });
        }
        let mut missing: Vec<usize> = wanted.iter().map(|s| s.as_usize()).filter(|i| shards[*i].is_none()).collect();
        missing.sort_unstable();
        missing.dedup();
        if missing.is_empty() {
            return Ok(());
        }
        let present = || shards.iter().enumerate().filter_map(|(i, shard)| Some((i, shard.as_ref()?)));
        let have = present().count();
        if have < self.k() {
            return Err(CodecError::TooFew { need: self.k(), have });
        }
        let len = equal_length(present())?;
        let (from, inputs): (Vec<usize>, Vec<&[u8]>) = present().take(self.k()).map(|(i, b)| (i, b.as_ref())).unzip();
        let decode = Matrix::from_rows(self.k(), from.iter().map(|i| self.generator.row(*i)))
            .inverse()
            .expect("any k rows of a systematic Vandermonde matrix are independent");
        let rows: Vec<Vec<u8>> = missing.iter().map(|i| decode.times_row(self.generator.row(*i))).collect();
        let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
        let rebuilt = combine(&rows, &inputs, len);
        for (index, block) in missing.into_iter().zip(rebuilt) {
            shards[index] = Some(block);
        }
        Ok(())
    }
}

/// The one length of all these blocks.
fn equal_length<'a>(mut blocks: impl Iterator<Item = (usize, &'a Bytes)>) -> Result<usize, CodecError> {
    let expected = blocks.next().map_or(0, |(_, block)| block.len());
    match blocks.find(|(_, block)| block.len() != expected) {
        Some((index, block)) => Err(CodecError::Length { index, expected, got: block.len() }),
        None => Ok(expected),
    }
}

/// For each row of factors, the sum of factor times input.
fn combine(rows: &[&[u8]], inputs: &[&[u8]], len: usize) -> Vec<Bytes> {
    let mut outputs = vec![vec![0_u8; len]; rows.len()];
    for start in (0..len).step_by(TILE_BYTES) {
        let tile = start..len.min(start + TILE_BYTES);
        for (row, output) in rows.iter().zip(&mut outputs) {
            let output = &mut output[tile.clone()];
            for (i, (factor, input)) in row.iter().zip(inputs).enumerate() {
                let input = &input[tile.clone()];
                if i == 0 {
                    galois_8::mul_slice(*factor, input, output);
                } else {
                    galois_8::mul_slice_xor(*factor, input, output);
                }
            }
        }
    }
    outputs.into_iter().map(Bytes::from).collect()
}
