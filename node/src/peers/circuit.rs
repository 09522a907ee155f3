//! Which ways fail: a circuit breaker per peer and profile.
//!
//! Owns: the count of failures in a row and the time of the next probe. Must never: make a call itself, or be asked
//! whether a host is down: an open circuit routes around, it convicts nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilver_proto::transport::Profile;
use tokio::time::Instant;

use crate::deadlines::Defences;
use crate::failures::Failures;

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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

#[derive(Clone, Copy)]
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

type Key = (String, Profile);

/// The circuits of all peers. Cheap to clone. Grows with addresses that failed, which are addresses of members.
#[derive(Clone, Default)]
pub(super) struct Circuits {
    ways: Arc<Mutex<Ways>>,
    defences: Defences,
    /// Where it is told that one opened.
    failures: Failures,
}

#[derive(Default)]
struct Ways {
    circuits: BTreeMap<Key, Circuit>,
    /// When a peer was last found to be there.
    present: BTreeMap<String, Instant>,
}

impl Circuits {
    /// All closed, for ever when there are no defences.
    pub(super) fn new(defences: Defences, failures: Failures) -> Self {
        Self { ways: Arc::default(), defences, failures }
    }

    /// May this call be made? A way is judged by itself: that a peer is silent on the one makes it the last to be turned to
    /// on the other, but whoever has nobody else to turn to may try.
    pub(super) fn admit(&self, address: &str, profile: Profile, now: Instant) -> Result<(), Duration> {
        let circuits = &mut self.lock().circuits;
        let Some(circuit) = circuits.get_mut(&key(address, profile)) else { return Ok(()) };
        match circuit.state(now) {
            CircuitState::Closed => Ok(()),
            CircuitState::HalfOpen => {
                circuit.next_probe = now + PROBE_EVERY;
                Ok(())
            }
            CircuitState::Open => Err(circuit.next_probe - now),
        }
    }

    /// Whether the peer is silent: its presence ended and has not begun again.
    pub(super) fn is_silent(&self, address: &str) -> bool {
        let circuits = &self.lock().circuits;
        circuits.get(&key(address, Profile::Control)).is_some_and(|circuit| circuit.failures >= OPEN_AFTER)
    }

    pub(super) fn success(&self, address: &str, profile: Profile) {
        self.lock().circuits.remove(&key(address, profile));
    }

    /// A call that began then failed.
    pub(super) fn failure(&self, address: &str, profile: Profile, began: Instant, now: Instant) {
        if self.lock().present.get(address).is_none_or(|present| began >= *present) {
            self.fail(address, profile, 1, now);
        }
    }

    /// The peer's presence ended: its keepalive went unanswered, or its process did. That is more than a call that failed.
    pub(super) fn silent(&self, address: &str, now: Instant) {
        self.fail(address, Profile::Control, OPEN_AFTER, now);
    }

    /// The peer is there. What failed in bulk may be tried again at once.
    pub(super) fn present(&self, address: &str, now: Instant) {
        let Ways { circuits, present } = &mut *self.lock();
        present.insert(address.to_owned(), now);
        circuits.remove(&key(address, Profile::Control));
        if let Some(bulk) = circuits.get_mut(&key(address, Profile::Bulk)) {
            bulk.next_probe = now;
        }
    }

    /// Whether calls are expected to fail. Not while a probe is due in bulk: a peer that nobody turns to would never be
    /// found well again. Control has a watch that probes it.
    pub(super) fn is_open(&self, address: &str, now: Instant) -> bool {
        let circuits = &self.lock().circuits;
        let is = |profile, state: &dyn Fn(&Circuit) -> bool| circuits.get(&key(address, profile)).is_some_and(state);
        is(Profile::Control, &|circuit| circuit.failures >= OPEN_AFTER)
            || is(Profile::Bulk, &|circuit| circuit.state(now) == CircuitState::Open)
    }

    pub(super) fn state(&self, address: &str, profile: Profile, now: Instant) -> CircuitState {
        let circuits = &self.lock().circuits;
        let own = circuits.get(&key(address, profile)).map_or(CircuitState::Closed, |circuit| circuit.state(now));
        // Whoever is silent is not turned to in bulk either, if that can be helped.
        match circuits.get(&key(address, Profile::Control)) {
            Some(control) if control.failures >= OPEN_AFTER => CircuitState::Open,
            _ => own,
        }
    }

