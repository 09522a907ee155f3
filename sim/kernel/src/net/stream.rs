//! Streams, as TCP has them: ordered, bounded, closed by either side, reset by a machine that does not know them.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;

use super::{Delivery, Segment, StreamId, transit};
use crate::machine::MachineId;
use crate::process::Pid;
use crate::world::{State, TICK};

/// What may be on its way or unread in one direction: socket buffers of both sides, as Linux has them by default.
pub(crate) const BUFFER_BYTES: usize = 1024 * 1024;

/// How the opening of a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Asked,
    Open,
    Refused,
}

/// One end of a stream.
pub(crate) struct End {
    pub(crate) machine: MachineId,
    /// The process that holds it; `None` once it is closed, or before it is accepted.
    pub(crate) owner: Option<Pid>,
    pub(crate) port: u16,
    pub(crate) received: VecDeque<Bytes>,
    pub(crate) received_bytes: usize,
    /// The other side will send no more.
    pub(crate) eof: bool,
    /// The connection is broken.
    pub(crate) reset: bool,
    /// This side has said that it will send no more.
    pub(crate) fin_sent: bool,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Sent from here, not yet arrived.
    pub(crate) in_flight_bytes: usize,
    /// When the last segment sent from here arrives: the next one is not sooner.
    last_arrival: Duration,
    /// Waits for a cut link.
    stalled: VecDeque<Segment>,
}

/// A stream: end 0 asked for it.
pub(crate) struct StreamState {
    pub(crate) ends: [End; 2],
    pub(crate) opening: Opening,
}

impl End {
    pub(crate) fn new(machine: MachineId, port: u16, owner: Option<Pid>) -> End {
        End {
            machine,
            owner,
            port,
            received: VecDeque::new(),
            received_bytes: 0,
            eof: false,
            reset: false,
            fin_sent: false,
            reader: None,
            writer: None,
            in_flight_bytes: 0,
            last_arrival: Duration::ZERO,
            stalled: VecDeque::new(),
        }
    }

    fn wake(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.reader.take());
        wakes.extend(self.writer.take());
    }
}

impl StreamState {
    /// The port that was asked for.
    fn service(&self) -> u16 {
        self.ends[1].port
    }

    /// How much may still be sent from `end`.
    pub(crate) fn room(&self, end: usize) -> usize {
        BUFFER_BYTES.saturating_sub(self.ends[end].in_flight_bytes + self.ends[1 - end].received_bytes)
    }
}

/// Sends a segment from `end` to the other one.
pub(crate) fn send(state: &mut State, id: StreamId, end: usize, segment: Segment) {
    let Some(stream) = state.net.streams.get_mut(&id) else { return };
    let (from, to) = (stream.ends[end].machine, stream.ends[1 - end].machine);
    if let Segment::Data(data) = &segment {
        stream.ends[end].in_flight_bytes += data.len();
    }
    let cut = state.net.links.is_port_cut(from, to, stream.service());
    if cut || !stream.ends[end].stalled.is_empty() {
        stream.ends[end].stalled.push_back(segment);
        return;
    }
    dispatch(state, id, end, segment, Duration::ZERO);
}

fn dispatch(state: &mut State, id: StreamId, end: usize, segment: Segment, more: Duration) {
    let Some(stream) = state.net.streams.get(&id) else { return };
    let (from, to) = (stream.ends[end].machine, stream.ends[1 - end].machine);
    let arrival = state.now + (transit(state, from, to) + more).max(TICK);
    let Some(stream) = state.net.streams.get_mut(&id) else { return };
    let arrival = arrival.max(stream.ends[end].last_arrival);
    stream.ends[end].last_arrival = arrival;
    state.at(arrival, Delivery::Segment { stream: id, from: end, segment });
}

