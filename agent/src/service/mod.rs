//! The node as a service of its host: is it running, how did it end, start it, stop it.
//!
//! Owns: the trait [`ServiceManager`] and what its answers mean.
//!
//! Must never: decide whether a node should run. It does what a step says and reports what is.
//!
//! Invariants: starting is idempotent (a running node is returned, never a second one started); a process is named by
//! pid and start time everywhere.

mod child;
mod systemd;

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use resilver_host::{ExitStatus, Host, ProcId};
use resilver_strategies::api::ExitClass;

pub use child::ChildService;
pub use systemd::SystemdService;

use crate::options::{Options, ServiceKind};

/// How a run of the node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The process it was.
    pub node: ProcId,
    /// How, classified.
    pub exit: ExitClass,
    /// The last error it printed; empty when none is known.
    pub last_error: String,
    /// An operator stopped it on purpose, or it returned success unasked.
    pub deliberate: bool,
}

/// What the service manager knows of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// It runs.
    Running(ProcId),
    /// It ran in this boot and ended.
    Ended(Ended),
    /// It was never started in this boot, or left no trace.
    Absent,
}

/// Why a service manager could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A record of the run could not be read or written.
    #[error("cannot {what}")]
    Record {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// Which.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// The keeper or systemctl said no.
    #[error("{what} failed ({how}): {said}")]
    Failed {
        /// What was tried.
        what: String,
        /// Its exit status.
        how: String,
        /// Its last words.
        said: String,
    },
    /// It took too long.
    #[error("{what} did not happen within {seconds} s")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
}

/// Starts, stops and watches the node of this host.
#[async_trait]
pub trait ServiceManager: Send + Sync + 'static {
    /// What is known now.
    ///
    /// # Errors
    /// When the manager cannot be asked or its records cannot be read.
    async fn state(&self) -> Result<ServiceState, ServiceError>;

    /// Starts the node unless it runs. Returns the running process.
    ///
    /// # Errors
    /// When it could not be started.
    async fn start(&self) -> Result<ProcId, ServiceError>;

    /// Ends the node cleanly, by force when it does not follow, and starts it again. Returns the new process.
    ///
    /// # Errors
    /// When it could not be ended or not be started.
    async fn restart(&self, owner: &str, reason: &str) -> Result<ProcId, ServiceError>;

    /// How the run of `node` ended, once its exit was seen. Waits a moment for the record.
    ///
    /// # Errors
    /// When the manager cannot be asked.
    async fn ended(&self, node: ProcId) -> Result<Ended, ServiceError>;

    /// Whether a restart of ours is under way: an exit seen now is part of it and no failure.
    fn is_restarting(&self) -> bool;
}

/// The service manager that the options name.
pub fn manager(host: &Host, options: &Options) -> Arc<dyn ServiceManager> {
    match options.service.kind {
        ServiceKind::Child => Arc::new(ChildService::new(host, options)),
        ServiceKind::Systemd => Arc::new(SystemdService::new(host, options)),
    }
}

/// Says in the engine's words how a process ended.
fn classify(status: ExitStatus, out_of_memory: bool, last_error: &str) -> ExitClass {
    /// What Rust and libc print for ENOSPC; the node's own errors carry their source's text.
    const NO_SPACE: [&str; 3] = ["No space left on device", "os error 28", "ENOSPC"];
    if out_of_memory {
        return ExitClass::OutOfMemory;
    }
    match status {
        ExitStatus::Signal(signal) => ExitClass::Signal(signal),
        ExitStatus::Code(0) => ExitClass::Code(0),
        ExitStatus::Code(_) if NO_SPACE.iter().any(|text| last_error.contains(text)) => ExitClass::NoSpace,
        ExitStatus::Code(code) => ExitClass::Code(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_counted_kill_is_out_of_memory() {
        assert_eq!(classify(ExitStatus::Signal(9), false, ""), ExitClass::Signal(9));
        assert_eq!(classify(ExitStatus::Signal(9), true, ""), ExitClass::OutOfMemory);
    }

    #[test]
    fn a_full_disk_is_told_from_another_failure() {
        let said = "append: No space left on device (os error 28)";
        assert_eq!(classify(ExitStatus::Code(1), false, said), ExitClass::NoSpace);
        assert_eq!(classify(ExitStatus::Code(1), false, "port in use"), ExitClass::Code(1));
        assert_eq!(classify(ExitStatus::Code(0), false, said), ExitClass::Code(0));
    }
}
