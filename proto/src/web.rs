//! How an HTTP server listens and how a client asks it, through the host seam.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use resilver_host::{Listener, Net, Stream};

struct HostListener(Box<dyn Listener>);

impl axum::serve::Listener for HostListener {
    type Io = Box<dyn Stream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                // Out of file descriptors or a connection that died in the queue: neither may end the server.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves `router` on an already bound listener until `shutdown` resolves.
///
/// # Errors
/// When the server itself fails.
pub async fn serve(
    router: Router,
    listener: Box<dyn Listener>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(HostListener(listener), router).with_graceful_shutdown(shutdown).await
}

/// The longest answer a client takes: a page of the journal is far below it.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Why an HTTP call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there, or the connection broke.
    #[error("{address} does not answer: {source}")]
    Unreachable {
        /// Whom we asked.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// It answered no HTTP.
    #[error("{address} broke off: {reason}")]
    Broken {
        /// Whom we asked.
        address: String,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("{address} did not answer within {} ms", .after.as_millis())]
    TimedOut {
        /// Whom we asked.
        address: String,
        /// How long we waited.
        after: Duration,
    },
}

/// One HTTP request without retries: `GET`, or `POST` of JSON when there is a body. Returns status code and body.
///
/// # Errors
/// When no answer came. A status other than 200 is an answer.
pub async fn call(
    net: &Arc<dyn Net>,
    address: &str,
    path: &str,
    body: Option<Bytes>,
    deadline: Duration,
) -> Result<(u16, Bytes), CallError> {
    let answer = tokio::time::timeout(deadline, call_once(net, address, path, body)).await;
    answer.unwrap_or_else(|_| Err(CallError::TimedOut { address: address.to_owned(), after: deadline }))
}

async fn call_once(
    net: &Arc<dyn Net>,
    address: &str,
    path: &str,
    body: Option<Bytes>,
) -> Result<(u16, Bytes), CallError> {
    let broken = |reason: String| CallError::Broken { address: address.to_owned(), reason };
    let unreachable = |source| CallError::Unreachable { address: address.to_owned(), source };
    let stream = net.connect(address).await.map_err(unreachable)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(error.to_string()))?;
    tokio::spawn(connection);
    let method = if body.is_some() { "POST" } else { "GET" };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, address)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(body.unwrap_or_default()))
        .map_err(|error| broken(error.to_string()))?;
    let answer = sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES);
    let body = body.collect().await.map_err(|error| broken(error.to_string()))?;
    Ok((status, body.to_bytes()))
}