/// A segment sent from `from` reaches the other end.
pub(crate) fn arrive(state: &mut State, id: StreamId, from: usize, segment: Segment) {
    let Some(stream) = state.net.streams.get_mut(&id) else { return };
    let (source, target) = (stream.ends[from].machine, stream.ends[1 - from].machine);
    // Cut while it was on its way: lost, and sent again once the link is mended.
    let cut = state.net.links.is_port_cut(source, target, stream.service());
    if cut || !stream.ends[from].stalled.is_empty() {
        stream.ends[from].stalled.push_back(segment);
        return;
    }
    if !state.machines[target.0].powered {
        return;
    }
    if let Segment::Data(data) = &segment {
        stream.ends[from].in_flight_bytes -= data.len();
    }
    let wakes = &mut state.wakes;
    let there = &mut stream.ends[1 - from];
    match segment {
        Segment::Syn { port } => return syn(state, id, target, port),
        Segment::SynAck | Segment::Refused => {
            let open = matches!(segment, Segment::SynAck);
            stream.opening = if open { Opening::Open } else { Opening::Refused };
            stream.ends[1 - from].wake(wakes);
        }
        Segment::Data(data) if there.owner.is_some() && !there.reset => {
            there.received_bytes += data.len();
            there.received.push_back(data);
            there.wake(wakes);
        }
        Segment::Fin if there.owner.is_some() => {
            there.eof = true;
            there.wake(wakes);
        }
        Segment::Reset => {
            there.reset = true;
            there.wake(wakes);
            stream.ends[from].wake(wakes);
        }
        // Nobody is there any more: a machine answers so.
        Segment::Data(_) | Segment::Fin => {
            if stream.ends[from].owner.is_some() {
                send(state, id, 1 - from, Segment::Reset);
            }
        }
    }
    forget(state, id);
}

fn syn(state: &mut State, id: StreamId, machine: MachineId, port: u16) {
    let answer = match state.net.listeners.get_mut(&(machine, port)) {
        Some(listener) => {
            listener.queue.push_back(id);
            state.wakes.extend(listener.waker.take());
            let owner = listener.owner;
            if let Some(stream) = state.net.streams.get_mut(&id) {
                stream.ends[1].owner = Some(owner);
            }
            Segment::SynAck
        }
        None => Segment::Refused,
    };
    send(state, id, 1, answer);
}

/// A process lets go of its end, or its machine's kernel does for it. `silent`: the machine has lost power.
pub(crate) fn close(state: &mut State, id: StreamId, end: usize, silent: bool) {
    let Some(stream) = state.net.streams.get_mut(&id) else { return };
    let here = &mut stream.ends[end];
    if here.owner.take().is_none() {
        return;
    }
    here.wake(&mut state.wakes);
    let unread = here.received_bytes > 0;
    here.received.clear();
    here.received_bytes = 0;
    if silent {
        here.stalled.clear();
        here.fin_sent = true;
    } else if !here.reset && (unread || !here.fin_sent) {
        here.fin_sent = true;
        send(state, id, end, if unread { Segment::Reset } else { Segment::Fin });
    }
    forget(state, id);
}

/// A stream that nobody holds is forgotten; what is still on its way for it then arrives nowhere.
fn forget(state: &mut State, id: StreamId) {
    let Some(stream) = state.net.streams.get(&id) else { return };
    let held = |end: &End| end.owner.is_some() || !end.stalled.is_empty() || end.last_arrival > state.now;
    if !stream.ends.iter().any(held)
        && let Some(stream) = state.net.streams.remove(&id)
    {
        for mut end in stream.ends {
            end.wake(&mut state.wakes);
        }
    }
}

/// A link works again: what waited for it is sent again, each stream in its order.
pub(crate) fn retransmit(state: &mut State, from: MachineId, to: MachineId) {
    let links = &state.net.links;
    let waiting: Vec<(StreamId, usize)> = state
        .net
        .streams
        .iter()
        .flat_map(|(id, stream)| (0..2).map(move |end| (*id, end, stream)))
        .filter(|(_, end, stream)| {
            let ends = &stream.ends;
            let waits = !ends[*end].stalled.is_empty() && ends[*end].machine == from && ends[1 - *end].machine == to;
            waits && !links.is_port_cut(from, to, stream.service())
        })
        .map(|(id, end, _)| (id, end))
        .collect();
    for (id, end) in waiting {
        let Some(stream) = state.net.streams.get_mut(&id) else { continue };
        let stalled = std::mem::take(&mut stream.ends[end].stalled);
        // The sender's timer is somewhere in its backing off.
        let more = Duration::from_millis(state.rng.between(1, super::link::RETRANSMIT_TIMEOUT.as_millis() as u64));
        for segment in stalled {
            dispatch(state, id, end, segment, more);
        }
    }
}
