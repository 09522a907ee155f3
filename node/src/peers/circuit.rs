//! Which peers fail: a circuit breaker per address, first version.
//!
//! Owns: the count of failures in a row and the time of the next probe. Must never: make a call itself, or be asked
//! whether a host is down: an open circuit routes around, it convicts nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open a circuit: one is an accident, two a coincidence.
pub(super) const OPEN_AFTER: u32 = 3;

/// An open circuit lets one call through this often: a peer that is back is used again within two seconds, and a dead
/// one costs one attempt in that time instead of every request.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(2);

/// What a circuit is in, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls go through.
    Closed,
    /// Calls fail at once.
    Open,
    /// The next call is the probe.
    HalfOpen,
}

impl CircuitState {
    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

struct Circuit {
    failures: u32,
    next_probe: Instant,
}

impl Circuit {
    fn state(&self, now: Instant) -> CircuitState {
        match self.failures {
            0..OPEN_AFTER => CircuitState::Closed,
            _ if now >= self.next_probe => CircuitState::HalfOpen,
            _ => CircuitState::Open,
        }
    }
}

/// The circuits of all peers. Cheap to clone. Grows with addresses that failed, which are addresses of members.
#[derive(Clone, Default)]
pub struct Circuits {
    by_address: Arc<Mutex<BTreeMap<String, Circuit>>>,
}

impl Circuits {
    /// May this call be made? `Err` says how long until the next probe. An admitted call must be answered for with
    /// [`Circuits::success`] or [`Circuits::failure`]; one that is dropped instead only delays the next probe.
    pub fn admit(&self, address: &str) -> Result<(), Duration> {
        let now = Instant::now();
        let mut circuits = self.lock();
        let Some(circuit) = circuits.get_mut(address) else { return Ok(()) };
        match circuit.state(now) {
            CircuitState::Closed => Ok(()),
            CircuitState::HalfOpen => {
                circuit.next_probe = now + PROBE_EVERY;
                Ok(())
            }
            CircuitState::Open => Err(circuit.next_probe - now),
        }
    }

    /// The peer answered, whatever it said.
    pub fn success(&self, address: &str) {
        self.lock().remove(address);
    }

    /// The peer could not be reached, or did not answer in time.
    pub fn failure(&self, address: &str) {
        let now = Instant::now();
        let mut circuits = self.lock();
        let circuit = circuits.entry(address.to_owned()).or_insert(Circuit { failures: 0, next_probe: now });
        circuit.failures = circuit.failures.saturating_add(1);
        circuit.next_probe = now + PROBE_EVERY;
        if circuit.failures == OPEN_AFTER {
            tracing::warn!(address, failures = circuit.failures, "peer fails: its circuit is open");
        }
    }

    /// Whether calls are expected to fail.
    pub fn is_open(&self, address: &str) -> bool {
        self.lock().get(address).is_some_and(|circuit| circuit.failures >= OPEN_AFTER)
    }

    /// Every peer that failed lately, with its state.
    pub fn states(&self) -> Vec<(String, CircuitState)> {
        let now = Instant::now();
        self.lock().iter().map(|(address, circuit)| (address.clone(), circuit.state(now))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Circuit>> {
        // Nothing panics while holding it; and its content is a hint, right or wrong.
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn opens_after_three_failures_and_admits_one_probe_every_two_seconds() {
        let circuits = Circuits::default();
        for _ in 0..OPEN_AFTER {
            assert_eq!(circuits.admit("peer"), Ok(()));
            circuits.failure("peer");
        }
        assert!(circuits.is_open("peer"));
        assert_eq!(circuits.admit("peer"), Err(PROBE_EVERY));

        tokio::time::advance(PROBE_EVERY).await;
        assert_eq!(circuits.states(), vec![("peer".to_owned(), CircuitState::HalfOpen)]);
        assert_eq!(circuits.admit("peer"), Ok(()), "the probe");
        assert!(circuits.admit("peer").is_err(), "only one");

        circuits.success("peer");
        assert_eq!(circuits.admit("peer"), Ok(()));
        assert!(!circuits.is_open("peer"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_in_between_starts_the_count_again() {
        let circuits = Circuits::default();
        circuits.failure("peer");
        circuits.failure("peer");
        circuits.success("peer");
        circuits.failure("peer");
        assert!(!circuits.is_open("peer"));
        assert_eq!(circuits.admit("other"), Ok(()));
    }
}
