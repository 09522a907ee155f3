//! When a line of the journal was written, by two clocks: the wall's, for people, and the kernel's own of that boot, which nobody
//! can set. By the second one an agent that starts again knows how long ago something was, whatever was done to the first.
//!
//! Must never: trust wall time where the other one is known.

use serde::{Deserialize, Serialize};

/// The kernel's clock of one boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uptime {
    /// Which boot.
    pub boot: String,
    /// Since it began, milliseconds.
    pub millis: u64,
}

/// A time by both clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct When {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// `None`: not known.
    pub uptime: Option<Uptime>,
}

impl When {
    /// How long before `now` it was, milliseconds. Between two boots wall time is all that there is; a time in the future, of a
    /// clock that was set back, counts as the present, which holds back rather than allows.
    pub fn before(&self, now: &When) -> u64 {
        match (&self.uptime, &now.uptime) {
            (Some(then), Some(now)) if then.boot == now.boot => now.millis.saturating_sub(then.millis),
            _ => now.wall_ms.saturating_sub(self.wall_ms),
        }
    }
}

impl From<u64> for When {
    fn from(wall_ms: u64) -> Self {
        Self { wall_ms, uptime: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(wall_ms: u64, boot: &str, millis: u64) -> When {
        When { wall_ms, uptime: Some(Uptime { boot: boot.to_owned(), millis }) }
    }

    #[test]
    fn within_a_boot_nobody_sets_the_clock_and_between_boots_the_wall_is_all_there_is() {
        let then = when(1_000_000, "a", 5_000);
        assert_eq!(then.before(&when(90_000_000, "a", 7_000)), 2_000, "set forward by a day");
        assert_eq!(then.before(&when(10, "a", 7_000)), 2_000, "set back");
        assert_eq!(then.before(&when(1_003_000, "b", 100)), 3_000);
        assert_eq!(then.before(&when(10, "b", 100)), 0, "set back over a boot: as if it were now");
        assert_eq!(then.before(&When::from(1_004_000)), 4_000);
        assert_eq!(When::from(1_000).before(&when(1_500, "a", 9_000)), 500);
    }
}
