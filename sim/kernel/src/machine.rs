//! Machines: a name, an address, a file system that outlives processes, power, and a clock of their own.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use resilver_host::WallTime;
use resilver_sim_disk::FileSystem;

use crate::interpose::EPOCH_SECONDS;

/// A machine of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineId(pub usize);

pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) powered: bool,
    /// How often it has booted: names the boot.
    pub(crate) boots: u32,
    pub(crate) files: FileSystem,
    /// By how much its wall clock is wrong, milliseconds.
    pub(crate) clock_offset_ms: i64,
    /// By how much its monotonic clock runs fast, parts per million.
    pub(crate) rate_ppm: i64,
    /// Since when, and what it showed then: a change of the rate bends the clock, it does not move it.
    pub(crate) rate_since: Duration,
    pub(crate) shown_then: Duration,
    /// How much of its memory is left, as it says: nothing that runs here takes any.
    pub(crate) memory_left_permille: u64,
}

/// Half of the memory is left, unless a fault says otherwise.
pub(crate) const MEMORY_LEFT_PERMILLE: u64 = 500;

impl Machine {
    pub(crate) fn new(name: &str, files: FileSystem) -> Machine {
        Machine {
            name: name.to_owned(),
            powered: true,
            boots: 1,
            files,
            clock_offset_ms: 0,
            rate_ppm: 0,
            rate_since: Duration::ZERO,
            shown_then: Duration::ZERO,
            memory_left_permille: MEMORY_LEFT_PERMILLE,
        }
    }

    /// What this machine's monotonic clock shows at the run's time `now`.
    pub(crate) fn monotonic(&self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.rate_since).as_nanos() as i128;
        let shown = passed + passed * i128::from(self.rate_ppm) / 1_000_000;
        self.shown_then + Duration::from_nanos(u64::try_from(shown).unwrap_or(0))
    }

    pub(crate) fn set_rate(&mut self, now: Duration, rate_ppm: i64) {
        self.shown_then = self.monotonic(now);
        self.rate_since = now;
        self.rate_ppm = rate_ppm;
    }

    /// What its wall clock shows.
    pub(crate) fn wall(&self, now: Duration) -> WallTime {
        let shown = EPOCH_SECONDS * 1_000 + self.monotonic(now).as_millis() as u64;
        WallTime(shown.saturating_add_signed(self.clock_offset_ms))
    }

    pub(crate) fn boot_id(&self) -> String {
        format!("{}-boot-{}", self.name, self.boots)
    }
}

/// The address of a machine: for logs only, names are what is connected to.
pub(crate) fn address(id: MachineId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(id.0 + 1).unwrap_or(u8::MAX)))
}
