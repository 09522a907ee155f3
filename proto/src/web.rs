//! How an HTTP server listens, through the host seam.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use resilver_host::{Listener, Stream};

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
