//! Spreads retries: nodes that failed together must not be tried again together.
//!
//! Must never: draw. The same incident's same attempt always waits equally long, or a replay would decide otherwise than
//! the agent did.

use std::time::Duration;

use crate::api::IncidentId;

/// The most that is added to a wait, as a part of it: a quarter spreads the nodes of a rack and delays none noticeably.
const SPREAD_DIVISOR: u32 = 4;

/// The wait with its share of the spread: never shorter, because a cool-down is a promise.
pub(super) fn spread(wait: Duration, incident: &IncidentId, attempt: u32) -> Duration {
    let share = f64::from(mix(incident, attempt)) / f64::from(u32::MAX);
    wait + (wait / SPREAD_DIVISOR).mul_f64(share)
}

/// A number that looks random for each incident and attempt: FNV-1a over both, and the last round of splitmix64, for
/// names that differ in their last letter only.
fn mix(incident: &IncidentId, attempt: u32) -> u32 {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    let hash = incident.0.bytes().chain(attempt.to_le_bytes()).fold(0xCBF2_9CE4_8422_2325, fold);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    #[test]
    fn equal_input_waits_equally_long_and_never_shorter_than_asked() {
        for attempt in 0..8 {
            let incident = IncidentId(format!("n1-{attempt}"));
            let wait = spread(WAIT, &incident, attempt);
            assert_eq!(wait, spread(WAIT, &incident, attempt));
            assert!((WAIT..=WAIT + WAIT / SPREAD_DIVISOR).contains(&wait), "{wait:?}");
        }
        assert_eq!(spread(Duration::ZERO, &IncidentId("n1-1".to_owned()), 0), Duration::ZERO, "at once stays at once");
    }

    #[test]
    fn nodes_that_failed_together_are_tried_again_apart() {
        // In steps of a second: 60 to 75.
        let waits: BTreeSet<u64> =
            (1..=100).map(|node| spread(WAIT, &IncidentId(format!("n{node}-1")), 1).as_secs()).collect();
        assert!(waits.len() >= 14, "{waits:?}");
    }
}
