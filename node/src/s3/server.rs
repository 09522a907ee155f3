//! The door's connections: accepted, counted, bounded, ended.
//!
//! Invariants: one more connection never takes more memory or descriptors than the limit allows; idle connections make
//! room for new ones, so that ten thousand of them keep nobody out; a connection that does nothing ends by itself; a
//! listener that is gone ends the door.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use resilver_host::{Listener, Stream};
use tokio::sync::watch;

use super::Counts;
use super::connection::{Connection, Patient};
use super::front::Front;

/// How long a connection may take for a request's head, and may idle between two. Longer than clients and load balancers
/// keep one unused (60 s is usual), so that it is they who close.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);

/// The most headers of one request: clients send ten to thirty, and user metadata is bounded by its bytes.
const MAX_HEADERS: usize = 200;

/// How much hyper reads and writes at once: a stripe of 4+2 passes without being copied together.
const BUFFER_BYTES: usize = 512 * 1024;

/// A pause after the system refused a connection: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// So often in a row a listener says that it is none before it counts as gone: a second, at the pause above. Running out of
/// something, in contrast, may last and pass.
const GONE_AFTER: u32 = 20;

/// How long requests at work are waited for when the node stops.
const STOP_GRACE: Duration = Duration::from_secs(4);

/// The connections there are.
struct Connections {
    inner: Mutex<(u64, BTreeMap<u64, Arc<Connection>>)>,
    counts: Arc<Counts>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Arc<Connection>>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, connection: Arc<Connection>) -> Listed {
        let mut inner = self.lock();
        inner.0 += 1;
        let number = inner.0;
        inner.1.insert(number, connection);
        self.counts.connections(inner.1.len());
        Listed { number, of: self.clone() }
    }

    fn count(&self) -> usize {
        self.lock().1.len()
    }

    /// Closes the connection that has been idle for longest; whether there was one.
    fn close_idle(&self) -> bool {
        let mut inner = self.lock();
        let oldest = inner.1.iter().filter_map(|(number, one)| Some((one.idle_since()?, *number))).min();
        let Some(connection) = oldest.and_then(|(_, number)| inner.1.remove(&number)) else { return false };
        connection.close.notify_one();
        true
    }
}

/// An entry of the list, until dropped.
struct Listed {
    number: u64,
    of: Arc<Connections>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut inner = self.of.lock();
        inner.1.remove(&self.number);
        self.of.counts.connections(inner.1.len());
    }
}

/// Serves until told to stop, then gives requests at work a moment to end.
///
/// # Errors
/// What the system said of the listener when it is gone for good: nobody can come in any more.
pub(super) async fn run(
    front: Arc<Front>,
    listener: Box<dyn Listener>,
    max_connections: usize,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let connections = Arc::new(Connections { inner: Mutex::default(), counts: front.counts.clone() });
    let stop = stopping.clone();
    let accepting = async {
        let mut gone = 0;
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // The system's word for a socket that does not listen.
                    gone = if error.kind() == ErrorKind::InvalidInput { gone + 1 } else { 0 };
                    if gone >= GONE_AFTER {
                        return error;
                    }
                    tracing::warn!(%error, operation = "s3", "a connection could not be accepted");
                    connections.close_idle();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            gone = 0;
            if connections.count() >= max_connections && !connections.close_idle() {
                // All are at work. The client sees a closed connection and tries another node.
                front.counts.refused();
                continue;
            }
            let connection = Connection::new();
            let listed = connections.add(connection.clone());
            tokio::spawn(serve(front.clone(), stream, connection, listed, stop.clone()));
        }
    };
    tokio::select! {
        error = accepting => return Err(error),
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    let ended = async {
        while connections.count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(STOP_GRACE, ended).await;
    Ok(())
}

async fn serve(
    front: Arc<Front>,
    stream: Box<dyn Stream>,
    connection: Arc<Connection>,
    _listed: Listed,
    mut stopping: watch::Receiver<bool>,
) {
    let service = {
        let connection = connection.clone();
        service_fn(move |request| front.clone().call(connection.clone(), request))
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, connection.clone())), service);
    let mut serving = std::pin::pin!(serving);
    let mut told = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    // Clients break off every day: no line in a log that people read.
                    tracing::debug!(%error, operation = "s3", "a connection ended");
                }
                return;
            }
            () = connection.close.notified() => return,
            _ = stopping.wait_for(|stop| *stop), if !told => {
                told = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}
