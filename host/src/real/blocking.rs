//! Work that blocks, on tokio's blocking pool.

use std::io;

use crate::Blocking;

#[derive(Debug)]
pub(super) struct RealBlocking;

#[async_trait::async_trait]
impl Blocking for RealBlocking {
    async fn run_boxed(&self, work: Box<dyn FnOnce() + Send>) {
        match tokio::task::spawn_blocking(work).await {
            // A panic shows itself to the caller of `Host::blocking`, whose answer never comes.
            Ok(()) => {}
            Err(error) if error.is_panic() => {}
            // The runtime is shutting down and the work never began. There is nobody left to tell: whoever waits here
            // is about to be dropped.
            Err(_cancelled) => std::future::pending().await,
        }
    }
}

/// Runs one operating system call off the event loop.
pub(super) async fn off_loop<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(io::Error::other("the runtime is shutting down: the call was not made")),
        },
    }
}
