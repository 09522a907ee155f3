//! Randomness that can be replayed: every user forks its own stream by a label, so that adding a user does not shift
//! the numbers of the others.

/// A random stream. Real: seeded from the kernel. Simulated: from the run's seed and the label.
pub type Rng = Box<dyn ::rand::RngCore + Send>;

/// Where random streams come from.
pub trait Rand: Send + Sync + 'static {
    /// A stream of its own for the user `label` (for example `"gateway.version"`).
    fn fork(&self, label: &str) -> Rng;
}
