//! The real operating system behind the seam: Linux, through tokio, std and rustix.
//!
//! Owns: the only code of the product that opens files and sockets, reads the wall clock, asks the kernel for
//! randomness and starts processes.
//!
//! Must never: decide, retry on its own account or hide an error. Raw errors pass through with their kind and errno; the
//! caller knows which path or address it meant and says so. (An interrupted system call is no error: it is repeated.)
//!
//! Invariants: nothing here blocks the event loop: what may wait for a disk runs on tokio's blocking pool. A process is
//! only ever signalled through its pidfd.

// This is the one place that may: everywhere else clippy.toml sends people to a `Host`.
#![allow(clippy::disallowed_methods)]

mod blocking;
mod clock;
mod disk;
#[cfg(feature = "fault-points")]
pub(crate) mod fault;
mod load;
mod net;
mod proc;
mod procfs;
mod rand;
mod supervise;

use std::sync::Arc;

pub use self::supervise::supervisor;
use crate::Host;

/// The machine this process runs on.
///
/// Its asynchronous parts must be used within a tokio runtime that has IO and time enabled.
///
/// # Panics
/// When /proc is not mounted: without it no process can be told from another that reuses its pid.
pub fn host() -> Host {
    Host {
        net: Arc::new(net::RealNet),
        disk: Arc::new(disk::RealDisk),
        clock: Arc::new(clock::RealClock),
        rand: Arc::new(rand::RealRand),
        blocking: Arc::new(blocking::RealBlocking),
        proc: Arc::new(proc::RealProc::new()),
    }
}
