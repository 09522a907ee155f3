//! This agent's monotonic time: what every decision of the core is made by.

use std::time::Duration;

use resilver_host::Host;
use resilver_strategies::types::{Moment, Now};
use resilver_strategies::when::{Uptime, When};
use tokio::time::Instant;

/// Counts from the agent's start.
#[derive(Clone, Debug)]
pub(crate) struct Timebase {
    host: Host,
    start: Instant,
    /// This boot's name. `None`: the kernel does not say.
    boot: Option<String>,
}

impl Timebase {
    /// Zero is now.
    pub(crate) fn new(host: &Host) -> Timebase {
        let boot = host.proc.boot_id().ok().map(|id| id.0);
        Timebase { host: host.clone(), start: Instant::now(), boot }
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

    /// The time of a record: how long ago it was, the next life of this agent has to know.
    pub(crate) fn when(&self) -> When {
        let millis = u64::try_from(self.host.clock.since_boot().as_millis()).unwrap_or(u64::MAX);
        let uptime = self.boot.clone().map(|boot| Uptime { boot, millis });
        When { wall_ms: self.wall_ms(), uptime }
    }

    /// How long the agent has run.
    pub(crate) fn uptime(&self) -> Duration {
        self.start.elapsed()
    }
}
