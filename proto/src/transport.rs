//! How a gRPC server listens and how a client connects, through the host seam: the same code on a real network and in
//! the simulator.
//!
//! Owns: connectors, connection settings and the limit of a message. Must never: retry, or decide that a peer is gone.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use resilver_host::{Listener, Net, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::{Connected, Router};
use tonic::transport::{Channel, Endpoint, Server};

/// The largest message either side accepts. Blocks are 64 KiB and pages a few hundred KiB; 8 MiB leaves room for a Raft
/// append of many entries and still bounds what a peer can make us hold.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// How long a connection attempt may take: a local network answers in milliseconds, and a caller has another peer to ask.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Short calls that others wait for. Its keepalive raises suspicion within three seconds of a peer's silence; that it
    /// ends the connection, too, costs calls that are repeated anyway.
    Control,
    /// Streams of data. Its keepalive is tolerant of a saturated peer: to cut off what works is worse than to wait.
    Bulk,
}

impl Profile {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Control, Self::Bulk];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Bulk => "bulk",
        }
    }

    /// HTTP/2 keepalive, also while idle: how long nothing may come before a ping is sent, and how long that may stay
    /// unanswered. A peer that lost power says nothing, and is noticed by this.
    fn keepalive(self) -> (Duration, Duration) {
        match self {
            Self::Control => (Duration::from_secs(1), Duration::from_millis(1500)),
            Self::Bulk => (KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT),
        }
    }
}

/// HTTP/2 keepalive of servers, and of clients in bulk.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);

/// How long a keepalive ping may stay unanswered. A saturated peer answers late: 20 s never cuts a stream that works.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Per-stream and per-connection HTTP/2 windows. 1 MiB keeps a loopback or 10 GbE stream full; larger only costs memory.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// A channel to `address` (`host:port`) that connects on first use and reconnects by itself.
///
/// # Errors
/// When the address is no valid authority.
pub fn channel(net: &Arc<dyn Net>, address: &str, profile: Profile) -> Result<Channel, tonic::transport::Error> {
    let (interval, patience) = profile.keepalive();
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .tcp_nodelay(true);
    Ok(endpoint.connect_with_connector_lazy(Connector { net: net.clone() }))
}

/// A gRPC server with the settings every server of the product has.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
}

/// Serves `router` on an already bound listener until `shutdown` resolves; streams in flight then get to finish.
///
/// # Errors
/// When the server itself fails.
pub async fn serve(
    router: Router,
    listener: Box<dyn Listener>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let listener: Arc<dyn Listener> = Arc::from(listener);
    let incoming = async_stream(listener);
    router.serve_with_incoming_shutdown(incoming, shutdown).await
}

fn async_stream(listener: Arc<dyn Listener>) -> impl tokio_stream::Stream<Item = io::Result<Accepted>> {
    let (tx, rx) = tokio::sync::mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = tx.closed() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    if tx.send(Ok(Accepted(stream))).await.is_err() {
                        return;
                    }
                }
                // Out of file descriptors or a connection that died in the queue: neither may end the server.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(rx)
}

struct Accepted(Box<dyn Stream>);

impl Connected for Accepted {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Clone)]
struct Connector {
    net: Arc<dyn Net>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let net = self.net.clone();
        Box::pin(async move {
            let authority = uri
                .authority()
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "an address without a host"))?;
            Ok(TokioIo::new(net.connect(authority.as_str()).await?))
        })
    }
}
