//! The seam to the operating system.
//!
//! Owns: every trait through which the node and the agent touch network, disks, wall clock, randomness, blocking work
//! and processes, and their real implementations ([`real`]).
//!
//! Must never: decide anything. A policy found here is in the wrong crate.
//!
//! Invariants: nothing global (a [`Host`] is handed in); whatever is not behind one of these traits must be
//! deterministic, because the simulator replaces exactly these traits and nothing else. Sleeping, spawning and
//! synchronising stay tokio's: its time can be paused.

pub mod audit;
pub mod clock;
pub mod disk;
pub mod fault;
pub mod net;
pub mod planted;
pub mod proc;
pub mod rand;
pub mod real;
pub mod supervise;

use std::sync::Arc;

pub use crate::clock::{Clock, WallTime};
pub use crate::disk::{BlockingFile, DeviceNumber, DirEntry, Disk, File, FileKind, Metadata, OpenMode, Space};
pub use crate::net::{Datagram, Listener, Net, Stream};
pub use crate::proc::{BootId, ExitStatus, HostLoad, Proc, ProcId, ProcMemory, Process, RunState, Signal, SpawnSpec};
pub use crate::rand::{Rand, Rng};
pub use crate::supervise::Supervisor;

/// Runs closures that block (redb, compression) off the event loop.
///
/// Real: tokio's blocking pool. Simulated: inline, after a drawn delay.
#[async_trait::async_trait]
pub trait Blocking: Send + Sync + 'static {
    /// Runs `work` to completion. Dropping the returned future does not stop the work.
    async fn run_boxed(&self, work: Box<dyn FnOnce() + Send>);
}

/// Everything a component may ask of the machine it runs on. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    /// Streams and datagrams.
    pub net: Arc<dyn Net>,
    /// Files and folders.
    pub disk: Arc<dyn Disk>,
    /// Wall time, for people and records; never for decisions.
    pub clock: Arc<dyn Clock>,
    /// Randomness, forked by label.
    pub rand: Arc<dyn Rand>,
    /// Blocking closures.
    pub blocking: Arc<dyn Blocking>,
    /// Child and foreign processes.
    pub proc: Arc<dyn Proc>,
}

impl Host {
    /// Runs a blocking closure off the event loop and returns its value.
    ///
    /// # Panics
    /// When the closure panicked: a panic in a blocking part is a panic of its caller.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.blocking
            .run_boxed(Box::new(move || {
                // A caller that stopped waiting is no error: the work itself was wanted.
                let _ = tx.send(work());
            }))
            .await;
        rx.await.expect("blocking work panicked")
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Host")
    }
}
