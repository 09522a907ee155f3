//! Datagrams: lost, reordered, never repeated by the network itself.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use resilver_host::Datagram;

use super::Delivery;
use crate::machine::{MachineId, address};
use crate::process::Pid;
use crate::seat::Seat;
use crate::world::State;

/// Datagrams a socket keeps for a reader that is late; more are dropped, as a kernel does.
const MAX_QUEUED: usize = 256;

/// A bound socket.
pub(crate) struct DatagramState {
    pub(crate) owner: Pid,
    queue: VecDeque<(SocketAddr, Bytes)>,
    waker: Option<Waker>,
}

impl DatagramState {
    pub(crate) fn new(owner: Pid) -> DatagramState {
        DatagramState { owner, queue: VecDeque::new(), waker: None }
    }
}

/// A datagram reaches its machine.
pub(crate) fn arrive(state: &mut State, from: (MachineId, u16), to: (MachineId, u16), data: Bytes) {
    if state.net.links.is_cut(from.0, to.0) || !state.machines[to.0.0].powered {
        return;
    }
    let Some(socket) = state.net.datagrams.get_mut(&to) else { return };
    if socket.queue.len() < MAX_QUEUED {
        socket.queue.push_back((SocketAddr::new(address(from.0), from.1), data));
        state.wakes.extend(socket.waker.take());
    }
}

pub(crate) struct Socket {
    pub(crate) seat: Seat,
    pub(crate) port: u16,
}

#[async_trait]
impl Datagram for Socket {
    async fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        let from = (self.seat.machine, self.port);
        self.seat
            .act_or_hang(|state| {
                let Some(target) = (0..state.machines.len()).map(MachineId).find(|id| address(*id) == to.ip()) else {
                    return;
                };
                let lost = state.net.links.options(from.0, target).loss_permille;
                if state.net.links.is_cut(from.0, target) || state.rng.chance(lost) {
                    return;
                }
                let (low, high) = state.net.links.options(from.0, target).latency;
                let transit = state.rng.between(low.as_micros() as u64, high.as_micros() as u64);
                let data = Bytes::copy_from_slice(data);
                let delivery = Delivery::Datagram { from, to: (target, to.port()), data };
                state.after(std::time::Duration::from_micros(transit), delivery);
            })
            .await;
        Ok(())
    }

    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let key = (self.seat.machine, self.port);
        let (sender, data) = std::future::poll_fn(|cx| {
            let got = self.seat.act(|state| {
                let socket = state.net.datagrams.get_mut(&key)?;
                let got = socket.queue.pop_front();
                if got.is_none() {
                    State::park(&mut state.wakes, &mut socket.waker, cx);
                }
                got
            });
            got.flatten().map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let len = data.len().min(buf.len());
        buf[..len].copy_from_slice(&data[..len]);
        Ok((len, sender))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(address(self.seat.machine), self.port))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let key = (self.seat.machine, self.port);
        let own = self.seat.pid;
        self.seat.world.with(|state| {
            if state.net.datagrams.get(&key).is_some_and(|socket| socket.owner == own) {
                let gone = state.net.datagrams.remove(&key);
                state.wakes.extend(gone.and_then(|socket| socket.waker));
            }
        });
    }
}