    fn fail(&self, address: &str, profile: Profile, times: u32, now: Instant) {
        if self.defences == Defences::Off {
            return;
        }
        let Ways { circuits, present } = &mut *self.lock();
        let circuit = circuits.entry(key(address, profile)).or_insert(Circuit { failures: 0, next_probe: now });
        let before = circuit.failures;
        circuit.failures = before.saturating_add(times);
        circuit.next_probe = now + PROBE_EVERY;
        if before < OPEN_AFTER && circuit.failures >= OPEN_AFTER {
            tracing::warn!(address, profile = profile.as_str(), "peer fails: its circuit is open");
            // Once per peer: the other way is as closed to it, or was already.
            let other = |way: &Profile| {
                *way != profile
                    && circuits.get(&key(address, *way)).is_some_and(|circuit| circuit.failures >= OPEN_AFTER)
            };
            if !Profile::ALL.iter().any(other) {
                let open = circuits.iter().filter(|(_, circuit)| circuit.failures >= OPEN_AFTER);
                let unreachable = open.map(|((peer, _), _)| peer).collect::<BTreeSet<_>>().len();
                // Of two, either may be the one that is cut off.
                let cut_off = present.len() >= 2 && unreachable * 2 > present.len();
                self.failures.peer_unreachable(address, cut_off);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ways> {
        // Nothing panics while holding it; and its content is a hint, right or wrong.
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(address: &str, profile: Profile) -> Key {
    (address.to_owned(), profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BULK: Profile = Profile::Bulk;

    #[test]
    fn opens_after_three_failures_and_admits_one_probe_every_two_seconds() {
        let (circuits, mut now) = (Circuits::default(), Instant::now());
        for _ in 0..OPEN_AFTER {
            assert_eq!(circuits.admit("peer", BULK, now), Ok(()));
            circuits.failure("peer", BULK, now, now);
        }
        assert!(circuits.is_open("peer", now));
        assert_eq!(circuits.admit("peer", BULK, now), Err(PROBE_EVERY));

        now += PROBE_EVERY;
        assert_eq!(circuits.state("peer", BULK, now), CircuitState::HalfOpen);
        assert!(!circuits.is_open("peer", now), "somebody has to try");
        assert_eq!(circuits.admit("peer", BULK, now), Ok(()), "the probe");
        assert!(circuits.admit("peer", BULK, now).is_err(), "only one");

        circuits.success("peer", BULK);
        assert_eq!(circuits.admit("peer", BULK, now), Ok(()));
        assert!(!circuits.is_open("peer", now));
    }

    #[test]
    fn a_success_in_between_starts_the_count_again() {
        let (circuits, now) = (Circuits::default(), Instant::now());
        circuits.failure("peer", BULK, now, now);
        circuits.failure("peer", BULK, now, now);
        circuits.success("peer", BULK);
        circuits.failure("peer", BULK, now, now);
        assert!(!circuits.is_open("peer", now));
        assert_eq!(circuits.admit("other", BULK, now), Ok(()));
    }

    #[test]
    fn a_circuit_that_opens_is_told_once_per_peer_and_again_when_the_peer_was_back() {
        let failures = Failures::default();
        let (circuits, now) = (Circuits::new(Defences::On, failures.clone()), Instant::now());
        let told = || failures.counts()[0].1;
        circuits.failure("peer", BULK, now, now);
        circuits.failure("peer", BULK, now, now);
        assert_eq!(told(), 0, "a coincidence");
        circuits.silent("peer", now);
        for _ in 0..10 {
            circuits.failure("peer", BULK, now, now);
            circuits.failure("peer", Profile::Control, now, now);
        }
        assert_eq!(told(), 1);
        circuits.present("peer", now);
        circuits.success("peer", BULK);
        circuits.silent("peer", now);
        circuits.silent("other", now);
        assert_eq!(told(), 3);
    }

    #[test]
    fn a_node_that_loses_most_of_its_peers_may_be_the_one_that_is_cut_off() {
        let failures = Failures::default();
        let (circuits, now) = (Circuits::new(Defences::On, failures.clone()), Instant::now());
        let peers = ["a", "b", "c"];
        peers.iter().for_each(|peer| circuits.present(peer, now));
        peers.iter().for_each(|peer| circuits.silent(peer, now));
        let told = failures.told(None, &"own".into(), |_| false);
        let here: Vec<bool> = told.iter().map(|event| event.places.iter().any(|place| place.node == "own")).collect();
        assert_eq!(here, [false, true, true], "one of three is that one's fault");
    }

    #[test]
    fn the_profiles_fail_apart_and_a_silent_peer_is_the_last_to_be_turned_to() {
        let (circuits, now) = (Circuits::default(), Instant::now());
        for _ in 0..OPEN_AFTER {
            circuits.failure("slow", BULK, now, now);
        }
        assert_eq!(circuits.admit("slow", Profile::Control, now), Ok(()), "it still votes");
        circuits.silent("gone", now);
        assert!(circuits.is_silent("gone") && circuits.is_open("gone", now) && !circuits.is_silent("slow"));
        assert_eq!(circuits.admit("gone", BULK, now), Ok(()), "by whoever has nobody else");
        assert_eq!(circuits.state("gone", BULK, now), CircuitState::Open);
    }

    #[test]
    fn a_peer_that_is_back_is_tried_at_once() {
        let (circuits, now) = (Circuits::default(), Instant::now());
        for _ in 0..OPEN_AFTER {
            circuits.failure("peer", BULK, now, now);
        }
        circuits.silent("peer", now);
        circuits.present("peer", now);
        assert_eq!(circuits.admit("peer", BULK, now), Ok(()), "the probe");
        assert!(circuits.admit("peer", BULK, now).is_err(), "until it is answered");
    }

    /// `bench power-loss`: what was under way when a peer lost its power broke ten seconds later, opened the circuit of the
    /// peer that was long back, and the next peer that died was one too many for the writes of that moment.
    #[test]
    fn what_began_before_the_peer_came_back_is_not_held_against_it() {
        let (circuits, off) = (Circuits::default(), Instant::now());
        circuits.silent("peer", off);
        let back = off + PROBE_EVERY;
        circuits.present("peer", back);
        for _ in 0..OPEN_AFTER {
            circuits.failure("peer", BULK, off, back + PROBE_EVERY);
        }
        assert_eq!(circuits.state("peer", BULK, back + PROBE_EVERY), CircuitState::Closed);
        for _ in 0..OPEN_AFTER {
            circuits.failure("peer", BULK, back, back + PROBE_EVERY);
        }
        assert_eq!(circuits.state("peer", BULK, back + PROBE_EVERY), CircuitState::Open);
    }
}
