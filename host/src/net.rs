//! Streams and datagrams.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connected byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// A bound, listening socket.
#[async_trait]
pub trait Listener: Send + Sync + 'static {
    /// The next connection and its peer's address.
    ///
    /// An error is the listener's (out of descriptors, say), never a single peer's: pause before asking again.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, SocketAddr)>;
    /// The address that was bound (with the port the system chose, when 0 was asked).
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A bound datagram socket.
#[async_trait]
pub trait Datagram: Send + Sync + 'static {
    /// Sends one datagram. Success means handed to the network, not delivered.
    async fn send_to(&self, data: &[u8], to: SocketAddr) -> io::Result<()>;
    /// Receives one datagram into `buf`: its length and sender.
    async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)>;
    /// The address that was bound (with the port the system chose, when 0 was asked).
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The network of a host.
#[async_trait]
pub trait Net: Send + Sync + 'static {
    /// Binds and listens on `addr` (`host:port`).
    async fn bind(&self, addr: &str) -> io::Result<Box<dyn Listener>>;
    /// Connects to `addr` (`host:port`). The caller sets the deadline.
    async fn connect(&self, addr: &str) -> io::Result<Box<dyn Stream>>;
    /// Binds a datagram socket on `addr`.
    async fn bind_datagram(&self, addr: &str) -> io::Result<Box<dyn Datagram>>;
}
