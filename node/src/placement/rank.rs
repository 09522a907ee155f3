//! The order in which an extent prefers disks: weighted rendezvous hashing.
//!
//! Every node must compute the same order for years to come, on every architecture: the hash is written out here (not
//! the standard library's, which may change), and the logarithm is integer arithmetic (not a libm's, which may round
//! differently). The golden values in the tests keep both as they are.

use crate::types::{DiskId, ExtentIndex, Version};

/// The unit of a disk's weight: fine enough to tell disks of a test apart, coarse enough to stay far from overflow.
const WEIGHT_UNIT_BYTES: u64 = 1024 * 1024;

/// Bits behind the point of [`negative_log2`]. 32 tell any two disks apart that a cluster will ever hold.
const FRACTION_BITS: u32 = 32;

/// What a disk costs an extent: the lower, the more it is wanted. The cheapest n of many disks hold a disk with a chance
/// in proportion to its weight (-ln(u)/w is exponentially distributed with rate w), and no disk's cost depends on another
/// disk: whoever comes or goes changes only its own place in the order.
pub(super) fn cost(version: Version, extent: ExtentIndex, disk: DiskId, capacity_bytes: u64) -> u128 {
    let weight = (capacity_bytes / WEIGHT_UNIT_BYTES).max(1);
    (u128::from(negative_log2(hash(version, extent, disk))) << 64) / u128::from(weight)
}

/// A hash of (version, extent, disk): SplitMix64's finaliser over the words, each mixed in before the next.
fn hash(version: Version, extent: ExtentIndex, disk: DiskId) -> u64 {
    let words = [(version.0 >> 64) as u64, version.0 as u64, u64::from(extent.0), (disk.0 >> 64) as u64, disk.0 as u64];
    words.into_iter().fold(0, |state, word| split_mix(state ^ word))
}

/// One step of SplitMix64 (Steele, Lea, Flood 2014): add the golden gamma, then Stafford's variant 13.
fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// -log2(u / 2^64) with [`FRACTION_BITS`] behind the point, by repeated squaring.
fn negative_log2(u: u64) -> u64 {
    let u = u.max(1);
    let whole = 63 - u.leading_zeros();
    // The mantissa in [1, 2), with 63 bits behind the point.
    let mut mantissa = u << u.leading_zeros();
    let mut fraction = 0_u64;
    for _ in 0..FRACTION_BITS {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let carry = (square >> 127) as u64;
        fraction = (fraction << 1) | carry;
        mantissa = (square >> (63 + carry)) as u64;
    }
    (64 << FRACTION_BITS) - ((u64::from(whole) << FRACTION_BITS) | fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_what_it_always_was() {
        // The first output of SplitMix64 seeded with 0, as published.
        assert_eq!(split_mix(0), 0xE220_A839_7B1D_CDAF);
        let hashed = |version, extent, disk| hash(Version(version), ExtentIndex(extent), DiskId(disk));
        assert_eq!(hashed(0, 0, 0), GOLDEN[0]);
        assert_eq!(hashed(1, 2, 3), GOLDEN[1]);
        assert_eq!(hashed(u128::MAX, u32::MAX, u128::MAX / 3), GOLDEN[2]);
    }

    /// Computed once by an independent implementation; a change here moves every shard of every cluster.
    const GOLDEN: [u64; 3] = [0x78AE_5A9A_6B5F_D45E, 0x5AEC_0115_5F43_DCF6, 0x6247_D59D_5238_2794];

    #[test]
    fn the_logarithm_is_close_to_the_real_one() {
        for u in [1_u64, 3, 1 << 20, 0x1234_5678_9ABC_DEF1, (u64::MAX / 3) | 1, u64::MAX] {
            let exact = 64.0 - (u as f64).log2();
            let ours = negative_log2(u) as f64 / f64::from(FRACTION_BITS).exp2();
            assert!((exact - ours).abs() < 1e-6, "{u}: {ours} is not {exact}");
        }
    }
}
