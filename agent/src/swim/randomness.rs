//! The seam's randomness, as the protocol wants it (of a later version of the same traits).

use std::convert::Infallible;

use rand_core::TryRng;
use resilver_host::Rng;

/// A random stream of the host's.
pub(super) struct Randomness(pub(super) Rng);

impl TryRng for Randomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill_bytes(bytes);
        Ok(())
    }
}
