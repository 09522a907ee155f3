//! Randomness seeded by the kernel.

use ::rand::SeedableRng;
use ::rand::rngs::StdRng;

use crate::{Rand, Rng};

#[derive(Debug)]
pub(super) struct RealRand;

impl Rand for RealRand {
    /// Each fork has a kernel seed of its own: the label matters only where runs are replayed.
    fn fork(&self, _label: &str) -> Rng {
        Box::new(StdRng::from_os_rng())
    }
}
