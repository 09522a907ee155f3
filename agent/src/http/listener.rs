//! The HTTP server's way of listening through the host seam.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use resilver_host::{Listener, Stream};

/// The pause after a connection that could not be accepted: out of file descriptors, most likely, and a busy loop would
/// not bring them back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A bound listener in axum's terms.
pub(super) struct SeamListener(pub(super) Box<dyn Listener>);

impl axum::serve::Listener for SeamListener {
    type Io = Box<dyn Stream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => tracing::warn!(%error, "an HTTP connection could not be accepted"),
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
