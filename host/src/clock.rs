//! Wall time. For people, records and timestamps only: decisions use tokio's monotonic time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, as this host's clock sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// The same instant in the standard library's type, for formatting.
    pub fn as_system_time(self) -> std::time::SystemTime {
        std::time::UNIX_EPOCH + std::time::Duration::from_millis(self.0)
    }
}

/// The wall clock of a host. It may jump; nothing may be decided by it.
pub trait Clock: Send + Sync + 'static {
    /// The present wall time.
    fn now(&self) -> WallTime;

    /// How long ago this boot of the host began, by a clock that nobody sets and that counts sleep, too: what links two lives of a
    /// process. Within one life tokio's time decides.
    fn since_boot(&self) -> Duration;
}
