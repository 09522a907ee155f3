//! The one task that drives the protocol: datagrams and timers in, datagrams and timers out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, PostcardCodec, State, Timer};
use resilver_host::{Datagram, Host};
use resilver_strategies::api::SwimState;
use resilver_strategies::watching::FULL_MATRIX;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::identity::Identity;
use super::randomness::Randomness;
use super::seal::{MAX_DATAGRAM_BYTES, OVERHEAD_BYTES, Seal};
use super::{Opened, SwimView};
use crate::lease::LeaseHandle;
use crate::sensors::stopped;
use crate::telemetry::Telemetry;

/// Members that are asked in one round of joining: a cluster that was switched on is whole within seconds all the same,
/// and a host that stays away costs a datagram every few seconds.
const JOIN_AT_ONCE: usize = 4;

/// The protocol's clock. Detection: never scaled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How often one member is asked whether it is there.
    pub(super) probe: Duration,
    /// How long its answer may take before others are asked to ask.
    pub(super) answer: Duration,
    /// How long a suspect has to say that it is there: a saturated one gets round to it.
    pub(super) refute: Duration,
    /// How often members that are not in are asked to take part.
    pub(super) join: Duration,
}

/// Suspect within a second or two, down after ten more: below the 15 s of a conviction, which this is evidence for.
pub(super) const PACE: Pace = Pace {
    probe: Duration::from_secs(1),
    answer: Duration::from_millis(300),
    refute: Duration::from_secs(10),
    join: Duration::from_secs(5),
};

/// Others that are asked to ask.
const INDIRECT: usize = 3;
/// How often each member passes one piece of news on, at least: reaches every one of a few hundred.
const PASSED_ON: u8 = 10;
/// In a larger one: as often as its members are doubled from one, and this much more. Of those to whom something was passed on
/// ten times, chance leaves out one in twenty thousand.
const PASSED_ON_MORE: u8 = 3;
/// How many times in a [`Pace::probe`] news is passed on by itself, among more than [`FULL_MATRIX`] others: a suspicion has to
/// reach its suspect, and the denial the one who suspects, within [`Pace::refute`]. With questions alone (two datagrams a second)
/// each way takes eight seconds among ten thousand, and one was called down that was there. Nothing is sent without news, and no
/// piece of it more often than it would be: what a host sends does not grow with the cluster.
const PASS_ON_EVERY: u32 = 2;
/// To so many at a time.
const PASS_ON_TO: usize = 3;
/// How long one that is down is remembered: longer than any repair of a host is waited for. It comes back under a new
/// life, so that this keeps nobody out.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

type Protocol = Foca<Identity, PostcardCodec, Randomness, NoCustomBroadcast>;

/// Which cluster this is, asked anew each time: an agent may run before its node has been made part of one.
type Cluster = Arc<dyn Fn() -> String + Send + Sync>;

/// The task.
pub(crate) struct Swim {
    protocol: Protocol,
    runtime: AccumulatingRuntime<Identity>,
    /// What the protocol wants to be reminded of; the number keeps equal times apart, in order.
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    reminders: u64,
    seal: Seal,
    socket: Box<dyn Datagram>,
    peers: BTreeMap<String, SocketAddr>,
    /// Who was asked last to take part.
    joined: usize,
    pace: Pace,
    cluster: Cluster,
    telemetry: Arc<Telemetry>,
    view: Arc<watch::Sender<SwimView>>,
}

impl Swim {
    /// The task of an agent. It gossips as soon as the agent knows its cluster.
    pub(crate) fn new(
        host: &Host,
        opened: Opened,
        lease: LeaseHandle,
        telemetry: Arc<Telemetry>,
        view: Arc<watch::Sender<SwimView>>,
    ) -> Swim {
        Swim::with(host, opened, Arc::new(move || lease.cluster()), telemetry, view, PACE)
    }

    fn with(
        host: &Host,
        opened: Opened,
        cluster: Cluster,
        telemetry: Arc<Telemetry>,
        view: Arc<watch::Sender<SwimView>>,
        pace: Pace,
    ) -> Swim {
        let Opened { own, peers, keys, socket } = opened;
        let randomness = Randomness(host.rand.fork("gossip.protocol"));
        let config = config(pace, peers.len());
        Swim {
            protocol: Foca::new(own, config, randomness, PostcardCodec),
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            reminders: 0,
            seal: Seal::new(keys, host.rand.fork("gossip.nonce")),
            socket,
            peers,
            joined: 0,
            pace,
            cluster,
            telemetry,
            view,
        }
    }

