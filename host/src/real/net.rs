//! TCP and UDP of the kernel.
//!
//! Every stream is told how long to believe in a silent peer. A peer that lost power sends neither FIN nor RST: an idle
//! read without keepalive then never returns, and a write, with keepalive or without, fails only after 16 minutes
//! (keepalive does not run while data is unacknowledged). Hence both a user timeout and keepalive; the deadlines of the
//! single calls are the application's.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use async_trait::async_trait;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, UdpSocket, lookup_host};

use crate::net::{Datagram, Listener, Net, Stream};

/// Unacknowledged data may wait this long before the connection is given up. Above the 3 s of suspicion (suspicion must
/// not kill a stream in flight), below the 15 s of conviction (by then nothing should still be waiting).
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// An idle connection is probed after this long, so that a peer found dead was dead at most about ten seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);

/// Time between two unanswered probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);

/// Unanswered probes until the connection is given up.
const KEEPALIVE_PROBES: u32 = 3;

/// Connections that may wait to be accepted: a whole cluster reconnecting at once.
const LISTEN_BACKLOG: u32 = 1024;

#[derive(Debug)]
pub(super) struct RealNet;

#[async_trait]
impl Net for RealNet {
    async fn bind(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        let mut failure = no_address();
        for addr in lookup_host(addr).await? {
            match listen(addr) {
                Ok(listener) => return Ok(Box::new(RealListener(listener))),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect(&self, addr: &str) -> io::Result<Box<dyn Stream>> {
        let mut failure = no_address();
        for addr in lookup_host(addr).await? {
            match connect(addr).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn bind_datagram(&self, addr: &str) -> io::Result<Box<dyn Datagram>> {
        Ok(Box::new(RealDatagram(UdpSocket::bind(addr).await?)))
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address")
}

fn socket(addr: SocketAddr) -> io::Result<TcpSocket> {
    if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(addr)?;
    // A node that was killed is started again at once, while connections of its predecessor linger in TIME_WAIT. A port
    // that somebody listens on is refused all the same.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(LISTEN_BACKLOG)
}

async fn connect(addr: SocketAddr) -> io::Result<Box<dyn Stream>> {
    let socket = socket(addr)?;
    // Before connecting: the user timeout then bounds the handshake too.
    tune(&socket)?;
    Ok(Box::new(socket.connect(addr).await?))
}

/// No delay for small writes, and a bounded belief in a silent peer.
fn tune(socket: &impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_tcp_user_timeout(socket, u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX))?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    Ok(())
}

struct RealListener(TcpListener);

#[async_trait]
impl Listener for RealListener {
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)> {
        loop {
            match self.0.accept().await {
                Ok((stream, peer)) => {
                    tune(&stream)?;
                    return Ok((Box::new(stream), peer));
                }
                // The peer hung up while it stood in the queue: its error, not the listener's.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct RealDatagram(UdpSocket);

#[async_trait]
impl Datagram for RealDatagram {
    async fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.send_to(data, to).await?;
        Ok(())
    }

    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.recv_from(buf).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
