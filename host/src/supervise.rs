//! Whoever started this process and looks after it: told that it is ready, that it turns, that it stops.

/// A supervisor. Telling it never waits: whoever does so has something else to do.
pub trait Supervisor: Send + Sync + std::fmt::Debug + 'static {
    /// The main loop has turned once more: ready with the first turn, alive with every one. Called from nowhere else: what hangs
    /// must not be vouched for by what does not.
    fn turned(&self);
    /// The process is ending, as it was asked to.
    fn stopping(&self);
}

/// Nobody looks after it.
#[derive(Debug)]
pub struct Nobody;

impl Supervisor for Nobody {
    fn turned(&self) {}
    fn stopping(&self) {}
}
