//! A file system that shows a folder as it is, and hangs, dawdles or fails when it is told to: a disk that does not simply
//! die. Linux only, by FUSE, without a library of C; mounting needs root.
//!
//! Owns: what lies between the mount point and the folder behind it, and the socket that orders are taken from. One of the
//! few modules outside `host` that touch files themselves: it is a part of the machine and not of the product.
//!
//! Must never: change, keep back or make up a byte. A fault is a wait or an error, and what was answered was done.
//!
//! Invariants:
//! - What is held holds nothing else up: it has no thread, and what the kernel would answer from memory is answered.
//! - It outlives nobody: when its process ends, killed or not, the kernel closes the connection, and whatever waits for it
//!   fails (ENOTCONN, ECONNABORTED). So a request may hang for ever, and nobody can.

#![allow(clippy::disallowed_methods, reason = "it is the disk: below it there is no seam")]

mod answers;
mod control;
mod gate;
mod kernel;
mod names;
mod rules;
mod volume;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use fuser::{Config, MountOption, Session, SessionACL};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

pub use control::{ControlError, tell};
use gate::Gate;
use kernel::Kernel;
pub use rules::{Order, OrderError};
use volume::Volume;

/// Threads that do requests. None of them waits for a fault; each may wait for the real disk below, as for a sync.
const THREADS: usize = 8;

/// What is shown where.
#[derive(Clone, Debug)]
pub struct FaultFsOptions {
    /// The folder behind it.
    pub backing: PathBuf,
    /// Where it is mounted: a folder, and not within the one behind.
    pub mount: PathBuf,
    /// The socket that orders are taken from; it is there once the file system is mounted.
    pub control: PathBuf,
}

/// Why there is no such file system.
#[derive(Debug, Error)]
pub enum FaultFsError {
    /// The folder behind it.
    #[error("the folder {path} cannot be shown")]
    Backing {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It would ask itself, and wait for itself.
    #[error("{mount} lies in {backing}: a file system cannot be mounted within the folder that it shows")]
    Within {
        /// The mount point.
        mount: PathBuf,
        /// The folder behind it.
        backing: PathBuf,
    },
    /// Mounting.
    #[error("the fault file system cannot be mounted at {path}: this needs root and /dev/fuse")]
    Mount {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The control socket.
    #[error("the control socket {path} cannot be used (its path may have 107 bytes at most)")]
    Control {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The connection to the kernel.
    #[error("the fault file system ended")]
    Ended(#[source] io::Error),
    /// It is asked to end while files on it are open.
    #[error("{path} is in use: it stays, and everything on it fails from now on; umount --lazy removes it")]
    Busy {
        /// The mount point.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Mounts the file system, and keeps it until `shutdown` or until somebody unmounts it.
///
/// # Errors
/// When it cannot be mounted or controlled, or ends by itself.
pub async fn serve(options: &FaultFsOptions, shutdown: impl Future<Output = ()>) -> Result<(), FaultFsError> {
    let FaultFsOptions { backing, mount, control } = options;
    let unseen = |source| FaultFsError::Backing { path: backing.clone(), source };
    let root = backing.canonicalize().map_err(unseen)?;
    std::fs::read_dir(&root).map_err(unseen)?;
    let not_mounted = |source| FaultFsError::Mount { path: mount.clone(), source };
    if mount.canonicalize().map_err(not_mounted)?.starts_with(&root) {
        return Err(FaultFsError::Within { mount: mount.clone(), backing: root });
    }
    let gate = Arc::new(Gate::default());
    let kernel = Kernel { gate: Arc::clone(&gate), volume: Arc::new(Volume::new(root)) };
    let mut session = Session::new(kernel, mount, &config()).map_err(not_mounted)?;
    let mut unmounter = session.unmount_callable();
    let (tell_end, end) = oneshot::channel();
    let running = std::thread::Builder::new().name("fault-fs".to_owned());
    running.spawn(move || tell_end.send(session.run())).map_err(FaultFsError::Ended)?;

    let uncontrolled = |source| FaultFsError::Control { path: control.clone(), source };
    match std::fs::remove_file(control) {
        // Of one that was killed.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(uncontrolled(error)),
    }
    let listener = UnixListener::bind(control).map_err(uncontrolled)?;
    let outcome = tokio::select! {
        // The sender goes with a thread that panicked.
        ended = end => ended.unwrap_or_else(|lost| Err(io::Error::other(lost))).map_err(FaultFsError::Ended),
        error = control::serve(listener, Arc::clone(&gate)) => Err(uncontrolled(error)),
        () = shutdown => {
            // What is held would keep the mount point busy.
            gate.order(Order::Clear);
            unmounter.unmount().map_err(|source| FaultFsError::Busy { path: mount.clone(), source })
        }
    };
    std::fs::remove_file(control).map_err(uncontrolled)?;
    outcome
}

fn config() -> Config {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("resilver-fault-fs".to_owned()), MountOption::DefaultPermissions];
    // A node may run as somebody else than who mounts.
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config
}
