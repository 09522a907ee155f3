//! The run's randomness: one generator for the world, and one for every label that asks.
//!
//! Must never: be drawn from in an order that depends on anything but the seed and what happened before.

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore, SeedableRng};

/// A generator that belongs to the run.
pub struct SimRng(StdRng);

impl SimRng {
    /// The generator of `seed` for the use `label`: users do not shift each other's numbers.
    pub fn new(seed: u64, label: &str) -> SimRng {
        SimRng(StdRng::seed_from_u64(mix(seed, label)))
    }

    /// A number in `[low, high]`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// True in `permille` of a thousand cases.
    pub fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.0.random_range(0..1000) < permille
    }

    /// One of `items`; `None` when there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.0.random_range(0..items.len())) }
    }
}

impl RngCore for SimRng {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// A seed of its own for `label`: FNV-1a over both, finished as in SplitMix64 so that near seeds end far apart.
pub fn mix(seed: u64, label: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in seed.to_le_bytes().into_iter().chain(label.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
