//! The gate at the place of effect: a step under a fence lower than one seen before does not happen.
//!
//! Owns: the highest fence. Must never: let a step pass before the new highest is on disk.

use serde::{Deserialize, Serialize};

use crate::types::Fence;

/// A fence that was overtaken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fence {found} is stale: {highest} was seen here before, so somebody else holds the lease now")]
pub struct Stale {
    /// What the step came with.
    pub found: Fence,
    /// What was seen before.
    pub highest: Fence,
}

/// Keeps the highest fence seen on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FenceGate {
    highest: Fence,
}

impl FenceGate {
    /// A gate that has seen this fence.
    pub fn new(highest: Fence) -> Self {
        Self { highest }
    }

    /// The highest fence seen.
    pub fn highest(&self) -> &Fence {
        &self.highest
    }

    /// Admits a fence that is at least the highest. `Ok(true)`: the highest rose, and must be on disk before the step
    /// begins.
    pub fn admit(&mut self, fence: &Fence) -> Result<bool, Stale> {
        if *fence < self.highest {
            return Err(Stale { found: fence.clone(), highest: self.highest.clone() });
        }
        let rose = *fence > self.highest;
        self.highest = fence.clone();
        Ok(rose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(epoch: u64, round: u64, holder: &str) -> Fence {
        Fence { epoch, round, holder: holder.to_owned() }
    }

    #[test]
    fn the_same_holder_passes_again_a_former_one_never() {
        let mut gate = FenceGate::default();
        assert_eq!(gate.admit(&fence(1, 4, "n2")), Ok(true));
        assert_eq!(gate.admit(&fence(1, 4, "n2")), Ok(false), "nothing new to store");
        assert!(gate.admit(&fence(1, 4, "n1")).is_err());
        assert!(gate.admit(&fence(1, 3, "n9")).is_err());
        assert_eq!(gate.admit(&fence(2, 1, "n1")), Ok(true), "a forced quorum begins a new epoch");
        let stale = gate.admit(&fence(1, 9, "n9")).expect_err("an old epoch");
        assert_eq!(
            stale.to_string(),
            "fence 1.9.n9 is stale: 2.1.n1 was seen here before, so somebody else holds the lease now"
        );
    }
}