    /// Gossips until told to stop. It does not say farewell: that an agent ends says nothing of its host.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        // One byte more than is ever sent: what fills it is too long.
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES + 1];
        let mut join_at = Instant::now();
        loop {
            let reminder = self.timers.keys().next().map_or(join_at, |(at, _)| *at);
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, from)) => self.receive(&mut buffer[..length], from),
                    Err(error) => {
                        // An ICMP answer to something sent before shows here, too: no reason to stop listening.
                        tracing::debug!(%error, "gossip's socket");
                        tokio::task::yield_now().await;
                    }
                },
                () = sleep_until(reminder.min(join_at)) => {
                    let now = Instant::now();
                    self.remind(now);
                    if now >= join_at {
                        self.join();
                        join_at = now + self.pace.join;
                    }
                }
            }
            self.flush().await;
        }
    }

    fn receive(&mut self, datagram: &mut [u8], from: SocketAddr) {
        let payload = match self.seal.open(&(self.cluster)(), datagram) {
            Ok(payload) => payload,
            Err(refused) => {
                self.telemetry.gossip(refused.as_str());
                tracing::debug!(%from, why = refused.as_str(), "a datagram was dropped");
                return;
            }
        };
        self.telemetry.gossip("in");
        if let Err(error) = self.protocol.handle_data(payload, &mut self.runtime) {
            tracing::debug!(%from, %error, "a datagram says nothing of use");
        }
    }

    fn remind(&mut self, now: Instant) {
        let later = self.timers.split_off(&(now, u64::MAX));
        for timer in std::mem::replace(&mut self.timers, later).into_values() {
            if let Err(error) = self.protocol.handle_timer(timer, &mut self.runtime) {
                // After this process stood still the protocol's rounds are torn; it begins the next one by itself.
                tracing::debug!(%error, "a round of gossip was not completed");
            }
        }
    }

    /// Asks members that are not in to take part, a few at a time, in turns.
    fn join(&mut self) {
        let active: Vec<&str> = self.protocol.iter_members().map(|member| &*member.id().name).collect();
        let absent: Vec<Identity> = self
            .peers
            .iter()
            .filter(|(name, _)| !active.contains(&name.as_str()))
            .map(|(name, address)| Identity { name: name.as_str().into(), address: *address, life: 0 })
            .collect();
        for turn in 0..absent.len().min(JOIN_AT_ONCE) {
            let identity = absent[(self.joined + turn) % absent.len()].clone();
            if let Err(error) = self.protocol.announce(identity, &mut self.runtime) {
                tracing::debug!(%error, "a member cannot be asked to take part");
            }
        }
        self.joined = self.joined.wrapping_add(JOIN_AT_ONCE);
    }

    /// Does what the protocol wants done.
    async fn flush(&mut self) {
        let now = Instant::now();
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.reminders += 1;
            self.timers.insert((now + after, self.reminders), timer);
        }
        while let Some(news) = self.runtime.to_notify() {
            tracing::debug!(?news, "gossip");
        }
        let cluster = (self.cluster)();
        while let Some((to, payload)) = self.runtime.to_send() {
            // Before the cluster is known nobody is spoken to; an address that only a datagram names is never used.
            let address = self.peers.get(&*to.name).filter(|_| !cluster.is_empty());
            let Some((address, datagram)) = address.zip(self.seal.seal(&cluster, &payload)) else { continue };
            match self.socket.send_to(&datagram, *address).await {
                Ok(()) => self.telemetry.gossip("out"),
                Err(error) => tracing::debug!(to = &*to.name, %error, "a datagram could not be sent"),
            }
        }
        self.show();
    }

    fn show(&self) {
        let known = || {
            let members = self.protocol.iter_membership_state();
            members.filter(|member| self.peers.contains_key(&*member.id().name))
        };
        self.view.send_if_modified(|held| {
            // Looked at with every datagram, and changed by few: nothing is copied before something is new.
            let news = known().any(|member| held.get(&*member.id().name) != Some(&state(member.state())));
            if !news && known().count() == held.len() {
                return false;
            }
            *held = known().map(|member| (member.id().name.to_string(), state(member.state()))).collect();
            self.telemetry.gossip_members(held);
            true
        });
    }
}

fn state(state: State) -> SwimState {
    match state {
        State::Alive => SwimState::Alive,
        State::Suspect => SwimState::Suspect,
        State::Down => SwimState::Down,
    }
}

/// The protocol's figures among so many others.
pub(super) fn config(pace: Pace, others: usize) -> foca::Config {
    let doubled = u8::try_from(others.max(1).ilog2()).unwrap_or(u8::MAX);
    let passed_on = doubled.saturating_add(PASSED_ON_MORE).max(PASSED_ON);
    let to = NonZeroUsize::new(PASS_ON_TO).expect("not zero");
    foca::Config {
        probe_period: pace.probe,
        probe_rtt: pace.answer,
        num_indirect_probes: NonZeroUsize::new(INDIRECT).expect("not zero"),
        max_transmissions: NonZeroU8::new(passed_on).expect("not zero"),
        suspect_to_down_after: pace.refute,
        remove_down_after: Some(REMEMBERED),
        max_packet_size: NonZeroUsize::new(MAX_DATAGRAM_BYTES - OVERHEAD_BYTES).expect("not zero"),
        notify_down_members: true,
        periodic_gossip: (others > FULL_MATRIX)
            .then_some(foca::PeriodicParams { frequency: pace.probe / PASS_ON_EVERY, num_members: to }),
        ..foca::Config::simple()
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
