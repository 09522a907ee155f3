//! One client's connection as the door sees it: the bytes between hyper and the socket, and whether a request is at work.
//!
//! Owns: the bounds that must hold before there is a request (how many bytes of header) and after its answer was made
//! (how long a client may take to read it).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::patience::Patience;

/// The most one read takes while no request is at work, so that what is counted as header is at most this much more.
const IDLE_READ_BYTES: usize = 8 * 1024;

/// Request line and headers, as they arrive. S3's own limit is 8 KiB of headers; a key of 1024 bytes is 3 KiB when every
/// byte is escaped, and a presigned URL repeats what headers say. hyper would take several hundred KiB, from anybody.
pub(super) const MAX_HEAD_BYTES: usize = 32 * 1024;

/// What the tasks around one connection know of it.
#[derive(Debug)]
pub(super) struct Connection {
    began: Instant,
    /// What keeps it busy: a request's body, and its answer's.
    busy: AtomicUsize,
    /// Milliseconds after `began` when it was last busy.
    idle_since_ms: AtomicU64,
    /// Bytes read since then.
    head_bytes: AtomicUsize,
    /// Raised to close it.
    pub(super) close: Notify,
}

impl Connection {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            busy: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(0),
            head_bytes: AtomicUsize::new(0),
            close: Notify::new(),
        })
    }

    /// A request is at work until all of what this returns is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }

    /// Since when nobody has asked anything of it; `None`: a request is at work.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.busy.load(Ordering::Acquire) == 0)
            .then(|| self.began + std::time::Duration::from_millis(self.idle_since_ms.load(Ordering::Acquire)))
    }
}

/// Keeps a connection from counting as idle.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Clone for Busy {
    fn clone(&self) -> Self {
        self.0.busy()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let connection = &self.0;
        let now_ms = u64::try_from(connection.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        connection.idle_since_ms.store(now_ms, Ordering::Release);
        connection.head_bytes.store(0, Ordering::Release);
        connection.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A socket that is patient for so long.
pub(super) struct Patient<S> {
    socket: S,
    connection: Arc<Connection>,
    writing: Patience,
}

impl<S> Patient<S> {
    pub(super) fn new(socket: S, connection: Arc<Connection>) -> Self {
        Self { socket, connection, writing: Patience::new() }
    }

    fn judge(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.writing.moved(bytes);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.writing.poll_out(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.connection.busy.load(Ordering::Acquire) > 0 {
            return Pin::new(&mut self.socket).poll_read(cx, buf);
        }
        let head_bytes = self.connection.head_bytes.load(Ordering::Acquire);
        if head_bytes > MAX_HEAD_BYTES {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a request head without end")));
        }
        let mut space = [0; IDLE_READ_BYTES];
        let most = buf.remaining().min(IDLE_READ_BYTES);
        let mut part = ReadBuf::new(&mut space[..most]);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut part))?;
        self.connection.head_bytes.fetch_add(part.filled().len(), Ordering::AcqRel);
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, data);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, data);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
