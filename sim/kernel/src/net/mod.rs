//! The network: streams that behave as TCP does, datagrams that behave as UDP does, and links that can be cut.
//!
//! A cut does not end a stream: what was sent waits and goes on once the link is mended, as retransmission would have it.
//! A killed process's streams are closed by its kernel (FIN or RST); a machine without power says nothing, and answers
//! with RST once it is back. These differences are what recovery code stumbles over.
//!
//! Owns: links, listeners, streams, datagram sockets. Must never: deliver in the step in which something was sent.

mod datagram;
mod link;
mod seat;
mod stream;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::machine::MachineId;
use crate::process::Pid;
use crate::world::State;

pub use self::link::LinkOptions;
pub(crate) use self::link::Links;
pub(crate) use self::stream::{End, StreamState};

/// A stream of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) u64);

/// What travels on a stream.
pub(crate) enum Segment {
    Syn { port: u16 },
    SynAck,
    Refused,
    Data(Bytes),
    Fin,
    Reset,
}

/// Something that arrives somewhere.
pub(crate) enum Delivery {
    /// A segment at the end opposite to `from`.
    Segment { stream: StreamId, from: usize, segment: Segment },
    /// A datagram.
    Datagram { from: (MachineId, u16), to: (MachineId, u16), data: Bytes },
    /// The links are looked at again: what waited for a mended one goes on.
    Retransmit { from: MachineId, to: MachineId },
}

/// A bound, listening port.
pub(crate) struct ListenerState {
    pub(crate) owner: Pid,
    pub(crate) queue: std::collections::VecDeque<StreamId>,
    pub(crate) waker: Option<std::task::Waker>,
}

/// The whole network.
#[derive(Default)]
pub(crate) struct Network {
    pub(crate) links: Links,
    pub(crate) listeners: BTreeMap<(MachineId, u16), ListenerState>,
    pub(crate) streams: BTreeMap<StreamId, StreamState>,
    pub(crate) datagrams: BTreeMap<(MachineId, u16), datagram::DatagramState>,
    next_stream: u64,
    next_port: u16,
}

/// The first port the system gives away.
const FIRST_EPHEMERAL_PORT: u16 = 32_768;

impl Network {
    pub(crate) fn new_stream(&mut self, stream: StreamState) -> StreamId {
        self.next_stream += 1;
        let id = StreamId(self.next_stream);
        self.streams.insert(id, stream);
        id
    }

    /// A port for one who asked for any.
    pub(crate) fn ephemeral(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT).max(FIRST_EPHEMERAL_PORT);
        self.next_port
    }
}

/// Makes a delivery happen.
pub(crate) fn deliver(state: &mut State, delivery: Delivery) {
    match delivery {
        Delivery::Segment { stream, from, segment } => stream::arrive(state, stream, from, segment),
        Delivery::Datagram { from, to, data } => datagram::arrive(state, from, to, data),
        Delivery::Retransmit { from, to } => stream::retransmit(state, from, to),
    }
}

/// The kernel of its machine closes what a process held. `silent`: the machine has no power, and says nothing.
pub(crate) fn process_ended(state: &mut State, pid: Pid, silent: bool) {
    state.net.listeners.retain(|_, listener| listener.owner != pid);
    state.net.datagrams.retain(|_, socket| socket.owner != pid);
    let held: Vec<(StreamId, usize)> = state
        .net
        .streams
        .iter()
        .flat_map(|(id, stream)| (0..2).filter(|end| stream.ends[*end].owner == Some(pid)).map(|end| (*id, end)))
        .collect();
    for (id, end) in held {
        stream::close(state, id, end, silent);
    }
}

/// How long a message takes on the way from `from` to `to`: the link's latency, and for each loss a retransmission.
fn transit(state: &mut State, from: MachineId, to: MachineId) -> Duration {
    let options = state.net.links.options(from, to);
    let latency = state.rng.between(options.latency.0.as_micros() as u64, options.latency.1.as_micros() as u64);
    let mut transit = Duration::from_micros(latency);
    let mut timeout = link::RETRANSMIT_TIMEOUT;
    while state.rng.chance(options.loss_permille) && timeout < link::RETRANSMIT_LIMIT {
        transit += timeout;
        timeout *= 2;
    }
    transit
}
