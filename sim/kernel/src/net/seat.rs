//! The network, as processes see it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use resilver_host::{Datagram, Listener, Net, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::datagram::{DatagramState, Socket};
use super::stream::{self, Opening};
use super::{End, ListenerState, Segment, StreamId, StreamState};
use crate::machine::{MachineId, address};
use crate::process::Pid;
use crate::seat::Seat;
use crate::world::State;

/// The most one segment carries. Larger than on a wire: fewer events for the same bytes.
const MAX_SEGMENT_BYTES: usize = 64 * 1024;

struct Bound {
    seat: Seat,
    port: u16,
}

/// One end of a stream, in the hands of its process.
struct SimStream {
    seat: Seat,
    id: StreamId,
    end: usize,
}

/// `host:port`; a host that is this machine in any of the usual ways, or a machine's name.
fn resolve(state: &State, own: MachineId, address: &str) -> io::Result<(MachineId, u16)> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is no host:port of this run"));
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    let machine = match host {
        "" | "0.0.0.0" | "127.0.0.1" | "localhost" => own,
        name => state.machine_named(name).ok_or_else(bad)?,
    };
    Ok((machine, port))
}

fn taken(address: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, format!("{address} is in use"))
}

#[async_trait]
impl Net for Seat {
    async fn bind(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        self.act_or_hang(|state| {
            let (_, mut port) = resolve(state, self.machine, addr)?;
            if port == 0 {
                port = state.net.ephemeral();
            }
            if state.net.listeners.contains_key(&(self.machine, port)) {
                return Err(taken(addr));
            }
            let listener = ListenerState { owner: self.pid, queue: Default::default(), waker: None };
            state.net.listeners.insert((self.machine, port), listener);
            let bound: Box<dyn Listener> = Box::new(Bound { seat: self.clone(), port });
            Ok(bound)
        })
        .await
    }

    async fn connect(&self, addr: &str) -> io::Result<Box<dyn Stream>> {
        let id = self
            .act_or_hang(|state| {
                let (machine, port) = resolve(state, self.machine, addr)?;
                let own = End::new(self.machine, state.net.ephemeral(), Some(self.pid));
                let ends = [own, End::new(machine, port, None)];
                let id = state.net.new_stream(StreamState { ends, opening: Opening::Asked });
                stream::send(state, id, 0, Segment::Syn { port });
                io::Result::Ok(id)
            })
            .await?;
        // Made before waiting: a caller that gives up drops it, and with it the attempt.
        let opened = SimStream { seat: self.clone(), id, end: 0 };
        std::future::poll_fn(|cx| opened.poll_open(cx)).await?;
        Ok(Box::new(opened))
    }

    async fn bind_datagram(&self, addr: &str) -> io::Result<Box<dyn Datagram>> {
        self.act_or_hang(|state| {
            let (_, mut port) = resolve(state, self.machine, addr)?;
            if port == 0 {
                port = state.net.ephemeral();
            }
            if state.net.datagrams.contains_key(&(self.machine, port)) {
                return Err(taken(addr));
            }
            state.net.datagrams.insert((self.machine, port), DatagramState::new(self.pid));
            let bound: Box<dyn Datagram> = Box::new(Socket { seat: self.clone(), port });
            Ok(bound)
        })
        .await
    }
}

#[async_trait]
impl Listener for Bound {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        let key = (self.seat.machine, self.port);
        std::future::poll_fn(|cx| {
            let accepted = self.seat.act(|state| {
                let listener = state.net.listeners.get_mut(&key)?;
                let id = listener.queue.pop_front();
                if id.is_none() {
                    State::park(&mut state.wakes, &mut listener.waker, cx);
                }
                let id = id?;
                let peer = state.net.streams.get(&id).map(|stream| (stream.ends[0].machine, stream.ends[0].port));
                Some((id, peer))
            });
            let Some((id, peer)) = accepted.flatten() else { return Poll::Pending };
            let (machine, port) = peer.unwrap_or((self.seat.machine, 0));
            let stream: Box<dyn Stream> = Box::new(SimStream { seat: self.seat.clone(), id, end: 1 });
            Poll::Ready(Ok((stream, SocketAddr::new(address(machine), port))))
        })
        .await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(address(self.seat.machine), self.port))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let key = (self.seat.machine, self.port);
        let own: Pid = self.seat.pid;
        self.seat.world.with(|state| {
            if state.net.listeners.get(&key).is_none_or(|listener| listener.owner != own) {
                return;
            }
            let Some(gone) = state.net.listeners.remove(&key) else { return };
            state.wakes.extend(gone.waker);
            for id in gone.queue {
                stream::close(state, id, 1, false);
            }
        });
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by peer")
}

impl SimStream {
    /// Looks at this end, if the process may and the stream is known.
    fn look<T>(&self, work: impl FnOnce(&mut State) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.seat.act(work).unwrap_or(Poll::Pending)
    }

    fn poll_open(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look(|state| {
            let Some(stream) = state.net.streams.get_mut(&self.id) else { return Poll::Ready(Err(broken())) };
            match stream.opening {
                Opening::Open => Poll::Ready(Ok(())),
                Opening::Refused => {
                    Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused")))
                }
                Opening::Asked if stream.ends[0].reset => Poll::Ready(Err(broken())),
                Opening::Asked => {
                    State::park(&mut state.wakes, &mut stream.ends[0].reader, cx);
                    Poll::Pending
                }
            }
        })
    }
}

impl AsyncRead for SimStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.look(|state| {
            let Some(stream) = state.net.streams.get_mut(&self.id) else { return Poll::Ready(Err(broken())) };
            let [first, second] = &mut stream.ends;
            let (end, other) = if self.end == 0 { (first, second) } else { (second, first) };
            if end.received.is_empty() {
                return match (end.reset, end.eof) {
                    (true, _) => Poll::Ready(Err(broken())),
                    (false, true) => Poll::Ready(Ok(())),
                    (false, false) => {
                        State::park(&mut state.wakes, &mut end.reader, cx);
                        Poll::Pending
                    }
                };
            }
            while buf.remaining() > 0
                && let Some(front) = end.received.front_mut()
            {
                let len = front.len().min(buf.remaining());
                buf.put_slice(&front[..len]);
                front.advance(len);
                end.received_bytes -= len;
                if front.is_empty() {
                    end.received.pop_front();
                }
            }
            state.wakes.extend(other.writer.take());
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.look(|state| {
            let Some(stream) = state.net.streams.get_mut(&self.id) else { return Poll::Ready(Err(broken())) };
            let room = stream.room(self.end);
            let end = &mut stream.ends[self.end];
            if end.reset || end.fin_sent {
                return Poll::Ready(Err(broken()));
            }
            if room == 0 {
                State::park(&mut state.wakes, &mut end.writer, cx);
                return Poll::Pending;
            }
            let len = data.len().min(room).min(MAX_SEGMENT_BYTES);
            let segment = Segment::Data(Bytes::copy_from_slice(&data[..len]));
            stream::send(state, self.id, self.end, segment);
            Poll::Ready(Ok(len))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look(|state| {
            if let Some(stream) = state.net.streams.get_mut(&self.id)
                && !stream.ends[self.end].fin_sent
            {
                stream.ends[self.end].fin_sent = true;
                stream::send(state, self.id, self.end, Segment::Fin);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        // A process that is being ended leaves this to its machine, which knows whether it still has power.
        self.seat.act(|state| stream::close(state, self.id, self.end, false));
    }
}
