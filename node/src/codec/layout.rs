//! Where each byte of an extent lies among its shards.
//!
//! An extent is striped: stripe s holds k data blocks of `block_bytes` each, one after another in the content, and m
//! parity blocks. Block s of shard i is block i of stripe s. The last stripe is shorter: its blocks are a k-th of what is
//! left, rounded up and padded with zeros, so that a small object does not cost k whole blocks.

use bytes::{Bytes, BytesMut};

use crate::model::Coding;

/// The layout of one extent. `coding` must be valid ([`super::validate`]) and `block_bytes` at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of content.
    pub extent_bytes: u64,
    /// Parameters of the code.
    pub coding: Coding,
    /// Bytes of a full block.
    pub block_bytes: u32,
}

impl Layout {
    fn k(self) -> u64 {
        debug_assert!(self.coding.k > 0, "a coding is validated before it is laid out");
        u64::from(self.coding.k.max(1))
    }

    /// Content of a full stripe.
    pub fn stripe_bytes(self) -> u64 {
        self.k() * u64::from(self.block_bytes.max(1))
    }

    /// How many stripes there are: also the number of blocks of each shard.
    pub fn stripes(self) -> u32 {
        u32::try_from(self.extent_bytes.div_ceil(self.stripe_bytes())).unwrap_or(u32::MAX)
    }

    /// Bytes of content in a stripe; 0 beyond the last.
    pub fn content_len(self, stripe: u32) -> usize {
        let before = u64::from(stripe).saturating_mul(self.stripe_bytes());
        usize::try_from(self.extent_bytes.saturating_sub(before).min(self.stripe_bytes())).unwrap_or(usize::MAX)
    }

    /// Length of every block of a stripe, parity included.
    pub fn block_len(self, stripe: u32) -> usize {
        self.content_len(stripe).div_ceil(self.k() as usize)
    }

    /// Bytes of data (or parity) in each shard.
    pub fn shard_bytes(self) -> u64 {
        match self.stripes() {
            0 => 0,
            n => u64::from(n - 1) * u64::from(self.block_bytes) + self.block_len(n - 1) as u64,
        }
    }

    /// The stripe that holds a byte of content, and the byte's place within the stripe's content.
    pub fn stripe_of(self, offset: u64) -> (u32, usize) {
        let stripe = offset / self.stripe_bytes();
        (u32::try_from(stripe).unwrap_or(u32::MAX), (offset % self.stripe_bytes()) as usize)
    }

    /// Cuts a stripe's content into its k data blocks. Copies only what must be padded.
    pub fn split(self, content: &Bytes) -> Vec<Bytes> {
        let k = self.k() as usize;
        let len = content.len().div_ceil(k);
        (0..k)
            .map(|i| {
                let (start, end) = ((i * len).min(content.len()), ((i + 1) * len).min(content.len()));
                if end - start == len {
                    return content.slice(start..end);
                }
                let mut padded = BytesMut::zeroed(len);
                padded[..end - start].copy_from_slice(&content[start..end]);
                padded.freeze()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is cut comes back, the sums agree, and no shard is padded by more than a byte per block.
        #[test]
        fn every_byte_has_its_place(extent in 0_u64..5000, k in 1_u8..8, block in 1_u32..300) {
            let layout = Layout { extent_bytes: extent, coding: Coding { k, m: 1 }, block_bytes: block };
            let content: Bytes = (0..extent).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
            let (mut joined, mut shard_bytes) = (Vec::new(), 0);
            for stripe in 0..layout.stripes() {
                let start = joined.len();
                prop_assert_eq!(layout.stripe_of(start as u64), (stripe, 0));
                let part = content.slice(start..start + layout.content_len(stripe));
                let blocks = layout.split(&part);
                prop_assert!(blocks.iter().all(|block| block.len() == layout.block_len(stripe)));
                let mut whole = blocks.concat();
                prop_assert!(whole.len() - part.len() < usize::from(k) * 2);
                whole.truncate(part.len());
                joined.extend(whole);
                shard_bytes += layout.block_len(stripe) as u64;
            }
            prop_assert_eq!(Bytes::from(joined), content);
            prop_assert_eq!(layout.shard_bytes(), shard_bytes);
            prop_assert_eq!(layout.block_len(layout.stripes()), 0);
        }
    }

    #[test]
    fn a_small_object_costs_a_small_shard() {
        let layout = Layout { extent_bytes: 1000, coding: Coding { k: 4, m: 2 }, block_bytes: 65_536 };
        assert_eq!((layout.stripes(), layout.block_len(0), layout.shard_bytes()), (1, 250, 250));
    }
}
