//! Erasure coding: how an extent becomes k data and m parity shards, and comes back from any k of them.
//!
//! Owns: the [`ErasureCodec`] trait, its one implementation (Reed-Solomon over GF(2^8), polynomial 0x11D, the systematic
//! Vandermonde matrix of Backblaze and klauspost), and [`Layout`], which says where each byte of an extent lies.
//!
//! Must never: touch a disk or the network, or change the bytes a codec id stands for. Shards outlive programs: another
//! matrix is another id. The golden parity vectors in `tests/golden` hold this module to it.

mod layout;
mod matrix;
mod reed_solomon;

use std::sync::Arc;

use bytes::Bytes;

pub use self::layout::Layout;
use crate::model::{Coding, MAX_SHARDS};
use crate::types::ShardIndex;

/// The id of Reed-Solomon over GF(2^8), 0x11D, systematic Vandermonde, in shard headers and on the wire.
pub const REED_SOLOMON: u16 = 1;

/// An erasure code with fixed parameters. Cheap to share; holds no state between calls.
pub trait ErasureCodec: Send + Sync {
    /// Its parameters.
    fn coding(&self) -> Coding;

    /// Its id in shard headers.
    fn id(&self) -> u16;

    /// The m parity blocks of k data blocks of equal length.
    ///
    /// # Errors
    /// When the number of blocks is not k or their lengths differ.
    fn encode(&self, data: &[Bytes]) -> Result<Vec<Bytes>, CodecError>;

    /// Fills in those of the `wanted` blocks that are `None` from any k that are there. Blocks nobody wants stay `None`:
    /// a repair of one shard pays for one.
    ///
    /// # Errors
    /// When fewer than k are there, lengths differ, or an index is out of range.
    fn reconstruct(&self, shards: &mut [Option<Bytes>], wanted: &[ShardIndex]) -> Result<(), CodecError>;
}

/// Why blocks could not be coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Parameters no code is made for.
    #[error(
        "coding {k}+{m} is out of range: choose at least one data and one parity shard, together at most {MAX_SHARDS} \
         (4+2 is the default from six hosts on)"
    )]
    Coding {
        /// Data shards asked for.
        k: u8,
        /// Parity shards asked for.
        m: u8,
    },
    /// A codec of a newer version, or a damaged header.
    #[error("codec id {0} is not known to this version, which knows {REED_SOLOMON}: upgrade this node")]
    UnknownCodec(u16),
    /// Not the number of blocks this code takes.
    #[error("{got} blocks were given where the code takes {expected}")]
    Count {
        /// What it takes.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// Blocks of one stripe differ in length.
    #[error("block {index} of the stripe is {got} bytes long where the others have {expected}")]
    Length {
        /// Which block.
        index: usize,
        /// Length of the first.
        expected: usize,
        /// Its own.
        got: usize,
    },
    /// Not enough is left.
    #[error("{have} of the {need} blocks needed to decode are there: wait for more disks to come back, or restore")]
    TooFew {
        /// k.
        need: usize,
        /// What is there.
        have: usize,
    },
    /// A shard index beyond k+m.
    #[error("shard {index} was asked for, but the code has {total}")]
    Index {
        /// The index.
        index: usize,
        /// k+m.
        total: usize,
    },
}

/// Checks parameters: the one place that says which codes exist.
///
/// # Errors
/// [`CodecError::Coding`].
pub fn validate(coding: Coding) -> Result<(), CodecError> {
    let Coding { k, m } = coding;
    if k == 0 || m == 0 || coding.total() > usize::from(MAX_SHARDS) {
        return Err(CodecError::Coding { k, m });
    }
    Ok(())
}

/// The codec for these parameters.
///
/// # Errors
/// [`CodecError::Coding`] when they are out of range.
pub fn codec(coding: Coding) -> Result<Arc<dyn ErasureCodec>, CodecError> {
    validate(coding)?;
    Ok(Arc::new(reed_solomon::ReedSolomon::new(coding)?))
}

/// The codec that wrote a shard whose header carries this id.
///
/// # Errors
/// [`CodecError::UnknownCodec`], or as [`codec`].
pub fn codec_of(id: u16, coding: Coding) -> Result<Arc<dyn ErasureCodec>, CodecError> {
    if id != REED_SOLOMON {
        return Err(CodecError::UnknownCodec(id));
    }
    codec(coding)
}
