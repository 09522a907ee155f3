//! This agent's monotonic time: what every decision of the core is made by.

use std::time::Duration;

use resilver_host::Host;
use resilver_strategies::types::{Moment, Now};
use tokio::time::Instant;

/// Counts from the agent's start.
#[derive(Clone, Debug)]
pub(crate) struct Timebase {
    host: Host,
    start: Instant,
}

impl Timebase {
    /// Zero is now.
    pub(crate) fn new(host: &Host) -> Timebase {
        Timebase { host: host.clone(), start: Instant::now() }
    }

    /// Monotonic, for decisions.
    pub(crate) fn mono(&self) -> Moment {
        Moment(self.start.elapsed())
    }

    /// Both clocks, as an input carries them.
    pub(crate) fn now(&self) -> Now {
        Now { mono: self.mono(), wall_ms: self.wall_ms() }
    }

    /// Wall time, for records and people.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.host.clock.now().as_millis()
    }

    /// How long the agent has run.
    pub(crate) fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
