//! The ways to other nodes: the one place where a node's internal calls get their channels, and the memory of which
//! ways fail.
//!
//! Owns: the channels, two for each address ([`Profile`]); a circuit for each ([`Circuits`]); the presence of every peer
//! ([`watch_all`]), which makes a peer *suspect* within three seconds of its silence.
//! Must never: retry a call; end a bulk stream because its peer is suspect (a saturated peer is silent, too, and what it
//! was sending would be cut off); take suspicion for conviction: a suspect is routed around, and nobody is told it is dead.
//!
//! Invariants:
//! - A channel that let a call time out is dropped by whoever noticed and dialled afresh by the next caller: its
//!   connection may be to a peer that lost power and will never answer on it again.
//! - A timeout while this process itself stood still ([`Pulse`]) is held against nobody, channels included; and what began
//!   before a peer was last found to be there is not held against it.
//! - Suspicion ranks: a suspect is turned to last. It refuses only new writes, which have somewhere else to go.

mod circuit;
mod presence;
mod pulse;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use resilver_host::Net;
pub use resilver_proto::transport::Profile;
use tokio::time::Instant;
use tonic::transport::Channel;

pub use circuit::CircuitState;
use circuit::Circuits;
pub(crate) use presence::PresenceService;
use pulse::Pulse;
pub(crate) use watch::{watch_all, who_is_there};

use crate::deadlines::{Deadlines, Defences};
use crate::failures::Failures;

/// An address that cannot be dialled.
#[derive(Debug, thiserror::Error)]
#[error("{address} is no address: host:port expected")]
pub struct BadAddress {
    /// As it was given.
    pub address: String,
}

/// The ways of a node. Cheap to clone.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    net: Arc<dyn Net>,
    channels: Mutex<BTreeMap<(String, Profile), Channel>>,
    circuits: Circuits,
    pulse: Pulse,
    deadlines: Deadlines,
    defences: Defences,
    failures: Failures,
}

impl Peers {
    /// No channel yet, everything as it is by default.
    pub fn new(net: Arc<dyn Net>) -> Self {
        Self::with(net, Deadlines::default(), Defences::default())
    }

    /// No channel yet. With defences switched off no circuit ever opens.
    pub fn with(net: Arc<dyn Net>, deadlines: Deadlines, defences: Defences) -> Self {
        let (channels, failures, pulse) = (Mutex::default(), Failures::default(), Pulse::default());
        let circuits = Circuits::new(defences, failures.clone());
        Self { inner: Arc::new(Inner { net, channels, circuits, pulse, failures, deadlines, defences }) }
    }

    /// How long a peer may take for what.
    pub fn deadlines(&self) -> &Deadlines {
        &self.inner.deadlines
    }

    /// Whether clients are defended against peers that do not answer.
    pub fn defended(&self) -> bool {
        self.inner.defences == Defences::On
    }

    /// The channel to `address`, which connects on first use.
    ///
    /// # Errors
    /// When the address is none.
    pub fn channel(&self, address: &str, profile: Profile) -> Result<Channel, BadAddress> {
        let mut channels = self.channels();
        let key = (address.to_owned(), profile);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let channel = resilver_proto::transport::channel(&self.inner.net, address, profile)
            .map_err(|_| BadAddress { address: address.to_owned() })?;
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    /// Forgets the channel to `address`: calls in flight on it end as they may, the next caller dials.
    pub fn drop_channel(&self, address: &str, profile: Profile) {
        self.channels().remove(&(address.to_owned(), profile));
    }

    /// Forgets all control channels: whoever calls next dials. Bulk streams in flight, and calls on the old channels, go on to
    /// their ends. How many there were.
    pub fn redial(&self) -> usize {
        let mut channels = self.channels();
        let before = channels.len();
        channels.retain(|(_, profile), _| *profile != Profile::Control);
        before - channels.len()
    }

    /// May this call be made? `Err` says how long until it may be tried. An admitted call must be answered for with
    /// [`Peers::answered`], [`Peers::failed`] or [`Peers::timed_out`]; one that is dropped instead only delays the next
    /// probe.
    ///
    /// # Errors
    /// While the circuit of this way is open.
    pub fn admit(&self, address: &str, profile: Profile) -> Result<(), Duration> {
        self.inner.circuits.admit(address, profile, Instant::now())
    }

    /// The peer answered, whatever it said.
    pub fn answered(&self, address: &str, profile: Profile) {
        self.inner.circuits.success(address, profile);
    }

    /// A call that began then could not reach the peer, or broke. One that began before the peer was last away and came
    /// back says nothing of the peer as it is now: what was sent to a host that lost its power breaks ten seconds later.
    pub fn failed(&self, address: &str, profile: Profile, began: Instant) {
        self.inner.circuits.failure(address, profile, began, Instant::now());
    }

    /// A call that began then was not answered in time. Its channel is not used for new calls: what hangs may hang for
    /// ever. Streams that work on it go on.
    pub fn timed_out(&self, address: &str, profile: Profile, began: Instant) {
        let now = Instant::now();
        if self.inner.pulse.stood_still(now) {
            tracing::debug!(address, "a call timed out while this process stood still: not the peer's failure");
            return;
        }
        self.inner.circuits.failure(address, profile, began, now);
        self.drop_channel(address, profile);
    }

    /// Whether calls to the peer are expected to fail: it is suspect, or its circuit is open.
    pub fn is_suspect(&self, address: &str) -> bool {
        self.inner.circuits.is_open(address, Instant::now())
    }

    /// Whether the peer is silent now: nothing is begun with it that somebody else can do.
    pub fn is_silent(&self, address: &str) -> bool {
        self.inner.circuits.is_silent(address)
    }

    /// The node's record of failures. Whoever has something to tell there has these ways, too.
    pub fn failures(&self) -> &Failures {
        &self.inner.failures
    }

    /// The state of the circuit to a peer.
    pub fn circuit(&self, address: &str, profile: Profile) -> CircuitState {
        self.inner.circuits.state(address, profile, Instant::now())
    }

    fn channels(&self) -> MutexGuard<'_, BTreeMap<(String, Profile), Channel>> {
        self.inner.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peers")
    }
}
